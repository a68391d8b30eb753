"""Opera Phenix and Operetta (Harmony): ``Index.xml``, which lists every image of a measurement with its place.

Harmony's y axis points up; `y_um` here points down, as image rows do. Time points are counted from 0 in the file and from 1 in
the file names (``sk1``); `t` here is the names'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from mutoscope.model._xml import Element, number, stream
from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.model.filenames._listed import listed_name
from mutoscope.model.plate import PlateGeometry, WellName

__all__ = ["PhenixChannel", "PhenixImage", "PhenixIndex", "read_flatfield", "read_index"]

WHAT = "Index.xml"
MAX_DEPTH = 32


class PhenixImage(msgspec.Struct, frozen=True):
    """One image: its file, place and position relative to the centre of the well (z: to the nominal focus), in µm."""

    name: str
    well: str
    field: int
    channel: int
    z: int
    t: int
    y_um: float | None = None
    x_um: float | None = None
    z_um: float | None = None
    time_s: float | None = None
    ok: bool = True


class PhenixChannel(msgspec.Struct, frozen=True):
    """One channel. `flatfield` is the profile's text as Harmony wrote it (empty: none), for :func:`read_flatfield`."""

    number: int
    name: str = ""
    kind: str = ""
    excitation_nm: float | None = None
    emission_nm: float | None = None
    exposure_ms: float | None = None
    pixel_size_um: float | None = None
    shape: tuple[int, int] | None = None
    flatfield: str = ""


class PhenixIndex(msgspec.Struct, frozen=True):
    """A measurement: plate, channels by number, images in the order of the file."""

    plate_id: str
    name: str
    plate: PlateGeometry
    started: str
    channels: dict[int, PhenixChannel]
    images: list[PhenixImage]


def read_index(data: bytes | Iterable[bytes]) -> PhenixIndex:
    """Read an ``Index.xml`` (or ``Index.idx.xml``) of Harmony 5 or 6.

    Parameters
    ----------
    data : bytes or iterable of bytes
        The file, whole or in pieces.

    Raises
    ------
    DatasetError
        If it is no such file, is damaged or cut off, declares a document type, or names files outside its folder.
    """
    plate: Element | None = None
    images: list[PhenixImage] = []
    channels: dict[int, PhenixChannel] = {}
    profiles: dict[int, str] = {}
    for element in stream(data, ("Plate", "Image", "Entry"), what=WHAT):
        if element.tag == "Plate":
            plate = plate or element
        elif element.tag == "Entry":
            text = element.value("FlatfieldProfile")
            if text:
                profiles[number(element.get("ChannelID"), int, what="a ChannelID")] = text
            if element.child("ChannelName") is not None:  # Harmony 6 keeps what a channel is here
                channel = _channel(element, number(element.get("ChannelID"), int, what="a ChannelID"))
                channels.setdefault(channel.number, channel)
        elif element.child("URL") is not None:
            image = _image(element)
            images.append(image)
            if image.channel not in channels:
                channels[image.channel] = _channel(element, image.channel)
    if plate is None or not images:
        raise DatasetError(f"{WHAT} lists no {'images' if plate is not None else 'plate'}")
    for key, text in profiles.items():
        channels[key] = msgspec.structs.replace(channels.get(key) or PhenixChannel(key), flatfield=text)
    try:
        geometry = PlateGeometry(_int(plate, "PlateRows"), _int(plate, "PlateColumns"))
    except ConfigError as error:
        raise DatasetError(f"{WHAT}: {error}") from error
    return PhenixIndex(
        plate.value("PlateID"),
        plate.value("Name"),
        geometry,
        plate.value("MeasurementStartTime"),
        dict(sorted(channels.items())),
        images,
    )


def _image(element: Element) -> PhenixImage:
    y_um = _scaled(element, "PositionY", 1e6)
    try:
        well = WellName(_int(element, "Row") - 1, _int(element, "Col") - 1)
    except ConfigError as error:
        raise DatasetError(f"{WHAT}: {error}") from error
    return PhenixImage(
        name=listed_name(element.value("URL"), WHAT),
        well=str(well),
        field=_int(element, "FieldID"),
        channel=_int(element, "ChannelID"),
        z=_int(element, "PlaneID"),
        t=_int(element, "TimepointID", 0) + 1,
        y_um=None if y_um is None else 0.0 - y_um,
        x_um=_scaled(element, "PositionX", 1e6),
        z_um=_scaled(element, "PositionZ", 1e6),
        time_s=_scaled(element, "MeasurementTimeOffset", 1.0),
        ok=element.value("State", "Ok").lower() == "ok",
    )


def _channel(element: Element, key: int) -> PhenixChannel:
    size = (element.value("ImageSizeY"), element.value("ImageSizeX"))
    return PhenixChannel(
        number=key,
        name=element.value("ChannelName"),
        kind=element.value("ChannelType"),
        excitation_nm=_scaled(element, "MainExcitationWavelength", 1.0) or None,
        emission_nm=_scaled(element, "MainEmissionWavelength", 1.0) or None,  # 0: it has none (brightfield)
        exposure_ms=_scaled(element, "ExposureTime", 1e3),
        pixel_size_um=_scaled(element, "ImageResolutionX", 1e6),
        shape=(_int(element, "ImageSizeY"), _int(element, "ImageSizeX")) if all(size) else None,
    )


def _int(element: Element, tag: str, default: int | None = None) -> int:
    text = element.value(tag)
    if not text and default is not None:
        return default
    value: int = number(text, int, what=f"{tag} in {WHAT}")
    if not 0 <= value < 1 << 31:
        raise DatasetError(f"{tag} in {WHAT} is {value}")
    return value


def _scaled(element: Element, tag: str, factor: float) -> float | None:
    """Return a length in µm, a time in s or ms: the file's SI units times `factor` (12 digits hold all that the file has)."""
    text = element.value(tag)
    if not text:
        return None
    value = float(number(text, float, what=f"{tag} in {WHAT}"))
    if not abs(value) < 1e30:
        raise DatasetError(f"{tag} in {WHAT} is {value}")
    return float(f"{value * factor:.12g}")


_TOKEN = re.compile(r"\s*([{}\[\],:]|[^{}\[\],:]+)")


def read_flatfield(text: str) -> dict[str, Any]:
    """Take a flat-field profile apart: ``{Background: {Character: NonFlat, …}}`` into dicts, lists, numbers and text.

    Raises
    ------
    DatasetError
        If it is not of this form.
    """
    tokens = [match[1].strip() for match in _TOKEN.finditer(text.strip())]
    tokens = [token for token in tokens if token]
    value, at = _value(tokens, 0, 0)
    if at != len(tokens) or not isinstance(value, dict):
        raise DatasetError(f"not a flat-field profile: {text[:60]!r}")
    return value


def _value(tokens: list[str], at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise DatasetError(f"a flat-field profile is nested more than {MAX_DEPTH} deep")
    token = _at(tokens, at)
    if token == "{":
        return _items(tokens, at + 1, depth, "}")
    if token == "[":
        return _items(tokens, at + 1, depth, "]")
    if token in "}],:":
        raise DatasetError(f"a flat-field profile has {token!r} where a value is due")
    parts = [token]
    while at + 2 < len(tokens) and tokens[at + 1] == ":":  # "Acapella:2013" is one text
        parts.append(_at(tokens, at + 2))
        at += 2
    try:
        return float(token) if len(parts) == 1 else ":".join(parts), at + 1
    except ValueError:
        return token, at + 1


def _items(tokens: list[str], at: int, depth: int, end: str) -> tuple[Any, int]:
    named: dict[str, Any] = {}
    listed: list[Any] = []
    while _at(tokens, at) != end:
        key = ""
        if end == "}":
            key = _at(tokens, at)
            if _at(tokens, at + 1) != ":":
                raise DatasetError(f"a flat-field profile has no value for {key[:40]!r}")
            at += 2
        value, at = _value(tokens, at, depth + 1)
        named[key] = value
        listed.append(value)
        if _at(tokens, at) == ",":
            at += 1
        elif _at(tokens, at) != end:
            raise DatasetError(f"a flat-field profile has {tokens[at][:40]!r} where ',' or {end!r} is due")
    return (named if end == "}" else listed), at + 1


def _at(tokens: list[str], at: int) -> str:
    if at >= len(tokens):
        raise DatasetError("a flat-field profile is cut off")
    return tokens[at]
