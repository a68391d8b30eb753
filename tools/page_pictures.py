"""Take the pictures of the live page that the documents show, from a real ``mutoscope demo``: python tools/page_pictures.py

Writes ``docs/page.png`` (1280 × 800) and ``docs/page-narrow.png`` (768 × 1024). Needs Debian's chromium and the tests' tools.
"""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

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
    page.get_by_role("switch", name="beads").check()
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


def main() -> None:
    """Run the demonstration, look at it, stop it."""
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


if __name__ == "__main__":
    main()
