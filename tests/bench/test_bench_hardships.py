"""Hardships of viewers beside the scheme of a block for each image: Mutoscope says what is lost and leaves nothing."""

from __future__ import annotations

import io

from judged import missed
from rich.console import Console

from mutoscope.bench.viewers import run


def test_a_killed_viewer_loses_nothing_unsaid_and_a_killed_sender_leaves_nothing() -> None:
    report = run(quick=True, only="hardships", console=Console(file=io.StringIO()))
    assert missed(report) == []
    assert sum(result.passed is not None for result in report.results) == 5
