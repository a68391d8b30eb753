"""One stream of the page: who wants which part of it, and what each client has got."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
from numpy.typing import NDArray

from mutoscope.frames import Frame
from mutoscope.viewers.live import LiveFeed
from mutoscope.viewers.page.past import MemoryPast
from mutoscope.viewers.page.pixels import Histogram, Stamp, View, encode_frame, histogram

__all__ = ["CREDIT", "PageStream", "StreamForm", "Taker", "stamp_of"]

CREDIT = 4
"""Most frames that a client may ask for ahead."""
HISTOGRAM_S = 0.25
HISTORY_S = 0.1


class StreamForm(msgspec.Struct, frozen=True):
    """What the frames of a stream are."""

    shape: tuple[int, int]
    dtype: str


class Taker:
    """What one client wants of one stream. All fields are the stream's, under its lock.

    Parameters
    ----------
    offer : callable(bytearray)
        Takes a frame message, from any thread; it says by :meth:`PageStream.taken` when the next one may come.
    """

    def __init__(self, offer: Callable[[bytearray], None]) -> None:
        self.offer = offer
        self.view: View | None = None
        self.period_s = 0.0
        self.credit = 0
        self.due = 0.0
        self.sent_id = 0
        self.anew = False
        self.waiting = False
        self.histogram = False

    def ready(self, now: float) -> bool:
        """Whether a frame may be sent now."""
        return self.view is not None and self.credit > 0 and not self.waiting and self.due <= now


class PageStream:
    """The consumer of a stream's feed: cuts frames for the clients that want them, and keeps some to look back at.

    Methods may be called from any thread.

    Parameters
    ----------
    name : str
        Of the camera.
    index : int
        Its number in messages.
    form : StreamForm
        What its frames are, until one comes that is different.
    history : MemoryPast, optional
        Where frames go that are not recorded.
    on_histogram : callable(name, frame_id, Histogram)
        Hears of each histogram, in the feed's thread.
    on_form : callable(name)
        Hears that frames are of another form, in the feed's thread.
    """

    def __init__(
        self,
        name: str,
        index: int,
        form: StreamForm,
        *,
        history: MemoryPast | None = None,
        on_histogram: Callable[[str, int, Histogram], None],
        on_form: Callable[[str], None],
    ) -> None:
        self.name = name
        self.index = index
        self.form = form
        self.feed: LiveFeed | None = None
        self.sent = 0
        self._history = history
        self._on_histogram = on_histogram
        self._on_form = on_form
        self._lock = threading.Lock()
        self._takers: dict[int, Taker] = {}
        self._history_due = 0.0
        self._histogram_due = 0.0

    # -- from the server

    def join(self, client: int, offer: Callable[[bytearray], None]) -> None:
        """A client has come."""
        with self._lock:
            self._takers[client] = Taker(offer)

    def leave(self, client: int) -> None:
        """A client has gone."""
        with self._lock:
            self._takers.pop(client, None)

    def set_view(self, client: int, view: View, at_most_hz: float | None) -> None:
        """A client shows another part."""
        with self._lock:
            taker = self._takers[client]
            taker.anew = taker.anew or taker.view != view
            taker.view = view
            taker.period_s = 1.0 / at_most_hz if at_most_hz else 0.0
            taker.due = min(taker.due, time.monotonic() + taker.period_s)
        self._wake()

    def add_credit(self, client: int, frames: int) -> None:
        """A client may be sent so many more frames."""
        with self._lock:
            taker = self._takers[client]
            taker.credit = min(CREDIT, taker.credit + frames)
        self._wake()

    def set_histogram(self, client: int, on: bool) -> None:
        """Whether a client wants histograms."""
        with self._lock:
            self._takers[client].histogram = on

    def taken(self, client: int) -> None:
        """What was offered last to a client is on its way: the next frame may be cut."""
        with self._lock:
            taker = self._takers.get(client)
            if taker is not None:
                taker.waiting = False
        self._wake()

    def view_of(self, client: int) -> View | None:
        """What a client shows."""
        with self._lock:
            return self._takers[client].view

    def wants_histogram(self, client: int) -> bool:
        """Whether a client wants histograms."""
        with self._lock:
            taker = self._takers.get(client)
            return taker is not None and taker.histogram

    @property
    def viewers(self) -> int:
        """Clients that show it."""
        with self._lock:
            return sum(taker.view is not None for taker in self._takers.values())

    def _wake(self) -> None:
        if self.feed is not None:
            self.feed.wake()

    # -- from the feed

    def wanted_at(self) -> float | None:
        """When the next frame is wanted."""
        with self._lock:
            due = [
                taker.due
                for taker in self._takers.values()
                if taker.view is not None and taker.credit > 0 and not taker.waiting
            ]
        if self._history is not None:
            due.append(self._history_due)
        return min(due, default=None)

    def wants_again(self, frame_id: int) -> bool:
        """Whether a client has credit and has not got this frame, or not the part that it shows now."""
        now = time.monotonic()
        with self._lock:
            return any(self._lacks(taker, frame_id, now) for taker in self._takers.values())

    @staticmethod
    def _lacks(taker: Taker, frame_id: int, now: float) -> bool:
        return taker.ready(now) and (taker.anew or taker.sent_id != frame_id)

    def take(self, frame: Frame, array: NDArray[Any]) -> None:
        """Cut a frame for those that want it."""
        form = StreamForm((int(array.shape[0]), int(array.shape[1])), array.dtype.name)
        if form != self.form:
            self.form = form
            self._on_form(self.name)
        stamp, now = stamp_of(frame), time.monotonic()
        with self._lock:
            takers = [taker for taker in self._takers.values() if self._lacks(taker, stamp.frame_id, now)]
            counted = any(taker.histogram for taker in self._takers.values())
        for taker in takers:
            view = taker.view
            assert view is not None
            skipped = stamp.frame_id - taker.sent_id - 1 if taker.sent_id else 0
            message = encode_frame(array, stamp, view, stream=self.index, skipped=skipped)
            with self._lock:
                taker.credit -= 1
                taker.sent_id = stamp.frame_id
                taker.anew = taker.view != view
                taker.due = now + taker.period_s
                taker.waiting = True
                self.sent += 1
            taker.offer(message)
        if self._history is not None and now >= self._history_due:
            self._history_due = now + HISTORY_S
            self._history.keep(array, stamp)
        if counted and now >= self._histogram_due:
            self._histogram_due = now + HISTOGRAM_S
            found = histogram(array)
            if found is not None:
                self._on_histogram(self.name, stamp.frame_id, found)


def stamp_of(frame: Frame) -> Stamp:
    """Return what a frame's header says, as it is sent."""
    index = frame.index
    return Stamp(
        frame.frame_id, frame.monotonic_ns, frame.utc_ns, frame.exposure_ms, (index.t, index.c, index.z, index.position)
    )
