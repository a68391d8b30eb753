"""ROIs through ImageJ's files, GeoJSON and OME-XML and back; damaged and hostile files are refused, soon."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import ome_types
import pytest
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st
from roi_examples import GEOMETRIES, NAMES, SQUARE, full, rois, simple

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
from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.model.roi_convert import (
    covered,
    from_geojson,
    from_imagej,
    from_ome_xml,
    to_geojson,
    to_imagej,
    to_imagej_roi,
    to_ome_xml,
)

SHAPE = (140, 140)
READERS = {"imagej": from_imagej, "geojson": from_geojson, "ome-xml": from_ome_xml}


def written(geometries=GEOMETRIES):
    some = [msgspec.structs.replace(full, id=f"r{index}", geometry=geometry) for index, geometry in enumerate(geometries)]
    return {
        "imagej": to_imagej(some),
        "roi": to_imagej_roi(some[1]),
        "geojson": to_geojson(some),
        "ome-xml": to_ome_xml(some).encode(),
    }


def pixels_apart(a, b):
    return int((covered(a, SHAPE) ^ covered(b, SHAPE)).sum())


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=NAMES)
def test_imagej_keeps_pixels_and_names(geometry):
    roi = msgspec.structs.replace(full, geometry=geometry)
    (back,) = from_imagej(to_imagej([roi]))
    assert from_imagej(to_imagej_roi(roi)) == [back]
    width = 0.0 if isinstance(geometry, Points) else roi.stroke.width  # ImageJ has a point's size there
    expected = msgspec.structs.replace(roi, geometry=back.geometry, stroke=msgspec.structs.replace(roi.stroke, width=width))
    assert back == expected
    # Single precision, and 256 vertices for an ellipse in a composite, may move the outline past a centre that lies on it.
    loose = getattr(geometry, "angle_deg", 0) or isinstance(geometry, Composite)
    assert pixels_apart(back.geometry, geometry) <= (4 if loose else 0)
    exact = (Line, Polyline, Points, Freehand)
    if isinstance(geometry, exact) or (isinstance(geometry, Polygon) and not geometry.holes):
        assert back.geometry == geometry
    elif isinstance(geometry, Rectangle | Ellipse):
        assert back.geometry.center == pytest.approx(geometry.center, abs=1e-4)
        assert sorted([back.geometry.height, back.geometry.width]) == pytest.approx(
            sorted([geometry.height, geometry.width]), abs=1e-4
        )


def test_positions_count_from_1_in_imagej():
    made = to_imagej_roi(Roi("a", Points([(2.0, 3.0)]), plane=RoiPlane(c=0, t=4)))
    header2 = struct.unpack(">i", made[60:64])[0]
    assert struct.unpack(">iii", made[header2 + 4 : header2 + 16]) == (1, 0, 5)
    assert from_imagej(made)[0].plane == RoiPlane(c=0, t=4)
    plain = bytearray(to_imagej_roi(Roi("a", Points([(2.0, 3.0)]))))
    plain[56:60] = struct.pack(">i", 7)
    assert from_imagej(bytes(plain))[0].plane == RoiPlane(z=6)
    assert from_imagej(bytes(plain), stack_axis="t")[0].plane == RoiPlane(t=6)


def test_where_in_a_pixel_imagej_has_its_integers():
    """Areas have them at the corner, lines and points at the centre."""
    area = to_imagej_roi(Roi("a", Rectangle((10.0, 20.0), 3.0, 5.0)))
    assert struct.unpack(">hhhh", area[8:16]) == (9, 18, 12, 23)
    line = to_imagej_roi(Roi("a", Line((1.0, 2.0), (3.0, 4.5))))
    assert struct.unpack(">ffff", line[18:34]) == (2.0, 1.0, 4.5, 3.0)


def test_groups_and_ids_that_imagej_has_not():
    some = [
        Roi(f"i%0A{n}\nx", Points([(1.0, 1.0)]), "same", group=group)
        for n, group in enumerate(["", "7", "cells: b\n", "0", "300", "07"])
    ]
    assert from_imagej(to_imagej(some)) == some


def test_names_in_a_set_are_told_apart():
    data = to_imagej([Roi("1", Points([(1.0, 1.0)]), "../a/b"), Roi("2", Points([(1.0, 1.0)]), "../a/b")])
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert names == [".._a_b.roi", ".._a_b-2.roi"]
    assert [roi.id for roi in from_imagej(data)] == ["1", "2"]


def test_what_imagej_cannot_hold():
    for geometry, message in [
        (Line((0.0, 0.0), (0.0, 70_000.0)), "-5000 to 60535"),
        (Composite([Polygon(SQUARE), Line((0.0, 0.0), (1.0, 1.0))]), "areas only"),
        (Mask.from_array(np.zeros((2, 2), bool)), "without pixels"),
    ]:
        with pytest.raises(ConfigError, match=message):
            to_imagej([Roi("a", geometry)])


def test_curves_and_round_corners_of_imagej():
    """A path with a quadratic and a cubic curve, as ShapeRoi has them, and a rectangle with round corners."""
    made = bytearray(to_imagej_roi(Roi("a", Polygon(SQUARE, [[(20.0, 20.0), (20.0, 25.0), (25.0, 20.0)]]))))
    path = [0, 10, 10, 2, 30, 0, 50, 10, 3, 60, 20, 60, 40, 50, 50, 1, 10, 50, 4]
    made[36:40] = struct.pack(">i", len(path))
    made[64 : 64 + 4 * len(path)] = struct.pack(f">{len(path)}f", *path)
    (roi,) = from_imagej(bytes(made))
    assert isinstance(roi.geometry, Polygon)
    assert len(roi.geometry.exterior) == 1 + 16 + 16 + 1
    # The square of 40, with the segments under a parabola of height 5 and beside a cubic with handles of 10 and 20.
    assert covered(roi.geometry, SHAPE).sum() == pytest.approx(1600 + 2 / 3 * 40 * 5 + 210, abs=10)
    made = bytearray(to_imagej_roi(Roi("a", Rectangle((50.0, 50.0), 41.0, 61.0))))
    made[54:56] = struct.pack(">h", 20)
    (roi,) = from_imagej(bytes(made))
    assert covered(roi.geometry, SHAPE).sum() == pytest.approx(41 * 61 - (4 - np.pi) * 100, abs=12)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=NAMES)
def test_geojson_keeps_all_of_our_own(geometry):
    roi = msgspec.structs.replace(full, geometry=geometry)
    assert from_geojson(to_geojson([roi])) == [roi]
    (plain,) = from_geojson(to_geojson([roi], exact=False))
    assert (plain.name, plain.group, plain.plane, plain.stroke.color) == (roi.name, roi.group, roi.plane, roi.stroke.color)
    curved = isinstance(geometry, Ellipse) and geometry.angle_deg
    assert pixels_apart(plain.geometry, geometry) <= (3 if curved or isinstance(geometry, Composite) else 0)


def test_geojson_as_qupath_has_it():
    ellipse = Roi("e", Ellipse((9.5, 19.5), 10.0, 20.0), "cell", RoiPlane(z=3), Stroke("#0a0b0c"), "Tumor")
    written = json.loads(to_geojson([ellipse], exact=False))
    (feature,) = written["features"]
    assert written["type"] == "FeatureCollection"
    assert feature["geometry"]["isEllipse"] is True
    assert feature["geometry"]["plane"] == {"c": -1, "z": 3, "t": 0}
    ring = feature["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    assert (min(x for x, _ in ring), max(x for x, _ in ring)) == (10.0, 30.0), "corners of pixels, half a pixel from ours"
    assert feature["properties"] == {
        "objectType": "annotation",
        "name": "cell",
        "color": [10, 11, 12],
        "classification": {"name": "Tumor", "color": [10, 11, 12]},
    }


def test_geojson_of_qupath():
    text = """[{"type": "Feature", "id": "6f1a5c5e-0000-4000-8000-000000000001", "geometry": {"type": "Polygon",
      "coordinates": [[[1, 2], [11, 2], [11, 8], [1, 8], [1, 2]], [[3, 4], [5, 4], [5, 6], [3, 4]]],
      "plane": {"c": 1, "z": 2, "t": 3}},
      "properties": {"objectType": "detection", "isLocked": false, "classification": {"names": ["Tumor", "Positive"],
      "color": [255, 0, 300]}, "measurements": {"Area": 3.5}}},
      {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [[[[0, 0], [4, 0], [4, 4], [0, 0]]],
      [[[10, 0], [14, 0], [14, 4], [10, 0]]]]},
      "properties": {"name": "n", "classification": {"name": "Stroma", "colorRGB": -377282}}},
      {"type": "Feature", "geometry": {"type": "Polygon", "isEllipse": true,
      "coordinates": [[[10, 5], [5, 7], [0, 5], [5, 3], [10, 5]]]}},
      {"type": "Feature", "geometry": null}, {"type": "Feature", "geometry": {"type": "Point", "coordinates": []}}]"""
    cell, pieces, ellipse = from_geojson(text)
    assert cell == Roi(
        "6f1a5c5e-0000-4000-8000-000000000001",
        Polygon([(1.5, 0.5), (1.5, 10.5), (7.5, 10.5), (7.5, 0.5)], [[(3.5, 2.5), (3.5, 4.5), (5.5, 4.5)]]),
        plane=RoiPlane(c=1, z=2, t=3),
        stroke=Stroke("#ff00ff"),
        group="Tumor: Positive",
    )
    assert len(pieces.geometry.parts) == 2
    assert (pieces.id, pieces.name, pieces.group, pieces.stroke) == ("2", "n", "Stroma", Stroke("#fa3e3e"))
    assert ellipse.geometry == Ellipse((4.5, 4.5), 4.0, 10.0)


def test_an_edited_geometry_counts_more_than_our_copy():
    document = json.loads(to_geojson([Roi("m", Ellipse((20.0, 20.0), 10.0, 6.0, 30.0), "old")]))
    feature = document["features"][0]
    feature["properties"]["name"] = "new"
    (renamed,) = from_geojson(json.dumps(document))
    assert (renamed.id, renamed.name, renamed.geometry) == ("m", "new", Ellipse((20.0, 20.0), 10.0, 6.0, 30.0))
    feature["geometry"]["coordinates"][0][3][0] += 1
    (edited,) = from_geojson(json.dumps(document))
    assert isinstance(edited.geometry, Polygon)
    feature["properties"]["mutoscope"] = {"id": 3}
    assert from_geojson(json.dumps(document))[0].geometry == edited.geometry
    feature["properties"] = None
    assert from_geojson(json.dumps(feature))[0].geometry == edited.geometry
    assert from_geojson(json.dumps(feature["geometry"]))[0].geometry == edited.geometry


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=NAMES)
def test_ome_xml_keeps_what_it_has(geometry):
    roi = msgspec.structs.replace(full, geometry=geometry)
    (back,) = from_ome_xml(to_ome_xml([roi]))
    assert back == msgspec.structs.replace(roi, geometry=back.geometry)
    assert pixels_apart(back.geometry, geometry) <= (1 if getattr(geometry, "angle_deg", 0) else 0)
    if isinstance(geometry, Line | Polyline | Points | Mask | Composite) or (
        isinstance(geometry, Polygon) and not geometry.holes
    ):
        assert back.geometry == geometry


def test_ome_xml_is_valid():
    """By OME's own schema, and read by another library."""
    some = [msgspec.structs.replace(full, id=f"a b/{n}é", geometry=g, group=f"<{n % 2}>") for n, g in enumerate(GEOMETRIES)]
    text = to_ome_xml(some)
    schema = xmlschema.XMLSchema(str(Path(ome_types.__file__).parent / "ome-2016-06.xsd"), allow="local")
    assert not [error.reason for error in schema.iter_errors(text)]
    assert [error.reason for error in schema.iter_errors(text.replace(" RadiusX=", " Radius="))]
    ome = ome_types.from_xml(text)
    assert [roi.name for roi in ome.rois] == [roi.name for roi in some]
    rectangle = ome.rois[6].union[0]
    assert (rectangle.x, rectangle.y, rectangle.width, rectangle.height) == (16.0, 9.0, 9.0, 4.0)
    assert (rectangle.the_c, rectangle.the_z, rectangle.the_t, rectangle.stroke_width) == (1, 4, 7, 2.5)
    assert rectangle.stroke_color.as_rgb_tuple()[:3] == (255, 0, 128)
    assert [a.value for a in ome.structured_annotations.tag_annotations] == ["<0>", "<1>"]


def test_transforms_of_ome_xml():
    def read(shape, a00, a10, a01, a11, a02, a12):
        matrix = f'<Transform A00="{a00}" A10="{a10}" A01="{a01}" A11="{a11}" A02="{a02}" A12="{a12}"/>'
        return from_ome_xml(f'<OME><ROI ID="ROI:1"><Union>{shape}{matrix}</{shape.split()[0][1:]}></Union></ROI></OME>')[
            0
        ].geometry

    box = '<Rectangle ID="Shape:1" X="10" Y="20" Width="6" Height="4">'
    assert read(box, 1, 0, 0, 1, 5, -3) == Rectangle((18.5, 17.5), 4.0, 6.0)
    assert read(box, 2, 0, 0, 2, 0, 0) == Rectangle((43.5, 25.5), 8.0, 12.0)
    sheared = read(box, 1, 0, 1, 1, 0, 0)
    assert isinstance(sheared, Polygon)
    assert sheared.exterior[0] == (19.5, 29.5)
    assert read('<Point ID="Shape:1" X="1" Y="2">', 0, 1, -1, 0, 0, 0) == Points([(0.5, -2.5)])
    with pytest.raises(DatasetError, match="does not just move"):
        read('<Mask ID="Shape:1" X="0" Y="0" Width="1" Height="1"><BinData Length="1">gA==</BinData>', 2, 0, 0, 2, 0, 0)


@settings(deadline=None, max_examples=60)
@given(st.lists(rois, max_size=4, unique_by=lambda roi: roi.id))
def test_any_rois_through_every_format(some):
    assert from_geojson(to_geojson(some)) == some
    for back in (from_imagej(to_imagej(some)), from_ome_xml(to_ome_xml(drawable(some)))):
        compared = some if len(back) == len(some) else drawable(some)
        assert [(r.id, r.name, r.plane, r.group, r.stroke.color, r.stroke.fill) for r in back] == [
            (r.id, r.name, r.plane, r.group, r.stroke.color, r.stroke.fill) for r in compared
        ]
        for was, now in zip(compared, back, strict=True):
            assert pixels_apart(was.geometry, now.geometry) <= 4 + on_the_outline(was.geometry)


def on_the_outline(geometry):
    """Return how many pixels of a turned shape single precision may put on either side: their centres lie on its outline."""
    if isinstance(geometry, Composite):
        return sum(map(on_the_outline, geometry.parts))
    if not isinstance(geometry, Rectangle | Ellipse):
        return 0
    smaller, larger = (
        msgspec.structs.replace(geometry, height=geometry.height * (1 + by), width=geometry.width * (1 + by))
        for by in (-1e-5, 1e-5)
    )
    return pixels_apart(smaller, larger)


def drawable(some):
    """Return those that OME-XML has: not a polygon with holes that covers no pixel."""
    return [
        roi
        for roi in some
        if not (isinstance(roi.geometry, Polygon) and roi.geometry.holes and not covered(roi.geometry, SHAPE).any())
    ]


@settings(deadline=None)
@given(simple)
def test_masks_do_not_depend_on_the_box(geometry):
    whole = covered(geometry, SHAPE)
    np.testing.assert_array_equal(covered(geometry, (50, 40)), whole[:50, :40])


# Damage


@pytest.mark.parametrize("name", ["roi", "imagej", "geojson", "ome-xml"])
def test_every_truncation_and_many_flips(name):
    data = written(GEOMETRIES[:4] if name == "imagej" else GEOMETRIES[5:14])[name]
    read = READERS["imagej" if name == "roi" else name]
    chance = random.Random(7)
    damaged = [data[:length] for length in range(0, len(data), max(1, len(data) // 150))]
    for _ in range(600):
        flipped = bytearray(data)
        for _ in range(chance.choice([1, 1, 3, 20])):
            flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        damaged.append(bytes(flipped))
    outcomes = {"read": 0, "refused": 0}
    for each in damaged:
        try:
            read(each)
            outcomes["read"] += 1
        except DatasetError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 0


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(list(READERS)))
def test_any_bytes(data, name):
    for start in (b"", b"Iout", b"PK\x03\x04"):
        try:
            READERS[name](start + data)
        except DatasetError:
            pass


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["type", "coordinates", "geometries", "plane"]), inner)
        ),
        max_leaves=12,
    ),
    st.sampled_from(
        ["Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection", "?"]
    ),
)
def test_any_json_as_coordinates(value, kind):
    geometry = {"type": kind, "coordinates": value, "geometries": value, "plane": value, "isEllipse": True}
    feature = {
        "type": "Feature",
        "id": value,
        "geometry": geometry,
        "properties": {"name": value, "color": value, "classification": value},
    }
    try:
        from_geojson(json.dumps(feature))
    except DatasetError:
        pass


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("read", "data"),
    [
        (from_geojson, b"[" * 500_000),
        (from_geojson, b'{"type":"Feature","geometry":' * 100_000),
        (from_geojson, b'{"type":"GeometryCollection","geometries":[' * 900 + b"]}" * 900),
        (from_geojson, b'{"type":"Point","coordinates":[1e300,1]}'),
        (from_geojson, b'{"type":"Point","coordinates":[NaN,1]}'),
        (from_geojson, b'{"type":"Point","coordinates":[' + b"9" * 5000 + b",1]}"),
        (from_geojson, b"\xff\xfe"),
        (from_geojson, b"{}"),
        (from_ome_xml, b'<!DOCTYPE x [<!ENTITY a "b">]><OME><ROI ID="&a;"/></OME>'),
        (from_ome_xml, b"<ROI>" * 1_000_000),
        (from_ome_xml, b'<OME><ROI ID="ROI:1"><Union><Point X="inf" Y="1"/></Union></ROI></OME>'),
        (from_ome_xml, b'<OME><ROI ID="ROI:1"><Union><Rectangle X="1" Y="1" Width="-1" Height="1"/></Union></ROI></OME>'),
        (
            from_ome_xml,
            b'<OME><ROI ID="ROI:1"><Union><Mask X="1" Y="1" Width="99999" Height="99999"><BinData/></Mask></Union></ROI></OME>',
        ),
        (from_ome_xml, b'<OME><ROI ID="ROI:1"><Union><Polygon Points="1,1 2,2"/></Union></ROI></OME>'),
        (from_imagej, b""),
        (from_imagej, b"Iout" + b"\xff" * 200),
        (from_imagej, b"PK" + b"\0" * 100),
    ],
)
def test_hostile_files(read, data):
    with pytest.raises(DatasetError):
        read(data)


def test_a_bomb_of_a_set():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.roi", b"\0" * (65 << 20))
    with pytest.raises(DatasetError, match="bytes"):
        from_imagej(buffer.getvalue())


def test_a_set_with_other_files():
    buffer = io.BytesIO(to_imagej([full]))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("__MACOSX/notes.txt", b"x")
    assert [roi.id for roi in from_imagej(buffer.getvalue())] == ["b1"]
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("bad.roi", b"x")
    with pytest.raises(DatasetError, match="'bad'"):
        from_imagej(buffer.getvalue())


def test_roifile_is_asked_for_by_name(monkeypatch):
    import builtins

    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "roifile":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match="pip install roifile"):
        to_imagej([full])


@pytest.mark.external_data
def test_real_files_survive_a_rewrite(external_data):
    files = [path for path in sorted((external_data / "roi").rglob("*")) if path.suffix in (".roi", ".zip")]
    assert len(files) > 10
    for path in files:
        found = from_imagej(path.read_bytes(), name=path.stem)
        again = from_imagej(to_imagej(found))
        for was, now in zip(found, again, strict=True):
            assert (was.id, was.name, was.plane, was.stroke, was.group) == (now.id, now.name, now.plane, now.stroke, now.group)
            assert pixels_apart(was.geometry, now.geometry) == 0
        assert from_geojson(to_geojson(found)) == found
        assert [roi.id for roi in from_ome_xml(to_ome_xml(found))] == [roi.id for roi in found]
