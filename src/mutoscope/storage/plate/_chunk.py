"""The bytes of one plane: a chunk of its own, not compressed or compressed as a whole."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import DatasetError
from mutoscope.storage.plate._documents import PlateImageSpec

__all__ = ["encode", "possible_size", "read"]


def encode(spec: PlateImageSpec, plane: NDArray[Any]) -> Any:
    """Return the bytes of a contiguous little-endian plane as they are stored."""
    return plane


def possible_size(spec: PlateImageSpec, shape: tuple[int, int], size: int) -> bool:
    """Whether a chunk's file can have so many bytes."""
    return size == math.prod(shape) * spec.numpy_dtype.itemsize


def read(spec: PlateImageSpec, shape: tuple[int, int], fd: int, bounds: tuple[slice, slice] | None, where: str) -> NDArray[Any]:
    """Return a plane, or the part of it inside of `bounds`, from its open file, reading no rows beside."""
    if os.fstat(fd).st_size != math.prod(shape) * spec.numpy_dtype.itemsize:
        raise DatasetError(f"{where}: is not as long as its plane, so it is damaged")
    rows, columns = bounds or (slice(0, shape[0]), slice(0, shape[1]))
    pitch = shape[1] * spec.numpy_dtype.itemsize
    array = np.empty((rows.stop - rows.start, shape[1]), dtype=spec.numpy_dtype)
    view = array.data.cast("B")
    done, offset = 0, rows.start * pitch
    while done < view.nbytes:
        got = os.preadv(fd, [view[done:]], offset + done)
        if got == 0:
            raise DatasetError(f"{where}: is not as long as its plane, so it is damaged")
        done += got
    found = array.astype(array.dtype.newbyteorder("="), copy=False)
    return found if (columns.start, columns.stop) == (0, shape[1]) else found[:, columns].copy()
