"""What a viewer is made of: implement `ViewerAdapter` for a program that shows images, and Mutoscope does the rest.

Mutoscope receives, checks and places items in a thread of its own, and keeps the account; the adapter only shows layers.
All its methods run in the thread that called `run` (the one of the window system), except `call_soon` and `stop`.
`mutoscope.viewers.suite.ViewerSuite` checks an adapter.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError
from mutoscope.model.roi import Roi
from mutoscope.viewers.display import Arrangement
from mutoscope.viewers.model import ImageLayer, RoiLayer
from mutoscope.viewers.wire import Value

if TYPE_CHECKING:
    from mutoscope.viewers.core import ViewerCore

__all__ = ["HeldLayer", "ViewerAdapter"]

log = logging.getLogger(__name__)


class HeldLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer as the viewer itself has it: read from its own objects, not from what it was told.

    Parameters
    ----------
    id, name, window : str
        As it was told: `id` to ask for its planes, the others as a person reads them.
    kind : str
        ``"images"`` or ``"rois"``.
    axis_names : list of str
        Outermost first, with y and x.
    shape : list of int
        Of its pixels, as NumPy has it; of ROIs that of the axes before (y, x).
    dtype : str
        NumPy's name; empty for ROIs.
    contrast : list of (channel, low, high)
        In counts; channel None where it holds for all of the layer.
    luts : list of (channel, name)
        As the viewer calls them.
    scale : list of float
        The step along each axis.
    missing : int
        Planes that the viewer tells as missing.
    """

    id: str
    name: str
    window: str
    kind: str
    axis_names: list[str]
    shape: list[int]
    dtype: str = ""
    contrast: list[tuple[Value | None, float, float]] = []
    luts: list[tuple[Value | None, str]] = []
    scale: list[float] = []
    missing: int = 0


def check_index(layer: ImageLayer | RoiLayer, index: tuple[int, ...]) -> None:
    """Raise ConfigError if a layer has no plane of this index."""
    lengths = [len(values) for values in layer.values]
    if len(index) != len(lengths) or any(not 0 <= at < length for at, length in zip(index, lengths, strict=True)):
        raise ConfigError(f"there is no plane {index} in {layer.name!r}, whose axes before (y, x) have the lengths {lengths}")


class ViewerAdapter(ABC):
    """A program that shows layers.

    **What a person draws.** A layer of ROIs may be editable (`RoiLayer.editable`). When a person has drawn, moved or removed a
    ROI there, the adapter says so to the core that it was given by `began`: ``core.roi_changed(layer_id, roi)`` with the whole
    ROI, under the id that it has (a new one gets an id that no other viewer gives: ``f"napari-{uuid.uuid4().hex[:12]}"``), or
    ``core.roi_removed(layer_id, roi_id)``; from any thread, and as often as it likes while something is dragged: the newest
    counts. That is taken for what the layer holds from then on, and `show_rois` is not called for it again. Only if it is
    refused is it called, with what was there before, and `tell` says why. What the adapter draws itself, because `show_rois`
    told it to, is not said.

    An error of `show_images`, `show_rois` or `remove` is taken for a fault of the viewer: it is logged, told to whoever sends,
    and the viewer ends; the next `save` starts it again.

    Attributes
    ----------
    kind : str
        As in ``viewers.open(kind)``.
    defaults : mapping of component to arrangement
        What it makes of components of which a `Display` says nothing; ``"stack"`` for those not named.
    stays : bool
        Whether its process is a person's own, which goes on when the viewer ends.
    alone_s : float or None
        After how many seconds without a sender it ends; None for a viewer that a person closes.
    address : str
        Where a person looks at it, of a viewer that is shown by another program, such as a browser.
    """

    kind: ClassVar[str]
    defaults: ClassVar[Mapping[str, Arrangement]] = {"source": "layer"}
    alone_s: ClassVar[float | None] = None
    stays: bool = False
    address: str = ""

    def check_image(self, dtype: np.dtype[Any], shape: tuple[int, ...], rgb: bool) -> None:  # noqa: B027 - most show all
        """Raise ConfigError for an image that this viewer cannot show: that item fails, with this reason, and no other.

        Runs in the thread that receives, and looks at nothing but its arguments.
        """

    @abstractmethod
    def open(self, title: str) -> None:
        """Make the window, or attach to one that is there."""

    def began(self, core: ViewerCore) -> None:  # noqa: B027 - most show nothing of it
        """Senders can come now. `core` has the account of them (`ViewerCore.ask_progress`), and takes what a person draws: an
        adapter whose layers can be edited keeps it for `ViewerCore.roi_changed` and `ViewerCore.roi_removed`."""

    def is_looked_at(self) -> bool:
        """Whether it is to go on without a sender, though `alone_s` has passed. In the thread that receives."""
        return False

    def remark(self) -> str:
        """Return what is to be said with each account, such as that nobody looks. In the thread that receives."""
        return ""

    @abstractmethod
    def run(self) -> None:
        """Run the loop of the window system until a person closes the window, or `stop` is called."""

    @abstractmethod
    def call_soon(self, callback: Callable[[], None], delay_s: float = 0.0) -> None:
        """Have `callback` run in that loop, after `delay_s` seconds; from any thread, also before `run`."""

    @abstractmethod
    def stop(self) -> None:
        """Have `run` return; from any thread."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything, after `run` has returned."""

    @abstractmethod
    def show_images(self, layer: ImageLayer) -> None:
        """Show a layer of images that is new or has changed."""

    @abstractmethod
    def show_rois(self, layer: RoiLayer) -> None:
        """Show a layer of ROIs, instead of what was in it."""

    @abstractmethod
    def remove(self, layer_id: str) -> None:
        """Take a layer away."""

    def tell(self, text: str) -> None:
        """Tell the person who looks something that needs no answer: who holds control, that a scope has ended."""
        log.info("%s", text)

    def draw(self, layer_id: str, roi: Roi) -> None:
        """Draw a ROI in an editable layer, or change the one of this id, by the means that a person has; for tests.

        What follows from it is what follows from a person's hand: the adapter hears of it from its own window system, and tells
        `ViewerCore.roi_changed`. A new one may get another id.
        """
        raise ConfigError(f"nothing can be drawn in this viewer ({self.kind}) but by hand")

    def erase(self, layer_id: str, roi_id: str) -> None:
        """Remove a ROI from an editable layer by the means that a person has; for tests, as `draw`."""
        raise ConfigError(f"nothing can be erased in this viewer ({self.kind}) but by hand")

    @abstractmethod
    def screenshot(self) -> NDArray[np.uint8]:
        """Return what is on the screen, shape (y, x, 3), sRGB."""

    @abstractmethod
    def held_layers(self) -> list[HeldLayer]:
        """Return the layers that the viewer has, from the bottom."""

    @abstractmethod
    def held_plane(self, layer_id: str, index: tuple[int, ...]) -> NDArray[Any]:
        """Return the pixels of a plane as the viewer has them, shape (y, x) or (y, x, colour)."""

    @abstractmethod
    def held_rois(self, layer_id: str, index: tuple[int, ...]) -> list[Roi]:
        """Return the ROIs that the viewer has on a plane, in any order."""
