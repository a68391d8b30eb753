"""A layer of ROIs in napari: the shapes, points and masks of the plane where the sliders are.

napari triangulates a shape when it is added, so that the ROIs of a whole plate at once would take minutes. Those of one plane
are drawn when it comes into sight, and what a person has drawn or changed there is kept for when it comes again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mutoscope.model.roi import Roi
from mutoscope.viewers.model import RoiLayer
from mutoscope.viewers.napari.layers import Axis
from mutoscope.viewers.napari.rois import Drawing, MaskSheet, Piece, drawing_of, held_rois

__all__ = ["RoiView", "column"]

_COLOR = "#ffff00"
_POINT_PX = 0.016
_LINE_PX = 0.0015
_OPACITY = 0.5


class RoiView:
    """Shows a `RoiLayer`."""

    layer: RoiLayer

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._shapes: Any = None
        self._points: Any = None
        self._labels: list[Any] = []
        self._known: dict[str, Roi] = {}
        self._edited: dict[tuple[int, ...], list[Roi]] = {}
        self._shown: tuple[int, ...] | None = None
        self._name = ""

    def take(self, layer: RoiLayer) -> None:
        """Show these from now on. What a person has changed on a plane stays until its ROIs come again."""
        if self._shown is not None:
            self._keep_edits()
        if hasattr(self, "layer"):
            old, new = self.layer, layer
            self._edited = {where: rois for where, rois in self._edited.items() if _at(old, where) == _at(new, where)}
        self.layer = layer
        self._shown = None

    def napari_layers(self) -> list[Any]:
        """What napari has of it."""
        return [layer for layer in (self._shapes, self._points, *self._labels) if self._is_there(layer)]

    def _is_there(self, layer: Any) -> bool:
        return layer is not None and layer in self._viewer.layers

    def remove(self) -> None:
        """Take it away."""
        for layer in self.napari_layers():
            self._viewer.layers.remove(layer)
        self.bind(self._viewer)

    def bind(self, viewer: Any) -> None:
        """The window that it was in is gone; this is another one, or None."""
        self._viewer = viewer
        self._shapes, self._points, self._labels, self._shown = None, None, [], None

    def sort(self, above: list[Any]) -> None:
        """ROIs lie above all images, the newest on top."""

    def size(self) -> tuple[int, int]:
        """Return the size (y, x) of an image on which all of them would lie."""
        ends = [roi.geometry.bounds()[2:] for rois in self.layer.rois.values() for roi in rois]
        y, x = np.max([(0.0, 0.0), *ends], axis=0)
        return min(int(y) + 2, 1 << 20), min(int(x) + 2, 1 << 20)

    # -- the plane in sight

    def look(self, axes: Sequence[Axis], index: tuple[int, ...]) -> None:
        """Show the ROIs of this plane."""
        if index == self._shown:
            return
        if self._shown is not None:
            self._keep_edits()
        place = {axis.name: at for axis, at in zip(axes, index, strict=True)}
        where = tuple(place[name] for name in self.layer.axes)
        rois = self._edited.get(where)
        if rois is None:
            rois = _at(self.layer, where)
        self._known = {str(number): roi for number, roi in enumerate(rois)}
        self._draw(drawing_of(self._known))
        self._shown, self._where = index, where

    def _keep_edits(self) -> None:
        """Keep what a person has changed on the plane that goes out of sight."""
        found = self.held()
        if sorted(found, key=lambda roi: roi.id) != sorted(self._known.values(), key=lambda roi: roi.id):
            self._edited[self._where] = found

    def _draw(self, drawing: Drawing) -> None:
        self._draw_shapes(drawing.pieces)
        self._draw_points(drawing)
        self._draw_masks(drawing.sheets)

    def _new(self, add: str, suffix: str, **options: Any) -> Any:
        scale, units = self.layer.scale[-2:], [unit or "pixel" for unit in self.layer.units[-2:]]
        active = self._viewer.layers.selection.active
        made = getattr(self._viewer, add)(
            name=self.layer.name + suffix, scale=scale, units=units, axis_labels=list(self.layer.axis_names[-2:]), **options
        )
        made.metadata["mutoscope"] = {"layer": self.layer.id}
        if active is not None:
            self._viewer.layers.selection.active = active
        return made

    def _thickness(self, part: float) -> float:
        """A part of the size of what is in sight, in pixels, so that lines and points can be seen."""
        extent = self._viewer.layers.extent
        size = (extent.world[1] - extent.world[0])[-2:] / self.layer.scale[-2:]
        return max(0.25, part * float(np.nanmax(size, initial=1.0))) if np.isfinite(size).any() else 1.0

    def _draw_shapes(self, pieces: list[Piece]) -> None:
        if not pieces and not self._is_there(self._shapes):
            return
        if not self._is_there(self._shapes):
            self._shapes = self._new("add_shapes", "", ndim=2, opacity=0.8)
        layer = self._shapes
        layer.data = []
        layer.features = self._features([]) | {"rings": []}
        if not pieces:
            return
        self._add_shapes(pieces)
        layer.features = self._features([piece.key for piece in pieces]) | {
            "rings": [" ".join(map(str, piece.rings)) for piece in pieces]
        }
        layer.selected_data = set()

    def _add_shapes(self, pieces: list[Piece]) -> None:
        thickness = self._thickness(_LINE_PX)
        strokes = [self._known[piece.key].stroke for piece in pieces]
        self._shapes.add(
            [piece.vertices for piece in pieces],
            shape_type=[piece.kind for piece in pieces],
            edge_width=[stroke.width or thickness for stroke in strokes],
            edge_color=[stroke.color or _COLOR for stroke in strokes],
            face_color=[stroke.fill or "#00000000" for stroke in strokes],
        )

    def _draw_points(self, drawing: Drawing) -> None:
        points = drawing.points
        if not points and not self._is_there(self._points):
            return
        if not self._is_there(self._points):
            self._points = self._new("add_points", " points", ndim=2, opacity=0.8)
        layer = self._points
        layer.data = np.array([point for _, point in points], np.float64).reshape(-1, 2)
        layer.features = self._features([key for key, _ in points])
        if not points:
            return
        strokes = [self._known[key].stroke for key, _ in points]
        layer.size = np.array([stroke.width or self._thickness(_POINT_PX) for stroke in strokes])
        layer.border_width = 0.2
        layer.face_color = [stroke.fill or "#00000000" for stroke in strokes]
        layer.border_color = [stroke.color or _COLOR for stroke in strokes]
        layer.selected_data = set()

    def _draw_masks(self, sheets: list[MaskSheet]) -> None:
        for number, sheet in enumerate(sheets):
            while number >= len(self._labels):
                self._labels.append(None)
            if not self._is_there(self._labels[number]):
                suffix = " masks" if number == 0 else f" masks {number + 1}"
                self._labels[number] = self._new("add_labels", suffix, data=sheet.labels, opacity=_OPACITY)
            layer = self._labels[number]
            layer.data = sheet.labels
            layer.translate = np.array(sheet.origin) * self.layer.scale[-2:]
            layer.features = self._features(["", *sheet.keys])
        for layer in self._labels[len(sheets) :]:
            if self._is_there(layer):
                layer.data = np.zeros((1, 1), np.int32)

    def _features(self, keys: list[str]) -> dict[str, list[str]]:
        rois = [self._known.get(key) for key in keys]
        return {
            "mutoscope": keys,
            "id": [roi.id if roi else "" for roi in rois],
            "name": [roi.name if roi else "" for roi in rois],
            "group": [roi.group if roi else "" for roi in rois],
        }

    # -- what napari holds

    def held(self) -> list[Roi]:
        """Return the ROIs of the plane in sight, as napari has them."""
        held = Drawing()
        if self._is_there(self._shapes):
            keys = column(self._shapes, "mutoscope")
            rings = column(self._shapes, "rings")
            kinds = [str(kind) for kind in self._shapes.shape_type]
            for vertices, kind, key, ring in zip(self._shapes.data, kinds, keys, rings, strict=True):
                held.pieces.append(Piece(key, kind, np.asarray(vertices, np.float32), tuple(map(int, ring.split()))))
        if self._is_there(self._points):
            points = [(float(y), float(x)) for y, x in self._points.data]
            held.points = list(zip(column(self._points, "mutoscope"), points, strict=True))
        for layer in self._labels:
            if self._is_there(layer):
                y, x = np.rint(layer.translate / self.layer.scale[-2:]).astype(int).tolist()
                held.sheets.append(MaskSheet((y, x), np.asarray(layer.data, np.int32), column(layer, "mutoscope")[1:]))
        return held_rois(held, self._known)


def _at(layer: RoiLayer, where: tuple[int, ...]) -> list[Roi]:
    """The ROIs on a plane, those that lie on several included."""
    found: list[Roi] = []
    for each, rois in layer.rois.items():
        if all(at in (None, here) for at, here in zip(each, where, strict=True)):
            found += rois
    return found


def column(layer: Any, name: str) -> list[str]:
    """A column of a layer's features; empty for what a person has drawn."""
    if name not in layer.features:
        return [""] * len(layer.features)
    return ["" if value is None or value != value else str(value) for value in layer.features[name]]
