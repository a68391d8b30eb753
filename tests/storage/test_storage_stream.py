"""A stream of frames: written, read live and closed, by our reader and by those of others."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage_oracles import READERS, assert_exact, frame_of

from mutoscope import storage
from mutoscope.model.errors import ClosedError, ConfigError, ScopeStateError
from mutoscope.storage import _layout

DTYPES = list(_layout.DTYPES)
ALL_READERS = tuple(READERS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_reader_finds_every_frame_live_and_closed(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(24, 40), dtype=dtype, frames_per_shard=4) as writer:
        for frame_id in range(1, 11):
            receipt = writer.append(frame_of(frame_id, dtype=dtype))
            assert (receipt.position, receipt.frame_id, receipt.durable) == (frame_id - 1, frame_id, "process")
            if frame_id in (1, 4, 5, 10):
                assert_exact(path, list(range(1, frame_id + 1)), ALL_READERS)
    assert_exact(path, list(range(1, 11)), ALL_READERS)
    assert zarr.open_group(path, mode="r")["0"].shape == (10, 24, 40)
    assert zarr.open_group(path, mode="r")["frames/frame_id"].shape == (10,)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 130),
    width=st.integers(1, 130),
    dtype=st.sampled_from(DTYPES),
    count=st.integers(0, 20),
    per_shard=st.integers(1, 9),
    reopen_at=st.integers(0, 20),
)
def test_any_shape_count_and_shard(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, dtype: str, count: int, per_shard: int, reopen_at: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "run.ome.zarr"
    shape = (height, width)
    writer = storage.open_writer(path, shape=shape, dtype=dtype, frames_per_shard=per_shard)
    ids = []
    for number in range(count):
        frame_id = 3 * number + 2
        if number == reopen_at:  # closed, and gone on with: the trimmed shard becomes a full one again
            writer.close()
            writer = storage.open_image_writer(path, "camera", continue_=True)
            assert (writer.count, writer.last_frame_id) == (number, ids[-1] if ids else 0)
        writer.append(frame_of(frame_id, shape, dtype), frame_id=frame_id)
        ids.append(frame_id)
    assert_exact(path, ids, ("zarr-python", "tensorstore"))
    writer.close()
    assert_exact(path, ids, ("zarr-python", "tensorstore"))
    assert zarr.open_group(path, mode="r")["0"].shape[0] == count
    with storage.open_reader(path) as reader:
        assert reader.frame_ids.tolist() == ids
        assert all(np.array_equal(reader.frame(i), frame_of(i, shape, dtype)) for i in ids)
        assert reader.gaps() == [(i + 1, 2) for i in ids[:-1]]


def test_times_ticks_and_planes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(8, 8), dtype="uint8") as writer:
        writer.append(np.ones((8, 8), "uint8"))
        writer.append(
            np.ones((8, 8), "uint8"),
            frame_id=7,
            tick=2**63,
            monotonic_ns=-5,
            utc_ns=1_700_000_000_000_000_000,
            exposure_ms=2.5,
            index={"t": 3, "c": 1},
        )
    group = zarr.open_group(path, mode="r")["frames"]
    assert group["frame_id"][:].tolist() == [1, 7]
    assert group["tick"][:].tolist() == [0, 2**63]
    assert group["monotonic_ns"][:].tolist() == [0, -5]
    assert group["utc_ns"][:].tolist() == [0, 1_700_000_000_000_000_000]
    assert math.isnan(group["exposure_ms"][0])
    assert group["exposure_ms"][1] == 2.5
    assert {name: group[name][:].tolist() for name in ("t", "c", "z", "position")} == {
        "t": [-1, 3],
        "c": [-1, 1],
        "z": [-1, -1],
        "position": [-1, -1],
    }
    with storage.open_reader(path) as reader:
        planes = reader.planes()
        assert planes is not None
        assert planes["c"].tolist() == [-1, 1]
        assert reader.ticks.tolist() == [0, 2**63]
        assert reader.utc_ns.tolist() == [0, 1_700_000_000_000_000_000]


def test_rows_go_on_over_chunk_borders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("_layout.RECORDS_PER_CHUNK", "_flat._ROWS", "writer._ROWS", "_image_reader._ROWS"):
        monkeypatch.setattr(f"mutoscope.storage.{module}", 8)
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(4, 4), dtype="uint16", frames_per_shard=3) as writer:
        for frame_id in range(1, 30):
            plane = {"t": frame_id} if frame_id > 13 else None
            writer.append(frame_of(frame_id, (4, 4)), tick=frame_id * 2, utc_ns=frame_id, index=plane)
        assert_exact(path, list(range(1, 30)))
    assert_exact(path, list(range(1, 30)))
    group = zarr.open_group(path, mode="r")["frames"]
    assert group["tick"][:].tolist() == [2 * k for k in range(1, 30)]
    assert group["t"][:].tolist() == [k if k > 13 else -1 for k in range(1, 30)]
    with storage.open_reader(path) as reader:
        planes = reader.planes()
        assert planes is not None
        assert planes["t"].tolist() == group["t"][:].tolist()
        assert reader.ticks.tolist() == group["tick"][:].tolist()


def test_the_caller_may_reuse_its_buffer(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    buffer = np.empty((24, 40), "uint16")
    with storage.open_writer(path, shape=(24, 40), dtype="uint16", frames_per_shard=4) as writer:
        for frame_id in range(1, 12):
            buffer[:] = frame_of(frame_id)
            writer.append(buffer)
            buffer[:] = 0
    assert_exact(path, list(range(1, 12)))


def test_strided_swapped_and_read_only_arrays_are_stored_as_their_values(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    plain = frame_of(1)
    fixed = plain.copy()
    fixed.flags.writeable = False
    variants = [np.asfortranarray(plain), plain.astype(">u2"), np.repeat(plain, 2, axis=1)[:, ::2], fixed, plain[::-1][::-1]]
    with storage.open_writer(path, shape=(24, 40), dtype="uint16") as writer:
        for variant in variants:
            writer.append(variant)
    stored = zarr.open_group(path, mode="r")["0"][:]
    assert all(np.array_equal(frame, plain) for frame in stored)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((40, 24), "uint16"), np.zeros((24, 40), "int16"), np.zeros((24, 40), "uint8"), np.zeros((1, 24, 40), "uint16")],
)
def test_a_frame_that_does_not_fit_is_refused_and_stores_nothing(tmp_path: Path, wrong: np.ndarray) -> None:
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(24, 40), dtype="uint16") as writer:
        with pytest.raises(ConfigError, match="does not fit"):
            writer.append(wrong)
        assert writer.count == 0
    assert_exact(path, [])


@pytest.mark.parametrize("wrong", [{"frame_id": 5}, {"frame_id": 4}, {"frame_id": 0}, {"frame_id": 2**64}, {"tick": -1}])
def test_ids_must_increase_and_metadata_fit(tmp_path: Path, wrong: dict[str, int]) -> None:
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(24, 40), dtype="uint16") as writer:
        writer.append(frame_of(5), frame_id=5)
        with pytest.raises(ConfigError):
            writer.append(frame_of(6), **wrong)
        with pytest.raises(ConfigError, match="not w"):
            writer.append(frame_of(6), index={"w": 1})
        assert writer.append(frame_of(6)).frame_id == 6
    assert_exact(path, [5, 6])


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_ids_end_where_all_that_comes_after_them_still_fits(compression: str, tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    layout = storage.CameraLayout((24, 40), "uint16", compression=compression)
    with storage.open_image_writer(storage.create_recording(path, {"camera": layout}), "camera") as writer:
        for wrong in ("a", 1.5, [1]):
            with pytest.raises(ConfigError, match="frame_id is a whole number, not "):
                writer.append(frame_of(1), frame_id=wrong)  # type: ignore[arg-type]
        writer.append(frame_of(1), frame_id=np.uint64(2**62))  # type: ignore[arg-type]
        for more in ({}, {"frame_id": 2**62 + 1}, {"frame_id": 2**64 - 1}):
            with pytest.raises(ConfigError, match=r"frame_id \d+ is too large: ids end at 2\*\*62"):
                writer.append(frame_of(2), **more)
    with pytest.raises(ConfigError, match="the last frame_id of 'camera' is 4611686018427387904, and ids end"):
        storage.create_recording(path, {"camera": layout}, resume=True)
    with storage.open_reader(path) as reader:
        assert reader.frame_ids.tolist() == [2**62]


def test_a_second_writer_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    first = storage.open_writer(path, shape=(24, 40), dtype="uint16")
    first.append(frame_of(1))
    with pytest.raises(ScopeStateError, match="another writer"):
        storage.open_image_writer(path, "camera", continue_=True)
    with pytest.raises(ScopeStateError, match="another writer"):
        storage.recover(path)
    with pytest.raises(ScopeStateError, match="another writer"):
        storage.open_writer(path, shape=(24, 40), dtype="uint16", overwrite=True)
    first.close()
    first.close()
    with pytest.raises(ClosedError):
        first.append(frame_of(2))
    with pytest.raises(ConfigError, match="continue_"):
        storage.open_image_writer(path, "camera")
    with storage.open_image_writer(path, "camera", continue_=True) as second:
        second.append(frame_of(2))
    assert_exact(path, [1, 2])


def test_the_reader_follows_a_live_stream(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(24, 40), dtype="uint16", frames_per_shard=4) as writer:
        with storage.open_reader(path) as reader:
            assert len(reader) == 0
            assert reader.gaps() == []
            for frame_id in (1, 2, 5, 6, 7, 20):
                writer.append(frame_of(frame_id), frame_id=frame_id)
                assert reader.refresh() == 1
                assert np.array_equal(reader[-1], frame_of(frame_id))
            assert reader.refresh() == 0
            assert reader.gaps() == [(3, 2), (8, 12)]
            writer.close({"produced": 20})
            assert reader.refresh() == 0
            assert reader.ledger == {"produced": 20}
            assert [frame[0, 0] for frame in reader] == [frame_of(i)[0, 0] for i in (1, 2, 5, 6, 7, 20)]
            with pytest.raises(KeyError):
                reader.frame(3)
            with pytest.raises(IndexError):
                reader[6]
            frame = reader[0]
            frame[:] = 0  # a copy
            assert np.array_equal(reader[0], frame_of(1))
        with pytest.raises(ClosedError):
            reader.refresh()


def test_statistics_count_and_bound(tmp_path: Path) -> None:
    with storage.open_writer(tmp_path / "run.ome.zarr", shape=(24, 40), dtype="uint16") as writer:
        assert math.isnan(writer.statistics().append_p50_us)
        for frame_id in range(1, 101):
            writer.append(frame_of(frame_id))
        found = writer.statistics()
    assert (found.frames, found.bytes, found.failed, found.last_frame_id) == (100, 100 * 24 * 40 * 2, 0, 100)
    assert 0 < found.append_p50_us <= found.append_p99_us <= found.append_max_us


def test_the_declared_length_overshoots_by_less_than_a_shard(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(24, 40), dtype="uint16", frames_per_shard=4) as writer:
        for frame_id in range(1, 14):
            writer.append(frame_of(frame_id))
            declared = zarr.open_group(path, mode="r")["0"].shape[0]
            assert 0 <= declared - frame_id < 4


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_writer_whose_data_set_was_moved_writes_nothing_in_its_place(
    version: str, compression: str, elsewhere: bool, tmp_path: Path
) -> None:
    path, moved = tmp_path / "run.ome.zarr", tmp_path / "moved.ome.zarr"
    per_shard = None if version == "0.4" else 2
    layouts = {"camera": storage.CameraLayout((4, 6), "uint16", frames_per_shard=per_shard, compression=compression)}
    storage.create_recording(path, layouts, ome_zarr_version=version)
    writer = storage.open_image_writer(path, "camera")
    for frame_id in (1, 2):
        writer.append(np.full((4, 6), frame_id, np.uint16))
    writer.flush()
    path.rename(moved)
    if elsewhere:
        storage.create_recording(path, layouts, ome_zarr_version=version)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}

    def go_on() -> None:
        for frame_id in range(3, 9):
            writer.append(np.full((4, 6), frame_id, np.uint16), index={"t": frame_id})
            writer.flush()

    with pytest.raises(FileNotFoundError):
        go_on()
    with pytest.raises(FileNotFoundError):
        writer.close()
    assert path.exists() == elsewhere
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    storage.recover(moved)
    with storage.open_reader(moved) as reader:
        assert [int(frame.max()) for frame in reader] == reader.frame_ids.tolist() == list(range(1, len(reader) + 1))
        assert len(reader) >= 2


@pytest.mark.parametrize("name", ["run.ome.zarr", "run.ome.tiff"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_parts_of_frames_are_read(tmp_path: Path, name: str, compression: str) -> None:
    frames = np.stack([frame_of(k, (100, 130)) for k in range(1, 8)])
    with storage.open_writer(tmp_path / name, shape=(100, 130), dtype="uint16", compression=compression) as writer:
        for frame in frames:
            writer.append(frame)
    with storage.open_reader(tmp_path / name) as reader:
        part = reader[2:6, 10:77, 20:33]
        assert np.array_equal(part, frames[2:6, 10:77, 20:33])
        assert part.flags.c_contiguous
        assert part.flags.owndata
        assert np.array_equal(reader[-1, :, 5:130], frames[-1, :, 5:130])
        assert np.array_equal(reader[:, 99:, :], frames[:, 99:])
        assert reader[3:3, 0:5, 0:6].shape == (0, 5, 6)
        assert reader[0:2, 4:4, 0:6].shape == (2, 0, 6)
        for wrong in ((0, slice(0, 101), slice(None)), (0, slice(0, 9, 2), slice(None)), (0, 1, 2)):
            with pytest.raises(ConfigError):
                reader[wrong]
        with pytest.raises(TypeError, match="frames are taken by number or slice"):
            reader[0, 0:5]  # type: ignore[index]
        with pytest.raises(IndexError):
            reader[7, 0:1, 0:1]
