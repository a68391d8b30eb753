"""What a scope is made of, in plain data: it travels from the user's program to the supervisor and on to each worker."""

from __future__ import annotations

from typing import Any

import msgspec

from mutoscope.model.arguments import number, whole
from mutoscope.model.errors import ConfigError

__all__ = [
    "ChildSpec",
    "DatasetState",
    "PageSpec",
    "RecordSpec",
    "Restart",
    "ScopeInfo",
    "ScopeSpec",
    "ScopeState",
    "StreamInfo",
    "StreamSpec",
    "SupervisorSpec",
    "WorkerSpec",
]

RESTART_MODES = ("always", "never", "consent")


class Restart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the supervisor does when a worker dies.

    Parameters
    ----------
    mode : {"always", "never", "consent"}
        ``"consent"``: only after :meth:`mutoscope.Scope.allow_restart`, for anything that can move.
    limit : int
        More deaths than this within `within_s` seconds and the worker stays down.
    within_s : float
        The window of `limit`, in seconds.
    backoff_s, backoff_max_s : float
        Pause before a restart in seconds; it doubles with each death within 2 s of a start, up to the maximum.
    """

    mode: str = "always"
    limit: int = 8
    within_s: float = 60.0
    backoff_s: float = 0.02
    backoff_max_s: float = 5.0

    def __post_init__(self) -> None:
        if self.mode not in RESTART_MODES:
            raise ConfigError(f"a restart's mode is always, never or consent, not {self.mode!r}")
        whole("limit of a restart", self.limit, 0)
        for name in ("within_s", "backoff_s", "backoff_max_s"):
            number(f"{name} of a restart", getattr(self, name))
        if not self.within_s > 0 or not 0 <= self.backoff_s <= self.backoff_max_s:
            rule = "within_s is more than 0, backoff_s 0 or more and at most backoff_max_s"
            raise ConfigError(f"of a restart, {rule}, not {self}")


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One camera (or source) as every worker sees it in ``self.scope.cameras``; `setting_specs` as ``Setting.describe()``."""

    name: str
    shape: tuple[int, int]
    dtype: str
    rate_hz: float | None = None
    pixel_size_um: float | None = None
    settings: dict[str, Any] = {}
    setting_specs: tuple[dict[str, Any], ...] = ()


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A camera's stream: its description, its ring, who fills it and who records it."""

    info: StreamInfo
    slots: int
    slot_bytes: int
    producer: str | None
    recorder: str | None = None


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process: its name, its class as an inherited payload, and what happens when it dies."""

    name: str
    kind: str
    label: str
    payload: bytes
    restart: Restart = Restart()
    moves: bool = False
    environment: dict[str, str] = {}


class RecordSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Where frames are stored, and what happens to what stands there already."""

    path: str
    folder: str
    overwrite: bool = False
    resume: bool = False
    reserve_bytes: int = 0
    compression: str | None = None
    ome_zarr_version: str | None = None


class PageSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The scope's web page: which worker it is, and where it listens (port 0: any that is free)."""

    worker: str
    host: str = "127.0.0.1"
    port: int = 0
    public_url: str | None = None
    history_bytes: int = 0
    lease_s: float = 60.0
    display: dict[str, Any] = {}


class ScopeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the supervisor needs to start.

    `at_end` names what the supervisor calls with the run's folder when all has ended and the ledger is saved:
    ``"module:function"``.
    """

    name: str
    streams: list[StreamSpec]
    workers: list[WorkerSpec]
    record: RecordSpec | None = None
    page: PageSpec | None = None
    folder: str | None = None
    outlive: bool = False
    sys_path: list[str] = []
    settings: dict[str, Any] = {}
    hang_report_s: float = 5.0
    recorder_hang_s: float = 30.0
    setup_timeout_s: float = 60.0
    at_end: str | None = None


class ScopeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What ``self.scope`` of a worker holds: cameras by name, workers, tables known when it was set up.

    `started_ns` is when the scope was started, monotonic.
    """

    name: str
    cameras: dict[str, StreamInfo]
    workers: tuple[str, ...]
    tables: tuple[str, ...] = ()
    recorded: bool = False
    reserve_bytes: int = 0
    started_ns: int = 0


class DatasetState(msgspec.Struct, frozen=True, kw_only=True):
    """The data set that frames are stored in now.

    `folder` is where it lies below the folder of the run's first data set, empty for that itself; `first_ids` are, by camera,
    the first frame that belongs to it, and `stored_before` how many of the run were stored before it.
    """

    path: str
    folder: str = ""
    first_ids: dict[str, int] = {}
    stored_before: dict[str, int] = {}


class ScopeState(msgspec.Struct, frozen=True, kw_only=True):
    """What ``self.state`` of a worker holds; it is the same everywhere, also after a restart.

    `camera_settings` are, by camera, those that were changed while the scope runs; ``self.scope.cameras`` has them as they were
    at the start. `dataset` is where frames are stored now.
    """

    acquiring: bool = False
    saving: bool = True
    folder: str | None = None
    mode: str = "idle"
    settings: dict[str, Any] = {}
    camera_settings: dict[str, dict[str, Any]] = {}
    dataset: DatasetState | None = None


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The start-up payload of one worker process; descriptors are numbers that the child inherits."""

    worker: WorkerSpec
    supervisor_pid: int
    bus_fd: int
    fault_fd: int
    status_meta: dict[str, Any]
    status_fds: list[int]
    status_row: int
    incarnation: int
    grace_s: float
    sys_path: list[str]
    last_traceback: str = ""


class SupervisorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The start-up payload of the supervisor: the scope, and the inherited connection to the user's program."""

    scope: ScopeSpec
    program_fd: int
