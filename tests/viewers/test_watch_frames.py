"""A viewer that watches a running scope: its newest frames, exactly, whatever dies meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from test_page_pixels import image
from watch_lab import layer, shows, viewer

import mutoscope as ms
from mutoscope.cameras import SimulatedCamera
from mutoscope.model.errors import ConfigError, ViewerTimeoutError
from mutoscope.viewers.announce import announced
from polling import until

KINDS = ("uint8", "uint16", "int8", "int16", "float32")
SHAPE = (40, 56)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for the announcements of the test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def pid_of(scope: ms.Scope, name: str) -> int:
    return next(status.pid for status in scope.status() if status.name == name and status.state == "running")


def test_the_newest_frame_of_each_camera_is_held_exactly(tmp_path: Path):
    sources = {kind: ms.SourceSettings(SHAPE, kind, rate_hz=20) for kind in KINDS}
    with ms.Scope(sources=sources, record=tmp_path / "run.ome.zarr", page=True) as scope, viewer() as sink:
        seen = sink.watch(scope.page_url)
        assert (seen.scope, seen.state, seen.role) == ("run.ome.zarr", "live", "control")
        for number in (1, 2, 3):
            for kind in KINDS:
                frame = image(kind, SHAPE, number)
                scope.source(kind).push(frame)
                shows(sink, kind, frame)
        (seen,) = sink.watched()
        assert [(each.name, each.frame_id, each.shown, each.skipped) for each in seen.streams] == [
            (kind, 3, 3, 0) for kind in KINDS
        ]
        assert all(each.age_ms is not None and each.age_ms > 0 for each in seen.streams)
        held = layer(sink, "uint16")
        assert (held.window, held.axis_names, held.dtype) == ("run.ome.zarr", ["y", "x"], "uint16")
        assert held.contrast[0][1] < held.contrast[0][2]
        sink.clear()
        shows(sink, "uint16", image("uint16", SHAPE, 3))
        sink.unwatch()
        assert sink.watched() == []
        assert sink.layers() == []


def test_frames_may_change_their_shape(tmp_path: Path):
    settings = ms.SourceSettings((60, 80), "uint16", rate_hz=20, varying=True)
    with ms.Scope(sources={"eye": settings}, record=tmp_path / "run.ome.zarr", page=True) as scope, viewer() as sink:
        sink.watch(scope.page_url)
        for number, shape in enumerate([(60, 80), (20, 30), (20, 30), (60, 70)]):
            frame = image("uint16", shape, number)
            scope.source("eye").push(frame)
            shows(sink, "eye", frame)


def test_a_page_that_is_killed_is_seen_again(tmp_path: Path):
    settings = ms.SourceSettings(SHAPE, "uint16", rate_hz=20)
    with ms.Scope(sources={"eye": settings}, record=tmp_path / "run.ome.zarr", page=True) as scope, viewer() as sink:
        until(lambda: announced("page"))
        sink.watch("run")
        scope.source("eye").push(image("uint16", SHAPE, 1))
        shows(sink, "eye", image("uint16", SHAPE, 1))
        os.kill(pid_of(scope, "page"), signal.SIGKILL)
        until(lambda: sink.watched()[0].state == "no connection")
        assert layer(sink, "eye").window == "run.ome.zarr (no connection)"
        until(lambda: sink.watched()[0].state == "live")
        scope.source("eye").push(image("uint16", SHAPE, 2))
        shows(sink, "eye", image("uint16", SHAPE, 2))
        assert layer(sink, "eye").window == "run.ome.zarr"


def test_when_a_scope_ends_its_window_stays_and_says_so(tmp_path: Path):
    settings = ms.SourceSettings(SHAPE, "uint16", rate_hz=20)
    with viewer() as sink:
        for number in (1, 2):  # a scope of the same name takes the place of the one that has ended
            run = tmp_path / str(number) / "run.ome.zarr"
            run.parent.mkdir()
            frame = image("uint16", SHAPE, number)
            with ms.Scope(sources={"eye": settings}, record=run, page=True) as scope:
                until(lambda: announced("page"))
                sink.watch()
                scope.source("eye").push(frame)
                shows(sink, "eye", frame)
                assert layer(sink, "eye").window == "run.ome.zarr"
            (seen,) = until(lambda: [each for each in sink.watched() if each.state == "ended"])
            assert "the scope has ended" in seen.problem
            assert layer(sink, "eye").window == "run.ome.zarr (ended)"
            assert np.array_equal(sink.plane(layer(sink, "eye")), frame)


def test_a_page_that_says_nothing_is_watched_no_more_when_the_time_is_up():
    with viewer() as sink, socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(ViewerTimeoutError, match=r"does not see 127\.0\.0\.1 after 0\.5 s"):
            sink.watch(f"http://127.0.0.1:{silent.getsockname()[1]}/?token=none", timeout_s=0.5)
        assert sink.watched() == []


def test_an_impatient_program_ends_nothing_that_is_seen(tmp_path: Path):
    settings = ms.SourceSettings(SHAPE, "uint16", rate_hz=20)
    with ms.Scope(sources={"eye": settings}, record=tmp_path / "run.ome.zarr", page=True) as scope, viewer() as sink:
        until(lambda: announced("page"))
        sink.watch(scope.page_url)
        with contextlib.suppress(ViewerTimeoutError):
            sink.watch(scope.page_url, timeout_s=1e-5)
        assert [each.state for each in sink.watched()] == ["live"]


def test_another_link_of_a_scope_that_is_shown_changes_nothing(tmp_path: Path):
    settings = ms.SourceSettings(SHAPE, "uint16", rate_hz=20)
    with ms.Scope(sources={"eye": settings}, record=tmp_path / "run.ome.zarr", page=True) as scope, viewer() as sink:
        until(lambda: announced("page"))
        assert scope.page_url is not None
        sink.watch(scope.page_url)
        with pytest.raises(ConfigError, match=r"run\.ome\.zarr is shown here already, through another link: unwatch it first"):
            sink.watch(scope.page_url + "x")
        assert [each.state for each in sink.watched()] == ["live"]
        with pytest.raises(ConfigError, match=r"^http://127\.0\.0\.1:1/ is not watched here; watched: run\.ome\.zarr$"):
            sink.unwatch("http://127.0.0.1:1/?token=secret")
        sink.unwatch(scope.page_url)
        assert sink.watched() == []
        port = str(urlsplit(scope.page_url).port)
        for said, meant in (("run", "run.ome.zarr"), ("run.ome.zarr", "ru"), (port, port)):
            sink.watch(said)
            sink.unwatch(meant)
            assert sink.watched() == []
        with pytest.raises(ConfigError, match="the name of a scope is not empty"):
            sink.unwatch("")


def test_a_program_that_waits_no_more_ends_nothing_that_another_waits_for():
    with viewer() as sink, socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor() as pool:
        link = f"http://127.0.0.1:{silent.getsockname()[1]}/?token=none"
        patient = pool.submit(sink.watch, link, timeout_s=3.0)
        until(sink.watched)
        with pytest.raises(ViewerTimeoutError):
            sink.watch(link, timeout_s=0.5)
        assert [each.state for each in sink.watched()] == ["connecting"]
        with pytest.raises(ViewerTimeoutError):
            patient.result(60)
        assert sink.watched() == []


def test_what_cannot_be_watched_is_said_in_a_sentence(tmp_path: Path):
    with viewer() as sink:
        with pytest.raises(ConfigError, match=r"no scope of yours runs on this computer with a page; .*--headless"):
            sink.watch()
        with pytest.raises(ConfigError, match="the link of a scope is that of its page, such as"):
            sink.watch("http://127.0.0.1:1/")
        with pytest.raises(ConfigError, match="the name of a scope is not empty"):
            sink.watch("")
        with pytest.raises(ConfigError, match=r"cannot be watched: nothing listens there: is the scope running"):
            sink.watch("http://127.0.0.1:1/?token=none")
        settings = ms.SourceSettings(SHAPE, "uint16", rate_hz=20)
        with ms.Scope(sources={"eye": settings}, record=tmp_path / "run.ome.zarr", page=True) as scope:
            until(lambda: announced("page"))
            with pytest.raises(ConfigError, match=r"there is no page of a scope 'other'; there are: run.ome.zarr"):
                sink.watch("other")
            assert scope.page_url is not None
            with pytest.raises(ConfigError, match="its token is wrong, or has expired"):
                sink.watch(scope.page_url + "x")
        assert sink.watched() == []
        assert sink.layers() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_viewer_that_dies_or_hangs_costs_the_scope_nothing(tmp_path: Path, number: signal.Signals):
    camera = SimulatedCamera(shape=(512, 512), rate_hz=100)
    with ms.Scope(camera=camera, record=tmp_path / "run.ome.zarr", page=True) as scope, viewer() as sink:
        sink.watch(scope.page_url)
        scope.start_acquisition()
        until(lambda: sink.watched()[0].streams[0].shown > 5)
        (found,) = announced("viewer")
        os.kill(found.pid, number)
        before = scope.ledger.produced
        until(lambda: scope.ledger.produced > before + 300)
        scope.stop_acquisition()
        if number is signal.SIGSTOP:
            os.kill(found.pid, signal.SIGKILL)
    ledger = scope.ledger
    assert ledger.exact, ledger.problems
    assert (ledger.stored, ledger.dropped) == (ledger.produced, {}), ledger.summary()
