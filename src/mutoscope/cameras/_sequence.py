"""What is the same for every driver while it takes frames: its metadata checked, its exposures counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np

from mutoscope.model.errors import ConfigError
from mutoscope.model.frame import USER_BYTES, PlaneIndex

__all__ = ["FROZEN", "METADATA", "ExposureCount", "check_metadata"]


def check_metadata(owner: str, metadata: Mapping[str, Any]) -> None:
    """Raise ConfigError, one sentence, unless these are metadata of a frame.

    Examples
    --------
    >>> check_metadata("GradientCamera", {"tick": 1, "exposure_ms": 5.0})
    >>> check_metadata("GradientCamera", {"tik": 1})
    Traceback (most recent call last):
    mutoscope.model.errors.ConfigError: GradientCamera yields metadata with the key 'tik'; did you mean 'tick'? ...
    """
    if not isinstance(metadata, Mapping):
        raise ConfigError(f"{owner} yields {metadata!r} where the metadata of a frame go: a mapping such as {{'tick': 1}}")
    if not metadata.keys() <= METADATA.keys():
        name = next(key for key in metadata if key not in METADATA)
        near = get_close_matches(str(name), METADATA, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"{owner} yields metadata with the key {name!r}; {hint}the keys are {', '.join(METADATA)}")
    for name, value in metadata.items():
        fits, wanted = METADATA[name]
        if not fits(value):
            raise ConfigError(f"{owner} yields {name}={value!r}; it must be {wanted}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 0)


METADATA: dict[str, tuple[Callable[[Any], bool], str]] = {
    "tick": (_is_count, "a whole number, from 1"),
    "exposure_ms": (lambda value: isinstance(value, int | float | np.number), "a number, in ms"),
    "index": (lambda value: isinstance(value, PlaneIndex), "a mutoscope.model.PlaneIndex"),
    "monotonic_ns": (_is_count, "a whole number of ns"),
    "utc_ns": (_is_count, "a whole number of ns"),
    "user": (
        lambda value: isinstance(value, bytes) and len(value) <= USER_BYTES,
        f"bytes such as b'lab', at most {USER_BYTES} of them",
    ),
}
"""What a driver may say of a frame: what fits, and how that is said."""

FROZEN = 3
"""So many frames on end whose tick does not advance are a counter that does not count."""


class ExposureCount:
    """Counts the exposures of one sequence into a camera's counters, unless the driver counts them itself."""

    def __init__(self, counters: dict[str, int], *, counted: bool) -> None:
        self._counters = counters
        self._counted = counted
        self._before = {name: counters.get(name, 0) for name in ("exposed", "delivered", "missed")}
        self._shown = self._before["missed"]
        self._reported = self._gaps = self._delivered = self._frozen = 0
        self._last_tick: int | None = None
        self.refused = 0

    def frame(self, tick: int | None) -> int:
        """Count one frame; returns how many in a row had a tick that did not advance."""
        self._delivered += 1
        if tick is not None:
            if self._last_tick is not None:
                self._gaps += max(tick - self._last_tick - 1, 0)
                self._frozen = self._frozen + 1 if tick <= self._last_tick else 0
            self._last_tick = tick
        self.settle()
        return self._frozen

    def settle(self) -> None:
        """Write the counters."""
        if self._counted:
            return
        counters, before = self._counters, self._before
        self._reported += counters.get("missed", 0) - self._shown
        lost = max(self._reported + self.refused, self._gaps)
        counters["missed"] = self._shown = before["missed"] + lost
        counters["delivered"] = before["delivered"] + self._delivered
        counters["exposed"] = before["exposed"] + self._delivered + lost
