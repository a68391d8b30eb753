"""Labels and tables beside images of OME-Zarr, judged by zarr-python, ome-zarr-models, yaozarrs, the schemas and pandas."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pandas
import pytest
import yaozarrs
import zarr
from beside_child import SHAPE, labels_of, table_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mutoscope import storage
from mutoscope.model.errors import ConfigError, DatasetError, DatasetExistsError, DatasetNotFoundError


def recording(path: Path, frames: int = 3, version: str = "0.5", **options: Any) -> Path:
    options = {"pixel_size_um": 0.5, **options}
    with storage.open_writer(path, shape=SHAPE, dtype="uint16", ome_zarr_version=version, **options) as writer:
        for number in range(frames):
            writer.append(np.full(SHAPE, number, "uint16"))
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return recording(tmp_path / "run.ome.zarr")


@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize("pyramid", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64"])
def test_labels_as_others_read_them(tmp_path: Path, version: str, pyramid: bool, dtype: str) -> None:
    path = recording(tmp_path / "run.ome.zarr", version=version, pyramid=pyramid)
    flat, stack = labels_of(1).astype(dtype), np.stack([labels_of(k) for k in range(3)]).astype(dtype)
    stack[1] = 0  # a plane of background is not stored
    storage.save_labels(path, "cells", flat, colors={2: "#00ff00", 1: (255, 0, 0, 128)}, properties={1: {"kind": "dead"}})
    storage.save_labels(path, "tracks", stack)
    assert storage.list_labels(path) == ["cells", "tracks"]
    for name, expected in (("cells", flat), ("tracks", stack)):
        found = storage.load_labels(path, name)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(zarr.open_group(path, mode="r")[f"labels/{name}/0"][:], expected)
    info = storage.labels_info(path, "cells")
    assert (info.axes, info.shape, info.dtype) == ("yx", SHAPE, dtype)
    assert info.colors == {1: (255, 0, 0, 128), 2: (0, 255, 0, 255)}
    assert info.properties == {1: {"kind": "dead"}}
    models = ome_zarr_models.v05 if version == "0.5" else ome_zarr_models.v04
    models.Labels.from_zarr(zarr.open_group(path / "labels", mode="r"))
    for name in ("cells", "tracks"):
        models.ImageLabel.from_zarr(zarr.open_group(path / "labels" / name, mode="r"))
        if version == "0.5":
            yaozarrs.validate_zarr_store(str(path / "labels" / name))
    image, label = zarr.open_group(path, mode="r"), zarr.open_group(path / "labels" / "tracks", mode="r")
    assert info.levels == (3 if pyramid else 1)
    for level in range(info.levels):  # the specification wants as many sizes as the image has, and viewers the same ones
        assert label[str(level)].shape == image[str(level)].shape
    if pyramid:
        assert set(np.unique(label["2"][:])) <= set(np.unique(stack))


def test_labels_of_a_field_of_a_plate(tmp_path: Path) -> None:
    with storage.open("ome-zarr", tmp_path / "plate.ome.zarr", filenames="imagexpress") as plate:
        for name in ("exp_B03_s1_w1.tif", "exp_B03_s1_w2.tif", "exp_C04_s1_w1.tif"):
            plate.save(labels_of(1), name)
    path = tmp_path / "plate.ome.zarr"
    with pytest.raises(ConfigError, match="is a plate, say which field"):
        storage.save_labels(path, "cells", labels_of(2))
    with pytest.raises(ConfigError, match="has no image 'B/09/0'"):
        storage.save_labels(path, "cells", labels_of(2), image="B/09/0")
    storage.save_labels(path, "cells", labels_of(2), image="B/03/0")
    storage.save_labels(path, "volumes", labels_of(3)[None, None], image="B/03/0")
    np.testing.assert_array_equal(storage.load_labels(path, "cells", image="B/03/0"), labels_of(2))
    assert storage.labels_info(path, "volumes", image="B/03/0").axes == "tzyx"
    assert storage.list_labels(path, image="C/04/0") == []
    for image, rows in (("B/03/0", 1), ("B/03", 2), (None, 3)):  # a field, a well, the plate
        storage.save_table(path, "counts", table_of(rows), image=image)
        np.testing.assert_array_equal(storage.load_table(path, "counts", image=image), table_of(rows))
    ome_zarr_models.v05.HCS.from_zarr(zarr.open_group(path, mode="r"))
    ome_zarr_models.v05.Labels.from_zarr(zarr.open_group(path / "B/03/0/labels", mode="r"))
    yaozarrs.validate_zarr_store(str(path))
    with storage.open("ome-zarr", path, filenames="imagexpress") as plate:  # and the plate goes on
        plate.save(labels_of(1), "exp_B03_s2_w1.tif")
        assert len(plate.list_files()) == 4
    assert storage.info(path)


def test_tables_as_others_read_them(dataset: Path) -> None:
    table = table_of(7)
    storage.save_labels(dataset, "cells", labels_of(1))
    storage.save_table(dataset, "features", table, labels="cells")
    storage.save_table(dataset, "plain", pandas.DataFrame({"t": [1, 2], "note": ["007", "b"], "ok": [True, False]}))
    assert storage.list_tables(dataset) == ["features", "plain"]
    found = storage.load_table(dataset, "features")
    assert found.dtype == table.dtype
    np.testing.assert_array_equal(found, table)
    assert storage.load_table(dataset, "plain")["note"].tolist() == ["007", "b"]
    group = zarr.open_group(dataset / "tables", mode="r")
    assert group.attrs["tables"] == ["features", "plain"]
    attributes = dict(group["features"].attrs)
    assert {key: attributes[key] for key in ("type", "table_version", "backend", "region", "index_key")} == {
        "type": "feature_table",
        "table_version": "1",
        "backend": "csv",
        "region": {"path": "../labels/cells"},
        "index_key": "label",
    }
    frame = pandas.read_csv(dataset / "tables" / "features" / "table.csv", dtype={"name": str})
    np.testing.assert_array_equal(frame["label"], table["label"])
    np.testing.assert_array_equal(frame["x_px"].astype("f4"), table["x_px"])
    assert storage.info(dataset)["complete"]


def test_recordings_of_several_cameras(tmp_path: Path) -> None:
    layout = storage.CameraLayout(SHAPE, "uint16")
    path = storage.create_recording(tmp_path / "two.ome.zarr", {"left": layout, "right": layout}).path
    with storage.open_image_writer(path, "left") as writer:
        writer.append(labels_of(0))
        with pytest.raises(ConfigError, match=r"has several images, say which: left, right .image='left'"):
            storage.save_labels(path, "cells", labels_of(1))
        storage.save_labels(path, "cells", labels_of(1), image="left")  # while it is written
        writer.append(labels_of(0))
    assert storage.list_labels(path, image="left") == ["cells"]
    storage.save_table(path, "stage", table_of(1))
    assert storage.list_tables(path) == ["stage"]
    assert [image["image"] for image in storage.info(path)["images"]] == ["left", "right"]
    with pytest.raises(ConfigError, match="cannot name a camera"):
        storage.create_recording(tmp_path / "three.ome.zarr", {"tables": layout})


def test_what_cannot_be_is_said(dataset: Path, tmp_path: Path) -> None:
    good = labels_of(1)
    for array, options, words in (
        (good.astype("f4"), {}, "labels are integers, not float32"),
        (good > 3, {}, r"\.astype\('uint8'\) makes labels of a mask"),
        (good[:-1], {}, "labels of 299 x 520 do not fit an image of 300 x 520"),
        (np.zeros((2, 300, 520), "u1"), {"axes": "zyx"}, "do not lie on an image of the axes tyx"),
        (np.zeros((200, 300, 520), "u1"), {}, "labels have 200 along t, and the image 3"),
        (good, {"colors": {1: "red"}}, "a colour is"),
        (good, {"colors": {"one": "#ff0000"}}, "a label is an integer"),
    ):
        with pytest.raises(ConfigError, match=words):
            storage.save_labels(dataset, "cells", array, **options)
    for name in ("", ".hidden", "a/b", "..", "ä", "x" * 200):
        with pytest.raises(ConfigError, match="cannot name"):
            storage.save_labels(dataset, name, good)
        with pytest.raises(ConfigError, match="cannot name"):
            storage.save_table(dataset, name, table_of(1))
    for table, options, words in (
        (np.zeros(3), {}, "give its columns names"),
        ([1, 2], {}, "a structured array"),
        (np.zeros(3, [("a", "i4")]), {"labels": "cells"}, "column 'label'"),
        (np.zeros(3, [("a", "c8")]), {}, "no form in CSV"),
    ):
        with pytest.raises(ConfigError, match=words):
            storage.save_table(dataset, "t", table, **options)
    assert not (dataset / "labels").exists()
    assert not (dataset / "tables").exists()
    storage.save_labels(dataset, "cells", good)
    with pytest.raises(DatasetExistsError, match="has labels 'cells' already"):
        storage.save_labels(dataset, "cells", good)
    with pytest.raises(DatasetNotFoundError, match="near it: 'cells'"):
        storage.load_labels(dataset, "cels")
    with pytest.raises(DatasetNotFoundError):
        storage.save_labels(tmp_path / "nothing.ome.zarr", "cells", good)
    with storage.open_writer(tmp_path / "run.ome.tiff", shape=SHAPE, dtype="uint16") as writer:
        writer.append(good)
    with pytest.raises(ConfigError, match="is no OME-Zarr"):
        storage.save_labels(tmp_path / "run.ome.tiff", "cells", good)


def test_the_callers_array_is_not_kept_and_replacing_is_whole(dataset: Path) -> None:
    array = labels_of(1)
    storage.save_labels(dataset, "cells", array)
    array[:] = 0
    np.testing.assert_array_equal(storage.load_labels(dataset, "cells"), labels_of(1))
    storage.save_labels(dataset, "cells", np.stack([labels_of(2)] * 3), overwrite=True)
    assert storage.load_labels(dataset, "cells").shape == (3, *SHAPE)
    assert storage.list_labels(dataset) == ["cells"]
    storage.save_table(dataset, "t", table_of(1))
    storage.save_table(dataset, "t", table_of(2), overwrite=True)
    np.testing.assert_array_equal(storage.load_table(dataset, "t"), table_of(2))
    assert not [entry for entry in dataset.rglob("*.part") if "beside" in entry.name]


def test_a_recording_with_labels_and_tables_can_be_replaced_resumed_and_recovered(dataset: Path) -> None:
    storage.save_labels(dataset, "cells", labels_of(1))
    storage.save_table(dataset, "t", table_of(1))
    storage.recover(dataset)
    storage.build_pyramid(dataset)
    with storage.open_writer(dataset, shape=SHAPE, dtype="uint16", resume=True) as writer:
        writer.append(labels_of(1))
    assert storage.list_labels(dataset) == ["cells"]
    recording(dataset, overwrite=True)
    assert storage.list_labels(dataset) == storage.list_tables(dataset) == []


@pytest.mark.external_data
def test_labels_of_another_program(tmp_path: Path, external_data: Path) -> None:
    path = external_data / "ome_zarr" / "written_by_ome-zarr-py_cli" / "coins_0.5.ome.zarr"
    found = storage.load_labels(path, "coins")
    np.testing.assert_array_equal(found, zarr.open_group(path, mode="r")["labels/coins/s0"][:])
    assert storage.labels_info(path, "coins").levels == 4


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 200), at=st.integers(0, 10**6), kind=st.sampled_from(["cut", "flip"]), what=st.integers(0, 99))
def test_damaged_files_are_told_or_give_some_labels(
    tmp_path_factory: pytest.TempPathFactory, cut: int, at: int, kind: str, what: int
) -> None:
    path = recording(tmp_path_factory.mktemp("damage") / "run.ome.zarr", frames=1)
    storage.save_labels(path, "cells", labels_of(1), colors={1: "#ff0000"})
    storage.save_table(path, "t", table_of(1))
    files = sorted(file for folder in ("labels", "tables") for file in (path / folder).rglob("*") if file.is_file())
    victim = files[what % len(files)]
    data = bytearray(victim.read_bytes())
    if kind == "cut":
        data = data[: len(data) * cut // 200]
    else:
        data[at % len(data)] ^= 1 << at % 8
    victim.write_bytes(data)
    for read in (storage.load_labels, storage.labels_info, storage.load_table):
        name = "t" if read is storage.load_table else "cells"
        try:
            read(path, name)
        except (DatasetError, DatasetNotFoundError, ConfigError):
            pass


@pytest.mark.opt_in
@pytest.mark.leaks_elsewhere("dask, under both readers, keeps its thread pool for the life of the process")
@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_the_readers_of_the_field(tmp_path: Path, version: str) -> None:
    """ngio, for which the form of tables is made, and ome-zarr-py, on which napari's reader stands."""
    ngio = pytest.importorskip("ngio", reason="ngio is not installed")
    reader = pytest.importorskip("ome_zarr.reader", reason="ome-zarr is not installed")
    path = recording(tmp_path / "run.ome.zarr", version=version, pyramid=True)
    stack = np.stack([labels_of(k) for k in range(3)])
    storage.save_labels(path, "cells", stack, colors={1: "#ff0000"})
    storage.save_table(path, "features", table_of(3), labels="cells")
    container = ngio.open_ome_zarr_container(str(path), mode="r")
    assert (container.list_labels(), container.list_tables()) == (["cells"], ["features"])
    np.testing.assert_array_equal(container.get_label("cells").get_as_numpy(), stack)
    table = container.get_table("features")
    assert type(table).__name__ == "FeatureTableV1"
    np.testing.assert_array_equal(table.dataframe["x_px"].to_numpy("f4"), table_of(3)["x_px"])
    nodes = list(reader.Reader(ome_zarr_io().parse_url(str(path)))())
    [label] = [node for node in nodes if node.metadata.get("name") == "cells"]
    assert label.metadata["color"] == {1: [1.0, 0.0, 0.0, 1.0]}
    assert [level.shape for level in label.data] == [level.shape for level in nodes[0].data]
    np.testing.assert_array_equal(np.asarray(label.data[0]), stack)


def ome_zarr_io() -> Any:
    return pytest.importorskip("ome_zarr.io")


def child(*arguments: object, kill_point: str = "") -> subprocess.Popen[bytes]:
    environment = os.environ | ({"MUTOSCOPE_KILL_POINT": f"storage.{kill_point}"} if kill_point else {})
    command = [sys.executable, str(Path(__file__).with_name("beside_child.py")), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def check(dataset: Path, kind: str, names: list[str]) -> None:
    """What is listed is whole; what zarr-python lists is what we list."""
    listed = storage.list_labels(dataset) if kind == "labels" else storage.list_tables(dataset)
    assert set(names) <= set(listed)
    for name in listed:
        if kind == "labels":
            found = storage.load_labels(dataset, name)
            assert any(np.array_equal(found, labels_of(number)) for number in _numbers(name))
            np.testing.assert_array_equal(zarr.open_group(dataset, mode="r")[f"labels/{name}/0"][:], found)
        else:
            assert any(np.array_equal(storage.load_table(dataset, name), table_of(number)) for number in _numbers(name))
    if kind == "labels" and listed:
        ome_zarr_models.v05.Labels.from_zarr(zarr.open_group(dataset / "labels", mode="r"))


def _numbers(name: str) -> list[int]:
    digits = "".join(letter for letter in name if letter.isdigit())
    return [int(digits)] if digits else list(range(1, 1000))


@pytest.mark.parametrize("kind", ["labels", "tables"])
@pytest.mark.parametrize("point", ["beside.built", "beside.placed", "document.written", "beside.listed"])
def test_killed_at_named_points(dataset: Path, kind: str, point: str) -> None:
    with child(dataset, kind, "kept1", "once") as process:
        process.communicate(timeout=60)
    with child(dataset, kind, "new1", "once", kill_point=point) as process:
        process.communicate(timeout=60)
        assert process.returncode == -9
    listed = storage.list_labels(dataset) if kind == "labels" else storage.list_tables(dataset)
    assert listed == (["kept1", "new1"] if point == "beside.listed" else ["kept1"])
    check(dataset, kind, ["kept1"])
    with child(dataset, kind, "new1", "once", "overwrite" if point == "beside.listed" else "") as process:
        said, _ = process.communicate(timeout=60)
    assert said.split() == [b"ready", b"1"]
    check(dataset, kind, ["kept1", "new1"])
    assert not list(dataset.rglob("*-beside-*"))


@pytest.mark.parametrize("kind", ["labels", "tables"])
@pytest.mark.parametrize("point", ["document.written", "beside.unlisted", "beside.deleted"])
def test_killed_while_it_deletes(dataset: Path, kind: str, point: str) -> None:
    for name in ("kept1", "old1"):
        with child(dataset, kind, name, "once") as process:
            process.communicate(timeout=60)
    with child(dataset, kind, "old1", "delete", kill_point=point) as process:
        process.communicate(timeout=60)
        assert process.returncode == -9
    listed = storage.list_labels(dataset) if kind == "labels" else storage.list_tables(dataset)
    assert listed == (["kept1", "old1"] if point == "document.written" else ["kept1"])
    check(dataset, kind, ["kept1"])
    with child(dataset, kind, "old1", "once", "overwrite") as process:
        process.communicate(timeout=60)
    check(dataset, kind, ["kept1", "old1"])
    with child(dataset, kind, "old1", "delete") as process:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert not (dataset / kind / "old1").exists()
    check(dataset, kind, ["kept1"])
    assert not list(dataset.rglob("*-beside-*"))


def test_labels_that_a_table_belongs_to_are_deleted_after_it(dataset: Path) -> None:
    storage.save_labels(dataset, "cells", labels_of(1))
    storage.save_table(dataset, "features", table_of(1), labels="cells")
    with pytest.raises(ConfigError, match="belong to the table 'features': delete that first"):
        storage.delete_labels(dataset, "cells")
    for delete, name in ((storage.delete_table, "featurs"), (storage.delete_labels, "cell")):
        with pytest.raises(DatasetNotFoundError, match=r"features|cells"):
            delete(dataset, name)
    storage.delete_table(dataset, "features")
    storage.delete_labels(dataset, "cells")
    assert storage.list_tables(dataset) == storage.list_labels(dataset) == []


@pytest.mark.parametrize("kind", ["labels", "tables"])
def test_killed_at_random_while_replacing(dataset: Path, kind: str) -> None:
    storage_of = {"labels": storage.load_labels, "tables": storage.load_table}[kind]
    chance = random.Random(7)
    for _ in range(4):
        with child(dataset, kind, "same", "overwrite") as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.readline()  # the first is saved
            time.sleep(chance.random() / 10)
            process.kill()
            process.communicate(timeout=60)
        assert storage_of(dataset, "same").size
        check(dataset, kind, ["same"])


@pytest.mark.parametrize("kind", ["labels", "tables"])
def test_of_two_writers_of_one_name_one_is_refused_and_two_names_are_both_saved(dataset: Path, kind: str) -> None:
    processes = [child(dataset, kind, name, "race") for name in ("a1", "a1", "b1", "c1")]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert sorted(said) == [b"1\n", b"1\n", b"1\n", b"refused\n"]
    assert said[2] == said[3] == b"1\n"
    check(dataset, kind, ["a1", "b1", "c1"])
