"""Which pixels a shape covers, counted as ImageJ counts them.

A pixel belongs to an area if its centre lies inside. Where a centre lies exactly on an outline, the rule is ImageJ's
(``ij.process.PolygonFiller`` of 1.53: outside on a left edge, inside on a right one; ``ij.gui.OvalRoi``: inside on an ellipse),
so that areas and masks agree with ImageJ's, pixel for pixel. Holes follow the even-odd rule. An open line has no
area; points cover the pixels that they lie in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError
from mutoscope.model.roi import (
    Composite,
    Ellipse,
    Freehand,
    Geometry,
    Line,
    Mask,
    Points,
    Polygon,
    Polyline,
    Rectangle,
    Simple,
    cos_sin,
)

__all__ = ["area_px", "covered", "mask_of", "outlines"]

MAX_PIXELS = 1 << 28
"""Largest box that a mask is made for without a shape to clip it by."""

_EDGE_ROWS = 1 << 22
_SEGMENTS = 256
_SHIFT = 1e-8  # ImageJ's own, in PolygonFiller


def covered(geometry: Geometry, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels of an image of this shape ``(y, x)`` a ROI covers."""
    return _covered(geometry, (0, 0), shape)


def mask_of(geometry: Geometry) -> Mask | None:
    """Return the pixels that a ROI covers, in the smallest box that holds them; None if it covers none.

    Raises
    ------
    ConfigError
        If its box has more than 2**28 pixels.
    """
    if isinstance(geometry, Mask):
        origin, whole = geometry.origin, geometry.to_array()
    else:
        y0, x0, y1, x1 = geometry.bounds()
        origin = (math.floor(y0), math.floor(x0))
        shape = (math.ceil(y1) - origin[0] + 1, math.ceil(x1) - origin[1] + 1)
        if shape[0] * shape[1] > MAX_PIXELS:
            raise ConfigError(f"a mask of {shape[0]} x {shape[1]} pixels is too large; give the image's shape to covered()")
        whole = _covered(geometry, origin, shape)
    rows, columns = np.flatnonzero(whole.any(axis=1)), np.flatnonzero(whole.any(axis=0))
    if not rows.size:
        return None
    part = whole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Mask.from_array(part, (origin[0] + int(rows[0]), origin[1] + int(columns[0])))


def area_px(geometry: Geometry) -> int:
    """Return how many pixels a ROI covers; 0 for lines and points, as in ImageJ."""
    if isinstance(geometry, Composite):
        areas: list[Simple] = [part for part in geometry.parts if not isinstance(part, Points)]
        if not areas:
            return 0
        geometry = Composite(areas)
    if isinstance(geometry, Points):
        return 0
    mask = mask_of(geometry)
    return 0 if mask is None else int(mask.to_array().sum())


def outlines(geometry: Geometry) -> list[NDArray[np.float64]]:
    """Return the closed outlines of an area as arrays ``(n, 2)`` of ``(y, x)``, which fill it by the even-odd rule.

    Outlines of an ellipse have 256 vertices. Lines, points and masks have none.
    """
    if isinstance(geometry, Polygon):
        return [np.array(ring, dtype=np.float64) for ring in (geometry.exterior, *geometry.holes)]
    if isinstance(geometry, Freehand) and geometry.closed:
        return [np.array(geometry.vertices, dtype=np.float64)]
    if isinstance(geometry, Rectangle):
        return [np.array(geometry.vertices(), dtype=np.float64)]
    if isinstance(geometry, Ellipse):
        around = np.arange(_SEGMENTS) * (2 * np.pi / _SEGMENTS)
        dy, dx = geometry.height / 2 * np.sin(around), geometry.width / 2 * np.cos(around)
        cos, sin = cos_sin(geometry.angle_deg)
        y = geometry.center[0] + dx * sin + dy * cos
        x = geometry.center[1] + dx * cos - dy * sin
        return [np.stack([y, x], axis=1)]
    return []


def _covered(geometry: Geometry, origin: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    if isinstance(geometry, Composite):
        whole = np.zeros(shape, dtype=bool)
        for part in geometry.parts:
            whole |= _covered(part, origin, shape)
        return whole
    if isinstance(geometry, Mask):
        return _moved(geometry, origin, shape)
    if isinstance(geometry, Ellipse):
        return _in_ellipse(geometry, origin, shape)
    if isinstance(geometry, Points):
        return _at_points(geometry, origin, shape)
    if isinstance(geometry, Line | Polyline):
        return np.zeros(shape, dtype=bool)
    return fill_outlines(outlines(geometry), origin, shape)


def fill_outlines(rings: Sequence[NDArray[np.float64]], origin: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill closed outlines ``(n, 2)`` of ``(y, x)`` by the even-odd rule, inside a box."""
    height, width = shape
    crossings = np.zeros((height, width + 1), dtype=np.uint8)
    for ring in rings:
        if len(ring) < 3:
            continue
        begin = ring - np.array(origin, dtype=np.float64)
        end = np.roll(begin, -1, axis=0)
        down = (begin[:, 0] <= end[:, 0])[:, None]
        top, bottom = np.where(down, begin, end), np.where(down, end, begin)
        first = np.clip(np.ceil(top[:, 0]), 0, height).astype(np.int64)
        last = np.clip(np.ceil(bottom[:, 0]), 0, height).astype(np.int64)
        counts = last - first
        edges = np.flatnonzero(counts > 0)
        if not edges.size:
            continue
        for some in np.split(edges, np.flatnonzero(np.diff(np.cumsum(counts[edges]) // _EDGE_ROWS)) + 1):
            _cross(crossings, top[some], bottom[some], first[some], counts[some])
    return np.asarray(np.bitwise_xor.accumulate(crossings & 1, axis=1)[:, :width], dtype=bool)


def _cross(
    crossings: NDArray[np.uint8],
    top: NDArray[np.float64],
    bottom: NDArray[np.float64],
    first: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Count, for each row that each edge crosses, the first pixel to the right of the crossing."""
    edge = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (bottom[:, 1] - top[:, 1]) / (bottom[:, 0] - top[:, 0])
    x = top[edge, 1] + (row - top[edge, 0]) * slope[edge]
    column = np.clip(np.floor(x + (1 + _SHIFT)), 0, crossings.shape[1] - 1).astype(np.int64)
    np.add.at(crossings, (row, column), np.uint8(1))


def _moved(mask: Mask, origin: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    whole = np.zeros(shape, dtype=bool)
    y, x = mask.origin[0] - origin[0], mask.origin[1] - origin[1]
    y0, x0 = max(y, 0), max(x, 0)
    y1, x1 = min(y + mask.shape[0], shape[0]), min(x + mask.shape[1], shape[1])
    if y1 > y0 and x1 > x0:
        whole[y0:y1, x0:x1] = mask.to_array()[y0 - y : y1 - y, x0 - x : x1 - x]
    return whole


def _in_ellipse(ellipse: Ellipse, origin: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    whole = np.zeros(shape, dtype=bool)
    low_y, low_x, high_y, high_x = ellipse.bounds()
    y0, x0 = max(math.floor(low_y) - origin[0], 0), max(math.floor(low_x) - origin[1], 0)
    y1, x1 = min(math.ceil(high_y) - origin[0] + 1, shape[0]), min(math.ceil(high_x) - origin[1] + 1, shape[1])
    if y1 <= y0 or x1 <= x0:
        return whole
    y = np.arange(y0, y1, dtype=np.float64)[:, None] + (origin[0] - ellipse.center[0])
    x = np.arange(x0, x1, dtype=np.float64)[None, :] + (origin[1] - ellipse.center[1])
    if ellipse.angle_deg:
        cos, sin = cos_sin(ellipse.angle_deg)
        y, x = y * cos - x * sin, y * sin + x * cos
    half_y, half_x = ellipse.height / 2, ellipse.width / 2
    whole[y0:y1, x0:x1] = x * x / (half_x * half_x) + y * y / (half_y * half_y) <= 1.0
    return whole


def _at_points(points: Points, origin: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    whole = np.zeros(shape, dtype=bool)
    for y, x in points.points:
        row, column = math.floor(y + 0.5) - origin[0], math.floor(x + 0.5) - origin[1]
        if 0 <= row < shape[0] and 0 <= column < shape[1]:
            whole[row, column] = True
    return whole
