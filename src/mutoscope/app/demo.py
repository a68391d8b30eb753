"""The demonstration: a simulated microscope, recorded, with a worker that counts bright pixels while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mutoscope.app import session
from mutoscope.app._spots import Linker, find_spots
from mutoscope.bus import Command, handles
from mutoscope.model.errors import ConfigError
from mutoscope.runtime import Worker

if TYPE_CHECKING:
    from mutoscope.app.display import ScopeDisplay
    from mutoscope.app.summary import RunSummary
    from mutoscope.viewers.page.settings import PageSettings

PIXEL_SIZE_UM = 0.11
BEAD_INTENSITY = 2000.0
"""In counts: clearly above the threshold of the spot counter."""

LOOKS_HZ = 60.0
BEAD = [("frame_id", "u8"), ("bead", "u4"), ("y", "f4"), ("x", "f4"), ("peak", "f4")]

__all__ = ["DemoSettings", "SetThreshold", "SpotCounter", "run_demo"]


class SetThreshold(Command, name="demo.SetThreshold"):
    """What is brighter is a spot, from now on, in counts."""

    value: float


class SpotCounter(Worker):
    """Finds the beads of the newest frame and counts its bright pixels; what it skips costs the camera nothing."""

    threshold = 1000.0

    def setup(self) -> None:
        """Look at the newest frame, write two tables."""
        self.frames = self.reader("camera", policy="latest", at_most_hz=LOOKS_HZ)
        self.counts = self.table("spots", dtype=[("frame_id", "u8"), ("count", "i8")])
        self.beads = self.table("beads", dtype=BEAD)
        self.linker = Linker()

    def step(self) -> None:
        """Look at one frame."""
        with self.frames.next(timeout_s=0.1) as frame:
            self.counts.append((frame.frame_id, int((frame.array > self.threshold).sum())))
            spots = find_spots(frame.array, self.threshold)
            rows = np.zeros(len(spots), BEAD)
            rows["frame_id"], rows["bead"] = frame.frame_id, self.linker.link(spots[:, :2])
        if len(spots):
            rows["y"], rows["x"], rows["peak"] = spots.T
            self.beads.append(rows)

    @handles(SetThreshold, page=True)
    def set_threshold(self, command: SetThreshold) -> float:
        """Change the threshold; returns it."""
        self.threshold = command.value
        return self.threshold


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What the demonstration simulates, and for how long.

    Parameters
    ----------
    frames, seconds : optional
        The length; with neither, until Ctrl-C.
    out : Path, optional
        A folder for the data set, or its own name if it ends in ``.ome.zarr`` or ``.ome.tiff``; by default
        ``./mutoscope-data/<UTC stamp>``.
    overwrite : bool
        Replace a data set that stands there.
    compression : str, optional
        Of the data set; see `mutoscope.Scope`.
    page : PageSettings, optional
        With the live page.
    shape : (y, x)
        Of the camera, in pixels.
    rate_hz : float
        Of the camera.
    seed : int
        Of everything random in the simulation.
    """

    frames: int | None = None
    seconds: float | None = None
    out: Path | None = None
    overwrite: bool = False
    compression: str | None = None
    page: PageSettings | None = None
    shape: tuple[int, int] = (512, 512)
    rate_hz: float = 100.0
    seed: int = 0

    def __post_init__(self) -> None:
        session.check_length(self.frames, self.seconds)
        if min(self.shape) < 1:
            raise ConfigError(f"the shape must be two positive numbers (y, x), not {self.shape[0]} {self.shape[1]}")
        if not (self.rate_hz > 0 and math.isfinite(self.rate_hz)):
            raise ConfigError(f"the rate must be positive, not {self.rate_hz:g} Hz")
        if self.seed < 0:
            raise ConfigError(f"the seed must be 0 or more, not {self.seed}")


def run_demo(
    settings: DemoSettings, *, display: ScopeDisplay | None = None, announce: Callable[[str], None] = lambda _line: None
) -> RunSummary:
    """Run the demonstration to its end.

    Parameters
    ----------
    settings : DemoSettings
        What to simulate.
    display : ScopeDisplay, optional
        Draws the scope while it runs.
    announce : callable
        Takes lines for people.
    """
    from mutoscope.app.scope import Scope
    from mutoscope.cameras import SimulatedCamera
    from mutoscope.viewers.display import Display

    path = session.dataset_path(settings.out, overwrite=settings.overwrite)
    camera = SimulatedCamera(
        shape=settings.shape,
        dtype="uint16",
        rate_hz=settings.rate_hz,
        seed=settings.seed,
        bead_intensity=BEAD_INTENSITY,
        pixel_size_um=PIXEL_SIZE_UM,
    )
    record: Any = True if path is None else path
    page = settings.page
    if page is not None and page.display is None:
        page = replace(page, display=Display(overlays=("beads",)))
    scope = Scope(
        camera=camera,
        workers=[SpotCounter],
        record=record,
        overwrite=settings.overwrite,
        compression=settings.compression,
        page=page or False,
    )
    return session.record(scope, frames=settings.frames, seconds=settings.seconds, display=display, announce=announce)
