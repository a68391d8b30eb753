"""The bench of killed writers, a few kills: Mutoscope loses nothing, and the bench sees a loss where there is one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mutoscope.bench import crash
from mutoscope.bench.harness import Report
from mutoscope.bench.streams import WAYS, Way
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
    assert report.passed, report.tables
    assert value(report, "Mutoscope: writers killed") == 2 * len(OWN)
    assert value(report, "writers that do not store a stream that is closed in order") == 0
    assert list(tmp_path.iterdir()) == []


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
