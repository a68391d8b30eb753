"""napari itself, on a screen of its own: the suite of viewers, and what only napari has."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imagej_support import virtual_screen

from mutoscope import storage
from mutoscope.frames import _os
from mutoscope.model.errors import ViewerUnavailableError
from mutoscope.viewers.display import Display
from mutoscope.viewers.launch import find
from mutoscope.viewers.sink import ViewerSink, open_viewer
from mutoscope.viewers.suite import PATIENCE_S, ROIS, ViewerSuite, name_of, plane_of
from polling import until

# These end, kill or stop their viewer, or look at what is left of it: each has its own. The others share one.
OWN_VIEWER = (
    "test_it_is_attached_to_by_name_and_outlives_its_starter",
    "test_a_viewer_that_is_killed_is_started_again_and_all_is_accounted_for",
    "test_a_viewer_that_hangs_holds_nobody_for_longer_than_it_may",
    "test_one_that_was_closed_fails_nothing",
    "test_nothing_is_left_of_it",
)


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A screen that nobody sees, and settings of napari that are nobody's."""
    with virtual_screen() as display, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", display)
        patch.setenv("NAPARI_CONFIG", str(tmp_path_factory.mktemp("settings") / "napari.yaml"))
        yield


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, screen: None) -> Iterator[Path]:
    """The folder of the announcement of the viewer that tests share; it begins and ends with them."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        open_viewer("napari", "suite", timeout_s=PATIENCE_S, required=True).close()
    yield folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        open_viewer("napari", "suite", timeout_s=PATIENCE_S).close(leave_open=False)
        assert find("suite", "napari") is None


class TestNapari(ViewerSuite):
    kind = "napari"

    @pytest.fixture(autouse=True)
    def own_folder(
        self, request: pytest.FixtureRequest, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = request.node.name in OWN_VIEWER
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path if own else shared_folder))

    @pytest.fixture
    def open_sink(self, request: pytest.FixtureRequest) -> Iterator[Callable[..., ViewerSink]]:
        own = request.node.name in OWN_VIEWER
        with contextlib.ExitStack() as stack:

            def make(name: str = "suite", **options: Any) -> ViewerSink:
                given = {"filenames": "imagexpress", "timeout_s": PATIENCE_S, **options}
                sink = open_viewer("napari", name if own else "suite", **given)
                stack.callback(sink.close, leave_open=not own)
                if not own:
                    sink.clear()
                return sink

            yield make

    def test_a_thousand_planes_in_random_order(self, open_sink: Callable[..., ViewerSink]) -> None:
        places = [
            {"well": well, "t": t, "channel": channel, "z": z}
            for well in ("A01", "A02", "B03", "C10")
            for t in range(1, 11)
            for channel in (1, 2, 3, 4, 5)
            for z in range(1, 6)
        ]
        assert len(places) == 1000
        order = random.Random(11).sample(range(1000), 1000)
        sink = open_sink(display=Display(**self.stack))
        for number in order:
            sink.save(plane_of(number, (32, 40)), name_of(**places[number]), source="raw")  # type: ignore[arg-type]
        assert sink.wait(PATIENCE_S).images.displayed == 1000
        layer = self.shown(sink)
        assert layer.missing == 0
        assert dict(zip(layer.axis_names, layer.shape, strict=True)) == {
            "well": 4,
            "field": 1,
            "t": 10,
            "channel": 5,
            "z": 5,
            "y": 32,
            "x": 40,
        }
        values = {"well": ("A01", "A02", "B03", "C10"), "field": (1,)}
        for number, place in enumerate(places):
            index = [
                values[axis].index(place.get(axis, 1)) if axis in values else int(place[axis]) - 1  # type: ignore[arg-type, call-overload]
                for axis in layer.axis_names[:-2]
            ]
            assert np.array_equal(sink.plane(layer, index), plane_of(number, (32, 40))), place

    def test_a_steady_stream_appears_while_it_comes(self, open_sink: Callable[..., ViewerSink]) -> None:
        """Planes come more often than napari can paint, without a rest: a viewer that waits for one shows nothing."""
        sink = open_sink(policy="drop")
        over = threading.Event()

        def send() -> None:
            number = 0
            while not over.is_set():
                sink.save(plane_of(number % 50, (256, 256)), name_of(z=number % 50 + 1), source="raw")
                number += 1
                over.wait(0.005)

        sender = threading.Thread(target=send, name="sender")
        sender.start()
        try:
            looks = set()

            def grown() -> bool:
                looks.add(sink.progress().images.displayed)
                return len(looks) == 10

            until(grown, "what is displayed grows while more is sent", timeout_s=PATIENCE_S)
        finally:
            over.set()
            sender.join()
        account = sink.wait(PATIENCE_S).images
        assert account.displayed == account.sent

    def test_two_planes_a_second_are_each_there_before_the_next(self, open_sink: Callable[..., ViewerSink]) -> None:
        sink = open_sink()
        for number in range(6):
            sent_at = time.monotonic()
            sink.save(plane_of(number), name_of(z=number + 1), source="raw")
            until(lambda number=number: sink.progress().images.displayed > number, timeout_s=PATIENCE_S)  # type: ignore[misc]
            assert np.array_equal(sink.plane(self.shown(sink), [0] * 4 + [number]), plane_of(number))
            time.sleep(max(0.0, sent_at + 0.5 - time.monotonic()))

    def test_rois_of_windows_and_of_layers(self, open_sink: Callable[..., ViewerSink]) -> None:
        sink = open_sink(display=Display(well="window", channel="layer"))
        for well in ("A01", "A02"):
            for channel in (1, 2):
                sink.save(plane_of(1, (40, 50)), name_of(well=well, channel=channel), source="raw")
        sink.save(list(ROIS), name_of(well="A02", channel=2), source="raw", until="displayed")
        layers = sink.layers()
        assert [(layer.window, layer.name) for layer in layers if layer.kind == "rois"] == [("well A02", "raw channel 2 ROIs")]
        assert len([layer for layer in layers if layer.kind == "images"]) == 4
        rois = self.shown(sink, "rois")
        found = sink.rois(rois, [0] * len(rois.shape))
        assert sorted(found, key=lambda roi: roi.id) == sorted(ROIS, key=lambda roi: roi.id)

    def test_it_holds_no_more_after_many_layers_than_before(self, open_sink: Callable[..., ViewerSink]) -> None:
        sink = open_sink()
        viewer = find("suite", "napari")
        assert viewer is not None

        def round_trip() -> int:
            sink.save_batch([plane_of(number) for number in (1, 2)], [name_of(z=1), name_of(z=2)], source="raw")
            sink.save(list(ROIS), name_of(z=1), source="raw", until="displayed")
            sink.clear()
            assert sink.layers() == []
            return len(os.listdir(f"/proc/{viewer.pid}/fd"))

        before = max(round_trip() for _ in range(2))
        after = min(round_trip() for _ in range(3))
        assert after <= before


def test_without_a_screen_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(ViewerUnavailableError, match="no screen for napari: DISPLAY is not set"):
        open_viewer("napari", required=True, timeout_s=PATIENCE_S)


def test_sigterm_ends_it_though_nothing_happens_in_it(screen: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    sink = open_viewer("napari", "quiet", timeout_s=PATIENCE_S)
    viewer = find("quiet", "napari")
    assert viewer is not None
    pidfd = _os.open_pidfd(viewer.pid)
    try:
        os.kill(viewer.pid, signal.SIGTERM)
        assert _os.wait_readable([pidfd], PATIENCE_S)
    finally:
        os.close(pidfd)
    sink.save(plane_of(1), "A01_s1_w1_z1_t1.tif")
    assert sink.progress().state == "closed"
    sink.close()


def test_mutoscope_view_napari_shows_a_stored_data_set_until_ctrl_c(screen: None, tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(20, 30), dtype="uint16") as writer:
        for number in range(3):
            writer.append(np.full((20, 30), number, np.uint16))
    command = [sys.executable, "-m", "mutoscope", "view", "napari", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as shown:
        assert shown.stdout is not None
        said = ""
        for line in shown.stdout:
            said += line
            if "Ctrl-C ends it" in line:
                break
        assert f"napari shows {path}" in said
        shown.send_signal(signal.SIGINT)
        rest = shown.stdout.read()
        assert shown.wait(PATIENCE_S) == 0, rest
        assert "Traceback" not in said + rest


def test_the_plug_in_is_valid() -> None:
    from mutoscope.viewers import napari as package

    manifest = Path(package.__file__ or "").with_name("napari.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", "--imports", str(manifest)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "valid" in done.stdout
