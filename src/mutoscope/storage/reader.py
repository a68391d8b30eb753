"""The reader of one image: written frames only, live or closed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ClosedError, DatasetError
from mutoscope.storage import _files, _flat, _layout

__all__ = ["FrameStreamReader"]

_ROWS = _layout.RECORDS_PER_CHUNK


class FrameStreamReader:
    """Reads the frames of one image of a recording. Made by `open_reader`.

    It may be open while the image is written, by any process: `refresh` takes up what came since. Not thread-safe. It
    never follows links out of the data set. It is a context manager.

    Attributes
    ----------
    path : Path
        The image's group.
    shape : tuple of int
        (y, x).
    dtype : str
        Of the pixels.
    """

    def __init__(self, root: Path, image: Path) -> None:
        self.path = image
        self._root = root
        self._prefix = "" if image == root else f"{image.name}/"
        self._pixels_fd = -1
        self._shard = -1
        self._closed = False
        self._level, _ = self._read_level()
        self.shape = self._level.shape
        self.dtype = self._level.dtype
        self._ids: NDArray[np.uint64] = np.empty(0, dtype="<u8")
        self._positions: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._scanned = 0
        self.refresh()

    def _read_level(self) -> tuple[_layout.Level, int]:
        document = _files.read_document(self._root, f"{self._prefix}{_layout.LEVEL}/zarr.json")
        return _layout.parse_level(document, str(self.path / _layout.LEVEL))

    def _own(self) -> dict[str, Any]:
        document = _files.read_document(self._root, f"{self._prefix}zarr.json")
        own = _files.attributes_of(document, self.path).get(_layout.NAMESPACE)
        return own if isinstance(own, dict) else {}

    # ------------------------------------------------------------------ what is there

    def refresh(self) -> int:
        """Take up the frames that were written since the last look; return how many.

        Raises
        ------
        DatasetError
            If files are missing or damaged.
        """
        self._check_open()
        level, declared = self._read_level()
        if level != self._level:
            raise DatasetError(f"{self.path}: was replaced by another data set; open it again")
        folder = f"{self._prefix}{_layout.FRAMES}/frame_id"
        length = _layout.parse_flat(_files.read_document(self._root, f"{folder}/zarr.json"), "frame_id", folder)
        found = self._read_flat("frame_id", self._scanned, min(length, declared))
        written = np.flatnonzero(found)
        if not written.size:
            return 0
        ids = found[written]
        if np.any(ids[1:] <= ids[:-1]) or (self._ids.size and ids[0] <= self._ids[-1]):
            raise DatasetError(f"{self.path}: its frame ids do not increase, so they are damaged")
        self._ids = np.concatenate([self._ids, ids])
        self._positions = np.concatenate([self._positions, written + self._scanned])
        self._scanned += int(written[-1]) + 1
        return int(written.size)

    def _read_flat(self, name: str, first: int, last: int) -> NDArray[Any]:
        """Return the values of a flat array from `first` up to, not with, `last`; a missing chunk has the fill value."""
        dtype, fill = (_layout.FLAT_ARRAYS | _layout.PLANE_ARRAYS)[name]
        kind = np.dtype(dtype).newbyteorder("<")
        folder = f"{self._prefix}{_layout.FRAMES}/{name}"
        parts: list[NDArray[Any]] = []
        chunks = set(_flat.chunk_numbers(self._root / folder))
        last = min(last, (max(chunks, default=-1) + 1) * _ROWS)
        for chunk in range(first // _ROWS, -(-last // _ROWS) if last > first else 0):
            begin, end = max(first, chunk * _ROWS), min(last, (chunk + 1) * _ROWS)
            if chunk not in chunks:
                parts.append(np.full(end - begin, float("nan") if fill == "NaN" else fill, dtype=kind))
                continue
            fd = _files.open_inside(self._root, f"{folder}/c/{chunk}")
            try:
                wanted = (end - begin) * kind.itemsize
                data = os.pread(fd, wanted, (begin - chunk * _ROWS) * kind.itemsize)
            finally:
                os.close(fd)
            if len(data) != wanted:
                raise DatasetError(f"{self._root / folder}/c/{chunk}: is shorter than its {_ROWS} values")
            parts.append(np.frombuffer(data, dtype=kind))
        return np.concatenate(parts) if parts else np.empty(0, dtype=kind)

    def _column(self, name: str) -> NDArray[Any]:
        self._check_open()
        if not self._positions.size:
            dtype, _ = (_layout.FLAT_ARRAYS | _layout.PLANE_ARRAYS)[name]
            return np.empty(0, dtype=dtype)
        values = self._read_flat(name, 0, int(self._positions[-1]) + 1)
        if values.size <= self._positions[-1]:
            raise DatasetError(f"{self.path / _layout.FRAMES / name}: has fewer values than there are frames")
        return values[self._positions]

    def __len__(self) -> int:
        return int(self._ids.size)

    @property
    def frame_ids(self) -> NDArray[np.uint64]:
        """Ids of the frames, ascending; a copy."""
        return self._ids.copy()

    @property
    def positions(self) -> NDArray[np.int64]:
        """Places of the frames along t of the array; 0, 1, 2, … unless a power cut left holes."""
        return self._positions.copy()

    @property
    def monotonic_ns(self) -> NDArray[np.int64]:
        """Times on the recording machine's monotonic clock; 0 is unknown."""
        return self._column("monotonic_ns")

    @property
    def utc_ns(self) -> NDArray[np.int64]:
        """Times since 1970 in UTC; 0 is unknown."""
        return self._column("utc_ns")

    @property
    def ticks(self) -> NDArray[np.uint64]:
        """The camera's own counter; 0 is unknown."""
        return self._column("tick")

    @property
    def exposure_ms(self) -> NDArray[np.float64]:
        """Exposure times; nan is unknown."""
        return self._column("exposure_ms")

    def planes(self) -> dict[str, NDArray[np.int32]] | None:
        """Return t, c, z and position of the frames (-1: unknown), None if none had any."""
        if not (self.path / _layout.FRAMES / "t" / "zarr.json").is_file():
            return None
        return {name: self._column(name) for name in _layout.PLANE_ARRAYS}

    def gaps(self) -> list[tuple[int, int]]:
        """Return (first missing id, how many) for each gap between the first and the last stored id."""
        steps = np.diff(self._ids)
        return [(int(self._ids[k]) + 1, int(steps[k]) - 1) for k in np.flatnonzero(steps > 1)]

    @property
    def ledger(self) -> dict[str, Any] | None:
        """The account of frames saved with this image, else that of the recording, else None."""
        self._check_open()
        for own in (self._own(), self._root_own()):
            if isinstance(own.get("ledger"), dict):
                return dict(own["ledger"])
        return None

    def _root_own(self) -> dict[str, Any]:
        own = _files.attributes_of(_files.read_document(self._root, "zarr.json"), self._root).get(_layout.NAMESPACE)
        return own if isinstance(own, dict) else {}

    @property
    def attributes(self) -> dict[str, Any]:
        """What Mutoscope saved with the image: camera, state, pixel size, settings, …"""
        self._check_open()
        return self._own()

    # ------------------------------------------------------------------ pixels

    def __getitem__(self, number: int) -> NDArray[Any]:
        """Return a frame as a new array (y, x); `number` counts written frames, negative from the end."""
        size = len(self)
        if not -size <= number < size:
            raise IndexError(f"frame {number} of {size}")
        return self._read(int(self._positions[number]))

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for number in range(len(self)):
            yield self[number]

    def frame(self, frame_id: int) -> NDArray[Any]:
        """Return the frame of an id; KeyError if it is not stored."""
        return self[self.number_of(frame_id)]

    def number_of(self, frame_id: int) -> int:
        """Return the place of an id among the written frames; KeyError if it is not stored."""
        if 0 < frame_id < 2**64:
            number = int(np.searchsorted(self._ids, np.uint64(frame_id)))
            if number < len(self) and int(self._ids[number]) == frame_id:
                return number
        raise KeyError(frame_id)

    def _read(self, position: int) -> NDArray[Any]:
        self._check_open()
        level = self._level
        shard, slot = divmod(position, level.frames_per_shard)
        if shard != self._shard:
            fd = _files.open_inside(self._root, f"{self._prefix}{_layout.LEVEL}/c/{shard}/0/0")
            if self._pixels_fd >= 0:
                os.close(self._pixels_fd)
            self._pixels_fd, self._shard = fd, shard
        offset = slot * level.frame_bytes
        where = f"{self.path / _layout.LEVEL}/c/{shard}/0/0"
        if os.fstat(self._pixels_fd).st_size < offset + level.frame_bytes:
            raise DatasetError(f"{where}: is too short for frame {slot} of it")
        array = np.empty(level.shape, dtype=level.numpy_dtype)
        view = array.data.cast("B")
        done = 0
        while done < level.frame_bytes:
            got = os.preadv(self._pixels_fd, [view[done:]], offset + done)
            if got == 0:
                raise DatasetError(f"{where}: is too short for frame {slot} of it")
            done += got
        return array

    # ------------------------------------------------------------------ the end

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.path}: this reader is closed")

    def close(self) -> None:
        """Close the files; twice is fine."""
        self._closed = True
        if self._pixels_fd >= 0:
            os.close(self._pixels_fd)
            self._pixels_fd = -1

    def __enter__(self) -> FrameStreamReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
