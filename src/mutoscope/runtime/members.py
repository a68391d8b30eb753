"""The supervisor's record of each worker process: its life, its deaths, its restart policy."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from mutoscope.frames import Status, _os
from mutoscope.runtime import processes
from mutoscope.runtime.processes import Child
from mutoscope.runtime.spec import ChildSpec, Restart, WorkerSpec

__all__ = ["STATES", "Deaths", "Member"]

STATES = (
    "starting",
    "setting up",
    "running",
    "not responding",
    "restarting",
    "needs consent",
    "stopping",
    "ended",
    "failed",
)
GRACE_S = 1.5
STEADY_S = 2.0


class Deaths:
    """When a worker died, and what its policy says about the next start.

    The pause doubles with each death soon after a start (within 2 s), so that a worker that cannot live does not keep the
    machine busy, and one that ran is back at once.

    Examples
    --------
    >>> deaths = Deaths(Restart(limit=3, backoff_s=0.1))
    >>> [deaths.next_restart(now, up_s) for now, up_s in ((0.0, 60.0), (1.0, 0.5), (2.0, 0.5), (3.0, 0.5))]
    [0.1, 1.1, 2.2, None]
    """

    def __init__(self, policy: Restart) -> None:
        self.policy = policy
        self._times: deque[float] = deque()
        self._early = 0

    def next_restart(self, now: float, up_s: float) -> float | None:
        """Enter a death at `now` (seconds) after `up_s` seconds of work; return when to restart, None for never."""
        policy = self.policy
        self._early = self._early + 1 if up_s < STEADY_S else 0
        self._times.append(now)
        while self._times and now - self._times[0] > policy.within_s:
            self._times.popleft()
        if policy.mode == "never" or len(self._times) > policy.limit:
            return None
        pause: float = min(policy.backoff_s * 2.0 ** min(max(0, self._early - 1), 30), policy.backoff_max_s)
        return now + pause


@dataclass
class Member:
    """One worker of the scope."""

    spec: WorkerSpec
    status_row: int
    status: Status
    child: Child | None = None
    state: str = "starting"
    incarnation: int = 0
    restarts: int = 0
    died_at: float | None = None
    up_since: float | None = None
    restart_at: float | None = None
    recovery_s: list[float] = field(default_factory=list)
    last_error: str = ""
    last_traceback: str = ""
    uncommitted: str = ""
    kill_at: float | None = None
    term_at: float | None = None
    given_up: bool = False
    reported: str = ""

    def __post_init__(self) -> None:
        self.deaths = Deaths(self.spec.restart)

    @property
    def name(self) -> str:
        """The worker's name."""
        return self.spec.name

    @property
    def was_set_up(self) -> bool:
        """True once its present process has been set up."""
        return self.up_since is not None

    @property
    def alive(self) -> bool:
        """True while its process exists."""
        return self.child is not None

    @property
    def serving(self) -> bool:
        """True while it can be asked for something: set up, and neither dead nor about to end."""
        return self.child is not None and self.state in ("running", "not responding")

    def set_state(self, state: str) -> None:
        """Change the state, here and in the status table."""
        self.state = state
        row = self.status.row(self.status_row)
        row.state = STATES.index(state)
        row.pid = self.child.pid if self.child is not None else 0
        row.restarts = self.restarts
        row.incarnation = self.incarnation

    def heartbeat_age_s(self) -> float | None:
        """Seconds since the process showed a sign of life; None when there is none, or it has yet to begin."""
        beat = self.status.row(self.status_row).heartbeat_ns
        return max(0.0, (time.monotonic_ns() - beat) / 1e9) if self.child is not None and beat else None

    def spawn(self, sys_path: list[str]) -> Child:
        """Start the process; its bus socket is ``child.bus``."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        fault_fd = _os.create_file(f"fault-{self.name}")
        meta, fds = self.status.handle(row=self.status_row)
        self.incarnation += 1
        self.status.prepare(self.status_row)
        spec = ChildSpec(
            worker=self.spec,
            supervisor_pid=os.getpid(),
            bus_fd=theirs.fileno(),
            fault_fd=fault_fd,
            status_meta=meta,
            status_fds=list(fds),
            status_row=self.status_row,
            incarnation=self.incarnation,
            grace_s=GRACE_S,
            sys_path=sys_path,
            last_traceback=self.last_traceback,
        )
        try:
            process = processes.spawn_module(
                "mutoscope.runtime._child", processes.encode(spec), [theirs.fileno(), fault_fd, *fds], self.spec.environment
            )
        except BaseException:
            ours.close()
            os.close(fault_fd)
            raise
        finally:
            theirs.close()
            for fd in fds:
                os.close(fd)
        self.child = Child(process, processes.open_pidfd(process), fault_fd, ours)
        self.up_since, self.reported = None, ""
        self.set_state("starting")
        return self.child

    def ended(self) -> tuple[int, str]:
        """Reap the process; returns its exit status and what it said about a crash in native code."""
        if self.child is None:
            raise RuntimeError(f"{self.name} is not running")
        status, fault = self.child.reap(), self.child.fault_text()
        self.child.close()
        self.child = None
        self.kill_at = self.term_at = None
        return status, fault

    def describe(self) -> dict[str, Any]:
        """The worker in plain values, for status reports."""
        row = self.status.row(self.status_row)
        return {
            "name": self.name,
            "kind": self.spec.kind,
            "class": self.spec.label,
            "moves": self.spec.moves,
            "pid": self.child.pid if self.child else None,
            "state": self.state,
            "restarts": self.restarts,
            "frames": row.frames if self.spec.kind == "worker" else row.progress_a,
            "dropped": row.dropped,
            "missed": row.missed,
            "timeouts": row.timeouts,
            "heartbeat_age_s": self.heartbeat_age_s(),
            "recovery_s": [round(value, 4) for value in self.recovery_s],
            "last_error": self.last_error,
            "last_traceback": self.last_traceback,
        }
