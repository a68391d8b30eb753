"""The page's bench, once and short: what must never fail is judged, times are not."""

from __future__ import annotations

from pathlib import Path

from judged import missed

from mutoscope.bench import page


def test_page_bench_runs_and_loses_nothing(tmp_path: Path) -> None:
    report = page.run(quick=True, folder=tmp_path)
    assert missed(report) == []
    assert sum(result.counts for result in report.results) >= 5
