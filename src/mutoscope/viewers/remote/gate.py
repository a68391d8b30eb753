"""The viewer's end of all pipes: listens on the network, lets in who is trusted, and connects each to the receiver."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable

from mutoscope.frames import _os
from mutoscope.model.errors import ConfigError, MutoscopeError
from mutoscope.viewers.remote.address import Address, check_descriptors, load_zmq
from mutoscope.viewers.remote.dial import AWAY_S, BEAT_S, SILENT_S
from mutoscope.viewers.remote.keys import own_key, trusted_keys
from mutoscope.viewers.remote.messages import (
    MESSAGE_BYTES,
    PIPE_VERSION,
    Ack,
    Beat,
    Data,
    End,
    FromEnd,
    Open,
    Opened,
    decode,
    encode,
)
from mutoscope.viewers.remote.packing import check_compression
from mutoscope.viewers.remote.pipe import WINDOW_CHUNKS, Pipe
from mutoscope.viewers.wire import MalformedError

__all__ = ["Gate"]

log = logging.getLogger(__name__)

_DOMAIN = "mutoscope"
_ZAP = "inproc://zeromq.zap.01"
_MOST_SESSIONS = 256
_MOST_QUEUED = 2 * WINDOW_CHUNKS
"""Messages that wait for a sender that does not read; it is cut off then, and may come again."""
_MOST_UNREAD = 32
"""Messages of a connection that wait for this."""
_HANDSHAKE_S = 5.0
_LINGER_S = 1.0
_TICK_S = 0.5
_READS = 256
_SAID_S = 1.0


class _Session:
    """A sender, with or without a connection."""

    def __init__(self, name: bytes, key: str, where: str, pipe: Pipe) -> None:
        self.name = name
        self.key = key
        self.where = where
        self.pipe = pipe
        self.route = b""
        """Of its connection; empty without one."""
        self.heard = self.said = time.monotonic()
        self.left_since: float | None = None
        """Since when the receiver has hung up."""

    @property
    def peer(self) -> str:
        """Who it is, for people."""
        return f"{self.key} at {self.where}"


class Gate:
    """Listens at an address, in a thread of its own.

    Parameters
    ----------
    address : Address
        Where; port 0 for any that is free.
    adopt : callable(socket, peer)
        Gets a local socket for each session, and who it is.
    refused : callable()
        Called for each connection that is not let in.

    Raises
    ------
    ConfigError
        If it cannot listen there, or has no key.
    BackendUnavailableError
        If pyzmq is not installed.
    """

    def __init__(self, address: Address, adopt: Callable[[socket.socket, str], None], refused: Callable[[], None]) -> None:
        self._zmq = zmq = load_zmq()
        self._adopt = adopt
        self._refused = refused
        self._sessions: dict[bytes, _Session] = {}
        self._routes: dict[bytes, _Session] = {}
        self._stop_by = float("inf")
        self._unsaid, self._said_at = 0, 0.0
        self._lock = threading.Lock()
        self.key = own_key()
        """Of the user of this viewer."""
        try:
            check_descriptors()
        except OSError as error:
            raise ConfigError(f"nothing can listen at {address}: {error.strerror} in this process (ulimit -n)") from error
        self._context = zmq.Context(io_threads=1)
        try:
            self._zap = self._context.socket(zmq.REP)
            self._zap.bind(_ZAP)
            self._router = self._context.socket(zmq.ROUTER)
            for option, value in (
                (zmq.LINGER, int(1000 * _LINGER_S)),
                (zmq.ROUTER_MANDATORY, 1),
                (zmq.SNDHWM, _MOST_QUEUED),
                (zmq.RCVHWM, _MOST_UNREAD),
                (zmq.MAXMSGSIZE, MESSAGE_BYTES),
                (zmq.HANDSHAKE_IVL, int(1000 * _HANDSHAKE_S)),
                (zmq.IPV6, int(":" in address.host)),
                (zmq.CURVE_SERVER, 1),
                (zmq.CURVE_PUBLICKEY, self.key.public.encode()),
                (zmq.CURVE_SECRETKEY, self.key.secret.encode()),
                (zmq.ZAP_DOMAIN, _DOMAIN.encode()),
            ):
                self._router.setsockopt(option, value)
            self._monitor = self._router.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
            self._router.bind(_bindable(address))
            self._bell = _os.create_bell()
        except (zmq.ZMQError, OSError) as error:
            self._context.destroy(linger=0)
            raise ConfigError(f"nothing can listen at {address}: {error.strerror}") from error
        port = int(self._router.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").rpartition(b":")[2])
        self.address = Address(address.host, port)
        """Where it listens."""
        self._thread = threading.Thread(target=self._run, name="mutoscope-gate", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        log.info("senders from other computers are let in at %s; the key here is %s", self.address, self.key.public)

    @property
    def is_open(self) -> bool:
        """Whether somebody may be let in."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Wait a second for what the viewer has said last to reach its senders, then end. Twice is fine."""
        with self._lock:
            self._stop_by = min(self._stop_by, time.monotonic() + _LINGER_S)
            if self._bell >= 0:
                _os.ring_bell(self._bell)
        if self._thread.is_alive():
            self._thread.join()

    # -- the thread

    def _run(self) -> None:
        try:
            while time.monotonic() < self._stop_by and not (self._stop_by < float("inf") and not self._sessions):
                self._step()
        except Exception:
            log.exception("nobody is let in from other computers any more")
        finally:
            for session in list(self._sessions.values()):
                self._end(session, "the viewer has ended")
            self._router.disable_monitor()
            self._monitor.close(0)
            with self._lock:
                bell, self._bell = self._bell, -1
                os.close(bell)
            self._zap.close(0)
            self._router.close()
            self._context.term()

    def _step(self) -> None:
        zmq = self._zmq
        poller = zmq.Poller()
        for each in (self._router, self._zap, self._monitor, self._bell):
            poller.register(each, zmq.POLLIN)
        local: dict[int, _Session] = {}
        for session in self._sessions.values():
            pipe = session.pipe
            if pipe.wants_to_read or pipe.wants_to_write:
                number = pipe.sock.fileno()
                local[number] = session
                poller.register(number, pipe.wants_to_read * zmq.POLLIN | pipe.wants_to_write * zmq.POLLOUT)
        for source, events in poller.poll(1000 * _TICK_S):
            if source is self._router:
                self._receive()
            elif source is self._zap:
                self._authenticate()
            elif source is self._monitor:
                self._look_at_failures()
            elif source == self._bell:
                _os.clear_bell(self._bell)
            elif local[source].name in self._sessions:
                pipe = local[source].pipe
                if events & ~zmq.POLLIN:
                    pipe.write()
                if events & ~zmq.POLLOUT:
                    pipe.read()
        for session in list(self._sessions.values()):
            self._send(session)
            self._look_after(session)

    def _look_after(self, session: _Session) -> None:
        pipe = session.pipe
        away_s = time.monotonic() - session.heard
        if pipe.is_over or (pipe.ended_here and pipe.ended_there and not session.route):
            self._forget(session)
        elif pipe.ended_here and self._has_had_its_time(session):
            self._end(session, "the viewer hung up")
        elif away_s > AWAY_S:
            log.warning("%s was away for %.0f s: what it has not sent by now does not come", session.peer, away_s)
            self._end(session, f"the viewer has heard nothing for {away_s:.0f} s")

    def _has_had_its_time(self, session: _Session) -> bool:
        """Whether the receiver hung up long ago."""
        if session.left_since is None:
            session.left_since = time.monotonic()
        return time.monotonic() - session.left_since > SILENT_S

    def _forget(self, session: _Session) -> None:
        self._sessions.pop(session.name, None)
        self._routes.pop(session.route, None)
        session.pipe.close()

    def _end(self, session: _Session, reason: str) -> None:
        if session.route and not session.pipe.is_over:
            self._say(session.route, End(reason))
        self._forget(session)

    # -- who is let in

    def _authenticate(self) -> None:
        """Answer a request of ZAP (https://rfc.zeromq.org/spec/27/): whether a key is trusted; looked up anew each time."""
        zmq = self._zmq
        while True:
            try:
                frames = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            number, where = frames[1], frames[3].decode("utf-8", "replace")
            key = zmq.utils.z85.encode(frames[6]).decode() if len(frames) == 7 and frames[5] == b"CURVE" else ""
            try:
                name = next((name for name, value in trusted_keys().items() if value == key), None)
                why = f"one at {where} has a key that is not trusted here: mutoscope keys trust NAME '{key}'"
            except (ConfigError, OSError) as error:
                name, why = None, f"nobody can be: {error}"
            if name is None:
                self._say_refused(why)
                answer = [b"400", b"the key is not trusted", b""]
            else:
                answer = [b"200", b"OK", name.encode()]
            self._zap.send_multipart([b"1.0", number, *answer, b""])

    def _look_at_failures(self) -> None:
        from zmq.utils.monitor import recv_monitor_message

        while self._monitor.poll(0):
            recv_monitor_message(self._monitor)
            self._say_refused("one did not know the key of this viewer, or spoke something else")

    def _say_refused(self, why: str) -> None:
        """Count it; the log says it at most once a second."""
        self._refused()
        self._unsaid += 1
        if time.monotonic() - self._said_at > _SAID_S:
            log.warning("%d connections from other computers were not let in: %s", self._unsaid, why)
            self._unsaid, self._said_at = 0, time.monotonic()

    # -- messages

    def _say(self, route: bytes, message: FromEnd | bytes) -> bool:
        zmq = self._zmq
        data = message if isinstance(message, bytes) else encode(message)
        try:
            self._router.send_multipart([route, data], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            session = self._routes.pop(route, None)
            if session is not None:
                session.route = b""  # it comes again, or is away
            return False
        return True

    def _send(self, session: _Session) -> None:
        if not session.route:
            return
        news = session.pipe.news()
        if news is not None and not self._say(session.route, news):
            return
        said = news is not None
        for message in session.pipe.to_send():
            if not self._say(session.route, message):
                return
            said = True
        now = time.monotonic()
        if said or (now - session.said > BEAT_S and self._say(session.route, Beat())):
            session.said = now

    def _receive(self) -> None:
        zmq = self._zmq
        for _ in range(_READS):
            try:
                frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            route = frames[0].bytes
            key, where = frames[-1].get("User-Id"), frames[-1].get("Peer-Address")
            try:
                if len(frames) != 2:
                    raise MalformedError("a message of several parts")
                self._take(route, str(key), str(where), decode(frames[1].buffer))
            except MalformedError as error:
                self._say_refused(f"{key} at {where} speaks no sense: {error}")
                session = self._routes.get(route)
                if session is not None:
                    self._end(session, f"what came was no message: {error}")

    def _take(self, route: bytes, key: str, where: str, message: FromEnd) -> None:
        session = self._routes.get(route)
        if session is None:
            if isinstance(message, Open):
                self._open(route, key, where, message)
            return  # else of a connection whose session has another one now, or has ended
        session.heard = time.monotonic()
        match message:
            case Data():
                session.pipe.take(message)
            case Ack():
                session.pipe.acknowledged(message.count)
            case Beat():
                pass
            case End():
                log.info("%s has ended its session: %s", session.peer, message.reason)
                self._forget(session)
            case _:
                raise MalformedError(f"{type(message).__name__} in the middle of a session")

    def _open(self, route: bytes, key: str, where: str, message: Open) -> None:
        session = self._sessions.get(message.session)
        refused = self._why_not(session, key, message)
        if refused:
            self._say_refused(f"{key} at {where}: {refused}")
            self._say(route, End(refused))
            return
        known = session is not None
        if session is None:
            try:
                session = self._begin(message, key, where)
            except OSError as error:  # no more descriptors, say
                log.error("%s at %s could not be let in: %s", key, where, error)
                self._say(route, End(f"the viewer can let nobody else in: {error}"))
                return
        session.pipe.resume(message.have)
        self._routes.pop(session.route, None)
        session.route, session.where, session.heard = route, where, time.monotonic()
        self._routes[route] = session
        if not self._say(route, Opened(session.pipe.have)) and not known:
            self._forget(session)  # it has gone again before it was let in

    def _why_not(self, session: _Session | None, key: str, message: Open) -> str:
        """Why a session is not opened; nothing if it is."""
        if message.version != PIPE_VERSION:
            return f"the viewer speaks version {PIPE_VERSION} of the protocol, the sender {message.version}"
        if session is not None:
            return "" if session.key == key else "this session is another one's"
        if message.known or message.have:
            return "the viewer has ended, or was started anew meanwhile, or the connection was away for too long"
        if len(self._sessions) >= _MOST_SESSIONS:
            return f"the viewer has {_MOST_SESSIONS} senders already"
        try:
            check_compression(message.compression)
        except MutoscopeError as error:
            return f"the viewer says: {error}"
        return ""

    def _begin(self, message: Open, key: str, where: str) -> _Session:
        theirs, ours = socket.socketpair()
        session = _Session(message.session, key, where, Pipe(ours, message.compression))
        self._sessions[session.name] = session
        self._adopt(theirs, session.peer)
        return session


def _bindable(address: Address) -> str:
    try:
        return address.resolve()[0]
    except socket.gaierror as error:
        raise ConfigError(f"nothing can listen at {address}: {error.strerror}") from error
