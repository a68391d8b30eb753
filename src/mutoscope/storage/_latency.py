"""A histogram of durations in fixed memory: eight steps an octave, so a quantile is right within an eighth."""

from __future__ import annotations

import math

__all__ = ["LatencyHistogram"]


class LatencyHistogram:
    """Counts durations in nanoseconds.

    Examples
    --------
    >>> histogram = LatencyHistogram()
    >>> for value in range(1, 1001):
    ...     histogram.add(value * 1000)
    >>> 450_000 < histogram.quantile(0.5) < 570_000
    True
    """

    __slots__ = ("_counts", "largest")

    def __init__(self) -> None:
        self._counts = [0] * (64 * 8)
        self.largest = 0

    def add(self, nanoseconds: int) -> None:
        """Count one duration."""
        bits = nanoseconds.bit_length()
        step = (nanoseconds >> (bits - 4)) & 7 if bits > 4 else nanoseconds & 7
        self._counts[(bits << 3) | step] += 1
        if nanoseconds > self.largest:
            self.largest = nanoseconds

    def quantile(self, fraction: float) -> float:
        """Return the upper edge of the step that holds the quantile, at most the largest value; nan while empty."""
        total = sum(self._counts)
        if total == 0:
            return math.nan
        wanted = max(1, math.ceil(fraction * total))
        place, seen = 0, self._counts[0]
        while seen < wanted:
            place += 1
            seen += self._counts[place]
        bits, step = place >> 3, place & 7
        edge = (8 + step + 1) << (bits - 4) if bits > 4 else max(1, (1 << bits) - 1)
        return float(min(edge, self.largest))
