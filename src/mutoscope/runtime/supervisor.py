"""The supervisor: a process of its own that creates the rings, starts the workers, routes the bus and keeps the account.

It is single-threaded and never waits on anyone: everything is an event of one selector or a deadline.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import selectors
import signal
import socket
import time
from pathlib import Path
from typing import Any

from mutoscope.bus import Deferred, wire
from mutoscope.frames import _os
from mutoscope.model._faults import kill_point
from mutoscope.model.errors import (
    CommandTimeoutError,
    ConfigError,
    DatasetNotFoundError,
    DiskFullError,
    MutoscopeError,
    PeerDiedError,
    RingSizeError,
    ScopeStateError,
)
from mutoscope.runtime import control, processes
from mutoscope.runtime.accounts import final_ledger, recorder_of_tables
from mutoscope.runtime.acquisition import STOP_STREAM_S, Acquisitions
from mutoscope.runtime.consumers import shortened
from mutoscope.runtime.crew import ENDING, TEARDOWN_S, Crew
from mutoscope.runtime.dataset import DataSet
from mutoscope.runtime.desk import PROGRAM, Desk
from mutoscope.runtime.journal import Journal
from mutoscope.runtime.members import Member
from mutoscope.runtime.page import Page
from mutoscope.runtime.reception import Reception
from mutoscope.runtime.spec import DatasetState, ScopeInfo, ScopeSpec, ScopeState
from mutoscope.runtime.streams import Stream
from mutoscope.runtime.tables import Tables
from mutoscope.storage._run_tables import TABLES

__all__ = ["Supervisor"]

log = logging.getLogger(__name__)

TICK_S = 0.5
SOON_S = 0.1
REST_S = 0.001
ASLEEP_S = 2.0
BUSY_TICK_S = 0.01
DRAIN_S = 20.0
KNOW_S = 2.0
RECORD_INTO_S = STORE_TABLES_S = 60.0
LINGER_S = 0.5
FAILURES: dict[str, type[MutoscopeError]] = {
    "disk_full": DiskFullError,
    "disk_reserve": DiskFullError,
    "dataset_lost": DatasetNotFoundError,
}
"""What is raised in whoever waits for an acquisition, by the reason for which the run failed."""


class Supervisor:
    """Runs one scope from its specification to its final ledger.

    Parameters
    ----------
    spec : ScopeSpec
        What to run.
    program : socket
        The connection to the user's program; its end of file means that the program is gone.
    """

    def __init__(self, spec: ScopeSpec, program: socket.socket) -> None:
        self.spec = spec
        self.phase = "starting"
        self.started_ns = time.monotonic_ns()
        self.desk = Desk()
        self.hub, self.selector = self.desk.hub, self.desk.selector
        self.state = ScopeState(folder=spec.folder, settings=dict(spec.settings))
        self.streams: dict[str, Stream] = {}
        self.tables = Tables(self.desk, self._store_tables)
        self.dataset = DataSet(spec, self.desk)
        self.page: Page | None = None
        self.crew = Crew(self.desk, spec, self)
        self.acquisitions = Acquisitions(self.desk, self.streams, self.crew.members, self._acquiring)
        self.moving: Deferred | None = None  # answered when all recorders store into the folder that was chosen last
        self.reason = self.message = ""
        self.start_failure: BaseException | None = None
        self.awaiting_start: Deferred | None = None
        self.start_told = False
        self.prepared = False
        self.phase_deadline = time.monotonic() + spec.setup_timeout_s
        self.linger_until = 0.0
        self.program_pid = os.getppid()
        self.program_pidfd = -1
        self.program_gone = False
        self.next_check = time.monotonic()
        self.wake_read, self.wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.interrupts = 0
        self.hub.on_peer_lost = self._peer_lost
        self.hub.add_peer(PROGRAM, program, kind="client")
        self.reception = Reception(self)

    # -- the loop

    def run(self) -> int:
        """Run until the scope has ended; returns the exit code of the supervisor's process."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        self.selector.register(self.wake_read, selectors.EVENT_READ, self._woken)
        self._watch_program()
        try:
            self._start()
            wait, rested = 0.0, time.monotonic()
            while self.phase != "ended":
                for key, mask in self.selector.select(wait):
                    key.data(mask)
                wait = rested + REST_S - time.monotonic()
                if wait <= 0:  # what has no descriptor is looked at now and then, not after each message
                    self._advance()
                    rested, wait = time.monotonic(), self._time_to_wait()
        finally:
            signal.set_wakeup_fd(-1)
            self._close()
        return 0 if not self.desk.problems else 1

    def _time_to_wait(self) -> float:
        now = time.monotonic()
        busy = self.phase in ("stopping cameras", "draining", "ending workers", "stopping workers")
        busy = busy or self.acquisitions.awaiting_storage or self.acquisitions.counting_source
        due = [now + (BUSY_TICK_S if busy else TICK_S), self.next_check]
        due += [
            moment
            for moment in (part.next_deadline() for part in (self.hub, self.crew, self.tables, self.acquisitions))
            if moment is not None
        ]
        return max(0.0, min(due) - now)

    def _advance(self) -> None:
        now = time.monotonic()
        self.hub.tick(now)
        self.tables.advance(now)
        self.crew.advance(now)
        if now >= self.next_check:
            slept = now - self.next_check > ASLEEP_S
            soon = [stream.collect() for stream in self.streams.values()]
            self.next_check = now + (SOON_S if any(soon) else TICK_S)
            # After a pause of the whole scope (a frozen container, a debugger) everyone gets the time to show a sign of life.
            for member, silent_s in [] if slept else self.crew.watch(now):
                if silent_s > self.spec.recorder_hang_s and self.phase == "running":
                    self.fail_run("recorder_lost", f"{member.name} has not responded for {silent_s:.0f} s and was killed")
                    self.crew.kill(member)
        self.acquisitions.advance(now)
        self._advance_phase(now)

    def _watch_program(self) -> None:
        """Notice the program's death also when a child that it forked keeps its connection open."""
        try:
            self.program_pidfd = _os.open_pidfd(self.program_pid)
        except ProcessLookupError:
            self._program_lost()
            return
        self.selector.register(self.program_pidfd, selectors.EVENT_READ, self._program_died)

    def _program_died(self, _mask: int) -> None:
        self.selector.unregister(self.program_pidfd)
        self._program_lost()

    def _on_signal(self, number: int, _frame: object) -> None:
        self.interrupts += 1

    def _woken(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake_read, 4096)
        if self.interrupts == 1:
            self.begin_stop("interrupted")
        elif self.interrupts > 1:
            self.stop_now("interrupted")

    # -- starting

    def _start(self) -> None:
        _os.name_process("mutoscope:supervisor")
        try:
            self._check_memory()
            record = self.spec.record
            self.desk.journal = Journal(self.spec.folder, anew=record is not None and record.overwrite)
            document = {"name": self.spec.name, "supervisor_pid": os.getpid(), "settings": self.spec.settings}
            self.desk.journal.save("scope.json", document)
            if self.spec.page is not None:
                self.page = Page(self.spec.page, self.spec.name)
            resumed = record is not None and record.resume
            first_ids = self.dataset.create() if resumed else {}
            self.crew.spawn_all()
            for stream in self.spec.streams:
                name = stream.info.name
                self.streams[name] = Stream(stream, first_ids.get(name, 1))
                self.selector.register(self.streams[name].ring.bell, selectors.EVENT_READ, self.streams[name].rung)
                self.desk.note(logging.INFO, f"{name}: ring of {stream.slots} × {stream.slot_bytes:,} bytes")
        except Exception as error:  # noqa: BLE001 - the top of the process: whoever waits for the start is told
            self.fail_start(self.desk.foreseen(error))

    def _check_memory(self) -> None:
        need, available = sum(stream.slots * stream.slot_bytes for stream in self.spec.streams), _os.available_memory()
        if need > available:
            sizes = ", ".join(f"{s.info.name}: {s.slots} × {s.slot_bytes:,}" for s in self.spec.streams)
            raise RingSizeError(
                f"the rings need {need:,} bytes of memory ({sizes}), {available:,} are available: take fewer ring_slots"
            )

    def all_introduced(self) -> None:
        """Every worker is known and fits: now the data set is made."""
        if not self.dataset.made:
            self.dataset.create()
        if self.spec.record is not None:
            first_ids = {name: stream.first_id for name, stream in self.streams.items()}
            self.set_state(dataset=DatasetState(path=self.spec.record.path, first_ids=first_ids))
        self.prepared = True
        if not self.crew.members:
            self._started()

    def set_up_command(self) -> control.SetUp:
        """What a worker is told to be set up."""
        record = self.spec.record
        info = ScopeInfo(
            name=self.spec.name,
            cameras={stream.info.name: stream.info for stream in self.spec.streams},
            workers=tuple(self.crew.members),
            tables=self.tables.names,
            recorded=record is not None,
            reserve_bytes=record.reserve_bytes if record else 0,
            started_ns=self.started_ns,
        )
        return control.SetUp(info=info, state=self.state)

    def member_ready(self, member: Member) -> None:
        """A worker is set up; the scope runs once all are."""
        for stream in self.streams.values():
            stream.worker_ready(member.name)
        if self.phase == "starting" and all(each.state == "running" for each in self.crew):
            self._started()
        self.acquisitions.member_ready(member)
        if member.name == recorder_of_tables(self.spec):
            self._store_tables()

    def _store_tables(self) -> None:
        """Tell the recorder of the tables which there are, once the scope runs: then the run's folder is its own."""
        name = recorder_of_tables(self.spec)
        member = self.crew.members.get(name or "")
        if member is None or not member.serving or self.phase not in ("running", *ENDING) or not self.tables.names:
            return
        assert self.spec.folder is not None
        command = control.StoreTables(folder=str(Path(self.spec.folder) / TABLES), tables=self.tables.offered())
        self.hub.request(member.name, command, STORE_TABLES_S, self._tables_told)

    def _tables_told(self, _value: Any, error: Exception | None) -> None:
        if error is not None and not isinstance(error, PeerDiedError):  # the successor of one that died is told again
            self.desk.report(f"the recorder could not be told to store the tables: {error}")

    def _started(self) -> None:
        self.phase = "running"
        kill_point("scope.started")
        self.desk.journal.begin()
        self.dataset.started()
        self._store_tables()
        if self.awaiting_start is not None:
            self.awaiting_start.resolve(self._start_report())
            self.awaiting_start = None

    def await_start(self) -> Any:
        """Answered once every worker is set up; raises what prevents it."""
        if self.start_failure is not None:
            self.start_told = True
            raise self.start_failure
        if self.phase == "running":
            return self._start_report()
        if self.phase != "starting":
            raise ScopeStateError(f"the scope was ended while it started: {self.reason}")
        self.awaiting_start = Deferred()
        return self.awaiting_start

    def _start_report(self) -> dict[str, Any]:
        workers = {m.name: m.child.pid for m in self.crew if m.child}
        return {"supervisor_pid": os.getpid(), "workers": workers, "page_url": self.page and self.page.access.url}

    def fail_start(self, error: BaseException) -> None:
        """End at once; whoever waits for the start hears why."""
        if self.start_failure is not None or self.phase != "starting":
            return
        error = processes.out_of_files(error) or error
        self.start_failure = error
        self.desk.report(str(error))
        if self.awaiting_start is not None:
            self.awaiting_start.reject(error if isinstance(error, Exception) else RuntimeError(str(error)))
            self.awaiting_start, self.start_told = None, True
        self.stop_now("failed_to_start")

    # -- what happens to processes

    def stalled(self, member: Member, now: float) -> tuple[float, int]:
        """For how many seconds a worker has held a camera without doing anything, and how many frames it is behind."""
        return max((stream.stalled(member.name, now) for stream in self.streams.values()), default=(0.0, 0))

    def uncommitted(self, member: Member, now: float) -> tuple[float, int]:
        """For how many seconds a worker has taken frames of a lossless reader without committing one, and how many."""
        return max((stream.uncommitted(member.name, now) for stream in self.streams.values()), default=(0.0, 0))

    def member_died(self, member: Member, restarts: bool) -> None:
        """Give back what an ended worker held."""
        reason = "stopped" if self.phase in ("ending workers", "stopping workers") else "worker_lost"
        for stream in self.streams.values():
            stream.worker_died(member.name, restarts=restarts, reason=reason)
        self.tables.worker_died(member.name, restarts=restarts)
        self.acquisitions.member_died(member)

    def in_vain(self, member: Member) -> bool:
        """Whether a recorder died whose data set is not where it was: no other would find it."""
        return member.spec.kind == "recorder" and bool(self.dataset.loss())

    def member_lost(self, member: Member, what: str) -> None:
        """A worker will not come back."""
        self.acquisitions.member_lost(member, what)
        if member.spec.kind == "recorder":
            self.fail_run("recorder_lost", what)
        else:
            self.desk.report(what)

    def _peer_lost(self, name: str, _reason: str) -> None:
        if name == PROGRAM:
            self._program_lost()
        else:
            self.crew.peer_lost(name)

    def _program_lost(self) -> None:
        if self.program_gone:
            return
        self.program_gone = True
        for stream in self.streams.values():
            stream.worker_died(PROGRAM, restarts=False, reason="program_ended")
        self.tables.worker_died(PROGRAM, restarts=False)
        self.acquisitions.program_lost()
        if self.spec.outlive and self.phase == "running" and self.acquisitions.active:
            self.desk.note(logging.WARNING, "the user's program is gone; the run goes on until its frames are stored")
            return
        self.begin_stop("program_ended")

    def fail_run(self, reason: str, message: str) -> None:
        """End the run in order: it cannot go on storing."""
        if reason in ("recorder_lost", "dataset_lost") and (loss := self.dataset.loss()):
            reason, message = "dataset_lost", loss
        if self.acquisitions.failure is None:
            self.acquisitions.failure = FAILURES.get(reason, PeerDiedError)(message)
        self.desk.report(message)
        self.begin_stop(reason)

    def _acquiring(self, acquiring: bool) -> None:
        self.set_state(acquiring=acquiring, mode="acquiring" if acquiring else "idle")

    def set_state(self, **changes: Any) -> None:
        """Change the shared state; every worker hears it."""
        values = {field: getattr(self.state, field) for field in self.state.__struct_fields__}
        self.state = ScopeState(**{**values, **changes})
        self.hub.publish(control.StateChanged(state=self.state))

    def when_recorders_know(self) -> Deferred:
        """Answered when each recorder has the shared state, has ended, or has not responded for `KNOW_S`."""
        answer, left = Deferred(), [member.name for member in self.crew if member.spec.kind == "recorder"]

        def answered(name: str, _value: Any, _error: Exception | None) -> None:  # the successor of one that died starts with it
            left.remove(name)
            if not left:
                answer.resolve()

        if not left:
            answer.resolve()
        for name in list(left):
            self.hub.request(name, control.KnowState(state=self.state), KNOW_S, functools.partial(answered, name))
        return answer

    def change_folder(self, folder: str) -> Deferred:
        """Have what comes from now on stored in a new data set in another folder; answered with its path.

        Raises
        ------
        ConfigError
            If nothing is recorded, or the folder cannot be.
        DatasetExistsError
            If there is a data set already.
        DiskFullError
            If there is no room beyond the reserve.
        ScopeStateError
            While frames are acquired, or are yet to be stored, or recorders are on their way already.
        """
        if self.spec.record is None:
            raise ConfigError("this scope does not record: start it with record=")
        if self.phase != "running" or self.acquisitions.open or not self._stored():
            raise ScopeStateError("frames are being recorded: the folder can be changed when the acquisition has ended")
        self.check_settled()
        answer, left = Deferred(), [member.name for member in self.crew if member.spec.kind == "recorder"]
        path = self.dataset.go_on_in(folder)
        self.set_state(
            dataset=DatasetState(
                path=path,
                folder=str(Path(folder)),
                first_ids={name: stream.ring.head() + 1 for name, stream in self.streams.items()},
                stored_before={name: stream.stored_after(stream.first_id - 1) for name, stream in self.streams.items()},
            )
        )

        def answered(name: str, _value: Any, error: Exception | None) -> None:
            if error is not None and not isinstance(error, PeerDiedError):  # the successor of one that died goes on there
                answer.reject(error)
                self.fail_run("recorder_lost", f"{name} could not go on in {path}: {error}")
                return
            left.remove(name)
            if not left:
                answer.resolve(path)

        self.moving = answer
        for name in list(left):
            self.hub.request(name, control.RecordInto(path=path), RECORD_INTO_S, functools.partial(answered, name))
        return answer

    def check_settled(self) -> None:
        """Raise ScopeStateError while recorders are on their way to another folder: frames would be in either data set."""
        if self.moving is not None and not self.moving.done:
            raise ScopeStateError("the folder of the recording is being changed: wait until that is done")

    def setting_changed(self, stream: Stream, applied: control.SettingApplied, by: str) -> None:
        """A camera runs with other settings: its successors open with them, and the ledger says from which frame they hold."""
        if not applied.changed:
            return
        stream.changes.add(applied.changed, applied.before, applied.frame_id, by)
        cameras = self.state.camera_settings
        self.set_state(camera_settings={**cameras, stream.name: {**cameras.get(stream.name, {}), **applied.changed}})
        for name, value in applied.changed.items():
            was = applied.before[name]
            said = f"{stream.name}: {name} is {value!r}, was {was!r}, from frame {applied.frame_id} on; asked by {by}"
            self.desk.note(logging.INFO, said)

    # -- stopping

    def begin_stop(self, reason: str, message: str = "") -> None:
        """Stop in order: cameras, their processes, then what is in flight is stored, then the workers."""
        if self.phase == "starting":
            self.stop_now(reason)
        if self.phase != "running":
            return
        self.reason, self.message = reason, message
        self.desk.note(logging.INFO, f"the scope ends: {reason}" + (f" ({message})" if message else ""))
        self._enter("stopping cameras", STOP_STREAM_S * (1 + len(self.streams)))
        self.acquisitions.stop()

    def stop_now(self, reason: str) -> None:
        """Stop at once: SIGTERM to all, SIGKILL shortly after."""
        if self.phase == "ended":
            return
        if self.phase == "starting" and self.awaiting_start is not None:
            self.awaiting_start.reject(ScopeStateError(f"the scope was ended while it started: {reason}"))
            self.awaiting_start = None
        self.reason = self.reason or reason
        self._enter("stopping workers", TEARDOWN_S)
        self.acquisitions.stop()
        self.crew.stop_all_now(reason)

    def _enter(self, phase: str, deadline_s: float) -> None:
        self.phase = phase
        self.phase_deadline = time.monotonic() + deadline_s

    def _advance_phase(self, now: float) -> None:
        if self.phase == "starting" and now > self.phase_deadline:
            late = [member.name for member in self.crew if member.state != "running"]
            self.fail_start(CommandTimeoutError(f"{', '.join(late)} did not start within {self.spec.setup_timeout_s:g} s"))
        if self.phase == "running" and self.program_gone and not self.acquisitions.active and self._stored():
            self.begin_stop("program_ended")
        if self.phase == "stopping cameras" and (not self.acquisitions.active or now > self.phase_deadline):
            self._enter("ending cameras", 2 * TEARDOWN_S)
            self.crew.stop_all(self.reason, kind="camera")
        if self.phase == "ending cameras" and (not self.crew.alive("camera") or now > self.phase_deadline):
            self._enter("draining", DRAIN_S)  # nobody publishes any more
            self.linger_until = now + LINGER_S
        if self.phase == "draining" and ((self._stored() and self._workers_done(now)) or now > self.phase_deadline):
            self._enter("ending workers", 2 * TEARDOWN_S)
            if self.tables.names and recorder_of_tables(self.spec) is not None:  # their last rows are stored, too
                self.crew.stop_all(self.reason, kind="worker")
        if self.phase == "ending workers" and (not self.crew.stopping("worker") or now > self.phase_deadline):
            self._enter("stopping workers", TEARDOWN_S)
            self.crew.stop_all(self.reason)
        if self.phase == "stopping workers" and not self.crew.alive() and not self._must_tell(now):
            self._finish()

    def _must_tell(self, now: float) -> bool:
        """Whether the program has yet to ask why the start failed."""
        return self.start_failure is not None and not (self.start_told or self.program_gone or now > self.phase_deadline)

    def _stored(self) -> bool:
        return all(self.acquisitions.stored(stream) for stream in self.streams.values())

    def _workers_done(self, now: float) -> bool:
        """Whether workers with lossless readers have had their chance to see the last frames."""
        if now > self.linger_until:
            return True
        return all(stream.drained(member.name) for stream in self.streams.values() for member in self.crew if member.serving)

    def _finish(self) -> None:
        ledger = final_ledger(self.spec, self.streams, self.tables, self.crew.members, self.reason, self.desk, self.dataset)
        self.dataset.end()
        self.desk.journal.save("ledger.json", ledger)
        if self.desk.journal.failure:
            self.desk.problems.append(f"the log could not be written: {self.desk.journal.failure}")
        self.acquisitions.advance(time.monotonic())
        failure = self.acquisitions.failure
        self.hub.publish(
            control.ScopeEnded(
                reason=self.reason,
                message=self.message,
                errors=self.desk.problems,
                ledger=shortened(ledger),
                status=self.crew.describe(),
                error=wire.error_record(failure) if failure is not None else None,
            )
        )
        self._flush_to_program(1.0)
        self._call_at_end()
        self.phase = "ended"

    def _call_at_end(self) -> None:
        """Have the run's report made: of one that has begun."""
        if self.spec.at_end is None or self.spec.folder is None or not self.dataset.begun:
            return
        module, _, function = self.spec.at_end.partition(":")
        try:
            getattr(importlib.import_module(module), function)(self.spec.folder)
        except Exception as error:  # noqa: BLE001 - all that counts is stored and told: what fails here is in the log
            self.desk.note(logging.ERROR, f"{self.spec.at_end} failed: {type(error).__name__}: {error}")

    def _flush_to_program(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            statistics = self.hub.statistics().get(PROGRAM)
            if statistics is None or statistics.unsent_bytes == 0:
                return
            for key, mask in self.selector.select(left):
                key.data(mask)

    def _close(self) -> None:
        self.crew.close()
        for stream in self.streams.values():
            stream.close()
        self.tables.close()
        if self.page is not None:
            self.page.close()
        refused = isinstance(self.start_failure, MutoscopeError | OSError) and not self.prepared
        self.dataset.close()
        self.desk.close(undo=refused)
        if self.program_pidfd >= 0:
            os.close(self.program_pidfd)
        os.close(self.wake_read)
        os.close(self.wake_write)
