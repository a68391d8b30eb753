"""The page as a worker of its scope."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mutoscope.bus import handles
from mutoscope.runtime import Restart, RoiList, Worker, control

if TYPE_CHECKING:
    from mutoscope.viewers.page.scope_page import ScopePage

__all__ = ["PageWorker"]


class PageWorker(Worker):
    """Serves the page of the scope that it is part of. It begins after its set-up, so that no start waits for it."""

    kind = "page"
    restart = Restart(limit=20, within_s=60.0)

    def setup(self) -> None:
        """Hear what a predecessor has left of the ROIs, as `left`."""
        self._page: ScopePage | None = None
        self.left: RoiList | None = None
        self.subscribe(RoiList, self._hear_rois)

    def _hear_rois(self, event: RoiList) -> None:
        self.left = event
        if self._page is not None:
            self._page.hear_rois(event)

    def step(self) -> None:
        """Serve for a moment, and until something comes from the scope."""
        if self._page is None:
            from mutoscope.viewers.page.scope_page import ScopePage

            self._page = ScopePage(self, self._host_or_raise())
        self._page.turn()

    @handles(control.PageReply, delivery="supervisor")
    def hear_reply(self, command: control.PageReply) -> None:
        """Hear what became of a client's command."""
        if self._page is not None:
            self._page.hear_reply(command)

    def teardown(self) -> None:
        """Say goodbye to all clients."""
        if self._page is not None:
            self._page.close()
