"""A viewer: a receiver, the display model, and an adapter that shows it, in one process.

:class:`ViewerCore` owns the socket, its announcement and the receiver's thread; the adapter owns the window.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError, MutoscopeError
from mutoscope.model.roi import Roi
from mutoscope.viewers import wire
from mutoscope.viewers.account import Progress, Watched
from mutoscope.viewers.adapter import ViewerAdapter
from mutoscope.viewers.announce import announce, private_folder, withdraw
from mutoscope.viewers.client import Client
from mutoscope.viewers.model import DisplayModel
from mutoscope.viewers.receiver import Receiver, Shown
from mutoscope.viewers.roi_pack import PackedRois, pack_rois
from mutoscope.viewers.watching.scopes import ScopeAddress

if TYPE_CHECKING:
    from mutoscope.viewers.remote.gate import Gate
    from mutoscope.viewers.watching.watches import Watches

__all__ = ["Listening", "ViewerCore", "log_file"]

log = logging.getLogger(__name__)

_SHORTEST_PAUSE_S = 0.008
_LONGEST_PAUSE_S = 0.5


def log_file(name: str) -> Path:
    """Return where the viewer of this name writes its log: a file that only its user can read."""
    return private_folder() / f"viewer-{re.sub(r'[^A-Za-z0-9_-]', '_', name)}.log"


class Listening(msgspec.Struct, frozen=True):
    """Where a viewer lets senders from other computers in, and the key by which they know it, with its owner's name for it."""

    address: str
    name: str
    key: str


class ViewerCore:
    """Receives, places, and has the adapter show it.

    Parameters
    ----------
    adapter : ViewerAdapter
        What shows layers.
    kind : str
        As it was asked for in ``viewers.open``.
    name : str
        Its name, by which others find it.
    """

    def __init__(self, adapter: ViewerAdapter, kind: str, name: str) -> None:
        self.name = name
        self._adapter = adapter
        self._kind = kind
        self._model = DisplayModel(adapter.defaults)
        self._lock = threading.Lock()
        self._to_show: list[Shown] = []
        self._scheduled = False
        self._shown_at = 0.0
        self._pause_s = _SHORTEST_PAUSE_S
        self._thread = 0
        self._receiver: Receiver | None = None
        self._gate: Gate | None = None
        self._file: Path | None = None
        self._watches: Watches | None = None
        self._goodbye = wire.Goodbye("the viewer was closed", by_user=True)
        self.failure: BaseException | None = None
        """What ended it, other than a person or a call."""

    # -- life

    def start(self) -> None:
        """Listen and announce it. Call it in the thread of the window system."""
        self._thread = threading.get_ident()
        path = private_folder() / f"viewer-{os.getpid()}.sock"
        path.unlink(missing_ok=True)
        token = secrets.token_urlsafe(32)
        welcome = wire.Welcome(wire.WIRE_VERSION, self.name, self._kind, os.getpid(), False, str(log_file(self.name)))
        self._receiver = Receiver(self, str(path), token, welcome, self._adapter.alone_s)
        self._receiver.start()
        try:
            self._file = announce("viewer", self.name, str(path), self._adapter.address, token, os.getpid(), self._kind)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        self._adapter.began(self)

    def stop(self) -> None:
        """Tell the senders, and let go of everything but the window. Twice is fine."""
        if self._file is not None:
            withdraw(self._file)
            self._file = None
        if self._watches is not None:
            self._watches.close()
        if self._receiver is not None:
            self._receiver.stop(self._goodbye)
            self._receiver = None
        if self._gate is not None:
            self._gate.stop()
            self._gate = None

    def run(self) -> None:
        """Show until a person, or a call, ends it; raises what made it fail."""
        try:
            self._adapter.run()
        except BaseException as error:  # noqa: BLE001 - the senders are told before it goes on
            self._fail(error)
        finally:
            self.stop()
            self._adapter.close()
        if self.failure is not None:
            raise self.failure

    def end(self, reason: str) -> None:
        """End it in order, as a person would; from any thread."""
        self._goodbye = wire.Goodbye(reason, by_user=True)
        self._adapter.stop()

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error
            reason = f"the viewer failed: {type(error).__name__}: {error}"
            self._goodbye = wire.Goodbye(reason[:2000], by_user=False)
            self._adapter.stop()

    def ask_progress(self, answer: Callable[[Progress], None]) -> None:
        """Have `answer` called with the account of all senders, in the receiver's thread; never after `stop`."""
        receiver = self._receiver
        if receiver is not None:
            receiver.post(lambda: answer(receiver.progress()))

    # -- what a person draws

    def roi_changed(self, layer_id: str, roi: Roi) -> None:
        """A person has drawn or changed a ROI in an editable layer: this is the whole of it now. From any thread.

        The layer holds it from now on, and `ViewerAdapter.show_rois` is not called for it. Called again before it has reached
        the scope, only the last one goes there. If the scope refuses it, `show_rois` brings what the scope has.

        Parameters
        ----------
        layer_id : str
            A `RoiLayer` that is editable. For one that is gone by now, or not editable, nothing happens.
        roi : Roi
            With the id that it has in the layer; a new one with a new id.
        """
        self._edit(layer_id, roi.id, roi)

    def roi_removed(self, layer_id: str, roi_id: str) -> None:
        """A person has removed a ROI from an editable layer; otherwise as `roi_changed`."""
        self._edit(layer_id, roi_id, None)

    def layer_closed(self, layer_id: str) -> None:
        """A person has closed a live layer of images: it is not shown again, and no frames are asked for. From any thread.

        With the last layer of a scope, that is watched no more. For any other layer nothing happens.
        """
        if self._watches is not None:
            self._watches.close_layer(layer_id)

    def _edit(self, layer_id: str, roi_id: str, roi: Roi | None) -> None:
        if self._watches is not None:
            self._watches.edit(layer_id, roi_id, roi)

    # -- running scopes

    def watch(self, address: ScopeAddress, settled: Callable[[Watched | None], None] = lambda _: None) -> None:
        """Show a running scope: the newest frame of each camera, marks from its tables, and its ROIs. From any thread.

        Returns at once. `settled` is called once, from whatever thread, when the scope is seen or cannot be; with None if it is
        watched no more before. `watched` tells what becomes of it. The scope is watched until it ends, `unwatch` is called, a
        person closes its layers, or the viewer ends. If it is watched already, that goes on.

        Raises
        ------
        BackendUnavailableError
            If what this needs is not installed; says how to get it.
        ConfigError
            If it is shown already, through a link with another token.
        """
        with self._lock:
            if self._watches is None:
                from mutoscope.viewers.watching.watches import Watches

                self._watches = Watches(self._kind, self._schedule, self._tell)
        self._watches.begin(address, settled)

    def unwatch(self, scope: str | None = None) -> None:
        """Watch the scope of this name, or whose page has this address, no more, or none any more; its layers go. From any
        thread.

        Raises
        ------
        ConfigError
            If it is not watched.
        """
        if self._watches is not None:
            self._watches.end(scope)
        elif scope is not None:
            raise ConfigError(f"{scope} is not watched here")

    def watched(self) -> list[Watched]:
        """Return the scopes that are watched, and what was shown of them. From any thread."""
        return [] if self._watches is None else self._watches.report()

    def _tell(self, text: str) -> None:
        self._adapter.call_soon(lambda: self._adapter.tell(text))

    # -- what the receiver brings, in its thread

    def place_image(self, client: Client, message: wire.Image, pixels: NDArray[Any]) -> None:
        """See `Stage`."""
        rgb = message.form.rgb
        self._adapter.check_image(pixels.dtype, pixels.shape, rgb)
        with self._lock:
            self._model.put_image(client.display, message.source, message.folder, message.place, message.axes, pixels, rgb)
            self._to_show.append((client, message.id, True))
            scheduled = self._scheduled
        if not scheduled:
            self._schedule()

    def place_rois(self, client: Client, message: wire.Rois, rois: PackedRois) -> None:
        """See `Stage`."""
        with self._lock:
            self._model.put_rois(client.display, message.source, message.folder, message.place, rois)
            self._to_show.append((client, message.id, False))
        self._schedule()

    def call(self, client: Client, call: wire.Call) -> None:
        """See `Stage`."""
        self._adapter.call_soon(lambda: self._carry_out(client, call))

    def left_alone(self) -> None:
        """See `Stage`."""
        watches = self._watches is not None and self._watches.live
        if not watches and not self._adapter.is_looked_at():
            self.end("no sender was left")

    def remark(self) -> str:
        """See `Stage`."""
        return self._adapter.remark()

    def receiver_failed(self, error: BaseException) -> None:
        """See `Stage`."""
        self._fail(error)

    def _schedule(self) -> None:
        """Have the window system show what is new, soon, and not more often than it can."""
        with self._lock:
            if self._scheduled:
                return
            self._scheduled = True
            wait_s = self._shown_at + self._pause_s - time.monotonic()
        self._adapter.call_soon(self._show, max(0.0, wait_s))

    # -- in the thread of the window system

    def _show(self) -> None:
        try:
            self._show_changes()
        except Exception as error:
            log.exception("the viewer failed while it showed what came")
            self._fail(error)

    def _show_changes(self) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError("layers are shown in the thread of the window system only")
        began = time.monotonic()
        with self._lock:
            self._scheduled = False
            changes = self._model.take_changes()
            items, self._to_show = self._to_show, []
        if self._watches is not None:
            live = self._watches.take_changes()
            changes.removed += live.removed
            changes.images += live.images
            changes.rois += live.rois
        adapter = self._adapter
        for gone in changes.removed:
            adapter.remove(gone)
        for images in changes.images:
            adapter.show_images(images)
        for rois in changes.rois:
            adapter.show_rois(rois)
        if self._watches is not None:
            self._watches.shown()
        if items and self._receiver is not None:
            self._receiver.shown(items)
        self._shown_at = time.monotonic()
        self._pause_s = min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, 2 * (self._shown_at - began)))

    def _carry_out(self, client: Client, call: wire.Call) -> None:
        self._show()
        if self.failure is not None or self._receiver is None:
            return
        value: Any = None
        array: NDArray[Any] | None = None
        problem = ""
        try:
            if call.what == "watch" and not client.peer:
                self._watch_for(client, call)
                return
            value, array = self._answer(client, call.what, call.arguments)
            if array is not None and array.nbytes > wire.MAX_ANSWER:
                raise ConfigError(f"an answer of {array.nbytes:,} bytes is more than can be sent")
        except (MutoscopeError, msgspec.ValidationError, LookupError, TypeError, ValueError) as error:
            problem = str(error) or type(error).__name__
        except OSError as error:  # no more descriptors, say: what it shows stays
            log.warning("%r could not be done: %s", call.what, error)
            problem = f"the viewer {self.name!r} cannot do that now: {error.strerror or error}; its log: {log_file(self.name)}"
        except Exception as error:
            log.exception("the viewer failed at %r", call.what)
            self._fail(error)
            return
        self._receiver.answer(client, call.id, value, problem, array)
        if call.what == "quit" and not problem:
            self.end("it was asked to end")

    def _watch_for(self, client: Client, call: wire.Call) -> None:
        """Watch a scope; the call is answered when it is seen, or cannot be."""

        def settled(found: Watched | None) -> None:
            receiver = self._receiver
            if receiver is not None:
                receiver.answer(client, call.id, found, "", None)

        self.watch(ScopeAddress(**msgspec.convert(call.arguments, dict[str, Any])), settled)

    def _listen(self, address: str) -> Listening:
        """Let senders from other computers in, from now on."""
        from mutoscope.viewers.remote.address import address_of
        from mutoscope.viewers.remote.gate import Gate

        wanted = address_of(address, listens=True)
        receiver = self._receiver
        assert receiver is not None
        if self._gate is None or not self._gate.is_open:
            self._gate = Gate(wanted, receiver.adopt, receiver.count_refused)
            self._gate.start()
            receiver.stay()
        elif self._gate.address != wanted and (wanted.host, wanted.port) != (self._gate.address.host, 0):
            raise ConfigError(f"the viewer {self.name!r} listens at {self._gate.address} already")
        return Listening(str(self._gate.address), self._gate.key.name, self._gate.key.public)

    def _answer(self, client: Client, what: str, arguments: dict[str, Any]) -> tuple[Any, NDArray[Any] | None]:
        match what:
            case "clear":
                source = msgspec.convert(arguments.get("source"), str | None)
                with self._lock:
                    self._model.clear(source)
                self._show_changes()
                return None, None
            case "screenshot":
                return None, self._adapter.screenshot()
            case "layers":
                return self._adapter.held_layers(), None
            case "plane":
                plane = self._adapter.held_plane(*_place(arguments))
                return None, np.ascontiguousarray(plane)
            case "rois":
                packed = pack_rois(self._adapter.held_rois(*_place(arguments)))
                return None, np.frombuffer(packed, np.uint8).reshape(1, -1)
            case "draw" if not client.peer:
                self._adapter.draw(_layer(arguments), msgspec.convert(arguments.get("roi"), Roi, strict=False))
                return None, None
            case "erase" if not client.peer:
                self._adapter.erase(_layer(arguments), msgspec.convert(arguments.get("roi_id"), str))
                return None, None
            case "listen" if not client.peer:
                return self._listen(msgspec.convert(arguments.get("address"), str)), None
            case "unwatch" if not client.peer:
                self.unwatch(msgspec.convert(arguments.get("scope"), str | None))
                return None, None
            case "give up" if not client.peer:
                if self._watches is not None:
                    self._watches.give_up(ScopeAddress(**msgspec.convert(arguments, dict[str, Any])))
                return None, None
            case "watched" if not client.peer:
                return self.watched(), None
            case "quit":
                return self._adapter.stays, None
            case _:
                raise ConfigError(f"this viewer does not know {what!r}")


def _layer(arguments: dict[str, Any]) -> str:
    return msgspec.convert(arguments.get("layer"), str)


def _place(arguments: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    return _layer(arguments), tuple(msgspec.convert(arguments.get("index"), list[int]))
