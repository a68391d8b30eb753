"""What workers and the user's program ask of the supervisor, and how it is answered and noted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from mutoscope.bus import Answers, CallRecord, Deferred, Event, Reply, wire
from mutoscope.model.errors import BadPayloadError, ConfigError, ErrorRecord, ScopeStateError
from mutoscope.runtime import control
from mutoscope.runtime.accounts import live_ledger
from mutoscope.runtime.desk import PROGRAM
from mutoscope.runtime.page import Page
from mutoscope.runtime.rois import RoiChanged, RoiRemoved
from mutoscope.runtime.streams import Stream

if TYPE_CHECKING:
    from mutoscope.runtime.supervisor import Supervisor

__all__ = ["Reception"]

NOT_AUDITED = frozenset(
    {
        "scope.get_ledger", "scope.get_status", "scope.get_state", "scope.get_offer", "scope.attach_status",
        "scope.page_command", "scope.page_reply", "scope.know_state",
    }
)  # fmt: skip
"""Commands that only look or tell the state again, and those in which the page passes on others, noted with who sent them."""
APPLY_S = 8.0
PAGE_REPLY_S = 5.0


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
        register(control.StoreTable, lambda sender, c: scope.tables.store(sender, self._pid(sender), c), script=False)
        register(control.TableNotStored, lambda _s, c: scope.tables.not_stored(c), script=False)
        register(control.AttachStatus, lambda _s, _c: Reply(*scope.crew.status_handle()))
        register(control.FramesNotStored, self._frames_not_stored, script=False)
        register(
            control.StreamStarted, lambda _s, c: scope.acquisitions.sequence_started(self._stream(c.stream), c), script=False
        )
        register(control.StreamEnded, lambda _s, c: scope.acquisitions.sequence_ended(self._stream(c.stream), c), script=False)
        register(control.RecordingFailed, lambda _s, c: scope.fail_run(c.reason, c.message), script=False)
        register(control.Quit, lambda sender, c: scope.begin_stop("quit", f"{sender}: {c.reason}"))
        register(control.StartAcquisition, self._start_acquisition, page=True)
        register(control.StopAcquisition, lambda _s, _c: scope.acquisitions.stop(), page=True)
        register(control.AwaitAcquisition, lambda _s, _c: scope.acquisitions.wait())
        register(
            control.GetLedger,
            lambda _s, c: live_ledger(scope.spec, scope.streams, scope.tables, scope.crew.members, max(0, c.ranges)),
        )
        register(control.GetStatus, lambda _s, _c: scope.crew.describe())
        register(control.GetState, lambda _s, _c: scope.state)
        register(control.SetState, self._change_state, page=True)
        register(control.SetFolder, lambda _s, c: scope.change_folder(c.folder), page=True)
        register(control.SetSetting, self._set_setting, page=True)
        register(control.AllowRestart, self._allow_restart, page=True)
        register(control.AwaitStart, lambda _s, _c: scope.await_start())
        register(control.StopScope, self._stop_scope, page=True)
        register(control.ChangeRoi, self._change_roi, page=True)
        register(control.AttachPage, self._attach_page, script=False)
        register(control.GetOffer, self._offer, script=False)
        register(control.PageCommand, self._page_command, script=False)
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
            member
            for member in self._scope.crew
            if member.name != sender and member.spec.kind not in ("camera", "recorder", "page")
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
        self._scope.check_settled()
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

    def _change_roi(self, _sender: str, command: control.ChangeRoi) -> None:
        origin, image = command.origin, command.image
        event: Event = RoiRemoved(roi_id=command.roi_id, origin=origin, image=image)
        if command.roi is not None:
            event = RoiChanged(roi=command.roi, origin=origin, image=image)
        self._scope.hub.publish(event)

    def _page_of(self, sender: str) -> Page:
        page = self._scope.page
        if page is None or page.spec.worker != sender:
            raise PermissionError(f"{sender} is not the page of this scope")
        return page

    def _attach_page(self, sender: str, _command: control.AttachPage) -> Reply:
        page = self._page_of(sender)
        return Reply(page.access, [page.listener.fileno()])

    def _offer(self, _sender: str, _command: control.GetOffer) -> control.Offer:
        commands = []
        for name, handlers in self._scope.hub.offered_to_page().items():
            spec = next(iter(handlers.values()))
            assert spec.form is not None
            commands.append(control.OfferedCommand(name, tuple(handlers), spec.delivery == "broadcast", spec.form))
        return control.Offer(tuple(commands), self._scope.tables.offered())

    def _page_command(self, sender: str, command: control.PageCommand) -> None:
        """Pass on what a client of the page asks for; the page hears of it later and meanwhile goes on."""
        self._page_of(sender)
        hub = self._scope.hub

        def answered(value: Any, error: Exception | None) -> None:
            reply = control.PageReply(number=command.number, error=_record(error))
            if isinstance(value, Answers):
                each = (control.WorkerAnswer(name, said, _record(wrong)) for name, (said, wrong) in value.by_worker.items())
                reply = msgspec.structs.replace(reply, answers=tuple(each))
            else:
                reply = msgspec.structs.replace(reply, value=value)
            try:
                hub.request(sender, reply, PAGE_REPLY_S, heard)
            except BadPayloadError as too_much:  # of the reply, with what is around the worker's own
                reply = control.PageReply(number=command.number, error=_record(too_much))
                hub.request(sender, reply, PAGE_REPLY_S, heard)

        def heard(_value: Any, error: Exception | None) -> None:
            if error is not None:
                text = f"what became of {command.command} of {command.who} did not reach the page: {error}"
                self._scope.desk.note(logging.WARNING, text)

        who = f"{sender}: {command.who}"
        hub.forward(who, command.command, command.to, command.payload, command.timeout_s, answered)

    def _change_state(self, _sender: str, command: control.SetState) -> Deferred | None:
        changes = {field: value for field in ("saving", "folder", "mode") if (value := getattr(command, field)) is not None}
        if command.settings is not None:
            changes["settings"] = {**self._scope.state.settings, **command.settings}
        self._scope.set_state(**changes)
        return self._scope.when_recorders_know() if "saving" in changes else None

    def _handler_failed(self, handler: str, sender: str, command: str, error: Exception) -> None:
        self._scope.desk.note(logging.ERROR, f"{handler}: the command {command} of {sender} failed: {error}")

    def _called(self, record: CallRecord) -> None:
        if record.command not in NOT_AUDITED:
            self._scope.desk.journal.audit(
                record.sender, record.target, record.command, record.payload, record.outcome, record.duration_s, record.utc_ns
            )


def _record(error: Exception | None) -> ErrorRecord | None:
    """Return an error as a reply has it, with the traceback of the process that raised it."""
    return None if error is None else wire.error_record(error, getattr(error, "remote_traceback", None) or "")
