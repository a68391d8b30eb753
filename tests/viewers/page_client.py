"""A client of the page, written from ``docs/page-protocol.md`` and nothing else."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import numpy as np
from numpy.typing import NDArray

SUBPROTOCOL = "mutoscope.page.1"
DEADLINE_S = 30.0
HEADER = struct.Struct("<4sHBBHHIQqqqQII4IIIIfdd4i")
DTYPES = {1: "u1", 2: "<u2", 3: "<f4", 4: "u1"}
COLOURS = 4


class FrameMessage(NamedTuple):
    """A frame as it came."""

    flags: int
    stream: int
    request: int
    frame_id: int
    monotonic_ns: int
    utc_ns: int
    sent_ns: int
    skipped: int
    full: tuple[int, int]
    crop: tuple[int, int, int, int]
    step: int
    exposure_ms: float
    scale: float
    offset: float
    plane: tuple[int, int, int, int]
    pixels: NDArray[Any]

    @property
    def values(self) -> NDArray[Any]:
        """What the camera's values were, as float64."""
        return self.pixels.astype(np.float64) * self.scale + self.offset


def parse(data: bytes) -> FrameMessage:
    """Read a binary message."""
    magic, header, dtype, flags, stream, zero, request, frame_id, mono, utc, sent, skipped, fh, fw, *rest = HEADER.unpack_from(
        data
    )
    y0, x0, y1, x1, step, height, width, exposure, scale, offset, *plane = rest
    assert (magic, header, zero) == (b"MTF1", 128, 0)
    pixels = np.frombuffer(data, DTYPES[dtype], offset=header)
    shape = (height, width, 3) if dtype == COLOURS else (height, width)
    assert pixels.size == np.prod(shape)
    return FrameMessage(
        flags, stream, request, frame_id, mono, utc, sent, skipped, (fh, fw), (y0, x0, y1, x1), step, exposure, scale, offset,
        tuple(plane), pixels.reshape(shape),
    )  # fmt: skip


class Refused(Exception):
    """A request was refused."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["code"], error["message"])
        self.code = error["code"]
        self.error = error


def split(url: str) -> tuple[str, str]:
    """Return the page's address and its token."""
    base, _, token = url.partition("?token=")
    return base, token


class PageClient:
    """One connection."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.texts: list[dict[str, Any]] = []
        self.frames: list[FrameMessage] = []
        self.closed = False
        self._news = asyncio.Condition()
        self._ids = iter(range(1, 1 << 30))
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.socket:
            async with self._news:
                if message.type is aiohttp.WSMsgType.BINARY:
                    self.frames.append(parse(message.data))
                else:
                    self.texts.append(json.loads(message.data))
                self._news.notify_all()
        async with self._news:
            self.closed = True
            self._news.notify_all()

    async def until(self, look: Callable[[], Any], what: str = "") -> Any:
        """Wait for the first true answer of `look`, asked after each message."""
        deadline = time.monotonic() + DEADLINE_S
        async with self._news:
            while not (found := look()):
                assert not self.closed, f"closed with {self.socket.close_code} while waiting for {what or look}"
                left = deadline - time.monotonic()
                assert left > 0, f"not within {DEADLINE_S} s: {what or look}; {self.texts[-3:]}"
                try:
                    await asyncio.wait_for(self._news.wait(), left)
                except TimeoutError:
                    continue
        return found

    async def send(self, kind: str, **fields: Any) -> None:
        """Say something that is not answered."""
        await self.socket.send_json({"type": kind, **fields})

    async def ask(self, kind: str, **fields: Any) -> Any:
        """Say something and return the value of the reply; raises Refused."""
        number = next(self._ids)
        await self.send(kind, id=number, **fields)
        reply = await self.message("reply", lambda each: each["id"] == number)
        if not reply["ok"]:
            raise Refused(reply["error"])
        return reply["value"]

    async def message(
        self, kind: str, where: Callable[[dict[str, Any]], Any] = lambda _: True, after: int = 0
    ) -> dict[str, Any]:
        """Return the first message of a kind that fits, heard or to come; `after` so many texts."""

        def look() -> dict[str, Any] | None:
            return next((each for each in self.texts[after:] if each["type"] == kind and where(each)), None)

        found: dict[str, Any] = await self.until(look, f"{kind} {where}")
        return found

    async def frame(self, where: Callable[[FrameMessage], Any] = lambda _: True, after: int = 0) -> FrameMessage:
        """Return the first frame that fits, heard or to come; `after` so many frames."""
        found: FrameMessage = await self.until(
            lambda: next((each for each in self.frames[after:] if where(each)), None), "a frame"
        )
        return found

    async def until_closed(self) -> int | None:
        """Wait for the end; returns the close code."""
        async with self._news:
            await asyncio.wait_for(self._news.wait_for(lambda: self.closed), DEADLINE_S)
        return self.socket.close_code


@asynccontextmanager
async def connect(url: str, **options: Any) -> AsyncIterator[PageClient]:
    """Come in as a program does, with the token of an address."""
    base, token = split(url)
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(
            base + "ws", protocols=[SUBPROTOCOL], headers=headers, max_msg_size=0, autoping=True, **options
        ) as socket:
            client = PageClient(socket)
            try:
                yield client
            finally:
                await socket.close()
                await client._reader
