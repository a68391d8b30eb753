"""The worker processes of a scope: started, set up, watched, restarted by their policies, and ended within bounds."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from mutoscope.bus import Manifest
from mutoscope.frames import Status, _os
from mutoscope.model import errors
from mutoscope.model.errors import PeerDiedError
from mutoscope.runtime import control, processes
from mutoscope.runtime.desk import Desk
from mutoscope.runtime.members import Member
from mutoscope.runtime.spec import ScopeSpec

__all__ = ["ENDING", "TEARDOWN_S", "Crew", "Owner"]

TEARDOWN_S = 5.0
ENDING = ("stopping cameras", "ending cameras", "draining", "ending workers")
"""Phases of an orderly end in which recorders still have work to do."""

KILL_AFTER_TERM_S = 1.0
CALM_S = 1.0
LAST_READS = 64


class Owner(Protocol):
    """What the crew asks of the supervisor, and tells it."""

    phase: str

    def all_introduced(self) -> None:
        """Every worker has said what it handles; raises what speaks against the start."""

    def set_up_command(self) -> control.SetUp:
        """What a worker is told to be set up."""

    def member_ready(self, member: Member) -> None:
        """A worker is set up."""

    def member_died(self, member: Member, restarts: bool) -> None:
        """A worker has ended, in order or not."""

    def member_lost(self, member: Member, what: str) -> None:
        """A worker has died and will not come back."""

    def in_vain(self, member: Member) -> bool:
        """Whether a worker that died would only die again, whatever its policy allows."""

    def stalled(self, member: Member, now: float) -> tuple[float, int]:
        """For how many seconds a worker has held a camera without doing anything, and how many frames it is behind."""

    def uncommitted(self, member: Member, now: float) -> tuple[float, int]:
        """For how many seconds a worker has taken frames of a lossless reader without committing one, and how many."""

    def fail_start(self, error: BaseException) -> None:
        """The scope cannot start."""


class Crew:
    """All members of a scope. The supervisor owns it; every process in it is started and reaped here."""

    def __init__(self, desk: Desk, spec: ScopeSpec, owner: Owner) -> None:
        self._desk = desk
        self._spec = spec
        self._owner = owner
        self._status = Status.create([worker.name for worker in spec.workers] or ["none"])
        self._status_handle = self._status.handle()
        self._manifests: dict[str, Manifest] = {}
        self.members = {worker.name: Member(worker, row, self._status) for row, worker in enumerate(spec.workers)}
        desk.hub.on_hello = self._hello
        desk.hub.on_crash_report = self._crash_reported

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members.values())

    def alive(self, kind: str | None = None) -> bool:
        """True while any process, or one of that kind, exists."""
        return any(member.alive for member in self if kind in (None, member.spec.kind))

    def stopping(self, kind: str) -> bool:
        """True while a process of that kind that was asked to end exists."""
        return any(member.alive and member.state == "stopping" for member in self if member.spec.kind == kind)

    def status_handle(self) -> tuple[dict[str, Any], list[int]]:
        """The handle of the status table, with the row of each worker."""
        meta, fds = self._status_handle
        return {**meta, "rows_by_worker": {member.name: member.status_row for member in self}}, fds

    # -- starting

    def spawn_all(self) -> None:
        """Start every process."""
        for member in self:
            self._spawn(member)
        if not self.members:
            self._owner.all_introduced()

    def _spawn(self, member: Member) -> None:
        child = member.spawn(self._spec.sys_path)
        self._desk.selector.register(child.pidfd, selectors.EVENT_READ, lambda _mask: self._ended(member))
        self._desk.hub.add_peer(member.name, child.bus)
        self._changed(member)

    def _not_spawned(self, member: Member, error: OSError) -> None:
        """A restart that the system refused (no descriptors, no memory) counts as a death: it is tried again, or given up."""
        member.last_error = f"its process could not be started: {error}"
        self._desk.note(logging.ERROR, f"{member.name}: {member.last_error}")
        member.restart_at = member.deaths.next_restart(time.monotonic(), 0.0)
        if member.restart_at is None:
            member.set_state("failed")
            self._owner.member_lost(member, f"{member.name}: {member.last_error}")
        self._changed(member)

    def _hello(self, name: str, manifest: Manifest) -> None:
        member = self.members.get(name)
        if member is None:
            return
        first = name not in self._manifests
        self._manifests[name] = manifest
        if self._owner.phase != "starting" or not first:
            self._set_up(member)
        elif all(worker in self._manifests for worker in self.members):
            try:
                self._desk.hub.check_routes({name: self._manifests[name] for name in self.members})
                self._owner.all_introduced()
            except Exception as error:  # noqa: BLE001 - the scope cannot start, and whoever waits for it is told
                self._owner.fail_start(self._desk.foreseen(error))
                return
            for each in self:
                self._set_up(each)

    def _set_up(self, member: Member) -> None:
        if member.child is None or self._owner.phase not in ("starting", "running", *ENDING):
            return
        member.set_state("setting up")
        self._changed(member)
        incarnation = member.incarnation
        self._desk.hub.request(
            member.name,
            self._owner.set_up_command(),
            self._spec.setup_timeout_s,
            lambda value, error: self._set_up_done(member, incarnation, error or _failure(value)),
        )

    def _set_up_done(self, member: Member, incarnation: int, error: Exception | None) -> None:
        if member.incarnation != incarnation or member.child is None or isinstance(error, PeerDiedError):
            return  # its death is dealt with where it is seen
        now = time.monotonic()
        if error is not None:
            member.last_error = member.reported = f"setup failed: {error}"
            self._say_failure(member, f"{member.name}: {member.last_error}", getattr(error, "remote_traceback", None) or "")
            if self._owner.phase == "starting":
                self._owner.fail_start(_named(error, f"{member.name} could not be set up"))
            else:
                member.kill_at = now + KILL_AFTER_TERM_S  # it ends by itself
            return
        member.set_state("running")
        member.up_since = now
        if member.died_at is not None:
            member.recovery_s.append(now - member.died_at)
            member.died_at = None
            self._desk.note(logging.INFO, f"{member.name} is back after {member.recovery_s[-1]:.3f} s")
        self._changed(member)
        self._owner.member_ready(member)

    def allow_restart(self, member: Member) -> None:
        """Restart a worker that needed consent."""
        member.set_state("restarting")
        member.restart_at = time.monotonic()
        self._changed(member)

    # -- deaths

    def peer_lost(self, name: str) -> None:
        """A process has closed its connection: it ends, or it is ended."""
        member = self.members.get(name)
        if member is not None and member.child is not None and member.kill_at is None:
            member.kill_at = time.monotonic() + TEARDOWN_S

    def _crash_reported(self, name: str, record: errors.ErrorRecord) -> None:
        member = self.members.get(name)
        if member is None:
            return
        member.last_error = member.reported = f"{record.type_name}: {record.message}"
        self._say_failure(member, f"{name} failed: {member.last_error}", record.traceback)
        if self._owner.phase == "starting" and member.up_since is None:
            self._owner.fail_start(_named(errors.from_record(record), f"{name} could not be set up"))

    def _say_failure(self, member: Member, text: str, trace: str) -> None:
        """Report a failure with its traceback; one that is the same as before, after each restart, in one line."""
        again = bool(trace) and processes.same_failure(trace, member.last_traceback)
        member.last_traceback = trace
        restarts = f"{member.restarts} restart{'' if member.restarts == 1 else 's'}"
        self._desk.note(logging.ERROR, f"{text} (again, the same error; {restarts})" if again else f"{text}\n{trace}".rstrip())

    def _ended(self, member: Member) -> None:
        child = member.child
        if child is None:
            return
        self._desk.selector.unregister(child.pidfd)
        self._read_last_words(member)
        self._desk.hub.remove_peer(member.name, f"{member.name} ended")
        up_s = time.monotonic() - member.up_since if member.up_since is not None else 0.0
        status, fault = member.ended()
        phase = self._owner.phase
        orderly = status == 0 and (member.state == "stopping" or phase not in ("starting", "running"))
        was_set_up = member.was_set_up
        orderly = orderly or (member.state == "stopping" and not was_set_up)  # told to end before it was ready
        restart_at = None
        needed = phase in ("starting", "running") or self._still_needed(member, phase)
        if not orderly and not member.given_up and needed and not self._owner.in_vain(member):
            restart_at = member.deaths.next_restart(time.monotonic(), up_s)
        member.up_since = None
        self._owner.member_died(member, restart_at is not None)
        if orderly:
            member.set_state("ended")
            self._changed(member)
        elif status == processes.NOT_STARTED and (record := _load_error(fault)) is not None:
            self._not_loaded(member, record)
        else:
            self._died(member, child.pid, status, fault, restart_at, was_set_up)

    @staticmethod
    def _still_needed(member: Member, phase: str) -> bool:
        return phase in ENDING and member.spec.kind == "recorder"

    def _read_last_words(self, member: Member) -> None:
        """Handle what the ended process had written before its death, such as its crash report."""
        for _ in range(LAST_READS):
            if member.child is None or member.name not in self._desk.hub.peers:
                return
            key = self._desk.selector.get_key(member.child.bus)
            if not _os.wait_readable([key.fd], 0.0):
                return
            key.data(selectors.EVENT_READ)

    def _not_loaded(self, member: Member, record: errors.ErrorRecord) -> None:
        member.last_error, member.last_traceback = record.message, record.traceback
        member.set_state("failed")
        self._desk.note(logging.ERROR, f"{member.name} could not be loaded: {record.message}")
        self._changed(member)
        if self._owner.phase == "starting":
            self._owner.fail_start(_named(errors.from_record(record), f"{member.name} could not be loaded"))
        else:
            self._owner.member_lost(member, f"{member.name} could not be loaded: {record.message}")

    def _died(self, member: Member, pid: int, status: int, fault: str, restart_at: float | None, was_set_up: bool) -> None:
        what = processes.describe_exit(status)
        asked = member.state == "stopping"
        if fault:
            member.last_traceback = fault
        if not member.reported:
            member.last_error = what + (f": {fault.splitlines()[0]}" if fault else "")
        self._desk.note(logging.ERROR, f"{member.name} (pid {pid}) {what}" + (f"\n{fault}" if fault else ""))
        told = f"{member.name} {what}" + (f": {member.reported}" if member.reported else "")
        phase = self._owner.phase
        if phase == "starting" and member.restarts == 0 and not was_set_up and status != -signal.SIGKILL:
            member.set_state("failed")
            self._owner.fail_start(PeerDiedError(f"worker {told} before it was set up"))
        elif restart_at is None:
            member.set_state("failed")
            if phase == "starting":
                self._owner.fail_start(PeerDiedError(f"worker {told} before it was set up"))
            elif phase in ("running", *ENDING) and not asked:
                if phase != "running" and not self._still_needed(member, phase):
                    told += " while the scope was ending, and was not started again"
                elif member.spec.restart.mode != "never" and not member.given_up:
                    told += " and is out of restarts"
                self._owner.member_lost(member, told)
            elif member.kill_at is None and status != -signal.SIGKILL:
                self._desk.report(f"{told} while it was to end")
        else:
            member.died_at = time.monotonic() if member.died_at is None else member.died_at
            member.restarts += 1
            if member.spec.restart.mode == "consent":
                member.set_state("needs consent")
                allow = f"scope.allow_restart({member.name!r})"
                self._desk.note(logging.WARNING, f"{member.name} can move and is not restarted without consent: {allow}")
            else:
                member.set_state("restarting")
                member.restart_at = restart_at
        self._changed(member)

    # -- the passing of time

    def next_deadline(self) -> float | None:
        """When :meth:`advance` has something to do."""
        due = [
            moment for member in self for moment in (member.restart_at, member.term_at, member.kill_at) if moment is not None
        ]
        return min(due, default=None)

    def advance(self, now: float) -> None:
        """Restart, and end, those whose time has come."""
        for member in self:
            if member.restart_at is not None and now >= member.restart_at:
                member.restart_at = None
                try:
                    self._spawn(member)
                except OSError as error:
                    self._not_spawned(member, error)
            if member.term_at is not None and now >= member.term_at and member.child is not None:
                member.term_at, member.kill_at = None, now + KILL_AFTER_TERM_S
                self._terminate(member)
            if member.kill_at is not None and now >= member.kill_at and member.child is not None:
                member.kill_at = None
                text = f"{member.name} (pid {member.child.pid}) did not end in time and was killed"
                if member.was_set_up or member.state != "stopping":
                    self._desk.report(text)
                else:
                    self._desk.note(logging.INFO, text)
                member.given_up = member.given_up or member.state == "stopping"
                member.child.signal(signal.SIGKILL)

    @staticmethod
    def _terminate(member: Member) -> None:
        if member.child is not None:
            member.child.signal(signal.SIGCONT)
            member.child.signal(signal.SIGTERM)

    def watch(self, now: float) -> list[tuple[Member, float]]:
        """Notice who does not respond, and who does again; returns each recorder that is silent with its seconds of silence."""
        silent = []
        for member in self:
            if not member.serving or member.child is None:
                continue
            age = member.heartbeat_age_s() or 0.0
            stalled, behind = self._owner.stalled(member, now)
            quiet = max(age, stalled)
            self._watch_commits(member, now)
            if quiet > self._spec.hang_report_s and member.state == "running":
                member.set_state("not responding")
                text = f"{member.name} (pid {member.child.pid}) has not responded for {quiet:.1f} s"
                if age > CALM_S and member.child.stopped:
                    text += ": it is stopped (SIGSTOP)"
                elif age <= CALM_S:
                    text = member.uncommitted or text + f": it holds the camera and is {behind:,} frames behind"
                member.last_error = text
                if text != member.uncommitted:
                    self._desk.note(logging.WARNING, text)
                self._changed(member)
            elif quiet < CALM_S and member.state == "not responding":
                member.set_state("running")
                self._desk.note(logging.INFO, f"{member.name} responds again")
                self._changed(member)
            if member.spec.kind == "recorder" and quiet > CALM_S:
                silent.append((member, quiet))
        return silent

    def _watch_commits(self, member: Member, now: float) -> None:
        """Say, once, that a worker takes frames and commits none: that it holds the camera, or loses them, follows from it."""
        seconds, taken = self._owner.uncommitted(member, now)
        if seconds > self._spec.hang_report_s and not member.uncommitted:
            member.uncommitted = (
                f"{member.name} has committed none of the {taken:,} frames it was given within {seconds:.1f} s: call "
                "self.frames.commit(frame) when a frame is done with, or read with policy='latest'"
            )
            member.last_error = member.uncommitted
            self._desk.note(logging.WARNING, member.uncommitted)

    # -- ending

    def kill(self, member: Member) -> None:
        """End a worker at once and for good."""
        member.given_up, member.restart_at = True, None
        if member.child is not None:
            member.child.signal(signal.SIGKILL)

    def stop_all(self, reason: str, *, kind: str | None = None) -> None:
        """Ask every worker, or those of a kind, to end; those that do not are ended."""
        now = time.monotonic()
        for member in self:
            if kind not in (None, member.spec.kind):
                continue
            self._stop_restarting(member)
            if member.child is None or member.state == "stopping":
                continue
            member.set_state("stopping")
            member.term_at = now if member.child.stopped or not member.was_set_up else now + TEARDOWN_S
            self._ask_to_stop(member, reason)

    def stop_all_now(self, reason: str) -> None:
        """Ask every worker to end, with SIGTERM, and SIGKILL shortly after."""
        now = time.monotonic()
        for member in self:
            self._stop_restarting(member)
            if member.child is not None:
                member.set_state("stopping")
                self._ask_to_stop(member, reason)
                self._terminate(member)
                member.term_at, member.kill_at = None, now + KILL_AFTER_TERM_S

    def _stop_restarting(self, member: Member) -> None:
        member.restart_at = None
        if member.child is None and member.state in ("restarting", "needs consent"):
            member.set_state("ended")
            self._changed(member)

    def _ask_to_stop(self, member: Member, reason: str) -> None:
        if member.name in self._desk.hub.peers:
            self._desk.hub.request(member.name, control.StopWorker(reason=reason), TEARDOWN_S, lambda _value, _error: None)

    def describe(self) -> list[dict[str, Any]]:
        """Every worker in plain values."""
        return [member.describe() for member in self]

    def close(self) -> None:
        """Kill what is left, and close the status table."""
        for member in self:
            if member.child is not None:
                member.child.signal(signal.SIGKILL)
                member.ended()
            if member.state not in ("failed", "ended"):
                member.set_state("ended")
        for fd in self._status_handle[1]:
            os.close(fd)
        self._status.close()

    def _changed(self, member: Member) -> None:
        self._desk.hub.publish(control.WorkerChanged(worker=member.name, state=member.state, message=member.last_error))


def _named(error: Exception, who: str) -> Exception:
    """Return the error with words that say whose it is, of the same class where that takes words."""
    message = f"{who}: {error}"
    if isinstance(error, errors.RemoteError):
        named: Exception = errors.RemoteError(error.type_name, f"{who}: {error.message}")
    elif len(error.args) <= 1:
        named = errors.from_record(errors.ErrorRecord(type(error).__name__, (message,), message))
    elif isinstance(error, OSError) and error.errno is not None:
        named = type(error)(error.errno, f"{who}: {error.strerror}", *([] if error.filename is None else [error.filename]))
    else:
        named = errors.RemoteError(type(error).__name__, message)
    named.remote_traceback = getattr(error, "remote_traceback", None)  # type: ignore[attr-defined]
    return named


def _failure(answer: Any) -> Exception | None:
    """Return the error that a worker's setup answered with, if it did."""
    return None if answer is None else errors.from_record(msgspec.convert(answer, errors.ErrorRecord))


def _load_error(fault: str) -> errors.ErrorRecord | None:
    """Return what prevented a worker's class from loading, if its process left that behind."""
    try:
        return msgspec.json.decode(fault.encode(), type=errors.ErrorRecord)
    except msgspec.MsgspecError:
        return None
