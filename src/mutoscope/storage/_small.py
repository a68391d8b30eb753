"""The small shard: a file of chunks that is written aside, gets its index, and appears by a rename.

While its stream goes on it is published several times, each time as a whole: with the frames that it has so far. The index
stands at its end and marks the chunks that are not there. Zarr 3 sharding codec, as in `mutoscope.storage._shard`. In Zarr 2 it
is one chunk, which is one frame, without an index.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import DatasetError
from mutoscope.storage import _files, _layout, _shard

__all__ = ["SmallShard", "read_index"]

_MAX_BUFFERS = 512
_COPY_BYTES = 8 * 1024 * 1024
_NO_KERNEL_COPY = (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)

Index = NDArray[np.uint64]


def read_index(fd: int, level: _layout.Level, where: str) -> Index:
    """Return the index of a shard, (chunks, 2): offset and length, both `_shard.EMPTY` for what is not stored.

    Raises
    ------
    DatasetError
        If the checksum is wrong, or a chunk does not lie inside the file.
    """
    size = os.fstat(fd).st_size
    length = level.index_length
    raw = os.pread(fd, length, size - length) if size >= length else b""
    if len(raw) != length or struct.unpack("<I", raw[-4:])[0] != _shard.crc32c(raw[:-4]):
        raise DatasetError(f"{where}: has no whole index at its end")
    index = np.frombuffer(raw[:-4], dtype="<u8").reshape(-1, 2)
    stored = index[index[:, 0] != _shard.EMPTY]
    room = size - length
    if stored.size and (int(stored.max()) > room or int(stored.sum(axis=1).max()) > room):
        raise DatasetError(f"{where}: its index points out of the file")
    return index


class SmallShard:
    """A shard that is being filled; the writer's publishing thread owns it.

    Parameters
    ----------
    level : Level
        Of the image.
    folder : Path
        That of the level's array.
    number : int
        Which shard.
    staging : Path
        Where it is prepared: the folder of the full size, where those of killed processes are looked for.
    """

    def __init__(self, level: _layout.Level, folder: Path, number: int, staging: Path) -> None:
        self._level = level
        self._part = staging / f".{os.getpid()}-{folder.name}-shard{number}{_files.PART}"
        self._index = np.full((level.shard_chunks, 2), _shard.EMPTY, dtype="<u8")
        self._fd = -1
        self._published_fd = -1
        self._end = 0
        self._folder = folder
        self.path = folder / level.chunk_path(number)
        self.number = number
        self.frames = 0
        """Frames that it holds, published or not."""
        self.dirty = False
        """Whether there are frames in it that are not published."""

    def take_up(self, frames: int) -> None:
        """Go on with the file that is there and its first `frames` frames; the next publishing drops what is behind them."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            index = read_index(fd, self._level, str(self.path))[: frames * self._level.strips]
            if np.any(index == _shard.EMPTY):
                raise DatasetError(f"{self.path}: does not hold the {frames} frames that are stored in it")
        except BaseException:
            os.close(fd)
            raise
        self._published_fd = fd
        self._index[: index.shape[0]] = index
        self._end = int(index.sum(axis=1).max())
        self.frames = frames

    def add(self, chunks: Sequence[Any], sizes: Sequence[int]) -> None:
        """Write one frame's chunks behind those before. OSError leaves the shard as it was before."""
        if self._fd < 0:
            self._begin()
        offset = self._end
        try:
            for first in range(0, len(chunks), _MAX_BUFFERS):
                some = chunks[first : first + _MAX_BUFFERS]
                wanted = sum(sizes[first : first + _MAX_BUFFERS])
                if os.pwritev(self._fd, some, offset) != wanted:
                    at = offset
                    for chunk, size in zip(some, sizes[first:], strict=False):
                        _files.write_all(self._fd, chunk, at)
                        at += size
                offset += wanted
        except OSError:
            os.ftruncate(self._fd, self._end)  # gives the room back
            raise
        strips = self._level.strips
        rows = self._index[self.frames * strips : (self.frames + 1) * strips]
        rows[:, 1] = sizes
        rows[:, 0] = self._end + np.concatenate(([0], np.cumsum(sizes)[:-1]))
        self._end = offset
        self.frames += 1
        self.dirty = True

    def leave_out(self) -> None:
        """Count a frame that is not there; it reads as zeros."""
        self.frames += 1

    def _begin(self) -> None:
        """Make the file aside, with what is published already."""
        fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            if self._published_fd >= 0:
                _copy(self._published_fd, fd, self._end)
        except BaseException:
            os.close(fd)
            self._part.unlink(missing_ok=True)
            raise
        self._fd = fd

    def publish(self, durable: bool) -> int:
        """Write the index and rename the file into place; return the bytes of the file."""
        fd = self._fd
        size = self._end
        if self._level.sharded:
            raw = self._index.tobytes()
            size += self._level.index_length
            try:
                _files.write_all(fd, raw + struct.pack("<I", _shard.crc32c(raw)), self._end)
            except OSError:
                os.ftruncate(fd, self._end)
                raise
        kill_point("storage.publish.part_written")
        if durable:
            os.fdatasync(fd)
        try:
            os.rename(self._part, self.path)
        except FileNotFoundError:
            _files.make_below(self._folder, self.path.parent)
            os.rename(self._part, self.path)
        kill_point("storage.publish.renamed")
        if self._published_fd >= 0:
            os.close(self._published_fd)
        self._published_fd, self._fd = fd, -1
        self.dirty = False
        return size

    def close(self) -> None:
        """Close the files; what is not published is removed. Twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._part.unlink(missing_ok=True)
        if self._published_fd >= 0:
            os.close(self._published_fd)
            self._published_fd = -1


def _copy(source: int, target: int, size: int) -> None:
    """Copy the first `size` bytes, in the kernel where it can."""
    done = 0
    try:
        while done < size:
            copied = os.copy_file_range(source, target, size - done, done, done)
            if copied == 0:
                break
            done += copied
    except OSError as error:
        if error.errno not in _NO_KERNEL_COPY:
            raise
    while done < size:
        data = os.pread(source, min(_COPY_BYTES, size - done), done)
        if not data:
            raise DatasetError(f"a shard ended after {done} of {size} bytes while it was copied")
        _files.write_all(target, data, done)
        done += len(data)
