"""Drawing, in a real browser: each pixel of the screen is that of the image through the rounding rule and the LUT."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import browser_support
import numpy as np
import pytest
from browser_support import LUTS, coloured, index_of, places
from numpy.typing import NDArray

KINDS = {"uint8": "u1", "uint16": "u2", "float32": "f4"}
PANE = (0, 0, 301, 203)

Layer = tuple[NDArray[Any], tuple[int, int, int, int, int], tuple[float, float, float], str]
Draw = Callable[..., NDArray[np.uint8]]


@pytest.fixture(scope="module")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Draw]:
    """Return a function that draws layers into a pane of a canvas and reads all its colours back."""
    script = browser_support.bundle("drawing.ts", "drawing", tmp_path_factory.mktemp("page") / "drawing.js")
    with browser_support.chromium() as browser:
        page = browser.new_page()
        page.add_script_tag(content=script.read_text())

        def run(
            layers: list[Layer], *, view: tuple[float, float, float], pane: tuple[int, int, int, int] = PANE, size=(301, 203)
        ) -> NDArray[np.uint8]:
            planes = []
            for number, (image, (x0, y0, x1, y1, step), (lo, hi, gamma), lut) in enumerate(layers):
                samples = np.ascontiguousarray(image[y0:y1:step, x0:x1:step])
                planes.append(
                    {
                        "name": f"layer {number}",
                        "kind": KINDS[image.dtype.name],
                        "samples": base64.b64encode(samples.tobytes()).decode(),
                        "width": samples.shape[1],
                        "height": samples.shape[0],
                        "x0": x0,
                        "y0": y0,
                        "step": step,
                        "window": {"lo": lo, "hi": hi, "gamma": gamma},
                        "lut": lut,
                    }
                )
            rect = dict(zip(("x", "y", "width", "height"), pane, strict=True))
            place = dict(zip(("x", "y", "zoom"), view, strict=True))
            text = page.evaluate("given => drawing.draw(...given)", [list(size), rect, place, planes])
            return np.frombuffer(base64.b64decode(text), np.uint8).reshape(size[1], size[0], 4)

        yield run


def expected(layers: list[Layer], *, view: tuple[float, float, float]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Colours of the pane by NumPy, and where they are certain: not at the very border between two pixels of the image."""
    x, y, zoom = view
    _, _, width, height = PANE
    columns, rows = places(width, x, zoom), places(height, y, zoom)
    total = np.zeros((height, width, 3), np.uint16)
    certain = np.ones((height, width), bool)
    for image, (x0, y0, x1, y1, step), (lo, hi, gamma), lut in layers:
        sent = image[y0:y1:step, x0:x1:step]
        across, down = (columns - x0) / step, (rows - y0) / step
        for places_, axis in ((across, 1), (down, 0)):
            # A zoom of a power of two puts places upon borders, but exactly there: the pixel that begins has them.
            near = (np.abs(places_ - np.round(places_)) < 1e-3) & (not np.log2(zoom).is_integer())
            certain &= ~(near[None, :] if axis else near[:, None])
        i, j = np.floor(down).astype(int), np.floor(across).astype(int)
        inside = ((i >= 0) & (i < sent.shape[0]))[:, None] & ((j >= 0) & (j < sent.shape[1]))[None, :]
        taken = sent[np.clip(i, 0, sent.shape[0] - 1)[:, None], np.clip(j, 0, sent.shape[1] - 1)[None, :]]
        total += np.where(inside[..., None], coloured(taken, lo, hi, gamma, lut), 0).astype(np.uint16)
    return np.minimum(total, 255).astype(np.uint8), certain


def images() -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(5)
    floats = random.normal(0.5, 0.4, (150, 220)).astype(np.float32)
    floats[3, 5:9] = [np.nan, np.inf, -np.inf, -0.0]
    return {
        "uint8": random.integers(0, 256, (150, 220), dtype=np.uint8),
        "uint16": random.integers(0, 65536, (150, 220), dtype=np.uint16),
        "float32": floats,
    }


WINDOWS = {
    "uint8": [(0, 255), (17, 90)],
    "uint16": [(0, 65535), (1000.5, 40000.25), (-50, 70000)],
    "float32": [(0, 1), (0.111, 0.77)],
}


@pytest.mark.parametrize("dtype", list(KINDS))
@pytest.mark.parametrize(
    ("zoom", "step"), [(1.0, 1), (2.0, 1), (3.0, 1), (7.0, 1), (1.37, 1), (0.5, 2), (1 / 3, 3), (0.4, 2), (0.25, 4)]
)
def test_each_pixel_is_that_of_the_image(draw: Draw, dtype: str, zoom: float, step: int) -> None:
    image = images()[dtype]
    for number, (lo, hi) in enumerate(WINDOWS[dtype]):
        gamma = (1.0, 0.45, 2.2)[number]
        lut = ("grays", "viridis", "hilo")[number]
        layers = [(image, (12, 9, 211, 148, step), (lo, hi, gamma), lut)]
        view = (104.3, 77.8, zoom)
        colours, certain = expected(layers, view=view)
        seen = draw(layers, view=view)
        assert (seen[..., 3] == 255).all()
        assert certain.mean() > 0.9
        np.testing.assert_array_equal(seen[..., :3][certain], colours[certain])


def test_floats_at_the_edges_of_colours(draw: Draw) -> None:
    """Where one colour ends and the next begins, to the last bit, whatever the graphics card's arithmetic."""
    for lo, hi, gamma in [(0.0, 1.0, 1.0), (-3.7, 911.3, 1.0), (1e-6, 3e-6, 0.5), (100.0, 101.0, 3.0)]:
        edges = (lo + ((np.arange(1, 256) - 0.5) / 255) ** (1 / gamma) * (hi - lo)).astype(np.float32)
        around = [edges]
        for way in (np.float32(-np.inf), np.float32(np.inf)):
            moved = edges
            for _ in range(3):
                moved = np.nextafter(moved, way)
                around.append(moved)
        image = np.stack(around)
        assert np.unique(index_of(image, lo, hi, gamma)).size == 256
        layers = [(image, (0, 0, image.shape[1], image.shape[0], 1), (lo, hi, gamma), "viridis")]
        view = (image.shape[1] / 2, image.shape[0] / 2, 1.0)
        colours, _ = expected(layers, view=view)
        np.testing.assert_array_equal(draw(layers, view=view)[..., :3], colours)


def test_channels_over_each_other_are_added(draw: Draw) -> None:
    image = images()["uint16"]
    layers = [
        (image, (0, 0, 220, 150, 1), (0.0, 50000.0, 1.0), "green"),
        (image[::-1].copy(), (0, 0, 220, 150, 1), (0.0, 30000.0, 1.0), "magenta"),
        (images()["uint8"], (0, 0, 220, 150, 1), (0.0, 255.0, 0.7), "fire"),
    ]
    view = (110.0, 75.0, 1.0)
    colours, _ = expected(layers, view=view)
    np.testing.assert_array_equal(draw(layers, view=view)[..., :3], colours)


def test_a_pane_draws_nothing_outside_itself(draw: Draw) -> None:
    image = np.full((400, 400), 255, np.uint8)
    seen = draw([(image, (0, 0, 400, 400, 1), (0.0, 255.0, 1.0), "grays")], view=(200.0, 200.0, 1.0), pane=(40, 30, 100, 80))
    inside = np.zeros(seen.shape[:2], bool)
    inside[30:110, 40:140] = True
    assert (seen[inside] == 255).all()
    assert (seen[~inside][:, :3] == 0).all()


def test_luts_are_what_microscopists_know() -> None:
    assert {
        "grays",
        "inverted",
        "fire",
        "viridis",
        "magma",
        "green",
        "red",
        "blue",
        "cyan",
        "magenta",
        "yellow",
        "hilo",
    } <= set(LUTS)
    assert LUTS["viridis"][[0, 255]].tolist() == [[68, 1, 84], [253, 231, 37]]
    assert LUTS["magma"][[0, 255]].tolist() == [[0, 0, 4], [252, 253, 191]]
    assert LUTS["fire"][[0, 255]].tolist() == [[0, 0, 0], [255, 255, 255]]
    assert LUTS["hilo"][[0, 128, 255]].tolist() == [[0, 0, 255], [128, 128, 128], [255, 0, 0]]
