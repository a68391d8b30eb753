"""A scope whose page the browser tests look at: known images, a table to draw, commands, and a worker that hears of ROIs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mutoscope as ms
from mutoscope.cameras import SimulatedCamera
from mutoscope.model import Rectangle, Roi
from mutoscope.viewers.display import Display
from mutoscope.viewers.page.settings import PageSettings

SHAPES = {"words": (120, 160), "bytes": (96, 128), "reals": (90, 70)}
DTYPES = {"words": "uint16", "bytes": "uint8", "reals": "float32"}

PAIR = "pair"
"""A source whose frames are like those of ``words``."""

TRACKS = {7: [(20.0, 30.0), (24.0, 36.0), (30.0, 40.0)], 8: [(80.0, 120.0), (82.0, 116.0), (88.0, 110.0)]}
"""Where (y, x) two beads are in three frames of ``words``."""

WATCHED = (50.0, 20.0)
"""Where (y, x) something is in each frame of the camera."""


class SetGain(ms.Command):
    """Change the gain."""

    value: float
    mode: str = "fast"


class Report(ms.Command):
    """Tell the gain and the mode."""


class Fail(ms.Command):
    """Raise an error."""


class Mark(ms.Command):
    """Draw a ROI of this id on an image."""

    image: str
    roi_id: str


class Watcher(ms.Worker):
    """Reads the camera, and has a table that does not say so."""

    def setup(self) -> None:
        self.frames = self.reader("camera", policy="latest")
        self.places = self.table("watched", dtype=[("frame_id", "u8"), ("y", "f8"), ("x", "f8")])

    def step(self) -> None:
        with self.frames.next(timeout_s=0.1) as frame:
            self.places.append((frame.frame_id, *WATCHED))


class Analyst(ms.Worker):
    """Has a table of tracks, and commands that the page may send."""

    gain = 1.0
    mode = "fast"

    def setup(self) -> None:
        columns = [("frame_id", "u8"), ("bead", "i4"), ("y_px", "f8"), ("x_px", "f8"), ("height", "f8")]
        self.tracks = self.table("tracks", dtype=columns)
        for frame_id in (1, 2, 3):
            for bead, path in TRACKS.items():
                y, x = path[frame_id - 1]
                self.tracks.append((frame_id, bead, y, x, float(bead * frame_id)))
        self.table("late", dtype=[("frame_id", "u8"), ("y", "f8"), ("x", "f8")]).append((3, 60.0, 60.0))

    @ms.handles(SetGain, page=True)
    def set_gain(self, command: SetGain) -> float:
        self.gain, self.mode = command.value, command.mode
        return self.gain

    @ms.handles(Report)
    def report(self, command: Report) -> tuple[float, str]:
        return self.gain, self.mode

    @ms.handles(Mark)
    def mark(self, command: Mark) -> None:
        roi = Roi(command.roi_id, Rectangle(center=(40.0, 60.0), height=20.0, width=30.0))
        self.publish(ms.RoiChanged(image=command.image, roi=roi, origin=self.name))

    @ms.handles(Fail, page=True)
    def fail(self, command: Fail) -> None:
        raise ValueError("the shutter is stuck")


def known(name: str, frame_id: int, shape: tuple[int, int] | None = None) -> NDArray[Any]:
    """The image that is pushed as frame `frame_id` of a source."""
    random = np.random.default_rng([frame_id, *name.encode()])
    height, width = shape or SHAPES[name]
    ramp = np.linspace(0.0, 1.0, width) * np.linspace(0.2, 1.0, height)[:, None]
    image = ramp + random.normal(0.0, 0.05, (height, width))
    if DTYPES[name] == "float32":
        image[3, 4] = np.nan
        return image.astype(np.float32)
    most = 65535 if DTYPES[name] == "uint16" else 255
    return (np.clip(image, 0, 1) * most).astype(DTYPES[name])


def make_scope(folder: Path) -> ms.Scope:
    """Return the scope, not yet started."""
    sources = {name: ms.SourceSettings(SHAPES[name], DTYPES[name], rate_hz=10, varying=name == "words") for name in SHAPES}
    sources[PAIR] = ms.SourceSettings(SHAPES["words"], DTYPES["words"], rate_hz=10)
    camera = SimulatedCamera(shape=(64, 80), rate_hz=20.0, seed=3)
    return ms.Scope(
        sources=sources,
        cameras={"camera": camera},
        workers=[Analyst, Watcher],
        record=folder / "run.ome.zarr",
        page=PageSettings(lease_s=600.0, display=Display(overlays=["tracks"])),
    )
