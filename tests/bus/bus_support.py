"""Processes for the tests of the bus. Run as a script, it is one worker: ``bus_support.py NAME DESCRIPTOR CLASS``."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mutoscope import bus
from mutoscope.model import errors
from polling import until

DEADLINE_S = 20.0


class Echo(bus.Command):
    value: Any = None


class Add(bus.Command):
    a: int
    b: int


class Raise(bus.Command):
    class_name: str


class Blob(bus.Command):
    data: bytes


class Image(bus.Command):
    pixels: np.ndarray


class Tick(bus.Command):
    n: int


class Ticks(bus.Command):
    """How many ticks came, and whether in order."""


class Flood(bus.Command):
    """Send `count` ticks to somebody, from within the handler, each acknowledged."""

    to: str
    count: int


class Poke(bus.Command):
    """Broadcast."""


class Stop(bus.Command):
    """Stop hearing for so long."""

    seconds: float


class Private(bus.Command):
    """Only the supervisor sends it."""


class NotForScripts(bus.Command):
    pass


class Shared(bus.Event):
    n: int
    text: str = ""


class Unknown(bus.Command):
    pass


class StrangeError(Exception):
    """No other process knows it."""


def error_called(name: str) -> Exception:
    kind = getattr(errors, name)
    special = {
        "FramesLostError": lambda: errors.FramesLostError(7, 3, "detached"),
        "RemoteError": lambda: errors.RemoteError("SomethingError", "it went wrong"),
    }
    return special.get(name, lambda: kind("said so: ü"))()


class Worker:
    def __init__(self, name: str) -> None:
        self.name = name
        self.endpoint: bus.Endpoint | None = None
        self.ticks = 0
        self.in_order = True

    @bus.handles(Echo)
    def echo(self, command):
        return command.value

    @bus.handles(Add)
    def add(self, command) -> int:
        return command.a + command.b

    @bus.handles(Raise)
    def fail(self, command):
        if command.class_name == "StrangeError":
            raise StrangeError("nobody knows me")
        if command.class_name == "KeyError":
            raise KeyError("missing")
        raise error_called(command.class_name)

    @bus.handles(Blob)
    def blob(self, command) -> bytes:
        return command.data[::-1]

    @bus.handles(Image)
    def image(self, command) -> np.ndarray:
        return command.pixels + 1

    @bus.handles(Tick)
    def tick(self, command) -> None:
        self.in_order = self.in_order and command.n == self.ticks
        self.ticks += 1

    @bus.handles(Ticks)
    def count(self, command) -> tuple[int, bool]:
        return self.ticks, self.in_order

    @bus.handles(Flood)
    def flood(self, command) -> int:
        for n in range(command.count):
            self.endpoint.send(Tick(n=n), to=command.to)
        return command.count

    @bus.handles(Poke, delivery="broadcast")
    def poke(self, command) -> str:
        return self.name

    @bus.handles(Stop)
    def stop(self, command) -> None:
        wait(command.seconds)

    @bus.handles(Private, delivery="supervisor")
    def private(self, command) -> str:
        return f"{self.name} did it"

    @bus.handles(NotForScripts, script=False)
    def not_for_scripts(self, command) -> str:
        return "done"


class Quiet:
    """Handles nothing but the broadcast."""

    def __init__(self, name: str) -> None:
        self.name = name

    @bus.handles(Poke, delivery="broadcast")
    def poke(self, command) -> str:
        return self.name


def wait(seconds: float) -> None:
    """Hear nothing for so long."""
    time.sleep(seconds)


class HubThread:
    """A hub with its loop, in a thread of the test. :meth:`do` runs something in that thread."""

    def __init__(self, **options: Any) -> None:
        self.hellos: dict[str, bus.Manifest] = {}
        self.lost: dict[str, str] = {}
        self.crashes: list[tuple[str, Any]] = []
        self.problems: list[tuple[str, str, str, Exception]] = []
        self.selector = selectors.DefaultSelector()
        self.hub = bus.Hub(
            self.selector,
            on_hello=self.hellos.__setitem__,
            on_peer_lost=self.lost.__setitem__,
            on_crash_report=lambda name, record: self.crashes.append((name, record)),
            on_problem=lambda *problem: self.problems.append(problem),
            **options,
        )
        self.error: BaseException | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self._asked: list[Callable[[], None]] = []
        self._bell, self._button = socket.socketpair()
        self.selector.register(self._bell, selectors.EVENT_READ, self._answer)
        self._running = True
        self._thread = threading.Thread(target=self._run, name="hub")
        self._thread.start()

    def _run(self) -> None:
        try:
            while self._running:
                deadline = self.hub.next_deadline()
                timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
                for key, mask in self.selector.select(timeout):
                    key.data(mask)
                self.hub.tick()
        except BaseException as error:
            self.error = error
            raise

    def _answer(self, mask: int) -> None:
        self._bell.recv(4096)
        while self._asked:
            self._asked.pop(0)()

    def do(self, action: Callable[[], Any]) -> Any:
        answers: list[Any] = []
        done = threading.Event()

        def run() -> None:
            try:
                answers.append(action())
            except Exception as error:
                answers.append(error)
            done.set()

        self._asked.append(run)
        self._button.send(b"x")
        assert done.wait(DEADLINE_S), f"the hub's thread does not answer ({self.error!r})"
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    def connect(self, name: str, kind: str = "worker") -> socket.socket:
        """Add a peer; return its end."""
        mine, theirs = socket.socketpair()
        try:
            self.do(lambda: self.hub.add_peer(name, mine, kind))
        except Exception:
            mine.close()
            theirs.close()
            raise
        return theirs

    def spawn(self, *names: str, cls: str = "Worker") -> list[subprocess.Popen[bytes]]:
        """Start worker processes and wait for their hello."""
        started = []
        paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
        for name in names:
            self.lost.pop(name, None)
            self.hellos.pop(name, None)
            with self.connect(name) as end:
                command = [sys.executable, str(Path(__file__)), name, str(end.fileno()), cls]
                started.append(subprocess.Popen(command, pass_fds=[end.fileno()], env=os.environ | {"PYTHONPATH": paths}))
        self._children += started
        for name in names:
            until(lambda name=name: name in self.hellos)
        return started

    def client(self, name: str = "program", **options: Any) -> bus.ThreadedEndpoint:
        endpoint = bus.ThreadedEndpoint(self.connect(name, "client"), name, **options)
        endpoint.hello()
        return endpoint

    def close(self) -> None:
        if self.error is None:
            self.do(self.hub.close)
        self._running = False
        self._button.send(b"x")
        self._thread.join()
        self.selector.close()
        self._bell.close()
        self._button.close()
        for child in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
            try:
                child.wait(5.0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        assert self.error is None


class EndpointThread:
    """A worker in a thread of the test, for what needs no process of its own."""

    def __init__(self, hub: HubThread, name: str, *owners: object, **options: Any) -> None:
        self.owners = owners
        self.sock = hub.connect(name)
        self.endpoint: bus.Endpoint | None = None
        self._options = options
        self._name = name
        self._ready = threading.Event()
        self._goes_on = threading.Event()
        self._goes_on.set()
        self._parked = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"worker-{name}")
        self._thread.start()
        assert self._ready.wait(DEADLINE_S)

    def _run(self) -> None:
        with bus.Endpoint(self.sock, self._name, **self._options) as endpoint:
            self.endpoint = endpoint
            for owner in self.owners:
                endpoint.serve(owner)
                owner.endpoint = endpoint
            endpoint.hello()
            self._ready.set()
            while not endpoint.peer_closed and not self._stopping:
                if not self._goes_on.is_set():
                    self._parked.set()
                    self._goes_on.wait()
                    continue
                endpoint.pump(0.05)
                endpoint.dispatch()

    def pause(self) -> None:
        """Hear nothing until :meth:`resume`."""
        self._parked.clear()
        self._goes_on.clear()
        assert self._parked.wait(DEADLINE_S)

    def resume(self) -> None:
        """Hear again."""
        self._goes_on.set()

    def close(self) -> None:
        self._stopping = True
        self._goes_on.set()
        self._thread.join()


def main(name: str, descriptor: str, cls: str) -> None:
    os.set_inheritable(int(descriptor), False)
    worker = globals()[cls](name)
    with bus.Endpoint(socket.socket(fileno=int(descriptor)), name) as endpoint:
        worker.endpoint = endpoint
        endpoint.serve(worker)
        endpoint.hello()
        while not endpoint.peer_closed:
            endpoint.pump(1.0)
            endpoint.dispatch()


if __name__ == "__main__":
    main(*sys.argv[1:])
