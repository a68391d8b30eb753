"""The bench of killed writers, a few kills: Mutoscope loses nothing, and the bench sees a loss where there is one."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from judged import missed

from mutoscope.bench import crash
from mutoscope.bench.harness import Report
from mutoscope.bench.streams import WAYS, Way, read
from mutoscope.model._faults import VARIABLE
from mutoscope.model.errors import ConfigError

OWN = ("OME-Zarr 0.5", "OME-Zarr 0.5, blosc-lz4", "OME-TIFF")
PEERS = ("tifffile, contiguous", "tensorstore, zarr3 sharded", "acquire-zarr", "ome-writers, tensorstore")


def chosen(*labels: str) -> list[Way]:
    return [way for way in WAYS if way.label in labels]


def rows(report: Report) -> dict[str, tuple[str, ...]]:
    (table,) = report.tables
    return {row[0].strip("*"): row for row in table.rows}


def value(report: Report, name: str) -> float:
    (result,) = [result for result in report.results if result.name == name]
    return result.value.median  # type: ignore[union-attr]


def test_mutoscope_loses_nothing(tmp_path: Path) -> None:
    report = crash.run(kills=2, ways=chosen(*OWN), folder=tmp_path)
    assert missed(report) == []
    assert value(report, "Mutoscope: writers killed") == 2 * len(OWN)
    for label in OWN:
        assert value(report, f"{label}: frames acknowledged before 2 kills") >= 1
    assert value(report, "writers that do not store a stream that is closed in order") == 0
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_that_lost_frames_is_kept_with_what_is_known(tmp_path: Path) -> None:
    lossy = dataclasses.replace(*chosen("tifffile, contiguous"), packages=())
    report = crash.run(kills=crash.MAX_KEPT + 1, seed=11, ways=[lossy], folder=tmp_path)
    assert not report.passed
    [keep] = tmp_path.iterdir()
    kept = list(keep.iterdir())
    assert len(kept) == crash.MAX_KEPT
    for place in kept:
        assert str(place) in report.to_markdown()
        told = (place / "what-happened.txt").read_text()
        assert "seed: 11\n" in told
        assert (place / lossy.file).stat().st_size > 0


def test_what_a_reader_says_of_a_data_set_that_it_cannot_open_is_kept(tmp_path: Path) -> None:
    closed_to_zarr = dataclasses.replace(*chosen("OME-TIFF"), reader="zarr")
    report = crash.run(quick=True, seed=12, ways=[closed_to_zarr], folder=tmp_path)
    assert not report.passed
    [place] = next(tmp_path.iterdir()).iterdir()
    told = (place / "what-happened.txt").read_text()
    assert "Traceback (most recent call last)" in told
    assert "open_array" in told
    assert "1 data sets cannot be opened" in rows(report)["OME-TIFF"][3]


def test_the_peers_meet_the_same(tmp_path: Path) -> None:
    report = crash.run(quick=True, ways=chosen(*PEERS), folder=tmp_path)
    found = rows(report)
    assert set(found) == set(PEERS)
    assert value(report, "writers that do not store a stream that is closed in order") == 0
    assert ", in 1 of 1 kills" in found["tifffile, contiguous"][3], "a loss that is known is seen"


def test_a_peer_that_is_not_installed_is_a_row_that_says_so(tmp_path: Path) -> None:
    missing = dataclasses.replace(WAYS[-1], modules=("mutoscope_no_such",), packages=("no-such",))
    report = crash.run(quick=True, ways=[missing], folder=tmp_path)
    assert "not installed: `pip install no-such`" in report.to_markdown()


def test_a_name_that_no_writer_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="no writer has 'paper'"):
        crash.run(only="paper")


@pytest.mark.parametrize("codec", ["none", "zlib", "zstd"])
@pytest.mark.parametrize(
    ("point", "pages"), [("tiff.append.page_written", 3), ("tiff.append.linked", 4), ("tiff.append.counted", 4)]
)
def test_a_page_that_is_linked_and_not_counted_hides_no_other(tmp_path: Path, codec: str, point: str, pages: int) -> None:
    [way] = [way for way in WAYS if way.name == "OME-TIFF" and way.codec == codec]
    path = tmp_path / way.file
    program = (
        "import sys, pathlib; from mutoscope.bench.streams import WAYS, frame_of\n"
        "[way] = [way for way in WAYS if way.label == sys.argv[1]]\n"
        "stream = way.open(pathlib.Path(sys.argv[2]), (16, 24))\n"
        "for number in range(9): stream.append(frame_of(number, (16, 24)))\n"
    )
    environment = {**os.environ, VARIABLE: f"{point}:3"}
    done = subprocess.run([sys.executable, "-c", program, way.label, path], env=environment, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    found = read(way, path, (16, 24), 9)
    assert (found.problem, found.trace) == ("", "")
    assert found.declared == pages
    assert found.right == set(range(pages))
