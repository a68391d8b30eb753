"""What a ring and its readers have counted."""

from __future__ import annotations

import msgspec

__all__ = ["RingStatistics", "RowStatistics"]


class RowStatistics(msgspec.Struct, frozen=True):
    """One reader as its row in the ring tells it: exact at any instant, also after the reader was killed.

    For ``every``: ``produced = done + dropped + pending``. For ``share`` the same holds for the pool:
    ``produced = group_done + group_dropped + pending``. For ``latest``: ``offered = shown + skipped``.
    """

    row: int
    """The row's number."""
    name: str
    """The reader's name."""
    policy: str
    """``every``, ``latest`` or ``share``."""
    on_full: str
    """``block``, ``drop`` or ``detach``."""
    group: str
    """The pool, empty unless the policy is ``share``."""
    leases: int
    """Most frames that it may hold at a time."""
    pid: int
    """The process that reads, or is to read."""
    state: str
    """``active``, ``kept`` (died, waits for its successor), ``detached`` or ``closed``."""
    start_id: int
    """The first id that is this reader's."""
    cursor: int
    """The first id that is neither done nor dropped."""
    done: int
    """Frames that it committed."""
    dropped: int
    """Frames that it lost."""
    dropped_ranges: int
    """Entries ever written to the log of dropped ranges (see ``FrameRing.dropped``)."""
    shown: int
    """``latest``: frames that it took."""
    offered: int
    """``latest``: frames published since it started."""
    skipped: int
    """``latest``: frames that it did not take."""
    lag: int
    """Frames published and not yet done; for ``latest`` not yet seen."""
    pins: int
    """Slots that it holds now."""
    progress: int
    """Goes up with every frame taken and every commit: a reader that hangs stands still."""
    produced: int
    """Frames published since it started, until it closed."""
    pending: int
    """Produced, and neither done nor dropped."""
    group_done: int = 0
    """``share``: frames that the pool's members committed."""
    group_dropped: int = 0
    """``share``: frames that the pool lost."""


class RingStatistics(msgspec.Struct, frozen=True):
    """A ring as a whole."""

    name: str
    produced: int
    """Frames published."""
    slots: int
    slots_used: int
    """Slots that hold a frame, needed or not."""
    full_events: int
    """How often the producer found no free slot."""
    blocked_ns: int
    """How long it waited for one in all."""
    discarded: int
    """Slots given back without a frame."""
    producer_pid: int
    """0: there is none."""
    producer_starts: int
    """How often a producer was opened."""
    ring_bytes: int
    """Shared memory in all."""
    closed: bool
