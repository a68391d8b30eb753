"""A run that goes on in another folder: several data sets, one ledger."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab import back, camera, kill, status_of

import mutoscope as ms
from mutoscope import storage
from mutoscope.model.errors import ConfigError, DatasetExistsError, DiskFullError, ScopeStateError
from polling import until

FRAMES = 20


def ids_of(dataset: Path, of: str) -> list[int]:
    with storage.open_reader(dataset, camera=of) as reader:
        return [int(each) for each in reader.frame_ids]


@pytest.mark.parametrize(("name", "cameras"), [("run.ome.zarr", ["left", "right"]), ("run.ome.tiff", ["only"])])
def test_recorders_go_on_in_the_new_data_set_also_after_their_death(tmp_path: Path, name: str, cameras: list[str]) -> None:
    several = {each: camera() for each in cameras}
    with ms.Scope(cameras=several, record=tmp_path / name, setup_timeout_s=60) as scope:
        scope.acquire(frames=FRAMES)
        second = scope.set_folder("later")
        assert second == scope.path == tmp_path / "later" / name
        scope.acquire(frames=FRAMES)
        with pytest.raises(DatasetExistsError):
            scope.set_folder("later")
        scope.start_acquisition()
        recorder = next(each.name for each in scope.status() if each.kind == "recorder")
        kill(scope, recorder)
        back(scope, recorder)
        scope.stop_acquisition()
        assert scope.wait_acquisition(timeout_s=30)
    assert scope.result is not None
    assert scope.result.errors == []
    assert scope.ledger.exact, scope.ledger.problems
    assert scope.ledger.produced == scope.ledger.stored
    assert f"stored in 2 data sets: {tmp_path / name}, {second}" in scope.ledger.summary()
    for each in cameras:
        assert ids_of(tmp_path / name, each) == list(range(1, FRAMES + 1))
        assert ids_of(second, each) == list(range(FRAMES + 1, scope.ledger.cameras[each]["produced"] + 1))


def test_what_is_not_recorded_has_no_folder() -> None:
    with ms.Scope(camera=camera()) as scope, pytest.raises(ConfigError, match="does not record"):
        scope.set_folder("later")


@pytest.mark.parametrize("name", ["run.ome.zarr", "run.ome.tiff"])
def test_no_data_set_begins_inside_another_or_in_the_log(name: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    storage.create_recording(root / "old.ome.zarr", {"camera": storage.CameraLayout((4, 4), "uint8")})
    (root / "same").symlink_to(root / "old.ome.zarr")
    (root / "day").mkdir()
    (root / "day" / "same").symlink_to("../old.ome.zarr/frames")
    with ms.Scope(camera=camera(), record=root / name) as scope:
        scope.acquire(frames=FRAMES)
        before = sorted(root.rglob("*"))
        for inside in ("old.ome.zarr", "old.ome.zarr/0/c", "old.ome.zarr/new", "same", "same/new", "day/same"):
            with pytest.raises(ConfigError, match="is inside a data set: choose one beside it"):
                scope.set_folder(inside)
        with pytest.raises(ConfigError, match="is inside the one of the run's own log"):
            scope.set_folder("run.mutoscope/more")
        for odd in ("day\n2026-01-01 00:00:00 all is well", "a\tb", "a\x7f"):
            with pytest.raises(ConfigError, match="the folder of a recording is one below"):
                scope.set_folder(odd)
        assert sorted(root.rglob("*")) == before
        assert scope.set_folder("day") == root / "day" / name
        scope.acquire(frames=FRAMES)
    assert scope.ledger.exact, scope.ledger.problems
    assert ids_of(root / "day" / name, "camera") == list(range(FRAMES + 1, 2 * FRAMES + 1))


def test_nothing_is_acquired_while_a_recorder_is_on_its_way(tmp_path: Path) -> None:
    with ms.Scope(camera=camera(), record=tmp_path / "run.ome.zarr") as scope, ThreadPoolExecutor(1) as other:
        scope.acquire(frames=FRAMES)
        pid = kill(scope, "recorder", signal.SIGSTOP)
        try:
            later = other.submit(scope.set_folder, "later")
            until(lambda: scope.state.dataset.folder == "later")
            for act in (scope.start_acquisition, lambda: scope.set_folder("elsewhere")):
                with pytest.raises(ScopeStateError, match="the folder of the recording is being changed"):
                    act()
        finally:
            os.kill(pid, signal.SIGCONT)
        second = later.result(60)
        scope.acquire(frames=FRAMES)
        assert scope.state.dataset.first_ids == {"camera": FRAMES + 1}
        kill(scope, "recorder", signal.SIGSTOP)  # and one that dies on its way is no hindrance
        third = other.submit(scope.set_folder, "third")
        until(lambda: scope.state.dataset.folder == "third")
        kill(scope, "recorder")
        assert third.result(60) == tmp_path / "third" / "run.ome.zarr"
        back(scope, "recorder")
        scope.acquire(frames=FRAMES)
    assert scope.ledger.exact, scope.ledger.problems
    for number, dataset in enumerate((tmp_path / "run.ome.zarr", second, third.result())):
        assert ids_of(dataset, "camera") == list(range(number * FRAMES + 1, (number + 1) * FRAMES + 1))


def test_a_folder_on_a_disk_without_room_is_refused_and_the_run_goes_on(mount: Callable[[int], Path], tmp_path: Path) -> None:
    disk = mount(4000)
    with ms.Scope(camera=camera(), record=tmp_path / "run.ome.zarr", reserve_bytes=8_000_000) as scope:
        scope.acquire(frames=FRAMES)
        for folder in (disk.name, f"{disk.name}/a/b"):
            with pytest.raises(DiskFullError, match=r"are free where .*, the reserve is 8,000,000: choose another folder"):
                scope.set_folder(folder)
        assert list(disk.iterdir()) == []
        scope.acquire(frames=FRAMES)
        assert status_of(scope, "recorder").restarts == 0
    assert scope.result is not None
    assert scope.result.errors == []
    assert scope.ledger.exact, scope.ledger.problems
    assert ids_of(tmp_path / "run.ome.zarr", "camera") == list(range(1, 2 * FRAMES + 1))
