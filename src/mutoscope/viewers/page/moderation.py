"""What strangers can make the page write into the log is bounded: a disk that they could fill would end the recording."""

from __future__ import annotations

import logging
import threading
import time

from aiohttp.http_exceptions import HttpProcessingError

__all__ = ["LOGGERS", "Moderation"]

LOGGERS = (
    "aiohttp.server",
    "aiohttp.web",
    "aiohttp.websocket",
    "asyncio",
    "mutoscope.viewers.page.door",
    "mutoscope.viewers.page.sessions",
    "mutoscope.viewers.page.site",
)
"""Those that write a line for what a client does."""

BURST = 40
EVERY_S = 2.0
LONGEST = 2000


class Moderation(logging.Filter):
    """Lets `BURST` lines through at once and one every `EVERY_S` seconds after that; says how many it held back.

    A request that is no HTTP is one line, without a traceback; no line is longer than `LONGEST` characters.

    Examples
    --------
    >>> moderation = Moderation()
    >>> line = logging.LogRecord("mutoscope.viewers.page.site", logging.INFO, "", 0, "c1 has come", None, None)
    >>> sum(moderation.filter(line) for _ in range(1000))
    40
    """

    def __init__(self) -> None:
        super().__init__()
        self.held = 0
        self._left = float(BURST)
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; it is shortened where it must be."""
        with self._lock:
            now = time.monotonic()
            self._left = min(float(BURST), self._left + (now - self._at) / EVERY_S)
            self._at = now
            if self._left < 1:
                self.held += 1
                return False
            self._left -= 1
            held, self.held = self.held, 0
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            text = f"a request that is no HTTP was refused: {type(error).__name__}"
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        if len(text) > LONGEST:
            text = text[:LONGEST] + " …"
        if held:
            text += f" ({held:,} lines before this one were left out)"
        record.msg, record.args = text, None
        return True

    def begin(self) -> None:
        """Look at what is logged from now on."""
        for name in LOGGERS:
            logging.getLogger(name).addFilter(self)

    def end(self) -> None:
        """Look away."""
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(self)
