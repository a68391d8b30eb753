"""What is no message of the page's protocol, or nearly one: for its bench, and in part for the tests."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from typing import Any

import aiohttp

from mutoscope.viewers.page.messages import SUBPROTOCOL

__all__ = ["fuzz", "wrong_messages"]

POINT = {"type": "points", "points": [[1, 2]]}
CUT_OFF = 4002
SURELY, PATIENCE_S = 1000, 60.0
"""A connection that sent so many wrong messages is cut off, once the page has read them."""

PAUSE_EVERY = 50


def _right(stream: str) -> list[dict[str, Any]]:
    """One message of each kind."""
    return [
        {"type": "ping", "id": 1},
        {"type": "view", "stream": stream, "crop": [0, 0, 5, 5], "step": 2, "at_most_hz": 5.0},
        {"type": "credit", "stream": stream, "frames": 2},
        {"type": "histogram", "stream": stream, "on": True},
        {"type": "pixel", "id": 2, "stream": stream, "y": 1, "x": 2, "frame_id": 1},
        {"type": "seek", "id": 3, "stream": stream, "number": -1},
        {"type": "index", "id": 4, "stream": stream},
        {"type": "table", "table": "spots", "rows": 10, "columns": ["a"]},
        {"type": "lease", "id": 5, "take": True, "name": "A"},
        {"type": "saving", "id": 6, "on": True},
        {"type": "folder", "id": 12, "folder": "a"},
        {"type": "setting", "id": 7, "stream": stream, "setting": "s", "value": 1},
        {"type": "command", "id": 8, "command": "c", "fields": {"a": 1}, "timeout_s": 1.0},
        {"type": "put_roi", "id": 9, "stream": stream, "roi": {"id": "a", "geometry": POINT}},
        {"type": "remove_roi", "id": 10, "stream": stream, "roi_id": "a"},
        {"type": "allow_restart", "id": 11, "worker": "w"},
    ]


def wrong_messages(stream: str, seed: int) -> Iterator[str | bytes]:
    """Yield messages without end, most of them wrong in some way."""
    rng, right = random.Random(seed), _right(stream)
    odd: list[Any] = [
        None,
        -1,
        0,
        2**70,
        1e308,
        "",
        "x" * 2000,
        [],
        {},
        True,
        [[[[]]]],
        {"a": {"b": None}},
        float("nan"),
        "__proto__",
    ]
    while True:
        message = dict(rng.choice(right))
        match rng.randrange(6):
            case 0:
                yield rng.randbytes(rng.randrange(100))
            case 1:
                yield "".join(chr(rng.randrange(1, 0x3000)) for _ in range(rng.randrange(60)))
            case 2:
                text = list(json.dumps(message))
                for _ in range(rng.randrange(1, 4)):
                    text[rng.randrange(len(text))] = chr(rng.randrange(32, 127))
                yield "".join(text)
            case 3:
                message[rng.choice([*message, "extra"])] = rng.choice(odd)
                yield json.dumps(message)
            case 4:
                yield "[" * rng.randrange(1, 5000)
            case _:
                yield json.dumps(message)


async def fuzz(base: str, token: str, stream: str, count: int, seed: int) -> tuple[int, set[int]]:
    """Send so many wrong messages; returns the connections that it took, and the codes with which the page ended them."""
    messages, left, connections, codes = wrong_messages(stream, seed), count, 0, set()
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        while left > 0:
            connections, before = connections + 1, left
            async with session.ws_connect(f"{base}ws", protocols=[SUBPROTOCOL], max_msg_size=0) as socket:
                reading = asyncio.create_task(_read(socket))
                try:
                    while left > 0 and not reading.done():
                        message = next(messages)
                        await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
                        left -= 1
                        if left % PAUSE_EVERY == 0:
                            await asyncio.sleep(0)
                except (ConnectionError, aiohttp.ClientError):
                    await reading  # it was cut off while it sent
                if before - left >= SURELY:  # all of it may lie unread between the two
                    await asyncio.wait({reading}, timeout=PATIENCE_S)
                if reading.done() and socket.close_code is not None:
                    codes.add(socket.close_code)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
    return connections, codes


async def _read(socket: aiohttp.ClientWebSocketResponse) -> None:
    async for _ in socket:
        pass
