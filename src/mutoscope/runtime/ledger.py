"""The ledger as users see it: every frame accounted for, by consumer and reason."""

from __future__ import annotations

from typing import Any

import numpy as np

from mutoscope.model.errors import ConfigError

__all__ = ["Ledger"]


class Ledger:
    """The account of every frame of a run.

    For each lossless consumer ``produced = done + dropped + pending``, by frame id; for each latest-wins consumer
    ``offered = shown + skipped``. Camera ticks that never became a frame are counted beside, as ``camera_overrun``.

    Parameters
    ----------
    document : dict
        What the supervisor reports, and what ``ledger.json`` and the data set's attributes hold.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def to_dict(self) -> dict[str, Any]:
        """The whole account in plain values (the same dict as in ``ledger.json``)."""
        return self._document

    @property
    def cameras(self) -> dict[str, Any]:
        """The account of each camera: ``produced``, ``camera_overrun``, ``stored``, ``consumers``."""
        cameras: dict[str, Any] = self._document["cameras"]
        return cameras

    @property
    def produced(self) -> int:
        """Frames published by all cameras."""
        return sum(camera["produced"] for camera in self.cameras.values())

    @property
    def stored(self) -> int:
        """Frames that recorders stored."""
        return sum(camera.get("stored", 0) for camera in self.cameras.values())

    @property
    def dropped(self) -> dict[str, int]:
        """Frames that no data set holds, by reason, with missed camera ticks as ``camera_overrun``."""
        counts: dict[str, int] = {}
        for camera in self.cameras.values():
            if camera["camera_overrun"]:
                counts["camera_overrun"] = counts.get("camera_overrun", 0) + camera["camera_overrun"]
            recorder = camera["consumers"].get(camera["recorder"] or "")
            for reason, entry in (recorder or {}).get("dropped", {}).items():
                counts[reason] = counts.get(reason, 0) + entry["count"]
        return counts

    @property
    def pending(self) -> int:
        """Frames that were published and neither stored nor dropped (0 after an orderly end)."""
        return sum(
            camera["consumers"][camera["recorder"]]["pending"]
            for camera in self.cameras.values()
            if camera["recorder"] in camera["consumers"]
        )

    @property
    def restarts(self) -> dict[str, int]:
        """Restarts by worker."""
        restarts: dict[str, int] = self._document["restarts"]
        return restarts

    @property
    def exact(self) -> bool:
        """True when the promise holds for every consumer: nothing negative, nothing unaccounted for."""
        for camera in self.cameras.values():
            for consumer in camera["consumers"].values():
                if "offered" in consumer:
                    if consumer["offered"] != consumer["shown"] + consumer["skipped"]:
                        return False
                    continue
                dropped = sum(entry["count"] for entry in consumer["dropped"].values())
                offered = camera["last_id"] - consumer.get("from_id", camera["first_id"]) + 1
                if min(consumer["done"], dropped, consumer["pending"]) < 0:
                    return False
                if max(0, offered) != consumer["done"] + dropped + consumer["pending"]:
                    return False
        return True

    def summary(self) -> str:
        """The account in a few lines for people."""
        lines = []
        for name, camera in self.cameras.items():
            line = f"{name}: produced {camera['produced']:,}"
            if camera["recorder"] is not None:
                line += f", stored {camera.get('stored', 0):,}"
            line += f", camera overrun {camera['camera_overrun']:,}"
            lines.append(line)
            for consumer, account in camera["consumers"].items():
                if "offered" in account:
                    lines.append(
                        f"  {consumer}: offered {account['offered']:,}, shown {account['shown']:,}, skipped {account['skipped']:,}"
                    )
                else:
                    dropped = ", ".join(f"{reason} {entry['count']:,}" for reason, entry in account["dropped"].items())
                    lines.append(
                        f"  {consumer}: done {account['done']:,}, dropped {dropped or 0}, pending {account['pending']:,}"
                    )
        for worker, count in self.restarts.items():
            lines.append(f"{worker}: restarted {count} ×")
        return "\n".join(lines) or "no camera"

    @staticmethod
    def join(
        frame_ids: np.ndarray[Any, np.dtype[Any]],
        times_ns: np.ndarray[Any, np.dtype[Any]],
        table_times_ns: np.ndarray[Any, np.dtype[Any]],
        values: np.ndarray[Any, np.dtype[Any]],
        *,
        how: str = "before",
        stale_after_s: float = 1.0,
    ) -> np.ndarray[Any, np.dtype[Any]]:
        """Give each frame a table's value at its time.

        Parameters
        ----------
        frame_ids, times_ns : ndarray, shape (n,)
            The frames and their ``monotonic_ns``.
        table_times_ns, values : ndarray, shape (m,)
            The table's times (ascending, same clock) and one of its columns.
        how : {"before", "after", "interpolated"}
            The last value at or before the frame, the first at or after it, or linear between the two.
        stale_after_s : float
            A value further away than this many seconds is flagged.

        Returns
        -------
        ndarray, shape (n,), dtype [("frame_id", "u8"), ("value", "f8"), ("age_s", "f8"), ("stale", "?")]
            ``value`` is nan and ``stale`` True where the table has none on the side asked for. ``age_s`` is the distance in time to
            the nearer of the values used... see `how`; it is negative for a value after the frame.
        """
        if how not in ("before", "after", "interpolated"):
            raise ConfigError(f"how must be 'before', 'after' or 'interpolated', not {how!r}")
        result = np.zeros(len(frame_ids), [("frame_id", "u8"), ("value", "f8"), ("age_s", "f8"), ("stale", "?")])
        result["frame_id"] = frame_ids
        result["value"] = result["age_s"] = np.nan
        result["stale"] = True
        if len(table_times_ns) == 0 or len(frame_ids) == 0:
            return result
        frames, times = np.asarray(times_ns, "i8"), np.asarray(table_times_ns, "i8")
        before = np.searchsorted(times, frames, side="right") - 1
        after = np.searchsorted(times, frames, side="left")
        has_before, has_after = before >= 0, after < len(times)
        low, high = np.clip(before, 0, None), np.clip(after, None, len(times) - 1)
        column = np.asarray(values, "f8")
        age_before, age_after = (frames - times[low]) / 1e9, (frames - times[high]) / 1e9
        if how == "before":
            valid, value, age = has_before, column[low], age_before
        elif how == "after":
            valid, value, age = has_after, column[high], age_after
        else:
            valid = has_before & has_after
            span = np.maximum(times[high] - times[low], 1)
            share = np.where(times[high] > times[low], (frames - times[low]) / span, 0.0)
            value = column[low] + share * (column[high] - column[low])
            age = np.where(age_before > -age_after, age_before, age_after)
        result["value"] = np.where(valid, value, np.nan)
        result["age_s"] = np.where(valid, age, np.nan)
        result["stale"] = ~valid | (np.abs(age) > stale_after_s)
        return result
