"""ROIs as napari draws them, and back: exact, holes, turned ellipses and masks included. NumPy only.

What napari holds is in single precision, and has no place for the exact values of an ellipse; so the ROI that was drawn is
kept beside it, and believed as long as napari holds exactly what was drawn. What a person has drawn or changed is read from
napari's vertices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

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
    Roi,
    Simple,
    Vertex,
)
from mutoscope.model.roi_convert.rings import as_area, trace

__all__ = ["Drawing", "Held", "MaskSheet", "Piece", "drawing_of", "geometry_of", "held_rois"]

_MOST_PIXELS = 1 << 28


@dataclass(frozen=True)
class Piece:
    """A shape of napari.

    Parameters
    ----------
    key : str
        Of the ROI that it is a part of.
    kind : str
        ``"polygon"``, ``"path"``, ``"line"``, ``"rectangle"`` or ``"ellipse"``.
    vertices : ndarray, shape (n, 2), float32
        ``(y, x)``. A polygon with holes goes along its outline back to its beginning, then around each hole and back to the
        beginning, along a bridge that napari neither fills nor draws.
    rings : tuple of int
        How many vertices the outline and each hole have; empty where there are no holes.
    """

    key: str
    kind: str
    vertices: NDArray[np.float32]
    rings: tuple[int, ...] = ()


@dataclass
class MaskSheet:
    """Masks that do not overlap, as one image of labels.

    Parameters
    ----------
    origin : (y, x)
        Where its first pixel lies.
    labels : ndarray of int32, shape (y, x)
        0 where there is none; else the place of the ROI in `keys`, from 1.
    keys : list of str
        Of ROIs.
    """

    origin: tuple[int, int]
    labels: NDArray[np.int32]
    keys: list[str]


@dataclass
class Drawing:
    """What napari is to draw: shapes, points `(y, x)` with the key of the ROI of each, and images of labels."""

    pieces: list[Piece] = field(default_factory=list)
    points: list[tuple[str, Vertex]] = field(default_factory=list)
    sheets: list[MaskSheet] = field(default_factory=list)


Held = Drawing
"""The same as read from napari, where a piece or a point without a key is one that a person has drawn."""


def drawing_of(rois: Mapping[str, Roi]) -> Drawing:
    """Return what draws these ROIs, each under a key of its own: two of them may have one id."""
    drawing = Drawing()
    masks: list[tuple[str, Mask]] = []
    for key, roi in rois.items():
        for part in _parts(roi.geometry):
            if isinstance(part, Mask):
                masks.append((key, part))
            elif isinstance(part, Points):
                drawing.points += [(key, point) for point in part.points]
            else:
                drawing.pieces.append(_piece(key, part))
    if masks:
        drawing.sheets = _sheets(masks)
    if not drawing.sheets:  # so far apart that no image holds them: their outlines
        outlines = [(key, as_area(trace(mask.to_array(), mask.origin))) for key, mask in masks]
        drawing.pieces += [_piece(key, part) for key, area in outlines if area is not None for part in _parts(area)]
    return drawing


def held_rois(held: Held, known: Mapping[str, Roi]) -> list[Roi]:
    """Return the ROIs that napari holds.

    Parameters
    ----------
    held : Held
        What its layers have.
    known : mapping of key to Roi
        Those that were drawn: returned as they are where napari has exactly what was drawn of them; else with their name,
        planes, group and stroke, and the geometry that napari has.
    """
    wanted, found = _by_key(drawing_of(known)), _by_key(held)
    taken = {roi.id for roi in known.values()}
    new = (name for name in (f"napari-{number}" for number in itertools.count(1)) if name not in taken)
    rois = []
    for key in [key for key in found if key in known]:
        parts = found[key]
        copies = parts.pieces[len(wanted[key].pieces) :]  # what a person has copied has the key of the first
        parts.pieces = parts.pieces[: len(wanted[key].pieces)]
        if _same(parts, wanted[key]):
            rois.append(known[key])
        else:
            geometries = _geometries(parts, apart=False)
            geometry = geometries[0] if len(geometries) == 1 else Composite(geometries)
            rois.append(msgspec.structs.replace(known[key], geometry=geometry))
        rois += [Roi(next(new), geometry_of(piece)) for piece in copies]
    for key in [key for key in found if key not in known]:
        rois += [Roi(next(new), geometry) for geometry in _geometries(found[key], apart=True)]
    return rois


def _parts(geometry: Geometry) -> Sequence[Simple]:
    return geometry.parts if isinstance(geometry, Composite) else [geometry]


def _piece(key: str, part: Simple) -> Piece:
    match part:
        case Polygon(exterior, holes):
            around = list(exterior)
            for hole in holes:
                around += [exterior[0], *hole, hole[0]]
            if holes:
                around.append(exterior[0])
            return Piece(key, "polygon", _array(around), (len(exterior), *map(len, holes)) if holes else ())
        case Freehand(vertices, closed):
            return Piece(key, "polygon" if closed else "path", _array(vertices))
        case Polyline(vertices):
            return Piece(key, "path", _array(vertices))
        case Line(start, end):
            return Piece(key, "line", _array([start, end]))
        case Rectangle():
            return Piece(key, "rectangle", _array(part.vertices()))
        case Ellipse(center, height, width, angle_deg):
            return Piece(key, "ellipse", _array(Rectangle(center, height, width, angle_deg).vertices()))
        case _:
            raise TypeError(f"{type(part).__name__} is no shape of napari")


def _array(vertices: Sequence[Vertex]) -> NDArray[np.float32]:
    return np.asarray(vertices, np.float64).astype(np.float32)


def _sheets(masks: list[tuple[str, Mask]]) -> list[MaskSheet]:
    """Lay masks on as few images as need be: one that overlaps another lies on the next. None if they lie too far apart."""
    boxes = np.array(
        [(*mask.origin, mask.origin[0] + mask.shape[0], mask.origin[1] + mask.shape[1]) for _, mask in masks], object
    )
    top, left = int(boxes[:, 0].min()), int(boxes[:, 1].min())
    size = (int(boxes[:, 2].max()) - top, int(boxes[:, 3].max()) - left)
    if size[0] * size[1] > _MOST_PIXELS:
        return []
    sheets: list[MaskSheet] = []
    for key, mask in masks:
        y, x = mask.origin[0] - top, mask.origin[1] - left
        area, pixels = (slice(y, y + mask.shape[0]), slice(x, x + mask.shape[1])), mask.to_array()
        for sheet in sheets:
            if not sheet.labels[area][pixels].any():
                break
        else:
            sheet = MaskSheet((top, left), np.zeros(size, np.int32), [])
            sheets.append(sheet)
        if key not in sheet.keys:
            sheet.keys.append(key)
        sheet.labels[area][pixels] = sheet.keys.index(key) + 1
    return sheets


# -- back


@dataclass
class _Found:
    pieces: list[Piece] = field(default_factory=list)
    points: list[Vertex] = field(default_factory=list)
    masks: list[tuple[int, int, NDArray[np.bool_]]] = field(default_factory=list)


def _by_key(drawing: Drawing) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for piece in drawing.pieces:
        found.setdefault(piece.key, _Found()).pieces.append(piece)
    for key, point in drawing.points:
        found.setdefault(key, _Found()).points.append(point)
    for sheet in drawing.sheets:
        for number in np.unique(sheet.labels[sheet.labels > 0]).tolist():
            key = sheet.keys[number - 1] if number <= len(sheet.keys) else ""
            found.setdefault(key, _Found()).masks.append(_cut(sheet, number))
    return found


def _cut(sheet: MaskSheet, number: int) -> tuple[int, int, NDArray[np.bool_]]:
    here = sheet.labels == number
    rows, columns = np.flatnonzero(here.any(axis=1)), np.flatnonzero(here.any(axis=0))
    box = here[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return sheet.origin[0] + int(rows[0]), sheet.origin[1] + int(columns[0]), box


def _same(one: _Found, other: _Found) -> bool:
    return (
        [(piece.kind, piece.vertices.tobytes()) for piece in one.pieces]
        == [(piece.kind, piece.vertices.tobytes()) for piece in other.pieces]
        and _array(one.points).tobytes() == _array(other.points).tobytes()
        and [(y, x, box.shape, box.tobytes()) for y, x, box in one.masks]
        == [(y, x, box.shape, box.tobytes()) for y, x, box in other.masks]
    )


def _geometries(parts: _Found, apart: bool) -> list[Simple]:
    points = [[point] for point in parts.points] if apart else [parts.points] if parts.points else []
    return [
        *(geometry_of(piece) for piece in parts.pieces),
        *(Points(each) for each in points),
        *(Mask.from_array(box, (y, x)) for y, x, box in parts.masks),
    ]


def geometry_of(piece: Piece) -> Simple:
    """Return the geometry of a shape as napari has it."""
    vertices: list[Vertex] = [(float(y), float(x)) for y, x in piece.vertices]
    match piece.kind:
        case "polygon":
            return _polygon(vertices, piece.rings)
        case "rectangle":
            return _box(vertices, Rectangle)
        case "ellipse":
            return _box(vertices, Ellipse)
        case "line":
            return Line(vertices[0], vertices[-1])
        case _:
            return Polyline(vertices)


def _polygon(vertices: list[Vertex], rings: tuple[int, ...]) -> Simple:
    """A polygon of its outline and holes, if the bridges between them are still there; else of all of its vertices."""
    if len(vertices) < 3:
        return Polyline(vertices)
    if not rings or len(vertices) != sum(rings) + 2 * len(rings) - 1 + (len(rings) - 1):
        return Polygon(vertices)
    exterior, at, holes = vertices[: rings[0]], rings[0], []
    for count in rings[1:]:
        hole = vertices[at + 1 : at + 1 + count]
        if vertices[at] != exterior[0] or vertices[at + 1 + count] != hole[0]:
            return Polygon(vertices)
        holes.append(hole)
        at += count + 2
    return Polygon(exterior, holes) if vertices[at] == exterior[0] else Polygon(vertices)


def _box(corners: list[Vertex], kind: type[Rectangle] | type[Ellipse]) -> Simple:
    """A rectangle or ellipse by the corners of its box; a polygon if they are none."""
    (ay, ax), (by, bx), (cy, cx), (dy, dx) = corners
    width, height = math.hypot(bx - ax, by - ay), math.hypot(dx - ax, dy - ay)
    if not (width > 0 and height > 0):
        return Polygon(corners)
    skew = abs((bx - ax) * (dx - ax) + (by - ay) * (dy - ay)) / (width * height)
    off = math.hypot(ax + cx - bx - dx, ay + cy - by - dy)
    if skew > 1e-3 or off > 1e-3 * max(width, height):
        return Polygon(corners)
    center = ((ay + by + cy + dy) / 4, (ax + bx + cx + dx) / 4)
    angle = math.degrees(math.atan2(by - ay, bx - ax))
    return kind(center, height, width, angle)
