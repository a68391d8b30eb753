"""ImageJ itself, watching a running scope: frames in place, ROIs of a person there and of others, marks that nobody edits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from imagej_support import JARS, Probe, compile_probe, virtual_screen
from test_page_pixels import image
from watch_lab import draw, drawn, erase, layer, shows, viewer

import mutoscope as ms
from mutoscope.model.roi import Polygon, Rectangle, Roi
from mutoscope.runtime import RoiChanged, RoiRemoved
from mutoscope.viewers import ViewerSink
from mutoscope.viewers.announce import announced
from mutoscope.viewers.page.settings import PageSettings
from polling import until

SHAPE = (70, 90)
ROIS = "eye ROIs"


class Put(ms.Command):
    """Put a ROI on the image, as a tracker does."""

    roi_id: str
    y: float


class Heard(ms.Command):
    """Return what was heard of ROIs."""


class Found(ms.Command):
    """Write rows for a frame into the table."""

    frame_id: int


class Tracker(ms.Worker):
    """Hears of ROIs, moves them, and has a table of tracks."""

    def setup(self) -> None:
        self.heard: dict[str, tuple[float, float]] = {}
        self.tracks = self.table("beads", dtype=[("frame_id", "u8"), ("bead", "i4"), ("y_px", "f8"), ("x_px", "f8")])
        self.subscribe(RoiChanged, lambda event: self.heard.update({event.roi.id: event.roi.geometry.bounds()[:2]}))
        self.subscribe(RoiRemoved, lambda event: self.heard.pop(event.roi_id, None))

    @ms.handles(Heard, script=True)
    def tell(self, command: Heard) -> dict[str, tuple[float, float]]:
        return self.heard

    @ms.handles(Put, script=True)
    def put(self, command: Put) -> None:
        self.publish(RoiChanged(roi=box(command.roi_id, command.y), origin=self.name))

    @ms.handles(Found, script=True)
    def found(self, command: Found) -> None:
        for bead in range(5):
            self.tracks.append((command.frame_id, bead, 5.0 * bead + command.frame_id, 10.0 + command.frame_id))


def box(roi_id: str, y: float = 10.0) -> Roi:
    return Roi(roi_id, Rectangle((y, 20.5), 6.0, 8.0), name=f"cell {roi_id}")


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("probe")
    with virtual_screen() as display, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", display)
        yield compile_probe(folder)


@pytest.fixture(params=list(JARS))
def probe(request: pytest.FixtureRequest, screen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Probe]:
    """An ImageJ that a person has started, with the live receiver."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    made = Probe(request.param, tmp_path, screen, owned=False)
    try:
        made.receiver()
        yield made
    finally:
        made.close()


@pytest.fixture
def scope(probe: Probe, tmp_path: Path) -> Iterator[ms.Scope]:
    """A scope with one source, and a worker that hears of ROIs."""
    sources = {"eye": ms.SourceSettings(SHAPE, "uint16", rate_hz=20)}
    page = PageSettings(lease_s=600.0)
    with ms.Scope(sources=sources, workers=[Tracker], record=tmp_path / "run.ome.zarr", page=page) as made:
        yield made


@pytest.fixture
def fiji(scope: ms.Scope, probe: Probe) -> Iterator[ViewerSink]:
    with viewer("fiji", "fiji") as sink:
        sink.watch(scope.page_url)
        layer(sink, ROIS, "rois")
        scope.source("eye").push(image("uint16", SHAPE, 1))
        yield sink


def window(probe: Probe) -> str:
    """The title of the one image that ImageJ has."""
    (title,) = probe.ask("titles")
    return title


def test_the_newest_frame_is_in_the_same_window(scope: ms.Scope, fiji: ViewerSink, probe: Probe) -> None:
    first = image("uint16", SHAPE, 1)
    shows(fiji, "eye", first)
    title = window(probe)
    before = probe.ask("window", title)
    probe.ask("range", title, 40, 400)
    for number in (2, 3, 4):
        scope.source("eye").push(image("uint16", SHAPE, number))
        shows(fiji, "eye", image("uint16", SHAPE, number))
    assert probe.ask("window", title)[:2] == before[:2], "the same window, and none was closed"
    (held,) = [each for each in fiji.layers() if each.kind == "images"]
    assert [tuple(each[1:]) for each in held.contrast] == [(40.0, 400.0)], "the person's contrast stays"


def test_a_roi_that_is_drawn_in_imagej_reaches_worker_and_viewer_under_one_id_and_comes_back_moved(
    scope: ms.Scope, fiji: ViewerSink, probe: Probe
) -> None:
    title = window(probe)
    with viewer(name="other") as other:
        other.watch(scope.page_url)
        assert probe.ask("person draws", title, 20, 10, 8, 6) == ["1"]
        (roi_id,) = until(lambda: list(drawn(other, ROIS)), "the ROI in the other viewer")
        assert roi_id.startswith("imagej-")
        until(lambda: roi_id in scope.request(Heard()), "the ROI at the worker")
        drawn_at = drawn(other, ROIS)[roi_id].geometry
        # moved in the other viewer: it moves in ImageJ
        draw(other, ROIS, Roi(roi_id, Rectangle((30.5, 40.5), 6.0, 8.0)))
        until(lambda: probe.ask("roi", 0)[1:] == ["37", "28", "8", "6"], lambda: probe.ask("roi", 0))
        assert drawn_at != drawn(other, ROIS)[roi_id].geometry
        # dragged in ImageJ: it moves everywhere, and nothing comes twice
        probe.ask("person drags", title, 0, 3, 2)
        until(lambda: drawn(other, ROIS)[roi_id].geometry == Rectangle((32.5, 43.5), 6.0, 8.0), lambda: drawn(other, ROIS))
        until(lambda: scope.request(Heard())[roi_id] == pytest.approx((29.5, 39.5)), lambda: scope.request(Heard()))
        # moved in the other viewer while it is selected in ImageJ: the selection goes along, and does not pull it back
        draw(other, ROIS, Roi(roi_id, Rectangle((10.5, 20.5), 6.0, 8.0)))
        until(lambda: probe.ask("roi", 0)[1:] == ["17", "8", "8", "6"], lambda: probe.ask("roi", 0))
        probe.ask("person drags", title, 0, 1, 1)
        until(lambda: drawn(other, ROIS)[roi_id].geometry == Rectangle((11.5, 21.5), 6.0, 8.0), lambda: drawn(other, ROIS))
        # put by a worker, deleted by the person
        scope.request(Put(roi_id="bead", y=5.0))
        until(lambda: probe.ask("rois")[0] == "2", lambda: probe.ask("rois"))
        assert probe.ask("overlay", title) == ["2"]
        probe.ask("person deletes", title, 0)
        until(lambda: set(drawn(other, ROIS)) == {"bead"}, lambda: drawn(other, ROIS))
        until(lambda: set(scope.request(Heard())) == {"bead"}, lambda: scope.request(Heard()))
        assert set(drawn(fiji, ROIS)) == {"bead"}
        erase(other, ROIS, "bead")
        until(lambda: probe.ask("rois")[0] == "0", lambda: probe.ask("rois"))


def test_what_the_suite_draws_is_what_a_person_draws(scope: ms.Scope, fiji: ViewerSink) -> None:
    ring = Roi("ring", Polygon([(1.0, 1.0), (1.0, 9.0), (9.0, 9.0)]))
    draw(fiji, ROIS, ring)
    ((roi_id, roi),) = until(lambda: list(drawn(fiji, ROIS).items()), "the ROI")
    assert roi.geometry == ring.geometry
    until(lambda: set(scope.request(Heard())) == {roi_id}, "the worker")
    draw(fiji, ROIS, Roi(roi_id, Polygon([(2.0, 2.0), (2.0, 9.0), (9.0, 9.0)])))
    until(lambda: scope.request(Heard())[roi_id] == (2.0, 2.0), lambda: scope.request(Heard()))
    erase(fiji, ROIS, roi_id)
    until(lambda: scope.request(Heard()) == {}, lambda: scope.request(Heard()))


def test_what_a_macro_does_to_the_list_takes_nothing_away(scope: ms.Scope, fiji: ViewerSink, probe: Probe) -> None:
    for number in range(3):
        scope.request(Put(roi_id=f"r{number}", y=10.0 * (number + 1)))
    until(lambda: probe.ask("rois")[0] == "3", lambda: probe.ask("rois"))
    probe.ask("reset rois", "")
    scope.request(Put(roi_id="r9", y=50.0))
    until(lambda: probe.ask("rois")[0] == "4", lambda: probe.ask("rois"))
    assert set(scope.request(Heard())) == {"r0", "r1", "r2", "r9"}


def test_tracks_lie_over_the_window_and_not_in_the_roi_manager(scope: ms.Scope, fiji: ViewerSink, probe: Probe) -> None:
    title = window(probe)
    for number in (2, 3, 4):
        scope.source("eye").push(image("uint16", SHAPE, number))
        scope.request(Found(frame_id=number))
    scope.source("eye").push(image("uint16", SHAPE, 5))
    until(lambda: int(probe.ask("overlay", title)[0]) >= 1, "marks over the window")
    assert probe.ask("rois")[0] == "0"


def test_a_live_window_that_a_person_closes_is_watched_no_more(scope: ms.Scope, fiji: ViewerSink, probe: Probe) -> None:
    probe.ask("close", window(probe))
    until(lambda: not fiji.layers(), lambda: fiji.layers())
    scope.source("eye").push(image("uint16", SHAPE, 7))
    assert announced("viewer"), "the viewer goes on"
    assert probe.ask("titles") == [""]
