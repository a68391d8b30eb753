"""Folders above a data set are made; where several were missing, whoever records is told which, and on what disk they are."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from lab import camera

import mutoscope as ms


def record(path: Path | bool, caplog: pytest.LogCaptureFixture) -> tuple[list[str], str]:
    """Record a frame; returns the warnings that the program got, and the log of the run."""
    caplog.clear()
    with caplog.at_level(logging.WARNING), ms.Scope(camera=camera(), record=path, reserve_bytes=0) as scope:
        scope.acquire(frames=1)
    assert scope.folder is not None
    warned = [entry.getMessage() for entry in caplog.records if "made the folders" in entry.getMessage()]
    return warned, (scope.folder / "scope.log").read_text(encoding="utf-8")


def test_several_missing_folders_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "dta" / "night" / "run.ome.zarr"
    warned, log = record(path, caplog)
    assert len(warned) == 1
    assert warned[0].startswith(
        f"made the folders {tmp_path}/dta, {tmp_path}/dta/night, which were missing, on the disk mounted at "
    )
    assert "bytes are free: if one of them was to be a disk, it is not mounted, or its name is another" in warned[0]
    assert warned[0] in log
    assert f"{path} is on the disk mounted at " in log


def test_one_missing_folder_is_nothing_special(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for place in (tmp_path / "run.ome.zarr", tmp_path / "today" / "run.ome.zarr"):
        warned, log = record(place, caplog)
        assert not warned
        assert "made the folders" not in log
        assert f"{place} is on the disk mounted at " in log


def test_the_place_of_its_own_is_nothing_special(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    warned, log = record(True, caplog)
    assert not warned
    assert "is on the disk mounted at " in log
