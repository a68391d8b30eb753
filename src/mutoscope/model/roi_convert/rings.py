"""Closed outlines: tracing them around pixels, and telling holes from pieces."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.roi import Composite, Polygon, Simple
from mutoscope.model.roi_convert.raster import fill_outlines

__all__ = ["as_area", "signed_area", "trace"]

Ring = NDArray[np.float64]

MOST_RINGS = 20_000
_CHECKED_PIXELS = 1 << 24
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def trace(mask: NDArray[np.bool_], origin: tuple[int, int] = (0, 0)) -> list[Ring]:
    """Return the outlines ``(n, 2)`` of ``(y, x)`` along the sides of the pixels; filling them gives the mask again.

    Pixels that touch at a corner only are apart.
    """
    padded = np.pad(np.asarray(mask, dtype=bool), 1)
    inside, above, left = padded[1:, 1:], padded[:-1, 1:], padded[1:, :-1]
    corner = padded[:-1, :-1]
    # A side runs with the pixel to its right: +x along the top, +y down the right, -x along the bottom, -y up the left.
    leaving = [inside & ~above, left & ~inside, corner & ~left, above & ~corner]
    sides: dict[tuple[int, int], list[int]] = {}
    for direction, there in enumerate(leaving):
        for y, x in np.argwhere(there).tolist():
            sides.setdefault((y, x), []).append(direction)
    rings: list[Ring] = []
    while sides:
        start = next(iter(sides))
        at, direction = start, sides[start][0]
        corners: list[tuple[int, int]] = []
        came = -1
        while True:
            ways = sides[at]
            if came >= 0:
                # Where two sides leave, a turn to the right stays with the same pixel.
                direction = (came + 1) % 4 if (came + 1) % 4 in ways else ways[0]
            ways.remove(direction)
            if not ways:
                del sides[at]
            if direction != came:
                corners.append(at)
            at = (at[0] + _STEPS[direction][0], at[1] + _STEPS[direction][1])
            came = direction
            if at == start and (at not in sides or (came + 1) % 4 not in sides[at]):
                break
        rings.append(np.array(corners, dtype=np.float64) + np.array(origin) - 0.5)
    return rings


def signed_area(ring: Ring) -> float:
    """Return the area that a ring encloses: positive if it runs clockwise on a screen (x to the right, y down)."""
    y, x = ring[:, 0] - ring[0, 0], ring[:, 1] - ring[0, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def as_area(rings: Sequence[Ring]) -> Polygon | Composite | None:
    """Make one shape of outlines that fill by the even-odd rule: a polygon with holes, or several; None if nothing is inside.

    Outlines that cross each other cannot be told apart; they become one polygon, which fills the same pixels.
    """
    kept = [ring for ring in rings if len(ring) >= 3 and signed_area(ring) != 0]
    if not kept:
        return None
    parts: list[Simple] | None = _nested(kept) if len(kept) <= MOST_RINGS else None
    if parts is None or not _same_pixels(kept, parts):
        return Polygon(_vertices(kept[0]), [_vertices(ring) for ring in kept[1:]])
    first = parts[0]
    return first if len(parts) == 1 and isinstance(first, Polygon) else Composite(parts)


def _nested(rings: Sequence[Ring]) -> list[Simple]:
    areas = np.array([abs(signed_area(ring)) for ring in rings])
    low = np.array([ring.min(axis=0) for ring in rings])
    high = np.array([ring.max(axis=0) for ring in rings])
    around: list[list[int]] = []
    for index, ring in enumerate(rings):
        point = _inner_point(ring)
        larger = (areas > areas[index]) & (low <= point).all(axis=1) & (high >= point).all(axis=1)
        around.append([other for other in np.flatnonzero(larger).tolist() if _is_inside(point, rings[other])])
    holes: dict[int, list[int]] = {index: [] for index in range(len(rings)) if len(around[index]) % 2 == 0}
    for index, outer in enumerate(around):
        if index not in holes:
            owner = min((other for other in outer if other in holes), key=lambda other: areas[other], default=None)
            if owner is None:
                holes[index] = []
            else:
                holes[owner].append(index)
    return [Polygon(_vertices(rings[index]), [_vertices(rings[hole]) for hole in inner]) for index, inner in holes.items()]


def _same_pixels(rings: Sequence[Ring], parts: Sequence[Simple]) -> bool:
    """Return whether the parts cover what the even-odd rule says; taken for granted where that would cost too much."""
    if len(rings) == 1:
        return True
    every = np.concatenate(list(rings))
    low, high = np.floor(every.min(axis=0)), np.ceil(every.max(axis=0))
    height, width = (high - low + 1).tolist()
    if not height * width <= _CHECKED_PIXELS:
        return True
    origin, shape = (int(low[0]), int(low[1])), (int(height), int(width))
    union = np.zeros(shape, dtype=bool)
    for part in parts:
        if isinstance(part, Polygon):
            union |= fill_outlines([np.array(ring) for ring in (part.exterior, *part.holes)], origin, shape)
    return bool(np.array_equal(union, fill_outlines(rings, origin, shape)))


def _inner_point(ring: Ring) -> NDArray[np.float64]:
    """Return a point well inside: the middle of the widest stretch of a line between two heights of vertices."""
    heights = np.unique(ring[:, 0])
    gap = int(np.argmax(np.diff(heights)))
    y = (heights[gap] + heights[gap + 1]) / 2
    crossings = np.sort(_crossings(y, ring))
    widths = crossings[1::2] - crossings[::2][: len(crossings) // 2]
    widest = int(np.argmax(widths)) * 2
    return np.array([y, (crossings[widest] + crossings[widest + 1]) / 2])


def _is_inside(point: NDArray[np.float64], ring: Ring) -> bool:
    return bool(np.count_nonzero(_crossings(point[0], ring) > point[1]) % 2)


def _crossings(y: float, ring: Ring) -> NDArray[np.float64]:
    end = np.roll(ring, -1, axis=0)
    crosses = (ring[:, 0] <= y) != (end[:, 0] <= y)
    a, b = ring[crosses], end[crosses]
    return np.asarray(a[:, 1] + (y - a[:, 0]) * (b[:, 1] - a[:, 1]) / (b[:, 0] - a[:, 0]))


def _vertices(ring: Ring) -> list[tuple[float, float]]:
    return [(y, x) for y, x in ring.tolist()]


def without_end(ring: Ring) -> Ring:
    """Return a ring without a last vertex that repeats the first."""
    while len(ring) > 1 and (ring[0] == ring[-1]).all():
        ring = ring[:-1]
    return ring


def as_ring(points: Sequence[Sequence[float]], limit: float = 1e9) -> Ring | None:
    """Return ``(y, x)`` vertices as an array, or None if one is beyond `limit`, is not finite, or is no pair."""
    if any(len(point) != 2 or not all(math.isfinite(value) and abs(value) <= limit for value in point) for point in points):
        return None
    return np.array([tuple(point) for point in points], dtype=np.float64).reshape(-1, 2)
