"""Plates against tensorstore: planes written with a smaller level each, and planes and parts of them read, in turns.

tensorstore gets what a plate of OME-Zarr is without its metadata: an array for each field and level, a plane a chunk, all
writes under way at once. The planes are the same, and so is the arithmetic of the smaller level.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mutoscope import storage
from mutoscope.bench.harness import MIN_ROUNDS, Bench, Report, rest
from mutoscope.bench.storage_peers import poisson_images
from mutoscope.model.errors import ConfigError
from mutoscope.model.plate import WellName
from mutoscope.storage._half import half

__all__ = ["run"]

SHAPE = (512, 512)
FIELDS, CHANNELS, DEPTHS = 4, 2, 5
WELLS = 24
"""Of 96; a quarter of a plate takes the full bench less than three minutes."""

WRITE_AT_MOST, READ_AT_MOST = 1.0, 1.2
ROI = (slice(128, 256), slice(100, 228))
FRAMES = 100
_READS = 400
_ROI_ROUNDS = 4
_FORGET_S = 6.0
"""ext4 passes over each inode that was freed within the last 5 s when it looks for a free one (``recently_deleted`` in the
kernel's fs/ext4/ialloc.c): a writer would pay for the files that the one before has left behind."""


def run(
    *,
    quick: bool = False,
    wells: int = WELLS,
    folder: str | os.PathLike[str] | None = None,
    rounds: int = MIN_ROUNDS,
    console: Console | None = None,
) -> Report:
    """Measure writing and reading of plates against tensorstore.

    Parameters
    ----------
    quick : bool
        One well, once, and no bound is judged.
    wells : int
        How many of the 96 are written.
    folder : path, optional
        Where to write; a temporary folder, if not given.
    rounds : int
        How often both take turns.
    console : rich.console.Console, optional
        Where the progress goes.
    """
    if not 1 <= wells <= 96:
        raise ConfigError(f"a plate has 1 to 96 wells here, not {wells}")
    wells = 1 if quick else wells
    bench = Bench("plate", rounds=rounds, timing=not quick, console=console)
    place = Path(tempfile.mkdtemp(prefix="mutoscope-bench-", dir=folder))
    images = poisson_images(SHAPE)
    planes = wells * FIELDS * CHANNELS * DEPTHS
    cases: dict[str, Callable[[], float]] = {
        "tensorstore": lambda: _timed_write(place, wells, images, _write_tensorstore),
        "plate": lambda: _timed_write(place, wells, images, _write_plate),
    }
    try:
        done = bench.alternate(cases, label="write")
        bench.ratio(
            f"write {planes} planes of {SHAPE[0]}² with a level of half the size",
            done,
            of="plate",
            to="tensorstore",
            unit="s",
            at_most=WRITE_AT_MOST,
        )
        _read(bench, place, images)
    finally:
        shutil.rmtree(place)
    return bench.report()


def _timed_write(place: Path, wells: int, images: list[NDArray[Any]], write: Callable[..., None]) -> float:
    path = place / "plate.ome.zarr"
    rest(place, wells * FIELDS * CHANNELS * DEPTHS * images[0].nbytes * 5 // 4)
    begin = time.perf_counter()
    write(path, wells, images)
    taken = time.perf_counter() - begin
    shutil.rmtree(path)
    os.sync()
    time.sleep(_FORGET_S if wells > 1 else 0.0)
    return taken


def _places(wells: int) -> Iterator[tuple[str, int, int, int]]:
    for number in range(wells):
        well = str(WellName(number // 12, number % 12))
        for field in range(FIELDS):
            for c in range(CHANNELS):
                for z in range(DEPTHS):
                    yield well, field, c, z


def _name(well: str, field: int, c: int, z: int) -> str:
    return f"bench_{well}_s{field + 1}_w{c + 1}_z{z + 1}.tif"


def _write_plate(path: Path, wells: int, images: list[NDArray[Any]]) -> None:
    """As a user does: names of files, planes in the order of the microscope; the overview of a plate is not a smaller level."""
    with storage.open("ome-zarr", path, filenames="imagexpress", wells=96, overview=False) as store:
        names = [_name(*place) for place in _places(wells)]
        store.save_batch([images[number % len(images)] for number in range(len(names))], names)


def _open_tensorstore(path: Path, shape: tuple[int, int], *, create: bool = False) -> Any:
    import tensorstore

    context = tensorstore.Context({"file_io_sync": False, "cache_pool": {"total_bytes_limit": 0}})
    kvstore = {"driver": "file", "path": f"{path}/"}
    if not create:
        return tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, context=context, open=True).result()
    metadata = {
        "shape": [1, CHANNELS, DEPTHS, *shape],
        "data_type": "uint16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 1, 1, *shape]}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    }
    return tensorstore.open(
        {"driver": "zarr3", "kvstore": kvstore, "metadata": metadata}, context=context, create=True
    ).result()


def _write_tensorstore(path: Path, wells: int, images: list[NDArray[Any]]) -> None:
    sizes = (SHAPE, (SHAPE[0] // 2, SHAPE[1] // 2))
    stores: dict[tuple[str, int], list[Any]] = {}
    futures = []
    for number, (well, field, c, z) in enumerate(_places(wells)):
        if (well, field) not in stores:
            image = path / well / str(field)
            stores[well, field] = [_open_tensorstore(image / str(n), size, create=True) for n, size in enumerate(sizes)]
        plane = images[number % len(images)]
        for level, pixels in zip(stores[well, field], (plane, half(plane)), strict=True):
            futures.append(level[0, c, z].write(pixels))
    for future in futures:
        future.result()


def _read(bench: Bench, place: Path, images: list[NDArray[Any]]) -> None:
    """Planes and parts of planes of a plate, and the same part of many frames of a recording."""
    path, movie = place / "plate.ome.zarr", place / "run.ome.zarr"
    _write_plate(path, 1, images)
    with storage.open_writer(movie, shape=SHAPE, dtype="uint16") as writer:
        for number in range(FRAMES):
            writer.append(images[number % len(images)])
    names = [_name(*where) for where in _places(1)]
    count = _READS if bench.timing else len(names)
    chosen = [number % len(names) for number in range(count)]
    with storage.open("ome-zarr", path, filenames="imagexpress") as store, storage.open_reader(movie) as reader:
        arrays = [_open_tensorstore(level, SHAPE) for level in sorted(path.glob("A/*/*/0"))]
        frames = _open_tensorstore(movie / "0", SHAPE)
        spots = [(field, c, z) for _, field, c, z in _places(1)]

        def timed(read: Callable[[int], NDArray[Any]], numbers: list[int]) -> Callable[[], float]:
            def case() -> float:
                begin = time.perf_counter()
                for number in numbers:
                    read(number)
                return (time.perf_counter() - begin) / len(numbers) * 1e6

            return case

        def of_tensorstore(number: int, part: tuple[slice, slice] | None) -> NDArray[Any]:
            field, c, z = spots[number]
            plane = arrays[field][0, c, z]
            found: NDArray[Any] = (plane if part is None else plane[part]).read().result()
            return found

        pairs: dict[str, tuple[Callable[[int], Any], Callable[[int], Any], list[int]]] = {
            "read a plane": (lambda n: of_tensorstore(n, None), lambda n: store.load(names[n]), chosen),
            f"read {128}² of a plane": (
                lambda n: of_tensorstore(n, ROI),
                lambda n: store.load_region(names[n], ROI),
                chosen,
            ),
            f"read {128}² of {FRAMES} frames": (
                lambda n: frames[:FRAMES, ROI[0], ROI[1]].read().result(),
                lambda n: reader[:FRAMES, ROI[0], ROI[1]],
                list(range(_ROI_ROUNDS)),
            ),
        }
        for name, (theirs, ours, numbers) in pairs.items():
            if not all(np.array_equal(theirs(number), ours(number)) for number in sorted(set(numbers))):
                raise AssertionError(f"{name}: the two do not read the same")
            done = bench.alternate({"tensorstore": timed(theirs, numbers), "plate": timed(ours, numbers)}, label=name)
            bench.ratio(name, done, of="plate", to="tensorstore", unit="us", at_most=READ_AT_MOST)
