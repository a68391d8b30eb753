"""Storing a stream of frames: Mutoscope against a raw file write and against other packages, all in the same run.

Each writer has a process of its own, which stays for all rounds. A round begins, outside the time, with the data set made, the
device idle and memory touched; the time is from the first `append` until `close` has returned, so whatever a writer puts off is
inside. All of them leave the frames in the page cache, and compress with the same codec at the same level on all cores; where
Blosc has a choice (the size of its blocks), each has its own.
"""

from __future__ import annotations

import gc
import mmap
import os
import select
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mutoscope.bench.harness import MIN_ROUNDS, Bench, Report, Rounds, percentile, rest
from mutoscope.bench.peers import Control, Peer, Peers, memory_bytes
from mutoscope.bench.streams import RETURN, WAYS, Stream, Way
from mutoscope.model.errors import ConfigError
from mutoscope.storage._place import taken_bytes

__all__ = ["GROUPS", "SIZES", "poisson_images", "run", "writer"]

SIZES: tuple[tuple[str, tuple[int, int], int], ...] = (("512²", (512, 512), 2000), ("2048²", (2048, 2048), 200))
"""Name, shape and number of frames."""

GROUPS: dict[str, tuple[str, ...]] = {
    "none": ("none",),
    "blosc-lz4": ("blosc-lz4",),
    "blosc-zstd": ("blosc-zstd",),
    "zstd": ("zstd",),
    "zlib": ("zlib",),
}
"""What is compared with each other: codecs by name."""

RAW_AT_LEAST, PEER_AT_LEAST, P99_AT_MOST = 0.8, 0.95, 3.0
MEMORY_BYTES = 300e6
IN_THE_RUNNING = 0.5
"""Peers that are slower than this part of the fastest peer in the first, short round are told, and not run again."""

_SKIPPED = ("tifffile, append=True",)
"""Its time grows with the square of the number of frames."""

_RAW = "raw write"
_DISTINCT = 8
_LOOK_S = 0.02


class _Raw(Stream):
    """A plain file, one ``write`` a frame."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)

    def put(self, frame: NDArray[np.uint16]) -> None:
        """Write."""
        pixels: Any = frame
        if os.write(self._fd, pixels) != frame.nbytes:
            raise OSError("a short write")

    def close(self) -> None:
        """Close."""
        os.close(self._fd)


def writer(control: Control, label: str, shape: list[int]) -> None:
    """A process that writes streams when it is told to: makes one, waits, appends, closes, says what that took."""
    size = (shape[0], shape[1])
    images = poisson_images(size)
    way = next((way for way in WAYS if way.label == label), None)
    control.say("ready")
    for path, frames in control.orders():
        stream = _Raw(Path(path)) if way is None else way.open(Path(path), size)
        control.say("open")
        control.hear()
        control.say(_timed(stream, images, frames))


def poisson_images(shape: tuple[int, int]) -> list[NDArray[np.uint16]]:
    """Photons, in memory that does not count as the writer's own."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(_DISTINCT):
        image = np.frombuffer(mmap.mmap(-1, shape[0] * shape[1] * 2), np.uint16).reshape(shape)
        image[...] = rng.poisson(100.0, shape)
        images.append(image)
    return images


def _timed(stream: Stream, images: list[NDArray[np.uint16]], frames: int) -> dict[str, float]:
    taken = []
    gc.collect()
    gc.disable()
    try:
        begin = before = time.perf_counter()
        for number in range(frames):
            stream.append(images[number % _DISTINCT])
            now = time.perf_counter()
            taken.append(now - before)
            before = now
        stream.close()
        total = time.perf_counter() - begin
    finally:
        gc.enable()
    return {
        "value": images[0].nbytes * frames / total / 1e6,
        "append": images[0].nbytes * frames / sum(taken) / 1e6,
        "p50_us": percentile(taken, 50) * 1e6,
        "p99_us": percentile(taken, 99) * 1e6,
        "max_us": max(taken) * 1e6,
    }


def run(
    *,
    quick: bool = False,
    only: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    rounds: int = MIN_ROUNDS,
    console: Console | None = None,
) -> Report:
    """Measure the writers of `mutoscope.bench.streams.WAYS` against each other.

    Parameters
    ----------
    quick : bool
        A twentieth of the frames, once, and no bound is judged.
    only : str, optional
        One comparison, or several: those whose name, ``"512² blosc-lz4"`` for example, has this in it. Each takes some minutes.
    folder : path, optional
        Where to write; a temporary folder, if not given. 2 GB must be free.
    rounds : int
        How often all take turns.
    console : rich.console.Console, optional
        Where the progress goes.
    """
    groups = [(f"{size[0]} {group}", size, codecs) for size in SIZES for group, codecs in GROUPS.items()]
    chosen = [group for group in groups if only is None or only in group[0]]
    if not chosen:
        raise ConfigError(f"there is no comparison {only!r}; there are {', '.join(name for name, *_ in groups)}")
    bench = Bench("storage-peers", rounds=rounds, timing=not quick, console=console)
    place = Path(tempfile.mkdtemp(prefix="mutoscope-bench-", dir=folder))
    try:
        for name, (_, shape, frames), codecs in chosen:
            ways = [way for way in WAYS if way.codec in codecs and way.name not in _SKIPPED]
            for way in ways:
                if way.missing:
                    bench.note(f"{way.label} was not measured: {way.missing}")
            _compare(bench, place, name, shape, frames, {way.label: way for way in ways if not way.missing})
    finally:
        shutil.rmtree(place)
    return bench.report()


def _compare(bench: Bench, place: Path, name: str, shape: tuple[int, int], frames: int, ways: dict[str, Way]) -> None:
    done, stored = Rounds(), {}
    with Peers() as peers:
        processes = {label: peers.launch(writer, label=label, shape=list(shape)) for label in (_RAW, *ways)}
        peers.wait_ready()
        first = {}
        for label, process in processes.items():
            first[label], stored[label] = _write(place, process, ways.get(label), shape, max(_DISTINCT, frames // 20))
        best = max((first[label]["value"] for label, way in ways.items() if not way.ours), default=0.0)
        running = [
            label for label in processes if label == _RAW or ways[label].ours or first[label]["value"] >= IN_THE_RUNNING * best
        ]
        if not bench.timing:
            running = list(processes)
        for number in range(bench.rounds):
            for label in running if number % 2 == 0 else running[::-1]:
                if bench.timing:
                    measured, stored[label] = _write(place, processes[label], ways.get(label), shape, frames)
                else:
                    measured = first[label]
                done.add(label, measured)
    _tell(bench, name, ways, done, first, stored, running)


def _write(place: Path, process: Peer, way: Way | None, shape: tuple[int, int], frames: int) -> tuple[dict[str, float], float]:
    """Have a process write one stream; return what it measured, and the bytes stored for each byte of pixels."""
    within = Path(tempfile.mkdtemp(dir=place))
    path = within / ("raw" if way is None else way.file)
    nbytes = shape[0] * shape[1] * 2 * frames
    process.ask([str(path), frames])
    rest(place, nbytes)
    process.tell("go")
    private = 0
    while not select.select([process.control.fileno()], [], [], _LOOK_S)[0]:
        private = max(private, memory_bytes(process.pid, "RssAnon"))
    measured = process.answer() | {"private": float(private)}
    part = taken_bytes(path) / nbytes
    shutil.rmtree(within)
    return measured, part


def _tell(
    bench: Bench,
    name: str,
    ways: dict[str, Way],
    done: Rounds,
    first: dict[str, dict[str, float]],
    stored: dict[str, float],
    running: list[str],
) -> None:
    peers = [label for label in running if label != _RAW and not ways[label].ours]

    def best_of(labels: list[str]) -> str | None:
        return max(labels, key=lambda label: float(np.median(done.of(label))), default=None)

    plain = name.endswith("none")
    for label in (label for label in running if label != _RAW and ways[label].ours):
        if plain:
            at_least = RAW_AT_LEAST if "0.4" not in label else None
            bench.ratio(f"{name}: {label} to raw write", done, of=label, to=_RAW, unit="MB/s", at_least=at_least)
            bench.ratio(
                f"{name}: {label}, append p99 to the raw write's",
                done,
                of=label,
                to=_RAW,
                measure="p99_us",
                unit="us",
                at_most=P99_AT_MOST if "0.4" not in label else None,
            )
        best = best_of(peers)
        alike = best
        if ways[label].acknowledged == RETURN:  # others that make no frame wait for its neighbours
            alike = best_of([peer for peer in peers if ways[peer].acknowledged == RETURN])
        at_least = PEER_AT_LEAST if not plain and "0.4" not in label else None
        for peer in dict.fromkeys((alike, best)):
            if peer is not None:
                bound = at_least if peer == alike else None
                bench.ratio(f"{name}: {label} to {peer}", done, of=label, to=peer, unit="MB/s", at_least=bound)
        bench.figure(f"{name}: {label}, private memory", max(done.of(label, "private")), unit="B", at_most=MEMORY_BYTES)
    rows = []
    for label in sorted(first, key=lambda label: -(np.median(done.of(label)) if label in running else first[label]["value"])):
        if label in running:
            values = [float(np.median(done.of(label, measure))) for measure in ("value", "p50_us", "p99_us", "private")]
        else:
            values = [first[label][measure] for measure in ("value", "p50_us", "p99_us", "private")]
        shown = f"**{label}**" if label in ways and ways[label].ours else label
        shown += "" if label in running else " (once, a twentieth of the frames)"
        numbers = (f"{values[0]:,.0f}", f"{values[1] / 1e3:.2f}", f"{values[2] / 1e3:.2f}", f"{values[3] / 1e6:.0f}")
        rows.append((shown, *numbers, f"{stored[label]:.2f}"))
    columns = ("writer", "MB/s", "append p50, ms", "p99, ms", "private memory, MB", "stored bytes for each byte")
    bench.table(name, columns, rows)
