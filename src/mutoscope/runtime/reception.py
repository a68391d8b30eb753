"""What workers and the user's program ask of the supervisor, and how it is answered and noted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from mutoscope.bus import CallRecord, Deferred, Reply
from mutoscope.model.errors import ConfigError, ScopeStateError
from mutoscope.runtime import control
from mutoscope.runtime.accounts import live_ledger
from mutoscope.runtime.desk import PROGRAM
from mutoscope.runtime.streams import Stream

if TYPE_CHECKING:
    from mutoscope.runtime.supervisor import Supervisor

__all__ = ["Reception"]

NOT_AUDITED = frozenset({"scope.get_ledger", "scope.get_status", "scope.get_state", "scope.attach_status"})
"""Commands that only look."""
APPLY_S = 8.0


class Reception:
    """Answers the supervisor's own commands. It has no state: the supervisor has.

    Parameters
    ----------
    scope : Supervisor
        On whose behalf.
    """

    def __init__(self, scope: Supervisor) -> None:
        self._scope = scope
        scope.hub.on_problem = self._handler_failed
        scope.hub.on_call = self._called
        register = scope.hub.register_local
        register(control.AttachReader, self._attach_reader)
        register(control.AttachWriter, self._attach_writer)
        register(control.CreateTable, lambda sender, c: scope.tables.create(sender, self._pid(sender), c))
        register(control.AttachTable, self._attach_table)
        register(control.AttachStatus, lambda _s, _c: Reply(*scope.crew.status_handle()))
        register(control.FramesNotStored, self._frames_not_stored, script=False)
        register(
            control.StreamStarted, lambda _s, c: scope.acquisitions.sequence_started(self._stream(c.stream), c), script=False
        )
        register(control.StreamEnded, lambda _s, c: scope.acquisitions.sequence_ended(self._stream(c.stream), c), script=False)
        register(control.RecordingFailed, lambda _s, c: scope.fail_run(c.reason, c.message), script=False)
        register(control.Quit, lambda sender, c: scope.begin_stop("quit", f"{sender}: {c.reason}"))
        register(control.StartAcquisition, self._start_acquisition)
        register(control.StopAcquisition, lambda _s, _c: scope.acquisitions.stop())
        register(control.AwaitAcquisition, lambda _s, _c: scope.acquisitions.wait())
        register(control.GetLedger, lambda _s, _c: live_ledger(scope.spec, scope.streams, scope.tables, scope.crew.members))
        register(control.GetStatus, lambda _s, _c: scope.crew.describe())
        register(control.GetState, lambda _s, _c: scope.state)
        register(control.SetState, self._change_state)
        register(control.SetSetting, self._set_setting, page=True)
        register(control.AllowRestart, self._allow_restart)
        register(control.AwaitStart, lambda _s, _c: scope.await_start())
        register(control.StopScope, self._stop_scope)
        scope.hub.subscribe(control.LogLine, lambda event: scope.desk.journal.line(event.level, event.worker, event.text))

    def _pid(self, sender: str) -> int:
        member = self._scope.crew.members.get(sender)
        return member.child.pid if member is not None and member.child is not None else self._scope.program_pid

    def _stream(self, name: str) -> Stream:
        try:
            return self._scope.streams[name]
        except KeyError:
            known = ", ".join(self._scope.streams) or "none"
            raise ConfigError(f"there is no camera {name!r}; this scope has: {known}") from None

    def _attach_reader(self, sender: str, command: control.AttachReader) -> Reply:
        return Reply(*self._stream(command.stream).attach_reader(sender, self._pid(sender), command))

    def _attach_table(self, sender: str, command: control.AttachTable) -> Any:
        others = (
            member for member in self._scope.crew if member.name != sender and member.spec.kind not in ("camera", "recorder")
        )
        if command.table not in self._scope.tables.names and not any(
            member.state not in ("failed", "ended") for member in others
        ):
            known = ", ".join(self._scope.tables.names) or "none"
            raise ConfigError(f"there is no table {command.table!r}, and no worker that could create it; there are: {known}")
        return self._scope.tables.attach(sender, self._pid(sender), command)

    def _attach_writer(self, sender: str, command: control.AttachWriter) -> Reply:
        stream = self._stream(command.stream)
        if sender != (stream.spec.producer or PROGRAM):
            raise ConfigError(f"{stream.name} is filled by {stream.spec.producer or 'the user program'}, not by {sender}")
        return Reply(*stream.attach_writer(sender, self._pid(sender)))

    def _frames_not_stored(self, sender: str, command: control.FramesNotStored) -> None:
        self._stream(command.stream).add_not_stored(sender, command.first_id, command.last_id, command.reason)

    def _start_acquisition(self, _sender: str, command: control.StartAcquisition) -> Any:
        if self._scope.phase != "running":
            raise ScopeStateError(f"the scope is {self._scope.phase}: nothing can be acquired now")
        return self._scope.acquisitions.start(command)

    def _stop_scope(self, _sender: str, command: control.StopScope) -> None:
        if command.now:
            self._scope.stop_now(command.reason)
        else:
            self._scope.begin_stop(command.reason)

    def _allow_restart(self, _sender: str, command: control.AllowRestart) -> None:
        member = self._scope.crew.members.get(command.worker)
        if member is None:
            known = ", ".join(self._scope.crew.members)
            raise ConfigError(f"there is no worker {command.worker!r}; this scope has: {known}")
        if member.state != "needs consent":
            raise ScopeStateError(f"{member.name} is {member.state}; there is nothing to consent to")
        self._scope.crew.allow_restart(member)

    def _set_setting(self, sender: str, command: control.SetSetting) -> Deferred:
        """Have a camera's process change a setting; what it answers holds for its successors too."""
        stream, answer = self._stream(command.camera), Deferred()
        if stream.spec.producer is None:
            raise ConfigError(f"{stream.name} is a source, filled by the user's program: it has no settings")
        member = self._scope.crew.members[stream.spec.producer]
        if not member.serving:
            raise ScopeStateError(f"{stream.name} is {member.state}: {command.setting} cannot be changed now")

        def answered(value: Any, error: Exception | None) -> None:
            if error is not None:
                answer.reject(error)
                return
            applied = msgspec.convert(value, control.SettingApplied)
            self._scope.setting_changed(stream, applied, sender)
            answer.resolve(applied.value)

        apply = control.ApplySetting(setting=command.setting, value=command.value)
        self._scope.hub.request(member.name, apply, APPLY_S, answered)
        return answer

    def _change_state(self, _sender: str, command: control.SetState) -> None:
        changes = {field: value for field in ("saving", "folder", "mode") if (value := getattr(command, field)) is not None}
        if command.settings is not None:
            changes["settings"] = {**self._scope.state.settings, **command.settings}
        self._scope.set_state(**changes)

    def _handler_failed(self, handler: str, sender: str, command: str, error: Exception) -> None:
        self._scope.desk.note(logging.ERROR, f"{handler}: the command {command} of {sender} failed: {error}")

    def _called(self, record: CallRecord) -> None:
        if record.command not in NOT_AUDITED:
            self._scope.desk.journal.audit(
                record.sender, record.target, record.command, record.payload, record.outcome, record.duration_s, record.utc_ns
            )
