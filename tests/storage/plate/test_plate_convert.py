"""Whole plates converted: into plates of another form, into OME-TIFF; killed in between, and gone on with."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr
from plate_child import NAMES, SHAPE
from plate_folders import plane_of
from plate_names import place, tensorstore_plane, zarr_plane, zarr_states

from mutoscope import storage
from mutoscope.model import filenames
from mutoscope.model._faults import VARIABLE
from mutoscope.model.errors import ConfigError, DatasetExistsError
from mutoscope.storage._half import half
from mutoscope.storage.plate import PlateChannel, PlateDescription, Position, plate_info

CHILD = Path(__file__).parents[1] / "convert_child.py"
PARSER = filenames.get_parser("imagexpress")
THERE = NAMES[:41]
"""The last well lacks some planes."""

KNOWN = PlateDescription(
    name="screen 7",
    channels=(PlateChannel(name="DAPI", emission_nm=450.0), PlateChannel(name="GFP")),
    pixel_size_um=0.65,
    z_step_um=2.0,
    positions={"B02/0": Position(y_um=-150.0, x_um=200.0)},
)


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    path = tmp_path / "plate.ome.zarr"
    with storage.open("ome-zarr", path, filenames="imagexpress", description=KNOWN) as store:
        store.save_batch([plane_of(name, SHAPE) for name in THERE], THERE)
        store.save(plane_of("projection", SHAPE), "TimePoint_1/ZStep_0/x_B02_s1_w1.tif")
    return path


def check_plate(copy: Path, compression: str) -> None:
    """Assert that another library finds every plane of `THERE`, in both levels, and the others marked missing."""
    assert isinstance(yaozarrs.validate_zarr_store(str(copy)).ome_metadata(), yaozarrs.v05.Plate)
    for name in NAMES:
        where = place(PARSER, name)
        stored = zarr_states(copy, where.image.path)[where.tcz]
        assert stored == (name in THERE), name
        if stored:
            assert np.array_equal(zarr_plane(copy, where), plane_of(name, SHAPE))
            assert np.array_equal(tensorstore_plane(copy, where, 1), half(plane_of(name, SHAPE)))
    codecs = zarr.open_array(copy / "B/02/0/0", mode="r").metadata.to_dict()["codecs"]
    assert [codec["name"] for codec in codecs] == [
        "bytes",
        *({"none": [], "zstd": ["zstd"], "blosc-lz4": ["blosc"], "blosc-zstd": ["blosc"]}[compression]),
    ]
    with storage.open("ome-zarr", copy, filenames="imagexpress") as store:
        assert sorted(set(store.list_files(recursive=True)) & set(NAMES)) == sorted(THERE)
    assert (copy / "overview" / "0" / "zarr.json").exists()
    assert not list(copy.rglob("*.part"))


@pytest.mark.parametrize("compression", ["none", "blosc-lz4", "blosc-zstd", "zstd"])
def test_a_plate_becomes_one_of_another_compression(tmp_path: Path, plate: Path, compression: str) -> None:
    told: list[tuple[int, int]] = []
    copy = tmp_path / "copy.ome.zarr"
    report = storage.convert(
        plate, copy, compression=compression, progress=lambda done, total, name: told.append((done, total))
    )
    check_plate(copy, compression)
    assert np.array_equal(zarr.open_array(copy / "B/02/0p/0", mode="r")[0, 0, 0], plane_of("projection", SHAPE))
    assert told == [(number, 42) for number in range(1, 43)]
    assert (report.frames, report.bytes) == (42, 42 * plane_of("x", SHAPE).nbytes)
    assert report.not_kept == ()
    before, after = plate_info(plate), plate_info(copy)
    assert {key: before[key] for key in ("stored", "missing", "channels")} == {
        key: after[key] for key in ("stored", "missing", "channels")
    }
    scales = [zarr.open_group(path / "B/02/0", mode="r").attrs["ome"]["multiscales"][0]["datasets"] for path in (plate, copy)]
    assert scales[0] == scales[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.ome.zarr", "plate.ome.zarr"]


def foreign(path: Path, version: str) -> dict[tuple[str, int], Any]:
    """Write a plate as another program would, with columns that have no zero in front; return its images."""
    kind = 2 if version == "0.4" else 3
    pixels = {}
    axes = [{"name": name, "type": "space" if name in "zyx" else "time" if name == "t" else "channel"} for name in "tczyx"]
    for axis in axes[2:]:
        axis["unit"] = "micrometer"
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 2.0, 0.5, 0.5]}]}]
    scales = [{"axes": axes, "datasets": datasets, "version": version}]

    def attributes(**values: Any) -> dict[str, Any]:
        return values if version == "0.4" else {"ome": {"version": version, **values}}

    wells = [{"path": name, "rowIndex": row, "columnIndex": column} for name, row, column in (("A/1", 0, 0), ("B/12", 1, 11))]
    named = {"rows": [{"name": name} for name in "AB"], "columns": [{"name": str(number)} for number in range(1, 13)]}
    root = zarr.open_group(path, mode="w", zarr_format=kind)
    root.attrs.update(attributes(plate={"name": "theirs", "version": version, "wells": wells, **named}))
    for number, well in enumerate(("A/1", "B/12")):
        group = root.create_group(well)
        group.attrs.update(attributes(well={"version": version, "images": [{"path": "first"}, {"path": "second"}]}))
        for field, name in enumerate(("first", "second")):
            image = group.create_group(name)
            image.attrs.update(attributes(multiscales=scales))
            data = np.random.default_rng(number * 2 + field).integers(1, 4000, (2, 2, 3, 20, 30), dtype="uint16")
            array = image.create_array("0", shape=data.shape, chunks=(1, 1, 2, 10, 30), dtype="uint16")
            array[:] = data
            pixels[well, field] = data
    return pixels


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_of_another_program_becomes_one_of_ours(tmp_path: Path, version: str) -> None:
    pixels = foreign(tmp_path / "theirs.zarr", version)
    report = storage.convert(tmp_path / "theirs.zarr", tmp_path / "ours.ome.zarr", compression="zstd")
    assert report.images == ("A/01/0", "A/01/1", "B/12/0", "B/12/1")
    for (well, field), data in pixels.items():
        path = f"{'A/01' if well == 'A/1' else well}/{field}"
        image = zarr.open_group(tmp_path / "ours.ome.zarr" / path, mode="r")
        assert np.array_equal(image["0"][:], data)
        assert (image["planes/state"][:] == 1).all()
        scale = image.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
        assert scale[2:] == [2.0, 0.5, 0.5]
    with storage.open("ome-zarr", tmp_path / "ours.ome.zarr", filenames="imagexpress") as store:
        assert np.array_equal(store.load("B12_s2_w1_z3_t2.tif"), pixels["B/12", 1][1, 0, 2])


def check_folder(folder: Path) -> None:
    """Assert that tifffile finds every plane in the file of its field, and zeros for what is missing."""
    images = {place(PARSER, name).image for name in NAMES}
    for key in images:
        with tifffile.TiffFile(folder / f"{key.well}_{key.name}.ome.tiff") as file:
            [series] = file.series
            order, stack = series.axes, series.asarray()
        for name in NAMES:
            where = place(PARSER, name)
            if where.image == key:
                at = {"T": where.t, "C": where.c, "Z": where.z}
                found = stack[tuple(at[axis] for axis in order[:-2])]
                assert np.array_equal(found, plane_of(name, SHAPE) if name in THERE else np.zeros(SHAPE)), name


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_plate_becomes_a_folder_of_ome_tiff(tmp_path: Path, plate: Path, compression: str | None) -> None:
    report = storage.convert(plate, tmp_path / "fields", compression=compression)
    check_folder(tmp_path / "fields")
    assert report.target_kind == "folder of OME-TIFF"
    assert len(report.images) == 7
    assert f"that {plate_info(plate)['missing']} planes are missing: they are zeros in the copy" in report.not_kept
    assert not [entry for entry in (tmp_path / "fields").iterdir() if entry.name.startswith(".")]
    with pytest.raises(DatasetExistsError):
        storage.convert(plate, tmp_path / "fields")


def test_labels_and_tables_of_a_plate_come_over(tmp_path: Path, plate: Path) -> None:
    labels = np.zeros((2, 1, 2, *SHAPE), "uint16")
    labels[0, 0, 0, 3:9, 4:11] = 5
    storage.save_labels(plate, "nuclei", labels, image="B/02/0")
    rows = np.array([(5, 42.0)], dtype=[("label", "i8"), ("area", "f8")])
    storage.save_table(plate, "cells", rows, image="B/02/0")
    storage.save_table(plate, "well", rows, image="B/02")
    report = storage.convert(plate, tmp_path / "copy.ome.zarr", compression="zstd")
    assert np.array_equal(storage.load_labels(tmp_path / "copy.ome.zarr", "nuclei", image="B/02/0"), labels)
    for name, image in (("cells", "B/02/0"), ("well", "B/02")):
        assert np.array_equal(storage.load_table(tmp_path / "copy.ome.zarr", name, image=image), rows)
    assert report.not_kept == ()
    report = storage.convert(plate, tmp_path / "fields")
    assert "labels 'nuclei' of B/02/0" in report.not_kept


def child(*arguments: object, point: str = "") -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if point:
        environment[VARIABLE] = f"storage.{point}"
    command = [sys.executable, str(CHILD), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


def killed(*arguments: object, point: str) -> None:
    with child(*arguments, point=point) as process:
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL


POINTS = {
    "copy.ome.zarr": [
        *("create.built", "convert.plane:1", "convert.plane:30", "plate.level_placed:40", "plate.state_written:20"),
        *("convert.written", "convert.unplaced", "convert.placing", "convert.exchanged"),
    ],
    "fields": [
        *("convert.frame:5", "convert.marked", "convert.file_placed:2", "convert.field:3"),
        *("convert.written:2", "convert.unplaced", "convert.placing", "convert.exchanged"),
    ],
}


@pytest.mark.parametrize(("name", "point"), [(name, point) for name, points in POINTS.items() for point in points])
def test_a_plate_whose_conversion_was_killed_is_gone_on_with(tmp_path: Path, plate: Path, name: str, point: str) -> None:
    target = tmp_path / name
    killed(plate, target, point=point)
    if point == "convert.exchanged":
        with pytest.raises(DatasetExistsError):
            storage.convert(plate, target)
    else:
        assert not target.exists()
        assert (tmp_path / f".{name}.unfinished").is_dir()
        changes = sum(path.stat().st_mtime_ns for path in (tmp_path / f".{name}.unfinished").rglob("c/*/*/*/0/0"))
        storage.convert(plate, target)
        if point == "convert.written" and name.endswith("zarr"):
            assert changes == sum(path.stat().st_mtime_ns for path in target.rglob("c/*/*/*/0/0")), "no plane was copied twice"
        assert not (tmp_path / f".{name}.unfinished").exists()
    check_plate(target, "none") if name.endswith("zarr") else check_folder(target)
    assert not [entry for entry in target.rglob(".*") if not entry.name.startswith(".zg")]


def test_conversions_that_are_killed_at_random_moments_come_to_an_end(tmp_path: Path, plate: Path) -> None:
    seed = int(os.environ.get("MUTOSCOPE_SEED", time.time_ns() % 2**32))
    print(f"seed {seed}: repeat with MUTOSCOPE_SEED={seed}")
    rng = random.Random(seed)
    target = tmp_path / "copy.ome.zarr"
    for _ in range(6):
        with child(plate, target) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 30)):  # reading paces the kill
                process.stdout.readline()
            process.kill()
        if target.exists():
            break
    else:
        storage.convert(plate, target)
    check_plate(target, "none")


def test_what_changed_in_the_source_since_the_kill_is_copied_again(tmp_path: Path, plate: Path) -> None:
    target = tmp_path / "copy.ome.zarr"
    killed(plate, target, point="convert.written")
    with storage.open("ome-zarr", plate, filenames="imagexpress", overwrite=True) as store:
        store.save(plane_of("another", SHAPE), THERE[0])
    storage.convert(plate, target)
    assert np.array_equal(zarr_plane(target, place(PARSER, THERE[0])), plane_of("another", SHAPE))
    killed(plate, tmp_path / "other.ome.zarr", point="convert.written")
    storage.convert(plate, tmp_path / "other.ome.zarr", compression="zstd")  # otherwise than what was begun
    assert plate_info(tmp_path / "other.ome.zarr")["stored"] == len(THERE) + 1
    codecs = zarr.open_array(tmp_path / "other.ome.zarr" / "B/02/0/0", mode="r").metadata.to_dict()["codecs"]
    assert codecs[-1]["name"] == "zstd"


@pytest.mark.parametrize("point", ["convert.plane:9", "convert.placing", "convert.exchanged"])
def test_a_killed_replacement_leaves_the_old_plate_or_the_new_one(tmp_path: Path, plate: Path, point: str) -> None:
    target = tmp_path / "copy.ome.zarr"
    with storage.open("ome-zarr", target, filenames="imagexpress") as store:
        store.save(plane_of("old", SHAPE), THERE[0])
    killed(plate, target, "overwrite", point=point)
    if point == "convert.exchanged":
        check_plate(target, "none")
    else:
        assert np.array_equal(zarr_plane(target, place(PARSER, THERE[0])), plane_of("old", SHAPE))
    storage.convert(plate, target, overwrite=True)
    check_plate(target, "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.ome.zarr", "plate.ome.zarr"]


def test_what_cannot_be_is_said(tmp_path: Path, plate: Path) -> None:
    for target, options, words in (
        ("a.ome.tiff", {}, "it is a plate, choose a field"),
        ("a.ome.zarr", {"ome_zarr_version": "0.4"}, r"plates are written in OME-Zarr 0\.5"),
        ("a.ome.zarr", {"compression": "zlib"}, "compressed by"),
        ("fields", {"compression": "blosc-lz4"}, "zlib"),
        ("fields", {"overwrite": True}, "never replaced"),
        ("fields", {"ome_zarr_version": "0.5"}, "leave ome_zarr_version out"),
        ("plate.ome.zarr", {"overwrite": True}, "lies in what is to be converted"),
        ("plate.ome.zarr/B/copy.ome.zarr", {}, "lies in what is to be converted"),
    ):
        with pytest.raises(ConfigError, match=words):
            storage.convert(plate, tmp_path / target, **options)
    letter = tmp_path / "letters.zarr" / "letter.txt"
    letter.parent.mkdir()
    letter.write_text("dear")
    with pytest.raises(ConfigError, match="not a data set"):
        storage.convert(plate, letter.parent, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letters.zarr", "plate.ome.zarr"]
