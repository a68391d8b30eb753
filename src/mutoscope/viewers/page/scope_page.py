"""A running scope as the page shows it: its streams, tables, state and commands."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from numpy.typing import NDArray

from mutoscope.bus import Command, Event, message_name, payload
from mutoscope.frames._columns import Columns
from mutoscope.model.errors import ClosedError, CommandTimeoutError, ConfigError, PeerDiedError
from mutoscope.model.roi import Roi
from mutoscope.runtime import RoiChanged, RoiList, RoiRemoved, StreamInfo, control
from mutoscope.runtime.page import local_address_of
from mutoscope.storage._run_tables import rows_of
from mutoscope.viewers.announce import announce, withdraw
from mutoscope.viewers.live import LEASES, LiveFeed
from mutoscope.viewers.page import messages as m
from mutoscope.viewers.page.access import Access
from mutoscope.viewers.page.hello import stream_hello, version
from mutoscope.viewers.page.loglines import lines_of
from mutoscope.viewers.page.overview import Overview
from mutoscope.viewers.page.past import MemoryPast, Past, StoredPast
from mutoscope.viewers.page.sessions import Failed, Sessions
from mutoscope.viewers.page.site import Site
from mutoscope.viewers.page.stored_tables import tells_frames
from mutoscope.viewers.page.streams import PageStream, StreamForm
from mutoscope.viewers.page.tables import TableDesk, columns_of, overlay_of

if TYPE_CHECKING:
    from mutoscope.runtime._child import WorkerHost
    from mutoscope.viewers.page.worker import PageWorker

__all__ = ["ScopePage"]

log = logging.getLogger(__name__)

TURN_S = 0.5
ASK_S = 5.0
ANSWER_MARGIN_S = 6.0
LOG_TAIL_BYTES = 65536
OWN = "page/"


class ScopePage:
    """The page of a running scope. The worker owns it; all of it runs in the worker's main thread, but for the feeds.

    Parameters
    ----------
    worker : PageWorker
        On whose behalf.
    host : WorkerHost
        The worker's host.
    """

    def __init__(self, worker: PageWorker, host: WorkerHost) -> None:
        self._worker = worker
        self._host = host
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._bus_ready = asyncio.Event()
        self._numbers = itertools.count((host.incarnation << 32) + 1)  # what a predecessor had asked may be answered yet
        self._pending: dict[int, asyncio.Future[control.PageReply]] = {}
        self._offer = control.Offer((), ())
        self._streams: list[PageStream] = []
        self._loop.run_until_complete(self._start())

    # -- life

    async def _start(self) -> None:
        worker, endpoint = self._worker, self._host.endpoint
        access, fds = endpoint.call_fds(control.AttachPage(), returns=control.PageAccess)
        self._access: control.PageAccess = access
        self._dataset = worker.state.dataset
        self._run_folder = Path(worker.state.folder) if worker.state.folder is not None and worker.scope.recorded else None
        self._pasts = pasts = self._make_streams()
        info = worker.scope
        self._overview = Overview(info, pasts)
        tables = TableDesk(self._open_table)
        limits = {"history_bytes": access.page.history_bytes if not info.recorded else 0}
        self.sessions = Sessions(self, self._streams, pasts, tables, lease_s=access.page.lease_s, limits=limits)
        self._log_kinds: set[type[Event]] = set()
        self._told: dict[str, tuple[int, str]] = {}
        self._rois_due = False
        self._heard = RoiList(rois=[], revision=0)
        if worker.left is not None:
            self.hear_rois(worker.left)
        self._look_at_offer()
        self._subscribe()
        rules = Access(access.page.host, access.token, access.view_token, access.secret, access.page.public_url)
        self._site = Site(rules, self.sessions.connect)
        listener = socket.socket(fileno=fds[0])
        self._serving = await self._site.start(listener)
        self._announcement = self._announce(info.name, listener.getsockname()[1])
        for stream in self._streams:
            assert stream.feed is not None
            stream.feed.start()
        self._loop.add_reader(endpoint.fileno(), self._bus_ready.set)
        self._running = asyncio.ensure_future(self.sessions.run())

    def _announce(self, scope: str, port: int) -> Path | None:
        """Let other programs of this user find the page; where that cannot be (a full disk, say), it is shown all the same."""
        access = self._access
        local, link = local_address_of(access.page, port), access.url.partition("?")[0]
        try:
            return announce("page", scope, local, link, access.token, os.getppid())
        except (ConfigError, OSError) as error:
            log.warning("mutoscope share will not find this page, as it could not be announced: %s", error)
            return None

    def _make_streams(self) -> dict[str, Past]:
        cameras, pasts = self._worker.scope.cameras, {}
        dataset = self._worker.state.dataset
        record = None if dataset is None else dataset.path
        kept = self._access.page.history_bytes // max(1, len(cameras)) if record is None else 0
        for index, (name, info) in enumerate(cameras.items()):
            memory = MemoryPast(kept) if kept else None
            past: Past | None = StoredPast(record, name, "recording") if record is not None else memory
            if past is not None:
                pasts[name] = past
            stream = PageStream(
                name,
                index,
                StreamForm(info.shape, info.dtype),
                history=memory,
                on_histogram=self._histogram,
                on_form=self._form,
            )
            reader = self._worker.reader(name, policy="latest", leases=LEASES)
            stream.feed = LiveFeed(reader, stream)
            self._streams.append(stream)
        return pasts

    def _open_table(self, name: str) -> Any:
        if name not in (known := [table.name for table in self._offer.tables]):
            raise m.Refused("unknown", f"there is no table {name!r}; there are: {', '.join(known) or 'none'}")
        return self._worker.table_reader(name, start="oldest", timeout_s=1.0)

    def _subscribe(self) -> None:
        worker = self._worker
        worker.subscribe(control.StateChanged, self._state_changed)
        worker.subscribe(control.TablesChanged, lambda _event: self._look_again())
        worker.subscribe(control.LogLine, lambda event: self._log(control.LogLine, event.level, event.worker, event.text))
        worker.subscribe(control.Notice, lambda event: self._log(control.Notice, event.level, "supervisor", event.text))
        worker.subscribe(RoiChanged, self._roi_came)
        worker.subscribe(RoiRemoved, self._roi_went)
        folder = worker.state.folder
        if folder is not None:
            lines = lines_of(Path(folder) / "scope.log", LOG_TAIL_BYTES)
            self._told = {each["worker"]: (each["level"], each["text"]) for each in lines}
            self.sessions.add_lines(lines)

    def turn(self) -> None:
        """Serve until something has come from the scope, or half a second."""
        self._loop.run_until_complete(self._turn())
        self._host.row.progress_a = sum(stream.sent for stream in self._streams)

    async def _turn(self) -> None:
        for task in (self._running, self._serving):
            if task.done():
                task.result()
        for stream in self._streams:
            if stream.feed is not None and stream.feed.failure is not None:
                raise stream.feed.failure
        try:
            await asyncio.wait_for(self._bus_ready.wait(), TURN_S)
        except TimeoutError:
            return
        self._bus_ready.clear()

    def close(self) -> None:
        """Say goodbye to the clients, and let go of everything."""
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        if self._announcement is not None:
            withdraw(self._announcement)
        self._running.cancel()
        self._loop.remove_reader(self._host.endpoint.fileno())
        for stream in self._streams:
            assert stream.feed is not None
            stream.feed.close()
        await self.sessions.ended({"reason": self._host.stop_reason or "stopped", **self._last_words()})
        await self._site.stop("the scope has ended")
        self.sessions.close()

    def _last_words(self) -> dict[str, Any]:
        dropped: dict[str, int] = {}
        try:
            state = self.state()
        except (PeerDiedError, ClosedError, TimeoutError):
            return {"message": "", "errors": [], "dropped": dropped}
        for stream in state["streams"].values():
            for reason, count in stream["dropped"].items():
                dropped[reason] = dropped.get(reason, 0) + count
        errors = [f"{each['name']}: {each['last_error']}" for each in state["workers"] if each["state"] == "failed"]
        return {"message": "", "errors": errors, "dropped": dropped}

    # -- what it shows

    def hello(self) -> dict[str, Any]:
        """The protocol's ``hello``."""
        info = self._worker.scope
        streams = list(info.cameras)
        tables = []
        for table in self._offer.tables:
            columns = columns_of(table.columns)
            tables.append(
                {
                    "name": table.name,
                    "owner": table.owner,
                    "capacity": table.capacity,
                    "stored": info.recorded and tells_frames(Columns.from_description(table.name, table.columns).dtype),
                    "columns": columns,
                    "overlay": overlay_of(columns, streams),
                }
            )
        folder, dataset = self._worker.state.folder, self._worker.state.dataset
        return {
            "version": version(),
            "mode": "live",
            "scope": info.name,
            "record": None if dataset is None else {"path": dataset.path, "folder": folder, "subfolder": dataset.folder},
            "streams": [self._stream_hello(stream, info.cameras[stream.name]) for stream in self._streams],
            "tables": tables,
            "commands": [_command_hello(each) for each in self._offer.commands],
            "workers": self._overview.workers_hello,
            "display": self._access.page.display,
        }

    def _stream_hello(self, stream: PageStream, info: StreamInfo) -> dict[str, Any]:
        values = self._values(stream.name)
        return {
            **stream_hello(stream),
            "rate_hz": info.rate_hz,
            "pixel_size_um": info.pixel_size_um,
            "driver": info.settings.get("driver"),
            "history": self._overview.history_kind(stream.name),
            "settings": [{**spec, "value": values.get(spec["name"])} for spec in info.setting_specs],
        }

    def _values(self, stream: str) -> dict[str, Any]:
        """The settings of a camera as they are now."""
        at_start = self._worker.scope.cameras[stream].settings.get("settings", {})
        return {**at_start, **self._worker.state.camera_settings.get(stream, {})}

    def state(self) -> dict[str, Any]:
        """The protocol's ``state``."""
        endpoint = self._host.endpoint
        ledger = endpoint.request(control.GetLedger(ranges=1), to="supervisor", timeout_s=ASK_S)
        workers = endpoint.request(control.GetStatus(), to="supervisor", timeout_s=ASK_S)
        state = self._overview.state(ledger, workers, self._worker.state)
        for stream in self._streams:
            state["streams"][stream.name]["settings"] = self._values(stream.name)
        viewers = max((stream.viewers for stream in self._streams), default=0)
        state["page"] = {"clients": len(self.sessions.clients), "viewers": viewers}
        return state

    def _state_changed(self, event: control.StateChanged) -> None:
        """Frames may be stored in another data set: what is looked back at is there from now on."""
        if event.state.dataset != self._dataset:
            self._dataset = event.state.dataset
            for past in self._pasts.values():
                if isinstance(past, StoredPast) and self._dataset is not None:
                    past.go_on_in(self._dataset.path)
            self.sessions.hello_changed()

    def _look_again(self) -> None:
        self._look_at_offer()
        self.sessions.hello_changed()

    def _look_at_offer(self) -> None:
        """Ask what commands and tables there are."""
        self._offer = self._host.endpoint.request(control.GetOffer(), to="supervisor", timeout_s=ASK_S, returns=control.Offer)
        workers = self._host.endpoint.request(control.GetStatus(), to="supervisor", timeout_s=ASK_S)
        self._overview.know(workers)

    def _histogram(self, stream: str, frame_id: int, found: Any) -> None:
        self.sessions.histogram(stream, frame_id, found)

    def _form(self, _stream: str) -> None:
        self._loop.call_soon_threadsafe(self.sessions.hello_changed)

    def _log(self, kind: type[Event], level: int, worker: str, text: str) -> None:
        first = kind not in self._log_kinds
        self._log_kinds.add(kind)
        if first and self._told.get(worker) == (level, text):
            return  # the last one of all, which is told again to whoever subscribes, and stands in the log
        self.sessions.add_lines([{"utc_ms": time.time_ns() / 1e6, "level": level, "worker": worker, "text": text}])

    # -- what clients ask

    def stored_rows(self, table: str) -> NDArray[Any]:
        """Open the rows of a table that are stored by now."""
        offered = next((each for each in self._offer.tables if each.name == table), None)
        if offered is None or self._run_folder is None:
            raise m.Refused("unknown", f"there are no stored rows of a table {table!r}")
        found = rows_of(self._run_folder, table, Columns.from_description(table, offered.columns).dtype)
        if found is None:
            raise m.Refused("unknown", f"no row of the table {table!r} is stored yet")
        return found

    async def perform(self, who: str, message: m.FromClient) -> Any:
        """Pass a client's command on to the scope, and wait for what becomes of it."""
        match message:
            case m.Acquire():
                wanted = control.StartAcquisition(
                    frames=message.frames, seconds=message.seconds, streams=tuple(message.streams)
                )
                return await self._ask(who, wanted, 60.0)
            case m.StopAcquisition():
                return await self._ask(who, control.StopAcquisition())
            case m.Saving():
                return await self._ask(who, control.SetState(saving=message.on))
            case m.SetFolder():
                return await self._ask(who, control.SetFolder(folder=message.folder), 60.0)
            case m.ChangeSetting():
                changed = control.SetSetting(camera=message.stream, setting=message.setting, value=self._checked(message))
                return await self._ask(who, changed)
            case m.AllowRestart():
                return await self._ask(who, control.AllowRestart(worker=message.worker))
            case m.StopScope():
                reason = f"asked by {who}"
                return await self._ask(who, control.StopScope(now=message.now, reason=reason))
            case m.AskCommand():
                if message.command not in {each.name for each in self._offer.commands}:
                    raise m.Refused("unknown", f"there is no command {message.command!r} for the page")
                packed = payload.encode(message.fields, message.command)
                return await self._pass_on(who, message.command, message.to, packed, message.timeout_s)
        raise m.Refused("unknown", "this page does not do that")

    def _checked(self, message: m.ChangeSetting) -> Any:
        info = self._worker.scope.cameras.get(message.stream)
        if info is None:
            raise m.Refused("unknown", f"there is no stream {message.stream!r}")
        spec = next((spec for spec in info.setting_specs if spec["name"] == message.setting), None)
        if spec is None:
            raise m.Refused("unknown", f"{message.stream} has no setting {message.setting!r}")
        return message.value

    async def _ask(self, who: str, command: Command, timeout_s: float = 10.0) -> Any:
        name = message_name(type(command))
        return await self._pass_on(who, name, None, payload.encode(command, name), timeout_s)

    async def _pass_on(self, who: str, name: str, to: str | None, packed: bytes, timeout_s: float) -> Any:
        number = next(self._numbers)
        future: asyncio.Future[control.PageReply] = self._loop.create_future()
        self._pending[number] = future
        wanted = control.PageCommand(number=number, who=who, command=name, to=to, payload=packed, timeout_s=timeout_s)
        try:
            self._host.endpoint.post(wanted, to="supervisor")
            reply = await asyncio.wait_for(future, timeout_s + ANSWER_MARGIN_S)
        except TimeoutError:
            raise CommandTimeoutError(f"{name} was not answered within {timeout_s:g} s") from None
        finally:
            del self._pending[number]
        if reply.error is not None:
            raise Failed(m.refusal(reply.error))
        if reply.answers is not None:
            return {
                each.worker: {"ok": True, "value": each.value}
                if each.error is None
                else {"ok": False, "error": m.refusal(each.error)}
                for each in reply.answers
            }
        return reply.value

    def hear_reply(self, command: control.PageReply) -> None:
        """Hear what became of a command."""
        future = self._pending.get(command.number)
        if future is not None and not future.done():
            future.set_result(command)

    # -- ROIs

    def roi_changed(self, stream: str, roi: Roi | None, roi_id: str, origin: str) -> None:
        """Tell the workers of a ROI that a client changed, and leave a whole list for whoever comes later."""
        change = control.ChangeRoi(image=stream, roi=roi, roi_id=roi_id, origin=f"{OWN}{origin.split()[0]}")
        name = message_name(type(change))
        self._host.endpoint.post(
            control.PageCommand(number=0, who=origin, command=name, to=None, payload=payload.encode(change, name)),
            to="supervisor",
        )
        self._rois_changed()

    def hear_rois(self, event: RoiList) -> None:
        """Take over what a predecessor has left; one's own lists are no news."""
        if event.revision > self.sessions.board.revision:
            self._heard = event
            self.sessions.board.restore(event.rois, event.revision)

    def _rois_changed(self) -> None:
        """Leave the whole list for whoever comes later, once for all changes of a turn of the loop, before its replies."""
        if not self._rois_due:
            self._rois_due = True
            self._loop.call_soon(self._publish_rois)

    def _publish_rois(self) -> None:
        self._rois_due = False
        board = self.sessions.board
        self._worker.publish(
            RoiList(rois=board.all(), revision=board.revision, changed=self._heard.changed, removed=self._heard.removed)
        )

    def _image(self, image: str) -> str | None:
        """The stream that a worker means; None if there is none of that name."""
        if not image and len(self._streams) == 1:
            return self._streams[0].name
        return image if image in {stream.name for stream in self._streams} else None

    def _roi_came(self, event: RoiChanged) -> None:
        if event == self._heard.changed:
            return  # the last one of all, which is told again to whoever subscribes
        self._heard = msgspec.structs.replace(self._heard, changed=event)
        image = self._image(event.image)
        if image is None or event.origin.startswith(OWN) or self.sessions.board.get(image, event.roi.id) == event.roi:
            return
        try:
            self.sessions.board.put(image, event.roi, event.origin)
        except m.Refused as refused:
            log.warning("a ROI of %s is not shown: %s", event.origin, refused.message)
            return
        self._rois_changed()

    def _roi_went(self, event: RoiRemoved) -> None:
        if event == self._heard.removed:
            return
        self._heard = msgspec.structs.replace(self._heard, removed=event)
        image = self._image(event.image)
        if image is None or event.origin.startswith(OWN) or self.sessions.board.get(image, event.roi_id) is None:
            return
        self.sessions.board.remove(image, event.roi_id, event.origin)
        self._rois_changed()


def _command_hello(command: control.OfferedCommand) -> dict[str, Any]:
    fields = [_field_hello(msgspec.to_builtins(field)) for field in command.form.fields]
    return {
        "name": command.name,
        "title": command.form.title,
        "doc": command.form.doc,
        "owners": command.owners,
        "broadcast": command.broadcast,
        "fields": fields,
    }


def _field_hello(field: dict[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "required": True, "default": None, "optional": False, "doc": "", "unit": "", "minimum": None, "maximum": None,
        "choices": [], "items": None,
    }  # fmt: skip
    whole |= field
    if whole["items"] is not None:
        whole["items"] = _field_hello(whole["items"])
    return whole
