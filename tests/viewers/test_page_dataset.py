"""A stored data set in the browser: its frames by a slider, with the same drawing as live ones."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import browser_support
import page_lab
import pytest
from test_page_browser import check_pixels, shown

import mutoscope as ms

pytestmark = pytest.mark.xdist_group("page in a browser")


def test_a_stored_data_set_is_looked_through(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(sources={"words": ms.SourceSettings(page_lab.SHAPES["words"], "uint16")}, record=path) as scope:
        for frame_id in range(1, 7):
            scope.source("words").push(page_lab.known("words", frame_id))
    command = [sys.executable, "-m", "mutoscope", "view", "browser", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as viewer:
        try:
            assert viewer.stdout is not None
            url = next(found.group() for line in viewer.stdout if (found := re.search(r"http://\S+", line)))
            with browser_support.chromium() as browser:
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                complaints: list[str] = []
                page.on("pageerror", lambda error: complaints.append(str(error)))
                page.goto(url)
                name = page.wait_for_function("() => document.querySelector('.frame-number')?.textContent.match(/frame \\d/)")
                assert name
                stream = page.evaluate("() => ['words', 'run', 'image', 'camera'].find((each) => window.mutoscope.look(each))")
                for frame_id in (1, 5, 2):  # the first one is there from the beginning, whole
                    if frame_id != 1:
                        page.get_by_role("slider", name="Frame", exact=True).fill(str(frame_id))
                    image = page_lab.known("words", frame_id)
                    most = int(image.max())
                    # Contrast follows the frame that is seen.
                    seen = shown(page, stream, frame_id, lambda seen, most=most: seen["hi"] <= most)
                    assert (seen["crop"]["width"], seen["crop"]["height"]) == image.shape[::-1], seen["crop"]
                    check_pixels(seen, image)
                page.click("#tab-scope")
                assert "1 to 6" in page.get_by_role("tabpanel").inner_text()
                page.click("#tab-control")
                assert "nothing to control" in page.get_by_role("tabpanel").inner_text()
                assert complaints == []
        finally:
            viewer.send_signal(signal.SIGINT)
            viewer.communicate()
