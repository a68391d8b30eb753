"""Workers and small helpers that the tests of whole scopes share."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import mutoscope as ms
from mutoscope.cameras import SimulatedCamera
from mutoscope.runtime import Restart
from polling import until

PATIENT = Restart(limit=1000)
PATHS = [str(folder) for folder in Path(__file__).parents[:2]]
"""Where a program finds this module, and those that it imports."""


def camera(rate_hz: float = 300.0, shape: tuple[int, int] = (16, 24), **settings: Any) -> SimulatedCamera:
    """A small camera whose frames can be told from their ticks."""
    return SimulatedCamera(shape=shape, rate_hz=rate_hz, pattern="counter", **settings)


def status_of(scope: ms.Scope, name: str) -> Any:
    """What the supervisor says of one worker."""
    return next(status for status in scope.status() if status.name == name)


def kill_recorder_twice(scope: ms.Scope) -> None:
    """SIGKILL the recorder of a scope that acquires, twice while it stores; returns when its last successor has stored more."""
    for restart in (1, 2):
        until(lambda stored=scope.ledger.stored: scope.ledger.stored > stored)
        kill(scope, "recorder")
        until(lambda restart=restart: status_of(scope, "recorder").restarts == restart)
    until(lambda stored=scope.ledger.stored: scope.ledger.stored > stored + 20)


def kill(scope: ms.Scope, name: str, number: int = signal.SIGKILL) -> int:
    """Send a signal to a worker; returns its pid."""
    pid: int = status_of(scope, name).pid
    os.kill(pid, number)
    return pid


def back(scope: ms.Scope, name: str, restarts: int = 1) -> None:
    """Wait until a worker runs again."""
    until(
        lambda: status_of(scope, name).restarts >= restarts and status_of(scope, name).state == "running",
        what=f"{name} is back",
    )


class SetGain(ms.Command):
    gain: float


class WhoAreYou(ms.Command):
    pass


class Look(ms.Command):
    attribute: str


class Misbehave(ms.Command):
    how: str


class Everywhere(ms.Command):
    pass


class Looker(ms.Worker):
    """Looks at the newest frame."""

    gain = 1.0

    def setup(self) -> None:
        self.frames = self.reader("camera", policy="latest")

    def step(self) -> None:
        with self.frames.next(timeout_s=0.1) as frame:
            int(frame.array[0].sum())

    @ms.handles(SetGain)
    def set_gain(self, command: SetGain) -> float:
        self.gain = command.gain
        return self.gain

    @ms.handles(WhoAreYou)
    def who(self, command: WhoAreYou) -> str:
        return self.name


class Idler(ms.Worker):
    """Waits for commands; does what it is told, however bad."""

    def step(self) -> None:
        super().step()

    @ms.handles(Look)
    def look(self, command: Look) -> Any:
        value: Any = self
        for part in command.attribute.split("."):
            value = getattr(value, part)
        return value

    @ms.handles(Everywhere, delivery="broadcast")
    def everywhere(self, command: Everywhere) -> str:
        return self.name

    @ms.handles(Misbehave)
    def misbehave(self, command: Misbehave) -> None:
        self.how = command.how
        if self.how == "raise in handler":
            raise ValueError("the handler was told to fail")
        if self.how == "quit":
            self.quit("seen enough")
            self.quit("asked again")


class Misbehaving(ms.Event):
    """Said before something from which there is no return."""

    who: str


class Bystander(ms.Worker):
    """Does nothing and handles nothing."""


class Rogue(Idler):
    """Misbehaves in its step."""

    how = ""

    def step(self) -> None:
        how, self.how = self.how, ""
        if how == "raise":
            raise ValueError("the step was told to fail")
        if how == "exit":
            sys.exit(3)
        if how == "_exit":
            os._exit(3)
        if how == "segfault":
            ctypes.string_at(0)
        if how in ("spin", "block"):
            self.publish(Misbehaving(who=self.name))
        if how == "spin":
            while True:
                pass
        if how == "block":
            while True:  # a library call that comes back only to be called again, deaf to everything
                try:
                    ctypes.CDLL(None).usleep(900_000)
                except BaseException:
                    continue
        if how == "child":
            self.child = subprocess.Popen(["sleep", "1000"])
        super().step()


class EveryFrame(ms.Worker):
    """Takes every frame, slowly if asked, and says which ids it had."""

    pause_s = 0.0
    on_full = "drop"
    policy = "every"
    group: str | None = None

    def setup(self) -> None:
        self.frames = self.reader("camera", policy=self.policy, on_full=self.on_full, group=self.group)
        self.seen = self.table(f"seen by {self.name}", dtype=[("frame_id", "u8"), ("monotonic_ns", "i8"), ("total", "f8")])

    def step(self) -> None:
        with self.frames.next(timeout_s=0.1) as frame:
            total = float(frame.array.astype(np.float64).sum())
            until_s = time.monotonic() + self.pause_s
            while time.monotonic() < until_s:
                pass
            self.seen.append((frame.frame_id, time.monotonic_ns(), total))
            self.frames.commit(frame)


class Stage(Idler):
    """Something that moves: its history goes to a file beside which it is told to keep it."""

    moves = True
    diary = ""

    def _write(self, word: str) -> None:
        with open(self.diary, "a", encoding="utf-8") as file:
            file.write(f"{word}\n")

    def setup(self) -> None:
        self._write("setup")

    def step(self) -> None:
        how, self.how = getattr(self, "how", ""), ""
        if how == "raise":
            raise ValueError("the stage was told to fail")
        super().step()

    def teardown(self) -> None:
        self._write("teardown")

    def safe_state(self) -> None:
        self._write("safe")


__all__ = [name for name in dir() if not name.startswith("_") and name not in ("annotations",)]
