"""Real napari and real ImageJ are killed, and so is who sends to them: nothing is lost unsaid, and nothing is left."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from imagej_support import installation, virtual_screen
from rich.console import Console

from mutoscope.bench.viewers import run


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A screen, and a folder of ImageJ's."""
    folder: Path = tmp_path_factory.mktemp("imagej")
    with virtual_screen() as display, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", display)
        patch.setenv("FIJI_HOME", str(folder))
        patch.setenv("JAVA_TOOL_OPTIONS", "-Xmx500m")
        os.symlink(installation("central").program, folder / "ij.jar")
        yield


@pytest.mark.usefixtures("screen")
@pytest.mark.parametrize("kind", ["fiji", "napari"])
def test_kills_of_either_side_leave_nothing_and_lose_nothing_unsaid(kind: str) -> None:
    """Two viewers and two senders, as `mutoscope bench viewers --only` does twenty."""
    report = run(quick=True, kills=4, seed=3, only=kind, console=Console(file=io.StringIO()))
    judged = [result for result in report.results if result.passed is not None]
    assert len(judged) == 3
    assert all(result.passed for result in judged), (report.to_markdown(), report.notes)
    assert "killed: 2 viewers and 2 senders" in report.notes
