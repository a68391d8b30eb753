"""Cameras: drivers, their settings, and the worker that runs one.

A :class:`Camera` is a class and its settings until the camera worker opens it in its own process; that worker closes it too.
The frames it fills belong to the ring. The conformance suite for drivers is :class:`mutoscope.cameras.suite.CameraSuite`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mutoscope.cameras.driver import Camera, CopyingCamera, SequenceStopped
from mutoscope.cameras.settings import Setting
from mutoscope.cameras.simulated import SimulatedCamera
from mutoscope.cameras.table import CameraSpec, available, create, find

if TYPE_CHECKING:
    from mutoscope.cameras.replay import ReplayCamera

__all__ = [
    "Camera",
    "CameraSpec",
    "CopyingCamera",
    "ReplayCamera",
    "SequenceStopped",
    "Setting",
    "SimulatedCamera",
    "available",
    "create",
    "find",
]


def __getattr__(name: str) -> Any:
    if name == "ReplayCamera":
        from mutoscope.cameras.replay import ReplayCamera

        return ReplayCamera
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
