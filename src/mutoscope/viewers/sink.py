"""A viewer as a sink: takes what any store takes, and keeps an exact account of what was shown."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import logging
import multiprocessing.util
import numbers
import os
import secrets
import threading
import time
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope.frames import _os
from mutoscope.model import arguments
from mutoscope.model.errors import ConfigError, ItemsFailedError, PeerDiedError, ViewerTimeoutError, ViewerUnavailableError
from mutoscope.model.filenames import ParserLike, get_parser
from mutoscope.model.roi import Roi
from mutoscope.storage.interface import DataSink, Name
from mutoscope.viewers.account import Progress, Watched
from mutoscope.viewers.adapter import HeldLayer
from mutoscope.viewers.display import Display
from mutoscope.viewers.items import MOST_TEXT, Item, item_of, items_of, sendable
from mutoscope.viewers.launch import find, say_link
from mutoscope.viewers.registry import check_viewer
from mutoscope.viewers.roi_pack import unpack_rois
from mutoscope.viewers.sender import Policy, Sender, SenderSettings, ask
from mutoscope.viewers.watching.scopes import address_of, checked_scope, url_of
from mutoscope.viewers.watching.watch import check_can_watch

if TYPE_CHECKING:
    from mutoscope.viewers.remote.dial import Remote

__all__ = ["EXIT_S", "Until", "ViewerSink", "checked_name", "open_viewer", "progress"]

log = logging.getLogger(__name__)

Until = Literal["queued", "received", "displayed"]
_UNTIL = get_args(Until)

WINDOW_BYTES = 32 << 20
EXIT_S = 5.0
"""How long a script that ends without `wait` goes on for what is not displayed."""
UNKNOWN = "unknown"
_MOST_NAME = 64
_LOOK_S = 0.02
_TOLD = 5


class ViewerSink(DataSink):
    """Sends images and ROIs to a viewer, which is attached to if it is open and started if it is not.

    Any number of threads may use one. It can be pickled; copies in another process, also in a forked one, connect by themselves
    at their first `save`. All copies in a process share a connection and an account.

    Parameters
    ----------
    address : str, optional
        The viewer's name; that of its kind if not given. Viewers of several names stand beside each other. Of one on another
        computer, where it listens: ``"tcp://host:port"``.
    kind : str
        A viewer of `mutoscope.viewers`, or ``"module:Class"`` of an adapter of your own.
    filenames : str or NameParser, optional
        Whose names those of the items are; by default every known one is tried.
    display : Display, optional
        How items are arranged.
    policy : {"block", "drop"}
        What `save` does when the viewer does not keep up: waits, or drops the item, which is counted. After one time-out a
        sink that waits drops, too, until the viewer answers.
    timeout_s : float
        Longest wait.
    window_bytes : int
        Most bytes on their way; so much shared memory is taken.
    required : bool
        Whether it is an error that there is no viewer. If not, an absent or closed one neither fails nor slows a pipeline: what
        is not sent is counted, and said once.
    overwrite : bool
        Has no effect: an item sent again replaces the one at its place.
    key : str, optional
        Of a viewer on another computer: as which its key is trusted here (``mutoscope keys trust``). By default the one named
        as that computer, else the only one.
    compression : {"lz4", "zstd"}, optional
        Of what is sent to another computer; for slow networks.

    Raises
    ------
    ConfigError
        If one of them cannot be.
    ViewerUnavailableError
        If `required`, and it cannot be started.
    """

    def __init__(
        self,
        address: Name | None = None,
        *,
        kind: str,
        filenames: ParserLike | None = None,
        display: Display | None = None,
        policy: Policy = "block",
        timeout_s: float = 30.0,
        window_bytes: int = WINDOW_BYTES,
        required: bool = False,
        overwrite: bool = False,
        key: str | None = None,
        compression: str | None = None,
    ) -> None:
        if not _is_afar(address):
            checked_name(kind, address)
        super().__init__(address, filenames=filenames, overwrite=overwrite)
        window_bytes = arguments.whole("window_bytes", window_bytes, 1 << 16)
        remote = _remote_of(address, key, compression, window_bytes)
        if remote is None:
            check_viewer(kind)
        if display is not None and not isinstance(display, Display):
            raise ConfigError(f"display is a mutoscope.viewers.Display, not {arguments.shown(display)}")
        if policy not in get_args(Policy):
            raise ConfigError(f"policy is 'block' or 'drop', not {arguments.shown(policy)}")
        self._settings = SenderSettings(
            kind=kind,
            name=checked_name(kind, address) if remote is None else str(remote.address),
            display=display or Display(),
            policy=policy,
            timeout_s=arguments.more_than_zero("timeout_s", timeout_s),
            window_bytes=window_bytes,
            required=arguments.flag("required", required),
            remote=remote,
        )
        self._parser = get_parser("auto") if self.filenames is None else self.filenames
        self._token = secrets.token_hex(8)

    @property
    def _sender(self) -> Sender:
        """What all copies of this sink in this process send through."""
        found = _senders.get(self._token)
        return found if found is not None else _begin(self._token, self._settings)

    # -- what it is

    @property
    def name(self) -> str:
        """The viewer's name."""
        return self._settings.name

    @property
    def started(self) -> bool:
        """Whether this sink has started the viewer; False where it was open already, or is not there."""
        return self._sender.started

    @property
    def log(self) -> str:
        """Where the viewer writes its log; empty before the first connection."""
        return self._sender.log

    @property
    def link(self) -> str:
        """Where a person looks at a viewer that has no window of its own, with the token that lets them in; else empty."""
        found = find(self._settings.name, self._settings.kind)
        return "" if found is None else found.link

    def __str__(self) -> str:
        return f"ViewerSink({self._settings.name!r})"

    def __repr__(self) -> str:
        sender = _senders.get(self._token)
        state = "not connected" if sender is None else sender.state
        return f"ViewerSink({self._settings.name!r}, kind={self._settings.kind!r}, state={state!r})"

    def connect(self) -> bool:
        """Attach to the viewer, or start it, waiting for at most `timeout_s`; returns whether it is there.

        Raises
        ------
        ViewerUnavailableError
            If it is required, and is not.
        """
        self._check_open()
        return self._sender.connect(self._settings.timeout_s)

    # -- items

    def save(
        self,
        data: Any,
        name: Name,
        *,
        overwrite: bool | None = None,
        source: str | None = None,
        images_dir: Name | None = None,
        until: Until = "queued",
    ) -> None:
        """Send one item; see `save_batch`."""
        self._check_open()
        item = item_of(data, name, self._parser)
        self._send([] if item is None else [item], source, images_dir, until)

    def save_batch(
        self,
        data: Iterable[Any],
        names: Iterable[Name],
        *,
        overwrite: bool | None = None,
        source: str | None = None,
        images_dir: Name | None = None,
        until: Until = "queued",
    ) -> None:
        """Send several items in order. All are checked before the first is sent.

        Parameters
        ----------
        data : iterable
            Planes ``(y, x)``, stacks (axes before it, as OME orders them), RGB ``(…, y, x, 3)`` of uint8 or uint16, of any
            library, bool, integer or float; or lists of Roi, where an empty one clears its plane. Copied before return. Text is
            left out, which the log says once.
        names : iterable of str or path
            As the microscope wrote them, with or without folders, relative or absolute: what they say is where items belong.
        overwrite : bool, optional
            Has no effect: an item sent again replaces the one at its place.
        source : str, optional
            The step of the pipeline that made them; ``"unknown"`` if not given.
        images_dir : path, optional
            The folder of the images that ROIs belong to: they lie on the source whose images are from there.
        until : {"queued", "received", "displayed"}
            When to return: once all are copied, once the viewer has them, or once they are on its screen.

        Raises
        ------
        ConfigError
            Names the item that cannot be shown or placed; nothing was sent.
        ItemsFailedError
            `until` is not ``"queued"``, and the viewer could not show some of them.
        ViewerUnavailableError, ViewerTimeoutError
            The viewer is required, and is not there or does not answer in time.
        """
        self._check_open()
        self._send(items_of(data, names, self._parser), source, images_dir, until)

    def _send(self, items: list[Item], source: str | None, images_dir: Name | None, until: Until) -> None:
        if until not in _UNTIL:
            raise ConfigError(f"until is 'queued', 'received' or 'displayed', not {arguments.shown(until)}")
        step = UNKNOWN if source is None else _short("source", sendable(arguments.text("source", source)))
        folder = "" if images_dir is None else _short("images_dir", _folder(images_dir))
        sender = self._sender
        numbers = []
        for item in items:
            where = folder or os.path.normpath(os.path.dirname(item.name)) if "/" in item.name else folder
            numbers.append(sender.put(item, step, where))
        if until != "queued":
            self._wait([number for number in numbers if number is not None], until, self._settings.timeout_s)

    # -- what became of them

    def wait(self, timeout_s: float | None = None, until: Until = "displayed") -> Progress:
        """Wait until everything that was sent is displayed, or received.

        Parameters
        ----------
        timeout_s : float, optional
            Longest wait in seconds; that of the sink if not given.
        until : {"displayed", "received"}
            What to wait for.

        Returns
        -------
        Progress
            The account. What was dropped, or lost with a viewer that is not required, is in it, and is no error.

        Raises
        ------
        ItemsFailedError
            If the viewer could not show some item since this was last asked; the message says which and why.
        ViewerTimeoutError
            If the time is up.
        """
        self._check_open()
        limit = self._settings.timeout_s if timeout_s is None else arguments.number("timeout_s", timeout_s)
        if not self._wait(None, until, limit):
            found = self.progress()
            raise ViewerTimeoutError(f"not all is {until} after {limit:g} s: {found.summary()}")
        return self.progress()

    def _wait(self, numbers: Collection[int] | None, until: Until, timeout_s: float) -> bool:
        sender = self._sender
        done = sender.wait_for(lambda: sender.is_done(numbers, until == "received"), timeout_s)
        with sender.turn:
            refused = sender.books.refused
            chosen = list(refused) if numbers is None else [number for number in numbers if number in refused]
            failed = [refused.pop(number) for number in chosen]
        if failed:
            told = "; ".join(f"{name!r}: {reason}" for name, reason in failed[:_TOLD])
            more = f"; and {len(failed) - _TOLD} more" if len(failed) > _TOLD else ""
            raise ItemsFailedError(f"{len(failed)} items were not shown by the viewer {self.name!r}: {told}{more}")
        if not done and numbers is not None:
            if self._settings.required:
                raise ViewerTimeoutError(f"the viewer {self.name!r} has not {until} a batch within {timeout_s:g} s")
            log.warning("the viewer %r has not %s a batch within %g s; it may still do so", self.name, until, timeout_s)
        return done

    def progress(self) -> Progress:
        """Return the account of this sink as it is now, in this process."""
        return self._sender.progress()

    # -- what else a viewer can do

    def clear(self, source: str | None = None) -> None:
        """Take away what a source has sent, or everything; without a viewer there is nothing to do."""
        self._check_open()
        try:
            self._sender.call("clear", self._settings.timeout_s, source=source)
        except ViewerUnavailableError:
            if self._settings.required:
                raise

    def screenshot(self) -> NDArray[np.uint8]:
        """Return what is on the viewer's screen, shape (y, x, 3), sRGB, with all that was sent before."""
        self._check_open()
        array = self._sender.call("screenshot", self._settings.timeout_s)[1]
        if array is None or array.dtype != np.uint8:
            raise ViewerUnavailableError(f"the viewer {self.name!r} gave no picture")
        return array

    def layers(self) -> list[HeldLayer]:
        """Return the layers that the viewer has, with all that was sent before."""
        self._check_open()
        return msgspec.convert(self._sender.call("layers", self._settings.timeout_s)[0], list[HeldLayer])

    def plane(self, layer: HeldLayer, index: Iterable[int] = ()) -> NDArray[Any]:
        """Return the pixels that the viewer has at an index of a layer's axes before (y, x), all of them.

        Raises
        ------
        ConfigError
            If it is none of a layer of images, or there is no such plane.
        ViewerUnavailableError, ViewerTimeoutError
            If the viewer is not there, or does not answer.
        """
        self._check_open()
        array = self._sender.call("plane", self._settings.timeout_s, **_where(layer, index, "images"))[1]
        if array is None:
            raise ViewerUnavailableError(f"the viewer {self.name!r} gave no pixels")
        return array

    def rois(self, layer: HeldLayer, index: Iterable[int] = ()) -> list[Roi]:
        """Return the ROIs that the viewer has on a plane of a layer of ROIs; errors as `plane`."""
        self._check_open()
        array = self._sender.call("rois", self._settings.timeout_s, **_where(layer, index, "rois"))[1]
        return [] if array is None else list(unpack_rois(array.reshape(-1).view(np.uint8)))

    # -- running scopes

    def watch(self, scope: str | None = None, timeout_s: float | None = None) -> Watched:
        """Have the viewer show a running scope, and return when it does; it goes on after this sink is closed.

        It shows the newest frame of each camera in a layer of its own, the points and tracks of the scope's tables, and its
        ROIs. A ROI that a person draws there reaches the scope's workers and all other viewers. The scope never waits for it.

        Parameters
        ----------
        scope : str, optional
            The name of a scope of yours on this computer, or the beginning of it, or the port of its page; needed where several
            run. Or the link of the page of any scope, as ``mutoscope run`` and ``mutoscope share`` print it.
        timeout_s : float, optional
            Longest wait in seconds; that of the sink if not given.

        Raises
        ------
        ConfigError
            If there is no such scope, several, or its page lets nobody in.
        BackendUnavailableError
            If what this needs is not installed; says how to get it.
        ViewerUnavailableError
            If the viewer is not there.
        ViewerTimeoutError
            If the scope cannot be seen in time.
        """
        self._check_open()
        address = address_of(scope)
        if self._settings.remote is not None and address.is_loopback:
            raise ConfigError(
                f"the page of {address.name} is reached on this computer only, and the viewer is on another one: "
                "give the link of a page that it can reach"
            )
        check_can_watch()
        limit = self._settings.timeout_s if timeout_s is None else arguments.more_than_zero("timeout_s", timeout_s)
        found: Watched | None
        try:
            found = msgspec.convert(self._sender.call("watch", limit, **dataclasses.asdict(address))[0], Watched | None)
        except ViewerTimeoutError:
            found = next((each for each in self._watched(limit) if each.address == address.url), None)
            if found is None or found.state == "no connection":  # it was watched before, and goes on to be
                raise
        if found is None:
            raise ViewerUnavailableError(
                f"the viewer {self.name!r} watches {address.name} no more: a person or another program has ended that"
            )
        if found.state == "live":
            return found
        if found.state == "ended":
            with contextlib.suppress(ConfigError):  # another program was quicker
                self._sender.call("unwatch", limit, scope=address.url)
            raise ConfigError(f"{address.name} cannot be watched: {found.problem}")
        self._sender.call("give up", limit, **dataclasses.asdict(address))
        why = found.problem or "its page does not answer"
        raise ViewerTimeoutError(f"the viewer {self.name!r} does not see {address.name} after {limit:g} s: {why}")

    def unwatch(self, scope: str | None = None) -> None:
        """Have the viewer show a scope no more: the one of this name, or the beginning of it, port, address (`Watched.address`)
        or link; if none is given, no scope any more.

        Raises
        ------
        ConfigError
            If it is not watched.
        ViewerUnavailableError, ViewerTimeoutError
            If the viewer is not there, or does not answer.
        """
        self._check_open()
        if scope is not None:
            scope = url_of(scope) if "://" in checked_scope(scope) else scope
        self._sender.call("unwatch", self._settings.timeout_s, scope=scope)

    def watched(self) -> list[Watched]:
        """Return the scopes that the viewer watches, and what it has shown of each camera."""
        self._check_open()
        return self._watched(self._settings.timeout_s)

    def _watched(self, timeout_s: float) -> list[Watched]:
        return msgspec.convert(self._sender.call("watched", timeout_s)[0], list[Watched])

    # -- end

    def disconnect(self) -> None:
        """Hang up; a later call connects again. The viewer stays open."""
        sender = _senders.get(self._token)
        if sender is not None:
            _flush(sender, EXIT_S)
            sender.disconnect()

    def close(self, leave_open: bool = True) -> None:
        """End the use of this sink: what was sent is waited for, at most 5 s, and what is not displayed then is said.

        Parameters
        ----------
        leave_open : bool
            Whether the viewer stays. If not, it is asked to end, and waited for.
        """
        if self._closed:
            return
        self._closed = True
        sender = _senders.get(self._token)
        try:
            if sender is not None:
                _flush(sender, EXIT_S)
            if not leave_open:
                self._quit()
        finally:
            if sender is not None:
                sender.close()
                _senders.pop(self._token, None)

    def _quit(self) -> None:
        remote = self._settings.remote
        if remote is not None:
            try:
                ask(self._settings.kind, self.name, "quit", self._settings.timeout_s, remote)
            except (ViewerUnavailableError, PeerDiedError) as error:
                log.info("the viewer was to end, and is not there: %s", error)
            return
        try:
            viewer = find(self.name, self._settings.kind)
        except ConfigError as error:
            log.warning("the viewer %r cannot be looked for: %s", self.name, error)
            return
        if viewer is None:
            return
        try:
            pidfd = _os.open_pidfd(viewer.pid)
        except ProcessLookupError:
            return
        try:
            deadline = time.monotonic() + self._settings.timeout_s
            stays = False
            try:
                stays = ask(self._settings.kind, self.name, "quit", self._settings.timeout_s) is True
            except (ViewerUnavailableError, PeerDiedError):
                pass  # it ends: that is what was asked
            if not stays:
                _os.wait_readable([pidfd], self._settings.timeout_s)
            while stays and find(self.name, self._settings.kind) == viewer and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
        finally:
            os.close(pidfd)


def open_viewer(
    kind: str,
    address: Name | None = None,
    *,
    filenames: ParserLike | None = None,
    display: Display | None = None,
    policy: Policy = "block",
    timeout_s: float = 30.0,
    window_bytes: int = WINDOW_BYTES,
    required: bool = False,
    key: str | None = None,
    compression: str | None = None,
) -> ViewerSink:
    """Open a viewer: attach to the one of this name if it is open, else start it. The log says which; the address of one that
    is looked at in a browser is written to standard error, once.

    Parameters
    ----------
    kind : str
        A viewer by name, or ``"module:Class"`` of an adapter of your own.
    address : str, optional
        The viewer's name; that of its kind if not given. Or ``"tcp://host:port"`` of one on another computer, which was told
        there to listen (``mutoscope view … --listen``); it is never started from here.
    filenames, display, policy, timeout_s, window_bytes, required, key, compression
        As for `ViewerSink`.

    Returns
    -------
    ViewerSink
        A context manager, with the calls of every store: `save` and `save_batch`.

    Raises
    ------
    ConfigError
        If there is no such viewer, or an option cannot be.
    BackendUnavailableError
        If what it needs is not installed; says how to get it.
    ViewerUnavailableError
        If it is required, and cannot be started; or, on another computer, is not there or does not let this program in.

    Examples
    --------
    >>> import numpy as np
    >>> from mutoscope import viewers
    >>> viewer = viewers.open("model", "example", filenames="imagexpress")
    >>> viewer.save(np.full((4, 6), 7, "uint16"), "A01_s1_w1_z1_t1.tif", source="raw")
    >>> viewer.wait(timeout_s=30).images.displayed
    1
    >>> viewer.close(leave_open=False)
    """
    sink = ViewerSink(
        address,
        kind=kind,
        filenames=filenames,
        display=display,
        policy=policy,
        timeout_s=timeout_s,
        window_bytes=window_bytes,
        required=required,
        key=key,
        compression=compression,
    )
    sink.connect()
    with contextlib.suppress(ConfigError):  # there is no folder of announcements, so no viewer: it has been said
        say_link(find(sink.name, kind))
    return sink


def progress(name: str, *, timeout_s: float = 5.0, key: str | None = None) -> Progress:
    """Return the account of all senders of a viewer, from any process of its user.

    Parameters
    ----------
    name : str
        The viewer's name, or ``"tcp://host:port"`` of one on another computer.
    timeout_s : float
        Longest wait in seconds.
    key : str, optional
        As for `ViewerSink`.

    Raises
    ------
    ViewerUnavailableError
        If no viewer is called so, or lets this program in.
    ViewerTimeoutError
        If it does not answer in time.
    """
    remote = _remote_of(arguments.text("the name of a viewer", name), key)
    return msgspec.convert(ask(None, name, "progress", timeout_s, remote), Progress)


def _is_afar(address: Name | None) -> TypeGuard[str]:
    return isinstance(address, str) and address.startswith("tcp://")


def _remote_of(
    address: Name | None, key: str | None, compression: str | None = None, window_bytes: int = WINDOW_BYTES
) -> Remote | None:
    """Return where a viewer on another computer is; None for one on this computer."""
    if not _is_afar(address):
        for what, value in (("key", key), ("compression", compression)):
            if value is not None:
                raise ConfigError(f"{what} is of a viewer on another computer, whose address is tcp://host:port")
        return None
    from mutoscope.viewers.remote.address import address_of
    from mutoscope.viewers.remote.dial import Remote

    if compression is not None and not isinstance(compression, str):
        raise ConfigError(f"compression is 'lz4', 'zstd' or None, not {arguments.shown(compression)}")
    remote = Remote(address_of(address), key, compression or "", window_bytes)
    remote.check()
    return remote


def checked_name(kind: str, address: Name | None) -> str:
    """Return the name of a viewer, that of its kind if none is given; ConfigError if it cannot be one."""
    name = kind if address is None else os.fspath(address)
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _MOST_NAME or "/" in name:
        raise ConfigError(
            f"the name of a viewer is 1 to {_MOST_NAME} printable characters without /, not {arguments.shown(name)}"
        )
    return name


def _where(layer: HeldLayer, index: Iterable[int], kind: str) -> dict[str, Any]:
    """Return how a viewer is told a plane; ConfigError if it can be none."""
    if not isinstance(layer, HeldLayer) or layer.kind != kind:
        raise ConfigError(f"a layer of {kind} is asked for, one of those that layers() returned, not {arguments.shown(layer)}")
    found = list(index) if isinstance(index, Iterable) and not isinstance(index, str | bytes) else None
    if found is None or not all(isinstance(at, numbers.Integral) for at in found):
        raise ConfigError(f"an index is a whole number for each axis before (y, x), not {arguments.shown(index)}")
    return {"layer": layer.id, "index": [int(at) for at in found]}


def _folder(images_dir: Name) -> str:
    """Return a folder as the names of images have it."""
    folder = os.fspath(images_dir) if isinstance(images_dir, os.PathLike) else images_dir
    if not isinstance(folder, str):
        raise ConfigError(f"images_dir is the path of a folder, not {arguments.shown(images_dir)}; nothing was sent")
    return os.path.normpath(sendable(folder))


def _short(what: str, text: str) -> str:
    if len(text) > MOST_TEXT:
        raise ConfigError(f"{what} has at most {MOST_TEXT} characters, not {len(text)}; nothing was sent")
    return text


# -- the senders of this process, and its end

_senders: dict[str, Sender] = {}
"""Of each sink that has been used and not closed, by its token: copies of it share one."""
_making = threading.Lock()
_finalizer_in = 0


def _begin(token: str, settings: SenderSettings) -> Sender:
    global _finalizer_in
    with _making:
        if token not in _senders:
            if _finalizer_in != os.getpid():
                _finalizer_in = os.getpid()
                # A child of multiprocessing ends without atexit, and with its finalizers.
                multiprocessing.util.Finalize(None, _at_exit, exitpriority=10)
            _senders[token] = Sender(settings)
        return _senders[token]


def _flush(sender: Sender, timeout_s: float) -> None:
    """Wait for what is on its way, and say what was not shown."""
    sender.tell_tally()
    if sender.state in ("connected", "connecting"):
        sender.wait_for(lambda: sender.is_done(None, received=False), timeout_s)
    account = sender.progress()
    if any(counts.pending or counts.dropped or counts.failed for counts in (account.images, account.rois)):
        log.warning("not all was displayed: %s", account.summary())


def _at_exit() -> None:
    """Wait for what is on its way, 5 s for all together, and say what was not shown."""
    deadline = time.monotonic() + EXIT_S
    while _senders:
        _, sender = _senders.popitem()
        _flush(sender, max(0.0, deadline - time.monotonic()))
        sender.close()


def _forked() -> None:
    """What belongs to the process above is let go of; copies of its sinks connect by themselves."""
    global _making
    _making = threading.Lock()
    while _senders:
        _senders.popitem()[1].abandon()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_forked)
