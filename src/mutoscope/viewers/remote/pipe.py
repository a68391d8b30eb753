"""One end of a pipe: a local socket on this side, numbered chunks on the other, which may be away for a while.

A chunk is kept until the other end has handed it on to its own local socket, and is sent again after a connection was lost, if
the other end says that it has not come. So nothing is doubled and nothing missing, as long as both ends live; and a local
socket that takes nothing holds the sender up, with a bounded number of bytes on their way. No thread, no connection: whoever
uses it has them.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator

from mutoscope.viewers.remote.messages import CHUNK_BYTES, Ack, Data, encode
from mutoscope.viewers.remote.packing import pack, unpack
from mutoscope.viewers.wire import MalformedError

__all__ = ["WINDOW_BYTES", "WINDOW_CHUNKS", "Pipe"]

WINDOW_BYTES = 16 << 20
"""Most bytes each way that the other end has not handed on."""
WINDOW_CHUNKS = 4096
"""Most chunks, as they may be small."""


class Pipe:
    """One end.

    Parameters
    ----------
    sock : socket
        The local one; owned by the pipe.
    compression : str
        Of what is sent: ``""``, ``"lz4"`` or ``"zstd"``.
    window_bytes : int
        Most bytes that are sent, or wait for it, and that the other end has not handed on.
    """

    def __init__(self, sock: socket.socket, compression: str = "", window_bytes: int = WINDOW_BYTES) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._compression = compression
        self._window_bytes = min(window_bytes, WINDOW_BYTES)
        self._next = 0
        self._waiting: deque[tuple[int, int, bytes]] = deque()  # number, bytes of the stream, the message
        self._flying: deque[tuple[int, int, bytes]] = deque()
        self._out_bytes = 0
        self._in: deque[memoryview] = deque()
        self._in_bytes = 0
        self.have = 0
        """Chunks that came, in order."""
        self._handed_on = 0
        self._told = 0
        self.ended_here = self.ended_there = False
        """Whether the local socket has come to its end, and whether the other end's stream has, all of it handed on."""
        self._last_came = False

    @property
    def is_over(self) -> bool:
        """Whether both streams have come to their ends, and nothing is kept for the other end."""
        return self.ended_here and self.ended_there and self.all_taken

    @property
    def all_taken(self) -> bool:
        """Whether the other end has handed on all that was read here."""
        return not self._waiting and not self._flying

    # -- the local socket

    @property
    def wants_to_read(self) -> bool:
        """Whether there is room for what the local socket may have."""
        room = self._out_bytes < self._window_bytes and len(self._waiting) + len(self._flying) < WINDOW_CHUNKS
        return room and not self.ended_here

    @property
    def wants_to_write(self) -> bool:
        """Whether something waits for the local socket to take it."""
        return bool(self._in)

    def read(self) -> None:
        """Take a chunk from the local socket, if there is one and room for it."""
        if not self.wants_to_read:
            return
        try:
            data = self.sock.recv(CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except ConnectionError:
            data = b""
        packed = pack(self._compression, data)
        content = memoryview(data if packed is None else packed)
        message = encode(Data(self._next, len(data), packed is not None, content))
        self._waiting.append((self._next, len(data), message))
        self._out_bytes += len(data)
        self._next += 1
        self.ended_here = not data

    def write(self) -> None:
        """Hand on what the local socket takes."""
        while self._in:
            part = self._in[0]
            try:
                if len(part):
                    count = self.sock.send(part, socket.MSG_NOSIGNAL)
                else:
                    self.sock.shutdown(socket.SHUT_WR)
                    count, self.ended_there = 0, True
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # nobody reads: what comes is as good as handed on, as with any socket
                self._handed_on += len(self._in)
                self._in.clear()
                self._in_bytes = 0
                self.ended_there = self._last_came
                return
            self._in_bytes -= count
            if count < len(part):
                self._in[0] = part[count:]
            else:
                self._in.popleft()
                self._handed_on += 1

    # -- the other end

    def to_send(self) -> Iterator[bytes]:
        """Yield each message that has not been sent through this connection; what is taken counts as sent."""
        while self._waiting:
            self._flying.append(self._waiting.popleft())
            yield self._flying[-1][2]

    def news(self) -> bytes | None:
        """Return what tells the other end which chunks it need not keep, if that is new."""
        if self._told == self._handed_on:
            return None
        self._told = self._handed_on
        return encode(Ack(self._told))

    def resume(self, have: int) -> None:
        """A connection is there, and the other end has so many chunks: what came after is sent again."""
        kept = [*self._flying, *self._waiting]
        if not self._next - len(kept) <= have <= self._next:
            raise MalformedError(f"the other end has {have} chunks, of {self._next}")
        self._flying = deque(each for each in kept if each[0] < have)
        self._waiting = deque(each for each in kept if each[0] >= have)
        self._told = 0  # what was told may not have come

    def acknowledged(self, count: int) -> None:
        """The other end has handed on so many chunks."""
        if count > (self._flying[-1][0] + 1 if self._flying else self._next - len(self._waiting)):
            raise MalformedError(f"{count} chunks are acknowledged, which were not sent")
        while self._flying and self._flying[0][0] < count:
            self._out_bytes -= self._flying.popleft()[1]

    def take(self, data: Data) -> None:
        """A chunk came; one that came before is passed over."""
        if data.number < self.have:
            return
        if data.number > self.have or self._last_came:
            raise MalformedError(f"chunk {data.number} comes after {self.have} chunks")
        if self._in_bytes > WINDOW_BYTES or len(self._in) > WINDOW_CHUNKS:
            raise MalformedError("more on its way than may be")
        content = unpack(data.content, data.size) if data.packed else data.content
        self.have += 1
        self._last_came = not len(content)
        self._in.append(content)
        self._in_bytes += len(content)
        self.write()

    def close(self) -> None:
        """Let go of everything. Twice is fine."""
        self.sock.close()
        self._in.clear()
        self._waiting.clear()
        self._flying.clear()
