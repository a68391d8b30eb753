"""napari itself, watching a running scope."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from imagej_support import virtual_screen
from test_page_pixels import image
from watch_lab import draw, drawn, erase, layer, shows, viewer

import mutoscope as ms
from mutoscope.model.roi import Ellipse, Line, Points, Polygon, Rectangle, Roi
from mutoscope.viewers import ViewerSink
from mutoscope.viewers.announce import announced
from mutoscope.viewers.page.settings import PageSettings
from polling import until

SHAPES = {"words": (70, 90), "bytes": (70, 90)}
ROIS = "words ROIs"
BEADS = 5


class Put(ms.Command):
    """Put a ROI on the image, as a tracker does."""

    roi_id: str
    y: float


class Found(ms.Command):
    """Write rows for a frame into the table."""

    frame_id: int


class Tracker(ms.Worker):
    """Has a table of tracks."""

    def setup(self) -> None:
        self.tracks = self.table("beads", dtype=[("frame_id", "u8"), ("bead", "i4"), ("y_px", "f8"), ("x_px", "f8")])

    @ms.handles(Put, script=True)
    def put(self, command: Put) -> None:
        roi = Roi(command.roi_id, Rectangle((command.y, 20.5), 6.0, 8.0))
        self.publish(ms.RoiChanged(roi=roi, origin=self.name, image="words"))

    @ms.handles(Found, script=True)
    def found(self, command: Found) -> None:
        for bead in range(BEADS):
            self.tracks.append((command.frame_id, bead, *place(bead, command.frame_id)))


def place(bead: int, frame_id: int) -> tuple[float, float]:
    return 5.0 * bead + frame_id, 10.0 + 2.0 * frame_id


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A napari on a screen that nobody sees."""
    with virtual_screen() as display, pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("napari")
        patch.setenv("DISPLAY", display)
        patch.setenv("NAPARI_CONFIG", str(folder / "napari.yaml"))
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        with viewer("napari", stays=True) as sink:
            log = Path(sink.log)
        yield
        with viewer("napari"):
            pass
        assert "Traceback" not in log.read_text(), log.read_text()[-4000:]


@pytest.fixture
def napari(screen: None) -> Iterator[ViewerSink]:
    with viewer("napari", stays=True) as sink:
        yield sink
        sink.unwatch()


@pytest.fixture
def scope(tmp_path: Path, napari: ViewerSink) -> Iterator[ms.Scope]:
    sources = {name: ms.SourceSettings(shape, DTYPES[name], rate_hz=20, varying=True) for name, shape in SHAPES.items()}
    page = PageSettings(lease_s=600.0)
    with ms.Scope(sources=sources, workers=[Tracker], record=tmp_path / "run.ome.zarr", page=page) as made:
        made.source("words").push(image("uint16", SHAPES["words"], 1))
        yield made


DTYPES = {"words": "uint16", "bytes": "uint8"}


def box(roi_id: str, y: float = 10.0) -> Roi:
    return Roi(roi_id, Rectangle((y, 20.5), 6.0, 8.0))


def holds(sink: ViewerSink, wanted: dict[str, Roi]) -> None:
    until(lambda: drawn(sink, ROIS) == wanted, lambda: f"{wanted}, not {drawn(sink, ROIS)}")


def test_frames_are_exact_whatever_their_shape(scope: ms.Scope, napari: ViewerSink):
    napari.watch(scope.page_url)
    for number, size in enumerate([(60, 80), (60, 80), (20, 30), (70, 90)], 1):
        for name, dtype in DTYPES.items():
            frame = image(dtype, size, number)
            scope.source(name).push(frame)
            shows(napari, name, frame)
    held = {each.name: each for each in napari.layers()}
    assert (held["words"].window, held["words"].shape, held["words"].missing) == ("run.ome.zarr", [70, 90], 0)
    low, high = held["words"].contrast[0][1:]
    assert low < high


def test_points_and_tracks_lie_over_the_frame_that_is_shown(scope: ms.Scope, napari: ViewerSink):
    napari.watch(scope.page_url)
    for number in (2, 3):
        scope.source("words").push(image("uint16", SHAPES["words"], number))
    for frame_id in (1, 2, 3, 4):  # the last of a frame that has not come
        scope.request(Found(frame_id=frame_id))

    def points() -> list[tuple[float, float]]:
        (roi,) = drawn(napari, "beads").values() or [Roi("none", Points([(0, 0)]))]
        assert isinstance(roi.geometry, Points)
        return sorted(roi.geometry.points)

    until(lambda: points() == sorted(place(bead, 3) for bead in range(BEADS)), lambda: str(points()))
    tracks = until(lambda: len(found := drawn(napari, "beads tracks")) == BEADS and found)
    for bead in range(BEADS):
        path = tracks[str(bead)].geometry
        assert path.vertices == [place(bead, frame_id) for frame_id in (1, 2, 3)]


def test_what_is_drawn_in_napari_reaches_others_and_comes_back_from_them(scope: ms.Scope, napari: ViewerSink):
    with viewer(name="other") as other:
        for sink in (napari, other):
            sink.watch(scope.page_url)
        scope.request(Put(roi_id="bead", y=30.0))
        for sink in (napari, other):
            holds(sink, {"bead": box("bead", 30.0)})
        shapes = [
            Rectangle((10.0, 20.5), 6.0, 8.0),
            Polygon([(1.0, 1.0), (1.0, 9.0), (9.0, 9.5)]),
            Line((3.0, 4.0), (20.0, 30.0)),
            Points([(7.0, 8.0)]),
            Ellipse((20.0, 30.0), 4.0, 8.0),
        ]
        known = {"bead": box("bead", 30.0)}
        for shape in shapes:
            draw(napari, ROIS, Roi("any", shape))
            found = until(lambda: len(found := drawn(other, ROIS)) == len(known) + 1 and found, str(shape))
            (new,) = set(found) - set(known)
            assert new.startswith("napari-")
            assert found[new].geometry == shape
            known[new] = found[new]
            holds(napari, known)
        (rectangle,) = (roi_id for roi_id, roi in known.items() if roi_id != "bead" and isinstance(roi.geometry, Rectangle))
        (points,) = (roi_id for roi_id, roi in known.items() if isinstance(roi.geometry, Points))
        for moved in (box(rectangle, 33.0), Roi(points, Points([(9.0, 3.0)])), box("bead", 31.0)):
            draw(napari, ROIS, moved)
            known[moved.id] = moved
            for sink in (napari, other):
                holds(sink, known)
        draw(other, ROIS, box(rectangle, 12.0))
        known[rectangle] = box(rectangle, 12.0)
        for sink in (napari, other):
            holds(sink, known)
        for roi_id in (rectangle, points, "bead"):
            erase(napari, ROIS, roi_id)
            del known[roi_id]
            for sink in (napari, other):
                holds(sink, known)


def test_a_link_that_only_looks_sets_napari_back(scope: ms.Scope, napari: ViewerSink):
    from mutoscope.viewers.page.share import share

    until(lambda: announced("page"))
    napari.watch(share(None, 600.0))
    scope.request(Put(roi_id="bead", y=30.0))
    holds(napari, {"bead": box("bead", 30.0)})
    draw(napari, ROIS, box("any", 50.0))
    until(lambda: "this link only looks" in Path(napari.log).read_text())
    holds(napari, {"bead": box("bead", 30.0)})
    draw(napari, ROIS, box("bead", 50.0))
    until(lambda: Path(napari.log).read_text().count("this link only looks") >= 2)
    holds(napari, {"bead": box("bead", 30.0)})


def test_the_window_of_a_scope_that_has_ended_stays(tmp_path: Path, napari: ViewerSink):
    sources = {"words": ms.SourceSettings(SHAPES["words"], "uint16", rate_hz=20)}
    frame = image("uint16", SHAPES["words"], 1)
    with ms.Scope(sources=sources, record=tmp_path / "short.ome.zarr", page=True) as scope:
        napari.watch(scope.page_url)
        scope.source("words").push(frame)
        shows(napari, "words", frame)
    until(lambda: layer(napari, "words").window == "short.ome.zarr (ended)")
    assert np.array_equal(napari.plane(layer(napari, "words")), frame)
    napari.unwatch()
    assert napari.layers() == []
