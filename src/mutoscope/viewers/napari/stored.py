"""A stored data set in a napari of its own, until a person closes it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from mutoscope.viewers.napari.adapter import check_screen
from mutoscope.viewers.registry import check_viewer

__all__ = ["show_stored"]


def show_stored(path: Path, opened: Any = None) -> None:
    """Show a recording or a plate; returns when its window is closed, or SIGINT or SIGTERM comes.

    Parameters
    ----------
    path : path
        Of an OME-Zarr, or an OME-TIFF.
    opened : callable, optional
        Given napari's viewer when it shows the data set.

    Raises
    ------
    BackendUnavailableError, ViewerUnavailableError
        If napari is not installed, or there is no screen.
    DatasetNotFoundError, DatasetError
        If there is no data set, or it is damaged.
    """
    check_viewer("napari")
    check_screen()
    from mutoscope.viewers.napari.reader import layers_of

    layers = layers_of(path)
    import napari
    from napari.qt import get_qapp

    from mutoscope.viewers.napari.loop import GuiLoop

    get_qapp().setQuitOnLastWindowClosed(False)
    viewer = napari.Viewer(title=path.name)
    for planes, options, _ in layers:
        viewer.add_image(planes, **options)
    loop = GuiLoop()
    closed: list[bool] = []

    def was_closed(*_: object) -> None:
        closed.append(True)
        loop.stop()

    viewer.window._qt_window.destroyed.connect(was_closed)
    before = {number: signal.signal(number, lambda *_: loop.stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if opened is not None:
            opened(viewer)
        loop.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if not closed:
            viewer.close()
