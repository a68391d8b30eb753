"""The conformance suite of viewers: subclass it in a test file, and pytest checks an adapter through its own process.

::

    from mutoscope.viewers.suite import ViewerSuite

    class TestMyViewer(ViewerSuite):
        kind = "myviewer"

What is checked is what the viewer then holds, as its `held_layers`, `held_plane` and `held_rois` read it from its own objects.
Needs pytest.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from mutoscope.frames import _os
from mutoscope.model.errors import ConfigError, ViewerTimeoutError
from mutoscope.model.roi import Ellipse, Line, Mask, Points, Polygon, Rectangle, Roi
from mutoscope.viewers.adapter import HeldLayer
from mutoscope.viewers.display import Display, Percentiles, Sizes
from mutoscope.viewers.launch import find
from mutoscope.viewers.sink import ViewerSink, open_viewer, progress

__all__ = ["ViewerSuite", "plane_of"]

PATIENCE_S = 60.0
ROIS = (
    Roi("triangle", Polygon([(1.0, 2.0), (1.0, 7.0), (5.0, 4.0)]), name="a triangle"),
    Roi("ring", Polygon([(0.0, 0.0), (0.0, 8.0), (5.0, 8.0), (5.0, 0.0)], [[(1.0, 1.0), (1.0, 2.0), (2.0, 2.0)]])),
    Roi("line", Line((0.0, 0.0), (4.0, 6.0))),
    Roi("spots", Points([(1.5, 2.5), (3.0, 4.0)])),
    Roi("box", Rectangle((3.0, 4.0), 2.0, 3.0)),
    Roi("egg", Ellipse((3.0, 4.0), 2.0, 4.0)),
    Roi("mask", Mask.from_array(np.eye(4, dtype=bool), origin=(1, 2))),
)
"""ROIs of every kind."""


def plane_of(number: int, shape: tuple[int, ...] = (6, 9), dtype: str = "uint16") -> NDArray[Any]:
    """Return an image that its number determines; no two numbers give the same one."""
    rng = np.random.default_rng(number)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.normal(size=shape).astype(kind)
    if kind.kind == "b":
        return rng.integers(0, 2, size=shape).astype(bool)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, size=shape, dtype=kind, endpoint=True)


def name_of(*, well: str = "A01", field: int = 1, channel: int = 1, z: int = 1, t: int = 1) -> str:
    """Return a file name of an ImageXpress."""
    return f"{well}_s{field}_w{channel}_z{z}_t{t}.tif"


class ViewerSuite:
    """Checks of one viewer, each in a process of its own.

    Attributes
    ----------
    kind : str
        As in ``viewers.open(kind)``.
    dtypes : tuple of str
        What it shows exactly.
    stack : dict
        Display options with which everything is one stack: every component an axis, each source a layer.
    lut : str
        A look-up table that it knows.
    contrast_step : float
        Of its limits of the contrast of integers: 1 where it has whole counts only, 0 where it has any number.
    """

    kind: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]] = (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "float32", "float64"),
    )
    stack: ClassVar[dict[str, Any]] = {
        "source": "layer",
        **dict.fromkeys(("well", "field", "t", "channel", "z"), "stack"),
    }
    lut: ClassVar[str] = "viridis"
    contrast_step: ClassVar[float] = 0.0

    @pytest.fixture(autouse=True)
    def own_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A folder for the announcements of the test's own."""
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    @pytest.fixture
    def open_sink(self) -> Iterator[Callable[..., ViewerSink]]:
        """Return what opens a sink; viewers that are open at the end are ended."""
        with contextlib.ExitStack() as stack:

            def make(name: str = "suite", **options: Any) -> ViewerSink:
                given = {"filenames": "imagexpress", "timeout_s": PATIENCE_S, **options}
                sink = open_viewer(self.kind, name, **given)
                stack.callback(sink.close, leave_open=False)
                return sink

            yield make

    def shown(self, sink: ViewerSink, kind: str = "images", name: str | None = None) -> HeldLayer:
        """Return the one layer of this kind, and name, that the viewer holds."""
        found = [layer for layer in sink.layers() if layer.kind == kind and name in (None, layer.name)]
        assert len(found) == 1, [layer.name for layer in found]
        return found[0]

    # -- what is shown

    def test_every_dtype_is_shown_exactly(self, open_sink: Callable[..., ViewerSink]) -> None:
        sink = open_sink(display=Display(**self.stack))
        for number, dtype in enumerate(self.dtypes):
            sink.save(plane_of(number, dtype=dtype), name_of(), source=f"step {number}")
        account = sink.wait(PATIENCE_S)
        assert account.images.displayed == len(self.dtypes) == account.images.sent
        layers = {layer.name: layer for layer in sink.layers()}
        for number, dtype in enumerate(self.dtypes):
            layer = layers[f"step {number}"]
            found = sink.plane(layer, [0] * (len(layer.shape) - 2))
            assert found.dtype == np.dtype(dtype)
            assert found.tobytes() == plane_of(number, dtype=dtype).tobytes()

    def test_stacks_and_colours(self, open_sink: Callable[..., ViewerSink]) -> None:
        sink = open_sink(display=Display(**self.stack))
        stack, colour = plane_of(1, (4, 6, 9)), plane_of(2, (6, 9, 3), "uint8")
        sink.save_batch([stack, colour], ["A01_s1_w1_t1.tif", "A01_s1_w1_t2.tif"], source="raw", until="displayed")
        layers = {layer.dtype: layer for layer in sink.layers()}
        grey, rgb = layers["uint16"], layers["uint8"]
        z = grey.axis_names.index("z")
        assert grey.shape[z] == 4
        for number in range(4):
            index = [number if axis == z else 0 for axis in range(len(grey.shape) - 2)]
            assert np.array_equal(sink.plane(grey, index), stack[number])
        assert np.array_equal(sink.plane(rgb, [int(axis == "t") for axis in rgb.axis_names[:-2]]), colour)

    def test_each_plane_is_where_it_belongs_whenever_it_came(self, open_sink: Callable[..., ViewerSink]) -> None:
        """A hundred planes in random order, and one of them twice."""
        places: list[dict[str, Any]] = [
            {"well": well, "t": t, "channel": channel, "z": z}
            for well in ("A01", "A02", "B10")
            for t in (1, 2, 10)
            for channel in (1, 2)
            for z in (1, 3, 4, 7, 11)
        ]
        chosen = random.Random(5).sample(range(len(places)), 80)
        sink = open_sink(display=Display(**self.stack))
        for number in (*chosen, chosen[7]):
            sink.save(plane_of(number), name_of(**places[number]), source="raw")
        assert sink.wait(PATIENCE_S).images.displayed == 81
        layer = self.shown(sink)
        order = [axis for axis in layer.axis_names[:-2] if axis != "field"]
        values = {axis: sorted({places[number][axis] for number in chosen}, key=str) for axis in ("well",)}
        values |= {axis: sorted({places[number][axis] for number in chosen}) for axis in ("t", "channel", "z")}
        assert layer.missing == int(np.prod([len(values[axis]) for axis in order])) - 80
        for number in chosen:
            index = [0 if axis == "field" else values[axis].index(places[number][axis]) for axis in layer.axis_names[:-2]]
            assert np.array_equal(sink.plane(layer, index), plane_of(number)), places[number]

    def test_a_plane_sent_again_replaces_itself(self, open_sink: Callable[..., ViewerSink]) -> None:
        sink = open_sink(display=Display(**self.stack))
        image = plane_of(1)
        sink.save(image, name_of(), source="raw")
        image[:] = 0  # it was copied
        sink.wait(PATIENCE_S)
        layer = self.shown(sink)
        index = [0] * (len(layer.shape) - 2)
        assert np.array_equal(sink.plane(layer, index), plane_of(1))
        sink.save(plane_of(2), name_of(), source="raw", until="displayed")
        assert np.array_equal(sink.plane(self.shown(sink), index), plane_of(2))

    def test_differing_sizes(self, open_sink: Callable[..., ViewerSink]) -> None:
        small, large = plane_of(1, (4, 5)), plane_of(2, (6, 9))
        for number, sizes in enumerate(get_args(Sizes)):
            sink = open_sink(f"sizes {number}", display=Display(**self.stack, sizes=sizes))
            sink.save_batch([large, small], [name_of(z=1), name_of(z=2)], source="raw", until="displayed")
            layers = [layer for layer in sink.layers() if layer.kind == "images"]
            if sizes == "separate":
                assert sorted(layer.shape[-2:] for layer in layers) == [[4, 5], [6, 9]]
                continue
            assert [layer.shape[-2:] for layer in layers] == [[6, 9]]
            front = len(layers[0].shape) - 3
            shown = sink.plane(layers[0], [*[0] * front, 1])
            if sizes == "pad":
                assert np.array_equal(shown[:4, :5], small)
                assert not shown[4:].any()
                assert not shown[:, 5:].any()
            else:
                assert np.array_equal(shown, small[np.arange(6) * 4 // 6][:, np.arange(9) * 5 // 9])
            assert np.array_equal(sink.plane(layers[0], [*[0] * front, 0]), large)

    def test_a_display_is_honoured(self, open_sink: Callable[..., ViewerSink]) -> None:
        display = Display(
            **{**self.stack, "channel": "layer"},
            contrast={1: (100, 4000), 2: "auto", 3: Percentiles(10, 90)},
            lut={1: self.lut},
            order=("z", "t"),
            axis_names={"t": "time", "y": "rows"},
            pixel_size_um=0.5,
            z_um=2.0,
        )
        sink = open_sink(display=display)
        ramp = np.arange(1000, dtype=np.uint16).reshape(20, 50)
        names = [name_of(channel=channel, t=t, z=z) for channel in (1, 2, 3) for t in (1, 2) for z in (1, 2, 3)]
        sink.save_batch([ramp] * len(names), names, source="raw", until="displayed")
        layers = {layer.name: layer for layer in sink.layers()}
        assert sorted(layers) == ["raw channel 1", "raw channel 2", "raw channel 3"]
        first = layers["raw channel 1"]
        assert first.axis_names[-4:] == ["z", "time", "rows", "x"]
        assert first.shape[-4:] == [3, 2, 20, 50]
        assert first.scale[-4:] == [2.0, 1.0, 0.5, 0.5]
        assert [limits[1:] for limits in first.contrast] == [(100.0, 4000.0)]
        assert first.luts[0][1] == self.lut
        assert [limits[1:] for limits in layers["raw channel 2"].contrast] == [(0.0, 999.0)]
        ((_, low, high),) = layers["raw channel 3"].contrast
        assert (low, high) == pytest.approx(tuple(np.percentile(ramp, (10, 90))), abs=self.contrast_step / 2 or None)

    # -- ROIs

    def test_rois_lie_on_their_plane_and_on_the_source_of_their_images(self, open_sink: Callable[..., ViewerSink]) -> None:
        sink = open_sink(display=Display(**self.stack))
        before = list(ROIS[:2])
        sink.save(before, "A01_s1_w1_z2_t1_cells.roi.zip", images_dir="/data/run 1/")
        names = [f"/data/run 1/{name_of(z=z)}" for z in (1, 2, 3)]
        sink.save_batch([plane_of(z) for z in (1, 2, 3)], names, source="deconvolved")
        sink.save(list(ROIS), "/results/A01_s1_w1_z3_t1.roi.zip", images_dir=Path("/data/run 1"))
        account = sink.wait(PATIENCE_S)
        assert account.rois.displayed == 2
        images, rois = self.shown(sink), self.shown(sink, "rois")
        assert rois.name.startswith("deconvolved")
        front = [0] * (len(images.shape) - 3)
        assert sink.rois(rois, [*front, 0]) == []
        for z, wanted in ((1, before), (2, list(ROIS))):
            found = sink.rois(rois, [*front, z])
            assert sorted(found, key=lambda roi: roi.id) == sorted(wanted, key=lambda roi: roi.id)
        sink.save([], "A01_s1_w1_z3_t1.roi.zip", images_dir="/data/run 1", until="displayed")
        assert sink.rois(self.shown(sink, "rois"), [*front, 2]) == []
        assert sink.progress().rois.displayed == 3

    # -- what cannot be shown

    def test_what_cannot_be_shown_is_named_before_anything_is_sent(self, open_sink: Callable[..., ViewerSink]) -> None:
        sink = open_sink()
        good = plane_of(1)
        for bad, words in (
            (np.zeros((3, 3), object), "objects"),
            (np.zeros((0, 3)), "at least one pixel"),
            (np.float64(3.0), "at least one pixel"),
            (np.zeros((3, 3), complex), "not complex128"),
            ([ROIS[0], 3], "all in it are Roi"),
            ({"a": 1}, "cannot be shown"),
        ):
            with pytest.raises(ConfigError, match=words) as caught:
                sink.save_batch([good, bad], [name_of(), name_of(z=9)])
            assert "_z9_" in str(caught.value)
        with pytest.raises(ConfigError, match="2 items and 1 names"):
            sink.save_batch([good, good], [name_of()])
        with pytest.raises(ConfigError, match=r"holiday\.tif"):
            sink.save_batch([good, good], [name_of(), "holiday.tif"])
        with pytest.raises(ConfigError, match="twice"):
            sink.save_batch([good, good], [name_of(), name_of()])
        sink.save("some text", "notes.txt")
        assert sink.progress().images.sent == 0

    # -- what else it does

    def test_clear_and_screenshot(self, open_sink: Callable[..., ViewerSink]) -> None:
        sink = open_sink(display=Display(**self.stack))
        sink.save(np.full((30, 40), 1000, np.uint16), name_of(), source="raw")
        sink.save(np.full((30, 40), 1000, np.uint16), name_of(), source="deconvolved")
        sink.save(list(ROIS), name_of(), source="raw")
        picture = sink.screenshot()
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        sink.clear("raw")
        assert [layer.name for layer in sink.layers()] == ["deconvolved"]
        sink.clear()
        assert sink.layers() == []
        sink.save(plane_of(3), name_of(), source="raw", until="displayed")
        assert [layer.name for layer in sink.layers()] == ["raw"]

    def test_it_is_attached_to_by_name_and_outlives_its_starter(self, open_sink: Callable[..., ViewerSink]) -> None:
        first = open_sink("left")
        first.save(plane_of(1), name_of(), source="raw")
        first.wait(PATIENCE_S)
        first.close()
        again, other = open_sink("left"), open_sink("right")
        assert (again.started, other.started) == (False, True)
        assert [layer.name for layer in again.layers()] == ["raw"]
        assert other.layers() == []
        account = progress("left")
        assert (account.images.displayed, len(account.senders)) == (1, 2)

    # -- what goes wrong

    def test_a_viewer_that_is_killed_is_started_again_and_all_is_accounted_for(
        self, open_sink: Callable[..., ViewerSink]
    ) -> None:
        sink = open_sink(display=Display(**self.stack))
        for number in range(20):
            sink.save(plane_of(number), name_of(z=number + 1), source="raw")
            if number == 10:
                viewer = find("suite", self.kind)
                assert viewer is not None
                os.kill(viewer.pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_S
        while find("suite", self.kind) in (None, viewer) and time.monotonic() < deadline:
            sink.save(plane_of(98), name_of(z=98), source="raw")  # what was on its way when it died is lost, and said
            sink.wait(PATIENCE_S)
        sink.save(plane_of(99), name_of(z=99), source="raw", until="displayed")
        account = sink.progress()
        assert account.images.pending == 0
        assert account.images.sent == account.images.displayed + account.images.failed
        assert account.images.failed == len(account.failures)
        assert all("died" in reason for _, reason in account.failures)
        layer = self.shown(sink)
        assert np.array_equal(sink.plane(layer, [*[0] * (len(layer.shape) - 3), layer.shape[-3] - 1]), plane_of(99))

    def test_a_viewer_that_hangs_holds_nobody_for_longer_than_it_may(self, open_sink: Callable[..., ViewerSink]) -> None:
        dropping = open_sink(policy="drop", window_bytes=1 << 20)
        blocking = open_sink(timeout_s=3.0, window_bytes=1 << 20)
        viewer = find("suite", self.kind)
        assert viewer is not None
        image = plane_of(1, (256, 512))
        os.kill(viewer.pid, signal.SIGSTOP)
        try:
            for number in range(200):
                dropping.save(image, name_of(z=number + 1), source="drop")
            for number in range(200):
                blocking.save(image, name_of(z=number + 1), source="block")
            for sink in (blocking, dropping):
                account = sink.progress().images
                assert account.sent + account.dropped == 200
                assert account.dropped > 150
            assert blocking.progress().state == "hung"
            with pytest.raises(ViewerTimeoutError):
                blocking.wait(0.1)
        finally:
            os.kill(viewer.pid, signal.SIGCONT)
        for sink in (blocking, dropping):
            account = sink.wait(PATIENCE_S).images
            assert account.displayed == account.sent
        assert blocking.progress().state == "connected"
        blocking.save(image, name_of(z=300), source="block", until="displayed")

    def test_one_that_was_closed_fails_nothing(self, open_sink: Callable[..., ViewerSink]) -> None:
        sink = open_sink()
        sink.save(plane_of(1), name_of(), source="raw", until="displayed")
        open_sink().close(leave_open=False)
        deadline = time.monotonic() + PATIENCE_S
        while sink.progress().state != "closed" and time.monotonic() < deadline:
            time.sleep(0.01)
        sink.save_batch([plane_of(2)], [name_of(z=2)], until="displayed")
        sink.save(plane_of(3), name_of(z=3))
        account = sink.wait(PATIENCE_S)
        assert (account.state, account.images.displayed, account.images.dropped) == ("closed", 1, 2)
        assert find("suite", self.kind) is None

    def test_nothing_is_left_of_it(self, open_sink: Callable[..., ViewerSink], tmp_path: Path) -> None:
        sink = open_sink()
        sink.save(plane_of(1), name_of(), until="displayed")
        viewer = find("suite", self.kind)
        assert viewer is not None
        sink.close(leave_open=False)
        facts = _os.process_facts(viewer.pid)
        assert facts is None or facts.state == "Z"
        assert [file.name for file in (tmp_path / "mutoscope").iterdir()] == ["viewer-suite.log"]
