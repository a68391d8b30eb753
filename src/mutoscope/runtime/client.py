"""The user's program's side of a scope: it starts the supervisor, talks to it, and sees it end."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from mutoscope.bus import Command, Event, ThreadedEndpoint
from mutoscope.frames import FrameReader, FrameWriter, Status, TableReader, _os
from mutoscope.model.errors import ClosedError, PeerDiedError
from mutoscope.runtime import control, processes
from mutoscope.runtime.spec import ScopeSpec, SupervisorSpec

__all__ = ["ScopeClient"]

KILL_AFTER_S = 45.0
NOW_KILL_AFTER_S = 4.0


class ScopeClient:
    """A running supervisor and the connection to it. Created by :meth:`start`; :meth:`close` ends the scope.

    Thread-safe: any thread of the program may call it.
    """

    def __init__(self, spec: ScopeSpec) -> None:
        self.spec = spec
        self.ended: control.ScopeEnded | None = None
        self._ended_event = threading.Event()
        self._closed = False
        self._status: tuple[Status, dict[str, int]] | None = None
        self._open: list[FrameReader | FrameWriter | TableReader] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._process = processes.spawn_module(
                "mutoscope.runtime._supervisor_main",
                processes.encode(SupervisorSpec(scope=spec, program_fd=theirs.fileno())),
                [theirs.fileno()],
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._pidfd = processes.open_pidfd(self._process)
        self.endpoint = ThreadedEndpoint(ours, "program")
        self.endpoint.hello()
        self.endpoint.subscribe(control.ScopeEnded, self._on_ended)

    def wait_started(self, timeout_s: float) -> dict[str, Any]:
        """Wait until every worker is set up; raises the error that prevents it."""
        report: dict[str, Any] = self.endpoint.request(control.AwaitStart(), to="supervisor", timeout_s=timeout_s)
        return report

    @property
    def supervisor_pid(self) -> int:
        """The supervisor's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True while the supervisor's process runs."""
        return not self._closed and not _os.wait_readable([self._pidfd], 0.0)

    def ask(self, command: Command, timeout_s: float = 10.0) -> Any:
        """Ask the supervisor something."""
        return self.endpoint.request(command, to="supervisor", timeout_s=timeout_s)

    def subscribe(self, event: type[Event], callback: Callable[[Any], None]) -> None:
        """Call `callback` (in the connection's thread) with each event of this type."""
        self.endpoint.subscribe(event, callback)

    def status(self) -> tuple[Status, dict[str, int]]:
        """The shared status table and the row of each worker in it, to look at without asking."""
        if self._status is None:
            meta, fds = self.endpoint.call_fds(control.AttachStatus())
            rows = meta.pop("rows_by_worker")
            self._status = Status.from_handle(meta, fds), rows
        return self._status

    def reader(self, command: control.AttachReader) -> FrameReader:
        """Read a camera's frames in the user's program."""
        meta, fds = self.endpoint.call_fds(command)
        reader = FrameReader.from_handle(meta, fds)
        self._open.append(reader)
        return reader

    def writer(self, stream: str) -> FrameWriter:
        """Fill a source's ring from the user's program."""
        meta, fds = self.endpoint.call_fds(control.AttachWriter(stream=stream))
        writer = FrameWriter.from_handle(meta, fds)
        self._open.append(writer)
        return writer

    def table_reader(self, table: str, start: str, timeout_s: float) -> TableReader:
        """Read a worker's table in the user's program."""
        meta, fds = self.endpoint.call_fds(control.AttachTable(table=table, start=start), timeout_s=timeout_s)
        reader = TableReader.from_handle(meta, fds)
        self._open.append(reader)
        return reader

    def _on_ended(self, event: control.ScopeEnded) -> None:
        self.ended = event
        self._ended_event.set()

    def wait_ended(self, timeout_s: float | None) -> bool:
        """Wait until the supervisor's process has ended; True if it has."""
        return bool(_os.wait_readable([self._pidfd], timeout_s))

    def stop(self, *, now: bool = False, reason: str = "stopped") -> None:
        """Ask for the end, and wait for it; a second KeyboardInterrupt while waiting ends it at once."""
        self._ask_to_stop(now, reason)
        try:
            if not self.wait_ended(NOW_KILL_AFTER_S if now else KILL_AFTER_S):
                self._process.kill()
                self.wait_ended(None)
        except KeyboardInterrupt:
            self._ask_to_stop(True, "interrupted twice")
            if not self.wait_ended(NOW_KILL_AFTER_S):
                self._process.kill()
                self.wait_ended(None)

    def _ask_to_stop(self, now: bool, reason: str) -> None:
        if not self.alive:
            return
        try:
            self.ask(control.StopScope(now=now, reason=reason), timeout_s=5.0)
        except (PeerDiedError, ClosedError):
            return  # it has ended by itself meanwhile
        except TimeoutError:
            self._process.terminate()

    def close(self) -> int:
        """Stop the scope if it runs, collect the supervisor and close the connection; returns the supervisor's exit code."""
        if self._closed:
            return self._process.returncode
        if self.alive:
            self.stop()
        code = self._process.wait()
        self._ended_event.wait(1.0)
        self._closed = True
        for item in self._open:
            item.close()
        if self._status is not None:
            self._status[0].close()
        self.endpoint.close()
        os.close(self._pidfd)
        return code
