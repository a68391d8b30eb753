"""How to get what an optional part needs: the one place that writes the command.

The commands name packages of the index, not this package's extras, so that they work from a checkout as well.
"""

from __future__ import annotations

import re
from importlib import metadata

__all__ = ["command_for", "extras", "install_command"]

_CONDITIONAL = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?P<versions>[^;]*);\s*extra\s*==\s*['\"](?P<extra>[^'\"]+)['\"]")
_BELOW = re.compile(r"<=?[^,)\s]+")


def install_command(*packages: str) -> str:
    """Return the command that installs these packages.

    Examples
    --------
    >>> install_command("tifffile", "imagecodecs")
    'pip install tifffile imagecodecs'
    """
    return f"pip install {' '.join(packages)}"


def extras() -> dict[str, dict[str, str]]:
    """Return the packages of each extra, as this package's own metadata name them; none where it is not installed.

    Returns
    -------
    dict
        By extra and package, what to ask pip for: the name, and versions that are left out above, quoted for a shell.
    """
    found: dict[str, dict[str, str]] = {}
    try:
        requirements = metadata.requires("mutoscope") or ()
    except metadata.PackageNotFoundError:
        return found
    for requirement in requirements:
        match = _CONDITIONAL.match(requirement)
        if match is not None:
            below = _BELOW.search(match["versions"])
            name = match["name"]
            found.setdefault(match["extra"], {})[name] = f"'{name}{below.group()}'" if below else name
    return found


def command_for(extra: str, *packages: str) -> str:
    """Return the command that installs what `extra` lists; `packages` alone where this package has no metadata.

    Examples
    --------
    >>> command_for("roi", "roifile")
    'pip install roifile'
    """
    return install_command(*(extras().get(extra, {}).values() or packages))
