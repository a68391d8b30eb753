"""Writing behind: what a stream has finished goes to the device at once, and its memory back to the system.

Left to itself, the kernel lets a recording fill the page cache, then makes the recorder wait while it empties it; and each
frame takes memory that was not used before, which on a virtual machine costs more than the copy of the pixels.
A short burst is better off without it: it is over before the cache is full, and the device would take processor time from it.
"""

from __future__ import annotations

import collections
import ctypes
import os
import threading
import time
from typing import NamedTuple

__all__ = ["Behind"]

_PIECE = 16 * 1024 * 1024
"""Bytes that are waited for at a time: so long may `close` take."""

AGE_S = 1.0
"""So many seconds stays what is finished in the page cache: a burst that is over by then goes at the speed of memory."""

MAX_WAITING = 64
"""Finished pieces, each with a descriptor, that wait for that at most; the oldest goes to the device at once beyond."""

_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4  # sync_file_range(2)
_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


def _range(fd: int, start: int, length: int, flags: int) -> None:
    if _libc.sync_file_range(fd, start, length, flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Given(NamedTuple):
    """What was handed over: when it may go, and which bytes of which descriptor it is."""

    due: float
    fd: int
    start: int
    length: int


class Behind:
    """A thread that empties finished files from the page cache; the writer owns and closes it.

    It is no promise of durability: the device's own cache and the file system's journal are not flushed.

    Attributes
    ----------
    error : OSError or None
        Why the device could not store what was acknowledged; the thread has ended then.
    """

    def __init__(self) -> None:
        self.error: OSError | None = None
        self._given: collections.deque[_Given] = collections.deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def take(self, fd: int, start: int, length: int) -> None:
        """Take over a descriptor, of which so many bytes from `start` on are not written to any more; it is closed here."""
        with self._changed:
            if not self._stopped and self.error is None:
                self._given.append(_Given(time.monotonic() + AGE_S, fd, start, length))
                self._changed.notify()
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="mutoscope-behind", daemon=True)
                    self._thread.start()
                return
        os.close(fd)

    def close(self) -> None:
        """End the thread; what is not on the device yet, the kernel brings there in its own time."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        while self._given:
            os.close(self._given.popleft().fd)

    def _next(self) -> _Given | None:
        """Wait for what is old enough; None at the end."""
        with self._changed:
            while not self._stopped:
                if self._given:
                    left = self._given[0].due - time.monotonic()
                    if left <= 0 or len(self._given) > MAX_WAITING:
                        return self._given.popleft()
                    self._changed.wait(left)
                else:
                    self._changed.wait()
        return None

    def _run(self) -> None:
        while (given := self._next()) is not None:
            try:
                self._empty(given.fd, given.start, given.start + given.length)
            except OSError as error:
                self.error = error
                return
            finally:
                os.close(given.fd)

    def _empty(self, fd: int, start: int, end: int) -> None:
        """Write piece by piece, one ahead of the one that is waited for, and forget what is written."""
        _range(fd, start, min(_PIECE, end - start), _WRITE)
        for at in range(start, end, _PIECE):
            if self._stopped:
                return
            ahead = at + _PIECE
            if ahead < end:
                _range(fd, ahead, min(_PIECE, end - ahead), _WRITE)
            _range(fd, at, min(_PIECE, end - at), _WAIT_BEFORE | _WRITE | _WAIT_AFTER)
            os.posix_fadvise(fd, at, min(_PIECE, end - at), os.POSIX_FADV_DONTNEED)
