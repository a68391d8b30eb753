"""Whole scopes: nothing of them is left after a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mutoscope.bench.faults import left_behind, marked_run


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[str]:
    """Mark what the test starts, and fail when any of it is left after its end."""
    with marked_run() as mark:
        yield mark
    assert left_behind(mark, timeout_s=10.0) == []
