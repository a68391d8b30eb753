"""Recordings: one camera or several, changes of shape, resumed runs, what may be overwritten, attributes, info."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaozarrs
import zarr
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05 import BioFormats2Raw, Image
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from storage_oracles import READERS, assert_exact, frame_of

from mutoscope import storage
from mutoscope.model import FrameInfo, PlaneIndex
from mutoscope.model.errors import ConfigError, DatasetError, DatasetExistsError, DatasetNotFoundError, ScopeStateError
from mutoscope.storage import CameraLayout, _replace

SMALL = CameraLayout((24, 40), "uint16", frames_per_shard=4)
WIDE = CameraLayout((8, 100), "uint8", pixel_size_um=0.065, rate_hz=200.0, frames_per_shard=4)


def fill(recording: storage.Recording | Path, camera: str, ids: list[int], **options: object) -> None:
    with storage.open_image_writer(recording, camera, **options) as writer:  # type: ignore[arg-type]
        for frame_id in ids:
            writer.append(frame_of(frame_id, writer.shape, writer.dtype), frame_id=frame_id)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---------------------------------------------------------------------- validity


def test_one_camera_is_a_valid_image_from_the_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(24, 40), dtype="uint16", pixel_size_um=0.1, rate_hz=50, frames_per_shard=4) as writer:
        for frame_id in range(7):
            image = yaozarrs.validate_zarr_store(str(path)).ome_metadata()
            assert isinstance(image, yaozarrs.v05.Image)
            assert Image.from_zarr(zarr.open_group(path, mode="r")).ome_attributes.multiscales[0].axes[0].name == "t"
            writer.append(frame_of(frame_id + 1))
    [multiscale] = yaozarrs.validate_zarr_store(str(path)).ome_metadata().multiscales
    assert [(axis.name, axis.type, axis.unit) for axis in multiscale.axes] == [
        ("t", "time", "second"),
        ("y", "space", "micrometer"),
        ("x", "space", "micrometer"),
    ]
    assert multiscale.datasets[0].coordinateTransformations[0].scale == [0.02, 0.1, 0.1]


def test_unknown_scales_are_one_without_a_unit(tmp_path: Path) -> None:
    storage.open_writer(tmp_path / "a.zarr", shape=(4, 4), dtype="uint8").close()
    [multiscale] = yaozarrs.validate_zarr_store(str(tmp_path / "a.zarr")).ome_metadata().multiscales
    assert [axis.unit for axis in multiscale.axes] == [None, None, None]
    assert multiscale.datasets[0].coordinateTransformations[0].scale == [1.0, 1.0, 1.0]


def test_several_cameras_are_valid_images_listed_by_the_root(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    recording = storage.create_recording(path, {"left": SMALL, "right": WIDE})
    fill(recording, "left", [1, 2, 3, 4, 5])
    fill(path, "right", [1, 4, 9])
    for image, ids in (("left", [1, 2, 3, 4, 5]), ("right", [1, 4, 9])):
        assert isinstance(yaozarrs.validate_zarr_store(str(path / image)).ome_metadata(), yaozarrs.v05.Image)
        Image.from_zarr(zarr.open_group(path / image, mode="r"))
        assert_exact(path / image, ids, tuple(READERS))
    assert isinstance(yaozarrs.validate_zarr_store(str(path)).ome_metadata(), yaozarrs.v05.Bf2Raw)
    BioFormats2Raw.from_zarr(zarr.open_group(path, mode="r"))
    assert zarr.open_group(path / "OME").attrs["ome"] == {"version": "0.5", "series": ["left", "right"]}
    with pytest.raises(ConfigError, match="left, right"):
        storage.open_reader(path)
    with storage.open_reader(path, "right") as reader:
        assert (reader.images, reader.frame_ids.tolist(), reader.shape) == (("right",), [1, 4, 9], (8, 100))


@pytest.mark.parametrize("spoil", ["axes", "scale", "path", "version"])
def test_the_validators_see_a_fault(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "run.ome.zarr"
    storage.open_writer(path, shape=(4, 4), dtype="uint8").close()
    document = json.loads((path / "zarr.json").read_text())
    multiscale = document["attributes"]["ome"]["multiscales"][0]
    match spoil:
        case "axes":
            multiscale["axes"].pop()
        case "scale":
            multiscale["datasets"][0]["coordinateTransformations"][0]["scale"].pop()
        case "path":
            multiscale["datasets"][0]["path"] = "1"
        case "version":
            document["attributes"]["ome"]["version"] = "0.6"
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(Exception):  # noqa: B017  each validator has errors of its own
        yaozarrs.validate_zarr_store(str(path))
    with pytest.raises(Exception):  # noqa: B017
        Image.from_zarr(zarr.open_group(path, mode="r"))


@pytest.mark.external_data
def test_the_published_schemas_accept_the_metadata(tmp_path: Path, external_data: Path) -> None:
    schemas = external_data / "ome_zarr" / "ngff_json_schemas" / "0.5" / "schemas"
    loaded = {schema["$id"]: schema for schema in (json.loads(p.read_text()) for p in schemas.glob("*.schema"))}

    def validator(name: str) -> jsonschema.protocols.Validator:
        registry = Registry().with_resources((i, DRAFT202012.create_resource(s)) for i, s in loaded.items())
        found = next(schema for i, schema in loaded.items() if i.endswith(f"/{name}.schema"))
        return jsonschema.Draft202012Validator(found, registry=registry)

    storage.create_recording(tmp_path / "several.zarr", {"left": SMALL, "right": WIDE})
    one = zarr.open_group(storage.create_recording(tmp_path / "one.zarr", {"camera": WIDE}).path).attrs.asdict()
    validator("image").validate(one)
    validator("image").validate(zarr.open_group(tmp_path / "several.zarr" / "left").attrs.asdict())
    validator("bf2raw").validate(zarr.open_group(tmp_path / "several.zarr").attrs.asdict())
    validator("ome").validate(zarr.open_group(tmp_path / "several.zarr" / "OME").attrs.asdict())
    one["ome"]["multiscales"][0]["axes"] = []
    with pytest.raises(jsonschema.ValidationError):
        validator("image").validate(one)


# ---------------------------------------------------------------------- changes and resumed runs


@pytest.mark.parametrize("cameras", [{"camera": SMALL}, {"camera": SMALL, "other": WIDE}])
def test_a_change_of_shape_begins_a_further_image(tmp_path: Path, cameras: dict[str, CameraLayout]) -> None:
    path = tmp_path / "run.ome.zarr"
    first = path if len(cameras) == 1 else path / "camera"
    recording = storage.create_recording(path, cameras)
    fill(recording, "camera", [1, 2, 3])
    fill(recording, "camera", [4, 6], shape=(10, 12), dtype="float32")
    fill(recording, "camera", [7], continue_=True)
    fill(recording, "camera", [8], shape=(24, 40), dtype="uint16", continue_=True)
    assert_exact(first, [1, 2, 3], tuple(READERS))
    assert_exact(path / "camera.1", [4, 6, 7], tuple(READERS))
    assert_exact(path / "camera.2", [8], tuple(READERS))
    for image in (first, path / "camera.1", path / "camera.2"):
        assert isinstance(yaozarrs.validate_zarr_store(str(image)).ome_metadata(), yaozarrs.v05.Image)
        Image.from_zarr(zarr.open_group(image, mode="r"))
    several = [] if len(cameras) == 1 else list(cameras)
    assert zarr.open_group(path / "OME").attrs["ome"]["series"] == [*several, "camera.1", "camera.2"]
    assert zarr.open_group(path).attrs["ome"]["bioformats2raw.layout"] == 3
    yaozarrs.validate_zarr_store(str(path))
    root = zarr.open_group(path, mode="r")
    if several:
        BioFormats2Raw.from_zarr(root)
    else:
        assert isinstance(open_ome_zarr(root), Image)
    with storage.open_reader(path, "camera") as reader:
        assert reader.frame_ids.tolist() == [1, 2, 3, 4, 6, 7, 8]
        assert [frame.shape for frame in reader] == [(24, 40)] * 3 + [(10, 12)] * 3 + [(24, 40)]
        assert np.array_equal(reader.frame(6), frame_of(6, (10, 12), "float32"))
        assert reader.position_of(4) == ("camera.1", 1)
        assert reader.gaps() == [(5, 1)]
    with storage.open_reader(path, "camera.1") as reader:
        assert reader.frame_ids.tolist() == [4, 6, 7]
    with storage.open_reader(path, "camera.0") as reader:
        assert reader.frame_ids.tolist() == [1, 2, 3]
    with pytest.raises(ConfigError, match="no camera"):
        storage.open_reader(path, "camera.3")


def test_a_live_reader_follows_into_a_further_image(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    recording = storage.create_recording(path, {"camera": SMALL})
    fill(recording, "camera", [1, 2])
    with storage.open_reader(path) as reader:
        fill(recording, "camera", [3], shape=(5, 5))
        assert reader.refresh() == 1
        assert np.array_equal(reader.frame(3), frame_of(3, (5, 5)))
        assert reader.shape == (5, 5)


def test_a_resumed_run_is_a_further_image_whose_ids_go_on(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(24, 40), dtype="uint16", attributes={"settings": {"gain": 1}}) as writer:
        for frame_id in (1, 2, 5):
            writer.append(frame_of(frame_id), frame_id=frame_id)
    storage.write_attributes(path, {"ledger": {"produced": 5}})
    before = tree(path)
    with storage.open_writer(path, shape=(24, 40), dtype="uint16", resume=True, attributes={"settings": {"gain": 2}}) as writer:
        assert (writer.count, writer.last_frame_id) == (0, 5)
        assert writer.append(frame_of(6)).frame_id == 6
    after = tree(path)
    assert {name: after[name] for name in before if name != "zarr.json"} == {n: before[n] for n in before if n != "zarr.json"}
    own = zarr.open_group(path).attrs["mutoscope"]
    assert own["earlier_runs"] == [{"ledger": {"produced": 5}, "settings": {"gain": 1}}]
    assert (own["settings"], own["ledger"]) == ({"gain": 2}, None)
    assert zarr.open_group(path / "camera.1").attrs["mutoscope"]["previous"] == "."
    with storage.open_reader(path) as reader:
        assert reader.frame_ids.tolist() == [1, 2, 5, 6]
        assert reader.ledger is None
    recording = storage.create_recording(path, {"camera": SMALL, "second": WIDE}, resume=True)
    assert recording.cameras == {"camera": "camera.2", "second": "second"}
    assert (recording.last_frame_id("camera"), recording.last_frame_id("second")) == (6, 0)


def test_resume_makes_a_data_set_where_there_is_none(tmp_path: Path) -> None:
    assert storage.create_recording(tmp_path / "new.zarr", {"camera": SMALL}, resume=True).images == (".",)


# ---------------------------------------------------------------------- what exists


def test_an_existing_data_set_is_refused_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    recording = storage.create_recording(path, {"camera": SMALL})
    fill(recording, "camera", [1, 2])
    before = tree(path)
    with pytest.raises(DatasetExistsError, match="overwrite or resume"):
        storage.create_recording(path, {"camera": SMALL})
    with pytest.raises(ConfigError, match="either"):
        storage.create_recording(path, {"camera": SMALL}, overwrite=True, resume=True)
    assert tree(path) == before
    storage.create_recording(path, {"camera": WIDE}, overwrite=True)
    assert storage.info(path)["frames"] == 0
    assert os.listdir(tmp_path) == ["run.ome.zarr"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "run.zarr").mkdir()
    fill(storage.create_recording(tmp_path / "run.zarr", {"camera": SMALL}), "camera", [1])
    assert_exact(tmp_path / "run.zarr", [1])


@pytest.mark.parametrize("kind", ["file", "folder", "link", "stranger inside", "stranger among chunks", "link inside"])
def test_overwriting_never_deletes_what_is_not_a_data_set(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run.ome.zarr"
    if kind in ("stranger inside", "stranger among chunks", "link inside"):
        fill(storage.create_recording(path, {"camera": SMALL}), "camera", [1, 2])
    match kind:
        case "file":
            path.write_text("thesis")
        case "folder":
            path.mkdir()
            (path / "thesis.txt").write_text("thesis")
        case "link":
            storage.create_recording(tmp_path / "real.zarr", {"camera": SMALL})
            path.symlink_to(tmp_path / "real.zarr")
        case "stranger inside":
            (path / "frames" / "thesis.txt").write_text("thesis")
        case "stranger among chunks":
            (path / "0" / "c" / "0" / "notes.txt").write_text("thesis")
        case "link inside":
            (path / "more").symlink_to(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=r"not overwritten|nothing is overwritten"):
        storage.create_recording(path, {"camera": SMALL}, overwrite=True)
    assert tree(tmp_path) == before


def test_a_zarr_data_set_of_others_may_be_overwritten(tmp_path: Path) -> None:
    for version in (2, 3):
        group = zarr.open_group(tmp_path / "other.zarr", mode="w", zarr_format=version)
        group.create_array("a", shape=(8, 8), chunks=(4, 4), dtype="u1")[:] = 1
        storage.create_recording(tmp_path / "other.zarr", {"camera": SMALL}, overwrite=True)
        assert storage.info(tmp_path / "other.zarr")["frames"] == 0
        shutil.rmtree(tmp_path / "other.zarr")


@pytest.mark.parametrize(
    ("cameras", "said"),
    [
        ({}, "at least one"),
        ({"a/b": SMALL}, "cannot name a camera"),
        ({"..": SMALL}, "cannot name a camera"),
        ({"OME": SMALL}, "cannot name a camera"),
        ({"a.1": SMALL}, "cannot name a camera"),
        ({"a": CameraLayout((0, 5), "uint8")}, "positive"),
        ({"a": CameraLayout((5,), "uint8")}, "shape"),  # type: ignore[arg-type]
        ({"a": CameraLayout((5, 5), "complex64")}, "complex64 cannot be stored"),
        ({"a": CameraLayout((5, 5), "nonsense")}, "not a data type"),
        ({"a": CameraLayout((5, 5), "uint8", pixel_size_um=-1.0)}, "pixel_size_um"),
        ({"a": CameraLayout((5, 5), "uint8", rate_hz=float("nan"))}, "rate_hz"),
        ({"a": CameraLayout((5, 5), "uint8", frames_per_shard=0)}, "frames_per_shard"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path: Path, cameras: dict[str, CameraLayout], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        storage.create_recording(tmp_path / "run.zarr", cameras)
    assert os.listdir(tmp_path) == []


def test_other_backends_and_places_are_refused_clearly(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no writer for '\.h5'"):
        storage.open_writer(tmp_path / "run.h5", shape=(4, 4), dtype="uint8")
    with pytest.raises(ConfigError, match="no backend"):
        storage.open_writer(tmp_path / "run.zarr", shape=(4, 4), dtype="uint8", backend="hdf5")
    with pytest.raises(ConfigError, match="durability"):
        storage.open_writer(tmp_path / "run2.zarr", shape=(4, 4), dtype="uint8", durability="luck")  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        storage.open_writer(tmp_path / "file" / "run.zarr", shape=(4, 4), dtype="uint8")
    with pytest.raises(DatasetNotFoundError):
        storage.open_reader(tmp_path / "nothing.zarr")
    with pytest.raises(DatasetNotFoundError):
        storage.info(tmp_path / "nothing.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DatasetError):
        storage.open_reader(tmp_path / "folder")
    storage.create_recording(tmp_path / "run3.zarr", {"camera": SMALL})
    with pytest.raises(ConfigError, match="it has camera"):
        storage.open_image_writer(tmp_path / "run3.zarr", "cam")


# ---------------------------------------------------------------------- attributes and info


def test_attributes_are_merged_and_those_of_the_layout_protected(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    storage.create_recording(path, {"camera": SMALL}, attributes={"settings": {"gain": np.float32(2)}, "scope": "a"})
    storage.write_attributes(path, {"ledger": {"n": np.int64(3), "rate": float("nan"), "info": FrameInfo(frame_id=1)}})
    own = zarr.open_group(path).attrs["mutoscope"]
    assert (own["settings"], own["scope"], own["ledger"]["n"], own["ledger"]["rate"]) == ({"gain": 2.0}, "a", 3, None)
    assert own["ledger"]["info"]["frame_id"] == 1
    before = tree(path)
    with pytest.raises(ConfigError, match="belong to the layout"):
        storage.write_attributes(path, {"images": ["../.."]})
    with pytest.raises(ConfigError, match="JSON"):
        storage.write_attributes(path, {"ledger": {"x": object()}})
    assert tree(path) == before


def test_attributes_set_by_several_processes_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    storage.create_recording(path, {"camera": SMALL})
    code = "import sys; from mutoscope import storage\n"
    code += "for k in range(40): storage.write_attributes(sys.argv[1], {f'{sys.argv[2]}{k}': k})"
    children = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [child.wait(60) for child in children] == [0, 0]
    own = zarr.open_group(path).attrs["mutoscope"]
    assert all(own[f"{name}{k}"] == k for name in "ab" for k in range(40))


def test_info_tells_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    writer = storage.open_writer(path, shape=(24, 40), dtype="uint16", pixel_size_um=0.5, rate_hz=10)
    start = 1_700_000_000_000_000_000
    for k in range(11):
        step = k + (k > 4)
        writer.append(frame_of(k), frame_id=step + 1, monotonic_ns=10**9 + step * 10**8, utc_ns=start + step)
    assert storage.info(path)["complete"] is False
    writer.close({"produced": 12})
    found = storage.info(path)
    assert found == json.loads(json.dumps(found))
    assert (found["complete"], found["frames"], found["cameras"], found["ledger"]) == (True, 11, ["camera"], {"produced": 12})
    [image] = found["images"]
    assert (image["shape"], image["dtype"], image["gaps"], image["state"]) == ([11, 24, 40], "uint16", [[6, 1]], "closed")
    assert (image["first_frame_id"], image["last_frame_id"]) == (1, 12)
    assert (image["first_utc_ns"], image["last_utc_ns"]) == (start, start + 11)
    assert image["rate_hz"] == pytest.approx(10.0)
    assert (image["pixel_size_um"], image["nominal_rate_hz"]) == (0.5, 10)


def test_a_planned_frame_takes_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with storage.open_writer(path, shape=(512, 512), dtype="uint16", frames_per_shard=8) as writer:
        for frame_id in range(1, 17):
            writer.append(frame_of(frame_id, (512, 512)), index=PlaneIndex(t=frame_id))
    used = sum(p.stat().st_blocks * 512 for p in (path / "0").rglob("*") if p.is_file())
    assert used == pytest.approx(16 * storage.bytes_per_frame((512, 512), "uint16", frames_per_shard=8), rel=0.01)
    assert 0 < storage.free_bytes(tmp_path / "not" / "yet") <= shutil.disk_usage(tmp_path).free


@pytest.mark.parametrize("exchanges", [True, False])
def test_what_is_replaced_can_be_kept_and_put_back(tmp_path: Path, exchanges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchanges:  # some network file systems cannot
        monkeypatch.setattr(_replace, "_rename_exchanging", None)
    path = tmp_path / "run.ome.zarr"
    fill(storage.create_recording(path, {"camera": SMALL}), "camera", [1, 2, 3])
    recording = storage.create_recording(path, {"camera": WIDE}, overwrite=True, keep_replaced=True)
    assert recording.replaced == tmp_path / "run.replaced.ome.zarr"
    assert storage.info(recording.replaced)["frames"] == 3
    assert storage.info(path)["frames"] == 0
    recording.put_back()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.ome.zarr"]
    assert_exact(path, [1, 2, 3], tuple(READERS))
    recording = storage.create_recording(path, {"camera": WIDE}, overwrite=True, keep_replaced=True)
    again = storage.create_recording(path, {"camera": WIDE}, overwrite=True, keep_replaced=True)
    assert (again.replaced, again.left_over) == (tmp_path / "run.replaced-2.ome.zarr", [recording.replaced])
    fill(again, "camera", [1])
    with pytest.raises(ScopeStateError, match="holds frames already"):
        again.put_back()
    again.delete_replaced()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run.ome.zarr", "run.replaced.ome.zarr"]
    assert storage.info(recording.replaced or "")["frames"] == 3


def test_a_document_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    fill(storage.create_recording(path, {"camera": SMALL}), "camera", [1, 2, 3])
    storage.write_attributes(path, {"note": "small"})
    before = (path / "zarr.json").read_bytes()
    with pytest.raises(ConfigError, match=r"take 6\d,\d{3},\d{3} bytes as JSON; a document has 67,108,864 at most"):
        storage.write_attributes(path, {"note": "x" * (64 << 20)})
    assert (path / "zarr.json").read_bytes() == before
    assert storage.info(path)["frames"] == 3
    assert not list(path.rglob("*.part"))
