"""ROI lists as files: where the conversions of `mutoscope.model.roi_convert` meet the suffixes."""

from __future__ import annotations

from typing import IO

from mutoscope.model import roi_convert
from mutoscope.model.errors import BackendUnavailableError, ConfigError, DatasetError
from mutoscope.model.roi import Roi

__all__ = ["check_set", "check_single", "read_geojson", "read_imagej", "write_geojson", "write_set", "write_single"]

MAX_BYTES = 1 << 30
"""Largest file of ROIs that is read."""


def check_set(rois: list[Roi]) -> None:
    """Raise ConfigError for ROIs that ImageJ cannot hold; without roifile that shows when they are written."""
    try:
        roi_convert.to_imagej(rois)
    except BackendUnavailableError:
        return


def check_single(rois: list[Roi]) -> None:
    """Raise ConfigError for anything but one ROI that ImageJ can hold."""
    if len(rois) != 1:
        raise ConfigError(f"a .roi file holds one ROI, not {len(rois)}; .zip or .geojson hold many")
    check_set(rois)


def write_set(file: IO[bytes], rois: list[Roi]) -> None:
    """Write ROIs as a set of ImageJ's ROI manager."""
    file.write(roi_convert.to_imagej(rois))


def write_single(file: IO[bytes], rois: list[Roi]) -> None:
    """Write one ROI as ImageJ does."""
    file.write(roi_convert.to_imagej_roi(rois[0]))


def write_geojson(file: IO[bytes], rois: list[Roi]) -> None:
    """Write ROIs as QuPath reads them."""
    file.write(roi_convert.to_geojson(rois))


def read_imagej(file: IO[bytes], size: int, where: str) -> list[Roi]:
    """Return the ROIs of a file of ImageJ."""
    try:
        return roi_convert.from_imagej(_content(file, size))
    except DatasetError as error:
        raise DatasetError(f"{where}: {error}") from error


def read_geojson(file: IO[bytes], size: int, where: str) -> list[Roi]:
    """Return the ROIs of a GeoJSON file."""
    try:
        return roi_convert.from_geojson(_content(file, size))
    except DatasetError as error:
        raise DatasetError(f"{where}: {error}") from error


def _content(file: IO[bytes], size: int) -> bytes:
    if size > MAX_BYTES:
        raise DatasetError(f"has {size} bytes, more than the {MAX_BYTES} that are read")
    return file.read()
