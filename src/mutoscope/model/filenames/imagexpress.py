"""ImageXpress (MetaXpress): the ``.HTD`` file that describes a plate, and the description inside each TIFF.

The former is lines of comma-separated values, the first of them the name. Its text is of no declared encoding, and real files
are not UTF-8.
"""

from __future__ import annotations

import csv

import msgspec

from mutoscope.model._xml import number, stream
from mutoscope.model.errors import DatasetError
from mutoscope.model.plate import PlateGeometry, WellName

__all__ = ["HtdPlate", "MetaSeriesPlane", "read_htd", "read_plane_description"]

MAX_BYTES = 16 << 20
MAX_SIDE = 702


class HtdPlate(msgspec.Struct, frozen=True):
    """What an ``.HTD`` file says.

    Parameters
    ----------
    description : str
    plate : PlateGeometry
    wells : list of str
        The wells that were to be imaged, row by row.
    sites : list of (row, column)
        The places in the grid of sites, from 0 at the upper left; site 1 is the first.
    channels : list of str
        Names of the wavelengths; wavelength 1 is the first.
    timepoints, z_steps : int
    z_projection : bool
        Whether there is a projection (``ZStep_0`` in exported folders).
    plate_id : str
    """

    description: str
    plate: PlateGeometry
    wells: list[str]
    sites: list[tuple[int, int]]
    channels: list[str]
    timepoints: int = 1
    z_steps: int = 1
    z_projection: bool = False
    plate_id: str = ""


def read_htd(data: bytes) -> HtdPlate:
    """Read an ``.HTD`` file.

    Parameters
    ----------
    data : bytes
        The file.

    Raises
    ------
    DatasetError
        If it is none, is cut off before the plate's size, or has impossible numbers.
    """
    if len(data) > MAX_BYTES:
        raise DatasetError(f"an .HTD file is not longer than {MAX_BYTES} bytes, this one has {len(data)}")
    lines = _lines(_decode(data))
    if "HTSInfoFile" not in lines:
        raise DatasetError("this is no .HTD file: it has no line HTSInfoFile")
    rows, columns = _count(lines, "YWells", MAX_SIDE), _count(lines, "XWells", 999)
    sites: list[tuple[int, int]] = [(0, 0)]
    if _true(lines, "Sites"):
        sites = _chosen(lines, "SiteSelection", _count(lines, "YSites", 999), _count(lines, "XSites", 999))
    names: list[str] = []
    if _true(lines, "Waves"):
        names = [_text(lines, f"WaveName{i + 1}") for i in range(_count(lines, "NWavelengths", 999))]
    return HtdPlate(
        description=_text(lines, "Description"),
        plate=PlateGeometry(rows, columns),
        wells=[str(WellName(row, column)) for row, column in _chosen(lines, "WellsSelection", rows, columns)],
        sites=sites,
        channels=names,
        timepoints=_count(lines, "TimePoints", 1 << 31, default=1),
        z_steps=_count(lines, "ZSteps", 1 << 31, default=1) if _true(lines, "ZSeries") else 1,
        z_projection=_true(lines, "ZProjection"),
        plate_id=_text(lines, "UniquePlateIdentifier"),
    )


def _decode(data: bytes) -> str:
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def _lines(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        for row in csv.reader(text.replace("\0", "").splitlines(), skipinitialspace=True):
            if row:
                found.setdefault(row[0].strip(), [value.strip() for value in row[1:]])
    except csv.Error as error:
        raise DatasetError(f"this .HTD file cannot be read: {error}") from error
    return found


def _text(lines: dict[str, list[str]], name: str) -> str:
    return ", ".join(lines.get(name, []))


def _true(lines: dict[str, list[str]], name: str) -> bool:
    return _text(lines, name).upper() == "TRUE"


def _count(lines: dict[str, list[str]], name: str, most: int, default: int | None = None) -> int:
    if name not in lines and default is not None:
        return default
    value: int = number(_text(lines, name), int, what=f"{name} of an .HTD file")
    if not 1 <= value <= most:
        raise DatasetError(f"{name} of an .HTD file is {value}, not 1 to {most}")
    return value


def _chosen(lines: dict[str, list[str]], name: str, rows: int, columns: int) -> list[tuple[int, int]]:
    chosen = []
    for row in range(rows):
        marks = lines.get(f"{name}{row + 1}", [])
        chosen += [(row, column) for column, mark in enumerate(marks[:columns]) if mark.upper() == "TRUE"]
    return chosen


class MetaSeriesPlane(msgspec.Struct, frozen=True):
    """What the description inside a TIFF of MetaXpress says of its plane; what it does not say is None.

    Parameters
    ----------
    pixel_size_um : float or None
    stage_y_um, stage_x_um, stage_z_um : float or None
        Of the stage: x to the right and y **down** the plate, as rows of an image go.
    offset_y_um, offset_x_um : float or None
        The field's centre from the well's, the same way.
    emission_nm : float or None
        What MetaXpress calls the wavelength.
    illumination : str
        The name of the setting, which is that of the channel.
    exposure_ms : float or None
    """

    pixel_size_um: float | None = None
    stage_y_um: float | None = None
    stage_x_um: float | None = None
    stage_z_um: float | None = None
    offset_y_um: float | None = None
    offset_x_um: float | None = None
    emission_nm: float | None = None
    illumination: str = ""
    exposure_ms: float | None = None


def read_plane_description(data: bytes) -> MetaSeriesPlane:
    """Read the XML that MetaXpress writes as description of a TIFF.

    Raises
    ------
    DatasetError
        If it is none, is damaged, or declares a document type.
    """
    what = "the description of a MetaXpress image"
    said = {each.get("id"): each.get("value") for each in stream(data, ("prop", "custom-prop"), what=what)}
    calibrated = said.get("spatial-calibration-state") == "on" and said.get("spatial-calibration-units", "").strip() == "um"
    exposure, _, unit = said.get("Exposure Time", "").strip().partition(" ")
    return MetaSeriesPlane(
        pixel_size_um=_measure(said, "spatial-calibration-x", positive=True) if calibrated else None,
        stage_y_um=_measure(said, "stage-position-y"),
        stage_x_um=_measure(said, "stage-position-x"),
        stage_z_um=_measure(said, "z-position"),
        offset_y_um=_measure(said, "OffsetFromWellCenterUmY"),
        offset_x_um=_measure(said, "OffsetFromWellCenterUmX"),
        emission_nm=_measure(said, "wavelength", positive=True),
        illumination=said.get("_IllumSetting_", ""),
        exposure_ms=_measure({"Exposure Time": exposure}, "Exposure Time", positive=True) if unit == "ms" else None,
    )


def _measure(said: dict[str, str], name: str, *, positive: bool = False) -> float | None:
    if not said.get(name):
        return None
    value = float(number(said[name], float, what=f"{name} of a MetaXpress image"))
    if not abs(value) < 1e12 or (positive and value <= 0):
        return None
    return value
