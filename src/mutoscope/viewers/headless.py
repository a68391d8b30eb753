"""The viewer without a window: it holds what others show, for tests, for benches, and as an example of an adapter."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError
from mutoscope.model.roi import Roi
from mutoscope.viewers.adapter import HeldLayer, ViewerAdapter, check_index
from mutoscope.viewers.model import ImageLayer, RoiLayer
from mutoscope.viewers.roi_pack import pack_rois, unpack_rois

if TYPE_CHECKING:
    from mutoscope.viewers.core import ViewerCore

__all__ = ["HeadlessAdapter"]


class HeadlessAdapter(ViewerAdapter):
    """Holds layers, and paints the first plane of the lowest one when it is asked for a picture."""

    kind: ClassVar[str] = "model"
    alone_s: ClassVar[float | None] = 10.0

    def __init__(self) -> None:
        self._layers: dict[str, ImageLayer | RoiLayer] = {}
        self._turn = threading.Condition()
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._stopped = False
        self._core: ViewerCore | None = None

    def open(self, title: str) -> None:
        pass

    def began(self, core: ViewerCore) -> None:
        self._core = core

    # -- a loop, as window systems have one

    def run(self) -> None:
        while True:
            with self._turn:
                while not self._stopped and not (self._calls and self._calls[0][0] <= time.monotonic()):
                    self._turn.wait(self._calls[0][0] - time.monotonic() if self._calls else None)
                if self._stopped:
                    return
                callback = heapq.heappop(self._calls)[2]
            callback()

    def call_soon(self, callback: Callable[[], None], delay_s: float = 0.0) -> None:
        with self._turn:
            heapq.heappush(self._calls, (time.monotonic() + delay_s, next(self._numbers), callback))
            self._turn.notify()

    def stop(self) -> None:
        with self._turn:
            self._stopped = True
            self._turn.notify()

    def close(self) -> None:
        self._layers.clear()

    # -- layers

    def show_images(self, layer: ImageLayer) -> None:
        self._layers[layer.id] = layer

    def show_rois(self, layer: RoiLayer) -> None:
        self._layers[layer.id] = layer

    def remove(self, layer_id: str) -> None:
        self._layers.pop(layer_id, None)  # one that came and went between two looks was never shown

    # -- as a person would

    def draw(self, layer_id: str, roi: Roi) -> None:
        self._hold(layer_id, {**self._drawn(layer_id), roi.id: roi})
        assert self._core is not None
        self._core.roi_changed(layer_id, roi)

    def erase(self, layer_id: str, roi_id: str) -> None:
        left = self._drawn(layer_id)
        if left.pop(roi_id, None) is None:
            raise ConfigError(f"there is no ROI {roi_id!r} in layer {layer_id!r}")
        self._hold(layer_id, left)
        assert self._core is not None
        self._core.roi_removed(layer_id, roi_id)

    def _drawn(self, layer_id: str) -> dict[str, Roi]:
        layer = self._layers.get(layer_id)
        if not (isinstance(layer, RoiLayer) and layer.editable):
            raise ConfigError(f"there is no layer of ROIs {layer_id!r} that can be edited")
        return {roi.id: roi for roi in layer.rois[()]}

    def _hold(self, layer_id: str, rois: dict[str, Roi]) -> None:
        layer = self._layers[layer_id]
        assert isinstance(layer, RoiLayer)
        self._layers[layer_id] = dataclasses.replace(layer, rois={(): unpack_rois(pack_rois(list(rois.values())))})

    # -- what it holds

    def screenshot(self) -> NDArray[np.uint8]:
        for layer in self._sorted():
            if isinstance(layer, ImageLayer) and not layer.missing.all():
                plane = layer.array[tuple(np.argwhere(~layer.missing)[0])]
                return _painted(plane, layer)
        return np.zeros((1, 1, 3), np.uint8)

    def held_layers(self) -> list[HeldLayer]:
        return [_held(layer) for layer in self._sorted()]

    def held_plane(self, layer_id: str, index: tuple[int, ...]) -> NDArray[Any]:
        layer = self._layers.get(layer_id)
        if not isinstance(layer, ImageLayer):
            raise ConfigError(f"there is no layer of images {layer_id!r}")
        check_index(layer, index)
        plane: NDArray[Any] = layer.array[index]
        return plane

    def held_rois(self, layer_id: str, index: tuple[int, ...]) -> list[Roi]:
        layer = self._layers.get(layer_id)
        if not isinstance(layer, RoiLayer):
            raise ConfigError(f"there is no layer of ROIs {layer_id!r}")
        check_index(layer, index)
        found: list[Roi] = []
        for where, rois in layer.rois.items():
            if all(at in (None, wanted) for at, wanted in zip(where, index, strict=True)):
                found += rois
        return found

    def _sorted(self) -> list[ImageLayer | RoiLayer]:
        return sorted(self._layers.values(), key=lambda layer: (layer.window, layer.order))


def _held(layer: ImageLayer | RoiLayer) -> HeldLayer:
    common: dict[str, Any] = {
        "id": layer.id,
        "name": layer.name,
        "window": layer.window,
        "axis_names": list(layer.axis_names),
        "scale": list(layer.scale),
    }
    if isinstance(layer, RoiLayer):
        return HeldLayer(kind="rois", shape=[len(values) for values in layer.values], **common)
    return HeldLayer(
        kind="images",
        shape=list(layer.array.shape),
        dtype=layer.array.dtype.name,
        contrast=[(channel, *limits) for channel, limits in layer.contrast.items()],
        luts=list(layer.luts.items()),
        missing=int(layer.missing.sum()),
        **common,
    )


def _painted(plane: NDArray[Any], layer: ImageLayer) -> NDArray[np.uint8]:
    if layer.rgb:
        grey = plane[..., :3] if plane.dtype == np.uint8 else (plane[..., :3] >> 8)
        return grey.astype(np.uint8)
    low, high = next(iter(layer.contrast.values()), (0.0, 1.0))
    scaled = (plane.astype(np.float64) - low) * (255.0 / max(high - low, 1e-300))
    return np.repeat(np.clip(np.rint(scaled), 0, 255).astype(np.uint8)[..., None], 3, axis=2)
