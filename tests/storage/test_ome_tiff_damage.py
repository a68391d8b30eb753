"""Damaged OME-TIFF: cut, zeroed, flipped, hostile files give one clear sentence or the exact frames, never a crash."""

from __future__ import annotations

import os
import random
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from ome_tiff_oracles import check_frames, tiff_frames
from storage_oracles_frames import frame_of

from mutoscope import storage
from mutoscope.model.errors import DatasetError

SHAPE = (64, 96)
IDS = list(range(1, 15))  # more than an index block has places for


def make(path: Path, compression: str) -> None:
    with storage.open_writer(path, shape=SHAPE, dtype="uint16", compression=compression) as writer:
        for frame_id in IDS:
            writer.append(frame_of(frame_id, SHAPE), index={"c": (frame_id - 1) % 2})


def read_all(path: Path) -> dict[int, np.ndarray]:
    """Look at everything that a reader offers; return id → pixels."""
    storage.info(path)
    with storage.open_reader(path) as reader:
        _ = (
            reader.monotonic_ns,
            reader.utc_ns,
            reader.ticks,
            reader.exposure_ms,
            reader.planes(),
            reader.ledger,
            reader.gaps(),
        )
        return dict(zip(reader.frame_ids.tolist(), reader, strict=True))


def copy_of(path: Path, name: str, edit) -> Path:  # type: ignore[no-untyped-def]
    """Return a copy whose bytes `edit` changed, with its sidecar."""
    other = path.with_name(f"{name}.ome.tiff")
    data = bytearray(path.read_bytes())
    other.write_bytes(bytes(edit(data) or data))
    shutil.copy(f"{path}.json", f"{other}.json")
    return other


@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
def test_flipped_bits_are_told_or_harmless(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "run.ome.tiff"
    make(path, compression)
    good = read_all(path)
    assert sorted(good) == IDS
    pixels = [(frame.offset, frame.offset + frame.stored) for frame in tiff_frames(path)]
    rng = random.Random(1)
    told = 0
    size = path.stat().st_size
    meta = [k for k in range(size) if not any(begin <= k < end for begin, end in pixels)]
    for number in range(250):
        place = rng.choice(meta) if number % 2 else rng.randrange(size)

        def flip(data: bytearray, place: int = place) -> None:
            data[place] ^= 1 << rng.randrange(8)

        bad = copy_of(path, "bad", flip)
        said = ""
        try:
            found = read_all(bad)
        except DatasetError as error:
            said = str(error)
        if said:
            told += 1
            assert str(bad) in said
            assert len(said.splitlines()) == 1
            continue
        assert sorted(found) == IDS
        for frame_id, image in found.items():
            differ = int(np.count_nonzero(image != good[frame_id]))
            in_pixels = any(begin <= place < end for begin, end in pixels)
            assert differ <= (1 if compression == "none" and in_pixels else 0)
    assert told > 40  # the others hit pixels, or the room of slots that are not used


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_cut_anywhere_and_recovered(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "run.ome.tiff"
    make(path, compression)
    size = path.stat().st_size
    rng = random.Random(2)
    recovered = 0
    for length in [0, 7, 16, 700, *(rng.randrange(size) for _ in range(40)), size - 1]:
        bad = copy_of(path, "bad", lambda data, length=length: data[:length])
        try:
            found = read_all(bad)
        except DatasetError:
            pass
        else:
            assert sorted(found) == IDS, "only the description that places planes was cut"
        try:
            report = storage.recover(bad)
        except DatasetError:
            assert length < path.stat().st_size / len(IDS) * 1.3, "only a file without a whole frame is beyond repair"
            continue
        recovered += 1
        assert check_frames(bad) == IDS[: report.images[0].frames]
        assert sorted(read_all(bad)) == IDS[: report.images[0].frames]
        assert not storage.recover(bad).changed
        with storage.open_writer(bad, shape=SHAPE, dtype="uint16", compression=compression, resume=True) as writer:
            writer.append(frame_of(100, SHAPE), frame_id=100)
        assert check_frames(bad)[-1] == 100
    assert recovered > 25


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_pages_lost_in_a_power_cut(tmp_path: Path, compression: str) -> None:
    """Blocks that were not on the device yet are zero, wherever; what recover keeps and does not name is exact."""
    path = tmp_path / "run.ome.tiff"
    make(path, compression)
    first = tiff_frames(path)[0]
    begin = (first.offset + first.stored) // 4096 + 2  # the first frame was brought to the device before the file got its name
    blocks = path.stat().st_size // 4096
    rng = random.Random(3)
    named = kept = 0
    for _ in range(40):
        lost = rng.sample(range(begin, blocks), rng.randrange(1, 6))

        def lose(data: bytearray, lost: list[int] = lost) -> None:
            for block in lost:
                data[4096 * block : 4096 * (block + 1)] = bytes(len(data[4096 * block : 4096 * (block + 1)]))

        bad = copy_of(path, "bad", lose)
        report = storage.recover(bad)
        doubtful = {first + k for first, count in report.images[0].doubtful for k in range(count)}
        named += len(doubtful)
        with storage.open_reader(bad) as reader:
            ids = reader.frame_ids.tolist()
            for frame_id in ids:
                if frame_id in doubtful:
                    with pytest.raises(DatasetError, match=f"frame {frame_id}"):
                        reader.frame(frame_id)
                else:
                    assert np.array_equal(reader.frame(frame_id), frame_of(frame_id, SHAPE))
                    kept += 1
        assert report.images[0].frames == len(ids)
        again = storage.recover(bad)
        assert not again.changed
        assert again.images[0].doubtful == report.images[0].doubtful
    assert named > 10
    assert kept > 40


def test_the_record_of_a_lost_frame_never_stands_for_another(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.tiff"
    make(path, "none")
    last = tiff_frames(path)[11]
    bad = copy_of(path, "bad", lambda data: data[: last.offset + last.stored])  # the slots of the last two stay
    with pytest.raises(DatasetError, match="too short"):
        read_all(bad)
    assert storage.recover(bad).images[0].frames == 12
    with open(bad, "ab") as file:  # as of an append that was killed before its record was written
        file.write(bytes(2 * last.stored))
    assert storage.recover(bad).images[0].frames == 12
    assert check_frames(bad) == IDS[:12]


def test_hostile_files(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.tiff"
    make(path, "none")
    data = path.read_bytes()
    [first] = struct.unpack_from("<Q", data, 8)
    link = first + 8 + 12 * 20
    for target in (first, 8, 2**63, 2**64 - 1, len(data) + 5, 1):  # loops, and links to nowhere

        def point(raw: bytearray, target: int = target) -> None:
            raw[link : link + 8] = struct.pack("<Q", target)

        with pytest.raises(DatasetError):
            read_all(copy_of(path, "bad", point))
    described = range(first + 112, first + 128)  # where the description is: this reader does not need it, recover mends it
    for place in range(first, first + 8 + 12 * 20, 4):  # directories of any size, shapes of any size

        def fill(raw: bytearray, place: int = place) -> None:
            raw[place : place + 4] = b"\xff\xff\xff\x7f"

        bad = copy_of(path, "bad", fill)
        if place in described:
            assert sorted(read_all(bad)) == IDS
            assert storage.recover(bad).changed
            assert check_frames(bad) == IDS
            continue
        try:
            read_all(bad)
        except DatasetError:
            continue
        pytest.fail(f"byte {place - first} of the directory was not looked at")


@pytest.mark.parametrize("damage", ["link", "folder", "fifo", "sidecar", "sidecar link", "foreign"])
def test_what_is_not_a_file_is_not_followed(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "run.ome.tiff"
    make(path, "none")
    elsewhere = tmp_path / "elsewhere"
    match damage:
        case "sidecar":
            Path(f"{path}.json").write_text('{"mutoscope": {"format": "ome-tiff", "layout": "1.0", "shape": [1, "x"]}}')
        case "sidecar link":
            Path(f"{path}.json").rename(elsewhere)
            os.mkfifo(f"{path}.json")
        case "foreign":
            make(tmp_path / "other.ome.tiff", "none")
            os.replace(tmp_path / "other.ome.tiff", path)
        case _:
            path.rename(elsewhere)
            {"link": lambda: path.symlink_to(elsewhere), "folder": path.mkdir, "fifo": lambda: os.mkfifo(path)}[damage]()
    with pytest.raises(DatasetError):
        read_all(path)


def test_a_file_that_was_removed_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.tiff"
    with storage.open_writer(path, shape=SHAPE, dtype="uint16") as writer:
        for k in range(4):
            writer.append(frame_of(k + 1, SHAPE), index={"position": k % 2})
    (tmp_path / "run.p1.ome.tiff").unlink()
    with pytest.raises(DatasetError, match="holds 2 frames and had 4"):
        storage.open_reader(path)
