"""Somebody renames or deletes the data set while it is recorded: noticed within seconds, said once, ended in order."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import camera, status_of

import mutoscope as ms
from mutoscope import storage
from mutoscope.app.summary import RunSummary
from mutoscope.bench.faults import check_data_set
from mutoscope.model.errors import DatasetNotFoundError
from mutoscope.runtime import Ledger
from polling import until

NOTICED_S = 15.0


def rename(path: Path) -> Path:
    return path.rename(path.with_name("elsewhere.ome.zarr"))


def rename_parent(path: Path) -> Path:
    return path.parent.rename(path.parent.with_name("renamed")) / path.name


def delete(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    (path / "zarr.json").unlink(missing_ok=True)


def replace(path: Path) -> Path:
    moved = rename(path)
    storage.create_recording(path, {"camera": storage.CameraLayout(shape=(16, 24), dtype="uint16")})
    return moved


@pytest.mark.parametrize("cameras", [1, 2])
@pytest.mark.parametrize("harm", [rename, rename_parent, delete, replace])
def test_a_data_set_that_is_moved_or_deleted_ends_the_run(
    harm: Callable[[Path], Path | None], cameras: int, tmp_path: Path
) -> None:
    path = tmp_path / "runs" / "run.ome.zarr"
    named = {"camera": camera()} if cameras == 1 else {"left": camera(), "right": camera()}
    with ms.Scope(cameras=named, record=path, reserve_bytes=0) as scope:
        scope.start_acquisition()
        until(lambda: scope.ledger.stored > 40)
        began = time.monotonic()
        moved = harm(path)
        assert scope.wait(NOTICED_S)
        assert time.monotonic() - began < NOTICED_S
        with pytest.raises(DatasetNotFoundError, match=r"run\.ome\.zarr was (moved to|deleted)"):
            scope.acquire(frames=1)
    assert scope.result is not None
    assert scope.result.exit_reason == "dataset_lost"
    what = f"moved to {moved}" if moved is not None else "deleted"
    first, *others = scope.result.errors
    assert first == f"the data set {path} was {what} while it was recorded"
    assert len(others) == (harm is rename_parent), "the folder of the log went with it, and that is said, too"
    summary = RunSummary.of(scope)
    assert (summary.exit_code, summary.path) == (1, str(moved or path))
    assert summary.errors == scope.result.errors
    ledger = scope.ledger
    assert ledger.exact, ledger.problems
    assert ledger.pending == 0
    assert ledger.stored + ledger.dropped.get("dataset_lost", 0) == ledger.produced
    assert ledger.restarts == {}
    if moved is None:
        assert ledger.stored == 0
        return
    assert ledger.stored > 40
    assert not storage.recover(moved).changed, "its tail is trimmed already"
    for name in named:
        with storage.open_reader(moved, camera=name) as reader:
            assert len(reader) == ledger.cameras[name]["stored"]
            assert reader.ledger is not None
            assert Ledger(reader.ledger).exact
    if cameras == 1:
        assert check_data_set(moved, camera(), acknowledged=ledger.stored) == []


@pytest.mark.parametrize("compression", ["zstd", "blosc-lz4"])
@pytest.mark.parametrize("harm", [rename, delete, replace])
def test_a_compressed_data_set_that_is_moved_or_deleted_leaves_no_ghost(
    harm: Callable[[Path], Path | None], compression: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(), record=path, compression=compression, reserve_bytes=0) as scope:
        scope.start_acquisition()
        until(lambda: scope.ledger.stored > 40)
        moved = harm(path)
        if moved is None:
            until(lambda: shutil.rmtree(path, ignore_errors=True) or not path.exists())
        assert scope.wait(NOTICED_S)
    assert scope.result is not None
    assert (scope.result.exit_reason, len(scope.result.errors)) == ("dataset_lost", 1)
    assert scope.ledger.exact, scope.ledger.problems
    if harm is replace:
        assert storage.info(path)["frames"] == 0
        assert not [file for file in (path / "0").rglob("*") if file.is_file() and file.name != "zarr.json"]
    else:
        assert not path.exists(), sorted(path.rglob("*"))
    if moved is not None:
        assert check_data_set(moved, camera(), acknowledged=scope.ledger.stored) == []
    if harm is not replace:
        with ms.Scope(camera=camera(), record=path, reserve_bytes=0) as scope:
            scope.acquire(frames=5)
        assert scope.ledger.stored == 5


@pytest.mark.parametrize("harm", [rename, delete])
def test_a_recorder_that_is_killed_after_it_is_not_started_in_vain(harm: Callable[[Path], Path | None], tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(), record=path, reserve_bytes=0) as scope:
        scope.start_acquisition()
        until(lambda: scope.ledger.stored > 40)
        recorder = status_of(scope, "recorder").pid
        os.kill(recorder, signal.SIGSTOP)  # it does not notice by itself
        moved = harm(path)
        os.kill(recorder, signal.SIGKILL)
        assert scope.wait(NOTICED_S)
    assert scope.result is not None
    what = f"moved to {moved}" if moved is not None else "deleted"
    assert scope.result.errors == [f"the data set {path} was {what} while it was recorded"]
    assert scope.result.exit_reason == "dataset_lost"
    assert scope.ledger.restarts == {}
    assert scope.ledger.exact, scope.ledger.problems
    assert scope.ledger.pending == 0
    if moved is not None:
        assert storage.open_images(moved) == []
        assert check_data_set(moved, camera(), acknowledged=scope.ledger.stored) == []


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("part", ["frames", "frames/frame_id", "frames/tick/c/0", "0"])
def test_parts_of_it_that_are_deleted_end_the_run_soon(part: str, compression: str | None, tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(), record=path, compression=compression, reserve_bytes=0) as scope:
        scope.start_acquisition()
        until(lambda: scope.ledger.stored > 40)
        if (path / part).is_dir():
            until(lambda: shutil.rmtree(path / part, ignore_errors=True) or not (path / part).exists())
        else:
            (path / part).unlink()
        assert scope.wait(NOTICED_S)
    assert scope.result is not None
    assert scope.result.exit_reason == "dataset_lost"
    first, *_ = scope.result.errors
    assert first.startswith(part), scope.result.errors
    assert "was deleted" in first or "were deleted" in first
    assert f"of the data set {path} " in first
    assert scope.ledger.restarts == {}
    assert not [error for error in scope.result.errors if ".part" in error]


def test_an_idle_scope_notices_it_too(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(), record=path, reserve_bytes=0) as scope:
        scope.acquire(frames=10)
        rename(path)
        assert scope.wait(NOTICED_S)
    assert scope.result is not None
    assert scope.result.exit_reason == "dataset_lost"
    assert scope.ledger.exact
    assert scope.ledger.stored == 10
