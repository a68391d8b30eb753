"""What every format of outlines needs: the rings of areas, each turned the right way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.roi import Composite, Freehand, Geometry, Line, Mask, Points, Polygon, Polyline, Simple, Vertex
from mutoscope.model.roi_convert.raster import area_px, mask_of, outlines
from mutoscope.model.roi_convert.rings import signed_area, trace

__all__ = ["is_area", "polygons", "turned", "unique", "vertices"]


def is_area(part: Simple) -> bool:
    """Return whether a shape encloses something."""
    return not (isinstance(part, Line | Polyline | Points) or (isinstance(part, Freehand) and not part.closed))


def turned(part: Simple) -> list[NDArray[np.float64]]:
    """Return the outlines of an area: the outer one with a positive :func:`~.rings.signed_area`, holes the other way, so that
    either fill rule sees the same."""
    return [ring if (signed_area(ring) > 0) == (index == 0) else ring[::-1] for index, ring in enumerate(outlines(part))]


def outlined(geometry: Geometry) -> list[NDArray[np.float64]]:
    """Return the outlines of the pixels that a shape covers; none if it covers none."""
    mask = mask_of(geometry)
    return [] if mask is None else trace(mask.to_array(), mask.origin)


def polygons(areas: Sequence[Simple]) -> list[list[NDArray[np.float64]]] | None:
    """Return areas as outlines with their holes, or None if they overlap or are masks: then only their pixels tell."""
    if any(isinstance(part, Mask) for part in areas):
        return None
    if len(areas) > 1 and area_px(Composite(list(areas))) != sum(map(area_px, areas)):
        return None
    return [turned(part) for part in areas]


def vertices(ring: NDArray[np.float64]) -> list[Vertex]:
    """Return an array ``(n, 2)`` as vertices."""
    return [(y, x) for y, x in ring.tolist()]


def as_polygons(geometry: Polygon | Composite | None) -> list[Polygon]:
    """Return the polygons of what :func:`~.rings.as_area` made."""
    if isinstance(geometry, Composite):
        return [part for part in geometry.parts if isinstance(part, Polygon)]
    return [] if geometry is None else [geometry]


def unique(name: str, taken: set[str]) -> str:
    """Return `name`, or with a number behind it if it is taken, and take it."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    taken.add(candidate)
    return candidate
