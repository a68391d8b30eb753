"""What an operator reads when something fails: whose it is, what really happened, and each thing once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from lab import PATHS, EveryFrame, Idler, Looker, Rogue, camera, kill, status_of

import mutoscope as ms
from mutoscope import storage
from mutoscope.model.errors import ConfigError, RemoteError
from mutoscope.runtime import Ledger, Restart
from polling import until


class Odd(Exception):
    """Of a class that only its own process knows."""


class Unready(Idler):
    error: Any = None

    def setup(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ValueError("no such device"), ValueError, "Unready could not be set up: no such device"),
        (
            FileNotFoundError(2, "No such file or directory", "/dev/laser"),
            FileNotFoundError,
            "Unready could not be .*/dev/laser",
        ),
        (Odd("strange"), RemoteError, "Odd: Unready could not be set up: strange"),
        (KeyError("gain"), KeyError, "Unready could not be set up: 'gain'"),
        (ZeroDivisionError(), ZeroDivisionError, "Unready could not be set up"),
    ],
)
def test_an_error_of_a_setup_names_the_worker(error: Exception, kind: type[Exception], words: str) -> None:
    scope = ms.Scope(camera=camera(), workers=[Looker, ms.WorkerSettings(Unready, settings={"error": error})])
    with pytest.raises(kind, match=words) as caught:
        scope.start()
    assert "in setup" in str(caught.value.remote_traceback)  # type: ignore[attr-defined]


class Relapsing(Rogue):
    """Fails in the same way after each restart."""

    restart = Restart(limit=3, backoff_s=0.01)

    def step(self) -> None:
        if self.scope.tables or self.state.mode == "relapse":
            raise ValueError("the same as ever")
        super().step()


def test_the_same_failure_after_each_restart_is_told_in_full_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(), workers=[Relapsing], record=path, reserve_bytes=0) as scope:
        scope.set_state(mode="relapse")
        until(lambda: status_of(scope, "Relapsing").state == "failed")
        assert "the same as ever" in status_of(scope, "Relapsing").last_traceback
    log = (tmp_path / "run.mutoscope" / "scope.log").read_text()
    said = capfd.readouterr().err
    assert log.count("Traceback (most recent call last)") == 1
    assert said.count("Traceback (most recent call last)") == 1
    for restarts in ("1 restart", "2 restarts", "3 restarts"):
        assert f"Relapsing failed: ValueError: the same as ever (again, the same error; {restarts})" in log
    assert said.count("mutoscope: worker Relapsing failed again, the same error\n") == 3


def test_a_worker_that_is_killed_while_the_scope_ends_is_not_said_to_be_out_of_restarts(tmp_path: Path) -> None:
    slow = ms.WorkerSettings(EveryFrame, settings={"pause_s": 0.2, "on_full": "block"})
    scope = ms.Scope(camera=camera(), workers=[slow], record=tmp_path / "run.ome.zarr", reserve_bytes=0)
    with scope:
        scope.acquire(frames=10)
        pid = status_of(scope, "EveryFrame").pid
        killer = subprocess.Popen(
            [sys.executable, "-c", KILL_WHEN_DRAINING, str(tmp_path / "run.mutoscope" / "scope.log"), str(pid)]
        )
    assert killer.wait(30) == 0
    assert scope.result is not None
    [error] = scope.result.errors
    assert error == "EveryFrame was killed by SIGKILL while the scope was ending, and was not started again"


KILL_WHEN_DRAINING = """
import os, signal, sys, time
until = time.monotonic() + 20
while "the scope ends" not in open(sys.argv[1]).read():
    assert time.monotonic() < until
    time.sleep(0.002)
os.kill(int(sys.argv[2]), signal.SIGKILL)
"""


class SlowAgain(Rogue):
    """Is set up at once the first time, and takes long the second time."""

    restart = Restart(backoff_s=0.01)

    def setup(self) -> None:
        if self._host_or_raise().incarnation > 1:
            time.sleep(60)


@pytest.mark.alone
def test_a_scope_does_not_wait_for_a_worker_that_is_not_set_up_again_yet(tmp_path: Path) -> None:
    with ms.Scope(camera=camera(), workers=[SlowAgain], record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        kill(scope, "SlowAgain", signal.SIGKILL)
        until(lambda: status_of(scope, "SlowAgain").state == "setting up")
        began = time.monotonic()
    assert time.monotonic() - began < 4.5, "it had 5 s to end in order, which it cannot"
    assert scope.result is not None
    assert scope.result.errors == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"good": 1, "stage": object()}, r"settings\['stage'\] cannot be saved: .*object"),
        ({"roi": {"corner": 1j}}, r"settings\['roi'\] cannot be saved"),
        ({"big": 2**70}, r"settings\['big'\] cannot be saved"),
        ({"folder": Path("/data")}, r"settings\['folder'\] cannot be saved: .*Path"),
        ({3: "three"}, "the name of a setting is text, not 3"),
        ({"deep": [{"a": {"b": [sys]}}]}, r"settings\['deep'\] cannot be saved: .*module"),
    ],
)
def test_settings_that_cannot_be_saved_are_refused_by_name(settings: dict[Any, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        ms.Scope(workers=[Idler], settings=settings)
    assert "\n" not in str(caught.value)


FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
import mutoscope as ms
from lab import camera, Looker
scope = ms.Scope(camera=camera(), workers=[Looker], record=sys.argv[2], reserve_bytes=0)
try:
    scope.start()
except ms.model.errors.ConfigError as error:
    print(error)
else:
    scope.stop()
    print("started")
"""


@pytest.mark.parametrize("limit", [24, 40, 64])
def test_too_few_open_files_are_said_in_one_sentence(limit: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FEW_FILES, str(limit), str(tmp_path / "run.ome.zarr")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [sentence] = done.stdout.splitlines()
    assert f"the limit of open files is {limit}" in sentence
    assert "ulimit -n" in sentence
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run.ome.zarr").exists()


INTERRUPTED = """
import sys, time
import mutoscope as ms
from lab import camera, Looker
if __name__ == "__main__":
    with ms.Scope(camera=camera(), workers=[Looker], record=sys.argv[1], reserve_bytes=0) as scope:
        if sys.argv[2] == "acquires":
            print("running", flush=True)
            scope.acquire(seconds=60, on_progress=lambda scope: None)
        scope.start_acquisition()
        print("running", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("program", ["acquires", "sleeps"])
def test_a_plain_program_that_is_interrupted_leaves_one_traceback_and_its_summary(program: str, tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    (tmp_path / "program.py").write_text(INTERRUPTED)
    child = subprocess.Popen(
        [sys.executable, "program.py", str(path), program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "running\n"
    until(lambda: storage.info(path)["frames"] > 20)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does
    _, said = child.communicate(timeout=30)
    assert child.returncode == -signal.SIGINT
    assert said.count("Traceback") == 1
    first, *rest = said.splitlines()
    assert first.startswith("the scope has ended (interrupted): camera: produced ")
    assert first.endswith(f"the data are in {path}")
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == "KeyboardInterrupt"
    ledger = Ledger(json.loads((tmp_path / "run.mutoscope" / "ledger.json").read_text()))
    assert ledger.exact, ledger.problems
    assert ledger.stored == ledger.produced == storage.info(path)["frames"]
    assert f"stored {ledger.stored:,}" in first
    assert ledger.to_dict()["reason"] == "interrupted"


class NotAgain(Rogue):
    """Is set up once and never again."""

    restart = Restart(limit=3, backoff_s=0.01)

    def setup(self) -> None:
        if self._host_or_raise().incarnation > 1:
            raise OSError(19, "No such device", "/dev/laser")


def test_a_setup_that_fails_after_each_restart_is_told_in_full_once(tmp_path: Path) -> None:
    with ms.Scope(camera=camera(), workers=[NotAgain], record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        kill(scope, "NotAgain", signal.SIGKILL)
        until(lambda: status_of(scope, "NotAgain").state == "failed")
        assert "in setup" in status_of(scope, "NotAgain").last_traceback
    assert scope.result is not None
    [error] = scope.result.errors
    assert "setup failed: [Errno 19] No such device: '/dev/laser' and is out of restarts" in error
    log = (tmp_path / "run.mutoscope" / "scope.log").read_text()
    assert log.count("Traceback (most recent call last)") == 1
    assert log.count("again, the same error") == 2
