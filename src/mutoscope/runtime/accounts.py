"""Puts the ledger together: what was produced, what became of every frame, who died and was back when."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from mutoscope import storage
from mutoscope.model import ClockFit, IdRanges
from mutoscope.model.errors import ConfigError, DatasetError, DatasetNotFoundError, DiskFullError, ScopeStateError
from mutoscope.runtime.consumers import RANGES_KEPT, RANGES_TOLD, Account, entry, listed, shortened
from mutoscope.runtime.dataset import DataSet
from mutoscope.runtime.desk import Desk
from mutoscope.runtime.members import Member
from mutoscope.runtime.spec import ScopeSpec
from mutoscope.runtime.streams import Stream
from mutoscope.runtime.tables import Tables

__all__ = ["final_ledger", "live_ledger", "recorder_of_tables"]

VERSION = 1
CLOCK_SAMPLES = 20_000
LEFT_REASONS = {reason: reason for reason in ("disk_full", "disk_reserve", "recorder_lost", "dataset_lost")}
"""Why frames were left unwritten, by the reason for which the scope ended; otherwise ``stopped``."""


def live_ledger(
    spec: ScopeSpec, streams: dict[str, Stream], tables: Tables, members: dict[str, Member], ranges: int = RANGES_TOLD
) -> dict[str, Any]:
    """The account as it stands, from the rings and the status table; recorders count what they committed.

    Each list of ids has at most so many ranges.
    """
    cameras = {name: _camera(stream, members, ranges) for name, stream in streams.items()}
    return {
        "version": VERSION,
        "scope": spec.name,
        "path": spec.record.path if spec.record is not None else None,
        "final": False,
        "utc_ns": time.time_ns(),
        "cameras": cameras,
        "tables": tables.account(recorded=recorder_of_tables(spec) is not None),
        "restarts": {member.name: member.restarts for member in members.values() if member.restarts},
        "recovery_s": {member.name: list(member.recovery_s) for member in members.values() if member.recovery_s},
    }


def final_ledger(
    spec: ScopeSpec,
    streams: dict[str, Stream],
    tables: Tables,
    members: dict[str, Member],
    reason: str,
    desk: Desk,
    dataset: DataSet,
) -> dict[str, Any]:
    """The account after every worker has ended; what is stored is read back from the data set, and the ledger saved in it."""
    gone = {member.name for member in members.values() if member.died_at is not None}
    for stream in streams.values():
        stream.settle(gone)
    ledger = live_ledger(spec, streams, tables, members, RANGES_KEPT)
    path, paths = dataset.path, dataset.paths
    ledger.update(final=True, reason=reason, path=path or ledger["path"], paths=paths)
    for each in paths:
        recorders = [members[stream.spec.recorder] for stream in streams.values() if stream.spec.recorder is not None]
        _trim(each, dataset, desk, died=any(member.state == "failed" or member.name in gone for member in recorders))
    for name, stream in streams.items():
        if dataset.made and stream.spec.recorder is not None:
            _read_back(ledger["cameras"][name], stream, path, paths, LEFT_REASONS.get(reason, "stopped"), desk)
    if recorder_of_tables(spec) is not None:
        tables.read_back(ledger["tables"], LEFT_REASONS.get(reason, "stopped"))
    ledger["problems"] = list(desk.problems)
    for each in paths if any(stream.spec.recorder is not None for stream in streams.values()) else ():
        try:
            storage.write_attributes(each, {"ledger": shortened(ledger)})
        except (ConfigError, DatasetError, DatasetNotFoundError, OSError) as error:
            desk.report(f"the ledger could not be saved in the data set: {error}")
    return ledger


def recorder_of_tables(spec: ScopeSpec) -> str | None:
    """Return the recorder that stores the rows of all tables, beside its frames: the first one; None if nothing is recorded."""
    return next((stream.recorder for stream in spec.streams if stream.recorder is not None), None)


def _trim(path: str, dataset: DataSet, desk: Desk, *, died: bool) -> None:
    """Close what a recorder left open, or may have: its process is gone, and nobody else would."""
    try:
        if not died and not storage.open_images(path):
            return
        report = storage.recover(path, decode=False)
    except (DatasetError, DatasetNotFoundError, DiskFullError, ScopeStateError, OSError) as error:
        desk.report(f"the data set could not be closed after its recorder had ended: {error}")
        return
    if dataset.begun and report.changed:
        done = "; ".join([*report.actions, *(action for image in report.images for action in image.actions)])
        desk.note(logging.WARNING, f"the data set was left open by its recorder, and is closed now: {done}")


def _read_back(camera: dict[str, Any], stream: Stream, path: str | None, paths: list[str], reason: str, desk: Desk) -> None:
    """Enter what the data sets of the run hold: that was done, whatever the ring says; and say so where the two differ."""
    recorder = stream.spec.recorder
    assert recorder is not None
    lost, stored = reason == "dataset_lost", IdRanges()
    try:
        for each in paths:
            with storage.open_reader(each, camera=stream.name) as reader:
                stored |= _ranges_of(reader.frame_ids)
                camera["clocks"] = _clocks(reader)
        if path is None and not lost:
            raise DatasetNotFoundError("it is not where it was made")
    except (DatasetError, DatasetNotFoundError, OSError) as error:
        desk.report(f"{stream.name}: the data set could not be read back: {error}")
        consumer = camera["consumers"].get(recorder)
        if consumer is not None:  # what was acknowledged cannot be shown to be there: nothing is claimed
            consumer.update(pending=consumer["pending"] + consumer["done"], done=0, done_ids=[])
        camera["stored"] = 0
        camera["unverified"] = True
        return
    first, last = camera["first_id"], camera["last_id"]
    produced = IdRanges([(first, last)]) if last >= first else IdRanges()
    before = camera["consumers"].get(recorder, {})
    dropped = {}
    left = produced - stored
    account = stream.accounts.get(recorder) or Account("every", "block", [])
    for named, ids in account.named.items():
        if taken := ids & left:
            dropped[named] = taken
            left -= taken
    missing = IdRanges() if lost else account.claimed() & left
    if missing:
        desk.report(f"{stream.name}: frames {missing} were acknowledged and are not in the data set")
        left -= missing
    if refused := dropped.get("unstorable"):
        desk.report(
            f"{stream.name}: {refused.count:,} frames were not stored, as they cannot be ({refused}); scope.log says why"
        )
    if left:
        dropped[reason] = (dropped.get(reason) or IdRanges()) | left
        if reason == "stopped":
            desk.report(f"{stream.name}: {left.count:,} frames were not stored before the end ({left})")
    done = stored & produced
    camera["consumers"][recorder] = {
        "policy": "every",
        "on_full": before.get("on_full", "block"),
        "from_id": first,
        "offered": produced.count,
        "offered_ids": produced.to_list(),
        "done": done.count,
        **listed("done_ids", done, RANGES_KEPT),
        "dropped": {named: entry(ids, RANGES_KEPT) for named, ids in dropped.items()},
        "pending": missing.count,
    }
    camera["stored"] = done.count


def _ranges_of(frame_ids: npt.NDArray[np.uint64]) -> IdRanges:
    """The ranges of ascending ids."""
    if len(frame_ids) == 0:
        return IdRanges()
    breaks = np.flatnonzero(np.diff(frame_ids) != 1)
    firsts, lasts = frame_ids[np.r_[0, breaks + 1]], frame_ids[np.r_[breaks, len(frame_ids) - 1]]
    return IdRanges(zip(firsts.tolist(), lasts.tolist(), strict=True))


def _clocks(reader: storage.FrameStreamReader) -> dict[str, Any]:
    """Fit tick, monotonic and UTC to each other from the stored stamps (of a long run, evenly chosen ones)."""
    fit = ClockFit()
    step = max(1, len(reader) // CLOCK_SAMPLES)
    fit.add_many(reader.ticks[::step], reader.monotonic_ns[::step], reader.utc_ns[::step])
    return fit.to_dict()


def _camera(stream: Stream, members: dict[str, Member], ranges: int) -> dict[str, Any]:
    account = stream.account(ranges)
    producer = members.get(stream.spec.producer or "")
    account["missed"] = producer.status.row(producer.status_row).missed if producer else 0
    recorder = stream.spec.recorder
    account["recorder"] = recorder
    if recorder is not None:
        account["stored"] = account["consumers"].get(recorder, {}).get("done", 0)
    return account
