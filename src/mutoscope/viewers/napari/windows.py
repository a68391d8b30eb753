"""One window of napari: the layers of one window of the display model, at one place of its sliders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError
from mutoscope.model.roi import Roi
from mutoscope.viewers.adapter import HeldLayer
from mutoscope.viewers.core import ViewerCore
from mutoscope.viewers.model import ImageLayer, RoiLayer
from mutoscope.viewers.napari.images import ImageView
from mutoscope.viewers.napari.layers import Axis, merged_axes, place_text
from mutoscope.viewers.napari.live_rois import LiveRoiView
from mutoscope.viewers.napari.marks import MarksView
from mutoscope.viewers.napari.overlays import RoiView

__all__ = ["NapariWindow"]

_NO_IMAGES = "no images yet"


class NapariWindow:
    """Shows the layers of a window, and follows its sliders.

    Parameters
    ----------
    viewer : napari.Viewer
        Its window; layers of others in it are left alone.
    later : callable
        Has a function called soon, in the thread of the window system.
    named : bool
        Whether its title may be set.
    core : callable
        Returns who is told what a person does; None before there is anyone.
    """

    def __init__(
        self, viewer: Any, later: Callable[..., None], named: bool, core: Callable[[], ViewerCore | None] = lambda: None
    ) -> None:
        self.viewer = viewer
        self.window_id = ""
        self.axes: tuple[Axis, ...] = ()
        self._later = later
        self._named = named
        self._core = core
        self._images: dict[str, ImageView] = {}
        self._rois: dict[str, RoiView | MarksView] = {}
        self._blank: Any = None
        self._busy = False
        self._waiting = False
        viewer.dims.events.point.connect(self._moved)
        viewer.dims.events.ndisplay.connect(self._moved)

    def let_go(self) -> None:
        """Follow nothing any more; the layers stay."""
        if self.viewer is None:
            return
        self.viewer.dims.events.point.disconnect(self._moved)
        self.viewer.dims.events.ndisplay.disconnect(self._moved)

    @property
    def empty(self) -> bool:
        """Whether it has no layers of ours."""
        return not self._images and not self._rois

    # -- layers

    def show_images(self, layer: ImageLayer) -> None:
        """Show images that are new or have changed."""
        view = self._images.get(layer.id)
        if view is None:
            view = self._images[layer.id] = ImageView(self.viewer)
        elif layer.live and view.was_removed:
            self._tell_closed([view])
            return
        view.layer = layer
        self._show(layer, view)

    def _tell_closed(self, views: Iterable[ImageView]) -> None:
        """A person has closed these: of a running scope they do not come again."""
        core = self._core()
        if core is not None:
            for view in views:
                core.layer_closed(view.layer.id)

    def show_rois(self, layer: RoiLayer) -> None:
        """Show ROIs instead of those that were there."""
        view = self._rois.get(layer.id)
        if view is None:
            view = self._rois[layer.id] = self._new_rois(layer)
        view.take(layer)
        self._show(layer, view)

    def _new_rois(self, layer: RoiLayer) -> RoiView | MarksView:
        if layer.marks != "rois":
            return MarksView(self.viewer)
        return LiveRoiView(self.viewer, self._later, self._core) if layer.live else RoiView(self.viewer)

    def was_closed(self) -> None:
        """A person has closed it: napari's objects are gone, what it showed is still known; a running scope is not."""
        self.viewer, self._blank = None, None
        for view in self._views():
            view.bind(None)
        self._tell_closed([view for view in self._images.values() if view.layer.live])

    def take_over(self, closed: NapariWindow) -> None:
        """Show everything of a window that was closed."""
        self._images, self._rois = closed._images, closed._rois
        for view in self._views():
            view.bind(self.viewer)
        for image in self._images.values():
            self._show(image.layer, image)
        for rois in self._rois.values():
            self._show(rois.layer, rois)

    def _views(self) -> list[ImageView | RoiView | MarksView]:
        return [*self._images.values(), *self._rois.values()]

    def remove(self, layer_id: str) -> bool:
        """Take a layer away; False if it is not here."""
        view: ImageView | RoiView | MarksView | None = self._images.pop(layer_id, None) or self._rois.pop(layer_id, None)
        if view is None:
            return False
        if self.viewer is None:
            return True
        with self._still():
            view.remove()
            self._arrange()
        self._look()
        return True

    def _show(self, layer: ImageLayer | RoiLayer, view: ImageView | RoiView | MarksView) -> None:
        self.window_id = layer.window_id
        if self._named and self.viewer.title != layer.window:
            self.viewer.title = layer.window
        with self._still():
            self._arrange(view)
        self._look()

    def _arrange(self, changed: ImageView | RoiView | MarksView | None = None) -> None:
        """Have all layers of the window share its axes; the sliders stay at the planes where they are."""
        before = self.values()
        axes = merged_axes([view.layer for view in self._views()])
        others = axes != self.axes
        self.axes = axes
        for image in self._images.values():
            if others or image is changed:
                image.show(axes)
        self._show_blank()
        for view in self._views():
            view.sort(self._ours_above(view.layer.order))
        self._return_to(before)

    def _show_blank(self) -> None:
        """An empty image, where there are only ROIs: napari has sliders for what is in its layers only."""
        if self._blank is not None and self._blank in self.viewer.layers:
            self.viewer.layers.remove(self._blank)
        self._blank = None
        if self._images or not self._rois:
            return
        size = np.max([view.size() for view in self._rois.values()], axis=0)
        front = [len(axis.values) for axis in self.axes]
        layer = next(iter(self._rois.values())).layer
        self._blank = self.viewer.add_image(
            np.broadcast_to(np.zeros((), np.uint8), (*front, *size)),
            name=_NO_IMAGES,
            contrast_limits=(0, 1),
            scale=[axis.scale for axis in self.axes] + list(layer.scale[-2:]),
            units=[axis.unit for axis in self.axes] + [unit or "pixel" for unit in layer.units[-2:]],
            axis_labels=[axis.label for axis in self.axes] + list(layer.axis_names[-2:]),
        )
        self.viewer.layers.move(self.viewer.layers.index(self._blank), 0)

    def _ours_above(self, order: int) -> list[Any]:
        """Layers of napari that lie above the layer of this number."""
        views = sorted(self._views(), key=lambda view: view.layer.order)
        return [layer for view in views if view.layer.order > order for layer in view.napari_layers()]

    # -- places

    def index(self) -> tuple[int, ...]:
        """Return where the sliders are, along the axes of this window."""
        found = []
        point = self.viewer.dims.point[-2 - len(self.axes) :] if self.viewer.dims.ndim >= 2 + len(self.axes) else ()
        for number, axis in enumerate(self.axes):
            at = point[number] / axis.scale if number < len(point) else 0
            found.append(min(max(round(at), 0), len(axis.values) - 1))
        return tuple(found)

    def values(self) -> dict[str, Any]:
        """Return the same as what each axis stands for there."""
        return {axis.name: axis.values[at] for axis, at in zip(self.axes, self.index(), strict=True)}

    def go_to(self, index: Sequence[int]) -> None:
        """Bring the sliders there."""
        first = self.viewer.dims.ndim - 2 - len(self.axes)
        if first < 0:
            return
        numbers = range(first, first + len(self.axes))
        self.viewer.dims.set_point(list(numbers), [at * axis.scale for at, axis in zip(index, self.axes, strict=True)])

    def _return_to(self, before: dict[str, Any]) -> None:
        now = self.index()
        wanted = tuple(
            axis.values.index(before[axis.name]) if before.get(axis.name) in axis.values else at
            for axis, at in zip(self.axes, now, strict=True)
        )
        if wanted != now:
            self.go_to(wanted)

    @contextmanager
    def _still(self) -> Iterator[None]:
        """Look at no slider meanwhile."""
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before

    def _moved(self, event: object = None) -> None:
        if not self._busy and not self._waiting:
            self._waiting = True
            self._later(self._look)

    def _look(self) -> None:
        """Show what belongs to the place of the sliders: ROIs, contrast of the channel, and what the place is."""
        self._waiting = False
        if self.viewer is None:
            return
        index = self.index()
        displayed = {number - self.viewer.dims.ndim + 2 + len(self.axes) for number in self.viewer.dims.displayed}
        values = self.values()
        with self._still():
            for image in self._images.values():
                image.look(index, displayed & set(range(len(self.axes))), values)
            for rois in self._rois.values():
                rois.look(self.axes, index)
            text = self.viewer.canvas.overlays.text
            missing = [view.layer for view in self._images.values() if view.is_missing(self.axes, index)]
            words = [f"\n{layer.name}: {'no frame yet' if layer.live else 'this plane is missing'}" for layer in missing]
            said = place_text(self.axes, index) + "".join(words)
            if text.text != said:
                text.text = said
            text.visible = bool(said)

    # -- what napari holds

    def held(self) -> list[HeldLayer]:
        """Return the layers, from the bottom."""
        views = sorted(self._views(), key=lambda view: view.layer.order)
        found = []
        for view in views:
            if isinstance(view, ImageView) and not view.napari_layers():
                continue  # a person has removed it
            if isinstance(view, ImageView):
                found.append(view.held(self.axes, self.index()))
            else:
                layer = view.layer
                found.append(
                    HeldLayer(
                        id=layer.id,
                        name=layer.name,
                        window=self.viewer.title,
                        kind="rois",
                        axis_names=[axis.label for axis in self.axes] + list(layer.axis_names[-2:]),
                        shape=[len(axis.values) for axis in self.axes],
                        scale=[axis.scale for axis in self.axes] + list(layer.scale[-2:]),
                    )
                )
        return found

    def editable(self, layer_id: str) -> LiveRoiView | None:
        """Return a layer that a person may draw in; None if it is not here."""
        view = self._rois.get(layer_id)
        return view if isinstance(view, LiveRoiView) and view.layer.editable and self.viewer is not None else None

    def held_plane(self, layer_id: str, index: tuple[int, ...]) -> NDArray[Any] | None:
        """Return a plane of a layer; None if the layer is not here."""
        view = self._images.get(layer_id)
        return None if view is None else view.held_plane(index)

    def held_rois(self, layer_id: str, index: tuple[int, ...]) -> list[Roi] | None:
        """Return the ROIs of a plane, for which the sliders go there and back; None if the layer is not here."""
        view = self._rois.get(layer_id)
        if view is None:
            return None
        lengths = [len(axis.values) for axis in self.axes]
        if len(index) != len(lengths) or any(not 0 <= at < length for at, length in zip(index, lengths, strict=True)):
            raise ConfigError(f"there is no plane {index} in {view.layer.name!r}")
        before = self.viewer.dims.point
        with self._still():
            self.go_to(index)
            view.look(self.axes, self.index())
            found = view.held()
            self.viewer.dims.set_point(list(range(len(before))), before)
        self._look()
        return found
