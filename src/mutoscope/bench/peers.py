"""The processes of a bench: each is started clean, says when it is ready, does what it is told and is gone at the end.

:class:`Peers` owns them. They hang on one end of a socket pair: when the bench dies, they read its end and stop.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from mutoscope.model.errors import PeerDiedError

__all__ = ["Control", "Peer", "Peers", "busy", "memory_bytes"]

_TIMEOUT_S = 60.0


class Control:
    """A process's line to the bench: JSON values, one a line."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = sock.makefile("rb")

    def fileno(self) -> int:
        """Return the descriptor, to wait on it."""
        return self._sock.fileno()

    @property
    def timeout_s(self) -> float:
        """How long `hear` waits."""
        return self._sock.gettimeout() or 0.0

    def say(self, value: Any) -> None:
        """Send a value."""
        self._sock.sendall(json.dumps(value).encode() + b"\n")

    def hear(self) -> Any:
        """Wait for the next value; :class:`EOFError` when the other end is gone."""
        line = self._file.readline()
        if not line.endswith(b"\n"):  # cut by its death
            raise EOFError
        return json.loads(line)

    def orders(self) -> Any:
        """Yield orders until there are no more."""
        while True:
            try:
                yield self.hear()
            except EOFError:
                return

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._sock.close()


class Peer:
    """The bench's end of one process."""

    def __init__(self, role: str, process: subprocess.Popen[bytes], control: Control) -> None:
        self.role = role
        self.process = process
        self.control = control

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def tell(self, order: Any) -> None:
        """Send an order."""
        self.control.say(order)

    def answer(self) -> Any:
        """Wait for what it says next.

        Raises
        ------
        PeerDiedError
            If it ended instead; its own traceback went to standard error.
        """
        try:
            return self.control.hear()
        except EOFError:
            raise PeerDiedError(f"{self.role} ended with code {self.process.wait(_TIMEOUT_S)}") from None
        except TimeoutError:
            raise TimeoutError(f"{self.role} said nothing for {self.control.timeout_s:.0f} s") from None

    def ask(self, order: Any) -> Any:
        """Send an order and wait for its answer."""
        self.tell(order)
        return self.answer()


class Peers:
    """Starts the processes of a bench and ends them all, whatever happened.

    Parameters
    ----------
    patience_s : float
        How long they may take to end when they are hung up on; then they are killed.
    answer_s : float
        How long they may take to answer.
    """

    def __init__(self, patience_s: float = 5.0, answer_s: float = _TIMEOUT_S) -> None:
        self._patience_s = patience_s
        self._answer_s = answer_s
        self._peers: list[Peer] = []
        self._launched: list[Peer] = []

    def start(self, role: Callable[..., None], *, fds: Sequence[int] = (), **arguments: Any) -> Peer:
        """Start ``role(control, **arguments)`` in a process of its own and wait until it says ``"ready"``.

        Parameters
        ----------
        role : callable
            A function at the top of a module.
        fds : sequence of int
            Descriptors that keep their numbers there.
        **arguments
            Values that JSON can carry.
        """
        peer = self.launch(role, fds=fds, **arguments)
        self.wait_ready()
        return peer

    def launch(self, role: Callable[..., None], *, fds: Sequence[int] = (), **arguments: Any) -> Peer:
        """As :meth:`start`, without waiting: several that are launched get ready side by side (:meth:`wait_ready`)."""
        mine, theirs = socket.socketpair()
        mine.settimeout(self._answer_s)
        command = [sys.executable, "-m", "mutoscope.bench._peer_main", f"{role.__module__}:{role.__qualname__}"]
        command += [str(theirs.fileno()), json.dumps(arguments)]
        with theirs:
            process = subprocess.Popen(command, pass_fds=[*fds, theirs.fileno()], stdin=subprocess.DEVNULL)
        peer = Peer(role.__name__, process, Control(mine))
        self._peers.append(peer)
        self._launched.append(peer)
        return peer

    def wait_ready(self) -> None:
        """Wait until every process that was launched has said ``"ready"``."""
        while self._launched:
            peer = self._launched.pop(0)
            said = peer.answer()
            if said != "ready":
                raise PeerDiedError(f"{peer.role} said {said!r} instead of being ready")

    def close(self) -> None:
        """Hang up, wait, and kill what does not go."""
        for peer in self._peers:
            peer.control.close()
        end = time.monotonic() + self._patience_s
        for peer in self._peers:
            try:
                peer.process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                peer.process.kill()
                peer.process.wait()
        self._peers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def busy(control: Control) -> None:
    """A process that computes without a pause, as a user's program does."""
    control.say("ready")
    control._sock.setblocking(False)
    number = 1
    while True:
        for _ in range(20_000):
            number = number * 1103515245 + 12345 & 0x7FFFFFFF
        try:
            if not control._sock.recv(1):
                return
        except BlockingIOError:
            continue


def memory_bytes(pid: int, field: str = "VmRSS") -> int:
    """Return a field of ``/proc/<pid>/status`` in bytes: ``VmRSS`` now, ``VmHWM`` its peak, ``RssAnon`` the private part."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    raise KeyError(field)
