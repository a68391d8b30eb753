"""From a frame to what is sent of it: the visible crop, every step-th pixel, in a type that a browser can draw."""

from __future__ import annotations

import math
import struct
import time
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FROM_HISTORY",
    "HEADER_BYTES",
    "WHOLE",
    "Histogram",
    "Stamp",
    "View",
    "encode_frame",
    "exact_value",
    "histogram",
    "sent_dtype",
    "value_range",
]

MAGIC = b"MTF1"
HEADER = struct.Struct("<4sHBBHHIQqqqQII4IIIIfdd4i")
HEADER_BYTES = HEADER.size
FROM_HISTORY, CUT = 1, 2
CODES = {"u1": 1, "u2": 2, "f4": 3}
BINS = 256
COUNTED_PIXELS, SORTED_PIXELS = 1 << 20, 1 << 18
PERCENTS = (0, 0.1, 0.35, 1, 2, 5, 50, 95, 98, 99, 99.65, 99.9, 100)
AUTO = (0.175, 99.825)


class View(msgspec.Struct, frozen=True):
    """The part of a frame that a client shows: rows ``y0`` to ``y1`` (not with), columns likewise, every `step`-th of them.

    `crop` is (y0, x0, y1, x1), or None for the whole frame.
    """

    crop: tuple[int, int, int, int] | None = None
    step: int = 1

    def within(self, shape: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the crop, cut to a frame of this shape; one that lies outside has no rows or columns.

        Examples
        --------
        >>> View((10, -5, 30, 90)).within((20, 40)), View((50, 0, 60, 10)).within((20, 40))
        ((10, 0, 20, 40), (20, 0, 20, 10))
        """
        height, width = shape
        if self.crop is None:
            return (0, 0, height, width)
        y0, x0, y1, x1 = self.crop
        y0, x0 = min(max(y0, 0), height), min(max(x0, 0), width)
        return (y0, x0, min(max(y1, y0), height), min(max(x1, x0), width))


WHOLE = View()


class Stamp(msgspec.Struct, frozen=True):
    """What is said of a frame besides its pixels; 0, NaN and -1 where nothing is known."""

    frame_id: int
    monotonic_ns: int = 0
    utc_ns: int = 0
    exposure_ms: float = math.nan
    plane: tuple[int, int, int, int] = (-1, -1, -1, -1)


def sent_dtype(dtype: np.dtype[Any]) -> str:
    """Return how pixels of a type are sent: ``u1``, ``u2`` or ``f4``."""
    if dtype.kind == "b" or (dtype.kind in "iu" and dtype.itemsize == 1):
        return "u1"
    return "u2" if dtype.kind in "iu" and dtype.itemsize == 2 else "f4"


def value_range(dtype: np.dtype[Any]) -> list[int] | None:
    """Return the least and the greatest value of a type of whole numbers; None of any other."""
    if dtype.kind == "b":
        return [0, 1]
    if dtype.kind not in "iu":
        return None
    limits = np.iinfo(dtype)
    return [int(limits.min), int(limits.max)]


def encode_frame(
    array: NDArray[Any], stamp: Stamp, view: View, *, stream: int, skipped: int = 0, flags: int = 0, request: int = 0
) -> bytearray:
    """Return a frame message: header and pixels, copied once.

    Parameters
    ----------
    array : ndarray, shape (y, x)
        The whole frame.
    stamp : Stamp
        Of the frame.
    view : View
        What is sent of it.
    stream : int
        Its number among the streams.
    skipped : int
        Frames that were not sent before it.
    flags, request : int
        As in the protocol.
    """
    y0, x0, y1, x1 = view.within(array.shape)
    if view.crop is not None and view.crop != (y0, x0, y1, x1):
        flags |= CUT
    part = array[y0 : y1 : view.step, x0 : x1 : view.step]
    kind = sent_dtype(array.dtype)
    message = bytearray(HEADER_BYTES + part.size * int(kind[1]))
    out = np.frombuffer(message, dtype=f"<{kind}", offset=HEADER_BYTES).reshape(part.shape) if part.size else None
    offset = _fill(out, part) if out is not None else 0.0
    height, width = part.shape
    header = HEADER.pack(
        MAGIC, HEADER_BYTES, CODES[kind], flags, stream, 0, request, stamp.frame_id, stamp.monotonic_ns, stamp.utc_ns,
        time.monotonic_ns(), max(0, skipped), array.shape[0], array.shape[1], y0, x0, y1, x1, view.step, height, width,
        stamp.exposure_ms, 1.0, offset, *stamp.plane,
    )  # fmt: skip
    message[:HEADER_BYTES] = header
    return message


def _fill(out: NDArray[Any], part: NDArray[Any]) -> float:
    """Write pixels in the type that is sent; returns what is to be added to them."""
    dtype = part.dtype
    if not dtype.isnative:
        part = part.astype(dtype.newbyteorder("="))
        dtype = part.dtype
    if dtype.kind == "i" and dtype.itemsize <= 2:
        half = 1 << (8 * dtype.itemsize - 1)
        np.bitwise_xor(part.view(f"u{dtype.itemsize}"), half, out=out)
        return -float(half)
    if dtype.kind in "iu" and dtype.itemsize > 2:
        least = part.min()
        unsigned = f"u{dtype.itemsize}"
        out[...] = part.view(unsigned) - least.astype(unsigned)  # modulo its size, and so exact
        return float(least)
    with np.errstate(over="ignore", invalid="ignore"):
        out[...] = np.abs(part) if dtype.kind == "c" else part
    return 0.0


def exact_value(array: NDArray[Any], y: int, x: int) -> dict[str, Any]:
    """Return the value of a pixel as text, exactly, and as a number where it is a finite one."""
    value = array[y, x].item()
    number = abs(value) if isinstance(value, complex) else float(value)
    return {"text": str(value), "number": number if math.isfinite(number) else None}


class Histogram(msgspec.Struct, frozen=True):
    """What a frame's values are like, as the protocol has it."""

    low: float
    high: float
    counts: list[int]
    pixels: int
    step: int
    not_finite: int
    auto: tuple[float, float]
    percentiles: list[tuple[float, float]]


def histogram(array: NDArray[Any]) -> Histogram | None:
    """Return the histogram of a frame; None if none of its pixels is a finite number.

    Of 8 and 16 bit up to about a million pixels are counted, of other types a quarter of that.
    """
    few = array.dtype.itemsize <= 2 and array.dtype.kind in "biu"
    step = max(1, math.ceil(math.sqrt(array.size / (COUNTED_PIXELS if few else SORTED_PIXELS))))
    part = array[::step, ::step].ravel()
    pixels = part.size
    if part.dtype.kind == "c":
        part = np.abs(part)
    if part.dtype.kind == "b":
        part = part.view(np.uint8)
    not_finite = 0
    if part.dtype.kind == "f":
        part = part[np.isfinite(part)]
        not_finite = pixels - part.size
    if not part.size:
        return None
    values, numbers = _counted(part)
    low, high = float(values[0]), float(values[-1])
    if high > low:
        places = np.minimum((BINS * ((values.astype(np.float64) - low) / (high - low))).astype(np.int64), BINS - 1)
    else:
        places = np.zeros(len(values), np.int64)
    counts = np.bincount(places, weights=numbers, minlength=BINS).astype(np.int64)
    total = np.cumsum(numbers)

    def at(percent: float) -> float:
        rank = max(1, math.ceil(percent / 100 * int(total[-1])))
        return float(values[np.searchsorted(total, rank)])

    auto = (at(AUTO[0]), at(AUTO[1]))
    if auto[0] == auto[1]:
        auto = (low, high if high > low else low + 1)
    return Histogram(
        low, high, counts.tolist(), pixels, step, not_finite, auto, [(percent, at(percent)) for percent in PERCENTS]
    )


def _counted(part: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the values that occur, ascending, and how often each does."""
    if part.dtype.kind in "iu" and part.dtype.itemsize <= 2:
        shift = int(np.iinfo(part.dtype).min)
        found = np.bincount(part.astype(np.int64) - shift)
        there = np.flatnonzero(found)
        return there + shift, found[there]
    ordered = np.sort(part)
    return ordered, np.ones(len(ordered), np.int64)
