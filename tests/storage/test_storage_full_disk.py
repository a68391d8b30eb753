"""A full disk, on a small file system of its own: the append says so, what was acknowledged is stored."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from storage_oracles import assert_exact, frame_of
from storage_oracles_frames import FAST

from mutoscope import storage
from mutoscope.model.errors import DiskFullError
from mutoscope.storage import CameraLayout

Mount = Callable[[int], Path]


def fill_until_full(writer: storage.FrameStreamWriter, limit: int = 10_000) -> list[int]:
    ids: list[int] = []
    for _ in range(limit):
        frame_id = writer.last_frame_id + 1
        try:
            receipt = writer.append(frame_of(frame_id, writer.shape, writer.dtype), frame_id=frame_id)
        except DiskFullError:
            return ids
        assert receipt.frame_id == frame_id
        ids.append(frame_id)
    pytest.fail("the disk was not full")


def take_all(disk: Path) -> None:
    """Leave no byte of room."""
    with open(disk / "other", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("layout", [CameraLayout((100, 130), "uint16", frames_per_shard=16), FAST])
def test_the_append_that_failed_says_so_and_the_rest_is_stored(mount: Mount, layout: CameraLayout) -> None:
    path = mount(3000) / "run.ome.zarr"
    recording = storage.create_recording(path, {"camera": layout})
    writer = storage.open_image_writer(recording, "camera")
    ids = fill_until_full(writer)
    assert len(ids) > 20
    assert (writer.count, writer.last_frame_id, writer.statistics().failed) == (len(ids), ids[-1], 1)
    assert_exact(path, ids, ("zarr-python", "tensorstore"))
    for _ in range(3):
        with pytest.raises(DiskFullError, match="no space left"):
            writer.append(frame_of(ids[-1] + 1, writer.shape))
    writer.close({"stored": len(ids)})
    assert_exact(path, ids, ("zarr-python", "tensorstore", "zarrs"))
    assert zarr.open_group(path)["0"].shape[0] == len(ids)
    found = storage.info(path)
    assert (found["complete"], found["frames"], found["ledger"]) == (True, len(ids), {"stored": len(ids)})


@pytest.mark.parametrize("layout", [CameraLayout((100, 130), "uint16", frames_per_shard=16), FAST])
def test_the_writer_goes_on_once_there_is_room(mount: Mount, layout: CameraLayout) -> None:
    disk = mount(3500)
    (disk / "other").write_bytes(b"x" * 1_000_000)
    path = disk / "run.ome.zarr"
    with storage.open_image_writer(storage.create_recording(path, {"camera": layout}), "camera") as writer:
        ids = fill_until_full(writer)
        (disk / "other").unlink()
        ids += fill_until_full(writer)
        assert_exact(path, ids)
    assert_exact(path, ids)


@pytest.mark.parametrize("room", range(0, 1200, 100))
def test_making_and_opening_without_room_leaves_a_valid_state(mount: Mount, room: int) -> None:
    disk = mount(4000)
    fd = os.open(disk / "other", os.O_WRONLY | os.O_CREAT)
    os.posix_fallocate(fd, 0, (4000 - room) * 1024)
    os.close(fd)
    path = disk / "run.ome.zarr"
    ids: list[int] = []
    try:
        recording = storage.create_recording(path, {"camera": CameraLayout((100, 130), "uint16", frames_per_shard=16)})
    except DiskFullError:
        assert os.listdir(disk) == ["other"]
    else:
        try:
            writer = storage.open_image_writer(recording, "camera")
        except DiskFullError:
            assert storage.info(path)["frames"] == 0
        else:
            with writer:
                ids = fill_until_full(writer)
        assert_exact(path, ids)
    (disk / "other").unlink()
    with storage.open_writer(path, shape=(100, 130), dtype="uint16", resume=True) as writer:
        frame_id = writer.last_frame_id + 1
        writer.append(frame_of(frame_id, (100, 130)))
    with storage.open_reader(path) as reader:
        assert reader.frame_ids.tolist() == [*ids, frame_id]


def test_a_change_of_shape_and_attributes_without_room(mount: Mount) -> None:
    disk = mount(4500)
    path = disk / "run.ome.zarr"
    (disk / "more").write_bytes(bytes(1_500_000))
    recording = storage.create_recording(path, {"camera": CameraLayout((100, 130), "uint16", frames_per_shard=16)})
    writer = storage.open_image_writer(recording, "camera")
    ids = fill_until_full(writer)
    writer.close()
    storage.write_attributes(path, {"ledger": {"stored": len(ids)}})  # the room that the writer kept
    take_all(disk)
    with pytest.raises(DiskFullError):
        storage.open_image_writer(recording, "camera", shape=(5, 5))
    with pytest.raises(DiskFullError):
        storage.write_attributes(path, {"ledger": {"stored": 0}})
    assert_exact(path, ids)
    assert storage.info(path)["ledger"] == {"stored": len(ids)}
    assert not list(path.rglob("*.part"))
    (disk / "more").unlink()
    with storage.open_image_writer(recording, "camera", shape=(5, 5)) as writer:
        writer.append(np.zeros((5, 5), "uint16"))
    with storage.open_reader(path) as reader:
        assert reader.frame_ids.tolist() == [*ids, ids[-1] + 1]


def test_the_first_place_of_a_frame_without_room(mount: Mount) -> None:
    disk = mount(2000)
    path = disk / "run.ome.zarr"
    with storage.open_image_writer(storage.create_recording(path, {"camera": FAST}), "camera") as writer:
        ids = [writer.append(frame_of(1)).frame_id]
        (disk / "other").write_bytes(bytes(storage.free_bytes(disk) - 240 * 1024))
        for frame_id in range(2, 20):
            with pytest.raises(DiskFullError):
                writer.append(frame_of(frame_id), index={"t": 5})
            ids.append(writer.append(frame_of(frame_id)).frame_id)
        assert_exact(path, ids)
        (disk / "other").unlink()
        ids.append(writer.append(frame_of(20), index={"t": 6}).frame_id)
    assert_exact(path, ids)
    with storage.open_reader(path) as reader:
        planes = reader.planes()
        assert planes is not None
        assert planes["t"].tolist() == [-1] * 19 + [6]


def test_closing_without_any_room_is_finished_by_recover(mount: Mount) -> None:
    disk = mount(3000)
    path = disk / "run.ome.zarr"
    recording = storage.create_recording(path, {"camera": FAST})
    writer = storage.open_image_writer(recording, "camera")
    ids = [writer.append(frame_of(k)).frame_id for k in range(1, 23)]
    (path / "0" / ".reserve.part").unlink()  # somebody else took the room that was kept
    take_all(disk)
    with pytest.raises(DiskFullError):
        writer.close()
    writer.close()
    assert_exact(path, ids)
    (disk / "other").unlink()
    assert storage.recover(path).changed
    assert_exact(path, ids)
    assert zarr.open_group(path)["0"].shape[0] == 22
