"""The rows that workers write while a scope records: all of them are stored, once, in order, whoever is killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab import PATIENT, Looker, back, camera, kill

import mutoscope as ms
from mutoscope import storage
from polling import until

FRAMES = 20
COLUMNS = [("row_id", "u8"), ("frame_id", "u8"), ("x_px", ">f8")]


class Writer(ms.Worker):
    """Writes rows that say which they are: some with each frame, and a last one at the end."""

    camera = "camera"
    table_name = "spots"
    columns: Any = COLUMNS
    batch = 7
    capacity = 65536

    def setup(self) -> None:
        self.frames = self.reader(self.camera, policy="latest")
        self.rows = self.table(self.table_name, dtype=self.columns, capacity=self.capacity)
        self.write(0, 1)

    def write(self, frame_id: int, count: int) -> None:
        first = self.rows.row_id + 1
        rows = np.zeros(count, np.dtype(self.columns))
        rows["row_id"], rows["frame_id"] = np.arange(first, first + count), frame_id
        self.rows.append(rows)

    def step(self) -> None:
        with self.frames.next(timeout_s=0.1) as frame:
            self.write(frame.frame_id, self.batch)

    def teardown(self) -> None:
        self.write(10**9, 1)


def stored(path: Path, table: str = "spots") -> np.ndarray:
    """What stock NumPy reads of a table of a run, and this package too."""
    place = path.with_name(path.name.partition(".")[0] + ".mutoscope") / "tables" / f"{table}.npy"
    rows: np.ndarray = np.load(place, mmap_mode="r")
    assert np.array_equal(storage.run_tables(path)[table][: len(rows)], rows)
    return rows


def check(scope: ms.Scope, path: Path, table: str = "spots") -> None:
    """Every row of a table is stored, once, in order."""
    account = scope.ledger.to_dict()["tables"][table]
    rows = stored(path, table)
    assert rows["row_id"].tolist() == list(range(1, account["appended"] + 1))
    assert int(rows["frame_id"][-1]) == 10**9, "the last row is that of the worker's teardown"
    assert (account["stored"], account["lost"], account["pending"]) == (len(rows), {}, 0)
    assert scope.ledger.exact, scope.ledger.problems
    assert f"table {table}: {len(rows):,} rows, stored {len(rows):,}, lost 0" in scope.ledger.summary()


@pytest.mark.parametrize("name", ["run.ome.zarr", "run.ome.tiff"])
def test_all_rows_are_stored_from_the_first_on(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with ms.Scope(camera=camera(), workers=[Writer], record=path) as scope:
        scope.acquire(frames=FRAMES)
        until(lambda: len(stored(path)) == scope.ledger.to_dict()["tables"]["spots"]["appended"])
        assert stored(path).dtype == np.dtype(COLUMNS).newbyteorder("<")
    check(scope, path)
    report = (tmp_path / "run.mutoscope" / "report.html").read_text()
    count = f"{len(stored(path)):,}"
    assert f"<tr><td>spots<td>Writer<td>{count}<td>{count}<td>–" in report


def test_a_scope_that_does_not_record_stores_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ms.Scope(camera=camera(), workers=[Writer]) as scope:
        scope.acquire(frames=FRAMES)
    assert "stored" not in scope.ledger.to_dict()["tables"]["spots"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("point", ["rows.written:3", "rows.counted:3", "recorder.rows_stored:3"])
def test_a_recorder_killed_at_any_point_stores_each_row_once(tmp_path: Path, point: str) -> None:
    path = tmp_path / "run.ome.zarr"
    killed = {"recorder": {"MUTOSCOPE_KILL_POINT": point}}
    with ms.Scope(camera=camera(), workers=[Writer], record=path, environment=killed, restarts={"recorder": PATIENT}) as scope:
        scope.start_acquisition()
        until(lambda: scope.ledger.restarts.get("recorder", 0) >= 3, timeout_s=120)
        scope.stop_acquisition()
        assert scope.wait_acquisition(60.0)
    check(scope, path)
    assert scope.ledger.produced == scope.ledger.stored


def test_random_kills_of_recorder_and_worker(tmp_path: Path) -> None:
    path, chance = tmp_path / "run.ome.zarr", random.Random(3)
    patient = {"recorder": PATIENT, "Writer": PATIENT}
    with ms.Scope(camera=camera(), workers=[Writer], record=path, restarts=patient) as scope:
        scope.start_acquisition()
        for number in range(1, 9):
            time.sleep(chance.uniform(0.0, 0.4))
            for name in ("recorder", "Writer"):
                kill(scope, name)
            for name in ("recorder", "Writer"):
                back(scope, name, number)
        scope.stop_acquisition()
        assert scope.wait_acquisition(60.0)
    check(scope, path)
    assert scope.ledger.restarts == {"recorder": 8, "Writer": 8}


@pytest.mark.parametrize("pause_s", [0.0, 0.05, 0.3, 0.8])
def test_a_killed_supervisor_leaves_rows_that_anyone_reads(tmp_path: Path, pause_s: float) -> None:
    path = tmp_path / "run.ome.zarr"
    scope = ms.Scope(camera=camera(), workers=[Writer], record=path)
    scope.start()
    try:
        scope.start_acquisition()
        until(lambda: (tmp_path / "run.mutoscope" / "tables" / "spots.npy").exists())
        time.sleep(pause_s)
        before = len(stored(path))
        pids = [status.pid for status in scope.status()]
        assert scope.supervisor_pid is not None
        os.kill(scope.supervisor_pid, signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    finally:
        scope.stop()
    rows = stored(path)
    assert len(rows) >= before
    assert rows["row_id"].tolist() == list(range(1, len(rows) + 1))
    with ms.Scope(camera=camera(), workers=[Writer], record=path, resume=True) as again:
        again.acquire(frames=FRAMES)
    total = stored(path)
    account = again.ledger.to_dict()["tables"]["spots"]
    assert account["stored"] == account["appended"] == len(total) - len(rows)
    assert total["row_id"][len(rows) :].tolist() == list(range(1, account["appended"] + 1))


def test_two_cameras_and_another_folder(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    workers = [
        ms.WorkerSettings(Writer, name=f"of {name}", settings={"camera": name, "table_name": f"spots of {name}"})
        for name in ("left", "right")
    ]
    with ms.Scope(cameras={"left": camera(), "right": camera(120)}, workers=workers, record=path) as scope:
        scope.acquire(frames=FRAMES)
        second = Path(scope.set_folder("day2/dish1"))
        scope.acquire(frames=FRAMES)
        for recorder in ("recorder.left", "recorder.right"):
            kill(scope, recorder)
            back(scope, recorder)
    for name in ("left", "right"):
        check(scope, path, f"spots of {name}")
    tables = storage.run_tables(path)
    assert sorted(tables) == ["spots of left", "spots of right"]
    for of in (second, tmp_path / "run.mutoscope"):
        found = storage.run_tables(of)
        assert found.keys() == tables.keys()
        assert all(np.array_equal(found[name], tables[name]) for name in tables)
    moved = tmp_path / "elsewhere" / "run.ome.zarr"
    moved.parent.mkdir()
    shutil.move(path, moved)
    assert storage.run_tables(moved) == {}


def test_rows_that_come_too_fast_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    flood = ms.WorkerSettings(Writer, settings={"capacity": 64, "batch": 1000})
    with ms.Scope(camera=camera(), workers=[flood], record=path) as scope:
        scope.acquire(frames=100)
        account = scope.ledger.to_dict()["tables"]["spots"]
        assert account["appended"] == account["stored"] + sum(account["lost"].values()) + account["pending"]
    account = scope.ledger.to_dict()["tables"]["spots"]
    rows = stored(path)
    assert account["lost"]["overrun"] == account["appended"] - len(rows) > 0
    assert (account["stored"], account["pending"]) == (len(rows), 0)
    assert (np.diff(rows["row_id"].astype(np.int64)) > 0).all()
    assert scope.ledger.exact, scope.ledger.problems


def test_a_full_disk_is_said_and_counted(mount: Callable[[int], Path], tmp_path: Path) -> None:
    # the data are on a disk with room, the run's folder, by a link, on one that fills up
    disk = mount(512)
    path = tmp_path / "run.ome.zarr"
    (disk / "run").mkdir()
    (tmp_path / "run.mutoscope").symlink_to(disk / "run")
    with ms.Scope(camera=camera(), workers=[Writer], record=path) as scope:
        scope.start_acquisition()
        until(lambda: "disk_full" in scope.ledger.to_dict()["tables"]["spots"]["lost"], timeout_s=120)
        before = scope.ledger.stored
        until(lambda: scope.ledger.stored > before + 20)
        scope.stop_acquisition()
        assert scope.wait_acquisition(30.0)
    assert scope.result is not None
    assert any("the rows of the table 'spots' are not stored any more" in error for error in scope.result.errors)
    account = scope.ledger.to_dict()["tables"]["spots"]
    rows = stored(path)
    assert rows["row_id"].tolist() == list(range(1, len(rows) + 1))
    assert len(rows) > 1000
    assert account["stored"] == len(rows)
    assert account["lost"] == {"disk_full": account["appended"] - len(rows)}
    assert scope.ledger.exact, scope.ledger.problems
    assert scope.ledger.stored == scope.ledger.produced


def test_a_deleted_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(), workers=[Writer], record=path) as scope:
        scope.start_acquisition()
        until(lambda: scope.ledger.to_dict()["tables"]["spots"]["stored"] > 10)
        shutil.rmtree(tmp_path / "run.mutoscope" / "tables")
        until(lambda: "deleted" in scope.ledger.to_dict()["tables"]["spots"]["lost"])
    account = scope.ledger.to_dict()["tables"]["spots"]
    assert account["stored"] == 0
    assert account["lost"]["deleted"] == account["appended"]
    assert scope.result is not None
    assert any("was deleted while it was written" in error for error in scope.result.errors)
    assert scope.ledger.produced == scope.ledger.stored


class Careless(ms.Worker):
    def setup(self) -> None:
        raise ValueError("this one does not start")


def test_a_new_run_replaces_the_tables_of_the_one_before_only_when_it_has_started(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(), workers=[Writer], record=path) as scope:
        scope.acquire(frames=FRAMES)
    before = stored(path).copy()
    with pytest.raises(ValueError, match="does not start"):
        ms.Scope(camera=camera(), workers=[Writer, Careless], record=path, overwrite=True).start()
    assert np.array_equal(stored(path), before)
    with ms.Scope(camera=camera(), workers=[Looker], record=path, overwrite=True) as scope:
        scope.acquire(frames=FRAMES)
    assert storage.run_tables(path) == {}


def test_a_resumed_run_goes_on_in_the_same_file_or_with_other_columns_in_another(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    other = ms.WorkerSettings(Writer, settings={"columns": COLUMNS[:2]})
    appended = []
    for workers, resume in (([Writer], False), ([Writer], True), ([other], True)):
        with ms.Scope(camera=camera(), workers=workers, record=path, resume=resume) as scope:
            scope.acquire(frames=FRAMES)
        account = scope.ledger.to_dict()["tables"]["spots"]
        assert account["stored"] == account["appended"]
        appended.append(account["appended"])
    tables = storage.run_tables(path)
    assert {name: len(rows) for name, rows in tables.items()} == {"spots": appended[0] + appended[1], "spots.1": appended[2]}
    ids = tables["spots"]["row_id"].tolist()
    assert ids == [*range(1, appended[0] + 1), *range(1, appended[1] + 1)]
