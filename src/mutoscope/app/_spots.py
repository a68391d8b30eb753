"""Bright spots of an image and who is who from one image to the next: enough for the demonstration, and no tracker."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Linker", "find_spots"]

RADIUS = 4
MOST = 200
REACH = 8.0
_AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def find_spots(image: NDArray[Any], threshold: float) -> NDArray[np.float64]:
    """Return spots that are brighter than `threshold` at their peak, the brightest first.

    Parameters
    ----------
    image : ndarray, shape (y, x)
    threshold : float
        In counts.

    Returns
    -------
    ndarray, shape (n, 3)
        ``y``, ``x`` (the centre of mass above the threshold, in pixels) and the peak's counts. At most 200; none nearer than
        four pixels to a brighter one or to the edge.

    Examples
    --------
    >>> image = np.zeros((32, 32))
    >>> image[10:13, 20:23] = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    >>> find_spots(image, 0.5)
    array([[11., 21.,  4.]])
    """
    height, width = image.shape
    if min(height, width) <= 2 * RADIUS:
        return np.empty((0, 3))
    inside = image[RADIUS : height - RADIUS, RADIUS : width - RADIUS]
    ys, xs = np.nonzero(inside > threshold)
    ys, xs = ys + RADIUS, xs + RADIUS
    values = image[ys, xs]
    peaks = np.ones(len(ys), dtype=bool)
    for dy, dx in _AROUND:
        peaks &= values >= image[ys + dy, xs + dx]
    ys, xs, values = ys[peaks], xs[peaks], values[peaks]
    order = np.argsort(values, kind="stable")[::-1]
    ys, xs, values = ys[order], xs[order], values[order]
    found: list[tuple[float, float, float]] = []
    free = np.ones(len(ys), dtype=bool)
    for number in range(len(ys)):
        if not free[number] or len(found) == MOST:
            continue
        y, x = ys[number], xs[number]
        free &= (ys - y) ** 2 + (xs - x) ** 2 > RADIUS**2
        window = image[y - RADIUS : y + RADIUS + 1, x - RADIUS : x + RADIUS + 1].astype(np.float64)
        weights = np.maximum(window - threshold, 0.0)
        total = weights.sum()
        offsets = np.arange(-RADIUS, RADIUS + 1)
        centre_y, centre_x = (weights.sum(axis=1) @ offsets) / total, (weights.sum(axis=0) @ offsets) / total
        found.append((y + centre_y, x + centre_x, float(values[number])))
    return np.array(found).reshape(-1, 3)


class Linker:
    """Gives each spot the number of the nearest one of the image before, within eight pixels, else a new one.

    Examples
    --------
    >>> linker = Linker()
    >>> linker.link(np.array([[10.0, 10.0], [50.0, 50.0]])), linker.link(np.array([[51.0, 50.0], [90.0, 90.0]]))
    (array([1, 2]), array([2, 3]))
    """

    def __init__(self) -> None:
        self._places = np.empty((0, 2))
        self._numbers: NDArray[np.int64] = np.empty(0, np.int64)
        self._last = 0

    def link(self, places: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the numbers of these spots, given as (y, x)."""
        numbers = np.zeros(len(places), np.int64)
        if len(places) and len(self._places):
            distances = np.hypot(*(places[:, None, axis] - self._places[None, :, axis] for axis in (0, 1)))
            for flat in np.argsort(distances, axis=None):
                new, old = divmod(int(flat), len(self._places))
                if distances[new, old] > REACH:
                    break
                if not numbers[new] and self._numbers[old] not in numbers:
                    numbers[new] = self._numbers[old]
        for new in np.flatnonzero(numbers == 0).tolist():
            self._last += 1
            numbers[new] = self._last
        self._places, self._numbers = places, numbers
        return numbers
