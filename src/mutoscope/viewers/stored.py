"""Stored data sets as viewers show them: images with axes, of which a plane is read when it is looked at."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope import storage
from mutoscope.model.errors import ConfigError
from mutoscope.storage.labels import labels_planes
from mutoscope.storage.plate import PlateReader, is_plate, plate_info

__all__ = ["StoredImage", "contrast_of", "stored_images", "stored_labels"]

Index = tuple[int, ...]
Progress = Callable[[int, int, str], None]
_AXES = ("position", "t", "c", "z")
_MOST_LOOKED_AT = 64


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """An image whose planes are on the disk.

    Parameters
    ----------
    name : str
        What tells it from the others of its data set; empty where it is the only one.
    axes : tuple of str
        Before (y, x), outermost first, of ``"position"``, ``"field"``, ``"t"``, ``"c"``, ``"z"``.
    shape : tuple of int
        How long they are.
    plane_shape : (y, x)
    dtype : dtype
    channels : tuple of str
        Names along ``"c"``, or of the one channel.
    read : callable
        Given an index of the axes, returns that plane; None where none is stored.
    label : callable
        Given the same, returns what a person reads above it.
    pixel_size_um, z_step_um, interval_s : float, optional
        None where they are not known.
    members : tuple of str
        The images of a plate along ``"field"``.
    frame_of : callable, optional
        Of a recording: given an index, returns the number of its frame; -1 where none is stored.
    colours : dict of int to (r, g, b, a), optional
        Of labels: of those that have one. None of what is no labels.
    """

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    plane_shape: tuple[int, int]
    dtype: np.dtype[Any]
    channels: tuple[str, ...]
    read: Callable[[Index], NDArray[Any] | None]
    label: Callable[[Index], str]
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    interval_s: float | None = None
    members: tuple[str, ...] = ()
    frame_of: Callable[[Index], int] | None = None
    colours: Mapping[int, tuple[int, int, int, int]] | None = None

    def at(self, axis: str, number: int) -> list[Index]:
        """Return the first few indices at this number along an axis; along an axis that it has not, the first few of all."""
        lengths = [1 if name == axis else length for name, length in zip(self.axes, self.shape, strict=True)]
        found = []
        for index in np.ndindex(*lengths):
            found.append(tuple(number if name == axis else at for name, at in zip(self.axes, index, strict=True)))
            if len(found) == _MOST_LOOKED_AT:
                break
        return found


def contrast_of(image: StoredImage, channel: int = 0) -> tuple[float, float]:
    """Return least and greatest count of the first plane of a channel that has more than one value; the others are not read."""
    low, high = 0.0, 0.0
    for index in image.at("c", channel):
        plane = image.read(index)
        if plane is not None:
            low, high = float(np.nanmin(plane)), float(np.nanmax(plane))
            if high > low:
                break
    return low, high if high > low else low + 1


def stored_images(path: str | os.PathLike[str], progress: Progress | None = None) -> list[StoredImage]:
    """Return the images of a recording or a plate; of a plate one for each size and dtype of its planes.

    Parameters
    ----------
    path : path
        Of an OME-Zarr, or an OME-TIFF.
    progress : callable, optional
        Called with images that are known, images in all, and a name.

    Raises
    ------
    DatasetNotFoundError, DatasetError
        If there is none, or it is damaged.
    """
    place = Path(path)
    return _plate_images(place, progress) if is_plate(place) else _recorded_images(place)


# -- recordings


def _recorded_images(path: Path) -> list[StoredImage]:
    images = storage.info(path)["images"]
    several = len(images) > 1
    return [_recorded(path, each, each["image"] if several else "") for each in images if each["frames"]]


def _recorded(path: Path, about: Mapping[str, Any], name: str) -> StoredImage:
    reader = storage.open_reader(path, name if name and name != "." else None)
    axes, grid = _grid(reader.planes(), len(reader))
    ids = reader.frame_ids

    def frame_of(index: Index) -> int:
        return int(grid[index])

    def read(index: Index) -> NDArray[Any] | None:
        number = frame_of(index)
        return None if number < 0 else reader[number]

    def label(index: Index) -> str:
        number = frame_of(index)
        return " ".join([f"frame {ids[number]}" if number >= 0 else "missing", *_words(axes, index)])

    interval = None
    if axes == ["t"] and len(reader) > 1:
        steps = np.diff(reader.monotonic_ns[: min(len(reader), 1000)])
        interval = float(np.median(steps)) / 1e9 if steps.size and np.median(steps) > 0 else None
    count = grid.shape[axes.index("c")] if "c" in axes else 1
    return StoredImage(
        name=name,
        axes=tuple(axes),
        shape=grid.shape,
        plane_shape=reader.shape,
        dtype=np.dtype(reader.dtype),
        channels=tuple(f"channel {number}" for number in range(count)),
        read=read,
        label=label,
        pixel_size_um=about["pixel_size_um"],
        interval_s=interval,
        frame_of=frame_of,
    )


def _words(axes: Sequence[str], index: Index) -> list[str]:
    return [f"{axis}{number}" for axis, number in zip(axes, index, strict=True)]


def _grid(planes: Mapping[str, NDArray[np.int32]] | None, frames: int) -> tuple[list[str], NDArray[np.int64]]:
    """Return the axes of a stream and which frame lies where, -1 where none does; one after the other where they do not say."""
    if planes is not None:
        said = [name for name in _AXES if name in planes and (planes[name] >= 0).all() and np.unique(planes[name]).size > 1]
        found = [np.unique(planes[name], return_inverse=True) for name in said]
        shape, places = tuple(values.size for values, _ in found), tuple(place for _, place in found)
        if said and np.unique(np.ravel_multi_index(places, shape)).size == frames:
            grid = np.full(shape, -1, np.int64)
            grid[places] = np.arange(frames)
            return said, grid
    return ["t"], np.arange(frames)


# -- plates


def _plate_images(path: Path, progress: Progress | None) -> list[StoredImage]:
    about = plate_info(path)
    reader = PlateReader(path)
    forms: dict[tuple[tuple[int, int], str], list[str]] = {}
    extents: dict[str, tuple[int, ...]] = {}
    for number, image in enumerate(reader.images, 1):
        forms.setdefault(reader.form(image), []).append(image)
        extents[image] = reader.stored(image).shape
        if progress is not None:
            progress(number, len(reader.images), image)
    found = []
    for (shape, dtype), images in forms.items():
        t, c, z = np.max([extents[each] for each in images], axis=0).tolist()
        names = about["channels"]
        found.append(
            StoredImage(
                name=f"{shape[0]}x{shape[1]} {dtype}" if len(forms) > 1 else "",
                axes=("field", "t", "c", "z"),
                shape=(len(images), t, c, z),
                plane_shape=shape,
                dtype=np.dtype(dtype),
                channels=tuple(names[number] if number < len(names) else f"channel {number + 1}" for number in range(c)),
                read=_plate_plane(reader, images),
                label=_plate_label(images),
                pixel_size_um=about["pixel_size_um"],
                z_step_um=about["z_step_um"],
                members=tuple(images),
            )
        )
    return found


def _plate_plane(reader: PlateReader, images: Sequence[str]) -> Callable[[Index], NDArray[Any] | None]:
    def read(index: Index) -> NDArray[Any] | None:
        image, at = images[index[0]], (index[1], index[2], index[3])
        stored = reader.stored(image)
        inside = all(number < length for number, length in zip(at, stored.shape, strict=True))
        return reader.read(image, at) if inside and stored[at] else None

    return read


def _plate_label(images: Sequence[str]) -> Callable[[Index], str]:
    return lambda index: " ".join([images[index[0]], *_words(("t", "c", "z"), index[1:])])


# -- labels


def stored_labels(path: str | os.PathLike[str], images: Sequence[StoredImage]) -> list[StoredImage]:
    """Return the labels that are stored beside these images of a data set, each in the form of the image that it lies on.

    Raises
    ------
    DatasetError
        If they are damaged.
    """
    place = Path(path)
    if not place.is_dir():
        return []  # an OME-TIFF has none
    return [made for image in images for made in _labels_on(place, image)]


def _labels_on(path: Path, image: StoredImage) -> list[StoredImage]:
    parents: list[str | None] = list(image.members) or [image.name if image.name not in ("", ".") else None]
    known: dict[str, dict[int, Any]] = {}
    for number, parent in enumerate(parents):
        for name in storage.list_labels(path, image=parent):
            info, read = labels_planes(path, name, image=parent)
            if tuple(info.shape[-2:]) != image.plane_shape:
                raise ConfigError(f"{path}: the labels {name!r} are not of the size of the image that they lie on")
            known.setdefault(name, {})[number] = (info, read)
    keep = [number for number, axis in enumerate(image.axes) if axis != "c"]
    found = []
    for name, by_parent in known.items():
        dtype = np.result_type(*(np.dtype(info.dtype) for info, _ in by_parent.values()))
        found.append(
            StoredImage(
                name=f"{image.name} {name}".strip(),
                axes=tuple(image.axes[number] for number in keep),
                shape=tuple(image.shape[number] for number in keep),
                plane_shape=image.plane_shape,
                dtype=dtype,
                channels=(name,),
                read=_labels_plane(image, keep, by_parent, dtype),
                label=_labels_label(image, keep),
                pixel_size_um=image.pixel_size_um,
                z_step_um=image.z_step_um,
                interval_s=image.interval_s,
                members=image.members,
                colours={key: colour for info, _ in by_parent.values() for key, colour in info.colors.items()},
            )
        )
    return found


def _whole(image: StoredImage, keep: Sequence[int], index: Index) -> Index:
    """An index of the image: the first channel, of labels that lie on all of them."""
    whole = [0] * len(image.axes)
    for number, at in zip(keep, index, strict=True):
        whole[number] = at
    return tuple(whole)


def _labels_label(image: StoredImage, keep: Sequence[int]) -> Callable[[Index], str]:
    return lambda index: image.label(_whole(image, keep, index))


def _labels_plane(
    image: StoredImage, keep: Sequence[int], by_parent: Mapping[int, Any], dtype: np.dtype[Any]
) -> Callable[[Index], NDArray[Any] | None]:
    def read(index: Index) -> NDArray[Any] | None:
        said = dict(zip((image.axes[number] for number in keep), index, strict=True))
        if image.frame_of is not None:
            said = {"t": image.frame_of(_whole(image, keep, index))}  # labels of a stream count its frames
        parent = by_parent.get(said.get("field", 0))
        if parent is None:
            return None
        info, plane = parent
        place = tuple(said.get(axis, 0) for axis in info.axes[:-2])
        if any(not 0 <= at < length for at, length in zip(place, info.shape, strict=False)):
            return None
        found: NDArray[Any] = plane(place).astype(dtype, copy=False)
        return found

    return read
