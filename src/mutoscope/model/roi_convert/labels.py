"""ROIs from and to label images: each object its number, 0 for none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mutoscope.model.errors import ConfigError
from mutoscope.model.roi import Geometry, Mask, Roi, RoiPlane
from mutoscope.model.roi_convert.raster import covered
from mutoscope.model.roi_convert.rings import as_area, trace

__all__ = ["from_labels", "to_labels"]


def from_labels(
    labels: NDArray[Any], *, kind: Literal["outline", "mask"] = "outline", plane: RoiPlane | None = None
) -> list[Roi]:
    """Make a ROI of each object of a label image.

    Outlines run along the sides of the pixels, so they cover the same pixels again. Holes are kept, touching objects stay
    apart, and an object in several pieces becomes one :class:`~mutoscope.model.roi.Composite`.

    Parameters
    ----------
    labels : ndarray, shape (y, x), integer or bool
        Read, not kept.
    kind : str
        ``"outline"`` for polygons, ``"mask"`` for masks.
    plane : RoiPlane, optional
        Where the image lies; all planes by default.

    Returns
    -------
    list of Roi
        In the order of the labels; `id` is the label as text.

    Raises
    ------
    ConfigError
        If it is no two-dimensional image of whole numbers, or has labels below 0.
    """
    image = np.asarray(labels)
    if image.ndim != 2 or image.dtype.kind not in "iub":
        raise ConfigError(f"a label image is a (y, x) array of integers, not {image.dtype} of shape {image.shape}")
    rows, columns = np.nonzero(image)
    if not rows.size:
        return []
    values = image[rows, columns]
    if values.min() < 0:
        raise ConfigError(f"labels are numbers from 1, not {values.min()}")
    order = np.argsort(values, kind="stable")
    rows, columns, values = rows[order], columns[order], values[order]
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    boxes = [reduce.reduceat(axis, starts) for axis in (rows, columns) for reduce in (np.minimum, np.maximum)]
    rois = []
    for label, y0, y1, x0, x1 in zip(values[starts], *boxes, strict=True):
        part = image[y0 : y1 + 1, x0 : x1 + 1] == label
        origin = (int(y0), int(x0))
        geometry: Geometry | None = as_area(trace(part, origin)) if kind == "outline" else None
        number = str(int(label))
        rois.append(Roi(number, geometry or Mask.from_array(part, origin), number, plane or RoiPlane()))
    return rois


def to_labels(
    rois: Sequence[Roi],
    shape: tuple[int, int],
    *,
    dtype: DTypeLike = "uint32",
    numbers: Sequence[int] | None = None,
    overlap: Literal["last", "first", "error"] = "last",
) -> NDArray[Any]:
    """Paint ROIs into a label image.

    Parameters
    ----------
    rois : sequence of Roi
        Areas, masks and points; lines have no pixels. What lies outside of the image is cut off.
    shape : (y, x)
        Of the image.
    dtype : dtype
        An integer type that holds all numbers.
    numbers : sequence of int, optional
        The label of each ROI; 1, 2, … by default.
    overlap : str
        Who gets a pixel that lies in several: the ``"last"`` or ``"first"`` ROI, or nobody (``"error"``).

    Raises
    ------
    ConfigError
        If a number does not fit, or ROIs overlap and may not.
    """
    kind = np.dtype(dtype)
    labels = list(numbers) if numbers is not None else list(range(1, len(rois) + 1))
    if len(labels) != len(rois):
        raise ConfigError(f"{len(rois)} ROIs have {len(labels)} numbers")
    if kind.kind not in "iu" or any(not 1 <= label <= np.iinfo(kind).max for label in labels):
        raise ConfigError(f"labels of {kind} are integers from 1 to {np.iinfo(kind).max if kind.kind in 'iu' else '-'}")
    image = np.zeros(shape, dtype=kind)
    for roi, label in zip(rois, labels, strict=True):
        inside = covered(roi.geometry, shape)
        if overlap != "last":
            taken = inside & (image != 0)
            if overlap == "error" and taken.any():
                y, x = np.argwhere(taken)[0]
                raise ConfigError(f"ROI {roi.id!r} overlaps label {image[y, x]} at pixel (y {y}, x {x})")
            inside &= ~taken
        image[inside] = label
    return image
