"""The one-page report of a run: made at its end, whole, and true to the data set as zarr-python reads it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import zarr

import mutoscope as ms
from command_line import mutoscope
from mutoscope.app.run_report import write_report
from mutoscope.cameras import SimulatedCamera
from mutoscope.model.errors import DatasetError, DatasetNotFoundError
from polling import until

VOID = {"meta"}
OPEN_ENDED = {"td", "tr", "th", "li"}


class Strict(HTMLParser):
    """Reads a page's words; notes elements that are not closed, and everything that would be loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script" or any(name in ("src", "href") or name.startswith("on") for name, _ in attrs):
            self.wrong.append(f"{tag} {attrs}")
        if tag not in VOID | OPEN_ENDED:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if any(name.startswith("on") for name, _ in attrs):
            self.wrong.append(f"{tag} {attrs}")

    def handle_endtag(self, tag: str) -> None:
        if tag in OPEN_ENDED:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def read(report: Path) -> str:
    """Return the words of a report that is well formed and loads nothing."""
    page = Strict(report.read_text(encoding="utf-8"))
    assert not page.wrong, page.wrong
    assert not page.open, page.open
    return re.sub(r"\s+", " ", " ".join(page.words))


def test_a_run_leaves_a_report_of_what_it_lost_and_why(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    camera = SimulatedCamera(shape=(16, 24), rate_hz=300, pattern="counter", drop_at=(20, 21, 22))
    with ms.Scope(camera=camera, record=path, settings={"dish": "<b>7</b> & more"}) as scope:
        scope.acquire(frames=90)
        (pid,) = [status.pid for status in scope.status() if status.name == "recorder"]
        os.kill(pid, signal.SIGKILL)
        scope.acquire(frames=90)
    assert scope.folder is not None
    words = read(scope.folder / "report.html")
    ids = zarr.open_array(path / "frames" / "frame_id", mode="r")[:]
    ticks = zarr.open_array(path / "frames" / "tick", mode="r")[:].astype(int)
    assert f"{np.count_nonzero(ids)} frames stored" in words
    gaps = ticks[1:][np.diff(ticks) > 1]
    missed = int((np.diff(ticks) - 1)[np.diff(ticks) > 1].sum())
    assert f"{gaps.size} gaps: {missed} exposures missed, 0 frames dropped" in words
    before = int(np.flatnonzero(ticks < 20)[-1])  # a busy machine may miss the exposures beside it too: one gap with them
    lost = int(ticks[before + 1] - ticks[before]) - 1
    assert lost >= 3
    assert f"{ids[before]} {lost} 0 " in words  # after which frame, how many were missed and how many dropped
    told = mutoscope(tmp_path, "info", "run.ome.zarr")
    assert f"  missed   {missed} exposures" in told.stdout, told.describe()
    assert f"missed {scope.ledger.missed}" in told.stdout
    assert f"missed {scope.ledger.missed} " in words
    assert "recorder 1 " in words  # restarts
    assert "SIGKILL" in words
    assert "<b>7</b> & more" in words  # as words, not as an element
    assert "one tick of the camera is" in words
    (scope.folder / "report.html").unlink()
    done = mutoscope(tmp_path, "report", "run.ome.zarr", "--json")
    assert done.code == 0, done.describe()
    assert (tmp_path / done.last_json["report"]) == scope.folder / "report.html"
    again = read(scope.folder / "report.html")
    free = re.compile(r"[\d,.e+-]+ GB were free when this page was made \([^)]*\)")
    assert free.search(words)
    assert free.sub("", again) == free.sub("", words)
    for name in ("run.mutoscope", "."):
        assert mutoscope(tmp_path, "report", name).code == 0


def test_a_run_whose_program_is_killed_leaves_one_too(tmp_path: Path) -> None:
    program = f"""
import mutoscope as ms
if __name__ == "__main__":
    camera = ms.cameras.SimulatedCamera(shape=(16, 24), rate_hz=200, pattern="counter")
    with ms.Scope(camera=camera, record={str(tmp_path / "run.ome.zarr")!r}) as scope:
        scope.start_acquisition()
        print("runs", flush=True)
        scope.wait()
"""
    (tmp_path / "program.py").write_text(program)
    with subprocess.Popen([sys.executable, tmp_path / "program.py"], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "runs\n"
        running.kill()
    report = tmp_path / "run.mutoscope" / "report.html"
    until(report.exists)
    assert "program ended" in read(report)


def test_a_new_run_takes_the_report_of_the_old_one_away(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    camera = SimulatedCamera(shape=(16, 24), rate_hz=300)
    with ms.Scope(camera=camera, record=path) as scope:
        scope.acquire(frames=5)
    assert scope.folder is not None
    report = scope.folder / "report.html"
    assert report.exists()
    with ms.Scope(camera=camera, record=path, overwrite=True) as scope:
        assert not report.exists()
        with pytest.raises(DatasetNotFoundError, match="the run goes on"):
            write_report(report.parent)
    assert "No frame was stored" in read(report)


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    for name in ("missing.ome.zarr", "missing", ".", "a" * 5000, "a" * 5000 + ".ome.zarr"):
        done = mutoscope(tmp_path, "report", name)
        assert done.code == 2, done.describe()
        assert "no report without a ledger" in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr) < 600


@pytest.mark.parametrize("name", ["run.ome.btf", "run.OME.TIFF", "run.ome.tf8", "run.ome.zarr"])
def test_a_report_is_found_by_its_data_set_however_that_is_called(tmp_path: Path, name: str) -> None:
    with ms.Scope(camera=SimulatedCamera(shape=(16, 24), rate_hz=300), record=tmp_path / name) as scope:
        scope.acquire(frames=2)
    assert scope.folder is not None
    assert write_report(tmp_path / name) == scope.folder / "report.html"


def test_a_damaged_data_set_is_told_and_the_rest_stands(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=SimulatedCamera(shape=(16, 24), rate_hz=300), record=path) as scope:
        scope.acquire(frames=5)
    (path / "frames" / "frame_id" / "zarr.json").write_text("{")
    assert scope.folder is not None
    words = read(write_report(scope.folder))
    assert "Not everything is as it should be" in words
    assert "camera: the data set cannot be read" in words
    assert "No times of frames" in words


def test_a_run_that_was_moved_is_told_from_the_one_at_its_place(tmp_path: Path) -> None:
    camera = SimulatedCamera(shape=(16, 24), rate_hz=300)
    (tmp_path / "monday").mkdir()
    for frames in (5, 9):
        with ms.Scope(camera=camera, record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
            scope.acquire(frames=frames)
        if frames == 5:
            for name in ("run.ome.zarr", "run.mutoscope"):
                (tmp_path / name).rename(tmp_path / "monday" / name)
    words = read(write_report(tmp_path / "monday" / "run.mutoscope"))
    assert "5 frames stored" in words
    assert "Every frame is accounted for." in words
    (tmp_path / "monday" / "run.ome.zarr").rename(tmp_path / "monday" / "away.ome.zarr")
    assert "the data set cannot be read" in read(write_report(tmp_path / "monday" / "run.mutoscope"))
    (tmp_path / "run.ome.zarr").rename(tmp_path / "monday" / "run.ome.zarr")
    words = read(write_report(tmp_path / "monday" / "run.mutoscope"))
    assert "Every frame is accounted for." in words, "its ids are those of the ledger, and no more than those are told"
    assert "5 frames stored" in words


def test_a_run_that_was_resumed_is_told_by_itself(tmp_path: Path) -> None:
    camera = SimulatedCamera(shape=(16, 24), rate_hz=300)
    for frames, resume in ((5, False), (7, True)):
        with ms.Scope(camera=camera, record=tmp_path / "run.ome.zarr", resume=resume, reserve_bytes=0) as scope:
            scope.acquire(frames=frames)
        assert f"{frames} frames stored" in read(tmp_path / "run.mutoscope" / "report.html")


@pytest.mark.parametrize(
    "ledger",
    ["", "[]", "null", "{}", '{"cameras":[]}', '{"cameras":{"camera":{}}}', '{"cameras":{},"restarts":null}', '{"cam', "\xff"],
)
def test_a_damaged_ledger_is_one_sentence(tmp_path: Path, ledger: str) -> None:
    (tmp_path / "run.mutoscope").mkdir()
    (tmp_path / "run.mutoscope" / "ledger.json").write_text(ledger, encoding="latin-1")
    with pytest.raises(DatasetError, match=r"ledger\.json is damaged"):
        write_report(tmp_path / "run.mutoscope")


def test_a_damaged_ledger_is_told_by_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "run.mutoscope").mkdir()
    (tmp_path / "run.mutoscope" / "ledger.json").write_text("{")
    done = mutoscope(tmp_path, "report", "run.mutoscope")
    assert done.code == 2, done.describe()
    assert "is damaged" in done.stderr
    assert "Traceback" not in done.stderr
