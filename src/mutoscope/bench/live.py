"""A whole scope at speed: camera, recorder, a latest-wins reader and a worker that writes a table, against a raw file write."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope import storage
from mutoscope.app.scope import Scope
from mutoscope.bench.harness import Bench, Report, rest, touched
from mutoscope.cameras import SimulatedCamera
from mutoscope.frames import _os
from mutoscope.runtime import Worker

__all__ = ["Counter", "Looker", "run"]

SHAPE = (512, 512)
RATE_HZ = 1000.0
SECONDS = 20.0
RING_SECONDS = 2.0
CAMERA_BUFFER = 16
"""Frames that the simulated camera's own memory holds, as machine-vision cameras do."""


class Looker(Worker):
    """Looks at the newest frame, as a viewer does."""

    def setup(self) -> None:
        """Open a latest-wins reader."""
        self.frames = self.reader("camera", policy="latest", at_most_hz=60.0)

    def step(self) -> None:
        """Touch one row of the newest frame."""
        with self.frames.next(timeout_s=0.2) as frame:
            int(frame.array[0].sum())


class Counter(Worker):
    """Writes one row of a table for each frame that it sees."""

    def setup(self) -> None:
        """Open a reader and a table."""
        self.frames = self.reader("camera", policy="every", on_full="drop")
        self.counts = self.table("counts", dtype=[("frame_id", "u8"), ("mean", "f8")])

    def step(self) -> None:
        """Enter the mean of one row of the next frame."""
        with self.frames.next(timeout_s=0.2) as frame:
            self.counts.append((frame.frame_id, float(frame.array[0].mean())))
            self.frames.commit(frame)


def raw_write(folder: Path, frames: int, rate_hz: float, shape: tuple[int, int] = SHAPE) -> NDArray[np.float64]:
    """Write so many frames to one plain file, none before its time; return the seconds that each write took."""
    image = touched(shape, np.uint16)
    path = folder / "raw.bin"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        taken = np.empty(frames)
        began = time.perf_counter()
        for number in range(frames):
            before = time.perf_counter()
            if (early := began + number / rate_hz - before) > 0:
                time.sleep(early)
                before = time.perf_counter()
            os.write(fd, image.data)
            taken[number] = time.perf_counter() - before
        return taken
    finally:
        os.close(fd)
        path.unlink()


def sustained(taken: NDArray[np.float64], buffer_s: float, at_most: float) -> float:
    """Return the highest rate in Hz that a writer keeps up with who needs these times, behind a buffer of so many seconds.

    Frames come evenly; one that finds the buffer full is lost, and the rate too high.
    """

    def keeps_up(rate: float) -> bool:
        arrivals = np.arange(taken.size) / rate
        # it begins a frame when that has come and the one before is done: ends[i] = max(arrivals[i], ends[i - 1]) + taken[i]
        done = np.cumsum(taken)
        ends = done + np.maximum.accumulate(arrivals - (done - taken))
        return bool((ends - arrivals).max() <= buffer_s)

    low, high = 0.0, at_most
    if keeps_up(high):
        return high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps_up(middle) else (low, middle)
    return low


def private_bytes(pid: int) -> int:
    """Return the memory in bytes that a process shares with nobody."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(("Private_Clean", "Private_Dirty")))


def _cpu_s(pid: int) -> float:
    facts = _os.process_facts(pid)
    return 0.0 if facts is None else facts.processor_s


def run(*, quick: bool = False, folder: str | os.PathLike[str] | None = None) -> Report:
    """Run the bench.

    Parameters
    ----------
    quick : bool
        A shorter run whose bounds are not judged.
    folder : path, optional
        Where to write; a temporary folder of the working directory otherwise. Everything there is removed at the end.
    """
    bench = Bench("live", timing=not quick)
    seconds = 2.0 if quick else SECONDS
    base = Path(tempfile.mkdtemp(prefix="mutoscope-bench-", dir=folder or os.getcwd()))
    try:
        _stream(bench, base, seconds)
        _idle(bench, 1.0 if quick else 10.0)
    finally:
        shutil.rmtree(base)
    return bench.report()


@dataclass(frozen=True)
class _Streamed:
    """What a scope did at one rate."""

    produced: int
    stored: int
    exposed: int
    span_s: float
    missed: int
    dropped: int
    shown: int
    private_mib: float
    cores: float

    def share(self, rate_hz: float) -> float:
        """Frames that were produced, of those that the rate asks for."""
        return self.produced / (1 + rate_hz * self.span_s)


def _scope(base: Path, rate_hz: float, seconds: float) -> _Streamed:
    """Run the whole scope at a rate, and delete what it recorded."""
    camera = SimulatedCamera(shape=SHAPE, rate_hz=rate_hz, pattern="counter", buffer_frames=CAMERA_BUFFER)
    path = base / "run.ome.zarr"
    rest(base)
    with Scope(camera=camera, workers=[Looker, Counter], record=path, reserve_bytes=0, ring_seconds=RING_SECONDS) as scope:
        pids = [status.pid for status in scope.status() if status.pid is not None]
        peak: dict[int, int] = {}

        def watch(_: Scope) -> None:
            for pid in pids:
                peak[pid] = max(peak.get(pid, 0), private_bytes(pid))

        began = [_cpu_s(pid) for pid in pids]
        result = scope.acquire(seconds=seconds, on_progress=watch)
        cpu = sum(_cpu_s(pid) for pid in pids) - sum(began)
        account = scope.ledger.cameras["camera"]
    with storage.open_reader(path) as reader:
        times, ticks = reader.monotonic_ns, reader.ticks
        span_s, exposed = float(times[-1] - times[0]) / 1e9, int(ticks[-1])
    shutil.rmtree(path)
    consumers: dict[str, Any] = account["consumers"]
    return _Streamed(
        produced=result.produced["camera"],
        stored=result.stored["camera"],
        exposed=exposed,
        span_s=span_s,
        missed=account["missed"],
        dropped=sum(entry["count"] for entry in consumers["Counter"]["dropped"].values()),
        shown=consumers["Looker"]["shown"],
        private_mib=max(peak.values()) / 2**20,
        cores=cpu / seconds,
    )


def _sustained_by_raw(base: Path, seconds: float) -> float:
    rest(base)
    return sustained(raw_write(base, int(RATE_HZ * seconds), RATE_HZ), RING_SECONDS, RATE_HZ)


def _stream(bench: Bench, base: Path, seconds: float) -> None:
    rate = _sustained_by_raw(base, seconds)
    run = _scope(base, rate, seconds)
    after = _sustained_by_raw(base, seconds)
    note = (
        f"{rate:,.0f} frames/s asked for: what a raw file write sustained before behind a buffer of {RING_SECONDS:g} s,"
        f" {RATE_HZ:,.0f} at most; {after:,.0f} after"
    )
    bench.figure("produced / (rate × time)", run.share(rate), at_least=0.99, exact=bench.timing, note=note)
    bench.figure("exposures that became frames", run.produced / run.exposed, at_least=0.99, exact=bench.timing)
    bench.figure("produced and not stored", run.produced - run.stored, at_most=0, exact=True)
    bench.figure("exposures missed", run.missed, unit="exposures")
    bench.figure("dropped by the table-writing worker", run.dropped, at_most=0, exact=bench.timing)
    bench.figure("shown by the latest-wins reader", run.shown, unit="frames", at_least=1, exact=True)
    bench.figure("largest private memory of a process", run.private_mib, unit="MiB", at_most=300)
    bench.figure("processor time of all processes", run.cores, unit="cores")
    if rate < RATE_HZ and bench.timing:
        beyond = _scope(base, RATE_HZ, seconds)
        note = f"{RATE_HZ:,.0f} frames/s asked for, which a raw file write did not sustain: for information"
        bench.figure(f"produced / (rate × time) at {RATE_HZ:,.0f} frames/s", beyond.share(RATE_HZ), note=note)
        lost = beyond.produced - beyond.stored
        bench.figure(f"produced and not stored at {RATE_HZ:,.0f} frames/s", lost, at_most=0, exact=True)


def _idle(bench: Bench, seconds: float) -> None:
    with Scope(camera=SimulatedCamera(shape=SHAPE, rate_hz=100), workers=[Looker, Counter]) as scope:
        pids = [scope.supervisor_pid, *(status.pid for status in scope.status() if status.pid is not None)]
        scope.wait(timeout_s=1.0)  # what follows a start is not idleness yet
        began, before = time.monotonic(), sum(map(_cpu_s, pids))
        scope.wait(timeout_s=seconds)
        used = (sum(map(_cpu_s, pids)) - before) / (time.monotonic() - began)
        stop_began = time.monotonic()
    bench.figure("an idle scope, all processes", 100 * used, unit="% of a core", at_most=5)
    bench.figure("time to quit", time.monotonic() - stop_began, unit="s")
