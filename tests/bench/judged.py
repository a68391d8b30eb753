"""What a bench's report says of its bounds, for tests that tell which one was missed."""

from __future__ import annotations

from mutoscope.bench.harness import Report

__all__ = ["missed"]


def missed(report: Report) -> list[str]:
    """Return the lines of the report with a bound that was missed, and with them what it notes; nothing if none was."""
    lines = [line for line in report.to_markdown().splitlines() if "(missed)" in line]
    return [*lines, *report.notes] if lines else []
