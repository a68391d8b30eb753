"""The bytes of one plane: a chunk of its own, not compressed or compressed as a whole."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import DatasetError
from mutoscope.storage import _codec, _layout
from mutoscope.storage.plate._documents import PlateImageSpec

__all__ = ["check_possible", "encode", "looks_whole", "read"]

_HEAD = 32


def _as_level(spec: PlateImageSpec, shape: tuple[int, int]) -> _layout.Level:
    """Return a plane as the codecs of streams know it: one frame of one strip."""
    return _layout.Level(shape, spec.dtype, 1, shape[0], spec.compression)


def check_possible(spec: PlateImageSpec) -> None:
    """Raise BackendUnavailableError, with the command that helps, or ConfigError if planes cannot be compressed so here."""
    _codec.check_possible(_as_level(spec, spec.shape))


def encode(spec: PlateImageSpec, plane: NDArray[Any]) -> Any:
    """Return the bytes of a contiguous little-endian plane as they are stored."""
    if spec.compression == "none":
        return plane
    return _codec.encoder(_as_level(spec, (plane.shape[0], plane.shape[1])))(plane)


def looks_whole(spec: PlateImageSpec, shape: tuple[int, int], path: Path) -> bool:
    """Whether a chunk's file is there and says that it holds such a plane, without reading all of it."""
    nbytes = math.prod(shape) * spec.numpy_dtype.itemsize
    try:
        size = path.stat().st_size
        if spec.compression == "none":
            return size == nbytes
        with open(path, "rb") as file:
            return _codec.looks_whole(spec.compression, file.read(_HEAD), size, nbytes)
    except OSError:
        return False


def read(spec: PlateImageSpec, shape: tuple[int, int], fd: int, bounds: tuple[slice, slice] | None, where: str) -> NDArray[Any]:
    """Return a plane, or the part of it inside of `bounds`, from its open file; not compressed, no rows beside are read."""
    rows, columns = bounds or (slice(0, shape[0]), slice(0, shape[1]))
    if spec.compression != "none":
        whole = np.empty(shape, dtype=spec.numpy_dtype)
        size = os.fstat(fd).st_size
        if size > 2 * whole.nbytes + (1 << 16):
            raise DatasetError(f"{where}: is longer than its plane can be, so it is damaged")
        try:
            _codec.decode(spec.compression, _read(fd, size, where), whole)
        except ValueError as error:
            raise DatasetError(f"{where}: is damaged: {error}") from None
        part = _native(whole)
        return part if bounds is None else part[rows, columns].copy()
    if os.fstat(fd).st_size != math.prod(shape) * spec.numpy_dtype.itemsize:
        raise DatasetError(f"{where}: is not as long as its plane, so it is damaged")
    array = np.empty((rows.stop - rows.start, shape[1]), dtype=spec.numpy_dtype)
    if array.size:
        pitch = shape[1] * spec.numpy_dtype.itemsize
        _read_into(fd, array.data.cast("B"), rows.start * pitch, where)
    found = _native(array)
    return found if (columns.start, columns.stop) == (0, shape[1]) else found[:, columns].copy()


def _native(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _read(fd: int, size: int, where: str) -> bytes:
    data = bytearray(size)
    _read_into(fd, memoryview(data), 0, where)
    return bytes(data)


def _read_into(fd: int, view: memoryview, offset: int, where: str) -> None:
    done = 0
    while done < view.nbytes:
        got = os.preadv(fd, [view[done:]], offset + done)
        if got == 0:
            raise DatasetError(f"{where}: is not as long as its plane, so it is damaged")
        done += got
