"""ROIs as events: what is drawn in a viewer reaches the workers, and what a worker finds reaches the viewers."""

from __future__ import annotations

import msgspec

from mutoscope.bus import Event
from mutoscope.model.roi import Roi

__all__ = ["ImageRoi", "RoiChanged", "RoiList", "RoiRemoved"]


class RoiChanged(Event, name="mutoscope.RoiChanged"):
    """A ROI was made or changed: this is the whole of it now.

    Parameters
    ----------
    roi : Roi
        Its new state.
    origin : str
        Who changed it: a worker's name, or a client of the page. Whoever finds its own name here does not announce the change
        again, so there is no echo.
    image : str
        The camera that it lies on; empty for the only one.
    """

    roi: Roi
    origin: str
    image: str = ""


class RoiRemoved(Event, name="mutoscope.RoiRemoved"):
    """A ROI was removed; fields as in :class:`RoiChanged`."""

    roi_id: str
    origin: str
    image: str = ""


class ImageRoi(msgspec.Struct, frozen=True):
    """A ROI, the camera that it lies on, and the revision of all ROIs at which it last changed."""

    image: str
    roi: Roi
    revision: int


class RoiList(Event, name="mutoscope.RoiList"):
    """All ROIs as they are now, published by the page after each change: whoever joins later, or again, hears it at once.

    Parameters
    ----------
    rois : list of ImageRoi
        All of them.
    revision : int
        Grows with each change.
    changed, removed : RoiChanged, RoiRemoved or None
        The last ones of a worker that are part of it: whoever hears these after it hears nothing new.
    """

    rois: list[ImageRoi]
    revision: int
    changed: RoiChanged | None = None
    removed: RoiRemoved | None = None
