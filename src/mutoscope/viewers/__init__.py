"""Viewers: what shows frames, tables, ROIs and whole data sets to people, live or stored.

A viewer is a process of its own. For live frames it takes the newest one of a stream whenever it can show one
(:class:`~mutoscope.viewers.live.LiveFeed`), and so never holds a camera; it owns its readers and closes them. The page of a
scope is one of its workers; its socket belongs to the supervisor. For data sets it is a sink (:func:`open`) that every program
and pool of workers can send to, with an exact account of what was shown; the sender owns the shared memory, the viewer its
socket, its announcement and its window.

Importing this package costs next to nothing: a name loads what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mutoscope.viewers.account import Counts, Progress, SenderProgress, Watched, WatchedStream
    from mutoscope.viewers.adapter import HeldLayer, ViewerAdapter
    from mutoscope.viewers.display import Display, Percentiles
    from mutoscope.viewers.live import Consumer, LiveFeed
    from mutoscope.viewers.model import DisplayModel, ImageLayer, RoiLayer
    from mutoscope.viewers.sink import ViewerSink, progress
    from mutoscope.viewers.sink import open_viewer as open  # noqa: A004 - `viewers.open`, as `storage.open`

__all__ = [
    "Consumer",
    "Counts",
    "Display",
    "DisplayModel",
    "HeldLayer",
    "ImageLayer",
    "LiveFeed",
    "Percentiles",
    "Progress",
    "RoiLayer",
    "SenderProgress",
    "ViewerAdapter",
    "ViewerSink",
    "Watched",
    "WatchedStream",
    "open",
    "progress",
]

_HOMES = {
    "Consumer": "mutoscope.viewers.live",
    "Counts": "mutoscope.viewers.account",
    "Display": "mutoscope.viewers.display",
    "DisplayModel": "mutoscope.viewers.model",
    "HeldLayer": "mutoscope.viewers.adapter",
    "ImageLayer": "mutoscope.viewers.model",
    "LiveFeed": "mutoscope.viewers.live",
    "Percentiles": "mutoscope.viewers.display",
    "Progress": "mutoscope.viewers.account",
    "RoiLayer": "mutoscope.viewers.model",
    "SenderProgress": "mutoscope.viewers.account",
    "ViewerAdapter": "mutoscope.viewers.adapter",
    "ViewerSink": "mutoscope.viewers.sink",
    "Watched": "mutoscope.viewers.account",
    "WatchedStream": "mutoscope.viewers.account",
    "open": "mutoscope.viewers.sink:open_viewer",
    "progress": "mutoscope.viewers.sink",
}
"""Where each name is, with its name there where it is another."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mutoscope.viewers' has no attribute {name!r}")
    home, _, own = _HOMES[name].partition(":")
    found = getattr(importlib.import_module(home), own or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
