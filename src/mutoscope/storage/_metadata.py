"""Says which of the values that come with a frame cannot be stored."""

from __future__ import annotations

import operator
from typing import Any

from mutoscope.model.arguments import shown

__all__ = ["unfit_metadata"]

_WHOLE = {"tick": (0, 2**64 - 1), "monotonic_ns": (-(2**63), 2**63 - 1), "utc_ns": (-(2**63), 2**63 - 1)}
_BOUNDS = {"tick": "from 0 to 2**64 - 1", "monotonic_ns": "of 64 bits", "utc_ns": "of 64 bits"}


def unfit_metadata(
    frame_id: Any, tick: Any, monotonic_ns: Any, utc_ns: Any, exposure_ms: Any, index: Any, error: Exception
) -> str:
    """Return what is wrong, by its name; `error` says it where it is the index.

    Examples
    --------
    >>> unfit_metadata(1, -1, 0, 0, 5.0, None, ValueError())
    'tick of frame 1 is a whole number from 0 to 2**64 - 1, not -1'
    >>> unfit_metadata(1, 1, 0, "now", 5.0, None, ValueError())
    "utc_ns of frame 1 is a whole number of 64 bits, not 'now'"
    """
    for name, value in (("tick", tick), ("monotonic_ns", monotonic_ns), ("utc_ns", utc_ns)):
        least, most = _WHOLE[name]
        try:
            fits = least <= operator.index(value) <= most
        except TypeError:
            fits = False
        if not fits:
            return f"{name} of frame {frame_id} is a whole number {_BOUNDS[name]}, not {shown(value)}"
    if isinstance(exposure_ms, str | bytes) or not hasattr(exposure_ms, "__float__"):
        return f"exposure_ms of frame {frame_id} is a number, nan where it is unknown, not {shown(exposure_ms)}"
    try:
        operator.index(frame_id)
    except TypeError:
        return f"frame_id is a whole number, not {shown(frame_id)}"
    return f"index of frame {frame_id} does not fit ({error}), it is {shown(index)}"
