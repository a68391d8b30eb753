"""Scopes under fire: SIGKILL by role, at random instants and at named points, and the whole account checked after each run.

What is checked: survivors go on, the killed process is back, ids continue, every acknowledged frame is bit-exact in zarr-python
before any recovery step, the ledger is exact, and no segment, descriptor, socket or process is left.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mutoscope.app.scope import Scope
from mutoscope.bench.harness import Bench, Report
from mutoscope.bench.live import Counter, Looker
from mutoscope.cameras import SimulatedCamera
from mutoscope.frames import _os
from mutoscope.model.errors import MutoscopeError, PeerDiedError
from mutoscope.runtime import Restart

__all__ = ["FaultRun", "Outcome", "check_data_set", "left_behind", "marked_run", "run"]

MARK = "MUTOSCOPE_RUN_MARK"
SHAPE = (64, 96)
RATE_HZ = 400.0
WAIT_S = 30.0
PATIENT = Restart(limit=1_000_000)
ROLES = ("camera", "recorder", "Looker", "Counter")
POINTS = {
    "camera": (
        "ring.claim.recorded",
        "ring.claim.marked",
        "ring.claim.granted",
        "ring.publish.header",
        "ring.publish.sequence",
        "ring.publish.index",
        "ring.publish.head",
        "ring.publish.rung",
    ),
    "recorder": (
        "ring.next.pinned",
        "ring.next.checked",
        "storage.append.pixels_written",
        "storage.append.times_written",
        "storage.append.frame_id_written",
        "recorder.stored",
        "ring.commit.prepared",
        "ring.commit.flipped",
        "recorder.committed",
        "ring.release.unpinned",
        "ring.wait.flagged",
    ),
    "Counter": (
        "ring.next.pinned",
        "ring.commit.prepared",
        "ring.commit.flipped",
        "table.claimed",
        "table.filling",
        "table.filled",
        "table.sequenced",
        "table.published",
    ),
}
"""The named points of each role, in the order in which a frame passes them."""


@dataclass
class Outcome:
    """What a run under fire showed; an empty list of problems is the promise kept."""

    seed: int
    kills: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    recovery_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def merge(self, other: Outcome) -> None:
        """Add another run's figures."""
        for role, count in other.kills.items():
            self.kills[role] = self.kills.get(role, 0) + count
        self.frames += other.frames
        self.recovery_s += other.recovery_s
        self.problems += [f"seed {other.seed}: {problem}" for problem in other.problems]


@contextlib.contextmanager
def marked_run() -> Iterator[str]:
    """Mark the processes started within, so that what they leave can be told from others'."""
    mark, before = uuid.uuid4().hex, os.environ.get(MARK)
    os.environ[MARK] = mark
    try:
        yield mark
    finally:
        if before is None:
            del os.environ[MARK]
        else:
            os.environ[MARK] = before


def marked_processes(mark: str) -> list[int]:
    """Return the pids of living processes that carry the mark, other than this one."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        facts = _os.process_facts(int(entry))
        if f"{MARK}={mark}".encode() in environment and facts is not None and facts.state != "Z":
            found.append(int(entry))
    return found


def left_behind(mark: str, timeout_s: float = 2.0) -> list[str]:
    """Return what a run left after `timeout_s` at most: processes, segments of this process, entries of ``/dev/shm``."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = [f"process {pid}" for pid in marked_processes(mark)]
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(f"/proc/self/fd/{fd}")
                if target.startswith("/memfd:mutoscope"):
                    left.append(target)
        left += [name for name in os.listdir("/dev/shm") if "mutoscope" in name]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)


def check_data_set(path: Path, camera: SimulatedCamera, *, acknowledged: int, first_id: int = 1) -> list[str]:
    """Check a data set with zarr-python as it lies there: ids without gap or repetition up to `acknowledged`, every pixel.

    Parameters
    ----------
    path : Path
        The recording of one camera.
    camera : SimulatedCamera
        The camera, to recompute each frame from its tick.
    acknowledged : int
        The newest ``frame_id`` that the recorder had acknowledged.
    first_id : int
        The first ``frame_id`` of the run.
    """
    import zarr

    group: Any = zarr.open_group(path, mode="r")
    pixels, ids, ticks = group["0"], group["frames/frame_id"][:], group["frames/tick"][:]
    written = np.flatnonzero(ids)
    problems = []
    expected = np.arange(first_id, first_id + len(written), dtype=ids.dtype)
    if not np.array_equal(ids[written], expected):
        wrong = int(np.flatnonzero(ids[written] != expected)[0])
        problems.append(f"frame ids are not consecutive at row {wrong}: {ids[written][max(0, wrong - 2) : wrong + 3].tolist()}")
    if len(written) and first_id + len(written) - 1 < acknowledged:
        problems.append(f"frame {acknowledged} was acknowledged, the data set ends at {ids[written][-1]}")
    if acknowledged >= first_id and not len(written):
        problems.append(f"frame {acknowledged} was acknowledged, the data set is empty")
    wrong_pixels = [int(ids[row]) for row in written if not np.array_equal(pixels[row], camera.expected_frame(int(ticks[row])))]
    if wrong_pixels:
        problems.append(f"{len(wrong_pixels)} frames are not what the camera took, the first is {wrong_pixels[0]}")
    return problems


class FaultRun:
    """One scope with camera, recorder and two workers, and somebody who kills them.

    Parameters
    ----------
    folder : Path
        Where the data set goes.
    seed : int
        Of the instants and the victims.
    environment : mapping, optional
        Kill points by worker, see :mod:`mutoscope.model`.
    """

    def __init__(self, folder: Path, seed: int, *, environment: dict[str, dict[str, str]] | None = None) -> None:
        self.outcome = Outcome(seed)
        self.random = random.Random(seed)
        self.path = folder / f"faults-{seed}.ome.zarr"
        self.camera = SimulatedCamera(shape=SHAPE, rate_hz=RATE_HZ, pattern="counter")
        self.scope = Scope(
            camera=self.camera,
            workers=[Looker, Counter],
            record=self.path,
            reserve_bytes=0,
            restarts=dict.fromkeys(ROLES, PATIENT),
            environment=environment,
        )

    def kill_at_random(self, kills: int, roles: tuple[str, ...] = ROLES) -> Outcome:
        """Kill so many processes, one after the other, each after the last victim is back; then stop and check."""
        with marked_run() as mark:
            with self.scope:
                self.scope.start_acquisition()
                for _ in range(kills):
                    self._kill_one(self.random.choice(roles))
                self.scope.stop_acquisition()
                self.scope.wait_acquisition(WAIT_S)
            self._check_end(mark)
        return self.outcome

    def let_it_die(self, frames: int) -> Outcome:
        """Acquire while kill points of the environment do their work; then stop and check."""
        with marked_run() as mark:
            with self.scope:
                self.scope.acquire(frames=frames, timeout_s=120.0)
                for status in self.scope.status():
                    self.outcome.kills[status.name] = status.restarts
            self._check_end(mark)
        return self.outcome

    def _kill_one(self, role: str) -> None:
        before = {status.name: status for status in self.scope.status()}
        produced = self.scope.ledger.produced
        time.sleep(self.random.uniform(0.0, 0.15))
        pid = before[role].pid
        if pid is None:
            raise RuntimeError(f"{role} has no process to kill; it is {before[role].state}")
        os.kill(pid, signal.SIGKILL)
        self.outcome.kills[role] = self.outcome.kills.get(role, 0) + 1
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            after = {status.name: status for status in self.scope.status()}
            back = after[role].restarts > before[role].restarts and after[role].state == "running"
            if back and self.scope.ledger.produced > produced:
                for name, status in after.items():
                    if name != role and status.restarts != before[name].restarts:
                        self.outcome.problems.append(f"{name} was restarted when {role} was killed: {status.last_error}")
                return
            time.sleep(0.005)
        self.outcome.problems.append(f"{role} was not back {WAIT_S:.0f} s after its death")

    def _check_end(self, mark: str) -> None:
        outcome, ledger = self.outcome, self.scope.ledger
        account = ledger.cameras["camera"]
        outcome.frames = ledger.produced
        for status in self.scope.status():
            outcome.recovery_s += status.recovery_s
        if not ledger.exact:
            outcome.problems.append(f"the ledger does not add up: {ledger.to_dict()}")
        if ledger.pending or ledger.stored != ledger.produced:
            outcome.problems.append(f"produced {ledger.produced}, stored {ledger.stored}, pending {ledger.pending}")
        outcome.problems += check_data_set(self.path, self.camera, acknowledged=account["last_id"])
        outcome.problems += [f"left behind: {item}" for item in left_behind(mark)]
        if self.scope.result is None or self.scope.result.errors:
            outcome.problems.append(f"the scope ended with {self.scope.result}")


def kill_points(library: Path) -> list[dict[str, dict[str, str]]]:
    """Return environments in which every role dies at one of its named points, again and again, until each point had its turn.

    Parameters
    ----------
    library : Path
        The native core built with ``MUTOSCOPE_KILL_POINTS``, see :func:`mutoscope.frames._compile.compile_core`.
    """
    rounds = max(len(points) for points in POINTS.values())
    return [
        {
            role: {"MUTOSCOPE_KILL_POINT": f"{points[number % len(points)]}:{passes}", "MUTOSCOPE_CORE_LIBRARY": str(library)}
            for (role, points), passes in zip(POINTS.items(), (151, 173, 131), strict=True)
        }
        for number in range(rounds)
    ]


PROGRAM = """
import sys, time
from mutoscope.app.scope import Scope
from mutoscope.bench.live import Counter, Looker
from mutoscope.cameras import SimulatedCamera
camera = SimulatedCamera(shape={shape}, rate_hz={rate}, pattern="counter")
scope = Scope(camera=camera, workers=[Looker, Counter], record={path!r}, reserve_bytes=0, outlive={outlive})
scope.start()
scope.start_acquisition({frames})
print(scope.supervisor_pid, flush=True)
while True:
    account = scope.ledger.cameras["camera"]["consumers"].get("recorder", dict(done=0))
    print(account["done"], flush=True)
    time.sleep(0.01)
"""


def kill_above(folder: Path, seed: int, victim: str, *, outlive: bool = False, frames: int | None = None) -> Outcome:
    """Run a program with a scope, kill its supervisor or the program itself, and check what is left.

    Parameters
    ----------
    victim : {"supervisor", "program"}
        Who is killed.
    outlive, frames
        Of the scope and its acquisition.
    """
    outcome, chance = Outcome(seed), random.Random(seed)
    path = folder / f"above-{seed}.ome.zarr"
    camera = SimulatedCamera(shape=SHAPE, rate_hz=RATE_HZ, pattern="counter")
    text = PROGRAM.format(shape=SHAPE, rate=RATE_HZ, path=str(path), outlive=outlive, frames=frames)
    with marked_run() as mark:
        with subprocess.Popen(
            [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as program:
            try:
                supervisor, acknowledged = _watch(program, chance.uniform(0.2, 1.0))
                os.kill(supervisor if victim == "supervisor" else program.pid, signal.SIGKILL)
                killed = time.monotonic()
            finally:
                if victim == "supervisor":
                    program.kill()
        outcome.kills[victim] = 1
        allowed = 2.0 if victim == "supervisor" else (30.0 if outlive else 10.0)
        outcome.problems += [
            f"{item} was left {allowed} s after the {victim} was killed" for item in left_behind(mark, allowed)
        ]
        outcome.recovery_s.append(time.monotonic() - killed)
    outcome.problems += check_data_set(path, camera, acknowledged=frames if outlive and frames else acknowledged)
    return outcome


def _watch(program: subprocess.Popen[str], seconds: float) -> tuple[int, int]:
    """Read what the program prints for so long, and until a frame is stored; return its supervisor and the newest stored id."""
    if program.stdout is None or program.stderr is None:
        raise RuntimeError("the program's output is not read")
    first = program.stdout.readline()
    if not first:
        raise PeerDiedError(f"the program did not start: {program.stderr.read()}")
    acknowledged, until = 0, time.monotonic() + seconds
    while time.monotonic() < until or acknowledged == 0:
        line = program.stdout.readline()
        if not line:
            raise PeerDiedError(f"the program ended by itself: {program.stderr.read()}")
        acknowledged = int(line)
    return int(first), acknowledged


def run(
    *, quick: bool = False, kills: int = 2000, seed: int | None = None, folder: str | os.PathLike[str] | None = None
) -> Report:
    """Kill by the thousand; the seed is printed, and the same one chooses the same victims and pauses.

    Parameters
    ----------
    quick : bool
        About forty kills.
    kills : int
        Of workers, in runs of 50 each.
    seed : int, optional
        Chosen from the clock otherwise.
    folder : path, optional
        Where to write; a temporary folder of the working directory otherwise.
    """
    seed = time.time_ns() % 1_000_000_000 if seed is None else seed
    bench = Bench("faults")
    total, above = Outcome(seed), Outcome(seed)
    per_run = 20 if quick else 50
    base = Path(tempfile.mkdtemp(prefix="mutoscope-faults-", dir=folder or os.getcwd()))
    try:
        for number in range(1 if quick else -(-kills // per_run)):
            where = base / str(number)
            where.mkdir()
            total.merge(
                _attempt(
                    lambda where=where, number=number: FaultRun(where, seed + number).kill_at_random(per_run), seed + number
                )
            )
            shutil.rmtree(where)
        for number in range(2 if quick else 20):
            for victim, outlive, frames in (("supervisor", False, None), ("program", False, None), ("program", True, 600)):
                where = base / f"above-{number}-{victim}{'-outlived' if outlive else ''}"
                where.mkdir()
                above.merge(kill_above(where, seed + number, victim, outlive=outlive, frames=frames))
                shutil.rmtree(where)
    finally:
        shutil.rmtree(base, ignore_errors=False)
    note = f"seed {seed}; " + ", ".join(f"{role} {count}" for role, count in sorted(total.kills.items()))
    bench.figure("workers killed", sum(total.kills.values()), exact=True, note=note)
    bench.figure("frames checked bit by bit", total.frames, exact=True)
    bench.figure("recovery after a kill", total.recovery_s or [0.0], unit="s", at_most=1.0)
    bench.figure("supervisors and programs killed", sum(above.kills.values()), exact=True)
    problems = total.problems + above.problems
    bench.figure("promises broken", len(problems), at_most=0, exact=True, note="; ".join(problems[:5]))
    return bench.report()


def _attempt(action: Any, seed: int) -> Outcome:
    try:
        outcome: Outcome = action()
    except (MutoscopeError, OSError) as error:
        return Outcome(seed, problems=[f"the run itself failed: {type(error).__name__}: {error}"])
    return outcome
