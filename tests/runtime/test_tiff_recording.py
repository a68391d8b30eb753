"""Recording into OME-TIFF: the same promises as OME-Zarr, judged by tifffile."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from lab import Idler, camera, kill_recorder_twice

import mutoscope as ms
from mutoscope import storage
from mutoscope.model.errors import ConfigError, DatasetExistsError, DiskFullError
from polling import until

SHAPE = (64, 64)


def check(path: Path, ids: list[int]) -> None:
    """Compare all that tifffile finds with what the camera showed at its tick."""
    with storage.open_reader(path) as reader:
        assert reader.frame_ids.tolist() == ids
        ticks = reader.ticks.tolist()
    with tifffile.TiffFile(path) as file:
        frames = file.series[0].asarray().reshape(-1, *SHAPE)
    assert len(frames) == len(ids)
    simulated = camera(shape=SHAPE)
    for frame, tick in zip(frames, ticks, strict=True):
        np.testing.assert_array_equal(frame, simulated.expected_frame(int(tick)))


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_every_frame_is_stored_once_though_the_recorder_is_killed_and_the_run_resumed(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "run.ome.tiff"
    options: dict[str, Any] = {"record": path, "compression": compression, "reserve_bytes": 0}
    with ms.Scope(camera=camera(200, shape=SHAPE), **options) as scope:
        assert scope.acquire(frames=30).stored == {"camera": 30}
        scope.start_acquisition()
        kill_recorder_twice(scope)
    ledger = scope.ledger
    assert ledger.exact, ledger.problems
    assert ledger.stored == ledger.produced
    first = ledger.stored
    check(path, list(range(1, first + 1)))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run.mutoscope", "run.ome.tiff", "run.ome.tiff.json"]
    with pytest.raises(DatasetExistsError, match="exists already"):
        ms.Scope(camera=camera(shape=SHAPE), **options).start()
    with ms.Scope(camera=camera(200, shape=SHAPE), resume=True, **options) as scope:
        scope.acquire(frames=15)
        os.kill(scope.supervisor_pid, signal.SIGKILL)
        assert scope.wait(10.0)
    with ms.Scope(camera=camera(200, shape=SHAPE), resume=True, **options) as scope:
        scope.acquire(frames=5)
    account = scope.ledger.cameras["camera"]
    assert (account["first_id"], account["last_id"], account["stored"]) == (first + 16, first + 20, 5)
    check(path, list(range(1, first + 21)))
    found = storage.info(path)
    assert (found["complete"], found["frames"], len(found["earlier_runs"])) == (True, first + 20, 2)
    assert found["ledger"]["reason"] == "stopped"


def test_a_full_disk_ends_the_run_and_every_frame_is_accounted_for(mount: Callable[[int], Path]) -> None:
    path = mount(3000) / "run.ome.tiff"
    with ms.Scope(camera=camera(400, shape=SHAPE), record=path, reserve_bytes=0) as scope:
        with pytest.raises(DiskFullError, match="was not stored"):
            scope.acquire()
        assert scope.wait(30.0)
    assert scope.result is not None
    assert scope.result.exit_reason == "disk_full"
    ledger = scope.ledger
    assert ledger.exact, ledger.problems
    assert ledger.dropped["disk_full"] > 0
    assert ledger.stored + ledger.dropped["disk_full"] == ledger.produced
    check(path, list(range(1, ledger.stored + 1)))


class FailsToSetUp(Idler):
    def setup(self) -> None:
        raise ValueError("no such device")


def test_what_is_replaced_stays_until_the_scope_has_started(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.tiff"
    with ms.Scope(camera=camera(shape=SHAPE), record=path, reserve_bytes=0) as scope:
        scope.acquire(frames=12)
    kept = path.read_bytes(), json.loads(Path(f"{path}.json").read_text())
    with pytest.raises(ValueError, match="no such device"):
        ms.Scope(camera=camera(shape=SHAPE), workers=FailsToSetUp, record=path, overwrite=True, reserve_bytes=0).start()
    assert (path.read_bytes(), json.loads(Path(f"{path}.json").read_text())) == kept
    with ms.Scope(camera=camera(shape=SHAPE), record=path, overwrite=True, reserve_bytes=0) as scope:
        scope.acquire(frames=3)
    check(path, [1, 2, 3])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run.mutoscope", "run.ome.tiff", "run.ome.tiff.json"]


def test_a_data_set_that_is_deleted_meanwhile_ends_the_run(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.tiff"
    with ms.Scope(camera=camera(100, shape=SHAPE), record=path, reserve_bytes=0) as scope:
        scope.start_acquisition()
        until(lambda: scope.ledger.stored > 5)
        Path(f"{path}.json").unlink()
        assert scope.wait(30.0)
    assert scope.result is not None
    assert scope.result.exit_reason == "dataset_lost"


def test_what_an_ome_tiff_cannot_hold_is_refused_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.tiff"
    varying = ms.SourceSettings(shape=SHAPE, dtype="uint16", varying=True)
    for options, said in (
        ({"cameras": {"left": camera(shape=SHAPE), "right": camera(shape=SHAPE)}}, "holds one camera, not 2"),
        ({"sources": {"source": varying}}, "frames of one shape"),
        ({"camera": camera(shape=SHAPE), "pyramid": True}, "pyramid"),
        ({"camera": camera(shape=SHAPE), "ome_zarr_version": "0.4"}, "ome_zarr_version"),
        ({"camera": camera(shape=SHAPE), "compression": "blosc-lz4"}, "zlib"),
    ):
        with pytest.raises(ConfigError, match=said):
            ms.Scope(record=path, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"0\.5"):
        ms.Scope(camera=camera(shape=SHAPE), record=tmp_path / "run.ome.zarr", ome_zarr_version="0.6")
    assert not list(tmp_path.iterdir())


def test_a_version_of_ome_zarr_and_smaller_levels_are_chosen(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(
        camera=camera(100, shape=(512, 512)), record=path, ome_zarr_version="0.4", pyramid=True, reserve_bytes=0
    ) as scope:
        scope.acquire(frames=10)
    assert scope.ledger.exact, scope.ledger.problems
    assert (path / ".zgroup").is_file()
    [image] = storage.info(path)["images"]
    assert (image["frames"], image["levels"]) == (10, 2)
