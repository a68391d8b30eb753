"""What a worker says reaches ``scope.log``, whatever it holds and whichever thread says it, and never harms who says it."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest
from lab import Idler, camera, status_of

import mutoscope as ms
from polling import until

UNDECODABLE = os.fsdecode(b"/tmp/caf\xe9.tif")


class Say(ms.Command):
    how: str


class Unsayable(Exception):
    def __str__(self) -> str:
        raise KeyError("no words")


class Speaker(Idler):
    fails = ""

    def step(self) -> None:
        if self.fails:
            raise ValueError(f"cannot read {self.fails}")
        super().step()

    @ms.handles(Say)
    def say(self, command: Say) -> int:
        if command.how == "raise":
            raise ValueError(f"cannot read {UNDECODABLE}")
        if command.how == "raise without text":
            raise Unsayable
        if command.how == "crash":
            self.fails = UNDECODABLE
        if command.how == "undecodable":
            self.log.warning("reading %s", UNDECODABLE)
        if command.how == "long":
            self.log.warning("%s", "long" * 17_500_000)
        if command.how == "unsayable":
            self.log.warning("it says %s", Unsayable())
        if command.how == "threads":
            return self._in_threads()
        return os.getpid()

    def _in_threads(self) -> int:
        raised: list[BaseException] = []

        def speak(who: int) -> None:
            try:
                for n in range(100):
                    logging.getLogger("vendor").warning("thread %d says %d", who, n)
            except BaseException as error:
                raised.append(error)

        threads = [threading.Thread(target=speak, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(raised)


def test_whatever_is_said_arrives_and_harms_nobody(tmp_path: Path) -> None:
    log = tmp_path / "run.mutoscope" / "scope.log"
    with ms.Scope(camera=camera(), workers=[Speaker], record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        pid = scope.request(Say(how="nothing"))
        with pytest.raises(ValueError, match=r"cannot read /tmp/caf\\udce9.tif"):
            scope.request(Say(how="raise"))
        with pytest.raises(Exception, match="__str__ raised KeyError"):
            scope.request(Say(how="raise without text"))
        for how in ("undecodable", "long", "unsayable"):
            assert scope.request(Say(how=how)) == pid
        assert scope.request(Say(how="threads")) == 0
        until(lambda: all(f"thread {who} says 99" in log.read_text() for who in range(4)), what="lines of threads")
        told = log.read_text()
        assert told.count("thread ") == 400
        assert r"handling Say of program failed: cannot read /tmp/caf\udce9.tif" in told
        assert r"reading /tmp/caf\udce9.tif" in told
        assert "(69,980,000 more characters)" in told
        assert status_of(scope, "Speaker").restarts == 0
        scope.request(Say(how="crash"))
        until(lambda: status_of(scope, "Speaker").restarts == 1, what="a restart")
        until(lambda: r"ValueError: cannot read /tmp/caf\udce9.tif" in log.read_text(), what="the crash report")
        scope.acquire(frames=3)
