"""The state of a scope in numbers: from the ledger, and the supervisor's account of the workers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from mutoscope import storage
from mutoscope.frames import _os
from mutoscope.runtime import DatasetState, ScopeInfo, ScopeState
from mutoscope.viewers.page.past import MemoryPast, Past

__all__ = ["Overview", "Pace"]

_LOOKS = 6
PAGE = "page"
"""The name under which the page is a consumer."""


class Pace:
    """The rate of a counter that grows, over the last few looks.

    Examples
    --------
    >>> pace = Pace()
    >>> [pace.rate_hz(count, at_s) for count, at_s in [(0, 0.0), (50, 0.5), (100, 1.0), (3, 1.5)]]
    [0.0, 100.0, 100.0, 0.0]
    """

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque(maxlen=_LOOKS)

    def rate_hz(self, count: int, at_s: float) -> float:
        """Note the counter's value; returns its growth a second."""
        if self._looks and count < self._looks[-1][1]:
            self._looks.clear()
        self._looks.append((at_s, count))
        first_s, first = self._looks[0]
        return (count - first) / (at_s - first_s) if at_s > first_s else 0.0


class Overview:
    """Makes the protocol's ``state``.

    Parameters
    ----------
    info : ScopeInfo
        Cameras, and where frames are stored.
    pasts : mapping of str to Past
        Where frames of the past come from, by stream.
    """

    def __init__(self, info: ScopeInfo, pasts: Mapping[str, Past]) -> None:
        self._info = info
        self._pasts = pasts
        self._paces: dict[str, Pace] = {}
        self._busy: dict[str, tuple[int, float, float]] = {}
        self.workers_hello: list[dict[str, Any]] = []

    def know(self, workers: list[dict[str, Any]]) -> None:
        """Take up who there is."""
        self.workers_hello = [
            {"name": each["name"], "kind": each["kind"], "class": each["class"], "moves": each["moves"]} for each in workers
        ]

    def history_kind(self, stream: str) -> str:
        """Where frames of the past come from."""
        past = self._pasts.get(stream)
        return "none" if past is None else past.kind

    def state(self, ledger: dict[str, Any], workers: list[dict[str, Any]], shared: ScopeState) -> dict[str, Any]:
        """Return all of it but what the page itself adds."""
        now = time.monotonic()
        streams = {name: self._stream(name, camera, shared.dataset, now) for name, camera in ledger["cameras"].items()}
        return {
            "utc_ms": time.time_ns() / 1e6,
            "monotonic_ms": time.monotonic_ns() / 1e6,
            "uptime_s": now - self._info.started_ns / 1e9,
            "scope": {
                "acquiring": shared.acquiring,
                "saving": shared.saving,
                "mode": shared.mode,
                "settings": shared.settings,
            },
            "streams": streams,
            "workers": [self._worker(each, now) for each in workers],
            "tables": {name: _table(account) for name, account in ledger["tables"].items()},
            "disk": self._disk(shared.dataset, streams),
        }

    def _pace(self, what: str, count: int, now: float) -> float:
        return self._paces.setdefault(what, Pace()).rate_hz(count, now)

    def _stream(self, name: str, camera: dict[str, Any], dataset: DatasetState | None, now: float) -> dict[str, Any]:
        consumers = [_consumer(label, account) for label, account in camera["consumers"].items()]
        recorder = camera["consumers"].get(camera["recorder"] or "")
        losing = (
            [recorder]
            if recorder is not None
            else [account for account in camera["consumers"].values() if account["policy"] != "latest"]
        )
        dropped: dict[str, int] = {}
        for account in losing:
            for reason, entry in account["dropped"].items():
                dropped[reason] = dropped.get(reason, 0) + entry["count"]
        page = camera["consumers"].get(PAGE, {})
        stored = camera.get("stored")
        return {
            "produced": camera["produced"],
            "stored": stored,
            "pending": recorder["pending"] if recorder is not None else None,
            "rate_hz": self._pace(f"stream {name}", camera["produced"], now),
            "stored_hz": None if stored is None else self._pace(f"stored {name}", stored, now),
            "last_id": camera["last_id"],
            "ring": {"slots": camera["slots"], "used": camera["slots_in_use"]},
            "blocked_s": camera["blocked_s"],
            "missed": camera["missed"],
            "dropped": dropped,
            "shown": page.get("shown", 0),
            "skipped": page.get("skipped", 0),
            "consumers": consumers,
            "history": self._history(name, camera, recorder, dataset),
        }

    def _history(
        self, name: str, camera: dict[str, Any], recorder: dict[str, Any] | None, dataset: DatasetState | None
    ) -> dict[str, Any]:
        past = self._pasts.get(name)
        if isinstance(past, MemoryPast):
            index = past.index()
            found = {"first_id": index.first_id, "last_id": index.last_id, "frames": index.frames, "bytes": past.bytes}
        elif (
            past is not None
            and recorder is not None
            and dataset is not None
            and (stored := recorder["done"] - dataset.stored_before.get(name, 0)) > 0
        ):
            last = camera["last_id"] - recorder["pending"]
            found = {"first_id": dataset.first_ids[name], "last_id": last, "frames": stored, "bytes": 0}
        else:
            found = {"first_id": 0, "last_id": 0, "frames": 0, "bytes": 0}
        return {"kind": self.history_kind(name), **found}

    def _worker(self, entry: dict[str, Any], now: float) -> dict[str, Any]:
        name, pid = entry["name"], entry["pid"]
        facts = None if pid is None else _os.process_facts(pid)
        taken_s = 0.0 if facts is None else facts.processor_s
        before_pid, before_at, before_s = self._busy.get(name, (pid, now, taken_s))
        self._busy[name] = (pid, now, taken_s)
        busy = (taken_s - before_s) / (now - before_at) if now > before_at and pid == before_pid else 0.0
        kept = ("name", "kind", "class", "pid", "state", "frames", "dropped", "missed", "timeouts", "restarts")
        return {
            **{key: entry[key] for key in kept},
            "rate_hz": self._pace(f"worker {name}", entry["frames"], now),
            "busy": max(0.0, busy),
            "heartbeat_age_s": entry["heartbeat_age_s"],
            "recovery_s": entry["recovery_s"][-20:],
            "last_error": entry["last_error"],
            "last_traceback": entry["last_traceback"],
        }

    def _disk(self, dataset: DatasetState | None, streams: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
        if dataset is None:
            return None
        free, rate = storage.free_bytes(dataset.path), 0.0
        for name, stream in streams.items():
            info = self._info.cameras[name]
            rate += (stream["stored_hz"] or 0.0) * storage.bytes_per_frame(info.shape, info.dtype)
        left = max(0, free - self._info.reserve_bytes)
        return {
            "free_bytes": free,
            "reserve_bytes": self._info.reserve_bytes,
            "bytes_per_s": rate,
            "full_in_s": left / rate if rate > 0 else None,
        }


def _consumer(name: str, account: dict[str, Any]) -> dict[str, Any]:
    shared = {"name": name, "policy": account["policy"], "offered": account["offered"]}
    if account["policy"] == "latest":
        return {**shared, "shown": account["shown"], "skipped": account["skipped"]}
    dropped = {reason: entry["count"] for reason, entry in account["dropped"].items()}
    return {**shared, "done": account["done"], "pending": account["pending"], "dropped": dropped}


def _table(account: dict[str, Any]) -> dict[str, Any]:
    return {key: account[key] for key in ("appended", "stored", "lost") if key in account}
