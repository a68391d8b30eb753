"""The supervisor's record of each worker process: its life, its deaths, its restart policy."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from mutoscope.frames import Status
from mutoscope.runtime import processes
from mutoscope.runtime.processes import Child
from mutoscope.runtime.spec import ChildSpec, WorkerSpec

__all__ = ["STATES", "Member"]

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
    deaths: deque[float] = field(default_factory=deque)
    died_at: float | None = None
    restart_at: float | None = None
    recovery_s: list[float] = field(default_factory=list)
    last_error: str = ""
    last_traceback: str = ""
    kill_at: float | None = None
    term_at: float | None = None
    since: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """The worker's name."""
        return self.spec.name

    @property
    def alive(self) -> bool:
        """True while its process exists."""
        return self.child is not None

    def set_state(self, state: str) -> None:
        """Change the state, here and in the status table."""
        self.state = state
        self.since = time.monotonic()
        row = self.status.row(self.status_row)
        row.state = STATES.index(state)
        row.pid = self.child.pid if self.child is not None else 0
        row.restarts = self.restarts
        row.incarnation = self.incarnation

    def spawn(self, sys_path: list[str]) -> Child:
        """Start the process; its bus socket is ``child.bus``."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        fault_fd = os.memfd_create(f"mutoscope-fault-{self.name}", os.MFD_CLOEXEC)
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

    def next_restart(self, now: float) -> float | None:
        """Note a death; return when to restart, or None when the policy says that it stays down."""
        policy = self.spec.restart
        self.deaths.append(now)
        while self.deaths and now - self.deaths[0] > policy.within_s:
            self.deaths.popleft()
        if policy.mode == "never" or len(self.deaths) > policy.limit:
            return None
        pause = min(policy.backoff_s * 2 ** (len(self.deaths) - 1), policy.backoff_max_s)
        return now + pause

    def describe(self) -> dict[str, Any]:
        """The worker in plain values, for status reports."""
        row = self.status.row(self.status_row)
        return {
            "name": self.name,
            "kind": self.spec.kind,
            "class": self.spec.label,
            "pid": self.child.pid if self.child else 0,
            "state": self.state,
            "restarts": self.restarts,
            "frames": row.frames,
            "drops": row.drops,
            "camera_overruns": row.camera_overruns,
            "timeouts": row.timeouts,
            "heartbeat_age_s": max(0.0, (time.monotonic_ns() - row.heartbeat_ns) / 1e9) if self.alive else None,
            "recovery_s": [round(value, 4) for value in self.recovery_s],
            "last_error": self.last_error,
            "last_traceback": self.last_traceback,
        }
