"""ROIs on their way to a viewer: the vertices of all of them in one block of float64, beside a small header.

Outlines and points, which are nearly all ROIs that programs make, are columns: a kind and a number of vertices each. What has
more to it (holes, ellipses, masks, composites) travels as its own Struct. The layout: the header's bytes (32 bits,
little-endian), the header in msgpack, zeros up to a multiple of 8, then ``(y, x)`` of every vertex.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mutoscope.model.errors import ConfigError
from mutoscope.model.roi import Freehand, Geometry, Line, Points, Polygon, Polyline, Roi, RoiPlane, Stroke

__all__ = ["KINDS", "PackedRois", "pack_rois", "packed_as", "unpack_rois"]

KINDS = ("other", "polygon", "polyline", "freehand", "freehand line", "line", "points")
"""What a column's number of a kind means; ``"other"`` is a geometry of its own."""

_LEAST = np.array([0, 3, 2, 3, 2, 2, 1], np.uint32)
_LENGTH = struct.Struct("<I")
_VERSION = 1


class _Header(msgspec.Struct, frozen=True, array_like=True):
    version: int
    kinds: bytes
    counts: bytes
    ids: list[str]
    names: list[str]
    groups: list[str]
    planes: dict[int, RoiPlane]
    strokes: dict[int, Stroke]
    others: dict[int, Geometry]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Header)
_PLANE, _STROKE = RoiPlane(), Stroke()


def pack_rois(rois: Sequence[Roi]) -> bytes:
    """Return the ROIs of a plane as bytes."""
    kinds, counts = bytearray(), array("I")
    rings: list[list[tuple[float, float]]] = []
    planes: dict[int, RoiPlane] = {}
    strokes: dict[int, Stroke] = {}
    others: dict[int, Geometry] = {}
    for number, roi in enumerate(rois):
        kind, ring = _ring(roi.geometry)
        kinds.append(kind)
        counts.append(len(ring))
        rings.append(ring)
        if kind == 0:
            others[number] = roi.geometry
        if roi.plane is not _PLANE and roi.plane != _PLANE:
            planes[number] = roi.plane
        if roi.stroke is not _STROKE and roi.stroke != _STROKE:
            strokes[number] = roi.stroke
    names, groups = [roi.name for roi in rois], [roi.group for roi in rois]
    header = _encoder.encode(
        _Header(
            _VERSION,
            bytes(kinds),
            counts.tobytes(),
            [roi.id for roi in rois],
            names if any(names) else [],
            groups if any(groups) else [],
            planes,
            strokes,
            others,
        )
    )
    vertices = array("d", chain.from_iterable(chain.from_iterable(rings)))
    begin = _LENGTH.pack(len(header)) + header
    return begin + bytes(-len(begin) % 8) + vertices.tobytes()


def _ring(geometry: Geometry) -> tuple[int, list[tuple[float, float]]]:
    """Return the number of a kind, and its vertices; 0 and none where a geometry is more than that."""
    if isinstance(geometry, Polygon):
        return (0, []) if geometry.holes else (1, geometry.exterior)
    if isinstance(geometry, Polyline):
        return 2, geometry.vertices
    if isinstance(geometry, Freehand):
        return (3 if geometry.closed else 4), geometry.vertices
    if isinstance(geometry, Line):
        return 5, [geometry.start, geometry.end]
    if isinstance(geometry, Points):
        return 6, geometry.points
    if not isinstance(geometry, Geometry):
        raise TypeError(f"a {type(geometry).__name__} is no geometry")
    return 0, []


class PackedRois(Sequence[Roi]):
    """ROIs of a plane as they came: the vertices as arrays, each ROI made when it is asked for.

    Parameters
    ----------
    header
        Of the packed bytes.
    vertices : ndarray, shape (n, 2), float64
        ``(y, x)`` of all of them, one after the other.
    """

    def __init__(self, header: _Header, kinds: npt.NDArray[np.uint8], counts: npt.NDArray[Any], vertices: Any) -> None:
        self._header = header
        self.kinds: npt.NDArray[np.uint8] = kinds
        self.offsets: npt.NDArray[np.int64] = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.all_vertices: npt.NDArray[np.float64] = vertices

    def __len__(self) -> int:
        return len(self.kinds)

    def vertices(self, number: int) -> npt.NDArray[np.float64]:
        """Return the ``(y, x)`` vertices of one, shape (n, 2), as a view; none where its kind is ``"other"``."""
        return self.all_vertices[self.offsets[number] : self.offsets[number + 1]]

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        header = self._header
        return Roi(
            header.ids[number],
            self._geometry(number),
            header.names[number] if header.names else "",
            header.planes.get(number, _PLANE),
            header.strokes.get(number, _STROKE),
            header.groups[number] if header.groups else "",
        )

    def __iter__(self) -> Iterator[Roi]:
        return (self[number] for number in range(len(self)))

    def _geometry(self, number: int) -> Geometry:
        points = [(y, x) for y, x in self.vertices(number).tolist()]
        match int(self.kinds[number]):
            case 1:
                return Polygon(points)
            case 2:
                return Polyline(points)
            case 3:
                return Freehand(points)
            case 4:
                return Freehand(points, closed=False)
            case 5:
                return Line(points[0], points[1])
            case 6:
                return Points(points)
            case _:
                return self._header.others[number]


def packed_as(kind: str, ids: Sequence[str], counts: npt.ArrayLike, vertices: npt.NDArray[np.float64]) -> PackedRois:
    """Return ROIs of one kind, with no more than an id and vertices each; nothing is copied, and nothing made of each.

    Parameters
    ----------
    kind : str
        One of `KINDS`, but ``"other"``.
    ids : sequence of str
        Of each.
    counts : array_like of int
        How many vertices each has.
    vertices : ndarray, shape (n, 2), float64
        ``(y, x)`` of all of them, one after the other; finite.
    """
    kinds = np.full(len(ids), KINDS.index(kind), np.uint8)
    header = _Header(_VERSION, kinds.tobytes(), b"", list(ids), [], [], {}, {}, {})
    return PackedRois(header, kinds, np.asarray(counts, np.uint32), vertices)


def unpack_rois(data: bytes | memoryview | npt.NDArray[np.uint8]) -> PackedRois:
    """Return the ROIs in packed bytes; their vertices are a view of `data`.

    Raises
    ------
    ConfigError
        If the bytes are none.
    """
    view = data.data if isinstance(data, np.ndarray) else memoryview(data)
    try:
        (length,) = _LENGTH.unpack_from(view)
        begin = _LENGTH.size + length
        if begin > len(view):
            raise ConfigError("its header is longer than all of it")
        header = _decoder.decode(view[_LENGTH.size : begin])
    except (struct.error, msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ConfigError(f"not a list of ROIs: {error}") from None
    if len(header.counts) % 4:
        raise ConfigError("not a list of ROIs: half a count")
    kinds, counts = np.frombuffer(header.kinds, np.uint8), np.frombuffer(header.counts, np.uint32)
    begin += -begin % 8
    total = int(counts.sum(dtype=np.uint64))
    if header.version != _VERSION or not len(kinds) == len(counts) == len(header.ids):
        raise ConfigError("not a list of ROIs: its columns are not equally long")
    if {len(header.names), len(header.groups)} - {0, len(kinds)} or max(begin, len(view)) != begin + 16 * total:
        raise ConfigError("not a list of ROIs: its length is not what it says")
    if kinds.size and (kinds.max() >= len(KINDS) or (counts < _LEAST[kinds]).any() or (counts[kinds == 5] != 2).any()):
        raise ConfigError("not a list of ROIs: a kind that cannot have so many vertices")
    if set(header.others) != set(np.flatnonzero(kinds == 0).tolist()) or not all(header.ids):
        raise ConfigError("not a list of ROIs: one has no shape or no id")
    vertices = np.frombuffer(view[begin:], np.float64).reshape(-1, 2) if total else np.empty((0, 2))
    if not np.isfinite(vertices).all():
        raise ConfigError("not a list of ROIs: a vertex that is no finite number")
    return PackedRois(header, kinds, counts, vertices)
