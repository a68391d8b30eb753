"""The sending half of a sink: connects to its viewer, lends it memory, and keeps the books."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mutoscope.frames import Arena
from mutoscope.model.errors import (
    ConfigError,
    MutoscopeError,
    PeerDiedError,
    RingSizeError,
    ViewerTimeoutError,
    ViewerUnavailableError,
)
from mutoscope.viewers import wire
from mutoscope.viewers.account import Counts, Progress
from mutoscope.viewers.announce import announced
from mutoscope.viewers.channel import HUNG_UP, Channel, array_of
from mutoscope.viewers.display import Display
from mutoscope.viewers.items import ImageItem, Item, sendable
from mutoscope.viewers.launch import be_let_in, find, greet, launch, say_link, wait_for_end

if TYPE_CHECKING:
    from mutoscope.viewers.remote.dial import Remote

__all__ = ["Books", "Policy", "Sender", "SenderSettings"]

log = logging.getLogger(__name__)

Policy = Literal["block", "drop"]

_FIRST_WAIT_S = 0.2
"""How long the first save of a sink that drops waits for its viewer: one that is open answers in a few milliseconds."""
_AGAIN_S = 5.0
"""After a viewer could not be had, the next attempt is made so much later."""
_OF_THE_TIME = 0.9
"""Of the time for all, what the connection to another computer may take: so that it is the one who says why."""
_ATTEMPTS, _BETWEEN_S = 20, 0.05
_IN_BAND_BYTES = 1 << 14
"""ROIs of fewer bytes go behind their message."""
_PART_BYTES = 4 << 20
_MOST_PENDING = 1 << 16
_FAILURES = 100
_LATENCIES = 10000


@dataclass(frozen=True)
class SenderSettings:
    """What a sink was opened with.

    Parameters
    ----------
    kind, name : str
        The viewer.
    display : Display
        How items are arranged.
    policy : {"block", "drop"}
        What a save does when there is no room.
    timeout_s : float
        Longest wait.
    window_bytes : int
        Most bytes on their way.
    required : bool
        Whether it is an error that there is no viewer.
    remote : Remote, optional
        Where it is, if on another computer; `name` is its address then.
    """

    kind: str
    name: str
    display: Display
    policy: Policy
    timeout_s: float
    window_bytes: int
    required: bool
    remote: Remote | None = None


Lent = tuple[Arena, int]
"""A range of shared memory."""
Handlers = tuple[threading.Condition, Callable[[Channel, wire.FromViewer, bytes], None], Callable[[Channel, str], None]]
"""What a `Channel` calls."""


@dataclass(slots=True)
class Pending:
    """An item that is on its way, and where it lies in shared memory, if it does."""

    name: str
    is_image: bool
    lent: Lent | None
    sent_ns: int
    received: bool = False


@dataclass
class Books:
    """What became of the items of a sink."""

    images: Counts = field(default_factory=Counts)
    rois: Counts = field(default_factory=Counts)
    pending: dict[int, Pending] = field(default_factory=dict)
    failures: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_FAILURES))
    dropped: Counter[str] = field(default_factory=Counter)
    refused: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Items that the viewer would not show, or (`required`) that were lost, and that nobody has been told of; by id."""
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))

    def counts(self, is_image: bool) -> Counts:
        """Return the account of images, or of lists of ROIs."""
        return self.images if is_image else self.rois


class Sender:
    """Sends to one viewer. Any number of threads may use it; it belongs to one process.

    Parameters
    ----------
    settings : SenderSettings
        Which viewer, and how.
    """

    def __init__(self, settings: SenderSettings) -> None:
        self.settings = settings
        self._lock = threading.RLock()
        self.turn = threading.Condition(self._lock)
        """Of `_lock`, which is taken by itself where every item passes: the condition's own way in is Python."""
        self.books = Books()
        self.started = False
        """Whether it was this sender that started the viewer."""
        self.log = ""
        """Where the viewer's log is."""
        self._channel: Channel | None = None
        self._connector: threading.Thread | None = None
        self._arena: Arena | None = None
        self._no_arena = False
        self._ids = itertools.count(1)
        self._calls = itertools.count(1)
        self._answers: dict[int, tuple[wire.Answer, bytes] | None] = {}
        self._hung = False
        self._closed_by = ""
        self._absent_until = 0.0
        self._problem = ""
        self._tried = self._given_up = False
        self._ended = False

    # -- the connection

    @property
    def state(self) -> str:
        """As in `Progress`."""
        with self.turn:
            if self._channel is not None:
                carrier = self._channel.carrier
                away = carrier is not None and carrier.is_away
                return "hung" if self._hung else "connecting" if away else "connected"
            if self._connector is not None:
                return "connecting"
            return "closed" if self._closed_by else "not connected"

    @property
    def problem(self) -> str:
        """Why there is no viewer."""
        return self._closed_by or self._problem or "it is not connected"

    def connect(self, wait_s: float) -> bool:
        """See that there is a connection, for at most `wait_s` seconds; an attempt goes on without the caller.

        Raises
        ------
        ViewerUnavailableError
            If there is none, and one is required.
        """
        deadline = time.monotonic() + wait_s
        with self.turn:
            if self._channel is not None:
                return True
            may = not self._closed_by and not self._ended and (self.settings.required or time.monotonic() >= self._absent_until)
            if may and self._connector is None:
                self._connector = threading.Thread(target=self._connect, name="mutoscope-connect", daemon=True)
                try:
                    self._connector.start()
                except RuntimeError as error:  # no more threads, or the interpreter ends
                    self._connector, self._tried = None, True
                    self._give_up(f"the viewer {self.settings.name!r} cannot be connected to: {error}")
            while self._connector is not None and self._channel is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self.turn.wait(left)
            if self._channel is None and self.settings.required:
                raise self._unavailable()
            return self._channel is not None

    def _connect(self) -> None:
        channel, started, problem = None, False, ""
        try:
            channel, started = self._attach()
        except (MutoscopeError, OSError) as error:
            problem = str(error)
        except Exception as error:
            log.exception("the viewer %r cannot be connected to", self.settings.name)
            problem = f"{type(error).__name__}: {error}"
        with self.turn:
            self._connector = None
            self._tried = True
            if channel is None:
                self._give_up(problem)
            elif self._ended:
                channel.abandon()
                self._let_go()
            else:
                self._use(channel, started)
            self.turn.notify_all()

    def _give_up(self, problem: str) -> None:
        self._given_up, self._problem = True, problem
        self._absent_until = time.monotonic() + _AGAIN_S
        if not self.settings.required:
            log.warning("%s; what is sent to it is dropped, and counted", problem)

    def _unavailable(self) -> ViewerUnavailableError:
        name = f"the viewer {self.settings.name!r}"
        return ViewerUnavailableError(self.problem if self.problem.startswith(name) else f"{name} is not there: {self.problem}")

    def _use(self, channel: Channel, started: bool) -> None:
        self._channel = channel
        try:
            channel.start()
        except RuntimeError as error:
            self._channel = None
            channel.abandon()
            self._give_up(f"the viewer {self.settings.name!r} cannot be listened to: {error}")
            return
        welcome = channel.welcome
        remote = self.settings.remote
        where = welcome.log if remote is None else f"{remote.address.host}:{welcome.log}"
        self.started, self.log, self._hung, self._given_up = started, where, False, False
        how = "started" if started else "is open already"
        log.info("the viewer %r (process %d) %s; its log: %s", self.settings.name, welcome.pid, how, where)

    def _attach(self) -> tuple[Channel, bool]:
        """Find the viewer, or start it, and be let in; again if it ended meanwhile, as a dead one may still be announced."""
        settings = self.settings
        if settings.remote is not None:
            hello = _hello("", "send", settings.display)
            handlers = self.turn, self._heard, self._lost
            return _reach(settings.remote, settings.kind, hello, settings.timeout_s, handlers), False
        for attempt in itertools.count(1):
            viewer, started = launch(settings.kind, settings.name, settings.timeout_s)
            arena = self._lend()
            hello = _hello(viewer.token, "send", settings.display, shared=arena is not None)
            try:
                sock, welcome = greet(viewer, hello, [] if arena is None else [arena.fd], settings.timeout_s)
            except PeerDiedError:
                if attempt >= _ATTEMPTS:
                    raise
                wait_for_end(viewer, _BETWEEN_S)
            else:
                if started:
                    say_link(viewer)
                return _channel(sock, welcome, self.turn, self._heard, self._lost), started
        raise AssertionError("an attempt returns or raises")

    def _lend(self) -> Arena | None:
        """The memory that is lent to the viewer; None where none is to be had."""
        if self._arena is None and not self._no_arena:
            try:
                self._arena = Arena(self.settings.window_bytes, self.settings.name)
            except RingSizeError as error:
                self._no_arena = True
                log.warning("images go to the viewer %r through its socket, which is slower: %s", self.settings.name, error)
        return self._arena

    def disconnect(self) -> None:
        """Hang up; the next item connects again."""
        with self.turn:
            channel, self._channel = self._channel, None
            if self._arena is not None and self._arena.used:
                self._let_go()  # the viewer may still read what it was told of: nothing else may come to lie there
        if channel is not None:
            channel.close()
            self._lose("the sink hung up")

    def close(self) -> None:
        """Hang up for good. Twice is fine."""
        with self.turn:
            self._ended = True
            connecting = self._connector is not None
        self.disconnect()
        if not connecting:
            self._let_go()

    def _let_go(self) -> None:
        if self._arena is not None:
            self._arena.close()
            self._arena = None

    def abandon(self) -> None:
        """Let go of what belongs to the process from which this one was forked."""
        if self._channel is not None:
            self._channel.abandon()
        self._let_go()

    # -- what comes from the viewer, in the channel's thread, with the turn

    def _heard(self, channel: Channel, message: wire.FromViewer, behind: bytes) -> None:
        if isinstance(message, wire.Account):
            self._account(message)
            self._hung = False
        elif isinstance(message, wire.Answer) and message.id in self._answers:
            self._answers[message.id] = (message, behind)
        self.turn.notify_all()

    def _account(self, account: wire.Account) -> None:
        books, pending = self.books, self.books.pending
        for first, count in account.received:
            for number in range(first, first + count):
                item = pending.get(number)
                if item is not None and not item.received:
                    item.received = True
                    books.counts(item.is_image).received += 1
                    self._give(item)
        shown_ns = account.shown_ns if self.settings.remote is None else time.monotonic_ns()
        for first, count in account.displayed:
            for number in range(first, first + count):
                item = pending.pop(number, None)
                if item is not None:
                    books.counts(item.is_image).displayed += 1
                    books.latencies_ms.append((shown_ns - item.sent_ns) / 1e6)
        for number, reason in account.failed:
            item = books.pending.pop(number, None)
            if item is not None:
                self._fail(number, item, reason, told=False)

    def _give(self, item: Pending) -> None:
        if item.lent is not None:
            arena, at = item.lent
            arena.give(at)
            item.lent = None

    def _fail(self, number: int, item: Pending, reason: str, *, told: bool) -> None:
        self._give(item)
        self.books.counts(item.is_image).failed += 1
        self.books.failures.append((item.name, reason))
        if not told and len(self.books.refused) < _MOST_PENDING:
            self.books.refused[number] = (item.name, reason)

    def _lost(self, channel: Channel, why: str) -> None:
        if self._channel is not channel:
            return
        self._channel = None
        goodbye = channel.goodbye
        if goodbye is not None and goodbye.by_user:
            reason = self._closed_by = goodbye.reason
        elif goodbye is not None:
            reason = goodbye.reason
        elif channel.carrier is not None:
            reason = why
        else:
            what = "died" if why == HUNG_UP else "was left"
            reason = f"the viewer (process {channel.welcome.pid}) {what}: {why}"
        self._problem = f"{reason}; its log: {self.log}"
        lost = self._lose(reason)
        log.log(
            logging.INFO if goodbye is not None and goodbye.by_user and not lost else logging.WARNING,
            "the viewer %r is gone (%s); %d items that it had not shown are lost",
            self.settings.name,
            self._problem,
            lost,
        )
        self.turn.notify_all()

    def _lose(self, reason: str) -> int:
        with self.turn:
            pending, self.books.pending = self.books.pending, {}
            for number, item in pending.items():
                self._fail(number, item, reason, told=not self.settings.required)
            return len(pending)

    # -- items

    def put(self, item: Item, source: str, folder: str) -> int | None:
        """Send an item, copied; returns its number, or None if it was dropped, which is counted."""
        settings, is_image = self.settings, isinstance(item, ImageItem)
        block = settings.policy == "block"
        if block and (settings.required or not (self._hung or self._given_up)):
            wait_s = settings.timeout_s
        else:
            wait_s = 0.0 if self._tried else _FIRST_WAIT_S
        deadline = time.monotonic() + wait_s
        if self._channel is None and not self.connect(wait_s):
            self._drop(is_image, "no viewer")
            return None
        data = item.array if isinstance(item, ImageItem) else np.frombuffer(item.packed, np.uint8)
        size = data.nbytes
        while True:
            found = self._room(size, is_image, deadline if block else 0.0, whole=wait_s == 0 or not block)
            if isinstance(found, str):
                self._drop(is_image, found)
                return None
            channel, lent = found
            if lent is not None:
                self._fill(lent, data)
                number = self._begin(channel, item, source, folder, lent, size, b"")
            else:
                number = self._in_parts(channel, item, source, folder, data, size, deadline if block and wait_s else None)
            if number is not None:
                return number
            if not self.connect(max(0.0, deadline - time.monotonic())):  # it ended meanwhile
                self._drop(is_image, "no viewer")
                return None

    def _room(self, size: int, is_image: bool, deadline: float, whole: bool) -> tuple[Channel, Lent | None] | str:
        """Wait for room; returns the range (None: behind the message, where `whole` of it has room, or its first part), or why
        there is none."""
        with self._lock:
            while True:
                channel = self._channel
                if channel is None:
                    return "no viewer"
                if len(self.books.pending) < _MOST_PENDING:
                    arena = self._arena if channel.welcome.shared else None
                    if arena is None or size > arena.size or (not is_image and size < _IN_BAND_BYTES):
                        if self._may_queue(channel, size if whole else min(size, _PART_BYTES)):
                            return channel, None
                    else:
                        at = arena.take(size)
                        if at is not None:
                            return channel, (arena, at)
                left = 0.0 if self._hung else deadline - time.monotonic()
                if left <= 0:
                    if not self._hung and deadline:
                        self._hung = True
                        log.warning(
                            "the viewer %r took nothing for %g s: until it answers, what is sent to it is dropped, and counted",
                            self.settings.name,
                            self.settings.timeout_s,
                        )
                    return "no room"
                self.turn.wait(left)

    def _may_queue(self, channel: Channel, size: int) -> bool:
        return not channel.queued_bytes or channel.queued_bytes + size <= self.settings.window_bytes

    def _fill(self, lent: Lent, data: NDArray[Any]) -> None:
        try:
            lent[0].fill(lent[1], data)
        except BaseException:  # an interrupt, say: what was taken is given back
            with self._lock:
                lent[0].give(lent[1])
            raise

    def _begin(
        self, channel: Channel, item: Item, source: str, folder: str, lent: Lent | None, nbytes: int, behind: bytes | memoryview
    ) -> int | None:
        """Send the message of an item; None if the connection has ended."""
        with self._lock:
            if self._channel is not channel:
                if lent is not None:
                    lent[0].give(lent[1])
                return None
            number, now = next(self._ids), time.monotonic_ns()
            at = wire.BEHIND if lent is None else lent[1]
            if isinstance(item, ImageItem):
                form = wire.Form(list(item.array.shape), item.array.dtype.str, item.rgb)
                message: wire.Image | wire.Rois = wire.Image(
                    number, item.name, source, folder, item.place, item.axes, form, at, nbytes, now
                )
            else:
                message = wire.Rois(number, item.name, source, folder, item.place, len(item.packed), at, nbytes, now)
            is_image = isinstance(item, ImageItem)
            pending = Pending(item.name, is_image, lent, now)
            try:
                channel.send(message, behind)
            except BaseException:
                self._give(pending)
                raise
            self.books.counts(is_image).sent += 1
            self.books.pending[number] = pending
            return number

    def _in_parts(
        self,
        channel: Channel,
        item: Item,
        source: str,
        folder: str,
        data: NDArray[Any],
        size: int,
        deadline: float | None,
    ) -> int | None:
        """Send an item through the socket, a part at a time as there is room; all at once, which takes as much memory as the
        item, where there is no `deadline` to wait until."""
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
        count = min(size, _PART_BYTES)
        number = self._begin(channel, item, source, folder, None, count, bytes(flat[:count]))
        if number is None:
            return None
        with self.turn:
            for at in range(count, size, _PART_BYTES):
                part = bytes(flat[at : at + _PART_BYTES])
                while deadline is not None and number in self.books.pending and not self._may_queue(channel, len(part)):
                    left = deadline - time.monotonic()
                    if left <= 0 or not self.turn.wait(left):
                        channel.send(wire.Abort(number))
                        self._fail(number, self.books.pending.pop(number), "no room", told=False)
                        self._hung = True
                        return number
                if number not in self.books.pending:
                    return number  # it has failed, or the viewer has ended
                channel.send(wire.Part(number, wire.BEHIND, len(part)), part)
        return number

    def _drop(self, is_image: bool, reason: str) -> None:
        with self.turn:
            books = self.books
            books.counts(is_image).dropped += 1
            books.dropped[reason] += 1
            if books.dropped[reason] == 1:
                log.warning("the viewer %r: an item was dropped (%s); more of that are counted", self.settings.name, reason)
            channel = self._channel
            if channel is not None and not channel.queued_bytes:  # else it is told later, together with what follows
                channel.send(wire.Tally(books.images.dropped, books.rois.dropped))

    # -- waiting and asking

    def wait_for(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something holds, which is looked at whenever news come; False if it does not in time."""
        with self.turn:
            return self.turn.wait_for(done, timeout_s)

    def is_done(self, numbers: Collection[int] | None, received: bool) -> bool:
        """Whether these items (None: all) are displayed, or at least received, or have failed."""
        pending = self.books.pending
        if numbers is None:
            return not pending or (received and all(item.received for item in pending.values()))
        return all(number not in pending or (received and pending[number].received) for number in numbers)

    def call(self, what: str, timeout_s: float, **values: Any) -> tuple[Any, NDArray[Any] | None]:
        """Ask the viewer for something, after all that was sent before.

        Raises
        ------
        ViewerUnavailableError
            If there is none.
        ViewerTimeoutError
            If it does not answer in time.
        ConfigError
            If it cannot do that.
        """
        self.connect(timeout_s)
        with self.turn:
            channel = self._channel
            if channel is None:
                raise self._unavailable()
            number = next(self._calls)
            channel.send(wire.Call(number, what, values))
            self._answers[number] = None
            try:
                self.turn.wait_for(lambda: self._answers[number] is not None or self._channel is not channel, timeout_s)
                found = self._answers[number]
            finally:
                del self._answers[number]
            if found is None:
                if self._channel is not channel:
                    raise ViewerUnavailableError(f"the viewer {self.settings.name!r} ended: {self.problem}")
                raise ViewerTimeoutError(f"the viewer {self.settings.name!r} did not answer within {timeout_s:g} s")
        return answer_of(*found)

    def tell_tally(self) -> None:
        """Tell the viewer what was dropped."""
        with self.turn:
            if self._channel is not None:
                self._channel.send(wire.Tally(self.books.images.dropped, self.books.rois.dropped))

    def progress(self) -> Progress:
        """Return the account as it is now."""
        with self.turn:
            books = self.books
            late = sorted(books.latencies_ms)
            oldest = min((item.sent_ns for item in books.pending.values()), default=None)
            return Progress(
                viewer=self.settings.name,
                state=self.state,
                images=_copy(books.images),
                rois=_copy(books.rois),
                oldest_pending_s=0.0 if oldest is None else (time.monotonic_ns() - oldest) / 1e9,
                latency_ms=late[len(late) // 2] if late else None,
                latency_p99_ms=late[min(len(late) - 1, len(late) * 99 // 100)] if late else None,
                failures=list(books.failures),
            )


def answer_of(message: wire.Answer, behind: bytes) -> tuple[Any, NDArray[Any] | None]:
    """Return what an answer holds; raises ConfigError where the viewer refused."""
    if message.error:
        raise ConfigError(message.error)
    return message.value, None if message.form is None else array_of(message.form, behind)


def ask(kind: str | None, name: str, what: str, timeout_s: float, remote: Remote | None = None, **values: Any) -> Any:
    """Ask a viewer for something without sending items; errors as `Sender.call`."""
    turn, answers = threading.Condition(), list[tuple[wire.Answer, bytes] | str]()

    def heard(_: Channel, message: wire.FromViewer, behind: bytes) -> None:
        if isinstance(message, wire.Answer):
            answers.append((message, behind))
            turn.notify_all()

    def lost(_: Channel, why: str) -> None:
        answers.append(why)
        turn.notify_all()

    if remote is not None:
        channel = _reach(remote, kind, _hello("", "look"), timeout_s, (turn, heard, lost))
    else:
        viewer = find(name, kind)
        if viewer is None:
            others = ", ".join(sorted(repr(entry.name) for entry in announced("viewer")))
            raise ViewerUnavailableError(f"no viewer is called {name!r}" + (f"; open: {others}" if others else ""))
        channel = _channel(*greet(viewer, _hello(viewer.token, "look"), [], timeout_s), turn, heard, lost)
    channel.start()
    try:
        with turn:
            channel.send(wire.Call(1, what, values))
            turn.wait_for(lambda: bool(answers), timeout_s)
        if not answers:
            raise ViewerTimeoutError(f"the viewer {name!r} did not answer within {timeout_s:g} s")
        if isinstance(answers[0], str):
            raise ViewerUnavailableError(f"the viewer {name!r} ended: {answers[0]}")
        return answer_of(*answers[0])[0]
    finally:
        channel.close()


def _reach(remote: Remote, kind: str | None, hello: wire.Hello, timeout_s: float, then: Handlers) -> Channel:
    """Connect to a viewer on another computer and be let in; errors as `greet`, and as `Dial`."""
    from mutoscope.viewers.remote.dial import Dial

    where = f"at {remote.address}"
    dial = Dial(remote)
    dial.start(_OF_THE_TIME * timeout_s)
    try:
        welcome = be_let_in(dial.sock, where, f"on {remote.address.host}", hello, [], timeout_s)
        if kind not in (None, welcome.kind):
            raise ViewerUnavailableError(f"the viewer {where} is {welcome.kind!r}, not {kind!r}: open it as that")
        return Channel(dial.sock, welcome, *then, dial)
    except BaseException as error:
        dial.sock.close()
        dial.finish()
        if isinstance(error, PeerDiedError) and dial.reason:
            raise ViewerUnavailableError(dial.reason) from error
        raise


def _hello(token: str, role: str, display: Display | None = None, *, shared: bool = False) -> wire.Hello:
    host, values = socket.gethostname(), {} if display is None else display.to_dict()
    return wire.Hello(wire.WIRE_VERSION, token, role, os.getpid(), host, _program(), shared, values)


def _channel(sock: socket.socket, welcome: wire.Welcome, *arguments: Any) -> Channel:
    try:
        return Channel(sock, welcome, *arguments)
    except BaseException:  # no more descriptors, say
        sock.close()
        raise


def _program() -> str:
    """This program's name, in characters that a message can hold."""
    return sendable(os.path.basename(next(iter(sys.argv), ""))) or "python"


def _copy(counts: Counts) -> Counts:
    copy = Counts()
    copy.add(counts)
    return copy
