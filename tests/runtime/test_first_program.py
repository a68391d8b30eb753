"""The first program of the design, and what happens when any of its processes is killed or Ctrl-C is pressed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zarr
from lab import PATHS, EveryFrame, Looker, back, camera, kill, status_of

import mutoscope as ms
from mutoscope import storage
from mutoscope.bench.faults import check_data_set, left_behind, marked_processes
from polling import until

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "spot_counter.py"

PROGRAM = """
import sys, time
sys.path[:0] = {paths!r}
from lab import Looker, camera
import mutoscope as ms
if __name__ == "__main__":
    with ms.Scope(camera=camera(), workers=[Looker], record={path!r}, reserve_bytes=0, outlive={outlive}) as scope:
        print(scope.supervisor_pid, *(status.pid for status in scope.status()), flush=True)
        {body}
    print("ended", scope.result.exit_reason, scope.ledger.exact, scope.ledger.pending, flush=True)
"""
WATCH = """
        scope.start_acquisition({frames})
        while True:
            print(scope.ledger.stored, flush=True)
            time.sleep(0.01)
"""


def test_the_example_runs_as_it_is_printed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "produced 1,000, stored 1,000" in done.stdout
    with storage.open_reader(tmp_path / "run.ome.zarr") as reader:
        assert reader.frame_ids.tolist() == list(range(1, 1001))
        ledger = ms.runtime.Ledger(reader.ledger or {})
    assert ledger.exact
    assert (ledger.produced, ledger.stored, ledger.pending) == (1000, 1000, 0)
    log = (tmp_path / "run.mutoscope" / "scope.log").read_text()
    assert "the scope ends: stopped" in log


@contextmanager
def program(tmp_path: Path, body: str, *, outlive: bool = False) -> Iterator[tuple[subprocess.Popen[str], list[int], Path]]:
    """A real program with a scope: its process, the pids of supervisor and workers, the data set."""
    path = tmp_path / "run.ome.zarr"
    text = PROGRAM.format(
        paths=PATHS,
        path=str(path),
        outlive=outlive,
        body=textwrap.dedent(body).strip().replace("\n", "\n        "),
    )
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, process.communicate()[1]
        yield process, [int(word) for word in first.split()], path
    finally:
        process.kill()
        process.communicate()


def stored(process: subprocess.Popen[str], at_least: int) -> int:
    """Read the program's reports until so many frames are acknowledged."""
    assert process.stdout is not None
    while (count := int(process.stdout.readline())) < at_least:
        pass
    return count


def test_ctrl_c_ends_the_program_in_order(tmp_path: Path) -> None:
    with program(tmp_path, WATCH.format(frames=None)) as (process, _, path):
        stored(process, 20)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in error
    assert "mutoscope: worker" not in error
    with storage.open_reader(path) as reader:
        ledger = ms.runtime.Ledger(reader.ledger or {})
        assert ledger.produced == ledger.stored == len(reader) >= 20
        assert ledger.exact
        assert reader.attributes["state"] == "closed"
    assert out is not None


def test_ctrl_c_twice_ends_it_now(tmp_path: Path) -> None:
    body = WATCH.format(frames=None)
    with program(tmp_path, body) as (process, pids, path):
        acknowledged = stored(process, 20)
        os.kill(pids[1], signal.SIGSTOP)  # the recorder, so that an orderly end would take long
        process.send_signal(signal.SIGINT)
        until(lambda: "the scope ends" in (tmp_path / "run.mutoscope" / "scope.log").read_text())
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        print(f"ended {time.monotonic() - began:.2f} s after the second Ctrl-C")
    assert check_data_set(path, camera(), acknowledged=acknowledged) == []
    with storage.open_reader(path) as reader:
        ledger = ms.runtime.Ledger(reader.ledger or {})
    assert ledger.exact, ledger.problems
    assert ledger.pending == 0
    assert ledger.stored + ledger.dropped.get("stopped", 0) == ledger.produced


@pytest.mark.parametrize("stopped", [False, True], ids=["all run", "the worker is stopped"])
def test_sigkill_of_the_supervisor_ends_everything(stopped: bool, tmp_path: Path, nothing_left: str) -> None:
    with program(tmp_path, WATCH.format(frames=None)) as (process, pids, path):
        acknowledged = stored(process, 50)
        if stopped:
            os.kill(pids[2], signal.SIGSTOP)
        os.kill(pids[0], signal.SIGKILL)
        began = time.monotonic()
        out, error = process.communicate(timeout=60)
        print(f"the program ended {time.monotonic() - began:.2f} s after the supervisor's death")
        left = left_behind(nothing_left, 10.0)
        print(f"all gone {time.monotonic() - began:.2f} s after it")
    assert left == []
    assert process.returncode == 1
    assert "PeerDiedError" in error, error
    assert "the supervisor is gone" in error
    assert "ended" not in out
    assert check_data_set(path, camera(), acknowledged=acknowledged) == []
    assert zarr.open_group(path, mode="r")["0"].shape[1:] == (16, 24)
    # what was published is stored too: the recorder drains the ring before it ends
    with storage.open_reader(path) as reader:
        assert len(reader) >= acknowledged
        assert reader.attributes["state"] == "closed"
    # and nothing has to be cleaned up by hand
    with ms.Scope(camera=camera(), record=path, resume=True, reserve_bytes=0) as scope:
        scope.acquire(frames=5)
    assert scope.ledger.exact


def test_sigkill_of_the_program_is_an_orderly_stop(tmp_path: Path, nothing_left: str) -> None:
    with program(tmp_path, WATCH.format(frames=None)) as (process, _, path):
        acknowledged = stored(process, 50)
        process.kill()
        process.wait()
        assert left_behind(nothing_left, 30.0) == []
    assert check_data_set(path, camera(), acknowledged=acknowledged) == []
    with storage.open_reader(path) as reader:
        ledger = ms.runtime.Ledger(reader.ledger or {})
        assert ledger.exact
        assert ledger.produced == ledger.stored == len(reader)
    assert "program_ended" in (tmp_path / "run.mutoscope" / "scope.log").read_text()


def test_an_outliving_run_goes_on_until_its_frames_are_stored(tmp_path: Path, nothing_left: str) -> None:
    with program(tmp_path, WATCH.format(frames=500), outlive=True) as (process, _, path):
        stored(process, 20)
        process.kill()
        process.wait()
        assert left_behind(nothing_left, 60.0) == []
    assert check_data_set(path, camera(), acknowledged=500) == []
    with storage.open_reader(path) as reader:
        assert len(reader) == 500
        assert ms.runtime.Ledger(reader.ledger or {}).exact


def test_a_worker_that_is_killed_is_back_and_the_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(), workers=[Looker, EveryFrame], record=path, reserve_bytes=0) as scope:
        pids = {status.name: status.pid for status in scope.status()}
        scope.start_acquisition()
        for name in ("camera", "recorder", "EveryFrame", "Looker"):
            before = scope.ledger.stored
            kill(scope, name)
            back(scope, name)
            until(lambda before=before: scope.ledger.stored > before + 20)  # type: ignore[misc]
            assert "SIGKILL" in status_of(scope, name).last_error
        for status in scope.status():
            assert status.restarts == 1, status
            assert status.pid != pids[status.name]
        scope.stop_acquisition()
        assert scope.wait_acquisition(30.0)
    assert scope.result == ms.app.scope.ScopeResult("stopped")
    ledger = scope.ledger
    assert ledger.exact, ledger.problems
    assert ledger.produced == ledger.stored
    assert ledger.restarts == {"camera": 1, "recorder": 1, "EveryFrame": 1, "Looker": 1}
    consumers = ledger.cameras["camera"]["consumers"]
    assert consumers["Looker"]["offered"] == consumers["EveryFrame"]["offered"] == ledger.produced
    assert check_data_set(path, camera(), acknowledged=ledger.stored) == []
    assert all(len(status.recovery_s) == 1 for status in scope.status())
    print("recovery", {status.name: status.recovery_s for status in scope.status()})


def test_processes_are_named(tmp_path: Path, nothing_left: str) -> None:
    with ms.Scope(camera=camera(), workers=[Looker], record=tmp_path / "run.ome.zarr", reserve_bytes=0):
        names = {Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].strip() for pid in marked_processes(nothing_left)}
    assert names == {b"mutoscope:supervisor", b"mutoscope:camera", b"mutoscope:recorder", b"mutoscope:Looker"}


def test_frames_of_the_data_set_are_those_of_the_camera(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(), record=path, reserve_bytes=0) as scope:
        result = scope.acquire(frames=50)
    assert result.produced == result.stored == {"camera": 50}
    assert result.reasons == {"camera": "complete"}
    group = zarr.open_group(path, mode="r")
    assert np.array_equal(group["frames/frame_id"][:50], np.arange(1, 51))
    assert check_data_set(path, camera(), acknowledged=50) == []
