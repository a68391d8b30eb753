"""The page of a viewer: layers that come, change and go, served from a thread of its own to whoever has the address."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.roi import Roi
from mutoscope.runtime.page import address_of, listen
from mutoscope.runtime.spec import PageSpec
from mutoscope.viewers.browser.layers import (
    LayerPast,
    form_of,
    layer_hello,
    plane_rois,
    roi_hello,
    size_of,
    windows_hello,
)
from mutoscope.viewers.browser.layers import label as label_of
from mutoscope.viewers.model import ImageLayer, RoiLayer
from mutoscope.viewers.page import messages as m
from mutoscope.viewers.page.access import Access
from mutoscope.viewers.page.hello import stream_hello, version
from mutoscope.viewers.page.serving import serve_until
from mutoscope.viewers.page.sessions import Sessions
from mutoscope.viewers.page.settings import LEASE_S
from mutoscope.viewers.page.site import Site
from mutoscope.viewers.page.streams import PageStream, StreamForm
from mutoscope.viewers.page.tables import TableDesk

__all__ = ["ViewerPage"]

HOST = "127.0.0.1"
START_S = 30.0
CALL_S = 10.0
HELLO_S, NEWS_S = 0.25, 0.1
"""At most so often is said what layers there are, and which planes came."""

_Value = TypeVar("_Value")


class ViewerPage:
    """Serves layers. Its methods may be called from any thread but its own.

    Parameters
    ----------
    name : str
        Of the viewer.
    on_failure : callable()
        Called in the page's thread if it ends by an error, which is in `failure` then.

    Raises
    ------
    ConfigError
        If nothing can listen on this computer.
    """

    def __init__(self, name: str, on_failure: Callable[[], None]) -> None:
        self._name = name
        self._on_failure = on_failure
        self._listener = listen(HOST, 0, f"the page of {name}")
        self._token = secrets.token_urlsafe(32)
        self.url = f"{address_of(PageSpec(worker='', host=HOST), self._listener.getsockname()[1])}?token={self._token}"
        """The address, with the token."""
        self.failure: BaseException | None = None
        self._layers: dict[str, ImageLayer | RoiLayer] = {}
        self._news: dict[str, set[tuple[str, ...]] | None] = {}
        self._lock = threading.Lock()
        self._streams: dict[str, PageStream] = {}
        self._pasts: dict[str, LayerPast] = {}
        self._shown: dict[str, ImageLayer | RoiLayer] = {}
        self._said: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
        self._said_at = 0.0
        self._due: dict[str, asyncio.TimerHandle] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._sessions: Sessions | None = None
        self._left_at = time.monotonic()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mutoscope-page", daemon=True)

    # -- from other threads

    def start(self) -> None:
        """Serve from now on; raises what prevents it."""
        self._thread.start()
        if not self._ready.wait(START_S):
            raise TimeoutError(f"the page of {self._name} did not begin to serve within {START_S:g} s")
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """Say goodbye to everyone, and end. Twice is fine."""
        loop, over = self._loop, self._over
        if loop is not None and over is not None and self._thread.is_alive():
            loop.call_soon_threadsafe(over.set)
        if self._thread.is_alive():
            self._thread.join()
        self._listener.close()

    def show(self, layer: ImageLayer | RoiLayer) -> None:
        """Show a layer that is new or has changed."""
        planes: set[tuple[str, ...]] | None = None
        if isinstance(layer, ImageLayer) and not layer.moved:
            planes = {
                tuple(label_of(values[at]) for values, at in zip(layer.values, index, strict=True)) for index in layer.changed
            }
        with self._lock:
            self._layers[layer.id] = layer
            known = self._news.setdefault(layer.id, set())
            self._news[layer.id] = None if planes is None or known is None else known | planes
        self._wake()

    def remove(self, layer_id: str) -> None:
        """Take a layer away; one that was never shown, too."""
        with self._lock:
            self._layers.pop(layer_id, None)
            self._news.pop(layer_id, None)
        self._wake()

    @property
    def clients(self) -> int:
        """How many browsers are connected."""
        return 0 if self._sessions is None else len(self._sessions.clients)

    def unseen_s(self) -> float:
        """For how long no browser has been connected."""
        if self.clients:
            self._left_at = time.monotonic()
        return time.monotonic() - self._left_at

    def picture(self, timeout_s: float) -> NDArray[np.uint8] | None:
        """Return what the browser has on its screen that was heard last, shape (y, x, 3); None if none tells it in time."""
        sessions = self._sessions
        if sessions is None or not sessions.clients:
            return None
        return self._call(lambda: self._picture(sessions, timeout_s), timeout_s + CALL_S)

    async def _picture(self, sessions: Sessions, timeout_s: float) -> NDArray[np.uint8] | None:
        self._tell()
        return await sessions.onlookers.picture(timeout_s)

    def _call(self, make: Callable[[], Coroutine[Any, Any, _Value]], timeout_s: float) -> _Value:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(timeout_s)

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None and self._thread.is_alive():
            loop.call_soon_threadsafe(self._later, "news", NEWS_S)

    # -- its thread

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - the viewer ends with it, and says why
            self.failure = error
            self._on_failure()
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        sessions = Sessions(
            self,
            [],
            self._pasts,
            TableDesk(_no_table),
            lease_s=LEASE_S,
            limits={"history_bytes": 0},
            plane_rois=self._plane_rois,
        )
        site = Site(Access(HOST, "", self._token, secrets.token_bytes(32)), sessions.connect)
        self._sessions = sessions
        await serve_until(self._over, site, sessions, self._listener, self._ready.set, "the viewer was closed")

    def _later(self, what: str, delay_s: float) -> None:
        """Have what is new told in a moment, many changes at once."""
        if what not in self._due:
            assert self._loop is not None
            self._due[what] = self._loop.call_later(delay_s, self._told, what)

    def _told(self, what: str) -> None:
        del self._due[what]
        self._tell()

    def _tell(self) -> None:
        """Tell everyone what has come."""
        sessions = self._sessions
        assert sessions is not None
        with self._lock:
            self._shown, news, self._news = dict(self._layers), self._news, {}
        others = self._bring(sessions)
        wait_s = 0.0 if others else self._said_at + HELLO_S - time.monotonic()
        if wait_s > 0:
            self._later("hello", wait_s)
        else:
            self._said_at = time.monotonic()
            said = windows_hello(list(self._shown.values())), [self._stream_hello(each) for each in self._streams.values()]
            if said != self._said:
                self._said = said
                sessions.hello_changed()
        if news:
            sessions.onlookers.planes_changed(news)

    def _bring(self, sessions: Sessions) -> bool:
        """Have a stream for each layer of images, and for ROIs that lie on none; returns whether they are others now."""
        images = [layer for layer in self._shown.values() if isinstance(layer, ImageLayer)]
        housed = {rois.id for layer in images for rois in _over(layer, self._shown)}
        ordered = sorted(
            [layer for layer in self._shown.values() if layer.id not in housed],
            key=lambda each: (each.window, each.window_id, each.order),
        )
        before, self._streams = self._streams, {}
        numbers = itertools.filterfalse({stream.index for stream in before.values()}.__contains__, itertools.count())
        for layer in ordered:
            form = form_of(layer) if isinstance(layer, ImageLayer) else StreamForm(size_of(layer), "uint8")
            stream = before.get(layer.id)
            if stream is None:
                stream = PageStream(layer.id, next(numbers), form, on_histogram=lambda *_: None, on_form=lambda _: None)
            stream.form = form
            self._streams[layer.id] = stream
        for layer in images:
            self._pasts.setdefault(layer.id, LayerPast(layer)).layer = layer
        for gone in self._pasts.keys() - {layer.id for layer in images}:
            del self._pasts[gone]
        others = list(before) != list(self._streams)
        if others:
            sessions.set_streams(list(self._streams.values()))
        return others

    def _stream_hello(self, stream: PageStream) -> dict[str, Any]:
        layer = self._shown[stream.name]
        own = layer_hello(layer, _over(layer, self._shown)) if isinstance(layer, ImageLayer) else roi_hello(layer)
        fixed: dict[str, Any] = {"driver": None, "history": "dataset", "settings": [], "rate_hz": None}
        return {**stream_hello(stream), **fixed, **own}

    def _plane_rois(self, layer: str, at: Mapping[str, str]) -> dict[str, Any]:
        found = self._layers.get(layer)
        if not isinstance(found, RoiLayer):
            raise LookupError(f"there is no layer of ROIs {layer!r}")
        return plane_rois(found, at)

    # -- what it shows

    def hello(self) -> dict[str, Any]:
        """The protocol's ``hello``."""
        windows, streams = self._said
        channels = {layer.components.get("channel") for layer in self._shown.values()}
        return {
            "version": version(),
            "mode": "dataset",
            "scope": self._name,
            "record": None,
            "streams": streams,
            "windows": windows,
            "tables": [],
            "commands": [],
            "workers": [],
            "display": {"source": "layer"} if len(channels) > 1 else {},
        }

    def state(self) -> dict[str, Any]:
        """The protocol's ``state``."""
        self._left_at = time.monotonic()  # this is told as long as somebody is there
        now = {"utc_ms": time.time_ns() / 1e6, "monotonic_ms": time.monotonic_ns() / 1e6}
        return {**now, "streams": {name: {"history": None} for name in self._streams}, "page": {}}

    def stored_rows(self, table: str) -> NDArray[Any]:
        """There are no tables."""
        found: NDArray[Any] = _no_table(table)
        return found

    async def perform(self, who: str, message: m.FromClient) -> Any:
        """Who looks changes nothing."""
        raise m.Refused("role", f"{self._name} is a viewer: {type(message).__name__} does nothing to it ({who})")

    def roi_changed(self, stream: str, roi: Roi | None, roi_id: str, origin: str) -> None:
        """There is nobody to tell."""


def _over(layer: ImageLayer, layers: Mapping[str, ImageLayer | RoiLayer]) -> list[RoiLayer]:
    """Return the layers of ROIs that lie on a layer of images: those of its window that differ in no component."""
    return [
        rois
        for rois in layers.values()
        if isinstance(rois, RoiLayer)
        and rois.window_id == layer.window_id
        and all(layer.components.get(name, value) == value for name, value in rois.components.items())
    ]


def _no_table(name: str) -> Any:
    raise m.Refused("unknown", f"there is no table {name!r}")
