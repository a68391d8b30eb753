"""Recording against a raw file write of the same bytes: all into the page cache of the same file system, in turns."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mutoscope import storage
from mutoscope.bench.harness import MIN_ROUNDS, Bench, Report, Rounds, percentile

__all__ = ["CASES", "run"]

CASES: tuple[tuple[str, tuple[int, int], int, float], ...] = (
    ("512² uint16", (512, 512), 2000, 1000.0),
    ("2048² uint16", (2048, 2048), 200, 100.0),
)
"""Name, frame shape, frames, and the rate in Hz whose period all but the slowest hundredth of the appends stay below."""

STREAMS = {"recording": "run.ome.zarr", "OME-TIFF": "run.ome.tiff"}
"""Case → data set that it writes."""

AT_LEAST = 0.8
TURN_BYTES = 128 * 1024 * 1024
_DISTINCT = 8


def run(
    *,
    quick: bool = False,
    folder: str | os.PathLike[str] | None = None,
    rounds: int = MIN_ROUNDS,
    console: Console | None = None,
) -> Report:
    """Measure recording against a raw file write.

    Each round writes the same frames to a plain file with one ``write`` a frame, and through `storage.open_writer` into
    OME-Zarr and into OME-TIFF, in turns of 128 MiB; nothing is synced. Making the files, closing and deleting them are
    outside the time; beginning a shard, and making the TIFF with its first frame, are inside.

    Parameters
    ----------
    quick : bool
        A tenth of the frames, once, and no bound is judged.
    folder : path, optional
        Where to write; a temporary folder, if not given. 6 GB must be free.
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
    done = Rounds()
    for number in range(-1 if bench.timing else 0, bench.rounds):
        measured = _round(place, images, frames, raw_first=number % 2 == 0)
        if number >= 0:
            for case, measures in measured.items():
                done.add(case, measures)
    for case in STREAMS:
        bench.ratio(f"{name}: {case}", done, of=case, to="raw write", unit="MB/s", at_least=AT_LEAST)
    period_us = 1e6 / rate_hz
    note = f"the period of {rate_hz:g} frames a second is the bound"
    bench.figure(f"{name}: raw write p99", done.of("raw write", "p99_us"), unit="us")
    for case, label in zip(STREAMS, ("append", "OME-TIFF append"), strict=True):
        bench.figure(f"{name}: {label} p50", done.of(case, "p50_us"), unit="us")
        bench.figure(f"{name}: {label} p99", done.of(case, "p99_us"), unit="us", at_most=period_us, note=note)
        bench.figure(f"{name}: {label} max", done.of(case, "max_us"), unit="us")


def _round(place: Path, images: Sequence[NDArray[Any]], frames: int, *, raw_first: bool) -> dict[str, dict[str, float]]:
    """Write the frames in each way, in turns of one shard's worth, so that a slow moment of the machine falls on all."""
    shape, nbytes = images[0].shape, images[0].nbytes
    turn = max(1, TURN_BYTES // nbytes)
    times: dict[str, list[float]] = {"raw write": [], **{case: [] for case in STREAMS}}
    raw = place / "raw"
    fd = os.open(raw, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    dtype = images[0].dtype
    writers = {case: storage.open_writer(place / name, shape=shape, dtype=dtype) for case, name in STREAMS.items()}

    def write(number: int) -> None:
        pixels: Any = images[number % _DISTINCT]
        os.write(fd, pixels)

    def appending(writer: storage.FrameStreamWriter) -> Callable[[int], None]:
        def append(number: int) -> None:
            now = time.time_ns()
            writer.append(images[number % _DISTINCT], tick=number, monotonic_ns=now, utc_ns=now, exposure_ms=1.0)

        return append

    every = [("raw write", write), *((case, appending(writer)) for case, writer in writers.items())]
    order = every if raw_first else every[::-1]
    gc.collect()
    gc.disable()
    try:
        for first in range(0, frames, turn):
            for case, store in order:
                before = time.perf_counter()
                for number in range(first, min(first + turn, frames)):
                    store(number)
                    now = time.perf_counter()
                    times[case].append(now - before)
                    before = now
    finally:
        gc.enable()
        os.close(fd)
        raw.unlink()
        for writer in writers.values():
            writer.close()
        for entry in place.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return {
        case: {
            "value": nbytes * frames / sum(taken) / 1e6,
            "p50_us": percentile(taken, 50) * 1e6,
            "p99_us": percentile(taken, 99) * 1e6,
            "max_us": max(taken) * 1e6,
        }
        for case, taken in times.items()
    }
