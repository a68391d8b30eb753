"""The ledger of a run as its report reads it: decoded with its types, so that a damaged one is told and not half believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mutoscope.model.errors import DatasetError

__all__ = ["Account", "CameraAccount", "Consumer", "read_ledger", "read_settings"]

Document = TypeVar("Document")


class Dropped(msgspec.Struct, frozen=True):
    """Frames that a consumer lost for one reason."""

    count: int


class Consumer(msgspec.Struct, frozen=True):
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


class CameraAccount(msgspec.Struct, frozen=True):
    """What one camera produced, and what became of it."""

    produced: int
    first_id: int
    last_id: int
    blocked_s: float = 0.0
    camera_overrun: int = 0
    recorder: str | None = None
    stored: int = 0
    unverified: bool = False
    consumers: dict[str, Consumer] = {}
    clocks: Clocks = Clocks()

    @property
    def recorded(self) -> Consumer:
        """The account of its recorder; an empty one if it has none."""
        return self.consumers.get(self.recorder or "", Consumer())

    @property
    def lost(self) -> dict[str, int]:
        """Exposures that never became a frame, and frames that were not stored, by reason."""
        lost = {"camera_overrun": self.camera_overrun}
        for reason, entry in self.recorded.dropped.items():
            lost[reason] = lost.get(reason, 0) + entry.count
        return {reason: count for reason, count in lost.items() if count}


class Rows(msgspec.Struct, frozen=True):
    """Of a table."""

    owner: str | None = None
    appended: int = 0


class Account(msgspec.Struct, frozen=True):
    """``ledger.json``."""

    cameras: dict[str, CameraAccount]
    scope: str = "a scope"
    path: str | None = None
    reason: str = ""
    restarts: dict[str, int] = {}
    recovery_s: dict[str, list[float]] = {}
    tables: dict[str, Rows] = {}
    problems: list[str] = []


class _Scope(msgspec.Struct, frozen=True):
    settings: dict[str, Any] = {}


def read_ledger(folder: Path) -> Account:
    """Read ``ledger.json`` of a run's folder.

    Raises
    ------
    DatasetError
        If it is damaged.
    """
    return _read(folder / "ledger.json", Account)


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the settings in ``scope.json`` of a run's folder; none if that is not there.

    Raises
    ------
    DatasetError
        If it is damaged.
    """
    path = folder / "scope.json"
    return _read(path, _Scope).settings if path.is_file() else {}


def _read(path: Path, kind: type[Document]) -> Document:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{path} is damaged ({error}): there is no report without it") from error
