"""Smaller levels of a plane: each pixel the mean of 2 x 2 of the level before."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["half", "shrunk_to"]

_BLOCK = 1 << 16
"""Pixels of a plane's row pairs that are worked on at a time, halved: some 500 KB with what is in between."""


def half(plane: NDArray[Any]) -> NDArray[Any]:
    """Return a plane of half the size, rounded up; whole numbers are rounded to the nearest, halves up.

    Parameters
    ----------
    plane : ndarray, shape (y, x)
        At an odd end the last row or column counts twice.

    Examples
    --------
    >>> half(np.array([[0, 1, 9], [2, 4, 9]], "uint8"))
    array([[2, 9]], dtype=uint8)
    """
    height, width = plane.shape
    if height % 2 or width % 2:
        plane = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")
    rows, columns = plane.shape[0] // 2, plane.shape[1] // 2
    kind = plane.dtype.kind
    if kind == "f":
        wide: Any = np.float64 if plane.dtype.itemsize == 8 else np.float32
    else:
        wide = np.int32 if plane.dtype.itemsize < 4 else np.int64
    found: NDArray[Any] = np.empty((rows, columns), plane.dtype)
    step = max(1, _BLOCK // plane.shape[1])
    for top in range(0, rows, step):  # what is in between stays in the processor's cache
        upper = plane[2 * top : 2 * (top + step) : 2].astype(wide)
        upper += plane[2 * top + 1 : 2 * (top + step) : 2]
        pairs = upper.reshape(-1, columns, 2)
        part = pairs[:, :, 0] + pairs[:, :, 1]
        if kind == "f":
            part *= 0.25
        else:
            part += 2
            part >>= 2
        found[top : top + step] = part
    return found


def shrunk_to(plane: NDArray[Any], longest: int) -> NDArray[Any]:
    """Return a plane halved until its longer side is not longer than `longest`."""
    while max(plane.shape) > longest:
        plane = half(plane)
    return plane
