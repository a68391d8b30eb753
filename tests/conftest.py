"""What every test shares: a gate that fails a test which leaves memory, descriptors, children, threads or sockets behind."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

import shared_memory
from external_inputs import EXTERNAL, external_data_folder
from mutoscope.frames._compile import compile_core
from turns import Turns

ZARR_THREADS = 2

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell: the programs that tests interrupt would inherit that they ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


shared_memory.mark()

# Many tests start Python: with modules that are compiled once, and without threads of NumPy that nobody needs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _own_memfds() -> list[str]:
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:
            continue
        if target.startswith("/memfd:mutoscope"):
            found.append(target)
    with open("/proc/self/maps", encoding="utf-8") as file:
        found += [line.split(None, 5)[-1].strip() for line in file if "/memfd:mutoscope" in line]
    return sorted(found)


def _open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def _children() -> set[int]:
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
                found.update(int(pid) for pid in file.read().split())
        except FileNotFoundError:
            continue
    return found


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def _until_settled(check, deadline_s: float = 5.0):  # type: ignore[no-untyped-def]
    """Poll `check` until it returns nothing or the deadline passes; return its last answer."""
    end = time.monotonic() + deadline_s
    while True:
        left = check()
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def leak_gate(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves segments, descriptors, children, threads or ``/dev/shm`` entries of its own behind."""
    memfds, fds, children, threads = _own_memfds(), _open_fds(), _children(), _threads()
    shm = shared_memory.entries()
    yield
    if request.node.get_closest_marker("leaks_elsewhere"):
        return
    problems = {
        "memfd segments": lambda: sorted(set(_own_memfds()) - set(memfds)) or len(_own_memfds()) > len(memfds),
        "file descriptors": lambda: max(0, _open_fds() - fds - 2),
        "child processes": lambda: sorted(_children() - children),
        "threads": lambda: sorted(_threads() - threads),
        "/dev/shm entries": lambda: shared_memory.ours(shared_memory.entries() - shm),
    }
    left = {what: found for what, check in problems.items() if (found := _until_settled(check))}
    assert not left, f"left behind: {left}"


@pytest.fixture(scope="session", autouse=True)
def warm_readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start the event loop and the threads of zarr-python, bounded, and those of tensorstore: both keep them for good."""
    import numpy as np
    import tensorstore
    import zarr

    folder = tmp_path_factory.mktemp("warm")
    with zarr.config.set({"threading.max_workers": ZARR_THREADS, "async.concurrency": 4}):
        array = zarr.create_array(folder / "a.zarr", shape=(64, 8), chunks=(1, 8), dtype="uint8")
        array[:] = 1
        for _ in range(50):
            assert np.all(array[:] == 1)
            if sum(thread.name.startswith(("asyncio", "ThreadPool")) for thread in threading.enumerate()) >= ZARR_THREADS:
                break
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / "a.zarr")}}
        tensorstore.open(spec).result()[:].read().result()
        yield


@pytest.fixture(scope="session")
def kill_point_core(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The native core with its kill points, compiled once in a session."""
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        folder = folder.parent
    library = folder / "libmutoscope-kill-points.so"
    with open(folder / "core.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            compile_core(library, ["MUTOSCOPE_KILL_POINTS"])
    return library


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return a function that mounts a file system of so many KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mounted: list[Path] = []

    def make(kib: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
        done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def external_data() -> Path:
    """The folder of real inputs; a test that asks for it carries the marker ``external_data``."""
    folder = external_data_folder()
    if folder is None:
        pytest.skip(f"no real inputs: set {EXTERNAL} to their folder")
    return folder


# With CI=true a skipped test is a failure, except those marked external_data and opt_in, which are counted and printed.
MAY_SKIP = ("external_data", "opt_in")
_skipped: dict[str, int] = dict.fromkeys(MAY_SKIP, 0)


def _marker_that_may_skip(report: pytest.TestReport) -> str | None:
    return next((name for name in MAY_SKIP if name in report.keywords), None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    report = yield
    unexpected = report.skipped and not hasattr(report, "wasxfail") and _marker_that_may_skip(report) is None
    if unexpected and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which fails in CI: {report.longrepr[2]}"
    report.sections = [(name, _encodable(text)) for name, text in report.sections]
    if report.longrepr is not None and _encodable(text := str(report.longrepr)) != text:
        report.longrepr = _encodable(text)
    return report


def _encodable(text: str) -> str:
    """What a test printed, as it can be sent to the process that reports it: surrogates escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Called where the session is reported, whichever worker ran the test."""
    if report.skipped and not hasattr(report, "wasxfail"):
        name = _marker_that_may_skip(report)
        if name is not None:
            _skipped[name] += 1


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):  # type: ignore[no-untyped-def]
    """A module that skips itself as a whole cannot carry a marker that excuses it."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped as a whole, which fails in CI: {report.longrepr[2]}"
    return report


TOGETHER = (
    "tests/frames/test_crash.py",
    "tests/storage/test_zarr_conformance.py",
    "tests/viewers/test_browser_suite.py",
    "tests/viewers/test_browser_viewer.py",
    "tests/viewers/test_fiji_suite.py",
    "tests/viewers/test_imagej.py",
    "tests/viewers/test_imagej_life.py",
    "tests/viewers/test_napari.py",
    "tests/viewers/test_napari_inside.py",
    "tests/viewers/test_page_browser.py",
    "tests/viewers/test_page_control.py",
    "tests/viewers/test_page_dataset.py",
    "tests/viewers/test_page_drawing.py",
    "tests/viewers/test_page_screen_browser.py",
    "tests/viewers/test_page_security.py",
    "tests/viewers/test_watch_fiji.py",
    "tests/viewers/test_watch_napari.py",
)

# In a parallel session (`pytest -n auto`), the others wait while a test that is marked alone runs.
_turns: Turns | None = None


def pytest_xdist_auto_num_workers() -> int:
    """More than there are cores, as many tests wait for something most of the time."""
    return (os.cpu_count() or 1) + 1


def pytest_sessionstart(session: pytest.Session) -> None:
    global _turns
    if hasattr(session.config, "workerinput"):
        _turns = Turns(Path(session.config.option.basetemp).parent)


class Scheduling(LoadScopeScheduling):
    """Each test goes to the next process that is free; those of a file with a costly start stay together."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file in TOGETHER else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None):  # type: ignore[no-untyped-def]
    """The wait for a turn is no part of the test's own time."""
    if _turns is None:
        return (yield)
    _turns.begin(alone=item.get_closest_marker("alone") is not None)
    try:
        return (yield)
    finally:
        _turns.end(keep=nextitem is not None and nextitem.get_closest_marker("alone") is not None)


def pytest_terminal_summary(terminalreporter) -> None:  # type: ignore[no-untyped-def]
    counts = ", ".join(f"{count} {name}" for name, count in _skipped.items())
    terminalreporter.write_line(f"skipped by marker: {counts}")
