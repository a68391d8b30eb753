"""What the tests of viewers that watch a scope share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope.model.roi import Roi
from mutoscope.viewers import HeldLayer, ViewerSink
from mutoscope.viewers.sink import open_viewer
from polling import until

PATIENCE_S = 60.0


@contextmanager
def viewer(kind: str = "model", name: str = "watcher", *, stays: bool = False) -> Iterator[ViewerSink]:
    """A viewer that ends with the block, unless it stays."""
    with open_viewer(kind, name, timeout_s=PATIENCE_S, required=True) as sink:
        try:
            yield sink
        finally:
            sink.close(leave_open=stays)


def layer(sink: ViewerSink, name: str, kind: str = "images") -> HeldLayer:
    """Return a layer that the viewer holds, waited for."""

    def look() -> HeldLayer | None:
        return next((each for each in sink.layers() if (each.name, each.kind) == (name, kind)), None)

    found = until(look, f"a layer of {kind} {name!r}")
    assert found is not None
    return found


def shows(sink: ViewerSink, name: str, wanted: NDArray[Any]) -> None:
    """Wait until a layer holds exactly this image."""

    def look() -> bool:
        found = sink.plane(layer(sink, name))
        return found.dtype == wanted.dtype and np.array_equal(found, wanted, equal_nan=wanted.dtype.kind == "f")

    until(look, f"the image of {name!r}")


def drawn(sink: ViewerSink, name: str) -> dict[str, Roi]:
    """Return the ROIs that a layer holds, by id."""
    found = sink.rois(layer(sink, name, "rois"))
    assert len({roi.id for roi in found}) == len(found), "an id that is there twice"
    return {roi.id: roi for roi in found}


def draw(sink: ViewerSink, name: str, roi: Roi) -> None:
    """Draw a ROI as a person would."""
    plain = msgspec.to_builtins(roi, builtin_types=())
    sink._sender.call("draw", PATIENCE_S, layer=layer(sink, name, "rois").id, roi=plain)


def erase(sink: ViewerSink, name: str, roi_id: str) -> None:
    """Remove a ROI as a person would."""
    sink._sender.call("erase", PATIENCE_S, layer=layer(sink, name, "rois").id, roi_id=roi_id)
