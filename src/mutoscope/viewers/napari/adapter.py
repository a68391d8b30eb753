"""The adapter of napari."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError, ViewerUnavailableError
from mutoscope.model.roi import Roi
from mutoscope.viewers.adapter import HeldLayer, ViewerAdapter
from mutoscope.viewers.display import Arrangement
from mutoscope.viewers.model import ImageLayer, RoiLayer

if TYPE_CHECKING:
    from mutoscope.viewers.core import ViewerCore
    from mutoscope.viewers.napari.live_rois import LiveRoiView

__all__ = ["NapariAdapter", "check_screen"]

log = logging.getLogger(__name__)


def check_screen() -> None:
    """Raise ViewerUnavailableError where there is no screen, before Qt aborts the process."""
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")):
        raise ViewerUnavailableError("there is no screen for napari: DISPLAY is not set (xvfb-run gives a program one)")


class NapariAdapter(ViewerAdapter):
    """Shows layers in napari: in windows of its own, or in the one that a person has open.

    Parameters
    ----------
    viewer : napari.Viewer, optional
        The open one. It is never closed, and its own layers are left alone; `close` is to be called before it is gone.
    ended : callable, optional
        Called in the thread of the window system instead of the end of `run`, where there is a viewer: it has a loop already.
    """

    kind: ClassVar[str] = "napari"
    defaults: ClassVar[Mapping[str, Arrangement]] = {"source": "layer"}

    def __init__(self, viewer: Any = None, ended: Callable[[], None] | None = None) -> None:
        self._given = viewer
        self._ended = ended
        self._windows: list[Any] = []
        self._loop: Any = None
        self._title = ""
        self._closing = False
        self._core: ViewerCore | None = None
        self.stays = viewer is not None

    def open(self, title: str) -> None:
        if self._given is None:
            check_screen()
        import napari
        from napari.qt import get_qapp

        from mutoscope.viewers.napari.loop import GuiLoop

        if self._given is None:
            get_qapp().setQuitOnLastWindowClosed(False)
        self._loop = GuiLoop()
        self._title = title
        self._make = napari.Viewer
        self._add_window(self._given)

    def _add_window(self, given: Any = None) -> Any:
        from mutoscope.viewers.napari.windows import NapariWindow

        viewer = given if given is not None else self._make(title=self._title)
        window = NapariWindow(viewer, self._loop.call_soon, named=given is None, core=lambda: self._core)
        if given is None:
            viewer.window._qt_window.destroyed.connect(lambda *_: self._was_closed(window))
        self._windows.append(window)
        return window

    def began(self, core: ViewerCore) -> None:
        self._core = core
        if self._given is None:
            from mutoscope.viewers.napari.host import Host
            from mutoscope.viewers.napari.widget import ReceiverWidget

            viewer = self._windows[0].viewer
            Host.adopt(viewer, core)
            viewer.window.add_dock_widget(ReceiverWidget(viewer), name="Mutoscope", area="right")

    # -- life

    def run(self) -> None:
        self._loop.run()

    def call_soon(self, callback: Callable[[], None], delay_s: float = 0.0) -> None:
        self._loop.call_soon(callback, delay_s)

    def stop(self) -> None:
        if self._ended is not None:
            self._loop.call_soon(self._ended)
        else:
            self._loop.stop()

    def close(self) -> None:
        self._loop.check()
        self._closing = True
        for window in self._windows:
            window.let_go()
            if window.viewer is not self._given:
                window.viewer.close()
        self._windows.clear()

    def _was_closed(self, window: Any) -> None:
        """A person has closed a window: the last one ends it all, another comes again when there is something new for it."""
        if self._closing or window not in self._windows:
            return
        window.was_closed()
        if window.empty:
            self._windows.remove(window)
        if all(each.viewer is None for each in self._windows):
            log.info("its last window was closed")
            self.stop()

    # -- layers

    def show_images(self, layer: ImageLayer) -> None:
        self._window(layer).show_images(layer)

    def show_rois(self, layer: RoiLayer) -> None:
        self._window(layer).show_rois(layer)

    def _window(self, layer: ImageLayer | RoiLayer) -> Any:
        self._loop.check()
        window = next((each for each in self._windows if each.window_id == layer.window_id), None)
        if window is None:
            free = (each for each in self._windows if each.empty and each.viewer is not None)
            window = next(free, None) or self._add_window()
        if window.viewer is None:
            self._windows.remove(window)
            fresh = self._add_window()
            fresh.take_over(window)
            window = fresh
        return window

    def remove(self, layer_id: str) -> None:
        self._loop.check()
        for window in list(self._windows):
            if window.remove(layer_id) and window.empty and len(self._windows) > 1 and window.viewer is not self._given:
                self._windows.remove(window)
                if window.viewer is not None:
                    window.let_go()
                    window.viewer.close()

    # -- a person

    def tell(self, text: str) -> None:
        self._loop.check()
        super().tell(text)
        from napari.utils.notifications import show_info

        show_info(text)

    def draw(self, layer_id: str, roi: Roi) -> None:
        self._editable(layer_id).draw(roi)

    def erase(self, layer_id: str, roi_id: str) -> None:
        self._editable(layer_id).erase(roi_id)

    def _editable(self, layer_id: str) -> LiveRoiView:
        self._loop.check()
        found = (window.editable(layer_id) for window in self._windows)
        view: LiveRoiView | None = next((each for each in found if each is not None), None)
        if view is None:
            raise ConfigError(f"there is no layer of ROIs {layer_id!r} that can be edited")
        return view

    # -- what is on the screen

    def screenshot(self) -> NDArray[np.uint8]:
        self._loop.check()
        window = next(each for each in self._windows if each.viewer is not None)
        picture: NDArray[np.uint8] = window.viewer.screenshot(canvas_only=False, flash=False)
        return np.ascontiguousarray(picture[..., :3])

    # -- what it holds

    def held_layers(self) -> list[HeldLayer]:
        self._loop.check()
        return [layer for window in self._windows if window.viewer is not None for layer in window.held()]

    def held_plane(self, layer_id: str, index: tuple[int, ...]) -> NDArray[Any]:
        self._loop.check()
        for window in self._windows:
            found: NDArray[Any] | None = window.held_plane(layer_id, index)
            if found is not None:
                return found
        raise ConfigError(f"there is no layer of images {layer_id!r}")

    def held_rois(self, layer_id: str, index: tuple[int, ...]) -> list[Roi]:
        self._loop.check()
        for window in self._windows:
            found: list[Roi] | None = window.held_rois(layer_id, index)
            if found is not None:
                return found
        raise ConfigError(f"there is no layer of ROIs {layer_id!r}")
