"""The user's program's side: whatever goes wrong in it, or to its supervisor, nothing is left and the error says what."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab import PATHS, Idler, Looker, Misbehave, camera, kill, status_of

import mutoscope as ms
from mutoscope.bench.faults import left_behind, marked_processes
from mutoscope.model.errors import CommandTimeoutError, PeerDiedError, ScopeStateError
from mutoscope.runtime import Restart, processes
from polling import until


class SlowSetup(ms.Worker):
    def setup(self) -> None:
        end = time.monotonic() + 60.0
        while time.monotonic() < end and not self.stopping:
            time.sleep(0.01)


class Doze(ms.Command):
    pass


class Dozes(ms.Event):
    pass


class SlowHandler(ms.Worker):
    @ms.handles(Doze)
    def doze(self, command: Doze) -> None:
        self.publish(Dozes())
        time.sleep(30.0)


class LaserOnFire(ms.Event):
    celsius: float


def kill_once(pid: int, condition: Callable[[], object]) -> threading.Thread:
    """Kill a process from another thread, once something is so."""

    def act() -> None:
        until(condition)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def dozing(scope: ms.Scope) -> Callable[[], bool]:
    """Return what tells whether SlowHandler has begun to doze."""
    heard = threading.Event()
    scope.subscribe(Dozes, lambda _: heard.set())
    return heard.is_set


def taking(scope: ms.Scope) -> Callable[[], bool]:
    """Return what tells whether the camera takes frames."""
    return lambda: status_of(scope, "camera").frames > 0


@pytest.mark.parametrize(
    ("wait", "begun"),
    [
        (lambda scope: scope.acquire(), taking),
        (lambda scope: (scope.start_acquisition(), scope.wait_acquisition()), taking),
        (lambda scope: scope.request(Doze(), timeout_s=60.0), dozing),
    ],
    ids=["acquire", "wait_acquisition", "request"],
)
def test_the_supervisor_dies_while_the_program_waits(
    wait: Callable[[ms.Scope], object], begun: Callable[[ms.Scope], Callable[[], bool]]
) -> None:
    scope = ms.Scope(camera=camera(), workers=[SlowHandler])
    scope.start()
    killer = kill_once(scope.supervisor_pid, begun(scope))
    with pytest.raises(PeerDiedError, match="the supervisor is gone"):
        wait(scope)
    killer.join()
    until(lambda: not scope.running)
    with pytest.raises(PeerDiedError, match="the supervisor is gone"):
        _ = scope.ledger
    assert scope.status() == []
    for ask in (lambda: scope.state, lambda: scope.acquire(frames=1), lambda: scope.reader(), scope.stop_acquisition):
        with pytest.raises(PeerDiedError, match="the supervisor"):
            ask()
    scope.close()
    assert scope.result is not None
    assert scope.result.exit_reason == "supervisor_lost"
    assert "was killed by SIGKILL" in scope.result.errors[0]
    with pytest.raises(ScopeStateError, match="this scope has no ledger: the supervisor was killed"):
        _ = scope.ledger


def test_the_supervisor_dies_during_the_start(nothing_left: str) -> None:
    scope = ms.Scope(workers=[SlowSetup])

    def murder() -> None:
        running = until(lambda: named if "SlowSetup" in (named := _named(nothing_left)) else None)
        os.kill(running["supervisor"], signal.SIGKILL)

    killer = threading.Thread(target=murder)
    killer.start()
    with pytest.raises(PeerDiedError, match="the supervisor is gone"):
        scope.start()
    killer.join()
    assert not scope.running


def _named(mark: str) -> dict[str, int]:
    """Return the processes of a scope by their names."""
    return {_name(pid).removeprefix("mutoscope:"): pid for pid in marked_processes(mark)}


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_start_that_takes_too_long_is_given_up() -> None:
    scope = ms.Scope(workers=[SlowSetup, Idler], setup_timeout_s=1.0)
    with pytest.raises(CommandTimeoutError, match="SlowSetup"):
        scope.start()
    assert not scope.running


def test_ctrl_c_during_the_start_leaves_nothing(nothing_left: str) -> None:
    text = f"""
import sys
sys.path[:0] = {PATHS!r}
import test_client, mutoscope as ms
if __name__ == "__main__":
    print("starting", flush=True)
    ms.Scope(workers=[test_client.SlowSetup]).start()
"""
    program = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: any(_name(pid) == "mutoscope:SlowSetup" for pid in marked_processes(nothing_left)))
        program.send_signal(signal.SIGINT)
        _, error = program.communicate(timeout=30)
    finally:
        program.kill()
        program.wait()
    assert "KeyboardInterrupt" in error
    assert left_behind(nothing_left, 5.0) == []


def test_a_supervisor_that_cannot_be_started_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.sys, "executable", "/bin/false")
    with pytest.raises(PeerDiedError, match="the supervisor is gone"):
        ms.Scope(workers=[Idler]).start()
    monkeypatch.setattr(processes.sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError, match="/nowhere/python"):
        ms.Scope(workers=[Idler]).start()


def test_a_program_that_forgets_to_stop_its_scope_ends_it_all_the_same(tmp_path: Path, nothing_left: str) -> None:
    text = f"""
import sys
sys.path[:0] = {PATHS!r}
from lab import *
if __name__ == "__main__":
    def forget():
        scope = ms.Scope(camera=camera(), workers=[Looker], record={str(tmp_path / "run.ome.zarr")!r}, reserve_bytes=0)
        scope.start()
        scope.acquire(frames=20)
    forget()
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert left_behind(nothing_left, 10.0) == []
    with ms.storage.open_reader(tmp_path / "run.ome.zarr") as reader:
        assert len(reader) == 20
        assert (reader.ledger or {})["reason"] == "program_ended"


def test_a_worker_that_dies_answers_nobody_any_more() -> None:
    with ms.Scope(workers=[SlowHandler, ms.WorkerSettings(Idler, restart=Restart(mode="never"))]) as scope:
        killer = kill_once(status_of(scope, "SlowHandler").pid, dozing(scope))
        with pytest.raises(PeerDiedError, match="SlowHandler did not answer Doze: "):
            scope.request(Doze(), timeout_s=60.0)
        killer.join()
        kill(scope, "Idler")
        until(lambda: status_of(scope, "Idler").state == "failed")
        with pytest.raises(PeerDiedError, match="Idler is not running"):
            scope.send(Misbehave(how=""))


def test_events_reach_program_and_workers_with_their_last_value() -> None:
    heard: list[float] = []
    with ms.Scope(workers=[Idler]) as scope:
        scope.publish(LaserOnFire(celsius=900.0))
        scope.subscribe(LaserOnFire, lambda event: heard.append(event.celsius))
        until(lambda: heard == [900.0])
        scope.publish(LaserOnFire(celsius=901.0))
        until(lambda: heard == [900.0, 901.0])


def test_many_threads_may_ask_at_once() -> None:
    with ms.Scope(camera=camera(), workers=[Looker]) as scope:
        scope.start_acquisition()
        answers: list[int] = []

        def ask() -> None:
            for _ in range(20):
                answers.append(scope.ledger.produced)
                scope.status()

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 120


def test_an_acquisition_waiting_in_a_thread_ends_with_the_scope(tmp_path: Path) -> None:
    ended: list[object] = []
    with ms.Scope(camera=camera(), record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        thread = threading.Thread(target=lambda: ended.append(scope.acquire()))
        thread.start()
        until(lambda: scope.ledger.stored > 10)
        scope.stop()
        thread.join(30.0)
    [result] = ended
    assert isinstance(result, ms.app.scope.AcquisitionResult)
    assert result.reasons == {"camera": "stopped"}
    assert result.stored == result.produced == {"camera": scope.ledger.stored}


class Begin(ms.Command):
    """Make the table."""


class Tabler(ms.Worker):
    """Has a table as soon as it is told to."""

    @ms.handles(Begin)
    def begin(self, command: Begin) -> None:
        self.rows = self.table("late", dtype=[("n", "u8")])


def _dup_without_end() -> Iterator[int]:
    while True:
        yield os.dup(0)


@contextmanager
def no_more_files() -> Iterator[None]:
    """Open as many as this process may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = max(map(int, os.listdir("/proc/self/fd"))) + 20
    opened: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            opened.extend(_dup_without_end())
        yield
    finally:
        for fd in opened:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_program_that_may_open_no_more_files_keeps_its_scope(tmp_path: Path) -> None:
    with ms.Scope(camera=camera(), workers=[Tabler], record=tmp_path / "run.ome.zarr") as scope:
        scope.send(Begin())  # there is a line from now on
        with no_more_files():
            for attach in (
                lambda: scope.reader("camera", policy="every"),
                lambda: scope.reader("camera", policy="latest"),
                lambda: scope.table_reader("late"),
            ):
                with pytest.raises(OSError, match="Too many open files"):
                    attach()
        scope.acquire(frames=10)
        reader = scope.reader("camera", policy="every")  # nothing was held for it in vain
        reader.close()
        scope.table_reader("late").close()
    assert scope.result is not None
    assert scope.result.errors == []
    assert scope.ledger.exact, scope.ledger.problems


def test_descriptors_that_found_no_room_when_they_came_end_nothing(tmp_path: Path) -> None:
    with (
        ms.Scope(camera=camera(), workers=[Tabler], record=tmp_path / "run.ome.zarr") as scope,
        ThreadPoolExecutor(1) as other,
    ):
        asked = other.submit(scope.table_reader, "late", timeout_s=60.0)
        assert scope._client is not None
        bus = scope._client.endpoint
        until(lambda: bus.statistics().pending > 0)
        with no_more_files():
            scope.send(Begin())
            with pytest.raises(OSError, match="Too many open files"):
                asked.result(60)
        assert scope.acquire(frames=10).stored == {"camera": 10}
        scope.table_reader("late").close()
    assert scope.result is not None
    assert scope.result.errors == []
