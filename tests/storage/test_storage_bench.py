"""The bench of recording runs as an ordinary test, timing off, and measures what it says."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from mutoscope.bench import storage


def test_the_bench_runs_and_leaves_nothing(tmp_path: Path) -> None:
    report = storage.run(quick=True, folder=tmp_path, console=Console(file=io.StringIO()))
    assert [result.name for result in report.results if result.name.endswith((": recording", ": OME-TIFF"))] == [
        "512² uint16: recording",
        "512² uint16: OME-TIFF",
        "2048² uint16: recording",
        "2048² uint16: OME-TIFF",
    ]
    assert all(result.passed is None for result in report.results)
    assert list(tmp_path.iterdir()) == []
    assert '"bench":"storage"' in report.to_json()
