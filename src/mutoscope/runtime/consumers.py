"""The account of one consumer of a stream, over every place in the ring that it has had."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mutoscope.frames import RowStatistics
from mutoscope.model import IdRanges

__all__ = ["LOSSLESS", "OVERRUN", "RANGES_KEPT", "RANGES_TOLD", "Account", "Span", "entry", "listed", "shortened", "span_of"]

RANGES_KEPT = 1_000_000
"""Of a consumer with more separate losses than this, the later ones are counted and not kept by id (16 MB are enough)."""
RANGES_TOLD = 10_000
"""Ranges of a list of ids in messages and in the data set's attributes; ``ledger.json`` has all that are kept."""
LOSSLESS = ("every", "share")
OVERRUN = "overrun"
"""The reason of frames that a reader lost because it fell behind and had said ``on_full="drop"``."""


@dataclass
class Span:
    """What a consumer was offered from one attachment to its end: inclusive ids, and what became of them.

    Of the frames that it overran, `more` came after so many separate losses that their ids were not kept; `unlisted` are not
    known by id at all.
    """

    from_id: int
    to_id: int
    done: int = 0
    dropped: dict[str, IdRanges] = field(default_factory=dict)
    more: int = 0
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
    more: int = 0
    read: int = 0

    def lose(self, first_id: int, count: int) -> None:
        """Enter frames that were lost; of very many separate losses the last ones are only counted."""
        if self.lost.range_count + self._closed_ranges < RANGES_KEPT:
            self.lost.add_run(first_id, count)
        else:
            self.more += count

    @property
    def _closed_ranges(self) -> int:
        return sum(lost.range_count for span in self.spans for lost in span.dropped.values())

    def close(self, span: Span, left: IdRanges, reason: str) -> None:
        """End the open span; the frames `left` are entered under `reason`."""
        if left:
            span.dropped.setdefault(reason, IdRanges()).update(left)
            span.pending -= left.count
        self.spans.append(span)
        self.lost, self.more, self.read = IdRanges(), 0, 0

    def claimed(self) -> IdRanges:
        """The frames of closed spans that the consumer said it was done with."""
        claimed = IdRanges((span.from_id, span.to_id) for span in self.spans if span.offered)
        for span in self.spans:
            for lost in span.dropped.values():
                claimed -= lost
        return claimed

    def to_dict(self, open_span: Span | None, ranges: int = RANGES_TOLD) -> dict[str, Any]:
        """Return the account in plain values, with at most so many ranges in each list of ids."""
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
                dropped[reason] = dropped[reason] | lost if reason in dropped else lost
        entries = {reason: entry(lost, ranges) for reason, lost in dropped.items() if lost}
        more, unlisted = sum(span.more for span in spans), sum(span.unlisted for span in spans)
        if more or unlisted:
            overrun = entries.setdefault(OVERRUN, entry(IdRanges()))
            overrun["count"] += more + unlisted
            if more:
                overrun["ids_more"] = overrun.get("ids_more", 0) + more
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


def entry(ids: IdRanges, ranges: int = RANGES_TOLD) -> dict[str, Any]:
    """Return what the ledger says of frames that were dropped for one reason.

    ``ids`` has the first `ranges` ranges; ``ids_more``, where there are more, says how many frames the others are.
    """
    return {"count": ids.count, **listed("ids", ids, ranges)}


def listed(name: str, ids: IdRanges, ranges: int) -> dict[str, Any]:
    """Return a list of ranges, not too long, and how many frames it leaves out, if any."""
    told = ids.to_list(ranges)
    if ids.range_count <= ranges:
        return {name: told}
    return {name: told, f"{name}_more": ids.count - sum(last - first + 1 for first, last in told)}


def shortened(value: Any, ranges: int = RANGES_TOLD) -> Any:
    """Return a ledger whose lists of ids have at most so many ranges."""
    if not isinstance(value, dict):
        return value
    short = {key: shortened(item, ranges) for key, item in value.items()}
    for name in ("ids", "done_ids"):
        if isinstance(ids := value.get(name), list) and len(ids) > ranges:
            left_out = sum(last - first + 1 for first, last in ids[ranges:])
            short |= {name: ids[:ranges], f"{name}_more": value.get(f"{name}_more", 0) + left_out}
    return short


def span_of(row: RowStatistics, account: Account, head: int) -> Span:
    """Return the open span of an account from the ring's row (for a pool, that of any member) and what was read of its log."""
    end = head if row.policy == "share" else row.start_id + row.produced - 1
    span = Span(row.start_id, end)
    if row.policy == "latest":
        span.shown = row.shown
        return span
    if row.policy == "share":
        span.dropped[OVERRUN], span.more = account.lost, account.more
        span.unlisted = row.group_dropped - account.lost.count - account.more
        span.done = row.group_done
        span.pending = span.offered - row.group_done - row.group_dropped
        return span
    if row.state == "detached":
        span.dropped["detached"] = _between(row.cursor, end)
    else:
        span.dropped[OVERRUN], span.more = account.lost, account.more
        span.unlisted = row.dropped - account.lost.count - account.more
        span.pending = row.pending
    settled = _between(row.start_id, row.cursor - 1)
    for reason, ids in account.named.items():
        span.dropped[reason] = ids & settled
    span.done = row.done - sum((ids & settled).count for ids in account.named.values())
    return span


def _between(first: int, last: int) -> IdRanges:
    return IdRanges([(first, last)]) if last >= first else IdRanges()
