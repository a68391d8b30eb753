"""Windows: how many bytes may be on their way before somebody must wait."""

from __future__ import annotations

from mutoscope.bus.wire import MalformedError
from mutoscope.model.errors import CommandTimeoutError

__all__ = ["INBOX_BYTES", "LINE_BYTES", "WINDOW_BYTES", "CreditAccount", "Window"]

WINDOW_BYTES = 8 * 1024 * 1024
"""What a process may have sent and not yet seen taken up by the hub."""

INBOX_BYTES = 64 * 1024 * 1024
"""What a process takes without having handled it; the hub keeps the rest back."""


LINE_BYTES = 4 * 1024 * 1024
"""What may be on its way, or not yet handled, on one line."""


class Window:
    """The sender's side: bytes sent and not yet credited. One message always goes, however large.

    Parameters
    ----------
    limit : int
        Bytes; once that many are in flight, the sender waits.
    """

    __slots__ = ("charged", "credited", "limit")  # each counter has one writer: the sending and the reading thread

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.charged = 0
        self.credited = 0

    @property
    def in_flight(self) -> int:
        """Bytes sent and not yet credited."""
        return self.charged - self.credited

    @property
    def has_room(self) -> bool:
        """Whether one more message may go."""
        return self.in_flight < self.limit

    def charge(self, size: int) -> None:
        """Count a message that goes."""
        self.charged += size

    def credit(self, size: int) -> bool:
        """Count bytes that were taken up; False when more come back than went."""
        self.credited += size
        return size >= 0 and self.in_flight >= 0

    def still_full(self, what: str, timeout_s: float) -> CommandTimeoutError:
        """Return the error for a message that found no room in so many seconds."""
        return CommandTimeoutError(
            f"{what} was not sent: {self.in_flight:,} bytes are still on their way after {timeout_s:g} s"
        )


class CreditAccount:
    """The receiver's side: sees that the sender keeps to its window, and hands credit back in lumps, so that small messages
    cost no extra one.

    Parameters
    ----------
    limit : int
        The sender's window; lumps are an eighth of it, so a waiting sender always gets on.
    """

    __slots__ = ("limit", "lump", "owed", "taken")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lump = max(1, limit // 8)
        self.owed = 0
        self.taken = 0

    def take(self, size: int) -> None:
        """Count a message that came; raises MalformedError when the sender had no room for it."""
        if self.taken >= self.limit:
            raise MalformedError(f"it sent {size:,} bytes beyond its window of {self.limit:,}")
        self.taken += size

    def add(self, size: int) -> int:
        """Note `size` bytes taken up; return the bytes to credit now, or 0."""
        self.owed += size
        if self.owed < self.lump:
            return 0
        due, self.owed = self.owed, 0
        self.taken -= due
        return due
