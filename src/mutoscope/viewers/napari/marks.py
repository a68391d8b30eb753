"""Marks over the images of a running scope in napari: points, and the ways of tracks as lines that napari draws fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.roi import Points, Polyline, Roi
from mutoscope.viewers.model import RoiLayer
from mutoscope.viewers.napari.layers import Axis

__all__ = ["MarksView"]

_COLORS = ("#00e5ff", "#ff6ec7", "#a6ff4d", "#ffb347", "#b39dff")
_POINT_PART, _LINE_PART = 0.012, 0.002


class MarksView:
    """Shows a `RoiLayer` of points or tracks, which comes many times a second: only vertices are handed over."""

    layer: RoiLayer

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._napari: Any = None
        self._drawn = False

    def take(self, layer: RoiLayer) -> None:
        """Show these from now on."""
        self.layer = layer
        self._drawn = False

    def napari_layers(self) -> list[Any]:
        """What napari has of it."""
        return [self._napari] if self._napari is not None and self._napari in self._viewer.layers else []

    def remove(self) -> None:
        """Take it away."""
        for layer in self.napari_layers():
            self._viewer.layers.remove(layer)
        self._napari = None

    def bind(self, viewer: Any) -> None:
        """The window that it was in is gone; this is another one, or None."""
        self._viewer, self._napari, self._drawn = viewer, None, False

    def sort(self, above: list[Any]) -> None:
        """Marks lie above all images."""

    def size(self) -> tuple[int, int]:
        """Return the size (y, x) of an image on which all of them would lie."""
        return (1, 1)

    def look(self, axes: Sequence[Axis], index: tuple[int, ...]) -> None:
        """Draw what has come."""
        if self._drawn or (self._napari is not None and not self.napari_layers()):
            return  # a person has removed it
        self._drawn = True
        data = self._data()
        if self._napari is None:
            self._napari = self._make(data)
        else:
            self._napari.data = data

    def _data(self) -> NDArray[np.float64]:
        packed = self.layer.rois[()]
        if self.layer.marks == "points":
            return np.array(packed.all_vertices)
        steps = np.diff(packed.all_vertices, axis=0)
        within = np.ones(len(steps), bool)
        within[packed.offsets[1:-1] - 1] = False  # from the end of a track to the beginning of the next
        return np.stack([packed.all_vertices[:-1][within], steps[within]], axis=1)

    def _make(self, data: NDArray[np.float64]) -> Any:
        layer = self.layer
        extent = self._viewer.layers.extent
        size = float(np.nanmax((extent.world[1] - extent.world[0])[-2:] / layer.scale[-2:], initial=1.0))
        color = _COLORS[(layer.order // 2) % len(_COLORS)]
        common = {
            "name": layer.name,
            "scale": layer.scale[-2:],
            "units": [unit or "pixel" for unit in layer.units[-2:]],
            "axis_labels": list(layer.axis_names[-2:]),
        }
        active = self._viewer.layers.selection.active
        if layer.marks == "points":
            made = self._viewer.add_points(
                data, ndim=2, size=max(1.0, _POINT_PART * size), border_width=0.15, border_color=color,
                face_color="transparent", **common,
            )  # fmt: skip
        else:
            made = self._viewer.add_vectors(
                data, ndim=2, edge_width=max(0.5, _LINE_PART * size), edge_color=color, vector_style="line", **common
            )
        made.editable = False
        made.metadata["mutoscope"] = {"layer": layer.id}
        if active is not None:
            self._viewer.layers.selection.active = active
        return made

    def held(self) -> list[Roi]:
        """Return what napari has of it: points as one ROI, of tracks each."""
        if not self.napari_layers() or not len(self._napari.data):
            return []
        if self.layer.marks == "points":
            points = [(float(y), float(x)) for y, x in self._napari.data]
            return [Roi(roi.id, Points(points)) for roi in self.layer.rois[()]]
        found, at = [], 0
        for number, roi in enumerate(self.layer.rois[()]):
            count = int(np.diff(self.layer.rois[()].offsets)[number]) - 1
            steps = self._napari.data[at : at + count]
            path = [*steps[:, 0].tolist(), (steps[-1, 0] + steps[-1, 1]).tolist()]
            found.append(Roi(roi.id, Polyline([(y, x) for y, x in path])))
            at += count
        return found
