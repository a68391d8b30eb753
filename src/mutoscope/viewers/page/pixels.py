"""From a frame to what is sent of it: the visible crop, every step-th pixel, in a type that a browser can draw."""

from __future__ import annotations

import math
import struct
import time
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AVERAGED",
    "COUNTED_PIXELS",
    "FROM_HISTORY",
    "HEADER_BYTES",
    "WHOLE",
    "Histogram",
    "SentFrame",
    "Stamp",
    "View",
    "decode_frame",
    "encode_frame",
    "encode_part",
    "exact_value",
    "histogram",
    "restored",
    "sent_dtype",
    "value_range",
]

MAGIC = b"MTF1"
HEADER = struct.Struct("<4sHBBHHIQqqqQII4IIIIfdd4i")
HEADER_BYTES = HEADER.size
FROM_HISTORY, CUT, AVERAGED = 1, 2, 4
CODES = {"u1": 1, "u2": 2, "f4": 3, "rgb": 4}
_KINDS = {code: kind for kind, code in CODES.items() if kind != "rgb"}  # no camera of a scope has colours
BINS = 256
COUNTED_PIXELS, SORTED_PIXELS = 1 << 20, 1 << 18
LARGEST_F4 = float(np.finfo(np.float32).max)
PERCENTS = (0, 0.1, 0.35, 1, 2, 5, 50, 95, 98, 99, 99.65, 99.9, 100)
AUTO = (0.175, 99.825)


class View(msgspec.Struct, frozen=True):
    """The part of a frame that a client shows: rows ``y0`` to ``y1`` (not with), columns likewise, every `step`-th of them.

    `crop` is (y0, x0, y1, x1), or None for the whole frame. With `levels`, a stored smaller size may be sent instead of every
    `step`-th pixel.
    """

    crop: tuple[int, int, int, int] | None = None
    step: int = 1
    levels: bool = False

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
    """Return how pixels of a type are sent: ``u1``, ``u2`` or ``f4``; those of colour are ``rgb``."""
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
    y0, x0, y1, x1 = crop = view.within(array.shape)
    if view.crop is not None and view.crop != crop:
        flags |= CUT
    part = array[y0 : y1 : view.step, x0 : x1 : view.step]
    shape = (int(array.shape[0]), int(array.shape[1]))
    return encode_part(part, shape, crop, view.step, stamp, stream=stream, skipped=skipped, flags=flags, request=request)


def encode_part(
    part: NDArray[Any],
    shape: tuple[int, int],
    crop: tuple[int, int, int, int],
    step: int,
    stamp: Stamp,
    *,
    stream: int,
    skipped: int = 0,
    flags: int = 0,
    request: int = 0,
) -> bytearray:
    """Return a frame message of what was cut out already.

    Parameters
    ----------
    part : ndarray, shape (y, x), or (y, x, colour) of uint8 or uint16
        What is sent.
    shape : (y, x)
        Of the whole frame.
    crop : (y0, x0, y1, x1)
        Where `part` lies in it.
    step : int
        Pixels of the frame between two that are sent.
    stamp, stream, skipped, flags, request
        As for `encode_frame`.
    """
    y0, x0, y1, x1 = crop
    height, width = part.shape[:2]
    kind, sent = sent_dtype(part.dtype), part
    if part.ndim == 3:
        sent = part[..., :3] if part.dtype == np.uint8 else (part[..., :3] >> 8).astype(np.uint8)
        kind = "u1"
    message = bytearray(HEADER_BYTES + sent.size * int(kind[1]))
    out = np.frombuffer(message, dtype=f"<{kind}", offset=HEADER_BYTES).reshape(sent.shape) if sent.size else None
    offset = _fill(out, sent) if out is not None else 0.0
    code = CODES["rgb" if part.ndim == 3 else kind]
    header = HEADER.pack(
        MAGIC, HEADER_BYTES, code, flags, stream, 0, request, stamp.frame_id, stamp.monotonic_ns, stamp.utc_ns,
        time.monotonic_ns(), max(0, skipped), *shape, y0, x0, y1, x1, step, height, width,
        _single(stamp.exposure_ms), 1.0, offset, *stamp.plane,
    )  # fmt: skip
    message[:HEADER_BYTES] = header
    return message


def _single(number: float) -> float:
    """Return a number that fits into a f4; one that is larger than any is not known."""
    return number if abs(number) <= LARGEST_F4 or math.isinf(number) else math.nan


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


class SentFrame(NamedTuple):
    """A frame message as it came: `pixels` is a view of it, shape (y, x), u1, u2 or f4; a value is pixel * scale + offset."""

    stream: int
    flags: int
    request: int
    frame_id: int
    monotonic_ns: int
    skipped: int
    full: tuple[int, int]
    scale: float
    offset: float
    pixels: NDArray[Any]


def decode_frame(data: bytes) -> SentFrame:
    """Read a frame message.

    Raises
    ------
    ValueError
        If it is none.
    """
    if len(data) < HEADER_BYTES or data[:4] != MAGIC:
        raise ValueError("not a frame")
    fields = HEADER.unpack_from(data)
    _, start, code, flags, stream, _, request, frame_id, monotonic_ns, _, _, skipped, full_height, full_width = fields[:14]
    height, width, _, scale, offset = fields[19:24]
    if code not in _KINDS or len(data) != start + height * width * int(_KINDS[code][1]):
        raise ValueError("a frame whose pixels are not as many as it says")
    pixels = np.frombuffer(data, f"<{_KINDS[code]}", offset=start).reshape(height, width)
    return SentFrame(stream, flags, request, frame_id, monotonic_ns, skipped, (full_height, full_width), scale, offset, pixels)


def restored(frame: SentFrame, dtype: str) -> NDArray[Any]:
    """Return the values that a camera of this dtype had, of up to 16 bits and of float32 exactly as they were; perhaps a view.

    Of 32 and 64 bits they come as float64, as near as they were sent.
    """
    pixels = frame.pixels
    if dtype == "bool" and pixels.dtype == np.uint8:
        return pixels.view(np.bool_)
    if dtype in ("int8", "int16") and pixels.dtype.name == f"u{dtype}":
        half = 1 << (8 * pixels.dtype.itemsize - 1)
        signed: NDArray[Any] = np.bitwise_xor(pixels, pixels.dtype.type(half)).view(dtype)
        return signed
    if (frame.scale, frame.offset) == (1.0, 0.0):
        return pixels
    return pixels.astype(np.float64) * frame.scale + frame.offset


def exact_value(array: NDArray[Any], y: int, x: int) -> dict[str, Any]:
    """Return the value of a pixel as text, exactly, and as a number where it is a finite one."""
    if array.ndim == 3:
        return {"text": ", ".join(map(str, array[y, x].tolist())), "number": None}
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
    """Return the histogram of a frame; None if none of its pixels is a finite number, or they are colours.

    Of 8 and 16 bit up to about a million pixels are counted, of other types a quarter of that.
    """
    if array.ndim == 3:
        return None
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
        unit = 1.0 if math.isfinite(high - low) else 0.5  # what lies further apart than the largest number is halved first
        places = (values.astype(np.float64) * unit - low * unit) / (high * unit - low * unit)
        places = np.minimum((BINS * places).astype(np.int64), BINS - 1)
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
