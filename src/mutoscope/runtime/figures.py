"""The ledger decoded with its types, so that a damaged one is told and not half believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

__all__ = ["CameraFigures", "ConsumerFigures", "RunFigures", "add_up"]


class Dropped(msgspec.Struct, frozen=True):
    """Frames that a consumer dropped for one reason."""

    count: int


class ConsumerFigures(msgspec.Struct, frozen=True):
    """What became of the frames that one consumer was offered."""

    policy: str = ""
    offered: int = 0
    done: int = 0
    pending: int = 0
    shown: int | None = None
    skipped: int = 0
    dropped: dict[str, Dropped] = {}


class Fit(msgspec.Struct, frozen=True):
    """A line that relates two clocks, times in ns; null where it is unknown."""

    rate: float | None = None
    rate_error: float | None = None
    residual_quantiles: dict[str, float | None] = {}


class Clocks(msgspec.Struct, frozen=True):
    """The clocks of one camera."""

    tick_to_monotonic_ns: list[Fit] = []
    utc_steps: int = 0


class CameraFigures(msgspec.Struct, frozen=True):
    """What one camera produced, and what became of it.

    `missed` are exposures that the camera could not hand over: they never became frames, and are not `produced`.
    """

    produced: int
    first_id: int
    last_id: int
    missed: int
    blocked_s: float = 0.0
    recorder: str | None = None
    stored: int = 0
    unverified: bool = False
    consumers: dict[str, ConsumerFigures] = {}
    clocks: Clocks = Clocks()

    @property
    def recorded(self) -> ConsumerFigures:
        """The account of its recorder; an empty one if it has none."""
        return self.consumers.get(self.recorder or "", ConsumerFigures())

    @property
    def dropped(self) -> dict[str, int]:
        """Frames that were produced and not stored, by reason."""
        return {reason: entry.count for reason, entry in self.recorded.dropped.items() if entry.count}


class Rows(msgspec.Struct, frozen=True):
    """Of a table; `stored` is None where nothing was recorded."""

    owner: str | None = None
    appended: int = 0
    stored: int | None = None
    lost: dict[str, int] = {}
    pending: int = 0


class RunFigures(msgspec.Struct, frozen=True):
    """``ledger.json``."""

    cameras: dict[str, CameraFigures]
    scope: str = "a scope"
    path: str | None = None
    paths: list[str] = []
    reason: str = ""
    restarts: dict[str, int] = {}
    recovery_s: dict[str, list[float]] = {}
    tables: dict[str, Rows] = {}
    problems: list[str] = []

    @property
    def produced(self) -> int:
        """Frames published by all cameras."""
        return sum(camera.produced for camera in self.cameras.values())

    @property
    def stored(self) -> int:
        """Frames that recorders stored."""
        return sum(camera.stored for camera in self.cameras.values())

    @property
    def missed(self) -> int:
        """Exposures that no camera handed over."""
        return sum(camera.missed for camera in self.cameras.values())

    @property
    def pending(self) -> int:
        """Frames that were published and neither stored nor dropped."""
        return sum(camera.recorded.pending for camera in self.cameras.values())

    @property
    def dropped(self) -> dict[str, int]:
        """Frames that were produced and not stored, by reason."""
        return add_up(camera.dropped for camera in self.cameras.values())


def add_up(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add counts by reason, in the order in which reasons first come.

    Examples
    --------
    >>> add_up([{"disk_full": 2}, {"saving_off": 1, "disk_full": 3}])
    {'disk_full': 5, 'saving_off': 1}
    """
    total: dict[str, int] = {}
    for each in counts:
        for reason, count in each.items():
            total[reason] = total.get(reason, 0) + count
    return total
