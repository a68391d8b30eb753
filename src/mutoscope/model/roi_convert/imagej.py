"""ImageJ's ``.roi`` files and ROI sets (``.zip``), through ``roifile``.

ImageJ has integers at the upper left corner of a pixel for areas, and at its centre for lines and points
(``ij.gui.Roi.useLineSubpixelConvention``); here they are at the centre always. Its positions count from 1, 0 being all planes.
The id and a group that is no number of ImageJ's travel in the ROI's properties, which ImageJ keeps.
"""

from __future__ import annotations

import io
import itertools
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import BackendUnavailableError, ConfigError, DatasetError
from mutoscope.model.install import install_command
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
    Stroke,
)
from mutoscope.model.roi_convert._areas import is_area, outlined, polygons, turned, unique, vertices
from mutoscope.model.roi_convert.raster import outlines
from mutoscope.model.roi_convert.rings import as_area, as_ring, without_end

__all__ = ["from_imagej", "to_imagej", "to_imagej_roi"]

MOST_ROIS = 1_000_000
MAX_ROI_BYTES = 64 << 20
MAX_SET_BYTES = 1 << 30
ID, GROUP = "mutoscope-id", "mutoscope-group"
_CURVE_STEPS = 16
_HALF = 0.5

# ij.io.RoiDecoder
_POLYGON, _RECT, _OVAL, _LINE, _FREELINE, _POLYLINE, _FREEHAND, _TRACED, _ANGLE, _POINT = 0, 1, 2, 3, 4, 5, 7, 8, 9, 10
_ELLIPSE, _ROTATED_RECT = 3, 5
_SUB_PIXEL = 128


def from_imagej(data: bytes, *, name: str = "", stack_axis: Literal["c", "z", "t"] = "z") -> list[Roi]:
    """Read a ``.roi`` file or a ROI set.

    Parameters
    ----------
    data : bytes
        The file; which of the two it is shows in its first bytes.
    name : str
        For a single ROI without a name of its own.
    stack_axis : str
        The axis that a position counts along on a stack that is no hyperstack.

    Returns
    -------
    list of Roi
        In the order of the file, with ids that are unique in it.

    Raises
    ------
    DatasetError
        If the file is damaged or no such file.
    BackendUnavailableError
        Without ``roifile``.

    Notes
    -----
    Not kept: the text and picture of text and image ROIs, counters of points, curves fitted through vertices, arrow heads.
    """
    if data[:2] != b"PK":
        return [_read(data, name, stack_axis, set(), 0)]
    taken: set[str] = set()
    return [_read(part, stem, stack_axis, taken, index) for index, (stem, part) in enumerate(_members(data))]


def to_imagej(rois: Sequence[Roi]) -> bytes:
    """Write a ROI set (``.zip``) that ImageJ's ROI Manager opens.

    Raises
    ------
    ConfigError
        If ImageJ cannot hold one of them: see :func:`to_imagej_roi`.
    """
    buffer = io.BytesIO()
    taken: set[str] = set()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for roi in rois:
            stem = "".join(c if c.isprintable() and c not in '\\/:*?"<>|' else "_" for c in roi.name or roi.id)[:100] or "roi"
            entry = zipfile.ZipInfo(f"{unique(stem, taken)}.roi", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, to_imagej_roi(roi))
    return buffer.getvalue()


def to_imagej_roi(roi: Roi) -> bytes:
    """Write one ROI as a ``.roi`` file.

    Coordinates are kept in single precision, as ImageJ does. A mask becomes its outline; in a composite with parts that
    overlap, all become the outline of what they cover together.

    Raises
    ------
    ConfigError
        If it lies beyond ImageJ's coordinates, or is a composite with lines or points, which ImageJ has not.
    """
    made = _made(roi.geometry)
    plane = roi.plane
    made.c_position, made.z_position, made.t_position = (
        0 if index is None else index + 1 for index in (plane.c, plane.z, plane.t)
    )
    made.stroke_color, made.fill_color = _argb(roi.stroke.color), _argb(roi.stroke.fill)
    if roi.stroke.width and not isinstance(roi.geometry, Points):
        made.float_stroke_width = roi.stroke.width
        made.stroke_width = min(math.ceil(roi.stroke.width), 32767)
    properties = f"{ID}: {_escape(roi.id)}\n"
    if roi.group.isascii() and roi.group.isdigit() and 1 <= int(roi.group) <= 255 and str(int(roi.group)) == roi.group:
        made.group = int(roi.group)
    elif roi.group:
        properties += f"{GROUP}: {_escape(roi.group)}\n"
    try:
        return _with_texts(made.tobytes(), roi.name, properties)
    except (struct.error, ValueError, OverflowError) as error:
        raise ConfigError(f"ImageJ cannot hold ROI {roi.id!r}: {error}") from error


def _with_texts(data: bytes, name: str, properties: str) -> bytes:
    """Append name and properties; roifile counts characters where ImageJ counts UTF-16 units."""
    whole = bytearray(data)
    (header2,) = struct.unpack(">i", data[60:64])
    for field, text in ((16, name), (40, properties)):
        units = text.encode("utf-16-be", "surrogatepass")
        if units:
            struct.pack_into(">ii", whole, header2 + field, len(whole), len(units) // 2)
            whole += units
    return bytes(whole)


def _roifile() -> Any:
    try:
        import roifile
    except ImportError as error:
        raise BackendUnavailableError(f"ImageJ ROIs need roifile: {install_command('roifile')}") from error
    return roifile


# Reading


def _members(data: bytes) -> Iterable[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.lower().endswith(".roi")]
            if len(entries) > MOST_ROIS or sum(entry.file_size for entry in entries) > MAX_SET_BYTES:
                raise DatasetError(f"a ROI set has at most {MOST_ROIS} ROIs and {MAX_SET_BYTES} bytes")
            for entry in entries:
                if entry.file_size > MAX_ROI_BYTES:
                    raise DatasetError(f"ROI {entry.filename[:80]!r} has {entry.file_size} bytes")
                yield entry.filename.rpartition("/")[2][:-4], archive.read(entry)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        struct.error,
        UnicodeError,
        OSError,
    ) as error:
        raise DatasetError(f"the ROI set cannot be read: {error}") from error
    except (ValueError, IndexError, OverflowError) as error:
        raise DatasetError(f"the ROI set is damaged: {error}") from error


def _read(data: bytes, name: str, stack_axis: str, taken: set[str], index: int) -> Roi:
    roifile = _roifile()
    if len(data) > MAX_ROI_BYTES:
        raise DatasetError(f"a ROI has at most {MAX_ROI_BYTES} bytes, this one {len(data)}")
    _check_whole(data, name)
    try:
        read = roifile.ImagejRoi.frombytes(data)
    except (struct.error, ValueError, TypeError, IndexError, OverflowError, AssertionError, MemoryError) as error:
        raise DatasetError(f"ROI {name[:80]!r} cannot be read: {error}") from error
    properties = dict(line.partition(": ")[::2] for line in _clean(read.props).split("\n") if ": " in line)
    title = _clean(read.name) or ("" if ID in properties else name)
    geometry = _geometry(read, data)
    group = _unescape(properties.get(GROUP, "")) or (str(read.group) if read.group > 0 else "")
    wanted = _unescape(properties.get(ID, "")) or title or f"roi-{index + 1}"
    return Roi(unique(wanted, taken), geometry, title, _plane(read, stack_axis), _stroke(read), group)


def _check_whole(data: bytes, name: str) -> None:
    """Refuse a file that ends before its second header, name or properties."""
    if len(data) < 64 or data[:4] != b"Iout":
        raise DatasetError(f"ROI {name[:80]!r} is no ROI of ImageJ, or cut off")
    (header2,) = struct.unpack(">i", data[60:64])
    if header2 == 0:
        return
    texts = []
    if 0 < header2 < len(data) - 52:
        texts = [struct.unpack(">ii", data[header2 + field : header2 + field + 8]) for field in (16, 40)]
    if not 64 <= header2 <= len(data) - 36 or any(at < 0 or n < 0 or (at and at + 2 * n > len(data)) for at, n in texts):
        raise DatasetError(f"ROI {name[:80]!r} is cut off or damaged")


def _plane(read: Any, stack_axis: str) -> RoiPlane:
    found = {axis: int(getattr(read, f"{axis}_position")) for axis in "czt"}
    if not any(value > 0 for value in found.values()):
        found[stack_axis] = int(read.position)
    return RoiPlane(**{axis: value - 1 if value > 0 else None for axis, value in found.items()})


def _stroke(read: Any) -> Stroke:
    width = float(read.float_stroke_width) or (0.0 if int(read.roitype) == _POINT else float(read.stroke_width))
    return Stroke(_color(read.stroke_color), width if math.isfinite(width) and width > 0 else 0.0, _color(read.fill_color))


def _geometry(read: Any, data: bytes) -> Geometry:
    kind, subtype = int(read.roitype), int(read.subtype)
    if kind == _RECT and read.composite and read.multi_coordinates is not None:
        return _composite(read)
    if kind in (_RECT, _OVAL):
        y, x, height, width = read.top, read.left, read.bottom - read.top, read.right - read.left
        if read.subpixelrect:
            y, x, height, width = read.yd, read.xd, read.heightd, read.widthd
        _finite(y, x, height, width)
        center = (y + height / 2 - _HALF, x + width / 2 - _HALF)
        if height <= 0 or width <= 0:
            raise DatasetError(f"a {'rectangle' if kind == _RECT else 'oval'} of ImageJ is {height} x {width} pixels")
        if kind == _OVAL:
            return Ellipse(center, height, width)
        if read.rounded_rect_arc_size > 0:
            return _rounded(Rectangle(center, height, width), read.rounded_rect_arc_size)
        return Rectangle(center, height, width)
    if kind == _LINE:
        _finite(read.x1, read.y1, read.x2, read.y2)
        return Line((read.y1, read.x1), (read.y2, read.x2))
    if kind == _FREEHAND and subtype in (_ELLIPSE, _ROTATED_RECT):
        return _turned(read, data, subtype)
    if kind in (_POLYGON, _FREELINE, _POLYLINE, _FREEHAND, _TRACED, _ANGLE, _POINT):
        return _path(read, kind)
    raise DatasetError(f"ImageJ has no ROI of type {kind}")


def _turned(read: Any, data: bytes, subtype: int) -> Geometry:
    """An ellipse or rectangle by the ends of its axis; the float beside them is the aspect ratio or the width."""
    (other,) = struct.unpack(">f", data[52:56])
    _finite(read.x1, read.y1, read.x2, read.y2, other)
    dy, dx = read.y2 - read.y1, read.x2 - read.x1
    length = math.hypot(dy, dx)
    center = ((read.y1 + read.y2) / 2 - _HALF, (read.x1 + read.x2) / 2 - _HALF)
    across = other if subtype == _ROTATED_RECT else length * min(other, 1.0)
    if length <= 0 or across <= 0:
        raise DatasetError(f"a turned shape of ImageJ is {length} x {across} pixels")
    angle = math.degrees(math.atan2(dy, dx))
    return Rectangle(center, across, length, angle) if subtype == _ROTATED_RECT else Ellipse(center, across, length, angle)


def _path(read: Any, kind: int) -> Geometry:
    count = int(read.n_coordinates)
    if count < 1:
        raise DatasetError("a ROI of ImageJ has no vertices")
    if read.subpixel_coordinates is not None:
        xy = np.asarray(read.subpixel_coordinates, dtype=np.float64)
    else:
        corner = np.array([read.left, read.top])
        xy = np.asarray(read.integer_coordinates, dtype=np.float64) + corner
    ring = as_ring(xy[:, ::-1].tolist())
    if ring is None:
        raise DatasetError("a ROI of ImageJ has vertices that are no finite numbers")
    area = kind in (_POLYGON, _FREEHAND, _TRACED) and count >= 3
    path = vertices(ring - _HALF if area else ring)
    if kind == _POINT or count == 1:
        return Points(path)
    if area:
        return Freehand(path) if kind == _FREEHAND else Polygon(path)
    return Freehand(path, closed=False) if kind == _FREELINE else Polyline(path)


def _composite(read: Any) -> Geometry:
    values = np.asarray(read.multi_coordinates, dtype=np.float64).tolist()
    rings = [without_end(ring) for points in _flattened(values) if (ring := as_ring(points)) is not None]
    area = as_area([ring - _HALF for ring in rings])
    if area is None:
        raise DatasetError("a composite ROI of ImageJ encloses nothing")
    return area


def _flattened(path: list[float]) -> Iterable[list[tuple[float, float]]]:
    """Yield the closed parts of a path of moves, lines, curves and ends (``java.awt.geom.PathIterator``), 16 lines a curve."""
    lengths = {0: 3, 1: 3, 2: 5, 3: 7, 4: 1}
    points: list[tuple[float, float]] = []
    at = 0
    while at < len(path):
        step = path[at]
        size = lengths.get(int(step), 0) if math.isfinite(step) else 0
        if not size or at + size > len(path):
            raise DatasetError(f"a composite ROI of ImageJ has a damaged path at {at} of {len(path)}")
        ends = [(path[i + 1], path[i]) for i in range(at + 1, at + size, 2)]
        at += size
        if int(step) == 0:
            if points:
                yield points
            points = list(ends)
        elif ends:
            if not points:
                raise DatasetError("a composite ROI of ImageJ does not begin with a move")
            points += ends if len(ends) == 1 else _curve([points[-1], *ends])
    if points:
        yield points


def _curve(control: list[tuple[float, float]]) -> list[tuple[float, float]]:
    steps = np.linspace(0, 1, _CURVE_STEPS + 1)[1:, None]
    points = [np.array(point)[None, :] for point in control]
    while len(points) > 1:
        points = [a + (b - a) * steps for a, b in itertools.pairwise(points)]
    return [(y, x) for y, x in points[0].tolist()]


def _rounded(box: Rectangle, arc: int) -> Polygon:
    y, x = min(arc, box.height) / 2, min(arc, box.width) / 2
    corners = []
    for index, (dy, dx) in enumerate(((-1, -1), (-1, 1), (1, 1), (1, -1))):
        around = np.linspace(0, np.pi / 2, 9) + np.pi * (1 + index / 2)
        cy, cx = box.center[0] + dy * (box.height / 2 - y), box.center[1] + dx * (box.width / 2 - x)
        corners += list(zip((cy + y * np.sin(around)).tolist(), (cx + x * np.cos(around)).tolist(), strict=True))
    return Polygon(corners)


# Writing


def _made(geometry: Geometry) -> Any:
    if isinstance(geometry, Mask):
        return _composed(_pixels(geometry))
    if isinstance(geometry, Composite):
        return _composed(_parts(geometry))
    if isinstance(geometry, Polygon):
        rings = turned(geometry)
        return _composed(rings) if geometry.holes else _listed(_POLYGON, np.array(geometry.exterior, dtype=np.float64) + _HALF)
    if isinstance(geometry, Freehand):
        offset = _HALF if geometry.closed else 0.0
        return _listed(_FREEHAND if geometry.closed else _FREELINE, np.array(geometry.vertices, dtype=np.float64) + offset)
    if isinstance(geometry, Polyline):
        return _listed(_POLYLINE, np.array(geometry.vertices, dtype=np.float64))
    if isinstance(geometry, Points):
        return _listed(_POINT, np.array(geometry.points, dtype=np.float64))
    if isinstance(geometry, Line):
        made = _new(_LINE, geometry.bounds())
        (made.y1, made.x1), (made.y2, made.x2) = geometry.start, geometry.end
        return made
    return _boxed(geometry)


def _boxed(shape: Rectangle | Ellipse) -> Any:
    """An upright shape with whole numbers as ImageJ's own rectangle or oval, any other by its axis."""
    turns = round(shape.angle_deg / 90)
    height, width = (shape.width, shape.height) if turns % 2 else (shape.height, shape.width)
    y, x = shape.center[0] - height / 2 + _HALF, shape.center[1] - width / 2 + _HALF
    upright = shape.angle_deg == turns * 90
    oval = isinstance(shape, Ellipse)
    if upright and all(value == round(value) for value in (y, x, height, width)):
        return _new(_OVAL if oval else _RECT, (y, x, y + height, x + width))
    if upright and not oval:
        made = _new(_RECT, (y, x, y + height, x + width))
        made.xd, made.yd, made.widthd, made.heightd = x, y, width, height
        made.options = _flags(made, _SUB_PIXEL)
        return made
    length, across, angle = shape.width, shape.height, math.radians(shape.angle_deg)
    if oval and across > length:
        length, across, angle = across, length, angle + math.pi / 2
    dy, dx = length / 2 * math.sin(angle), length / 2 * math.cos(angle)
    made = _listed(_FREEHAND, outlines(shape)[0] + _HALF)
    made.subtype = type(made.subtype)(_ELLIPSE if oval else _ROTATED_RECT)
    y, x = shape.center[0] + _HALF, shape.center[1] + _HALF
    made.x1, made.y1, made.x2, made.y2 = x - dx, y - dy, x + dx, y + dy
    number = struct.pack(">f", across / length if oval else across)
    made.arrow_style_or_aspect_ratio, made.arrow_head_size, made.rounded_rect_arc_size = struct.unpack(">BBh", number)
    return made


def _parts(composite: Composite) -> list[NDArray[np.float64]]:
    if not all(map(is_area, composite.parts)):
        raise ConfigError("a composite ROI of ImageJ holds areas only: write its lines and points as ROIs of their own")
    parts = polygons(composite.parts)
    return _pixels(composite) if parts is None else [ring for part in parts for ring in part]


def _pixels(geometry: Geometry) -> list[NDArray[np.float64]]:
    rings = outlined(geometry)
    if not rings:
        raise ConfigError("a mask without pixels has no outline that ImageJ could hold")
    return rings


def _composed(rings: Sequence[NDArray[np.float64]]) -> Any:
    every = np.concatenate(list(rings)) + _HALF
    made = _new(_RECT, (*every.min(axis=0).tolist(), *every.max(axis=0).tolist()))
    path: list[float] = []
    for ring in rings:
        for index, (y, x) in enumerate((ring + _HALF).tolist()):
            path += [1.0 if index else 0.0, x, y]
        path.append(4.0)
    made.multi_coordinates = np.array(path, dtype=np.float32)
    made.shape_roi_size = len(path)
    return made


def _listed(kind: int, yx: NDArray[np.float64]) -> Any:
    low, high = yx.min(axis=0), yx.max(axis=0)
    made = _new(kind, (*low.tolist(), *high.tolist()))
    made.n_coordinates = len(yx)
    whole = bool((yx == np.round(yx)).all())
    corner = np.array([made.left, made.top])
    made.integer_coordinates = np.floor(yx[:, ::-1]).astype(np.int32) - corner
    if not whole:
        made.subpixel_coordinates = yx[:, ::-1].astype(np.float32)
        made.options = _flags(made, _SUB_PIXEL)
    return made


def _new(kind: int, bounds: Sequence[float]) -> Any:
    roifile = _roifile()
    y0, x0, y1, x1 = bounds
    top, left, bottom, right = math.floor(y0), math.floor(x0), math.ceil(y1), math.ceil(x1)
    if min(top, left) < -5000 or max(bottom, right) > 60535:
        raise ConfigError(f"ImageJ's files hold coordinates from -5000 to 60535 pixels, this ROI spans {tuple(bounds)}")
    made = roifile.ImagejRoi(version=228, top=top, left=left, bottom=bottom, right=right)
    made.roitype = roifile.ROI_TYPE(kind)
    return made


def _flags(made: Any, flag: int) -> Any:
    return type(made.options)(int(made.options) | flag)


# Small things


def _finite(*values: float) -> None:
    if not all(math.isfinite(value) and abs(value) <= 1e9 for value in values):
        raise DatasetError("a ROI of ImageJ has coordinates that are no finite numbers")


def _color(argb: bytes) -> str:
    if argb == b"\0\0\0\0" or len(argb) != 4:
        return ""
    return "#" + argb[1:].hex() + ("" if argb[0] == 255 else argb[:1].hex())


def _argb(color: str) -> bytes:
    if not color:
        return b"\0\0\0\0"
    rgba = bytes.fromhex(color[1:])
    return (rgba[3:] or b"\xff") + rgba[:3]


def _clean(text: str) -> str:
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_ESCAPES: tuple[tuple[str, str], ...] = (("%", "%25"), ("\n", "%0A"), ("\r", "%0D"))


def _escape(text: str) -> str:
    for plain, escaped in _ESCAPES:
        text = text.replace(plain, escaped)
    return text


def _unescape(text: str) -> str:
    for plain, escaped in reversed(_ESCAPES):
        text = text.replace(escaped, plain)
    return text
