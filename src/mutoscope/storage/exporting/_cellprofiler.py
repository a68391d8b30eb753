"""For CellProfiler: a TIFF a plane, and the CSV that its module LoadData reads.

Columns: ``Image_FileName_<channel>`` and ``Image_PathName_<channel>`` name the images, ``Metadata_<word>`` what is known of
them. Source: CellProfiler's manual, module LoadData.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.storage import _aside
from mutoscope.storage.converting._sources import Source, open_source
from mutoscope.storage.exporting._report import IMAGEJ_DTYPES, ExportReport, Progress, check_dtype, need_tifffile, writing
from mutoscope.storage.plate import is_plate
from mutoscope.storage.plate._plate import Plate

__all__ = ["export_cellprofiler"]

CSV, IMAGES = "load_data.csv", "images"


@dataclass(frozen=True)
class _Plane:
    """One image: of which row of the CSV it is a channel, and how it is read."""

    row: tuple[tuple[str, str], ...]
    channel: int
    name: str
    read: Callable[[], NDArray[Any]]


def export_cellprofiler(
    dataset: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    image: str | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Make a folder with ``load_data.csv`` and a TIFF a plane under ``images``.

    A row is a field of a plate, at one time and depth, or a frame of a stream with its channels. Projections of plates are
    rows of their own. The CSV names the folder by its absolute path: make it anew, or edit it, where the folder moves.

    Parameters
    ----------
    dataset : path
        A plate of Mutoscope, or anything that `mutoscope.storage.convert` reads.
    target : path
        A folder; must not be there.
    image : str, optional
        Of a recording, which camera, if there are several; of a plate, one field (``"B/03/0"``) alone.
    progress : callable, optional
        Called with planes done, planes in all, and the file's name.

    Raises
    ------
    ConfigError
        If the target is there already, or CellProfiler has no such pixels (it has uint8, uint16 and float32).
    DatasetNotFoundError, DatasetError, BackendUnavailableError, DiskFullError
        As `mutoscope.storage.convert`.
    """
    place = Path(os.path.abspath(target))
    _aside.check_free(place)
    tifffile = need_tifffile()
    root = Path(dataset)
    source: Source | None = None
    try:
        if is_plate(root):
            channels, planes = _of_plate(Plate(root.absolute()), image)
        else:
            source = open_source(root, image)
            channels, planes = _of_frames(source)
        rows, left_out = _rows(planes, len(channels))
        total = len(rows) * len(channels)
        if not rows:
            raise DatasetError(
                f"{root}: has no {'field with all its channels' if planes else 'plane'}, so there is nothing to do"
            )

        def fill(folder: Path) -> None:
            (folder / IMAGES).mkdir()
            with open(folder / CSV, "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                known = [f"Metadata_{word}" for word, _ in next(iter(rows.values()))[0].row]
                writer.writerow([*(f"Image_{what}_{name}" for name in channels for what in ("FileName", "PathName")), *known])
                done = 0
                for row in rows.values():
                    for plane in row:
                        path = folder / IMAGES / plane.name
                        with writing(path):
                            tifffile.imwrite(path, plane.read(), photometric="minisblack", metadata=None)
                        done += 1
                        kill_point("storage.export.plane")
                        if progress is not None:
                            progress(done, total, plane.name)
                    cells = [cell for plane in row for cell in (plane.name, str(place / IMAGES))]
                    writer.writerow([*cells, *(value for _, value in row[0].row)])
            kill_point("storage.export.filled")

        _aside.make_folder(place, fill)
    finally:
        if source is not None:
            source.close()
    notes = []
    if left_out:
        notes.append(
            f"{left_out:,} planes were left out: CellProfiler takes a row only if all {len(channels)} channels are there"
        )
    return ExportReport(str(dataset), str(target), "CellProfiler", total, total + 1, tuple(notes))


def _rows(planes: Sequence[_Plane], channels: int) -> tuple[dict[tuple[tuple[str, str], ...], list[_Plane]], int]:
    """Return the rows that have all channels, in order, and how many planes are in none."""
    found: dict[tuple[tuple[str, str], ...], dict[int, _Plane]] = {}
    for plane in planes:
        found.setdefault(plane.row, {})[plane.channel] = plane
    whole = {row: [each[c] for c in range(channels)] for row, each in found.items() if len(each) == channels}
    return whole, len(planes) - channels * len(whole)


def _of_plate(plate: Plate, image: str | None) -> tuple[list[str], list[_Plane]]:
    keys = [key for key in plate.images() if image is None or key.path == image.strip("/")]
    if not keys:
        raise ConfigError(f"{plate.root}: has no field {image!r}" if image else f"{plate.root}: has no images")
    label = plate.description.name or plate.description.source or plate.root.name.removesuffix(".zarr").removesuffix(".ome")
    planes = []
    most = 0
    for key in keys:
        held = plate.image(key)
        if held is None:
            continue
        if held.spec.dtype not in IMAGEJ_DTYPES:
            known = ", ".join(IMAGEJ_DTYPES)
            raise ConfigError(f"{plate.root}: CellProfiler reads pixels of {known}, not {held.spec.dtype} ({key.path})")
        for at in held.stored():
            t, c, z = at
            most = max(most, c + 1)
            row = (
                ("Plate", label),
                ("Well", str(key.well)),
                ("Site", str(key.field + 1)),
                ("Projection", str(int(key.projection))),
                ("T", str(t + 1)),
                ("Z", str(z + 1)),
            )
            kind = "_projection" if key.projection else ""
            name = f"{key.well}_s{key.field + 1}{kind}_t{t + 1}_z{z + 1}_c{c + 1}.tif"
            planes.append(_Plane(row, c, name, lambda held=held, at=at: held.read(at)))  # type: ignore[misc]
    described = [plate.description.channel(c) for c in range(most)]
    return _words([channel.name or channel.key for channel in described]), planes


def _of_frames(source: Source) -> tuple[list[str], list[_Plane]]:
    frames = source.one()
    check_dtype(source.path, frames, "CellProfiler")
    label = source.path.name.split(".")[0]
    planes = []
    most = 1
    following: dict[tuple[int, int, int], int] = {}
    for number in range(frames.count):
        index = frames.index(number)
        c, z, position = (max(value, 0) for value in (index.c, index.z, index.position)) if index is not None else (0, 0, 0)
        t = index.t if index is not None and index.t >= 0 else following.get((c, z, position), 0)
        following[c, z, position] = t + 1
        most = max(most, c + 1)
        row = (("Plate", label), ("Site", str(position + 1)), ("T", str(t + 1)), ("Z", str(z + 1)))
        frame_id = frames.metadata(number).get("frame_id")
        stem = f"frame{frame_id}" if frame_id is not None else f"plane{number + 1}"
        name = f"{stem}_s{position + 1}_t{t + 1}_z{z + 1}_c{c + 1}.tif"
        planes.append(_Plane(row, c, name, lambda number=number: frames.read(number)))  # type: ignore[misc]
    return _words(frames.channels if len(frames.channels) == most else [""] * most), planes


def _words(names: Sequence[str]) -> list[str]:
    """Return names of channels as CellProfiler takes them: letters, digits and ``_``, each once."""
    return list(_unique(names))


def _unique(names: Sequence[str]) -> Iterator[str]:
    seen: set[str] = set()
    for number, name in enumerate(names, 1):
        word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or f"Channel{number}"
        while word in seen:
            word = f"{word}_{number}"
        seen.add(word)
        yield word
