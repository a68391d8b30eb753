"""The commands that copy a data set into another form: ``mutoscope convert`` and ``mutoscope export``."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from mutoscope.cli._plate import _progress
from mutoscope.cli._values import whole

if TYPE_CHECKING:
    from mutoscope.storage.exporting import ExportReport

__all__ = ["add_commands"]

Json = Annotated[bool, Parameter(negative="", help="Print the result as one JSON object, on the last line.")]
Image = Annotated[str | None, Parameter(help="Which camera, field of a plate (B/03/0), image or scene, if there are several.")]


export = App(name="export", help="Out to other tools: Fiji, QuPath, CellProfiler.", result_action="return_value")
Dataset = Annotated[Path, Parameter(help="A recording, a plate, or anything else that mutoscope convert reads.")]


def add_commands(app: App) -> None:
    """Add them to the program's."""
    app.command(convert)
    app.command(export)


def convert(
    source: Annotated[
        Path,
        Parameter(help="A recording, a plate, TIFF, OME-TIFF, a folder of TIFF or PNG, OME-Zarr, NDTiff, or what bioio reads."),
    ],
    out: Annotated[
        Path,
        Parameter(
            help="The copy: a name that ends in .ome.zarr or .ome.tiff; of a plate also a folder for an OME-TIFF a field."
        ),
    ],
    /,
    *,
    image: Image = None,
    compression: Annotated[
        str | None,
        Parameter(help="none, which is the default; OME-Zarr also blosc-lz4, blosc-zstd and zstd, OME-TIFF zlib and zstd."),
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


@export.command
def fiji(
    dataset: Dataset,
    out: Annotated[Path, Parameter(help="The hyperstack: a name that ends in .tif.")],
    /,
    *,
    image: Image = None,
    position: Annotated[
        int | None, Parameter(converter=whole, help="Which stage position, from 0, if there are several.")
    ] = None,
    json: Json = False,
) -> int:
    """Write an ImageJ hyperstack: µm, frame interval, frame ids as labels."""
    from mutoscope.storage.exporting import export_fiji

    with _progress(f"mutoscope export fiji {dataset.name}") as show:
        report = export_fiji(dataset, out, image=image, position=position, progress=show)
    return _tell(report, json)


@export.command
def qupath(
    dataset: Dataset,
    out: Annotated[Path, Parameter(help="A folder, which is made.")],
    /,
    *,
    image: Image = None,
    rois: Annotated[Path | None, Parameter(help="A file of ROIs: .zip or .roi of ImageJ, or .geojson.")] = None,
    labels: Annotated[str | None, Parameter(help="Labels of the data set, whose objects become ROIs.")] = None,
    json: Json = False,
) -> int:
    """Make a folder with the image as OME-TIFF and ROIs as GeoJSON."""
    from mutoscope.storage.exporting import export_qupath

    with _progress(f"mutoscope export qupath {dataset.name}") as show:
        report = export_qupath(dataset, out, image=image, rois=rois, from_labels=labels, progress=show)
    return _tell(report, json)


@export.command
def cellprofiler(
    dataset: Dataset,
    out: Annotated[Path, Parameter(help="A folder, which is made.")],
    /,
    *,
    image: Image = None,
    json: Json = False,
) -> int:
    """Make a folder with a TIFF a plane and the CSV for CellProfiler's module LoadData."""
    from mutoscope.storage.exporting import export_cellprofiler

    with _progress(f"mutoscope export cellprofiler {dataset.name}") as show:
        report = export_cellprofiler(dataset, out, image=image, progress=show)
    return _tell(report, json)


def _tell(report: ExportReport, json: bool) -> int:
    import msgspec

    print("\n".join(report.lines()))
    if json:
        print(jsonlib.dumps(msgspec.to_builtins(report)))
    return 0
