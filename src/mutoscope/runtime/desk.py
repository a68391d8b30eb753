"""What all parts of the supervisor share: the loop's selector, the bus, the journal, and how they say something."""

from __future__ import annotations

import logging
import selectors
import traceback

from mutoscope.bus import Hub
from mutoscope.model.errors import MutoscopeError
from mutoscope.runtime import control
from mutoscope.runtime.journal import Journal

__all__ = ["PROGRAM", "Desk"]

PROGRAM = "program"
"""The name of the user's program on the bus."""


class Desk:
    """The supervisor creates it and closes it."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.hub = Hub(self.selector)
        self.journal = Journal(None)
        self.problems: list[str] = []

    def note(self, level: int, text: str) -> None:
        """Say something to whoever runs the scope, and in ``scope.log``."""
        self.journal.line(level, "supervisor", text)
        self.hub.publish(control.Notice(level=level, text=text))

    def report(self, text: str) -> None:
        """Say that something went wrong; the summary of the run names it too, once."""
        if text in self.problems:
            return
        self.problems.append(text)
        self.note(logging.ERROR, text)

    def foreseen(self, error: Exception) -> Exception:
        """Return an error that is one sentence; of one that nobody foresaw its name and words, and the log has the rest."""
        if isinstance(error, MutoscopeError | OSError):
            return error
        self.note(logging.DEBUG, "".join(traceback.format_exception(error)).rstrip())
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return RuntimeError(f"the scope cannot be started, for a reason that was not foreseen: {words}")

    def close(self, *, undo: bool = False) -> None:
        """Close the bus and the journal; `undo`: nothing was run, so a folder that was made for it goes."""
        self.hub.close()
        self.journal.close(undo=undo)
        self.selector.close()
