"""The sender's end of a pipe: a thread that keeps a connection to a viewer's gate, and takes up the session after a loss."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from mutoscope.frames import _os
from mutoscope.model.errors import MutoscopeError, ViewerTimeoutError, ViewerUnavailableError
from mutoscope.viewers.remote.address import Address, check_descriptors, load_zmq
from mutoscope.viewers.remote.keys import own_key, trusted_key
from mutoscope.viewers.remote.messages import (
    MESSAGE_BYTES,
    PIPE_VERSION,
    Ack,
    Beat,
    Data,
    End,
    FromEnd,
    Open,
    Opened,
    decode,
    encode,
)
from mutoscope.viewers.remote.packing import check_compression
from mutoscope.viewers.remote.pipe import WINDOW_BYTES, Pipe
from mutoscope.viewers.wire import MalformedError

__all__ = ["AWAY_S", "BEAT_S", "SILENT_S", "Dial", "Remote"]

log = logging.getLogger(__name__)

BEAT_S = 1.0
"""After so long without a message, one is sent that says nothing."""
SILENT_S = 10.0
"""A connection on which nothing came for so long is given up, and another is made."""
AWAY_S = 60.0
"""A session whose other end was away for so long is over."""
_TURNED_AWAY_S = 5.0
"""The same, if there is nobody at its address, or nobody who holds its key."""
_ATTEMPT_S = 10.0
_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0)
_BROKEN_OFF = 3
"""A handshake that is broken off so often in a row is no accident."""
_LINGER_S = 2.0
_GOODBYE_MS = 200
_TICK_S = 0.5
_READS, _ALL = 64, 1 << 20
"""Messages that are read at a time, and before a connection is closed."""


@dataclass(frozen=True)
class Remote:
    """A viewer on another computer.

    Parameters
    ----------
    address : Address
        Where it listens.
    key : str or None
        As which its key is trusted here.
    compression : str
        Of what is sent: ``""``, ``"lz4"`` or ``"zstd"``.
    window_bytes : int
        Most bytes on their way.
    """

    address: Address
    key: str | None = None
    compression: str = ""
    window_bytes: int = WINDOW_BYTES

    def check(self) -> None:
        """Raise ConfigError, or BackendUnavailableError, where no attempt would help."""
        load_zmq()
        check_compression(self.compression)
        own_key()
        trusted_key(self.key, self.address.host)


class _Line:
    """One connection."""

    def __init__(self, zmq: Any, context: Any, address: str, own: tuple[str, str], key: str) -> None:
        self.sock = context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.RECONNECT_IVL, -1),  # each connection is a socket of its own
            (zmq.SNDHWM, 0),  # the pipe bounds what is on its way
            (zmq.MAXMSGSIZE, MESSAGE_BYTES),
            (zmq.HANDSHAKE_IVL, int(1000 * _ATTEMPT_S)),
            (zmq.CONNECT_TIMEOUT, int(1000 * _ATTEMPT_S)),
            (zmq.IPV6, 1),
            (zmq.CURVE_SERVERKEY, key.encode()),
            (zmq.CURVE_PUBLICKEY, own[0].encode()),
            (zmq.CURVE_SECRETKEY, own[1].encode()),
        ):
            self.sock.setsockopt(option, value)
        self.monitor = self.sock.get_monitor_socket()
        self.sock.connect(address)
        self.reached = self.let_in = self.opened = False
        self.since = self.heard = self.said = time.monotonic()

    def close(self) -> None:
        self.sock.disable_monitor()
        self.monitor.close(0)
        self.sock.close()


class Dial:
    """A connection to a viewer's gate, as a local socket.

    Parameters
    ----------
    remote : Remote
        Which viewer.

    Raises
    ------
    ConfigError
        If keys are missing.
    BackendUnavailableError
        If pyzmq, or what compression needs, is.
    """

    def __init__(self, remote: Remote) -> None:
        remote.check()
        self._zmq = load_zmq()
        self._remote = remote
        self._own = own_key()
        self._key_name, self._key = trusted_key(remote.key, remote.address.host)
        self.sock, inner = socket.socketpair()
        """The local socket, which is the caller's: what is written to it is read by the viewer."""
        self._pipe = Pipe(inner, remote.compression, remote.window_bytes)
        self._bell = _os.create_bell()
        self._pid = os.getpid()
        self._session = secrets.token_bytes(16)
        self._turn = threading.Condition()
        self._state = "opening"
        self._known = False
        self.reason = ""
        """Why it has ended."""
        self._problem = "it was not reached yet"
        self._line: _Line | None = None
        self._addresses: list[str] = []
        self._next_try = self._online = time.monotonic()
        self._attempts = self._broken_off = 0
        self._turned_away_since: float | None = None
        self._deadline = self._finish_by = float("inf")
        self._thread = threading.Thread(target=self._run, name="mutoscope-dial", daemon=True)

    # -- for the sink

    @property
    def is_away(self) -> bool:
        """Whether there is no connection at the moment."""
        return not self._is_online

    def start(self, timeout_s: float) -> None:
        """Begin, and wait until the viewer's gate has let this sender in.

        Raises
        ------
        ViewerUnavailableError
            If it is not there, or does not let it in; says which key is wrong and what helps.
        ViewerTimeoutError
            If it is not reached in time.
        """
        self._deadline = time.monotonic() + timeout_s
        try:
            self._thread.start()
        except RuntimeError:
            self._let_go()
            self.sock.close()
            raise
        with self._turn:
            self._turn.wait_for(lambda: self._state != "opening", timeout_s + _TICK_S)
            state = self._state
        if state == "open":
            return
        self.sock.close()
        self.finish(0.0)
        if state == "opening" or time.monotonic() >= self._deadline:
            raise ViewerTimeoutError(
                f"the viewer at {self._remote.address} was not reached within {timeout_s:g} s: {self.reason or self._problem}"
            )
        raise ViewerUnavailableError(self.reason)

    def finish(self, timeout_s: float = _LINGER_S) -> None:
        """Wait until the viewer's computer has what was written, at most so long, and end it. Close the socket before."""
        with self._turn:
            self._finish_by = min(self._finish_by, time.monotonic() + timeout_s)
            if self._bell >= 0:
                _os.ring_bell(self._bell)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def abandon(self) -> None:
        """Let go of the descriptors in a forked child, to which this connection does not belong."""
        if os.getpid() != self._pid:
            for fd in (self._pipe.sock.detach(), self._bell):
                if fd >= 0:
                    with contextlib.suppress(OSError):
                        os.close(fd)

    # -- the thread

    def _run(self) -> None:
        context = None
        try:
            check_descriptors()
            context = self._zmq.Context(io_threads=1)
            while not self._is_over():
                self._step(context)
        except (MutoscopeError, OSError, ValueError) as error:
            self._end(str(error))
        except Exception as error:
            log.exception("the connection to %s failed", self._remote.address)
            self._end(f"{type(error).__name__}: {error}")
        finally:
            self._say_goodbye()
            if self._line is not None:
                self._line.close()
            if context is not None:
                context.term()
            self._let_go()

    def _let_go(self) -> None:
        with self._turn:
            self._state = "ended"
            bell, self._bell = self._bell, -1
            if bell >= 0:
                os.close(bell)
            with contextlib.suppress(OSError):
                self._pipe.sock.shutdown(socket.SHUT_RDWR)  # also where a process that was forked meanwhile has a copy of it
            self._pipe.close()
            self._turn.notify_all()

    def _end(self, reason: str) -> None:
        self.reason = self.reason or reason
        with self._turn:
            self._state = "ended"

    def _is_over(self) -> bool:
        now, pipe = time.monotonic(), self._pipe
        if self._state == "ended" or pipe.is_over:
            return True
        if now >= self._finish_by:
            return True
        if self._finish_by < float("inf") and pipe.ended_here and pipe.all_taken:
            return True
        if pipe.ended_there and not self._is_online:
            return True  # the viewer has hung up, and its computer has gone: there is nobody to send the rest to
        if self._state == "opening" and now >= self._deadline:
            self._end(self._problem)
        elif self._state == "open" and not self._is_online:
            if now - self._online > AWAY_S:
                self._end(f"the connection to {self._remote.address} was lost for {AWAY_S:g} s: {self._problem}")
            elif self._turned_away_since is not None and now - self._turned_away_since > _TURNED_AWAY_S:
                self._end(f"the connection to {self._remote.address} was lost: {self._problem}")
        return self._state == "ended"

    @property
    def _is_online(self) -> bool:
        line = self._line
        return line is not None and line.opened

    def _step(self, context: Any) -> None:
        """Wait for something to happen, and answer it."""
        zmq, now = self._zmq, time.monotonic()
        if self._line is None and now >= self._next_try:
            self._connect(context)
        line, pipe = self._line, self._pipe
        poller = zmq.Poller()
        poller.register(self._bell, zmq.POLLIN)
        local = pipe.sock.fileno()
        poller.register(local, pipe.wants_to_read * zmq.POLLIN | pipe.wants_to_write * zmq.POLLOUT)
        if line is not None:
            poller.register(line.sock, zmq.POLLIN)
            poller.register(line.monitor, zmq.POLLIN)
        wait_s = _TICK_S if line is not None else min(_TICK_S, max(0.0, self._next_try - now))
        limit = min(self._finish_by, self._deadline if self._state == "opening" else self._finish_by)
        happened = dict(poller.poll(1000 * min(wait_s, max(0.0, limit - now))))
        if self._bell in happened:
            _os.clear_bell(self._bell)
        if line is not None and line.monitor in happened:
            self._look_at(line)
        if self._line is not None and self._line.sock in happened:
            self._receive(self._line)
        events = happened.get(local, 0)
        if events & ~zmq.POLLIN:
            pipe.write()
        if events & ~zmq.POLLOUT:
            pipe.read()
        self._send()
        line = self._line
        if line is not None:
            quiet = time.monotonic() - (line.heard if line.opened else line.since)
            if quiet > (SILENT_S if line.opened else _ATTEMPT_S):
                self._lost(f"nothing came from {self._remote.address} for {quiet:.0f} s")

    # -- connections

    def _connect(self, context: Any) -> None:
        if not self._addresses:
            try:
                self._addresses = self._remote.address.resolve()
            except OSError as error:
                problem = f"the computer {self._remote.address.host!r} is not known here: {error.strerror or error}"
                self._turned_away(problem, final=self._state == "opening")
                return
        try:
            check_descriptors()
        except OSError as error:
            self._lost(f"there is no connection to be had: {error.strerror} in this process (ulimit -n)")
            return
        address = self._addresses[self._attempts % len(self._addresses)]
        self._line = _Line(self._zmq, context, address, (self._own.public, self._own.secret), self._key)

    def _lost(self, problem: str) -> None:
        """The connection, or the attempt, has ended; another follows."""
        line, self._line = self._line, None
        if line is not None:
            if line.opened:
                self._online = time.monotonic()
                log.info("the connection to %s was lost: %s", self._remote.address, problem)
            line.close()
        if self._attempts == 1 and self._state == "open":  # it was not there again at once
            log.warning("the connection to %s is lost, and tried again for %g s: %s", self._remote.address, AWAY_S, problem)
        self._problem = problem
        self._next_try = time.monotonic() + _PAUSES_S[min(self._attempts, len(_PAUSES_S) - 1)]
        self._attempts += 1

    def _turned_away(self, problem: str, *, final: bool) -> None:
        """Somebody, or nobody, is there who does not let this sender in."""
        if final:
            self._end(problem)
        if self._turned_away_since is None:
            self._turned_away_since = time.monotonic()
        self._lost(problem)

    def _look_at(self, line: _Line) -> None:
        from zmq.utils.monitor import recv_monitor_message

        zmq = self._zmq
        while self._line is line and line.monitor.poll(0):
            event = recv_monitor_message(line.monitor)["event"]
            if event == zmq.EVENT_CONNECTED:
                line.reached = True
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                line.let_in, self._broken_off = True, 0
                self._say(line, Open(PIPE_VERSION, self._session, self._pipe.have, self._known, self._remote.compression))
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._turned_away(self._not_trusted(), final=True)
            elif event in (zmq.EVENT_CLOSED, zmq.EVENT_DISCONNECTED, zmq.EVENT_CONNECT_RETRIED):
                if line.let_in:
                    self._receive(line, _ALL)  # what came before
                    if self._line is line:
                        self._lost("it was cut")
                elif line.reached:
                    self._broken_off += 1
                    self._turned_away(self._wrong_key(), final=self._state == "opening" and self._broken_off >= _BROKEN_OFF)
                else:
                    self._not_reached()

    def _not_reached(self) -> None:
        """Find out why; ZeroMQ does not tell."""
        address = self._remote.address
        try:
            socket.create_connection((address.host, address.port), timeout=1.0).close()
        except ConnectionRefusedError:
            self._turned_away(
                f"no viewer listens at {address}; on that computer: mutoscope view VIEWER --listen tcp://0.0.0.0:{address.port}",
                final=self._state == "opening",
            )
        except OSError as error:
            self._lost(f"{address} is not reached: {error.strerror or error}")
        else:
            self._lost("it was cut")

    def _not_trusted(self) -> str:
        own = self._own
        return (
            f"the viewer at {self._remote.address} does not trust your key {own.name!r} ({own.public}); "
            f"on that computer: {own.trust_command()}"
        )

    def _wrong_key(self) -> str:
        return (
            f"what answers at {self._remote.address} does not hold the key that is trusted here as {self._key_name!r} "
            f"({self._key}), or is no viewer; `mutoscope keys list` there prints its key, and here: "
            f"mutoscope keys trust --replace {self._key_name} KEY"
        )

    # -- messages

    def _say(self, line: _Line, message: FromEnd | bytes) -> bool:
        zmq = self._zmq
        try:
            line.sock.send(message if isinstance(message, bytes) else encode(message), zmq.NOBLOCK)
        except zmq.Again:
            self._lost("it was cut")
            return False
        line.said = time.monotonic()
        return True

    def _send(self) -> None:
        line = self._line
        if line is None or not line.opened:
            return
        news = self._pipe.news()
        if news is not None and not self._say(line, news):
            return
        for message in self._pipe.to_send():
            if not self._say(line, message):
                return
        if time.monotonic() - line.said > BEAT_S:
            self._say(line, Beat())

    def _receive(self, line: _Line, most: int = _READS) -> None:
        zmq = self._zmq
        for _ in range(most):
            try:
                frames = line.sock.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            line.heard = time.monotonic()
            if len(frames) != 1:
                raise MalformedError("the viewer's gate speaks no sense: a message of several parts")
            self._take(line, decode(frames[0]))
            if self._line is not line:
                return

    def _take(self, line: _Line, message: FromEnd) -> None:
        match message:
            case Opened() if not line.opened:
                self._pipe.resume(message.have)
                if self._known:
                    log.info("the connection to %s is there again", self._remote.address)
                line.opened = self._known = True
                self._attempts, self._turned_away_since = 0, None
                with self._turn:
                    self._state = "open"
                    self._turn.notify_all()
            case End():
                self._end(message.reason)
            case Data() if line.opened:
                self._pipe.take(message)
            case Ack() if line.opened:
                self._pipe.acknowledged(message.count)
            case Beat():
                pass
            case _:
                raise MalformedError(f"the viewer's gate speaks no sense: {type(message).__name__}")

    def _say_goodbye(self) -> None:
        """Tell the gate, if the session ends before its time."""
        line = self._line
        if line is not None and line.opened and not self._pipe.is_over and self._say(line, End("the sender ended it")):
            line.sock.setsockopt(self._zmq.LINGER, _GOODBYE_MS)
