"""Pyramids: the levels are the means, listed once whole, whatever ends the builder; the stream never waits for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from storage_oracles import READERS, frame_of
from test_storage_full_disk import take_all

from mutoscope import storage
from mutoscope.model._faults import VARIABLE
from mutoscope.model.errors import ConfigError, DiskFullError, ScopeStateError
from polling import until

FORMS = [("none", "0.5"), ("blosc-lz4", "0.5"), ("zstd", "0.4"), ("none", "0.4")]
SHAPE = (301, 514)


def halved(plane: np.ndarray) -> np.ndarray:
    """The mean of 2 x 2, an odd last row or column counted twice, halves rounded up: written without the code under test."""
    height, width = plane.shape
    rows = [*range(height), *([height - 1] if height % 2 else [])]
    columns = [*range(width), *([width - 1] if width % 2 else [])]
    wide = plane[np.ix_(rows, columns)].astype(np.float64)
    mean = (wide[::2, ::2] + wide[::2, 1::2] + wide[1::2, ::2] + wide[1::2, 1::2]) / 4
    return (np.floor(mean + 0.5) if plane.dtype.kind in "iu" else mean).astype(plane.dtype)


def write(path: Path, frames: int, form: tuple[str, str] = FORMS[0], dtype: str = "uint16", **more: Any) -> None:
    compression, version = form
    shards = 4 if version == "0.5" else None
    options = {"compression": compression, "ome_zarr_version": version, "frames_per_shard": shards, "pixel_size_um": 0.5}
    with storage.open_writer(path, shape=SHAPE, dtype=dtype, **options, **more) as writer:
        for k in range(1, frames + 1):
            writer.append(frame_of(k, SHAPE, dtype))


def listed(image: Path) -> list[dict[str, Any]]:
    attributes = dict(zarr.open_group(image, mode="r").attrs)
    return list(attributes.get("ome", attributes)["multiscales"][0]["datasets"])


def check(image: Path, frames: int, dtype: str = "uint16", levels: int = 2) -> None:
    assert [row["path"] for row in listed(image)] == [str(k) for k in range(levels + 1)]
    group = zarr.open_group(image, mode="r")
    planes = [frame_of(k, SHAPE, dtype) for k in range(1, frames + 1)]
    for level in range(1, levels + 1):
        planes = [halved(plane) for plane in planes]
        assert group[str(level)].shape == (frames, *planes[0].shape)
        assert group[str(level)].dtype == np.dtype(dtype)
        found = group[str(level)][:]
        assert np.array_equal(found, planes) if found.dtype.kind in "iu" else np.allclose(found, planes, atol=1e-6)


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_levels_are_the_means(tmp_path: Path, form: tuple[str, str], beside: bool) -> None:
    path = tmp_path / "run.ome.zarr"
    write(path, 9, form, pyramid=beside)
    if not beside:
        assert len(listed(path)) == 1
        report = storage.build_pyramid(path)
        assert report.levels == {".": (SHAPE, (151, 257), (76, 129))}
        assert "151 × 257" in report.summary()
    check(path, 9)
    assert storage.info(path)["images"][0]["levels"] == 3
    with storage.open_reader(path) as reader:
        assert reader.levels_of(0) == 3
        for level, shape in ((1, (151, 257)), (2, (76, 129))):
            stored = zarr.open_group(path, mode="r")[str(level)]
            assert reader.shape_of(0, level) == shape
            for number in range(9):
                assert np.array_equal(reader.read(number, level=level), stored[number])
            part = reader.read(-1, level=level, rows=slice(5, 60), columns=slice(7, 90))
            assert np.array_equal(part, stored[8, 5:60, 7:90])
    scale, shift = (row["coordinateTransformations"] for row in listed(path)[2:]).__next__()
    assert (scale["scale"], shift["translation"]) == ([1.0, 2.0, 2.0], [0.0, 0.75, 0.75])
    assert not list(path.rglob("*.part"))
    before = {file: file.stat().st_mtime_ns for file in path.rglob("c/*/0/0")}
    storage.build_pyramid(path)
    assert {file: file.stat().st_mtime_ns for file in path.rglob("c/*/0/0")} == before
    assert len(before) == (9 if form[1] == "0.5" else 0)
    check(path, 9)
    assert not storage.recover(path).changed


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int32", "float32", "float64"])
def test_every_type(tmp_path: Path, dtype: str) -> None:
    write(tmp_path / "run.ome.zarr", 2, dtype=dtype)
    storage.build_pyramid(tmp_path / "run.ome.zarr", levels=1)
    check(tmp_path / "run.ome.zarr", 2, dtype, levels=1)


def test_a_stream_that_goes_on_takes_its_levels_out_of_the_list(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    write(path, 6)
    storage.build_pyramid(path)
    with storage.open_image_writer(path, "camera", continue_=True) as writer:
        assert len(listed(path)) == 1
        with pytest.raises(ScopeStateError):
            storage.build_pyramid(path)
        writer.append(frame_of(7, SHAPE))
    storage.build_pyramid(path)
    check(path, 7)


def test_every_image_of_a_recording_gets_one(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    write(path, 3)
    write(path, 2, resume=True)
    assert set(storage.build_pyramid(path).levels) == {".", "camera.1"}
    check(path, 3)
    check(path / "camera.1", 2)


CHILD = "import sys; from mutoscope import storage; print('ready', flush=True); storage.build_pyramid(sys.argv[1])"


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        ("storage.publish.part_written", 2),
        ("storage.publish.renamed", 1),
        ("storage.pyramid.shard_published", 3),
        ("storage.pyramid.declared", 1),
        ("storage.pyramid.listed", 1),
        ("storage.document.written", 2),
    ],
)
def test_killed_in_between_it_goes_on(tmp_path: Path, point: str, nth: int) -> None:
    path = tmp_path / "run.ome.zarr"
    write(path, 9, FORMS[1])
    environment = {**os.environ, VARIABLE: f"{point}:{nth}"}
    done = subprocess.run([sys.executable, "-c", CHILD, path], env=environment, check=False, stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(listed(path)) == 1 or point == "storage.pyramid.listed"
    assert np.array_equal(READERS["tensorstore"](path, 9), [frame_of(k, SHAPE) for k in range(1, 10)])
    storage.build_pyramid(path)
    check(path, 9)
    assert not list(path.rglob("*.part"))


STREAM = """
import sys
from storage_oracles_frames import frame_of
from mutoscope import storage
with storage.open_writer(sys.argv[1], shape=(301, 514), dtype="uint16", frames_per_shard=2, pyramid=True) as writer:
    for k in range(1, 10_000):
        receipt = writer.append(frame_of(k, (301, 514)))
        print(receipt.position, flush=True)
"""


@pytest.mark.parametrize("point", ["storage.pyramid.shard_published:2", "storage.publish.part_written:3"])
def test_a_stream_killed_with_its_pyramid_beside_it(tmp_path: Path, point: str) -> None:
    path = tmp_path / "run.ome.zarr"
    environment = {**os.environ, VARIABLE: point, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", STREAM, path], env=environment, check=False, stdout=subprocess.PIPE, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    count = len(done.stdout.split())
    assert len(listed(path)) == 1
    assert np.array_equal(READERS["zarr-python"](path, count), [frame_of(k, SHAPE) for k in range(1, count + 1)])
    frames = storage.recover(path).images[0].frames
    assert count <= frames <= count + 1
    assert not list(path.rglob("*.part"))
    storage.build_pyramid(path)
    check(path, frames)


def test_a_full_disk_leaves_the_frames_and_no_list(mount: Any) -> None:
    disk = mount(12_000)
    path = disk / "run.ome.zarr"
    write(path, 6)
    take_all(disk)
    with pytest.raises(DiskFullError):
        storage.build_pyramid(path)
    assert len(listed(path)) == 1
    assert np.array_equal(zarr.open_group(path, mode="r")["0"][5], frame_of(6, SHAPE))
    (disk / "other").unlink()
    storage.build_pyramid(path)
    check(path, 6)


def test_it_is_built_while_the_stream_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=SHAPE, dtype="uint16", frames_per_shard=2, pyramid=True) as writer:
        for k in range(1, 8):
            assert writer.append(frame_of(k, SHAPE)).acknowledged
        until((path / "2/c/2/0/0").exists)
        assert len(listed(path)) == 1
    check(path, 7)


def test_a_size_that_is_not_stored_is_refused(tmp_path: Path) -> None:
    for name in ("run.ome.zarr", "run.ome.tiff"):
        with storage.open_writer(tmp_path / name, shape=SHAPE, dtype="uint16") as writer:
            writer.append(frame_of(1, SHAPE))
        with storage.open_reader(tmp_path / name) as reader:
            assert (reader.levels, reader.levels_of(0)) == (1, 1)
            assert np.array_equal(reader.read(0), frame_of(1, SHAPE))
            assert np.array_equal(reader.read(0, rows=slice(3, 9), columns=slice(0, 4)), frame_of(1, SHAPE)[3:9, :4])
            with pytest.raises(ConfigError, match="no level 1"):
                reader.read(0, level=1)
            with pytest.raises(ConfigError, match="does not lie inside"):
                reader.read(0, rows=slice(0, SHAPE[0] + 1))


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="OME-Zarr"):
        storage.open_writer(tmp_path / "run.ome.tiff", shape=SHAPE, dtype="uint16", pyramid=True)
    write(tmp_path / "run.ome.zarr", 1)
    with pytest.raises(ConfigError, match="not 17"):
        storage.build_pyramid(tmp_path / "run.ome.zarr", levels=17)
