"""The commands that copy a data set into another form: ``mutoscope convert`` and ``mutoscope export``."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from mutoscope.cli._plate import _progress

__all__ = ["add_commands"]

Json = Annotated[bool, Parameter(negative="", help="Print the result as one JSON object, on the last line.")]
Image = Annotated[str | None, Parameter(help="Which camera, field of a plate (B/03/0), image or scene, if there are several.")]


def add_commands(app: App) -> None:
    """Add them to the program's."""
    app.command(convert)


def convert(
    source: Annotated[
        Path, Parameter(help="A recording, TIFF, OME-TIFF, a folder of TIFF or PNG, OME-Zarr, NDTiff, or what bioio reads.")
    ],
    out: Annotated[Path, Parameter(help="The copy: a name that ends in .ome.zarr or .ome.tiff.")],
    /,
    *,
    image: Image = None,
    compression: Annotated[
        str | None, Parameter(help="none, which is the default; OME-Zarr also blosc-lz4 and zstd, OME-TIFF zlib and zstd.")
    ] = None,
    ome_zarr_version: Annotated[str | None, Parameter(help="0.5, which is the default, or 0.4.")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace a data set that stands there.")] = False,
    json: Json = False,
) -> int:
    """Copy a data set into OME-Zarr or OME-TIFF, bit by bit the same pixels. A copy appears whole, or not at all."""
    import msgspec

    from mutoscope.storage.converting import convert as convert_

    with _progress(f"mutoscope convert {source.name}") as show:
        report = convert_(
            source,
            out,
            image=image,
            compression=compression,
            ome_zarr_version=ome_zarr_version,
            overwrite=overwrite,
            progress=show,
        )
    print("\n".join(report.lines()))
    if json:
        print(jsonlib.dumps(msgspec.to_builtins(report)))
    return 0
