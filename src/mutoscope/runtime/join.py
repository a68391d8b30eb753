"""Gives each frame the value that a table had at its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mutoscope.model.errors import ConfigError

__all__ = ["HOW", "join_values"]

HOW = ("before", "after", "interpolated")
Array = npt.NDArray[Any]


def join_values(
    frame_times_ns: Array, times_ns: Array, columns: dict[str, Array], *, how: str = "before", stale_after_s: float = 1.0
) -> tuple[dict[str, Array], Array, Array]:
    """Look up a table's columns at the times of frames.

    Parameters
    ----------
    frame_times_ns : ndarray, shape (n,), int64
        Times of the frames, in any order.
    times_ns : ndarray, shape (m,), int64
        Times of the rows on the same clock, in any order.
    columns : dict of str to ndarray, shape (m,)
        Numeric columns.
    how : {"before", "after", "interpolated"}
        The last row at or before the frame, the first at or after it, or linear between the two.
    stale_after_s : float
        In seconds; a value taken from a row further away is stale.

    Returns
    -------
    values : dict of str to ndarray, shape (n,), float64
        nan where there is no row on the side asked for.
    age_s : ndarray, shape (n,), float64
        The frame's time minus that of the row it was taken from (interpolated: of the further one); nan where there is none.
    stale : ndarray, shape (n,), bool
        True where the value is nan for want of a row, or too old.

    Examples
    --------
    >>> import numpy as np
    >>> s = 1_000_000_000
    >>> values, age_s, stale = join_values(
    ...     np.array([1, 5, 9]) * s, np.array([0, 4, 6]) * s, {"x": np.array([0.0, 40.0, 60.0])}, how="interpolated")
    >>> values["x"], age_s, stale
    (array([10., 50., nan]), array([-3.,  1., nan]), array([ True, False,  True]))
    """
    if how not in HOW:
        raise ConfigError(f"how is one of {', '.join(HOW)}, not {how!r}")
    if not stale_after_s >= 0:
        raise ConfigError(f"stale_after_s is 0 or more, not {stale_after_s}")
    frames = np.asarray(frame_times_ns, np.int64)
    count = len(frames)
    if len(times_ns) == 0:
        nothing = np.full(count, np.nan)
        return {name: nothing.copy() for name in columns}, nothing, np.ones(count, bool)
    order = np.argsort(np.asarray(times_ns, np.int64), kind="stable")
    times = np.asarray(times_ns, np.int64)[order]
    before = np.searchsorted(times, frames, side="right") - 1
    after = np.searchsorted(times, frames, side="left")
    low, high = np.clip(before, 0, None), np.clip(after, None, len(times) - 1)
    age_low, age_high = (frames - times[low]) / 1e9, (frames - times[high]) / 1e9
    if how == "before":
        valid, age = before >= 0, age_low
    elif how == "after":
        valid, age = after < len(times), age_high
    else:
        valid = (before >= 0) & (after < len(times))
        age = np.where(age_low >= -age_high, age_low, age_high)
    values = {}
    for name, column in columns.items():
        taken = np.asarray(column, np.float64)[order]
        if how == "interpolated":
            span = times[high] - times[low]
            share = np.divide(frames - times[low], span, out=np.zeros(count), where=span > 0)
            found = taken[low] + share * (taken[high] - taken[low])
        else:
            found = taken[low if how == "before" else high]
        values[name] = np.where(valid, found, np.nan)
    return values, np.where(valid, age, np.nan), ~valid | (np.abs(age) > stale_after_s)


def numeric_columns(rows: Array, names: Sequence[str] | None, but: str) -> dict[str, Array]:
    """Return the columns asked for, or all numeric scalar ones but the one of time."""
    fields: Mapping[str, Any] = rows.dtype.fields or {}
    if names is None:
        return {
            name: rows[name] for name, field in fields.items() if name != but and field[0].kind in "biuf" and not field[0].shape
        }
    for name in names:
        if name not in fields or fields[name][0].kind not in "biuf" or fields[name][0].shape:
            known = ", ".join(fields)
            raise ConfigError(f"the table has no numeric column {name!r}; it has: {known}")
    return {name: rows[name] for name in names}


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biuf" and not dtype.shape
