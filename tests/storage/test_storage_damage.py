"""Damage: missing, cut, flipped, hostile files give one clear sentence, never a hang, a crash or a look outside the root."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from storage_oracles import assert_exact, frame_of
from storage_oracles_frames import FAST

from mutoscope import storage
from mutoscope.model.errors import ConfigError, DatasetError, DatasetNotFoundError
from mutoscope.storage import CameraLayout

IDS = list(range(1, 11))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "run.ome.zarr"
    with storage.open_image_writer(storage.create_recording(path, {"camera": FAST}), "camera") as writer:
        for frame_id in IDS:
            writer.append(frame_of(frame_id))
    with storage.open_image_writer(path, "camera", shape=(5, 6)) as writer:
        writer.append(frame_of(11, (5, 6)))
    return path


def read_all(path: Path) -> None:
    """Look at everything that a reader offers."""
    storage.info(path)
    with storage.open_reader(path, "camera") as reader:
        for frame in reader:
            assert frame.nbytes < 1 << 20
        assert reader.frame_ids.size == len(reader) <= 100
        _ = (
            reader.monotonic_ns,
            reader.utc_ns,
            reader.ticks,
            reader.exposure_ms,
            reader.planes(),
            reader.ledger,
            reader.gaps(),
        )


def test_the_good_one_can_be_read(good: Path) -> None:
    read_all(good)


DOCUMENTS = ["zarr.json", "0/zarr.json", "frames/frame_id/zarr.json", "frames/tick/zarr.json", "camera.1/zarr.json"]


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "not json", "list", "folder", "fifo", "deep"])
def test_a_damaged_document_is_named(good: Path, name: str, damage: str) -> None:
    target = good / name
    text = target.read_bytes()
    target.unlink()
    match damage:
        case "empty":
            target.write_bytes(b"")
        case "cut":
            target.write_bytes(text[: len(text) // 2])
        case "not json":
            target.write_bytes(b"\xff\xfe\x00")
        case "list":
            target.write_bytes(b"[1, 2]")
        case "folder":
            target.mkdir()
        case "fifo":
            os.mkfifo(target)
        case "deep":
            target.write_bytes(b"[" * 200_000)
    with pytest.raises((DatasetError, DatasetNotFoundError)) as caught:
        read_all(good)
    assert str(good) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def change(good: Path, name: str, edit: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((good / name).read_text())
    edit(document)
    (good / name).write_text(json.dumps(document))


EDITS: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    ("0/zarr.json", lambda d: d.update(shape=[10, 24])),
    ("0/zarr.json", lambda d: d.update(shape=[-1, 24, 40])),
    ("0/zarr.json", lambda d: d.update(shape=[10, 2**70, 2**70])),
    ("0/zarr.json", lambda d: d.update(shape=[10.5, 24, 40])),
    ("0/zarr.json", lambda d: d.update(data_type="object")),
    ("0/zarr.json", lambda d: d.update(codecs=[])),
    ("0/zarr.json", lambda d: d["codecs"][0]["configuration"].update(chunk_shape=[1, 0, 40])),
    ("0/zarr.json", lambda d: d["codecs"][0]["configuration"].update(chunk_shape=[1, "x", 40])),
    ("0/zarr.json", lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[2**62, 24, 40])),
    (
        "0/zarr.json",
        lambda d: d["codecs"][0]["configuration"]["codecs"].append({"name": "gzip", "configuration": {"level": 1}}),
    ),
    ("frames/frame_id/zarr.json", lambda d: d.update(shape=[-3])),
    ("frames/frame_id/zarr.json", lambda d: d.update(shape=["3"])),
    ("frames/tick/zarr.json", lambda d: d.update(data_type="float64")),
    ("zarr.json", lambda d: d.update(attributes=5)),
    ("zarr.json", lambda d: d["attributes"].pop("mutoscope")),
    ("zarr.json", lambda d: d["attributes"]["mutoscope"].update(layout="2.0")),
    ("zarr.json", lambda d: d["attributes"]["mutoscope"].update(layout=None)),
    ("zarr.json", lambda d: d["attributes"]["mutoscope"].update(images=[])),
    ("zarr.json", lambda d: d["attributes"]["mutoscope"].update(images=["../outside"])),
    ("zarr.json", lambda d: d["attributes"]["mutoscope"].update(images=["/etc"])),
    ("zarr.json", lambda d: d["attributes"]["mutoscope"].update(images=[3])),
    ("zarr.json", lambda d: d["attributes"]["mutoscope"].update(images=["camera.7"])),
]


@pytest.mark.parametrize("number", range(len(EDITS)))
def test_metadata_that_cannot_be_are_refused(good: Path, number: int) -> None:
    name, edit = EDITS[number]
    shutil.copytree(good, good.parent / "outside")
    change(good, name, edit)
    with pytest.raises((DatasetError, ConfigError)) as caught:
        read_all(good)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("declared", [2**52, 5, 0])
def test_a_wrong_declared_length_costs_nothing(good: Path, declared: int) -> None:
    change(good, "0/zarr.json", lambda d: d["shape"].__setitem__(0, declared))
    change(good, "frames/frame_id/zarr.json", lambda d: d["shape"].__setitem__(0, declared))
    with storage.open_reader(good, "camera.0") as reader:
        assert reader.frame_ids.tolist() == IDS[:declared]
    assert storage.recover(good).changed
    with storage.open_reader(good, "camera.0") as reader:
        assert reader.frame_ids.tolist() == IDS


@pytest.mark.parametrize("name", ["0/c/1/0/0", "frames/frame_id/c/0", "frames/utc_ns/c/0"])
@pytest.mark.parametrize("damage", ["missing", "cut", "folder", "fifo", "link out", "link to a link"])
def test_damaged_pixels_and_rows_are_named(good: Path, name: str, damage: str) -> None:
    target = good / name
    secret = good.parent / "secret"
    shutil.copy(target, secret)
    target.unlink()
    match damage:
        case "cut":
            target.write_bytes(secret.read_bytes()[:5])
        case "folder":
            target.mkdir()
        case "fifo":
            os.mkfifo(target)
        case "link out":
            target.symlink_to(secret)
        case "link to a link":
            (good / "hop").symlink_to(good.parent)
            target.symlink_to(good / "hop" / "secret")
    if damage == "missing" and name.startswith("frames"):
        with storage.open_reader(good, "camera.0") as reader:  # a missing chunk is the fill value to every reader
            assert len(reader) == (0 if "frame_id" in name else 10)
        return
    with pytest.raises(DatasetError) as caught:
        read_all(good)
    assert name in str(caught.value)


def test_ids_that_do_not_increase_are_damage(good: Path) -> None:
    with open(good / "frames/frame_id/c/0", "r+b") as file:
        file.write((2**40).to_bytes(8, "little"))
    with pytest.raises(DatasetError, match="do not increase"):
        read_all(good)
    with open(good / "frames/frame_id/c/0", "r+b") as file:
        file.write((1).to_bytes(8, "little"))
    with open(good / "camera.1/frames/frame_id/c/0", "r+b") as file:
        file.write((4).to_bytes(8, "little"))
    with pytest.raises(DatasetError, match="twice"):
        storage.open_reader(good)


def test_a_hole_that_a_power_cut_left_is_passed_over(good: Path) -> None:
    with open(good / "frames/frame_id/c/0", "r+b") as file:
        file.seek(8 * 3)
        file.write(bytes(16))
    with storage.open_reader(good, "camera.0") as reader:
        assert reader.frame_ids.tolist() == [1, 2, 3, 6, 7, 8, 9, 10]
        assert reader.gaps() == [(4, 2)]
        assert reader.position_of(3) == (".", 5)
        assert np.array_equal(reader.frame(6), frame_of(6))
    assert storage.recover(good).images[0].frames == 10


def test_flipped_bits_never_hang_or_crash(good: Path) -> None:
    rng = random.Random(1)
    files = [p for p in good.rglob("*") if p.is_file() and (p.name == "zarr.json" or "frame_id" in str(p))]
    refused = 0
    for _ in range(400):
        target = rng.choice(files)
        before = target.read_bytes()
        flipped = bytearray(before)
        for _ in range(rng.choice((1, 1, 4))):
            place = rng.randrange(min(len(before), 2000))
            flipped[place] ^= 1 << rng.randrange(8)
        target.write_bytes(flipped)
        try:
            read_all(good)
        except (DatasetError, ConfigError):
            refused += 1
        target.write_bytes(before)
    assert refused > 50
    read_all(good)


def test_recover_restores_array_documents(good: Path) -> None:
    (good / "0/zarr.json").write_bytes(b"")
    (good / "frames/frame_id/zarr.json").write_bytes(b"\x00" * 100)
    with pytest.raises(DatasetError):
        read_all(good)
    report = storage.recover(good)
    assert "restored 0/zarr.json" in report.images[0].actions
    assert "restored frames/frame_id/zarr.json" in report.summary()
    assert_exact(good, IDS, ("zarr-python", "tensorstore"))
    assert not storage.recover(good).changed


def test_recover_names_frames_that_a_power_cut_left_without_pixels(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    shape = (64, 96)  # 12 KiB, three blocks
    layout = CameraLayout(shape, "uint16", frames_per_shard=4)
    with storage.open_image_writer(storage.create_recording(path, {"camera": layout}), "camera") as writer:
        for frame_id in range(1, 11):
            writer.append(frame_of(frame_id, shape) if frame_id != 2 else np.zeros(shape, "uint16"))
    assert storage.recover(path).images[0].doubtful == ()
    pixels = (path / "0/c/1/0/0").read_bytes()
    with open(path / "0/c/1/0/0", "wb") as file:  # frames 5 to 8: one block of 6 and all of 7 never came
        file.write(pixels[: 4096 * 4])
        file.seek(4096 * 9)
        file.write(pixels[4096 * 9 :])
    with open(path / "0/c/2/0/0", "r+b") as file:
        file.truncate(4096 * 3)
    report = storage.recover(path)
    assert report.images[0].doubtful == ((6, 2), (10, 1))
    assert "2 frames from id 6 are not whole" in report.summary()
    assert report.images[0].actions[0] == "restored the index of 0/c/2/0/0"
    stored = zarr.open_group(path)["0"]
    assert stored.shape[0] == 10
    assert all(np.array_equal(stored[k - 1], frame_of(k, shape)) for k in (1, 3, 4, 5, 8, 9))
    again = storage.recover(path)
    assert (again.changed, again.images[0].doubtful) == (False, report.images[0].doubtful)


def test_recover_names_frames_whose_file_is_gone(good: Path) -> None:
    (good / "0/c/0/0/0").unlink()
    (good / "0/c/2/0/0").unlink()
    report = storage.recover(good)
    assert (report.changed, report.images[0].doubtful) == (False, ((1, 4), (9, 2)))
    assert report.images[1].doubtful == ()


def test_recover_restores_a_torn_index(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with storage.open_image_writer(storage.create_recording(path, {"camera": FAST}), "camera") as writer:
        for frame_id in IDS:
            writer.append(frame_of(frame_id))
    size = (path / "0/c/1/0/0").stat().st_size
    os.truncate(path / "0/c/1/0/0", size - 10)
    with open(path / "0/c/0/0/0", "r+b") as file:
        file.seek(size - 30)
        file.write(bytes(20))
    with pytest.raises(Exception):  # noqa: B017  zarr-python's own
        assert_exact(path, IDS)
    assert len(storage.recover(path).images[0].actions) == 2
    assert_exact(path, IDS, ("zarr-python", "tensorstore", "zarrs"))
    assert not storage.recover(path).changed


@pytest.mark.parametrize("what", ["nothing", "file", "foreign", "fuzz"])
def test_recover_refuses_what_it_does_not_know(good: Path, what: str) -> None:
    path = good.parent / "other"
    match what:
        case "file":
            path.write_text("x")
        case "foreign":
            path.mkdir()
            (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
        case "fuzz":
            shutil.copytree(good, path)
            change(path, "zarr.json", lambda d: d["attributes"]["mutoscope"].update(level={"shape": "x"}))
            (path / "0/zarr.json").write_text("")
    with pytest.raises((DatasetError, DatasetNotFoundError)):
        storage.recover(path)


@pytest.mark.parametrize("length", [0, 7, 13, 40, 8 * 16384 - 1])
@pytest.mark.parametrize("closed", [True, False])
def test_ids_that_were_cut_within_a_value_are_recovered_up_to_there(length: int, closed: bool, tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.ome.zarr", tmp_path / "cut.ome.zarr"
    writer = storage.open_writer(whole, shape=(24, 40), dtype="uint16", frames_per_shard=4)
    for frame_id in IDS:
        writer.append(frame_of(frame_id))
    if closed:
        writer.close()
    shutil.copytree(whole, path)
    writer.close()
    os.truncate(path / "frames/frame_id/c/0", length)
    left = min(length // 8, 10)
    if closed and left < len(IDS):  # the pixels of a closed image are not trimmed for want of ids
        for refuse in (storage.recover, lambda p: storage.open_writer(p, shape=(24, 40), dtype="uint16", resume=True)):
            with pytest.raises(DatasetError, match=rf"closed with 10 frames, and frames/frame_id tells of {left}"):
                refuse(path)
        (path / "frames/frame_id/c/0").write_bytes((whole / "frames/frame_id/c/0").read_bytes())
        assert_exact(path, IDS)
        return
    assert storage.recover(path).images[0].frames == left
    assert not storage.recover(path).changed
    assert_exact(path, IDS[:left])
    with storage.open_writer(path, shape=(24, 40), dtype="uint16", resume=True) as writer:
        assert writer.append(frame_of(left + 1)).frame_id == left + 1


@pytest.mark.parametrize("name", ["frames", "frames/frame_id", "frames/tick"])
def test_a_recording_that_lacks_a_folder_is_refused_in_a_sentence(good: Path, name: str) -> None:
    shutil.rmtree(good / name)
    with pytest.raises(DatasetError, match=r"has no frames/\w+ any more: it cannot be recovered"):
        storage.recover(good)
    with pytest.raises(DatasetError, match=r"has no frames/\w+ any more"):
        storage.open_writer(good, shape=(24, 40), dtype="uint16", resume=True)
