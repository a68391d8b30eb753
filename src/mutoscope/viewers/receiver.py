"""The half of a viewer that listens: senders are let in by token, items are checked, copied and placed, calls are handed on.

It runs in a thread of its own. Nobody but the user of this process can connect, and what is no message ends its sender's
connection only.
"""

from __future__ import annotations

import hmac
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope.frames import ArenaReader, _os
from mutoscope.model.errors import ConfigError
from mutoscope.viewers import wire
from mutoscope.viewers.account import Counts, Progress, SenderProgress
from mutoscope.viewers.client import ACCOUNT_S, Client, Incoming
from mutoscope.viewers.display import Display
from mutoscope.viewers.roi_pack import PackedRois, unpack_rois
from mutoscope.viewers.wire import MalformedError

__all__ = ["Receiver", "Shown", "Stage"]

log = logging.getLogger(__name__)

_HELLO_S = 10.0
_TICK_S = 1.0
_MOST_CLIENTS = 512
_MOST_PARTIAL = 64
_GOODBYE_S = 1.0
_DEAF_S = 0.2
"""How long nobody is let in after there were no descriptors for it."""
_FULL_S = 60.0
_PAST = 100

Shown = tuple[Client, int, bool]
"""An item whose place is taken and that is to be shown: its sender, its id, whether it is an image."""


class Stage(Protocol):
    """Where items go. Called in the receiver's thread."""

    def place_image(self, client: Client, message: wire.Image, pixels: NDArray[Any]) -> None:
        """Copy an image to its place, and have it shown; whatever it raises is why this item fails."""

    def place_rois(self, client: Client, message: wire.Rois, rois: PackedRois) -> None:
        """The same for ROIs."""

    def call(self, client: Client, call: wire.Call) -> None:
        """Have a call carried out after all that was placed before, and answered by `Receiver.answer`."""

    def left_alone(self) -> None:
        """No sender is there, and none was for a while."""

    def remark(self) -> str:
        """Return what is to be said with the account."""

    def receiver_failed(self, error: BaseException) -> None:
        """The receiver has ended by an error of its own."""


class Receiver:
    """Listens at a socket, in a thread of its own.

    Parameters
    ----------
    stage : Stage
        Where items go.
    path : str
        Of the socket; the caller removes it.
    token : str
        What lets a sender in.
    welcome : Welcome
        What is said to a sender that is let in.
    alone_s : float or None
        After how long without a sender the stage is told.
    """

    def __init__(self, stage: Stage, path: str, token: str, welcome: wire.Welcome, alone_s: float | None) -> None:
        self._stage = stage
        self._token = token
        self._welcome = welcome
        self._alone_s = alone_s
        self._listener = _os.listen_at(path)
        self._bell = _os.create_bell()
        self._clients: dict[int, Client] = {}
        self._past: list[SenderProgress] = []
        self._past_images, self._past_rois = Counts(), Counts()
        self._posted: list[Callable[[], None]] = []
        self._posting = threading.Lock()
        self._alone_since = time.monotonic()
        self._over: wire.Goodbye | None = None
        self._latencies: list[float] = []
        self._displays: dict[bytes, Display] = {}
        self._refused = self._refused_since = 0
        self._said = self._said_full = 0.0
        self._deaf_until: float | None = None
        self._selector = selectors.DefaultSelector()
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="mutoscope-receiver", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, goodbye: wire.Goodbye) -> None:
        """Tell every sender that this viewer ends, and why; then let go of everything. Twice is fine."""
        self.post(lambda: setattr(self, "_over", goodbye))
        if self._thread.is_alive():
            self._thread.join()

    # -- from other threads

    def post(self, job: Callable[[], None]) -> None:
        """Have something done in the receiver's thread."""
        with self._posting:
            self._posted.append(job)
            if self._bell >= 0:
                _os.ring_bell(self._bell)

    def adopt(self, sock: socket.socket, peer: str) -> None:
        """Take a sender on another computer, who was let in by key, from the thread that carries its bytes."""
        self.post(lambda: self._take_in(Client(sock, peer)))

    def count_refused(self) -> None:
        """Count somebody who was not let in."""
        self.post(self._count_refused)

    def stay(self) -> None:
        """Wait for senders however long none is there."""
        self.post(lambda: setattr(self, "_alone_s", None))

    def shown(self, items: list[Shown]) -> None:
        """Tell that items are on the screen now."""
        at_ns = time.monotonic_ns()
        self.post(lambda: self._account_shown(items, at_ns))

    def answer(self, client: Client, call: int, value: Any, error: str = "", array: NDArray[Any] | None = None) -> None:
        """Answer a call; an array goes behind the message."""
        form = None
        if array is not None:
            array = np.ascontiguousarray(array)
            form = wire.Form(list(array.shape), array.dtype.str, array.ndim > 2)
        message = wire.Answer(call, value, error, form)
        self.post(lambda: None if client.ended else client.say(message, array))

    # -- the thread

    def _run(self) -> None:
        try:
            while self._over is None:
                news = any(client.has_news for client in self._clients.values())
                for key, _ in self._selector.select(ACCOUNT_S if news else _TICK_S if self._deaf_until is None else _DEAF_S):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj == self._bell:
                        _os.clear_bell(self._bell)
                    else:
                        self._serve(key.data)
                self._do_posted()
                for client in list(self._clients.values()):
                    self._write(client)
                self._look_around()
        except BaseException as error:  # an adapter may exit in its thread, too: the viewer ends then
            log.exception("the receiver failed")
            self._over = wire.Goodbye(f"the viewer's receiver failed: {type(error).__name__}: {error}"[:2000], by_user=False)
            self._stage.receiver_failed(error)
        finally:
            self._end()

    def _do_posted(self) -> None:
        with self._posting:
            jobs, self._posted = self._posted, []
        for job in jobs:
            job()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # out of descriptors: the listener stays readable, so it is not looked at for a while
            self._selector.unregister(self._listener)
            now = time.monotonic()
            self._deaf_until = now + _DEAF_S
            if now - self._said_full > _FULL_S:
                self._said_full = now
                log.warning("a sender waits to be let in: %s; that is tried again, and said once a minute", error)
            return
        self._take_in(Client(sock))

    def _listen_again(self) -> None:
        if self._deaf_until is not None:
            self._deaf_until = None
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _take_in(self, client: Client) -> None:
        _, uid, _ = _os.peer_credentials(client.sock)
        if uid != os.getuid() or len(self._clients) >= _MOST_CLIENTS:
            self._refuse(client, f"it is of user {uid}" if uid != os.getuid() else f"there are {_MOST_CLIENTS} already")
            client.close()
            return
        self._clients[client.sock.fileno()] = client
        self._selector.register(client.sock, selectors.EVENT_READ, client)

    def _serve(self, client: Client) -> None:
        try:
            for message, behind in client.read():
                if client.hello is None:
                    self._welcome_to(client, message)
                else:
                    self._take(client, message, behind)
        except (MalformedError, OSError) as error:
            self._refuse(client, str(error)[:300])
            client.ended = True
        if client.ended:
            self._drop(client)

    def _welcome_to(self, client: Client, message: wire.FromSink) -> None:
        if not isinstance(message, wire.Hello):
            raise MalformedError("it began without a greeting")
        refused = ""
        if not client.peer and not hmac.compare_digest(message.token.encode(), self._token.encode()):
            refused = "the token is wrong"
        elif message.version != wire.WIRE_VERSION:
            refused = f"the viewer speaks version {wire.WIRE_VERSION} of the protocol, the sender {message.version}"
        else:
            try:
                client.display = self._display(message.display)
            except (ConfigError, TypeError, msgspec.MsgspecError) as error:
                refused = f"its Display cannot be: {error}"
        shared = self._map(client, message) if not refused else False
        client.say(msgspec.structs.replace(self._welcome, shared=shared, refused=refused))
        if refused:
            self._refuse(client, refused)
            client.ended = True
            return
        client.hello = message
        if message.role == "send":
            how = f"from {client.peer}" if client.peer else "by shared memory" if shared else "in band"
            log.info("process %d (%s) sends, %s", message.pid, message.program, how)

    def _display(self, values: dict[str, Any]) -> Display:
        """The same object for senders that want the same."""
        key = msgspec.json.encode(values)
        found = self._displays.get(key)
        if found is None:
            found = self._displays[key] = Display.from_dict(values)
        return found

    def _refuse(self, client: Client, why: str) -> None:
        """Count it; the log says it at most once a second."""
        self._refused += 1
        self._refused_since += 1
        if time.monotonic() - self._said > _TICK_S:
            who = client.peer or f"process {_os.peer_credentials(client.sock)[0]}"
            log.warning("%d connections were ended, the last that of %s: %s", self._refused_since, who, why)
            self._refused_since, self._said = 0, time.monotonic()

    def _count_refused(self) -> None:
        self._refused += 1

    def _map(self, client: Client, hello: wire.Hello) -> bool:
        fd = client.take_descriptor()
        if fd is None:
            return False
        try:
            client.arena = ArenaReader(fd)
        except (OSError, ValueError) as error:
            log.info("the shared memory of process %d cannot be mapped, its images come in band: %s", hello.pid, error)
            return False
        return True

    # -- items

    def _take(self, client: Client, message: wire.FromSink, behind: NDArray[np.uint8] | None) -> None:
        match message:
            case wire.Image():
                client.sent(message.id, True, message.sent_ns)
                self._begin(client, message, message.form.nbytes(), message.nbytes, message.at, behind)
            case wire.Rois():
                client.sent(message.id, False, message.sent_ns)
                self._begin(client, message, message.total, message.nbytes, message.at, behind)
            case wire.Part():
                self._go_on(client, message, behind)
            case wire.Abort():
                found = client.partial.pop(message.id, None)
                if found is not None:
                    client.failed(message.id, isinstance(found.message, wire.Image), "the sender gave it up")
            case wire.Tally():
                client.images.dropped, client.rois.dropped = message.images, message.rois
            case wire.Call():
                self._call(client, message)
            case _:
                raise MalformedError("a second greeting")

    def _begin(
        self,
        client: Client,
        message: wire.Image | wire.Rois,
        total: int,
        nbytes: int,
        at: int,
        behind: NDArray[np.uint8] | None,
    ) -> None:
        try:
            data = _bytes(client, at, nbytes, behind)
            if nbytes < total and len(client.partial) >= _MOST_PARTIAL:
                raise MalformedError("too many items at a time")
        except MalformedError as error:
            client.failed(message.id, isinstance(message, wire.Image), str(error))
            raise
        if nbytes == total:
            self._place(client, message, data)
            return
        try:
            incoming = Incoming(message, total)
        except MemoryError:
            client.failed(message.id, isinstance(message, wire.Image), f"no memory for {total:,} bytes")
            return
        client.partial[message.id] = incoming
        incoming.fill(data)

    def _go_on(self, client: Client, part: wire.Part, behind: NDArray[np.uint8] | None) -> None:
        data = _bytes(client, part.at, part.nbytes, behind)
        incoming = client.partial.get(part.id)
        if incoming is None:
            return  # it failed when it began
        if incoming.fill(data):
            del client.partial[part.id]
            self._place(client, incoming.message, incoming.bytes)

    def _place(self, client: Client, message: wire.Image | wire.Rois, data: NDArray[np.uint8]) -> None:
        is_image = isinstance(message, wire.Image)
        try:
            if isinstance(message, wire.Image):
                pixels: NDArray[Any] = np.ndarray(message.form.shape, message.form.kind(), data)
                self._stage.place_image(client, message, pixels)
            else:
                # the vertices stay views of what they came in
                self._stage.place_rois(client, message, unpack_rois(data.copy()))
        except Exception as error:
            if not isinstance(error, ConfigError | MemoryError):
                log.exception("%r could not be placed", message.name)
            client.failed(message.id, is_image, _reason(error))
        client.received(message.id, is_image, data.nbytes)

    def _account_shown(self, items: list[Shown], at_ns: int) -> None:
        for client, number, is_image in items:
            sent_ns = client.oldest.get(number)
            if sent_ns is not None:
                self._latencies.append((at_ns - sent_ns) / 1e6)
            client.displayed(number, is_image, at_ns)
            if client.ended:
                (self._past_images if is_image else self._past_rois).displayed += 1
        if len(self._latencies) > 20000:
            del self._latencies[:10000]

    # -- calls

    def _call(self, client: Client, call: wire.Call) -> None:
        if call.what == "progress":
            client.say(wire.Answer(call.id, self.progress(), ""))
        else:
            self._stage.call(client, call)

    def progress(self) -> Progress:
        """Return the account of all senders. In the receiver's thread."""
        images, rois = Counts(), Counts()
        images.add(self._past_images)
        rois.add(self._past_rois)
        senders = list(self._past)
        oldest = None
        for client in self._clients.values():
            if client.hello is not None and client.hello.role == "send":
                images.add(client.images)
                rois.add(client.rois)
                senders.append(client.report())
                first = min(client.oldest.values(), default=None)
                oldest = first if oldest is None or (first is not None and first < oldest) else oldest
        late = sorted(self._latencies[-10000:])
        return Progress(
            viewer=self._welcome.name,
            state="connected",
            images=images,
            rois=rois,
            oldest_pending_s=0.0 if oldest is None else max(0.0, (time.monotonic_ns() - oldest) / 1e9),
            latency_ms=late[len(late) // 2] if late else None,
            latency_p99_ms=late[min(len(late) - 1, len(late) * 99 // 100)] if late else None,
            senders=senders,
            refused=self._refused,
            remark=self._stage.remark(),
        )

    # -- coming and going

    def _write(self, client: Client) -> None:
        left = client.write()
        if client.ended:
            self._drop(client)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if left else 0)
        key = self._selector.get_key(client.sock)
        if key.events != wanted:
            self._selector.modify(client.sock, wanted, client)

    def _drop(self, client: Client) -> None:
        if self._clients.pop(client.sock.fileno(), None) is None:
            return
        self._selector.unregister(client.sock)
        hello = client.hello
        for number, incoming in client.partial.items():
            client.failed(number, isinstance(incoming.message, wire.Image), "the sender ended in the middle of it")
        client.close()
        if hello is not None and hello.role == "send":
            self._past_images.add(client.images)
            self._past_rois.add(client.rois)
            self._past = [*self._past, client.report()][-_PAST:]
            log.info("process %d has gone: %s", hello.pid, _told(client))
        self._alone_since = time.monotonic()
        self._listen_again()

    def _look_around(self) -> None:
        now = time.monotonic()
        if self._deaf_until is not None and now > self._deaf_until:
            self._listen_again()
        for client in list(self._clients.values()):
            if client.hello is None and now - client.since > _HELLO_S:
                self._refuse(client, "it said nothing")
                self._drop(client)
        if self._alone_s is not None and not self._clients and now - self._alone_since > self._alone_s:
            self._stage.left_alone()

    def _end(self) -> None:
        goodbye = self._over or wire.Goodbye("the viewer ended", by_user=False)
        self._do_posted()
        end = time.monotonic() + _GOODBYE_S
        for client in list(self._clients.values()):
            client.say(goodbye)
            while client.write(at_once=True) and _os.wait_writable(client.sock.fileno(), end - time.monotonic()):
                pass
            client.close()
        self._clients.clear()
        self._selector.close()
        self._listener.close()
        with self._posting:
            bell, self._bell = self._bell, -1
            os.close(bell)


def _bytes(client: Client, at: int, nbytes: int, behind: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    if at == wire.BEHIND:
        if (0 if behind is None else len(behind)) != nbytes:
            raise MalformedError("another number of bytes behind a message than it says")
        return behind if behind is not None else np.empty(0, np.uint8)
    if client.arena is None or behind is not None:
        raise MalformedError("shared memory that there is not")
    try:
        return client.arena.view(at, nbytes)
    except ValueError as error:
        raise MalformedError(str(error)) from None


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"the viewer has no memory for it ({error})"
    return str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"


def _told(client: Client) -> str:
    images, rois = client.images, client.rois
    return f"{images.displayed} of {images.sent} images and {rois.displayed} of {rois.sent} lists of ROIs were displayed"
