"""The viewer in the browser: what the display model holds, offered by a page of the viewer's own."""

from __future__ import annotations

import logging
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mutoscope.viewers.browser.page import ViewerPage
from mutoscope.viewers.headless import HeadlessAdapter
from mutoscope.viewers.model import ImageLayer, RoiLayer

__all__ = ["BrowserAdapter"]

log = logging.getLogger(__name__)

ALONE_S = 600.0
PICTURE_S = 10.0


class BrowserAdapter(HeadlessAdapter):
    """Holds layers, and shows them to every browser that is connected.

    An item is displayed once the page has it at its place: it is drawn in each browser where a person looks at that plane. A
    browser takes what it looks at and no more, and none is waited for. The picture of `screenshot` is that of the browser
    that was heard last; without one it is painted here, as the viewer without a window does. It ends when for ten minutes there
    was neither a sender nor a browser.
    """

    kind: ClassVar[str] = "browser"
    alone_s: ClassVar[float | None] = ALONE_S

    def __init__(self) -> None:
        super().__init__()
        self._page: ViewerPage | None = None

    def open(self, title: str) -> None:
        page = self._page = ViewerPage(title, self.stop)
        page.start()
        self.address = page.url

    def is_looked_at(self) -> bool:
        return self._page is not None and self._page.unseen_s() < (self.alone_s or 0.0)

    def remark(self) -> str:
        return "" if self._page is not None and self._page.clients else "no browser is connected"

    def run(self) -> None:
        super().run()
        if self._page is not None and self._page.failure is not None:
            raise self._page.failure

    def close(self) -> None:
        if self._page is not None:
            self._page.stop()
        super().close()

    def show_images(self, layer: ImageLayer) -> None:
        super().show_images(layer)
        if self._page is not None:
            self._page.show(layer)

    def show_rois(self, layer: RoiLayer) -> None:
        super().show_rois(layer)
        if self._page is not None:
            self._page.show(layer)

    def remove(self, layer_id: str) -> None:
        super().remove(layer_id)
        if self._page is not None:
            self._page.remove(layer_id)

    def screenshot(self) -> NDArray[np.uint8]:
        picture = None if self._page is None else self._page.picture(PICTURE_S)
        if picture is None:
            log.info("no browser tells what is on its screen: the picture is painted here")
            return super().screenshot()
        return picture
