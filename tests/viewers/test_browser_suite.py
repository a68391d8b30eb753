"""The viewer in the browser passes what every viewer has to; what it holds is read in a real Chromium that is connected."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browser_sink import BrowserSink, opener
from browser_support import chromium

from mutoscope.viewers.sink import ViewerSink, open_viewer
from mutoscope.viewers.suite import PATIENCE_S, ViewerSuite


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


class TestBrowser(ViewerSuite):
    kind = "browser"

    @pytest.fixture
    def open_sink(self, browser: Any) -> Iterator[Callable[..., Any]]:
        complaints: list[str] = []
        opened: list[BrowserSink] = []

        def make(name: str = "suite", **options: Any) -> ViewerSink:
            return open_viewer(self.kind, name, **{"filenames": "imagexpress", "timeout_s": PATIENCE_S, **options})

        with contextlib.ExitStack() as stack:
            open_one = opener(make, browser, complaints, opened)

            def noted(*arguments: Any, **options: Any) -> BrowserSink:
                sink = open_one(*arguments, **options)
                stack.callback(sink.close, leave_open=False)
                return sink

            yield noted
        assert complaints == []
