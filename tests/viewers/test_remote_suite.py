"""A viewer does from afar what every viewer has to, but that it is not started by who sends."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from remote_support import Users, users_in

from mutoscope.frames import _os
from mutoscope.viewers.display import Display
from mutoscope.viewers.launch import find
from mutoscope.viewers.sink import ViewerSink, open_viewer, progress
from mutoscope.viewers.suite import PATIENCE_S, ViewerSuite, name_of, plane_of
from polling import until


class TestFromAfar(ViewerSuite):
    kind = "model"

    @pytest.fixture
    def users(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Users]:
        with users_in(tmp_path, monkeypatch) as found:
            yield found

    @pytest.fixture
    def open_sink(self, users: Users) -> Iterator[Callable[..., ViewerSink]]:
        with contextlib.ExitStack() as stack:
            addresses: dict[str, str] = {}

            def make(name: str = "suite", **options: Any) -> ViewerSink:
                if name not in addresses:
                    addresses[name] = users.listen(self.kind, name)
                given = {"filenames": "imagexpress", "timeout_s": PATIENCE_S, "compression": "lz4", **options}
                sink = open_viewer(self.kind, addresses[name], **given)
                stack.callback(sink.close)
                return sink

            yield make

    def test_it_is_attached_to_by_name_and_outlives_its_starter(self, open_sink: Callable[..., ViewerSink]) -> None:
        first = open_sink("left")
        first.save(plane_of(1), name_of(), source="raw", until="displayed")
        first.close()
        again, other = open_sink("left"), open_sink("right")
        assert (again.started, other.started) == (False, False)
        assert [layer.name for layer in again.layers()] == ["raw"]
        assert other.layers() == []
        until(lambda: [sender.connected for sender in progress("left").senders] in ([False, True], [True, False]))

    def test_a_viewer_that_is_killed_is_started_again_and_all_is_accounted_for(
        self, open_sink: Callable[..., ViewerSink]
    ) -> None:
        """It is started again by a person, in `test_remote_link.py`."""
        sink = open_sink(display=Display(**self.stack))
        viewer = find("suite", self.kind)
        assert viewer is not None
        for number in range(20):
            sink.save(plane_of(number), name_of(z=number + 1), source="raw")
            if number == 10:
                os.kill(viewer.pid, signal.SIGKILL)
        until(lambda: sink.progress().state == "not connected")
        account = sink.wait(PATIENCE_S).images
        assert account.sent + account.dropped == 20
        assert account.sent == account.displayed + account.failed == account.displayed + len(sink.progress().failures)

    def test_nothing_is_left_of_it(self, open_sink: Callable[..., ViewerSink], tmp_path: Path) -> None:
        sink = open_sink()
        sink.save(plane_of(1), name_of(), until="displayed")
        viewer = find("suite", self.kind)
        assert viewer is not None
        sink.close(leave_open=False)
        until(lambda: (facts := _os.process_facts(viewer.pid)) is None or facts.state == "Z")
        assert [file.name for file in (tmp_path / "mutoscope").iterdir()] == ["viewer-suite.log"]
