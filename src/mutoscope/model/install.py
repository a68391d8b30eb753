"""How to get what an optional part needs: the one place that writes the command.

The commands name packages of the index, not this package's extras, so that they work from a checkout as well.
"""

from __future__ import annotations

import re
from importlib import metadata

__all__ = ["command_for", "extras", "install_command"]

_CONDITIONAL = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)[^;]*;\s*extra\s*==\s*['\"](?P<extra>[^'\"]+)['\"]")


def install_command(*packages: str) -> str:
    """Return the command that installs these packages.

    Examples
    --------
    >>> install_command("tifffile", "imagecodecs")
    'pip install tifffile imagecodecs'
    """
    return f"pip install {' '.join(packages)}"


def extras() -> dict[str, list[str]]:
    """Return the packages of each extra, as this package's own metadata name them; none where it is not installed."""
    found: dict[str, list[str]] = {}
    try:
        requirements = metadata.requires("mutoscope") or ()
    except metadata.PackageNotFoundError:
        return found
    for requirement in requirements:
        match = _CONDITIONAL.match(requirement)
        if match is not None:
            found.setdefault(match["extra"], []).append(match["name"])
    return found


def command_for(extra: str, *packages: str) -> str:
    """Return the command that installs what `extra` lists; `packages` alone where this package has no metadata.

    Examples
    --------
    >>> command_for("roi", "roifile")
    'pip install roifile'
    """
    return install_command(*extras().get(extra, packages))
