"""Where frames are missing among the stored ones: exposures that the camera missed, and frames that were dropped."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Gaps", "find_gaps"]


class Gaps(NamedTuple):
    """Each gap: the place of the frame before it, and how many frames and exposures it lacks.

    Parameters
    ----------
    after : ndarray of int
        Places among the stored frames.
    dropped : ndarray of int
        Frames that were produced and are not there, by their ids.
    missed : ndarray of int
        Exposures that never became frames, by the camera's ticks; 0 where it counts none.
    """

    after: NDArray[np.intp]
    dropped: NDArray[np.int64]
    missed: NDArray[np.int64]


def find_gaps(frame_ids: NDArray[Any], ticks: NDArray[Any]) -> Gaps:
    """Find the gaps between stored frames.

    Parameters
    ----------
    frame_ids, ticks : ndarray
        Of the stored frames, oldest first; a tick of 0 is unknown.

    Examples
    --------
    >>> gaps = find_gaps([1, 2, 5, 6], [1, 2, 5, 9])
    >>> gaps.after.tolist(), gaps.dropped.tolist(), gaps.missed.tolist()
    ([1, 2], [2, 0], [0, 3])
    """
    ids, counted = np.asarray(frame_ids, np.int64), np.asarray(ticks, np.int64)
    dropped = np.diff(ids) - 1
    known = (counted[1:] > 0) & (counted[:-1] > 0)
    missed = np.maximum(np.where(known, np.diff(counted) - 1, 0) - dropped, 0)
    after = np.flatnonzero((dropped > 0) | (missed > 0))
    return Gaps(after, dropped[after], missed[after])
