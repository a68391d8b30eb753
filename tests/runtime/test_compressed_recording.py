"""Compressed recordings: nothing is committed before it is acknowledged, whatever ends the recorder or fills the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lab import camera, kill_recorder_twice

import mutoscope as ms
from mutoscope import storage
from mutoscope.bench.faults import check_data_set
from mutoscope.model.errors import ConfigError, DiskFullError
from polling import until

SHAPE = (64, 64)


@pytest.mark.parametrize("compression", ["blosc-lz4", "blosc-zstd", "zstd"])
def test_every_frame_is_stored_though_the_recorder_is_killed(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(200, shape=SHAPE), record=path, compression=compression, reserve_bytes=0) as scope:
        scope.acquire(frames=50)
        assert scope.ledger.stored == 50
        scope.start_acquisition()
        kill_recorder_twice(scope)
    ledger = scope.ledger
    assert ledger.exact, ledger.problems
    assert ledger.stored == ledger.produced
    assert check_data_set(path, camera(shape=SHAPE), acknowledged=ledger.stored) == []
    found = storage.info(path)
    [image] = found["images"]
    assert (found["frames"], image["gaps"], image["compression"], found["complete"]) == (ledger.stored, [], compression, True)


def test_a_full_disk_ends_the_run_and_every_frame_is_accounted_for(mount: Callable[[int], Path]) -> None:
    path = mount(3000) / "run.ome.zarr"
    with ms.Scope(camera=camera(400, shape=SHAPE), record=path, compression="blosc-lz4", reserve_bytes=0) as scope:
        with pytest.raises(DiskFullError, match="was not stored") as caught:
            scope.acquire()
        assert str(caught.value).count("not stored") == 1
        assert scope.wait(30.0)
    assert scope.result is not None
    assert scope.result.exit_reason == "disk_full"
    ledger = scope.ledger
    assert ledger.exact, ledger.problems
    assert ledger.pending == 0
    assert ledger.dropped["disk_full"] > 0
    assert ledger.stored + ledger.dropped["disk_full"] == ledger.produced
    assert check_data_set(path, camera(shape=SHAPE), acknowledged=ledger.stored) == []
    with storage.open_reader(path) as reader:
        assert reader.frame_ids.tolist() == list(range(1, ledger.stored + 1))
        assert reader.ledger is not None
        assert reader.ledger["reason"] == "disk_full"


def test_a_change_of_shape_stores_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    source = ms.SourceSettings(shape=SHAPE, dtype="uint16", rate_hz=100.0, varying=True)
    with ms.Scope(sources={"source": source}, record=path, compression="zstd", reserve_bytes=0) as scope:
        pushed = scope.source("source")
        for shape in [SHAPE] * 5 + [(32, 48)] * 5:
            pushed.push(np.ones(shape, "uint16"))
        until(lambda: scope.ledger.stored == 10)
    assert scope.ledger.exact, scope.ledger.problems
    assert [image["shape"] for image in storage.info(path)["images"]] == [[5, 64, 64], [5, 32, 48]]


def test_what_cannot_be_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="blosc-lz4"):
        ms.Scope(camera=camera(shape=SHAPE), record=tmp_path / "run.ome.zarr", compression="gzip").start()
    assert not list(tmp_path.iterdir())
