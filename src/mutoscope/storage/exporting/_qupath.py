"""For QuPath: the image as OME-TIFF, and ROIs as GeoJSON."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from mutoscope.model import roi_convert
from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError, DatasetNotFoundError
from mutoscope.model.roi import Roi, RoiPlane
from mutoscope.storage import _aside, _formats, labels
from mutoscope.storage.converting._convert import convert
from mutoscope.storage.exporting._report import ExportReport, Progress

__all__ = ["export_qupath"]

IMAGE, ROIS = "image.ome.tiff", "rois.geojson"


def export_qupath(
    dataset: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    image: str | None = None,
    rois: str | os.PathLike[str] | None = None,
    from_labels: str | None = None,
    compression: str | None = "zlib",
    progress: Progress | None = None,
) -> ExportReport:
    """Make a folder with ``image.ome.tiff`` and ``rois.geojson``, which QuPath opens (drop both on its window).

    Parameters
    ----------
    dataset : path
        Anything that `mutoscope.storage.convert` reads.
    target : path
        A folder; must not be there.
    image : str, optional
        Which camera, field, image or scene, if there are several.
    rois : path, optional
        A file of ROIs: ``.zip`` or ``.roi`` of ImageJ, ``.geojson``.
    from_labels : str, optional
        Labels of the data set, an OME-Zarr: each object of each plane becomes a ROI with its number.
    compression : str, optional
        Of the OME-TIFF: ``"zlib"``, ``"zstd"`` or ``"none"``.
    progress : callable, optional
        Called with planes done, planes in all, and the image's name.

    Raises
    ------
    ConfigError
        If the target is there already, or both kinds of ROIs are given.
    DatasetNotFoundError, DatasetError, BackendUnavailableError, DiskFullError
        As `mutoscope.storage.convert`.
    """
    if rois is not None and from_labels is not None:
        raise ConfigError("give either rois or from_labels")
    place = Path(os.path.abspath(target))
    _aside.check_free(place)
    found: list[Roi] = []
    if rois is not None:
        found = _read_rois(Path(rois))
    elif from_labels is not None:
        found = _of_labels(dataset, from_labels, image)
    document = roi_convert.to_geojson(found)
    planes = 0
    notes: tuple[str, ...] = ()

    def fill(folder: Path) -> None:
        nonlocal planes, notes
        report = convert(dataset, folder / IMAGE, image=image, compression=compression, progress=progress)
        planes, notes = report.frames, tuple(f"not in the OME-TIFF: {each}" for each in report.not_kept)
        (folder / ROIS).write_bytes(document)
        kill_point("storage.export.filled")

    _aside.make_folder(place, fill)
    files = len(list(place.iterdir()))
    return ExportReport(str(dataset), str(target), "QuPath", planes, files, (f"{len(found):,} ROIs in {ROIS}", *notes))


def _read_rois(path: Path) -> list[Roi]:
    if not path.is_file():
        raise DatasetNotFoundError(f"there is no file of ROIs {path}")
    with open(path, "rb") as file:
        found: Any = _formats.read(path.name, file, os.fstat(file.fileno()).st_size, str(path))
    if not isinstance(found, list) or not all(isinstance(roi, Roi) for roi in found):
        raise DatasetError(f"{path}: holds no ROIs; give a .zip or .roi of ImageJ, or .geojson")
    return found


def _of_labels(dataset: str | os.PathLike[str], name: str, image: str | None) -> list[Roi]:
    axes = labels.labels_info(dataset, name, image=image).axes
    pixels = labels.load_labels(dataset, name, image=image)
    found: list[Roi] = []
    for place in np.ndindex(*pixels.shape[:-2]):
        at = dict(zip(axes, place, strict=False))
        plane = RoiPlane(**{axis: at[axis] for axis in ("c", "z", "t") if axis in at})
        found += roi_convert.from_labels(pixels[place], plane=plane)
    return found
