"""The user's program's side of a scope: it starts the supervisor, talks to it, and sees it end."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from mutoscope.bus import Command, Event, ThreadedEndpoint
from mutoscope.frames import FrameReader, FrameWriter, Status, TableReader, _os
from mutoscope.model import arguments
from mutoscope.model.errors import ClosedError, MutoscopeError, PeerDiedError, ScopeStateError, from_record
from mutoscope.runtime import control, processes
from mutoscope.runtime.spec import ScopeSpec, SupervisorSpec

__all__ = ["ScopeClient"]

Item = TypeVar("Item", FrameReader, FrameWriter, TableReader)

KILL_AFTER_S = 60.0
NOW_KILL_AFTER_S = 4.0
HELLO_S = 30.0
REPLY_S = 5.0
LAST_WORD_S = 2.0
ENDED_BY_ITSELF = (0, 1)


class ScopeClient:
    """A running supervisor and the connection to it; :meth:`close` ends the scope.

    Thread-safe: any thread of the program may call it.
    """

    def __init__(self, spec: ScopeSpec) -> None:
        self.spec = spec
        self.ended: control.ScopeEnded | None = None
        self._closed = False
        self._close_lock = threading.Lock()
        self._heard_end = threading.Event()
        self._status: tuple[Status, dict[str, int]] | None = None
        self._open: list[FrameReader | FrameWriter | TableReader] = []
        self._table_keys = itertools.count(1)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        process: subprocess.Popen[bytes] | None = None
        endpoint: ThreadedEndpoint | None = None
        try:
            process = processes.spawn_module(
                "mutoscope.runtime._supervisor_main",
                processes.encode(SupervisorSpec(scope=spec, program_fd=theirs.fileno())),
                [theirs.fileno()],
            )
            theirs.close()
            endpoint = ThreadedEndpoint(ours, "program")
            endpoint.hello(timeout_s=HELLO_S)
            endpoint.subscribe(control.ScopeEnded, self._on_ended)
        except BaseException:
            theirs.close()
            if endpoint is not None:
                endpoint.close()
            ours.close()
            if process is not None:
                process.kill()
                process.wait()
            raise
        self._process = process
        self.endpoint = endpoint
        self._pidfd = processes.open_pidfd(process)

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
        return self._keep(FrameReader.from_handle(meta, fds))

    def writer(self, stream: str) -> FrameWriter:
        """Fill a source's ring from the user's program."""
        meta, fds = self.endpoint.call_fds(control.AttachWriter(stream=stream))
        return self._keep(FrameWriter.from_handle(meta, fds))

    def table_reader(self, table: str, start: str, timeout_s: float) -> TableReader:
        """Read a worker's table in the user's program."""
        timeout_s = arguments.more_than_zero("timeout_s", timeout_s)
        command = control.AttachTable(table=table, key=str(next(self._table_keys)), start=start, timeout_s=timeout_s)
        meta, fds = self.endpoint.call_fds(command, timeout_s=timeout_s + REPLY_S)
        return self._keep(TableReader.from_handle(meta, fds))

    def _keep(self, item: Item) -> Item:
        self._open.append(item)
        return item

    def _on_ended(self, event: control.ScopeEnded) -> None:
        self.ended = event
        self._heard_end.set()

    def failure(self) -> MutoscopeError:
        """Why the scope has ended, as the error to raise in whoever wanted more of it."""
        ended = self.last_word()
        if ended is None:
            return PeerDiedError("the supervisor is gone; the data set holds every acknowledged frame")
        if ended.error is not None:
            error = from_record(ended.error)
            if isinstance(error, MutoscopeError):
                return error
        why = f"{ended.reason} ({ended.message})" if ended.message else ended.reason
        return ScopeStateError("; ".join([f"the scope has ended: {why}", *ended.errors]))

    def last_word(self) -> control.ScopeEnded | None:
        """What the supervisor said at its end, once its process has ended; None if it was killed."""
        if self._process.poll() in ENDED_BY_ITSELF:
            self._heard_end.wait(LAST_WORD_S)
        return self.ended

    def wait_ended(self, timeout_s: float | None) -> bool:
        """Wait until the supervisor's process has ended; True if it has."""
        return self._closed or bool(_os.wait_readable([self._pidfd], timeout_s))

    def stop(self, *, now: bool = False, reason: str = "stopped") -> None:
        """Ask for the end, and wait for it; a second KeyboardInterrupt while waiting ends it at once."""
        try:
            self._ask_to_stop(now, reason)
            self._wait_or_kill(NOW_KILL_AFTER_S if now else KILL_AFTER_S)
        except KeyboardInterrupt:
            self._ask_to_stop(True, "interrupted")
            self._wait_or_kill(NOW_KILL_AFTER_S)

    def _wait_or_kill(self, timeout_s: float) -> None:
        if not self.wait_ended(timeout_s):
            self._process.kill()
            self.wait_ended(None)

    def _ask_to_stop(self, now: bool, reason: str) -> None:
        if not self.alive:
            return
        try:
            self.ask(control.StopScope(now=now, reason=reason), timeout_s=REPLY_S)
        except (PeerDiedError, ClosedError):
            return  # it has ended by itself meanwhile
        except TimeoutError:
            self._process.terminate()

    def close(self) -> int:
        """Stop the scope if it runs, collect the supervisor and close the connection; returns the supervisor's exit code."""
        with self._close_lock:
            if self._closed:
                return self._process.returncode
            if self.alive:
                self.stop()
            code = self._process.wait()
            self.last_word()
            self._closed = True
            for item in self._open:
                item.close()
            if self._status is not None:
                self._status[0].close()
            self.endpoint.close()
            os.close(self._pidfd)
            return code
