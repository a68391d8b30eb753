"""The bench of viewers runs, and what must never fail does not: nothing is lost, left or brought down."""

from __future__ import annotations

import io

from judged import missed
from rich.console import Console

from mutoscope.bench.viewers import run


def test_nothing_is_lost_or_left() -> None:
    report = run(quick=True, kills=10, seed=5, console=Console(file=io.StringIO()))
    assert missed(report) == []
    assert sum(result.passed is not None for result in report.results) == 7
