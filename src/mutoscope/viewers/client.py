"""One sender at a viewer: what comes from it is cut into messages, its account is kept and told."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.frames import ArenaReader, _os
from mutoscope.viewers import wire
from mutoscope.viewers.account import Counts, Runs, SenderProgress
from mutoscope.viewers.display import Display
from mutoscope.viewers.wire import MalformedError

__all__ = ["ACCOUNT_S", "Client", "Incoming"]

_READ = 1 << 16
_HELLO_BYTES = 1 << 16
_MOST_FDS = 1
ACCOUNT_S = 0.001
_ACCOUNT_BYTES = 4 << 20


class Incoming:
    """An item of which more bytes are to come.

    Parameters
    ----------
    message : Image or Rois
        Its message.
    total : int
        Bytes of all of it.
    """

    def __init__(self, message: wire.Image | wire.Rois, total: int) -> None:
        self.message = message
        self.bytes: NDArray[np.uint8] = np.empty(total, np.uint8)
        self.filled = 0

    def fill(self, part: NDArray[np.uint8]) -> bool:
        """Add some; returns whether it is whole."""
        end = self.filled + len(part)
        if end > len(self.bytes):
            raise MalformedError("more bytes than the item has")
        self.bytes[self.filled : end] = part
        self.filled = end
        return end == len(self.bytes)


class Client:
    """A connection from a sender. Used by the thread that receives alone.

    Parameters
    ----------
    sock : socket
        Connected; non-blocking from now on.
    peer : str
        Of one on another computer, which was let in by its key: whose that is, and where.
    """

    def __init__(self, sock: socket.socket, peer: str = "") -> None:
        sock.setblocking(False)
        self.sock = sock
        self.peer = peer
        self.since = time.monotonic()
        self.hello: wire.Hello | None = None
        self.display = Display()
        self.arena: ArenaReader | None = None
        self.partial: dict[int, Incoming] = {}
        self.last_id = 0
        self.images, self.rois = Counts(), Counts()
        self.oldest: dict[int, int] = {}
        self._in: bytes | bytearray = b""
        self._at = 0
        """How much of `_in` is used."""
        self._fds: list[int] = []
        self._behind: NDArray[np.uint8] | None = None
        self._behind_filled = 0
        self._message: wire.FromSink | None = None
        self._out: deque[memoryview] = deque()
        self._received, self._displayed = Runs(), Runs()
        self._failed: list[tuple[int, str]] = []
        self._news = False
        self._told_at = 0.0
        self._untold_bytes = 0
        self._shown_ns = 0
        self._is_deaf = False  # it has gone, but what it had sent before may lie in the socket yet
        self.ended = False
        """Whether the sender has hung up, and all is read that it had sent."""

    # -- in

    def read(self) -> Iterator[tuple[wire.FromSink, NDArray[np.uint8] | None]]:
        """Read some of what is there; yield each message that is whole with the bytes behind it.

        Raises
        ------
        MalformedError
            If it is no message of a sink.
        """
        self._receive()
        yield from self._cut()

    def _receive(self) -> None:
        try:
            if self._behind is not None and self._behind_filled < len(self._behind) and self._at == len(self._in):
                got = self.sock.recv_into(self._behind.data[self._behind_filled :])
                self._behind_filled += got
            else:
                data = self._receive_data()
                got = len(data)
                self._keep(data)
        except (BlockingIOError, InterruptedError):
            return
        except ConnectionError:
            got = 0
        if not got:
            self.ended = True

    def _keep(self, data: bytes) -> None:
        """Have it behind what is not used yet: mostly nothing."""
        if self._at == len(self._in):
            self._in = data
        else:
            if not isinstance(self._in, bytearray):
                self._in = bytearray(self._in)
            del self._in[: self._at]
            self._in += data
        self._at = 0

    def _receive_data(self) -> bytes:
        if self.hello is not None:
            return self.sock.recv(_READ)  # descriptors that come now are closed by the kernel
        data, fds = _os.receive_message(self.sock, _READ)
        self._fds += fds
        if len(self._fds) > _MOST_FDS:
            raise MalformedError("descriptors that nobody asked for")
        return data

    def _cut(self) -> Iterator[tuple[wire.FromSink, NDArray[np.uint8] | None]]:
        while True:
            if self._message is not None:
                if not self._fill_behind():
                    return
                message, behind = self._message, self._behind
                self._message = self._behind = None
                yield message, behind
                continue
            begin = self._at + wire.PREFIX.size
            if len(self._in) < begin:
                return
            known = self.hello is not None
            size, behind_bytes = wire.split(
                self._in, wire.MAX_MESSAGE if known else _HELLO_BYTES, wire.MAX_BEHIND if known else 0, self._at
            )
            end = begin + size
            if len(self._in) < end:
                return
            message = wire.decode_from_sink(memoryview(self._in)[begin:end])
            self._at = end
            if not behind_bytes:
                yield message, None
                continue
            self._message = message
            self._behind, self._behind_filled = np.empty(behind_bytes, np.uint8), 0

    def _fill_behind(self) -> bool:
        assert self._behind is not None
        missing = len(self._behind) - self._behind_filled
        if missing and self._at < len(self._in):
            part = np.frombuffer(self._in, np.uint8, offset=self._at)[:missing]
            self._behind[self._behind_filled : self._behind_filled + len(part)] = part
            self._behind_filled += len(part)
            self._at += len(part)
        return self._behind_filled == len(self._behind)

    def take_descriptor(self) -> int | None:
        """Return the descriptor that came; it is the caller's then."""
        return self._fds.pop() if self._fds else None

    # -- the account

    def counts(self, is_image: bool) -> Counts:
        """Return the account of images, or of ROIs."""
        return self.images if is_image else self.rois

    def sent(self, number: int, is_image: bool, sent_ns: int) -> None:
        """An item begins to come."""
        if number <= self.last_id:
            raise MalformedError(f"item {number} comes after item {self.last_id}")
        self.last_id = number
        self.counts(is_image).sent += 1
        self.oldest[number] = time.monotonic_ns() if self.peer else sent_ns  # another computer's clock tells nothing here

    def received(self, number: int, is_image: bool, nbytes: int) -> None:
        """An item is copied: its memory is the sender's again."""
        self._untold_bytes += nbytes
        self.counts(is_image).received += 1
        self._news = True
        self._received.add(number)

    def displayed(self, number: int, is_image: bool, at_ns: int) -> None:
        """An item was shown."""
        self.counts(is_image).displayed += 1
        self.oldest.pop(number, None)
        self._news, self._shown_ns = True, at_ns
        self._displayed.add(number)

    def failed(self, number: int, is_image: bool, reason: str) -> None:
        """An item was not shown, and will not be."""
        self.counts(is_image).failed += 1
        self.oldest.pop(number, None)
        self._news = True
        self._failed.append((number, reason[:1000]))

    def report(self) -> SenderProgress:
        """Return what is known of this sender."""
        assert self.hello is not None
        return SenderProgress(
            program=self.hello.program,
            host=self.hello.host,
            pid=self.hello.pid,
            connected=not self.ended,
            images=self.images,
            rois=self.rois,
            peer=self.peer,
        )

    # -- out

    def say(self, message: wire.FromViewer, behind: NDArray[Any] | None = None) -> None:
        """Send a message as soon as the sender takes it."""
        if self._is_deaf:
            return
        self._out.append(memoryview(wire.frame(message, 0 if behind is None else behind.nbytes)))
        if behind is not None:
            self._out.append(np.ascontiguousarray(behind).reshape(-1).view(np.uint8).data)
        self.write()

    @property
    def has_news(self) -> bool:
        """Whether something of its account can be told, and was not yet."""
        return self._news and not self._out and not self._is_deaf

    def write(self, *, at_once: bool = False) -> bool:
        """Send what waits, and the account once that is gone; whether something is left that the socket does not take.

        An account is told once a millisecond or for so many bytes, so that neither side is woken for each item; or `at_once`.
        """
        while not self._is_deaf:
            if not self._out and self._news and (at_once or self._is_due()):
                self._told_at, self._untold_bytes = time.monotonic(), 0
                account = wire.Account(self._received.take(), self._displayed.take(), self._failed, self._shown_ns)
                self._failed, self._news = [], False
                self._out.append(memoryview(wire.frame(account)))
            if not self._out:
                return False
            part = self._out[0]
            try:
                count = self.sock.send(part, socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                return True
            except OSError:
                self._is_deaf = True
                self._out.clear()
                break
            if count == len(part):
                self._out.popleft()
            else:
                self._out[0] = part[count:]
        return False

    def _is_due(self) -> bool:
        return self._untold_bytes >= _ACCOUNT_BYTES or time.monotonic() - self._told_at > ACCOUNT_S

    def close(self) -> None:
        """Hang up."""
        self.ended = True
        self.sock.close()
        self.arena = None
        self.partial.clear()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
