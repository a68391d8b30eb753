"""Frames of the past: of a recording, whole or still being written, or of a bounded history in memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope import storage
from mutoscope.viewers.page import pixels
from mutoscope.viewers.page.pixels import Stamp, View

__all__ = ["GAPS_TOLD", "Crop", "Index", "MemoryPast", "Past", "PastFrame", "StoredPast", "Where", "nearest"]

GAPS_TOLD = 10_000


Crop = tuple[int, int, int, int]


class Where(msgspec.Struct, frozen=True):
    """Which frame is asked for: one of the first four or `at` is given, and the image where there are several."""

    frame_id: int | None = None
    number: int | None = None
    fraction: float | None = None
    utc_ms: float | None = None
    image: str | None = None
    at: dict[str, str] | None = None


@dataclass(frozen=True)
class PastFrame:
    """A frame of the past, of which only what is wanted is read.

    Parameters
    ----------
    stamp : Stamp
        What is known of it.
    number : int
        Its place among those that there are.
    shape : (y, x)
        Of the whole frame.
    levels : int
        Sizes in which it is stored, each the half of the one before (rounded up), its pixels the means of 2 x 2.
    read : callable(crop, level)
        Returns rows and columns ``(y0, x0, y1, x1)`` of one of these sizes: an array that is nobody else's, or is not changed
        any more.
    """

    stamp: Stamp
    number: int
    shape: tuple[int, int]
    levels: int
    read: Callable[[Crop, int], NDArray[Any]]

    def message(self, view: View, *, stream: int, request: int) -> bytearray:
        """Return what a client sees of it: of the smallest stored size that has a pixel for each that is asked for."""
        y0, x0, y1, x1 = crop = view.within(self.shape)
        flags = pixels.FROM_HISTORY | (pixels.CUT if view.crop is not None and view.crop != crop else 0)
        level = 0
        while view.levels and level + 1 < self.levels and view.step % (2 << level) == 0:
            level += 1
        by, step = 1 << level, view.step >> level
        if level and y0 < y1 and x0 < x1:
            flags |= pixels.AVERAGED
            y0, x0 = y0 - y0 % by, x0 - x0 % by
            y1, x1 = min(y1 + -y1 % by, self.shape[0]), min(x1 + -x1 % by, self.shape[1])
            crop = (y0, x0, y1, x1)
        part = self.read((y0 // by, x0 // by, -(-y1 // by), -(-x1 // by)), level)[::step, ::step]
        return pixels.encode_part(part, self.shape, crop, view.step, self.stamp, stream=stream, flags=flags, request=request)

    def histogram(self) -> pixels.Histogram | None:
        """Return the histogram of the largest stored size that is counted whole, else of the smallest one."""
        level = 0
        while level + 1 < self.levels and (self.shape[0] >> level) * (self.shape[1] >> level) > pixels.COUNTED_PIXELS:
            level += 1
        height, width = -(-self.shape[0] >> level), -(-self.shape[1] >> level)
        found = pixels.histogram(self.read((0, 0, height, width), level))
        return None if found is None else msgspec.structs.replace(found, step=found.step << level)

    def value(self, y: int, x: int) -> dict[str, Any]:
        """Return the exact value of a pixel, which lies inside."""
        return pixels.exact_value(self.read((y, x, y + 1, x + 1), 0), 0, 0)


class Index(msgspec.Struct, frozen=True):
    """What there is, as the protocol has it."""

    first_id: int = 0
    last_id: int = 0
    frames: int = 0
    first_utc_ms: float | None = None
    last_utc_ms: float | None = None
    gaps: list[tuple[int, int]] = []
    gaps_more: int = 0
    shape: list[int] | None = None


class Past(Protocol):
    """Where a stream's frames of the past come from. Used from one thread at a time."""

    kind: str

    def find(self, where: Where) -> PastFrame:
        """Return the nearest frame that there is; raises LookupError if there is none."""

    def index(self, image: str | None = None) -> Index:
        """Say what there is, of one image where there are several; raises LookupError if there is no such image."""

    def close(self) -> None:
        """Let go of it."""


def one_image(image: str | None) -> None:
    """Raise LookupError if an image is named where there is nothing to choose."""
    if image is not None:
        raise LookupError(f"there is no image {image!r}: only a plate has images to choose")


def nearest(where: Where, ids: NDArray[np.uint64], utc_ns: Any) -> int:
    """Return the number of the frame that is meant; `utc_ns` is called for the times where they matter.

    Raises
    ------
    LookupError
        If there is no frame.
    """
    count = len(ids)
    if not count:
        raise LookupError("there is no frame yet")
    if where.number is not None:
        return min(max(where.number + count if where.number < 0 else where.number, 0), count - 1)
    if where.fraction is not None:
        return round(min(max(where.fraction, 0.0), 1.0) * (count - 1))
    if where.utc_ms is not None:
        return _nearest_of(utc_ns().astype(np.float64), where.utc_ms * 1e6)
    wanted = min(max(where.frame_id or 0, 0), 2**63 - 1)
    return _nearest_of(ids.astype(np.int64), wanted)


def _nearest_of(values: NDArray[Any], wanted: float) -> int:
    """Return the place of the value nearest to `wanted` among ascending values."""
    place = int(np.searchsorted(values, wanted))
    if place == 0 or (place < len(values) and values[place] == wanted):
        return place
    if place == len(values) or wanted - values[place - 1] <= values[place] - wanted:
        return place - 1
    return place


class StoredPast:
    """The frames of one camera of a data set, also while they are written.

    Parameters
    ----------
    path : path
        Of the data set.
    camera : str, optional
        Which one, if there are several.
    kind : str
        ``"recording"`` or ``"dataset"``.
    """

    def __init__(self, path: str | Path, camera: str | None, kind: str) -> None:
        self.kind = kind
        self._path = self._opened = path
        self._camera = camera
        self._reader: storage.FrameStreamReader | None = None
        self._columns: dict[str, Any] = {}

    def go_on_in(self, path: str | Path) -> None:
        """Look in another data set from the next call on; from any thread."""
        self._path = path

    def _open(self) -> storage.FrameStreamReader:
        if self._reader is not None and self._opened != self._path:
            self.close()
            self._reader = None
            self._columns.clear()
        if self._reader is None:
            self._opened = self._path
            self._reader = storage.open_reader(self._path, self._camera)
        elif self._reader.refresh():
            self._columns.clear()
        return self._reader

    def _column(self, name: str) -> Any:
        """One value a frame, read once as long as no frame comes."""
        if name not in self._columns:
            assert self._reader is not None
            value = getattr(self._reader, name)
            self._columns[name] = value() if name == "planes" else value
        return self._columns[name]

    def find(self, where: Where) -> PastFrame:
        """Return the nearest frame; it reads from this data set, in the same thread."""
        one_image(where.image)
        reader = self._open()
        number = nearest(where, self._column("frame_ids"), lambda: self._column("utc_ns"))
        planes = self._column("planes")
        plane = tuple(int(planes[axis][number]) for axis in ("t", "c", "z", "position")) if planes else (-1, -1, -1, -1)
        stamp = Stamp(
            int(self._column("frame_ids")[number]),
            int(self._column("monotonic_ns")[number]),
            int(self._column("utc_ns")[number]),
            float(self._column("exposure_ms")[number]),
            plane,  # type: ignore[arg-type]
        )

        def read(crop: Crop, level: int) -> NDArray[Any]:
            y0, x0, y1, x1 = crop
            return reader.read(number, level=level, rows=slice(y0, y1), columns=slice(x0, x1))

        return PastFrame(stamp, number, reader.shape_of(number), reader.levels_of(number), read)

    def index(self, image: str | None = None) -> Index:
        """Say what is stored."""
        one_image(image)
        reader = self._open()
        ids = self._column("frame_ids")
        if not len(ids):
            return Index()
        times, gaps = self._column("utc_ns"), reader.gaps()
        return Index(
            int(ids[0]),
            int(ids[-1]),
            len(ids),
            float(times[0]) / 1e6 or None,
            float(times[-1]) / 1e6 or None,
            gaps[:GAPS_TOLD],
            sum(count for _, count in gaps[GAPS_TOLD:]),
        )

    def form(self) -> tuple[tuple[int, int], str]:
        """Return shape and dtype of the newest frames."""
        reader = self._open()
        return reader.shape, reader.dtype

    @property
    def levels(self) -> int:
        """Sizes in which the newest frames are stored."""
        return self._open().levels

    def attributes(self) -> dict[str, Any]:
        """What was saved with the images."""
        return self._open().attributes

    def close(self) -> None:
        """Close the files."""
        if self._reader is not None:
            self._reader.close()


class MemoryPast:
    """The last frames of a camera that is not recorded, the oldest forgotten first. Any thread may use it.

    Parameters
    ----------
    limit_bytes : int
        Of pixels, all together. A frame that is larger is not kept.
    """

    kind = "memory"

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._frames: deque[tuple[NDArray[Any], Stamp]] = deque()
        self.bytes = 0

    def keep(self, array: NDArray[Any], stamp: Stamp) -> None:
        """Keep a copy of a frame, unless it is there already."""
        if array.nbytes > self._limit or (self._frames and self._frames[-1][1].frame_id == stamp.frame_id):
            return
        with self._lock:
            while self._frames and self.bytes + array.nbytes > self._limit:
                self.bytes -= self._frames.popleft()[0].nbytes
        kept = array.copy()
        with self._lock:
            self._frames.append((kept, stamp))
            self.bytes += kept.nbytes

    def find(self, where: Where) -> PastFrame:
        """Return the nearest frame; it is not copied."""
        one_image(where.image)
        with self._lock:
            frames = list(self._frames)
        ids = np.array([stamp.frame_id for _, stamp in frames], dtype=np.uint64)
        number = nearest(where, ids, lambda: np.array([stamp.utc_ns for _, stamp in frames]))
        array, stamp = frames[number]
        shape = (int(array.shape[0]), int(array.shape[1]))
        return PastFrame(stamp, number, shape, 1, lambda crop, _level: array[crop[0] : crop[2], crop[1] : crop[3]])

    def index(self, image: str | None = None) -> Index:
        """Say what is kept; what lies between the frames was not kept, so there are no gaps."""
        one_image(image)
        with self._lock:
            count = len(self._frames)
            if not count:
                return Index()
            first, last = self._frames[0][1], self._frames[-1][1]
        return Index(first.frame_id, last.frame_id, count, first.utc_ns / 1e6 or None, last.utc_ns / 1e6 or None)

    def close(self) -> None:
        """Forget all frames."""
        with self._lock:
            self._frames.clear()
            self.bytes = 0
