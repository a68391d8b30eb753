"""Take the pictures of the live page that the documents show: python tools/page_pictures.py

From a real ``mutoscope demo``, ``docs/page.png`` (1280 × 800) and ``docs/page-narrow.png`` (768 × 1024); of a stored plate of
simulated cells, ``docs/page-plate.png``; of a viewer to which such cells were sent, ``docs/page-viewer.png``. Needs Debian's
chromium and the tests' tools.
"""

from __future__ import annotations

import io
import itertools
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mutoscope import storage, viewers
from mutoscope.model.roi import Polygon, Roi

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/viewers"))

import browser_support  # noqa: E402

MOST_BYTES = 400_000
RUNS_S = 45.0
"""How long the demonstration has run when the pictures are taken: its charts have something to show."""


def address(demo: subprocess.Popen[str]) -> str:
    """Read on until the demonstration tells where its page is."""
    assert demo.stdout is not None
    for line in demo.stdout:
        if found := re.search(r"http://\S+", line):
            return found.group()
    raise SystemExit("the demonstration told no address")


def take(page: Any, docs: Path, began: float) -> None:
    """Arrange the page as somebody would who works with it, then take both pictures."""
    page.wait_for_function("() => window.mutoscope?.look('camera')")
    assert page.get_by_role("switch", name="beads").is_checked()
    page.get_by_label("tail length").fill("400")
    page.keyboard.press("Enter")
    page.get_by_label("Colours").select_option("magma")
    page.locator("canvas.overlay").focus()
    page.keyboard.press("r")
    box = page.locator("canvas.overlay").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.44, box["y"] + box["height"] * 0.33)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.63, box["y"] + box["height"] * 0.62, steps=5)
    page.mouse.up()
    page.click("#tab-rois")
    name = page.locator(".rois input").first
    name.fill("field A")
    name.press("Tab")
    page.click("#tab-image")
    page.locator("canvas.overlay").hover(position={"x": box["width"] * 0.55, "y": box["height"] * 0.45})
    time.sleep(max(0.0, RUNS_S - (time.monotonic() - began)))
    save(page, docs / "page.png")
    page.set_viewport_size({"width": 768, "height": 1024})
    page.click("#tab-scope")
    page.locator("canvas.overlay").hover(position={"x": 300, "y": 200})
    page.wait_for_timeout(1500)
    save(page, docs / "page-narrow.png")


def save(page: Any, path: Path) -> None:
    """Save what is seen, in 256 colours: noise costs a picture most of its bytes."""
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").quantize(256).save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes, more than {MOST_BYTES}")


def cells(random: np.random.Generator, wave: int, side: int = 700) -> NDArray[np.uint16]:
    """Simulate a plane: nuclei in the first channel, small spots in the second."""
    y, x = np.mgrid[:side, :side]
    image = np.full((side, side), 180.0)
    for _ in range(34 if wave == 1 else 90):
        (cy, cx), turn = random.uniform(0, side, 2), random.uniform(0, np.pi)
        long, short = random.uniform(16, 26, 2) if wave == 1 else (4.0, 4.0)
        along = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        across = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        far = np.hypot(along / long, across / short)
        image += random.uniform(900, 2600) / (1 + np.exp(6 * np.clip(far - 1, -1, 3)))
    return np.rint(image + random.normal(0, 2, image.shape)).astype(np.uint16)


def make_plate(path: Path) -> None:
    """Make a plate of 96 wells, half of them imaged, of which two lack a plane."""
    random = np.random.default_rng(4)
    pool = {wave: [cells(random, wave) for _ in range(6)] for wave in (1, 2)}
    with storage.open("ome-zarr", path, filenames="imagexpress", wells=96, pixel_size_um=0.325) as plate:
        for row, column, site, wave in itertools.product("BCDEFG", range(2, 12), (1, 2, 3, 4), (1, 2)):
            if (row, column, site, wave) not in (("D", 5, 2, 2), ("F", 9, 4, 1)):
                plate.save(random.choice(pool[wave]), f"screen_{row}{column:02}_s{site}_w{wave}.tif")


def show_plate(browser: Any, path: Path, docs: Path) -> None:
    """Look at a field of the plate."""
    command = [sys.executable, "-m", "mutoscope", "view", "browser", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as viewer:
        try:
            page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
            page.goto(address(viewer))
            page.click("#well-D05")
            page.wait_for_function("() => document.querySelector('.when').textContent === 'D05 · 0'")
            page.locator("canvas.overlay").hover(position={"x": 390, "y": 300})
            page.wait_for_timeout(1500)
            save(page, docs / "page-plate.png")
        finally:
            viewer.send_signal(signal.SIGINT)
            viewer.communicate()


def nuclei(image: NDArray[np.uint16]) -> list[Roi]:
    """Return the outlines of what is bright, as a segmentation makes them."""
    from skimage import measure

    bright = measure.find_contours(image.astype(float), 900.0)
    return [
        Roi(f"nucleus {number}", Polygon([(float(y), float(x)) for y, x in ring[:-1:3]]))
        for number, ring in enumerate((ring for ring in bright if len(ring) > 80), 1)
    ]


def show_viewer(browser: Any, docs: Path) -> None:
    """Send planes and ROIs as a pipeline does, some of which have yet to come, and look at them."""
    random = np.random.default_rng(8)
    pool = {wave: [cells(random, wave, 400) for _ in range(5)] for wave in (1, 2)}
    display = viewers.Display(
        channel="layer", lut={1: "cyan", 2: "magenta"}, contrast={1: (200, 2600), 2: (250, 2400)}, pixel_size_um=0.325
    )
    with viewers.open("browser", "pictures", filenames="imagexpress", display=display) as viewer:
        try:
            for well, t, z in itertools.product(("B03", "B04", "C03"), range(1, 9), range(1, 6)):
                if (well, t) != ("B03", 6) and (well, t, z) not in (("B03", 4, 4), ("C03", 8, 5)):
                    stack = [pool[wave][z - 1] for wave in (1, 2)]
                    viewer.save_batch(stack, [f"{well}_s1_w{wave}_z{z}_t{t}.tif" for wave in (1, 2)], source="raw")
                    if (well, t, z) == ("B03", 4, 3):
                        viewer.save(nuclei(stack[0]), f"{well}_s1_w1_z{z}_t{t}.roi.zip", source="raw")
            viewer.wait(60.0)
            page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
            page.goto(viewer.link)
            page.get_by_role("slider", name="z").wait_for()
            page.evaluate("() => window.mutoscope.goTo({ well: 'B03', t: '4', z: '3' })")
            page.locator("canvas.overlay").hover(position={"x": 390, "y": 300})
            page.wait_for_timeout(1500)
            save(page, docs / "page-viewer.png")
        finally:
            viewer.close(leave_open=False)


def main() -> None:
    """Run the demonstration, look at it, stop it; then the plate, and the viewer."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mutoscope", "demo", "--out", f"{folder}/beads.ome.zarr"]
        began = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
            try:
                with browser_support.chromium() as browser:
                    context = browser.new_context(viewport={"width": 1280, "height": 800})
                    page = context.new_page()
                    page.goto(address(demo))
                    take(page, ROOT / "docs", began)
            finally:
                demo.send_signal(signal.SIGINT)
                demo.communicate()
        make_plate(Path(folder) / "screen.ome.zarr")
        with browser_support.chromium() as browser:
            show_plate(browser, Path(folder) / "screen.ome.zarr", ROOT / "docs")
            show_viewer(browser, ROOT / "docs")


if __name__ == "__main__":
    main()
