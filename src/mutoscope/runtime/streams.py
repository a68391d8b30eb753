"""The supervisor's side of a camera's ring: who has which row, what a dead worker held, and the account of every frame."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from mutoscope.frames import FrameRing, RowStatistics
from mutoscope.model import IdRanges
from mutoscope.model.errors import ConfigError
from mutoscope.runtime import control
from mutoscope.runtime.spec import StreamSpec

__all__ = ["Stream"]

log = logging.getLogger(__name__)
LOSSLESS = ("every", "share")
Handle = tuple[dict[str, Any], list[int]]


@dataclass
class _Reader:
    """One consumer of the stream: the row it has (None once freed) and its last account."""

    worker: str
    key: str
    policy: str
    row: int | None
    not_stored: dict[str, IdRanges] = field(default_factory=dict)
    last: RowStatistics | None = None


class Stream:
    """A camera's ring with its consumers and their accounts. The supervisor owns it and closes it."""

    def __init__(self, spec: StreamSpec, first_id: int = 1) -> None:
        self.spec = spec
        self.name = spec.info.name
        self.ring = FrameRing(spec.slots, spec.slot_bytes, name=self.name, standalone=False)
        self.first_id = first_id
        self.producer: str | None = None
        self.readers: dict[tuple[str, str], _Reader] = {}
        self.target_id = 0
        self.active = False
        self.ended_reason: str | None = None
        self.ended_message = ""

    # -- places

    def attach_reader(self, worker: str, pid: int, command: control.AttachReader) -> Handle:
        """Assign a row; a successor gets its predecessor's, with its cursor."""
        known = self.readers.get((worker, command.key))
        if known is not None and known.row is not None and self.ring_row(known.row).pid:
            raise ConfigError(
                f"{worker} already reads {self.name} with key {command.key!r}: give the second reader a key of its own"
            )
        row = known.row if known is not None and known.policy == command.policy else None
        meta, fds = self.ring.assign_reader(
            pid=pid,
            policy=command.policy,
            leases=command.leases,
            on_full=command.on_full if command.policy in LOSSLESS else "block",
            lag_limit=command.lag_limit,
            at_most_hz=command.at_most_hz,
            group=command.group,
            name=worker,
            start=command.start,
            row=row,
        )
        if known is None or row is None:
            known = _Reader(worker, command.key, command.policy, meta["row"])
            self.readers[worker, command.key] = known
        return meta, fds

    def attach_writer(self, worker: str, pid: int) -> Handle:
        """Make `worker` the producer."""
        if self.producer is not None:
            raise ConfigError(f"{self.name} already has a producer, {self.producer}")
        self.producer = worker
        return self.ring.assign_writer(pid=pid)

    def detach_reader(self, worker: str, key: str) -> None:
        """Free the row of a reader that was closed; its account stays."""
        reader = self.readers.get((worker, key))
        if reader is not None and reader.row is not None:
            reader.last = self.ring_row(reader.row)
            self.ring.reader_died(reader.row, keep=False)
            reader.row = None

    def worker_died(self, worker: str, *, restarts: bool) -> None:
        """Give back what a dead worker held. With `restarts`, its lossless cursors wait for the successor."""
        if self.producer == worker:
            self.producer = None
            self.ring.writer_died()
        for (owner, key), reader in self.readers.items():
            if owner != worker or reader.row is None:
                continue
            if restarts and reader.policy in LOSSLESS:
                self.ring.reader_died(reader.row, keep=True)
            else:
                self.detach_reader(owner, key)

    def ring_row(self, row: int) -> RowStatistics:
        """The account of one row, now."""
        return next(statistics for statistics in self.ring.rows() if statistics.row == row)

    # -- accounts

    def add_not_stored(self, worker: str, first_id: int, last_id: int, reason: str) -> None:
        """Enter frames that a lossless consumer says it will not handle."""
        for (owner, _), reader in self.readers.items():
            if owner == worker and reader.policy in LOSSLESS:
                reader.not_stored.setdefault(reason, IdRanges()).add_range(first_id, last_id)
                return
        log.warning("%s: %s reports frames %d-%d as %s without a reader", self.name, worker, first_id, last_id, reason)

    def drained(self, worker: str) -> bool:
        """Tell whether every lossless reader of `worker` has committed all that was published."""
        rows = {statistics.row: statistics for statistics in self.ring.rows()}
        head = self.ring.head()
        return all(
            rows[reader.row].cursor > head
            for (owner, _), reader in self.readers.items()
            if owner == worker and reader.policy in LOSSLESS and reader.row is not None
        )

    def account(self) -> dict[str, Any]:
        """The account of this stream in plain values, exact at the moment of asking for ended workers."""
        head, first = self.ring.head(), self.first_id
        consumers: dict[str, Any] = {}
        rows = {statistics.row: statistics for statistics in self.ring.rows()}
        for (worker, key), reader in self.readers.items():
            row = rows.get(reader.row) if reader.row is not None else reader.last
            if row is None:
                continue
            label = worker if key == self.name else f"{worker}/{key}"
            consumers[label] = _consumer(reader, row, head)
        return {"produced": max(0, head - first + 1), "first_id": first, "last_id": head, "consumers": consumers}

    def close(self) -> None:
        """Close the ring: every reader and writer that is left gets :class:`RingClosedError`."""
        self.ring.close()


def _consumer(reader: _Reader, row: RowStatistics, head: int) -> dict[str, Any]:
    if reader.policy not in LOSSLESS:
        return {"policy": reader.policy, "offered": row.offered, "shown": row.shown, "skipped": row.skipped}
    dropped = {reason: {"count": ids.count, "ids": ids.to_list()} for reason, ids in reader.not_stored.items()}
    named = sum(entry["count"] for entry in dropped.values())
    if row.dropped:
        dropped["overrun"] = {"count": row.dropped, "ids": []}
    offered = max(0, head - row.start_id + 1)
    return {
        "policy": reader.policy,
        "from_id": row.start_id,
        "done": row.done - named,
        "dropped": dropped,
        "pending": offered - row.done - row.dropped,
    }
