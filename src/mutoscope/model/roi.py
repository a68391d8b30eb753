"""Regions of interest: identity and exact geometry.

Coordinates are ``(y, x)`` in pixels of the full-resolution image, with **integers at pixel centres** (as napari and OME-Zarr
have it; ImageJ has them at the upper left corner, half a pixel away). An angle turns the shape from the x axis towards the
y axis, which is clockwise on a screen whose y points down.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import ArrayLike, NDArray

from mutoscope.model.errors import ConfigError

__all__ = [
    "Composite",
    "Ellipse",
    "Freehand",
    "Geometry",
    "Line",
    "Mask",
    "Points",
    "Polygon",
    "Polyline",
    "Rectangle",
    "Roi",
    "RoiPlane",
    "Simple",
    "Stroke",
    "Vertex",
]

Vertex: TypeAlias = tuple[float, float]
"""``(y, x)`` in pixels."""

Bounds: TypeAlias = tuple[float, float, float, float]
"""``(y_min, x_min, y_max, x_max)``, of the outline itself, not of whole pixels."""


class _Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    def bounds(self) -> Bounds:
        """Return ``(y_min, x_min, y_max, x_max)`` of the outline."""
        raise NotImplementedError


class Polygon(_Shape, frozen=True, tag="polygon"):
    """A closed outline with any number of holes.

    Parameters
    ----------
    exterior : list of (y, x)
        At least three vertices; the last is joined to the first and not repeated.
    holes : list of list of (y, x)
        Outlines inside, of the same form.
    """

    exterior: list[Vertex]
    holes: list[list[Vertex]] = []

    def __post_init__(self) -> None:
        for what, ring in [("polygon", self.exterior), *(("hole of a polygon", hole) for hole in self.holes)]:
            _check_vertices(what, ring, at_least=3)

    def bounds(self) -> Bounds:
        return _bounds(self.exterior)


class Polyline(_Shape, frozen=True, tag="polyline"):
    """An open path through at least two vertices ``(y, x)``."""

    vertices: list[Vertex]

    def __post_init__(self) -> None:
        _check_vertices("polyline", self.vertices, at_least=2)

    def bounds(self) -> Bounds:
        return _bounds(self.vertices)


class Freehand(_Shape, frozen=True, tag="freehand"):
    """A path drawn by hand through vertices ``(y, x)``: an area if `closed` (the last is joined to the first), else a line."""

    vertices: list[Vertex]
    closed: bool = True

    def __post_init__(self) -> None:
        _check_vertices("freehand shape", self.vertices, at_least=3 if self.closed else 2)

    def bounds(self) -> Bounds:
        return _bounds(self.vertices)


class Line(_Shape, frozen=True, tag="line"):
    """A straight line from `start` to `end`, both ``(y, x)``."""

    start: Vertex
    end: Vertex

    def __post_init__(self) -> None:
        _check_vertices("line", [self.start, self.end], at_least=2)

    def bounds(self) -> Bounds:
        return _bounds([self.start, self.end])


class Points(_Shape, frozen=True, tag="points"):
    """One or more points ``(y, x)``."""

    points: list[Vertex]

    def __post_init__(self) -> None:
        _check_vertices("set of points", self.points, at_least=1)

    def bounds(self) -> Bounds:
        return _bounds(self.points)


class Rectangle(_Shape, frozen=True, tag="rectangle"):
    """A rectangle about its centre, turned by an angle.

    Parameters
    ----------
    center : (y, x)
        In pixels.
    height, width : float
        Full lengths along y and x before turning, in pixels.
    angle_deg : float
        From the x axis towards the y axis.
    """

    center: Vertex
    height: float
    width: float
    angle_deg: float = 0.0

    def __post_init__(self) -> None:
        _check_vertices("rectangle", [self.center], at_least=1)
        _check_lengths("rectangle", self.height, self.width, self.angle_deg)

    def vertices(self) -> list[Vertex]:
        """Return the four corners, beginning at the one that is upper left before turning."""
        h, w = self.height / 2, self.width / 2
        cos, sin = cos_sin(self.angle_deg)
        y, x = self.center
        return [(y + dx * sin + dy * cos, x + dx * cos - dy * sin) for dy, dx in ((-h, -w), (-h, w), (h, w), (h, -w))]

    def bounds(self) -> Bounds:
        return _bounds(self.vertices())


class Ellipse(_Shape, frozen=True, tag="ellipse"):
    """An ellipse about its centre, turned by an angle; fields as in :class:`Rectangle` (full axes, not radii)."""

    center: Vertex
    height: float
    width: float
    angle_deg: float = 0.0

    def __post_init__(self) -> None:
        _check_vertices("ellipse", [self.center], at_least=1)
        _check_lengths("ellipse", self.height, self.width, self.angle_deg)

    def bounds(self) -> Bounds:
        cos, sin = cos_sin(self.angle_deg)
        dy = math.hypot(self.width / 2 * sin, self.height / 2 * cos)
        dx = math.hypot(self.width / 2 * cos, self.height / 2 * sin)
        y, x = self.center
        return (y - dy, x - dx, y + dy, x + dx)


class Mask(_Shape, frozen=True, tag="mask"):
    """Chosen pixels inside a bounding box.

    Parameters
    ----------
    origin : (y, x)
        The pixel of the image on which the mask's first pixel lies; integers.
    shape : (y, x)
        Of the box, in pixels.
    bits : bytes
        One bit a pixel in C order, most significant first (``numpy.packbits``), ``ceil(y * x / 8)`` bytes.
    """

    origin: tuple[int, int]
    shape: tuple[Annotated[int, Meta(ge=1)], Annotated[int, Meta(ge=1)]]
    bits: bytes

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ConfigError(f"a mask has at least one pixel a side, not {self.shape}")
        wanted = (self.shape[0] * self.shape[1] + 7) // 8
        if len(self.bits) != wanted:
            raise ConfigError(f"a mask of {self.shape[0]} x {self.shape[1]} pixels has {wanted} bytes, not {len(self.bits)}")

    @classmethod
    def from_array(cls, mask: ArrayLike, origin: tuple[int, int] = (0, 0)) -> Mask:
        """Pack a boolean array ``(y, x)`` (a copy); `origin` is where its first pixel lies in the image."""
        array = np.asarray(mask).astype(bool)
        if array.ndim != 2 or array.size == 0:
            raise ConfigError(f"a mask is a (y, x) array of at least one pixel, not one of shape {array.shape}")
        return cls(origin, (int(array.shape[0]), int(array.shape[1])), np.packbits(array).tobytes())

    def to_array(self) -> NDArray[np.bool_]:
        """Return the box as a boolean array ``(y, x)``."""
        count = self.shape[0] * self.shape[1]
        return np.unpackbits(np.frombuffer(self.bits, dtype=np.uint8), count=count).astype(bool).reshape(self.shape)

    def bounds(self) -> Bounds:
        y, x = self.origin
        return (y - 0.5, x - 0.5, y + self.shape[0] - 0.5, x + self.shape[1] - 0.5)


Simple: TypeAlias = Polygon | Polyline | Line | Points | Rectangle | Ellipse | Mask | Freehand
"""A shape that is one piece."""


class Composite(_Shape, frozen=True, tag="composite"):
    """Several shapes that are one region: all that lies in any of them."""

    parts: list[Simple]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("a composite has at least one part")

    def bounds(self) -> Bounds:
        boxes = [part.bounds() for part in self.parts]
        lower, upper = [box[:2] for box in boxes], [box[2:] for box in boxes]
        return (*_bounds(lower)[:2], *_bounds(upper)[2:])


Geometry: TypeAlias = Simple | Composite


class Stroke(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a ROI is drawn.

    Parameters
    ----------
    color : str
        ``"#rrggbb"`` or ``"#rrggbbaa"`` in small letters (``aa``: opacity); empty for the viewer's own.
    width : float
        In pixels of the image; 0 for the viewer's own.
    fill : str
        The colour inside, of the same form; empty for none.
    """

    color: str = ""
    width: float = 0.0
    fill: str = ""

    def __post_init__(self) -> None:
        for color in (self.color, self.fill):
            if color and not _COLOR.fullmatch(color):
                raise ConfigError(f"a colour is #rrggbb or #rrggbbaa in small letters, not {color!r}")
        if not (self.width >= 0 and math.isfinite(self.width)):
            raise ConfigError(f"a stroke is 0 or more pixels wide, not {self.width}")


_COLOR = re.compile(r"#[0-9a-f]{6}([0-9a-f]{2})?")


class RoiPlane(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The planes a ROI lies on: an index from 0, or None for all."""

    c: Annotated[int, Meta(ge=0)] | None = None
    z: Annotated[int, Meta(ge=0)] | None = None
    t: Annotated[int, Meta(ge=0)] | None = None
    position: Annotated[int, Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        for name in ("c", "z", "t", "position"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} of a ROI is an index from 0 or None, not {value}")


class Roi(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A shape on an image, known by an id that never changes.

    Parameters
    ----------
    id : str
        Stable for the ROI's life and unique in its image; not empty.
    geometry : Geometry
        The exact shape.
    name : str
        What a person calls it.
    plane : RoiPlane
        The planes it lies on; all by default.
    stroke : Stroke
        How it is drawn; as the viewer likes by default.
    group : str
        What it belongs to (a class of cells, a series); empty for none.
    """

    id: str
    geometry: Geometry
    name: str = ""
    plane: RoiPlane = RoiPlane()
    stroke: Stroke = Stroke()
    group: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            raise ConfigError("a ROI needs an id that is not empty")


def cos_sin(angle_deg: float) -> tuple[float, float]:
    """Return cosine and sine of an angle; exact for right angles."""
    quarters, rest = divmod(angle_deg, 90.0)
    if rest == 0.0:  # what is turned by a right angle covers the pixels that it covers when its sides are exchanged
        return ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(quarters % 4)]
    angle = math.radians(angle_deg)
    return math.cos(angle), math.sin(angle)


def _bounds(vertices: list[Vertex]) -> Bounds:
    ys, xs = [y for y, _ in vertices], [x for _, x in vertices]
    return (min(ys), min(xs), max(ys), max(xs))


def _check_vertices(what: str, vertices: list[Vertex], at_least: int) -> None:
    if len(vertices) < at_least:
        raise ConfigError(f"a {what} has at least {at_least} vertices (y, x), not {len(vertices)}")
    for vertex in vertices:
        if len(vertex) != 2 or not all(math.isfinite(value) for value in vertex):
            raise ConfigError(f"a vertex of a {what} is two finite numbers (y, x), not {tuple(vertex)}")


def _check_lengths(what: str, height: float, width: float, angle_deg: float) -> None:
    if not (height > 0 and width > 0 and math.isfinite(height + width + angle_deg)):
        raise ConfigError(
            f"a {what} has a height and width above 0 pixels and a finite angle, not {height}, {width}, {angle_deg}"
        )
