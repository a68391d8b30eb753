"""What a scope says of itself in plain values: how an acquisition, a run and a worker fared."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["AcquisitionResult", "ScopeResult", "WorkerStatus"]


@dataclass(frozen=True)
class AcquisitionResult:
    """What an acquisition brought: frames produced and stored by camera, why each ended, how long it took in seconds."""

    produced: dict[str, int]
    stored: dict[str, int]
    reasons: dict[str, str]
    messages: dict[str, str]
    seconds: float


@dataclass(frozen=True)
class ScopeResult:
    """How a scope ended.

    ``exit_reason`` is ``"stopped"``, ``"interrupted"``, ``"quit"`` (`message` says who asked and why), ``"program_ended"``,
    ``"disk_full"``, ``"disk_reserve"``, ``"dataset_lost"`` (somebody moved or deleted it), ``"recorder_lost"``,
    ``"failed_to_start"`` or ``"supervisor_lost"``; ``errors`` lists what went wrong.
    """

    exit_reason: str
    errors: list[str] = field(default_factory=list)
    message: str = ""


@dataclass(frozen=True)
class WorkerStatus:
    """One worker, as the supervisor and the status table see it. `pid` is None while it has no process."""

    name: str
    kind: str
    pid: int | None
    state: str
    frames: int
    dropped: int
    missed: int
    restarts: int
    heartbeat_age_s: float | None
    recovery_s: list[float]
    last_error: str
    last_traceback: str
