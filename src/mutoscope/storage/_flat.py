"""Flat arrays: one value a frame, in chunk files of fixed length whose room is reserved when they are created."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from mutoscope.model._faults import kill_point
from mutoscope.storage import _files, _layout, _nodes

__all__ = ["FlatWriter", "chunk_numbers", "last_written"]

_ROWS = _layout.RECORDS_PER_CHUNK


def _version(folder: Path) -> str:
    return "0.4" if os.path.lexists(folder / ".zarray") else "0.5"


def chunk_numbers(folder: Path) -> list[int]:
    """Return the numbers of the chunk files of the flat array in `folder`, ascending."""
    try:
        names = os.listdir(_nodes.chunk_folder(folder, _version(folder)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 16)


def last_written(folder: Path) -> tuple[int, int]:
    """Return (frames, last frame_id) of the ``frame_id`` array in `folder`: up to the last one that is not 0."""
    place = _nodes.chunk_folder(folder, _version(folder))
    for number in reversed(chunk_numbers(folder)):
        fd = _files.open_inside(place, str(number))
        with open(fd, "rb") as file:
            data = file.read(8 * _ROWS)
        ids = np.frombuffer(data, dtype="<u8", count=len(data) // 8)  # a file that was cut may end within a value
        written = np.flatnonzero(ids)
        if written.size:
            return number * _ROWS + int(written[-1]) + 1, int(ids[written[-1]])
    return 0, 0


class FlatWriter:
    """The writing side of one flat array.

    Parameters
    ----------
    folder : Path
        The array's folder, its ``zarr.json`` there.
    name : str
        The array's name, as in the layout.
    staging : Path
        Where documents are prepared.
    length : int
        The declared length.
    version : str
        Of OME-Zarr.
    """

    def __init__(self, folder: Path, name: str, staging: Path, length: int, version: str = "0.5") -> None:
        dtype, self._fill = (_layout.FLAT_ARRAYS | _layout.PLANE_ARRAYS)[name]
        self.folder = folder
        self.name = name
        self.itemsize = np.dtype(dtype).itemsize
        self.length = length
        self.fd = -1
        self._staging = staging
        self._version = version
        self._chunks = _nodes.chunk_folder(folder, version)
        self._chunk = -1
        self._reserved: set[int] = set()

    def files(self) -> list[Path]:
        """Return its document, and the chunk that is written now, if any."""
        document = self.folder / _nodes.array_file(self._version)
        return [document, self._chunks / str(self._chunk)] if self._chunk >= 0 else [document]

    def reserve(self, chunk: int) -> list[Path]:
        """Create a chunk file at its full length, so that no value written into it can lack room; return what is new."""
        if chunk in self._reserved:
            return []
        path = self._chunks / str(chunk)
        size = _ROWS * self.itemsize
        with _files.translated(path):
            path.parent.mkdir(exist_ok=True)
            if path.exists() and path.stat().st_size == size:
                self._reserved.add(chunk)
                return []
            if self._fill == -1:  # of an array that is declared already: it appears whole
                _files.replace_file(path, b"\xff" * size, self._staging)
            else:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                try:
                    os.posix_fallocate(fd, 0, size)
                finally:
                    os.close(fd)
        self._reserved.add(chunk)
        kill_point("storage.grow.chunk_reserved")
        return [path, path.parent]

    def declare(self, length: int) -> Path | None:
        """Replace the array's document by one of the given length; return it if it changed."""
        if length == self.length:
            return None
        target = _nodes.replace_array(self.folder, _layout.flat_document(self.name, length, self._version), self._staging)
        self.length = length
        return target

    def enter(self, chunk: int) -> int:
        """Open a chunk for writing, in place of the one before; return the old descriptor, the caller's to close (-1: none)."""
        if chunk == self._chunk:
            return -1
        fd = os.open(self._chunks / str(chunk), os.O_WRONLY | os.O_CLOEXEC)
        old, self.fd, self._chunk = self.fd, fd, chunk
        return old

    def close(self) -> None:
        """Close the open chunk; twice is fine."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._chunk = -1


def create(folder: Path, name: str, length: int, staging: Path | None = None, version: str = "0.5") -> None:
    """Create a flat array without chunks: of an image that nobody reads yet, or through `staging` of one that is written."""
    folder.mkdir(parents=staging is None, exist_ok=True)
    document: dict[str, Any] = _layout.flat_document(name, length, version)
    if staging is None:
        _nodes.write_array(folder, document)
    else:
        _nodes.replace_array(folder, document, staging)
