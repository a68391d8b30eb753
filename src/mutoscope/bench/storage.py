"""Recording against a raw file write of the same bytes: both into the page cache of the same file system, in turns."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mutoscope import storage
from mutoscope.bench.harness import MIN_ROUNDS, Bench, Report, percentile

__all__ = ["CASES", "run"]

CASES: tuple[tuple[str, tuple[int, int], int, float], ...] = (
    ("512² uint16", (512, 512), 2000, 1000.0),
    ("2048² uint16", (2048, 2048), 200, 100.0),
)
"""Name, frame shape, frames, and the rate in Hz whose period all but the slowest hundredth of the appends stay below."""

AT_LEAST = 0.8
_DISTINCT = 8


def run(
    *,
    quick: bool = False,
    folder: str | os.PathLike[str] | None = None,
    rounds: int = MIN_ROUNDS,
    console: Console | None = None,
) -> Report:
    """Measure recording against a raw file write.

    Each round writes the same frames once to a plain file with one ``write`` a frame, and once through
    `storage.open_writer`; nothing is synced. Making the files, closing and deleting them are outside the time.

    Parameters
    ----------
    quick : bool
        A tenth of the frames, once, and no bound is judged.
    folder : path, optional
        Where to write; a temporary folder, if not given. 2 GB must be free.
    rounds : int
        How often both are done.
    console : rich.console.Console, optional
        Where the progress goes.
    """
    bench = Bench("storage", rounds=rounds, timing=not quick, console=console)
    place = Path(tempfile.mkdtemp(prefix="mutoscope-bench-", dir=folder))
    try:
        for name, shape, frames, rate_hz in CASES:
            _measure(bench, place, name, shape, frames // 10 if quick else frames, rate_hz)
    finally:
        shutil.rmtree(place)
    return bench.report()


def _measure(bench: Bench, place: Path, name: str, shape: tuple[int, int], frames: int, rate_hz: float) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 4096, size=shape, dtype=np.uint16) for _ in range(_DISTINCT)]
    cases = {"raw write": lambda: _raw(place, images, frames), "recording": lambda: _recorded(place, images, frames)}
    done = bench.alternate(cases, label=name)
    bench.ratio(f"{name}: recording", done, of="recording", to="raw write", unit="MB/s", at_least=AT_LEAST)
    period_us = 1e6 / rate_hz
    note = f"the period of {rate_hz:g} frames a second is the bound"
    bench.figure(f"{name}: append p50", done.of("recording", "p50_us"), unit="us")
    bench.figure(f"{name}: raw write p99", done.of("raw write", "p99_us"), unit="us")
    bench.figure(f"{name}: append p99", done.of("recording", "p99_us"), unit="us", at_most=period_us, note=note)
    bench.figure(f"{name}: append max", done.of("recording", "max_us"), unit="us")


def _raw(place: Path, images: Sequence[NDArray[Any]], frames: int) -> dict[str, float]:
    path = place / "raw"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    try:
        stamps = [time.perf_counter()]
        for number in range(frames):
            pixels: Any = images[number % _DISTINCT]
            os.write(fd, pixels)
            stamps.append(time.perf_counter())
    finally:
        os.close(fd)
        path.unlink()
    nbytes = images[0].nbytes * frames
    return {"value": nbytes / (stamps[-1] - stamps[0]) / 1e6, "p99_us": percentile(list(np.diff(stamps) * 1e6), 99)}


def _recorded(place: Path, images: Sequence[NDArray[Any]], frames: int) -> dict[str, float]:
    path = place / "run.ome.zarr"
    writer = storage.open_writer(path, shape=images[0].shape, dtype=images[0].dtype)
    try:
        began = time.perf_counter()
        for number in range(frames):
            now = time.time_ns()
            writer.append(images[number % _DISTINCT], tick=number, monotonic_ns=now, utc_ns=now, exposure_ms=1.0)
        seconds = time.perf_counter() - began
    finally:
        writer.close()
        shutil.rmtree(path)
    found = writer.statistics()
    return {
        "value": found.bytes / seconds / 1e6,
        "p50_us": found.append_p50_us,
        "p99_us": found.append_p99_us,
        "max_us": found.append_max_us,
    }
