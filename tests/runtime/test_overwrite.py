"""``overwrite=True``: what is replaced is deleted only once the scope that replaces it has started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab import PATHS, Idler, Looker, camera

import mutoscope as ms
from mutoscope import storage
from mutoscope.model._faults import VARIABLE
from mutoscope.model.errors import ConfigError, PeerDiedError, UnknownCommandError
from mutoscope.runtime import Restart
from polling import until

FRAMES = 12


class FailsToSetUp(Idler):
    def setup(self) -> None:
        raise ValueError("no such device")


class DiesInSetUp(Idler):
    restart = Restart(limit=0)

    def setup(self) -> None:
        os._exit(9)


class WaitsInSetUp(Idler):
    def setup(self) -> None:
        self.log.warning("in setup")
        while not self.stopping:
            self._host_or_raise().serve()
            time.sleep(0.01)


class Unasked(ms.Command):
    pass


class SendsToNobody(Idler):
    sends = (Unasked,)


def recorded(path: Path) -> dict[str, bytes]:
    """Record a data set; returns every file of it and of its folder, but the lock."""
    with ms.Scope(camera=camera(), record=path, reserve_bytes=0) as scope:
        scope.acquire(frames=FRAMES)
    return files(path.parent)


def files(folder: Path) -> dict[str, bytes]:
    """Return what is below a folder; looks again when something is renamed meanwhile."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            return {
                str(entry.relative_to(folder)): entry.read_bytes()
                for entry in folder.rglob("*")
                if entry.is_file() and entry.name != "failed-start.log"
            }


@pytest.mark.parametrize("worker", [FailsToSetUp, DiesInSetUp, SendsToNobody])
def test_a_start_that_fails_leaves_the_old_data_set_as_it_was(worker: type[ms.Worker], tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    before = recorded(path)
    scope = ms.Scope(camera=camera(), workers=[worker], record=path, overwrite=True, reserve_bytes=0)
    with pytest.raises((ValueError, PeerDiedError, UnknownCommandError, ConfigError)) as caught:
        scope.start()
    assert files(tmp_path) == before
    assert str(caught.value) in (tmp_path / "run.mutoscope" / "failed-start.log").read_text()
    assert storage.info(path)["frames"] == FRAMES


def test_a_start_that_is_interrupted_leaves_the_old_data_set_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    before = recorded(path)
    program = f"""
import mutoscope as ms
from lab import camera
from test_overwrite import WaitsInSetUp
ms.Scope(camera=camera(), workers=[WaitsInSetUp], record={str(path)!r}, overwrite=True, reserve_bytes=0).start()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)}, stderr=subprocess.PIPE
    )
    log = tmp_path / "run.mutoscope" / "scope.log.starting"
    until(lambda: log.exists() and "in setup" in log.read_text())
    assert storage.info(path)["frames"] == 0
    [kept] = tmp_path.glob("run.replaced*.ome.zarr")
    assert storage.info(kept)["frames"] == FRAMES
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert b"KeyboardInterrupt" in said
    until(lambda: files(tmp_path) == before, what="the old data set is back")


def test_a_start_that_succeeds_begins_the_data_set_and_the_log_anew(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    recorded(path)
    folder = tmp_path / "run.mutoscope"
    (folder / "notes.txt").write_text("mine")
    old_log, old_audit = (folder / "scope.log").read_text(), (folder / "audit.jsonl").read_text()
    with ms.Scope(camera=camera(), workers=[Looker], record=path, overwrite=True, reserve_bytes=0) as scope:
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run.mutoscope", "run.ome.zarr"]
        assert not (folder / "ledger.json").exists(), "that of the old run is not that of this one"
        scope.acquire(frames=5)
    log, audit = (folder / "scope.log").read_text(), (folder / "audit.jsonl").read_text()
    assert old_log.splitlines()[0] not in log
    assert old_audit.splitlines()[0] not in audit
    assert "ring of" in log, "what was said before it had started is there"
    assert json.loads((folder / "ledger.json").read_text())["cameras"]["camera"]["produced"] == 5
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "audit.jsonl", "ledger.json", "lock", "notes.txt", "report.html", "scope.json", "scope.log",
    ]  # fmt: skip
    assert storage.info(path)["frames"] == 5


POINTS = ["storage.create.built", "storage.create.beside", "storage.create.placed", "scope.started", "storage.create.hidden"]


@pytest.mark.parametrize("point", POINTS)
def test_a_supervisor_that_is_killed_as_it_starts_loses_nothing(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.ome.zarr"
    recorded(path)
    monkeypatch.setenv(VARIABLE, point)
    scope = ms.Scope(camera=camera(), record=path, overwrite=True, reserve_bytes=0)
    with pytest.raises((PeerDiedError, ConnectionError)):
        scope.start()
    monkeypatch.delenv(VARIABLE)
    frames = {entry.name: storage.info(entry)["frames"] for entry in tmp_path.glob("*.zarr")}
    assert frames.get("run.ome.zarr") in (0, FRAMES)
    if point != "storage.create.hidden":  # then the new one had started
        assert FRAMES in frames.values()
    with ms.Scope(camera=camera(), record=path, overwrite=True, reserve_bytes=0) as scope:
        scope.acquire(frames=3)
    assert storage.info(path)["frames"] == 3
    left = sorted(entry for entry in tmp_path.glob("run.replaced*.ome.zarr"))
    for each in left:
        assert storage.info(each)["frames"] == frames[each.name], "what a killed start left is the user's to delete"
        assert f"{each} was replaced by a run that was killed" in (tmp_path / "run.mutoscope" / "scope.log").read_text()
    assert bool(left) is (point in ("storage.create.beside", "storage.create.placed", "scope.started"))


def test_a_program_that_is_killed_while_its_scope_starts_leaves_the_old_data_set(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    before = recorded(path)
    program = f"""
import mutoscope as ms
from lab import camera
from test_overwrite import WaitsInSetUp
ms.Scope(camera=camera(), workers=[WaitsInSetUp], record={str(path)!r}, overwrite=True, reserve_bytes=0).start()
"""
    child = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)})
    until(lambda: list(tmp_path.glob("run.replaced*.ome.zarr")))
    child.kill()
    child.wait()
    until(lambda: files(tmp_path) == before, what="the old data set is back")
