"""The ROIs of a running scope in napari, where a person may draw: what is drawn, moved or removed is told when it is done."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from mutoscope.model.errors import ConfigError
from mutoscope.model.roi import Points, Roi
from mutoscope.viewers.core import ViewerCore
from mutoscope.viewers.model import RoiLayer
from mutoscope.viewers.napari.layers import Axis
from mutoscope.viewers.napari.overlays import RoiView, column
from mutoscope.viewers.napari.rois import Drawing, Piece, drawing_of, geometry_of

__all__ = ["LiveRoiView"]

_LATER_S = 0.05
_UNDONE = ("adding", "changing", "removing")
"""What napari says before it does something."""


class LiveRoiView(RoiView):
    """Shows an editable `RoiLayer`. Each ROI is drawn under its id; what has no id yet, or another's, a person has drawn.

    Parameters
    ----------
    viewer : napari.Viewer
        Its window.
    later : callable(function, delay_s)
        Has a function called, in the thread of the window system.
    core : callable
        Returns who is told what a person does; None before there is anyone.
    """

    def __init__(self, viewer: Any, later: Callable[..., None], core: Callable[[], ViewerCore | None]) -> None:
        super().__init__(viewer)
        self._later = later
        self._core = core
        self._wanted: dict[str, Roi] | None = None
        self._next: RoiLayer | None = None
        self._touched = False
        self._waiting = False
        self._dragged = False
        self._own = False
        self._heard: list[Any] = []

    # -- what the scope has

    def take(self, layer: RoiLayer) -> None:
        """Show these from now on, but what a person has in hand: that comes first."""
        first = not hasattr(self, "layer")
        if first or not self._in_hand:
            edits = {} if first else self._tell_edits()
            self._want(layer, edits)
        else:
            self._next = layer
            self._look_soon()

    def _want(self, layer: RoiLayer, edits: dict[str, Roi | None]) -> None:
        self.layer = layer
        wanted: dict[str, Roi | None] = {roi.id: roi for roi in layer.rois[()]}
        self._wanted = {roi_id: roi for roi_id, roi in (wanted | edits).items() if roi is not None}
        self._next = None

    def look(self, axes: Sequence[Axis], index: tuple[int, ...]) -> None:
        """Draw what is to be drawn."""
        if self._viewer is not None and self._wanted is not None and not self._in_hand:
            wanted, self._wanted = self._wanted, None
            with self._drawing_itself():
                self._bring(wanted)

    def bind(self, viewer: Any) -> None:
        if self._wanted is None and hasattr(self, "layer"):
            self._wanted = dict(self._known)
        super().bind(viewer)
        self._known, self._heard, self._touched, self._dragged = {}, [], False, False

    @contextmanager
    def _drawing_itself(self) -> Iterator[None]:
        """What napari says meanwhile is not of a person."""
        self._own = True
        try:
            yield
        finally:
            self._own = False

    def _bring(self, wanted: dict[str, Roi]) -> None:
        """Have napari draw these: of its shapes only those that differ are touched."""
        if not all(map(self._is_there, self._canvases())):
            self._known = {}  # a person has removed a layer: all comes again
            for gone in self.napari_layers():
                self._viewer.layers.remove(gone)
            super().bind(self._viewer)
            self._heard = []
        known, self._known = self._known, wanted
        drawing = drawing_of(wanted)
        gone_or_other = {roi_id for roi_id, roi in known.items() if wanted.get(roi_id) != roi}
        new = {roi_id for roi_id, roi in wanted.items() if known.get(roi_id) != roi}
        self._change_shapes(gone_or_other, [piece for piece in drawing.pieces if piece.key in new])
        if gone_or_other or new:
            chosen = _selected(self._points) if self._is_there(self._points) else set()
            self._draw_points(drawing)
            if self._is_there(self._points):
                _select(self._points, chosen)
        if drawing.sheets or self._labels:
            self._draw_masks(drawing.sheets)
        if self.layer.editable:
            self._make_canvases()
        for layer in self.napari_layers():
            layer.editable = self.layer.editable
            if layer not in self._heard:
                self._listen(layer)

    def _canvases(self) -> list[Any]:
        """The layers that were made by now."""
        return [layer for layer in (self._shapes, self._points, *self._labels) if layer is not None]

    def _make_canvases(self) -> None:
        """What a person can draw in, where there is no ROI yet."""
        if self._shapes is None:
            thickness = self._thickness(0.003)
            self._shapes = self._new("add_shapes", "", ndim=2, opacity=0.8, edge_width=thickness)
            self._shapes.features = self._features([]) | {"rings": []}
            self._shapes.current_edge_color, self._shapes.current_face_color = "#ffff00", "#00000000"
            self._shapes.current_edge_width = thickness
        if self._points is None:
            self._points = self._new("add_points", " points", ndim=2, opacity=0.8, size=self._thickness(0.016))
            self._points.features = self._features([])
            self._points.current_face_color, self._points.current_border_color = "#00000000", "#ffff00"

    def _change_shapes(self, gone: set[str], pieces: list[Piece]) -> None:
        layer = self._shapes
        if layer is None:
            self._draw_shapes(pieces)
            return
        chosen = _selected(layer)
        keys, rings = column(layer, "mutoscope"), column(layer, "rings")
        leaving = [number for number, key in enumerate(keys) if key in gone]
        if leaving:
            layer.selected_data = set()
            layer.remove(leaving)
            kept = [number for number in range(len(keys)) if number not in set(leaving)]
            keys, rings = [keys[number] for number in kept], [rings[number] for number in kept]
        if pieces:
            self._add_shapes(pieces)
            keys += [piece.key for piece in pieces]
            rings += [" ".join(map(str, piece.rings)) for piece in pieces]
        if leaving or pieces:
            layer.features = self._features(keys) | {"rings": rings}
            _select(layer, chosen)

    # -- what a person does

    def _listen(self, layer: Any) -> None:
        self._heard.append(layer)
        layer.events.data.connect(self._heard_of)
        if layer in self._labels:
            layer.events.paint.connect(self._heard_of)

    def _heard_of(self, event: Any) -> None:
        if self._own:
            return
        action = str(getattr(getattr(event, "action", None), "value", "changed"))
        self._dragged = action == "changing"
        if action not in _UNDONE:
            self._touched = True
            self._look_soon()

    def _look_soon(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._later(self._look_at_edits, _LATER_S)

    @property
    def _in_hand(self) -> bool:
        """Whether a person draws or drags something just now."""
        shapes = self._shapes if self._shapes is not None and self._is_there(self._shapes) else None
        return self._dragged or (shapes is not None and bool(shapes._is_creating or shapes._is_moving))

    def _look_at_edits(self) -> None:
        self._waiting = False
        if self._viewer is None:
            return
        if self._in_hand:
            self._look_soon()
            return
        edits = self._tell_edits()
        if self._next is not None:
            self._want(self._next, edits)
            self.look((), ())

    def _tell_edits(self) -> dict[str, Roi | None]:
        """Tell what a person has done since the last time, and return it."""
        core = self._core()
        if not self._touched or core is None or self._viewer is None or not all(map(self._is_there, self._canvases())):
            return {}
        self._touched = False
        known = dict(self._known)
        with self._drawing_itself():
            self._name_new()
        found = {roi.id: roi for roi in self.held()}
        edits: dict[str, Roi | None] = {roi_id: None for roi_id in known if roi_id not in found}
        edits |= {roi_id: roi for roi_id, roi in found.items() if known.get(roi_id) != roi}
        self._known = found
        for roi_id, roi in edits.items():
            if roi is None:
                core.roi_removed(self.layer.id, roi_id)
            else:
                core.roi_changed(self.layer.id, roi)
        return edits

    def held(self) -> list[Roi]:
        return [roi for roi in super().held() if roi.id in self._known]

    def _name_new(self) -> None:
        """Give an id to what has none, or that of another: napari gives a new shape the features of the one chosen last."""
        drawn = drawing_of(self._known)
        pieces, points = Counter(piece.key for piece in drawn.pieces), Counter(key for key, _ in drawn.points)
        if self._is_there(self._shapes):
            keys, rings = column(self._shapes, "mutoscope"), column(self._shapes, "rings")
            for number in _strangers(keys, pieces):
                kind = str(self._shapes.shape_type[number])
                vertices = np.asarray(self._shapes.data[number], np.float32)
                keys[number], rings[number] = self._new_id(), ""
                self._known[keys[number]] = Roi(keys[number], geometry_of(Piece(keys[number], kind, vertices)))
            self._shapes.features = self._features(keys) | {"rings": rings}
        if self._is_there(self._points):
            keys = column(self._points, "mutoscope")
            for number in _strangers(keys, points):
                y, x = self._points.data[number]
                keys[number] = self._new_id()
                self._known[keys[number]] = Roi(keys[number], Points([(float(y), float(x))]))
            self._points.features = self._features(keys)

    @staticmethod
    def _new_id() -> str:
        return f"napari-{uuid.uuid4().hex[:12]}"

    # -- for tests: as a person would

    def draw(self, roi: Roi) -> None:
        """Draw a ROI, or change the one of this id, by napari's own means."""
        drawing = drawing_of({roi.id: roi})
        if drawing.sheets:
            raise ConfigError("a mask is painted by hand")
        self._draw_pieces(drawing)
        if drawing.points:
            self._draw_more_points(roi.id, np.array([point for _, point in drawing.points]))

    def _draw_pieces(self, drawing: Drawing) -> None:
        layer = self._shapes
        for piece in drawing.pieces:
            at = [number for number, key in enumerate(column(layer, "mutoscope")) if key == piece.key]
            if at:
                data = list(layer.data)
                data[at[0]] = piece.vertices
                layer.data = data
            else:
                layer.add(piece.vertices, shape_type=piece.kind)

    def _draw_more_points(self, roi_id: str, wanted: Any) -> None:
        layer = self._points
        at = [number for number, key in enumerate(column(layer, "mutoscope")) if key == roi_id]
        if at:
            data = np.array(layer.data)
            data[at] = wanted
            layer.data = data
        else:
            layer.add(wanted)

    def erase(self, roi_id: str) -> None:
        """Remove a ROI by napari's own means."""
        for layer in (self._shapes, self._points):
            chosen = {number for number, key in enumerate(column(layer, "mutoscope")) if key == roi_id}
            if chosen:
                layer.selected_data = chosen
                layer.remove_selected()


def _strangers(keys: list[str], wanted: Counter[str]) -> list[int]:
    """Which of the things with these keys are none of those that were drawn."""
    left = Counter(wanted)
    found = []
    for number, key in enumerate(keys):
        if left[key] > 0:
            left[key] -= 1
        else:
            found.append(number)
    return found


def _selected(layer: Any) -> set[str]:
    keys = column(layer, "mutoscope")
    return {keys[number] for number in layer.selected_data if number < len(keys)}


def _select(layer: Any, chosen: set[str]) -> None:
    layer.selected_data = {number for number, key in enumerate(column(layer, "mutoscope")) if key in chosen}
