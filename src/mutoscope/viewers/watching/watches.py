"""The scopes that a viewer watches: begun, ended, and told about."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

from mutoscope.model.errors import ConfigError
from mutoscope.model.roi import Roi
from mutoscope.viewers.account import Watched
from mutoscope.viewers.model import Changes
from mutoscope.viewers.watching.layers import LiveScope
from mutoscope.viewers.watching.scopes import ScopeAddress
from mutoscope.viewers.watching.watch import Watch, check_can_watch

__all__ = ["Watches"]


class Watches:
    """Owns the connections. From any thread, but `take_changes`.

    Parameters
    ----------
    kind : str
        Of viewer.
    changed : callable
        Called when there is something new to show.
    tell : callable(text)
        Called with what the person who looks should know.
    """

    def __init__(self, kind: str, changed: Callable[[], None], tell: Callable[[str], None]) -> None:
        self._kind = kind
        self._changed = changed
        self._tell = tell
        self._lock = threading.Lock()
        self._watches: list[Watch] = []
        self._removed: list[str] = []
        self._numbers = itertools.count(1)

    def begin(self, address: ScopeAddress, settled: Callable[[Watched | None], None] = lambda _: None) -> None:
        """Watch a scope, if it is not watched already; one of this name or address that has ended makes room for it, and so
        does one that is not seen, for a link with another token.

        `settled` is called once, from whatever thread, when the scope is seen or cannot be; with None if it is ended before.

        Raises
        ------
        BackendUnavailableError
            If what this needs is not installed.
        ConfigError
            If it is seen already through a link with another token: nothing says that this one lets anybody in.
        """
        check_can_watch()
        unseen: list[Watch] = []
        with self._lock:
            watch = next((each for each in self._watches if each.address.url == address.url and not each.ended), None)
            if watch is not None and not watch.is_through(address):
                if watch.live:
                    raise ConfigError(f"{watch.scope.name} is shown here already, through another link: unwatch it first")
                unseen, watch = [watch], None
            if watch is None:
                past = [
                    each
                    for each in self._watches
                    if each.ended and (each.address.url == address.url or each.address.name == address.name)
                ]
                self._drop([*past, *unseen])
                scope = LiveScope(f"scope-{next(self._numbers)}", address.name)
                watch = Watch(address, scope, self._kind, self._changed, self._tell)
                watch.start()
                self._watches.append(watch)
            waits = watch.wait_with(settled)  # before it can be given up by those who wait already
        for each in unseen:
            each.close()
        if not waits:
            settled(watch.outcome())

    def give_up(self, address: ScopeAddress) -> None:
        """One of those who wait to see a scope through this link waits no more: it is ended with the last of them."""
        with self._lock:
            through = [each for each in self._watches if each.address.url == address.url and each.is_through(address)]
            gone = [each for each in through if each.give_up()]
            self._drop(gone)
        self._close(gone)

    def end(self, scope: str | None) -> None:
        """Watch the scope of this name, port or address (None: all of them) no more; its layers go.

        Raises
        ------
        ConfigError
            If it is not watched, or several begin so.
        """
        with self._lock:
            gone = list(self._watches) if scope is None else self._named(scope)
            self._drop(gone)
        self._close(gone)

    def _named(self, scope: str) -> list[Watch]:
        """Those that are meant, as `running_scope` finds those that run."""
        known = self._watches
        found = (
            [each for each in known if scope in (each.scope.name, each.address.url)]
            or [each for each in known if scope == str(urlsplit(each.address.url).port)]
            or [each for each in known if each.scope.name.startswith(scope)]
        )
        names = ", ".join(each.scope.name for each in known)
        if not found:
            raise ConfigError(f"{scope} is not watched here" + (f"; watched: {names}" if names else ""))
        if len({each.address.url for each in found}) > 1:
            raise ConfigError(f"several scopes are called so, say which: {names}")
        return found

    def _close(self, gone: list[Watch]) -> None:
        for watch in gone:
            watch.close()
        self._changed()

    def _drop(self, gone: list[Watch]) -> None:
        for watch in gone:
            self._watches.remove(watch)
            self._removed += watch.scope.leave()

    def close(self) -> None:
        """End all connections; the layers stay as they are."""
        with self._lock:
            watches, self._watches = self._watches, []
        for watch in watches:
            watch.close()

    @property
    def live(self) -> bool:
        """Whether any scope is watched that has not ended."""
        with self._lock:
            return any(not watch.ended for watch in self._watches)

    def report(self) -> list[Watched]:
        """Return how each of them is."""
        with self._lock:
            watches = list(self._watches)
        return [watch.report() for watch in watches]

    # -- what a person does

    def edit(self, layer_id: str, roi_id: str, roi: Roi | None) -> None:
        """A person has changed, or (None) removed, a ROI."""
        watch = self._watch_of(layer_id)
        if watch is not None and watch.scope.edit(layer_id, roi_id, roi):
            watch.edited()

    def close_layer(self, layer_id: str) -> None:
        """A person has closed a layer of images: with the last one of a scope, that is watched no more."""
        watch = self._watch_of(layer_id)
        if watch is not None and watch.scope.close_layer(layer_id):
            self.end(watch.address.url)

    def _watch_of(self, layer_id: str) -> Watch | None:
        window = layer_id.partition("/")[0]
        with self._lock:
            return next((watch for watch in self._watches if watch.scope.id == window), None)

    # -- for the viewer

    def take_changes(self) -> Changes:
        """Return what has changed of all of them; the next frames may come then."""
        with self._lock:
            watches = list(self._watches)
            changes = Changes(removed=self._removed)
            self._removed = []
        for watch in watches:
            found, taken = watch.scope.take_changes()
            changes.images += found.images
            changes.rois += found.rois
            if taken:
                watch.taken(taken)
        return changes

    def shown(self) -> None:
        """The viewer has shown what was taken last."""
        with self._lock:
            watches = list(self._watches)
        for watch in watches:
            watch.scope.shown()
