"""What a client has on its screen, as it comes in parts: the colours, row by row, deflated, in base64."""

from __future__ import annotations

import asyncio
import base64
import binascii
import zlib

import numpy as np
from numpy.typing import NDArray

from mutoscope.viewers.page.messages import Refused, SendPicture

__all__ = ["Picture"]

MOST_PIXELS = 1 << 26


class Picture:
    """A picture that a client was asked for.

    Parameters
    ----------
    client : int
        Whose it is.
    done : Future
        Has the picture, shape (y, x, 3), once it is whole; None as soon as it is seen to be none.
    """

    def __init__(self, client: int, done: asyncio.Future[NDArray[np.uint8] | None]) -> None:
        self.client = client
        self.done = done
        self._parts: list[bytes] = []

    def add(self, message: SendPicture) -> None:
        """Take the next part; raises Refused where it is none."""
        height, width = message.shape
        if message.part != len(self._parts) or height * width > MOST_PIXELS or self.done.done():
            raise Refused("refused", f"this is not part {len(self._parts)} of a picture of at most {MOST_PIXELS:,} pixels")
        try:
            self._parts.append(base64.b64decode(message.data, validate=True))
            if message.part + 1 < message.parts:
                return
            inflate = zlib.decompressobj()
            pixels = inflate.decompress(b"".join(self._parts), 3 * height * width + 1)
            if len(pixels) != 3 * height * width or not inflate.eof:
                raise ValueError(f"{height} x {width} pixels are not as many bytes")
        except (binascii.Error, ValueError, zlib.error) as error:
            self.done.set_result(None)
            raise Refused("malformed", f"this is no picture: {error}") from error
        self.done.set_result(np.frombuffer(pixels, np.uint8).reshape(height, width, 3))
