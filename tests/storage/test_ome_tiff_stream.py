"""OME-TIFF streams: what is written is what tifffile and libtiff read, while it grows and afterwards."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import bioio_ome_tiff
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ome_tiff_oracles import RECORD, TAG, check_frames, tiff_frames
from storage_oracles_frames import frame_of

from mutoscope import storage
from mutoscope.model.errors import (
    ClosedError,
    ConfigError,
    DatasetError,
    DatasetExistsError,
    DatasetNotFoundError,
    ScopeStateError,
)
from mutoscope.model.frame import PlaneIndex
from mutoscope.storage.ome_tiff._description import place

SHAPE = (24, 40)
DTYPES = ["uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64"]


def write(path: Path, ids: list[int], **options: Any) -> None:
    with storage.open_writer(path, shape=SHAPE, dtype="uint16", **options) as writer:
        for frame_id in ids:
            writer.append(frame_of(frame_id, SHAPE), frame_id=frame_id)


def complaints(path: Path) -> str:
    """Return what libtiff's tiffinfo complains of: nothing, for a file that is right."""
    tool = shutil.which("tiffinfo")
    if tool is None:
        pytest.skip("no tiffinfo: install libtiff-tools")
    done = subprocess.run([tool, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    return done.stderr


@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
def test_valid_after_every_append(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "run.ome.tiff"
    with storage.open_writer(path, shape=(300, 250), dtype="uint16", compression=compression, pixel_size_um=0.11) as writer:
        assert not path.exists(), "a TIFF without pages is not valid"
        for frame_id in range(1, 8):
            image = frame_of(frame_id, (300, 250))
            receipt = writer.append(image)
            image[:] = 0  # the caller may use its buffer again
            assert (receipt.position, receipt.frame_id, receipt.durable) == (frame_id - 1, frame_id, "process")
            assert check_frames(path) == list(range(1, frame_id + 1))
            assert complaints(path) == ""
            with tifffile.TiffFile(path) as file:
                assert file.series[0].asarray().shape == ((frame_id, 300, 250) if frame_id > 1 else (300, 250))
    assert check_frames(path) == list(range(1, 8))
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "TYX"
        assert 'PhysicalSizeX="0.11"' in (file.ome_metadata or "")


def test_metadata_come_back_and_stand_in_each_page(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.tiff"
    rows = [
        {"frame_id": 3, "tick": 2**64 - 1, "monotonic_ns": -5, "utc_ns": 2**62, "exposure_ms": 1.5},
        {"frame_id": 9, "index": PlaneIndex(t=4, position=0)},
        {"frame_id": np.uint64(2**62), "tick": 7, "index": {"z": 2**31 - 1}},
    ]
    with storage.open_writer(path, shape=SHAPE, dtype="uint16") as writer:
        for row in rows:
            writer.append(frame_of(1, SHAPE), **row)
        assert (writer.count, writer.last_frame_id, writer.statistics().bytes) == (3, 2**62, 3 * 24 * 40 * 2)
    with storage.open_reader(path) as reader:
        assert reader.frame_ids.tolist() == [3, 9, 2**62]
        assert reader.ticks.tolist() == [2**64 - 1, 0, 7]
        assert reader.monotonic_ns.tolist() == [-5, 0, 0]
        assert reader.utc_ns.tolist() == [2**62, 0, 0]
        assert reader.exposure_ms[0] == 1.5
        assert np.isnan(reader.exposure_ms[1:]).all()
        planes = reader.planes()
        assert planes is not None
        assert [planes[name].tolist() for name in "tcz"] == [[-1, 4, -1], [-1] * 3, [-1, -1, 2**31 - 1]]
        assert reader.gaps()[0] == (4, 5)
        assert reader.position_of(1) == ("run.ome.tiff", 1)
        assert np.array_equal(reader.frame(9), frame_of(1, SHAPE))
        with pytest.raises(KeyError):
            reader.frame(4)
    with pytest.raises(ConfigError, match=r"cannot be resumed: .* ids end at 2\*\*62"):
        storage.open_writer(path, shape=SHAPE, dtype="uint16", resume=True)
    with tifffile.TiffFile(path) as file:
        record = RECORD.unpack(file.pages[0].tags[TAG].value)
    assert record[3:8] == (3, 2**64 - 1, -5, 2**62, 1.5)


@pytest.mark.parametrize("order", ["tcz", "tzc", "ctz", "random"])
@pytest.mark.parametrize("position", [-1, 2])
def test_channels_and_depths_get_their_place_on_closing(tmp_path: Path, order: str, position: int) -> None:
    path = tmp_path / "run.ome.tiff"
    sizes = {"t": 3, "c": 2, "z": 4}
    names = "tcz" if order == "random" else order
    places = [dict(zip(names, index, strict=True)) for index in np.ndindex(*(sizes[name] for name in names))]
    if order == "random":
        np.random.default_rng(5).shuffle(places)  # type: ignore[arg-type]
    with storage.open_writer(path, shape=(5, 7), dtype="float32") as writer:
        for index in places:
            value = 100 * index["t"] + 10 * index["c"] + index["z"]
            writer.append(np.full((5, 7), value, "float32"), index={**index, "position": position})
    file = path if position < 0 else tmp_path / "run.p2.ome.tiff"
    with tifffile.TiffFile(file) as tiff:
        [series] = tiff.series
        data = np.moveaxis(series.asarray(), [series.axes.index(axis) for axis in "TCZ"], [0, 1, 2])
        assert data.shape == (3, 2, 4, 5, 7)
    expected = 100 * np.arange(3)[:, None, None] + 10 * np.arange(2)[:, None] + np.arange(4)
    assert np.array_equal(data[..., 2, 2], expected)
    assert complaints(file) == ""
    assert not storage.recover(path).changed
    with storage.open_writer(path, shape=(5, 7), dtype="float32", resume=True) as writer:  # a stack that is not full
        writer.append(np.zeros((5, 7), "float32"), index={"t": 3, "c": 0, "z": 0, "position": position})
        assert len(tiff_frames(file)) == 25
    assert len(tiff_frames(file)) == 25


def test_incomplete_or_doubled_stacks_are_described_by_time_alone() -> None:
    unplaced = np.array([(-1, -1, -1), (4, -1, -1)], np.int32)
    missing = np.array([(0, 0, 0), (0, 1, 0), (1, 0, 0)], np.int32)
    doubled = np.array([(0, 0, 0), (0, 0, 0), (0, 1, 0), (1, 1, 0)], np.int32)
    assert [place(planes) for planes in (unplaced, missing, doubled, unplaced[:0])] == [None] * 4
    later = place(np.array([(7, 0, 0), (7, 1, 0), (9, 0, 0), (9, 1, 0)], np.int32))
    assert later is not None
    assert (later.order, later.t, later.c, later.z, later.planes) == ("XYZCT", 2, 2, 1, ())


def test_a_file_for_each_position(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.tiff"
    with storage.open_writer(path, shape=SHAPE, dtype="uint16") as writer:
        with storage.open_reader(path) as reader:
            assert (len(reader), reader.shape, reader.dtype) == (0, SHAPE, "uint16")
            for number in range(300):
                writer.append(frame_of(number + 1, SHAPE), index={"position": number % 100})
            assert reader.refresh() == 300
            assert [np.array_equal(frame, frame_of(k + 1, SHAPE)) for k, frame in enumerate(reader)] == [True] * 300
    assert len(list(tmp_path.iterdir())) == 101
    assert check_frames(tmp_path / "run.p7.ome.tiff") == [8, 108, 208]
    with storage.open_writer(path, shape=SHAPE, dtype="uint16", resume=True) as writer:
        writer.append(frame_of(301, SHAPE), index={"position": 7})
    assert check_frames(tmp_path / "run.p7.ome.tiff") == [8, 108, 208, 301]
    with storage.open_writer(path, shape=SHAPE, dtype="uint16", resume=True) as writer:
        with pytest.raises(ConfigError, match="position"):
            writer.append(frame_of(302), index={"position": 100_000})


def test_resume_goes_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.tiff"
    write(path, [1, 2, 5], attributes={"settings": {"gain": 2}}, name="left")
    storage.write_attributes(path, {"ledger": {"produced": 3}})
    with storage.open_writer(path, shape=SHAPE, dtype="uint16", resume=True) as writer:
        assert (writer.last_frame_id, writer.count) == (5, 3)
        with pytest.raises(ConfigError, match="does not follow"):
            writer.append(frame_of(5), frame_id=5)
        writer.append(frame_of(6))
        writer.close({"produced": 4})
    assert check_frames(path) == [1, 2, 5, 6]
    with storage.open_reader(path, "left") as reader:
        assert reader.ledger == {"produced": 4}
        assert reader.attributes["earlier_runs"] == [{"settings": {"gain": 2}, "ledger": {"produced": 3}}]
    found = storage.info(path)
    assert (found["complete"], found["frames"], found["cameras"]) == (True, 4, ["left"])
    assert found["images"][0]["gaps"] == [[3, 2]]
    with pytest.raises(ConfigError, match="frames of another kind"):
        storage.open_writer(path, shape=SHAPE, dtype="uint8", resume=True)
    with pytest.raises(ConfigError, match="has no camera"):
        storage.open_reader(path, "right")


def test_what_exists_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.tiff"
    with storage.open_writer(path, shape=SHAPE, dtype="uint16") as writer:
        writer.append(frame_of(1))
        writer.append(frame_of(2), index={"position": 3})
    with pytest.raises(DatasetExistsError, match="overwrite"):
        storage.open_writer(path, shape=SHAPE, dtype="uint16")
    write(path, [4], overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["run.ome.tiff", "run.ome.tiff.json"]
    assert check_frames(path) == [4]
    path.write_text("my thesis")
    with pytest.raises(ConfigError, match="not a TIFF"):
        storage.open_writer(path, shape=SHAPE, dtype="uint16", overwrite=True)
    assert path.read_text() == "my thesis"
    with pytest.raises(ConfigError, match="either"):
        storage.open_writer(path, shape=SHAPE, dtype="uint16", overwrite=True, resume=True)


def test_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.tiff"
    with storage.open_writer(path, shape=SHAPE, dtype="uint16") as writer:
        writer.append(frame_of(1))
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(ScopeStateError, match="another writer"):
                storage.open_writer(path, shape=SHAPE, dtype="uint16", **options)
        with pytest.raises(ScopeStateError, match="another writer"):
            storage.recover(path)
        text = f"from mutoscope import storage; storage.open_writer({str(path)!r}, shape=(2, 2), dtype='u1', resume=True)"
        other = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
        assert "ScopeStateError" in other.stderr
        storage.write_attributes(path, {"scope": "a"})
        writer.append(frame_of(2))
    with pytest.raises(ClosedError):
        writer.append(frame_of(3))
    writer.close()
    assert check_frames(path) == [1, 2]
    with storage.open_reader(path) as reader:
        assert reader.attributes["scope"] == "a"


def test_what_does_not_fit_is_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.tiff"
    with pytest.raises(ConfigError, match="compression"):
        storage.open_writer(path, shape=SHAPE, dtype="uint16", compression="lzw")
    with pytest.raises(ConfigError, match="shards"):
        storage.open_writer(path, shape=SHAPE, dtype="uint16", frames_per_shard=4)
    with pytest.raises(ConfigError, match="complex64"):
        storage.open_writer(path, shape=SHAPE, dtype="complex64")
    with pytest.raises(ConfigError, match="belong to the layout"):
        storage.open_writer(path, shape=SHAPE, dtype="uint16", attributes={"dataset": 1})
    assert os.listdir(tmp_path) == []
    with storage.open_writer(path, shape=SHAPE, dtype="uint16") as writer:
        with pytest.raises(ConfigError, match="shape"):
            writer.append(frame_of(1, (3, 3)))
        with pytest.raises(ConfigError, match="uint8"):
            writer.append(frame_of(1, SHAPE, "uint8"))
        for bad in ({"tick": -1}, {"utc_ns": 2**63}, {"index": {"q": 1}}, {"index": {"t": 2**31}}, {"exposure_ms": "x"}):
            with pytest.raises(ConfigError):
                writer.append(frame_of(1), **bad)
        assert not path.exists()
        writer.append(frame_of(1))
        with pytest.raises(ConfigError):
            writer.append(frame_of(2), tick=-1)
        writer.append(np.asfortranarray(frame_of(2)).astype(">u2"))
    assert check_frames(path) == [1, 2]
    with pytest.raises(DatasetNotFoundError):
        storage.open_reader(tmp_path / "none.ome.tiff")
    with pytest.raises(DatasetNotFoundError):
        storage.recover(tmp_path / "none.ome.tiff")
    tifffile.imwrite(tmp_path / "other.ome.tiff", frame_of(1))
    with pytest.raises(DatasetError):
        storage.open_reader(tmp_path / "other.ome.tiff")


def test_by_backend_and_without_a_sidecar(tmp_path: Path) -> None:
    path = tmp_path / "run.tif"
    write(path, [1, 2], backend="ome-tiff")
    assert storage.info(path)["frames"] == 2
    moved = tmp_path / "moved.ome.tif"
    path.rename(moved)
    with storage.open_reader(moved) as reader:
        assert [np.array_equal(frame, frame_of(k + 1)) for k, frame in enumerate(reader)] == [True, True]
        assert reader.attributes == {}
    report = storage.recover(moved)
    assert report.actions == ("restored moved.ome.tif.json", "state: recovered")
    document = json.loads((tmp_path / "moved.ome.tif.json").read_text())
    assert document["mutoscope"]["frames"] == 2


def test_readable_while_written_from_other_threads(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.tiff"
    done = threading.Event()
    problems: list[str] = []

    def look_once() -> list[int]:
        # tifffile walks the pages first and takes the description later: between the two the file may have grown.
        for attempt in range(5):
            try:
                return list(check_frames(path))
            except AssertionError:
                if attempt == 4:
                    raise
        raise AssertionError

    def look() -> None:
        try:
            while not done.is_set():
                if path.exists():
                    ids = look_once()
                    with storage.open_reader(path) as reader:
                        assert len(reader) >= len(ids)
                        assert np.array_equal(reader[-1], frame_of(int(reader.frame_ids[-1]), SHAPE))
        except BaseException as error:
            problems.append(repr(error))

    thread = threading.Thread(target=look)
    thread.start()
    write(path, list(range(1, 400)))
    done.set()
    thread.join()
    assert problems == []
    assert len(check_frames(path)) == 399


def test_memory_is_bounded(tmp_path: Path) -> None:
    image = frame_of(1, (1024, 1024))
    with storage.open_writer(tmp_path / "run.ome.tiff", shape=image.shape, dtype="uint16", compression="zstd") as writer:
        writer.append(image)
        tracemalloc.start()
        for _ in range(30):
            writer.append(image)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 * image.nbytes


def test_durability_power_is_told_by_the_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[str] = set()
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda fd, real=real: (synced.add(os.readlink(f"/proc/self/fd/{fd}")), real(fd))[1])
    path = tmp_path / "run.ome.tiff"
    with storage.open_writer(path, shape=SHAPE, dtype="uint16", durability="power") as writer:
        receipts = [writer.append(frame_of(k), index={"position": k % 3}) for k in range(1, 10)]
        assert writer.wait_durable(receipts[-1], timeout_s=30)
    assert {receipt.durable for receipt in receipts} == {"power"}
    assert writer.statistics().durable_frames == 9
    assert {str(entry) for entry in (*tmp_path.iterdir(), tmp_path)} <= synced


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    dtype=st.sampled_from(DTYPES),
    compression=st.sampled_from(["none", "zlib", "zstd"]),
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    steps=st.lists(st.integers(1, 5), min_size=18, max_size=18),
)
def test_any_shape_and_count(
    tmp_path: Path, shape: tuple[int, int], dtype: str, compression: str, counts: list[int], steps: list[int]
) -> None:
    path = tmp_path / "run.ome.tiff"
    ids = np.cumsum(steps)[: sum(counts)].tolist()
    written = 0
    for run, count in enumerate(counts):
        options: dict[str, Any] = {"overwrite": True} if run == 0 else {"resume": True}
        with storage.open_writer(path, shape=shape, dtype=dtype, compression=compression, **options) as writer:
            for frame_id in ids[written : written + count]:
                writer.append(frame_of(frame_id, shape, dtype), frame_id=frame_id)
        written += count
    assert path.exists() == bool(ids)
    if ids:
        assert check_frames(path) == ids
    with storage.open_reader(path) as reader:
        assert reader.frame_ids.tolist() == ids
        assert (reader.shape, reader.dtype) == (shape, dtype)
        for frame_id, frame in zip(ids, reader, strict=True):
            assert frame.tobytes() == frame_of(frame_id, shape, dtype).tobytes()
    assert not storage.recover(path).changed
    assert math.isnan(writer.statistics().append_max_us) == (counts[-1] == 0)


@pytest.mark.filterwarnings("ignore:As of version 0.4.0")  # how bioio-ome-tiff calls ome-types
@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
def test_bioio_reads_a_stream_while_it_grows_and_its_channels_once_it_is_closed(tmp_path: Path, compression: str) -> None:
    path, frames = tmp_path / "run.ome.tiff", np.stack([frame_of(number, (24, 40)) for number in range(1, 7)])
    with storage.open_writer(path, shape=(24, 40), dtype="uint16", compression=compression, pixel_size_um=0.11) as writer:
        for number, frame in enumerate(frames):
            writer.append(frame, index={"c": number % 2})
        assert (bioio_ome_tiff.Reader(path).get_image_data("TYX") == frames).all()
    reader = bioio_ome_tiff.Reader(path)
    assert (reader.get_image_data("TCYX") == frames.reshape(3, 2, 24, 40)).all()
    assert reader.physical_pixel_sizes.X == 0.11
