"""Recording against a raw file write of the same bytes: all into the page cache of the same file system, in turns."""

from __future__ import annotations

import contextlib
import errno
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
from mutoscope.bench.harness import MIN_ROUNDS, Bench, Report, Rounds, percentile, rest

__all__ = ["CASES", "run"]

CASES: tuple[tuple[str, tuple[int, int], int, float], ...] = (
    ("512² uint16", (512, 512), 2000, 1000.0),
    ("2048² uint16", (2048, 2048), 200, 100.0),
)
"""Name, frame shape, frames, and the rate in Hz whose period all but the slowest hundredth of the appends stay below."""

STREAMS = {"recording": "run.ome.zarr", "OME-TIFF": "run.ome.tiff"}
"""Case → data set that it writes."""

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

    Each round writes the same frames to a plain file with one ``write`` a frame, and through `storage.open_writer` into
    OME-Zarr and into OME-TIFF, one after the other, in turned order. All go into the page cache. Before each, outside the
    time, that is synced, the device comes to rest, and the memory that the page cache will take is touched: so none pays
    for the bytes of another, nor for memory that a virtual machine's host has yet to find. Making the files, closing and
    deleting them are outside the time; beginning a shard, and making the TIFF with its first frame, are inside.

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
        measured = _round(place, images, frames, raw_first=number % 2 == 0, rested=bench.timing)
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


def _round(
    place: Path, images: Sequence[NDArray[Any]], frames: int, *, raw_first: bool, rested: bool
) -> dict[str, dict[str, float]]:
    """Write the frames in each way in turn; if `rested`, each begins with nothing that waits to be written to the device."""
    cases = ["raw write", *STREAMS]
    return {case: _write(place, case, images, frames, rested=rested) for case in (cases if raw_first else cases[::-1])}


def _write(place: Path, case: str, images: Sequence[NDArray[Any]], frames: int, *, rested: bool) -> dict[str, float]:
    path = place / STREAMS.get(case, "raw")
    with contextlib.ExitStack() as stack:
        if case in STREAMS:
            writer = stack.enter_context(storage.open_writer(path, shape=images[0].shape, dtype=images[0].dtype))
            store = _appending(writer, images)
        else:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            store = _writing(fd, images)
        if rested:
            rest(place, images[0].nbytes * frames)  # last: a virtual machine's host takes unused memory back within seconds
        taken = _timed(store, frames)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for entry in place.iterdir():  # what belongs to a data set and lies beside it
        entry.unlink()
    return {
        "value": images[0].nbytes * frames / sum(taken) / 1e6,
        "p50_us": percentile(taken, 50) * 1e6,
        "p99_us": percentile(taken, 99) * 1e6,
        "max_us": max(taken) * 1e6,
    }


def _writing(fd: int, images: Sequence[NDArray[Any]]) -> Callable[[int], None]:
    def write(number: int) -> None:
        pixels: Any = images[number % _DISTINCT]
        if os.write(fd, pixels) != pixels.nbytes:
            raise OSError(errno.ENOSPC, "a write of the floor was cut short")

    return write


def _appending(writer: storage.FrameStreamWriter, images: Sequence[NDArray[Any]]) -> Callable[[int], None]:
    def append(number: int) -> None:
        now = time.time_ns()
        writer.append(images[number % _DISTINCT], tick=number, monotonic_ns=now, utc_ns=now, exposure_ms=1.0)

    return append


def _timed(store: Callable[[int], None], frames: int) -> list[float]:
    """Return the seconds that each frame took."""
    taken = []
    gc.collect()
    gc.disable()
    try:
        before = time.perf_counter()
        for number in range(frames):
            store(number)
            now = time.perf_counter()
            taken.append(now - before)
            before = now
    finally:
        gc.enable()
    return taken
