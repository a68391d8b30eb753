"""Planes of a batch on all cores: threads that encode and write, fed no faster than they write."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, Self

from numpy.typing import NDArray

from mutoscope.storage.plate._image import PlateImage

__all__ = ["BatchWriter", "Plane", "run_length"]

_MAX_THREADS = 8
_MAX_RUN = 16
"""Planes of one image that one thread writes one after the other, at most."""


class Plane(NamedTuple):
    """A plane that an image conformed, its place (t, c, z) there, and its name."""

    pixels: NDArray[Any]
    at: tuple[int, int, int]
    name: str


def thread_count() -> int:
    """Return how many threads write: one a core; more only wait for each other, as most of the time is the kernel's."""
    return min(len(os.sched_getaffinity(0)), _MAX_THREADS)


def run_length(planes: int) -> int:
    """Return how many planes of an image a thread takes at a time, so that a batch of one image is for all threads, too."""
    return max(1, min(_MAX_RUN, planes // (2 * thread_count())))


class BatchWriter:
    """Writes planes of a batch in threads of its own; leaving it waits for all of them. One thread uses it.

    Parameters
    ----------
    overwrite : bool
        Whether a plane replaces one that is there.

    Attributes
    ----------
    stored : int
        Planes that were stored so far.
    """

    def __init__(self, *, overwrite: bool) -> None:
        self._overwrite = overwrite
        threads = thread_count()
        self._pool = ThreadPoolExecutor(threads, "mutoscope-plate")
        self._room = threading.Semaphore(2 * threads)
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._ended = threading.Event()
        self.stored = 0

    def take(self, prepare: Callable[[], tuple[PlateImage, Sequence[Plane]]]) -> None:
        """Have planes written, one after the other; waits while enough others wait.

        Parameters
        ----------
        prepare : callable
            Called in the thread that writes them: gives the planes, and the image, which must be there then.

        Raises
        ------
        Exception
            Why an earlier plane could not be stored; these are not, then.
        """
        self._room.acquire()
        if self._failure is not None:
            raise self._failure
        self._pool.submit(self._write, prepare)

    def _write(self, prepare: Callable[[], tuple[PlateImage, Sequence[Plane]]]) -> None:
        try:
            if self._ended.is_set():
                return
            image, planes = prepare()
            for plane in planes:
                if self._ended.is_set():
                    return
                image.write(plane.pixels, plane.at, plane.name, overwrite=self._overwrite)
                with self._lock:
                    self.stored += 1
        except BaseException as error:  # noqa: BLE001 - the top of a thread: whoever feeds it raises it
            with self._lock:
                self._failure = self._failure or error
            self._ended.set()
        finally:
            self._room.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._ended.set()  # what is under way is written to its end, nothing further is begun
        self._pool.shutdown()
        if kind is None and self._failure is not None:
            raise self._failure
