"""A full disk, on a small file system of its own: the run ends in order, says so, and what was acknowledged is stored."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Looker, camera

import mutoscope as ms
from mutoscope import storage
from mutoscope.bench.faults import check_data_set
from mutoscope.model.errors import DiskFullError
from polling import until

Mount = Callable[[int], Path]
SHAPE = (64, 64)


def test_a_full_disk_ends_the_run_and_loses_nothing_acknowledged(mount: Mount) -> None:
    path = mount(3000) / "run.ome.zarr"
    acknowledged = 0
    with ms.Scope(camera=camera(400, shape=SHAPE), workers=[Looker], record=path, reserve_bytes=0) as scope:

        def look(scope: ms.Scope) -> None:
            nonlocal acknowledged
            if scope.running:
                acknowledged = scope.ledger.stored

        with pytest.raises(DiskFullError, match="was not stored"):
            scope.acquire(on_progress=look)
        assert scope.wait(30.0)
    assert scope.result is not None
    assert scope.result.exit_reason == "disk_full"
    assert any("was not stored" in error for error in scope.result.errors)
    ledger = scope.ledger
    assert ledger.exact, ledger.problems
    assert ledger.pending == 0
    assert ledger.dropped["disk_full"] >= 1
    assert ledger.stored + ledger.dropped["disk_full"] == ledger.produced
    assert 100 < acknowledged <= ledger.stored
    assert check_data_set(path, camera(shape=SHAPE), acknowledged=ledger.stored) == []
    with storage.open_reader(path) as reader:
        assert len(reader) == ledger.stored
        assert reader.ledger is not None  # the writer's own reserve leaves room for it
        assert reader.ledger["reason"] == "disk_full"


def test_the_reserve_ends_the_run_in_order_and_stores_what_is_in_flight(mount: Mount) -> None:
    path = mount(6000) / "run.ome.zarr"
    with ms.Scope(camera=camera(400, shape=SHAPE), record=path, reserve_bytes=2_000_000) as scope:
        with pytest.raises(DiskFullError, match="the reserve is 2,000,000: the recording ends in order"):
            scope.acquire()
        assert scope.wait(30.0)
    assert scope.result is not None
    assert scope.result.exit_reason == "disk_reserve"
    ledger = scope.ledger
    assert ledger.exact, ledger.problems
    assert ledger.stored == ledger.produced > 100
    assert ledger.dropped.get("disk_reserve", 0) == 0
    assert check_data_set(path, camera(shape=SHAPE), acknowledged=ledger.stored) == []


def test_what_cannot_fit_is_refused_before_it_starts(mount: Mount) -> None:
    path = mount(6000) / "run.ome.zarr"
    with ms.Scope(camera=camera(400, shape=SHAPE), record=path, reserve_bytes=1_000_000) as scope:
        with pytest.raises(DiskFullError, match=r"100,000 frames need 8\d\d,\d{3},\d{3} bytes, \d,\d{3},\d{3} are free"):
            scope.acquire(frames=100_000)
        with pytest.raises(DiskFullError, match="3600 s need"):
            scope.acquire(seconds=3600.0)
        assert scope.ledger.produced == 0
        assert scope.acquire(frames=100).stored == {"camera": 100}
    assert scope.result is not None
    assert scope.result.errors == []


def test_the_log_on_a_full_disk_does_not_end_the_run(mount: Mount, tmp_path: Path) -> None:
    # the data set is elsewhere, by a link; its log and ledger are on the disk that fills up
    disk = mount(512)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with ms.Scope(camera=camera(), workers=[Looker], record=elsewhere / "run.ome.zarr", reserve_bytes=0) as scope:
        folder = scope.folder
        assert folder is not None
    for name in ("run.ome.zarr", "run.mutoscope"):
        subprocess.run(["rm", "-r", str(elsewhere / name)], check=True)
    (disk / "log").mkdir()
    (elsewhere / "run.mutoscope").symlink_to(disk / "log")
    with ms.Scope(camera=camera(), workers=[Looker], record=elsewhere / "run.ome.zarr", reserve_bytes=0) as scope:
        scope.start_acquisition()
        with open(disk / "filler", "wb") as file:
            until(lambda: _fill(file.fileno()))
        for _ in range(200):
            scope.set_state(settings={"note": "x" * 200})
        before = scope.ledger.stored
        until(lambda: scope.ledger.stored > before + 20)
        scope.stop_acquisition()
        assert scope.wait_acquisition(30.0)
    assert scope.result is not None
    assert scope.result.exit_reason == "stopped"
    [error] = scope.result.errors
    assert "the log could not be written" in error
    assert "No space left on device" in error
    assert scope.ledger.exact
    assert scope.ledger.stored == scope.ledger.produced
    with storage.open_reader(scope.path or "") as reader:
        assert reader.ledger is not None


def _fill(fd: int) -> bool:
    try:
        os.write(fd, b"x" * 4096)
    except OSError:
        return True
    return False


def test_a_data_set_that_does_not_fit_at_all_is_refused(mount: Mount) -> None:
    disk = mount(64)
    scope = ms.Scope(camera=camera(shape=SHAPE), record=disk / "run.ome.zarr", reserve_bytes=0)
    with pytest.raises((DiskFullError, ms.model.errors.ConfigError), match=r"full|No space left"):
        scope.start()
    assert not (disk / "run.ome.zarr").exists()
