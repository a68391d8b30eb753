"""Runs of ids, as what is told of frames that are not whole."""

from __future__ import annotations

__all__ = ["Runs"]


class Runs(list[tuple[int, int]]):
    """Runs (first id, how many) of ids that are added one by one."""

    def add(self, frame_id: int) -> None:
        """Add an id: to the last run, if it follows on it."""
        if self and sum(self[-1]) == frame_id:
            self[-1] = (self[-1][0], self[-1][1] + 1)
        else:
            self.append((frame_id, 1))
