"""The store of a plate by itself: places, growth, names, regions, descriptions, repair, and damage."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plate_folders import plane_of
from plate_names import place, tensorstore_plane, zarr_plane, zarr_states

from mutoscope import storage
from mutoscope.model import filenames
from mutoscope.model.errors import ConfigError, DatasetError, DatasetExistsError, DatasetNotFoundError
from mutoscope.model.plate import PlateGeometry
from mutoscope.storage._half import half
from mutoscope.storage.plate import (
    PlateBackend,
    PlateChannel,
    PlateDescription,
    PlateReader,
    Position,
    plate_info,
    repair_plate,
)


def open_plate(path: Path, vendor: str = "imagexpress", **options: Any) -> PlateBackend:
    store = storage.open("ome-zarr", path, filenames=vendor, **options)
    assert isinstance(store, PlateBackend)
    return store


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["A01", "B12", "H03", "AA01"]), *(st.integers(1, high) for high in (3, 3, 9, 20))),
        min_size=1,
        max_size=12,
        unique=True,
    ),
    st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"]),
    st.tuples(st.integers(1, 20), st.integers(1, 300)),
    st.sampled_from(["none", "blosc-lz4", "blosc-zstd", "zstd"]),
)
def test_every_plane_lands_where_its_name_says_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, places: list[Any], dtype: str, shape: tuple[int, int], compression: str
) -> None:
    root = tmp_path_factory.mktemp("plate") / "plate.ome.zarr"
    parser = filenames.get_parser("imagexpress")
    planes = {}
    with open_plate(root, compression=compression, overview=False) as store:
        for well, site, wave, z, t in places:
            name = f"TimePoint_{t}/ZStep_{z}/x_{well}_s{site}_w{wave}.TIF"
            planes[name] = plane_of(name, shape).astype(dtype)
            store.save(planes[name], name)
            # At this very moment any reader finds it, and all before it.
            for each in planes:
                assert np.array_equal(zarr_plane(root, place(parser, each)), planes[each])
        for name, plane in planes.items():
            loaded = store.load(name)
            assert loaded.dtype == plane.dtype
            assert loaded.dtype.isnative
            assert np.array_equal(loaded, plane)
            assert np.array_equal(store.load_region(name, (..., slice(0, 1))), plane[:, :1])
        assert sorted(store.list_files(recursive=True)) == sorted(planes)
    info = plate_info(root)
    assert info["stored"] == len(planes)
    for name, plane in planes.items():
        assert np.array_equal(tensorstore_plane(root, place(parser, name)), plane)
    stored = sum(int(zarr_states(root, image["image"]).sum()) for image in info["images"])
    assert stored == len(planes)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_batch_of_many_fields_lands_whole_in_any_order(tmp_path: Path, compression: str) -> None:
    parser = filenames.get_parser("imagexpress")
    names = [f"x_{well}_s{s}_w{w}_z{z}.tif" for well in ("B02", "H12") for s in (1, 2, 3) for w in (1, 2) for z in range(1, 5)]
    random.Random(3).shuffle(names)
    planes = [plane_of(name, (300, 280)) for name in names]
    buffers = [plane.copy() for plane in planes]
    with open_plate(tmp_path / "a.zarr", compression=compression) as store:
        store.save_batch(iter(buffers), (f"./{name}" for name in names))
        for buffer in buffers:
            buffer[...] = 0
        with pytest.raises(DatasetExistsError):
            store.save_batch(planes, names)
        assert sorted(store.list_files()) == sorted(names)
    for name, plane in zip(names, planes, strict=True):
        assert np.array_equal(tensorstore_plane(tmp_path / "a.zarr", place(parser, name)), plane)
        assert np.array_equal(tensorstore_plane(tmp_path / "a.zarr", place(parser, name), 1), half(plane))
    with open_plate(tmp_path / "a.zarr", overwrite=True) as store:
        store.save_batch(planes[::-1], names)
    for name, plane in zip(names, planes[::-1], strict=True):
        assert np.array_equal(zarr_plane(tmp_path / "a.zarr", place(parser, name)), plane)
    assert not list(tmp_path.rglob("*.part"))


def test_a_batch_of_new_channels_that_have_names(tmp_path: Path) -> None:
    wells, channels = ("B - 3", "C - 4"), ("DAPI - DAPI", "FITC - FITC")
    names = [f"{well}(fld 1 wv {channel} z {z}).tif" for channel in channels for well in wells for z in (1, 2)]
    with open_plate(tmp_path / "a.zarr", "incell") as store:
        store.save_batch([plane_of(name) for name in names], names)
        assert [channel.key for channel in store.description.channels] == list(channels)
        for name in names:
            assert np.array_equal(store.load(name), plane_of(name))


@pytest.mark.parametrize("bad", [0, 17, 47])
def test_a_batch_with_a_plane_that_does_not_fit_tells_how_many_were_stored(tmp_path: Path, bad: int) -> None:
    names = [f"x_A01_s{s}_w1_z{z}.tif" for s in range(1, 9) for z in range(1, 7)]
    planes = [plane_of(name, (12, 14)) for name in names]
    with open_plate(tmp_path / "a.zarr") as store:
        store.save(planes[0], names[0])
        for field in range(2, 9):
            store.save(planes[6 * field - 6], names[6 * field - 6])
        planes[bad] = plane_of("other", (13, 14))
        with pytest.raises(ConfigError, match=f"{names[bad]}.* does not fit") as failure:
            store.save_batch(planes, names, overwrite=True)
        [note] = failure.value.__notes__
        count = int(note.split(" ")[0])
        assert note == f"{count} of 48 planes of the batch were stored"
        found = store.list_files()
        assert count <= len(found) < 48 + (bad % 6 == 0)
        for name in found:
            assert np.array_equal(store.load(name), plane_of(name, (12, 14)))
        planes[bad] = plane_of(names[bad], (12, 14))
        store.save_batch(planes, names, overwrite=True)
        assert sorted(store.list_files()) == sorted(names)


def test_a_batch_of_which_another_writer_holds_a_plane(tmp_path: Path) -> None:
    names = [f"x_A01_s{s}_w1_z{z}.tif" for s in range(1, 5) for z in range(1, 7)]
    planes = [plane_of(name, (12, 14)) for name in names]
    with open_plate(tmp_path / "a.zarr") as store:
        store.save(planes[0], names[0])
        plate = store.plate
        assert plate is not None
        held = place(filenames.get_parser("imagexpress"), names[1])
        image = plate.image(held.image)
        assert image is not None
        with image.claimed(held.tcz, names[1]):
            with pytest.raises(DatasetExistsError, match="another writer at this moment") as failure:
                store.save_batch(planes[1:], names[1:])
        count = int(failure.value.__notes__[0].split(" ")[0])
        assert len(store.list_files()) == count + 1
        assert not store.exists(names[1])


def test_names_are_places(tmp_path: Path) -> None:
    """A plane is found by every name that means its place, and stored once."""
    with open_plate(tmp_path / "p.zarr") as store:
        name = "TimePoint_1/ZStep_2/9987_B02_s1_w3.TIF"
        store.save(plane_of("a"), name)
        for other in ("9987_B02_s1_w3_z2_t1.tif", "B02_s1_w3_z2.tif", "a/b/9987_B02_s1_w3_z2.TIF"):
            assert np.array_equal(store.load(other), plane_of("a"))
            assert store.is_file(other)
            with pytest.raises(DatasetExistsError, match=r"TimePoint_1/ZStep_2/9987_B02_s1_w3\.TIF"):
                store.save(plane_of("b"), other)
        assert store.list_files(recursive=True) == [name]
        for missing in ("9987_B02_s1_w3_z1.tif", "9987_B02_s2_w3_z2.tif", "other_B02_s1_w3_z2.tif", "what.txt"):
            assert not store.exists(missing)
            with pytest.raises(DatasetNotFoundError):
                store.load(missing)
        with pytest.raises(ConfigError, match="the plate 'other'"):
            store.save(plane_of("b"), "other_B03_s1_w3.tif")
        for bad, message in (
            ("9987_B02_s1_w1_thumb.tif", "thumbnail"),
            ("9987.HTD", "metadata"),
            ("notes.txt", "no file name of imagexpress"),
            ("9987_B02_s99999999_w1.tif", "outside of 0 to"),
        ):
            with pytest.raises(ConfigError, match=message):
                store.save(plane_of("b"), bad)
        with pytest.raises(ConfigError, match="does not fit"):
            store.save(plane_of("b", (3, 3)), "9987_B02_s1_w1.tif")
        with pytest.raises(ConfigError, match="same plane"):
            store.save_batch([plane_of("b")] * 2, ["9987_B02_s3_w1.tif", "9987_B02_s3_w1_z1.tif"])
        assert store.list_files(recursive=True) == [name]
    with open_plate(tmp_path / "p.zarr") as again:
        assert np.array_equal(again.load(name), plane_of("a"))


def test_projections_are_images_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "p.zarr"
    with open_plate(root) as store:
        for z in range(4):
            store.save(plane_of(str(z)), f"ZStep_{z}/x_B02_s1_w1.TIF")
    assert zarr.open_array(root / "B/02/0p/0", mode="r").shape == (1, 1, 1, 40, 31)
    assert zarr.open_array(root / "B/02/0/0", mode="r").shape == (1, 1, 3, 40, 31)
    assert np.array_equal(zarr.open_array(root / "B/02/0p/0", mode="r")[0, 0, 0], plane_of("0"))


def test_a_well_of_nothing_but_projections_lists_them(tmp_path: Path) -> None:
    root = tmp_path / "p.zarr"
    with open_plate(root) as store:
        store.save(plane_of("0"), "ZStep_0/x_B02_s1_w1.TIF")
        for listed, name in (("0p", None), ("0", "ZStep_1/x_B02_s1_w1.TIF")):
            if name is not None:
                store.save(plane_of("1"), name)
            well = json.loads((root / "B/02/zarr.json").read_text())["attributes"]
            assert well["ome"]["well"]["images"] == [{"path": listed}]
            assert well["mutoscope"]["projections"] == ["0p"]
            assert isinstance(yaozarrs.validate_zarr_store(str(root)).ome_metadata(), yaozarrs.v05.Plate)
        assert len(store.list_files(recursive=True)) == 2


def test_channels_that_have_names(tmp_path: Path) -> None:
    root = tmp_path / "p.zarr"
    name = "B - 3(fld 1 wv {} z 2).tif"
    with open_plate(root, "incell") as store:
        for channel in ("Cy5 - Cy5", "DAPI - DAPI"):
            store.save(plane_of(channel), name.format(channel))
        with open_plate(root, "incell") as other:
            assert np.array_equal(other.load(name.format("DAPI - DAPI")), plane_of("DAPI - DAPI"))
            other.save(plane_of("FITC"), name.format("FITC"))
        assert np.array_equal(store.load(name.format("FITC")), plane_of("FITC"))
        assert not store.exists(name.format("Texas Red"))
    assert plate_info(root)["channels"] == ["Cy5 - Cy5", "DAPI - DAPI", "FITC"]
    attributes = json.loads((root / "B/03/0/zarr.json").read_text())["attributes"]["ome"]
    assert [each["label"] for each in attributes["omero"]["channels"]] == ["Cy5 - Cy5", "DAPI - DAPI", "FITC"]
    array = zarr.open_array(root / "B/03/0/0", mode="r")
    assert array.shape == (1, 3, 2, 40, 31)
    assert np.array_equal(array[0, 1, 1], plane_of("DAPI - DAPI"))


def test_a_description_can_come_before_or_after(tmp_path: Path) -> None:
    known = PlateDescription(
        name="drug screen",
        geometry=PlateGeometry.standard(384),
        channels=(PlateChannel(name="DAPI", emission_nm=450.0),),
        pixel_size_um=0.5,
        z_step_um=2.0,
        extent=(1, 1, 5),
        positions={"B02/0": Position(10.0, -20.0, 3.0)},
    )
    for when in ("before", "after"):
        root = tmp_path / f"{when}.zarr"
        with open_plate(root, **({"description": known} if when == "before" else {})) as store:
            store.save(plane_of("a"), "B02_s1_w1_z1.tif")
            if when == "after":
                store.describe(known)
        plate = json.loads((root / "zarr.json").read_text())["attributes"]["ome"]["plate"]
        assert (plate["name"], len(plate["rows"]), len(plate["columns"])) == ("drug screen", 16, 24)
        ome = json.loads((root / "B/02/0/zarr.json").read_text())["attributes"]["ome"]
        scale, translation = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
        assert scale["scale"] == [1.0, 1.0, 2.0, 0.5, 0.5]
        assert translation["translation"] == [0.0, 0.0, 3.0, 10.0 - 9.75, -20.0 - 7.5]
        assert ome["omero"]["channels"][0]["label"] == "DAPI"
        assert plate_info(root)["extent"] == [1, 1, 5]
        assert isinstance(yaozarrs.validate_zarr_store(str(root)).ome_metadata(), yaozarrs.v05.Plate)


def test_options_and_places_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("x", encoding="utf-8")
    for path in (tmp_path / "file", tmp_path / "full"):
        with pytest.raises(ConfigError):
            open_plate(path)
    for options in (
        {"wells": 97},
        {"pixel_size_um": -1.0},
        {"compression": "lzma"},
        {"wells": 96, "description": PlateDescription()},
    ):
        with pytest.raises(ConfigError):
            open_plate(tmp_path / "p.zarr", **options)
    with pytest.raises(ConfigError, match="pyramids"):
        open_plate(tmp_path / "p.zarr", pyramids=True)
    with open_plate(tmp_path / "p.zarr", wells=96) as store, pytest.raises(ConfigError, match="outside of a plate of 8 rows"):
        store.save(plane_of("a"), "AA01_s1_w1.tif")
    assert not (tmp_path / "p.zarr").exists()
    with pytest.raises(DatasetNotFoundError):
        plate_info(tmp_path / "p.zarr")
    with storage.open_writer(tmp_path / "stream.ome.zarr", shape=(4, 4), dtype="uint8"):
        pass
    with pytest.raises(ConfigError, match="no plate"):
        open_plate(tmp_path / "stream.ome.zarr")


def test_a_plate_is_no_recording(tmp_path: Path) -> None:
    with open_plate(tmp_path / "p.zarr") as store:
        store.save(plane_of("a"), "x_B02_s1_w1.tif")
    for act in (storage.open_reader, storage.recover):
        with pytest.raises(DatasetError, match="is a plate"):
            act(tmp_path / "p.zarr")
    assert storage.info(tmp_path / "p.zarr")["stored"] == 1


def test_deleting_makes_a_plane_missing_again(tmp_path: Path) -> None:
    root = tmp_path / "p.zarr"
    with open_plate(root) as store:
        store.save_batch([plane_of("a"), plane_of("b")], ["x_B02_s1_w1.tif", "x_B02_s1_w2.tif"])
        store.delete("x_B02_s1_w1.tif")
        assert zarr_states(root, "B/02/0").tolist() == [[[0], [1]]]
        assert not zarr_plane(root, place(store.filenames, "x_B02_s1_w1.tif")).any()
        store.save(plane_of("c"), "x_B02_s1_w1.tif")
        store.move("x_B02_s1_w1.tif", "x_C02_s1_w1.tif")
        assert store.list_files() == ["x_B02_s1_w2.tif", "x_C02_s1_w1.tif"]
    assert plate_info(root)["missing"] == 2


def test_means_are_those_of_floats_and_negative_numbers_too() -> None:
    rng = np.random.default_rng(3)
    for dtype in ("uint8", "int8", "uint16", "int16", "uint32", "int32"):
        limits = np.iinfo(dtype)
        plane = rng.integers(limits.min, limits.max, size=(7, 10), dtype=dtype, endpoint=True)
        wide = np.pad(plane, ((0, 1), (0, 0)), mode="edge").astype("int64").reshape(4, 2, 5, 2).sum(axis=(1, 3))
        assert half(plane).dtype == dtype
        assert np.array_equal(half(plane), np.floor(wide / 4 + 0.5)), dtype
    plane = rng.normal(size=(6, 8))
    for dtype in ("float32", "float64"):
        wanted = plane.astype(dtype).reshape(3, 2, 4, 2).mean(axis=(1, 3))
        assert np.allclose(half(plane.astype(dtype)), wanted, rtol=1e-6)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_repair_after_a_power_cut(tmp_path: Path, compression: str) -> None:
    """Pages that did not reach the device: pixels cut or gone though the record says stored."""
    root = tmp_path / "p.zarr"
    names = [f"x_B02_s1_w1_z{z}.tif" for z in range(1, 6)]
    with open_plate(root, compression=compression) as store:
        store.save_batch([plane_of(name, (300, 20)) for name in names], names)
        image = store.plate.image(place(store.filenames, names[0]).image)  # type: ignore[union-attr]
        assert image is not None
        files = [image.chunk_path(level, (0, 0, z)) for z in range(3) for level in (0, 1)]
    assert repair_plate(root).summary().endswith("5 planes checked, 0 renewed, 0 lost")
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[2].unlink()
    files[5].write_bytes(b"")
    report = repair_plate(root)
    assert (report.checked, report.renewed, report.lost) == (5, (names[2],), (names[0], names[1]))
    assert zarr_states(root, "B/02/0").ravel().tolist() == [0, 0, 1, 1, 1]
    assert np.array_equal(
        zarr_plane(root, place(filenames.get_parser("imagexpress"), names[2]), 1), half(plane_of(names[2], (300, 20)))
    )
    with open_plate(root) as store:
        store.save(plane_of(names[0], (300, 20)), names[0])
    assert repair_plate(root).checked == 4


def test_damaged_plates_end_in_one_error(tmp_path: Path) -> None:
    root = tmp_path / "p.zarr"
    name = "x_B02_s1_w1.tif"
    with open_plate(root) as store:
        store.save(plane_of(name), name)
    chance = random.Random(11)
    outcomes = set()
    documents = [path for path in root.rglob("*") if path.is_file() and "overview" not in path.parts]
    for turn in range(250):
        path = chance.choice(documents)
        whole = path.read_bytes()
        damaged = bytearray(whole)
        if turn % 3 == 0:
            damaged = damaged[: chance.randrange(len(whole))]
        else:
            for _ in range(chance.choice([1, 3, 20])):
                damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(damaged))
        try:
            plate_info(root)
            with open_plate(root, overview=False) as store:
                store.list_files(recursive=True)
                assert store.load(name).shape == (40, 31)
            outcomes.add("read")
        except (DatasetError, ConfigError):
            outcomes.add("refused")
        path.write_bytes(whole)
    assert outcomes == {"read", "refused"}
    with open_plate(root) as store:
        assert np.array_equal(store.load(name), plane_of(name))


def test_a_plate_does_not_read_outside_of_itself(tmp_path: Path) -> None:
    root = tmp_path / "p.zarr"
    name = "x_B02_s1_w1.tif"
    with open_plate(root) as store:
        store.save(plane_of(name), name)
        chunk = root / "B/02/0/0/c/0/0/0/0/0"
        chunk.rename(tmp_path / "outside")
        chunk.symlink_to(tmp_path / "outside")
        with pytest.raises(DatasetError, match="leads out"):
            store.load(name)
    assert not zarr.open_array(root / "overview/0", mode="r")[:].any()
    assert repair_plate(root).lost == (name,)
    assert (tmp_path / "outside").exists()
    document = json.loads((root / "zarr.json").read_text())
    document["attributes"]["ome"]["plate"]["wells"][0]["path"] = "../../etc"
    (root / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError):
        plate_info(root)


def test_a_reader_finds_planes_by_their_places(tmp_path: Path) -> None:
    root = tmp_path / "plate.ome.zarr"
    names = [f"x_B03_s{site}_w{wave}_z{z}.TIF" for site, wave, z in ((1, 1, 1), (1, 1, 3), (1, 2, 1), (2, 1, 1))]
    planes = {name: plane_of(name, (515, 301)) for name in names}
    with open_plate(root, description=PlateDescription(positions={"B03/0": Position(1.5, -2.0)})) as store:
        for name, plane in planes.items():
            store.save(plane, name)
        reader = PlateReader(root)
        assert reader.images == ("B/03/0", "B/03/1")
        store.save(planes[names[0]], "x_C01_s1_w1_z1.TIF")
        assert reader.images == ("B/03/0", "B/03/1")
        reader.refresh()
    assert reader.images == ("B/03/0", "B/03/1", "C/01/0")
    assert reader.form("B/03/0") == ((515, 301), planes[names[0]].dtype.name)
    assert reader.stored("B/03/0").tolist() == [[[True, False, True], [True, False, False]]]
    assert reader.position("B/03/0") == Position(1.5, -2.0)
    assert reader.position("B/03/1") is None
    assert reader.levels("B/03/0", (0, 0, 2)) == 3
    third = planes[names[1]]
    assert np.array_equal(reader.read("B/03/0", (0, 0, 2)), third)
    assert np.array_equal(reader.read("B/03/0", (0, 0, 2), rows=slice(9, 30), columns=slice(4, 5)), third[9:30, 4:5])
    second = zarr.open_group(root, mode="r")["B/03/0/2"][0, 0, 2]
    assert np.array_equal(reader.read("B/03/0", (0, 0, 2), level=2), second)
    assert np.array_equal(reader.read("B/03/0", (0, 0, 2), level=2, rows=slice(1, 8)), second[1:8])
    with pytest.raises(KeyError):
        reader.read("B/03/7", (0, 0, 0))
    with pytest.raises(DatasetError, match="missing"):
        reader.read("B/03/0", (0, 0, 1))
    with pytest.raises(ConfigError, match="no level 3"):
        reader.read("B/03/0", (0, 0, 0), level=3)
