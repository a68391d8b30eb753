"""The pixels of one size of an image: whole frames, or only those rows and columns that are wanted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.storage import _codec, _files, _layout, _nodes, _shard, _small

__all__ = ["LevelReader", "Part"]

Part = tuple[slice, slice] | None
"""Rows and columns of a frame, both with start and stop; None is all."""


class LevelReader:
    """Reads the pixels of one level of an image. It never follows links out of the data set. Its owner closes it.

    Parameters
    ----------
    root : Path
        The recording.
    prefix : str
        Of the image's group in it: empty, or a name and a slash.
    number : int
        0 for the full size.
    """

    def __init__(self, root: Path, prefix: str, number: int) -> None:
        self._root = root
        self._array = f"{prefix}{number}"
        self._path = root / self._array
        self.level, _ = _layout.parse_level(_nodes.read_array(root, self._array), str(self._path))
        self._indexed = number > 0 or self.level.published
        self._fd = -1
        self._shard = -1
        self._index: NDArray[np.uint64] | None = None

    def read(self, position: int, part: Part = None) -> NDArray[Any]:
        """Return the frame at a place along t, which is written, or rows and columns of it, as a new array."""
        level = self.level
        rows, columns = (slice(0, level.shape[0]), slice(0, level.shape[1])) if part is None else part
        if rows.stop > level.shape[0] or columns.stop > level.shape[1]:
            raise ConfigError(
                f"{self._path}: {rows.stop} rows and {columns.stop} columns do not lie in frames of {level.shape}"
            )
        if not level.sharded:
            whole = self._read_chunk(position)
            return whole if part is None else whole[rows, columns].copy()
        shard, slot = divmod(position, level.frames_per_shard)
        found = self._read_indexed(shard, slot, rows) if self._indexed else self._read_placed(shard, slot, rows)
        return found if (columns.start, columns.stop) == (0, level.shape[1]) else found[:, columns].copy()

    def _open(self, shard: int) -> None:
        fd = _files.open_inside(self._root, f"{self._array}/{self.level.chunk_path(shard)}")
        self.close()
        self._fd, self._shard = fd, shard

    def _read_placed(self, shard: int, slot: int, rows: slice) -> NDArray[Any]:
        """Read rows of a shard in which each frame has its place."""
        level = self.level
        if shard != self._shard:
            self._open(shard)
        offset = slot * level.frame_bytes
        where = f"{self._root / self._array}/{level.chunk_path(shard)}"
        if os.fstat(self._fd).st_size < offset + level.frame_bytes:
            raise DatasetError(f"{where}: is too short for frame {slot} of it")
        array = np.empty((rows.stop - rows.start, level.shape[1]), dtype=level.numpy_dtype)
        if not array.size:
            return array
        begin = offset + rows.start * (level.frame_bytes // level.shape[0])
        view = array.data.cast("B")
        done = 0
        while done < array.nbytes:
            got = os.preadv(self._fd, [view[done:]], begin + done)
            if got == 0:
                raise DatasetError(f"{where}: is too short for frame {slot} of it")
            done += got
        return array

    def _read_indexed(self, shard: int, slot: int, rows: slice) -> NDArray[Any]:
        """Read rows of a shard whose index says where each strip of a frame is."""
        level = self.level
        where = f"{self._root / self._array}/{level.chunk_path(shard)}"
        strips = slice(slot * level.strips, (slot + 1) * level.strips)
        if shard != self._shard or self._index is None or np.any(self._index[strips] == _shard.EMPTY):
            self._index = None
            self._open(shard)  # anew: it may have been published again, with more frames
            self._index = _small.read_index(self._fd, level, where)
        first, last = rows.start // level.strip, -(-rows.stop // level.strip)
        array = np.empty(((last - first) * level.strip, level.shape[1]), dtype=level.numpy_dtype)
        for number, (offset, length) in enumerate(self._index[strips][first:last].tolist()):
            if offset == _shard.EMPTY:
                raise DatasetError(f"{where}: does not hold frame {slot} of it")
            data = os.pread(self._fd, length, offset)
            try:
                self._decode(data, array[number * level.strip : (number + 1) * level.strip])
            except ValueError as error:
                raise DatasetError(f"{where}: frame {slot} of it is damaged: {error}") from error
        within = slice(rows.start - first * level.strip, rows.stop - first * level.strip)
        return array if (within.start, within.stop) == (0, len(array)) else array[within].copy()

    def _read_chunk(self, position: int) -> NDArray[Any]:
        """Read a frame that is a file of its own."""
        level = self.level
        relative = f"{self._array}/{level.chunk_path(position)}"
        array = np.empty(level.shape, dtype=level.numpy_dtype)
        with open(_files.open_inside(self._root, relative), "rb") as file:
            data = file.read(2 * level.frame_bytes + 4096)
        try:
            self._decode(data, array)
        except ValueError as error:
            raise DatasetError(f"{self._root / relative}: is damaged: {error}") from error
        return array

    def _decode(self, data: bytes, out: NDArray[Any]) -> None:
        if self.level.compression != "none":
            _codec.decode(self.level.compression, data, out)
            return
        if len(data) != out.nbytes:
            raise ValueError(f"it has {len(data)} bytes instead of {out.nbytes}")
        out.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)

    def close(self) -> None:
        """Close the file; twice is fine, and the next read opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = self._shard = -1
