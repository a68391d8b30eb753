"""ROI lists in stores: as ImageJ has them, as QuPath has them, and damaged."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import roifile

from mutoscope import storage
from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.model.roi import Ellipse, Line, Points, Polygon, Rectangle, Roi, RoiPlane

ROIS = [
    Roi("a", Rectangle((10.0, 20.5), 5.0, 8.0), name="box"),
    Roi("b", Polygon([(1.0, 1.0), (1.0, 9.0), (7.0, 5.0)]), name="cell", plane=RoiPlane(c=1, z=0, t=2)),
    Roi("c", Ellipse((30.5, 30.5), 10.0, 20.0)),
    Roi("d", Line((0.0, 0.0), (5.0, 9.0))),
    Roi("e", Points([(3.0, 4.0), (5.0, 6.0)])),
]


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    with storage.open(request.param, tmp_path if request.param == "disk" else None, overwrite=True) as opened:
        yield opened


@pytest.mark.parametrize("suffix", [".zip", ".geojson"])
def test_rois_come_back(store: Any, suffix: str) -> None:
    store.save(ROIS, f"rois{suffix}")
    loaded = store.load(f"rois{suffix}")
    assert [roi.id for roi in loaded] == [roi.id for roi in ROIS]
    assert [roi.name for roi in loaded[:2]] == ["box", "cell"]
    for found, wanted in zip(loaded, ROIS, strict=True):
        assert type(found.geometry) is type(wanted.geometry)
        assert found.geometry.bounds() == pytest.approx(wanted.geometry.bounds(), abs=1e-5)
    assert loaded[1].plane == ROIS[1].plane
    store.save([], f"none{suffix}")
    assert store.load(f"none{suffix}") == []
    with pytest.raises(ConfigError, match="region"):
        store.load_region(f"rois{suffix}", slice(0, 1))


def test_a_single_roi(store: Any) -> None:
    store.save(ROIS[:1], "box.roi")
    assert store.load("box.roi")[0].geometry.bounds() == ROIS[0].geometry.bounds()
    for count in (0, 2):
        with pytest.raises(ConfigError, match="one ROI"):
            store.save(ROIS[:count], "two.roi")


def test_other_readers_agree(tmp_path: Any) -> None:
    with storage.open("disk", tmp_path) as store:
        store.save(ROIS, "rois.zip")
        store.save(ROIS, "rois.geojson")
    read = roifile.roiread(tmp_path / "rois.zip")
    assert len(read) == len(ROIS)
    box = read[0]
    assert box.roitype == roifile.ROI_TYPE.RECT
    assert (box.top, box.left, box.bottom, box.right) == (8, 17, 13, 25), "half a pixel from ours: corners, not centres"
    features = json.loads((tmp_path / "rois.geojson").read_bytes())["features"]
    assert [feature["geometry"]["type"] for feature in features] == [
        *("Polygon", "Polygon", "Polygon", "LineString", "MultiPoint"),
    ]


def test_rois_do_not_go_where_there_is_no_room_for_them(store: Any) -> None:
    for name in ("a.tif", "a.npy", "a.json", "a.csv"):
        with pytest.raises(ConfigError, match=r"\.zip or \.roi or \.geojson"):
            store.save(ROIS, name)
    for name in ("a.zip", "a.geojson"):
        with pytest.raises(ConfigError):
            store.save({"a": 1}, name)


@pytest.mark.parametrize("suffix", [".zip", ".roi", ".geojson"])
def test_damaged_files_are_one_clear_error(tmp_path: Any, suffix: str) -> None:
    rng = random.Random(1)
    path = tmp_path / f"rois{suffix}"
    with storage.open("disk", tmp_path) as store:
        store.save(ROIS[:1] if suffix == ".roi" else ROIS, path.name)
        whole = path.read_bytes()
        for turn in range(60):
            broken = bytearray(whole if turn % 3 else whole[: rng.randrange(len(whole))])
            for _ in range(turn % 4):
                if broken:
                    broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            path.write_bytes(broken)
            try:
                assert isinstance(store.load(path.name), list)
            except DatasetError as error:
                assert path.name in str(error)  # noqa: PT017 - only if it is raised
        for content in (b"", b"PK\x03\x04", b"[" * 100_000, b"Iout"):
            path.write_bytes(content)
            with pytest.raises(DatasetError, match=path.name):
                store.load(path.name)
