"""Two users' keys, viewers that listen, and a proxy between them that does what bad networks do."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from mutoscope.viewers import ViewerSink
from mutoscope.viewers.remote.keys import new_key, own_key, trust_key
from mutoscope.viewers.remote.listening import listen

PATIENCE_S = 60.0


class Users:
    """Two users who trust each other: one at the microscope, who sends, and one with a viewer."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._opened: set[str] = set()
        for name in ("desk", "scope"):
            self.become(name)
            new_key(name)
        public = {name: own_key().public for name in ("desk", "scope") if self.become(name)}
        for name, other in (("desk", "scope"), ("scope", "desk")):
            self.become(name)
            trust_key(other, public[other])

    def config(self, name: str) -> Path:
        """Where the keys of a user are."""
        return self._folder / name

    def become(self, name: str) -> bool:
        """Be another user, as far as keys go."""
        self._monkeypatch.setenv("XDG_CONFIG_HOME", str(self.config(name)))
        return True

    def listen(self, kind: str = "model", name: str = "model", port: int = 0, host: str = "127.0.0.1") -> str:
        """Have a viewer of the user at the desk listen, and be the one at the microscope; returns the viewer's address."""
        self.become("desk")
        self._opened.add(name)
        try:
            return listen(kind, f"tcp://{host}:{port}", name, timeout_s=PATIENCE_S).address
        finally:
            self.become("scope")

    def ends(self, name: str) -> None:
        """Have a viewer that was opened otherwise end, too."""
        self._opened.add(name)

    def end(self) -> None:
        """End the viewers."""
        for name in self._opened:
            ViewerSink(name, kind="model", timeout_s=PATIENCE_S).close(leave_open=False)


@contextlib.contextmanager
def users_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Users]:
    """Two users, with folders of their own; their viewers end with this."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    users = Users(folder, monkeypatch)
    try:
        yield users
    finally:
        users.end()


class Proxy:
    """Carries bytes between a port of its own and an address, with what goes wrong on the way.

    Attributes
    ----------
    delay_s : float
        How long each byte is on its way.
    carries : bool
        Whether anything goes on; what is held back goes on later.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.delay_s = 0.0
        self.carries = True
        self.carried = self.connections = 0
        self._ends: dict[socket.socket, socket.socket] = {}
        self._held: dict[socket.socket, deque[tuple[float, bytes]]] = {}
        self._resets: SimpleQueue[Future[int]] = SimpleQueue()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over:
            with contextlib.suppress(Empty):
                self._resets.get_nowait().set_result(self._drop_all())
            with selectors.DefaultSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ)
                for sock, held in self._held.items():
                    events = selectors.EVENT_READ if self.carries and sum(len(data) for _, data in held) < 1 << 22 else 0
                    other = self._held.get(self._ends[sock])
                    if self.carries and other and other[0][0] <= time.monotonic():
                        events |= selectors.EVENT_WRITE
                    if events:
                        selector.register(sock, events)
                happened = selector.select(0.002)
                for key, events in happened:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj in self._ends:
                        self._carry(key.fileobj, events)  # type: ignore[arg-type]
        self._drop_all()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(self._target, timeout=5.0)
        except OSError:
            near.close()
            return
        self.connections += 1
        for sock, other in ((near, far), (far, near)):
            sock.setblocking(False)
            self._ends[sock], self._held[sock] = other, deque()

    def _carry(self, sock: socket.socket, events: int) -> None:
        other = self._ends[sock]
        try:
            if events & selectors.EVENT_READ:
                data = sock.recv(1 << 16)
                if not data:
                    return self._drop(sock)
                self._held[sock].append((time.monotonic() + self.delay_s, data))
            if events & selectors.EVENT_WRITE:
                at, data = self._held[other].popleft()
                count = sock.send(data)
                self.carried += count
                if count < len(data):
                    self._held[other].appendleft((at, data[count:]))
        except (BlockingIOError, InterruptedError):
            self._held[other].appendleft((at, data))
        except OSError:
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        other = self._ends.pop(sock, None)
        if other is None:
            return
        self._ends.pop(other)
        for each in (sock, other):
            self._held.pop(each)
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, and no farewell
            each.close()

    def _drop_all(self) -> int:
        count = len(self._ends) // 2
        for sock in list(self._ends):
            self._drop(sock)
        return count

    def reset(self) -> int:
        """Reset all connections, with all that is held; returns how many."""
        asked: Future[int] = Future()
        self._resets.put(asked)
        return asked.result(PATIENCE_S)

    def close(self) -> None:
        """End it."""
        self._over = True
        self._thread.join()
        self._listener.close()


def environment(config: Path, runtime: Path) -> dict[str, str]:
    """The environment of a program of a user."""
    return importing() | {"XDG_CONFIG_HOME": str(config), "XDG_RUNTIME_DIR": str(runtime)}


def importing() -> dict[str, str]:
    """The environment of a program that imports what tests do."""
    here = Path(__file__).parent
    path = [str(here), str(here.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}
