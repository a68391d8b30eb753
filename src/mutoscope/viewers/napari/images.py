"""A layer of images in napari: one array, whose planes are written in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError
from mutoscope.viewers.adapter import HeldLayer
from mutoscope.viewers.model import ImageLayer
from mutoscope.viewers.napari.layers import Axis, spread
from mutoscope.viewers.napari.luts import DEFAULT_LUT, lut_named
from mutoscope.viewers.planes import AxisValue
from mutoscope.viewers.wire import Value

__all__ = ["ImageView"]


class ImageView:
    """Shows an `ImageLayer`. A person's own contrast, look-up table, name and order stay."""

    layer: ImageLayer

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._napari: Any = None
        self._name = ""
        self._contrast: tuple[float, float] | None = None
        self._lut = ""
        self._stale = False
        self._sorted = False
        self._axes: tuple[Axis, ...] = ()
        self._shape: tuple[int, ...] = ()

    def napari_layers(self) -> list[Any]:
        """What napari has of it."""
        return [self._napari] if self._is_there() else []

    def _is_there(self) -> bool:
        return self._napari is not None and self._napari in self._viewer.layers

    @property
    def was_removed(self) -> bool:
        """Whether a person has taken it away."""
        return self._napari is not None and not self._is_there()

    def remove(self) -> None:
        """Take it away."""
        if self._is_there():
            self._viewer.layers.remove(self._napari)
        self._napari = None

    def bind(self, viewer: Any) -> None:
        """The window that it was in is gone; this is another one, or None."""
        self._viewer, self._napari = viewer, None

    def show(self, axes: tuple[Axis, ...]) -> None:
        """Have it along the axes of its window, with what is new."""
        layer = self.layer
        if not self._is_there():
            self._add(axes)
        elif layer.moved or axes != self._axes or layer.array.shape != self._shape:
            self._napari.data = spread(layer.array, layer.axes, axes)
            self._name_axes(axes)
            self._shape = layer.array.shape
            self._stale = False
        elif layer.changed:
            self._stale = True
        if layer.name != self._name:
            if self._napari.name == self._name:
                self._napari.name = layer.name
            self._name = layer.name

    def _add(self, axes: tuple[Axis, ...]) -> None:
        layer = self.layer
        limits: dict[str, Any] = {}
        if not layer.rgb:
            first = next(iter(layer.contrast.values()), (0.0, 1.0))
            colormap = lut_named(self._wanted_lut({}))
            limits = {"contrast_limits": _apart(first), "colormap": colormap, "gamma": layer.gamma or 1.0}
        self._napari = self._viewer.add_image(
            spread(layer.array, layer.axes, axes),
            name=layer.name,
            rgb=layer.rgb,
            multiscale=False,
            blending="additive" if "channel" in layer.components and not layer.rgb else "translucent_no_depth",
            **self._along(axes),
            **limits,
        )
        self._napari.metadata["mutoscope"] = {"layer": layer.id}
        self._name, self._axes, self._shape, self._sorted = self._napari.name, axes, layer.array.shape, False
        if not layer.rgb:
            self._contrast, self._lut = tuple(self._napari.contrast_limits), self._napari.colormap.name

    def _along(self, axes: tuple[Axis, ...]) -> dict[str, Any]:
        layer = self.layer
        return {
            "scale": [axis.scale for axis in axes] + list(layer.scale[-2:]),
            "units": [axis.unit for axis in axes] + [unit or "pixel" for unit in layer.units[-2:]],
            "axis_labels": [axis.label for axis in axes] + list(layer.axis_names[-2:]),
        }

    def _name_axes(self, axes: tuple[Axis, ...]) -> None:
        if [axis.name for axis in axes] != [axis.name for axis in self._axes]:
            for name, value in self._along(axes).items():
                setattr(self._napari, name, value)
        self._axes = axes

    def sort(self, above: list[Any]) -> None:
        """Put a new layer below those that belong above it."""
        if self._sorted or not self._is_there():
            return
        layers = self._viewer.layers
        places = [layers.index(other) for other in above if other in layers]
        if places and min(places) < layers.index(self._napari):
            layers.move(layers.index(self._napari), min(places))
        self._sorted = True

    # -- by the place of the sliders

    def look(self, index: tuple[int, ...], displayed: set[int], values: Mapping[str, AxisValue]) -> None:
        """Show what has changed where the sliders are, with the contrast and the look-up table of its channel."""
        if not self._is_there():
            return
        if self._stale and self._shows_changes(index, displayed):
            self._napari.refresh(extent=False, thumbnail=False, highlight=False)
        self._stale = False
        if self.layer.rgb:
            return
        found = _of_channel(self.layer.contrast, values)
        if found is not None and tuple(self._napari.contrast_limits) == self._contrast:
            limits = _apart(found)
            if limits != self._contrast:
                self._napari.contrast_limits = limits
                self._contrast = tuple(self._napari.contrast_limits)
        lut = self._wanted_lut(values)
        if self._napari.colormap.name == self._lut and lut != self._lut:
            self._napari.colormap = lut_named(lut)
            self._lut = self._napari.colormap.name

    def _shows_changes(self, index: tuple[int, ...], displayed: set[int]) -> bool:
        names = [axis.name for axis in self._axes]
        own = [names.index(name) for name in self.layer.axes]
        if displayed & set(own):
            return True
        return tuple(index[number] for number in own) in self.layer.changed

    def _wanted_lut(self, values: Mapping[str, AxisValue]) -> str:
        return _of_channel(self.layer.luts, values) or DEFAULT_LUT

    def is_missing(self, axes: Sequence[Axis], index: tuple[int, ...]) -> bool:
        """Whether its plane at this index of the window has not come."""
        place = {axis.name: at for axis, at in zip(axes, index, strict=True)}
        where = tuple(place.get(name, 0) for name in self.layer.axes)
        missing = self.layer.missing
        return any(at >= length for at, length in zip(where, missing.shape, strict=True)) or bool(missing[where])

    # -- what napari holds

    def held(self, axes: Sequence[Axis], index: tuple[int, ...]) -> HeldLayer:
        """Return what napari says of it."""
        held = self._napari
        values = {axis.name: axis.values[at] for axis, at in zip(axes, index, strict=True)}
        channel = _channel(self.layer.contrast, values)
        low, high = map(float, (0, 0) if held.rgb else held.contrast_limits)
        return HeldLayer(
            id=self.layer.id,
            name=held.name,
            window=self._viewer.title,
            kind="images",
            axis_names=list(held.axis_labels),
            shape=list(held.data.shape),
            dtype=held.data.dtype.name,
            contrast=[] if held.rgb else [(channel, low, high)],
            luts=[] if held.rgb else [(channel, held.colormap.name)],
            scale=[float(step) for step in held.scale],
            missing=int(self.layer.missing.sum()),
        )

    def held_plane(self, index: tuple[int, ...]) -> NDArray[Any]:
        """Return a plane of napari's array."""
        held = self._napari.data
        front = held.ndim - (3 if self._napari.rgb else 2)
        if len(index) != front or any(not 0 <= at < length for at, length in zip(index, held.shape, strict=False)):
            raise ConfigError(f"there is no plane {index} in {self.layer.name!r}")
        return np.asarray(held[index])


def _channel(of: Mapping[Value | None, Any], values: Mapping[str, AxisValue]) -> Value | None:
    here = values.get("channel") or values.get("C") or ()
    return next((part for part in here if part is not None and part in of), None)


def _of_channel(of: Mapping[Value | None, Any], values: Mapping[str, AxisValue]) -> Any:
    """What belongs to the channel where the sliders are; what holds for all if there is no such."""
    return of.get(_channel(of, values), of.get(None))


def _apart(limits: tuple[float, float]) -> tuple[float, float]:
    """Two limits that differ, as napari needs them."""
    low, high = map(float, limits)
    return low, high if high > low else max(low + 1.0, float(np.nextafter(low, np.inf)))
