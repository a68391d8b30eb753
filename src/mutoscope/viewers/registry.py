"""The table of viewers by name: ours, those of installed packages, or ``"module:Class"``."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.model.install import install_command
from mutoscope.viewers.adapter import ViewerAdapter

__all__ = ["ENTRY_POINTS", "VIEWERS", "ViewerSpec", "check_viewer", "find_viewer"]

ENTRY_POINTS = "mutoscope.viewers"
_ADDRESS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

_NAPARI = install_command("napari", "'PySide6-Essentials<6.12'", "bermuda")


@dataclass(frozen=True)
class ViewerSpec:
    """A viewer by name.

    Parameters
    ----------
    name : str
        What a person writes.
    target : str
        ``"module:Class"`` of a `ViewerAdapter`.
    shows : str
        What it is, in one line.
    needs : tuple of (module, command)
        Modules without which it does not run, and the command that installs each.
    """

    name: str
    target: str
    shows: str
    needs: tuple[tuple[str, str], ...] = ()


VIEWERS = (
    ViewerSpec(
        "browser",
        "mutoscope.viewers.browser.adapter:BrowserAdapter",
        "a page of its own in any browser",
        (("aiohttp", install_command("aiohttp")),),
    ),
    ViewerSpec(
        "fiji",
        "mutoscope.viewers.fiji.adapter:FijiAdapter",
        "windows of the user's own Fiji or ImageJ, else of one that is started",
        (("roifile", install_command("roifile")),),
    ),
    ViewerSpec(
        "napari",
        "mutoscope.viewers.napari.adapter:NapariAdapter",
        "windows of napari",
        (("napari", _NAPARI), ("PySide6", _NAPARI)),
    ),
    ViewerSpec("model", "mutoscope.viewers.headless:HeadlessAdapter", "no window: it holds what others would show, for tests"),
)
"""The viewers of this package. Others come from the entry points ``mutoscope.viewers`` of installed packages."""


def check_viewer(kind: str) -> ViewerSpec:
    """Return what is known of a viewer, without importing it.

    Raises
    ------
    ConfigError
        If there is none of this name; lists the known ones.
    BackendUnavailableError
        If something that it needs is not installed; says how to get it.
    """
    if not isinstance(kind, str):
        raise ConfigError(f"a viewer is named by text, not {type(kind).__name__}")
    if _ADDRESS.fullmatch(kind):
        return ViewerSpec(kind, kind, "")
    known = {spec.name: spec for spec in VIEWERS}
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name in known and known[entry.name].target != entry.value:
            raise ConfigError(f"two viewers are called {entry.name!r}: {known[entry.name].target} and {entry.value}")
        known[entry.name] = ViewerSpec(entry.name, entry.value, "")
    if kind not in known:
        near = difflib.get_close_matches(kind.casefold(), known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"there is no viewer {kind!r}; there are {', '.join(known)}{hint}")
    spec = known[kind]
    for module, command in spec.needs:
        if find_spec(module) is None:
            raise BackendUnavailableError(f"the viewer {kind!r} needs {module}: {command}")
    return spec


def find_viewer(kind: str) -> type[ViewerAdapter]:
    """Return the adapter of a viewer, importing it; errors as `check_viewer`."""
    spec = check_viewer(kind)
    module, _, attribute = spec.target.partition(":")
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise BackendUnavailableError(f"the viewer {kind!r} ({spec.target}) does not load: {error}") from error
    if not (isinstance(found, type) and issubclass(found, ViewerAdapter)):
        raise ConfigError(f"the viewer {kind!r} names {spec.target}, which is no ViewerAdapter")
    return found
