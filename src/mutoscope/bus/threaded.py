"""The user's program on the bus: any thread may call, a daemon thread hears what nobody waits for."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from mutoscope.bus import wire
from mutoscope.bus.calls import Pending
from mutoscope.bus.commands import Command, Event, Manifest
from mutoscope.bus.connection import Connection, close_fds
from mutoscope.bus.endpoint import RECEIPTS_SHARE
from mutoscope.bus.flow import INBOX_BYTES, WINDOW_BYTES
from mutoscope.bus.session import EndpointStatistics, Session, check_room_for_fds, check_target, check_timeout
from mutoscope.bus.session import wake as release
from mutoscope.bus.wire import BROADCAST, REQUEST, SEND, MalformedError
from mutoscope.model.errors import CommandTimeoutError

__all__ = ["ThreadedEndpoint"]

_YIELD_S = 0.02
logger = logging.getLogger(__name__)

_FLUSH_S = 5.0
_TICK_S = 0.1
"""The longest that one thread leaves the reading to another without looking whether it should take over."""


class ThreadedEndpoint:
    """The program's side of the bus. All methods may be called from any thread.

    Whoever waits for an answer reads the socket itself, so that no other thread has to be scheduled first; a daemon thread
    reads when nobody waits. Event callbacks run in a second daemon thread, in order, and may make calls of their own.
    A forked child cannot use it: it gets ScopeStateError, and its parent goes on.

    Parameters
    ----------
    sock : socket.socket
        A connected Unix stream socket; taken over.
    name : str
        The program's name in the scope.
    window_bytes, inbox_bytes : int
        As for :class:`mutoscope.bus.endpoint.Endpoint`.
    """

    def __init__(
        self, sock: socket.socket, name: str, *, window_bytes: int = WINDOW_BYTES, inbox_bytes: int = INBOX_BYTES
    ) -> None:
        self._connection = Connection(sock)
        self._session = Session(self._connection, name, window_bytes, inbox_bytes)
        self._reading = threading.Lock()  # held by the thread that reads the socket and changes the session by it
        self._sending = self._session.sending  # held by the thread that writes a socket
        self._waiting_lock = threading.Lock()
        self._waiting: dict[threading.Lock, None] = {}
        self._stop = threading.Event()
        self._jobs = threading.Condition()
        self._reader: threading.Thread | None = None
        self._dispatcher: threading.Thread | None = None

    @property
    def name(self) -> str:
        """The program's name in the scope."""
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

    def hello(self, announced: Manifest | None = None, *, timeout_s: float = 10.0) -> None:
        """Introduce the program to the hub and wait for its welcome; raises as :meth:`Endpoint.hello`."""
        with self._sending:
            self._transmit(self._session.hello(announced or Manifest()))
        if not self._wait(self._session.check_welcome, _taken_lock(), time.monotonic() + timeout_s):
            self._session.check_welcome()
            raise CommandTimeoutError(f"the supervisor did not welcome {self.name} within {timeout_s:g} s")
        self._reader = threading.Thread(target=self._read_on, name=f"mutoscope-bus-{self.name}", daemon=True)
        self._reader.start()

    # -- calls

    def send(self, command: Command, to: str | None = None, timeout_s: float = 10.0) -> None:
        """Send a command and return once its handler's process has received and accepted it; see :meth:`Endpoint.send`."""
        pending = self._exchange(SEND, command, to, timeout_s)
        if pending.error is not None:
            raise pending.error

    def request(self, command: Command, to: str | None = None, timeout_s: float = 10.0, *, returns: Any = None) -> Any:
        """Send a command and return its handler's reply; see :meth:`Endpoint.request`."""
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
        """Send a command to everybody who handles it with ``delivery="broadcast"``; see :meth:`Endpoint.broadcast`."""
        pending = self._exchange(BROADCAST, command, None, timeout_s)
        return self._session.replies(command, pending, timeout_s, returns)

    def post(self, command: Command, to: str | None = None, timeout_s: float = 10.0) -> None:
        """As :meth:`send`, without waiting for the receipt: for bursts. :meth:`flush` waits for all of them."""
        self._ask(SEND, command, check_target(to), check_timeout(timeout_s))

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until every posted command has been received; raises the first error since the last flush."""
        session, timeout_s = self._session, check_timeout(timeout_s)
        done = self._wait(lambda: not session.posted, _taken_lock(), time.monotonic() + timeout_s)
        error, session.posted_error = session.posted_error, None
        if error is not None:
            raise error
        if not done:
            left = len(session.posted)
            raise CommandTimeoutError(f"{left} posted commands were not received within {timeout_s:g} s")

    def publish(self, event: Event, timeout_s: float = 10.0) -> None:
        """Publish an event to whoever subscribed, now or later."""
        self._publish(self._session.event(event), type(event).__name__, check_timeout(timeout_s))

    def subscribe(self, kind: type[Event], callback: Callable[[Any], None]) -> None:
        """Have `callback(event)` run in the dispatching thread for each event of this class; the last value comes at once."""
        self._session.check_open()
        with self._sending:
            if self._dispatcher is None:
                self._dispatcher = threading.Thread(target=self._dispatch, name=f"mutoscope-events-{self.name}", daemon=True)
                self._dispatcher.start()
            self._session.subscription(kind, callback)
            self._push()
        with self._jobs:
            self._jobs.notify()

    def statistics(self) -> EndpointStatistics:
        """Return the counters."""
        return self._session.statistics()

    def close(self, reason: str = "done") -> None:
        """Say goodbye, end the threads, close the socket; whoever still waits gets ClosedError. Twice is fine."""
        if self._session.home.left:
            self._session.close()
            return
        with self._sending:
            if self._stop.is_set():
                return
            self._stop.set()
            self._session.closed = True
            self._session.open = False
            if not self._session.peer_closed:
                self._connection.send(wire.pack(wire.Goodbye(reason)))
            try:
                self._connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other end has gone first
        with self._jobs:
            self._jobs.notify_all()
        for thread in (self._reader, self._dispatcher):
            if thread is not None and thread is not threading.current_thread():
                thread.join()
        with self._reading:
            self._session.close()
        self._wake_one(everybody=True)

    def __enter__(self) -> ThreadedEndpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- sending

    def _exchange(self, kind: int, command: Command, to: str | None, timeout_s: float, wants_fds: bool = False) -> Pending:
        """Send a command and wait for its answer, which is then in the Pending, or for the time-out, which then is."""
        to, timeout_s = check_target(to, self._session.lines.peers), check_timeout(timeout_s)
        session, deadline = self._session, time.monotonic() + timeout_s
        if kind == BROADCAST and session.posted:
            self._wait(session.all_received, _taken_lock(), time.monotonic() + timeout_s * RECEIPTS_SHARE)
        wake = _taken_lock()
        pending = self._ask(kind, command, to, timeout_s, wants_fds, wake)
        try:
            if self._reading.acquire(blocking=False):  # else another thread reads for this one too
                try:
                    session.lines.hear_alone(pending)
                finally:
                    self._reading.release()
                if pending.done:
                    self._wake_one()
            if not pending.done and not self._wait(lambda: pending.done, wake, deadline):
                session.check_open()
                if kind != BROADCAST:
                    pending.error = CommandTimeoutError(f"{pending.command} was not answered within {timeout_s:g} s")
                    session.lines.report(pending, "timeout")
                    self._push()
        finally:
            if not pending.done:
                session.forget(pending)
        return pending

    def _ask(
        self,
        kind: int,
        command: Command,
        to: str | None,
        timeout_s: float,
        wants_fds: bool = False,
        wake: threading.Lock | None = None,
    ) -> Pending:
        """Send a call on its line, or through the hub, as soon as there is room for it. Without `wake` it is posted."""
        session, deadline = self._session, time.monotonic() + timeout_s
        name = session.name_of(command)

        def has_room() -> bool:
            return session.window_to(kind, name, to).has_room

        while True:
            with self._sending:
                session.check_open()
                line = session.line_to(kind, name, to)
                if (session.window if line is None else line.window).has_room:
                    if line is not None:
                        pending = session.lines.ask(line, kind, name, command, timeout_s)
                    else:
                        pending, packed = session.call(kind, name, command, to, timeout_s, wants_fds)
                        session.window.charge(len(packed))
                        self._transmit(packed)
                    pending.wake, pending.posted = wake, wake is None  # who hears the answer waits for this lock first
                    if pending.posted:
                        session.posted.add(pending.number)
                    return pending
            if not self._wait(has_room, _taken_lock(), deadline):
                session.check_open()
                raise session.window_to(kind, name, to).still_full(name, timeout_s)

    def _publish(self, packed: bytes, what: str, timeout_s: float) -> None:
        session, deadline = self._session, time.monotonic() + timeout_s
        while True:
            with self._sending:
                session.check_open()
                if session.window.has_room:
                    session.window.charge(len(packed))
                    self._transmit(packed)
                    return
            if not self._wait(lambda: session.window.has_room, _taken_lock(), deadline):
                session.check_open()
                raise session.window.still_full(what, timeout_s)

    def _transmit(self, packed: bytes) -> None:
        if not self._connection.send(packed):
            self._flush()

    def _push(self) -> None:
        """Send the session's own messages."""
        with self._sending:
            while self._session.outgoing:
                self._connection.queue(self._session.outgoing.popleft())
            self._flush()

    def _flush(self) -> None:
        with self._sending:
            deadline = time.monotonic() + _FLUSH_S
            poller = select.poll()
            poller.register(self._connection.fileno(), select.POLLOUT)
            while not self._connection.flush():
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return
                poller.poll(remaining * 1000)

    # -- waiting: one of those who wait reads for all

    def _wait(self, done: Callable[[], bool], wake: threading.Lock, deadline: float) -> bool:
        """Return whether `done` came true before the deadline. `wake` is released by who finishes this, or hands over."""
        self._session.home.check(self.name)
        with self._waiting_lock:
            self._waiting[wake] = None
        try:
            while not done():
                remaining = deadline - time.monotonic()
                if remaining <= 0 or self._session.peer_closed or self._stop.is_set():
                    break
                if not self._reading.acquire(blocking=False):
                    wake.acquire(timeout=min(remaining, _TICK_S))
                    continue
                try:
                    while not done():
                        remaining = deadline - time.monotonic()
                        if remaining <= 0 or self._session.peer_closed or self._stop.is_set():
                            break
                        self._read(remaining)
                finally:
                    self._reading.release()
        finally:
            with self._waiting_lock:
                del self._waiting[wake]
            self._wake_one()
        return done()

    def _wake_one(self, *, everybody: bool = False) -> None:
        """Have somebody else who waits take over reading."""
        with self._waiting_lock:
            for wake in self._waiting:
                if wake.locked():
                    release(wake)
                    if not everybody:
                        return

    def _read(self, timeout_s: float) -> None:
        """Read once; only for the thread that holds `_reading`."""
        session = self._session
        before = session.credits
        session.lines.wait(timeout_s, self._hear_hub)
        if session.outgoing:
            self._push()
        if session.credits != before or session.peer_closed:
            self._wake_one(everybody=True)
        if session.inbox:  # never compared with what was there before: the other thread takes jobs out meanwhile
            with self._jobs:
                self._jobs.notify()

    def _hear_hub(self) -> bool:
        connection, session = self._connection, self._session
        try:
            session.hear(connection.receive(with_fds=True))
            connection.check_loose_fds()
        except MalformedError as error:
            session.ended(f"it sent malformed data: {error}")
        except Exception as error:  # or whoever reads would end, and all others wait in vain
            logger.exception("%s leaves the bus: handling what the supervisor sent failed", session.name)
            session.ended(f"handling what it sent failed: {type(error).__name__}: {error}")
        if connection.ended is not None and not session.closed:
            session.ended(connection.ended)
        return connection.full

    def _read_on(self) -> None:
        """Read what arrives while nobody waits."""
        poller = select.poll()
        poller.register(self._session.lines.fileno(), select.POLLIN)
        while not self._session.peer_closed:
            poller.poll()
            if self._stop.is_set():
                return
            if not self._reading.acquire(blocking=False):
                self._stop.wait(_YIELD_S)  # somebody who waits is reading already
                continue
            try:
                if not self._session.peer_closed:
                    self._read(0.0)
            finally:
                self._reading.release()
            self._wake_one()

    def _dispatch(self) -> None:
        """Run event callbacks."""
        session = self._session
        while not self._stop.is_set():
            with self._jobs:
                while not session.inbox and not self._stop.is_set():
                    self._jobs.wait()
            while session.inbox and not self._stop.is_set():
                job = session.inbox.popleft()
                session.run(job, session.outgoing.append)
                if session.outgoing:
                    self._push()


def _taken_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock
