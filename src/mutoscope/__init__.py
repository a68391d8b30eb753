"""The live data plane of a microscope: frames from cameras to trackers, crash-safe files and live viewers.

``import mutoscope`` is cheap: names load what they need when they are first used.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as typing has it, which takes too long to load where Ctrl-C is not yet looked after
if TYPE_CHECKING:
    from typing import Any

    from mutoscope import cameras, frames, model, recording, storage, viewers
    from mutoscope.app.scope import Scope, SourceSettings
    from mutoscope.bus import Command, Event, handles
    from mutoscope.model import errors
    from mutoscope.recording import Sink
    from mutoscope.runtime import Ledger, Restart, RoiChanged, RoiList, RoiRemoved, SetSetting, Worker, WorkerSettings
    from mutoscope.viewers.page.settings import PageSettings

__version__ = "0.1.0.dev0"

__all__ = [
    "Command",
    "Event",
    "Ledger",
    "PageSettings",
    "Restart",
    "RoiChanged",
    "RoiList",
    "RoiRemoved",
    "Scope",
    "SetSetting",
    "Sink",
    "SourceSettings",
    "Worker",
    "WorkerSettings",
    "__version__",
    "cameras",
    "errors",
    "frames",
    "handles",
    "model",
    "recording",
    "storage",
    "viewers",
]

_HOMES = {
    "Command": "mutoscope.bus",
    "Event": "mutoscope.bus",
    "Ledger": "mutoscope.runtime",
    "PageSettings": "mutoscope.viewers.page.settings",
    "Restart": "mutoscope.runtime",
    "RoiChanged": "mutoscope.runtime",
    "RoiList": "mutoscope.runtime",
    "RoiRemoved": "mutoscope.runtime",
    "Scope": "mutoscope.app.scope",
    "SetSetting": "mutoscope.runtime",
    "Sink": "mutoscope.recording",
    "SourceSettings": "mutoscope.app.scope",
    "Worker": "mutoscope.runtime",
    "WorkerSettings": "mutoscope.runtime",
    "handles": "mutoscope.bus",
}
_MODULES = {
    "cameras": "mutoscope.cameras",
    "errors": "mutoscope.model.errors",
    "frames": "mutoscope.frames",
    "model": "mutoscope.model",
    "recording": "mutoscope.recording",
    "storage": "mutoscope.storage",
    "viewers": "mutoscope.viewers",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'mutoscope' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
