"""What clients ask, and what everyone is told: views, the past, tables, ROIs, control."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import msgspec
from aiohttp import WSMsgType, web
from numpy.typing import NDArray

from mutoscope.model.errors import CommandTimeoutError, MutoscopeError
from mutoscope.model.roi import Roi
from mutoscope.viewers.page import messages as m
from mutoscope.viewers.page.access import CONTROL, Visitor
from mutoscope.viewers.page.board import ROI_BYTES, ROIS, RoiBoard
from mutoscope.viewers.page.client import LOG_LINES, Client
from mutoscope.viewers.page.lease import Lease
from mutoscope.viewers.page.onlookers import Onlookers
from mutoscope.viewers.page.past import Past, PastFrame, Where
from mutoscope.viewers.page.pixels import WHOLE, Histogram, View, exact_value
from mutoscope.viewers.page.stored_tables import rows_near
from mutoscope.viewers.page.streams import CREDIT, PageStream
from mutoscope.viewers.page.tables import TableDesk

__all__ = ["Sessions", "Shown"]

log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[Any]]
STUCK_S = 30.0
MALFORMED = 100
REQUESTS = 32
STATE_S = 0.5
GOODBYE_S = 0.3
QUICK_S = 0.05
CLOSE_FAILED, CLOSE_EXPIRED, CLOSE_MALFORMED, CLOSE_STUCK = 1011, 4001, 4002, 4003


class Shown(Protocol):
    """What the page shows: a running scope, or a stored data set."""

    def hello(self) -> dict[str, Any]:
        """The protocol's ``hello``, without what belongs to a client."""

    def state(self) -> dict[str, Any]:
        """The protocol's ``state``."""

    def stored_rows(self, table: str) -> NDArray[Any]:
        """Open the stored rows of a table; raises Refused where there are none. From any thread."""

    async def perform(self, who: str, message: m.FromClient) -> Any:
        """Do what a client with control asks, and return the value of the reply; raises what it is refused with."""

    def roi_changed(self, stream: str, roi: Roi | None, roi_id: str, origin: str) -> None:
        """A client has changed a ROI, or (None) removed it."""


class Sessions:
    """All clients of a page. For the loop's thread, unless a method says otherwise.

    Parameters
    ----------
    shown : Shown
        What is shown.
    streams : sequence of PageStream
        In the order of their numbers.
    pasts : mapping of str to Past
        By stream, where there is one.
    tables : TableDesk
        The tables.
    lease_s : float
        See :class:`Lease`.
    plane_rois : callable(layer, at), optional
        Returns the ROIs of a layer on a plane, where there are layers; raises LookupError where there is no such one. Called
        in the thread that reads.
    """

    def __init__(
        self,
        shown: Shown,
        streams: Sequence[PageStream],
        pasts: Mapping[str, Past],
        tables: TableDesk,
        *,
        lease_s: float,
        limits: Mapping[str, Any],
        plane_rois: Callable[[str, Mapping[str, str]], dict[str, Any]] | None = None,
    ) -> None:
        self._shown = shown
        self._streams = {stream.name: stream for stream in streams}
        self._numbered = {stream.index: stream for stream in streams}
        self._pasts = pasts
        self._rois_of = plane_rois
        self._tables = tables
        self._limits = {
            "credit": CREDIT,
            "message_bytes": m.MESSAGE_BYTES,
            "table_rows": m.TABLE_ROWS,
            "rois": ROIS,
            "roi_bytes": ROI_BYTES,
            "lease_s": lease_s,
            **limits,
        }
        self.lease = Lease(lease_s, self._lease_changed)
        self.board = RoiBoard(self._tell_all)
        self.clients: dict[int, Client] = {}
        self.onlookers = Onlookers(self.clients)
        self._numbers = itertools.count(1)
        self._lines: list[dict[str, Any]] = []
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="mutoscope-past")
        self._loop = asyncio.get_running_loop()
        self._came = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self._handlers: dict[type, Callable[[Client, Any], Any]] = {
            m.Ping: self._ping,
            m.SetView: self._view,
            m.GiveCredit: self._credit,
            m.AskHistogram: self._histogram,
            m.AskPixel: self._pixel,
            m.Seek: self._seek,
            m.AskIndex: self._index,
            m.AskPlaneRois: self._plane_rois,
            m.SendPicture: self.onlookers.picture_came,
            m.AskTable: self._table,
            m.AskRows: self._rows,
            m.TakeLease: self._take_lease,
        }

    # -- a client's life

    async def connect(
        self, socket: web.WebSocketResponse, visitor: Visitor, address: str, transport: asyncio.BaseTransport | None
    ) -> None:
        """Talk to a client until it goes."""
        number = next(self._numbers)
        client = Client(number, visitor, socket, address, transport, functools.partial(self._frame_left, number))
        self.clients[number] = client
        self._came.set()
        for stream in self._streams.values():
            stream.join(number, functools.partial(self._offer, client, stream.index))
        log.info("%s has come (%s, from %s)", client.id, visitor.role, address)
        client.say(self._hello(client))
        client.say(self.board.message())
        client.say(self._lease_message(client))
        client.lines.extend(self._lines)
        client.due("log", functools.partial(_log_message, client))
        sender = asyncio.create_task(client.send_on())
        sender.add_done_callback(functools.partial(self._sender_ended, client))
        try:
            await self._listen(client)
        finally:
            del self.clients[number]
            for stream in self._streams.values():
                stream.leave(number)
            self.lease.release(client.id)
            for task in (sender, *client.tasks):
                task.cancel()
            await asyncio.gather(sender, *client.tasks, return_exceptions=True)
            self._tables.close_unused(self._tables_used())
            log.info("%s has gone", client.id)

    def _sender_ended(self, client: Client, sender: asyncio.Task[None]) -> None:
        """End the connection of a client that nothing can be sent to any more; say why if it is not its own end."""
        error = None if sender.cancelled() else sender.exception()
        if error is None or isinstance(error, ConnectionError):
            return
        log.error("%s is cut off: what it was to be sent could not be made", client.id, exc_info=error)
        self._cut(client, CLOSE_FAILED, b"the page failed")

    async def _listen(self, client: Client) -> None:
        async for message in client.socket:
            if message.type is WSMsgType.TEXT:
                self._heard(client, message.data)
            elif message.type is WSMsgType.BINARY:
                self._malformed(client, "clients send text only", None)
            else:
                break
            if client.malformed > MALFORMED:
                log.warning("%s sent %d malformed messages and is cut off", client.id, client.malformed)
                await client.socket.close(code=CLOSE_MALFORMED, message=b"too many malformed messages")

    def _heard(self, client: Client, text: str) -> None:
        client.heard = time.monotonic()
        try:
            message = m.decode(text)
        except m.Refused as refused:
            self._malformed(client, refused.message, _about(text))
            return
        request: int = getattr(message, "id", 0)
        try:
            if isinstance(message, m.CONTROL):
                self._check_control(client)
                self._start(client, request, functools.partial(self._control, client, message))
                return
            value = self._handlers[type(message)](client, message)
        except (m.Refused, MutoscopeError, LookupError) as error:
            said = m.refusal(error)
            if request:
                client.refuse(request, said)
            else:
                client.say({"type": "error", **said, "about": type(message).__struct_config__.tag})
            return
        if request and value is not _LATER:
            client.reply(request, value)

    def _malformed(self, client: Client, why: str, about: tuple[str | None, int] | None) -> None:
        client.malformed += 1
        kind, request = about or (None, 0)
        if client.malformed in (1, 10, MALFORMED):
            log.warning("%s sent %d malformed messages, the last one: %s", client.id, client.malformed, why[:300])
        if request:
            client.refuse(request, m.refusal(m.Refused("malformed", why)))
        else:
            client.say({"type": "error", "code": "malformed", "message": why, "about": kind})

    def _start(self, client: Client, request: int, work: Work) -> None:
        """Answer a request later."""
        task = asyncio.ensure_future(self._answer(client, request, work))
        client.tasks.add(task)
        task.add_done_callback(client.tasks.discard)

    async def _answer(self, client: Client, request: int, work: Work) -> None:
        try:
            if len(client.tasks) > REQUESTS:
                raise m.Refused("refused", f"{REQUESTS} requests of this client are not answered yet")
            client.reply(request, await work())
        except asyncio.CancelledError:
            raise
        except Failed as failed:
            client.refuse(request, failed.told)
        except Exception as error:
            if not isinstance(error, m.Refused | MutoscopeError | LookupError | OSError | ValueError):
                log.exception("a request of %s failed", client.id)
            client.refuse(request, m.refusal(error))

    # -- frames

    def _offer(self, client: Client, stream: int, message: bytearray) -> None:
        """Take a frame from a feed's thread."""
        self._loop.call_soon_threadsafe(client.frame, stream, message)

    def _frame_left(self, number: int, stream: int) -> None:
        if (found := self._numbered.get(stream)) is not None:
            found.taken(number)

    def _stream(self, name: str) -> PageStream:
        try:
            return self._streams[name]
        except KeyError:
            known = ", ".join(self._streams) or "none"
            raise m.Refused("unknown", f"there is no stream {name!r}; there are: {known}") from None

    def _view(self, client: Client, message: m.SetView) -> None:
        view = View(message.crop, message.step, message.levels)
        self._stream(message.stream).set_view(client.number, view, message.at_most_hz)

    def _credit(self, client: Client, message: m.GiveCredit) -> None:
        client.counted.pop(message.stream, None)  # what it sees next is live, with another histogram
        self._stream(message.stream).add_credit(client.number, message.frames)

    def _histogram(self, client: Client, message: m.AskHistogram) -> None:
        client.counted.pop(message.stream, None)
        self._stream(message.stream).set_histogram(client.number, message.on)

    def histogram(self, stream: str, frame_id: int, found: Histogram) -> None:
        """Tell those who want it; from any thread."""
        self._loop.call_soon_threadsafe(self._tell_histogram, stream, frame_id, found)

    def _tell_histogram(self, stream: str, frame_id: int, found: Histogram) -> None:
        text = m.encode(_histogram_message(stream, frame_id, found))
        for client in self.clients.values():
            if self._streams[stream].wants_histogram(client.number):
                client.due(("histogram", stream), lambda: text)

    # -- the past

    def _pixel(self, client: Client, message: m.AskPixel) -> Any:
        stream = self._stream(message.stream)
        newest = stream.feed.newest() if stream.feed is not None else None
        if newest is not None and message.frame_id in (None, newest[0].frame_id):
            return {"frame_id": newest[0].frame_id, **_value_at(newest[1], message)}
        past = self._past(message.stream)
        self._start(client, message.id, functools.partial(self._past_pixel, past, message))
        return _LATER

    async def _past_pixel(self, past: Past, message: m.AskPixel) -> dict[str, Any]:
        newest = -1 if message.frame_id is None and message.at is None else None
        where = Where(frame_id=message.frame_id, number=newest, image=message.image, at=message.at)

        def work() -> dict[str, Any]:
            found = past.find(where)
            if message.frame_id not in (None, found.stamp.frame_id):
                raise m.Refused("unknown", f"frame {message.frame_id} is not there any more")
            _check_inside(found.shape, message)
            return {"frame_id": found.stamp.frame_id, **found.value(message.y, message.x)}

        value: dict[str, Any] = await self._read(work)
        return value

    def _past(self, stream: str) -> Past:
        self._stream(stream)
        past = self._pasts.get(stream)
        if past is None:
            raise m.Refused("unknown", f"{stream} has no past: it is neither recorded nor kept")
        return past

    async def _read(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await self._loop.run_in_executor(self._reading, functools.partial(call, *arguments))
        except LookupError as error:
            raise m.Refused("unknown", str(error.args[0]) if error.args else "there is no such frame") from error

    def _seek(self, client: Client, message: m.Seek) -> Any:
        given = [message.frame_id, message.number, message.fraction, message.utc_ms, message.at]
        if sum(each is not None for each in given) != 1:
            raise m.Refused("malformed", "a seek has one of frame_id, number, fraction, utc_ms and at")
        past = self._past(message.stream)
        running = client.seeks.get(message.stream)
        if running is None or running.done():
            task = client.seeks[message.stream] = asyncio.ensure_future(self._seek_on(client, message, past))
            client.tasks.add(task)
            task.add_done_callback(client.tasks.discard)
            return _LATER
        if (waiting := client.next_seek.get(message.stream)) is not None:
            newer = m.refusal(m.Refused("superseded", "a newer seek took its place"))
            client.refuse(waiting.id, newer)
        client.next_seek[message.stream] = message
        return _LATER

    async def _seek_on(self, client: Client, message: m.Seek, past: Past) -> None:
        found: m.Seek | None = message
        while found is not None:
            await self._answer(client, found.id, functools.partial(self._found, client, found, past))
            found = client.next_seek.pop(message.stream, None)

    async def _found(self, client: Client, message: m.Seek, past: Past) -> dict[str, Any]:
        where = Where(message.frame_id, message.number, message.fraction, message.utc_ms, message.image, message.at)
        stream = self._stream(message.stream)
        view = stream.view_of(client.number) or WHOLE
        counts = stream.wants_histogram(client.number)
        counted = client.counted.get(message.stream)

        def work() -> tuple[PastFrame, bytearray, Histogram | None]:
            found = past.find(where)
            if message.exact and message.at is None and found.stamp.frame_id != message.frame_id:
                raise LookupError(f"frame {message.frame_id} is not there")
            packed = found.message(view, stream=stream.index, request=message.id)
            fresh = counts and counted != (message.image, found.stamp.frame_id)
            return found, packed, found.histogram() if fresh else None

        found, packed, histogram = await self._read(work)
        if histogram is not None:
            client.counted[message.stream] = (message.image, found.stamp.frame_id)
            client.say(_histogram_message(message.stream, found.stamp.frame_id, histogram, message.id))
        client.say(packed)
        utc_ms = found.stamp.utc_ns / 1e6 or None
        return {"frame_id": found.stamp.frame_id, "number": found.number, "utc_ms": utc_ms}

    def _index(self, client: Client, message: m.AskIndex) -> Any:
        past = self._past(message.stream)
        self._start(client, message.id, functools.partial(self._read, past.index, message.image))
        return _LATER

    # -- layers of a viewer

    def _plane_rois(self, client: Client, message: m.AskPlaneRois) -> Any:
        if self._rois_of is None:
            raise m.Refused("unknown", f"there is no layer {message.layer!r}")
        self._start(client, message.id, functools.partial(self._read, self._rois_of, message.layer, message.at))
        return _LATER

    def set_streams(self, streams: Sequence[PageStream]) -> None:
        """Show these streams from now on; say :meth:`hello_changed` then."""
        before, self._streams = self._streams, {stream.name: stream for stream in streams}
        self._numbered = {stream.index: stream for stream in streams}
        for stream in streams:
            if stream.name not in before:
                for client in self.clients.values():
                    stream.join(client.number, functools.partial(self._offer, client, stream.index))

    # -- tables

    def _table(self, client: Client, message: m.AskTable) -> None:
        if message.rows:
            view = self._tables.view(message.table, message.rows, message.at_most_hz, message.columns)
            client.tables[message.table] = view
        else:
            client.tables.pop(message.table, None)
            self._tables.close_unused(self._tables_used())

    def _rows(self, client: Client, message: m.AskRows) -> Any:
        def near() -> dict[str, Any]:
            return rows_near(self._shown.stored_rows(message.table), message)

        self._start(client, message.id, functools.partial(self._read, near))
        return _LATER

    def _tables_used(self) -> set[str]:
        return {table for client in self.clients.values() for table in client.tables}

    def _look_at_tables(self) -> None:
        self._tables.look()
        now = time.monotonic()
        for client in self.clients.values():
            for table, view in client.tables.items():
                if self._tables.is_due(table, view, now):
                    client.due(("table", table), functools.partial(self._tables.message, table, view))

    # -- control

    def _ping(self, client: Client, message: m.Ping) -> dict[str, float]:
        return {"monotonic_ms": time.monotonic_ns() / 1e6, "utc_ms": time.time_ns() / 1e6}

    def _check_role(self, client: Client) -> None:
        if client.visitor.role != CONTROL:
            raise m.Refused("role", "this link only looks")

    def _check_control(self, client: Client) -> None:
        try:
            self._check_role(client)
            self.lease.check(client.id)
        except m.Refused as refused:
            log.warning("%s was refused: %s", self._who(client), refused.message)
            raise

    def _take_lease(self, client: Client, message: m.TakeLease) -> dict[str, Any]:
        self._check_role(client)
        if message.take:
            self.lease.take(client.id, _printable(message.name), message.brief)
        else:
            self.lease.release(client.id)
        return self._lease_message(client)

    def _lease_message(self, client: Client) -> dict[str, Any]:
        lease = self.lease
        yours = lease.holder == client.id
        return {
            "type": "lease", "holder": lease.holder, "name": lease.name, "yours": yours, "expires_in_s": lease.expires_in_s,
            "brief": lease.brief and lease.holder is not None,
        }  # fmt: skip

    def _lease_changed(self) -> None:
        for client in self.clients.values():
            client.due("lease", functools.partial(lambda each: m.encode(self._lease_message(each)), client))

    def _who(self, client: Client) -> str:
        name = f" {self.lease.name}" if self.lease.holder == client.id and self.lease.name else ""
        return f"{client.id}{name} ({client.visitor.role}, {client.address})"

    async def _control(self, client: Client, message: Any) -> Any:
        if isinstance(message, m.PutRoi):
            self._stream(message.stream)
            roi = m.roi_of(message.roi, f"roi-{uuid.uuid4().hex[:12]}")
            revision = self.board.put(message.stream, roi, client.id, message.revision)
            self._shown.roi_changed(message.stream, roi, roi.id, self._who(client))
            return {"roi_id": roi.id, "revision": revision}
        if isinstance(message, m.RemoveRoi):
            revision = self.board.remove(message.stream, message.roi_id, client.id)
            self._shown.roi_changed(message.stream, None, message.roi_id, self._who(client))
            return {"revision": revision}
        return await self._shown.perform(self._who(client), message)

    # -- what everyone is told

    def _hello(self, client: Client) -> dict[str, Any]:
        expires = client.visitor.expires
        own = {
            "client": client.id,
            "role": client.visitor.role,
            "expires_utc_ms": None if expires is None else expires * 1e3,
            "monotonic_ms": time.monotonic_ns() / 1e6,
            "utc_ms": time.time_ns() / 1e6,
            "limits": self._limits,
        }
        return {"type": "hello", "protocol": m.PROTOCOL, **self._shown.hello(), **own}

    def hello_changed(self) -> None:
        """Say hello again to everyone."""
        for client in self.clients.values():
            client.due("hello", functools.partial(lambda each: m.encode(self._hello(each)), client))

    def _tell_all(self, message: dict[str, Any]) -> None:
        text = m.encode(message)
        for client in self.clients.values():
            client.say(text)

    def add_lines(self, lines: list[dict[str, Any]]) -> None:
        """Tell everyone new lines of the log."""
        self._lines = [*self._lines, *lines][-LOG_LINES:]
        for client in self.clients.values():
            client.lines.extend(lines)

    async def run(self) -> None:
        """Do what is to be done now and then, until cancelled."""
        state_due = 0.0
        while True:
            if self.clients:
                await asyncio.sleep(QUICK_S)
            else:
                await self._wait_for_clients()
            now = time.monotonic()
            if any(client.tables for client in self.clients.values()):
                self._look_at_tables()
            for client in list(self.clients.values()):
                if client.lines and now >= client.log_due:
                    client.log_due = now + 0.1
                    client.due("log", functools.partial(_log_message, client))
                self._check(client, now)
            if now >= state_due:
                state_due = now + STATE_S
                self.lease.expire()
                if self.clients:
                    self._tell_state()

    async def _wait_for_clients(self) -> None:
        self._came.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._came.wait(), STATE_S)

    def _tell_state(self) -> None:
        try:
            text = m.encode({"type": "state", **self._shown.state()})
        except CommandTimeoutError as error:
            log.warning("the state is not told: %s", error)
            return
        for client in self.clients.values():
            client.due("state", lambda: text)

    def _check(self, client: Client, now: float) -> None:
        """End the connection of a client that takes nothing, or whose time is over."""
        stuck = client.sending_since is not None and now - client.sending_since > STUCK_S
        if stuck or client.overrun:
            log.warning("%s does not take what it asked for and is cut off", client.id)
            client.overrun, client.sending_since = False, None
            self._cut(client, CLOSE_STUCK, b"nothing was taken for too long")
        elif client.visitor.expired and not client.closing:
            log.info("the link of %s has expired", client.id)
            self._cut(client, CLOSE_EXPIRED, b"the link has expired")

    def _cut(self, client: Client, code: int, why: bytes) -> None:
        client.closing = True

        async def close() -> None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.socket.close(code=code, message=why), 1.0)
            if isinstance(client.transport, asyncio.WriteTransport):
                client.transport.abort()

        task = asyncio.ensure_future(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def ended(self, message: dict[str, Any]) -> None:
        """Say the last word to everyone; a client that takes nothing is waited for during `GOODBYE_S` at most."""
        self._tell_all({"type": "ended", **message})
        told = [asyncio.ensure_future(client.sent()) for client in self.clients.values()]
        if told:
            _, late = await asyncio.wait(told, timeout=GOODBYE_S)
            for each in late:
                each.cancel()

    def close(self) -> None:
        """Let go of readers and the past."""
        self._tables.close()
        self._reading.shutdown(wait=True, cancel_futures=True)
        for past in self._pasts.values():
            past.close()


class Failed(Exception):
    """A request that failed elsewhere, as it is told."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(told["message"])
        self.told = told


_LATER = object()


def _about(text: str) -> tuple[str | None, int] | None:
    """Find out what a malformed message was about, as far as it says."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    kind, request = found.get("type"), found.get("id")
    if not isinstance(request, int) or isinstance(request, bool) or not 0 < request < 2**32:
        request = 0
    return (kind[:100] if isinstance(kind, str) else None, request)


def _printable(name: str) -> str:
    """Return a name that fits into a line of the log: of what is no letter or sign, spaces are left."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())


def _value_at(array: Any, message: m.AskPixel) -> dict[str, Any]:
    _check_inside(array.shape, message)
    return exact_value(array, message.y, message.x)


def _check_inside(shape: tuple[int, ...], message: m.AskPixel) -> None:
    if not (0 <= message.y < shape[0] and 0 <= message.x < shape[1]):
        raise m.Refused("unknown", f"pixel ({message.y}, {message.x}) lies outside of {shape[0]} x {shape[1]}")


def _histogram_message(stream: str, frame_id: int, found: Histogram, request: int = 0) -> dict[str, Any]:
    return {"type": "histogram", "stream": stream, "frame_id": frame_id, "request": request, **msgspec.structs.asdict(found)}


def _log_message(client: Client) -> str | None:
    lines = list(client.lines)
    client.lines.clear()
    return m.encode({"type": "log", "lines": lines}) if lines else None
