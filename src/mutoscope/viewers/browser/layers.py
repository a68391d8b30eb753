"""Layers as the page shows them: each layer of images a stream whose planes are chosen by a value of each axis."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope.viewers.model import ImageLayer, Layer, RoiLayer
from mutoscope.viewers.page.board import ROI_BYTES
from mutoscope.viewers.page.past import GAPS_TOLD, Crop, Index, PastFrame, Where, nearest
from mutoscope.viewers.page.pixels import Stamp
from mutoscope.viewers.page.streams import StreamForm
from mutoscope.viewers.planes import AxisValue
from mutoscope.viewers.wire import Value

__all__ = ["LayerPast", "form_of", "label", "layer_hello", "plane_rois", "roi_hello", "size_of", "windows_hello"]

_UNSAID = "–"
_ALIKE = re.compile(r"-?\d+|'.*|–|.* · .*", re.DOTALL)


@functools.lru_cache(1 << 16)
def label(value: AxisValue) -> str:
    """Return what an index of an axis is called; no two values have the same label.

    Examples
    --------
    >>> label((7,)), label(("B03",)), label(("7",)), label((None,)), label(("raw", 2))
    ('7', 'B03', "'7'", '–', 'raw · 2')
    """
    return " · ".join([_word(each) for each in value])


def _word(value: Value | None) -> str:
    if value is None:
        return _UNSAID
    return repr(value) if isinstance(value, str) and _ALIKE.fullmatch(value) else str(value)


def _index_of(layer: Layer, at: Mapping[str, str]) -> tuple[int, ...]:
    """Return where a plane is along a layer's axes; the first index of those that `at` does not name."""
    index = []
    for axis, values in zip(layer.axes, layer.values, strict=True):
        wanted = at.get(axis)
        found = 0 if wanted is None else next((n for n, value in enumerate(values) if label(value) == wanted), None)
        if found is None:
            raise LookupError(f"{layer.name} has no {axis} {wanted!r}")
        index.append(found)
    return tuple(index)


class LayerPast:
    """The planes of a layer. Frame ``1 + i`` is the plane with the flat index `i` along the axes, as long as these stay.

    Parameters
    ----------
    layer : ImageLayer
        As it is now; whoever knows a later one sets it.
    """

    kind = "dataset"

    def __init__(self, layer: ImageLayer) -> None:
        self.layer = layer

    def find(self, where: Where) -> PastFrame:
        """Return the plane at a value of each axis; else the nearest plane that has come."""
        layer = self.layer
        missing = layer.missing
        if where.at is not None:
            index = _index_of(layer, where.at)
            if any(at >= length for at, length in zip(index, missing.shape, strict=True)) or missing[index]:
                raise LookupError(f"this plane of {layer.name} has not come")
            flat = int(np.ravel_multi_index(index, missing.shape)) if index else 0
            number = int(np.count_nonzero(~missing.ravel()[:flat]))
        else:
            ids = np.flatnonzero(~missing).astype(np.uint64) + np.uint64(1)
            number = nearest(where, ids, lambda: np.zeros(len(ids)))
            flat = int(ids[number]) - 1
            index = tuple(int(each) for each in np.unravel_index(flat, missing.shape))
        plane: NDArray[Any] = layer.array[index]
        of = dict(zip(layer.axes, index, strict=True))
        stamp = Stamp(flat + 1, plane=(of.get("t", -1), of.get("channel", -1), of.get("z", -1), -1))
        shape = (int(plane.shape[0]), int(plane.shape[1]))
        return PastFrame(stamp, number, shape, 1, lambda crop, _level: _cut(plane, crop))

    def index(self, image: str | None = None) -> Index:
        """Say which planes there are; all others are gaps, also before the first and after the last."""
        if image is not None:
            raise LookupError(f"there is no image {image!r}: planes are chosen by `at`")
        missing = self.layer.missing
        flat = np.concatenate([[False], missing.ravel(), [False]])
        edges = np.flatnonzero(np.diff(flat.astype(np.int8)))
        gaps = [(int(first) + 1, int(last - first)) for first, last in edges.reshape(-1, 2)]
        told, rest = gaps[:GAPS_TOLD], sum(count for _, count in gaps[GAPS_TOLD:])
        there = int(missing.size - np.count_nonzero(missing))
        return Index(1, missing.size, there, None, None, told, rest, list(missing.shape))

    def close(self) -> None:
        """It holds nothing open."""


def _cut(plane: NDArray[Any], crop: Crop) -> NDArray[Any]:
    y0, x0, y1, x1 = crop
    return plane[y0:y1, x0:x1].copy()  # a later plane may take its place meanwhile


# -- what `hello` says


def form_of(layer: ImageLayer) -> StreamForm:
    """Return what the planes of a layer are."""
    front = layer.missing.ndim
    return StreamForm((int(layer.array.shape[front]), int(layer.array.shape[front + 1])), layer.array.dtype.name)


def layer_hello(layer: ImageLayer, rois: Sequence[RoiLayer]) -> dict[str, Any]:
    """Return what is said of a layer of images beside its form, and which layers of ROIs lie over it."""
    return {
        **_about(layer, rois),
        "axes": list(layer.axes),
        "colours": 3 if layer.rgb else 1,
        "look": _look(layer),
    }


def roi_hello(layer: RoiLayer) -> dict[str, Any]:
    """Return the same of ROIs that have no images to lie on: a stream without planes."""
    return {**_about(layer, [layer]), "axes": list(layer.axes), "colours": 1, "look": {}}


def _about(layer: Layer, rois: Sequence[RoiLayer]) -> dict[str, Any]:
    return {
        "title": layer.name,
        "window": layer.window_id,
        "pixel_size_um": layer.scale[-1] if layer.units[-1] == "µm" else None,
        "roi_layers": [each.id for each in rois],
    }


def _look(layer: ImageLayer) -> dict[str, Any]:
    """Return contrast and colours as they were chosen; limits for each value of an axis where they differ along it."""
    look: dict[str, Any] = {}
    lut = next(iter(layer.luts.values()), None)
    if lut is not None:
        look["lut"] = lut
    if layer.gamma is not None:
        look["gamma"] = layer.gamma
    if layer.rgb:
        return look
    if len(layer.contrast) == 1:
        look["contrast"] = list(next(iter(layer.contrast.values())))
        return look
    for axis, components, values in zip(layer.axes, layer.axis_components, layer.values, strict=True):
        if "channel" in components:
            at = components.index("channel")
            limits = {label(value): layer.contrast.get(value[at]) for value in values}
            look["contrasts"] = {"axis": axis, "limits": {name: each for name, each in limits.items() if each is not None}}
    return look


def windows_hello(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """Return the windows with their axes, each with a label of every index."""
    windows: dict[str, dict[str, Any]] = {}
    for layer in sorted(layers, key=lambda each: (each.window, each.window_id, each.order)):
        window = windows.setdefault(layer.window_id, {"name": layer.window_id, "title": layer.window, "axes": {}})
        for number, axis in enumerate(layer.axes):
            if axis not in window["axes"] or len(window["axes"][axis]["values"]) < len(layer.values[number]):
                window["axes"][axis] = {
                    "name": axis,
                    "title": layer.axis_names[number],
                    "values": [label(value) for value in layer.values[number]],
                    "step": layer.scale[number],
                    "unit": layer.units[number],
                }
        order = {axis: number for number, axis in enumerate(layer.window_axes)}
        window["axes"] = dict(sorted(window["axes"].items(), key=lambda item: order.get(item[0], len(order))))
    return [{**window, "axes": list(window["axes"].values())} for window in windows.values()]


# -- ROIs


def plane_rois(layer: RoiLayer, at: Mapping[str, str]) -> dict[str, Any]:
    """Return the ROIs on a plane, as the protocol has them, and how many more there are than can be told."""
    index = _index_of(layer, at)
    told: list[msgspec.Raw] = []
    size = more = 0
    for where, rois in layer.rois.items():
        if any(each not in (None, here) for each, here in zip(where, index, strict=True)):
            continue
        for roi in rois:
            packed = msgspec.json.encode(roi)
            size += len(packed)
            if size <= ROI_BYTES:
                told.append(msgspec.Raw(packed))
            else:
                more += 1
    return {"rois": told, "more": more}


def size_of(layer: RoiLayer) -> tuple[int, int]:
    """Return a size (y, x) in which all ROIs of a layer lie."""
    height = width = 0.0
    for rois in layer.rois.values():
        if len(rois.all_vertices):
            height, width = np.maximum((height, width), rois.all_vertices.max(axis=0))
        for number in np.flatnonzero(rois.kinds == 0):
            _, _, y, x = rois[int(number)].geometry.bounds()
            height, width = max(height, y), max(width, x)
    return (int(np.ceil(height)) + 1, int(np.ceil(width)) + 1)
