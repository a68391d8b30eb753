"""The last value of each event, for whoever subscribes later."""

from __future__ import annotations

import logging

import msgspec

__all__ = ["MAX_EVENTS", "LastValues"]

logger = logging.getLogger(__name__)

MAX_EVENTS = 4096
_KEPT_BYTES = 256 * 1024 * 1024


class LastValues:
    """What was published last, as long as it is not too much of it; the hub keeps them.

    Parameters
    ----------
    max_events : int
        How many events have a value here.
    max_bytes : int
        What all values have together.
    """

    def __init__(self, max_events: int = MAX_EVENTS, max_bytes: int = _KEPT_BYTES) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._values: dict[str, tuple[str, msgspec.Raw]] = {}
        self._bytes = 0
        self._not_kept: set[str] = set()

    def get(self, event: str) -> tuple[str, msgspec.Raw] | None:
        """Return who published the last value of an event, and the value; None if there is none."""
        return self._values.get(event)

    def keep(self, event: str, sender: str, packed: msgspec.Raw) -> bool:
        """Keep a value in place of an older one; False if it is too much: then there is none of this event."""
        before = self._values.pop(event, None)
        if before is not None:
            self._bytes -= len(memoryview(before[1]))
        size = len(memoryview(packed))
        if len(self._values) < self._max_events and self._bytes + size <= self._max_bytes:
            self._values[event] = (sender, packed)
            self._bytes += size
            return True
        if sender not in self._not_kept:
            self._not_kept.add(sender)
            logger.warning(
                "event %s of %s is not kept for later subscribers: %d events with %s bytes are kept already",
                event,
                sender,
                len(self._values),
                f"{self._bytes:,}",
            )
        return False
