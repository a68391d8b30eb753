"""Messages with file descriptors over one Unix stream socket: framing, partial reads and writes, nothing else."""

from __future__ import annotations

import array
import collections
import errno
import logging
import os
import socket
import struct
from collections.abc import Sequence

from mutoscope.bus.wire import HEADER_BYTES, MAX_MESSAGE_BYTES, Body, MalformedError

__all__ = ["MAX_FDS", "Connection", "close_fds"]

logger = logging.getLogger(__name__)

MAX_FDS = 250  # the kernel takes 253 descriptors in one message (SCM_MAX_FD)

_FEW, _MANY = 8 * 1024, 64 * 1024  # bytes of one read: as a rule, and while bursts come
_INT = array.array("i").itemsize
_ROOM = socket.CMSG_SPACE(MAX_FDS * _INT)
_NOWAIT = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_SEND = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_CUT = int(socket.MSG_CTRUNC)  # plain integers: arithmetic on the flag classes takes a microsecond
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN)
_MAX_LOOSE_FDS = 4 * MAX_FDS
_JOINED = 64
_SMALL = 4096
_length = struct.Struct(">I").unpack_from
_timeval = struct.Struct("@ll").pack


class Connection:
    """One end of a stream. It owns the socket and every descriptor that arrived and was not taken.

    Parameters
    ----------
    sock : socket.socket
        A connected Unix stream socket; taken over, and closed by :meth:`close`.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.sock = sock
        self._recv = sock.recv
        self._chunk = _FEW
        self._send = sock.send
        self.ended: str | None = None
        self.broken = False
        self.drained = False  # a read found nothing; reset by whoever looks at it
        self.full = False  # the last read took all that it could: there is more as a rule
        self.unsent_bytes = 0
        self.loose_fds: list[int] = []
        self.unsent: collections.deque[tuple[memoryview, tuple[int, ...]]] = collections.deque()
        self._tail = b""
        self._large: bytearray | None = None
        self._filled = 0

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.sock.fileno()

    # -- receiving

    def wait_at_most(self, seconds: float) -> None:
        """Set how long :meth:`receive` waits where it is to wait."""
        whole = int(seconds)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(whole, int((seconds - whole) * 1e6)))

    def receive(self, *, with_fds: bool = False, wait: bool = False) -> list[Body]:
        """Read once and return the messages that are complete, without their lengths. Without waiting, unless told to `wait`.

        At the end of the stream `ended` says why. Descriptors that arrive are kept `with_fds`, else the kernel closes them
        (and a read costs less).

        Raises
        ------
        MalformedError
            If what arrives cannot be a message.
        """
        if self._large is not None:
            return self._receive_large(with_fds)
        try:
            if with_fds:
                data, ancillary, state, _ = self.sock.recvmsg(self._chunk, _ROOM, _NOWAIT)
                self._keep_fds(ancillary, state)
            else:
                data = self._recv(self._chunk, 0 if wait else _NOWAIT)
        except BlockingIOError:
            self.drained = True
            return []
        except ConnectionError as error:
            self._end(error)
            return []
        size = len(data) - HEADER_BYTES
        if size >= 0 and not self._tail and _length(data)[0] == size:
            self.full = False
            return [data[HEADER_BYTES:]]  # by far the most frequent: one message, whole
        if not data:
            self._end(None)
            return []
        self.full = len(data) == self._chunk
        self._chunk = _MANY if self.full else _FEW
        return self._split(data)

    def _receive_large(self, with_fds: bool) -> list[Body]:
        """Read on into a message that is larger than one read."""
        assert self._large is not None
        try:
            room = memoryview(self._large)[self._filled :]
            size, ancillary, state, _ = self.sock.recvmsg_into([room], _ROOM if with_fds else 0, _NOWAIT)
        except BlockingIOError:
            self.drained = True
            return []
        except ConnectionError as error:
            self._end(error)
            return []
        if with_fds:
            self._keep_fds(ancillary, state)
        if size == 0:
            self._end(None)
            return []
        self._filled += size
        if self._filled < len(self._large):
            return []
        whole, self._large = self._large, None
        return [memoryview(whole)]

    def _end(self, error: OSError | None) -> None:
        if error is not None and error.errno != errno.ECONNRESET:  # reset: it ended with something unread
            self.ended = f"the connection broke ({os.strerror(error.errno or 0)})"
        elif self._tail or self._large is not None:
            self.ended = "the stream ended in the middle of a message"
        else:
            self.ended = "the stream ended"

    def _split(self, data: bytes) -> list[Body]:
        if self._tail:
            data = self._tail + data
        view, position, end = memoryview(data), 0, len(data)
        bodies: list[Body] = []
        while end - position >= HEADER_BYTES:
            size = _length(data, position)[0]
            if size > MAX_MESSAGE_BYTES:
                raise MalformedError(f"a message of {size:,} bytes was announced, at most {MAX_MESSAGE_BYTES:,} are taken")
            start = position + HEADER_BYTES
            if start + size > end:
                if size > _MANY:
                    self._large = bytearray(size)
                    self._filled = end - start
                    self._large[: self._filled] = view[start:]
                    position = end
                break
            position = start + size
            bodies.append(data[start:position] if size < _SMALL else view[start:position])
        self._tail = data[position:] if position < end else b""
        return bodies

    def _keep_fds(self, ancillary: Sequence[tuple[int, int, bytes]], state: int) -> None:
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(content[: len(content) - len(content) % _INT])
                self.loose_fds.extend(received)
        if state & _CUT:
            logger.error("descriptors were lost on the way: this process may open no more files")
        if len(self.loose_fds) > _MAX_LOOSE_FDS:
            raise MalformedError(f"{len(self.loose_fds)} descriptors came without a message that announces them")

    def take_fds(self, count: int) -> list[int]:
        """Return the descriptors of the message in hand; the caller owns them."""
        if not 0 <= count <= len(self.loose_fds):
            raise MalformedError(f"a message announces {count} descriptors, {len(self.loose_fds)} came")
        taken, self.loose_fds = self.loose_fds[:count], self.loose_fds[count:]
        return taken

    def take_fds_if_all(self, count: int) -> list[int] | None:
        """As :meth:`take_fds`; None, and those that came are closed, when some were lost because no more files may be open."""
        if len(self.loose_fds) >= count:
            return self.take_fds(count)
        close_fds(self.take_fds(len(self.loose_fds)))
        return None

    def check_loose_fds(self) -> None:
        """Raise MalformedError when descriptors are left over although no message is incomplete."""
        if self.loose_fds and not self._tail and self._large is None:
            raise MalformedError("descriptors came without a message that announces them")

    # -- sending

    def queue(self, packed: bytes, fds: Sequence[int] = (), *, give: bool = False) -> None:
        """Put a message behind what is unsent; :meth:`flush` sends it.

        Parameters
        ----------
        packed : bytes
            From :func:`mutoscope.bus.wire.pack`; not to be changed afterwards.
        fds : sequence of int
            Sent with its first byte. They are duplicated, and stay the caller's, unless `give` says that they are handed
            over.
        """
        if len(fds) > MAX_FDS:
            raise ValueError(f"{len(fds)} descriptors in one message, at most {MAX_FDS} are possible")
        if self.broken:
            if give:
                close_fds(fds)
            return
        kept = tuple(fds) if give else tuple(os.dup(fd) for fd in fds)
        self.unsent.append((memoryview(packed), kept))
        self.unsent_bytes += len(packed)

    def send(self, packed: bytes) -> bool:
        """Send a message without descriptors; True when the kernel has taken everything that was unsent."""
        if not self.unsent and not self.broken:
            try:
                sent = self._send(packed, _SEND)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._break(error)
                return True
            if sent == len(packed):
                return True
            self.unsent.append((memoryview(packed)[sent:], ()))
            self.unsent_bytes += len(packed) - sent
            return False
        self.queue(packed)
        return self.flush()

    def flush(self) -> bool:
        """Send as much of the unsent as the socket takes; True when nothing is left.

        When the other end is gone, the unsent is discarded and `broken` is set; the end of the stream is found by reading.
        """
        unsent = self.unsent
        while unsent:
            first, fds = unsent[0]
            try:
                if fds:
                    sent = self.sock.sendmsg([first], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))], _SEND)
                elif len(unsent) == 1:
                    sent = self.sock.send(first, _SEND)
                else:
                    sent = self.sock.sendmsg(self._joined(), (), _SEND)
            except BlockingIOError:
                return False
            except OSError as error:
                self._break(error)
                return True
            self.unsent_bytes -= sent
            if fds:
                close_fds(fds)
                unsent[0] = (first, ())
            while sent:
                first, fds = unsent[0]
                if sent < len(first):
                    unsent[0] = (first[sent:], fds)
                    break
                sent -= len(first)
                unsent.popleft()
        return True

    def _joined(self) -> list[memoryview]:
        buffers: list[memoryview] = []
        for buffer, fds in self.unsent:
            if fds or len(buffers) == _JOINED:
                break
            buffers.append(buffer)
        return buffers

    def _break(self, error: OSError) -> None:
        if error.errno not in _GONE:
            logger.error("the bus connection on descriptor %d ends: %s", self.sock.fileno(), error)
            self.sock.shutdown(socket.SHUT_RDWR)
        self.broken = True
        self._discard()

    def _discard(self) -> None:
        for _, fds in self.unsent:
            close_fds(fds)
        self.unsent.clear()
        self.unsent_bytes = 0

    def close(self) -> None:
        """Close the socket and every descriptor that nobody took. Twice is fine."""
        self._discard()
        close_fds(self.loose_fds)
        self.loose_fds = []
        self.broken = True
        self.sock.close()


def close_fds(fds: Sequence[int]) -> None:
    """Close descriptors that nobody wants."""
    for fd in fds:
        os.close(fd)
