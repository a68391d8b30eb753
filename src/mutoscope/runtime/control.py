"""The supervisor's own commands and events: what workers and the user's program ask of it, and what it asks of them."""

from __future__ import annotations

from typing import Any

import msgspec

from mutoscope.bus import Command, Event, Form
from mutoscope.model.errors import ErrorRecord
from mutoscope.model.roi import Roi
from mutoscope.runtime.consumers import RANGES_TOLD
from mutoscope.runtime.spec import PageSpec, ScopeInfo, ScopeState

# -- asked of the supervisor by workers (and, where it makes sense, by the user's program)


class AttachReader(Command, name="scope.attach_reader"):
    """A row of a camera's ring. `key` names the reader within its worker, so that a successor finds its place again."""

    stream: str
    key: str
    policy: str = "every"
    leases: int = 2
    on_full: str = "drop"
    lag_limit: int | None = None
    at_most_hz: float | None = None
    group: str | None = None
    start: str = "new"


class AttachWriter(Command, name="scope.attach_writer"):
    """The producer's place of a ring."""

    stream: str


class CreateTable(Command, name="scope.create_table"):
    """A table that the sender writes. A successor gets the same one again."""

    table: str
    dtype: list[Any]
    capacity: int


class AttachTable(Command, name="scope.attach_table"):
    """A reader of a table; answered once its owner has created it, within `timeout_s` seconds. `key` as in AttachReader."""

    table: str
    key: str
    start: str = "new"
    timeout_s: float = 10.0


class StoreTable(Command, name="scope.store_table"):
    """A recorder's reader of a table, from the first row on; `file` holds `rows` rows of it.

    Answered with what `file` held when this run began, as ``rows_before`` beside the reader.
    """

    table: str
    file: str
    rows: int


class TableNotStored(Command, name="scope.table_not_stored"):
    """The recorder stores no more rows of a table, with the reason for the ledger."""

    table: str
    reason: str
    message: str


class AttachStatus(Command, name="scope.attach_status"):
    """The status table, to look at."""


class FramesNotStored(Command, name="scope.frames_not_stored"):
    """A lossless consumer will not handle these frames; inclusive range, with the reason for the ledger."""

    stream: str
    first_id: int
    last_id: int
    reason: str


class StreamStarted(Command, name="scope.stream_started"):
    """A camera's driver has started its device: it waits for a frame, or has asked for a buffer."""

    stream: str
    run: int


class StreamEnded(Command, name="scope.stream_ended"):
    """A camera's sequence ended: ``complete``, ``exhausted`` (no more data), ``stopped`` or ``error`` (it would fail again)."""

    stream: str
    run: int
    last_id: int
    reason: str
    message: str = ""


class RecordingFailed(Command, name="scope.recording_failed"):
    """A recorder cannot go on storing: the run ends in order."""

    stream: str
    reason: str
    message: str


class Quit(Command, name="Quit"):
    """End the scope in order, once; anyone may ask."""

    reason: str = "asked to quit"


# -- asked of the supervisor by the user's program


class StartAcquisition(Command, name="scope.start_acquisition"):
    """Start the cameras named (all when empty), for so many frames each or so many seconds, or until stopped."""

    frames: int | None = None
    streams: tuple[str, ...] = ()
    seconds: float | None = None


class StopAcquisition(Command, name="scope.stop_acquisition"):
    """Stop all cameras; frames in flight are still stored."""


class GetLedger(Command, name="scope.get_ledger"):
    """The account of every frame so far; each list of ids has at most so many ranges."""

    ranges: int = RANGES_TOLD


class GetStatus(Command, name="scope.get_status"):
    """Workers with state, restarts and last error."""


class GetState(Command, name="scope.get_state"):
    """The shared state."""


class SetState(Command, name="scope.set_state"):
    """Change the shared state; fields that are None stay as they are."""

    saving: bool | None = None
    folder: str | None = None
    mode: str | None = None
    settings: dict[str, Any] | None = None


class SetFolder(Command, name="scope.set_folder"):
    """Store what comes from now on in a new data set, in this folder below that of the run's first one.

    Refused while frames are acquired. Answered with the path of the data set.
    """

    folder: str


class SetSetting(Command, name="scope.set_setting"):
    """Change a live setting of a camera that runs; answered with its value as set. Workers may send it as well."""

    camera: str
    setting: str
    value: Any


class ChangeRoi(Command, name="scope.change_roi"):
    """Announce to all workers that a client of the page changed a ROI, or (without `roi`) removed it."""

    image: str
    roi_id: str
    origin: str
    roi: Roi | None = None


class AllowRestart(Command, name="scope.allow_restart"):
    """Consent to the restart of a worker that can move."""

    worker: str


class AwaitAcquisition(Command, name="scope.await_acquisition"):
    """Answered when no acquisition runs and everything is stored, or with the error that ended the run."""


class AwaitStart(Command, name="scope.await_start"):
    """Answered when every worker is set up, or with the error that prevents it."""


class StopScope(Command, name="scope.stop"):
    """Stop in order, or, with `now`, at once."""

    now: bool = False
    reason: str = "stopped"


# -- asked of the supervisor by the scope's page


class AttachPage(Command, name="scope.attach_page"):
    """The page's listening socket, its tokens and settings (:class:`PageAccess`): the same after each restart."""


class PageAccess(msgspec.Struct, frozen=True):
    """The answer; the descriptor that comes with it is the listening socket."""

    page: PageSpec
    url: str
    token: str
    view_token: str
    secret: bytes


class GetOffer(Command, name="scope.get_offer"):
    """What there is for a page: the commands that it may send, and the tables."""


class OfferedCommand(msgspec.Struct, frozen=True):
    """A command that the page may send, and the workers that handle it."""

    name: str
    owners: tuple[str, ...]
    broadcast: bool
    form: Form


class OfferedTable(msgspec.Struct, frozen=True):
    """A table; the columns as :class:`mutoscope.frames.Table` describes them."""

    name: str
    owner: str
    capacity: int
    columns: list[Any]


class Offer(msgspec.Struct, frozen=True):
    """The answer to :class:`GetOffer`."""

    commands: tuple[OfferedCommand, ...]
    tables: tuple[OfferedTable, ...]


class PageCommand(Command, name="scope.page_command"):
    """A command that a client of the page sends; answered later by :class:`PageReply` with the same number."""

    number: int
    who: str
    command: str
    to: str | None
    payload: bytes
    timeout_s: float = 10.0


# -- asked of workers by the supervisor


class WorkerAnswer(msgspec.Struct, frozen=True):
    """What one worker answered to a broadcast."""

    worker: str
    value: Any = None
    error: ErrorRecord | None = None


class PageReply(Command, name="scope.page_reply"):
    """What became of a :class:`PageCommand`; of a broadcast, `answers` instead of `value`."""

    number: int
    value: Any = None
    error: ErrorRecord | None = None
    answers: tuple[WorkerAnswer, ...] | None = None


class SetUp(Command, name="scope.set_up"):
    """Run the worker's ``setup``."""

    info: ScopeInfo
    state: ScopeState


class StartStream(Command, name="scope.start_stream"):
    """Take frames until `last_id` is published (0: until stopped); `first_id` is the first of acquisition number `run`."""

    stream: str
    run: int
    first_id: int = 1
    last_id: int = 0


class StopStream(Command, name="scope.stop_stream"):
    """Stop taking frames. Answers True when a sequence runs: its end is then said by StreamEnded."""

    stream: str


class RecordInto(Command, name="scope.record_into"):
    """Close the image, and store what comes from now on in the data set at `path`, which is there."""

    path: str


class StoreTables(Command, name="scope.store_tables"):
    """Store the rows of these tables as well, in files of the folder, which is made where it is missing."""

    folder: str
    tables: tuple[OfferedTable, ...]


class ApplySetting(Command, name="scope.apply_setting"):
    """Carry a changed setting to the open device."""

    setting: str
    value: Any


class SettingApplied(msgspec.Struct, frozen=True):
    """The answer: what has changed, with the values before, and the first frame to be published after it."""

    value: Any
    before: dict[str, Any]
    changed: dict[str, Any]
    frame_id: int


class KnowState(Command, name="scope.know_state"):
    """Answered when the worker has the shared state: what it does after that goes by it."""

    state: ScopeState


class StopWorker(Command, name="scope.stop_worker"):
    """Tear down and end."""

    reason: str = "stopped"


# -- events


class StateChanged(Event, name="scope.state_changed"):
    """The shared state; the last one is replayed to whoever joins."""

    state: ScopeState


class WorkerChanged(Event, name="scope.worker_changed"):
    """A worker changed its state: started, restarted, hung, failed, ended."""

    worker: str
    state: str
    message: str = ""


class TablesChanged(Event, name="scope.tables_changed"):
    """All tables that there are."""

    tables: tuple[str, ...]


class LogLine(Event, name="scope.log_line"):
    """One line for ``scope.log``."""

    worker: str
    level: int
    text: str


class Notice(Event, name="scope.notice"):
    """Something that whoever runs the scope should know."""

    level: int
    text: str


class ScopeEnded(Event, name="scope.ended"):
    """The last word of the supervisor: why it ended, and the final ledger. `error` is set when the run failed."""

    reason: str
    message: str
    errors: list[str]
    ledger: dict[str, Any]
    status: list[dict[str, Any]]
    error: ErrorRecord | None = None


class AcquisitionEnded(Event, name="scope.acquisition_ended"):
    """Every camera ended its sequence, and every frame is stored or accounted for.

    `reasons` says by camera why its sequence ended, `messages` what it said about it, `produced` and `stored` how many frames
    it brought; `error` is set when the run failed.
    """

    number: int
    reasons: dict[str, str]
    messages: dict[str, str]
    produced: dict[str, int]
    stored: dict[str, int]
    error: ErrorRecord | None = None
