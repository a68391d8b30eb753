"""CellVoyager (Yokogawa): ``MeasurementData.mlf`` lists the images, ``MeasurementDetail.mrf`` the plate and channels, the
``.mes`` how they were taken.

A plate is often incomplete: the ``.mlf`` lists what was taken, the folder may hold less. Y points up there; `y_um` here points
down.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from mutoscope.model._xml import Element, elements, number, stream
from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.model.filenames._listed import listed_name
from mutoscope.model.plate import PlateGeometry, WellName

__all__ = [
    "VoyagerChannel",
    "VoyagerDetail",
    "VoyagerError",
    "VoyagerImage",
    "VoyagerRecords",
    "VoyagerSetting",
    "read_mes",
    "read_mlf",
    "read_mrf",
]


class VoyagerImage(msgspec.Struct, frozen=True):
    """One image: its file, place, position relative to the centre of the well in µm, and time (ISO 8601)."""

    name: str
    well: str
    field: int
    channel: int
    z: int
    t: int
    y_um: float
    x_um: float
    z_um: float
    time: str = ""
    action: str = ""
    timeline_index: int = 1
    action_index: int = 1


class VoyagerError(msgspec.Struct, frozen=True):
    """A plane that the microscope says it could not take."""

    well: str
    message: str
    time: str = ""


class VoyagerRecords(msgspec.Struct, frozen=True):
    """What an ``.mlf`` lists."""

    images: list[VoyagerImage]
    errors: list[VoyagerError]


class VoyagerChannel(msgspec.Struct, frozen=True):
    """One channel as the ``.mrf`` describes it; `shading` names the shading correction image."""

    number: int
    pixel_size_um: float
    shape: tuple[int, int]
    bit_depth: int
    camera: str = ""
    shading: str = ""


class VoyagerSetting(msgspec.Struct, frozen=True):
    """One channel as the ``.mes`` sets it: a name made of light and filter, and what is known of them."""

    number: int
    name: str = ""
    excitation_nm: float | None = None
    exposure_ms: float | None = None
    colour: str = ""


class VoyagerDetail(msgspec.Struct, frozen=True):
    """What an ``.mrf`` says: the plate, how much was asked for, and the channels by number."""

    title: str
    plate: PlateGeometry
    began: str
    ended: str
    timepoints: int
    fields: int
    z_steps: int
    channels: dict[int, VoyagerChannel]


def read_mlf(data: bytes | Iterable[bytes]) -> VoyagerRecords:
    """Read a ``MeasurementData.mlf``.

    Raises
    ------
    DatasetError
        If it is none, is damaged or cut off, declares a document type, or names files outside its folder.
    """
    what = "the .mlf file"
    images: list[VoyagerImage] = []
    errors: list[VoyagerError] = []
    for record in stream(data, ("MeasurementRecord",), what=what):
        well = _well(record, what)
        if record.get("Type") == "ERR":
            errors.append(VoyagerError(well, record.text.strip(), record.get("Time")))
        elif record.get("Type") == "IMG":
            images.append(
                VoyagerImage(
                    name=listed_name(record.text.strip(), what),
                    well=well,
                    field=_int(record, "FieldIndex", what),
                    channel=_int(record, "Ch", what),
                    z=_int(record, "ZIndex", what),
                    t=_int(record, "TimePoint", what),
                    y_um=0.0 - _float(record, "Y", what),
                    x_um=_float(record, "X", what),
                    z_um=_float(record, "Z", what),
                    time=record.get("Time"),
                    action=record.get("Action"),
                    timeline_index=_int(record, "TimelineIndex", what, 1),
                    action_index=_int(record, "ActionIndex", what, 1),
                )
            )
    if not images and not errors:
        raise DatasetError(f"{what} lists no images")
    return VoyagerRecords(images, errors)


def read_mrf(data: bytes | Iterable[bytes]) -> VoyagerDetail:
    """Read a ``MeasurementDetail.mrf``; errors as in :func:`read_mlf`."""
    what = "the .mrf file"
    whole = next(iter(elements(data if isinstance(data, bytes) else b"".join(data), ("MeasurementDetail",), what=what)), None)
    if whole is None:
        raise DatasetError(f"{what} has no MeasurementDetail")
    channels = {}
    for element in whole.all("MeasurementChannel"):
        channel = VoyagerChannel(
            number=_int(element, "Ch", what),
            pixel_size_um=_float(element, "HorizontalPixelDimension", what),
            shape=(_int(element, "VerticalPixels", what), _int(element, "HorizontalPixels", what)),
            bit_depth=_int(element, "InputBitDepth", what, 16),
            camera=element.get("CameraNumber"),
            shading=element.get("ShadingCorrectionSource"),
        )
        channels[channel.number] = channel
    try:
        plate = PlateGeometry(_int(whole, "RowCount", what), _int(whole, "ColumnCount", what))
    except ConfigError as error:
        raise DatasetError(f"{what}: {error}") from error
    return VoyagerDetail(
        title=whole.get("Title"),
        plate=plate,
        began=whole.get("BeginTime"),
        ended=whole.get("EndTime"),
        timepoints=_int(whole, "TimePointCount", what, 1),
        fields=_int(whole, "FieldCount", what, 1),
        z_steps=_int(whole, "ZCount", what, 1),
        channels=channels,
    )


def read_mes(data: bytes | Iterable[bytes]) -> dict[int, VoyagerSetting]:
    """Read the channels of a measurement setting (``.mes``), by number; errors as in :func:`read_mlf`."""
    what = "the .mes file"
    lights: dict[str, Element] = {}
    found: dict[int, VoyagerSetting] = {}
    for element in stream(data, ("LightSource", "Channel"), what=what):
        if element.tag == "LightSource":
            lights[element.get("Name")] = element
            continue
        named = [child.text.strip() for child in element.all("LightSourceName")]
        wavelengths = [_float(lights[name], "WaveLength", what) for name in named if name in lights]
        exposure_ms = _float(element, "ExposureTime", what) if element.get("ExposureTime") else 0.0
        colour = element.get("Color").lstrip("#")[-6:].upper()
        channel = VoyagerSetting(
            number=_int(element, "Ch", what),
            name=" ".join([*named, element.get("Acquisition")]).strip(),
            excitation_nm=wavelengths[0] if len(wavelengths) == 1 and wavelengths[0] > 0 else None,
            exposure_ms=exposure_ms if exposure_ms > 0 else None,
            colour=colour if re.fullmatch("[0-9A-F]{6}", colour) else "",
        )
        found[channel.number] = channel
    if not found:
        raise DatasetError(f"{what} has no channels")
    return found


def _well(record: Element, what: str) -> str:
    try:
        return str(WellName(_int(record, "Row", what) - 1, _int(record, "Column", what) - 1))
    except ConfigError as error:
        raise DatasetError(f"{what}: {error}") from error


def _int(element: Element, name: str, what: str, default: int | None = None) -> int:
    text = element.get(name)
    if not text and default is not None:
        return default
    value: int = number(text, int, what=f"{name} in {what}")
    if not 0 <= value < 1 << 31:
        raise DatasetError(f"{name} in {what} is {value}")
    return value


def _float(element: Element, name: str, what: str) -> float:
    value = float(number(element.get(name), float, what=f"{name} in {what}"))
    if not abs(value) < 1e30:
        raise DatasetError(f"{name} in {what} is {value}")
    return value
