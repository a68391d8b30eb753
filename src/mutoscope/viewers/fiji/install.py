"""The plug-in's jar, and how it gets into ImageJ."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.viewers.fiji.find import PLUGIN, Installation

__all__ = ["install_plugin", "is_installed", "packaged_plugin"]

_PACKAGED = Path(__file__).with_name("_plugin") / PLUGIN


def packaged_plugin() -> Path:
    """Return the plug-in's jar that came with this package.

    Raises
    ------
    BackendUnavailableError
        If it was not built with it.
    """
    if not _PACKAGED.is_file():
        raise BackendUnavailableError(
            "this Mutoscope was installed without its plug-in for ImageJ: with Maven and a JDK there (apt-get install maven "
            "default-jdk-headless), run python fiji/build.py in its sources, or install it again"
        )
    return _PACKAGED


def is_installed(installation: Installation) -> bool:
    """Tell whether the plug-in that is in ImageJ is the one of this package."""
    there = installation.plugin
    return there.is_file() and there.read_bytes() == packaged_plugin().read_bytes()


def install_plugin(installation: Installation) -> Path:
    """Put the plug-in into ImageJ, instead of an older one; an ImageJ that is open has it after a restart.

    Returns
    -------
    Path
        Where it is now.

    Raises
    ------
    ConfigError
        If it cannot be written there.
    BackendUnavailableError
        If the plug-in is not in this package.
    """
    source, target = packaged_plugin(), installation.plugin
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, partial)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"the plug-in cannot be put into {target.parent}: {error.strerror}") from error
    return target
