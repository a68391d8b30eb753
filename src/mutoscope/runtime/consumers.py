"""The account of one consumer of a stream, over every place in the ring that it has had."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mutoscope.frames import RowStatistics
from mutoscope.model import IdRanges

__all__ = ["LOSSLESS", "OVERRUN", "Account", "Span", "entry", "span_of"]

LOSSLESS = ("every", "share")
OVERRUN = "overrun"
"""The reason of frames that a reader lost because it fell behind and had said ``on_full="drop"``."""


@dataclass
class Span:
    """What a consumer was offered from one attachment to its end: inclusive ids, and what became of them."""

    from_id: int
    to_id: int
    done: int = 0
    dropped: dict[str, IdRanges] = field(default_factory=dict)
    unlisted: int = 0
    pending: int = 0
    shown: int = 0

    @property
    def offered(self) -> int:
        """How many frames it was offered."""
        return max(0, self.to_id - self.from_id + 1)


@dataclass
class Account:
    """One consumer: its closed spans, and what is known of the open one beyond the ring's own counters."""

    policy: str
    on_full: str
    members: list[str]
    spans: list[Span] = field(default_factory=list)
    named: dict[str, IdRanges] = field(default_factory=dict)
    lost: IdRanges = field(default_factory=IdRanges)
    read: int = 0

    def close(self, span: Span, left: IdRanges, reason: str) -> None:
        """End the open span; the frames `left` are entered under `reason`."""
        if left:
            span.dropped.setdefault(reason, IdRanges()).update(left)
            span.pending -= left.count
        self.spans.append(span)
        self.lost, self.read = IdRanges(), 0

    def claimed(self) -> IdRanges:
        """The frames of closed spans that the consumer said it was done with."""
        claimed = IdRanges((span.from_id, span.to_id) for span in self.spans if span.offered)
        for span in self.spans:
            for lost in span.dropped.values():
                claimed -= lost
        return claimed

    def to_dict(self, open_span: Span | None) -> dict[str, Any]:
        """Return the account in plain values."""
        spans = [*self.spans, open_span] if open_span is not None else self.spans
        offered = sum(span.offered for span in spans)
        first = {"policy": self.policy, "from_id": spans[0].from_id if spans else 0, "offered": offered}
        ids = [[span.from_id, span.to_id] for span in spans if span.offered]
        if self.policy not in LOSSLESS:
            shown = sum(span.shown for span in spans)
            return {**first, "offered_ids": ids, "shown": shown, "skipped": offered - shown}
        dropped: dict[str, IdRanges] = {}
        for span in spans:
            for reason, lost in span.dropped.items():
                dropped.setdefault(reason, IdRanges()).update(lost)
        entries = {reason: entry(lost) for reason, lost in dropped.items() if lost}
        unlisted = sum(span.unlisted for span in spans)
        if unlisted:
            entries.setdefault(OVERRUN, entry(IdRanges()))["count"] += unlisted
        account: dict[str, Any] = {
            **first,
            "on_full": self.on_full,
            "offered_ids": ids,
            "done": sum(span.done for span in spans),
            "dropped": entries,
            "pending": sum(span.pending for span in spans),
        }
        if self.policy == "share":
            account["members"] = sorted(self.members)
        return account


def entry(ids: IdRanges) -> dict[str, Any]:
    """Return what the ledger says of frames that were dropped for one reason."""
    return {"count": ids.count, "ids": ids.to_list()}


def span_of(row: RowStatistics, account: Account, head: int) -> Span:
    """Return the open span of an account from the ring's row (for a pool, that of any member) and what was read of its log."""
    end = head if row.policy == "share" else row.start_id + row.produced - 1
    span = Span(row.start_id, end)
    if row.policy == "latest":
        span.shown = row.shown
        return span
    if row.policy == "share":
        span.dropped[OVERRUN] = account.lost.copy()
        span.unlisted = row.group_dropped - account.lost.count
        span.done = row.group_done
        span.pending = span.offered - row.group_done - row.group_dropped
        return span
    if row.state == "detached":
        span.dropped["detached"] = _between(row.cursor, end)
    else:
        span.dropped[OVERRUN] = account.lost.copy()
        span.unlisted = row.dropped - account.lost.count
        span.pending = row.pending
    settled = _between(row.start_id, row.cursor - 1)
    for reason, ids in account.named.items():
        span.dropped[reason] = ids & settled
    span.done = row.done - sum((ids & settled).count for ids in account.named.values())
    return span


def _between(first: int, last: int) -> IdRanges:
    return IdRanges([(first, last)]) if last >= first else IdRanges()
