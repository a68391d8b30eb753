"""The page on all kinds of screens, in a real browser: touched, sharp, with a graphics card that goes away."""

from __future__ import annotations

import io
import re
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
from test_page_browser import Lab, check_pixels, keys, lab, look, nothing_left, only, page, shown

from polling import until

__all__ = ["lab", "nothing_left", "page"]  # the fixtures of this module, too


def touch(devtools: Any, kind: str, *points: tuple[float, float]) -> None:
    devtools.send(
        "Input.dispatchTouchEvent",
        {"type": kind, "touchPoints": [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(points)]},
    )


def test_two_fingers_zoom_and_pan(lab: Lab) -> None:
    phone = lab.open(has_touch=True)
    only(phone, "words")
    shown(phone, "words", lab.pushed["words"])
    keys(phone, "1", "+")
    until(lambda: look(phone, "words")["view"]["zoom"] == 2, "twice as large")
    box = phone.locator("canvas.overlay").bounding_box()
    x, y = box["x"] + box["width"] / 2 + 31, box["y"] + box["height"] / 2 - 17
    before = look(phone, "words")

    def place(seen: dict[str, Any], at_x: float, at_y: float) -> tuple[float, float]:
        """What of the image is at a place of the page."""
        view, pane = seen["view"], seen["pane"]
        return (
            view["x"] + (at_x - box["x"] - pane["x"] - pane["width"] / 2) / view["zoom"],
            view["y"] + (at_y - box["y"] - pane["y"] - pane["height"] / 2) / view["zoom"],
        )

    devtools = phone.context.new_cdp_session(phone)
    touch(devtools, "touchStart", (x - 40, y), (x + 40, y))
    for step in range(1, 11):  # apart to twice the distance, and 50 px to the right, 20 down
        far, shift = 40 + 4 * step, step / 10
        touch(devtools, "touchMove", (x - far + 50 * shift, y + 20 * shift), (x + far + 50 * shift, y + 20 * shift))
    touch(devtools, "touchEnd")
    after = until(
        lambda: (seen := look(phone, "words")) and seen["view"]["zoom"] == pytest.approx(4, rel=0.01) and seen, "four times"
    )
    # What was between the fingers is still between them, to a pixel of the screen.
    assert place(after, x + 50, y + 20) == pytest.approx(place(before, x, y), abs=0.5)
    check_pixels(shown(phone, "words", lab.pushed["words"]), lab.image("words"))
    assert phone.locator(".rois li").count() == 0
    # One finger pans.
    touch(devtools, "touchStart", (x, y))
    touch(devtools, "touchMove", (x + 40, y))
    touch(devtools, "touchEnd")
    until(lambda: look(phone, "words")["view"]["x"] == pytest.approx(after["view"]["x"] - 10, abs=0.3), "panned")
    phone.context.close()
    assert lab.complaints == []


@pytest.mark.parametrize("name", ["words", "reals"])
def test_graphics_that_are_lost_come_back(lab: Lab, page: Any, name: str) -> None:
    only(page, name)
    shown(page, name, lab.pushed[name])
    page.evaluate("""() => {
        window.card = document.querySelector('canvas.image').getContext('webgl2').getExtension('WEBGL_lose_context');
        window.card.loseContext();
    }""")
    page.get_by_text("The graphics card went away").wait_for()
    frame_id = lab.push(name)
    until(lambda: look(page, name)["frameId"] == frame_id, "frames go on to come")
    page.evaluate("() => window.card.restoreContext()")
    page.get_by_text("The graphics card went away").wait_for(state="detached")
    check_pixels(shown(page, name, frame_id), lab.image(name, frame_id))


def on_screen(page: Any, seen: dict[str, Any]) -> np.ndarray:
    """The pixels of the screen where a pane is."""
    box = page.locator("canvas.image").bounding_box()
    pane = seen["pane"]
    picture = imageio.imread(io.BytesIO(page.screenshot(clip=box, scale="device")), extension=".png")
    return picture[pane["y"] : pane["y"] + pane["height"], pane["x"] : pane["x"] + pane["width"], :3]


def test_two_device_pixels_to_one(lab: Lab) -> None:
    sharp = lab.open(device_scale_factor=2)
    only(sharp, "words")
    for over in ("Scale bar", "ROIs", "tracks"):
        sharp.get_by_role("switch", name=over).uncheck()
    fitted = shown(sharp, "words", lab.pushed["words"])
    box = sharp.locator("canvas.image").bounding_box()
    assert (fitted["pane"]["width"], fitted["pane"]["height"]) == (box["width"] * 2, box["height"] * 2)
    check_pixels(fitted, lab.image("words"))
    keys(sharp, "1")
    seen = shown(sharp, "words", lab.pushed["words"], lambda seen: seen["view"]["zoom"] == 2)
    check_pixels(seen, lab.image("words"))
    # What the screen shows is what was drawn: nothing lies between the canvas's pixels and the screen's. The name is above.
    sharp.mouse.move(0, 0)
    sharp.locator("#tab-image").focus()
    np.testing.assert_array_equal(on_screen(sharp, seen)[60:], seen["colours"][60:])
    sharp.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    sharp.locator(".readout b").wait_for()
    found = re.match(r"x (\d+) y (\d+) (\d+)$", sharp.locator(".readout").text_content())
    column, row, value = map(int, found.groups())
    assert (column, row) == pytest.approx((seen["view"]["x"], seen["view"]["y"]), abs=1.5)
    assert value == lab.image("words")[row, column]
    sharp.context.close()
    assert lab.complaints == []


def test_a_window_that_is_moved_to_a_sharper_screen(lab: Lab, page: Any) -> None:
    only(page, "words")
    before = shown(page, "words", lab.pushed["words"])
    devtools = page.context.new_cdp_session(page)
    devtools.send("Emulation.setDeviceMetricsOverride", {"width": 1280, "height": 800, "deviceScaleFactor": 2, "mobile": False})
    wide, frame_id = 2 * before["pane"]["width"], lab.push("words")
    check_pixels(shown(page, "words", frame_id, lambda seen: seen["pane"]["width"] == wide), lab.image("words"))


def test_each_key_of_a_tool_is_shown_and_works(lab: Lab, page: Any) -> None:
    toolbar = page.get_by_role("toolbar", name="Tools")
    titles = [each.get_attribute("title") for each in toolbar.get_by_role("button").all()]
    told = [found.group(1) if (found := re.search(r"\((.)\)$", title)) else title for title in titles]
    keys(page, "?")
    listed = set(page.get_by_role("dialog").locator("kbd").all_inner_texts())
    assert set(told) <= listed
    page.keyboard.press("Escape")
    tools = [(title, key) for title, key in zip(titles, told, strict=True) if key in "rehglpv"]
    assert len(tools) == 7
    for title, key in tools:
        keys(page, key)
        chosen = toolbar.locator("[aria-pressed=true]")
        assert chosen.count() == 1
        assert chosen.get_attribute("title") == title
