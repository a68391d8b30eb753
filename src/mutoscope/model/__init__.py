"""Frame and plane metadata, id ranges, clocks, ROIs, plates, file names, units and errors: what every other part speaks.

Plain values only. Nothing here opens a file, maps memory or starts a process, so there is nothing to close.
"""

from mutoscope.model.clocks import ClockFit, ClockRelation
from mutoscope.model.frame import UNPLACED, USER_BYTES, FrameInfo, PlaneIndex
from mutoscope.model.ids import IdRanges
from mutoscope.model.plate import PlateGeometry, WellName
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

__all__ = [
    "UNPLACED",
    "USER_BYTES",
    "ClockFit",
    "ClockRelation",
    "Composite",
    "Ellipse",
    "FrameInfo",
    "Freehand",
    "Geometry",
    "IdRanges",
    "Line",
    "Mask",
    "PlaneIndex",
    "PlateGeometry",
    "Points",
    "Polygon",
    "Polyline",
    "Rectangle",
    "Roi",
    "RoiPlane",
    "Stroke",
    "WellName",
]
