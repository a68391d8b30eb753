"""A full disk under an OME-TIFF stream: the append says so, what was acknowledged is stored, and it goes on with room."""

from __future__ import annotations

from pathlib import Path

import pytest
from ome_tiff_oracles import check_frames
from storage_oracles_frames import frame_of
from test_storage_full_disk import Mount, fill_until_full, take_all

from mutoscope import storage
from mutoscope.model.errors import DiskFullError

SHAPE = (100, 130)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_the_append_that_failed_says_so_and_the_next_goes_on_with_room(mount: Mount, compression: str) -> None:
    disk = mount(2500)
    (disk / "other").write_bytes(bytes(1_000_000))
    path = disk / "run.ome.tiff"
    with storage.open_writer(path, shape=SHAPE, dtype="uint16", compression=compression) as writer:
        ids = fill_until_full(writer)
        assert len(ids) > 20
        assert (writer.count, writer.last_frame_id, writer.statistics().failed) == (len(ids), ids[-1], 1)
        assert check_frames(path) == ids
        for _ in range(3):
            with pytest.raises(DiskFullError, match="no space left"):
                writer.append(frame_of(ids[-1] + 1, SHAPE))
        assert check_frames(path) == ids
        (disk / "other").unlink()
        ids += fill_until_full(writer)
        take_all(disk)
        writer.close({"stored": len(ids)})
    assert check_frames(path) == ids
    found = storage.info(path)
    assert (found["complete"], found["frames"], found["ledger"]) == (True, len(ids), {"stored": len(ids)})


def test_without_room_for_the_first_frame(mount: Mount) -> None:
    disk = mount(1000)
    path = disk / "run.ome.tiff"
    with storage.open_writer(path, shape=SHAPE, dtype="uint16") as writer:
        take_all(disk)
        for _ in range(2):
            with pytest.raises(DiskFullError):
                writer.append(frame_of(1, SHAPE))
        assert sorted(entry.name for entry in disk.iterdir()) == [".run.ome.tiff.lock", "other", "run.ome.tiff.json"]
        (disk / "other").unlink()
        writer.append(frame_of(1, SHAPE))
        take_all(disk)
        with pytest.raises(DiskFullError):
            writer.append(frame_of(2, SHAPE), index={"position": 1})
    assert check_frames(path) == [1]


def test_opening_without_room_leaves_nothing(mount: Mount) -> None:
    disk = mount(400)
    take_all(disk)
    with pytest.raises(DiskFullError):
        storage.open_writer(Path(disk) / "run.ome.tiff", shape=SHAPE, dtype="uint16")
    assert [entry.name for entry in disk.iterdir()] == ["other"]
