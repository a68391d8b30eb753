"""The live half of every viewer: the newest frame of a stream, whenever somebody wants one, and never the camera held."""

from __future__ import annotations

import os
import threading
import time
import traceback
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mutoscope.frames import Frame, FrameReader
from mutoscope.model.errors import ClosedError, FrameTimeoutError, LeaseLimitError

__all__ = ["LEASES", "Consumer", "LiveFeed"]

LEASES = 3
"""What the reader of a feed may hold: the frame that was shown last, the one that is handed on, one being looked at."""
_LOOK_S = 0.25
_RETRY_S = 0.001


class Consumer(Protocol):
    """Who a feed hands its frames to. All methods run in the feed's thread; none may wait."""

    def wanted_at(self) -> float | None:
        """When the next frame is wanted, in `time.monotonic` seconds; None if nobody wants one."""

    def wants_again(self, frame_id: int) -> bool:
        """Whether the frame that was taken last is wanted once more, because somebody has not got it."""

    def take(self, frame: Frame, array: NDArray[Any]) -> None:
        """Take a frame. `array` is a read-only view that is valid as long as it is referred to; keep none for long."""


class _Woken(Exception):
    """The consumer wants something else than it did when the wait for a frame began."""


class LiveFeed:
    """Takes frames of one reader of policy ``latest`` in a thread of its own, at the pace of whoever wants them.

    Nothing is queued: a frame is taken from the ring when it is wanted, and is the newest one then. The frame that was taken
    last stays leased, so that a viewer can be given another part of it, or the value of a pixel, when the camera is still.

    Parameters
    ----------
    reader : FrameReader
        With at least :data:`LEASES` leases. The feed owns it from now on, and closes it.
    consumer : Consumer
        Gets the frames.
    """

    def __init__(self, reader: FrameReader, consumer: Consumer) -> None:
        self._reader = reader
        self._consumer = consumer
        self._changed = threading.Condition()
        self._stop = False
        self._kept: tuple[Frame, NDArray[Any]] | None = None
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        reader.interrupt_with(self._bell, self._rung)
        self.failure: BaseException | None = None
        """What ended the thread, other than the end of the scope: whoever owns the feed raises it."""
        self._thread = threading.Thread(target=self._run, name=f"mutoscope-feed-{reader.ring_name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Look again at what the consumer wants; from any thread."""
        with self._changed:
            self._changed.notify()
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def newest(self) -> tuple[Frame, NDArray[Any]] | None:
        """Return the frame that was taken last and a view of its pixels, or None; let go of the view soon. From any thread."""
        return self._kept

    def close(self) -> None:
        """End the thread, and let go of the ring. Twice is fine."""
        with self._changed:
            self._stop = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._kept = None
        self._reader.close()
        with self._changed:
            bell, self._bell = self._bell, -1
        if bell >= 0:
            os.close(bell)

    def _run(self) -> None:
        try:
            while self._wait():
                self._turn()
        except ClosedError:
            return  # the scope has ended, and its rings with it
        except BaseException as error:  # noqa: BLE001 - the top of the thread: its owner raises it
            traceback.clear_frames(error.__traceback__)  # they hold views into the ring
            self.failure = error

    def _wait(self) -> bool:
        """Sleep until a frame is wanted; False at the end."""
        with self._changed:
            while not self._stop:
                due = self._consumer.wanted_at()
                now = time.monotonic()
                if due is not None and due <= now:
                    return True
                self._changed.wait(None if due is None else due - now)
        return False

    def _turn(self) -> None:
        kept = self._kept
        try:
            frame = self._reader.next(timeout_s=0.0)
        except (FrameTimeoutError, _Woken):
            if kept is not None and self._consumer.wants_again(kept[0].frame_id):
                self._consumer.take(*kept)
                return
            del kept
            try:
                frame = self._reader.next(timeout_s=_LOOK_S)
            except (FrameTimeoutError, _Woken):
                return
        except LeaseLimitError:
            time.sleep(_RETRY_S)  # somebody looks at a pixel of an older frame just now
            return
        array: NDArray[Any] = np.asarray(frame.array)
        self._kept = (frame, array)
        kept = None  # its slot is free again, unless somebody looks at it
        self._consumer.take(frame, array)

    def _rung(self) -> None:
        os.eventfd_read(self._bell)
        raise _Woken
