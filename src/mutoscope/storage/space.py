"""Room on the device: what is free, what a frame takes, and a reserve that lets a full disk still be closed in order."""

from __future__ import annotations

import os
from pathlib import Path

from numpy.typing import DTypeLike

from mutoscope.storage import _files, _layout, _seal

__all__ = ["bytes_per_frame", "free_bytes"]

RESERVE_BYTES = 256 * 1024
"""Kept by a writer until it closes: room for the documents and the last index."""


def free_bytes(path: str | os.PathLike[str]) -> int:
    """Return the bytes that this user may still write where `path` is or would be.

    Parameters
    ----------
    path : path
        A data set, existing or planned: the nearest folder that exists is asked.
    """
    folder = Path(path).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def bytes_per_frame(shape: tuple[int, int], dtype: DTypeLike, *, frames_per_shard: int | None = None) -> float:
    """Return what one stored frame takes on the device, its ids, times and share of the index included.

    Parameters
    ----------
    shape : tuple of int
        (y, x).
    dtype : dtype
        Of the pixels.
    frames_per_shard : int, optional
        As given to the writer.

    Examples
    --------
    >>> bytes_per_frame((512, 512), "uint16")
    524360.015625
    """
    level = _layout.plan_level(shape, dtype, frames_per_shard)
    records = 8 * len(_layout.FLAT_ARRAYS) + 4 * len(_layout.PLANE_ARRAYS)
    return level.frame_bytes + records + level.index_length / level.frames_per_shard


class Reserve:
    """A file that takes room until it is released; one writer owns it.

    Parameters
    ----------
    folder : Path
        Where it lies: that of an image's pixels, where no Zarr reader looks for nodes.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _seal.RESERVE
        self._held = False

    def take(self) -> None:
        """Take the room; DiskFullError if there is none."""
        with _files.translated(self._path):
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                os.posix_fallocate(fd, 0, RESERVE_BYTES)
            finally:
                os.close(fd)
        self._held = True

    def release(self) -> None:
        """Give the room back; twice is fine."""
        if self._held:
            self._path.unlink(missing_ok=True)
            self._held = False
