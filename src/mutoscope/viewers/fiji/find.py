"""Where ImageJ and Fiji are on this computer."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mutoscope.model.errors import BackendUnavailableError, ConfigError

__all__ = ["Installation", "find_installation", "find_installations"]

FIJI_HOME = "FIJI_HOME"
PLUGIN = "Mutoscope_.jar"
_LAUNCHERS = ("fiji-linux-x64", "fiji-linux-arm64", "fiji", "ImageJ-linux64")
_NAMES = ("Fiji.app", "Fiji", "fiji", "fiji-linux64", "ImageJ")
_DEBIAN = Path("/usr/share/java/ij.jar")


@dataclass(frozen=True)
class Installation:
    """An ImageJ or Fiji.

    Parameters
    ----------
    kind : {"fiji", "imagej"}
        Fiji has a launcher of its own; ImageJ is a jar that Java runs.
    program : Path
        That launcher, or that jar.
    folder : Path
        What has ``plugins``, ``macros`` and ``luts`` in it.
    """

    kind: Literal["fiji", "imagej"]
    program: Path
    folder: Path

    @property
    def plugin(self) -> Path:
        """Where Mutoscope's plug-in is put."""
        return self.folder / "plugins" / PLUGIN

    def command(self, plugin: Path) -> list[str]:
        """Return the command that starts it with the live receiver.

        Parameters
        ----------
        plugin : Path
            The plug-in's jar for ImageJ; Fiji runs the one that is installed in it.

        Raises
        ------
        BackendUnavailableError
            If there is no Java for ImageJ.
        """
        if self.kind == "fiji":
            return [str(self.program), "-run", "Live receiver"]
        return [
            _java(),
            "-XX:MaxRAMPercentage=50",
            "-cp",
            f"{self.program}{os.pathsep}{plugin}",
            "mutoscope.fiji.Start",
            str(self.folder),
        ]


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin/java").exists():
        return str(Path(home) / "bin/java")
    found = shutil.which("java")
    if found is None:
        raise BackendUnavailableError("ImageJ needs Java: apt-get install default-jre, or set JAVA_HOME")
    return found


def installation_of(path: Path) -> Installation | None:
    """Return what is in a folder of Fiji or ImageJ, or is an ``ij.jar``; None if it is neither."""
    if path.is_file() and path.suffix == ".jar":
        return Installation("imagej", path, Path.home() / ".imagej" if path == _DEBIAN else path.parent)
    for name in _LAUNCHERS:
        if (path / name).is_file() and os.access(path / name, os.X_OK):
            return Installation("fiji", path / name, path)
    return Installation("imagej", path / "ij.jar", path) if (path / "ij.jar").is_file() else None


def find_installations() -> list[Installation]:
    """Return what is installed: that of ``FIJI_HOME`` first, then the usual places, then Debian's ImageJ.

    Raises
    ------
    ConfigError
        If ``FIJI_HOME`` names something else.
    """
    found: list[Installation] = []
    stated = os.environ.get(FIJI_HOME)
    if stated:
        first = installation_of(Path(stated).expanduser())
        if first is None:
            raise ConfigError(f"{FIJI_HOME}={stated} is no folder of Fiji or ImageJ: it has neither {_LAUNCHERS[0]} nor ij.jar")
        found.append(first)
    above = (Path.home(), Path.home() / "Applications", Path.home() / "Desktop", Path("/opt"), Path("/usr/local"))
    places = [folder / name for folder in above for name in _NAMES]
    for path in (*places, _DEBIAN):
        there = installation_of(path)
        if there is not None and there not in found:
            found.append(there)
    return found


def find_installation() -> Installation:
    """Return the first one of `find_installations`.

    Raises
    ------
    BackendUnavailableError
        If there is none.
    """
    found = find_installations()
    if not found:
        raise BackendUnavailableError(
            f"no Fiji and no ImageJ found: set {FIJI_HOME} to Fiji's folder, or apt-get install imagej default-jre"
        )
    return found[0]
