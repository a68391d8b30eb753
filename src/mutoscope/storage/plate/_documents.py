"""The ``zarr.json`` documents of a plate. ``docs/layout.md`` is their specification."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import DTypeLike

from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.model.plate import PlateGeometry, WellName
from mutoscope.storage import _layout
from mutoscope.storage.plate import _places
from mutoscope.storage.plate.description import COLOURS, PlateDescription

__all__ = ["PlateImageSpec", "image_attributes", "level_document", "plate_attributes", "well_attributes"]

PLATE_LAYOUT = "1.0"
OME_VERSION = "0.5"
PLANES = "planes"
STATE, NAME = "state", "name"
OVERVIEW = "overview"

NAME_BYTES = 512
STATE_CHUNK = (16, 8, 32)
NAME_CHUNK = (1, 8, 16)
SMALLEST = 256
"""Levels end with the first whose longer side is not longer than this."""

MAX_PLANES = 1 << 24
"""Most planes of one image, so that a misread name or a damaged document cannot declare more than anybody can list."""

MISSING, STORED, REPLACING = 0, 1, 2
"""What ``planes/state`` says of a plane."""

_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_KEYS = {"name": "default", "configuration": {"separator": "/"}}
_FLAT_KEYS = {"name": "default", "configuration": {"separator": "."}}


@dataclass(frozen=True)
class PlateImageSpec:
    """The geometry of one image of a plate.

    Parameters
    ----------
    shape : tuple of int
        (y, x) of every plane.
    dtype : str
        One of those of streams.
    levels : int
        How many there are, the full one included.
    compression : str
        Of each plane as a whole.
    """

    shape: tuple[int, int]
    dtype: str
    levels: int
    compression: str = "none"

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype).newbyteorder("<")

    def level_shape(self, level: int) -> tuple[int, int]:
        """Return (y, x) of a level."""
        height, width = self.shape
        for _ in range(level):
            height, width = -(-height // 2), -(-width // 2)
        return height, width


def plan_image(shape: tuple[int, ...], dtype: DTypeLike, *, pyramid: bool, compression: str = "none") -> PlateImageSpec:
    """Return the geometry for planes of this shape and dtype.

    Raises
    ------
    ConfigError
        If that is no plane, or of a type that is not stored.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ConfigError(f"a plate stores planes (y, x), not an array of shape {tuple(shape)}")
    _layout.plan_level((shape[0], shape[1]), dtype, None, compression)  # the same types, bounds and codecs as streams
    longest, levels = max(shape), 1
    while pyramid and longest > SMALLEST:
        longest, levels = -(-longest // 2), levels + 1
    return PlateImageSpec((int(shape[0]), int(shape[1])), np.dtype(dtype).name, levels, compression)


def _array(
    shape: Iterable[int], dtype: str, chunk: Iterable[int], names: list[str] | list[str | None], codecs: Iterable[Any]
) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": _KEYS,
        "fill_value": 0.0 if dtype.startswith("f") else 0,
        "codecs": list(codecs),
        "dimension_names": names,
        "attributes": {},
        "storage_transformers": [],
    }


def level_document(spec: PlateImageSpec, level: int, extent: tuple[int, int, int]) -> dict[str, Any]:
    """Return the ``zarr.json`` of the pixels of one level."""
    shape = spec.level_shape(level)
    first = _LITTLE if spec.numpy_dtype.itemsize > 1 else {"name": "bytes"}
    return _array((*extent, *shape), spec.dtype, (1, 1, 1, *shape), list("tczyx"), (first, *_compressors(spec)))


def parse_level(document: dict[str, Any], levels: int, where: str) -> tuple[PlateImageSpec, tuple[int, int, int]]:
    """Return the geometry and (t, c, z) of an image from the ``zarr.json`` of its level 0.

    Raises
    ------
    DatasetError
        If it is anything but what `level_document` makes.
    """
    try:
        t, c, z, height, width = document["shape"]
        extent = (t, c, z)
        codecs = document["codecs"]
        spec = PlateImageSpec((height, width), document["data_type"], levels, _layout.codecs_compression(codecs))
        sane = (
            all(type(value) is int and 1 <= value < 1 << 40 for value in document["shape"])
            and spec.dtype in _layout.DTYPES
            and height * width * spec.numpy_dtype.itemsize <= _layout.MAX_FRAME_BYTES
            and 1 <= levels <= 40
            and t * c * z <= MAX_PLANES
        )
        if sane and _same(level_document(spec, 0, extent), document):
            return spec, extent
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        pass
    raise DatasetError(f"{where}: its metadata are not those of a plate of layout {PLATE_LAYOUT}, or are damaged")


def _compressors(spec: PlateImageSpec) -> list[dict[str, Any]]:
    return _layout.compressors(_layout.Level(spec.shape, spec.dtype, 1, spec.shape[0], spec.compression))


def check_extent(extent: tuple[int, int, int]) -> None:
    """Raise ConfigError for more planes than an image can have."""
    if math.prod(extent) > MAX_PLANES:
        raise ConfigError(
            f"an image of {extent[0]} x {extent[1]} x {extent[2]} planes (t, c, z) is more than {MAX_PLANES} planes"
        )


def state_document(extent: tuple[int, int, int]) -> dict[str, Any]:
    """Return the ``zarr.json`` of ``planes/state``."""
    return _array(extent, "uint8", STATE_CHUNK, ["t", "c", "z"], [{"name": "bytes"}]) | {"chunk_key_encoding": _FLAT_KEYS}


def name_document(extent: tuple[int, int, int]) -> dict[str, Any]:
    """Return the ``zarr.json`` of ``planes/name``."""
    array = _array((*extent, NAME_BYTES), "uint8", (*NAME_CHUNK, NAME_BYTES), ["t", "c", "z", None], [{"name": "bytes"}])
    return array | {"chunk_key_encoding": _FLAT_KEYS}


# ---------------------------------------------------------------------- images


def _scales(spec: PlateImageSpec, key: _places.ImageKey, plate: PlateDescription) -> list[dict[str, Any]]:
    size = 1.0 if plate.pixel_size_um is None else plate.pixel_size_um
    z_step = 1.0 if plate.z_step_um is None else plate.z_step_um
    position = plate.position(key) if plate.pixel_size_um is not None else None
    first = (0.0, 0.0, 0.0)
    if position is not None:  # the centre of the field is known; NGFF wants that of the first pixel
        height, width = spec.shape
        first = (
            0.0 if plate.z_step_um is None else position.z_um,
            position.y_um - (height - 1) / 2 * size,
            position.x_um - (width - 1) / 2 * size,
        )
    datasets = []
    for level in range(spec.levels):
        factor = float(1 << level)
        shift = (factor - 1) / 2 * size  # the first pixel of a level is the mean of several: its centre lies further in
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0, 1.0, z_step, size * factor, size * factor]},
                    {"type": "translation", "translation": [0.0, 0.0, first[0], first[1] + shift, first[2] + shift]},
                ],
            }
        )
    return datasets


def _axes(plate: PlateDescription) -> list[dict[str, str]]:
    def space(name: str, known: bool) -> dict[str, str]:
        return {"name": name, "type": "space", **({"unit": "micrometer"} if known else {})}

    flat = plate.pixel_size_um is not None
    return [
        {"name": "t", "type": "time"},
        {"name": "c", "type": "channel"},
        space("z", plate.z_step_um is not None),
        space("y", flat),
        space("x", flat),
    ]


def _omero(spec: PlateImageSpec, channels: int, plate: PlateDescription) -> dict[str, Any]:
    kind = np.dtype(spec.dtype)
    low, high = (0.0, 1.0) if kind.kind == "f" else (float(np.iinfo(kind).min), float(np.iinfo(kind).max))
    found = []
    for number in range(channels):
        channel = plate.channel(number)
        entry: dict[str, Any] = {
            "label": channel.name or channel.key or f"channel {number + 1}",
            "color": channel.colour or COLOURS[number % len(COLOURS)],
            "active": True,
            "window": {"min": low, "max": high, "start": low, "end": high},
        }
        for name, value in (
            ("excitation_nm", channel.excitation_nm),
            ("emission_nm", channel.emission_nm),
            ("exposure_ms", channel.exposure_ms),
        ):
            if value is not None:
                entry[name] = value
        found.append(entry)
    return {"channels": found, "rdefs": {"model": "color", "defaultT": 0, "defaultZ": 0}}


def image_attributes(
    spec: PlateImageSpec, key: _places.ImageKey, extent: tuple[int, int, int], plate: PlateDescription
) -> dict[str, Any]:
    """Return the attributes of an image's group."""
    name = f"{key.well} field {key.field}{' projection' if key.projection else ''}"
    multiscale = {
        "name": name,
        "axes": _axes(plate),
        "datasets": _scales(spec, key, plate),
        "type": "mean",
        "metadata": {"description": "each level is the mean of 2 x 2 pixels of the one before"},
    }
    position = plate.position(key)
    own: dict[str, Any] = {
        "plate_layout": PLATE_LAYOUT,
        "well": str(key.well),
        "field": key.field,
        "projection": key.projection,
    }
    if position is not None:
        own["position_um"] = {"z": position.z_um, "y": position.y_um, "x": position.x_um, "origin": plate.origin}
    return {
        "ome": {"version": OME_VERSION, "multiscales": [multiscale], "omero": _omero(spec, extent[1], plate)},
        _layout.NAMESPACE: own,
    }


# ---------------------------------------------------------------------- wells and plates


def well_attributes(images: Iterable[_places.ImageKey]) -> dict[str, Any]:
    """Return the attributes of a well's group.

    Viewers tile all images that a well lists, and want them alike: projections are listed beside them, and take their place
    only in a well that has nothing else.
    """
    keys = sorted(set(images))
    fields = [key.name for key in keys if not key.projection]
    projections = [key.name for key in keys if key.projection]
    well = {"version": OME_VERSION, "images": [{"path": name} for name in fields or projections]}
    own = {"plate_layout": PLATE_LAYOUT, "projections": projections}
    return {"ome": {"version": OME_VERSION, "well": well}, _layout.NAMESPACE: own}


def geometry_of(plate: PlateDescription, wells: Iterable[WellName]) -> PlateGeometry:
    """Return the size of a plate: the one that is known, or the smallest standard plate that has all wells."""
    return plate.geometry or PlateGeometry.holding(wells)


def plate_attributes(plate: PlateDescription, wells: Iterable[WellName], fields: int) -> dict[str, Any]:
    """Return the attributes of a plate's group: its wells, and all that is known of it.

    Parameters
    ----------
    plate : PlateDescription
    wells : iterable of WellName
        Those that have an image.
    fields : int
        The most fields that a well has.
    """
    there = sorted(set(wells))
    geometry = geometry_of(plate, there)
    document: dict[str, Any] = {
        "version": OME_VERSION,
        "name": plate.name or plate.source or "plate",
        "rows": [{"name": name} for name in geometry.row_names()],
        "columns": [{"name": name} for name in geometry.column_names()],
        "wells": [{"path": _places.well_path(well), "rowIndex": well.row, "columnIndex": well.column} for well in there],
        "field_count": fields,
    }
    own = {"plate_layout": PLATE_LAYOUT, "plate": msgspec.to_builtins(plate)}
    return {"ome": {"version": OME_VERSION, "plate": document}, _layout.NAMESPACE: own}


def parse_plate(attributes: dict[str, Any], where: str) -> tuple[PlateDescription, list[WellName], int]:
    """Return description, wells, and the most fields of a well.

    Raises
    ------
    DatasetError
        If it is no plate of this layout, or damaged.
    """
    own = attributes.get(_layout.NAMESPACE)
    version = own.get("plate_layout") if isinstance(own, dict) else None
    if not isinstance(own, dict) or not isinstance(version, str):
        raise DatasetError(f"{where}: is not a plate of Mutoscope")
    if version.split(".")[0] != PLATE_LAYOUT.split(".")[0]:
        raise DatasetError(f"{where}: is a plate of layout {version}; this version reads {PLATE_LAYOUT}")
    try:
        plate = msgspec.convert(own["plate"], PlateDescription)
        listed = attributes["ome"]["plate"]
        wells = [_places.read_well_path(each["path"]) for each in listed["wells"]]
        fields = int(listed.get("field_count", 1))
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError, ConfigError) as error:
        raise DatasetError(f"{where}: the plate's metadata are damaged ({error})") from None
    if any(well is None for well in wells):
        raise DatasetError(f"{where}: lists a well that is none")
    return plate, [well for well in wells if well is not None], fields


def _same(expected: dict[str, Any], document: dict[str, Any]) -> bool:
    """Whether all that decides how bytes are read is as expected; attributes are anybody's."""
    return {**expected, "attributes": None} == {**document, "attributes": None}
