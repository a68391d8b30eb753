"""A stored data set in the browser: its frames by a slider, with the same drawing as live ones."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import browser_support
import numpy as np
import page_lab
import zarr
from numpy.typing import NDArray
from test_page_browser import check_pixels, look, overlay_at, shown, spot

import mutoscope as ms
from mutoscope import storage
from polling import until


@contextmanager
def seen_in_a_browser(path: Path) -> Iterator[Any]:
    """Show a data set; gives the page, which has no word of error."""
    command = [sys.executable, "-m", "mutoscope", "view", "browser", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as viewer:
        try:
            assert viewer.stdout is not None
            url = next(found.group() for line in viewer.stdout if (found := re.search(r"http://\S+", line)))
            with browser_support.chromium() as browser:
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                complaints: list[str] = []
                page.on("pageerror", lambda error: complaints.append(str(error)))
                page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
                page.goto(url)
                yield page
                assert complaints == []
        finally:
            viewer.send_signal(signal.SIGINT)
            viewer.communicate()


def test_a_stored_data_set_is_looked_through(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(sources={"words": ms.SourceSettings(page_lab.SHAPES["words"], "uint16")}, record=path) as scope:
        for frame_id in range(1, 7):
            scope.source("words").push(page_lab.known("words", frame_id))
    with seen_in_a_browser(path) as page:
        name = page.wait_for_function("() => document.querySelector('.frame-number')?.textContent.match(/frame \\d/)")
        assert name
        for frame_id in (1, 5, 2):  # the first one is there from the beginning, whole
            if frame_id != 1:
                page.get_by_role("slider", name="Frame", exact=True).fill(str(frame_id))
            image = page_lab.known("words", frame_id)
            most = int(image.max())
            # Contrast follows the frame that is seen.
            seen = shown(page, "words", frame_id, lambda seen, most=most: seen["hi"] <= most)
            assert (seen["crop"]["width"], seen["crop"]["height"]) == image.shape[::-1], seen["crop"]
            check_pixels(seen, image)
        page.click("#tab-scope")
        assert "1 to 6" in page.get_by_role("tabpanel").inner_text()
        assert str(path) in page.get_by_role("tabpanel").inner_text()
        # Nothing is offered that a stored data set cannot do.
        assert page.get_by_role("tab").all_inner_texts() == ["Image", "Data set"]
        assert page.get_by_role("toolbar", name="Tools").get_by_role("button", name="Rectangle").count() == 0
        page.keyboard.press("?")
        assert "Take or give back control" not in page.get_by_role("dialog").inner_text()
        page.keyboard.press("Escape")
        # Played to the end, and from the beginning again.
        page.locator("canvas.overlay").focus()
        page.keyboard.press(" ")
        page.get_by_role("button", name="Play").wait_for()
        check_pixels(shown(page, "words", 6), page_lab.known("words", 6))
        page.get_by_role("slider", name="Frame", exact=True).fill("6")
        page.evaluate("""() => {
            window.played = new Set();
            const note = () => { window.played.add(window.mutoscope.look('words')?.frameId); requestAnimationFrame(note); };
            note();
        }""")
        page.get_by_role("button", name="Play").click()
        page.wait_for_function("() => window.played.has(6) && window.played.size > 1")
        page.get_by_role("button", name="Play").wait_for()


FRAMES = 78
ROWS_KEPT = 26
SHAPE = (100, 120)


def place_of(frame_id: int) -> tuple[float, float]:
    """Where the spot of a frame is: frames that follow one another have theirs far apart."""
    return 15.0 + 35.0 * (frame_id % 3), 15.0 + 40.0 * (frame_id // 3 % 3)


class Tracker(ms.Worker):
    """Writes a row a frame, and keeps few of them in memory."""

    def setup(self) -> None:
        self.frames = self.reader("words", policy="every", on_full="block")
        columns = [("frame_id", "u8"), ("bead", "i4"), ("y_px", "f8"), ("x_px", "f4")]
        self.spots = self.table("spots", dtype=columns, capacity=ROWS_KEPT)

    def step(self) -> None:
        with self.frames.next(timeout_s=0.1) as frame:
            self.spots.append((frame.frame_id, 5, *place_of(frame.frame_id)))
            self.frames.commit(frame)


def check_spots(page: Any, frame_ids: tuple[int, ...]) -> None:
    """Go to frames: the spot of each is drawn where it was then, and nothing where it was not."""
    for frame_id in frame_ids:
        page.get_by_role("slider", name="Frame", exact=True).fill(str(frame_id))
        shown(page, "words", frame_id)
        x, y = spot(page, "words", *place_of(frame_id))
        for side in (-9, 9):
            until(lambda x=x + side, y=y: overlay_at(page, x, y)[3] > 200, f"the ring of frame {frame_id}")
        for each in range(frame_id + 1, frame_id + 9):
            x, y = spot(page, "words", *place_of(each))
            assert overlay_at(page, x - 9, y)[3] == 0, (frame_id, each)


def test_the_tables_of_a_run_are_drawn_over_its_stored_frames(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    source = ms.SourceSettings(SHAPE, "uint16", rate_hz=100)
    with ms.Scope(sources={"words": source}, workers=[Tracker], record=path, page=True) as scope:
        scope.start_acquisition()
        for frame_id in range(1, FRAMES + 1):
            scope.source("words").push(np.full(SHAPE, frame_id, "uint16"))
            until(
                lambda frame_id=frame_id: scope.ledger.to_dict()["tables"].get("spots", {}).get("appended") == frame_id, "a row"
            )
            if frame_id % (ROWS_KEPT // 2) == 0:
                until(lambda frame_id=frame_id: scope.ledger.to_dict()["tables"]["spots"]["stored"] == frame_id, "stored rows")
        with browser_support.chromium() as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(scope.page_url)
            page.wait_for_function("window.mutoscope && document.querySelector('.link.open')")
            page.get_by_role("switch", name="spots").check()
            page.get_by_role("switch", name="tails").uncheck()
            check_spots(page, (40, 20, FRAMES - 10))  # the first two of them the table does not keep any more
    assert scope.ledger.to_dict()["tables"]["spots"]["lost"] == {}
    with seen_in_a_browser(path) as page:
        page.get_by_role("switch", name="spots").check()
        page.get_by_role("switch", name="tails").uncheck()
        check_spots(page, (7, 60, 31))
        page.get_by_role("switch", name="tails").check()
        before, now = spot(page, "words", *place_of(30)), spot(page, "words", *place_of(31))
        until(lambda: overlay_at(page, (before[0] + now[0]) / 2, (before[1] + now[1]) / 2)[3] > 200, "the tail")
        page.click("#tab-plots")
        page.get_by_role("button", name="Add a plot").click()
        page.get_by_label("Plot", exact=True).select_option("y_px")
        rows = page.locator(".plot-section .row .number")
        until(lambda: re.fullmatch(f"{FRAMES} rows", rows.inner_text()), "the rows around the frame")


def plane_of(well: str, wave: int, z: int) -> NDArray[np.uint16]:
    """A plane of the plate, large enough for a smaller size."""
    random = np.random.default_rng([*well.encode(), wave, z])
    return random.integers(100, 2000 * wave, (600, 500)).astype(np.uint16)


def test_a_plate_is_looked_through_by_wells_and_fields(tmp_path: Path) -> None:
    path = tmp_path / "plate.ome.zarr"
    names = [(well, wave, z) for well in ("B02", "B05", "D05") for wave in (1, 2) for z in (1, 2, 3)]
    with storage.open("ome-zarr", path, filenames="imagexpress", wells=96) as plate:
        for well, wave, z in names:
            if (well, wave, z) not in (("D05", 2, 2), ("D05", 1, 3)):
                plate.save(plane_of(well, wave, z), f"x_{well}_s1_w{wave}_z{z}.tif")
    small = {
        name: zarr.open_group(path, mode="r")["D/05/0/1"][0, name[1] - 1, name[2] - 1] for name in names if name[0] == "D05"
    }
    one, two = "channel 1", "channel 2"
    with seen_in_a_browser(path) as page:
        page.wait_for_selector("#well-B02[aria-pressed=true]")
        assert page.get_by_role("group", name="Wells").get_by_role("button").count() == 3
        assert "2 complete" in page.locator(".well-key").inner_text()
        assert "1 with missing planes" in page.locator(".well-key").inner_text()
        assert "93 not imaged" in page.locator(".well-key").inner_text()
        for name, wave in ((one, 1), (two, 2)):
            # Over each other, so that the colours are not one channel's alone: the other is left out for a look.
            other = two if name == one else one
            page.click("#tab-image")
            page.get_by_role("checkbox", name=f"Show {other}").uncheck()
            page.get_by_role("button", name=name, exact=True).click()
            page.keyboard.press("1")
            seen = shown(page, name, 1, lambda seen: seen["view"]["zoom"] == 1 and not seen["crop"]["averaged"])
            check_pixels(seen, plane_of("B02", wave, 1))
            page.get_by_role("checkbox", name=f"Show {other}").check()
        page.get_by_role("button", name=one, exact=True).click()
        page.click("#tab-plate")
        page.locator("#well-B02").focus()
        page.keyboard.press("ArrowRight")  # over wells without images
        page.keyboard.press("ArrowDown")  # and over a row without
        page.wait_for_selector("#well-D05[aria-pressed=true]")
        assert page.evaluate("document.activeElement.id") == "well-D05"
        assert "2 of 6 planes missing" in page.get_by_role("tabpanel").inner_text()
        page.wait_for_function("() => document.querySelector('.when').textContent === 'D05 · 0'")
        # Plane 2 is there of one channel only: nothing of another plane is drawn in its place.
        page.keyboard.press(".")
        page.wait_for_function("() => /z 2/.test(document.querySelector('.frame-number').textContent)")
        until(lambda: look(page, two) is None, "no plane of the other channel")
        check_pixels(shown(page, one, 2, lambda seen: seen["view"]["zoom"] == 1), plane_of("D05", 1, 2))
        # From afar the stored half size is drawn, and the value under the cursor is still the pixel's own.
        page.keyboard.press("f")
        page.set_viewport_size({"width": 900, "height": 560})
        seen = shown(page, one, 2, lambda seen: seen["crop"]["averaged"])
        assert seen["crop"]["step"] == 2
        check_pixels(seen, np.repeat(np.repeat(small["D05", 1, 2], 2, axis=0), 2, axis=1))
        box = page.locator("canvas.overlay").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.locator(".readout b").wait_for()
        column, row, value = map(int, re.match(r"x (\d+) y (\d+) (\d+)$", page.locator(".readout").text_content()).groups())
        assert value == plane_of("D05", 1, 2)[row, column]
        page.keyboard.press("[")
        page.wait_for_function("() => document.querySelector('.when').textContent === 'B05 · 0'")
        shown(page, two, 2)
