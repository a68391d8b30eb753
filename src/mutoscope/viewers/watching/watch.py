"""The connection to a scope that a viewer watches: a client of the scope's page, in a thread of its own.

It asks for one frame of each camera at a time, and for the next one when the viewer has taken that: what it has got is the
newest there was, and nothing is queued. A connection that breaks comes again by itself, with everything that was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import hmac
import importlib.util
import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.model.install import command_for
from mutoscope.viewers.account import Watched
from mutoscope.viewers.page.messages import SUBPROTOCOL, encode
from mutoscope.viewers.page.pixels import decode_frame
from mutoscope.viewers.watching.layers import LiveScope
from mutoscope.viewers.watching.rois import Edit
from mutoscope.viewers.watching.scopes import ScopeAddress

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Watch", "check_can_watch"]

log = logging.getLogger(__name__)

MOST_HZ = 60.0
MARKS_S = 0.1
FIRST_S = 5.0
"""How long the first connection is tried for: the page's process may be about to come again."""
CONNECT_S = 5.0
SILENT_S = 5.0
ANSWER_S = 10.0
GOODBYE_S = 0.3
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
IDLE_S = 2.0
"""How long control is kept after the last edit."""
BRIEF_S = IDLE_S + 2.0
"""How long is waited for control that another viewer has taken for an edit."""
MOST_NAME = 40
_FINAL = {401: "its token is wrong, or has expired", 403: "it does not answer to that address"}
_EXPIRED = 4001
_SETTLED = ("live", "ended")


def check_can_watch() -> None:
    """Raise BackendUnavailableError, with the command that installs what is missing, where no scope can be watched."""
    if importlib.util.find_spec("aiohttp") is None:
        raise BackendUnavailableError(f"watching a scope needs aiohttp: {command_for('page', 'aiohttp')}")


class _Over(Exception):
    """It ends for good: says why."""


class _Refused(Exception):
    """A request was refused."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code: str = error["code"]


class Watch:
    """Watches one scope.

    Parameters
    ----------
    address : ScopeAddress
        Of its page.
    scope : LiveScope
        What is filled; whoever shows it calls `taken` for the frames that it took.
    kind : str
        Of viewer, for the name under which it holds control.
    changed : callable
        Called when there is something new to show.
    tell : callable(text)
        Called with what the person who looks should know.
    """

    def __init__(
        self,
        address: ScopeAddress,
        scope: LiveScope,
        kind: str,
        changed: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        self.address = address
        self.scope = scope
        self._name = f"{kind} of {getpass.getuser()}"[:MOST_NAME]
        self._changed = changed
        self._tell = tell
        self._state = "connecting"
        self._problem = ""
        self._role = ""
        self._began = time.monotonic()
        self._was_live = False
        self._is_here = False
        self._settling = threading.Lock()
        self._is_over = False
        self._waiting: list[Callable[[Watched | None], None]] = []
        self._given_up = 0
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._limits: dict[str, Any] = {}
        self._edited = asyncio.Event()
        self._has_lease = False
        self._lease_is_brief = False
        self._lease_changed = asyncio.Event()
        self._heard_hello = False
        self._working: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="mutoscope-watch", daemon=True)

    # -- from other threads

    def start(self) -> None:
        """Begin."""
        self._task = self._loop.create_task(self._watch())
        self._thread.start()

    def close(self) -> None:
        """End it, and wait until it has. Twice is fine."""
        self._post(self._cancel)
        self._thread.join()

    def wait_with(self, callback: Callable[[Watched | None], None]) -> bool:
        """Have this called once, from any thread, when the scope is seen or cannot be, with its `outcome`; False, and it is not
        called, if that is so already."""
        with self._settling:
            if self._is_over or self._state in _SETTLED:
                return False
            self._waiting.append(callback)
            return True

    def give_up(self) -> bool:
        """One of those who wait does so no more; whether it was the last of them, and the scope is not seen."""
        with self._settling:
            self._given_up += 1
            return not self._was_live and 0 < len(self._waiting) <= self._given_up

    def _settle(self) -> None:
        with self._settling:
            waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback(self.outcome())

    def outcome(self) -> Watched | None:
        """Return how it is, if the scope is seen or cannot be; else None: it was closed before."""
        return self.report() if self._state in _SETTLED else None

    def edited(self) -> None:
        """There are edits to be sent."""
        self._post(self._edited.set)

    def taken(self, streams: list[str]) -> None:
        """Frames of these streams were taken: the next ones may come."""
        self._post(lambda: self._want(streams))

    def _post(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(callback)

    def is_through(self, address: ScopeAddress) -> bool:
        """Whether this is the link by which the scope is watched."""
        return hmac.compare_digest(self.address.token.encode(), address.token.encode())

    @property
    def live(self) -> bool:
        """Whether the scope is seen."""
        return self._state == "live"

    @property
    def ended(self) -> bool:
        """Whether it has ended for good."""
        return self._state == "ended"

    def report(self) -> Watched:
        """Return how it is."""
        return Watched(
            scope=self.scope.name,
            address=self.address.url,
            state=self._state,
            problem=self._problem,
            role=self._role,
            streams=self.scope.report(),
        )

    # -- its thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        assert self._task is not None
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.close()
            with self._settling:
                self._is_over = True
            self._settle()

    def _cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()

    async def _watch(self) -> None:
        try:
            await self._connect_again()
        except _Over as over:
            self._end(str(over))
        except Exception as error:
            log.exception("%s is watched no more", self.scope.name)
            self._end(f"what it says is not understood ({type(error).__name__}: {error}); the log has more")

    def _end(self, why: str) -> None:
        self._state, self._problem = "ended", why
        self._settle()
        self.scope.forget_edits()
        self.scope.say(" (ended)")
        self._changed()
        log.info("%s: %s", self.scope.name, why)
        if self._was_live:
            self._tell(f"{self.scope.name}: {why}")

    async def _connect_again(self) -> None:
        pause = SHORTEST_PAUSE_S
        while True:
            self._heard_hello = False
            problem = await self._connection()
            if self._heard_hello:
                pause = SHORTEST_PAUSE_S
            if self._was_live:
                self._state = "no connection"
                self.scope.say(" (no connection)")
                self._changed()
            if problem != self._problem:
                log.warning("%s: %s", self.scope.name, problem)
            self._problem = problem
            if self._is_here and self._has_gone():
                raise _Over("the scope has ended")
            if not self._was_live and time.monotonic() > self._began + FIRST_S:
                raise _Over(f"it cannot be reached: {problem}")
            await asyncio.sleep(pause * random.uniform(0.8, 1.0))
            pause = min(LONGEST_PAUSE_S, 2 * pause)

    def _has_gone(self) -> bool:
        """Whether a scope of this computer is announced no more; not, as long as that cannot be looked up."""
        try:
            return not self.address.is_here
        except (ConfigError, OSError) as error:
            log.warning("whether %s still runs cannot be looked up: %s", self.scope.name, error)
            return False

    async def _connection(self) -> str:
        """Be connected for as long as that lasts; returns why it does not any more."""
        import aiohttp

        headers = {"Authorization": f"Bearer {self.address.token}"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        try:
            async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
                async with asyncio.timeout(CONNECT_S):
                    url = f"{self.address.url}ws"
                    socket = await session.ws_connect(url, protocols=[SUBPROTOCOL], max_msg_size=0)
                try:
                    return await self._serve(socket)
                finally:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(socket.close(), GOODBYE_S)
        except aiohttp.WSServerHandshakeError as error:
            if error.status in _FINAL:
                raise _Over(_FINAL[error.status]) from error
            return f"its page answered {error.status} {error.message}"
        except TimeoutError:
            return "its page does not answer"
        except (aiohttp.ClientError, OSError) as error:
            refused = isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionRefusedError)
            if refused and not self._was_live and self._is_nobodys():
                raise _Over("nothing listens there: is the scope running, and is this its newest link?") from error
            return str(error) or type(error).__name__

    def _is_nobodys(self) -> bool:
        """Whether no scope of this computer has this address, whose page could be about to come again."""
        return self.address.is_loopback and self._has_gone()

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse) -> str:
        self._socket, self._has_lease = socket, False
        helpers = [asyncio.ensure_future(self._draw_marks()), asyncio.ensure_future(self._send_edits())]
        try:
            return await self._listen(socket, helpers)
        finally:
            self._socket = None
            for each in (*helpers, *self._working):
                each.cancel()
            await asyncio.gather(*helpers, *self._working, return_exceptions=True)

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse, helpers: Sequence[asyncio.Future[None]]) -> str:
        from aiohttp import WSMsgType

        while True:
            try:
                message = await socket.receive(timeout=SILENT_S)
            except TimeoutError:
                return "its page says nothing any more"
            for helper in helpers:
                if helper.done():
                    helper.result()
            if message.type is WSMsgType.BINARY:
                self.scope.hear_frame(decode_frame(message.data))
                self._changed()
            elif message.type is WSMsgType.TEXT:
                await self._hear(msgspec.json.decode(message.data))
            elif message.type is WSMsgType.ERROR:
                return f"its page cannot be understood: {message.data}"
            elif socket.close_code == _EXPIRED:
                raise _Over("the link has expired")
            else:
                return f"its page has hung up ({socket.close_code})"

    # -- what the page says

    async def _hear(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "hello":
                await self._hear_hello(message)
            case "table":
                self.scope.hear_table(message)
            case "rois":
                self.scope.hear_rois(message)
                self._changed()
            case "roi":
                self.scope.hear_roi(message)
                self._changed()
            case "lease":
                self._has_lease, self._lease_is_brief = message["yours"], message.get("brief", False)
                self._lease_changed.set()
            case "reply":
                future = self._asked.pop(message["id"], None)
                if future is not None and not future.done():
                    if message["ok"]:
                        future.set_result(message["value"])
                    else:
                        future.set_exception(_Refused(message["error"]))
            case "error":
                log.warning("%s: %s", self.scope.name, message["message"])
            case "ended":
                said = [message["message"], *message["errors"]]
                raise _Over(f"the scope has ended ({message['reason']})" + "".join(f"; {each}" for each in said if each))

    async def _hear_hello(self, message: dict[str, Any]) -> None:
        if message["mode"] != "live":
            raise _Over("this is the page of a stored data set, not of a running scope: mutoscope view opens it by its path")
        self._limits, self._role = message["limits"], message["role"]
        self._is_here = self.address.is_here
        tables = self.scope.hear_hello(message, self._is_here)
        if not self._heard_hello:
            self._heard_hello, tables = True, list(self.scope.tables())
            for stream in self.scope.streams:
                await self._say("view", stream=stream, at_most_hz=MOST_HZ)
                await self._say("credit", stream=stream, frames=1)
            self._edited.set()  # what could not be sent before
        columns = self.scope.tables()
        for name in tables:
            rows = self._limits["table_rows"]
            await self._say("table", table=name, rows=rows, at_most_hz=1 / MARKS_S, columns=columns[name])
        self._state, self._problem, self._was_live = "live", "", True
        self.scope.say("")
        self._changed()
        self._settle()

    # -- what is said to it

    async def _say(self, kind: str, **fields: Any) -> None:
        if self._socket is None:
            raise ConnectionResetError("there is no connection")
        await self._socket.send_str(encode({"type": kind, **fields}))

    async def _ask(self, kind: str, **fields: Any) -> Any:
        number = next(self._numbers)
        text = encode({"type": kind, "id": number, **fields})
        if len(text) > self._limits["message_bytes"]:
            raise _Refused({"code": "refused", "message": f"it is too large to be sent ({len(text):,} bytes)"})
        future = self._asked[number] = self._loop.create_future()
        try:
            if self._socket is None:
                raise ConnectionResetError("there is no connection")
            await self._socket.send_str(text)
            return await asyncio.wait_for(future, ANSWER_S)
        finally:
            self._asked.pop(number, None)

    def _want(self, streams: list[str]) -> None:
        wanted = [name for name in streams if name in self.scope.streams]
        if self._socket is not None and wanted:
            self._begin(self._give_credit(wanted))

    async def _give_credit(self, streams: list[str]) -> None:
        with contextlib.suppress(ConnectionError):  # whoever listens finds it out
            for name in streams:
                await self._say("credit", stream=name, frames=1)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _draw_marks(self) -> None:
        while True:
            await asyncio.sleep(MARKS_S)
            if self.scope.draw_marks():
                self._changed()

    # -- what a person has drawn

    async def _send_edits(self) -> None:
        """Send edits as they come, and give control back when none has come for a while."""
        while True:
            try:
                await asyncio.wait_for(self._edited.wait(), IDLE_S if self._has_lease else None)
            except TimeoutError:
                with contextlib.suppress(_Refused):
                    await self._ask("lease", take=False)
                continue
            self._edited.clear()
            if not self._heard_hello:
                continue  # hello sets it again
            edits = self.scope.take_edits()
            try:
                while edits:
                    await self._send_edit(*edits[0])
                    del edits[0]
            finally:  # what did not get there goes with the next connection
                for stream, edit in edits:
                    self.scope.sheet(stream, "send_again", edit)
            self._changed()

    async def _send_edit(self, stream: str, edit: Edit) -> None:
        try:
            self.scope.sheet(stream, "confirm", edit, await self._put(stream, edit))
        except _Refused as refused:
            self.scope.sheet(stream, "set_back", edit)
            self._tell(f"{self.scope.name}: the ROI is as it was before: {refused}")

    async def _put(self, stream: str, edit: Edit) -> int:
        if not self._has_lease:
            await self._take_control()
        try:
            return await self._put_once(stream, edit)
        except _Refused as refused:
            if refused.code != "lease":
                raise
            await self._take_control()  # it had run out
            return await self._put_once(stream, edit)

    async def _take_control(self) -> None:
        """Take control; where another viewer has it for an edit, when that is done."""
        until = time.monotonic() + BRIEF_S
        while True:
            self._lease_changed.clear()
            try:
                await self._ask("lease", take=True, name=self._name, brief=True)
            except _Refused as refused:
                left = until - time.monotonic()
                if refused.code != "lease" or not self._lease_is_brief or left <= 0:
                    raise
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._lease_changed.wait(), left)
            else:
                self._has_lease = True
                return

    async def _put_once(self, stream: str, edit: Edit) -> int:
        if edit.roi is None:
            answer = await self._ask("remove_roi", stream=stream, roi_id=edit.roi_id)
        else:
            known = {} if edit.revision is None else {"revision": edit.revision}
            roi = msgspec.to_builtins(edit.roi, builtin_types=())
            answer = await self._ask("put_roi", stream=stream, roi=roi, **known)
        return int(answer["revision"])
