"""The rows of a scope's table as marks over its images: points where something is in the frame shown, and the ways there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.viewers.roi_pack import PackedRois, packed_as

__all__ = ["TAIL_FRAMES", "TableMarks"]

TAIL_FRAMES = 30
"""How many frames back a track is drawn."""


class TableMarks:
    """The newest rows of a table, and what they draw. For one thread at a time.

    Parameters
    ----------
    name : str
        Of the table.
    overlay : dict
        As the page's protocol has it: which of its columns say where.
    rows : int
        Most rows to keep.
    """

    def __init__(self, name: str, overlay: dict[str, Any], rows: int) -> None:
        self.name = name
        self.overlay = overlay
        self.rows = rows
        self.columns = [overlay[what] for what in ("y", "x", "frame_id", "id") if overlay[what]]
        self.news = True
        self._drawn_at = -1
        self._yx = np.empty((0, 2))
        self._frames = np.empty(0)
        self._ids = np.empty(0)

    @property
    def has_tracks(self) -> bool:
        """Whether its rows belong to tracks."""
        return bool(self.overlay["id"])

    def hear(self, message: dict[str, Any]) -> None:
        """Take a ``table`` message of the protocol."""
        columns, overlay = message["columns"], self.overlay
        yx = np.stack([_numbers(columns[overlay["y"]]), _numbers(columns[overlay["x"]])], axis=1)
        frames = _numbers(columns[overlay["frame_id"]]) if overlay["frame_id"] else np.zeros(len(yx))
        ids = np.asarray(columns[overlay["id"]]) if overlay["id"] else np.zeros(len(yx))
        if not message["first"]:
            yx, frames = np.concatenate([self._yx, yx]), np.concatenate([self._frames, frames])
            ids = np.concatenate([self._ids, ids]) if len(self._ids) else ids
        self._yx, self._frames, self._ids = yx[-self.rows :], frames[-self.rows :], ids[-self.rows :]
        self.news = True

    def is_due(self, frame_id: int) -> bool:
        """Whether it would be drawn otherwise over this frame."""
        return self.news or (frame_id != self._drawn_at and bool(self.overlay["frame_id"]))

    def draw(self, frame_id: int) -> tuple[PackedRois, PackedRois]:
        """Return the points that belong to a frame, and the ways there.

        Points are the rows of the newest frame that is not after this one. Where rows tell no frame they are the last one of
        each id, or where they have none the last `TAIL_FRAMES`.
        """
        self.news, self._drawn_at = False, frame_id
        yx, frames, ids = self._yx, self._frames, self._ids
        if self.overlay["frame_id"]:
            (until,) = np.nonzero(frames <= frame_id)
            end = int(until[-1]) + 1 if len(until) else 0
            yx, frames, ids = yx[:end], frames[:end], ids[:end]
            age = frames[-1] - frames if end else frames
        else:
            age = np.arange(len(yx))[::-1]
        near = (age >= 0) & (age <= TAIL_FRAMES) & np.isfinite(yx).all(axis=1)
        yx, age, ids = yx[near], age[near], ids[near]
        if self.overlay["frame_id"]:
            now = age == 0
        elif self.has_tracks:
            now = _last_of_each(ids)
        else:
            now = np.ones(len(yx), bool)
        points = yx[now]
        packed = packed_as("points", [self.name] if len(points) else [], [len(points)] if len(points) else [], points)
        return packed, self._tracks(yx, ids, ids[now])

    def _tracks(self, yx: NDArray[Any], ids: NDArray[Any], there: NDArray[Any]) -> PackedRois:
        if not self.has_tracks or not len(there):
            return packed_as("polyline", [], [], np.empty((0, 2)))
        kept = np.isin(ids, there)
        yx, ids = yx[kept], ids[kept]
        order = np.argsort(ids, kind="stable")
        names, counts = np.unique(ids, return_counts=True)
        long = counts > 1
        rows = order[np.repeat(long, counts)]
        return packed_as("polyline", [str(each) for each in names[long].tolist()], counts[long], yx[rows])


def _numbers(values: list[Any]) -> NDArray[np.float64]:
    return np.array(values, np.float64)


def _last_of_each(ids: NDArray[Any]) -> NDArray[np.bool_]:
    found = np.zeros(len(ids), bool)
    if len(ids):
        found[len(ids) - 1 - np.unique(ids[::-1], return_index=True)[1]] = True
    return found
