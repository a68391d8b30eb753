"""Conversions: the same pixels and metadata, judged by tifffile, zarr-python and the libraries of the formats."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr_models import open_ome_zarr
from storage_oracles_frames import frame_of

from mutoscope import storage
from mutoscope.model.errors import BackendUnavailableError, ConfigError, DatasetError, DatasetExistsError

SHAPE = (24, 40)
IDS = [3, 4, 5, 9, 10, 11, 12, 40]
COLUMNS = ("frame_ids", "ticks", "monotonic_ns", "utc_ns", "exposure_ms")


def record(path: Path, *, planes: bool = False, **options: Any) -> Path:
    """Make a stream with gaps, all metadata, a ledger and settings."""
    attributes = {"settings": {"exposure": 2.5}, "ledger": {"produced": 50, "stored": len(IDS)}, "note": "by hand"}
    options = {"pixel_size_um": 0.325, "rate_hz": 50.0, "attributes": attributes, **options}
    with storage.open_writer(path, shape=SHAPE, dtype="uint16", name="left", **options) as writer:
        for number, frame_id in enumerate(IDS):
            index = {"t": number // 2, "c": number % 2} if planes else None
            times = {"tick": frame_id + 7, "monotonic_ns": frame_id * 10**7, "utc_ns": 10**18 + frame_id}
            writer.append(frame_of(frame_id, SHAPE), frame_id=frame_id, exposure_ms=frame_id / 8, index=index, **times)
    return path


def expected() -> np.ndarray:
    return np.stack([frame_of(frame_id, SHAPE) for frame_id in IDS])


def assert_same_stream(one: Path, other: Path) -> None:
    with storage.open_reader(one) as first, storage.open_reader(other) as second:
        for name in COLUMNS:
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
        planes, copies = first.planes(), second.planes()
        assert (planes is None) == (copies is None)
        for name in planes or ():
            np.testing.assert_array_equal(planes[name], copies[name], err_msg=name)
        assert first.gaps() == second.gaps()
        assert first.ledger == second.ledger
        for name in ("pixel_size_um", "rate_hz", "camera", "settings", "note"):
            assert first.attributes.get(name) == second.attributes.get(name), name


OWN = [
    ("run.ome.zarr", {}, False),
    ("run.ome.zarr", {"ome_zarr_version": "0.4", "compression": "zstd"}, True),
    ("run.ome.tiff", {}, True),
]
TARGETS = [
    ("copy.ome.zarr", {}),
    ("copy.ome.zarr", {"compression": "blosc-lz4"}),
    ("copy.ome.zarr", {"ome_zarr_version": "0.4", "compression": "zstd"}),
    ("copy.ome.tiff", {}),
    ("copy.ome.tiff", {"compression": "zlib"}),
]


@pytest.mark.parametrize(("name", "options", "planes"), OWN)
@pytest.mark.parametrize(("target", "how"), TARGETS)
def test_streams_keep_all_that_they_have(
    tmp_path: Path, name: str, options: dict[str, Any], target: str, how: dict[str, Any], planes: bool
) -> None:
    source, copy = record(tmp_path / name, planes=planes, **options), tmp_path / "new" / target
    report = storage.convert(source, copy, **how)
    assert_same_stream(source, copy)
    found = tifffile.imread(copy) if target.endswith("tiff") else zarr.open_group(copy, mode="r")["0"][:]
    assert found.dtype == "uint16"
    assert found.tobytes() == expected().tobytes()
    if target.endswith("tiff"):
        assert found.shape == ((4, 2, *SHAPE) if planes else (8, *SHAPE))
    assert report.frames == len(IDS)
    assert report.gaps == ((6, 3), (13, 27))
    assert {"ledger", "settings", "note"} < set(report.kept)
    assert sorted(path.name for path in copy.parent.iterdir()) in (["copy.ome.zarr"], ["copy.ome.tiff", "copy.ome.tiff.json"])


def test_all_cameras_and_changes_of_shape_go_into_ome_zarr_and_not_into_ome_tiff(tmp_path: Path) -> None:
    layout = storage.CameraLayout(SHAPE, "uint16")
    recording = storage.create_recording(tmp_path / "two.ome.zarr", {"left": layout, "right": layout})
    for camera in ("left", "right"):
        with storage.open_image_writer(recording, camera) as writer:
            writer.append(frame_of(1, SHAPE))
    with storage.open_image_writer(recording, "right", shape=(8, 9), dtype="uint8", continue_=True) as writer:
        writer.append(frame_of(2, (8, 9), "uint8"))
    report = storage.convert(recording.path, tmp_path / "copy.ome.zarr")
    assert report.images == ("left", "right", "right.1")
    with storage.open_reader(tmp_path / "copy.ome.zarr", "right") as reader:
        assert reader.frame_ids.tolist() == [1, 2]
        assert reader[1].tobytes() == frame_of(2, (8, 9), "uint8").tobytes()
    with pytest.raises(ConfigError, match="several cameras, choose one with image=: left, right"):
        storage.convert(recording.path, tmp_path / "copy.ome.tiff")
    with pytest.raises(ConfigError, match=r"frames change from .* such as right\.0 .image='right\.0'"):
        storage.convert(recording.path, tmp_path / "copy.ome.tiff", image="right")
    storage.convert(recording.path, tmp_path / "copy.ome.tiff", image="right.1")
    assert tifffile.imread(tmp_path / "copy.ome.tiff").tobytes() == frame_of(2, (8, 9), "uint8").tobytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize("cameras", [1, 2])
def test_labels_and_tables_come_over_to_ome_zarr(tmp_path: Path, version: str, cameras: int) -> None:
    names = ["left", "right"][:cameras]
    recording = storage.create_recording(tmp_path / "run.ome.zarr", dict.fromkeys(names, storage.CameraLayout(SHAPE, "uint16")))
    for name in names:
        with storage.open_image_writer(recording, name) as writer:
            for frame_id in IDS:
                writer.append(frame_of(frame_id, SHAPE), frame_id=frame_id)
    source, copy = recording.path, tmp_path / "copy.ome.zarr"
    cells = np.stack([frame_of(number, SHAPE, "uint8") for number in IDS])
    rows = np.array([(1, 2.5)], dtype=[("label", "u2"), ("area", "f4")])
    storage.save_labels(source, "cells", cells, image=names[-1], colors={3: "#ff0000"}, properties={3: {"kind": "dead"}})
    storage.save_table(source, "features", rows, image=names[-1], labels="cells")
    storage.save_table(source, "stage", rows)
    report = storage.convert(source, copy, ome_zarr_version=version)
    assert {"labels 'cells'", "table 'features'", "table 'stage'"} <= set(report.kept)
    assert not report.not_kept
    assert storage.labels_info(copy, "cells", image=names[-1]) == storage.labels_info(source, "cells", image=names[-1])
    group = zarr.open_group(copy if cameras == 1 else copy / "right", mode="r")
    np.testing.assert_array_equal(group["labels/cells/0"][:], cells)
    assert group["tables/features"].attrs["region"] == {"path": "../labels/cells"}
    np.testing.assert_array_equal(storage.load_table(copy, "stage"), rows)
    report = storage.convert(source, tmp_path / "copy.ome.tiff", image=names[-1])
    assert {"labels 'cells'", "table 'features'"} <= set(report.not_kept)


@pytest.mark.external_data
def test_labels_of_another_programs_image_come_over(tmp_path: Path, external_data: Path) -> None:
    source = external_data / "ome_zarr" / "written_by_ome-zarr-py_cli" / "coins_0.5.ome.zarr"
    report = storage.convert(source, tmp_path / "copy.ome.zarr")
    assert report.kept == ("labels 'coins'",)
    np.testing.assert_array_equal(
        storage.load_labels(tmp_path / "copy.ome.zarr", "coins"), storage.load_labels(source, "coins")
    )


@pytest.mark.parametrize("name", ["run.ome.zarr", "run.ome.tiff"])
def test_a_stream_that_is_being_written_is_copied_as_far_as_it_is(tmp_path: Path, name: str) -> None:
    with storage.open_writer(tmp_path / name, shape=SHAPE, dtype="uint16") as writer:
        for frame_id in IDS:
            writer.append(frame_of(frame_id, SHAPE), frame_id=frame_id)
        storage.convert(tmp_path / name, tmp_path / "copy.ome.zarr")
        writer.append(frame_of(99, SHAPE), frame_id=99)
    assert storage.info(tmp_path / "copy.ome.zarr")["complete"]
    assert zarr.open_group(tmp_path / "copy.ome.zarr", mode="r")["0"][:].tobytes() == expected().tobytes()


@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize("compression", ["none", "blosc-lz4", "blosc-zstd", "zstd"])
def test_a_stack_gets_all_its_axes(tmp_path: Path, version: str, compression: str) -> None:
    stack = np.random.default_rng(1).poisson(200, (3, 4, 2, 10, 12)).astype("uint16")
    tifffile.imwrite(
        tmp_path / "stack.tif", stack, imagej=True, metadata={"axes": "TZCYX", "spacing": 1.5, "unit": "um"}, resolution=(4, 4)
    )
    report = storage.convert(tmp_path / "stack.tif", tmp_path / "a.ome.zarr", compression=compression, ome_zarr_version=version)
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][:], stack.transpose(0, 2, 1, 3, 4))
    assert report.axes == "tczyx"
    image = open_ome_zarr(group)
    multiscale = image.ome_attributes.multiscales[0] if version == "0.5" else image.attributes.multiscales[0]
    assert [axis.name for axis in multiscale.axes] == list("tczyx")
    assert list(multiscale.datasets[0].coordinateTransformations[0].scale) == [1, 1, 1.5, 0.25, 0.25]
    storage.convert(tmp_path / "a.ome.zarr", tmp_path / "b.ome.tiff", compression=None)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.ome.tiff"), stack.transpose(0, 2, 1, 3, 4))
    storage.convert(tmp_path / "stack.tif", tmp_path / "c.ome.tiff")
    with tifffile.TiffFile(tmp_path / "c.ome.tiff") as tiff:
        axes = tiff.series[0].axes
        np.testing.assert_array_equal(tiff.asarray(), stack.transpose([0, 1, 2, 3, 4] if axes == "TZCYX" else [0, 2, 1, 3, 4]))


def test_colour_becomes_channels(tmp_path: Path) -> None:
    image = np.random.default_rng(2).integers(0, 255, (20, 30, 3), dtype="uint8")
    tifffile.imwrite(tmp_path / "colour.tif", image, photometric="rgb")
    report = storage.convert(tmp_path / "colour.tif", tmp_path / "a.ome.zarr")
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][0, :, 0], np.moveaxis(image, -1, 0))
    assert [each["label"] for each in group.attrs["ome"]["omero"]["channels"]] == ["red", "green", "blue"]
    assert not report.not_kept
    report = storage.convert(tmp_path / "colour.tif", tmp_path / "a.ome.tiff")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.ome.tiff"), np.moveaxis(image, -1, 0))
    assert "names of channels" in report.not_kept[0]


def test_a_folder_of_images_becomes_a_stream(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    frames = [frame_of(number, SHAPE) for number in range(11)]
    for number, frame in enumerate(frames):
        tifffile.imwrite(tmp_path / "images" / f"img{number}.tif", frame)
    report = storage.convert(tmp_path / "images", tmp_path / "a.ome.zarr")
    assert (report.frames, report.axes) == (11, "tyx")
    with storage.open_reader(tmp_path / "a.ome.zarr") as reader:
        np.testing.assert_array_equal(np.stack(list(reader)), np.stack(frames))
        assert reader.attributes["source"] == {"name": "images", "kind": "TIFF"}


@pytest.mark.external_data
def test_ndtiff_through_its_library(tmp_path: Path, external_data: Path) -> None:
    ndstorage = pytest.importorskip("ndstorage")
    for name, sizes in (("ndtiff3.2_monochrome", (8, 1, 16)), ("ndtiffv3.0_test", (5, 2, 1))):
        data = ndstorage.Dataset(str(external_data / "ndtiff" / name))
        report = storage.convert(external_data / "ndtiff" / name, tmp_path / f"{name}.ome.zarr")
        storage.convert(external_data / "ndtiff" / name, tmp_path / f"{name}.ome.tiff")
        assert "exposure times" in report.not_kept
        stack = zarr.open_group(tmp_path / f"{name}.ome.zarr", mode="r")["0"]
        assert stack.shape[:3] == sizes
        flat = tifffile.imread(tmp_path / f"{name}.ome.tiff").reshape(stack.shape)
        for each in data.get_image_coordinates_list():
            place = (each.get("time", 0), each.get("channel", 0), each.get("z", 0))
            np.testing.assert_array_equal(stack[place], data.read_image(**each))
            np.testing.assert_array_equal(flat[place], data.read_image(**each))
        data.close()
        with storage.open_reader(tmp_path / f"{name}.ome.tiff") as reader:
            assert set(reader.exposure_ms.tolist()) == {10.0}
            assert reader.attributes["source"]["metadata"]["PixelSize_um"] == 1
    stitched = external_data / "ndtiff" / "ndtiffv3.0_stitched_test"
    report = storage.convert(stitched, tmp_path / "stitched.ome.zarr")
    assert report.frames == 2
    with storage.open_reader(tmp_path / "stitched.ome.zarr") as reader:
        assert reader.planes()["position"].tolist() == [0, 3]


@pytest.mark.external_data
@pytest.mark.parametrize("name", ["bf_tzc.ome.tif", "bf_dimorder_odd.ome.tif"])
def test_ome_tiff_of_bio_formats(tmp_path: Path, external_data: Path, name: str) -> None:
    source = external_data / "ome_tiff" / "written_by_bioformats" / name
    with tifffile.TiffFile(source) as tiff:
        axes, stack = tiff.series[0].axes, tiff.series[0].asarray()
    storage.convert(source, tmp_path / "a.ome.zarr")
    found = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")["0"][:]
    letters = [letter for letter in "TCZYX" if letter in axes]
    np.testing.assert_array_equal(found.squeeze(), stack.transpose([axes.index(letter) for letter in letters]).squeeze())


def test_what_bioio_reads_is_converted(tmp_path: Path) -> None:
    from mutoscope.storage.converting import _sources

    stack = np.random.default_rng(3).integers(0, 60000, (2, 3, 4, *SHAPE), dtype="uint16")
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "TZCYX", "unit": "um"}, resolution=(4, 4))

    def refuse(*_: object) -> None:
        raise _sources._datasets.UnknownKindError("not one of ours")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sources._datasets, "open_dataset", refuse)
        report = storage.convert(tmp_path / "a.tif", tmp_path / "a.ome.zarr")
        with pytest.raises(ConfigError, match="has no image 'nobody'"):
            storage.convert(tmp_path / "a.tif", tmp_path / "b.ome.zarr", image="nobody")
        (tmp_path / "b.tif").write_bytes(b"II*\0")
        with pytest.raises(DatasetError, match="bioio cannot read it"):
            storage.convert(tmp_path / "b.tif", tmp_path / "b.ome.zarr")
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "a.ome.zarr", mode="r")["0"][:], stack.transpose(0, 2, 1, 3, 4))
    assert report.axes == "tczyx"


def test_a_plates_field_tells_its_missing_planes(tmp_path: Path) -> None:
    with storage.open("ome-zarr", tmp_path / "plate.ome.zarr", filenames="imagexpress", overview=False) as plate:
        for name in ("exp_B03_s1_w1.tif", "exp_B03_s1_w2.tif", "exp_B03_s2_w1.tif"):
            plate.save(frame_of(len(name), SHAPE), name)
    with pytest.raises(ConfigError, match="it is a plate, choose a field"):
        storage.convert(tmp_path / "plate.ome.zarr", tmp_path / "a.ome.tiff")
    report = storage.convert(tmp_path / "plate.ome.zarr", tmp_path / "a.ome.zarr", image="B/03/1")
    assert "that 1 planes are missing: they are zeros in the copy" in report.not_kept
    report = storage.convert(tmp_path / "plate.ome.zarr", tmp_path / "b.ome.zarr", image="B/03/0")
    assert not [line for line in report.not_kept if "missing" in line]


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    source = record(tmp_path / "run.ome.zarr")
    for target, options, words in (
        ("a.czi", {}, "end the name in .ome.zarr or .ome.tiff"),
        ("a.ome.tiff", {"ome_zarr_version": "0.4"}, "leave ome_zarr_version out"),
        ("a.ome.tiff", {"compression": "blosc-lz4"}, "zlib"),
        ("a.ome.zarr", {"compression": "zlib"}, "compressed by"),
        ("a.ome.zarr", {"ome_zarr_version": "0.3"}, "version"),
        ("a.ome.zarr", {"image": "nobody"}, "nobody"),
        ("run.ome.zarr", {"overwrite": True}, "is what is to be converted"),
    ):
        with pytest.raises(ConfigError, match=words):
            storage.convert(source, tmp_path / target, **options)
    with pytest.raises(FileNotFoundError, match="there is no data set"):
        storage.convert(tmp_path / "nothing", tmp_path / "a.ome.zarr")
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE")
    with pytest.raises((DatasetError, BackendUnavailableError), match="bioio"):
        storage.convert(tmp_path / "a.czi", tmp_path / "a.ome.zarr")
    (tmp_path / "cut.tif").write_bytes(b"II*\0\x08\0\0\0")
    with pytest.raises(DatasetError, match=r"cut\.tif"):
        storage.convert(tmp_path / "cut.tif", tmp_path / "a.ome.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.czi", "cut.tif", "run.ome.zarr"]


@pytest.mark.parametrize("name", ["copy.ome.zarr", "copy.ome.tiff"])
def test_what_is_there_is_kept_until_the_copy_is_whole(tmp_path: Path, name: str) -> None:
    source, target = record(tmp_path / "run.ome.zarr"), tmp_path / name
    storage.convert(source, target)
    with pytest.raises(DatasetExistsError):
        storage.convert(source, target)
    tifffile.imwrite(tmp_path / "other.tif", np.zeros((2, *SHAPE), "uint8"), photometric="minisblack")
    with open(tmp_path / "other.tif", "r+b") as file:
        file.truncate(os.fstat(file.fileno()).st_size // 2)
    with pytest.raises(DatasetError):
        storage.convert(tmp_path / "other.tif", target, overwrite=True)
    assert_same_stream(source, target)
    storage.convert(record(tmp_path / "new.ome.zarr", planes=True), target, overwrite=True)
    assert_same_stream(tmp_path / "new.ome.zarr", target)


def test_an_image_that_another_program_wrote_is_not_replaced_by_an_ome_tiff(tmp_path: Path) -> None:
    source = record(tmp_path / "run.ome.zarr")
    (tmp_path / "copy.ome.tiff").write_text("something else")
    with pytest.raises(ConfigError, match="is not a TIFF, so it is not replaced"):
        storage.convert(source, tmp_path / "copy.ome.tiff", overwrite=True)
    (tmp_path / "folder.ome.zarr").mkdir()
    (tmp_path / "folder.ome.zarr" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="not a data set"):
        storage.convert(source, tmp_path / "folder.ome.zarr", overwrite=True)
    assert (tmp_path / "folder.ome.zarr" / "letter.txt").read_text() == "dear"


def child(*arguments: object, kill_point: str = "") -> subprocess.Popen[bytes]:
    environment = os.environ | ({"MUTOSCOPE_KILL_POINT": kill_point} if kill_point else {})
    command = [sys.executable, str(Path(__file__).with_name("convert_child.py")), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


POINTS = {
    "copy.ome.zarr": ["convert.frame:4", "convert.written", "create.built:2"],
    "copy.ome.tiff": ["convert.frame:4", "convert.written", "convert.marked", "convert.file_placed", "convert.placed"],
    "stack.ome.zarr": ["convert.frame:4", "create.built"],
}


@pytest.mark.parametrize(("name", "point"), [(name, point) for name, points in POINTS.items() for point in points])
def test_a_killed_conversion_leaves_nothing_or_all_and_can_be_repeated(tmp_path: Path, name: str, point: str) -> None:
    if name == "stack.ome.zarr":
        source = tmp_path / "stack.tif"
        metadata = {"axes": "TCYX"}
        tifffile.imwrite(source, np.arange(4 * 2 * 960, dtype="u2").reshape(4, 2, *SHAPE), imagej=True, metadata=metadata)
    else:
        source = record(tmp_path / "run.ome.zarr", planes=True)
    target = tmp_path / name
    with child(source, target, kill_point=f"storage.{point}") as process:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == -9
    assert b"done" not in said
    if point == "convert.placed":
        with pytest.raises(DatasetExistsError):
            storage.convert(source, target)
    else:
        if target.exists() or Path(f"{target}.json").exists():
            assert name.endswith("tiff")
            try:
                assert not storage.info(target)["complete"]
            except DatasetError:
                pass
        storage.convert(source, target)
    if name != "stack.ome.zarr":
        assert_same_stream(source, target)
    else:
        np.testing.assert_array_equal(zarr.open_group(target, mode="r")["0"][:, :, 0], tifffile.imread(source))


@pytest.mark.parametrize("point", ["convert.written", "create.beside", "create.placed", "create.hidden"])
def test_a_killed_replacement_leaves_the_old_or_the_new(tmp_path: Path, point: str) -> None:
    old, new = record(tmp_path / "old.ome.zarr"), record(tmp_path / "new.ome.zarr", planes=True)
    target = tmp_path / "copy.ome.zarr"
    storage.convert(old, target)
    with child(new, target, "overwrite", kill_point=f"storage.{point}") as process:
        process.communicate(timeout=60)
        assert process.returncode == -9
    assert_same_stream(old if point in ("convert.written", "create.beside") else new, target)
    storage.convert(new, target, overwrite=True)
    assert_same_stream(new, target)


@pytest.mark.parametrize("point", ["tiff.overwrite.moved", "convert.marked", "convert.file_placed", "convert.placed"])
def test_a_killed_replacement_of_an_ome_tiff_keeps_the_old_until_the_new_stands_there(tmp_path: Path, point: str) -> None:
    old, new = record(tmp_path / "old.ome.zarr"), record(tmp_path / "new.ome.zarr", planes=True)
    target, kept = tmp_path / "copy.ome.tiff", tmp_path / "copy.replaced.ome.tiff"
    storage.convert(old, target)
    point = point if point.startswith("tiff") else f"storage.{point}"
    with child(new, target, "overwrite", kill_point=point) as process:
        process.communicate(timeout=60)
        assert process.returncode == -9
    if point == "tiff.overwrite.moved":
        storage.recover(target)
        assert_same_stream(old, target)
    else:
        assert_same_stream(old, kept)
    storage.convert(new, target, overwrite=True)
    assert_same_stream(new, target)
    assert kept.exists() == (point == "storage.convert.placed")  # the new one was whole then: what it replaced is the user's


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    frame = np.zeros((512, 512), "uint16")
    with storage.open_writer(tmp_path / "run.ome.zarr", shape=frame.shape, dtype="uint16") as writer:
        for _ in range(400):  # 200 MiB
            writer.append(frame)
    program = "import sys; from mutoscope import storage; storage.convert(sys.argv[1], sys.argv[2]); "
    program += "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    command = [sys.executable, "-c", program, str(tmp_path / "run.ome.zarr"), str(tmp_path / "copy.ome.tiff")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) * 1024 < 120 << 20
