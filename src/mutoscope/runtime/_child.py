"""The main program of a worker process, and the host that stands between a Worker and its supervisor."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

from mutoscope.bus import Endpoint, handles, wire
from mutoscope.frames import FrameReader, FrameWriter, Status, TableReader, TableWriter, _os
from mutoscope.frames._native import library
from mutoscope.model import errors
from mutoscope.model.errors import ClosedError, ConfigError, FrameTimeoutError, PeerDiedError, ScopeStateError
from mutoscope.runtime import control, processes
from mutoscope.runtime.payload import unpack
from mutoscope.runtime.spec import ChildSpec, ScopeInfo, ScopeState
from mutoscope.runtime.worker import Worker

HEARTBEAT_PERIOD_NS = 200_000_000
ORPHANED = 75
FAULT_TEXT = 20_000
LINE_TEXT = 20_000
IDLE_WAIT_S = 0.5
REPLY_S = 5.0
EOF_S = 0.2
SETUP_FAILED = 71
log = logging.getLogger(__name__)


class WorkerHost:
    """Runs one Worker: answers the supervisor, opens readers and tables for it, and keeps its status row."""

    def __init__(self, spec: ChildSpec, worker: Worker, status: Status) -> None:
        self.name = spec.worker.name
        self.worker = worker
        self.pid = os.getpid()
        self.incarnation = spec.incarnation
        self.last_traceback = spec.last_traceback
        self.stopping = False
        self.stop_reason = ""
        self.info = ScopeInfo(name="", cameras={}, workers=())
        self.state = ScopeState()
        self.status = status
        self.row = status.row(spec.status_row)
        self._begun = self._ready = self._failed = False
        self._table_keys: Counter[str] = Counter()
        self._readers: list[FrameReader] = []
        self._tables: list[TableReader | TableWriter] = []
        self._writers: list[FrameWriter] = []
        self._waits_for_commands = type(worker).step is Worker.step
        self.endpoint = Endpoint(socket.socket(fileno=spec.bus_fd), self.name)
        self.endpoint.serve(worker)  # first: its class is the owner of its commands
        self.endpoint.serve(self)

    # -- asked by the supervisor

    @handles(control.SetUp, delivery="supervisor")
    def _set_up(self, command: control.SetUp) -> errors.ErrorRecord | None:
        """Answers None, or what went wrong: the supervisor says it, once."""
        self.info, self.state = command.info, command.state
        self.endpoint.subscribe(control.StateChanged, self._state_changed)
        self.endpoint.subscribe(control.TablesChanged, self._tables_changed)
        self._begun = True
        try:
            if self.worker.moves and self.incarnation > 1:
                self.worker.safe_state()
            self.worker.setup()
        except Exception as error:  # noqa: BLE001  (the boundary to the author's code: the supervisor reports it, and we end)
            record = wire.error_record(error, traceback.format_exc())
            self._failed = True
            self.worker.safe_state()
            return record
        self._ready = True
        return None

    @handles(control.StopWorker, delivery="supervisor")
    def _stop(self, command: control.StopWorker) -> None:
        self.stopping, self.stop_reason = True, command.reason

    @handles(control.KnowState, delivery="supervisor")
    def _know_state(self, command: control.KnowState) -> None:
        self.state = command.state

    def _state_changed(self, event: control.StateChanged) -> None:
        self.state = event.state

    def _tables_changed(self, event: control.TablesChanged) -> None:
        self.info = msgspec.structs.replace(self.info, tables=event.tables)

    # -- used by the worker

    def open_reader(
        self,
        stream: str,
        key: str,
        policy: str,
        leases: int,
        on_full: str,
        lag_limit: int | None,
        at_most_hz: float | None,
        group: str | None,
        start: str,
    ) -> FrameReader:
        meta, fds = self.endpoint.call_fds(
            control.AttachReader(
                stream=stream,
                key=key,
                policy=policy,
                leases=leases,
                on_full=on_full,
                lag_limit=lag_limit,
                at_most_hz=at_most_hz,
                group=group,
                start=start,
            )
        )
        reader = FrameReader.from_handle(meta, fds)
        reader.interrupt_with(self.endpoint.fileno(), self.service)
        self._readers.append(reader)
        return reader

    def open_writer(self, stream: str) -> FrameWriter:
        meta, fds = self.endpoint.call_fds(control.AttachWriter(stream=stream))
        writer = FrameWriter.from_handle(meta, fds)
        writer.interrupt_with(self.endpoint.fileno(), self.service)
        self._writers.append(writer)
        return writer

    def open_table(self, name: str, dtype: npt.DTypeLike, capacity: int) -> TableWriter:
        description = np.lib.format.dtype_to_descr(np.dtype(dtype))
        columns = [list(column) for column in description] if isinstance(description, list) else [["value", description]]
        meta, fds = self.endpoint.call_fds(control.CreateTable(table=name, dtype=columns, capacity=capacity))
        writer = TableWriter.from_handle(meta, fds)
        self._tables.append(writer)
        return writer

    def open_table_reader(self, name: str, start: str, timeout_s: float) -> TableReader:
        if not timeout_s > 0:
            raise ConfigError(f"timeout_s must be more than 0, not {timeout_s}")
        self._table_keys[name] += 1
        command = control.AttachTable(table=name, key=str(self._table_keys[name]), start=start, timeout_s=timeout_s)
        meta, fds = self.endpoint.call_fds(command, timeout_s=timeout_s + REPLY_S)
        reader = TableReader.from_handle(meta, fds)
        reader.interrupt_with(self.endpoint.fileno(), self.service)
        self._tables.append(reader)
        return reader

    def open_stored_table(self, name: str, file: str, rows: int) -> tuple[TableReader, int]:
        """For a recorder: a reader from the first row on, and how many rows the file held before this run."""
        meta, fds = self.endpoint.call_fds(control.StoreTable(table=name, file=file, rows=rows))
        reader = TableReader.from_handle(meta, fds)
        self._tables.append(reader)
        return reader, meta["rows_before"]

    def service(self) -> None:
        """Read what has come and run the handlers; called between steps and by interrupted waits."""
        self.endpoint.pump(0.0)
        self.endpoint.dispatch()
        if self.stopping or self.endpoint.peer_closed:
            raise _Interrupted

    def serve(self) -> None:
        """Read what has come and run the handlers; for long steps."""
        self.endpoint.pump(0.0)
        self.endpoint.dispatch()
        if self.endpoint.peer_closed:
            self.stopping = True

    @property
    def orphaned(self) -> bool:
        """True when the supervisor is gone."""
        return self.endpoint.peer_closed

    def wait_for_commands(self, until: Callable[[], bool] = lambda: False, timeout_s: float = IDLE_WAIT_S) -> None:
        """Do what comes `until` says that it is enough; FrameTimeoutError (an idle step) once nothing has come for so long."""
        endpoint = self.endpoint
        while endpoint.pump(timeout_s):
            endpoint.dispatch()
            if self.stopping or until():
                return
        if not endpoint.peer_closed:
            raise FrameTimeoutError("no command came")

    def quit(self, reason: str) -> None:
        self.endpoint.send(control.Quit(reason=reason), to="supervisor")

    # -- the life of the process

    def run(self) -> int:
        """Run until stopped; returns the exit code."""
        while not self._ready and not self.stopping:
            self.endpoint.pump(IDLE_WAIT_S)
            self.endpoint.dispatch()
            if self.endpoint.peer_closed:
                return ORPHANED
            if self._failed:
                return SETUP_FAILED
        row, step = self.row, self.worker.step
        try:
            while not self.stopping:
                if not self._waits_for_commands:  # such a step begins by hearing them
                    self.endpoint.pump(0.0)
                self.endpoint.dispatch()
                if self.endpoint.peer_closed:
                    break
                row.step_started_ns = started = time.monotonic_ns()
                try:
                    step()
                except _Interrupted:
                    continue
                except FrameTimeoutError:
                    row.timeouts += 1
                    row.timeouts_consecutive += 1
                except (PeerDiedError, ClosedError):
                    if not self._is_orphaned():
                        raise
                    break  # the supervisor is gone, and its rings and tables with it
                else:
                    row.timeouts_consecutive = 0
                    row.frames += 1
                row.busy_ns += time.monotonic_ns() - started
        finally:
            row.step_started_ns = 0
            self.stopping = True
        if self.endpoint.peer_closed:
            sys.stderr.write(f"mutoscope: {self.name} ends: the supervisor is gone\n")
        self._rest()
        return ORPHANED if self.endpoint.peer_closed else 0

    def _is_orphaned(self) -> bool:
        """Look once more whether the supervisor is gone: its rings may say so before the bus does."""
        deadline = time.monotonic() + EOF_S
        while not self.endpoint.peer_closed and (left := deadline - time.monotonic()) > 0:
            self.endpoint.pump(left)
        return self.endpoint.peer_closed

    def _rest(self) -> None:
        if self._begun:
            self.worker.safe_state()
        if self._ready:
            self.worker.teardown()

    def close(self) -> None:
        """Close readers, tables and the bus."""
        for item in (*self._readers, *self._writers, *self._tables):
            item.close()
        self.endpoint.close()
        self.status.close()


class _Interrupted(FrameTimeoutError):
    """A wait ended because the worker is to stop."""


class _BusHandler(logging.Handler):
    """Sends log lines to the supervisor, who writes ``scope.log``.

    From any thread (the libraries of vendors log from their own), and whatever the line holds: saying something never fails.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._pid = os.getpid()
        self._discarded = 0

    def handle(self, record: logging.LogRecord) -> bool:
        """Say a line, holding no lock: handlers may run while the bus waits for room, and wait for threads that log."""
        kept = self.filter(record)
        if kept:
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)
        return bool(kept)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._say(record.levelno, wire.plain_text(self.format(record), LINE_TEXT), record.name)
        except Exception:  # noqa: BLE001  (what logging does: the line and why it was not sent go to stderr)
            self.handleError(record)

    def _say(self, level: int, text: str, name: str) -> None:
        endpoint = self._endpoint
        try:
            if not endpoint.peer_closed and os.getpid() == self._pid:
                if self._discarded:
                    words = f"{self._discarded} lines of other threads were not sent: they came too fast"
                    if endpoint.publish_soon(control.LogLine(worker=endpoint.name, level=logging.WARNING, text=words)):
                        self._discarded = 0
                if not endpoint.publish_soon(control.LogLine(worker=endpoint.name, level=level, text=text)):
                    self._discarded += 1
                return
        except (ClosedError, PeerDiedError, ScopeStateError):
            pass  # nobody hears it there: said below
        sys.stderr.write(f"{name}: {text}\n")


def _start_guard(spec: ChildSpec, status: Status) -> None:
    """Watch the supervisor and show signs of life from now on, whatever Python does."""
    try:
        lifeline = _os.open_pidfd(spec.supervisor_pid)
    except ProcessLookupError:
        lifeline = -1
    if lifeline < 0 or os.getppid() != spec.supervisor_pid:
        raise PeerDiedError("the supervisor ended before this worker started")
    address = status.heartbeat_address(spec.status_row)
    failed = library.mutoscope_guard_start(lifeline, _os.create_bell(), address, HEARTBEAT_PERIOD_NS, int(spec.grace_s * 1e9))
    if failed:
        raise OSError(failed, "the guard thread could not start")


def main(payload_fd: int) -> int:
    """Run the worker that the inherited payload describes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _os.wake_when_parent_dies(signal.SIGCONT)
    with open(payload_fd, "rb") as file:
        spec = msgspec.msgpack.decode(file.read(), type=ChildSpec)
    faulthandler.enable(file=spec.fault_fd, all_threads=True)
    _os.name_process(f"mutoscope:{spec.worker.name}")
    status = Status.from_handle(spec.status_meta, spec.status_fds)
    try:
        _start_guard(spec, status)  # before the worker's class: it may take long to load
    except PeerDiedError:
        return ORPHANED
    try:
        sys.path[:] = spec.sys_path
        kind, settings = unpack(spec.worker.payload, f"worker {spec.worker.name}")
        worker: Worker = kind()
        for key, value in settings.items():
            setattr(worker, key, value)
    except Exception as error:  # noqa: BLE001  (top of a process: reported, then it ends)
        return _fail_before_start(spec, error)
    host = WorkerHost(spec, worker, status)
    worker._host = host
    handler = _BusHandler(host.endpoint)
    logging.getLogger().addHandler(handler)
    logging.getLogger("mutoscope").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, lambda *_: setattr(host, "stopping", True))
    try:
        host.endpoint.hello()
        code = host.run()
        host.close()
    except (PeerDiedError, ClosedError):
        if not host.endpoint.peer_closed:
            return _crash(host)
        return ORPHANED
    except BaseException:  # noqa: BLE001  (top of a process: reported, then it ends; sys.exit() in a worker too)
        return _crash(host)
    return code


def _crash(host: WorkerHost) -> int:
    error = sys.exception()
    text = traceback.format_exc()
    if os.getpid() != host.pid:
        sys.stderr.write(f"mutoscope: a forked child of worker {host.name} failed\n{text}")
        return 70  # what can move is its parent's, and so is the bus
    again = bool(host.last_traceback) and processes.same_failure(text, host.last_traceback)
    sys.stderr.write(f"mutoscope: worker {host.name} failed" + (" again, the same error\n" if again else f"\n{text}"))
    try:
        host.worker.safe_state()
    except Exception:  # noqa: BLE001  (the first failure is the one that counts; this one is shown beside it)
        text += "\nand its safe_state() failed:\n" + traceback.format_exc()
    if not host.endpoint.peer_closed and error is not None:
        host.endpoint.report_crash(errors.to_record(error, text))
    return 70


def _fail_before_start(spec: ChildSpec, error: Exception) -> int:
    record = wire.error_record(error, traceback.format_exc())
    encoded = msgspec.json.encode(record)
    if len(encoded) > processes.FAULT_BYTES:
        text, trace = record.message[:FAULT_TEXT], record.traceback[-FAULT_TEXT:]
        encoded = msgspec.json.encode(errors.ErrorRecord(record.type_name, (text,), text, trace))
    os.pwrite(spec.fault_fd, encoded, 0)
    return processes.NOT_STARTED


if __name__ == "__main__":
    code = main(int(sys.argv[1]))
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    if code == ORPHANED:
        os.killpg(0, signal.SIGKILL)  # with everyone whom this worker started; nobody is left to do it
    os._exit(code)
