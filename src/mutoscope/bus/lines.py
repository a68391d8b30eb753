"""A process's ends of its lines: sockets that lead straight to another process, which the hub has introduced.

A line is one way: one side asks, the other answers. Each process has its ends, and the socket to the hub,
behind one descriptor.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections.abc import Callable
from time import monotonic, time_ns
from typing import TYPE_CHECKING

import msgspec

from mutoscope.bus import payload, wire
from mutoscope.bus.audit import AUDITED_BYTES, AuditWriter
from mutoscope.bus.calls import Job, Pending
from mutoscope.bus.connection import Connection
from mutoscope.bus.flow import CreditAccount, Window
from mutoscope.bus.wire import (
    HEADER_BYTES,
    NIL,
    SEND,
    UNDECODABLE,
    CallRecord,
    MalformedError,
    Return,
    asked,
    pack,
    replied,
)
from mutoscope.model.errors import BadPayloadError, PeerDiedError, UnknownCommandError, from_record

if TYPE_CHECKING:
    from mutoscope.bus.commands import Command, HandlerTable
    from mutoscope.bus.session import Session

__all__ = ["InLine", "Lines", "OutLine"]

logger = logging.getLogger(__name__)

ALONE_S = 0.002
"""How long one line is listened to alone."""

TICK_S = 0.1
"""The longest that one wait takes."""

_EVENTS = 64
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class OutLine:
    """The end that asks."""

    __slots__ = ("audited", "commands", "connection", "hear", "last", "number", "peer", "waiting", "window")

    def __init__(self, message: wire.Line, connection: Connection, hear: Callable[[OutLine], None]) -> None:
        self.hear = hear
        self.number = message.line
        self.peer = message.peer
        self.commands = message.commands
        self.audited = message.audited
        self.connection = connection
        self.window = Window(message.window_bytes)
        self.last = 0  # the number of the last call that went this way
        self.waiting: dict[int, Pending] = {}


class InLine:
    """The end that answers."""

    __slots__ = ("audited", "calls", "commands", "connection", "credit", "hear", "sender")

    def __init__(
        self, message: wire.Accept, connection: Connection, handlers: HandlerTable, hear: Callable[[InLine], None]
    ) -> None:
        self.hear = hear
        self.sender = message.sender
        self.commands = frozenset(message.commands)
        self.calls = {  # how a command is decoded, and what does it
            command: (payload.decoder(handlers[command].kind), handlers[command].call)
            for command in message.commands
            if command in handlers
        }
        self.audited = message.audited
        self.connection = connection
        self.credit = CreditAccount(message.window_bytes)


class Lines:
    """All ends of one process; owns their sockets.

    Parameters
    ----------
    session : Session
        Whose calls and whose handlers these are.
    """

    def __init__(self, session: Session) -> None:
        self.routes: dict[tuple[str, str | None], OutLine] = {}
        self.peers: set[str] = set()  # to whom there was a line
        self._session = session
        self._hub = session.connection.fileno()
        self._poller = select.epoll()
        self._poller.register(self._hub, _IN)
        self._out: dict[int, OutLine] = {}
        self._ends: dict[int, OutLine | InLine] = {}
        self._audit: AuditWriter | None = None
        self._asked = False  # somebody has a line to this process
        self._heard = 0.0  # when everything was listened to last
        self._bell = -1
        self._bell_lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._ends)

    def fileno(self) -> int:
        """Return the descriptor that is readable when the hub or a line has something; -1 once closed."""
        return -1 if self._poller.closed else self._poller.fileno()

    def add_bell(self) -> None:
        """Have :meth:`ring` end the waits."""
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poller.register(self._bell, _IN)

    def ring(self) -> None:
        """End the wait that goes on, or the next one; from any thread."""
        with self._bell_lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def wait(self, timeout_s: float, hear_hub: Callable[[], bool]) -> None:
        """Wait for the hub or a line, and hear what has come.

        What the hub says is heard first: what follows from it may have come on a line since.

        Parameters
        ----------
        timeout_s : float
            How long; never more than :data:`TICK_S`, so that what a signal handler noted is looked at.
        hear_hub : callable
            Reads the hub's socket; returns whether there may be more.
        """
        events = self._poller.poll(timeout_s if timeout_s < TICK_S else TICK_S, _EVENTS)
        self._heard = monotonic()
        if len(events) > 1:
            events.sort(key=self._after_hub)
        with self._session.sending:
            for fd, mask in events:
                end = self._ends.get(fd)
                if end is not None:
                    if mask & _OUT and end.connection.flush():
                        self._poller.modify(fd, _IN)
                    if mask & ~_OUT:
                        end.hear(end)  # type: ignore[arg-type]  # each has its own
                elif fd == self._hub:
                    if hear_hub():
                        return
                elif fd == self._bell:
                    os.eventfd_read(fd)

    def hear_alone(self, pending: Pending) -> None:
        """Listen for a moment to nothing but the line on which a call went: an answer that comes soon costs a system call less.

        Not where somebody may ask this process on a line, and wait for it in turn; and not when everything else was last
        listened to some time ago.
        """
        line = pending.line
        if line is None or pending.done:  # another thread has read the answer meanwhile
            return
        if not self._asked and pending.started - self._heard < ALONE_S * 10:
            self._hear_replies(line, wait=True)

    def _after_hub(self, event: tuple[int, int]) -> bool:
        return event[0] != self._hub

    def close(self) -> None:
        """Close every end. Twice is fine."""
        self.drop()
        self._poller.close()
        with self._bell_lock:
            if self._bell >= 0:
                os.close(self._bell)
                self._bell = -1

    def drop(self) -> None:
        """Close every end; the descriptor stays, for the hub."""
        for end in list(self._ends.values()):
            self._close_end(end)
        self.routes.clear()
        self._out.clear()
        if self._audit is not None:
            self._audit.close()
            self._audit = None

    # -- what the hub says

    def offered(self, message: wire.Line, connection: Connection) -> None:
        """Take the asking end of a line; from now on commands go over it. The hub sees to it that none overtakes another."""
        fds = connection.take_fds_if_all(1)
        if fds is None:
            self._session.outgoing.append(pack(wire.LineEnded(message.line)))
            return
        (fd,) = fds
        line = OutLine(message, self._open(fd), self._hear_replies)
        line.connection.wait_at_most(ALONE_S)
        self._out[line.number] = self._ends[fd] = line
        self.peers.add(line.peer)
        for command in line.commands:
            self.routes[command, line.peer] = line
        self._route(line, message.alone)
        self._session.outgoing.append(pack(wire.LineTaken(line.number)))

    def accepted(self, message: wire.Accept, connection: Connection) -> None:
        """Take the answering end of a line; the asking side meets its end when it could not come."""
        fds = connection.take_fds_if_all(message.fds)
        if fds is None:
            return
        fd, *memory = fds
        self._ends[fd] = InLine(message, self._open(fd), self._session.handlers, self._hear_calls)
        self._asked = True
        for extra in memory:
            if self._audit is None:
                self._audit = AuditWriter(extra)
            os.close(extra)

    def rerouted(self, message: wire.Routes) -> None:
        """Change which commands without a target go over a line."""
        line = self._out.get(message.line)
        if line is not None and not line.connection.broken:
            self._route(line, message.alone)

    def cut(self, message: wire.Cut) -> None:
        """End a line; answers that are in it still count."""
        line = self._out.pop(message.line, None)
        if line is None:
            return
        connection = line.connection
        connection.drained = False
        while line in self._ends.values() and not connection.drained:
            self._hear_replies(line)
        self._end_out(line)
        waiting, line.waiting = line.waiting, {}
        for pending in waiting.values():
            error = PeerDiedError(f"{line.peer} did not answer {pending.command}: {message.reason}")
            self.report(pending, f"{type(error).__name__}: {error}")
            self._session.finish(pending, error)

    def _open(self, fd: int) -> Connection:
        self._poller.register(fd, _IN)
        return Connection(socket.socket(fileno=fd))

    def _route(self, line: OutLine, alone: tuple[str, ...]) -> None:
        for command in line.commands:
            if command in alone:
                self.routes[command, None] = line
            elif self.routes.get((command, None)) is line:
                del self.routes[command, None]

    # -- the asking side

    def ask(self, line: OutLine, kind: int, name: str, command: Command, timeout_s: float) -> Pending:
        """Send a call; never waits. The window bounds what is unsent. Returns what will hold the answer."""
        session = self._session
        number = next(session.numbers)
        packed = wire.pack_ask(number, kind, name, timeout_s, command)
        pending = Pending(number, name, kind, line=line, started=monotonic(), asked=packed)
        session.pending[number] = line.waiting[number] = pending
        line.window.charged += len(packed)
        line.last = number
        if not line.connection.send(packed):
            self._watch(line)
        return pending

    def report(self, pending: Pending, outcome: str) -> None:
        """Tell the hub how a call ended of which the answering side says nothing, or too late."""
        line = pending.line
        if line is not None and line.audited:
            took = monotonic() - pending.started
            content = _recorded(asked(pending.asked[HEADER_BYTES:]).payload)
            name, command, kind = self._session.name, pending.command, pending.kind
            record = CallRecord(name, line.peer, command, kind, took, outcome, content, time_ns())
            self._session.outgoing.append(pack(wire.Done(record)))

    def _hear_replies(self, line: OutLine, wait: bool = False) -> None:
        connection, session = line.connection, self._session
        try:
            bodies = connection.receive(wait=wait)
            with session.sending:
                for body in bodies:
                    message = replied(body)
                    if isinstance(message, wire.Credit):
                        if not line.window.credit(message.size):
                            raise MalformedError(f"it credited {message.size:,} bytes too many")
                        session.credits += 1
                        continue
                    pending = line.waiting.pop(message.id, None)
                    if pending is None:
                        if not 0 < message.id <= line.last:
                            raise MalformedError(f"it answered call {message.id}, which it was never asked")
                        session.late()
                    elif isinstance(message, Return):
                        pending.payload = message.payload
                        session.finish(pending, None)
                    else:
                        session.finish(pending, from_record(message.error))
        except (MalformedError, *UNDECODABLE) as error:
            logger.error("%s: the line to %s ends, it sent what is not a message: %s", session.name, line.peer, error)
            connection.ended = "malformed data came"
        except Exception:  # what one process says may not end another
            logger.exception("%s: the line to %s ends: handling what it sent failed", session.name, line.peer)
            connection.ended = "handling what came failed"
        if connection.ended is not None:
            with session.sending:
                self._end_out(line)

    def _end_out(self, line: OutLine) -> None:
        """Stop using a line. Its calls fail when the hub has said why it ended."""
        if line not in self._ends.values():
            return
        self._close_end(line)
        for route in [route for route, other in self.routes.items() if other is line]:
            del self.routes[route]
        if line.number in self._out:
            self._session.outgoing.append(pack(wire.LineEnded(line.number)))

    # -- the answering side

    def _hear_calls(self, line: InLine) -> None:
        connection = line.connection
        try:
            for body in connection.receive():
                self._called(line, asked(body), len(body) + HEADER_BYTES)
        except (MalformedError, *UNDECODABLE) as error:
            name = self._session.name
            logger.error("%s: the line from %s ends, it sent what is not a message: %s", name, line.sender, error)
            connection.ended = "malformed data came"
        except Exception:  # what one process says may not end another
            logger.exception("%s: the line from %s ends: handling what it sent failed", self._session.name, line.sender)
            connection.ended = "handling what came failed"
        if connection.ended is not None:
            self._close_end(line)
        elif connection.unsent and not connection.flush():
            self._watch(line)

    def _called(self, line: InLine, ask: wire.Ask, size: int) -> None:
        started = monotonic()
        line.credit.take(size)
        way = line.calls.get(ask.command)
        if way is None:
            self._refuse(line, ask, started, size, self._reason(line, ask.command))
            return
        decode, call = way
        try:
            command = decode(ask.payload)
        except Exception as error:  # noqa: BLE001  (whatever the author's __post_init__ raises: these values do not fit)
            self._refuse(line, ask, started, size, BadPayloadError(f"{ask.command}: {error}"))
            return
        self._session.take(ask, call, command, line, size, started)
        if ask.kind == SEND:
            self._record(line, ask, started, "ok")
            line.connection.queue(pack(wire.Return(ask.id, NIL)))

    def _reason(self, line: InLine, command: str) -> Exception:
        name = self._session.name
        if command not in line.commands:
            return PermissionError(f"{command} may not be sent by {line.sender} on its line to {name}")
        return UnknownCommandError(f"{name} does not handle {command}")

    def _refuse(self, line: InLine, ask: wire.Ask, started: float, size: int, error: Exception) -> None:
        self._record(line, ask, started, f"{type(error).__name__}: {error}")
        line.connection.queue(pack(wire.Fail(ask.id, wire.error_record(error))))
        self.handled(line, size)

    def answer(self, job: Job, packed: bytes, outcome: str) -> None:
        """Record how a request ended, then answer it."""
        line, ask = job.line, job.ask
        assert line is not None
        assert ask is not None
        self._record(line, ask, job.started, outcome)
        if not line.connection.send(packed):
            self._watch(line)

    def handled(self, line: InLine, size: int) -> None:
        """Give the asking side its window back."""
        due = line.credit.add(size)
        if due and not line.connection.send(pack(wire.Credit(due))):
            self._watch(line)

    def _record(self, line: InLine, ask: wire.Ask, started: float, outcome: str) -> None:
        if not line.audited:
            return
        took = monotonic() - started
        if took > ask.timeout_s:
            outcome = f"late: {outcome}"
        content = _recorded(ask.payload)
        record = CallRecord(line.sender, self._session.name, ask.command, ask.kind, took, outcome, content, time_ns())
        if self._audit is None or not self._audit.append(record):
            self._session.outgoing.append(pack(wire.Done(record)))

    # -- sockets

    def _watch(self, end: OutLine | InLine) -> None:
        """The kernel did not take everything: go on when it does."""
        if not end.connection.broken:
            self._poller.modify(end.connection.fileno(), _IN | _OUT)

    def _close_end(self, end: OutLine | InLine) -> None:
        fd = end.connection.fileno()
        if self._ends.pop(fd, None) is not None:
            if not self._session.home.left:  # a forked child shares the poller with its parent, who goes on
                self._poller.unregister(fd)
            end.connection.close()


def _recorded(content: msgspec.Raw) -> bytes:
    return bytes(content) if len(content) <= AUDITED_BYTES else b""
