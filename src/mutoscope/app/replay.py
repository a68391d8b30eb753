"""A data set through the camera path: recorded again as if a camera had just seen it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutoscope.app import session
from mutoscope.model.errors import ConfigError, DatasetNotFoundError

if TYPE_CHECKING:
    from mutoscope.app.display import ScopeDisplay
    from mutoscope.app.summary import RunSummary
    from mutoscope.viewers.page.settings import PageSettings

__all__ = ["ReplaySettings", "run_replay"]


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """What is replayed, and how.

    Parameters
    ----------
    path : Path
        A multi-page TIFF or OME-TIFF, a folder of TIFF or PNG files, or an OME-Zarr image.
    rate_hz : float
        Frames a second.
    loop : bool
        Begin again after the last frame, until the length is reached or Ctrl-C comes.
    colour : str, optional
        How a colour image becomes grey: ``"red"``, ``"green"``, ``"blue"`` or ``"luminance"``. Without it, colour is refused.
    image : str, optional
        Which camera, field of a plate (``"B/03/0"``) or image, if there are several.
    frames : int, optional
        End after this many; by default after the last frame of the data set.
    out : Path, optional
        As for the demonstration.
    overwrite : bool
        Replace a data set that stands there.
    compression : str, optional
        Of the data set; see `mutoscope.Scope`.
    page : PageSettings, optional
        With the live page.
    """

    path: Path
    rate_hz: float = 50.0
    loop: bool = False
    colour: str | None = None
    image: str | None = None
    frames: int | None = None
    out: Path | None = None
    overwrite: bool = False
    compression: str | None = None
    page: PageSettings | None = None

    def __post_init__(self) -> None:
        session.check_length(self.frames, None)
        if not (self.rate_hz > 0 and math.isfinite(self.rate_hz)):
            raise ConfigError(f"the rate must be positive, not {self.rate_hz:g} Hz")
        if not self.path.exists():
            raise DatasetNotFoundError(f"there is nothing at {self.path}")


def run_replay(
    settings: ReplaySettings, *, display: ScopeDisplay | None = None, announce: Callable[[str], None] = lambda _line: None
) -> RunSummary:
    """Replay a data set to its end.

    Parameters
    ----------
    settings : ReplaySettings
        What to replay.
    display : ScopeDisplay, optional
        Draws the scope while it runs.
    announce : callable
        Takes lines for people.
    """
    from mutoscope.app.scope import Scope
    from mutoscope.cameras import ReplayCamera

    target = session.dataset_path(settings.out, overwrite=settings.overwrite)
    camera = ReplayCamera(
        settings.path, rate_hz=settings.rate_hz, loop=settings.loop, colour=settings.colour, image=settings.image
    )
    record: Any = True if target is None else target
    scope = Scope(
        camera=camera,
        record=record,
        overwrite=settings.overwrite,
        compression=settings.compression,
        page=settings.page or False,
    )
    replayed = camera.describe()["replayed"]
    notes = [f"replayed {replayed['kind']}, {replayed['frames']:,} frames"]
    if replayed["conversion"] is not None:
        notes.append(f"colour became grey: {replayed['conversion']}")
    return session.record(
        scope, frames=settings.frames, seconds=None, display=display, announce=announce, notes=notes, ends=not settings.loop
    )
