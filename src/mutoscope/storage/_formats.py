"""What an item is and how its file looks: by the type of the data and the suffix of the name, one visible table.

| suffix | holds | written by |
|---|---|---|
| ``.tif`` ``.tiff`` | images, stacks | tifffile; plain ImageJ reads it |
| ``.npy`` | arrays and tables of any dtype without objects | NumPy |
| ``.png`` | 2-D and RGB(A) images | imageio |
| ``.csv`` | tables | here |
| ``.json`` | plain values | here |
| ``.txt`` ``.md`` ``.log`` | text | here |
| ``.zip`` ``.roi`` | ROIs, as ImageJ has them | `mutoscope.model.roi_convert`, through roifile |
| ``.geojson`` | ROIs, as QuPath has them | `mutoscope.model.roi_convert` |
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.model.roi import Roi
from mutoscope.storage import _arrays, _images, _npy, _roi_files, _tables

__all__ = ["FORMATS", "Format", "Kind", "check", "classify", "copy_of", "format_of", "read", "suffixes"]

Kind: TypeAlias = Literal["array", "table", "rois", "json", "text"]
Region: TypeAlias = tuple[Any, ...]

MAX_TEXT_BYTES = 1 << 30
"""Largest file of text, JSON or CSV that is read."""

_MAX_DEPTH = 200
"""How deep JSON values may be nested: well inside what every reader takes."""


@dataclass(frozen=True)
class Format:
    """How the items of some suffixes are stored.

    Parameters
    ----------
    name : str
        What a person calls it.
    suffixes : tuple of str
        Lower case, with the dot; matched without regard to case.
    kinds : tuple of Kind
        What it holds.
    check : callable
        Raises ConfigError for a value that it cannot hold.
    write : callable
        Writes a value to a file that is open for writing and reading.
    read : callable
        Returns a value from an open file, its size, and the name for messages.
    """

    name: str
    suffixes: tuple[str, ...]
    kinds: tuple[Kind, ...]
    check: Callable[[Any], None]
    write: Callable[[IO[bytes], Any], None]
    read: Callable[[IO[bytes], int, str], Any]


def _write_text(file: IO[bytes], value: str) -> None:
    file.write(value.encode("utf-8"))


def _read_text(file: IO[bytes], size: int, where: str) -> str:
    _check_size(size, where)
    try:
        return file.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{where}: is not text in UTF-8, or is damaged ({error})") from None


def _write_json(file: IO[bytes], value: Any) -> None:
    file.write(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2).encode("utf-8") + b"\n")


def _read_json(file: IO[bytes], size: int, where: str) -> Any:
    _check_size(size, where)
    try:
        return json.loads(file.read().decode("utf-8-sig"), parse_constant=_no_constant)
    except RecursionError:
        raise DatasetError(f"{where}: is nested too deeply") from None
    except ValueError as error:
        raise DatasetError(f"{where}: is not JSON, or is damaged ({error})") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _read_csv(file: IO[bytes], size: int, where: str) -> NDArray[Any]:
    _check_size(size, where)
    return _tables.read_csv(file, where)


def _check_size(size: int, where: str) -> None:
    if size > MAX_TEXT_BYTES:
        raise DatasetError(f"{where}: has {size} bytes, more than the {MAX_TEXT_BYTES} that are read as text")


def _check_text(value: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError("this text is not valid Unicode, so it cannot be stored") from None


def _check_nothing(value: Any) -> None:
    return None


FORMATS = (
    Format("TIFF", (".tif", ".tiff"), ("array",), _images.check_tiff, _images.write_tiff, _images.read_tiff),
    Format("NPY", (".npy",), ("array", "table"), _check_nothing, _npy.write, _npy.read),
    Format("PNG", (".png",), ("array",), _images.check_png, _images.write_png, _images.read_png),
    Format("CSV", (".csv",), ("table",), _tables.check_csv, _tables.write_csv, _read_csv),
    Format("JSON", (".json",), ("json",), _check_nothing, _write_json, _read_json),
    Format("text", (".txt", ".md", ".log"), ("text",), _check_text, _write_text, _read_text),
    Format("a ROI set", (".zip",), ("rois",), _roi_files.check_set, _roi_files.write_set, _roi_files.read_imagej),
    Format("a ROI file", (".roi",), ("rois",), _roi_files.check_single, _roi_files.write_single, _roi_files.read_imagej),
    Format("GeoJSON", (".geojson",), ("rois",), _check_nothing, _roi_files.write_geojson, _roi_files.read_geojson),
)


def suffixes(kind: Kind | None = None) -> tuple[str, ...]:
    """Return the suffixes that are known, or those that hold one kind of data."""
    return tuple(suffix for form in FORMATS if kind is None or kind in form.kinds for suffix in form.suffixes)


def suffix_of(name: str) -> str:
    """Return what follows the last dot of a name, lower case, with the dot; ``""`` if there is none."""
    return os.path.splitext(name.rpartition("/")[2])[1].lower()


def format_of(name: str) -> Format:
    """Return the format of a name.

    Raises
    ------
    ConfigError
        If its suffix is not known.
    """
    suffix = suffix_of(name)
    for form in FORMATS:
        if suffix in form.suffixes:
            return form
    raise ConfigError(f"{name!r}: what is stored under {suffix or 'no suffix'} is not known; known are {', '.join(suffixes())}")


def classify(data: Any, name: str = "") -> tuple[Kind, Any]:
    """Return what kind of data this is, and the data in its plain form; arrays may share memory with `data`.

    Raises
    ------
    ConfigError
        If it is of no kind that can be stored.
    """
    if isinstance(data, str):
        return "text", str(data)
    if isinstance(data, list | tuple) and all(isinstance(item, Roi) for item in data) and (data or _names_rois(name)):
        return "rois", list(data)
    if _tables.is_foreign_table(data):
        return "table", _tables.to_structured(data)
    if data is None or isinstance(data, Mapping | list | tuple | bool | int | float | np.generic):
        return "json", plain(data)
    if isinstance(data, bytes | bytearray | memoryview) or not _arrays.is_array(data):
        raise ConfigError(
            f"a {type(data).__name__} cannot be stored: an array, a table, a list of Roi, text, or plain values for JSON can"
        )
    array = _arrays.to_numpy(data)
    return ("table", _tables.to_structured(array)) if array.dtype.names else ("array", array)


def _names_rois(name: str) -> bool:
    """Whether an empty list under this name is one of ROIs."""
    return any(suffix_of(name) in form.suffixes for form in FORMATS if "rois" in form.kinds)


def check(data: Any, name: str) -> tuple[Format, Kind, Any]:
    """Return the format of a name, the kind of the data and its plain form.

    Raises
    ------
    ConfigError
        If data of this kind, or with these values, cannot be stored under this suffix; says which suffix could.
    """
    form = format_of(name)
    kind, value = classify(data, name)
    if kind == "table" and kind not in form.kinds and "array" in form.kinds:
        raise ConfigError(f"{name!r}: a table cannot be stored as {form.name}; choose {_or(suffixes('table'))}")
    if kind not in form.kinds:
        raise ConfigError(f"{name!r}: {_WORDS[kind]} cannot be stored as {form.name}; choose {_or(suffixes(kind))}")
    try:
        form.check(value)
    except ConfigError as error:
        raise ConfigError(f"{name!r}: {error}") from None
    return form, kind, value


_WORDS = {"array": "an array", "table": "a table", "rois": "a list of ROIs", "json": "a plain value", "text": "text"}


def _or(words: Sequence[str]) -> str:
    return " or ".join(words)


def plain(value: Any, depth: int = 0) -> Any:
    """Return a copy of a value made of what JSON has: dict with text keys, list, text, numbers, bool, None.

    Raises
    ------
    ConfigError
        If it holds anything else: nan and infinity, keys that are no text, bytes, objects.
    """
    if depth > _MAX_DEPTH:
        raise ConfigError(f"a value nested more than {_MAX_DEPTH} deep cannot be stored as JSON")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.generic):
        return plain(value.item(), depth)
    if isinstance(value, str):
        _check_text(value)
        return str(value)
    if isinstance(value, int):
        if value.bit_length() > 10_000:
            raise ConfigError("an integer of more than 3,000 digits cannot be stored as JSON")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"JSON has no {value}: store None, or a table")
        return float(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(f"a key of JSON is text, not {type(key).__name__}: {key!r}")
            _check_text(key)
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return plain(value.tolist(), depth)
    raise ConfigError(f"a {type(value).__name__} cannot be stored as JSON")


def copy_of(kind: Kind, value: Any) -> Any:
    """Return a copy that shares nothing that can be changed with `value`, which is in its plain form."""
    if kind in ("array", "table"):
        return np.array(value, copy=True, order="C")
    if kind == "json":
        return plain(value)
    return list(value) if kind == "rois" else value


def crop(array: NDArray[Any], region: Region | Any, where: str) -> NDArray[Any]:
    """Return ``array[region]`` as a new array.

    Raises
    ------
    ConfigError
        If the region has more dimensions than the array, a step, or does not lie inside.
    """
    return np.array(array[check_region(array.shape, region, where)], copy=True, order="C")


def check_region(shape: tuple[int, ...], region: Region | Any, where: str) -> tuple[slice, ...]:
    """Return a region as one slice for each dimension, from 0 ≤ start ≤ stop ≤ length."""
    parts = list(region) if isinstance(region, tuple | list) else [region]
    if sum(part is Ellipsis for part in parts) > 1 or sum(part is not Ellipsis for part in parts) > len(shape):
        raise ConfigError(f"{where}: a region of {len(parts)} parts does not fit an array of shape {shape}")
    missing = [slice(None)] * (len(shape) - sum(part is not Ellipsis for part in parts))
    place = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    full = [*parts[:place], *missing, *parts[place + 1 :]]
    found = []
    for part, length in zip(full, shape, strict=True):
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise ConfigError(f"{where}: a region is made of slices without a step, not {part!r}")
        try:
            start = 0 if part.start is None else part.start.__index__()
            stop = length if part.stop is None else part.stop.__index__()
        except AttributeError:
            raise ConfigError(f"{where}: the ends of a region are whole numbers, not {part!r}") from None
        if not 0 <= start <= stop <= length:
            raise ConfigError(f"{where}: the region {start}:{stop} does not lie inside 0:{length} of shape {shape}")
        found.append(slice(start, stop))
    return tuple(found)


def read(name: str, file: IO[bytes], size: int, where: str) -> Any:
    """Return the item of a file."""
    return format_of(name).read(file, size, where)


def read_region(name: str, file: IO[bytes], size: int, where: str, region: Region | Any) -> NDArray[Any]:
    """Return a part of the array of a file; of NPY and uncompressed TIFF only the rows in question are read."""
    form = format_of(name)
    if "array" not in form.kinds:
        raise ConfigError(f"{where}: {form.name} holds no array, so it has no regions")
    layout = {"NPY": _npy.layout, "TIFF": _images.layout}.get(form.name)
    plan = layout(file, size, where) if layout is not None else None
    if plan is None:
        file.seek(0)
        return crop(form.read(file, size, where), region, where)
    bounds = check_region(plan.shape, region, where)
    return _npy.read_part(file, plan, bounds, where)
