"""GeoJSON as QuPath writes and reads it.

A ROI is a Feature; coordinates are ``[x, y]`` in pixels with integers at pixel corners, half a pixel from ours.
QuPath's own members are ``plane`` (c, z, t; c -1 for all channels) and ``isEllipse`` of a geometry, and
``objectType``, ``name``, ``color`` and ``classification`` of the properties. What GeoJSON cannot hold (an angle, a
mask, all of z and t, a stroke's width) is in the property ``mutoscope`` as well, which is believed on reading only as
long as the geometry beside it is still the same.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.model.roi import (
    Composite,
    Ellipse,
    Freehand,
    Geometry,
    Line,
    Points,
    Polygon,
    Polyline,
    Roi,
    RoiPlane,
    Simple,
    Stroke,
    Vertex,
)
from mutoscope.model.roi_convert._areas import as_polygons, is_area, outlined, polygons, unique, vertices
from mutoscope.model.roi_convert.rings import as_area, as_ring, without_end

__all__ = ["from_geojson", "to_geojson"]

OWN = "mutoscope"
MAX_BYTES = 1 << 30
MOST_FEATURES = 5_000_000
_NAMESPACE = uuid.UUID("5f1a5d0e-5c52-5b0e-9a6c-6d75746f7363")
_DEFAULT_COLOR = (200, 0, 0)
_HALF = 0.5
_FAR, _MUCH = 1e9, 1 << 26

Json = dict[str, Any]


def from_geojson(data: bytes | str) -> list[Roi]:
    """Read a FeatureCollection, a Feature, a list of Features or a bare geometry.

    Parameters
    ----------
    data : bytes or str
        JSON in UTF-8.

    Returns
    -------
    list of Roi
        In the order of the file, with ids that are unique in it: ours where they are known, else the features', else numbers.
        A feature with an empty geometry gives none.

    Raises
    ------
    DatasetError
        If it is no GeoJSON, is damaged, or has coordinates that are no finite numbers.
    """
    if len(data) > MAX_BYTES:
        raise DatasetError(f"GeoJSON of more than {MAX_BYTES} bytes is not read")
    try:
        whole = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise DatasetError(f"this is no GeoJSON: {error}") from error
    features = _features(whole)
    if len(features) > MOST_FEATURES:
        raise DatasetError(f"GeoJSON of more than {MOST_FEATURES} features is not read")
    taken: set[str] = set()
    rois = []
    for index, feature in enumerate(features):
        roi = _read(feature, index)
        if roi is not None:
            rois.append(msgspec.structs.replace(roi, id=unique(roi.id, taken)))
    return rois


def to_geojson(rois: Sequence[Roi], *, exact: bool = True) -> bytes:
    """Write a FeatureCollection that QuPath opens.

    Areas become Polygon or MultiPolygon, lines LineString, points Point or MultiPoint; an ellipse has 256 vertices, and an
    upright one is marked as such. Masks, and composites with parts that overlap, become outlines of their pixels. The group
    becomes the classification.

    Parameters
    ----------
    rois : sequence of Roi
    exact : bool
        Add the property ``mutoscope``, from which :func:`from_geojson` gets back what GeoJSON cannot hold.
    """
    return msgspec.json.encode({"type": "FeatureCollection", "features": [_feature(roi, exact) for roi in rois]})


# Writing


def _feature(roi: Roi, exact: bool) -> Json:
    properties: Json = {"objectType": "annotation"}
    if roi.name:
        properties["name"] = roi.name
    color = _rgb(roi.stroke.color)
    if color is not None:
        properties["color"] = color
    if roi.group:
        properties["classification"] = {"name": roi.group, "color": color or list(_DEFAULT_COLOR)}
    if exact:
        properties[OWN] = msgspec.to_builtins(roi)
    return {"type": "Feature", "id": _uuid(roi.id), "geometry": _placed(roi), "properties": properties}


def _placed(roi: Roi) -> Json:
    written = _written(roi.geometry)
    plane = roi.plane
    if (plane.c, plane.z, plane.t) != (None, None, None):
        written["plane"] = {"c": -1 if plane.c is None else plane.c, "z": plane.z or 0, "t": plane.t or 0}
    return written


def _written(geometry: Geometry) -> Json:
    if not isinstance(geometry, Composite):
        return _one(geometry)
    kinds = {_kind(part) for part in geometry.parts}
    if kinds == {"area"}:
        return _surfaces(geometry, geometry.parts)
    if kinds == {"points"}:
        return {"type": "MultiPoint", "coordinates": [_xy(v) for part in geometry.parts for v in _path(part)]}
    if kinds == {"line"}:
        return {"type": "MultiLineString", "coordinates": [[_xy(v) for v in _path(part)] for part in geometry.parts]}
    return {"type": "GeometryCollection", "geometries": [_one(part) for part in geometry.parts]}


def _one(geometry: Simple) -> Json:
    if isinstance(geometry, Points):
        points = [_xy(vertex) for vertex in geometry.points]
        return (
            {"type": "Point", "coordinates": points[0]} if len(points) == 1 else {"type": "MultiPoint", "coordinates": points}
        )
    if not is_area(geometry):
        return {"type": "LineString", "coordinates": [_xy(vertex) for vertex in _path(geometry)]}
    written = _surfaces(geometry, [geometry])
    if isinstance(geometry, Ellipse) and geometry.angle_deg % 90 == 0:
        written["isEllipse"] = True
    return written


def _surfaces(geometry: Geometry, areas: Sequence[Simple]) -> Json:
    parts = polygons(areas)
    if parts is None:
        parts = [_rings(polygon) for polygon in as_polygons(as_area(outlined(geometry)))]
        if not parts:
            raise ConfigError("a mask without pixels has no outline")
    surfaces = [[[_xy((y, x)) for y, x in [*ring.tolist(), ring[0].tolist()]] for ring in part] for part in parts]
    if len(surfaces) == 1:
        return {"type": "Polygon", "coordinates": surfaces[0]}
    return {"type": "MultiPolygon", "coordinates": surfaces}


def _rings(polygon: Polygon) -> list[NDArray[np.float64]]:
    rings = polygons([polygon])
    return rings[0] if rings else []


def _kind(part: Simple) -> str:
    return "area" if is_area(part) else "points" if isinstance(part, Points) else "line"


def _path(part: Simple) -> list[Vertex]:
    if isinstance(part, Line):
        return [part.start, part.end]
    if isinstance(part, Points):
        return part.points
    return part.vertices if isinstance(part, Polyline | Freehand) else []


def _xy(vertex: Vertex) -> list[float]:
    return [vertex[1] + _HALF, vertex[0] + _HALF]


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return str(uuid.uuid5(_NAMESPACE, text))


def _rgb(color: str) -> list[int] | None:
    return list(bytes.fromhex(color[1:7])) if color else None


# Reading


def _features(whole: Any) -> list[Any]:
    if isinstance(whole, list):
        return whole
    if isinstance(whole, dict):
        kind = whole.get("type")
        if kind == "FeatureCollection" and isinstance(whole.get("features"), list):
            return list(whole["features"])
        if kind == "Feature":
            return [whole]
        if kind in _GEOMETRIES:
            return [{"type": "Feature", "geometry": whole}]
    raise DatasetError("this is JSON, but no GeoJSON")


def _read(feature: Any, index: int) -> Roi | None:
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise DatasetError(f"feature {index} of the GeoJSON is none")
    written = feature.get("geometry")
    parts = _parts(written, index)
    if not parts:
        return None
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    own = _own(properties.get(OWN))
    key = feature.get("id")
    name = _text(properties.get("name"))
    group, class_color = _classification(properties.get("classification"))
    color = _color(properties.get("color")) or class_color
    identity = own.id if own is not None and _uuid(own.id) == key else key if isinstance(key, str) and key else str(index + 1)
    if own is not None and _is_still(own, written):
        same = own.group == group and (own.stroke.color[:7] == color or not own.stroke.color)
        stroke = own.stroke if same else msgspec.structs.replace(own.stroke, color=color)
        return Roi(identity, own.geometry, name, own.plane, stroke, group)
    geometry: Geometry = parts[0] if len(parts) == 1 else Composite(parts)
    return Roi(identity, geometry, name, _plane(written), Stroke(color), group)


def _own(value: Any) -> Roi | None:
    try:
        return msgspec.convert(value, Roi)
    except (msgspec.ValidationError, ConfigError, RecursionError):
        return None


def _is_still(roi: Roi, written: Any) -> bool:
    """Return whether what we wrote of a ROI once still stands there; one that would cost much to write again is not asked."""
    y0, x0, y1, x1 = roi.geometry.bounds()
    if not (max(map(abs, (y0, x0, y1, x1))) <= _FAR and (y1 - y0) * (x1 - x0) <= _MUCH):
        return False
    try:
        return bool(_placed(roi) == written)
    except ConfigError:
        return False


def _parts(geometry: Any, index: int) -> list[Simple]:
    if geometry is None:
        return []
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if not isinstance(kind, str) or kind not in _GEOMETRIES:
        raise DatasetError(f"feature {index} of the GeoJSON has no geometry that is known")
    if kind == "GeometryCollection":
        members = geometry.get("geometries")
        if not isinstance(members, list) or any(isinstance(m, dict) and m.get("type") == "GeometryCollection" for m in members):
            raise DatasetError(f"feature {index} of the GeoJSON has a collection that is not one, or one inside another")
        return [part for member in members for part in _parts(member, index)]
    coordinates = geometry.get("coordinates")
    if not isinstance(coordinates, list):
        raise DatasetError(f"feature {index} of the GeoJSON has no coordinates")
    if not coordinates:
        return []
    try:
        made = _GEOMETRIES[kind](coordinates)
    except (TypeError, ConfigError, OverflowError) as error:
        raise DatasetError(f"feature {index} of the GeoJSON has coordinates that are none: {error}") from error
    if geometry.get("isEllipse") is True and len(made) == 1 and isinstance(made[0], Polygon):
        y0, x0, y1, x1 = made[0].bounds()
        if y1 > y0 and x1 > x0:
            return [Ellipse(((y0 + y1) / 2, (x0 + x1) / 2), y1 - y0, x1 - x0)]
    return made


def _ring(points: Any) -> NDArray[np.float64]:
    if not isinstance(points, list) or not points:
        raise TypeError("not a list of positions")
    yx = []
    for point in points:
        if (
            not isinstance(point, list)
            or len(point) < 2
            or any(isinstance(v, bool) or not isinstance(v, int | float) for v in point)
        ):
            raise TypeError("a position is not two numbers")
        yx.append((point[1] - _HALF, point[0] - _HALF))
    ring = as_ring(yx)
    if ring is None:
        raise TypeError("a position is not finite")
    return ring


def _polygon(rings: Any) -> list[Simple]:
    if not isinstance(rings, list) or not rings:
        raise TypeError("not a list of rings")
    closed = [vertices(without_end(_ring(ring))) for ring in rings]
    if len(closed[0]) < 3:
        return [Polyline(closed[0]) if len(closed[0]) == 2 else Points(closed[0])]
    return [Polygon(closed[0], [hole for hole in closed[1:] if len(hole) >= 3])]


def _line(points: Any) -> list[Simple]:
    path = vertices(_ring(points))
    if len(path) == 1:
        return [Points(path)]
    return [Line(path[0], path[1]) if len(path) == 2 else Polyline(path)]


_GEOMETRIES: dict[str, Callable[[list[Any]], list[Simple]]] = {
    "Point": lambda point: [Points(vertices(_ring([point])))],
    "MultiPoint": lambda points: [Points(vertices(_ring(points)))],
    "LineString": _line,
    "MultiLineString": lambda lines: [part for line in lines for part in _line(line)],
    "Polygon": _polygon,
    "MultiPolygon": lambda surfaces: [part for rings in surfaces for part in _polygon(rings)],
    "GeometryCollection": lambda _: [],
}


def _plane(geometry: Any) -> RoiPlane:
    plane = geometry.get("plane")
    if not isinstance(plane, dict):
        return RoiPlane()
    found = {axis: plane.get(axis) for axis in "czt"}
    return RoiPlane(
        **{a: v if isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1 << 31 else None for a, v in found.items()}
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _classification(value: Any) -> tuple[str, str]:
    """Return the class name and colour; names of derived classes (``names``) are joined as QuPath shows them."""
    if isinstance(value, str):
        return value, ""
    if not isinstance(value, dict):
        return "", ""
    names = value.get("names")
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return ": ".join(names), _color(value.get("color"))
    return _text(value.get("name")), _color(value.get("color", value.get("colorRGB")))


def _color(value: Any) -> str:
    """Return a colour: a list of three numbers, or Java's packed integer of older files."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"#{value & 0xFFFFFF:06x}"
    if isinstance(value, list) and len(value) >= 3 and all(isinstance(v, int | float) and math.isfinite(v) for v in value[:3]):
        return "#" + "".join(f"{min(max(int(v), 0), 255):02x}" for v in value[:3])
    return ""
