"""Checks inside one napari: what a person's hand does in a layer of a running scope, by napari's own handling of the mouse."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
from napari_inside import check, settle

from mutoscope.model.roi import Points, Polygon, Rectangle, Roi
from mutoscope.viewers.napari.adapter import NapariAdapter
from mutoscope.viewers.page.pixels import Stamp, View, decode_frame, encode_frame
from mutoscope.viewers.watching.layers import LiveScope

SIZE = (60, 80)


class Listener:
    """Who is told what a person does: it notes it, and passes it on as the viewer does."""

    def __init__(self, scope: LiveScope) -> None:
        self.scope = scope
        self.told: list[tuple[str, Roi | None]] = []
        self.closed: list[str] = []

    def roi_changed(self, layer_id: str, roi: Roi) -> None:
        self.told.append((roi.id, roi))
        self.scope.edit(layer_id, roi.id, roi)

    def roi_removed(self, layer_id: str, roi_id: str) -> None:
        self.told.append((roi_id, None))
        self.scope.edit(layer_id, roi_id, None)

    def layer_closed(self, layer_id: str) -> None:
        self.closed.append(layer_id)
        self.scope.close_layer(layer_id)


class Live:
    """The adapter and what it shows of a scope, without the scope."""

    def __init__(self, adapter: NapariAdapter) -> None:
        self.adapter = adapter
        self.scope = LiveScope("scope-1", "run")
        self.listener = Listener(self.scope)
        adapter._core = self.listener  # type: ignore[assignment]
        self.revision = 0
        about = {"name": "eye", "shape": list(SIZE), "dtype": "uint16", "pixel_size_um": 0.5}
        hello = {"scope": "run", "role": "control", "monotonic_ms": 0.0, "streams": [about], "tables": []}
        self.scope.hear_hello(hello, same_host=False)
        self.frame(1)

    def frame(self, number: int) -> None:
        pixels = np.full(SIZE, number, np.uint16)
        self.scope.hear_frame(decode_frame(bytes(encode_frame(pixels, Stamp(number), View(), stream=0))))
        self.show()

    def put(self, roi: Roi) -> None:
        self.revision += 1
        plain = msgspec.to_builtins(roi, builtin_types=())
        self.scope.hear_roi({"stream": "eye", "roi": plain, "revision": self.revision})
        self.show()

    def show(self) -> None:
        changes, _ = self.scope.take_changes()
        for images in changes.images:
            self.adapter.show_images(images)
        for rois in changes.rois:
            self.adapter.show_rois(rois)
        settle()

    @property
    def viewer(self) -> Any:
        return self.adapter._windows[0].viewer

    @property
    def shapes(self) -> Any:
        return self.viewer.layers["eye ROIs"]

    @property
    def held(self) -> dict[str, Roi]:
        return {roi.id: roi for roi in self.adapter.held_rois("scope-1/eye/rois", ())}


@contextmanager
def live() -> Iterator[Live]:
    adapter = NapariAdapter()
    adapter.open("checks")
    try:
        yield Live(adapter)
    finally:
        adapter.close()
        settle()


def until(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline, "not in time"
        settle()


class Hand:
    """A mouse over a layer; positions are (y, x) in its pixels."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def _event(self, kind: str, at: tuple[float, float], dragging: bool) -> Any:
        from napari.utils._proxies import ReadOnlyWrapper

        class Event:
            type = kind
            is_dragging = dragging
            modifiers: tuple[str, ...] = ()
            position = tuple(self.layer.data_to_world(at))
            pos = np.array(at)
            view_direction = None
            up_direction = None
            dims_displayed = (0, 1)
            dims_point = (0.0, 0.0)
            button = 1

        return ReadOnlyWrapper(Event(), exceptions=("handled",))

    def press(self, at: tuple[float, float]) -> None:
        from napari.utils.interactions import mouse_press_callbacks

        mouse_press_callbacks(self.layer, self._event("mouse_press", at, dragging=False))

    def move(self, at: tuple[float, float]) -> None:
        from napari.utils.interactions import mouse_move_callbacks

        mouse_move_callbacks(self.layer, self._event("mouse_move", at, dragging=True))

    def release(self, at: tuple[float, float]) -> None:
        from napari.utils.interactions import mouse_release_callbacks

        mouse_release_callbacks(self.layer, self._event("mouse_release", at, dragging=False))


@check
def a_rectangle_that_is_drawn_by_hand_is_told_when_it_is_done() -> None:
    with live() as on:
        on.shapes.mode = "add_rectangle"
        hand = Hand(on.shapes)
        hand.press((10.0, 20.0))
        for step in range(1, 6):
            hand.move((10.0 + 2 * step, 20.0 + 3 * step))
            on.frame(step + 1)
        assert on.listener.told == [], "it is in hand yet"
        hand.release((20.0, 35.0))
        until(lambda: bool(on.listener.told))
        ((roi_id, roi),) = on.listener.told
        assert roi_id.startswith("napari-")
        assert roi is not None
        assert isinstance(roi.geometry, Rectangle), roi
        assert np.allclose([*roi.geometry.center, roi.geometry.height, roi.geometry.width], [15.0, 27.5, 10.0, 15.0]), roi
        on.frame(9)
        assert on.held == {roi_id: roi}
        assert len(on.listener.told) == 1


@check
def what_is_in_hand_is_not_disturbed_by_others() -> None:
    with live() as on:
        mine, other = Roi("mine", Rectangle((15.0, 20.0), 10.0, 10.0)), Roi("other", Polygon([(30, 30), (30, 40), (40, 40)]))
        on.put(mine)
        on.put(other)
        assert on.held == {"mine": mine, "other": other}
        on.shapes.mode = "select"
        number = list(on.shapes.features["id"]).index("mine")
        on.shapes.selected_data = {number}
        hand = Hand(on.shapes)
        hand.press((15.0, 20.0))
        hand.move((17.0, 21.0))
        hand.move((20.0, 25.0))
        moved = Roi("other", Polygon([(50, 50), (50, 60), (58, 60)]))
        on.put(moved)
        assert on.held["other"] == other, "it waits"
        hand.move((25.0, 30.0))
        hand.release((25.0, 30.0))
        until(lambda: on.held["other"] == moved)
        ((roi_id, roi),) = on.listener.told
        assert roi_id == "mine"
        assert roi is not None
        assert np.allclose(roi.geometry.center, (25.0, 30.0)), roi
        assert on.held == {"mine": roi, "other": moved}


@check
def points_are_added_and_shapes_removed_by_hand() -> None:
    with live() as on:
        on.put(Roi("spots", Points([(1.0, 2.0), (3.0, 4.0)])))
        on.put(Roi("box", Rectangle((15.0, 20.0), 10.0, 10.0)))
        points = on.viewer.layers["eye ROIs points"]
        points.mode = "add"
        hand = Hand(points)
        hand.press((30.0, 40.0))
        hand.release((30.0, 40.0))
        until(lambda: bool(on.listener.told))
        ((roi_id, roi),) = on.listener.told
        assert roi == Roi(roi_id, Points([(30.0, 40.0)]))
        on.shapes.selected_data = {0}
        on.shapes.remove_selected()
        until(lambda: len(on.listener.told) == 2)
        assert on.listener.told[1] == ("box", None)
        on.put(Roi("late", Rectangle((40.0, 50.0), 6.0, 8.0)))
        assert set(on.held) == {"spots", roi_id, "late"}
        assert len(on.listener.told) == 2


@check
def a_layer_of_a_scope_that_a_person_removes_does_not_come_again() -> None:
    with live() as on:
        on.viewer.layers.remove("eye ROIs")
        on.put(Roi("box", Rectangle((15.0, 20.0), 10.0, 10.0)))
        assert set(on.held) == {"box"}, "ROIs are hidden, not removed: the layer comes again"
        assert on.listener.told == []
        on.viewer.layers.remove("eye")
        on.frame(2)
        on.frame(3)
        assert on.listener.closed == ["scope-1/eye"]
        assert "eye" not in [layer.name for layer in on.viewer.layers]
