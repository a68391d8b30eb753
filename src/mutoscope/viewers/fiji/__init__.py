"""ImageJ and Fiji: the plug-in in their virtual machine, and Python's end of the link to it.

The plug-in (``fiji/`` of the sources, Java) only carries out: this plane into that window at c, z, t; these ROIs; that look-up
table. What lies where is decided in Python. :mod:`~mutoscope.viewers.fiji.find` finds what is installed,
:mod:`~mutoscope.viewers.fiji.life` starts it or finds one that a person has open,
:class:`~mutoscope.viewers.fiji.imagej.ImageJ` is the link, which is closed by whoever made it, and
:class:`~mutoscope.viewers.fiji.adapter.FijiAdapter` the viewer above it. An ImageJ that a person has started is never ended
from here. Importing this package costs next to nothing: a name loads what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mutoscope.viewers.fiji.find import Installation, find_installation, find_installations
    from mutoscope.viewers.fiji.imagej import ImageJ, WindowShape
    from mutoscope.viewers.fiji.install import install_plugin
    from mutoscope.viewers.fiji.life import attach, running, start
    from mutoscope.viewers.fiji.link import ImageJError, WindowGoneError

__all__ = [
    "ImageJ",
    "ImageJError",
    "Installation",
    "WindowGoneError",
    "WindowShape",
    "attach",
    "find_installation",
    "find_installations",
    "install_plugin",
    "running",
    "start",
]

_HOMES = {
    "ImageJ": "imagej",
    "ImageJError": "link",
    "Installation": "find",
    "WindowGoneError": "link",
    "WindowShape": "imagej",
    "attach": "life",
    "find_installation": "find",
    "find_installations": "find",
    "install_plugin": "install",
    "running": "life",
    "start": "life",
}
"""The module that each name is in."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mutoscope.viewers.fiji' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
