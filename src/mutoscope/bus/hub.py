"""The router in the supervisor: one thread, one selector, never blocks.

The hub owns the sockets that it is given. It decodes envelopes only; payloads pass through it packed.
"""

from __future__ import annotations

import functools
import heapq
import logging
import selectors
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from mutoscope.bus import payload, routes, wire
from mutoscope.bus.commands import Command, Event, HandlerSpec, Manifest, message_name, reply_type
from mutoscope.bus.connection import Connection, close_fds
from mutoscope.bus.exchange import Exchange
from mutoscope.bus.flow import INBOX_BYTES, WINDOW_BYTES
from mutoscope.bus.forward import Forwarding
from mutoscope.bus.last import MAX_EVENTS, LastValues
from mutoscope.bus.local import LocalCommands
from mutoscope.bus.peer import Held, Outstanding, Peer, PeerStatistics
from mutoscope.bus.wire import BROADCAST, REQUEST, SUPERVISOR, CallRecord, MalformedError
from mutoscope.model.errors import (
    BadPayloadError,
    CommandTimeoutError,
    ConfigError,
    ErrorRecord,
    MutoscopeError,
    PeerDiedError,
    UnknownCommandError,
    from_record,
)

__all__ = ["Hub"]

logger = logging.getLogger(__name__)

OnReply = Callable[[Any, Exception | None], None]
_SWEEP_S = 1.0
_MAX_NAME = 1000  # characters
_MAX_INBOX_BYTES = 4 * INBOX_BYTES
_MAX_UNSENT_BYTES = 1024**3  # replies that a process asked for and does not read


class Hub:
    """Routes commands and events between the processes of a scope, and answers the supervisor's own commands.

    It is driven by its owner's loop: ``for key, mask in selector.select(timeout): key.data(mask)``, with
    :meth:`next_deadline` as the time-out and :meth:`tick` after it. The callbacks run inside that loop.

    Parameters
    ----------
    selector : selectors.BaseSelector
        The hub registers its sockets there, each with ``data=callable(mask)``.
    window_bytes : int
        What each process may have on its way to the hub.
    on_hello : callable(name, manifest), optional
        A process has introduced itself.
    on_peer_lost : callable(name, reason), optional
        Its stream ended or could not be read. Not called for :meth:`remove_peer` and :meth:`close`.
    on_crash_report : callable(name, record), optional
        A process says why it is about to end.
    on_problem : callable(handler, sender, command, error), optional
        The handler of a command that was sent (not requested) raised.
    on_call : callable(CallRecord), optional
        Every command that ended, with its outcome: for an audit log.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        *,
        window_bytes: int = WINDOW_BYTES,
        on_hello: Callable[[str, Manifest], None] | None = None,
        on_peer_lost: Callable[[str, str], None] | None = None,
        on_crash_report: Callable[[str, ErrorRecord], None] | None = None,
        on_problem: Callable[[str, str, str, Exception], None] | None = None,
        on_call: Callable[[CallRecord], None] | None = None,
    ) -> None:
        self.on_hello = on_hello
        self.on_peer_lost = on_peer_lost
        self.on_crash_report = on_crash_report
        self.on_problem = on_problem
        self.on_call = on_call
        self.late_replies = 0
        self.expired = 0
        self._selector = selector
        self._window_bytes = window_bytes
        self._peers: dict[str, Peer] = {}
        self._manifests: dict[str, Manifest] = {}
        self._gone: dict[str, str] = {}
        self._local = LocalCommands(self._post, self._answered_local)
        self._latest = LastValues()
        self._listeners: dict[str, list[tuple[type[Event], Callable[[Any], None]]]] = {}
        self._deadlines: list[tuple[float, int, Peer, int]] = []
        self._sequence = 0
        self._next_sweep: float | None = None
        self._dirty: list[Peer] = []
        self._busy = False
        self._burst = False
        self._closed = False
        self._actions: dict[type, Callable[[Peer, Any, int], None]] = {
            wire.Hello: self._introduced_twice,
            wire.Call: self._called,
            wire.Return: self._returned,
            wire.Fail: self._failed,
            wire.Publish: self._published,
            wire.Subscribe: self._subscribed,
            wire.Credit: self._credited,
            wire.Problem: self._problem,
            wire.CrashReport: self._crash_report,
            wire.Goodbye: self._goodbye,
            wire.LineTaken: lambda peer, message, size: self._exchange.taken(peer, message),
            wire.LineEnded: lambda peer, message, size: self._exchange.ended(peer, message),
            wire.Done: lambda peer, message, size: self._exchange.done(peer, message.record),
        }
        self._exchange = Exchange(self._post, lambda: self.on_call)
        self._forwarding = Forwarding(
            self._local, self._manifests, self._request_for, lambda: {*self._peers, *self._gone}, self._note
        )

    # -- peers

    @property
    def peers(self) -> list[str]:
        """Names of the processes whose stream is open."""
        return list(self._peers)

    @property
    def manifests(self) -> dict[str, Manifest]:
        """What each process announced, by name; that of one that died stays until it is forgotten or replaced."""
        return dict(self._manifests)

    def add_peer(self, name: str, sock: socket.socket, kind: str = "worker") -> None:
        """Take over the hub's end of a process's socket.

        Parameters
        ----------
        name : str
            Its name in the scope; free again once the process is lost or removed.
        sock : socket.socket
            A connected Unix stream socket. The hub closes it.
        kind : {"worker", "client", "page"}
            ``client`` is the user's program: it may send what handlers declare with ``script=True``; ``page`` what they
            declare with ``page=True``; a worker anything.
        """
        if name in self._peers or name == SUPERVISOR:
            raise ConfigError(f'there is a peer called "{name}" already')
        if kind not in ("worker", "client", "page"):
            raise ConfigError(f"kind is {kind!r}, it must be worker, client or page")
        peer = Peer(name, kind, Connection(sock), self._window_bytes)
        self._peers[name] = peer
        self._gone.pop(name, None)
        self._selector.register(peer.connection.sock, selectors.EVENT_READ, functools.partial(self._ready, peer))

    def remove_peer(self, name: str, reason: str, *, forget: bool = False) -> None:
        """Close a process's stream, if it is open, and fail what it was to answer.

        Parameters
        ----------
        name : str
            Whose.
        reason : str
            Told to those who wait for it, and to those who address it later.
        forget : bool
            Forget its handlers too: it does not come back. Else commands to it fail with PeerDiedError until it does.
        """
        peer = self._peers.get(name)
        if peer is not None:
            self._post(peer, wire.Goodbye(reason))
            self._drop(peer, reason)
        self._gone[name] = reason
        if forget:
            self._manifests.pop(name, None)
            self._gone.pop(name, None)
        self._forget_routes()

    def close(self) -> None:
        """Say goodbye to every process and close the streams. Twice is fine."""
        self._closed = True
        for name in self.peers:
            self.remove_peer(name, "the supervisor closed the bus")

    def statistics(self) -> dict[str, PeerStatistics]:
        """Return the counters and backlogs of each open stream, by name."""
        return {name: peer.statistics(self._exchange.count(peer)) for name, peer in self._peers.items()}

    # -- the supervisor's own commands and events

    def register_local(
        self, kind: type[Command], call: Callable[[str, Any], Any], *, script: bool = True, page: bool = False
    ) -> None:
        """Answer a command in the supervisor itself.

        Parameters
        ----------
        kind : type[Command]
            The command.
        call : callable(sender, command)
            Returns a value, a :class:`Reply` with descriptors, or a :class:`Deferred` to answer later. What it raises goes
            back to the sender.
        script, page : bool
            Whether the user's program, and the scope's web page, may send it.
        """
        self._local.register(kind, call, script=script, page=page)

    def check_routes(self, manifests: Mapping[str, Manifest] | None = None) -> None:
        """Check the routes of a scope before anything runs; see :func:`mutoscope.bus.routes.check_routes`.

        Parameters
        ----------
        manifests : mapping of str to Manifest, optional
            By worker name; those that were announced, when None.
        """
        routes.check_routes(self._manifests if manifests is None else manifests, self._local.identities)

    def request(self, name: str, command: Command, timeout_s: float, on_reply: OnReply | None = None) -> None:
        """Send a command of the supervisor to one process, which may declare it ``delivery="supervisor"``.

        Parameters
        ----------
        name : str
            The process.
        command : Command
            What it is to do.
        timeout_s : float
            After that `on_reply` hears CommandTimeoutError; a reply that comes later is dropped and counted.
        on_reply : callable(value, error), optional
            Called once, from the owner's loop or from within this call: with the reply and None, or with None and the
            exception.
        """
        label = message_name(type(command))
        on_reply = on_reply or _log_reply(name, label)
        packed = msgspec.Raw(payload.encode(command, label))
        peer = self._peers.get(name)
        if peer is None or peer.manifest is None:
            on_reply(None, self._absence(name))
            return
        entry = Outstanding(
            None, 0, SUPERVISOR, label, REQUEST, timeout_s, time.monotonic(), on_reply, reply_type(type(command))
        )
        self._deliver_own(peer, entry, packed)

    def _deliver_own(self, peer: Peer, entry: Outstanding, packed: msgspec.Raw) -> None:
        number = self._deliver(peer, entry, packed, 0)
        self._sequence += 1
        heapq.heappush(self._deadlines, (entry.started + entry.timeout_s, self._sequence, peer, number))
        self._flush()

    def forward(self, sender: str, command: str, to: str | None, packed: bytes, timeout_s: float, on_reply: OnReply) -> None:
        """Send a command for somebody who is no peer; see :class:`mutoscope.bus.forward.Forwarding`."""
        self._forwarding.send(sender, command, to, msgspec.Raw(packed), timeout_s, on_reply)

    def _request_for(
        self, sender: str, name: str, command: str, raw: msgspec.Raw, timeout_s: float, on_reply: OnReply
    ) -> MutoscopeError | None:
        peer = self._peers.get(name)
        if peer is None or peer.manifest is None:
            return self._absence(name)
        entry = Outstanding(None, 0, sender, command, REQUEST, timeout_s, time.monotonic(), on_reply, Any)
        self._deliver_own(peer, entry, raw)
        return None

    def publish(self, event: Event) -> None:
        """Publish an event of the supervisor."""
        name = message_name(type(event))
        self._spread(name, SUPERVISOR, msgspec.Raw(payload.encode(event, name)))
        self._flush()

    def subscribe(self, kind: type[Event], callback: Callable[[Any], None]) -> None:
        """Hear an event in the supervisor; its last value, if there is one, at once."""
        name = message_name(kind)
        self._listeners.setdefault(name, []).append((kind, callback))
        latest = self._latest.get(name)
        if latest is not None:
            callback(payload.decode(latest[1], kind, name))

    def offered_to_page(self) -> dict[str, dict[str, HandlerSpec]]:
        """Return the commands that the page may send to workers, each with the workers that handle it."""
        return self._forwarding.offered()

    # -- time

    def next_deadline(self) -> float | None:
        """Return the `time.monotonic` value at which :meth:`tick` has something to do, or None."""
        while self._deadlines and self._deadlines[0][3] not in self._deadlines[0][2].outstanding:
            heapq.heappop(self._deadlines)
        first = self._deadlines[0][0] if self._deadlines else None
        moments = (first, self._next_sweep, self._exchange.next_deadline())
        return min((moment for moment in moments if moment is not None), default=None)

    def tick(self, now: float | None = None) -> None:
        """Expire what is overdue.

        Parameters
        ----------
        now : float, optional
            `time.monotonic` seconds.
        """
        now = time.monotonic() if now is None else now
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, peer, number = heapq.heappop(self._deadlines)
            entry = peer.outstanding.pop(number, None)
            if entry is not None and entry.on_reply is not None:
                self.expired += 1
                error = CommandTimeoutError(f"{peer.name} did not answer {entry.command} in time")
                self._conclude(peer, entry, "timeout")
                entry.on_reply(None, error)
        if self._next_sweep is not None and self._next_sweep <= now:
            self._sweep(now)
        self._exchange.advance(now)
        self._flush()

    def _sweep(self, now: float) -> None:
        """Forget deliveries whose sender has stopped waiting, and hold nothing back for them."""
        left = False
        for peer in self._peers.values():
            overdue = [
                number
                for number, entry in peer.outstanding.items()
                if entry.origin and not entry.started + entry.timeout_s >= now  # also if it is no number
            ]
            for number in overdue:
                self._conclude(peer, peer.outstanding.pop(number), "timeout")
            self.expired += len(overdue)
            for held in peer.forget_held():
                self._uncharge(held.origin, held.size)
            if not peer.held:
                self._exchange.released(peer)
            left = left or any(entry.origin for entry in peer.outstanding.values())
        self._next_sweep = now + _SWEEP_S if left else None

    # -- sockets

    def _ready(self, peer: Peer, mask: int) -> None:
        if peer.closed:
            return
        if mask & selectors.EVENT_WRITE:
            self._dirty.append(peer)
        if mask & selectors.EVENT_READ:
            self._busy = True
            try:
                self._read(peer)
            finally:
                self._busy = self._burst = False
        if self._dirty:
            self._flush()

    def _read(self, peer: Peer) -> None:
        connection = peer.connection
        try:
            bodies = connection.receive()
            self._burst = len(bodies) > 1
            for body in bodies:
                peer.received += 1
                if peer.manifest is None:
                    self._introduced(peer, body)
                else:
                    message = wire.decode_upward(body)
                    self._actions[type(message)](peer, message, len(body) + wire.HEADER_BYTES)
                if peer.closed:
                    return
        except MalformedError as error:
            logger.error("%s sent what is not a message and is cut off: %s", peer.name, error)
            self._lose(peer, f"its connection was closed, because it sent malformed data: {error}")
            return
        except Exception as error:  # what one process says may not end the scope of all
            logger.exception("%s is cut off: handling what it sent failed", peer.name)
            self._lose(
                peer, f"its connection was closed, because handling what it sent failed: {type(error).__name__}: {error}"
            )
            return
        if connection.ended is not None:
            self._lose(peer, peer.goodbye or connection.ended)

    def _post(self, peer: Peer, message: Any, fds: Sequence[int] = (), *, give: bool = False) -> int:
        """Send a message and return its bytes; of many that are due in one turn of the loop, those to one peer go together."""
        if peer.closed:
            if give:
                close_fds(fds)
            return 0
        packed = wire.pack(message)
        peer.sent += 1
        if fds or self._burst or peer.dirty:
            peer.connection.queue(packed, fds, give=give)
        elif peer.connection.send(packed):
            return len(packed)
        if not peer.dirty:
            peer.dirty = True
            self._dirty.append(peer)
        return len(packed)

    def _flush(self) -> None:
        if self._busy:
            return
        dirty, self._dirty = self._dirty, []
        for peer in dirty:
            peer.dirty = False
            if peer.closed:
                continue
            waiting = not peer.connection.flush()
            peer.note_backlog()
            if peer.connection.unsent_bytes > _MAX_UNSENT_BYTES:
                logger.error("%s does not read what it asked for and is cut off", peer.name)
                self._lose(peer, f"it did not read {peer.connection.unsent_bytes:,} bytes that it asked for")
                continue
            if waiting != peer.writing:
                peer.writing = waiting
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if waiting else 0)
                sock = peer.connection.sock
                self._selector.modify(sock, events, self._selector.get_key(sock).data)

    def _lose(self, peer: Peer, reason: str) -> None:
        if peer.closed:
            return
        self._drop(peer, reason)
        if self.on_peer_lost is not None:
            self.on_peer_lost(peer.name, reason)

    def _drop(self, peer: Peer, reason: str) -> None:
        """Close a stream and answer for the process behind it."""
        peer.connection.flush()
        peer.closed = True
        self._selector.unregister(peer.connection.sock)
        peer.connection.close()
        del self._peers[peer.name]
        self._gone[peer.name] = reason
        self._forget_routes()
        for held in peer.held:
            self._uncharge(held.origin, held.size)
        peer.held.clear()
        outstanding, peer.outstanding = peer.outstanding, {}
        for entry in outstanding.values():
            self._settle(peer, entry, PeerDiedError(f"{peer.name} did not answer {entry.command}: {reason}"))
        self._exchange.drop(peer, reason)
        self._flush()

    # -- what processes say

    def _introduced(self, peer: Peer, body: wire.Body) -> None:
        version = wire.opening_version(body, 1)
        if version is None:
            raise MalformedError("the first message is not Hello")
        if version != wire.WIRE_VERSION:
            reason = f"{peer.name} speaks version {version} of the bus, this supervisor version {wire.WIRE_VERSION}"
            logger.error("%s: it is refused", reason)
            self._post(peer, wire.Refusal(f"{reason}: install the same Mutoscope on both sides"))
            self._lose(peer, reason)
            return
        hello = wire.decode_upward(body)
        if not isinstance(hello, wire.Hello):
            raise MalformedError("the first message is not Hello")
        if hello.name != peer.name:
            raise MalformedError(f'it calls itself "{hello.name}"')
        peer.manifest = hello.manifest
        peer.inbox_bytes = min(max(1, hello.inbox_bytes), _MAX_INBOX_BYTES)
        peer.takes_lines = hello.lines
        if peer.kind == "worker":
            self._manifests[peer.name] = hello.manifest
        self._forget_routes()
        self._post(peer, wire.Welcome(wire.WIRE_VERSION, peer.name))
        if self.on_hello is not None:
            self.on_hello(peer.name, hello.manifest)

    def _introduced_twice(self, peer: Peer, message: wire.Hello, size: int) -> None:
        raise MalformedError("it says hello twice")

    def _called(self, peer: Peer, call: wire.Call, size: int) -> None:
        peer.credit.take(size)
        target = peer.routes.get((call.command, call.to))
        if target is not None and target.has_room and call.kind != BROADCAST:
            target.number = number = target.number + 1
            message = wire.Deliver(number, call.kind, peer.name, call.command, call.payload)
            target.unhandled_bytes += self._post(target, message)  # it is on its way; the book-keeping costs no time now
            entry = Outstanding(peer, call.id, peer.name, call.command, call.kind, call.timeout_s, time.monotonic())
            if self.on_call is not None:
                entry.payload = bytes(call.payload)
            target.outstanding[number] = entry
            peer.credit.owed += size
            if peer.credit.owed >= peer.credit.lump:
                self._uncharge(peer, 0)
            if self._next_sweep is None:
                self._next_sweep = entry.started + _SWEEP_S
            return
        _check_name(call.command)
        if call.command in self._local and (call.to is None or call.to == SUPERVISOR):
            self._uncharge(peer, size)
            self._local.handle(peer, call)
            return
        if call.kind == BROADCAST:
            self._called_all(peer, call, size)
            return
        try:
            target = self._find(peer, call)
        except (MutoscopeError, PermissionError) as error:
            self._uncharge(peer, size)
            self._answer_error(peer, call.id, SUPERVISOR, wire.error_record(error))
            self._note(peer.name, call.to or "", call.command, call.kind, time.monotonic(), error)
            return
        entry = Outstanding(peer, call.id, peer.name, call.command, call.kind, call.timeout_s, time.monotonic())
        self._deliver(target, entry, call.payload, size)

    def _called_all(self, peer: Peer, call: wire.Call, size: int) -> None:
        found = routes.find_broadcast(call.command, self._manifests)
        targets = {name: spec for name, spec in found.items() if name != peer.name}
        if not found:
            one = next((m.handler(call.command) for m in self._manifests.values() if m.handler(call.command)), None)
            why = f"{call.command} is not a broadcast command: use send or request" if one else f"nobody handles {call.command}"
            self._uncharge(peer, size)
            self._answer_error(peer, call.id, SUPERVISOR, wire.error_record(UnknownCommandError(why)))
            return
        self._post(peer, wire.Targets(call.id, tuple(targets)))
        now = time.monotonic()
        self._uncharge(peer, size)
        for name, spec in targets.items():
            entry = Outstanding(peer, call.id, peer.name, call.command, BROADCAST, call.timeout_s, now)
            target = self._peers.get(name)
            try:
                peer.check_permitted(spec)
                if target is None or target.manifest is None:
                    raise self._absence(name)
            except (MutoscopeError, PermissionError) as error:
                self._answer_error(peer, call.id, name, wire.error_record(error))
                self._note(peer.name, name, call.command, BROADCAST, entry.started, error)
            else:
                self._deliver(target, entry, call.payload, 0)

    def _find(self, peer: Peer, call: wire.Call) -> Peer:
        name, spec = routes.find_owner(call.command, call.to, self._manifests, {*self._peers, *self._gone})
        peer.check_permitted(spec)
        if name == peer.name and call.kind == REQUEST:
            raise ConfigError(f"{name} handles {call.command} itself and would wait for itself: call the method")
        target = self._peers.get(name)
        if target is None or target.manifest is None:
            raise self._absence(name)
        if target is not peer:
            peer.routes[call.command, call.to] = target
            self._exchange.offer(peer, target, self._manifests, self._local)
        return target

    def _forget_routes(self) -> None:
        for peer in self._peers.values():
            peer.routes.clear()
        self._exchange.reroute(self._manifests)

    def _absence(self, name: str) -> MutoscopeError:
        if name in self._peers:
            return PeerDiedError(f"{name} is starting and not ready yet")
        if name in self._gone:
            return PeerDiedError(f"{name} is not running: {self._gone[name]}")
        return UnknownCommandError(f'nobody is called "{name}"')

    def _deliver(self, target: Peer, entry: Outstanding, packed: msgspec.Raw, size: int) -> int:
        """Send a command on, or keep it back while the target's inbox is full; return its number there."""
        target.number = number = target.number + 1
        target.outstanding[number] = entry
        message = wire.Deliver(number, entry.kind, entry.sender, entry.command, packed)
        if self.on_call is not None:
            entry.payload = bytes(packed)
        if entry.origin is not None and self._next_sweep is None:
            self._next_sweep = time.monotonic() + _SWEEP_S
        if target.has_room:
            target.unhandled_bytes += self._post(target, message)
            if size and entry.origin is not None:
                self._uncharge(entry.origin, size)
        else:
            target.hold(Held(number, message, entry.origin, size))
        return number

    def _post_charged(self, target: Peer, message: Any) -> None:
        target.unhandled_bytes += self._post(target, message)

    def _uncharge(self, origin: Peer | None, size: int) -> None:
        if origin is not None and not origin.closed:
            due = origin.credit.add(size)
            if due:
                self._post(origin, wire.Credit(due))

    def _credited(self, peer: Peer, message: wire.Credit, size: int) -> None:
        peer.unhandled_bytes -= message.size
        if peer.unhandled_bytes < 0 or message.size < 0:
            raise MalformedError(f"it handled {message.size:,} bytes, more than it was sent")
        if peer.held:
            for held in peer.take_held():
                self._post_charged(peer, held.message)
                self._uncharge(held.origin, held.size)
            if not peer.held:
                self._exchange.released(peer)
        for event in peer.take_latest():
            self._post_charged(peer, event)

    def _returned(self, peer: Peer, message: wire.Return, size: int) -> None:
        entry = peer.outstanding.pop(message.id, None)
        if entry is None or (entry.origin is not None and entry.origin.closed):
            self.late_replies += 1
            return
        if self.on_call is not None:
            self._conclude(
                peer, entry, "ok"
            )  # before the answer: what follows from it may be on a line, and in the audit, at once
        if entry.origin is not None:
            self._post(entry.origin, wire.Answer(entry.id, peer.name, message.payload))
            return
        if entry.on_reply is not None:
            try:
                value = payload.decode(message.payload, entry.reply_type, f"reply of {peer.name} to {entry.command}")
            except BadPayloadError as error:
                entry.on_reply(None, error)
            else:
                entry.on_reply(value, None)

    def _failed(self, peer: Peer, message: wire.Fail, size: int) -> None:
        entry = peer.outstanding.pop(message.id, None)
        if entry is None or (entry.origin is not None and entry.origin.closed):
            self.late_replies += 1
            return
        self._settle(peer, entry, message.error)

    def _settle(self, peer: Peer, entry: Outstanding, error: Exception | ErrorRecord) -> None:
        """Tell whoever waits for `entry` that it failed."""
        record = error if isinstance(error, ErrorRecord) else wire.error_record(error)
        self._conclude(peer, entry, f"{record.type_name}: {record.message}")
        if entry.origin is not None:
            self._answer_error(entry.origin, entry.id, peer.name, record)
        elif entry.on_reply is not None:
            entry.on_reply(None, from_record(record) if isinstance(error, ErrorRecord) else error)

    def _published(self, peer: Peer, message: wire.Publish, size: int) -> None:
        peer.credit.take(size)
        _check_name(message.event)
        self._uncharge(peer, size)
        self._spread(message.event, peer.name, message.payload)

    def _spread(self, event: str, sender: str, packed: msgspec.Raw) -> None:
        packed = msgspec.Raw(bytes(packed))
        kept = self._latest.keep(event, sender, packed)
        for peer in list(self._peers.values()):
            if event in peer.subscriptions:
                if kept or peer.has_room:
                    self._happened(peer, event, sender, packed)
                else:
                    peer.pass_over()
        for kind, callback in self._listeners.get(event, ()):
            try:
                value = payload.decode(packed, kind, event)
            except BadPayloadError as error:
                logger.error("an event of %s does not fit: %s", sender, error)
            else:
                callback(value)

    def _happened(self, peer: Peer, event: str, sender: str, packed: msgspec.Raw) -> None:
        if peer.has_room:
            self._post_charged(peer, wire.Happened(event, sender, packed))
        else:
            peer.keep_latest(event, sender, packed)

    def _subscribed(self, peer: Peer, message: wire.Subscribe, size: int) -> None:
        _check_name(message.event)
        if len(peer.subscriptions) >= MAX_EVENTS:
            raise MalformedError(f"it subscribes to more than {MAX_EVENTS} events")
        peer.subscriptions.add(message.event)
        latest = self._latest.get(message.event)
        if latest is not None:
            self._happened(peer, message.event, *latest)

    def _problem(self, peer: Peer, message: wire.Problem, size: int) -> None:
        sender = self._peers.get(message.peer)
        if sender is not None and sender.connection.unsent_bytes < self._window_bytes:
            self._post(sender, wire.Problem(peer.name, message.command, message.error))
        if self.on_problem is not None:
            self.on_problem(peer.name, message.peer, message.command, from_record(message.error))

    def _crash_report(self, peer: Peer, message: wire.CrashReport, size: int) -> None:
        if self.on_crash_report is not None:
            self.on_crash_report(peer.name, message.error)

    def _goodbye(self, peer: Peer, message: wire.Goodbye, size: int) -> None:
        peer.goodbye = f"it closed its side: {message.reason}"

    def _answered_local(self, peer: Peer, call: wire.Call, started: float, error: Exception | None) -> None:
        self._note(peer.name, SUPERVISOR, call.command, call.kind, started, error, call.payload)
        self._flush()

    def _answer_error(self, peer: Peer, call_id: int, source: str, record: ErrorRecord) -> None:
        self._post(peer, wire.Failure(call_id, source, record))

    # -- the audit

    def _conclude(self, target: Peer, entry: Outstanding, outcome: str) -> None:
        if self.on_call is not None:
            self._audit(entry.sender, target.name, entry.command, entry.kind, entry.started, outcome, entry.payload)

    def _note(
        self,
        sender: str,
        target: str,
        command: str,
        kind: int,
        started: float,
        error: Exception | None,
        packed: msgspec.Raw | None = None,
    ) -> None:
        if self.on_call is not None:
            outcome = "ok" if error is None else f"{type(error).__name__}: {error}"
            self._audit(sender, target, command, kind, started, outcome, b"" if packed is None else bytes(packed))

    def _audit(self, sender: str, target: str, command: str, kind: int, started: float, outcome: str, content: bytes) -> None:
        assert self.on_call is not None
        self._exchange.drain_all()
        took = time.monotonic() - started
        self.on_call(CallRecord(sender, target, command, kind, took, outcome, content, time.time_ns()))


def _check_name(name: str) -> None:
    if len(name) > _MAX_NAME:
        raise MalformedError(f"it names a command or an event with {len(name):,} characters")


def _log_reply(name: str, command: str) -> OnReply:
    def log(value: Any, error: Exception | None) -> None:
        if error is not None:
            logger.warning("%s did not do %s: %s", name, command, error)

    return log
