"""A stored data set in the browser: the same page and protocol, with no scope behind it."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mutoscope.model.roi import Roi
from mutoscope.runtime.page import address_of, listen
from mutoscope.runtime.spec import PageSpec
from mutoscope.viewers.page import messages as m
from mutoscope.viewers.page.access import Access
from mutoscope.viewers.page.exhibits import exhibit_of
from mutoscope.viewers.page.hello import stream_hello, version
from mutoscope.viewers.page.serving import serve_until
from mutoscope.viewers.page.sessions import Sessions
from mutoscope.viewers.page.settings import PageSettings
from mutoscope.viewers.page.site import Site
from mutoscope.viewers.page.streams import PageStream
from mutoscope.viewers.page.tables import TableDesk

__all__ = ["DatasetPage"]


class DatasetPage:
    """Serves a data set until it is told to stop. Whoever has the token looks; nothing can be changed.

    Parameters
    ----------
    path : path
        An OME-Zarr recording, an OME-TIFF or a plate, which may still be written.
    settings : PageSettings
        Where to listen.

    Raises
    ------
    DatasetNotFoundError, DatasetError
        If there is none, or it cannot be read.
    ConfigError
        If it is something else, or nothing can listen there.
    """

    def __init__(self, path: Path, settings: PageSettings) -> None:
        self._path = path
        self._settings = settings
        self._exhibit = exhibit_of(path)
        self._tables = self._exhibit.tables
        self._streams = [
            PageStream(name, index, form, on_histogram=lambda *_: None, on_form=lambda _: None)
            for index, (name, form) in enumerate(self._exhibit.forms.items())
        ]
        self._listener = listen(settings.host, settings.port, "the page")
        self._token = secrets.token_urlsafe(32)
        spec = PageSpec(worker="", host=settings.host, port=settings.port, public_url=settings.public_url)
        self.url = f"{address_of(spec, self._listener.getsockname()[1])}?token={self._token}"
        """The address, with the token."""

    def serve(self, started: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGINT or SIGTERM comes; `started` is called once clients can connect."""
        try:
            asyncio.run(self._serve(started))
        finally:
            self._listener.close()

    async def _serve(self, started: Callable[[], None]) -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, over.set)
        limits = {"history_bytes": 0}
        sessions = Sessions(
            self, self._streams, self._exhibit.pasts, TableDesk(_no_table), lease_s=self._settings.lease_s, limits=limits
        )
        rules = Access(self._settings.host, "", self._token, secrets.token_bytes(32), self._settings.public_url)
        site = Site(rules, sessions.connect)
        await serve_until(over, site, sessions, self._listener, started, "the page was closed")

    # -- what it shows

    def hello(self) -> dict[str, Any]:
        """The protocol's ``hello``."""
        fixed: dict[str, Any] = {"driver": None, "history": "dataset", "settings": []}
        display = {} if self._settings.display is None else self._settings.display.to_dict()
        more = self._exhibit.more()
        return {
            "version": version(),
            "mode": "dataset",
            "scope": self._path.name,
            "record": {"path": str(self._path.absolute()), "folder": None, "subfolder": ""},
            "streams": [{**stream_hello(stream), **self._exhibit.about(stream.name), **fixed} for stream in self._streams],
            "tables": [] if self._tables is None else self._tables.hello(),
            "commands": [],
            "workers": [],
            **more,
            "display": {**more.get("display", {}), **display},
        }

    def state(self) -> dict[str, Any]:
        """The protocol's ``state``."""
        streams = {stream.name: {"history": self._exhibit.history(stream.name)} for stream in self._streams}
        return {"utc_ms": time.time_ns() / 1e6, "monotonic_ms": time.monotonic_ns() / 1e6, "streams": streams, "page": {}}

    def stored_rows(self, table: str) -> NDArray[Any]:
        """Open the stored rows of a table."""
        return _no_table(table) if self._tables is None else self._tables.rows(table)

    async def perform(self, who: str, message: m.FromClient) -> Any:
        """Nothing can be done to a data set."""
        raise m.Refused("role", f"{self._path.name} is a stored data set: {type(message).__name__} does nothing to it ({who})")

    def roi_changed(self, stream: str, roi: Roi | None, roi_id: str, origin: str) -> None:
        """There is nobody to tell."""


def _no_table(name: str) -> Any:
    raise m.Refused("unknown", f"there is no table {name!r}")
