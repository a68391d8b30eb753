"""The supervisor's side of a camera's ring: who has which row, what a dead worker held, and the account of every frame."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from mutoscope.frames import FrameRing, RowStatistics
from mutoscope.model import IdRanges
from mutoscope.model.errors import ConfigError
from mutoscope.runtime import control
from mutoscope.runtime.consumers import LOSSLESS, Account, Span, span_of
from mutoscope.runtime.spec import StreamSpec

__all__ = ["Stream"]

log = logging.getLogger(__name__)
Handle = tuple[dict[str, Any], list[int]]
LOOKS = 5
CHANGES_KEPT = 1000
FAST_LOSS = 256
"""Entries of a row's log of dropped frames between two looks beyond which the next look comes sooner; it keeps 2,047."""


@dataclass
class SettingChanges:
    """Settings that were changed while a camera ran: the first of them, and how many more there were."""

    kept: list[dict[str, Any]] = field(default_factory=list)
    more: int = 0

    def add(self, changed: dict[str, Any], before: dict[str, Any], frame_id: int, by: str) -> None:
        """Enter one change, which holds from `frame_id` on."""
        for name, value in changed.items():
            if len(self.kept) >= CHANGES_KEPT:
                self.more += 1
                continue
            entry = {"setting": name, "value": value, "before": before[name], "from_id": frame_id}
            self.kept.append({**entry, "utc_ns": time.time_ns(), "by": by})

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the ledger; empty without changes."""
        more = {"settings_changed_more": self.more} if self.more else {}
        return {"settings_changed": list(self.kept), **more} if self.kept else {}


@dataclass
class _Reader:
    """A reader and its row (None once freed). `held` is False while a dead worker's row waits for its successor."""

    worker: str
    key: str
    label: str
    command: control.AttachReader
    row: int | None
    held: bool = True
    progress: tuple[int, int] = (0, 0)
    progress_at: float = field(default_factory=time.monotonic)
    first_taken_at: float | None = None


class Stream:
    """A camera's ring with its consumers and their accounts. The supervisor owns it and closes it."""

    def __init__(self, spec: StreamSpec, first_id: int = 1) -> None:
        self.spec = spec
        self.name = spec.info.name
        self.ring = FrameRing(spec.slots, spec.slot_bytes, name=self.name, standalone=False, first_id=first_id)
        self.first_id = first_id
        self.producer: str | None = None
        self.readers: dict[tuple[str, str], _Reader] = {}
        self.accounts: dict[str, Account] = {}
        self.changes = SettingChanges()
        self._left: dict[int, str] = {}  # rows that a living process closed while views into the ring remained: row, process
        # of the acquisition that runs, or ran last
        self.begin_id = 1
        self.target_id = 0
        self.active = False
        self.run = 0
        self.stop_by: float | None = None
        self.ended_reason: str | None = None
        self.ended_message = ""

    # -- places

    def attach_reader(self, worker: str, pid: int, command: control.AttachReader) -> Handle:
        """Assign a row; a successor gets its predecessor's, with its cursor."""
        self.collect()
        known = self.readers.get((worker, command.key))
        if known is not None and known.row is not None:
            if known.held:
                raise ConfigError(
                    f"{worker} already reads {self.name} with key {command.key!r}: give the second reader a key of its own"
                )
            if not _succeeds(command, known.command):
                self._close(known, "not_resumed")
        label = _label(worker, self.name, command)
        account = self.accounts.get(label)
        if account is not None and account.policy != command.policy:
            raise ConfigError(f"{self.name}: the consumer {label} changed its policy to {command.policy}: give it another key")
        on_full = command.on_full if command.policy in LOSSLESS else "block"
        row = known.row if known is not None else None
        meta, fds = self.ring.assign_reader(
            pid=pid,
            policy=command.policy,  # type: ignore[arg-type]
            leases=command.leases,
            on_full=on_full,  # type: ignore[arg-type]
            lag_limit=command.lag_limit,
            at_most_hz=command.at_most_hz,
            group=command.group,
            name=worker,
            start=command.start,  # type: ignore[arg-type]
            row=row,
            keep_losses=True,
        )
        self._left.pop(meta["row"], None)
        if account is None:
            self.accounts[label] = account = Account(command.policy, on_full, [])
        if worker not in account.members:
            account.members.append(worker)
        self.readers[worker, command.key] = _Reader(worker, command.key, label, command, meta["row"])
        return meta, fds

    def attach_writer(self, worker: str, pid: int) -> Handle:
        """Make `worker` the producer."""
        if self.producer is not None:
            raise ConfigError(f"{self.name} already has a producer, {self.producer}")
        handle = self.ring.assign_writer(pid=pid)
        self.producer = worker
        return handle

    def worker_died(self, worker: str, *, restarts: bool, reason: str = "worker_lost") -> None:
        """Give back what an ended worker held; with `restarts` its places wait, else what is left is entered as `reason`."""
        if self.producer == worker:
            self.producer = None
            self.ring.writer_died()
        for row in [row for row, owner in self._left.items() if owner == worker]:
            self.ring.reader_died(row, keep=False)
            del self._left[row]
        for reader in self._of(worker):
            assert reader.row is not None
            if restarts:
                self.ring.reader_died(reader.row, keep=True)
                reader.held = False
            else:
                self._close(reader, reason)

    def settle(self, gone: set[str]) -> None:
        """End the account of all but the recorder: nobody will do any more, least of all workers that are `gone`."""
        self.collect()
        for reader in self.readers.values():
            if reader.row is not None and reader.worker != self.spec.recorder:
                self._close(reader, "worker_lost" if reader.worker in gone else "stopped", dead=not reader.held)

    def worker_ready(self, worker: str) -> None:
        """A successor is set up: places of its predecessor that it did not take over are given up."""
        for reader in self._of(worker):
            if not reader.held:
                self._close(reader, "not_resumed")

    def _of(self, worker: str) -> list[_Reader]:
        return [reader for reader in self.readers.values() if reader.worker == worker and reader.row is not None]

    def _close(self, reader: _Reader, reason: str, *, dead: bool = True) -> None:
        """Free a row; its account stays, and what it had not done is entered under `reason`."""
        row, account = reader.row, self.accounts[reader.label]
        assert row is not None
        if dead:
            self.ring.reader_died(row, keep=True)  # settles its account
        others = (other for other in self.readers.values() if other is not reader and other.row is not None)
        if not any(other.label == reader.label for other in others):
            lossless = account.policy in LOSSLESS and self.ring_row(row).state != "detached"
            for _ in range(LOOKS):  # again if a living process committed between the two looks
                span = self._open_span(row, account)
                left = IdRanges.from_runs(self.ring.unfinished(row)) if lossless else IdRanges()
                if left.count == span.pending:
                    break
            account.close(span, left, reason)
        if dead:
            self.ring.reader_died(row, keep=False)
        else:
            self._left[row] = reader.worker
        reader.row = None

    def ring_row(self, row: int) -> RowStatistics:
        """The account of one row, now."""
        return next(statistics for statistics in self.ring.rows() if statistics.row == row)

    # -- looking

    def rung(self, _mask: int) -> None:
        """A reader came or went, or loses frames fast: look at once."""
        self.ring.quiet()
        self.collect()

    def collect(self) -> bool:
        """Read what rows have logged, free those that were closed; True when the next look should come soon."""
        rows = {statistics.row: statistics for statistics in self.ring.rows()}
        soon = False
        for reader in self.readers.values():
            if reader.row is None:
                continue
            if rows[reader.row].state == "closed" and reader.held:
                self._close(reader, "reader_closed", dead=False)
            else:
                soon |= self._read_log(reader.row, self.accounts[reader.label]) > FAST_LOSS
        return soon

    def _read_log(self, row: int, account: Account) -> int:
        if account.policy not in LOSSLESS or account.on_full != "drop":
            return 0
        statistics = self.ring_row(row)
        length = statistics.group_dropped if account.policy == "share" else statistics.dropped_ranges
        new = length - account.read
        while account.read < length:
            ranges, account.read = self.ring.read_dropped(row, account.read)
            for first, count in ranges:
                account.lose(first, count)
            self.ring.losses_read(row, account.read)
        return new

    def stalled(self, worker: str, now: float) -> tuple[float, int]:
        """Return for how many seconds a reader of `worker` that holds the camera has done nothing, and how far it is behind."""
        longest, behind = 0.0, 0
        rows = {statistics.row: statistics for statistics in self.ring.rows()}
        for reader in self._of(worker):
            row = rows[reader.row or 0]
            progress = (row.progress, row.cursor)
            if progress != reader.progress or row.lag == 0 or not reader.held:
                reader.progress, reader.progress_at = progress, now
            elif reader.command.policy in LOSSLESS and row.on_full == "block" and now - reader.progress_at > longest:
                longest, behind = now - reader.progress_at, row.lag
        return longest, behind

    def uncommitted(self, worker: str, now: float) -> tuple[float, int]:
        """Return for how many seconds a lossless reader of `worker` has taken frames without committing one, and how many."""
        longest, taken = 0.0, 0
        rows = {statistics.row: statistics for statistics in self.ring.rows()}
        for reader in self._of(worker):
            row = rows[reader.row or 0]
            if reader.command.policy not in LOSSLESS or row.done or row.group_done or row.progress < 2 or not reader.held:
                reader.first_taken_at = None
                continue
            reader.first_taken_at = reader.first_taken_at or now
            if now - reader.first_taken_at >= longest:
                longest, taken = now - reader.first_taken_at, row.progress
        return longest, taken

    def drained(self, worker: str) -> bool:
        """Tell whether every lossless reader of `worker` has done all that was published."""
        rows = {statistics.row: statistics for statistics in self.ring.rows()}
        head = self.ring.head()
        return all(
            rows[reader.row or 0].cursor > head or rows[reader.row or 0].state in ("closed", "detached")
            for reader in self._of(worker)
            if reader.command.policy in LOSSLESS
        )

    # -- accounts

    def stored_after(self, frame_id: int) -> int:
        """Return how many frames above `frame_id` the recorder has stored."""
        recorder = self.spec.recorder
        reader = self.readers.get((recorder, self.name)) if recorder is not None else None
        if reader is None or reader.row is None:
            return 0
        last = self.ring_row(reader.row).cursor - 1
        if last <= frame_id:
            return 0
        stored = IdRanges([(frame_id + 1, last)])
        for ids in self.accounts[reader.label].named.values():
            stored -= ids
        return stored.count

    def add_not_stored(self, worker: str, first_id: int, last_id: int, reason: str) -> None:
        """Enter frames that a lossless consumer says it will not handle."""
        for reader in self.readers.values():
            if reader.worker == worker and reader.command.policy == "every":
                self.accounts[reader.label].named.setdefault(reason, IdRanges()).add_range(first_id, last_id)
                return
        raise ConfigError(f"{worker} has no reader of policy 'every' on {self.name} whose frames it could refuse")

    def _open_span(self, row: int, account: Account) -> Span:
        for _ in range(LOOKS):  # the ring's counters and its log are two looks: again if a frame was dropped between them
            statistics, head = self.ring_row(row), self.ring.head()
            self._read_log(row, account)
            span = span_of(statistics, account, head)
            if span.unlisted >= 0:
                break
        return span

    def account(self, ranges: int) -> dict[str, Any]:
        """The account of this stream in plain values, exact at the moment of asking for ended workers.

        Each list of ids has at most so many ranges.
        """
        self.collect()
        statistics, first = self.ring.statistics(), self.first_id
        open_rows = {reader.label: reader.row for reader in self.readers.values() if reader.row is not None}
        consumers = {}
        for label, account in self.accounts.items():
            row = open_rows.get(label)
            consumers[label] = account.to_dict(None if row is None else self._open_span(row, account), ranges)
        head = self.ring.head()
        return {
            "produced": max(0, head - first + 1),
            "first_id": first,
            "last_id": head,
            "slots": self.spec.slots,
            "slots_in_use": statistics.slots_used,
            "blocked_s": round(statistics.blocked_ns / 1e9, 6),
            "consumers": consumers,
            **self.changes.to_dict(),
        }

    def close(self) -> None:
        """Close the ring: every reader and writer that is left gets :class:`RingClosedError`."""
        self.ring.close()


def _label(worker: str, stream: str, command: control.AttachReader) -> str:
    if command.policy == "share":
        return f"pool {command.group}"
    return worker if command.key == stream else f"{worker}/{command.key}"


def _succeeds(new: control.AttachReader, old: control.AttachReader) -> bool:
    """Whether a successor's reader may go on in its predecessor's row."""
    return (new.policy, new.on_full, new.group, new.lag_limit) == (old.policy, old.on_full, old.group, old.lag_limit)
