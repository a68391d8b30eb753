"""Data sets as a row of 2-D frames: TIFF, folders of images, OME-Zarr. Read lazily, one frame at a time."""

from __future__ import annotations

import json
import math
import os
import re
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope.model import PlaneIndex, _xml, units
from mutoscope.model.errors import BackendUnavailableError, ConfigError, DatasetError, DatasetNotFoundError
from mutoscope.model.install import command_for
from mutoscope.storage._names import image_choice
from mutoscope.storage.stream import info, open_reader

__all__ = ["COLOURS", "Dataset", "Facts", "UnknownKindError", "open_dataset", "to_grey"]

COLOURS = ("red", "green", "blue", "luminance")
_TIFF, _PNG = (".tif", ".tiff", ".btf", ".tf8"), (".png",)
_DECODING = (OSError, ValueError, RuntimeError, LookupError, EOFError, SyntaxError, zlib.error, struct.error)
_AXES = {"t": "t", "c": "c", "z": "z", "p": "p", "r": "p", "q": "t", "i": "t"}


class UnknownKindError(DatasetError):
    """A file of a kind that is not read here; perhaps another library can."""


class Facts(msgspec.Struct, frozen=True):
    """What is known of a data set without reading its frames.

    Parameters
    ----------
    kind : str
        Such as ``"TIFF"``.
    count : int
        Frames.
    shape : (y, x)
        Of each.
    dtype : str
        NumPy name.
    samples : int
        1 for grey, else the samples a pixel: 2 (grey and alpha), 3 (RGB), 4 (RGBA).
    axes : tuple of (name, length)
        What the frames run over, slowest first; names as in ``useq.MDAEvent.index``.
    pixel_size_um : float or None
        Where it is stated.
    """

    kind: str
    count: int
    shape: tuple[int, int]
    dtype: str
    samples: int = 1
    axes: tuple[tuple[str, int], ...] = ()
    pixel_size_um: float | None = None

    def index(self, number: int) -> PlaneIndex:
        """Return the place of frame `number` in (t, c, z, position)."""
        place: dict[str, int] = {}
        for name, length in reversed(self.axes):
            number, place[name] = divmod(number, length)
        return PlaneIndex.from_axes(place)


class Dataset(ABC):
    """An open data set; one thread at a time reads it."""

    path: Path
    facts: Facts

    @abstractmethod
    def load(self, number: int) -> NDArray[Any]:
        """Return frame `number` as ``(y, x)``, or ``(y, x, samples)`` for colour."""

    def close(self) -> None:  # noqa: B027  (many hold nothing open)
        """Close what is open; twice is fine."""

    def channels(self) -> tuple[str, ...]:
        """Return the names of the channels, none if they have none."""
        return ()

    def z_step_um(self) -> float | None:
        """Return the distance of planes along z, None if it is not stated."""
        return None

    def ome_xml(self) -> str:
        """Return the OME-XML that comes with it, empty if there is none."""
        return ""

    def lost(self) -> list[str]:
        """Return what is there and is not read."""
        return []

    def check(self) -> None:  # noqa: B027  (of most, one header tells the form of all)
        """Raise DatasetError for the first frame that is not like the first one, as far as headers tell."""

    def read(self, number: int) -> NDArray[Any]:
        """Return a frame, checked; DatasetError if it cannot be read or is not like the first."""
        try:
            array = self.load(number)
        except _DECODING as error:
            raise DatasetError(f"{self.path}: frame {number} cannot be read: {error}") from error
        wanted = self.facts.shape if self.facts.samples == 1 else (*self.facts.shape, self.facts.samples)
        if array.shape != wanted or array.dtype != np.dtype(self.facts.dtype):
            raise DatasetError(
                f"{self.path}: frame {number} is {_size(array.shape)} {array.dtype.name}, "
                f"the first is {_size(wanted)} {self.facts.dtype}"
            )
        return array


def open_dataset(path: str | os.PathLike[str], image: str | None = None) -> Dataset:
    """Open a data set.

    Raises
    ------
    DatasetNotFoundError
        If nothing is there.
    DatasetError
        If it holds no frame, or is of a kind that cannot be read.
    ConfigError
        If it holds several images and none, or no such one, was named.
    BackendUnavailableError
        If the library that reads it is missing.
    """
    place = Path(path)
    if not place.exists():
        raise DatasetNotFoundError(f"there is no data set {place}")
    if place.is_dir() and any((place / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs", ".zarray")):
        return _open_zarr(place, image)
    if image is not None:
        raise ConfigError(f"image={image!r} chooses an image of an OME-Zarr data set; {place} is none")
    if place.is_dir():
        return _ImageFolder(place, _image_files(place))
    if place.suffix.lower() in _TIFF:
        return _Tiff(place)
    if place.suffix.lower() in _PNG:
        return _ImageFolder(place, [place])
    raise UnknownKindError(f"{place}: not a data set that can be read (TIFF, a folder of TIFF or PNG, OME-Zarr)")


def to_grey(array: NDArray[Any], colour: str) -> NDArray[Any]:
    """Return one grey image ``(y, x)`` of a colour image ``(y, x, samples)``, in the same dtype.

    ``luminance`` is the luma of ITU-R BT.601-7 §2.5.1, 0.299 R + 0.587 G + 0.114 B, rounded to nearest for integers. Alpha is
    left out.
    """
    if array.shape[-1] == 2:
        return np.ascontiguousarray(array[..., 0])
    if colour != "luminance":
        return np.ascontiguousarray(array[..., COLOURS.index(colour)])
    if array.dtype.kind == "f":
        weights = np.array([0.299, 0.587, 0.114], dtype=array.dtype)
        return np.asarray(array[..., :3] @ weights, dtype=array.dtype)
    wide = array[..., :3].astype(np.int64)
    return ((299 * wide[..., 0] + 587 * wide[..., 1] + 114 * wide[..., 2] + 500) // 1000).astype(array.dtype)


def _library(name: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise BackendUnavailableError(f"reading this data set needs {package}: {command_for('replay', package)}") from error


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(length) for length in shape)


def _facts(path: Path, kind: str, count: int, shape: tuple[int, ...], dtype: Any, **more: Any) -> Facts:
    native = np.dtype(dtype).newbyteorder("=")
    if native.kind not in "iuf" or native.itemsize > 8 or native == np.float16:
        raise DatasetError(f"{path}: pixels of type {native.name} cannot be read")
    if count < 1 or min(shape) < 1:
        raise DatasetError(f"{path}: holds no frame")
    samples = 1 if len(shape) == 2 else int(shape[2])
    if len(shape) > 3 or samples > 4:
        raise DatasetError(f"{path}: its frames are {_size(shape)}, not (y, x) or (y, x, colour)")
    return Facts(kind, count, (int(shape[0]), int(shape[1])), native.name, samples, **more)


# TIFF


class _Tiff(Dataset):
    """The first series of a TIFF or OME-TIFF, plane by plane in the order of its axes."""

    def __init__(self, path: Path) -> None:
        tifffile = _library("tifffile")
        self.path = path
        self._broken = (tifffile.TiffFileError, *_DECODING)
        try:
            self._file: Any = tifffile.TiffFile(path)
        except self._broken as error:
            raise DatasetError(f"{path}: not a readable TIFF: {error}") from error
        try:
            self._begin()
        except self._broken as error:
            self._file.close()
            raise DatasetError(f"{path}: not a readable TIFF: {error}") from error
        except DatasetError:
            self._file.close()
            raise

    def _begin(self) -> None:
        path = self.path
        if not self._file.series:
            raise DatasetError(f"{path}: holds no frame")
        series = self._file.series[0]
        axes, shape = str(series.axes), tuple(int(length) for length in series.shape)
        frame_axes = next((end for end in ("YXS", "SYX", "YX") if axes.endswith(end)), None)
        if frame_axes is None:
            raise DatasetError(f"{path}: its axes are {axes}, which do not end in YX")
        leading = len(axes) - len(frame_axes)
        self._plane_shape = shape[leading:]
        self._planar = frame_axes == "SYX"
        count = math.prod(shape[:leading])
        self._offset: int | None = series.dataoffset
        self._dtype = np.dtype(series.dtype).newbyteorder(self._file.byteorder)
        self._pages = series.pages
        if self._offset is None and len(self._pages) != count:
            raise DatasetError(f"{path}: has {len(self._pages)} pages for {count} planes")
        size = math.prod(self._plane_shape) * self._dtype.itemsize
        end = series.dataoffset + count * size if series.dataoffset is not None else _end_of(self._pages[-1])
        if end > self._file.filehandle.size:
            raise DatasetError(
                f"{path}: is cut off: its last plane would end at byte {end:,} of {self._file.filehandle.size:,}"
            )
        frame = (*self._plane_shape[1:], self._plane_shape[0]) if self._planar else self._plane_shape
        self.facts = _facts(
            path,
            {"ome": "OME-TIFF", "imagej": "ImageJ TIFF"}.get(str(series.kind), "TIFF"),
            count,
            frame,
            np.uint8 if series.dtype == np.bool_ else series.dtype,
            axes=tuple(zip([_AXES.get(name.lower(), name.lower()) for name in axes[:leading]], shape, strict=False)),
            pixel_size_um=_tiff_pixel_size(self._file, path),
        )

    def load(self, number: int) -> NDArray[Any]:
        try:
            return self._plane(number)
        except self._broken as error:
            raise DatasetError(f"{self.path}: plane {number} cannot be read: {error}") from error

    def _plane(self, number: int) -> NDArray[Any]:
        if self._offset is not None:
            size = math.prod(self._plane_shape)
            offset = self._offset + number * size * self._dtype.itemsize
            array = self._file.filehandle.read_array(self._dtype, count=size, offset=offset)
        else:
            page = self._pages[number]
            if page is None:
                raise DatasetError(f"{self.path}: plane {number} is missing")
            array = page.asarray()
        array = np.asarray(array).reshape(self._plane_shape)
        if self._planar:
            array = np.moveaxis(array, 0, -1)
        return array.astype(self.facts.dtype, copy=False)

    def close(self) -> None:
        self._file.close()

    def _pixels(self) -> _xml.Element | None:
        return _pixels_of(self._file, self.path)

    def channels(self) -> tuple[str, ...]:
        pixels = self._pixels()
        listed = [] if pixels is None else pixels.children
        found = [item.attributes.get("Name", "") for item in listed if item.tag == "Channel"]
        return tuple(found) if any(found) else ()

    def z_step_um(self) -> float | None:
        pixels = self._pixels()
        if pixels is not None and "PhysicalSizeZ" in pixels.attributes:
            size = _xml.number(pixels.attributes["PhysicalSizeZ"], float, what=f"{self.path}: PhysicalSizeZ")
            return _length(size, pixels.attributes.get("PhysicalSizeZUnit", "µm"))
        said = self._file.imagej_metadata or {}
        try:
            return _length(float(said["spacing"]), str(said.get("unit", "pixel")))
        except (KeyError, TypeError, ValueError):
            return None

    def ome_xml(self) -> str:
        return str(self._file.ome_metadata or "")

    def lost(self) -> list[str]:
        more = len(self._file.series) - 1
        return [f"{more} further images of the file"] if more else []


def _end_of(page: Any) -> int:
    """Return where the pixels of a TIFF page end in its file, in bytes."""
    if page is None or not len(page.dataoffsets):
        return 0
    return int(max(offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)))


def _pixels_of(file: Any, path: Path) -> _xml.Element | None:
    """Return the element ``Pixels`` of the first image of the OME-XML, None if there is none."""
    if not file.ome_metadata:
        return None
    return next(iter(_xml.elements(str(file.ome_metadata).encode(), ["Pixels"], what=f"{path}: its OME-XML")), None)


def _tiff_pixel_size(file: Any, path: Path) -> float | None:
    """Return the size of a pixel as OME-XML or ImageJ state it (cited in :mod:`mutoscope.model.units`)."""
    if file.ome_metadata:
        pixels = _pixels_of(file, path)
        if pixels is not None and "PhysicalSizeX" in pixels.attributes:
            size = _xml.number(pixels.attributes["PhysicalSizeX"], float, what=f"{path}: PhysicalSizeX")
            return _length(size, pixels.attributes.get("PhysicalSizeXUnit", "µm"))
    elif file.imagej_metadata and "XResolution" in file.pages[0].tags:
        per_unit, scale = file.pages[0].tags["XResolution"].value
        return _length(scale / per_unit, str(file.imagej_metadata.get("unit", "pixel"))) if per_unit and scale else None
    return None


def _length(value: float, unit: str) -> float | None:
    """Return micrometres, or None for a unit that is no length (a pixel)."""
    try:
        size = units.length_um(value, unit)
    except ConfigError:
        return None
    return size if size > 0 and math.isfinite(size) else None


# Folders of images


class _ImageFolder(Dataset):
    """One TIFF or PNG file a frame, in natural order of the names."""

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        self.path = path
        self._files = list(files)
        try:
            first = _read_image(self._files[0])
        except _DECODING as error:
            raise DatasetError(f"{self._files[0]}: cannot be read: {error}") from error
        kinds = sorted({"TIFF" if file.suffix.lower() in _TIFF else "PNG" for file in self._files})
        self.facts = _facts(
            path, " and ".join(kinds), len(self._files), first.shape, first.dtype, axes=(("t", len(self._files)),)
        )

    def load(self, number: int) -> NDArray[Any]:
        try:
            return _read_image(self._files[number])
        except _DECODING as error:
            raise DatasetError(f"{self._files[number]}: cannot be read: {error}") from error

    def check(self) -> None:
        """Look at the header of each file; one that is of another form is read, which says what is wrong with it."""
        first = _form_of(self._files[0])
        for number, file in enumerate(self._files):
            if _form_of(file) != first:
                self.read(number)


def _form_of(file: Path) -> tuple[Any, ...] | None:
    """Return shape and type of an image as its header has them; None where it cannot be read."""
    if file.suffix.lower() in _PNG:
        with open(file, "rb") as stream:
            return ("PNG", stream.read(26)[16:26])  # width, height, bit depth, kind of colour
    try:
        with _library("tifffile").TiffFile(file) as tiff:
            return ("TIFF", len(tiff.pages), tiff.pages[0].shape, tiff.pages[0].dtype)
    except _DECODING:
        return None


def _image_files(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.suffix.lower() in _TIFF + _PNG and not file.name.startswith(".")]
    if not files:
        raise DatasetError(f"{folder}: holds no TIFF or PNG files")
    return sorted(files, key=lambda file: _natural(file.name))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which ``img2`` comes before ``img10``."""
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", name.casefold()) if part]


def _read_image(file: Path) -> NDArray[Any]:
    if file.suffix.lower() in _TIFF:
        tiff = _Tiff(file)
        try:
            if tiff.facts.count != 1:
                raise DatasetError(f"{file}: has {tiff.facts.count} planes; replay it by its own name, not its folder's")
            return tiff.read(0)
        finally:
            tiff.close()
    with open(file, "rb") as stream:
        header = stream.read(26)
    if len(header) < 26 or header[:8] != b"\x89PNG\r\n\x1a\n":
        raise DatasetError(f"{file}: is not a PNG file")
    if header[24] == 16 and header[25] != 0:  # 16-bit colour, which Pillow reduces to 8 bits
        return np.asarray(_library("imagecodecs").png_decode(file.read_bytes()))
    array = np.asarray(_library("imageio.v3").imread(file, plugin="pillow", index=0))
    return array.astype(np.uint8) if array.dtype == np.bool_ else array


# OME-Zarr


def _open_zarr(path: Path, image: str | None) -> Dataset:
    document = path / "zarr.json"
    if document.is_file():
        try:
            attributes = json.loads(document.read_bytes()).get("attributes", {})
        except (ValueError, AttributeError) as error:
            raise DatasetError(f"{document}: is damaged: {error}") from error
        own = attributes.get("mutoscope")
        if isinstance(own, dict) and "images" in own:
            return _Recording(path, image)
    return _Zarr(path, image)


class _Recording(Dataset):
    """An image of a recording of ours: its written frames."""

    def __init__(self, path: Path, image: str | None) -> None:
        self.path = path
        images = {str(item["image"]): item for item in info(path)["images"]}
        if image is None and len(images) > 1:
            choice = image_choice(next(iter(images)))
            raise ConfigError(f"{path}: holds several images, choose one with image=: {', '.join(images)} {choice}")
        self._reader = open_reader(path, image)
        count = len(self._reader)
        size = self._reader.attributes.get("pixel_size_um")
        try:
            self.facts = _facts(
                path, "OME-Zarr", count, self._reader.shape, self._reader.dtype, axes=(("t", count),), pixel_size_um=size
            )
        except DatasetError:
            self._reader.close()
            raise

    def load(self, number: int) -> NDArray[Any]:
        return self._reader[number]

    def close(self) -> None:
        self._reader.close()


class _Zarr(Dataset):
    """The full resolution of an OME-Zarr image of another writer, 0.1 to 0.5."""

    def __init__(self, path: Path, image: str | None) -> None:
        zarr = _library("zarr")
        self.path = path
        try:
            node: Any = zarr.open(str(path), mode="r")
            if image is not None:
                if image not in node:
                    raise ConfigError(f"{path}: has no image {image!r}; {_images_of(path, node)}")
                node = node[image]
            if not hasattr(node, "attrs") or hasattr(node, "dtype"):
                raise DatasetError(f"{path}: is an array without OME metadata")
            self._begin(node)
        except _DECODING as error:
            if isinstance(error, ConfigError):
                raise
            raise DatasetError(f"{path}: not a readable OME-Zarr: {error}") from error

    def _begin(self, node: Any) -> None:
        path = self.path
        attributes = dict(node.attrs)
        ome = attributes.get("ome", attributes)
        scales = ome.get("multiscales")
        if not scales:
            raise ConfigError(f"{path}: is no single image; {_images_of(path, node)}")
        dataset = scales[0]["datasets"][0]
        self._array = node[dataset["path"]]
        shape = tuple(int(length) for length in self._array.shape)
        names, axis_units = _zarr_axes(scales[0], len(shape))
        if names[-2:] != ["y", "x"]:
            raise DatasetError(f"{path}: its axes are {', '.join(names)}, which do not end in y, x")
        self._leading = shape[:-2]
        self.facts = _facts(
            path,
            f"OME-Zarr {ome.get('version', scales[0].get('version', ''))}".strip(),
            math.prod(self._leading),
            shape[-2:],
            self._array.dtype,
            axes=tuple(zip([_AXES.get(name, name) for name in names[:-2]], self._leading, strict=True)),
            pixel_size_um=_zarr_pixel_size(dataset, axis_units[-1]),
        )

        self._channels = tuple(str(each.get("label", "")) for each in dict(ome.get("omero") or {}).get("channels", ()))
        self._z_step = _zarr_scale(dataset, axis_units[-3], -3) if len(names) > 2 and names[-3] == "z" else None
        self._lost = ["smaller levels"] if len(scales[0]["datasets"]) > 1 else []

    def channels(self) -> tuple[str, ...]:
        return self._channels if any(self._channels) else ()

    def z_step_um(self) -> float | None:
        return self._z_step

    def lost(self) -> list[str]:
        return self._lost

    def load(self, number: int) -> NDArray[Any]:
        place = np.unravel_index(number, self._leading) if self._leading else ()
        array = np.asarray(self._array[tuple(int(i) for i in place)])
        return array.astype(self.facts.dtype, copy=False)


def _images_of(path: Path, node: Any) -> str:
    """Say how to name an image inside a plate or a collection."""
    attributes = dict(node.attrs)
    ome = attributes.get("ome", attributes)
    if "plate" in ome:
        well = ome["plate"]["wells"][0]["path"]
        return f"it is a plate, choose a field with image=, such as {well}/0 {image_choice(f'{well}/0')}"
    names = sorted(name for name in node if name != "OME")
    return f"choose one with image=: {', '.join(names)} {image_choice(names[0])}" if names else "it holds none"


def _zarr_axes(scale: Mapping[str, Any], dimensions: int) -> tuple[list[str], list[str]]:
    """Return names and units; axes are objects from NGFF 0.4, names in 0.3, and always tczyx before."""
    axes = scale.get("axes")
    if not axes:
        return list("tczyx")[-dimensions:], [""] * dimensions
    named = [axis if isinstance(axis, dict) else {"name": axis} for axis in axes]
    return [str(axis["name"]) for axis in named], [str(axis.get("unit", "")) for axis in named]


def _zarr_pixel_size(dataset: Mapping[str, Any], unit: str) -> float | None:
    return _zarr_scale(dataset, unit, -1)


def _zarr_scale(dataset: Mapping[str, Any], unit: str, axis: int) -> float | None:
    if not unit:
        return None
    for transformation in dataset.get("coordinateTransformations", ()):
        if transformation.get("type") == "scale":
            return _length(float(transformation["scale"][axis]), unit)
    return None
