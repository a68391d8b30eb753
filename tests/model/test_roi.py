"""ROIs keep their geometry exactly through msgpack and JSON, and refuse what is no shape."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from mutoscope.model import (
    Ellipse,
    Line,
    Mask,
    Points,
    Polygon,
    Polyline,
    Rectangle,
    Roi,
    RoiPlane,
)
from mutoscope.model.errors import ConfigError

TRIANGLE = [(0.0, 0.0), (0.0, 10.25), (7.5, 0.1)]
RING = np.hypot(*np.mgrid[-5:6, -7:8]) < 5
GEOMETRIES = [
    Polygon(TRIANGLE, holes=[[(1.0, 1.0), (1.0, 2.0), (2.0, 1.0)]]),
    Polyline([(0.5, 1 / 3), (2.0, 2.0)]),
    Line((0.0, 0.0), (3.0, 4.0)),
    Points([(1e-9, 2.0), (3.0, 4.0)]),
    Rectangle((10.0, 20.0), height=4.0, width=8.0, angle_deg=30.0),
    Ellipse((10.0, 20.0), height=4.0, width=8.0, angle_deg=-30.0),
    Mask.from_array(RING, origin=(100, -3)),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: type(g).__name__)
@pytest.mark.parametrize("codec", [msgspec.msgpack, msgspec.json], ids=["msgpack", "json"])
def test_round_trip(geometry, codec):
    roi = Roi("b1", geometry, "bead 1", RoiPlane(c=1, t=7))
    assert codec.decode(codec.encode(roi), type=Roi) == roi


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: type(g).__name__)
def test_bounds_enclose_the_outline(geometry):
    y0, x0, y1, x1 = geometry.bounds()
    if isinstance(geometry, Ellipse):
        angle, turn = np.linspace(0, 2 * np.pi, 20_001), math.radians(geometry.angle_deg)
        dx, dy = geometry.width / 2 * np.cos(angle), geometry.height / 2 * np.sin(angle)
        xs = 20 + dx * np.cos(turn) - dy * np.sin(turn)
        ys = 10 + dx * np.sin(turn) + dy * np.cos(turn)
        assert [y0, x0, y1, x1] == pytest.approx([ys.min(), xs.min(), ys.max(), xs.max()], abs=1e-6)
    assert y0 <= y1
    assert x0 <= x1


def test_a_rectangle_turns_from_x_towards_y():
    corners = Rectangle((0.0, 0.0), height=2.0, width=4.0, angle_deg=90.0).vertices()
    assert corners == [pytest.approx(corner) for corner in [(-2, 1), (2, 1), (2, -1), (-2, -1)]]


def test_a_mask_keeps_its_pixels():
    mask = Mask.from_array(RING, origin=(3, 4))
    np.testing.assert_array_equal(mask.to_array(), RING)
    assert mask.bounds() == (2.5, 3.5, 3 + 11 - 0.5, 4 + 15 - 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Polygon(TRIANGLE[:2]), "at least 3 vertices"),
        (lambda: Polygon(TRIANGLE, holes=[[(0.0, 0.0)]]), "hole of a polygon has at least 3"),
        (lambda: Polyline([(0.0, 0.0)]), "at least 2"),
        (lambda: Points([]), "at least 1"),
        (lambda: Points([(math.nan, 0.0)]), "finite"),
        (lambda: Rectangle((0.0, 0.0), 0.0, 5.0), "above 0"),
        (lambda: Ellipse((0.0, 0.0), 3.0, math.inf), "finite"),
        (lambda: Mask((0, 0), (3, 3), b"\x00"), "has 2 bytes, not 1"),
        (lambda: Mask((0, 0), (0, 3), b""), "at least one pixel"),
        (lambda: Mask.from_array(np.zeros((2, 2, 2))), "a mask is a"),
        (lambda: Roi("", Points([(0.0, 0.0)])), "an id that is not empty"),
        (lambda: RoiPlane(z=-1), "z of a ROI is an index from 0"),
    ],
)
def test_what_is_no_shape_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    "text",
    [
        b'{"id": "a", "geometry": {"type": "polygon", "exterior": [[0, 0]]}}',
        b'{"id": "a", "geometry": {"type": "blob"}}',
        b'{"id": "a", "geometry": {"type": "line", "start": [0, 0], "end": [1, 1], "colour": 3}}',
        b'{"id": "a", "geometry": {"type": "points", "points": [[0, 0, 0]]}}',
    ],
)
def test_bad_messages_are_validation_errors(text):
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Roi)
