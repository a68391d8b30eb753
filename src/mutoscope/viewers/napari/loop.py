"""Qt's event loop, with calls into it from other threads, and with Python's signals."""

from __future__ import annotations

import signal
import socket
import threading
from collections import deque
from collections.abc import Callable

from qtpy.QtCore import QEventLoop, QObject, QSocketNotifier, Qt, QTimer, Signal

__all__ = ["GuiLoop"]


class _Bell(QObject):  # type: ignore[misc] # Qt is not typed here
    rung = Signal()


class GuiLoop:
    """Made in the thread of the window system, after its `QApplication`; runs there until it is told to stop.

    It is a loop of its own inside Qt's, as `QApplication.quit` would close the windows.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._calls: deque[tuple[Callable[[], None], float]] = deque()
        self._stopped = False
        self._loop = QEventLoop()
        self._bell = _Bell()
        self._bell.rung.connect(self._take, Qt.ConnectionType.QueuedConnection)

    def check(self) -> None:
        """Raise RuntimeError in any other thread: napari's layers break silently there."""
        if threading.get_ident() != self._thread:
            raise RuntimeError(
                f"layers of napari are touched in the thread of its windows only, not in {threading.current_thread().name!r}"
            )

    def call_soon(self, callback: Callable[[], None], delay_s: float = 0.0) -> None:
        """Have `callback` run in the loop after `delay_s` seconds; from any thread."""
        self._calls.append((callback, delay_s))
        self._bell.rung.emit()

    def _take(self) -> None:
        while self._calls:
            callback, delay_s = self._calls.popleft()
            QTimer.singleShot(round(1000 * delay_s), callback)

    def stop(self) -> None:
        """Have `run` return; from any thread, also before it has begun."""
        self._stopped = True
        self.call_soon(self._loop.quit)

    def run(self) -> None:
        """Run until `stop`. Handlers of signals are called as they come, though Python is not running then."""
        self.check()
        reading, writing = socket.socketpair()
        reading.setblocking(False)
        writing.setblocking(False)
        notifier = QSocketNotifier(reading.fileno(), QSocketNotifier.Type.Read)
        notifier.activated.connect(lambda *_: reading.recv(4096))
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            if not self._stopped:
                self._loop.exec()
        finally:
            signal.set_wakeup_fd(before)
            notifier.setEnabled(False)
            reading.close()
            writing.close()
