"""A worker's side of the bus: one thread, no lock, handlers run where the worker lets them."""

from __future__ import annotations

import collections
import logging
import select
import socket
import time
from collections.abc import Callable
from threading import get_ident
from typing import Any

from mutoscope.bus import wire
from mutoscope.bus.calls import Pending
from mutoscope.bus.commands import Command, Event, Manifest, manifest
from mutoscope.bus.connection import Connection, close_fds
from mutoscope.bus.flow import INBOX_BYTES, WINDOW_BYTES, Window
from mutoscope.bus.session import EndpointStatistics, Session, check_room_for_fds, check_target, check_timeout
from mutoscope.bus.wire import BROADCAST, REQUEST, SEND, MalformedError
from mutoscope.model.errors import CommandTimeoutError, ConfigError, ErrorRecord

__all__ = ["Endpoint"]

RECEIPTS_SHARE = 0.5
"""How much of its time-out a broadcast waits for receipts of what was posted on lines; who hears nothing stops it no longer."""

logger = logging.getLogger(__name__)

_FLUSH_S = 5.0
_MAX_LATER = 1000


class Endpoint:
    """One process's side of the bus, for the thread that created it.

    Call :meth:`serve` for each object with handlers, then :meth:`hello`. The owner's loop calls :meth:`pump` and
    :meth:`dispatch`; while it waits for something else, it polls :meth:`fileno` too.

    Handlers run inside :meth:`dispatch`, and inside :meth:`send`, :meth:`request` and :meth:`broadcast` while these wait.
    Inside a handler such a wait only queues what arrives: handlers are never re-entered.

    A forked child cannot use it: it gets ScopeStateError, and its parent goes on.

    Parameters
    ----------
    sock : socket.socket
        A connected Unix stream socket; taken over.
    name : str
        This process's name in the scope.
    window_bytes : int
        What may be on its way to the hub; beyond that, calls wait.
    inbox_bytes : int
        What is taken without having been handled; the hub keeps the rest back.
    """

    def __init__(
        self, sock: socket.socket, name: str, *, window_bytes: int = WINDOW_BYTES, inbox_bytes: int = INBOX_BYTES
    ) -> None:
        self._connection = Connection(sock)
        self._session = Session(self._connection, name, window_bytes, inbox_bytes)
        self._lines = self._session.lines
        self._wait_for = self._lines.wait
        self._owners: list[object] = []
        self._handling = False
        self._hearing = False
        self._later: collections.deque[bytes] = collections.deque()
        self._lines.add_bell()
        self._thread = get_ident()

    # -- introduction

    @property
    def name(self) -> str:
        """This process's name in the scope."""
        return self._session.name

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called here."""
        return self._session.closed

    @property
    def peer_closed(self) -> bool:
        """Whether the supervisor ended or closed the stream."""
        return self._session.peer_closed

    @property
    def close_reason(self) -> str:
        """Why the stream ended, once `peer_closed`."""
        return self._session.close_reason

    @property
    def queued(self) -> int:
        """How many commands and events wait for :meth:`dispatch`."""
        return len(self._session.inbox)

    def fileno(self) -> int:
        """Return the descriptor to poll for reading; then call :meth:`pump` and :meth:`dispatch`. The same until closed."""
        return self._lines.fileno()

    def serve(self, owner: object) -> None:
        """Handle commands with the ``@handles`` methods of an object; before :meth:`hello`."""
        self._session.serve(owner)
        self._owners.append(owner)

    def hello(self, announced: Manifest | None = None, *, timeout_s: float = 10.0) -> None:
        """Introduce this process to the hub and wait for its welcome.

        Parameters
        ----------
        announced : Manifest, optional
            What it handles and sends; by default that of the objects given to :meth:`serve`.
        timeout_s : float
            How long to wait.

        Raises
        ------
        ConfigError
            If the hub speaks another version.
        PeerDiedError, CommandTimeoutError
            If it is gone, or does not answer.
        """
        self._transmit(self._session.hello(manifest(*self._owners) if announced is None else announced))
        deadline = time.monotonic() + timeout_s
        while not self._session.check_welcome():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise CommandTimeoutError(f"the supervisor did not welcome {self.name} within {timeout_s:g} s")
            self._read(remaining)

    # -- calls

    def send(self, command: Command, to: str | None = None, timeout_s: float = 10.0) -> None:
        """Send a command and return once its handler's process has received and accepted it.

        The handler runs later; if it raises, that is logged here and there.

        Parameters
        ----------
        command : Command
            What to do.
        to : str, optional
            The worker; needed where several instances handle the command.
        timeout_s : float
            How long to wait for the receipt.

        Raises
        ------
        UnknownCommandError, ConfigError
            If nobody handles it, the target is unknown, or several handle it and `to` is missing.
        BadPayloadError
            If the fields do not fit, here or there.
        PeerDiedError
            If the receiver, or the supervisor, is not running or dies meanwhile.
        CommandTimeoutError
            If no receipt came in time; the command may still be carried out.
        TypeError
            If `to` is no text, or `timeout_s` no number.
        """
        pending = self._exchange(SEND, command, to, timeout_s)
        if pending.error is not None:
            raise pending.error

    def request(self, command: Command, to: str | None = None, timeout_s: float = 10.0, *, returns: Any = None) -> Any:
        """Send a command and return its handler's reply.

        Parameters
        ----------
        command, to, timeout_s
            As in :meth:`send`.
        returns : type, optional
            What to decode the reply to; by default what the handler is annotated to return, where its class is known in
            this process, else plain values.

        Raises
        ------
        Exception
            What the handler raised, as its own class where that is a builtin or of :mod:`mutoscope.model.errors`, else as
            RemoteError; with the other process's traceback as ``remote_traceback``. Also as in :meth:`send`.
        """
        pending = self._exchange(REQUEST, command, to, timeout_s)
        return self._session.reply(command, pending, returns)

    def call_fds(
        self, command: Command, to: str | None = None, timeout_s: float = 10.0, *, returns: Any = None
    ) -> tuple[Any, list[int]]:
        """As :meth:`request`; returns (reply, descriptors that came with it). The caller owns the descriptors.

        OSError (EMFILE) when this process may open no more files: nothing is asked then.
        """
        self._session.check_open()
        check_room_for_fds(self._connection.sock, type(command).__name__)
        pending = self._exchange(REQUEST, command, to, timeout_s, wants_fds=True)
        try:
            return self._session.reply(command, pending, returns), list(pending.fds)
        except Exception:
            close_fds(pending.fds)
            raise

    def broadcast(self, command: Command, timeout_s: float = 10.0, *, returns: Any = None) -> dict[str, Any]:
        """Send a command to everybody else who handles it with ``delivery="broadcast"``.

        Returns
        -------
        dict of str to object
            By name: the reply, or the exception (raised there, or PeerDiedError, or CommandTimeoutError).
        """
        pending = self._exchange(BROADCAST, command, None, timeout_s)
        return self._session.replies(command, pending, timeout_s, returns)

    def post(self, command: Command, to: str | None = None, timeout_s: float = 10.0) -> None:
        """As :meth:`send`, without waiting for the receipt: for bursts. :meth:`flush` waits for all of them.

        It waits only while `window_bytes` are on their way.
        """
        pending = self._ask(SEND, command, check_target(to), check_timeout(timeout_s))
        pending.posted = True
        self._session.posted.add(pending.number)

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until every posted command has been received.

        Raises
        ------
        Exception
            The first error of a command posted since the last flush.
        CommandTimeoutError
            If receipts are still missing.
        """
        session, timeout_s = self._session, check_timeout(timeout_s)
        done = self._wait(lambda: not session.posted, time.monotonic() + timeout_s)
        error, session.posted_error = session.posted_error, None
        if error is not None:
            raise error
        if not done:
            left = len(session.posted)
            raise CommandTimeoutError(f"{left} posted commands were not received within {timeout_s:g} s")

    def publish(self, event: Event, timeout_s: float = 10.0) -> None:
        """Publish an event to whoever subscribed, now or later."""
        self._check_thread()
        session, packed, timeout_s = self._session, self._session.event(event), check_timeout(timeout_s)
        if not session.window.has_room:
            self._wait_for_room(lambda: session.window, type(event).__name__, timeout_s)
        session.window.charge(len(packed))
        self._transmit(packed)

    def publish_soon(self, event: Event) -> bool:
        """Publish an event from any thread, and from wherever the endpoint itself is: for log lines.

        In the owner's thread it goes as with :meth:`publish`, unless the endpoint is reading just now. Else it goes when the
        owner next reads, which happens soon if it waits for anything.

        Returns
        -------
        bool
            False if it was discarded, because too many wait already.
        """
        self._session.home.check(self.name)
        if get_ident() == self._thread and not self._hearing:
            self._send_later()
            if not self._later:
                self.publish(event)
                return True
        packed = self._session.event(event)
        if len(self._later) >= _MAX_LATER:
            return False
        self._later.append(packed)
        self._lines.ring()
        return True

    def subscribe(self, kind: type[Event], callback: Callable[[Any], None]) -> None:
        """Have `callback(event)` run like a handler for each event of this class; the last value comes at once.

        A process that takes events slower than they come, beyond `inbox_bytes`, gets the newest value only; what was passed
        over is counted.
        """
        self._check_thread()
        self._session.subscription(kind, callback)
        self._push()

    def report_crash(self, record: ErrorRecord) -> None:
        """Tell the supervisor why this process is about to end."""
        self._session.home.check(self.name)
        self._transmit(wire.pack(wire.CrashReport(wire.sendable(record))))

    # -- the owner's loop

    def pump(self, timeout_s: float = 0.0) -> bool:
        """Read what has arrived and acknowledge it, running no handler; wait up to `timeout_s` for something.

        Returns
        -------
        bool
            Whether something is queued for :meth:`dispatch`.
        """
        session = self._session
        if get_ident() != self._thread or session.home.left:
            self._check_thread()
        if not session.peer_closed and not session.closed:
            self._read(timeout_s)
        return bool(session.inbox)

    def dispatch(self) -> int:
        """Run the queued handlers and event callbacks here; return how many. Inside a handler it does nothing."""
        session, count = self._session, 0
        inbox = session.inbox
        if self._handling or not inbox:
            return 0
        if get_ident() != self._thread or session.home.left:
            self._check_thread()
        self._handling = True
        try:
            while inbox:
                session.run(inbox.popleft(), self._transmit)
                count += 1
                if session.outgoing:
                    self._push()
        finally:
            self._handling = False
        return count

    def statistics(self) -> EndpointStatistics:
        """Return the counters."""
        return self._session.statistics()

    def close(self, reason: str = "done") -> None:
        """Say goodbye and close the socket. Twice is fine."""
        if self._session.closed:
            return
        if not self._session.peer_closed and not self._session.home.left:
            self._send_later()
            self._connection.send(wire.pack(wire.Goodbye(reason)))
        self._session.close()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- waiting

    def _exchange(self, kind: int, command: Command, to: str | None, timeout_s: float, wants_fds: bool = False) -> Pending:
        """Send a command and wait for its answer, which is then in the Pending, or for the time-out, which then is."""
        to, timeout_s = check_target(to, self._session.lines.peers), check_timeout(timeout_s)
        session = self._session
        if kind == BROADCAST and session.posted:
            self._wait(session.all_received, time.monotonic() + timeout_s * RECEIPTS_SHARE)
        pending = self._ask(kind, command, to, timeout_s, wants_fds)
        try:
            self._lines.hear_alone(pending)
            remaining = timeout_s
            deadline = time.monotonic() + timeout_s
            while not pending.done:
                if remaining <= 0:
                    if kind != BROADCAST:
                        pending.error = CommandTimeoutError(f"{pending.command} was not answered within {timeout_s:g} s")
                        self._lines.report(pending, "timeout")
                    break
                self._read(remaining)
                if session.inbox and not self._handling:
                    self.dispatch()
                if not pending.done:
                    remaining = deadline - time.monotonic()
        finally:
            if not pending.done:
                self._session.forget(pending)
                self._push()
        return pending

    def _ask(self, kind: int, command: Command, to: str | None, timeout_s: float, wants_fds: bool = False) -> Pending:
        """Send a call on its line, or through the hub, as soon as there is room for it."""
        if get_ident() != self._thread:
            self._check_thread()
        session = self._session
        name = session.name_of(command)
        line = session.line_to(kind, name, to)
        window = session.window if line is None else line.window
        if window.charged - window.credited >= window.limit:
            self._wait_for_room(lambda: session.window_to(kind, name, to), name, timeout_s)
            line = session.line_to(kind, name, to)
        if line is not None:
            return self._lines.ask(line, kind, name, command, timeout_s)
        pending, packed = session.call(kind, name, command, to, timeout_s, wants_fds)
        session.window.charge(len(packed))
        self._transmit(packed)
        return pending

    def _wait_for_room(self, window: Callable[[], Window], what: str, timeout_s: float) -> None:
        if not self._wait(lambda: window().has_room, time.monotonic() + timeout_s):
            self._session.check_open()
            raise window().still_full(what, timeout_s)
        self._session.check_open()

    def _wait(self, done: Callable[[], bool], deadline: float) -> bool:
        """Read until `done`, the deadline, or the end of the stream; run handlers unless this is inside one."""
        session = self._session
        session.home.check(session.name)
        while not done():
            remaining = deadline - time.monotonic()
            if remaining <= 0 or session.peer_closed or session.closed:
                break
            self._read(remaining)
            if session.inbox and not self._handling:
                self.dispatch()
        return done()

    def _read(self, timeout_s: float) -> None:
        """Read what has come, waiting up to `timeout_s` for something, and send what that calls for."""
        if self._connection.unsent:
            self._flush()
        self._hearing = True
        try:
            self._wait_for(timeout_s, self._hear_hub)
        finally:
            self._hearing = False
        if self._session.outgoing:
            self._push()
        if self._later:
            self._send_later()

    def _send_later(self) -> None:
        """Send what other threads publish, as far as there is room."""
        window = self._session.window
        while self._later and window.has_room and not self._session.peer_closed:
            packed = self._later.popleft()
            window.charge(len(packed))
            self._transmit(packed)

    def _hear_hub(self) -> bool:
        """Read once from the hub; returns whether there is more."""
        connection, session = self._connection, self._session
        try:
            session.hear(connection.receive(with_fds=True))
            connection.check_loose_fds()
        except MalformedError as error:
            session.ended(f"it sent malformed data: {error}")
        except Exception as error:  # or whoever reads would end, and all others wait in vain
            logger.exception("%s leaves the bus: handling what the supervisor sent failed", session.name)
            session.ended(f"handling what it sent failed: {type(error).__name__}: {error}")
        if connection.ended is not None:
            session.ended(connection.ended)
        return connection.full

    def _transmit(self, packed: bytes) -> None:
        if not self._connection.send(packed):
            self._flush()

    def _push(self) -> None:
        """Send the session's own messages; several go together."""
        outgoing, connection = self._session.outgoing, self._connection
        if len(outgoing) == 1:
            self._transmit(outgoing.popleft())
            return
        while outgoing:
            connection.queue(outgoing.popleft())
        self._flush()

    def _flush(self) -> None:
        """Give the kernel what is unsent; the hub always reads, so that this takes long only when it is stopped."""
        connection = self._connection
        if connection.flush():
            return
        deadline = time.monotonic() + _FLUSH_S
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLOUT)
        while not connection.flush():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            poller.poll(remaining * 1000)

    def _check_thread(self) -> None:
        self._session.home.check(self.name)
        if get_ident() != self._thread:
            raise ConfigError(f"the bus of {self.name} belongs to its main thread: queue what other threads have to say")
