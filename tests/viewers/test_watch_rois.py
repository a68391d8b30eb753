"""ROIs between viewers that watch a scope, its page, and its workers: each change reaches all others, once, under one id."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_client import PageClient, connect
from watch_lab import draw, drawn, erase, layer, viewer

import mutoscope as ms
from mutoscope.model import Rectangle, Roi
from mutoscope.model.roi import Mask, Points, Polygon
from mutoscope.runtime import RoiChanged, RoiRemoved
from mutoscope.viewers import ViewerSink
from mutoscope.viewers.announce import announced
from mutoscope.viewers.page.settings import PageSettings
from polling import until

SHAPE = (40, 56)
ROIS = "eye ROIs"
LEASE_S = 600.0


class Heard(ms.Command):
    """Return what was heard of ROIs."""


class Move(ms.Command):
    """Put a ROI there, as a tracker does."""

    roi_id: str
    y: float


class Tracker(ms.Worker):
    """Hears of ROIs, and moves them when it is told to."""

    def setup(self) -> None:
        self.heard: list[tuple[str, str, str]] = []
        self.subscribe(RoiChanged, lambda event: self.heard.append(("changed", event.roi.id, event.origin.partition("/")[0])))
        self.subscribe(RoiRemoved, lambda event: self.heard.append(("removed", event.roi_id, event.origin.partition("/")[0])))

    @ms.handles(Heard, script=True)
    def tell(self, command: Heard) -> list[tuple[str, str, str]]:
        return self.heard

    @ms.handles(Move, script=True)
    def move(self, command: Move) -> None:
        self.publish(RoiChanged(roi=box(command.roi_id, command.y), origin=self.name))


def box(roi_id: str, y: float = 10.0) -> Roi:
    return Roi(roi_id, Rectangle((y, 20.5), 6.0, 8.0), name=f"cell {roi_id}")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for the announcements of the test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def scope(tmp_path: Path) -> Iterator[ms.Scope]:
    """A scope with one source, which has pushed a frame, and a worker that hears of ROIs."""
    sources = {"eye": ms.SourceSettings(SHAPE, "uint16", rate_hz=20)}
    page = PageSettings(lease_s=LEASE_S)
    with ms.Scope(sources=sources, workers=[Tracker], record=tmp_path / "run.ome.zarr", page=page) as made:
        made.source("eye").push(np.zeros(SHAPE, np.uint16))
        yield made


class Guest:
    """A client of the page that a test asks from its own thread."""

    def __init__(self, url: str) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._loop = asyncio.new_event_loop()
        self._around: Any = connect(url)
        self.page: PageClient = self._do(self._around.__aenter__())
        self._do(self.page.message("rois"))

    def _do(self, work: Any) -> Any:
        return self._pool.submit(self._loop.run_until_complete, work).result(120)

    def ask(self, kind: str, **fields: Any) -> Any:
        return self._do(self.page.ask(kind, **fields))

    def changes(self) -> list[tuple[str, int]]:
        """What it heard of single ROIs: id and revision."""
        self.ask("ping")
        heard = [each for each in self.page.texts if each["type"] == "roi"]
        return [(each["removed"] if "removed" in each else each["roi"]["id"], each["revision"]) for each in heard]

    def close(self) -> None:
        self._do(self._around.__aexit__(None, None, None))
        self._pool.submit(self._loop.close).result(60)
        self._pool.shutdown()


@pytest.fixture
def guest(scope: ms.Scope) -> Iterator[Guest]:
    assert scope.page_url is not None
    made = Guest(scope.page_url)
    yield made
    made.close()


def holds(sink: ViewerSink, wanted: dict[str, Roi]) -> None:
    until(lambda: drawn(sink, ROIS) == wanted, lambda: f"{sorted(wanted)}, not {drawn(sink, ROIS)}")


def control_is_free(guest: Guest) -> bool:
    guest.ask("ping")
    return next(each for each in reversed(guest.page.texts) if each["type"] == "lease")["holder"] is None


def test_a_roi_that_is_drawn_in_one_viewer_reaches_all_others_once(scope: ms.Scope, guest: Guest):
    with viewer(name="one") as one, viewer(name="two") as two:
        for sink in (one, two):
            sink.watch(scope.page_url)
        draw(one, ROIS, box("r1"))
        for sink in (one, two):
            holds(sink, {"r1": box("r1")})
        draw(two, ROIS, box("r1", 12.0))
        for sink in (one, two):
            holds(sink, {"r1": box("r1", 12.0)})
        erase(one, ROIS, "r1")
        for sink in (one, two):
            holds(sink, {})
        changes = guest.changes()
        assert [roi_id for roi_id, _ in changes] == ["r1", "r1", "r1"]
        assert [revision for _, revision in changes] == sorted({revision for _, revision in changes})
        heard = until(lambda: (found := scope.request(Heard())) and len(found) >= 3 and found)
        assert [(what, roi_id) for what, roi_id, _ in heard] == [("changed", "r1"), ("changed", "r1"), ("removed", "r1")]


def test_what_a_worker_and_the_page_do_is_in_the_viewer(scope: ms.Scope, guest: Guest):
    with viewer() as sink:
        sink.watch(scope.page_url)
        scope.request(Move(roi_id="bead", y=5.0))
        holds(sink, {"bead": box("bead", 5.0)})
        guest.ask("lease", take=True, name="Ada")
        ring = {"type": "polygon", "exterior": [[1, 1], [1, 9], [9, 9]], "holes": [[[3, 4], [3, 6], [5, 6]]]}
        guest.ask("put_roi", stream="eye", roi={"id": "ring", "geometry": ring})
        mask = Roi("mask", Mask.from_array(np.eye(3, dtype=bool), origin=(4, 5)))
        guest.ask(
            "put_roi",
            stream="eye",
            roi={"id": "mask", "geometry": {"type": "mask", "origin": [4, 5], "shape": [3, 3], "bits": "iIA="}},
        )
        polygon = Roi("ring", Polygon([(1, 1), (1, 9), (9, 9)], [[(3, 4), (3, 6), (5, 6)]]))
        holds(sink, {"bead": box("bead", 5.0), "ring": polygon, "mask": mask})
        guest.ask("remove_roi", stream="eye", roi_id="ring")
        holds(sink, {"bead": box("bead", 5.0), "mask": mask})


def test_control_is_taken_for_an_edit_and_given_back(scope: ms.Scope, guest: Guest):
    with viewer() as sink:
        sink.watch(scope.page_url)
        for number in range(50):  # as a person who drags: only the newest has to get there
            draw(sink, ROIS, box("r1", 10.0 + number / 10))
        holds(sink, {"r1": box("r1", 14.9)})
        until(lambda: guest.changes() and control_is_free(guest), "control is given back")
        taken = [each["name"] for each in guest.page.texts if each["type"] == "lease" and each["holder"]]
        assert taken
        assert all(name.startswith("model of ") for name in taken)
        holds(sink, {"r1": box("r1", 14.9)})


def test_while_somebody_else_has_control_an_edit_is_set_back_and_said(scope: ms.Scope, guest: Guest):
    with viewer() as sink:
        sink.watch(scope.page_url)
        guest.ask("lease", take=True, name="Ada")
        guest.ask("put_roi", stream="eye", roi={"id": "r1", "geometry": {"type": "points", "points": [[1, 2]]}})
        known = {"r1": Roi("r1", Points([(1.0, 2.0)]))}
        holds(sink, known)
        draw(sink, ROIS, box("new"))
        holds(sink, known)
        draw(sink, ROIS, box("r1"))
        holds(sink, known)
        erase(sink, ROIS, "r1")
        holds(sink, known)
        until(lambda: Path(sink.log).read_text().count("control is Ada's") >= 3, "it is said")
        assert [roi_id for roi_id, _ in guest.changes()] == ["r1"]
        guest.ask("lease", take=False)
        draw(sink, ROIS, box("new"))
        holds(sink, {**known, "new": box("new")})


def test_a_link_that_only_looks_sets_back_what_is_drawn(scope: ms.Scope, guest: Guest):
    from mutoscope.viewers.page.share import share

    with viewer() as sink:
        until(lambda: announced("page"))
        assert sink.watch(share(None, 600.0)).role == "view"
        scope.request(Move(roi_id="bead", y=5.0))
        holds(sink, {"bead": box("bead", 5.0)})
        draw(sink, ROIS, box("mine"))
        until(lambda: "this link only looks" in Path(sink.log).read_text())
        holds(sink, {"bead": box("bead", 5.0)})
        assert [roi_id for roi_id, _ in guest.changes()] == ["bead"]


def test_what_a_worker_has_changed_meanwhile_is_not_overwritten(scope: ms.Scope, guest: Guest):
    """The person saw an older state of it."""
    with viewer() as sink:
        sink.watch(scope.page_url)
        draw(sink, ROIS, box("r1"))
        until(guest.changes)
        holds(sink, {"r1": box("r1")})
        scope.request(Move(roi_id="r1", y=30.0))
        holds(sink, {"r1": box("r1", 30.0)})
        draw(sink, ROIS, box("r1", 31.0))
        until(lambda: len(guest.changes()) == 3)
        holds(sink, {"r1": box("r1", 31.0)})
        assert layer(sink, ROIS, "rois").kind == "rois"
