"""The table of camera drivers: names, where they are, and what they need."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import msgspec

from mutoscope.cameras.driver import Camera
from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.model.install import command_for

__all__ = ["CAMERAS", "CameraSpec", "available", "create", "find"]

ENTRY_POINTS = "mutoscope.cameras"


class CameraSpec(msgspec.Struct, frozen=True):
    """A driver by name.

    Parameters
    ----------
    name : str
        What a person writes.
    target : str
        ``"module:Class"``.
    extra : str
        The extra of this package that it needs, or empty.
    doc : str
        One line.
    """

    name: str
    target: str
    extra: str = ""
    doc: str = ""


CAMERAS = (
    CameraSpec("simulated", "mutoscope.cameras.simulated:SimulatedCamera", doc="Beads and noise on a free-running clock."),
    CameraSpec("replay", "mutoscope.cameras.replay:ReplayCamera", extra="replay", doc="A data set as if it were live."),
)
"""The drivers of this package. Others come from the entry points ``mutoscope.cameras`` of installed packages."""


def available() -> tuple[CameraSpec, ...]:
    """Return every driver by name, ours first; nothing is imported."""
    ours = {spec.name for spec in CAMERAS}
    others = (point for point in entry_points(group=ENTRY_POINTS) if point.name not in ours)
    return (*CAMERAS, *(CameraSpec(point.name, point.value, doc=_owner(point)) for point in others))


def find(name: str) -> type[Camera]:
    """Return the driver class of a name, importing it.

    Raises
    ------
    ConfigError
        If no driver has this name, or what it names is no camera.
    BackendUnavailableError
        If it cannot be imported; says how to install what is missing.
    """
    specs = {spec.name: spec for spec in available()}
    spec = specs.get(name)
    if spec is None:
        raise ConfigError(f"there is no camera driver {name!r}; there are {', '.join(specs)}")
    module, _, attribute = spec.target.partition(":")
    try:
        found: Any = getattr(import_module(module), attribute)
    except ImportError as error:
        package = (error.name or module).partition(".")[0]
        need = command_for(spec.extra, package) if spec.extra else f"check the installation of {spec.doc or module}"
        raise BackendUnavailableError(f"the camera driver {name!r} cannot be imported ({error}): {need}") from error
    except AttributeError as error:
        raise ConfigError(f"the camera driver {name!r} names {spec.target}, which does not exist") from error
    if not (isinstance(found, type) and issubclass(found, Camera)):
        raise ConfigError(f"the camera driver {name!r} names {spec.target}, which is no Camera")
    return found


def create(name: str, **settings: Any) -> Camera:
    """Return a camera by its driver's name and settings; nothing is opened."""
    return find(name)(**settings)


def _owner(point: Any) -> str:
    return str(point.dist.name) if point.dist is not None else ""
