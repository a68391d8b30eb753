"""Crash reports: whatever ends a worker is told, with its traceback or the signal's name, everywhere where somebody looks."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab import Bystander, Idler, Look, Misbehave, Rogue, camera, status_of

import mutoscope as ms
from mutoscope.model.errors import CameraError, PeerDiedError, RemoteError
from mutoscope.runtime import Restart, control
from polling import until


class FailsInSetup(Idler):
    def setup(self) -> None:
        raise RuntimeError("the laser is not plugged in")


class ExitsInSetup(Idler):
    def setup(self) -> None:
        raise SystemExit(3)


class FailsInSecondSetup(Rogue):
    def setup(self) -> None:
        if self._host is not None and self._host.incarnation > 1:
            raise RuntimeError("the second time is different")


class FailsInTeardown(Idler):
    def teardown(self) -> None:
        raise RuntimeError("the shutter does not close")


class FailsInSafeState(Rogue):
    def safe_state(self) -> None:
        raise RuntimeError("the brake is broken")


class FailsInFirstStep(ms.Worker):
    """Fails in the first step of its first process."""

    again = ""

    def step(self) -> None:
        if self._host is not None and self._host.incarnation == 1:
            raise RuntimeError("too early")
        Path(self.again).touch()
        super().step()


class Slow(ms.Worker):
    """Is set up only when the other is there again."""

    again = ""

    def setup(self) -> None:
        until(lambda: Path(self.again).exists())


def test_who_fails_while_others_are_set_up_is_restarted_as_later(tmp_path: Path) -> None:
    again = {"again": str(tmp_path / "again")}
    workers = [ms.WorkerSettings(FailsInFirstStep, settings=again), ms.WorkerSettings(Slow, settings=again)]
    with ms.Scope(workers=workers) as scope:
        assert status_of(scope, "FailsInFirstStep").restarts == 1


@pytest.mark.parametrize(
    ("how", "words", "in_trace"),
    [
        ("raise", "ValueError: the step was told to fail", 'raise ValueError("the step was told to fail")'),
        ("exit", "SystemExit: 3", "sys.exit(3)"),
        ("_exit", "ended with exit code 3", ""),
        ("segfault", "was killed by SIGSEGV: Fatal Python error: Segmentation fault", "lab.py"),
    ],
)
def test_what_ends_a_step_is_told_everywhere(how: str, words: str, in_trace: str, tmp_path: Path) -> None:
    notices: list[control.Notice] = []
    changes: list[control.WorkerChanged] = []
    with ms.Scope(camera=camera(), workers=[Rogue], record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        scope.subscribe(control.Notice, notices.append)
        scope.subscribe(control.WorkerChanged, changes.append)
        scope.start_acquisition()
        scope.send(Misbehave(how=how), to="Rogue")
        until(lambda: status_of(scope, "Rogue").restarts == 1 and status_of(scope, "Rogue").state == "running")
        status = status_of(scope, "Rogue")
        assert status.last_error == words
        assert in_trace in status.last_traceback
        assert any(words.partition(":")[2].strip() in notice.text for notice in notices)
        assert any(change.worker == "Rogue" and change.state == "restarting" and words in change.message for change in changes)
        scope.stop_acquisition()
        scope.wait_acquisition()
    log = (tmp_path / "run.mutoscope" / "scope.log").read_text()
    assert words.rpartition(": ")[2] in log
    assert in_trace in log
    assert "Rogue is back after" in log
    assert scope.result is not None
    assert scope.result.errors == []
    assert scope.ledger.exact


def test_a_handler_that_raises_ends_nothing(tmp_path: Path) -> None:
    with ms.Scope(camera=camera(), workers=[Idler], record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        pid = status_of(scope, "Idler").pid
        with pytest.raises(ValueError, match="the handler was told to fail") as caught:
            scope.request(Misbehave(how="raise in handler"))
        assert 'raise ValueError("the handler was told to fail")' in caught.value.remote_traceback  # type: ignore[attr-defined]
        scope.send(Misbehave(how="raise in handler"))
        log = tmp_path / "run.mutoscope" / "scope.log"
        until(lambda: log.read_text().count("the handler was told to fail") >= 2)
        assert status_of(scope, "Idler").pid == pid
        assert status_of(scope, "Idler").restarts == 0
        assert scope.request(Look(attribute="name")) == "Idler"
    audit = (tmp_path / "run.mutoscope" / "audit.jsonl").read_text()
    assert "ValueError: the handler was told to fail" in audit


@pytest.mark.parametrize(
    ("worker", "error", "words"),
    [
        (FailsInSetup, RuntimeError, "the laser is not plugged in"),
        (ExitsInSetup, RemoteError, "SystemExit: 3"),
    ],
)
def test_a_setup_that_fails_stops_the_start(
    worker: type[ms.Worker], error: type[Exception], words: str, tmp_path: Path, nothing_left: str
) -> None:
    path = tmp_path / "run.ome.zarr"
    scope = ms.Scope(camera=camera(), workers=[worker, Bystander], record=path, reserve_bytes=0)
    with pytest.raises(error, match=words) as caught:
        scope.start()
    assert "in setup" in (caught.value.remote_traceback or "")  # type: ignore[attr-defined]
    assert not scope.running
    assert not path.exists()  # so that the corrected program can start
    assert words.partition(": ")[2] in (tmp_path / "run.mutoscope" / "scope.log").read_text()


def test_a_setup_that_fails_after_a_restart_is_tried_as_the_policy_says() -> None:
    worker = ms.WorkerSettings(FailsInSecondSetup, restart=Restart(limit=2))
    with ms.Scope(workers=[worker, Bystander]) as scope:
        scope.send(Misbehave(how="raise"), to="FailsInSecondSetup")
        until(lambda: status_of(scope, "FailsInSecondSetup").state == "failed")
        status = status_of(scope, "FailsInSecondSetup")
        assert status.restarts == 2
        assert "the second time is different" in status.last_error
        assert scope.running
        with pytest.raises(PeerDiedError):
            scope.request(Look(attribute="name"))
    assert scope.result is not None
    [error] = scope.result.errors
    assert "FailsInSecondSetup" in error
    assert "out of restarts" in error


def test_a_teardown_that_fails_is_reported(tmp_path: Path) -> None:
    with ms.Scope(camera=camera(), workers=[FailsInTeardown], record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        scope.acquire(frames=5)
    assert scope.result is not None
    assert scope.result.exit_reason == "stopped"
    [error] = scope.result.errors
    assert error.startswith("FailsInTeardown ended with exit code 70: RuntimeError: the shutter does not close")
    assert scope.ledger.stored == 5


def test_a_safe_state_that_fails_does_not_hide_the_first_error() -> None:
    with ms.Scope(workers=[FailsInSafeState]) as scope:
        scope.send(Misbehave(how="raise"))
        until(lambda: status_of(scope, "FailsInSafeState").restarts == 1)
        status = status_of(scope, "FailsInSafeState")
        assert status.last_error == "ValueError: the step was told to fail"
        assert "and its safe_state() failed" in status.last_traceback
        assert "the brake is broken" in status.last_traceback
        scope.stop(now=True)


def test_a_camera_that_fails_is_restarted_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(raise_at=20), record=path, reserve_bytes=0) as scope:
        result = scope.acquire(frames=60)
        assert status_of(scope, "camera").restarts == 1
        assert "told to fail at tick 20" in status_of(scope, "camera").last_error
    assert result.stored == {"camera": 60}
    assert scope.ledger.exact


def test_a_camera_out_of_restarts_is_a_camera_error(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    failing = camera(raise_at=20, fault_repeats=True, buffer_frames=64)  # more than it exposes: none is missed
    with ms.Scope(camera=failing, record=path, reserve_bytes=0, restarts={"camera": Restart(limit=1)}) as scope:
        with pytest.raises(CameraError, match=r"camera ended with exit code 70.* told to fail at tick 20.* is out of restarts"):
            scope.acquire(frames=600)
        assert scope.running
        with pytest.raises(CameraError, match="the camera is failed"):
            scope.acquire(frames=5)
    assert scope.result is not None
    assert len(scope.result.errors) == 1
    assert scope.ledger.exact
    assert scope.ledger.stored == scope.ledger.produced == 38
