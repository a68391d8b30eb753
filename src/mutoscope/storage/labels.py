"""Label images beside an image of OME-Zarr: its group ``labels``, as the specification has it.

Source: https://ngff.openmicroscopy.org/0.5/#labels-md ; ``docs/exports.md`` says what is on disk.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import BackendUnavailableError, ConfigError, DatasetError
from mutoscope.model.install import command_for
from mutoscope.storage import _arrays, _files, _layout, _nodes
from mutoscope.storage._beside import Member, Parent, find_parent

__all__ = ["LabelsInfo", "delete_labels", "labels_info", "labels_planes", "list_labels", "load_labels", "save_labels"]

Colour = str | Sequence[int]
"""``"#RRGGBB"``, ``"#RRGGBBAA"``, or three or four numbers from 0 to 255."""

_LABELS = Member("labels", "labels")
_DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
_AXES = "tczyx"
_GZIP = 31  # zlib's window with gzip's header: https://zlib.net/manual.html#Advanced
_GZIP_LEVEL = 1


class LabelsInfo(msgspec.Struct, frozen=True):
    """What is known of a label image.

    Parameters
    ----------
    name : str
    axes : str
        Such as ``"tyx"``.
    shape : tuple of int
        Of the full size.
    dtype : str
    levels : int
        Sizes that are stored, as many as the image has.
    colors : dict of int to (r, g, b, a)
        Of the labels that have one.
    properties : dict of int to dict
        What was saved with labels.
    """

    name: str
    axes: str
    shape: tuple[int, ...]
    dtype: str
    levels: int
    colors: dict[int, tuple[int, int, int, int]]
    properties: dict[int, dict[str, Any]]


def save_labels(
    dataset: str | os.PathLike[str],
    name: str,
    array: Any,
    *,
    image: str | None = None,
    axes: str | None = None,
    colors: Mapping[int, Colour] | None = None,
    properties: Mapping[int, Mapping[str, Any]] | None = None,
    overwrite: bool = False,
) -> None:
    """Save a label image beside an image of OME-Zarr. All of it or, if this process is killed, none.

    Parameters
    ----------
    dataset : path
        A recording, a plate, or any other OME-Zarr 0.4 or 0.5.
    name : str
        At most 128 letters, digits, ``_``, ``-`` and ``.``.
    array : array, integer
        0 is the background. (y, x) of the image's size; with more axes in front, as `axes` says.
    image : str, optional
        A camera or image of a recording, a field of a plate (``"B/03/0"``); not needed where there is one image.
    axes : str, optional
        A part of the image's axes, in their order, such as ``"tyx"``. If not given: as many of the image's axes as the array
        has, left out from the front, the channels first.
    colors : mapping, optional
        Label → ``"#RRGGBB"``, ``"#RRGGBBAA"`` or (r, g, b[, a]); only the labels that need one.
    properties : mapping, optional
        Label → values that JSON has.
    overwrite : bool
        Replace labels of this name.

    Raises
    ------
    DatasetExistsError
        If there are labels of this name.
    ConfigError
        If the array does not fit the image, or is not of integers.
    DatasetNotFoundError, DatasetError, DiskFullError
        If there is no such data set; it is damaged; there is no room.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from mutoscope import storage
    >>> path = f"{tempfile.mkdtemp()}/run.ome.zarr"
    >>> with storage.open_writer(path, shape=(4, 6), dtype="uint16") as writer:
    ...     receipt = writer.append(np.ones((4, 6), "uint16"))
    >>> storage.save_labels(path, "cells", np.eye(4, 6, dtype="uint8"), colors={1: "#ff0000"})
    >>> storage.list_labels(path), int(storage.load_labels(path, "cells").sum())
    (['cells'], 4)
    """
    parent = find_parent(dataset, image)
    pixels = _arrays.to_numpy(array)
    _save(parent, name, pixels.shape, pixels.dtype, pixels.__getitem__, axes, colors or {}, properties or {}, overwrite)


def _save(
    parent: Parent,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    plane: Callable[[tuple[int, ...]], NDArray[Any]],
    axes: str | None,
    colors: Mapping[int, Colour],
    properties: Mapping[int, Mapping[str, Any]],
    overwrite: bool,
) -> None:
    """Save labels plane by plane."""
    if dtype.name not in _DTYPES:
        hint = "; .astype('uint8') makes labels of a mask" if dtype == np.bool_ else ""
        raise ConfigError(f"labels are integers, not {dtype.name}{hint}")
    geometry = _Geometry(parent, shape, axes)
    label: dict[str, Any] = {"source": {"image": "../../"}}
    label |= _told(
        {_value(key): {"rgba": _rgba(colour)} for key, colour in colors.items()},
        {_value(key): dict(each) for key, each in properties.items()},
    )
    if parent.version == "0.4":
        label["version"] = "0.4"
    own = _layout.ome_attributes(parent.version, {"multiscales": [geometry.multiscale(name)], "image-label": label})
    _files.encode(own)

    def build(folder: Path) -> None:
        for path, size in zip(geometry.paths, geometry.sizes, strict=True):
            document = _document((*shape[:-2], *size), dtype.name, parent.version, geometry.axes)
            _write_array(folder / path, document, (*shape[:-2], *size), parent.version, plane)
        _nodes.write_group(folder, parent.version, own)

    _LABELS.save(parent, name, build, overwrite=overwrite)


def list_labels(dataset: str | os.PathLike[str], *, image: str | None = None) -> list[str]:
    """Return the names of the labels of an image, in the order in which they were saved."""
    return _LABELS.listed(find_parent(dataset, image))


def load_labels(dataset: str | os.PathLike[str], name: str, *, image: str | None = None, level: int = 0) -> NDArray[Any]:
    """Return a label image as a new array; also one that another program wrote, if zarr-python is installed.

    Parameters
    ----------
    level : int
        0 is the full size.

    Raises
    ------
    DatasetNotFoundError
        If there are no such labels; names near ones.
    DatasetError
        If they are damaged.
    """
    parent = find_parent(dataset, image)
    relative = _LABELS.path(parent, name)
    datasets = _multiscale(parent, relative)["datasets"]
    if not 0 <= level < len(datasets):
        raise ConfigError(f"the labels {name!r} have the levels 0 to {len(datasets) - 1}, not {level}")
    return _read_array(parent, f"{relative}/{datasets[level]['path']}")


def labels_info(dataset: str | os.PathLike[str], name: str, *, image: str | None = None) -> LabelsInfo:
    """Return what is known of a label image, its colours among it. Raises as `load_labels`."""
    return _info(find_parent(dataset, image), name)


def _info(parent: Parent, name: str) -> LabelsInfo:
    relative = _LABELS.path(parent, name)
    multiscale, ome = _multiscale(parent, relative), _ome(parent, relative)
    datasets = multiscale["datasets"]
    shape, dtype = _shape_and_dtype(parent, f"{relative}/{datasets[0]['path']}")
    label = ome.get("image-label") or {}
    try:
        return LabelsInfo(
            name,
            "".join(axis["name"] for axis in multiscale["axes"]),
            shape,
            dtype,
            len(datasets),
            {int(each["label-value"]): _rgba(each["rgba"]) for each in label.get("colors", ()) if "rgba" in each},
            {
                int(each["label-value"]): {key: value for key, value in each.items() if key != "label-value"}
                for each in label.get("properties", ())
                if len(each) > 1
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(f"{parent.root / relative}: what it says of its labels is damaged ({error!r})") from None


def delete_labels(dataset: str | os.PathLike[str], name: str, *, image: str | None = None) -> None:
    """Delete a label image. If this process is killed, it is there whole or is not listed any more.

    Raises
    ------
    DatasetNotFoundError
        If there are no such labels; names near ones.
    ConfigError
        If a table has a row for each of these labels: delete that first; or nothing can be written there.
    DatasetError, DiskFullError
        If the data set is damaged; there is no room for the list.
    """
    from mutoscope.storage.tables import tables_of

    parent = find_parent(dataset, image)
    if tables := tables_of(parent, name):
        raise ConfigError(f"{parent.folder}: the labels {name!r} belong to the table {tables[0]!r}: delete that first")
    _LABELS.delete(parent, name)


def labels_planes(
    dataset: str | os.PathLike[str], name: str, *, image: str | None = None
) -> tuple[LabelsInfo, Callable[[tuple[int, ...]], NDArray[Any]]]:
    """Return what is known of a label image, and what reads a plane of it by its place along the axes before (y, x).

    Raises
    ------
    DatasetNotFoundError, DatasetError
        As `load_labels`; also of the callable.
    """
    parent = find_parent(dataset, image)
    return _info(parent, name), _planes(parent, name)


def _planes(parent: Parent, name: str) -> Callable[[tuple[int, ...]], NDArray[Any]]:
    relative = _LABELS.path(parent, name)
    array = f"{relative}/{_multiscale(parent, relative)['datasets'][0]['path']}"
    shape, dtype = _shape_and_dtype(parent, array)
    if _is_ours(parent, array):
        return lambda place: _plane_of(parent, array, place, shape, dtype)
    opened = _open_by_zarr(parent.root / array)
    return lambda place: np.asarray(opened[place])


def copy_labels(source: Parent, target: Parent, name: str) -> None:
    """Copy labels, with their colours and properties, from one image to another of the same size, plane by plane."""
    info = _info(source, name)
    plane = _planes(source, name)
    _save(target, name, info.shape, np.dtype(info.dtype), plane, info.axes, info.colors, info.properties, False)


# ---------------------------------------------------------------------- what is written


def _value(key: Any) -> int:
    if not isinstance(key, int | np.integer) or isinstance(key, bool):
        raise ConfigError(f"a label is an integer, not {key!r}")
    return int(key)


def _rgba(colour: Any) -> tuple[int, int, int, int]:
    numbers: list[int]
    try:
        numbers = list(bytes.fromhex(colour.removeprefix("#"))) if isinstance(colour, str) else [int(part) for part in colour]
    except (ValueError, TypeError):
        numbers = []
    if len(numbers) not in (3, 4) or not all(0 <= part <= 255 for part in numbers):
        raise ConfigError(f"a colour is '#RRGGBB', '#RRGGBBAA', or three or four numbers from 0 to 255, not {colour!r}")
    red, green, blue, alpha = (*numbers, 255)[:4]
    return red, green, blue, alpha


def _told(colors: dict[int, dict[str, Any]], properties: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Return both lists; where there are both, validators want the same labels in both."""
    found: dict[str, Any] = {}
    for name, each, other in (("colors", colors, properties), ("properties", properties, colors)):
        if each:
            found[name] = [{**each.get(label, {}), "label-value": label} for label in sorted({*each, *other})]
    return found


class _Geometry:
    """How labels lie on an image: their axes, and as many sizes as the image has."""

    def __init__(self, parent: Parent, shape: tuple[int, ...], axes: str | None) -> None:
        try:
            [multiscale, *_] = parent.ome["multiscales"]
            names = [axis["name"] for axis in multiscale["axes"]]
            self._source = multiscale
            self.paths = [str(each["path"]) for each in multiscale["datasets"]]
            shapes = [_shape_and_dtype(parent, parent.inside(path))[0] for path in self.paths]
            if any(len(each) != len(names) for each in shapes) or names[-2:] != ["y", "x"] or not set(names) <= set(_AXES):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise DatasetError(f"{parent.folder}: does not describe an image with axes out of t, c, z, y, x") from None
        if axes is None:
            kept = list(names)
            while len(kept) > len(shape):
                kept.remove("c" if "c" in kept else kept[0])
            axes = "".join(kept)
        if len(axes) != len(shape) or not axes.endswith("yx") or [name for name in names if name in axes] != list(axes):
            raise ConfigError(f"labels {shape} do not lie on an image of the axes {''.join(names)} as {axes!r}")
        self.axes = axes
        self._kept = [names.index(axis) for axis in axes]
        full = [shapes[0][place] for place in self._kept]
        if tuple(shape[-2:]) != tuple(full[-2:]):
            raise ConfigError(f"labels of {shape[-2]} x {shape[-1]} do not fit an image of {full[-2]} x {full[-1]}")
        for axis, length, most in zip(axes, shape, full, strict=True):
            if not 1 <= length <= most:
                raise ConfigError(f"labels have {length} along {axis}, and the image {most}")
        self.sizes = [(each[-2], each[-1]) for each in shapes]

    def multiscale(self, name: str) -> dict[str, Any]:
        """Return what OME-Zarr knows of the label image: as the image, without the axes that are left out."""
        datasets = [{**each, **self._moves(each)} for each in self._source["datasets"]]
        found = {"name": name, "axes": [self._source["axes"][place] for place in self._kept], "datasets": datasets}
        return {**found, **self._moves(self._source)}

    def _moves(self, node: Mapping[str, Any]) -> dict[str, Any]:
        if "coordinateTransformations" not in node:
            return {}
        moves = [
            {"type": move["type"], move["type"]: [move[move["type"]][place] for place in self._kept]}
            for move in node["coordinateTransformations"]
            if isinstance(move.get(move.get("type")), list)
        ]
        return {"coordinateTransformations": moves}


def _sampled(plane: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Return labels (y, x) in a smaller size: of each pixel, the label in its middle."""
    if size == plane.shape:
        return plane
    rows, columns = (
        np.minimum(((np.arange(small) + 0.5) * large / small).astype(np.intp), large - 1)
        for small, large in zip(size, plane.shape, strict=True)
    )
    smaller: NDArray[Any] = plane[rows[:, None], columns]
    return smaller


def _document(shape: Sequence[int], dtype: str, version: str, axes: str) -> dict[str, Any]:
    """Return the document of labels: a plane is a chunk, compressed by gzip, which every reader has."""
    chunk = [*(1 for _ in shape[:-2]), *shape[-2:]]
    if version == "0.4":
        return _layout._document_2(list(shape), chunk, dtype, 0, {"id": "gzip", "level": _GZIP_LEVEL})
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [_layout._bytes_codec(dtype), {"name": "gzip", "configuration": {"level": _GZIP_LEVEL}}],
        "dimension_names": list(axes),
        "attributes": {},
        "storage_transformers": [],
    }


def _chunk(place: Sequence[int], version: str) -> str:
    numbers = "/".join(map(str, (*place, 0, 0)))
    return f"c/{numbers}" if version == "0.5" else numbers


def _write_array(
    folder: Path,
    document: dict[str, Any],
    shape: tuple[int, ...],
    version: str,
    read: Callable[[tuple[int, ...]], NDArray[Any]],
) -> None:
    folder.mkdir(parents=True)
    for place in np.ndindex(*shape[:-2]):
        plane = _sampled(read(place), (shape[-2], shape[-1]))
        if plane.any():  # a chunk that is not there is background
            packer = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP)
            path = folder / _chunk(place, version)
            path.parent.mkdir(parents=True, exist_ok=True)
            little = np.ascontiguousarray(plane, plane.dtype.newbyteorder("<"))
            path.write_bytes(packer.compress(little.tobytes()) + packer.flush())
    _nodes.write_array(folder, document)


# ---------------------------------------------------------------------- what is read


def _ome(parent: Parent, relative: str) -> dict[str, Any]:
    attributes = _nodes.read_group(parent.root, relative)
    found = attributes.get("ome", {}) if parent.version == "0.5" else attributes
    return found if isinstance(found, dict) else {}


def _multiscale(parent: Parent, relative: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = _ome(parent, relative)["multiscales"][0]
        if not found["datasets"] or not all(isinstance(each["path"], str) for each in found["datasets"]):
            raise ValueError
        return found
    except (KeyError, IndexError, TypeError, ValueError):
        raise DatasetError(f"{parent.root / relative}: does not describe a label image, or is damaged") from None


def _shape_and_dtype(parent: Parent, relative: str) -> tuple[tuple[int, ...], str]:
    document = _nodes.read_array(parent.root, relative)
    try:
        shape = tuple(int(length) for length in document["shape"])
        kind = document["data_type"] if document.get("zarr_format") == 3 else document["dtype"]
        return shape, np.dtype(kind).name
    except (KeyError, TypeError, ValueError):
        raise DatasetError(f"{parent.root / relative}: is no array, or is damaged") from None


def _read_array(parent: Parent, relative: str) -> NDArray[Any]:
    if not _is_ours(parent, relative):
        try:
            return np.asarray(_open_by_zarr(parent.root / relative)[...])
        except _DAMAGE as error:
            raise DatasetError(f"{parent.root / relative}: cannot be read: {error}") from error
    shape, dtype = _shape_and_dtype(parent, relative)
    if math.prod(shape[-2:]) * np.dtype(dtype).itemsize > _layout.MAX_FRAME_BYTES:
        raise DatasetError(f"{parent.root / relative}: is larger than this layout stores, so it is damaged")
    try:
        pixels = np.zeros(shape, dtype=dtype)
    except (MemoryError, ValueError):
        raise DatasetError(f"{parent.root / relative}: its shape {shape} does not fit into memory") from None
    for place in np.ndindex(*shape[:-2]):
        pixels[place] = _plane_of(parent, relative, place, shape, dtype)
    return pixels


def _is_ours(parent: Parent, relative: str) -> bool:
    """Whether an array has the form that is written here."""
    document = _nodes.read_array(parent.root, relative)
    shape, dtype = _shape_and_dtype(parent, relative)
    axes = "".join(str(name) for name in document.get("dimension_names") or ())
    if len(shape) < 2 or dtype not in _DTYPES or min(shape) < 1:
        return False
    return {**document, "attributes": {}} == {**_document(shape, dtype, parent.version, axes), "attributes": {}}


def _plane_of(parent: Parent, relative: str, place: Sequence[int], shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    chunk = f"{relative}/{_chunk(place, parent.version)}"
    if not os.path.lexists(parent.root / chunk):
        return np.zeros(shape[-2:], dtype)
    return _read_plane(parent.root, chunk, shape[-2:], dtype)


def _read_plane(root: Path, chunk: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    kind = np.dtype(dtype).newbyteorder("<")
    size = math.prod(shape) * kind.itemsize
    with open(_files.open_inside(root, chunk), "rb") as file:
        packed = file.read(size + (size >> 6) + 4096)
    unpacker = zlib.decompressobj(_GZIP)
    try:
        data = unpacker.decompress(packed, size)
        if len(data) == size and not unpacker.eof:
            data += unpacker.decompress(unpacker.unconsumed_tail, 1)
    except zlib.error as error:
        raise DatasetError(f"{root / chunk}: is damaged: {error}") from None
    if len(data) != size or not unpacker.eof:
        raise DatasetError(f"{root / chunk}: is not as long as its plane, so it is damaged")
    return np.frombuffer(data, kind).reshape(shape)


_DAMAGE = (OSError, ValueError, RuntimeError, LookupError, TypeError)


def _open_by_zarr(path: Path) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise BackendUnavailableError(f"labels of other programs need zarr: {command_for('replay', 'zarr')}") from error
    try:
        return zarr.open_array(str(path), mode="r")
    except _DAMAGE as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
