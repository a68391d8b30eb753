"""How a camera's ticks, this host's monotonic clock and UTC relate, and how well that is known.

The three are kept apart in every frame. This module fits the lines between them, so that a tick can be given a time and a
drifting or stepped clock is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ClockFit", "ClockRelation"]

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_HUBER = 1.345  # 95 % efficiency for Gaussian errors (Huber 1964; Holland and Welsch 1977)
_MAD = 1.4826  # 1 / 0.6745: the median absolute deviation of a Gaussian in standard deviations
_STEP_NS = 10_000_000
_KEPT_SEGMENTS = 32


class ClockRelation(msgspec.Struct, frozen=True):
    r"""A straight line between two clocks: :math:`y = y_0 + a + r\,(x - x_0)`.

    Parameters
    ----------
    x_zero, y_zero : int
        The reference: the first sample, in exact integers, so that nanoseconds since 1970 lose no digits.
    offset : float
        :math:`a`, in units of `y`, at the reference.
    rate : float
        :math:`r`, units of `y` per unit of `x`.
    offset_error, rate_error : float
        Standard errors. `offset_error` holds at the middle of the samples, where it is smallest.
    residual_quantiles : dict
        Quantile (as text, ``"0.05"``) → residual in units of `y`, over the samples kept.
    samples, kept : int
        How many were seen, and how many the fit rests on.
    """

    x_zero: int
    y_zero: int
    offset: float
    rate: float
    offset_error: float
    rate_error: float
    residual_quantiles: dict[str, float]
    samples: int
    kept: int

    def predict(self, x: int) -> int:
        """Return the `y` of an `x`, rounded to an integer."""
        return self.y_zero + round(self.offset + self.rate * (x - self.x_zero))

    def invert(self, y: int) -> float:
        """Return the `x` of a `y`."""
        return self.x_zero + (y - self.y_zero - self.offset) / self.rate


class ClockFit:
    r"""Tick ↔ monotonic ↔ UTC from the stamps of the frames, in bounded memory.

    Every sample is offered; of a long run every 2nd, 4th, 8th … is kept, so that between `capacity` / 2 and `capacity` samples
    spread evenly over the run remain. Each line is a Huber M-estimate by iteratively re-weighted least squares, started from
    the median of the slopes between samples half a run apart, with weights
    :math:`w_i = \min(1, 1.345\,\hat\sigma / |e_i|)` and :math:`\hat\sigma = 1.4826\,\mathrm{median}|e_i|`, so that a late
    wake-up or a stepped clock does not bend it. The standard errors are
    :math:`s^2 (X^\top W X)^{-1}` with :math:`s^2 = \sum w_i e_i^2 / (\sum w_i - 2)`; they take the residuals as independent.

    Sources: P. J. Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 35 (1964) 73;
    P. W. Holland and R. E. Welsch, "Robust regression using iteratively reweighted least-squares",
    Commun. Statist. A 6 (1977) 813; P. K. Sen, J. Amer. Statist. Assoc. 63 (1968) 1379 (median of slopes).

    A stamp is taken when the frame reached the camera process, so `offset` contains the median transfer time.
    A tick that does not advance (the camera was restarted) begins a new segment; the last 32 are kept.

    Parameters
    ----------
    capacity : int
        Most samples kept; 24 bytes each.

    Examples
    --------
    >>> fit = ClockFit()
    >>> for tick in range(1, 101):
    ...     fit.add(tick, 5_000_000_000 + tick * 10_000_000, 1_700_000_000_000_000_000 + tick * 10_000_000)
    >>> relation = fit.tick_to_monotonic
    >>> round(relation.rate), relation.predict(200)
    (10000000, 7000000000)
    """

    def __init__(self, capacity: int = 2048) -> None:
        if capacity < 16:
            raise ValueError(f"a clock fit keeps at least 16 samples, not {capacity}")
        self.capacity = capacity
        self.samples = 0
        self.utc_steps = 0
        self.segments = 0
        self._finished: list[ClockRelation] = []
        self._ticks = _Decimated(capacity)
        self._clocks = _Decimated(capacity)
        self._last_tick = 0
        self._last_difference: int | None = None

    def add(self, tick: int, monotonic_ns: int, utc_ns: int) -> None:
        """Offer the stamps of one frame; a tick of 0 (the camera has none) enters the UTC relation only."""
        self.samples += 1
        difference = utc_ns - monotonic_ns
        if self._last_difference is not None and abs(difference - self._last_difference) > _STEP_NS:
            self.utc_steps += 1
        self._last_difference = difference
        self._clocks.add(monotonic_ns, difference)
        if tick <= 0:
            return
        if tick <= self._last_tick:
            self._finish_segment()
        if not self._ticks.offered:
            self.segments += 1
        self._last_tick = tick
        self._ticks.add(tick, monotonic_ns)

    def add_many(self, ticks: ArrayLike, monotonic_ns: ArrayLike, utc_ns: ArrayLike) -> None:
        """Offer the stamps of many frames, in order."""
        columns = [np.asarray(values, dtype=np.int64).tolist() for values in (ticks, monotonic_ns, utc_ns)]
        for tick, monotonic, utc in zip(*columns, strict=True):
            self.add(tick, monotonic, utc)

    @property
    def tick_to_monotonic(self) -> ClockRelation | None:
        """The line of the current segment, in nanoseconds per tick; None below three samples."""
        return self._ticks.relation()

    @property
    def monotonic_to_utc(self) -> ClockRelation | None:
        """The line from monotonic to UTC, in nanoseconds per nanosecond; None below three samples.

        It is fitted to the difference of the two clocks, which keeps its rate (near 1) exact to parts in 10¹².
        """
        relation = self._clocks.relation()
        if relation is None:
            return None
        return msgspec.structs.replace(relation, y_zero=relation.y_zero + relation.x_zero, rate=1.0 + relation.rate)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the data set's attributes."""
        current = self.tick_to_monotonic
        segments = [*self._finished, *([current] if current else [])]
        clocks = self.monotonic_to_utc
        return {
            "samples": self.samples,
            "segments": self.segments,
            "utc_steps": self.utc_steps,
            "tick_to_monotonic_ns": [msgspec.to_builtins(relation) for relation in segments],
            "monotonic_ns_to_utc_ns": None if clocks is None else msgspec.to_builtins(clocks),
        }

    def _finish_segment(self) -> None:
        relation = self._ticks.relation()
        if relation is not None:
            self._finished = [*self._finished, relation][-_KEPT_SEGMENTS + 1 :]
        self._ticks = _Decimated(self.capacity)


class _Decimated:
    """Pairs of integers, of which every `stride`-th is kept; the stride doubles when the memory is full."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.offered = 0
        self.stride = 1
        self.x: list[int] = []
        self.y: list[int] = []

    def add(self, x: int, y: int) -> None:
        if self.offered % self.stride == 0:
            if len(self.x) >= self.capacity:
                self.stride *= 2
                del self.x[1::2], self.y[1::2]
            if self.offered % self.stride == 0:
                self.x.append(x)
                self.y.append(y)
        self.offered += 1

    def relation(self) -> ClockRelation | None:
        if len(self.x) < 3:
            return None
        x_zero, y_zero = self.x[0], self.y[0]
        x = _relative(self.x, x_zero)
        if not np.any(x[len(x) // 2 :] > x[: len(x) - len(x) // 2]):
            return None  # a clock that stands still or runs backwards
        y = _relative(self.y, y_zero)
        offset, rate, offset_error, rate_error = _huber_line(x, y)
        residuals = y - offset - rate * x
        values = np.quantile(residuals, _QUANTILES)
        quantiles = {str(q): round(float(value), 3) for q, value in zip(_QUANTILES, values, strict=True)}
        return ClockRelation(x_zero, y_zero, offset, rate, offset_error, rate_error, quantiles, self.offered, len(self.x))


def _relative(values: Sequence[int], zero: int) -> NDArray[np.float64]:
    return (np.asarray(values, dtype=np.int64) - np.int64(zero)).astype(np.float64)


def _huber_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return offset, rate and their standard errors (the offset's at the weighted mean of x)."""
    half = len(x) // 2
    run = x[half:] - x[: len(x) - half]
    rise = y[half:] - y[: len(y) - half]
    rate = float(np.median(rise[run > 0] / run[run > 0]))
    offset = float(np.median(y - rate * x))
    weights = np.ones_like(x)
    for _ in range(50):
        residuals = y - offset - rate * x
        sigma = _MAD * float(np.median(np.abs(residuals)))
        if sigma == 0.0:  # at least half of the samples lie on the line exactly: it cannot be bettered
            weights = (residuals == 0.0).astype(np.float64)
            break
        weights = np.minimum(1.0, _HUBER * sigma / np.maximum(np.abs(residuals), 1e-300))
        total = float(weights.sum())
        x_mean = float(weights @ x) / total
        y_mean = float(weights @ y) / total
        spread = float(weights @ (x - x_mean) ** 2)
        if spread == 0.0:
            break
        new_rate = float(weights @ ((x - x_mean) * (y - y_mean))) / spread
        new_offset = y_mean - new_rate * x_mean
        moved = abs(new_offset - offset) + abs(new_rate - rate) * float(x[-1])
        offset, rate = new_offset, new_rate
        if moved <= 1e-3:  # a thousandth of a nanosecond at either end
            break
    residuals = y - offset - rate * x
    total = float(weights.sum())
    x_mean = float(weights @ x) / total
    spread = float(weights @ (x - x_mean) ** 2)
    variance = float(weights @ residuals**2) / max(total - 2.0, 1.0)
    return offset, rate, float(np.sqrt(variance / total)), float(np.sqrt(variance / spread)) if spread else float("inf")
