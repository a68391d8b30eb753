"""Take the picture of napari for the documents; see docs/napari.md: it needs a screen, such as xvfb-run gives."""

from __future__ import annotations

import math
import os
import tempfile
import time
from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from mutoscope import viewers
from mutoscope.model.roi import Ellipse, Mask, Points, Polygon, Roi

OUT = Path(__file__).resolve().parents[1] / "docs" / "napari.png"
SIZE = 512
CELLS = 14
SETTLED_S = 2.0


def cells(rng: np.random.Generator) -> list[tuple[float, float, float, float, float]]:
    """Centres, axes and angles of cells that lie apart."""
    found: list[tuple[float, float, float, float, float]] = []
    while len(found) < CELLS:
        y, x = rng.uniform(60, SIZE - 60, 2).tolist()
        if all((y - other[0]) ** 2 + (x - other[1]) ** 2 > 100**2 for other in found):
            found.append((y, x, rng.uniform(50, 70), rng.uniform(70, 90), rng.uniform(0, 180)))
    return found


def image_of(layout: list[tuple[float, float, float, float, float]], part: float, rng: np.random.Generator) -> np.ndarray:
    """An image of cells, each bright inside `part` of its axes."""
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.full((SIZE, SIZE), 100.0)
    for cy, cx, height, width, angle in layout:
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        along, across = (x - cx) * cos + (y - cy) * sin, (y - cy) * cos - (x - cx) * sin
        radius = np.hypot(2 * along / width, 2 * across / height) / part
        image += 900 / (1 + np.exp(8 * (radius - 1)))
    return rng.poisson(image).astype(np.uint16)


def settled(sink: viewers.ViewerSink) -> np.ndarray:
    """What is on the screen when nothing of it has changed for three looks of the widget at its account."""
    picture, since = sink.screenshot(), time.monotonic()
    while time.monotonic() - since < SETTLED_S:
        time.sleep(0.1)
        now = sink.screenshot()
        if not np.array_equal(now, picture):
            picture, since = now, time.monotonic()
    return picture


def main() -> None:
    """Start napari, send, and keep what is on its screen."""
    rng = np.random.default_rng(4)
    layout = cells(rng)
    outlines = [Roi(f"cell {number}", Ellipse((y, x), h, w, a)) for number, (y, x, h, w, a) in enumerate(layout[:9], 1)]
    (y, x, *_) = layout[10]
    ring = [(y + 40 * math.sin(t / 20 * math.pi), x + 45 * math.cos(t / 20 * math.pi)) for t in range(40)]
    hole = [(y + 14 * math.sin(t / 15 * math.pi), x + 16 * math.cos(t / 15 * math.pi)) for t in range(30)]
    (my, mx, *_) = layout[12]
    disc = np.hypot(*np.mgrid[-20:21, -20:21]) < 20
    rois = [
        *outlines,
        Roi("ring", Polygon(ring, [hole])),
        Roi("nucleus", Mask.from_array(disc, (int(my) - 20, int(mx) - 20))),
        Roi("spots", Points([(cell[0], cell[1]) for cell in layout[:9]])),
    ]
    display = viewers.Display(
        channel="layer",
        lut={1: "magenta", 2: "green"},
        contrast={1: (100, 1300), 2: (100, 1100)},
        pixel_size_um=0.325,
        z_um=1.0,
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"XDG_RUNTIME_DIR": folder, "NAPARI_CONFIG": f"{folder}/napari.yaml"}
        sink = viewers.open("napari", filenames="imagexpress", display=display, timeout_s=120.0, required=True)
        for z in (1, 2, 3):
            sink.save(image_of(layout, 1.0, rng), f"B03_s1_w1_z{z}_t1.tif", source="raw")
            sink.save(image_of(layout, 0.5, rng), f"B03_s1_w2_z{z}_t1.tif", source="raw")
        sink.save(rois, "B03_s1_w2_z1_t1.tif", source="raw", until="displayed")
        picture = settled(sink)
        sink.close(leave_open=False)
    imageio.imwrite(OUT, picture)


if __name__ == "__main__":
    main()
