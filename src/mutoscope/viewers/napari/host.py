"""The receiver inside a napari: in the one that a person has open, or in one that was started to receive."""

from __future__ import annotations

import itertools
import logging
import weakref
from collections.abc import Callable
from typing import Any

from mutoscope.model.errors import ConfigError
from mutoscope.viewers.account import Progress, Watched
from mutoscope.viewers.core import ViewerCore, log_file
from mutoscope.viewers.launch import find
from mutoscope.viewers.napari.adapter import NapariAdapter
from mutoscope.viewers.watching.scopes import ScopeAddress

__all__ = ["Host", "free_name"]

log = logging.getLogger(__name__)

_hosts: weakref.WeakKeyDictionary[Any, Host] = weakref.WeakKeyDictionary()


class Host:
    """What receives into a napari, one in a process: `begin` is for an open napari, `adopt` for one that was started for it."""

    def __init__(self, name: str, core: ViewerCore, adapter: NapariAdapter | None) -> None:
        self.name = name
        self.problem = ""
        self._core: ViewerCore | None = core
        self._adapter = adapter
        self._log: logging.Handler | None = None

    @staticmethod
    def begin(viewer: Any, name: str) -> Host:
        """Receive into an open napari, where ``viewers.open("napari", name)`` finds it.

        Its own layers are left alone, and what was received stays when this ends.

        Raises
        ------
        ConfigError
            If this process receives already.
        """
        viewer = _itself(viewer)
        other = next((host for host in _hosts.values() if host.receiving), None)
        if other is not None:
            raise ConfigError(f"this napari receives already, as {other.name!r}")
        adapter = NapariAdapter(viewer, lambda: host.end())
        core = ViewerCore(adapter, NapariAdapter.kind, name)
        host = Host(name, core, adapter)
        host._log = logging.FileHandler(log_file(name), encoding="utf-8")
        host._log.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
        logging.getLogger("mutoscope").addHandler(host._log)
        try:
            adapter.open(name)
            core.start()
        except BaseException:
            host.end()
            raise
        _hosts[viewer] = host
        log.info("%s receives inside an open napari", name)
        return host

    @staticmethod
    def adopt(viewer: Any, core: ViewerCore) -> None:
        """Know of a napari that was started to receive."""
        _hosts[viewer] = Host(core.name, core, None)

    @staticmethod
    def of(viewer: Any) -> Host | None:
        """Return what receives into this viewer."""
        return _hosts.get(_itself(viewer))

    @property
    def receiving(self) -> bool:
        """Whether senders can come."""
        return self._core is not None

    @property
    def may_end(self) -> bool:
        """Whether it can receive no more and go on: not where napari was started for it, which ends with its window."""
        return self._adapter is not None

    def ask_progress(self, answer: Callable[[Progress], None]) -> None:
        """Have `answer` called, in another thread, with the account of all senders."""
        if self._core is not None:
            self._core.ask_progress(answer)

    def watch(self, address: ScopeAddress) -> None:
        """Show a running scope; see `ViewerCore.watch`."""
        if self._core is None:
            raise ConfigError("this napari does not receive: begin to receive first")
        self._core.watch(address)

    def unwatch(self) -> None:
        """Show no running scope any more."""
        if self._core is not None:
            self._core.unwatch()

    def watched(self) -> list[Watched]:
        """Return the scopes that are shown."""
        return [] if self._core is None else self._core.watched()

    def end(self) -> None:
        """Receive no more; in the thread of the window system. Twice is fine."""
        core, adapter = self._core, self._adapter
        if core is None or adapter is None:
            return
        self._core = None
        core.stop()
        adapter.close()
        if core.failure is not None:
            self.problem = f"{type(core.failure).__name__}: {core.failure}"
        if self._log is not None:
            logging.getLogger("mutoscope").removeHandler(self._log)
            self._log.close()


def _itself(viewer: Any) -> Any:
    """The viewer inside what napari gives to plug-ins, another one each time."""
    return getattr(viewer, "__wrapped__", viewer)


def free_name(wanted: str = "napari") -> str:
    """Return this name, or it with a number where a viewer is called so already."""
    names = itertools.chain([wanted], (f"{wanted}-{number}" for number in itertools.count(2)))
    return next(name for name in names if find(name) is None)
