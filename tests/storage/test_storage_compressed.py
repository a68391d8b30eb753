"""Compressed streams: what receipts promise, what stock readers find, what is held in memory, and what failures tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage_oracles import READERS, assert_exact, frame_of, zarr_frames, zarr_ids
from test_storage_full_disk import Mount

from mutoscope import storage
from mutoscope.model.errors import BackendUnavailableError, ClosedError, ConfigError, DatasetError, DiskFullError
from mutoscope.storage import _codec, _layout, _shard, _small, publishing

CODECS = ("blosc-lz4", "blosc-zstd", "zstd")
ALL = tuple(READERS)


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is published but by a full shard, `flush` and `close`."""
    monkeypatch.setattr(publishing, "MAX_DELAY_S", 3600.0)


def opened(path: Path, codec: str, shape: tuple[int, int] = (24, 40), **more: Any) -> storage.FrameStreamWriter:
    more = {"dtype": "uint16", "frames_per_shard": 4, **more}
    return storage.open_writer(path, shape=shape, compression=codec, **more)


def append(writer: storage.FrameStreamWriter, first: int, last: int) -> list[storage.Receipt]:
    return [writer.append(frame_of(k, writer.shape, writer.dtype), frame_id=k) for k in range(first, last + 1)]


@pytest.mark.usefixtures("unhurried")
def test_a_frame_is_acknowledged_when_its_shard_is_published_and_not_before(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "run.ome.zarr"
    with opened(path, codec) as writer:
        receipts = append(writer, 1, 3)
        assert [r.acknowledged for r in receipts] == [False] * 3
        assert {r.durable for r in receipts} == {None}
        assert not receipts[0].wait(timeout_s=0.0)
        assert (writer.count, writer.pending, writer.acknowledged_id, writer.last_frame_id) == (0, 3, 0, 3)
        assert not zarr_ids(path).any()
        receipts += append(writer, 4, 6)
        assert receipts[3].wait(timeout_s=60), "a full shard is published at once"
        assert [r.durable for r in receipts] == ["process"] * 4 + [None] * 2
        assert_exact(path, [1, 2, 3, 4], ALL)
        assert writer.flush(timeout_s=60)
        assert [r.acknowledged for r in receipts] == [True] * 6
        assert (writer.count, writer.pending, writer.acknowledged_id) == (6, 0, 6)
        assert_exact(path, [1, 2, 3, 4, 5, 6], ALL)
        receipts += append(writer, 7, 7)
        statistics = writer.statistics()
        assert (statistics.frames, statistics.pending, statistics.last_frame_id) == (6, 1, 7)
    assert receipts[-1].acknowledged
    assert receipts[-1].position == 6
    assert_exact(path, list(range(1, 8)), ALL)
    assert zarr.open_group(path)["0"].shape[0] == 7
    with pytest.raises(ClosedError):
        append(writer, 8, 8)


def test_a_frame_is_acknowledged_soon_without_being_asked_for(tmp_path: Path, codec: str) -> None:
    with opened(tmp_path / "run.ome.zarr", codec) as writer:
        [receipt] = append(writer, 1, 1)
        assert receipt.wait(timeout_s=60)
        assert_exact(writer.path, [1], ALL)
        assert writer.statistics().acknowledge_max_us < 60e6


def test_the_caller_reuses_its_buffer(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "run.ome.zarr"
    buffer = np.empty((96, 128), "uint16")
    with opened(path, codec, (96, 128), frames_per_shard=16) as writer:
        for frame_id in range(1, 301):
            buffer[:] = frame_of(frame_id, (96, 128))
            writer.append(buffer)
            buffer[:] = 0
    assert_exact(path, list(range(1, 301)), ALL)


@pytest.mark.parametrize("dtype", _layout.DTYPES)
def test_every_type_and_metadata(tmp_path: Path, dtype: str) -> None:
    for codec in CODECS:
        path = tmp_path / f"{codec}.ome.zarr"
        with opened(path, codec, (37, 53), dtype=dtype) as writer:
            for k in range(1, 8):
                frame = frame_of(2 * k, (37, 53), dtype)
                given = (frame, np.asfortranarray(frame), frame.astype(frame.dtype.newbyteorder(">")))[k % 3]
                writer.append(given, frame_id=2 * k, tick=k, utc_ns=k + 1, exposure_ms=k / 2, index={"c": k})
        assert_exact(path, list(range(2, 15, 2)), ALL)
        with storage.open_reader(path) as reader:
            assert (reader.dtype, reader.gaps()) == (dtype, [(k, 1) for k in range(3, 14, 2)])
            assert reader.ticks.tolist() == list(range(1, 8))
            assert reader.exposure_ms.tolist() == [k / 2 for k in range(1, 8)]
            planes = reader.planes()
            assert planes is not None
            assert planes["c"].tolist() == list(range(1, 8))
            assert all(reader.frame(k).tobytes() == frame_of(k, (37, 53), dtype).tobytes() for k in range(2, 15, 2))


def test_frames_of_several_strips_and_a_shard_of_each(tmp_path: Path, codec: str) -> None:
    path, shape = tmp_path / "run.ome.zarr", (2000, 300)
    with storage.open_writer(path, shape=shape, dtype="uint16", compression=codec, frames_per_shard=1) as writer:
        for k in range(1, 4):
            frame = np.full(shape, k, "uint16") if k == 2 else frame_of(k, shape)
            writer.append(frame)
    inner = json.loads((path / "0/zarr.json").read_text())["codecs"][0]["configuration"]
    assert inner["chunk_shape"] == [1, 1000, 300]
    assert [each["name"] for each in inner["codecs"]] == ["bytes", codec.partition("-")[0]]
    assert sorted(entry.name for entry in (path / "0/c").iterdir()) == ["0", "1", "2"]
    assert (path / "0/c/1/0/0").stat().st_size < 20_000
    for read in READERS.values():
        found = read(path, 3)
        assert np.array_equal(found, [frame_of(1, shape), np.full(shape, 2), frame_of(3, shape)])


def test_a_reader_follows_a_stream(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "run.ome.zarr"
    with opened(path, codec) as writer, storage.open_reader(path) as reader:
        for last in (1, 2, 3, 5, 9):
            append(writer, len(reader) + 1, last)
            writer.flush()
            reader.refresh()
            assert reader.frame_ids.tolist() == list(range(1, last + 1))
            for k in range(1, last + 1):
                assert np.array_equal(reader.frame(k), frame_of(k))


def test_shape_changes_and_resumed_runs_keep_the_compression(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "run.ome.zarr"
    with opened(path, codec) as writer:
        append(writer, 1, 5)
    with storage.open_image_writer(path, "camera", continue_=True) as writer:
        append(writer, 6, 6)
        writer.flush()
    with storage.open_image_writer(path, "camera", shape=(9, 31), dtype="float32", continue_=True) as writer:
        append(writer, 7, 9)
    with opened(path, "none", resume=True) as writer:
        append(writer, 10, 12)
    assert_exact(path, list(range(1, 7)), ALL)
    assert_exact(path / "camera.1", [7, 8, 9], ALL)
    assert_exact(path / "camera.2", [10, 11, 12], ALL)
    assert [image["compression"] for image in storage.info(path)["images"]] == [codec, codec, "none"]
    assert not storage.recover(path).changed
    with storage.open_reader(path) as reader:
        assert len(reader) == 12
    storage.open_writer(path, shape=(3, 3), dtype="uint8", compression=codec, overwrite=True).close()
    assert storage.info(path)["frames"] == 0


CHILD = """
import os, sys
import numpy as np
from mutoscope import storage

def private_bytes():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))

path, codec, side, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
frame = np.random.default_rng(0).poisson(100, (side, side)).astype("uint16")
most = 0
with storage.open_writer(path, shape=(side, side), dtype="uint16", compression=codec) as writer:
    for k in range(count):
        frame[0] = k
        writer.append(frame)
        most = max(most, private_bytes())
print(most)
"""


@pytest.mark.parametrize(("compression", "side", "count"), [("blosc-lz4", 2048, 80), ("zstd", 512, 400), ("none", 2048, 60)])
def test_memory_is_bounded(tmp_path: Path, compression: str, side: int, count: int) -> None:
    path = tmp_path / "run.ome.zarr"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, path, compression, str(side), str(count)], stdout=subprocess.PIPE, check=True, timeout=120
    )
    assert int(done.stdout) < 300e6
    assert storage.info(path)["frames"] == count
    assert zarr_frames(path, count, count - 1)[0, 0, 0] == count - 1


@pytest.mark.parametrize("compression", ["none", *CODECS])
def test_ome_zarr_0_4_copies_counts_and_grows(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "run.ome.zarr"
    buffer = np.empty((24, 40), "uint16")
    with storage.open_writer(path, shape=(24, 40), dtype="uint16", compression=compression, ome_zarr_version="0.4") as writer:
        for frame_id in range(1, 151):
            buffer[:] = frame_of(frame_id)
            receipt = writer.append(buffer)
            buffer[:] = 0
        assert receipt.wait(timeout_s=60), "without a full shard, flush or close"
        assert zarr.open_group(path, mode="r")["0"].shape[0] == 192
        assert_exact(path, list(range(1, 151)), ALL)
    assert_exact(path, list(range(1, 151)), ALL)
    assert zarr.open_group(path, mode="r")["0"].shape[0] == 150
    assert zarr.open_group(path, mode="r").metadata.zarr_format == 2
    assert not list(path.rglob("zarr.json"))
    with storage.open_writer(path, shape=(9, 31), dtype="uint8", compression=compression, resume=True) as writer:
        writer.append(frame_of(151, (9, 31), "uint8"))
    assert not list(path.rglob("zarr.json"))
    assert (path / "camera.1/0/0/0/0").is_file()
    with pytest.raises(ConfigError, match="not mixed"):
        storage.open_writer(path, shape=(9, 31), dtype="uint8", ome_zarr_version="0.5", resume=True)
    with pytest.raises(ConfigError, match="no shards"):
        storage.open_writer(tmp_path / "x.zarr", shape=(9, 31), dtype="uint8", ome_zarr_version="0.4", frames_per_shard=4)
    with pytest.raises(ConfigError, match=r"'0\.5' or '0\.4'"):
        storage.open_writer(tmp_path / "x.zarr", shape=(9, 31), dtype="uint8", ome_zarr_version="0.3")
    with storage.open_reader(path) as reader:
        assert len(reader) == 151
        assert np.array_equal(reader.frame(77), frame_of(77))
        assert np.array_equal(reader.frame(151), frame_of(151, (9, 31), "uint8"))
    storage.open_writer(path, shape=(3, 3), dtype="uint8", overwrite=True).close()
    assert storage.info(path)["frames"] == 0


def test_several_cameras_in_ome_zarr_0_4(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    layouts = {name: storage.CameraLayout((24, 40), "uint16", compression="zstd") for name in ("left", "right")}
    recording = storage.create_recording(path, layouts, ome_zarr_version="0.4")
    for first, name in enumerate(layouts, 1):
        with storage.open_image_writer(recording, name) as writer:
            append(writer, first, first + 5)
        assert_exact(path / name, list(range(first, first + 6)), ALL)
    assert yaozarrs.validate_zarr_store(str(path / "left")).ome_metadata().multiscales[0].name == "left"
    assert dict(zarr.open_group(path, mode="r").attrs)["bioformats2raw.layout"] == 3
    assert dict(zarr.open_group(path / "OME", mode="r").attrs)["series"] == ["left", "right"]
    assert not list(path.rglob("zarr.json"))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 90)),
    st.sampled_from(_layout.DTYPES),
    st.sampled_from([(c, v) for c in ("none", *CODECS) for v in _layout.VERSIONS if (c, v) != ("none", "0.5")]),
    st.integers(1, 6),
    st.lists(st.sampled_from(["append", "skip", "flush", "reopen"]), min_size=1, max_size=25),
)
def test_whatever_is_appended_is_found(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int],
    dtype: str,
    form: tuple[str, str],
    per_shard: int,
    steps: list[str],
) -> None:
    path = tmp_path_factory.mktemp("any") / "run.ome.zarr"
    shards = per_shard if form[1] == "0.5" else None
    layout = storage.CameraLayout(shape, dtype, frames_per_shard=shards, compression=form[0])
    storage.create_recording(path, {"camera": layout}, ome_zarr_version=form[1])
    writer = storage.open_image_writer(path, "camera")
    ids: list[int] = []
    skipped = 0
    for step in steps:
        if step == "append":
            ids.append(writer.last_frame_id + 1 + skipped)
            writer.append(frame_of(ids[-1], shape, dtype), frame_id=ids[-1])
            skipped = 0
        elif step == "skip":
            skipped += 1
        elif step == "flush":
            assert writer.flush(60)
            assert (writer.acknowledged_id, writer.pending) == (ids[-1] if ids else 0, 0)
            assert_exact(path, ids)
        else:
            writer.close()
            writer = storage.open_image_writer(path, "camera", continue_=True)
    writer.close()
    assert_exact(path, ids, ALL)
    assert zarr.open_group(path, mode="r")["0"].shape[0] == len(ids)
    assert not storage.recover(path).changed


# ---------------------------------------------------------------------- failures


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_full_disk_under_ome_zarr_0_4(mount: Mount, compression: str) -> None:
    disk = mount(2500)
    path = disk / "run.ome.zarr"
    (disk / "other").write_bytes(bytes(500_000))
    writer = storage.open_writer(path, shape=(100, 130), dtype="uint16", compression=compression, ome_zarr_version="0.4")

    def go_on_for_ever() -> None:
        while True:
            append(writer, writer.last_frame_id + 1, writer.last_frame_id + 1)

    with pytest.raises(DiskFullError, match="not stored"):
        go_on_for_ever()
    stored = writer.acknowledged_id
    assert stored > 10
    assert_exact(path, list(range(1, stored + 1)), ALL)
    (disk / "other").unlink()
    append(writer, stored + 1, stored + 5)
    writer.close({"stored": stored + 5})
    assert_exact(path, list(range(1, stored + 6)), ALL)
    assert storage.info(path)["ledger"] == {"stored": stored + 5}
    assert not list(path.rglob("*.part"))


@pytest.mark.parametrize(
    ("compression", "damage"), [("none", "short"), ("zstd", "short"), ("blosc-lz4", "zeroed"), ("zstd", "gone")]
)
def test_damaged_files_of_ome_zarr_0_4_are_named(tmp_path: Path, compression: str, damage: str) -> None:
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(24, 40), dtype="uint16", compression=compression, ome_zarr_version="0.4") as writer:
        append(writer, 1, 6)
    chunk = path / "0/2/0/0"
    data = chunk.read_bytes()
    if damage == "gone":
        chunk.unlink()
    else:
        chunk.write_bytes(data[:10] if damage == "short" else bytes(len(data)))
    report = storage.recover(path)
    assert report.images[0].doubtful == ((3, 1),)
    with storage.open_reader(path) as reader:
        with pytest.raises(DatasetError):
            reader.frame(3)
        assert np.array_equal(reader.frame(4), frame_of(4))


@pytest.mark.usefixtures("unhurried")
def test_a_full_disk_is_told_and_everything_earlier_is_stored(mount: Mount, codec: str) -> None:
    disk = mount(3000)
    (disk / "other").write_bytes(bytes(1_000_000))
    path = disk / "run.ome.zarr"
    writer = opened(path, codec, (100, 130), frames_per_shard=8)
    receipts: list[storage.Receipt] = []

    def go_on_for_ever() -> None:
        while True:
            receipts.extend(append(writer, writer.last_frame_id + 1, writer.last_frame_id + 1))

    with pytest.raises(DiskFullError, match="not stored"):
        go_on_for_ever()
    stored = [r.frame_id for r in receipts if r.acknowledged]
    assert len(stored) > 10
    assert stored == list(range(1, stored[-1] + 1)) == list(range(1, writer.acknowledged_id + 1))
    lost = receipts[len(stored) :]
    assert lost
    assert all(isinstance(r.error, DiskFullError) and r.durable is None for r in lost)
    with pytest.raises(DiskFullError):
        lost[0].wait()
    assert_exact(path, stored, ALL)
    assert writer.last_frame_id == stored[-1]
    assert writer.statistics().failed == len(lost)
    (disk / "other").unlink()
    more = append(writer, stored[-1] + 1, stored[-1] + 10)
    assert writer.flush()
    assert all(r.acknowledged for r in more)
    assert_exact(path, list(range(1, stored[-1] + 11)), ALL)
    with pytest.raises(DiskFullError):
        go_on_for_ever()
    final = list(range(1, writer.acknowledged_id + 1))
    writer.close({"stored": len(final)})
    assert_exact(path, final, ALL)
    found = storage.info(path)
    assert (found["complete"], found["frames"], found["ledger"]) == (True, len(final), {"stored": len(final)})
    assert not list(path.rglob("*.part"))


@pytest.mark.usefixtures("unhurried")
def test_frames_lost_by_the_last_publishing_are_told_by_close(mount: Mount, codec: str) -> None:
    disk = mount(2000)
    path = disk / "run.ome.zarr"
    writer = opened(path, codec, (100, 130), frames_per_shard=64)
    append(writer, 1, 3)
    assert writer.flush()
    (disk / "other").write_bytes(bytes(storage.free_bytes(disk) - 20_000))
    [lost] = append(writer, 4, 4)
    with pytest.raises(DiskFullError, match="frame 4 was not stored"):
        writer.close()
    assert not lost.acknowledged
    writer.close()
    assert_exact(path, [1, 2, 3], ALL)
    assert storage.info(path)["complete"]


def test_an_encoder_that_fails_loses_its_frame_and_those_behind_and_says_so(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _codec.encoder

    def broken(level: _layout.Level) -> Any:
        encode = real(level)

        def one(chunk: np.ndarray) -> Any:
            if chunk[0, 0] == 66:
                raise RuntimeError("the codec failed")
            return encode(chunk)

        return one

    monkeypatch.setattr(_codec, "encoder", broken)
    monkeypatch.setattr(publishing, "MAX_DELAY_S", 3600.0)
    with opened(tmp_path / "run.ome.zarr", codec, frames_per_shard=5) as writer:
        append(writer, 1, 7)
        bad = frame_of(8)
        bad[0, 0] = 66
        receipt = writer.append(bad)
        with pytest.raises(RuntimeError, match="the codec failed"):
            writer.flush()
        assert isinstance(receipt.error, RuntimeError)
        assert writer.last_frame_id == 5, "frames of the shard that was not published are lost too"
        append(writer, 6, 9)
    assert_exact(writer.path, list(range(1, 10)), ALL)


def test_a_publishing_thread_that_dies_leaves_nobody_waiting(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, *_: Any) -> None:
        raise LookupError("a mistake")

    writer = opened(tmp_path / "run.ome.zarr", codec)
    append(writer, 1, 4)
    assert writer.flush(60)
    monkeypatch.setattr(publishing.PublishingWriter, "_add", fail)
    monkeypatch.setattr(publishing.PublishingWriter, "_lose", fail)
    [receipt] = append(writer, 5, 5)
    with pytest.raises(LookupError):
        receipt.wait(60)
    with pytest.raises(DatasetError, match="a mistake"):
        writer.flush()
    with pytest.raises(DatasetError, match="a mistake"):
        append(writer, 6, 6)
    with pytest.raises(DatasetError, match="a mistake"):
        writer.close()
    assert_exact(writer.path, [1, 2, 3, 4], ALL)


def test_what_cannot_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="blosc-lz4"):
        opened(tmp_path / "run.ome.zarr", "gzip")
    with opened(tmp_path / "some.ome.zarr", "zstd") as writer:
        append(writer, 1, 2)
        with pytest.raises(ConfigError, match="does not follow"):
            append(writer, 2, 2)
        with pytest.raises(ConfigError, match="shape"):
            writer.append(np.zeros((3, 3), "uint16"))
        with pytest.raises(ConfigError, match="tick of frame 3 is a whole number"):
            writer.append(frame_of(3), tick=-1)
        append(writer, 3, 3)
    assert_exact(writer.path, [1, 2, 3], ALL)
    monkeypatch.setitem(sys.modules, "numcodecs", None)
    with pytest.raises(BackendUnavailableError, match="pip install numcodecs"):
        opened(tmp_path / "other.ome.zarr", "zstd")
    assert os.listdir(tmp_path) == ["some.ome.zarr"]


# ---------------------------------------------------------------------- durability and damage


def test_power_brings_a_shard_to_the_device_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[str] = set()
    renamed: list[tuple[str, bool]] = []
    real = {name: getattr(os, name) for name in ("fdatasync", "fsync", "rename")}

    def note(name: str) -> Any:
        def sync(fd: int) -> None:
            synced.add(os.readlink(f"/proc/self/fd/{fd}"))
            real[name](fd)

        return sync

    def rename(source: Any, target: Any) -> None:
        real["rename"](source, target)
        if str(source).endswith(".part") and Path(target).name == "0":
            renamed.append((str(target), str(source) in synced))

    monkeypatch.setattr(os, "fdatasync", note("fdatasync"))
    monkeypatch.setattr(os, "fsync", note("fsync"))
    monkeypatch.setattr(os, "rename", rename)
    path = tmp_path / "run.ome.zarr"
    with opened(path, "blosc-lz4", durability="power") as writer:
        receipts = append(writer, 1, 6)
        assert writer.flush()
        assert receipts[-1].durable in ("process", "power")
        assert writer.wait_durable(receipts[-1], timeout_s=60)
        assert receipts[-1].durable == "power"
        append(writer, 7, 10)
    assert len(renamed) >= 3
    assert all(durable for _, durable in renamed)
    assert [p for p in (path, *path.rglob("*")) if str(p) not in synced] == []


@pytest.mark.parametrize("damage", ["truncated", "no index", "zeroed", "removed", "flipped"])
def test_damaged_shards_are_named_and_never_shown_as_good(tmp_path: Path, codec: str, damage: str) -> None:
    path = tmp_path / "run.ome.zarr"
    with opened(path, codec, (96, 128)) as writer:
        append(writer, 1, 10)
    shard = path / "0/c/1/0/0"
    data = bytearray(shard.read_bytes())
    if damage == "removed":
        shard.unlink()
    else:
        if damage == "truncated":
            del data[len(data) // 2 :]
        elif damage == "no index":
            data[-68:] = bytes(68)
        elif damage == "zeroed":
            data[:100] = bytes(100)
        else:
            data[-20] ^= 1
        shard.write_bytes(data)
    report = storage.recover(path)
    assert report.images[0].doubtful == (((5, 1),) if damage == "zeroed" else ((5, 4),))
    assert "from id 5 are not whole" in report.summary()
    with storage.open_reader(path) as reader:
        with pytest.raises(DatasetError):
            reader.frame(5)
        assert np.array_equal(reader.frame(4), frame_of(4, (96, 128)))
        assert np.array_equal(reader.frame(9), frame_of(9, (96, 128)))


def test_flipped_bits_never_end_a_reader(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "run.ome.zarr"
    frames = [np.add.outer(np.arange(48) * k, np.arange(64) % 7).astype("uint16") for k in range(4)]
    with opened(path, codec, (48, 64)) as writer:
        for frame in frames:
            writer.append(frame)
    shard = path / "0/c/0/0/0"
    good = shard.read_bytes()
    rng = np.random.default_rng(5)
    refused = 0
    with storage.open_reader(path) as reader:
        assert np.array_equal(reader[3], frames[3])
    for _ in range(300):
        data = bytearray(good)
        place = int(rng.integers(len(data)))
        data[place] ^= 1 << int(rng.integers(8))
        shard.write_bytes(data)
        with storage.open_reader(path) as reader:
            for number in range(4):
                try:
                    assert reader[number].shape == (48, 64)
                except DatasetError:
                    refused += 1
    assert refused > 10


def test_recover_names_every_frame_that_a_power_cut_left_zeros_in(tmp_path: Path, codec: str) -> None:
    """Any block that never reached the device reads as zeros, though the file is as long as it was."""
    shape, block = (96, 128), 4096
    path = tmp_path / "run.ome.zarr"
    frames = [np.random.default_rng(k).poisson(100.0, shape).astype("uint16") for k in range(4)]
    with opened(path, codec, shape) as writer:
        for frame in frames:
            writer.append(frame)
    shard = path / "0/c/0/0/0"
    data = shard.read_bytes()
    rows = read_index(path, shard)
    assert storage.recover(path).images[0].doubtful == ()
    for first in range(0, int(rows.sum(axis=1).max()), block):
        torn = bytearray(data)
        torn[first : first + block] = bytes(len(data[first : first + block]))
        if torn[-68:] != data[-68:]:
            continue  # of the index: all frames
        shard.write_bytes(torn)
        touched = [k + 1 for k, (begin, size) in enumerate(rows.tolist()) if begin < first + block and first < begin + size]
        report = storage.recover(path)
        named = [frame_id for begin, count in report.images[0].doubtful for frame_id in range(begin, begin + count)]
        assert named == touched
    shard.write_bytes(data)
    assert storage.recover(path).images[0].doubtful == ()


def read_index(path: Path, shard: Path) -> np.ndarray:
    """Offset and length of each frame that a shard holds."""
    with open(shard, "rb") as file:
        level, _ = _layout.parse_level(json.loads((path / "0/zarr.json").read_text()), "0")
        assert level.strips == 1
        index = _small.read_index(file.fileno(), level, "shard")
    return index[index[:, 0] != _shard.EMPTY]
