"""Frame and plane metadata, id ranges, clocks, ROIs, units and errors: what every other part speaks.

Plain values only. Nothing here opens a file, maps memory or starts a process, so there is nothing to close.
"""

from mutoscope.model.clocks import ClockFit, ClockRelation
from mutoscope.model.frame import UNPLACED, USER_BYTES, FrameInfo, PlaneIndex
from mutoscope.model.ids import IdRanges
from mutoscope.model.roi import (
    Ellipse,
    Geometry,
    Line,
    Mask,
    Points,
    Polygon,
    Polyline,
    Rectangle,
    Roi,
    RoiChanged,
    RoiPlane,
    RoiRemoved,
)

__all__ = [
    "UNPLACED",
    "USER_BYTES",
    "ClockFit",
    "ClockRelation",
    "Ellipse",
    "FrameInfo",
    "Geometry",
    "IdRanges",
    "Line",
    "Mask",
    "PlaneIndex",
    "Points",
    "Polygon",
    "Polyline",
    "Rectangle",
    "Roi",
    "RoiChanged",
    "RoiPlane",
    "RoiRemoved",
]
