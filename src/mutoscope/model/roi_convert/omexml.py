"""ROIs of OME-XML (2016-06): a ``ROI`` with a ``Union`` of shapes.

OME says nothing about where in a pixel its coordinates lie; as in Bio-Formats and OMERO, integers are taken to be at pixel
corners, half a pixel from ours. A colour is a signed 32-bit RGBA. The group is a ``TagAnnotation``.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from mutoscope.model._xml import Element, number, stream
from mutoscope.model.errors import ConfigError, DatasetError
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
    RoiPlane,
    Simple,
    Stroke,
    Vertex,
    cos_sin,
)
from mutoscope.model.roi_convert._areas import unique, vertices
from mutoscope.model.roi_convert.raster import mask_of, outlines
from mutoscope.model.roi_convert.rings import as_ring

__all__ = ["from_ome_xml", "ome_elements", "to_ome_xml"]

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
GROUP = "mutoscope.org/roi/group"
WHAT = "the OME-XML"
_HALF = 0.5
_SHAPES = ("Rectangle", "Ellipse", "Line", "Polyline", "Polygon", "Point", "Mask")


def to_ome_xml(rois: Sequence[Roi]) -> str:
    """Write a whole OME-XML document that has these ROIs and nothing else.

    A polygon with holes becomes a mask, and a freehand shape a polygon or polyline, as OME has neither; the position of a ROI's
    plane is not kept.
    """
    annotations, elements = ome_elements(rois)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<OME xmlns="{NAMESPACE}">{annotations}{elements}</OME>\n'


def ome_elements(rois: Sequence[Roi]) -> tuple[str, str]:
    """Return the ``StructuredAnnotations`` (empty without groups) and the ``ROI`` elements, in the order that OME wants."""
    groups = {
        group: f"Annotation:roi-group:{index}" for index, group in enumerate(dict.fromkeys(r.group for r in rois if r.group))
    }
    tags = [
        f'<TagAnnotation ID="{key}" Namespace="{GROUP}"><Value>{_body(group)}</Value></TagAnnotation>'
        for group, key in groups.items()
    ]
    annotations = f"<StructuredAnnotations>{''.join(tags)}</StructuredAnnotations>" if tags else ""
    return annotations, "".join(_element(roi, index, groups) for index, roi in enumerate(rois))


def from_ome_xml(data: bytes | str | Iterable[bytes]) -> list[Roi]:
    """Read the ROIs of an OME-XML document.

    A union of several shapes becomes a :class:`~mutoscope.model.roi.Composite`, of points one set of points; it lies
    on the planes that all its shapes name. Labels are no shapes. A transform that is no rotation makes a polygon of a
    rectangle or ellipse.

    Raises
    ------
    DatasetError
        If the document is damaged, declares a document type, or has an impossible shape.
    """
    rois: list[Roi] = []
    groups: dict[str, str] = {}
    references: list[list[str]] = []
    taken: set[str] = set()
    pieces = data.encode() if isinstance(data, str) else data
    for element in stream(pieces, ("ROI", "TagAnnotation"), what=WHAT):
        if element.tag == "TagAnnotation":
            if element.get("Namespace") == GROUP:
                groups[element.get("ID")] = element.value("Value")
            continue
        try:
            roi = _read(element, taken)
        except ConfigError as error:
            raise DatasetError(f"{WHAT} has an impossible ROI: {error}") from error
        if roi is not None:
            rois.append(roi)
            references.append([each.get("ID") for each in element.all("AnnotationRef")])
    named = [next((groups[key] for key in keys if key in groups), "") for keys in references]
    return [Roi(r.id, r.geometry, r.name, r.plane, r.stroke, group) for r, group in zip(rois, named, strict=True)]


# Writing


def _element(roi: Roi, index: int, groups: dict[str, str]) -> str:
    common = "".join(f' The{axis.upper()}="{value}"' for axis in "czt" if (value := getattr(roi.plane, axis)) is not None)
    common += f' StrokeColor="{_packed(roi.stroke.color)}"' if roi.stroke.color else ""
    common += f' FillColor="{_packed(roi.stroke.fill)}"' if roi.stroke.fill else ""
    common += f' StrokeWidth="{roi.stroke.width!r}"' if roi.stroke.width else ""
    shapes = _shapes(roi.geometry)
    union = "".join(
        f'<{tag} ID="Shape:{index}:{number}"{common}{attributes}{f">{inner}</{tag}>" if inner else "/>"}'
        for number, (tag, attributes, inner) in enumerate(shapes)
    )
    name = f" Name={_attribute(roi.name)}" if roi.name else ""
    reference = f'<AnnotationRef ID="{groups[roi.group]}"/>' if roi.group else ""
    identity = "ROI:" + urllib.parse.quote(roi.id.encode("utf-8", "surrogatepass"), safe="")
    return f'<ROI ID="{identity}"{name}><Union>{union}</Union>{reference}</ROI>'


def _shapes(geometry: Geometry) -> list[tuple[str, str, str]]:
    parts = geometry.parts if isinstance(geometry, Composite) else [geometry]
    return [shape for part in parts for shape in _shape(part)]


def _shape(part: Simple) -> list[tuple[str, str, str]]:
    if isinstance(part, Points):
        return [("Point", _attributes(X=x + _HALF, Y=y + _HALF), "") for y, x in part.points]
    if isinstance(part, Line):
        (y1, x1), (y2, x2) = part.start, part.end
        return [("Line", _attributes(X1=x1 + _HALF, Y1=y1 + _HALF, X2=x2 + _HALF, Y2=y2 + _HALF), "")]
    if isinstance(part, Rectangle | Ellipse):
        y, x = part.center[0] + _HALF, part.center[1] + _HALF
        h, w = part.height / 2, part.width / 2
        turn = _rotation(part.angle_deg, y, x) if part.angle_deg else ""
        if isinstance(part, Rectangle):
            return [("Rectangle", _attributes(X=x - w, Y=y - h, Width=part.width, Height=part.height), turn)]
        return [("Ellipse", _attributes(X=x, Y=y, RadiusX=w, RadiusY=h), turn)]
    if isinstance(part, Polygon) and part.holes:
        mask = mask_of(part)
        if mask is None:
            raise ConfigError("OME-XML has no polygon with holes, and this one covers no pixel that a mask could hold")
        return _shape(mask)
    if isinstance(part, Mask):
        (y0, x0), (height, width) = part.origin, part.shape
        text = base64.b64encode(part.bits).decode()
        inner = f'<BinData BigEndian="true" Length="{len(part.bits)}">{text}</BinData>'
        return [("Mask", _attributes(X=x0, Y=y0, Width=width, Height=height), inner)]
    closed = isinstance(part, Polygon) or (isinstance(part, Freehand) and part.closed)
    path = part.exterior if isinstance(part, Polygon) else part.vertices
    points = " ".join(f"{x + _HALF!r},{y + _HALF!r}" for y, x in path)
    return [("Polygon" if closed else "Polyline", f' Points="{points}"', "")]


def _attributes(**values: float) -> str:
    return "".join(f' {name}="{float(value)!r}"' for name, value in values.items())


def _rotation(angle_deg: float, y: float, x: float) -> str:
    cos, sin = cos_sin(angle_deg)
    matrix = {"A00": cos, "A10": sin, "A01": -sin, "A11": cos, "A02": x - cos * x + sin * y, "A12": y - sin * x - cos * y}
    return f"<Transform{_attributes(**matrix)}/>"


_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _attribute(text: str) -> str:
    return quoteattr(_NO_XML.sub("\N{REPLACEMENT CHARACTER}", text), {"\n": "&#10;", "\t": "&#9;", "\r": "&#13;"})


def _body(text: str) -> str:
    return escape(_NO_XML.sub("\N{REPLACEMENT CHARACTER}", text))


def _packed(color: str) -> int:
    rgba = bytes.fromhex(color[1:])
    return int.from_bytes(rgba if len(rgba) == 4 else rgba + b"\xff", "big", signed=True)


# Reading


def _read(element: Element, taken: set[str]) -> Roi | None:
    union = element.child("Union")
    shapes = [shape for shape in (union.children if union is not None else ()) if shape.tag in _SHAPES]
    if not shapes:
        return None
    parts = [_part(shape) for shape in shapes]
    geometry: Geometry
    if all(isinstance(part, Points) for part in parts):
        geometry = Points([point for part in parts if isinstance(part, Points) for point in part.points])
    else:
        geometry = parts[0] if len(parts) == 1 else Composite(parts)
    identity = urllib.parse.unquote(element.get("ID").removeprefix("ROI:"), errors="replace") or "roi"
    first = shapes[0]
    width = _float(first, "StrokeWidth", 0.0)
    stroke = Stroke(_color(first, "StrokeColor"), max(width, 0.0), _color(first, "FillColor"))
    planes = {axis: {shape.get(f"The{axis.upper()}") for shape in shapes} for axis in "czt"}
    plane = RoiPlane(**{axis: _index(values.pop()) if len(values) == 1 else None for axis, values in planes.items()})
    return Roi(unique(identity, taken), geometry, element.get("Name"), plane, stroke)


def _part(shape: Element) -> Simple:
    part = _untransformed(shape)
    transform = shape.child("Transform")
    return part if transform is None else _transformed(part, transform)


def _untransformed(shape: Element) -> Simple:
    tag = shape.tag
    if tag == "Rectangle":
        height, width = _float(shape, "Height"), _float(shape, "Width")
        return Rectangle((_float(shape, "Y") + height / 2 - _HALF, _float(shape, "X") + width / 2 - _HALF), height, width)
    if tag == "Ellipse":
        center = (_float(shape, "Y") - _HALF, _float(shape, "X") - _HALF)
        return Ellipse(center, 2 * _float(shape, "RadiusY"), 2 * _float(shape, "RadiusX"))
    if tag == "Point":
        return Points([(_float(shape, "Y") - _HALF, _float(shape, "X") - _HALF)])
    if tag == "Line":
        ends = [(_float(shape, f"Y{i}") - _HALF, _float(shape, f"X{i}") - _HALF) for i in (1, 2)]
        return Line(ends[0], ends[1])
    if tag == "Mask":
        return _mask(shape)
    path = _points(shape.get("Points"))
    return Polygon(path) if tag == "Polygon" else Polyline(path)


def _mask(shape: Element) -> Mask:
    data = shape.child("BinData")
    if data is None or data.get("Compression", "none") != "none":
        raise DatasetError(f"{WHAT} has a mask without data, or with compressed data, which is not read")
    y, x, height, width = (round(_float(shape, name)) for name in ("Y", "X", "Height", "Width"))
    try:
        return Mask((y, x), (height, width), base64.b64decode("".join(data.text.split()), validate=True))
    except binascii.Error as error:
        raise DatasetError(f"{WHAT} has a mask whose data is no base64: {error}") from error


def _points(text: str) -> list[Vertex]:
    path = []
    for pair in text.split():
        x, _, y = pair.partition(",")
        path.append((_number(y, "Points") - _HALF, _number(x, "Points") - _HALF))
    return path


def _transformed(part: Simple, transform: Element) -> Simple:
    names = ("A00", "A01", "A02", "A10", "A11", "A12")
    a00, a01, a02, a10, a11, a12 = (_float(transform, name) for name in names)

    def move(ring: NDArray[np.float64]) -> list[Vertex]:
        y, x = ring[:, 0] + _HALF, ring[:, 1] + _HALF
        moved = as_ring(np.stack([a10 * x + a11 * y + a12 - _HALF, a00 * x + a01 * y + a02 - _HALF], axis=1).tolist())
        if moved is None:
            raise DatasetError(f"{WHAT} has a transform that leads beyond all images")
        return vertices(moved)

    if isinstance(part, Rectangle | Ellipse):
        scale = math.hypot(a00, a10)
        if scale > 0 and math.isclose(a00, a11, abs_tol=1e-9 * scale) and math.isclose(a01, -a10, abs_tol=1e-9 * scale):
            center = move(np.array([part.center]))[0]
            angle = part.angle_deg + math.degrees(math.atan2(a10, a00))
            return type(part)(center, part.height * scale, part.width * scale, angle)
        return Polygon(move(outlines(part)[0]))
    if isinstance(part, Mask):
        if (a00, a01, a10, a11) != (1.0, 0.0, 0.0, 1.0) or not (a02.is_integer() and a12.is_integer()):
            raise DatasetError(f"{WHAT} has a mask with a transform that does not just move it by whole pixels")
        return Mask((part.origin[0] + int(a12), part.origin[1] + int(a02)), part.shape, part.bits)
    if isinstance(part, Points):
        return Points(move(np.array(part.points)))
    if isinstance(part, Line):
        start, end = move(np.array([part.start, part.end]))
        return Line(start, end)
    path = move(np.array(part.exterior if isinstance(part, Polygon) else part.vertices))
    return Polygon(path) if isinstance(part, Polygon) else Polyline(path)


def _float(element: Element, name: str, default: float | None = None) -> float:
    text = element.get(name)
    return default if not text and default is not None else _number(text, name)


def _number(text: str, name: str) -> float:
    value = float(number(text, float, what=f"{name} in {WHAT}"))
    if not abs(value) <= 1e9:
        raise DatasetError(f"{name} in {WHAT} is {value}")
    return value


def _index(text: str) -> int | None:
    if not text:
        return None
    value: int = number(text, int, what=f"a plane in {WHAT}")
    return value if 0 <= value < 1 << 31 else None


def _color(element: Element, name: str) -> str:
    text = element.get(name)
    if not text:
        return ""
    value: Any = number(text, int, what=f"{name} in {WHAT}")
    rgba = f"#{value & 0xFFFFFFFF:08x}"
    return rgba.removesuffix("ff") if rgba.endswith("ff") else rgba
