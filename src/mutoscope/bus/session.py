"""A process's side of the bus without its waiting: what it asked, what it is asked, how messages change that.

:class:`mutoscope.bus.endpoint.Endpoint` and :class:`mutoscope.bus.threaded.ThreadedEndpoint` add how they wait.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import itertools
import logging
import math
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Collection
from typing import Any

import msgspec
import numpy as np

from mutoscope.bus import payload, wire
from mutoscope.bus.calls import Job, Pending, PendingAll
from mutoscope.bus.commands import (
    Command,
    Event,
    Handler,
    HandlerTable,
    Manifest,
    check_instance,
    collect_handlers,
    message_name,
    reply_type,
)
from mutoscope.bus.connection import Connection, close_fds
from mutoscope.bus.flow import CreditAccount, Window
from mutoscope.bus.forks import Home
from mutoscope.bus.lines import InLine, Lines, OutLine
from mutoscope.bus.wire import BROADCAST, NIL, SEND, MalformedError
from mutoscope.model.arguments import shown
from mutoscope.model.errors import (
    BadPayloadError,
    ClosedError,
    CommandTimeoutError,
    ConfigError,
    PeerDiedError,
    ScopeStateError,
    UnknownCommandError,
    from_record,
)

__all__ = ["EndpointStatistics", "Session", "check_room_for_fds", "check_target", "check_timeout", "wake"]

logger = logging.getLogger(__name__)

REPLY_FDS = 16
"""What a reply brings, and what is then opened for it, at most: a ring has six."""

_MAX_NAME = 1000
_WORD_S = 1.0


class EndpointStatistics(msgspec.Struct, frozen=True):
    """Counters of one process's side of the bus."""

    received: int
    handled: int
    queued: int
    inbox_bytes: int
    inbox_bytes_peak: int
    in_flight_bytes: int
    pending: int
    late_replies: int
    handler_errors: int
    events_dropped: int
    problems: int
    lines: int


class Session:
    """State and protocol of one process on the bus; does no waiting and starts no thread.

    Parameters
    ----------
    connection : Connection
        To the hub; owned.
    name : str
        This process's name in the scope.
    window_bytes, inbox_bytes : int
        What may be on its way to the hub, and what is taken without having been handled.
    """

    def __init__(self, connection: Connection, name: str, window_bytes: int, inbox_bytes: int) -> None:
        self.connection = connection
        self.name = name
        self.home = Home()
        self.window = Window(window_bytes)
        self.inbox: collections.deque[Job] = collections.deque()
        self.handlers = HandlerTable(name)
        self.pending: dict[int, Pending] = {}
        self.posted_error: Exception | None = None
        self.posted: set[int] = set()
        self.outgoing: collections.deque[bytes] = collections.deque()
        self.welcomed = False
        self.open = False  # welcomed, and closed by neither side
        self.refused: str | None = None
        self.closed = False
        self.peer_closed = False
        self.close_reason = ""
        self.credits = 0  # how often a window got room again
        self.sending = threading.RLock()  # held to choose the way of a call and send it, and to change the ways
        self.lines = Lines(self)
        self._names: dict[type[Command], str] = {}
        self._reply_types: dict[type[Command], tuple[int, Any]] = {}
        self._limit = inbox_bytes
        self._credit = CreditAccount(inbox_bytes)
        self._credit_lock = threading.Lock()
        self._last: dict[str, wire.Happened] = {}
        self._subscriptions: dict[str, list[tuple[type[Event], Callable[[Any], None]]]] = {}
        self.numbers = itertools.count(1)
        self._taken_bytes = 0  # this and the next: written by the reading and by the handling thread
        self._done_bytes = 0
        self._inbox_peak = 0
        self._received = 0
        self._handled = 0
        self._late = 0
        self._handler_errors = 0
        self._events_dropped = 0
        self._problems = 0
        self._undelivered = 0
        self._next_word = 0.0
        self._actions: dict[type, Callable[[Any, int], None]] = {
            wire.Answer: self._answered,
            wire.Failure: self._failed,
            wire.Deliver: self._delivered,
            wire.Happened: self._happened,
            wire.Credit: self._credited,
            wire.Targets: self._targets,
            wire.Problem: self._problem,
            wire.Welcome: self._welcome,
            wire.Refusal: self._refusal,
            wire.Goodbye: self._goodbye,
            wire.Line: self._line,
            wire.Accept: self._line,
            wire.Routes: self._line,
            wire.Cut: self._line,
        }

    # -- what this process says

    def serve(self, owner: object) -> None:
        """Add the handlers of an object."""
        self.handlers.merge(collect_handlers(owner))

    def hello(self, manifest: Manifest) -> bytes:
        """Return the first message."""
        return wire.pack(wire.hello(self.name, self._limit, manifest))

    def check_open(self) -> None:
        """Raise unless calls are possible."""
        self.home.check(self.name)
        if self.closed:
            raise ClosedError(f"the bus connection of {self.name} is closed")
        if self.peer_closed:
            raise PeerDiedError(f"the supervisor is gone: {self.close_reason}")
        if not self.welcomed:
            raise ScopeStateError(f"{self.name} has not said hello on the bus yet")

    def name_of(self, command: Command) -> str:
        """Return the name by which a command travels; raises unless calls are possible."""
        if not self.open or self.home.left:
            self.check_open()
        kind = type(command)
        name = self._names.get(kind)
        if name is None:
            check_instance(command, Command)
            name = self._names[kind] = message_name(kind)
        return name

    def call(
        self, kind: int, name: str, command: Command, to: str | None, timeout_s: float, wants_fds: bool = False
    ) -> tuple[Pending, bytes]:
        """Return what will hold the answer to a call through the hub, and the message to send."""
        content = msgspec.Raw(payload.encode(command, name))
        number = next(self.numbers)
        pending = self.pending[number] = (PendingAll if kind == BROADCAST else Pending)(number, name, kind)
        return pending, wire.pack(wire.Call(number, kind, name, to, timeout_s, content, wants_fds))

    def line_to(self, kind: int, name: str, to: str | None) -> OutLine | None:
        """Return the line on which a call would go now; None: through the hub."""
        return None if kind == BROADCAST else self.lines.routes.get((name, to))

    def window_to(self, kind: int, name: str, to: str | None) -> Window:
        """Return the window that a call would need room in now: that of its line, or of the way through the hub."""
        line = self.line_to(kind, name, to)
        return self.window if line is None else line.window

    def all_received(self) -> bool:
        """Whether what was posted on lines has been received, so that a broadcast through the hub overtakes nothing."""
        waiting = (self.pending.get(number) for number in tuple(self.posted))
        return all(pending is None or pending.line is None for pending in waiting)

    def event(self, event: Event) -> bytes:
        """Return the message that publishes an event."""
        self.check_open()
        check_instance(event, Event)
        name = message_name(type(event))
        return wire.pack(wire.Publish(name, msgspec.Raw(payload.encode(event, name))))

    def subscription(self, kind: type[Event], callback: Callable[[Any], None]) -> None:
        """Note a callback; ask the hub for the event unless it comes already, when the last value is replayed from here."""
        self.check_open()
        if not (isinstance(kind, type) and issubclass(kind, Event)):
            raise ConfigError(f"what is subscribed to is a subclass of mutoscope.Event, not {shown(kind)}")
        if not callable(callback):
            raise ConfigError(f"the callback of {kind.__name__} is a function that takes the event, not {shown(callback)}")
        name = message_name(kind)
        payload.check_encodable(kind, name)
        callbacks = self._subscriptions.setdefault(name, [])
        callbacks.append((kind, callback))
        if len(callbacks) == 1:
            self.outgoing.append(wire.pack(wire.Subscribe(name)))
        elif name in self._last:
            self._happening(self._last[name], kind, callback, 0)

    def forget(self, pending: Pending) -> None:
        """Stop expecting an answer; one that comes later is counted and dropped."""
        self.pending.pop(pending.number, None)
        self.posted.discard(pending.number)
        if pending.line is not None:
            pending.line.waiting.pop(pending.number, None)

    def _reply_type(self, kind: type[Command]) -> Any:
        known = self._reply_types.get(kind)
        if known is None or known[0] != len(kind.handled_by):
            known = self._reply_types[kind] = (len(kind.handled_by), reply_type(kind))
        return known[1]

    def reply(self, command: Command, pending: Pending, returns: Any) -> Any:
        """Return the value of an answered request, or raise what went wrong."""
        if pending.error is not None:
            raise pending.error
        kind = self._reply_type(type(command)) if returns is None else returns
        try:
            return payload.decoder(kind)(pending.payload)
        except Exception as error:
            source = pending.source if pending.line is None else pending.line.peer
            raise BadPayloadError(f"reply of {source} to {pending.command}: {error}") from error

    def replies(self, command: Command, pending: Pending, timeout_s: float, returns: Any) -> dict[str, Any]:
        """Return what each peer answered to a broadcast: its value, or an exception."""
        if pending.error is not None:
            raise pending.error
        kind = self._reply_type(type(command)) if returns is None else returns
        assert isinstance(pending, PendingAll)
        if pending.expected is None:
            raise CommandTimeoutError(f"the supervisor did not take {pending.command} within {timeout_s:g} s")
        replies: dict[str, Any] = {}
        for source in pending.expected:
            answer = pending.answers.get(source)
            if answer is None:
                answer = CommandTimeoutError(f"{source} did not answer {pending.command} within {timeout_s:g} s")
            elif not isinstance(answer, Exception):
                try:
                    answer = payload.decode(answer, kind, "reply of ", source, " to ", pending.command)
                except BadPayloadError as error:
                    answer = error
            replies[source] = answer
        return replies

    # -- what this process hears

    def hear(self, bodies: list[wire.Body]) -> None:
        """Take in messages: answers are stored, commands and events are queued, receipts go out. No handler runs."""
        decode, actions = wire.decode_downward, self._actions
        for body in bodies:
            self._received += 1
            message = decode(body)
            actions[type(message)](message, len(body) + wire.HEADER_BYTES)

    def ended(self, reason: str) -> None:
        """Note that the stream ended; whoever waits hears it."""
        if self.peer_closed:
            return
        self.peer_closed = True
        self.open = False
        self.close_reason = self.close_reason or reason
        for pending in list(self.pending.values()):
            error = PeerDiedError(f"{pending.command} was not answered, the supervisor is gone: {self.close_reason}")
            self.finish(pending, error)
        self.lines.drop()

    def late(self) -> None:
        """Count an answer for which nobody waits any more."""
        self._late += 1

    def _line(self, message: wire.Line | wire.Accept | wire.Routes | wire.Cut, size: int) -> None:
        if isinstance(message, wire.Line):
            self.lines.offered(message, self.connection)
        elif isinstance(message, wire.Accept):
            self.lines.accepted(message, self.connection)
        elif isinstance(message, wire.Routes):
            self.lines.rerouted(message)
        else:
            self.lines.cut(message)

    def _answered(self, message: wire.Answer, size: int) -> None:
        fds = self.connection.take_fds_if_all(message.fds) if message.fds else []
        pending = self.pending.get(message.id)
        if pending is None:
            self._late += 1
            close_fds(fds or ())
            return
        if fds is None:
            self.finish(pending, too_many_files(pending.command))
            return
        if isinstance(pending, PendingAll):
            pending.answers[message.source] = message.payload
            self._collect(message.id, pending)
            return
        pending.payload = message.payload
        pending.source = message.source
        pending.fds = fds
        self.finish(pending, None)

    def _failed(self, message: wire.Failure, size: int) -> None:
        pending = self.pending.get(message.id)
        if pending is None:
            self._late += 1
            return
        error = from_record(message.error)
        if isinstance(pending, PendingAll) and pending.expected is not None:
            pending.answers[message.source] = error
            self._collect(message.id, pending)
            return
        self.finish(pending, error)

    def _targets(self, message: wire.Targets, size: int) -> None:
        pending = self.pending.get(message.id)
        if isinstance(pending, PendingAll):
            pending.expected = message.names
            self._collect(message.id, pending)

    def _collect(self, number: int, pending: PendingAll) -> None:
        if pending.expected is not None and len(pending.answers) >= len(pending.expected):
            self.finish(pending, None)

    def finish(self, pending: Pending, error: Exception | None) -> None:
        """Note that a call was answered, or failed."""
        self.pending.pop(pending.number, None)
        pending.error = error
        pending.done = True
        if pending.posted:
            self.posted.discard(pending.number)
            if error is not None:
                self.posted_error = self.posted_error or error
                self._undelivered += 1
            if self._undelivered:
                self._tell_undelivered(pending.command, error)
        if pending.wake is not None:
            wake(pending.wake)

    def _tell_undelivered(self, command: str, error: Exception | None) -> None:
        """Log what was posted and not delivered: the first at once, then one line a second, the rest at the end."""
        now = time.monotonic()
        if self.posted and now < self._next_word:
            return
        self._next_word = now + _WORD_S
        more = f" ({self._undelivered:,} posted commands since the last such line)" if self._undelivered > 1 else ""
        logger.warning("%s was not delivered: %s%s", command, error or self.posted_error, more)
        self._undelivered = 0

    def _delivered(self, message: wire.Deliver, size: int) -> None:
        handler: Handler | None = self.handlers.get(message.command)
        try:
            if handler is None:
                raise UnknownCommandError(f"{self.name} does not handle {message.command}")
            command = payload.decode(message.payload, handler.kind, message.command)
        except (UnknownCommandError, BadPayloadError) as error:
            self.outgoing.append(wire.pack(wire.Fail(message.id, wire.error_record(error))))
            self._handled_bytes(size)
            return
        kind = message.kind
        if kind == SEND:
            self.outgoing.append(wire.pack(wire.Return(message.id, NIL)))
        self._queue(Job(handler.call, command, message.command, message.sender, size, message.id, kind))

    def take(
        self, ask: wire.Ask, call: Callable[[Any], Any], command: Command, line: InLine, size: int, started: float
    ) -> None:
        """Queue a command that came on a line."""
        self._received += 1
        self._taken_bytes = taken = self._taken_bytes + size
        if taken - self._done_bytes > self._inbox_peak:
            self._inbox_peak = taken - self._done_bytes
        self.inbox.append(Job(call, command, ask.command, line.sender, size, ask.id, ask.kind, line, ask, started))

    def _happened(self, message: wire.Happened, size: int) -> None:
        if message.dropped:
            self._events_dropped += message.dropped
            logger.warning("%s: %d values of event %s were passed over", self.name, message.dropped, message.event)
        wanted = list(self._subscriptions.get(message.event, ()))
        self._last[message.event] = message
        for index, (kind, callback) in enumerate(wanted):
            self._happening(message, kind, callback, size if index == len(wanted) - 1 else 0)
        if not wanted:
            self._handled_bytes(size)

    def _happening(self, message: wire.Happened, kind: type[Event], callback: Callable[[Any], None], size: int) -> None:
        try:
            event = payload.decode(message.payload, kind, message.event)
        except BadPayloadError as error:
            logger.error("%s: an event of %s does not fit: %s", self.name, message.sender, error)
            self._handled_bytes(size)
        else:
            self._queue(Job(callback, event, message.event, message.sender, size, 0, SEND))

    def _queue(self, job: Job) -> None:
        self._taken_bytes += job.size
        if self._taken_bytes - self._done_bytes > self._inbox_peak:
            self._inbox_peak = self._taken_bytes - self._done_bytes
        self.inbox.append(job)

    def _credited(self, message: wire.Credit, size: int) -> None:
        if not self.window.credit(message.size):
            raise MalformedError(f"the supervisor credited {message.size:,} bytes too many")
        self.credits += 1

    def _problem(self, message: wire.Problem, size: int) -> None:
        self._problems += 1
        logger.warning(
            "%s, sent by %s, failed in %s: %s: %s",
            message.command,
            self.name,
            message.peer,
            message.error.type_name,
            message.error.message,
        )

    def _welcome(self, message: wire.Welcome, size: int) -> None:
        if message.version != wire.WIRE_VERSION:
            self.refused = (
                f"the supervisor speaks version {message.version} of the bus, {self.name} version {wire.WIRE_VERSION}:"
                " install the same Mutoscope on both sides"
            )
            return
        self.welcomed = self.open = True

    def _refusal(self, message: wire.Refusal, size: int) -> None:
        self.refused = message.reason

    def _goodbye(self, message: wire.Goodbye, size: int) -> None:
        self.close_reason = message.reason

    def check_welcome(self) -> bool:
        """Whether the hub has answered Hello; raises when it refused."""
        if self.refused is not None:
            raise ConfigError(self.refused)
        if self.peer_closed:
            raise PeerDiedError(f"the supervisor is gone: {self.close_reason}")
        return self.welcomed

    # -- handling

    def run(self, job: Job, emit: Callable[[bytes], None]) -> None:
        """Run one handler or event callback; `emit` sends its reply. What it raises goes to whoever sent the command."""
        try:
            value = job.call(job.value)
            if self.home.left:  # a handler that forked returns twice: the parent answers
                self.home.check(self.name)
            if job.kind != SEND:
                packed = wire.pack_return(job.id, value, "reply of ", self.name, " to ", job.name)
                if job.line is not None:
                    self.lines.answer(job, packed, "ok")
                else:
                    emit(packed)
        except Exception as error:  # the boundary between a handler and the bus: the sender hears it
            if self.home.left:
                raise
            self._handler_errors += 1
            record = wire.error_record(error, traceback.format_exc())
            logger.warning("%s: handling %s of %s failed: %s", self.name, job.name, job.sender, record.message, exc_info=True)
            if job.kind != SEND:
                packed = wire.pack(wire.Fail(job.id, record))
                if job.line is not None:
                    self.lines.answer(job, packed, f"{record.type_name}: {record.message}")
                else:
                    emit(packed)
            elif job.id:
                emit(wire.pack(wire.Problem(job.sender, job.name, record)))
        finally:
            self._handled += 1
            self._done_bytes += job.size
            if job.line is None:
                self._handled_bytes(job.size)
            elif not self.home.left:
                self.lines.handled(job.line, job.size)

    def _handled_bytes(self, size: int) -> None:
        with self._credit_lock:
            due = self._credit.add(size)
        if due:
            self.outgoing.append(wire.pack(wire.Credit(due)))

    def statistics(self) -> EndpointStatistics:
        """Return the counters."""
        return EndpointStatistics(
            received=self._received,
            handled=self._handled,
            queued=len(self.inbox),
            inbox_bytes=self._taken_bytes - self._done_bytes,
            inbox_bytes_peak=self._inbox_peak,
            in_flight_bytes=self.window.in_flight,
            lines=len(self.lines),
            pending=len(self.pending),
            late_replies=self._late,
            handler_errors=self._handler_errors,
            events_dropped=self._events_dropped,
            problems=self._problems,
        )

    def close(self) -> None:
        """Drop the queue, fail whoever waits, close the socket. In a forked child it closes the copies, and says nothing."""
        self.inbox.clear()
        self.closed = True
        self.open = False
        for pending in () if self.home.left else list(self.pending.values()):
            self.finish(pending, ClosedError(f"the bus connection of {self.name} was closed"))
        self.lines.close()
        self.connection.close()


def check_room_for_fds(sock: socket.socket, what: str) -> None:
    """Raise OSError (EMFILE) unless a reply may bring descriptors, before who gives them does anything for it."""
    taken: list[int] = []
    try:
        for _ in range(REPLY_FDS):
            taken.append(os.dup(sock.fileno()))
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise too_many_files(what) from None
    finally:
        close_fds(taken)


def too_many_files(what: str) -> OSError:
    """Return the error of a process that asked for descriptors and has no room for them."""
    return OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}: {what} brings descriptors, and this process may have no more")


def wake(waiting: threading.Lock) -> None:
    """Release a lock on which somebody may wait, or somebody else has just released."""
    with contextlib.suppress(RuntimeError):
        waiting.release()


def check_timeout(timeout_s: Any) -> float:
    """Return a time-out in seconds as a float; raises before anything is sent."""
    if type(timeout_s) is float and timeout_s == timeout_s:  # by far the most frequent, and no number only in name
        return timeout_s
    if isinstance(timeout_s, bool | np.bool_) or not isinstance(timeout_s, int | float | np.integer | np.floating):
        raise TypeError(f"timeout_s is a number of seconds, not {timeout_s!r:.80}")
    try:
        seconds = float(timeout_s)
    except OverflowError:
        raise ConfigError("timeout_s is a number of seconds, not one of so many digits") from None
    if math.isnan(seconds):
        raise ConfigError("timeout_s is a number of seconds, not nan")
    return seconds


def check_target(to: Any, known: Collection[str] = ()) -> str | None:
    """Return the name of the process to which a command goes, or None; raises before anything is sent."""
    if to is None or (type(to) is str and to in known):
        return to
    if not isinstance(to, str):
        raise TypeError(f"to is the name of a worker, not {to!r:.80}")
    name = str.__str__(to)
    if len(name) > _MAX_NAME:
        raise ConfigError(f"to is the name of a worker, not a text of {len(name):,} characters")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"to is the name of a worker, {name!a} is no valid text") from None
    return name
