"""Durability "power": a helper thread that brings what was appended to the device within a stated bound."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["BOUND_S", "Syncer"]

BOUND_S = 1.0
"""A frame is on the device at the latest this long after its acknowledgement, if the device keeps up with the stream."""

_PERIOD_S = 0.2


class Syncer:
    """Syncs a writer's files; the writer owns, wakes and closes it.

    Parameters
    ----------
    state : callable
        Returns (frames appended, descriptors in use).
    """

    def __init__(self, state: Callable[[], tuple[int, list[int]]]) -> None:
        self.synced = 0
        self.error: OSError | None = None
        self._state = state
        self._retired: list[int] = []
        self._paths: dict[Path, None] = {}
        self.lock = threading.RLock()
        """Held while the writer exchanges descriptors, so that none is closed or reused under the syncer."""
        self._stop = threading.Event()
        self._advanced = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="mutoscope-sync", daemon=True)

    def start(self, synced: int) -> None:
        """Begin; `synced` frames are taken as stored by an earlier writer."""
        self.synced = synced
        self._thread.start()

    def retire(self, fd: int) -> None:
        """Take over a descriptor that the writer no longer needs: sync it, then close it."""
        with self.lock:
            self._retired.append(fd)

    def add(self, paths: Iterable[Path]) -> None:
        """Note files and folders that were created or replaced."""
        with self.lock:
            self._paths.update(dict.fromkeys(paths))

    def sync(self) -> None:
        """Bring everything appended so far to the device."""
        with self.lock:
            count, fds = self._state()
            retired, self._retired = self._retired, []
            paths, self._paths = self._paths, {}
            held = [os.dup(fd) for fd in fds] + retired
        try:
            if count == self.synced and not retired and not paths:
                return
            for fd in held:
                os.fdatasync(fd)
            for path in paths:
                _sync_path(path)
        finally:
            for fd in held:
                os.close(fd)
        with self._advanced:
            self.synced = max(self.synced, count)
            self._advanced.notify_all()

    def wait(self, count: int, timeout_s: float | None) -> bool:
        """Wait until `count` frames are on the device; False on time-out or after an error."""
        with self._advanced:
            self._advanced.wait_for(lambda: self.synced >= count or self.error is not None, timeout_s)
        return self.synced >= count

    def close(self) -> None:
        """End the thread; what was added is not synced: call `sync` for that."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with self.lock:
            for fd in self._retired:
                os.close(fd)
            self._retired = []

    def _run(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            try:
                self.sync()
            except OSError as error:
                with self._advanced:
                    self.error = error
                    self._advanced.notify_all()
                return


def _sync_path(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # replaced or trimmed meanwhile: what took its place was added too
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
