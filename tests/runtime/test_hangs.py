"""Workers that hang are noticed and named; none of them can keep a scope from ending."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from lab import Bystander, EveryFrame, Looker, Misbehave, Misbehaving, Rogue, camera, kill, status_of

import mutoscope as ms
from mutoscope import storage
from mutoscope.bench.faults import check_data_set, left_behind, marked_processes
from mutoscope.model.errors import PeerDiedError
from mutoscope.runtime import Ledger, Restart, control
from polling import until


def test_a_stopped_worker_is_noticed_named_and_resumes(tmp_path: Path) -> None:
    notices: list[control.Notice] = []
    changes: list[control.WorkerChanged] = []
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(), workers=[Looker, EveryFrame], record=path, reserve_bytes=0, hang_report_s=1.5) as scope:
        scope.subscribe(control.Notice, notices.append)
        scope.subscribe(control.WorkerChanged, changes.append)
        scope.start_acquisition()
        until(lambda: scope.ledger.stored > 20)
        for name in ("Looker", "recorder", "camera"):
            pid = kill(scope, name, signal.SIGSTOP)
            until(lambda name=name: status_of(scope, name).state == "not responding")  # type: ignore[misc]
            os.kill(pid, signal.SIGCONT)
            until(lambda name=name: status_of(scope, name).state == "running")  # type: ignore[misc]
            told = [
                notice.text for notice in notices if notice.level == logging.WARNING and f"{name} (pid {pid})" in notice.text
            ]
            assert len(told) == 1, notices
            assert "has not responded for" in told[0]
            assert "it is stopped (SIGSTOP)" in told[0]
            assert any(change.worker == name and change.state == "not responding" for change in changes)
            until(lambda name=name: f"{name} responds again" in [notice.text for notice in notices])  # type: ignore[misc]
        before = scope.ledger.stored
        until(lambda: scope.ledger.stored > before + 20)
    assert scope.result is not None
    assert scope.result.errors == []
    assert scope.ledger.restarts == {}
    assert scope.ledger.exact, scope.ledger.problems
    assert scope.ledger.stored == scope.ledger.produced
    assert "SIGSTOP" in (tmp_path / "run.mutoscope" / "scope.log").read_text()


def test_a_reader_that_holds_the_camera_without_working_is_named() -> None:
    worker = ms.WorkerSettings(EveryFrame, settings={"on_full": "block", "pause_s": 4.0})
    notices: list[control.Notice] = []
    with ms.Scope(camera=camera(), workers=[worker], hang_report_s=1.0, ring_slots=20) as scope:
        scope.subscribe(control.Notice, notices.append)
        scope.start_acquisition()
        until(lambda: status_of(scope, "EveryFrame").state == "not responding")
        until(lambda: any("it holds the camera and is" in notice.text for notice in notices))
        scope.stop(now=True)


def test_a_recorder_that_hangs_ends_the_run_in_order(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    scope = ms.Scope(camera=camera(), record=path, reserve_bytes=0, hang_report_s=0.8, recorder_hang_s=2.0)
    with scope:
        number = scope.start_acquisition()
        assert number == 1
        until(lambda: scope.ledger.stored > 20)
        acknowledged = scope.ledger.stored
        kill(scope, "recorder", signal.SIGSTOP)
        with pytest.raises(PeerDiedError, match=r"recorder has not responded for .* s and was killed"):
            scope.wait_acquisition(60.0)
        assert scope.wait(30.0)
    assert scope.result is not None
    assert scope.result.exit_reason == "recorder_lost"
    assert scope.result.errors[0].startswith("recorder has not responded for")
    ledger = scope.ledger
    assert ledger.exact, ledger.problems
    assert ledger.pending == 0
    assert ledger.dropped["recorder_lost"] > 0
    assert ledger.stored + ledger.dropped["recorder_lost"] == ledger.produced
    assert check_data_set(path, camera(), acknowledged=acknowledged) == []
    with storage.open_reader(path) as reader:
        assert Ledger(reader.ledger or {}).to_dict()["reason"] == "recorder_lost"


def test_a_recorder_out_of_restarts_ends_the_run_in_order(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(), record=path, reserve_bytes=0, restarts={"recorder": Restart(limit=1)}) as scope:
        scope.start_acquisition()
        until(lambda: scope.ledger.stored > 20)
        kill(scope, "recorder")
        until(lambda: status_of(scope, "recorder").restarts == 1 and status_of(scope, "recorder").state == "running")
        before = scope.ledger.stored
        until(lambda: scope.ledger.stored > before)
        kill(scope, "recorder")
        with pytest.raises(PeerDiedError, match="recorder was killed by SIGKILL and is out of restarts"):
            scope.wait_acquisition(30.0)
        assert scope.wait(30.0)
    assert scope.result is not None
    assert scope.result.exit_reason == "recorder_lost"
    assert scope.ledger.exact, scope.ledger.problems
    assert scope.ledger.stored + scope.ledger.dropped.get("recorder_lost", 0) == scope.ledger.produced


def test_workers_that_ignore_the_end_are_ended() -> None:
    rogues = [ms.WorkerSettings(Rogue, name=how) for how in ("spin", "block")]
    with ms.Scope(camera=camera(), workers=[*rogues, Looker]) as scope:
        pids = {how: status_of(scope, how).pid for how in ("spin", "block")}
        deaf: list[str] = []
        scope.subscribe(Misbehaving, lambda event: deaf.append(event.who))
        for how in pids:
            scope.send(Misbehave(how=how), to=how)
        until(lambda: sorted(deaf) == ["block", "spin"])
        began = time.monotonic()
    print(f"ended {time.monotonic() - began:.1f} s after being asked")
    assert scope.result is not None
    assert scope.result.exit_reason == "stopped"
    assert sorted(scope.result.errors) == sorted(
        f"{how} (pid {pid}) did not end in time and was killed" for how, pid in pids.items()
    )
    assert status_of(scope, "Looker").state == "ended"
    assert {status_of(scope, how).state for how in pids} == {"failed"}


def test_a_deaf_worker_is_gone_soon_after_its_supervisor(nothing_left: str) -> None:
    scope = ms.Scope(workers=[Rogue, Bystander])
    scope.start()
    deaf: list[str] = []
    scope.subscribe(Misbehaving, lambda event: deaf.append(event.who))
    scope.send(Misbehave(how="spin"), to="Rogue")
    until(lambda: deaf == ["Rogue"])
    os.kill(scope.supervisor_pid, signal.SIGKILL)
    began = time.monotonic()
    assert left_behind(nothing_left, 10.0) == []
    print(f"all gone {time.monotonic() - began:.2f} s after the supervisor")
    scope.close()
    assert scope.result is not None
    assert scope.result.exit_reason == "supervisor_lost"


def test_what_a_worker_started_ends_with_it(nothing_left: str) -> None:
    with ms.Scope(workers=[Rogue]) as scope:
        scope.send(Misbehave(how="child"))
        until(lambda: len([item for item in left_behind(nothing_left, 0.0) if item.startswith("process")]) == 3)
        kill(scope, "Rogue")
        until(lambda: status_of(scope, "Rogue").restarts == 1 and status_of(scope, "Rogue").state == "running")
        assert len([item for item in left_behind(nothing_left, 0.0) if item.startswith("process")]) == 2


class SlowToMake(Rogue):
    """A class that takes long to load."""

    def __init__(self) -> None:
        Path(os.environ["MADE_AT"]).touch()
        while True:
            try:
                ctypes.PyDLL(None).usleep(300_000)  # keeps the interpreter for itself, as a heavy import does
            except BaseException:
                continue


def test_a_worker_that_is_still_loading_ends_with_its_supervisor(tmp_path: Path, nothing_left: str) -> None:
    made, path = tmp_path / "made", tmp_path / "run.ome.zarr"
    scope = ms.Scope(
        camera=camera(), workers=[SlowToMake], record=path, environment={"SlowToMake": {"MADE_AT": str(made)}}, reserve_bytes=0
    )
    raised: list[BaseException] = []

    def start() -> None:
        try:
            scope.start()
        except PeerDiedError as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    try:
        until(made.exists)
        supervisor = json.loads((tmp_path / "run.mutoscope" / "scope.json").read_text())["supervisor_pid"]
        assert len(marked_processes(nothing_left)) >= 3
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: not marked_processes(nothing_left), "the worker that loads is gone, too")
    finally:
        thread.join()
    assert raised
