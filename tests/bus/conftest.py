"""Fixtures of the bus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bus_support import HubThread

from mutoscope.bus.exchange import Exchange


@pytest.fixture
def hub() -> Iterator[HubThread]:
    """A running hub; its worker processes end with it."""
    running = HubThread()
    yield running
    running.close()


@pytest.fixture
def no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything goes through the hub, as for processes that take no lines."""
    monkeypatch.setattr(Exchange, "offer", lambda *_: None)


@pytest.fixture(params=["lines", "hub"])
def way(request: pytest.FixtureRequest) -> str:
    """Once on lines, once through the hub."""
    if request.param == "hub":
        request.getfixturevalue("no_lines")
    return str(request.param)
