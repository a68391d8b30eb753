"""The supervisor: a process of its own that creates the rings, starts and restarts the workers, routes the bus and keeps the account.

It is single-threaded and never waits on anyone: everything is an event of one selector or a deadline.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from mutoscope import storage
from mutoscope.bus import CallRecord, Deferred, Hub, Manifest, Reply
from mutoscope.frames import Status, Table, _os
from mutoscope.model import errors
from mutoscope.model.errors import (
    ConfigError,
    DiskFullError,
    MutoscopeError,
    PeerDiedError,
    ScopeStateError,
    UnknownCommandError,
)
from mutoscope.runtime import control, processes
from mutoscope.runtime.accounts import final_ledger, live_ledger
from mutoscope.runtime.journal import Journal
from mutoscope.runtime.members import Member
from mutoscope.runtime.spec import ScopeInfo, ScopeSpec, ScopeState
from mutoscope.runtime.streams import Stream

__all__ = ["Supervisor"]

log = logging.getLogger(__name__)

PROGRAM = "program"
TICK_S = 0.5
BUSY_TICK_S = 0.01
STOP_STREAM_S = 5.0
DRAIN_S = 20.0
TEARDOWN_S = 5.0
KILL_AFTER_TERM_S = 1.0
START_STREAM_S = 30.0


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
        self.selector = selectors.DefaultSelector()
        self.journal = Journal(None)
        self.state = ScopeState(folder=spec.folder, settings=dict(spec.settings))
        self.streams: dict[str, Stream] = {}
        self.tables: dict[str, tuple[str, Table, dict[tuple[str, int], int]]] = {}
        self.waiting_for_table: dict[str, list[tuple[str, control.AttachTable, Deferred]]] = {}
        self.status = Status.create([worker.name for worker in spec.workers] or ["none"])
        self.status_handle = self.status.handle()
        self.members: dict[str, Member] = {
            worker.name: Member(worker, index, self.status) for index, worker in enumerate(spec.workers)
        }
        self.manifests: dict[str, Manifest] = {}
        self.phase = "starting"
        self.reason = ""
        self.problems: list[str] = []
        self.failure: MutoscopeError | None = None
        self.start_failure: BaseException | None = None
        self.awaiting_start: Deferred | None = None
        self.acquisition = 0
        self.acquisition_open = False
        self.phase_deadline = time.monotonic() + spec.setup_timeout_s
        self.program_gone = False
        self.next_check = 0.0
        self.wake_read, self.wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.interrupts = 0
        self.hub = Hub(self.selector)
        self.hub.on_hello = self._hello
        self.hub.on_peer_lost = self._peer_lost
        self.hub.on_crash_report = self._crash_reported
        self.hub.on_problem = self._handler_failed
        self.hub.on_call = self._called
        self.program_pid = os.getppid()
        self.hub.add_peer(PROGRAM, program, kind="client")
        self._register_commands()

    # -- the loop

    def run(self) -> int:
        """Run until the scope has ended; returns the exit code of the supervisor's process."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        self.selector.register(self.wake_read, selectors.EVENT_READ, self._woken)
        try:
            self._start()
            while self.phase != "ended":
                for key, mask in self.selector.select(self._time_to_wait()):
                    key.data(mask)
                self._advance()
        finally:
            signal.set_wakeup_fd(-1)
            self._close()
        return 0 if not self.problems else 1

    def _time_to_wait(self) -> float:
        now = time.monotonic()
        busy = self.phase in ("stopping cameras", "draining", "stopping workers") or (
            self.acquisition_open and not any(stream.active for stream in self.streams.values())
        )
        wait = BUSY_TICK_S if busy else TICK_S
        due = [member.restart_at for member in self.members.values() if member.restart_at is not None]
        deadline = self.hub.next_deadline()
        if deadline is not None:
            due.append(deadline)
        return max(0.0, min([wait, *(moment - now for moment in due)]))

    def _advance(self) -> None:
        now = time.monotonic()
        self.hub.tick(now)
        for member in self.members.values():
            if member.restart_at is not None and now >= member.restart_at:
                member.restart_at = None
                self._spawn(member)
            if member.term_at is not None and now >= member.term_at and member.child is not None:
                member.term_at, member.kill_at = None, now + KILL_AFTER_TERM_S
                member.child.signal(signal.SIGCONT)
                member.child.signal(signal.SIGTERM)
            if member.kill_at is not None and now >= member.kill_at and member.child is not None:
                member.kill_at = None
                self._note(logging.WARNING, f"{member.name} did not end in time and was killed")
                member.child.signal(signal.SIGKILL)
        if now >= self.next_check:
            self.next_check = now + TICK_S
            self._check_heartbeats()
        self._advance_phase(now)
        self._check_acquisition()

    def _on_signal(self, number: int, _frame: object) -> None:
        self.interrupts += 1

    def _woken(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake_read, 4096)
        if self.interrupts == 1:
            self.begin_stop("interrupted")
        elif self.interrupts > 1:
            self.stop_now("interrupted twice")

    # -- starting

    def _start(self) -> None:
        _os.name_process("mutoscope:supervisor")
        try:
            self.journal = Journal(self.spec.folder)
            document = {"name": self.spec.name, "supervisor_pid": os.getpid(), "settings": self.spec.settings}
            self.journal.save("scope.json", document)
            first_ids = self._create_recording()
            for stream in self.spec.streams:
                name = stream.info.name
                self.streams[name] = Stream(stream, first_ids.get(name, 1))
                self._note(logging.INFO, f"{name}: ring of {stream.slots} × {stream.slot_bytes:,} bytes")
            for member in self.members.values():
                self._spawn(member)
        except (MutoscopeError, OSError) as error:
            self._fail_start(error)

    def _create_recording(self) -> dict[str, int]:
        """Create the data set; returns the first ``frame_id`` of each camera (after the last stored one when resuming)."""
        record = self.spec.record
        if record is None:
            return {}
        layouts = {
            stream.info.name: storage.CameraLayout(
                shape=stream.info.shape,
                dtype=stream.info.dtype,
                rate_hz=stream.info.rate_hz,
                pixel_size_um=stream.info.pixel_size_um,
            )
            for stream in self.spec.streams
            if stream.recorder is not None
        }
        settings = {stream.info.name: stream.info.settings for stream in self.spec.streams}
        recording = storage.create_recording(
            record.path,
            layouts,
            overwrite=record.overwrite,
            resume=record.resume,
            attributes={"scope": self.spec.name, "settings": {**self.spec.settings, "cameras": settings}},
        )
        return {name: recording.last_frame_id(name) + 1 for name in layouts}

    def _spawn(self, member: Member) -> None:
        child = member.spawn(self.spec.sys_path)
        self.selector.register(child.pidfd, selectors.EVENT_READ, lambda _mask, member=member: self._member_ended(member))
        self.hub.add_peer(member.name, child.bus)
        self._changed(member)

    def _hello(self, name: str, manifest: Manifest) -> None:
        if name == PROGRAM:
            return
        member = self.members[name]
        first = name not in self.manifests
        self.manifests[name] = manifest
        if not first or self.phase != "starting":
            self._set_up(member)
        elif all(worker in self.manifests for worker in self.members):
            try:
                self.hub.check_routes(self.manifests)
            except MutoscopeError as failure:
                self._fail_start(failure)
                return
            for each in self.members.values():
                self._set_up(each)

    def _set_up(self, member: Member) -> None:
        member.set_state("setting up")
        self._changed(member)
        info = ScopeInfo(
            name=self.spec.name,
            cameras={name: stream.spec.info for name, stream in self.streams.items()},
            workers=tuple(self.members),
            tables=tuple(self.tables),
            record_path=self.spec.record.path if self.spec.record else None,
            reserve_bytes=self.spec.record.reserve_bytes if self.spec.record else 0,
        )
        command = control.SetUp(info=info, state=self.state)
        incarnation = member.incarnation
        self.hub.request(
            member.name,
            command,
            self.spec.setup_timeout_s,
            lambda _value, error: self._set_up_done(member, incarnation, error),
        )

    def _set_up_done(self, member: Member, incarnation: int, error: Exception | None) -> None:
        if member.incarnation != incarnation or member.child is None:
            return
        if error is not None:
            member.last_error = f"setup failed: {error}"
            member.last_traceback = getattr(error, "remote_traceback", None) or ""
            self._note(logging.ERROR, f"{member.name}: {member.last_error}")
            if self.phase == "starting":
                self._fail_start(error)
            else:
                member.child.signal(signal.SIGKILL)
            return
        member.set_state("running")
        if member.died_at is not None:
            member.recovery_s.append(time.monotonic() - member.died_at)
            member.died_at = None
            self._note(logging.INFO, f"{member.name} is back after {member.recovery_s[-1]:.3f} s")
        self._changed(member)
        if self.phase == "starting" and all(each.state == "running" for each in self.members.values()):
            self.phase = "running"
            if self.awaiting_start is not None:
                self.awaiting_start.resolve(self._start_report())
                self.awaiting_start = None
        for stream in self.streams.values():
            if stream.spec.producer == member.name and stream.active:
                self._start_stream(stream)

    def _start_report(self) -> dict[str, Any]:
        return {"supervisor_pid": os.getpid(), "workers": {m.name: m.child.pid for m in self.members.values() if m.child}}

    def _fail_start(self, error: BaseException) -> None:
        if self.start_failure is not None:
            return
        self.start_failure = error
        self.problems.append(str(error))
        self.reason = "failed to start"
        if self.awaiting_start is not None:
            self.awaiting_start.reject(error if isinstance(error, Exception) else RuntimeError(str(error)))
            self.awaiting_start = None
        self.stop_now("failed to start")

    # -- deaths

    def _peer_lost(self, name: str, reason: str) -> None:
        if name == PROGRAM:
            self._program_lost()

    def _program_lost(self) -> None:
        if self.program_gone:
            return
        self.program_gone = True
        if self.phase in ("ended", "stopping workers"):
            return
        if self.spec.outlive and self.phase == "running" and any(stream.active for stream in self.streams.values()):
            self._note(logging.WARNING, "the user's program is gone; the run goes on until its frames are stored")
            return
        self.begin_stop("the user's program ended")

    def _member_ended(self, member: Member) -> None:
        if member.child is None:
            return
        self.selector.unregister(member.child.pidfd)
        pid = member.child.pid
        self._read_last_words(member)
        self.hub.remove_peer(member.name, f"{member.name} ended")
        status, fault = member.ended()
        now = time.monotonic()
        orderly = status == 0 and (member.state == "stopping" or self.phase not in ("starting", "running"))
        restart_at = None
        if not orderly and self.phase in ("starting", "running", "stopping cameras", "draining"):
            restart_at = member.next_restart(now)
        recorder = member.spec.kind == "recorder"
        if self.phase in ("stopping cameras", "draining") and not recorder:
            restart_at = None
        consent = member.spec.restart.mode == "consent" and restart_at is not None
        for stream in self.streams.values():
            stream.worker_died(member.name, restarts=restart_at is not None)
        for owner, table, readers in self.tables.values():
            if owner == member.name:
                table.writer_died()
            for (worker, key), row in list(readers.items()):
                if worker == member.name:
                    table.reader_died(row)
                    del readers[worker, key]
        if orderly:
            member.set_state("ended")
            self._changed(member)
            return
        what = processes.describe_exit(status)
        if status == processes.NOT_STARTED and fault:
            record = msgspec.json.decode(fault.encode(), type=errors.ErrorRecord)
            member.last_error, member.last_traceback, fault = record.message, record.traceback, ""
            member.set_state("failed")
            self._note(logging.ERROR, f"{member.name} could not be loaded: {record.message}")
            if self.phase == "starting":
                self._fail_start(errors.from_record(record))
            self._changed(member)
            return
        if fault:
            member.last_traceback = fault
        if not member.last_error or status < 0:
            member.last_error = what
        self._note(logging.ERROR, f"{member.name} (pid {pid}) {what}" + (f"\n{fault}" if fault else ""))
        if self.start_failure is not None:
            member.set_state("failed")
        elif self.phase == "starting" and member.restarts == 0 and status > 0:
            member.set_state("failed")
            self._fail_start(PeerDiedError(f"worker {member.name} {what} before it was set up: {member.last_error}"))
        elif restart_at is None:
            member.set_state("failed")
            self._lost_for_good(member, what)
        else:
            member.died_at = now if member.died_at is None else member.died_at
            member.restarts += 1
            if consent:
                member.set_state("needs consent")
                self._note(
                    logging.WARNING,
                    f"{member.name} can move and is not restarted without consent: scope.allow_restart({member.name!r})",
                )
            else:
                member.set_state("restarting")
                member.restart_at = restart_at
        self._changed(member)

    def _read_last_words(self, member: Member) -> None:
        """Handle what the ended process had written before its death, such as its crash report."""
        if member.child is None or member.name not in self.hub.peers:
            return
        self.selector.get_key(member.child.bus).data(selectors.EVENT_READ)

    def _lost_for_good(self, member: Member, what: str) -> None:
        if self.phase not in ("starting", "running"):
            return
        for stream in self.streams.values():
            if stream.spec.producer == member.name and stream.active:
                self._stream_ended(stream, "error", f"{member.name} {what} and is out of restarts")
        if member.spec.kind == "recorder":
            self._fail_run("recorder_lost", f"{member.name} {what} and is out of restarts: {member.last_error}")

    def _fail_run(self, reason: str, message: str) -> None:
        if self.failure is None:
            self.failure = DiskFullError(message) if reason.startswith("disk") else PeerDiedError(message)
            self.problems.append(message)
        self._note(logging.ERROR, message)
        self.begin_stop(reason)

    def _check_heartbeats(self) -> None:
        now = time.monotonic_ns()
        for member in self.members.values():
            if member.child is None or member.state not in ("running", "not responding"):
                continue
            age = (now - member.status.row(member.status_row).heartbeat_ns) / 1e9
            stopped = age > 2 * TICK_S and processes.is_stopped(member.child.pid)
            if age > self.spec.hang_report_s and member.state == "running":
                member.set_state("not responding")
                why = " (it is stopped: SIGSTOP)" if stopped else ""
                self._note(logging.WARNING, f"{member.name} (pid {member.child.pid}) has not responded for {age:.1f} s{why}")
                self._changed(member)
            elif age < 2 * TICK_S and member.state == "not responding":
                member.set_state("running")
                self._note(logging.INFO, f"{member.name} responds again")
                self._changed(member)
            if member.spec.kind == "recorder" and age > self.spec.recorder_hang_s and self.phase == "running":
                self._fail_run("recorder_lost", f"{member.name} has not responded for {age:.0f} s; the run ends")

    # -- acquisition

    def _start_acquisition(self, _sender: str, command: control.StartAcquisition) -> Any:
        if self.phase != "running":
            raise ScopeStateError(f"the scope is {self.phase}: nothing can be acquired now")
        chosen = [self._stream(name) for name in command.streams] or list(self.streams.values())
        busy = [stream.name for stream in chosen if stream.active]
        if busy:
            raise ScopeStateError(f"{', '.join(busy)}: already acquiring; stop the acquisition first")
        if not chosen:
            raise ConfigError("the scope has no camera: nothing can be acquired")
        deferred = Deferred()
        waiting = {stream.name for stream in chosen}

        def started(name: str, error: Exception | None) -> None:
            if error is not None:
                deferred.reject(error)
                return
            waiting.discard(name)
            if not waiting:
                deferred.resolve(self.acquisition)

        for stream in chosen:
            stream.target_id = stream.ring.head() + command.frames if command.frames else 0
            stream.active, stream.ended_reason, stream.ended_message = True, None, ""
        self.acquisition += 1
        self.acquisition_open = True
        self._set_state(acquiring=True, mode="acquiring")
        for stream in chosen:
            if stream.spec.producer is None:
                started(stream.name, None)
            else:
                self._start_stream(stream, started)
        return deferred

    def _start_stream(self, stream: Stream, done: Callable[[str, Exception | None], None] | None = None) -> None:
        producer = stream.spec.producer
        if producer is None:
            return
        if producer not in self.hub.peers or self.members[producer].state not in ("running", "not responding"):
            if done is not None:
                done(stream.name, None)  # it is being restarted, and told when it is back
            return

        def answered(_value: Any, error: Exception | None) -> None:
            if isinstance(error, PeerDiedError):
                error = None  # its successor is told
            if error is not None:
                self._stream_ended(stream, "error", str(error))
            if done is not None:
                done(stream.name, error)

        self.hub.request(producer, control.StartStream(stream=stream.name, last_id=stream.target_id), START_STREAM_S, answered)

    def _stop_streams(self) -> None:
        for stream in self.streams.values():
            if not stream.active:
                continue
            producer = stream.spec.producer
            if producer is None or producer not in self.hub.peers:
                self._stream_ended(stream, "stopped", "")
                continue
            self.hub.request(
                producer,
                control.StopStream(stream=stream.name),
                STOP_STREAM_S,
                lambda _value, error, stream=stream: self._stream_ended(stream, "stopped", str(error) if error else ""),
            )

    def _stream_ended(self, stream: Stream, reason: str, message: str) -> None:
        if not stream.active:
            return
        stream.active, stream.ended_reason, stream.ended_message = False, reason, message
        if reason == "error":
            self.problems.append(f"{stream.name}: {message}")
            self._note(logging.ERROR, f"{stream.name}: {message}")
        if not any(each.active for each in self.streams.values()):
            self._set_state(acquiring=False, mode="idle")

    def _check_acquisition(self) -> None:
        if not self.acquisition_open or any(stream.active for stream in self.streams.values()):
            return
        if not self._drained() and self.failure is None and self.phase != "ended":
            return
        self.acquisition_open = False
        self.hub.publish(
            control.AcquisitionEnded(
                number=self.acquisition,
                reasons={name: stream.ended_reason or "idle" for name, stream in self.streams.items()},
                messages={name: stream.ended_message for name, stream in self.streams.items() if stream.ended_message},
                error=errors.to_record(self.failure) if self.failure is not None else None,
            )
        )
        if self.program_gone:
            self.begin_stop("the user's program ended")

    def _drained(self) -> bool:
        for stream in self.streams.values():
            recorder = stream.spec.recorder
            if (
                recorder is not None
                and self.members[recorder].state not in ("failed", "ended")
                and not stream.drained(recorder)
            ):
                return False
        return True

    # -- stopping

    def begin_stop(self, reason: str) -> None:
        """Stop in order: cameras, then what is in flight is stored, then the workers."""
        if self.phase not in ("starting", "running"):
            return
        if self.phase == "starting":
            self.stop_now(reason)
            return
        self.reason = reason
        self._note(logging.INFO, f"the scope ends: {reason}")
        self._enter("stopping cameras", STOP_STREAM_S + 0.5)
        self._stop_streams()

    def stop_now(self, reason: str) -> None:
        """Stop at once: SIGTERM to all, SIGKILL shortly after."""
        if self.phase == "ended":
            return
        self.reason = self.reason or reason
        self._enter("stopping workers", TEARDOWN_S)
        now = time.monotonic()
        for member in self.members.values():
            member.restart_at = None
            if member.child is not None:
                member.child.signal(signal.SIGCONT)
                member.child.signal(signal.SIGTERM)
                member.term_at, member.kill_at = None, now + KILL_AFTER_TERM_S

    def _enter(self, phase: str, deadline_s: float) -> None:
        self.phase = phase
        self.phase_deadline = time.monotonic() + deadline_s

    def _advance_phase(self, now: float) -> None:
        if self.phase == "starting" and now > self.phase_deadline:
            late = [member.name for member in self.members.values() if member.state != "running"]
            self._fail_start(TimeoutError(f"{', '.join(late)} did not start within {self.spec.setup_timeout_s:.0f} s"))
        if self.phase == "stopping cameras" and (
            not any(stream.active for stream in self.streams.values()) or now > self.phase_deadline
        ):
            for stream in self.streams.values():
                self._stream_ended(stream, "stopped", "did not answer in time")
            self._enter("draining", DRAIN_S)
        if self.phase == "draining" and (self._drained() or now > self.phase_deadline):
            self._enter("stopping workers", TEARDOWN_S)
            for member in self.members.values():
                member.restart_at = None
                if member.child is not None:
                    self._stop_member(member, now)
        if self.phase == "stopping workers" and not any(member.alive for member in self.members.values()):
            self._finish()

    def _stop_member(self, member: Member, now: float) -> None:
        member.set_state("stopping")
        member.term_at = now + TEARDOWN_S
        if member.child is not None and processes.is_stopped(member.child.pid):
            member.term_at = now
        if member.name in self.hub.peers:
            self.hub.request(member.name, control.StopWorker(reason=self.reason), TEARDOWN_S, lambda _value, _error: None)

    def _finish(self) -> None:
        for member in self.members.values():
            if member.state not in ("failed", "ended"):
                member.set_state("ended")
        ledger = final_ledger(self.spec, self.streams, self.members, self.reason, self.problems)
        if self.journal.failure:
            self.problems.append(f"the log could not be written: {self.journal.failure}")
        self.journal.save("ledger.json", ledger)
        status = [member.describe() for member in self.members.values()]
        self._check_acquisition()
        self.hub.publish(control.ScopeEnded(reason=self.reason, errors=self.problems, ledger=ledger, status=status))
        self._flush_to_program(1.0)
        self.phase = "ended"

    def _flush_to_program(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            statistics = self.hub.statistics().get(PROGRAM)
            if statistics is None or statistics.unsent_bytes == 0:
                return
            for key, mask in self.selector.select(left):
                key.data(mask)

    def _close(self) -> None:
        for member in self.members.values():
            if member.child is not None:
                member.child.signal(signal.SIGKILL)
                member.ended()
        for stream in self.streams.values():
            stream.close()
        for _, table, _ in self.tables.values():
            table.close()
        self.hub.close()
        for fd in self.status_handle[1]:
            os.close(fd)
        self.status.close()
        self.journal.close()
        self.selector.close()
        os.close(self.wake_read)
        os.close(self.wake_write)

    # -- commands

    def _register_commands(self) -> None:
        register = self.hub.register_local
        register(control.AttachReader, self._attach_reader)
        register(control.AttachWriter, self._attach_writer)
        register(control.DetachReader, lambda sender, c: self._stream(c.stream).detach_reader(sender, c.key))
        register(control.CreateTable, self._create_table)
        register(control.AttachTable, self._attach_table)
        register(control.DetachTable, self._detach_table)
        register(control.AttachStatus, self._attach_status)
        register(control.FramesNotStored, self._frames_not_stored)
        register(control.StreamEnded, lambda _s, c: self._stream_ended(self._stream(c.stream), c.reason, c.message))
        register(control.RecordingFailed, lambda _s, c: self._fail_run(c.reason, c.message))
        register(control.Quit, lambda sender, c: self.begin_stop(f"{sender}: {c.reason}"), script=True)
        register(control.StartAcquisition, self._start_acquisition, script=True)
        register(control.StopAcquisition, lambda _s, _c: self._stop_streams(), script=True)
        register(control.GetLedger, lambda _s, _c: live_ledger(self.spec, self.streams, self.members), script=True)
        register(control.GetStatus, lambda _s, _c: [m.describe() for m in self.members.values()], script=True)
        register(control.GetState, lambda _s, _c: self.state, script=True)
        register(control.SetState, self._change_state, script=True)
        register(control.AllowRestart, self._allow_restart, script=True)
        register(control.AwaitStart, self._await_start, script=True)
        register(control.StopScope, self._stop_scope, script=True)
        self.hub.subscribe(control.LogLine, lambda event: self.journal.line(event.level, event.worker, event.text))

    def _pid(self, sender: str) -> int:
        member = self.members.get(sender)
        if member is not None and member.child is not None:
            return member.child.pid
        return self.program_pid

    def _stream(self, name: str) -> Stream:
        try:
            return self.streams[name]
        except KeyError:
            known = ", ".join(self.streams) or "none"
            raise UnknownCommandError(f"there is no camera {name!r}; this scope has: {known}") from None

    def _attach_reader(self, sender: str, command: control.AttachReader) -> Reply:
        meta, fds = self._stream(command.stream).attach_reader(sender, self._pid(sender), command)
        return Reply(meta, fds)

    def _attach_writer(self, sender: str, command: control.AttachWriter) -> Reply:
        stream = self._stream(command.stream)
        if stream.spec.producer not in (None, sender):
            raise ConfigError(f"{stream.name} is filled by {stream.spec.producer}, not by {sender}")
        meta, fds = stream.attach_writer(sender, self._pid(sender))
        return Reply(meta, fds)

    def _create_table(self, sender: str, command: control.CreateTable) -> Reply:
        dtype = np.dtype([tuple(column) for column in command.dtype])
        known = self.tables.get(command.table)
        if known is None:
            self.tables[command.table] = known = (sender, Table.create(command.table, dtype, command.capacity), {})
        owner, table, _ = known
        if owner != sender:
            raise ConfigError(f"the table {command.table!r} belongs to {owner}: give this one another name")
        if table.dtype != dtype:
            raise ConfigError(f"the table {command.table!r} has columns {table.dtype.descr}, not {dtype.descr}")
        meta, fds = table.assign_writer(pid=self._pid(sender))
        for waiting, request, deferred in self.waiting_for_table.pop(command.table, []):
            if waiting in self.hub.peers:
                reply = self._table_reader(waiting, request)
                deferred.resolve(reply.value, reply.fds)
        return Reply(meta, fds)

    def _attach_table(self, sender: str, command: control.AttachTable) -> Reply | Deferred:
        if command.table in self.tables:
            return self._table_reader(sender, command)
        deferred = Deferred()
        self.waiting_for_table.setdefault(command.table, []).append((sender, command, deferred))
        return deferred

    def _table_reader(self, sender: str, command: control.AttachTable) -> Reply:
        _, table, readers = self.tables[command.table]
        meta, fds = table.assign_reader(pid=self._pid(sender), name=sender, start=command.start)
        readers[sender, meta["row"]] = meta["row"]
        return Reply(meta, fds)

    def _detach_table(self, sender: str, command: control.DetachTable) -> None:
        _, table, readers = self.tables[command.table]
        row = readers.pop((sender, command.row), None)
        if row is not None:
            table.reader_died(row)

    def _attach_status(self, _sender: str, _command: control.AttachStatus) -> Reply:
        meta, fds = self.status_handle
        return Reply({**meta, "rows_by_worker": {m.name: m.status_row for m in self.members.values()}}, fds)

    def _frames_not_stored(self, sender: str, command: control.FramesNotStored) -> None:
        self._stream(command.stream).add_not_stored(sender, command.first_id, command.last_id, command.reason)

    def _await_start(self, _sender: str, _command: control.AwaitStart) -> Any:
        if self.start_failure is not None:
            raise self.start_failure
        if self.phase == "running":
            return self._start_report()
        self.awaiting_start = Deferred()
        return self.awaiting_start

    def _stop_scope(self, _sender: str, command: control.StopScope) -> None:
        if command.now:
            self.stop_now(command.reason)
        else:
            self.begin_stop(command.reason)

    def _allow_restart(self, _sender: str, command: control.AllowRestart) -> None:
        member = self.members.get(command.worker)
        if member is None:
            raise UnknownCommandError(f"there is no worker {command.worker!r}; this scope has: {', '.join(self.members)}")
        if member.state != "needs consent":
            raise ScopeStateError(f"{member.name} is {member.state}; there is nothing to consent to")
        member.set_state("restarting")
        member.restart_at = time.monotonic()

    def _change_state(self, _sender: str, command: control.SetState) -> None:
        changes = {field: value for field in ("saving", "folder", "mode") if (value := getattr(command, field)) is not None}
        if command.settings is not None:
            changes["settings"] = {**self.state.settings, **command.settings}
        self._set_state(**changes)

    def _set_state(self, **changes: Any) -> None:
        values = {field: getattr(self.state, field) for field in self.state.__struct_fields__}
        self.state = ScopeState(**{**values, **changes})
        self.hub.publish(control.StateChanged(state=self.state))

    def _crash_reported(self, name: str, record: errors.ErrorRecord) -> None:
        member = self.members.get(name)
        if member is None:
            return
        member.last_error, member.last_traceback = f"{record.type_name}: {record.message}", record.traceback
        self._note(logging.ERROR, f"{name} failed: {member.last_error}\n{record.traceback}")
        if self.phase == "starting" and member.state == "starting":
            self._fail_start(errors.from_record(record))

    def _handler_failed(self, handler: str, sender: str, command: str, error: Exception) -> None:
        self._note(logging.ERROR, f"{handler}: the command {command} of {sender} failed: {error}")

    def _called(self, record: CallRecord) -> None:
        if record.sender == PROGRAM or not record.command.startswith("scope."):
            self.journal.audit(record.sender, record.target, record.command, record.payload, record.outcome, record.duration_s)

    def _changed(self, member: Member) -> None:
        self.hub.publish(control.WorkerChanged(worker=member.name, state=member.state, message=member.last_error))

    def _note(self, level: int, text: str) -> None:
        self.journal.line(level, "supervisor", text)
        self.hub.publish(control.Notice(level=level, text=text))
