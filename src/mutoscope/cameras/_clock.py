"""The clock of a camera that runs freely, with the few frames of memory that such a camera has."""

from __future__ import annotations

import time

__all__ = ["FreeRunningClock"]


class FreeRunningClock:
    """Exposure `k` (from 1) is complete at ``start + k / rate``; the newest `buffer_frames` of them can be had.

    Parameters
    ----------
    rate_hz : float
        Above 0.
    buffer_frames : int
        How many complete exposures the camera's own memory holds; older ones are overwritten.
    """

    def __init__(self, rate_hz: float, buffer_frames: int) -> None:
        self.rate_hz = rate_hz
        self.buffer_frames = buffer_frames
        self._start_ns = time.monotonic_ns()
        self._start_tick = 0

    def due_ns(self, tick: int) -> int:
        """Return the monotonic time at which exposure `tick` is complete."""
        return self._start_ns + round((tick - self._start_tick) * 1e9 / self.rate_hz)

    def exposed(self) -> int:
        """Return the newest complete exposure, 0 before the first."""
        passed = time.monotonic_ns() - self._start_ns
        tick = self._start_tick + int(passed * self.rate_hz / 1e9)
        while self.due_ns(tick + 1) <= self._start_ns + passed:
            tick += 1
        while tick > self._start_tick and self.due_ns(tick) > self._start_ns + passed:
            tick -= 1
        return tick

    def oldest(self) -> int:
        """Return the oldest exposure that has not been overwritten."""
        return max(self.exposed() - self.buffer_frames + 1, 1)

    def set_rate(self, rate_hz: float) -> None:
        """Change the rate from the newest complete exposure on."""
        tick = self.exposed()
        self._start_ns, self._start_tick = self.due_ns(tick), tick
        self.rate_hz = rate_hz
