"""ROIs to convert: one of each kind, and strategies for any."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from mutoscope.model import (
    Composite,
    Ellipse,
    Freehand,
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

RING = (np.hypot(*np.mgrid[-6:7, -8:9]) < 6.2) & (np.hypot(*np.mgrid[-6:7, -8:9]) > 2.5)
SQUARE = [(9.5, 9.5), (9.5, 39.5), (39.5, 39.5), (39.5, 9.5)]

GEOMETRIES = [
    Polygon([(0.5, 0.25), (2.5, 20.25), (17.5, 3.0)]),
    Polygon(SQUARE, holes=[[(14.5, 14.5), (14.5, 20.5), (20.5, 14.5)], [(30.0, 30.0), (30.0, 35.0), (35.0, 30.0)]]),
    Polyline([(0.5, 1.25), (2.0, 2.0), (9.0, 4.0)]),
    Line((0.0, 0.0), (3.0, 4.0)),
    Points([(1.5, 2.0)]),
    Points([(1.5, 2.0), (3.0, 4.0)]),
    Rectangle((10.5, 20.0), height=4.0, width=9.0),
    Rectangle((10.25, 20.0), height=4.0, width=8.0),
    Rectangle((20.0, 20.0), height=4.0, width=8.0, angle_deg=30.0),
    Ellipse((10.5, 20.5), height=4.0, width=8.0),
    Ellipse((20.25, 20.0), height=4.5, width=8.0),
    Ellipse((20.0, 20.0), height=12.0, width=8.0, angle_deg=-30.0),
    Freehand([(5.0, 5.0), (6.0, 20.0), (20.0, 22.0), (11.0, 11.0)]),
    Freehand([(5.0, 5.0), (6.0, 20.0), (20.0, 22.0), (11.0, 11.0)], closed=False),
    Mask.from_array(RING, origin=(20, 3)),
    Composite([Polygon(SQUARE), Ellipse((60.0, 60.0), 10.0, 12.0)]),
    Composite([Polygon(SQUARE), Rectangle((40.0, 40.0), 10.0, 12.0)]),
]

NAMES = [f"{type(geometry).__name__}{index}" for index, geometry in enumerate(GEOMETRIES)]

full = Roi("b1", GEOMETRIES[0], "bead 1", RoiPlane(c=1, z=4, t=7), Stroke("#ff0080", 2.5, "#00ff0040"), "beads")

_number = st.floats(0, 60).map(lambda value: round(value * 64) / 64)
_vertex = st.tuples(_number, _number)
_size = st.integers(1, 60).map(lambda value: value / 2)
_angle = st.sampled_from([0.0, 90.0, -37.5, 200.25])
_path = st.lists(_vertex, min_size=3, max_size=9)

simple = st.one_of(
    st.builds(Polygon, _path),
    st.builds(Polygon, st.just([(0.0, 0.0), (0.0, 60.0), (60.0, 60.0), (60.0, 0.0)]), st.lists(_path, max_size=2)),
    st.builds(Polyline, _path),
    st.builds(Line, _vertex, _vertex),
    st.builds(Points, st.lists(_vertex, min_size=1, max_size=5)),
    st.builds(Rectangle, _vertex, _size, _size, _angle),
    st.builds(Ellipse, _vertex, _size, _size, _angle),
    st.builds(Freehand, _path, st.booleans()),
    st.builds(
        Mask.from_array,
        st.integers(1, 2**20 - 1).map(lambda bits: np.array([bits >> i & 1 for i in range(20)], bool).reshape(4, 5)),
        st.tuples(st.integers(0, 50), st.integers(0, 50)),
    ),
)
_text = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=8).map(str.strip)
_index = st.none() | st.integers(0, 40)
_color = st.sampled_from(["", "#000001", "#ffffff", "#12345678", "#a0b0c000"])
rois = st.builds(
    Roi,
    id=_text.filter(bool),
    geometry=simple,
    name=_text,
    plane=st.builds(RoiPlane, c=_index, z=_index, t=_index),
    stroke=st.builds(Stroke, _color, st.sampled_from([0.0, 0.5, 3.0]), _color),
    group=_text | st.integers(0, 300).map(str),
)
