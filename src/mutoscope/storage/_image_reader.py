"""The reading of one image: written frames only, live or closed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ClosedError, ConfigError, DatasetError
from mutoscope.storage import _files, _flat, _layout, _nodes
from mutoscope.storage._level_reader import LevelReader, Part

__all__ = ["ImageReader", "Part"]

_ROWS = _layout.RECORDS_PER_CHUNK


class ImageReader:
    """Reads one image of a recording. It never follows links out of the data set.

    Parameters
    ----------
    root : Path
        The recording.
    image : Path
        The image's group: `root` or a folder in it.
    """

    def __init__(self, root: Path, image: Path) -> None:
        self.path = image
        self._root = root
        self._prefix = "" if image == root else f"{image.name}/"
        self._closed = False
        self._pixels: dict[int, LevelReader] = {0: LevelReader(root, self._prefix, 0)}
        self._level = self._pixels[0].level
        self.shape = self._level.shape
        self.dtype = self._level.dtype
        self.compression = self._level.compression
        self._ids: NDArray[np.uint64] = np.empty(0, dtype="<u8")
        self._positions: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._scanned = 0
        self.refresh()

    def _read_level(self) -> tuple[_layout.Level, int]:
        document = _nodes.read_array(self._root, f"{self._prefix}{_layout.LEVEL}")
        return _layout.parse_level(document, str(self.path / _layout.LEVEL))

    def _own(self) -> dict[str, Any]:
        own = _nodes.read_group(self._root, self._prefix.rstrip("/")).get(_layout.NAMESPACE)
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
        length = _layout.parse_flat(_nodes.read_array(self._root, folder), "frame_id", folder)
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
            place = _nodes.chunk_folder(Path(folder), self._level.version) / str(chunk)
            fd = _files.open_inside(self._root, str(place))
            try:
                wanted = (end - begin) * kind.itemsize
                data = os.pread(fd, wanted, (begin - chunk * _ROWS) * kind.itemsize)
            finally:
                os.close(fd)
            if len(data) != wanted:
                raise DatasetError(f"{self._root / place}: is shorter than its {_ROWS} values")
            parts.append(np.frombuffer(data, dtype=kind))
        return np.concatenate(parts) if parts else np.empty(0, dtype=kind)

    def column(self, name: str) -> NDArray[Any]:
        """Return the values of a flat array for the written frames."""
        self._check_open()
        relative = f"{self._prefix}{_layout.FRAMES}/{name}"
        _layout.parse_flat(_nodes.read_array(self._root, relative), name, str(self._root / relative))
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
    def ids(self) -> NDArray[np.uint64]:
        """Ids of the written frames, ascending."""
        return self._ids

    @property
    def positions(self) -> NDArray[np.int64]:
        """Places of the written frames along t of the array; 0, 1, 2, … unless a power cut left holes."""
        return self._positions

    @property
    def has_planes(self) -> bool:
        """Whether any frame of it had a plane index."""
        return _nodes.has_array(self.path / _layout.FRAMES / "t")

    @property
    def attributes(self) -> dict[str, Any]:
        """What Mutoscope saved with the image: camera, state, pixel size, settings, …"""
        self._check_open()
        return self._own()

    @property
    def levels(self) -> int:
        """Sizes that the image lists."""
        attributes = _nodes.read_group(self._root, self._prefix.rstrip("/"))
        own = attributes.get("ome", attributes)
        try:
            return len(own["multiscales"][0]["datasets"])
        except (KeyError, IndexError, TypeError):
            return 1

    # ------------------------------------------------------------------ pixels

    def read(self, number: int, part: Part = None, level: int = 0) -> NDArray[Any]:
        """Return the `number`-th written frame in one of its sizes, or rows and columns of that, as a new array."""
        return self.read_position(int(self._positions[number]), part, level)

    def read_position(self, position: int, part: Part = None, level: int = 0) -> NDArray[Any]:
        """Return the frame at a place along t, which is written, or rows and columns of it, as a new array."""
        self._check_open()
        if level not in self._pixels:
            if not 0 <= level < self.levels:
                raise ConfigError(f"{self.path}: is stored in {self.levels} sizes, so there is no level {level}")
            self._pixels[level] = LevelReader(self._root, self._prefix, level)
        return self._pixels[level].read(position, part)

    # ------------------------------------------------------------------ the end

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.path}: this reader is closed")

    def close(self) -> None:
        """Close the files; twice is fine."""
        self._closed = True
        for pixels in self._pixels.values():
            pixels.close()
