"""The hub's account of one process: what it announced, what it owes, what is kept back for it."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from mutoscope.bus import wire
from mutoscope.bus.flow import INBOX_BYTES, CreditAccount

if TYPE_CHECKING:
    from mutoscope.bus.commands import HandlerSpec, Manifest
    from mutoscope.bus.connection import Connection

__all__ = ["NOT_FOR_PAGE", "Held", "Outstanding", "Peer", "PeerStatistics"]

NOT_FOR_PAGE = "{} may not be sent by the page: its handler does not say page=True"


class PeerStatistics(msgspec.Struct, frozen=True):
    """Counters and backlogs of one stream, seen from the hub."""

    received: int
    sent: int
    unsent_bytes: int
    unsent_bytes_peak: int
    unhandled_bytes: int
    held: int
    held_bytes_peak: int
    outstanding: int
    events_dropped: int
    lines: int


class Outstanding(msgspec.Struct, gc=False):
    """A command that was delivered and not yet answered. `origin` is None for the supervisor's own."""

    origin: Any  # the Peer that sent it
    id: int
    sender: str
    command: str
    kind: int
    timeout_s: float
    started: float
    on_reply: Any = None
    reply_type: Any = None
    payload: bytes = b""


class Held:
    """A delivery that waits for room in its target's inbox."""

    __slots__ = ("message", "number", "origin", "size")

    def __init__(self, number: int, message: wire.Deliver, origin: Peer | None, size: int) -> None:
        self.number = number
        self.message = message
        self.origin = origin
        self.size = size


class Peer:
    """One process, as long as its stream is open."""

    def __init__(self, name: str, kind: str, connection: Connection, window_bytes: int) -> None:
        self.name = name
        self.kind = kind
        self.connection = connection
        self.manifest: Manifest | None = None
        self.inbox_bytes = INBOX_BYTES
        self.takes_lines = False
        self.broken_lines: collections.Counter[str] = collections.Counter()
        self.unhandled_bytes = 0
        self.credit = CreditAccount(window_bytes)
        self.held: collections.deque[Held] = collections.deque()
        self.outstanding: dict[int, Outstanding] = {}
        self.routes: dict[tuple[str, str | None], Peer] = {}
        self.subscriptions: set[str] = set()
        self.goodbye: str | None = None
        self.closed = False
        self.dirty = False
        self.writing = False
        self.received = 0
        self.sent = 0
        self.events_dropped = 0
        self._latest: dict[str, tuple[str, msgspec.Raw, int]] = {}
        self.number = 0
        self._unsent_peak = 0
        self._held_bytes = 0
        self._held_peak = 0

    @property
    def has_room(self) -> bool:
        """Whether a delivery may go now: the inbox has room and nothing waits before it."""
        return self.unhandled_bytes < self.inbox_bytes and not self.held

    def permits(self, spec: HandlerSpec) -> bool:
        """Whether a process of this kind may send the command."""
        return (self.kind != "client" or spec.script) and (self.kind != "page" or spec.page)

    def check_permitted(self, spec: HandlerSpec) -> None:
        """Raise PermissionError when a process of this kind may not send the command."""
        if self.permits(spec):
            return
        if self.kind == "client":
            raise PermissionError(f"{spec.command} may not be sent by the user's program: its handler says script=False")
        raise PermissionError(NOT_FOR_PAGE.format(spec.command))

    def hold(self, held: Held) -> None:
        """Keep a delivery back."""
        self.held.append(held)
        self._held_bytes += len(held.message.payload)
        self._held_peak = max(self._held_peak, self._held_bytes)

    def take_held(self) -> Iterator[Held]:
        """Yield what may go now, in order; the caller sends each before it asks for the next."""
        while self.held and self.unhandled_bytes < self.inbox_bytes:
            held = self.held.popleft()
            self._held_bytes -= len(held.message.payload)
            yield held

    def forget_held(self) -> list[Held]:
        """Drop what nobody waits for any more; return it."""
        if not self.held:
            return []
        dropped = [held for held in self.held if held.number not in self.outstanding]
        if dropped:
            self.held = collections.deque(held for held in self.held if held.number in self.outstanding)
            for held in dropped:
                self._held_bytes -= len(held.message.payload)
        return dropped

    def keep_latest(self, event: str, sender: str, packed: msgspec.Raw) -> None:
        """Keep an event for later, in place of an older value of it."""
        dropped = 0
        if event in self._latest:
            dropped = self._latest[event][2] + 1
            self.events_dropped += 1
        self._latest[event] = (sender, packed, dropped)

    def pass_over(self) -> None:
        """Count an event that is not kept for later."""
        self.events_dropped += 1

    def take_latest(self) -> Iterator[wire.Happened]:
        """Yield kept events that may go now."""
        while self._latest and self.has_room:
            event = next(iter(self._latest))
            sender, packed, dropped = self._latest.pop(event)
            yield wire.Happened(event, sender, packed, dropped)

    def note_backlog(self) -> None:
        """Keep the largest backlog for :meth:`statistics`."""
        self._unsent_peak = max(self._unsent_peak, self.connection.unsent_bytes)

    def statistics(self, lines: int) -> PeerStatistics:
        """Return the counters."""
        return PeerStatistics(
            received=self.received,
            sent=self.sent,
            unsent_bytes=self.connection.unsent_bytes,
            unsent_bytes_peak=self._unsent_peak,
            unhandled_bytes=self.unhandled_bytes,
            held=len(self.held),
            held_bytes_peak=self._held_peak,
            outstanding=len(self.outstanding),
            events_dropped=self.events_dropped,
            lines=lines,
        )
