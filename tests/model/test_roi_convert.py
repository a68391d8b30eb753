"""Pixels that ROIs cover, and label images."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from roi_examples import GEOMETRIES, NAMES, RING, SQUARE

from mutoscope.model import Composite, Ellipse, Line, Mask, Points, Polygon, Rectangle, Roi, RoiPlane, Stroke
from mutoscope.model.errors import ConfigError
from mutoscope.model.roi_convert import area_px, covered, from_imagej, from_labels, mask_of, to_labels
from mutoscope.model.roi_convert.rings import as_area, signed_area, trace

IMAGEJ = json.loads((Path(__file__).parent / "imagej_masks.json").read_text(encoding="utf-8"))["rois"]


@pytest.mark.parametrize("case", IMAGEJ, ids=[f"{case['kind']}-{case['name']}" for case in IMAGEJ])
def test_masks_agree_with_imagej(case):
    """The oracle was written by ImageJ itself: see the head of the file."""
    y, x, height, width = case["box"]
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(case["mask"]), np.uint8), count=height * width)
    whole = np.zeros((200, 200), bool)
    y0, x0 = max(y, 0), max(x, 0)
    whole[y0 : y + height, x0 : x + width] = bits.reshape(height, width)[y0 - y :, x0 - x :]
    (roi,) = from_imagej(base64.b64decode(case["roi"]))
    np.testing.assert_array_equal(covered(roi.geometry, (200, 200)), whole)
    assert (
        ",".join(str(0 if index is None else index + 1) for index in (roi.plane.c, roi.plane.z, roi.plane.t))
        == case["position"]
    )
    assert (roi.name, roi.group or "0") == (case["name"], case["group"])


@pytest.mark.external_data
def test_areas_agree_with_the_roi_manager(external_data):
    folder = external_data / "roi/imagej_roimanager"
    rois = from_imagej((folder / "RoiSet_shared.zip").read_bytes())
    with (folder / "RoiSet_shared.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert len(rows) == len(rois) == 17
    for roi, row in zip(rois, rows, strict=True):
        assert roi.name == row["name"]
        planes = [0 if index is None else index + 1 for index in (roi.plane.c, roi.plane.z, roi.plane.t)]
        assert planes == [int(row["c"]), int(row["z"]), int(row["t"])]
        if row["type"] != "line":  # a line has no area; ImageJ measures the whole image then
            assert area_px(roi.geometry) == float(row["area_px"]), row
        y0, x0, _, _ = roi.geometry.bounds()
        shift = 0 if row["type"] in ("line", "point") else 0.5
        assert abs(y0 + shift - int(row["y"])) <= 1
        assert abs(x0 + shift - int(row["x"])) <= 1


@pytest.mark.external_data
def test_vertices_agree_with_another_reader(external_data):
    """The JSON beside the files is what read-roi makes of them."""
    seen = 0
    for path in sorted((external_data / "roi/read-roi").glob("*.json")):
        (said,) = json.loads(path.read_text(encoding="utf-8")).values()
        (roi,) = from_imagej(path.with_suffix(".roi").read_bytes(), name=path.stem)
        assert roi.name
        if said["type"] in ("polygon", "freehand") and "x" in said:
            path_ = roi.geometry.exterior if isinstance(roi.geometry, Polygon) else roi.geometry.vertices
            assert path_ == [(y - 0.5, x - 0.5) for x, y in zip(said["x"], said["y"], strict=True)]
            seen += 1
        elif said["type"] == "point":
            assert roi.geometry == Points([(y, x) for x, y in zip(said["x"], said["y"], strict=True)])
            seen += 1
        elif said["type"] == "composite":
            rings = [roi.geometry.exterior, *roi.geometry.holes]
            assert sorted(map(sorted, rings)) == sorted(sorted((y - 0.5, x - 0.5) for x, y in ring) for ring in said["paths"])
            seen += 1
        elif said["type"] in ("rectangle", "oval"):
            assert roi.geometry.bounds() == (
                said["top"] - 0.5,
                said["left"] - 0.5,
                said["top"] + said["height"] - 0.5,
                said["left"] + said["width"] - 0.5,
            )
            seen += 1
    assert seen >= 6


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=NAMES)
def test_a_mask_is_what_is_covered(geometry):
    whole = covered(geometry, (100, 100))
    mask = mask_of(geometry)
    if mask is None:
        assert not whole.any()
        assert area_px(geometry) == 0
        return
    np.testing.assert_array_equal(covered(mask, (100, 100)), whole)
    assert area_px(geometry) == (0 if isinstance(geometry, Points) else whole.sum())
    shifted = np.zeros((100, 100), bool)
    shifted[7:, 5:] = whole[:-7, :-5]
    np.testing.assert_array_equal(
        covered(Mask((mask.origin[0] + 7, mask.origin[1] + 5), mask.shape, mask.bits), (100, 100)), shifted
    )


def test_known_areas():
    assert area_px(Rectangle((2.0, 3.0), 5.0, 7.0)) == 35
    assert area_px(Polygon(SQUARE)) == 900
    assert area_px(Polygon(SQUARE, [[(19.5, 19.5), (19.5, 29.5), (29.5, 29.5), (29.5, 19.5)]])) == 800
    assert area_px(Composite([Polygon(SQUARE), Polygon(SQUARE)])) == 900
    assert area_px(Line((0.0, 0.0), (9.0, 9.0))) == area_px(Points([(1.0, 1.0)])) == 0
    assert covered(Points([(1.4, 2.6), (-5.0, 0.0)]), (4, 4)).nonzero() == (np.array([1]), np.array([3]))
    assert covered(Ellipse((-50.0, 0.0), 5.0, 5.0), (4, 4)).sum() == 0
    with pytest.raises(ConfigError, match="too large"):
        mask_of(Rectangle((0.0, 0.0), 1e6, 1e6))


@settings(deadline=None)
@given(
    arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.tuples(st.integers(-5, 5), st.integers(-5, 5))
)
def test_traced_outlines_fill_the_same_pixels(mask, origin):
    rings = trace(mask, origin)
    area = as_area(rings)
    if area is None:
        assert not mask.any()
        return
    expected = np.zeros((30, 30), bool)
    expected[5 + origin[0] : 5 + origin[0] + mask.shape[0], 5 + origin[1] : 5 + origin[1] + mask.shape[1]] = mask
    found = mask_of(area)
    np.testing.assert_array_equal(
        covered(Mask((found.origin[0] + 5, found.origin[1] + 5), found.shape, found.bits), (30, 30)), expected
    )
    parts = area.parts if isinstance(area, Composite) else [area]
    assert sum(signed_area(ring) > 0 for ring in rings) == len(parts), "each outer outline is one piece"


@settings(deadline=None)
@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 4)),
    st.sampled_from(["outline", "mask"]),
)
def test_label_images_there_and_back(labels, kind):
    rois = from_labels(labels, kind=kind, plane=RoiPlane(z=2))
    assert [roi.id for roi in rois] == [str(label) for label in np.unique(labels) if label]
    assert all(roi.plane == RoiPlane(z=2) for roi in rois)
    back = to_labels(rois, labels.shape, numbers=[int(roi.id) for roi in rois], overlap="error", dtype=labels.dtype)
    np.testing.assert_array_equal(back, labels)


def test_holes_and_neighbours():
    labels = np.zeros((20, 40), np.int32)
    labels[2 : 2 + RING.shape[0], 2 : 2 + RING.shape[1]] = RING
    labels[2:15, 19:30] = 2
    labels[5, 32] = labels[6, 33] = 3
    ring, block, corners = from_labels(labels)
    assert isinstance(ring.geometry, Polygon)
    assert len(ring.geometry.holes) == 1
    assert block.geometry == Polygon([(1.5, 18.5), (1.5, 29.5), (14.5, 29.5), (14.5, 18.5)])
    assert isinstance(corners.geometry, Composite), "pixels that touch at a corner are two pieces of one object"
    assert len(corners.geometry.parts) == 2


def test_an_island_in_a_hole():
    labels = np.ones((9, 9), int)
    labels[1:8, 1:8] = 0
    labels[3:6, 3:6] = 1
    labels[4, 4] = 0
    (roi,) = from_labels(labels)
    assert isinstance(roi.geometry, Composite)
    assert sorted(len(part.holes) for part in roi.geometry.parts) == [1, 1]
    np.testing.assert_array_equal(covered(roi.geometry, (9, 9)), labels == 1)


def test_who_gets_a_pixel():
    rois = [Roi("a", Rectangle((1.0, 1.0), 3.0, 3.0)), Roi("b", Rectangle((2.0, 2.0), 3.0, 3.0))]
    assert np.bincount(to_labels(rois, (5, 5)).ravel()).tolist() == [11, 5, 9]
    assert np.bincount(to_labels(rois, (5, 5), overlap="first").ravel()).tolist() == [11, 9, 5]
    with pytest.raises(ConfigError, match=r"'b' overlaps label 1 at pixel \(y 1, x 1\)"):
        to_labels(rois, (5, 5), overlap="error")
    with pytest.raises(ConfigError, match="integers from 1 to 255"):
        to_labels(rois, (5, 5), dtype="uint8", numbers=[1, 256])
    with pytest.raises(ConfigError, match="2 ROIs have 1 numbers"):
        to_labels(rois, (5, 5), numbers=[1])


@pytest.mark.parametrize("labels", [np.zeros((2, 2, 2), int), np.zeros((2, 2)), np.array([[-1]])])
def test_what_is_no_label_image(labels):
    with pytest.raises(ConfigError):
        from_labels(labels)


def test_labels_are_copied():
    labels = np.eye(3, dtype=np.uint16)
    (roi,) = from_labels(labels, kind="mask")
    labels[:] = 7
    np.testing.assert_array_equal(roi.geometry.to_array(), np.eye(3, dtype=bool))


def test_crossing_outlines_fill_by_the_even_odd_rule():
    a = np.array([(0.0, 0.0), (0.0, 20.0), (20.0, 20.0), (20.0, 0.0)])
    area = as_area([a, a + 10])
    assert isinstance(area, Polygon)
    assert covered(area, (40, 40)).sum() == 2 * 400 - 2 * 100
    assert as_area([]) is None
    assert as_area([np.zeros((5, 2))]) is None


def test_strokes():
    for wrong in ({"color": "red"}, {"fill": "#FFFFFF"}, {"width": -1.0}, {"width": float("nan")}):
        with pytest.raises(ConfigError):
            Stroke(**wrong)


@pytest.mark.external_data
def test_real_labels(external_data):
    import tifffile

    labels = tifffile.imread(external_data / "cells/mask2d.tif")
    rois = from_labels(labels)
    assert len(rois) == len(np.unique(labels)) - 1 > 100
    np.testing.assert_array_equal(to_labels(rois, labels.shape, numbers=[int(r.id) for r in rois], overlap="error"), labels)
