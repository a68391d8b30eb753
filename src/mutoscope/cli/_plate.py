"""The commands for plates: ``mutoscope plate import``."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from mutoscope.app.exit_codes import FAILED
from mutoscope.cli._values import whole

__all__ = ["plate"]

plate = App(name="plate", help="Plates: from the files of a microscope to one OME-Zarr.", result_action="return_value")


@plate.command(name="import")
def import_(
    folder: Annotated[Path, Parameter(help="The microscope's files, with all folders inside.")],
    out: Annotated[Path, Parameter(help="The plate, a name that ends in .ome.zarr.")],
    /,
    *,
    filenames: Annotated[
        str,
        Parameter(help="Whose names they are: imagexpress, opera_phenix, cellvoyager, … By default the one that fits most."),
    ] = "auto",
    wells: Annotated[
        int | None, Parameter(converter=whole, help="How many the plate has: 96, 384, …, if the microscope's files do not say.")
    ] = None,
    compression: Annotated[str, Parameter(help="Of each plane: none, blosc-lz4, blosc-zstd or zstd.")] = "none",
    overwrite: Annotated[bool, Parameter(negative="", help="Make it anew in place of what stands there.")] = False,
    json: Annotated[bool, Parameter(negative="", help="Print the result as one JSON object, on the last line.")] = False,
) -> int:
    """Store a folder of images as a plate; once more after a kill, it goes on. Exit code 1 if an image could not be stored."""
    import msgspec

    from mutoscope.storage.plate import import_plate

    with _progress(f"mutoscope plate import {folder.name}") as show:
        report = import_plate(
            folder, out, filenames=filenames, overwrite=overwrite, wells=wells, compression=compression, progress=show
        )
    print("\n".join(report.lines()))
    if json:
        print(jsonlib.dumps(msgspec.to_builtins(report)))
    return FAILED if report.lost else 0


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int, str], None] | None]:
    """Yield what shows progress in a terminal, None where there is none."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, last="")
        yield lambda done, total, name: bar.update(task, completed=done, total=total, last=name.rpartition("/")[2][:40])
