"""One connection: what waits to be sent, bounded, and who it is."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web

from mutoscope.viewers.page.access import Visitor
from mutoscope.viewers.page.messages import encode

__all__ = ["LOG_LINES", "Client"]

QUEUED = 4096
QUEUED_BYTES = 64 << 20
LOG_LINES = 500
Due = Callable[[], "str | None"]


class Client:
    """A browser, or another program, that is connected. For the server's loop.

    Replies and changes are queued, up to a bound; what is only worth as the newest (the state, a table's rows, a frame) is made
    when its turn comes, so that a client that reads slowly gets less of it and nothing piles up.

    Parameters
    ----------
    number : int
        Of the connection.
    visitor : Visitor
        Who it is.
    socket : aiohttp.web.WebSocketResponse
        Prepared.
    address : str
        Where it comes from, for the audit.
    transport : asyncio.Transport
        Its connection, for when it has to be cut.
    on_frame_sent : callable(stream)
        Called when a frame leaves its place, so that the next one of that stream may be cut.
    """

    def __init__(
        self,
        number: int,
        visitor: Visitor,
        socket: web.WebSocketResponse,
        address: str,
        transport: asyncio.BaseTransport | None,
        on_frame_sent: Callable[[int], None],
    ) -> None:
        self.number = number
        self.id = f"c{number}"
        self.visitor = visitor
        self.socket = socket
        self.address = address
        self.transport = transport
        self.malformed = 0
        self.closing = False
        self.log_due = 0.0
        self.sending_since: float | None = None
        self.overrun = False
        self.tables: dict[str, Any] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.seeks: dict[str, asyncio.Task[None]] = {}
        self.next_seek: dict[str, Any] = {}
        self.counted: dict[str, Any] = {}
        self.changed: dict[str, set[tuple[str, ...]] | None] = {}
        self.heard = time.monotonic()
        self.lines: deque[dict[str, Any]] = deque(maxlen=LOG_LINES)
        self._on_frame_sent = on_frame_sent
        self._queue: deque[str | bytearray] = deque()
        self._queued_bytes = 0
        self._due: dict[Any, Due] = {}
        self._frames: dict[int, bytearray] = {}
        self._wake = asyncio.Event()
        self._sent = asyncio.Event()
        self._sent.set()

    # -- what is to be sent

    def say(self, message: dict[str, Any] | str | bytearray) -> None:
        """Queue a message that must not be left out; text is one that is encoded already."""
        packed = encode(message) if isinstance(message, dict) else message
        self._queue.append(packed)
        self._queued_bytes += len(packed)
        if len(self._queue) > QUEUED or self._queued_bytes > QUEUED_BYTES:
            self.overrun = True  # it does not take what it asked for: the server closes it
        self._more()

    def reply(self, request: int, value: Any) -> None:
        """Answer a request."""
        self.say({"type": "reply", "id": request, "ok": True, "value": value})

    def refuse(self, request: int, error: dict[str, Any]) -> None:
        """Say that a request failed."""
        self.say({"type": "reply", "id": request, "ok": False, "error": error})

    def due(self, key: Any, make: Due) -> None:
        """Send what `make` returns when its turn comes, in place of what waits under the same key; None is nothing."""
        self._due[key] = make
        self._more()

    def frame(self, stream: int, message: bytearray) -> None:
        """Send a frame when its turn comes."""
        self._frames[stream] = message
        self._more()

    def _more(self) -> None:
        self._sent.clear()
        self._wake.set()

    # -- sending

    async def send_on(self) -> None:
        """Send until the connection ends."""
        try:
            await self._send_on()
        finally:
            self._sent.set()

    async def sent(self) -> None:
        """Wait until all that was to be sent is handed to the connection, or that has ended."""
        await self._sent.wait()

    async def _send_on(self) -> None:
        while not self.socket.closed:
            self._wake.clear()
            while (message := self._next()) is not None:
                self.sending_since = time.monotonic()
                if isinstance(message, str):
                    await self.socket.send_str(message)
                else:
                    await self.socket.send_bytes(cast(bytes, message))
                self.sending_since = None
            self._sent.set()
            await self._wake.wait()

    def _next(self) -> str | bytearray | None:
        if self._queue:
            message = self._queue.popleft()
            self._queued_bytes -= len(message)
            return message
        while self._due:
            key = next(iter(self._due))
            made = self._due.pop(key)()
            if made is not None:
                return made
        if self._frames:
            stream = next(iter(self._frames))
            frame = self._frames.pop(stream)
            self._on_frame_sent(stream)
            return frame
        return None
