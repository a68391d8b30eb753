"""A stored data set in the browser: the same page and protocol, with no scope behind it."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mutoscope import storage
from mutoscope.model.errors import ConfigError
from mutoscope.model.roi import Roi
from mutoscope.runtime.page import address_of
from mutoscope.runtime.spec import PageSpec
from mutoscope.viewers.page import messages as m
from mutoscope.viewers.page.access import Access
from mutoscope.viewers.page.hello import stream_hello, version
from mutoscope.viewers.page.past import Index, Past, StoredPast
from mutoscope.viewers.page.sessions import Sessions
from mutoscope.viewers.page.settings import PageSettings
from mutoscope.viewers.page.site import Site
from mutoscope.viewers.page.streams import PageStream, StreamForm
from mutoscope.viewers.page.tables import TableDesk

__all__ = ["DatasetPage"]


class DatasetPage:
    """Serves a data set until it is told to stop. Whoever has the token looks; nothing can be changed.

    Parameters
    ----------
    path : path
        An OME-Zarr recording or an OME-TIFF, which may still be written.
    settings : PageSettings
        Where to listen.

    Raises
    ------
    DatasetNotFoundError, DatasetError
        If there is none, or it cannot be read.
    ConfigError
        If it is a plate, or nothing can listen there.
    """

    def __init__(self, path: Path, settings: PageSettings) -> None:
        described = storage.info(path)
        if "cameras" not in described:
            raise ConfigError(f"{path} is not a recording: the page shows recordings; open a plate with napari or Fiji")
        self._path = path
        self._settings = settings
        self._described = described
        self._pasts: dict[str, StoredPast] = {}
        self._indices: dict[str, Index] = {}
        forms = []
        for name in described["cameras"]:
            past = StoredPast(path, name if len(described["cameras"]) > 1 else None, "dataset")
            self._pasts[name] = past
            forms.append(StreamForm(*past.form()))
            self._indices[name] = past.index()
        self._streams = [
            PageStream(name, index, form, on_histogram=lambda *_: None, on_form=lambda _: None)
            for index, (name, form) in enumerate(zip(described["cameras"], forms, strict=True))
        ]
        self._listener = _listen(settings)
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
        pasts: dict[str, Past] = dict(self._pasts)
        limits = {"history_bytes": 0}
        sessions = Sessions(self, self._streams, pasts, TableDesk(_no_table), lease_s=self._settings.lease_s, limits=limits)
        rules = Access(self._settings.host, "", self._token, secrets.token_bytes(32), self._settings.public_url)
        site = Site(rules, sessions.connect)
        await site.start(self._listener)
        running = asyncio.ensure_future(sessions.run())
        try:
            started()
            await asyncio.wait([running, asyncio.ensure_future(over.wait())], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        finally:
            running.cancel()
            await sessions.ended({"reason": "stopped", "message": "", "errors": [], "dropped": {}})
            await site.stop("the page was closed")
            sessions.close()

    # -- what it shows

    def hello(self) -> dict[str, Any]:
        """The protocol's ``hello``."""
        images: dict[str, dict[str, Any]] = {image["camera"]: image for image in self._described["images"]}
        streams = []
        for stream in self._streams:
            image = images.get(stream.name, {})
            streams.append(
                {
                    **stream_hello(stream),
                    "rate_hz": image.get("rate_hz") or image.get("nominal_rate_hz"),
                    "pixel_size_um": image.get("pixel_size_um"),
                    "driver": None,
                    "history": "dataset",
                    "settings": [],
                }
            )
        return {
            "version": version(),
            "mode": "dataset",
            "scope": self._path.name,
            "record": {"path": str(self._path.absolute()), "folder": None},
            "streams": streams,
            "tables": [],
            "commands": [],
            "workers": [],
            "display": {} if self._settings.display is None else self._settings.display.to_dict(),
        }

    def state(self) -> dict[str, Any]:
        """The protocol's ``state``."""
        streams = {}
        for name, index in self._indices.items():
            history = {"first_id": index.first_id, "last_id": index.last_id, "frames": index.frames, "bytes": 0}
            streams[name] = {"history": {"kind": "dataset", **history}}
        return {"utc_ms": time.time_ns() / 1e6, "monotonic_ms": time.monotonic_ns() / 1e6, "streams": streams, "page": {}}

    async def perform(self, who: str, message: m.FromClient) -> Any:
        """Nothing can be done to a data set."""
        raise m.Refused("role", f"{self._path.name} is a stored data set: {type(message).__name__} does nothing to it ({who})")

    def roi_changed(self, stream: str, roi: Roi | None, roi_id: str, origin: str) -> None:
        """There is nobody to tell."""


def _listen(settings: PageSettings) -> socket.socket:
    try:
        return socket.create_server((settings.host, settings.port), backlog=64)
    except OSError as error:
        raise ConfigError(
            f"the page cannot listen on {settings.host}, port {settings.port}: {error.strerror}; choose another with --port"
        ) from error


def _no_table(name: str) -> Any:
    raise m.Refused("unknown", f"there is no table {name!r}")
