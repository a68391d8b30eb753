"""Smaller levels of a plane: each pixel the mean of 2 x 2 of the level before."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["half", "shrunk_to"]


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
    total = plane[0::2].astype(wide)
    total += plane[1::2]
    sums = total.reshape(rows, columns, 2)
    found: NDArray[Any] = sums[:, :, 0] + sums[:, :, 1]
    if kind == "f":
        found *= 0.25
    else:
        found += 2
        found >>= 2
    return found.astype(plane.dtype)


def shrunk_to(plane: NDArray[Any], longest: int) -> NDArray[Any]:
    """Return a plane halved until its longer side is not longer than `longest`."""
    while max(plane.shape) > longest:
        plane = half(plane)
    return plane
