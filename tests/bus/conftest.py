"""Fixtures of the bus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bus_support import HubThread


@pytest.fixture
def hub() -> Iterator[HubThread]:
    """A running hub; its worker processes end with it."""
    running = HubThread()
    yield running
    running.close()
