"""napari's reader of stored data sets: recordings and plates, of which a plane is read when it comes in sight."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope import storage
from mutoscope.model.errors import MutoscopeError
from mutoscope.storage.plate import is_plate
from mutoscope.viewers.stored import StoredImage, contrast_of, stored_images

__all__ = ["LayerData", "LazyPlanes", "get_reader", "layers_of"]

LayerData = tuple[Any, dict[str, Any], str]
"""What napari takes: the array, what goes to `add_image`, and ``"image"``."""


class LazyPlanes:
    """Planes as one array ``(*axes, y, x)``, each read when it is indexed; those that are not stored are 0.

    Parameters
    ----------
    front : tuple of int
        The lengths of the axes before (y, x).
    plane_shape : (y, x)
        Of each plane.
    dtype : dtype
        Of the pixels.
    read : callable
        Given an index of these axes, returns rows and columns of that plane; None if it is not stored.
    """

    def __init__(
        self,
        front: tuple[int, ...],
        plane_shape: tuple[int, int],
        dtype: Any,
        read: Callable[[tuple[int, ...]], NDArray[Any] | None],
    ) -> None:
        self.shape = (*front, *plane_shape)
        self.dtype = np.dtype(dtype)
        self.ndim = len(self.shape)
        self._read = read
        self._turn = threading.Lock()

    @property
    def size(self) -> int:
        """The number of pixels."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read what NumPy's integers, slices and ``...`` say, as a new array."""
        keys = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys[at : at + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        keys += [slice(None)] * (self.ndim - len(keys))
        if len(keys) != self.ndim:
            raise IndexError(f"{len(keys)} indices of {self.ndim} axes")
        front, inner = keys[:-2], tuple(keys[-2:])
        chosen = [np.arange(length)[each] for each, length in zip(front, self.shape, strict=False)]
        lengths = [each.size for each in chosen]
        rest = np.empty(self.shape[-2:], np.bool_)[inner].shape
        out = np.zeros((*lengths, *rest), self.dtype)
        with self._turn:
            for index in np.ndindex(*lengths):
                plane = self._read(tuple(int(np.atleast_1d(each)[at]) for each, at in zip(chosen, index, strict=True)))
                if plane is not None:
                    out[index] = plane[inner]
        return out.reshape((*(n for each, n in zip(chosen, lengths, strict=True) if each.ndim), *rest))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        found = self[...]
        return found if dtype is None else found.astype(dtype)


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return what reads this path, for napari; None if it is no data set of Mutoscope's."""
    if not isinstance(path, str):
        return None
    try:
        if not is_plate(path):
            storage.info(path)
    except (MutoscopeError, OSError):
        return None
    return lambda chosen: layers_of(chosen if isinstance(chosen, str) else chosen[0])


def layers_of(path: str | os.PathLike[str]) -> list[LayerData]:
    """Return the layers of a data set: of a recording one for each image and channel, of a plate one for each channel.

    Raises
    ------
    DatasetNotFoundError, DatasetError
        If there is none, or it is damaged.
    """
    return [layer for image in stored_images(path) for layer in _layers(image, Path(path).name.split(".")[0])]


def _layers(image: StoredImage, whole: str) -> list[LayerData]:
    channels = len(image.channels)
    front = tuple(length for axis, length in zip(image.axes, image.shape, strict=True) if axis != "c")
    axes = [axis for axis in image.axes if axis != "c"]
    found = []
    for channel, name in enumerate(image.channels):
        words = [name, image.name] if image.members else [image.name or whole, *([name] if channels > 1 else [])]
        more: dict[str, Any] = {"blending": "additive"} if channels > 1 else {}
        if image.members:
            more = {"blending": "translucent_no_depth", **more, "metadata": {"images": list(image.members)}}
        planes = LazyPlanes(front, image.plane_shape, image.dtype, _plane_of(image, channel))
        options = {
            "name": " ".join(word for word in words if word),
            "axis_labels": [*axes, "y", "x"],
            "scale": [1.0] * len(axes) + [image.pixel_size_um or 1.0] * 2,
            "units": ["pixel"] * len(axes) + ["µm" if image.pixel_size_um else "pixel"] * 2,
            "contrast_limits": contrast_of(image, channel),
            "multiscale": False,
            "rgb": False,
            **more,
        }
        found.append((planes, options, "image"))
    return found


def _plane_of(image: StoredImage, channel: int) -> Callable[[tuple[int, ...]], NDArray[Any] | None]:
    if "c" not in image.axes:
        return image.read
    at = image.axes.index("c")
    return lambda index: image.read((*index[:at], channel, *index[at:]))
