"""The axes that the layers of a window share. napari lines layers up by their last axes, whatever these are called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.viewers.model import ImageLayer, RoiLayer
from mutoscope.viewers.planes import AxisValue

__all__ = ["Axis", "merged_axes", "place_text", "spread"]


@dataclass(frozen=True)
class Axis:
    """An axis of a window, before (y, x).

    Parameters
    ----------
    name : str
        Of the component.
    label : str
        What a person calls it.
    values : tuple
        What its indices stand for.
    scale : float
        Its step.
    unit : str
        Of the step, as napari has it.
    """

    name: str
    label: str
    values: tuple[AxisValue, ...]
    scale: float
    unit: str


def merged_axes(layers: Iterable[ImageLayer | RoiLayer]) -> tuple[Axis, ...]:
    """Return the axes that any of these layers has, in their common order."""
    order: list[str] = []
    found: dict[str, Axis] = {}
    for layer in layers:
        at = 0
        for number, name in enumerate(layer.axes):
            if name in order:
                at = order.index(name) + 1
            else:
                order.insert(at, name)
                at += 1
            values = layer.values[number]
            if name not in found or len(values) > len(found[name].values):
                unit = layer.units[number] or "pixel"
                found[name] = Axis(name, layer.axis_names[number], values, layer.scale[number], unit)
    return tuple(found[name] for name in order)


def spread(array: NDArray[Any], axes: Sequence[str], wanted: Sequence[Axis]) -> NDArray[Any]:
    """Return an array along all axes of its window, without a copy: planes lie everywhere along axes that they do not name."""
    if list(axes) == [axis.name for axis in wanted]:
        return array
    for number, axis in enumerate(wanted):
        if axis.name not in axes:
            array = np.expand_dims(array, number)
    front = [len(axis.values) if axis.name not in axes else array.shape[number] for number, axis in enumerate(wanted)]
    return np.broadcast_to(array, (*front, *array.shape[len(wanted) :]))


def place_text(axes: Sequence[Axis], index: Sequence[int]) -> str:
    """Return what an index stands for, in words: ``"well B03  t 2  z 7"``."""
    said = []
    for axis, at in zip(axes, index, strict=True):
        value = " ".join(str(part) for part in axis.values[at] if part is not None)
        if value:
            said.append(f"{axis.label} {value}")
    return "  ".join(said)
