"""A sink's connection to a viewer: what does not go out at once waits here, what comes in is handed on by a thread."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mutoscope.frames import _os
from mutoscope.model.errors import ConfigError
from mutoscope.viewers import wire

__all__ = ["HUNG_UP", "Carrier", "Channel"]

HUNG_UP = "it hung up"

_READ = 1 << 18
Behind = bytes | memoryview


class Carrier(Protocol):
    """What carries the bytes on to a viewer on another computer, from the other end of a channel's socket."""

    reason: str
    """Why it has ended, if not by the viewer."""

    @property
    def is_away(self) -> bool:
        """Whether the other computer is not reached, which is tried again."""

    def finish(self) -> None:
        """Wait a little for the last bytes, and end."""

    def abandon(self) -> None:
        """Let go of it in a forked child."""


class Channel:
    """Sends and receives over a socket; made and closed by a sink.

    Parameters
    ----------
    sock : socket
        Of a viewer that has let this sink in. The channel owns it.
    welcome : Welcome
        What it said.
    turn : Condition
        Held by whoever calls `send`, and while `on_message` and `on_end` run.
    on_message : callable(channel, message, behind)
        Gets what comes.
    on_end : callable(channel, why)
        Called once, when the viewer has hung up or speaks no sense.
    carrier : Carrier, optional
        Of a viewer on another computer; ended by the channel.
    """

    def __init__(
        self,
        sock: socket.socket,
        welcome: wire.Welcome,
        turn: threading.Condition,
        on_message: Callable[[Channel, wire.FromViewer, bytes], None],
        on_end: Callable[[Channel, str], None],
        carrier: Carrier | None = None,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.welcome = welcome
        self.carrier = carrier
        self._turn = turn
        self._on_message = on_message
        self._on_end = on_end
        self._out: deque[memoryview] = deque()
        self._bell = _os.create_bell()
        self._in = bytearray()
        self._closing = False
        self.queued_bytes = 0
        """Bytes that the viewer's socket has not taken yet."""
        self.goodbye: wire.Goodbye | None = None
        self._thread = threading.Thread(target=self._run, name="mutoscope-sink", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def send(self, message: wire.FromSink, behind: Behind = b"") -> None:
        """Send a message as soon as the viewer takes it; never waits. `behind` must not change until then.

        Raises
        ------
        ConfigError
            If it is more than a message can hold; nothing was sent.
        """
        try:
            data = wire.frame(message, len(behind))
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"this cannot be sent: {error}") from error
        if len(data) > wire.PREFIX.size + wire.MAX_MESSAGE:
            raise ConfigError(f"a message of {len(data):,} bytes is more than can be sent")
        if not self._out:
            data_left = self._send_now(memoryview(data))
            if data_left is None and not behind:
                return
            if data_left is None:
                data_left = self._send_now(memoryview(behind))
                if data_left is None:
                    return
                self._queue(data_left)
            else:
                self._queue(data_left)
                self._queue(memoryview(behind))
        else:
            self._queue(memoryview(data))
            self._queue(memoryview(behind))
        if self._bell >= 0:
            _os.ring_bell(self._bell)

    def _queue(self, data: memoryview) -> None:
        if len(data):
            self._out.append(data)
            self.queued_bytes += len(data)

    def _send_now(self, data: memoryview) -> memoryview | None:
        """Send what the socket takes; returns what is left of it."""
        try:
            count = self._sock.send(data, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return data
        except OSError:
            return data  # the thread finds out why
        return data[count:] if count < len(data) else None

    def _run(self) -> None:
        why = HUNG_UP
        try:
            while not self._closing:
                poller = select.poll()
                poller.register(self._sock, select.POLLIN | (select.POLLOUT if self._out else 0))
                poller.register(self._bell, select.POLLIN)
                for fd, event in poller.poll():
                    if fd == self._bell:
                        _os.clear_bell(self._bell)
                        continue
                    if event & select.POLLOUT:
                        with self._turn:
                            self._flush()
                    if event & (select.POLLIN | select.POLLHUP | select.POLLERR) and not self._receive():
                        return
        except wire.MalformedError as error:
            why = f"it speaks no sense: {error}"
        except OSError as error:
            why = str(error)
        finally:
            with self._turn:
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)  # also where a process that was forked meanwhile has a copy of it
                self._sock.close()
                bell, self._bell = self._bell, -1
                os.close(bell)
                if not self._closing:
                    self._closing = True
                    self._on_end(self, (self.carrier.reason if self.carrier is not None else "") or why)
            if self.carrier is not None:
                self.carrier.finish()

    def _flush(self) -> None:
        while self._out:
            part = self._out[0]
            left = self._send_now(part)
            self.queued_bytes -= len(part) - (0 if left is None else len(left))
            if left is None:
                self._out.popleft()
            else:
                self._out[0] = left
                break
        self._turn.notify_all()

    def _receive(self) -> bool:
        """Read and hand on; False at the end of the connection."""
        try:
            data = self._sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return True
        except ConnectionError:
            return False
        if not data:
            return False
        self._in += data
        while len(self._in) >= wire.PREFIX.size:
            size, behind = wire.split(self._in, wire.MAX_REPLY, wire.MAX_ANSWER)
            end = wire.PREFIX.size + size
            if len(self._in) < end + behind:
                break
            message = wire.decode_from_viewer(bytes(self._in[wire.PREFIX.size : end]))
            rest = bytes(self._in[end : end + behind])
            del self._in[: end + behind]
            with self._turn:
                if isinstance(message, wire.Goodbye):
                    self.goodbye = message
                self._on_message(self, message, rest)
        return True

    def close(self) -> None:
        """Hang up. Call it without holding the turn."""
        with self._turn:
            self._closing = True
            if self._bell >= 0:
                _os.ring_bell(self._bell)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def abandon(self) -> None:
        """Let go of the descriptors in a forked child, to which this connection does not belong."""
        for fd in (self._sock.detach(), self._bell):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        if self.carrier is not None:
            self.carrier.abandon()


def array_of(form: wire.Form, data: bytes) -> NDArray[Any]:
    """Return the array behind an answer."""
    if form.dtype not in {dtype.str for dtype in wire.DTYPES} or form.nbytes() != len(data):
        raise wire.MalformedError("an array of another form than it says")
    return np.frombuffer(data, form.kind()).reshape(form.shape).copy()
