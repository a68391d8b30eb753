"""Checks inside one napari: a program that reads names of checks, and answers each by what was wrong."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mutoscope import storage
from mutoscope.model.errors import ConfigError
from mutoscope.model.roi import Composite, Ellipse, Freehand, Line, Mask, Points, Polygon, Polyline, Rectangle, Roi, Stroke
from mutoscope.viewers.display import Display
from mutoscope.viewers.launch import find
from mutoscope.viewers.luts import lut_bytes
from mutoscope.viewers.model import DisplayModel
from mutoscope.viewers.napari.adapter import NapariAdapter
from mutoscope.viewers.roi_pack import pack_rois, unpack_rois
from mutoscope.viewers.sink import ViewerSink, open_viewer

CHECKS: dict[str, Callable[[], None]] = {}


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS[function.__name__] = function
    return function


class Stage:
    """The adapter and a display model, without a receiver."""

    def __init__(self, adapter: NapariAdapter) -> None:
        self.adapter = adapter
        self.model = DisplayModel(adapter.defaults)

    def image(self, pixels: Any, display: Display | None = None, source: str = "raw", **place: Any) -> None:
        pixels = np.asarray(pixels)
        self.model.put_image(display or Display(), source, "", place, [], pixels, pixels.ndim == 3)

    def rois(self, rois: list[Roi], display: Display | None = None, source: str = "raw", **place: Any) -> None:
        self.model.put_rois(display or Display(), source, "", place, unpack_rois(bytes(pack_rois(rois))))

    def show(self) -> None:
        changes = self.model.take_changes()
        for gone in changes.removed:
            self.adapter.remove(gone)
        for images in changes.images:
            self.adapter.show_images(images)
        for rois in changes.rois:
            self.adapter.show_rois(rois)
        settle()

    @property
    def viewers(self) -> list[Any]:
        return [window.viewer for window in self.adapter._windows if window.viewer is not None]

    @property
    def viewer(self) -> Any:
        (viewer,) = self.viewers
        return viewer

    def held(self, kind: str) -> Any:
        (layer,) = [layer for layer in self.adapter.held_layers() if layer.kind == kind]
        return layer


def settle() -> None:
    from qtpy.QtWidgets import QApplication

    for _ in range(5):
        QApplication.processEvents()


@contextmanager
def stage() -> Iterator[Stage]:
    adapter = NapariAdapter()
    adapter.open("checks")
    try:
        yield Stage(adapter)
    finally:
        adapter.close()
        settle()


def at_center(viewer: Any) -> np.ndarray:
    """The colour in the middle of the canvas, where the view is reset to the layers."""
    viewer.canvas.overlays.text.visible = False
    viewer.reset_view()
    settle()
    picture = viewer.screenshot(canvas_only=True, flash=False)
    return picture[picture.shape[0] // 2, picture.shape[1] // 2, :3].astype(int)


EXACT = [
    Roi(
        "two holes",
        Polygon([(0, 0), (0, 40), (30.25, 40), (30, 0.1)], [[(3, 3), (3, 9), (9, 9.5)], [(15, 15), (15, 20), (20, 20)]]),
    ),
    Roi("turned", Ellipse((10.1, 20.3), 7.7, 3.3, 33.3), name="an ellipse", stroke=Stroke("#ff00ff", 2.0, "#00ff0080")),
    Roi("box", Rectangle((10.1, 20.3), 7.7, 3.3, -71.0), group="alive"),
    Roi("path", Polyline([(1.1, 2.2), (3.3, 4.4), (0.7, 9.1)])),
    Roi("open", Freehand([(1.1, 2.2), (3.3, 4.4), (0.7, 9.1)], closed=False)),
    Roi("closed", Freehand([(1.1, 2.2), (3.3, 4.4), (0.7, 9.1)])),
    Roi("line", Line((0.123456789, 2.0), (8.0, 9.0))),
    Roi("spots", Points([(0.1, 0.2), (5.5, 6.6)])),
    Roi("spot", Points([(0.1, 0.2)])),
    Roi("mask", Mask.from_array(np.pad(np.eye(5, dtype=bool), 2), (-3, 4))),
    Roi("over it", Mask.from_array(np.ones((4, 4), bool), (0, 6))),
    Roi(
        "both",
        Composite([Ellipse((5.0, 5.0), 2.0, 3.0), Points([(1.0, 1.0)]), Mask.from_array(np.ones((2, 2), bool), (20, 20))]),
    ),
]
DEGENERATE = [
    Roi("no length", Line((3.0, 3.0), (3.0, 3.0))),
    Roi("a point of a polygon", Polygon([(2.0, 2.0), (2.0, 2.0), (2.0, 2.0)])),
    Roi("no area", Polygon([(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)])),
    Roi("a bow", Polygon([(0.0, 0.0), (5.0, 5.0), (0.0, 5.0), (5.0, 0.0)])),
    Roi("twice", Polyline([(1.0, 1.0), (1.0, 1.0)])),
    Roi("hole on its rim", Polygon([(0.0, 0.0), (0.0, 9.0), (9.0, 9.0)], [[(0.0, 0.0), (0.0, 3.0), (3.0, 3.0)]])),
    Roi("tiny", Ellipse((3.0, 3.0), 1e-9, 1e-9)),
    Roi("far", Rectangle((1e7, 1e7), 3.0, 4.0)),
    Roi("far mask", Mask.from_array(np.ones((2, 2), bool), (100_000, 100_000))),
    Roi("near mask", Mask.from_array(np.ones((2, 2), bool), (0, 0))),
    Roi("empty mask", Mask.from_array(np.zeros((2, 2), bool), (0, 0))),
]


@check
def rois_of_every_kind_are_held_exactly() -> None:
    with stage() as on:
        on.image(np.zeros((50, 60), np.uint16), z=1)
        on.image(np.zeros((50, 60), np.uint16), z=2)
        on.rois(EXACT, z=2)
        on.show()
        layer = on.held("rois")
        assert on.adapter.held_rois(layer.id, (0,)) == []
        found = on.adapter.held_rois(layer.id, (1,))
        assert sorted(found, key=lambda roi: roi.id) == sorted(EXACT, key=lambda roi: roi.id), found
        shown = {each.name: each for each in on.viewer.layers}
        assert sorted(shown) == ["raw", "raw ROIs", "raw ROIs masks", "raw ROIs masks 2", "raw ROIs points"]
        assert len(shown["raw ROIs"].data) == 0, "the sliders are at the plane before"
        on.viewer.dims.set_point(0, 1)
        settle()
        shapes = shown["raw ROIs"]
        assert len(shapes.data) == 8
        assert list(shapes.features["id"][:3]) == ["two holes", "turned", "box"]
        covered = shapes.to_masks((50, 60))[0]
        assert covered[25, 30]
        assert not covered[4, 7], "a hole is not inside"
        assert not covered[17, 19 - 1], "nor is the other one"
        assert np.allclose(shapes.edge_color[1], (1, 0, 1, 1))
        assert shapes.edge_width[1] == 2.0
        masks = shown["raw ROIs masks"]
        assert (masks.data > 0).sum() == 5 + 4
        assert tuple(masks.translate) == (-3.0, 4.0)


@check
def rois_that_are_hardly_any_harm_nothing() -> None:
    with stage() as on:
        on.image(np.zeros((50, 60), np.uint16), z=1)
        for roi in DEGENERATE:
            on.rois([roi], z=1)
            on.show()
        on.rois(DEGENERATE, z=1)
        on.show()
        found = on.adapter.held_rois(on.held("rois").id, (0,))
        wanted = [roi for roi in DEGENERATE if roi.id != "empty mask"]
        assert sorted(found, key=lambda roi: roi.id) == sorted(wanted, key=lambda roi: roi.id), found


@check
def rois_without_images_have_sliders_of_their_own() -> None:
    with stage() as on:
        on.rois(EXACT[:1], z=1, t=1)
        on.rois(EXACT[:2], z=3, t=2)
        on.show()
        layer = on.held("rois")
        assert layer.shape == [2, 2]
        assert len(on.adapter.held_rois(layer.id, (1, 1))) == 2
        assert on.adapter.held_rois(layer.id, (0, 1)) == []
        assert on.viewer.layers[0].name == "no images yet"
        on.image(np.zeros((50, 60), np.uint16), z=1, t=1)
        on.show()
        assert "no images yet" not in [each.name for each in on.viewer.layers]


@check
def rois_of_all_planes_are_on_each() -> None:
    with stage() as on:
        for z in (1, 2):
            for t in (1, 2):
                on.image(np.zeros((50, 60), np.uint16), z=z, t=t)
        on.rois(EXACT[:1], z=2)
        on.rois(EXACT[1:2], z=2, t=1)
        on.show()
        layer = on.held("rois")
        names = layer.axis_names[:2]
        counts = {
            (t, z): len(on.adapter.held_rois(layer.id, tuple({"t": t, "z": z}[name] for name in names)))
            for t in (0, 1)
            for z in (0, 1)
        }
        assert counts == {(0, 0): 0, (1, 0): 0, (0, 1): 2, (1, 1): 1}, counts


@check
def what_a_person_has_drawn_is_read_and_stays() -> None:
    with stage() as on:
        for z in (1, 2):
            on.image(np.zeros((50, 60), np.uint16), z=z)
        on.rois(EXACT[3:5], z=1)
        on.show()
        layer = on.held("rois")
        shapes = on.viewer.layers["raw ROIs"]
        shapes.add([np.array([[1.0, 1.0], [1.0, 9.0], [9.0, 9.0]])], shape_type="polygon")
        found = on.adapter.held_rois(layer.id, (0,))
        assert [roi for roi in found if roi.id in ("path", "open")] == EXACT[3:5]
        (drawn,) = [roi for roi in found if roi.id not in ("path", "open")]
        assert drawn.geometry == Polygon([(1.0, 1.0), (1.0, 9.0), (9.0, 9.0)])
        on.viewer.dims.set_point(0, 1)
        settle()
        assert len(shapes.data) == 0
        on.viewer.dims.set_point(0, 0)
        settle()
        assert len(shapes.data) == 3
        on.rois(EXACT[3:4], z=2)
        on.show()
        assert len(shapes.data) == 3, "ROIs of another plane change nothing here"
        on.rois(EXACT[3:4], z=1)
        on.show()
        assert len(shapes.data) == 1, "sent again, they replace all"


@check
def planes_are_written_in_place() -> None:
    with stage() as on:
        on.image(np.full((20, 30), 100, np.uint16), Display(contrast=(0, 1000)), z=1)
        on.show()
        layer = on.viewer.layers[0]
        held = layer.data
        dark = at_center(on.viewer)
        on.image(np.full((20, 30), 1000, np.uint16), Display(contrast=(0, 1000)), z=1)
        on.show()
        assert on.viewer.layers[0] is layer
        assert layer.data is held, "the same array"
        assert at_center(on.viewer).min() > 250 > 60 > dark.max(), "and on the screen"


@check
def the_sliders_stay_at_their_plane() -> None:
    with stage() as on:
        for z in (5, 7):
            on.image(np.full((20, 30), z, np.uint16), z=z)
        on.show()
        on.viewer.dims.set_point(0, 1)
        settle()
        assert "z 7" in on.viewer.canvas.overlays.text.text
        for z in (1, 6):
            on.image(np.full((20, 30), z, np.uint16), z=z)
        on.show()
        assert on.viewer.dims.current_step[0] == 3
        assert "z 7" in on.viewer.canvas.overlays.text.text
        assert on.held("images").shape == [4, 20, 30]


@check
def missing_planes_are_told() -> None:
    with stage() as on:
        on.image(np.full((20, 30), 1, np.uint16), z=1, t=1)
        on.image(np.full((20, 30), 1, np.uint16), z=2, t=2)
        on.show()
        assert on.held("images").missing == 2
        for step in ((0, 0), (0, 1), (1, 0), (1, 1)):
            on.viewer.dims.set_point((0, 1), step)
            settle()
            assert ("missing" in on.viewer.canvas.overlays.text.text) == (step in ((0, 1), (1, 0))), step


@check
def axes_scales_and_units_are_napari_s_own() -> None:
    with stage() as on:
        display = Display(pixel_size_um=0.5, z_um=2.0, t_s=0.1, axis_names={"t": "time", "x": "columns"}, gamma=0.5)
        for t in (1, 2):
            on.image(np.zeros((20, 30), np.uint16), display, z=1, t=t)
        on.show()
        layer = on.viewer.layers[0]
        assert tuple(layer.axis_labels) == ("time", "z", "y", "columns")
        assert tuple(layer.scale) == (0.1, 2.0, 0.5, 0.5)
        assert [str(unit) for unit in layer.units] == ["second", "micrometer", "micrometer", "micrometer"]
        assert layer.gamma == 0.5
        on.viewer.dims.set_point(0, 0.1)
        settle()
        assert "time 2" in on.viewer.canvas.overlays.text.text


@check
def a_lut_for_each_channel_is_exact() -> None:
    with stage() as on:
        display = Display(
            channel="layer", lut={1: "magma", 2: "Fire", 3: "no such", 4: "plasma"}, contrast={1: (0, 255), 2: (0, 255)}
        )
        for channel in (1, 2, 3, 4):
            on.image(np.arange(256, dtype=np.uint8).reshape(16, 16), display, channel=channel)
        on.show()
        layers = {layer.name: layer for layer in on.viewer.layers}
        for channel, name in ((1, "magma"), (2, "Fire"), (3, "gray")):
            colormap = layers[f"raw channel {channel}"].colormap
            assert colormap.name == name
            colours = np.rint(255 * colormap.map(np.linspace(0, 1, 256))[:, :3]).astype(np.uint8)
            assert colours.T.tobytes() == lut_bytes(name)
        assert layers["raw channel 4"].colormap.name == "plasma", "one that napari has, and we have not"
        first, last = layers["raw channel 1"].colormap.map([0.0, 1.0])
        assert np.allclose(first[:3], (0.001462, 0.000466, 0.013866), atol=1e-6), "as its makers publish it"
        assert np.allclose(last[:3], (0.987053, 0.991438, 0.749504), atol=1e-6)


@check
def channels_of_a_stack_have_their_own_contrast() -> None:
    with stage() as on:
        on.image(np.arange(100, dtype=np.uint16).reshape(10, 10), channel=1)
        on.image(np.arange(100, dtype=np.uint16).reshape(10, 10) * 30, channel=2)
        on.show()
        layer = on.viewer.layers[0]
        found = []
        for at in (0, 1):
            on.viewer.dims.set_point(0, at)
            settle()
            found.append(tuple(layer.contrast_limits))
        assert found == [(0, 99), (0, 2970)], found


@check
def what_a_person_has_changed_stays() -> None:
    with stage() as on:
        on.image(np.arange(100, dtype=np.uint16).reshape(10, 10), z=1)
        on.show()
        layer = on.viewer.layers[0]
        layer.contrast_limits = (5, 50)
        layer.colormap = "magma"
        layer.name = "mine"
        own = on.viewer.add_points([[1.0, 1.0]], name="own points")
        on.image(np.arange(100, dtype=np.uint16).reshape(10, 10) * 9, z=2)
        on.show()
        assert (tuple(layer.contrast_limits), layer.colormap.name, layer.name) == ((5, 50), "magma", "mine")
        on.model.clear()
        on.show()
        assert list(on.viewer.layers) == [own]
        on.image(np.zeros((5, 5)), z=1)
        on.show()
        on.viewer.layers.remove("raw")
        on.image(np.ones((5, 5)), z=1)
        on.show()
        assert "raw" in on.viewer.layers, "it comes again when something new is for it"


@check
def images_of_every_kind_are_shown() -> None:
    kinds = ["bool", "uint8", "uint64", "int64", "int16", "float16", "float64"]
    with stage() as on:
        for number, kind in enumerate(kinds):
            on.image(np.ones((6, 9), kind), source=kind, z=number % 2)
        on.image(np.full((6, 9), np.nan), source="nan", z=1)
        on.image(np.full((6, 9), np.iinfo("uint64").max, "uint64"), source="most", z=1)
        on.image(np.full((6, 9, 3), 200, np.uint8), source="colour")
        on.image(np.full((6, 9, 4), 200, np.uint16), source="colours")
        on.image(np.ones((1, 1), np.uint16), source="pixel", t=3)
        on.show()
        for step in np.ndindex(2, 2):
            on.viewer.dims.set_point((0, 1), step)
            settle()
        assert len(on.viewer.layers) == len(kinds) + 5
        assert on.adapter.screenshot().shape[2] == 3


@check
def each_window_is_a_napari_of_its_own() -> None:
    with stage() as on:
        display = Display(well="window", z="stack")
        for well in ("B01", "B02", "C10"):
            for z in (1, 2):
                on.image(np.full((20, 30), z, np.uint16), display, well=well, z=z)
            on.rois(EXACT[:1], display, well=well, z=2)
        on.show()
        assert sorted(viewer.title for viewer in on.viewers) == ["well B01", "well B02", "well C10"]
        assert {len(viewer.layers) for viewer in on.viewers} == {1}
        images = [layer for layer in on.adapter.held_layers() if layer.kind == "images"]
        assert sorted(layer.window for layer in images) == ["well B01", "well B02", "well C10"]
        for layer in images:
            assert (on.adapter.held_plane(layer.id, (1,)) == 2).all()
        on.model.clear()
        on.show()
        assert len(on.viewers) == 1, "the windows that show nothing are closed, but one"
        on.image(np.zeros((20, 30), np.uint16), Display(well="window"), well="D01")
        on.show()
        assert [viewer.title for viewer in on.viewers] == ["well D01"]


@check
def a_window_that_a_person_has_closed_comes_with_the_next_plane() -> None:
    with stage() as on:
        display = Display(well="window", z="stack")
        for well in ("B01", "B02"):
            on.image(np.full((20, 30), 1, np.uint16), display, well=well, z=1)
            on.rois(EXACT[:2], display, well=well, z=1)
        on.show()
        (second,) = [viewer for viewer in on.viewers if viewer.title == "well B02"]
        second.window._qt_window.close()
        settle()
        assert [viewer.title for viewer in on.viewers] == ["well B01"]
        on.image(np.full((20, 30), 2, np.uint16), display, well="B02", z=2)
        on.show()
        assert sorted(viewer.title for viewer in on.viewers) == ["well B01", "well B02"]
        (layer,) = [each for each in on.adapter.held_layers() if each.window == "well B02" and each.kind == "images"]
        assert [int(on.adapter.held_plane(layer.id, (z,))[0, 0]) for z in (0, 1)] == [1, 2]
        (rois,) = [each for each in on.adapter.held_layers() if each.window == "well B02" and each.kind == "rois"]
        assert len(on.adapter.held_rois(rois.id, (0,))) == 2


@check
def closing_the_last_window_ends_it() -> None:
    with stage() as on:
        on.image(np.full((20, 30), 1, np.uint16))
        on.show()
        on.adapter.call_soon(on.viewer.window._qt_window.close)
        on.adapter.run()  # returns
        assert on.viewers == []


@check
def no_other_thread_touches_layers() -> None:
    with stage() as on:
        on.image(np.full((20, 30), 1, np.uint16))
        on.rois(EXACT[:1])
        changes = on.model.take_changes()
        problems: list[BaseException] = []

        def try_all() -> None:
            for call in (
                lambda: on.adapter.show_images(changes.images[0]),
                lambda: on.adapter.show_rois(changes.rois[0]),
                lambda: on.adapter.remove("1"),
                on.adapter.screenshot,
                on.adapter.held_layers,
                lambda: on.adapter.held_plane("1", ()),
                lambda: on.adapter.held_rois("1", ()),
            ):
                try:
                    call()
                except RuntimeError as error:
                    problems.append(error)

        thread = threading.Thread(target=try_all, name="another")
        thread.start()
        thread.join()
        assert len(problems) == 7
        assert all("not in 'another'" in str(error) for error in problems)
        assert len(on.viewer.layers) == 0


@check
def what_is_not_there_is_said() -> None:
    with stage() as on:
        on.image(np.zeros((5, 5), np.uint16), z=1)
        on.rois(EXACT[:1], z=1)
        on.show()
        images, rois = on.held("images"), on.held("rois")
        for call in (
            lambda: on.adapter.held_plane("no", (0,)),
            lambda: on.adapter.held_plane(images.id, (1,)),
            lambda: on.adapter.held_plane(images.id, ()),
            lambda: on.adapter.held_rois("no", (0,)),
            lambda: on.adapter.held_rois(rois.id, (-1,)),
        ):
            try:
                call()
            except ConfigError:
                continue
            raise AssertionError("it was answered")


@contextmanager
def open_napari() -> Iterator[Any]:
    """A napari as a person has it, with the widget of the plug-in."""
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    QApplication.instance().setQuitOnLastWindowClosed(False)
    viewer.add_points([[1.0, 1.0]], name="own points")
    _, widget = viewer.window.add_plugin_dock_widget("mutoscope", "Live receiver")
    try:
        yield viewer, widget
    finally:
        if viewer in napari.Viewer._instances:
            viewer.close()
        settle()


def meanwhile(work: Callable[[], None], enough: Callable[[], bool] = lambda: True) -> None:
    """Let a thread send something while the window system goes on, and until that is enough."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 60
    while (thread.is_alive() or not enough()) and time.monotonic() < deadline:
        settle()
    thread.join(1)
    if problems:
        raise problems[0]
    assert not thread.is_alive()
    assert enough()


@check
def programs_attach_to_an_open_napari() -> None:
    with open_napari() as (viewer, widget):
        found: list[ViewerSink] = []

        def send() -> None:
            sink = open_viewer("napari", filenames="imagexpress", timeout_s=60.0, required=True)
            found.append(sink)
            sink.save(np.full((20, 30), 7, np.uint16), "A01_s1_w1_z1_t1.tif", source="raw")
            sink.save(EXACT[:2], "A01_s1_w1_z1_t1.zip", source="raw", until="displayed")

        meanwhile(send, lambda: "1 of 1 images displayed" in widget.text)
        assert not found[0].started
        assert 'viewers.open("napari")' in widget.text
        assert [layer.name for layer in viewer.layers] == ["own points", "raw", "raw ROIs"]
        assert (viewer.layers["raw"].data == 7).all()
        meanwhile(lambda: found[0].close(leave_open=False), lambda: "does not receive" in widget.text)
        assert find("napari") is None
        assert len(viewer.layers) == 3, "what was received stays, and so does the window"
        widget._toggle()
        assert find("napari").pid == os.getpid()

        def clear() -> None:
            with open_viewer("napari", filenames="imagexpress", timeout_s=60.0) as sink:
                sink.save(np.full((20, 30), 8, np.uint16), "A01_s1_w1_z1_t1.tif", source="raw")
                sink.clear()

        meanwhile(clear)
        assert viewer.layers[0].name == "own points"
    assert find("napari") is None, "it ended with its window"


@check
def a_second_receiver_is_refused_in_words() -> None:
    with open_napari() as (_, first), open_napari() as (_, second):
        assert "viewers.open" in first.text
        assert second.text == "this napari receives already, as 'napari'"


@check
def stored_data_sets_open_by_the_plug_in() -> None:
    import napari

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/run.ome.zarr"
        with storage.open_writer(path, shape=(20, 30), dtype="uint16", pixel_size_um=0.5) as writer:
            for number in range(5):
                writer.append(np.full((20, 30), number, np.uint16))
        viewer = napari.Viewer()
        try:
            (layer,) = viewer.open(path, plugin="mutoscope")
            assert layer.data.shape == (5, 20, 30)
            assert tuple(layer.scale) == (1.0, 0.5, 0.5)
            for number in range(5):
                viewer.dims.set_point(0, number)
                settle()
                assert (layer.get_value((number, 5.0, 5.0), world=True) or 0) == number
        finally:
            viewer.close()
            settle()


def main() -> None:
    """Answer each line with a name by a line of JSON: what was wrong, or nothing."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            CHECKS[line.strip()]()
            problem = ""
        except BaseException:
            problem = traceback.format_exc()
        print(json.dumps(problem), file=answers, flush=True)


if __name__ == "__main__":
    main()
