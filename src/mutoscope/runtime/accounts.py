"""Puts the ledger together: what was produced, what became of every frame, who died and was back when."""

from __future__ import annotations

import time
from typing import Any

from mutoscope import storage
from mutoscope.model import ClockFit, IdRanges
from mutoscope.model.errors import DatasetError, DatasetNotFoundError
from mutoscope.runtime.members import Member
from mutoscope.runtime.spec import ScopeSpec
from mutoscope.runtime.streams import Stream

__all__ = ["final_ledger", "live_ledger"]

VERSION = 1
CLOCK_SAMPLES = 20_000


def live_ledger(spec: ScopeSpec, streams: dict[str, Stream], members: dict[str, Member]) -> dict[str, Any]:
    """The account as it stands, from the rings and the status table; recorders count what they committed."""
    cameras = {name: _camera(stream, members) for name, stream in streams.items()}
    return {
        "version": VERSION,
        "scope": spec.name,
        "final": False,
        "utc_ns": time.time_ns(),
        "cameras": cameras,
        "restarts": {member.name: member.restarts for member in members.values() if member.restarts},
        "recovery_s": {member.name: list(member.recovery_s) for member in members.values() if member.recovery_s},
    }


def final_ledger(
    spec: ScopeSpec, streams: dict[str, Stream], members: dict[str, Member], reason: str, problems: list[str]
) -> dict[str, Any]:
    """The account after every worker has ended; what is stored is read back from the data set, and the ledger saved in it."""
    ledger = live_ledger(spec, streams, members)
    ledger.update(final=True, reason=reason, problems=list(problems))
    if spec.record is None:
        return ledger
    for name, stream in streams.items():
        recorder = stream.spec.recorder
        if recorder is None:
            continue
        camera = ledger["cameras"][name]
        try:
            if members[recorder].state == "failed":
                storage.recover(spec.record.path)
            with storage.open_reader(spec.record.path, camera=name) as reader:
                stored = IdRanges.from_ids(reader.frame_ids.tolist())
                camera["clocks"] = _clocks(reader)
        except (DatasetError, DatasetNotFoundError) as error:
            problems.append(f"{name}: the data set could not be read back: {error}")
            continue
        since = IdRanges([(stream.first_id, max(stream.first_id, camera["last_id"]))])
        stored_here = stored.intersection(since) if camera["produced"] else IdRanges()
        account = camera["consumers"].setdefault(recorder, {"policy": "every", "dropped": {}, "pending": 0, "done": 0})
        account["done"] = stored_here.count
        account["done_ids"] = stored_here.to_list()
        named = sum(entry["count"] for entry in account["dropped"].values())
        account["pending"] = camera["produced"] - stored_here.count - named
        camera["stored"] = stored_here.count
    try:
        storage.write_attributes(spec.record.path, {"ledger": ledger})
    except (DatasetError, DatasetNotFoundError, OSError) as error:
        problems.append(f"the ledger could not be saved in the data set: {error}")
    return ledger


def _clocks(reader: storage.FrameStreamReader) -> dict[str, Any]:
    """Fit tick, monotonic and UTC to each other from the stored stamps (of a long run, evenly chosen ones)."""
    fit = ClockFit()
    step = max(1, len(reader) // CLOCK_SAMPLES)
    fit.add_many(reader.ticks[::step], reader.monotonic_ns[::step], reader.utc_ns[::step])
    return fit.to_dict()


def _camera(stream: Stream, members: dict[str, Member]) -> dict[str, Any]:
    account = stream.account()
    producer = members.get(stream.spec.producer or "")
    account["camera_overrun"] = producer.status.row(producer.status_row).camera_overruns if producer else 0
    recorder = stream.spec.recorder
    account["recorder"] = recorder
    if recorder is not None:
        account["stored"] = account["consumers"].get(recorder, {}).get("done", 0)
    return account
