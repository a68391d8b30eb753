"""Frames of the past: of a data set, whole or still being written, or of a bounded history in memory."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope import storage
from mutoscope.viewers.page.pixels import Stamp

__all__ = ["GAPS_TOLD", "Index", "MemoryPast", "Past", "PastFrame", "StoredPast", "Where"]

GAPS_TOLD = 10_000


class Where(msgspec.Struct, frozen=True):
    """Which frame is asked for: one of these is given."""

    frame_id: int | None = None
    number: int | None = None
    fraction: float | None = None
    utc_ms: float | None = None


@dataclass(frozen=True)
class PastFrame:
    """A frame of the past; the array is nobody else's, or is not changed any more."""

    array: NDArray[Any]
    stamp: Stamp
    number: int


class Index(msgspec.Struct, frozen=True):
    """What there is, as the protocol has it."""

    first_id: int = 0
    last_id: int = 0
    frames: int = 0
    first_utc_ms: float | None = None
    last_utc_ms: float | None = None
    gaps: list[tuple[int, int]] = []
    gaps_more: int = 0


class Past(Protocol):
    """Where a stream's frames of the past come from. Used from one thread at a time."""

    kind: str

    def find(self, where: Where) -> PastFrame:
        """Return the nearest frame that there is; raises LookupError if there is none."""

    def index(self) -> Index:
        """Say what there is."""

    def close(self) -> None:
        """Let go of it."""


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
        self._path = path
        self._camera = camera
        self._reader: storage.FrameStreamReader | None = None
        self._columns: dict[str, Any] = {}

    def _open(self) -> storage.FrameStreamReader:
        if self._reader is None:
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
        """Return the nearest frame, a new array."""
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
        return PastFrame(reader[number], stamp, number)

    def index(self) -> Index:
        """Say what is stored."""
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
        with self._lock:
            frames = list(self._frames)
        ids = np.array([stamp.frame_id for _, stamp in frames], dtype=np.uint64)
        number = nearest(where, ids, lambda: np.array([stamp.utc_ns for _, stamp in frames]))
        return PastFrame(frames[number][0], frames[number][1], number)

    def index(self) -> Index:
        """Say what is kept; what lies between the frames was not kept, so there are no gaps."""
        with self._lock:
            stamps = [stamp for _, stamp in self._frames]
        if not stamps:
            return Index()
        first, last = stamps[0], stamps[-1]
        return Index(first.frame_id, last.frame_id, len(stamps), first.utc_ns / 1e6 or None, last.utc_ns / 1e6 or None)

    def close(self) -> None:
        """Forget all frames."""
        with self._lock:
            self._frames.clear()
            self.bytes = 0
