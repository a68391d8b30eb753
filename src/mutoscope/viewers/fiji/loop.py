"""A loop of callbacks beside a connection, as window systems have one."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable

from mutoscope.frames import _os
from mutoscope.viewers.fiji.imagej import ImageJ

__all__ = ["Loop"]


class Loop:
    """Runs callbacks in the thread of `run`, until it is stopped or ImageJ ends."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a handler of signals calls stop, whatever its thread is at
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._bell: int | None = _os.create_bell()
        self._stopped = False

    def run(self, imagej: ImageJ, news: Callable[[], None]) -> bool:
        """Run until `stop`, or until ImageJ has hung up; returns whether that was so.

        Parameters
        ----------
        imagej : ImageJ
            Beside whose connection it runs.
        news : callable
            Called in this thread when ImageJ has told that there are news.
        """
        while True:
            with self._lock:
                bell = self._bell
                if self._stopped or bell is None:
                    return False
                due = self._calls[0][0] if self._calls else None
            if imagej.take_notice():
                news()
                continue
            wait_s = None if due is None else due - time.monotonic()
            if wait_s is None or wait_s > 0:
                ready = _os.wait_readable([bell, imagej.fileno()], wait_s)
                if imagej.fileno() in ready and imagej.has_ended():
                    return True
                _os.clear_bell(bell)
                continue
            with self._lock:
                callback = heapq.heappop(self._calls)[2]
            callback()

    def call_soon(self, callback: Callable[[], None], delay_s: float) -> None:
        """Have `callback` run, from any thread; after the end it is forgotten."""
        with self._lock:
            heapq.heappush(self._calls, (time.monotonic() + delay_s, next(self._numbers), callback))
            self._ring()

    def stop(self) -> None:
        """Have `run` return; from any thread, also from a handler of signals."""
        with self._lock:
            self._stopped = True
            self._ring()

    def _ring(self) -> None:
        if self._bell is not None:
            _os.ring_bell(self._bell)

    def close(self) -> None:
        """Let go of the bell. Twice is fine."""
        with self._lock:
            bell, self._bell = self._bell, None
            self._calls.clear()
        if bell is not None:
            os.close(bell)
