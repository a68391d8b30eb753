"""The page of a running scope in a real browser: what it draws, and that what is clicked is done in the scope."""

from __future__ import annotations

import base64
import csv
import io
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import browser_support
import numpy as np
import page_lab
import pytest
from browser_support import WEB, coloured, places
from numpy.typing import NDArray

import mutoscope as ms
from mutoscope.bench.faults import left_behind, marked_run
from mutoscope.model import Ellipse, Freehand, Rectangle
from mutoscope.viewers.page.share import share
from polling import until

NAMES = list(page_lab.SHAPES)


@dataclass
class Lab:
    """A scope, and the browser that looks at it."""

    scope: ms.Scope
    browser: Any
    complaints: list[str] = field(default_factory=list)
    pushed: dict[str, int] = field(default_factory=dict)
    images: dict[tuple[str, int], NDArray[Any]] = field(default_factory=dict)

    def open(self, **options: Any) -> Any:
        """Open the page in a context of its own, as another person's browser would."""
        context = self.browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True, **options)
        page = context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.goto(self.scope.page_url)
        page.wait_for_function("window.mutoscope && document.querySelector('.link.open')")
        return page

    def push(self, name: str, shape: tuple[int, int] | None = None) -> int:
        frame_id = self.pushed.get(name, 0) + 1
        image = page_lab.known(name, frame_id, shape)
        assert self.scope.source(name).push(image) == frame_id
        self.pushed[name] = frame_id
        self.images[name, frame_id] = image
        return frame_id

    def image(self, name: str, frame_id: int | None = None) -> NDArray[Any]:
        """The image of a frame, by default of the newest one."""
        return self.images[name, frame_id or self.pushed[name]]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("scope")
    with marked_run() as mark:
        with page_lab.make_scope(folder) as scope, browser_support.chromium() as browser:
            lab = Lab(scope, browser)
            for name in NAMES:
                for _ in range(3):
                    lab.push(name)
            scope.source(page_lab.PAIR).push(page_lab.known("words", 1))
            yield lab
    assert left_behind(mark, timeout_s=10.0) == []


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """One scope serves all tests of this module: what it leaves is looked at after its end."""


@pytest.fixture
def page(lab: Lab) -> Iterator[Any]:
    page = lab.open()
    lab.complaints.clear()
    yield page
    page.context.close()
    assert lab.complaints == []


def look(page: Any, name: str) -> dict[str, Any] | None:
    seen = page.evaluate("name => window.mutoscope.look(name)", name)
    if seen is not None:
        seen["colours"] = np.frombuffer(base64.b64decode(seen["rgba"]), np.uint8).reshape(
            seen["pane"]["height"], seen["pane"]["width"], 4
        )[..., :3]
    return seen


def shown(page: Any, name: str, frame_id: int, ready: Callable[[dict[str, Any]], bool] = lambda _seen: True) -> dict[str, Any]:
    """Wait until a stream shows a frame, and what `ready` asks for."""
    return until(
        lambda: (seen := look(page, name)) and seen["frameId"] == frame_id and ready(seen) and seen, f"{name} {frame_id}"
    )


def check_pixels(seen: dict[str, Any], image: NDArray[Any], least: int = 400) -> None:
    """Each pixel of the pane that shows the image is the image's, through window, gamma and LUT."""
    view, pane = seen["view"], seen["pane"]
    across, down = places(pane["width"], view["x"], view["zoom"]), places(pane["height"], view["y"], view["zoom"])
    step, (height, width) = seen["crop"]["step"], image.shape
    columns = np.floor(across).astype(int) // step * step
    rows = np.floor(down).astype(int) // step * step
    sure = [
        (np.abs(each / step - np.round(each / step)) > 1e-3) | np.log2(view["zoom"]).is_integer() for each in (across, down)
    ]
    inside_x = (columns >= 0) & (columns < width) & sure[0]
    inside_y = (rows >= 0) & (rows < height) & sure[1]
    expected = coloured(image[rows[inside_y]][:, columns[inside_x]], seen["lo"], seen["hi"], seen["gamma"], seen["lut"])
    got = seen["colours"][inside_y][:, inside_x]
    assert got.shape[0] * got.shape[1] >= least
    np.testing.assert_array_equal(got, expected)


def spot(page: Any, name: str, y: float, x: float) -> tuple[float, float]:
    """Where on the page the place (y, x), whole at pixel centres, of a stream is."""
    seen = look(page, name)
    assert seen is not None
    box = page.locator("canvas.overlay").bounding_box()
    pane, view = seen["pane"], seen["view"]
    at = []
    for start, size, middle, place in (("x", "width", view["x"], x), ("y", "height", view["y"], y)):
        origin = np.floor(pane[size] / 2 - middle * view["zoom"] + 0.5)
        at.append(box[start] + pane[start] + origin + (place + 0.5) * view["zoom"])
    return at[0], at[1]


def only(page: Any, name: str) -> None:
    """Show one camera alone."""
    page.click("#tab-image")
    for other in [*NAMES, page_lab.PAIR, "camera"]:
        page.get_by_role("checkbox", name=f"Show {other}").set_checked(other == name)
    page.get_by_role("button", name=name, exact=True).click()


def keys(page: Any, *names: str) -> None:
    """Press keys while the image has the focus."""
    page.locator("canvas.overlay").focus()
    for name in names:
        page.keyboard.press(name)


def take_control(page: Any) -> None:
    keys(page, "t")
    page.wait_for_selector(".lease-mark.yours")


# ---------------------------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("name", NAMES)
def test_pixels_are_those_of_the_frame(lab: Lab, page: Any, name: str) -> None:
    only(page, name)
    image = lab.image(name)
    lo, hi = {"words": (5000, 60000), "bytes": (20, 210), "reals": (-0.1, 0.9)}[name]
    page.get_by_label("Darkest", exact=True).fill(str(lo))
    page.keyboard.press("Enter")
    page.get_by_label("Brightest", exact=True).fill(str(hi))
    page.keyboard.press("Enter")
    page.get_by_label("Colours").select_option("viridis")
    seen = shown(page, name, lab.pushed[name], lambda seen: (seen["lo"], seen["hi"], seen["lut"]) == (lo, hi, "viridis"))
    check_pixels(seen, image)
    keys(page, "1")
    check_pixels(shown(page, name, lab.pushed[name], lambda seen: seen["view"]["zoom"] == 1), image)
    keys(page, "-", "-", "-")
    # A quarter: every fourth pixel is sent, none is averaged.
    seen = shown(page, name, lab.pushed[name], lambda seen: seen["view"]["zoom"] == 0.25 and seen["crop"]["step"] == 4)
    check_pixels(seen, image)
    keys(page, *"+++++")
    seen = shown(page, name, lab.pushed[name], lambda seen: seen["view"]["zoom"] == 3 and seen["crop"]["step"] == 1)
    check_pixels(seen, image)
    page.get_by_label("Gamma").fill("-0.5")
    seen = shown(page, name, lab.pushed[name], lambda seen: seen["gamma"] == 0.5)
    check_pixels(seen, image)
    frame_id = lab.push(name)
    check_pixels(shown(page, name, frame_id), lab.image(name, frame_id))


def test_cameras_side_by_side_and_over_each_other(lab: Lab, page: Any) -> None:
    panes = {name: shown(page, name, lab.pushed[name])["pane"] for name in NAMES}
    assert len({(pane["x"], pane["y"]) for pane in panes.values()}) == len(NAMES)
    page.get_by_role("button", name="Over each other").click()
    page.get_by_role("checkbox", name="Show camera").uncheck()
    page.get_by_role("checkbox", name="Show reals").uncheck()
    page.get_by_role("checkbox", name=f"Show {page_lab.PAIR}").uncheck()
    page.get_by_role("button", name="words", exact=True).click()
    keys(page, "1")
    height, width = page_lab.SHAPES["bytes"]

    def whole(seen: dict[str, Any]) -> bool:
        return seen["view"]["zoom"] == 1 and seen["crop"]["width"] >= width and seen["lut"] != "grays"

    both = {name: shown(page, name, lab.pushed[name], whole) for name in ("bytes", "words")}
    total = np.zeros((height, width, 3), np.int64)
    for name, seen in both.items():
        image = lab.image(name)
        total += coloured(image[:height, :width], seen["lo"], seen["hi"], seen["gamma"], seen["lut"])
    assert len({seen["lut"] for seen in both.values()}) == 2
    view, pane = both["words"]["view"], both["words"]["pane"]
    left = int(np.floor(pane["width"] / 2 - view["x"] + 0.5))
    top = int(np.floor(pane["height"] / 2 - view["y"] + 0.5))
    got = both["words"]["colours"][top : top + total.shape[0], left : left + total.shape[1]]
    np.testing.assert_array_equal(got, np.minimum(total, 255))
    # The colours are of lying over each other: beside each other, and after a visit, all is as it was.
    page.get_by_label("Gamma").fill("0.5")
    keys(page, "o")
    seen = shown(page, "words", lab.pushed["words"], lambda seen: seen["lut"] == "grays")
    page.reload()
    page.wait_for_function("window.mutoscope && document.querySelector('.link.open')")
    seen = shown(page, "words", lab.pushed["words"], lambda now: now["gamma"] == seen["gamma"] == 2.0)
    assert seen["lut"] == "grays"


def test_cameras_that_are_alike_are_panned_and_zoomed_together(lab: Lab, page: Any) -> None:
    for name, frame_id in ((page_lab.PAIR, 1), ("words", lab.pushed["words"]), ("bytes", lab.pushed["bytes"])):
        shown(page, name, frame_id)
    page.get_by_role("button", name="words", exact=True).click()

    def views() -> tuple[dict[str, Any], ...]:
        return tuple(look(page, name)["view"] for name in ("words", page_lab.PAIR, "bytes"))

    before = views()
    keys(page, "1", "ArrowRight")
    words, pair, other = until(lambda: (now := views())[0]["zoom"] == 1 and now[0] == now[1] and now, "the same part")
    assert words["x"] == before[0]["x"] + 40
    assert other == before[2]
    check_pixels(shown(page, page_lab.PAIR, 1, lambda seen: seen["view"] == words), page_lab.known("words", 1))
    keys(page, "f")
    until(lambda: (now := views())[0] == now[1] == before[0], "both fitted")
    page.get_by_role("switch", name="Pan and zoom together").uncheck()
    keys(page, "+")
    words, pair, other = until(lambda: (now := views())[0] != before[0] and now, "one zoomed alone")
    assert (pair, other) == before[1:]


def test_contrast_is_each_clients_own(lab: Lab, page: Any) -> None:
    other = lab.open()
    for client in (page, other):
        only(client, "words")
    page.get_by_label("Colours").select_option("fire")
    page.get_by_role("button", name="Hold").click()
    page.get_by_label("Brightest", exact=True).fill("31000")
    page.keyboard.press("Enter")
    mine = shown(page, "words", lab.pushed["words"], lambda seen: seen["hi"] == 31000)
    theirs = shown(other, "words", lab.pushed["words"])
    assert (mine["lut"], theirs["lut"]) == ("fire", "grays")
    assert theirs["hi"] != 31000
    check_pixels(mine, lab.image("words"))
    check_pixels(theirs, lab.image("words"))
    other.context.close()


def test_histogram_handles_and_modes(lab: Lab, page: Any) -> None:
    only(page, "words")
    image = lab.image("words")
    page.get_by_role("button", name="Percentile").click()
    page.get_by_label("Percentiles").select_option("0 100")
    shown(page, "words", lab.pushed["words"], lambda seen: (seen["lo"], seen["hi"]) == (image.min(), image.max()))
    handle = page.get_by_role("slider", name="Darkest value")
    handle.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    seen = shown(page, "words", lab.pushed["words"], lambda seen: seen["lo"] > image.min() + 500)
    box = page.get_by_role("slider", name="Brightest value").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] - 60, box["y"] + 20, steps=4)
    page.mouse.up()
    dragged = shown(page, "words", lab.pushed["words"], lambda now: now["hi"] < seen["hi"] - 3000)
    assert dragged["lo"] == seen["lo"]
    keys(page, "a")
    shown(page, "words", lab.pushed["words"], lambda now: now["hi"] > dragged["hi"])


def test_value_under_the_cursor(lab: Lab, page: Any) -> None:
    for name in ("words", "reals"):
        only(page, name)
        shown(page, name, lab.pushed[name])
        image = lab.image(name)
        x, y = spot(page, name, 33, 21)
        page.mouse.move(x, y)
        page.wait_for_function("() => /x 21 y 33/.test(document.querySelector('.readout').textContent)")
        text = page.locator(".readout b").text_content()
        assert float(text) == pytest.approx(float(image[33, 21]), rel=1e-6)


def test_a_frame_of_another_shape(lab: Lab, page: Any) -> None:
    only(page, "words")
    shown(page, "words", lab.pushed["words"])
    frame_id = lab.push("words", (90, 90))
    seen = shown(page, "words", frame_id, lambda seen: (seen["crop"]["frameHeight"], seen["crop"]["frameWidth"]) == (90, 90))
    image = lab.image("words", frame_id)
    seen = shown(page, "words", frame_id, lambda seen: seen["crop"]["width"] == 90 and seen["view"]["x"] == 45)
    check_pixels(seen, image)
    frame_id = lab.push("words")
    check_pixels(shown(page, "words", frame_id, lambda seen: seen["crop"]["width"] == 160), lab.image("words", frame_id))


# ---------------------------------------------------------------------------------------------------------------- control


def test_controls_are_done_in_the_scope(lab: Lab, page: Any) -> None:
    scope = lab.scope
    page.click("#tab-control")
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("tabpanel").get_by_role("button", name="Take control").click()
    page.wait_for_selector(".lease-mark.yours")
    other = lab.open()
    other.wait_for_function("() => /Ada · \\d+ s/.test(document.querySelector('.lease-mark').textContent)")
    other.click("#tab-control")
    assert other.get_by_role("button", name="Start", exact=True).is_disabled()
    other.context.close()

    # A switch shows what the scope says: it changes when that is told.
    page.get_by_role("switch", name="Record frames").click()
    until(lambda: not scope.state.saving, "saving off")
    page.get_by_role("switch", name="Record frames", checked=False).click()
    until(lambda: scope.state.saving, "saving on")

    page.get_by_label("Frames", exact=True).fill("5")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Start", exact=True).click()
    until(lambda: scope.ledger.cameras["camera"]["produced"] >= 5, "five frames of the camera")
    until(lambda: page.get_by_role("button", name="Start", exact=True).is_disabled(), "the acquisition shown")
    for name in NAMES:
        for _ in range(5):
            lab.push(name)
    for frame_id in range(2, 7):
        scope.source(page_lab.PAIR).push(page_lab.known("words", frame_id))
    until(lambda: page.get_by_role("button", name="Start", exact=True).is_enabled(), "the acquisition's end")
    page.get_by_label("Frames", exact=True).fill("")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Start", exact=True).click()
    until(lambda: scope.state.acquiring, "acquiring")
    vitals = page.locator(".vitals")
    until(lambda: "recording" in vitals.inner_text(), "recording")
    page.get_by_role("button", name="Stop acquisition").click()
    until(lambda: not scope.state.acquiring, "no longer acquiring")
    until(lambda: "idle" in (told := vitals.inner_text()) and "recorded" in told, "what was recorded")

    fixed = page.get_by_label("bead sigma", exact=True)  # in pixels, as is said behind it
    assert not fixed.is_visible()
    page.get_by_text(re.compile(r"^\d+ fixed while the camera runs$")).click()
    assert fixed.is_visible()
    assert fixed.is_disabled()
    rate = page.get_by_label("rate", exact=True)
    rate.fill("40")
    rate.press("Enter")
    page.wait_for_function("() => [...document.querySelectorAll('.settings input')].some((each) => each.value === '40')")

    form = page.get_by_role("form", name="SetGain")
    form.get_by_label("value").fill("2.5")
    form.get_by_label("mode").fill("slow")
    form.get_by_role("button", name="Send").click()
    page.wait_for_function("() => /answer: 2.5/.test(document.querySelector('form[aria-label=SetGain] output').textContent)")
    assert list(scope.request(page_lab.Report())) == [2.5, "slow"]
    form = page.get_by_role("form", name="Fail")
    form.get_by_role("button", name="Send").click()
    page.wait_for_function(
        "() => /the shutter is stuck/.test(document.querySelector('form[aria-label=Fail] output').textContent)"
    )
    page.get_by_role("tabpanel").get_by_role("button", name="Give back").click()
    page.wait_for_function("() => document.querySelector('.lease-mark').textContent === 'take control'")


def test_the_state_of_the_scope_is_shown(lab: Lab, page: Any) -> None:
    page.click("#tab-scope")
    text = until(lambda: "Analyst" in (text := page.get_by_role("tabpanel").inner_text()) and text)
    for word in (
        "recorder",
        "camera",
        "running",
        "produced",
        "stored",
        "missed",
        "dropped",
        "ring",
        "Free",
        "none missed or dropped since ",
    ):
        assert word in text
    produced = lab.pushed["words"]
    section = page.locator(".flow > section", has=page.locator("h2", has_text=re.compile("^words")))
    until(lambda: section.locator(".counts dd").first.text_content() == str(produced), "the number of frames")
    page.click("#tab-log")
    lines = page.get_by_label("Lines of the log").locator("li")
    until(lambda: lines.count() > 0, "lines of the log")
    # What a dying process said last has many lines.
    assert lines.first.evaluate("line => getComputedStyle(line).whiteSpaceCollapse") == "preserve"


# ------------------------------------------------------------------------------------------------------------ ROIs, tables


def test_rois_by_mouse_and_keys_reach_the_scope(lab: Lab, page: Any) -> None:
    heard: list[Any] = []
    lab.scope.subscribe(ms.RoiChanged, heard.append)
    lab.scope.subscribe(ms.RoiRemoved, heard.append)
    only(page, "words")
    shown(page, "words", lab.pushed["words"])
    take_control(page)

    def draw(key: str, *corners: tuple[float, float]) -> Any:
        before = len(heard)
        keys(page, key)
        page.mouse.move(*spot(page, "words", *corners[0]))
        page.mouse.down()
        for corner in corners[1:]:
            page.mouse.move(*spot(page, "words", *corner), steps=3)
        page.mouse.up()
        return until(lambda: heard[before:] and heard[-1], f"a ROI by {key}")

    # From the border between pixels 19 and 20 to that between 59 and 60, and so on.
    rectangle = draw("r", (19.5, 29.5), (59.5, 89.5))
    assert rectangle.image == "words"
    geometry = rectangle.roi.geometry
    assert isinstance(geometry, Rectangle)
    assert (geometry.center, geometry.height, geometry.width) == ((39.5, 59.5), 40.0, 60.0)
    assert rectangle.roi.name == "ROI 1"
    # Its left side is drawn where pixel 30 begins.
    x, y = spot(page, "words", 45.0, 29.5)
    until(lambda: overlay_at(page, x, y)[3] > 200, "the left side")
    assert overlay_at(page, x + 12, y)[3] == 0
    # Selected it is white; one that has no colour of its own is yellow.
    until(lambda: min(overlay_at(page, x, y)[:3]) > 150, "white")

    def yellow() -> bool:
        red, green, blue, _ = overlay_at(page, x, y)
        return min(red, green) > 150 > blue + 30

    keys(page, "Escape")
    until(yellow, "in the colour of ROIs")

    moved = draw("v", (40.0, 60.0), (50.0, 65.0))
    assert moved.roi.id == rectangle.roi.id
    assert moved.roi.geometry.center == pytest.approx((49.5, 64.5), abs=0.3)
    before = len(heard)
    keys(page, "ArrowRight")
    until(lambda: heard[before:], "moved by a key")
    assert heard[-1].roi.geometry.center[1] == pytest.approx(moved.roi.geometry.center[1] + 1)

    page.click("#tab-rois")
    name = page.get_by_label(f"Name of ROI {rectangle.roi.id}")
    name.fill("cell 1")
    name.press("Tab")
    until(lambda: heard[-1].roi.name == "cell 1", "the name")

    ellipse = draw("e", (9.5, 99.5), (29.5, 139.5))
    assert isinstance(ellipse.roi.geometry, Ellipse)
    assert (ellipse.roi.geometry.height, ellipse.roi.geometry.width) == (20.0, 40.0)
    assert ellipse.roi.name == "ROI 1"  # the name is free again
    line = draw("l", (100.0, 10.0), (110.0, 50.0))
    assert line.roi.geometry.start == pytest.approx((100, 10), abs=0.3)
    assert line.roi.geometry.end == pytest.approx((110, 50), abs=0.3)
    point = draw("p", (75.0, 20.0))
    assert point.roi.geometry.points[0] == pytest.approx((75, 20), abs=0.3)

    path = [(80.0, 130.0), (84.0, 150.0), (110.0, 152.0), (112.0, 132.0)]
    freehand = draw("h", *path)
    geometry = freehand.roi.geometry
    assert isinstance(geometry, Freehand)
    assert geometry.closed
    vertices = np.asarray(geometry.vertices)
    assert vertices[0] == pytest.approx(path[0], abs=0.3)
    for corner in path:  # each place that the hand passed is on the outline, within what a hand can see
        assert np.linalg.norm(vertices - corner, axis=1).min() < 1.0
    page.get_by_role("button", name=f"Remove ROI {freehand.roi.name}").click()

    before = len(heard)
    keys(page, "g")
    for corner in ((70.0, 100.0), (70.0, 130.0), (100.0, 115.0)):
        page.mouse.click(*spot(page, "words", *corner))
    keys(page, "Enter")
    until(lambda: heard[before:], "a polygon")
    assert np.asarray(heard[-1].roi.geometry.exterior) == pytest.approx(np.array([[70, 100], [70, 130], [100, 115]]), abs=0.3)

    until(lambda: page.locator(".rois li").count() == 5, "five ROIs in the list")
    before = len(heard)
    keys(page, "Delete")
    until(lambda: heard[before:], "removed by a key")
    assert isinstance(heard[-1], ms.RoiRemoved)
    page.get_by_role("button", name="Remove ROI cell 1").click()
    until(lambda: page.locator(".rois li").count() == 3, "three ROIs left")
    keys(page, "t")


def test_rois_of_one_id_on_two_images_are_two(lab: Lab, page: Any) -> None:
    removed: list[Any] = []
    lab.scope.subscribe(ms.RoiRemoved, removed.append)
    for image in ("words", "bytes"):
        lab.scope.request(page_lab.Mark(image=image, roi_id="twin"), timeout_s=10.0)
    page.click("#tab-rois")
    twins = page.locator(".rois li", has=page.get_by_label("Name of ROI twin"))
    until(lambda: twins.count() == 2, "both in the list")
    titles = [twins.nth(number).get_by_role("button").first.get_attribute("title") for number in range(2)]
    assert sorted(titles) == ["Rectangle on bytes", "Rectangle on words"]
    take_control(page)
    twins.nth(titles.index("Rectangle on words")).get_by_role("button", name="Remove ROI twin").click()
    until(lambda: twins.count() == 1, "one in the list")
    until(
        lambda: [(event.image, event.roi_id) for event in removed if event.roi_id == "twin"] == [("words", "twin")],
        "the removal",
    )
    only(page, "bytes")
    shown(page, "bytes", lab.pushed["bytes"])
    until(lambda: overlay_at(page, *spot(page, "bytes", 40.0, 45.0))[3] > 200, "the left side of the other one")


def overlay_at(page: Any, x: float, y: float) -> list[int]:
    """RGBA of the vectors over the image at a place of the page, the strongest of its 3 x 3 pixels."""
    script = """([x, y]) => {
        const canvas = document.querySelector('canvas.overlay'), box = canvas.getBoundingClientRect();
        const { data } = canvas.getContext('2d').getImageData(Math.round(x - box.left) - 1, Math.round(y - box.top) - 1, 3, 3);
        let best = [0, 0, 0, 0];
        for (let at = 0; at < data.length; at += 4) if (data[at + 3] > best[3]) best = [...data.slice(at, at + 4)];
        return best;
    }"""
    return page.evaluate(script, [x, y])


def test_tracks_are_drawn_where_the_table_says(lab: Lab, page: Any) -> None:
    only(page, "words")
    shown(page, "words", lab.pushed["words"])
    assert page.get_by_role("switch", name="tracks").is_checked()  # as the scope's author wants it
    (y, x), (before_y, before_x) = page_lab.TRACKS[7][2], page_lab.TRACKS[7][1]
    ring = spot(page, "words", y, x)
    until(lambda: overlay_at(page, ring[0] - 9, ring[1])[3] > 200, "the ring of bead 7")
    assert overlay_at(page, ring[0] + 9, ring[1])[3] > 200
    middle = spot(page, "words", (y + before_y) / 2, (x + before_x) / 2)
    assert overlay_at(page, *middle)[3] > 200
    assert overlay_at(page, *spot(page, "words", 100.0, 20.0))[3] == 0
    page.get_by_role("switch", name="tails").uncheck()
    until(lambda: overlay_at(page, *middle)[3] == 0, "no tail")


def test_a_table_is_drawn_over_the_camera_that_its_worker_reads(lab: Lab, page: Any) -> None:
    lab.scope.start_acquisition(frames=3, cameras=["camera"])
    assert lab.scope.wait_acquisition(timeout_s=60.0)
    page.get_by_role("switch", name="watched").check()
    until(lambda: look(page, "camera"), "a frame of the camera")
    ring = spot(page, "camera", *page_lab.WATCHED)
    until(lambda: overlay_at(page, ring[0] - 9, ring[1])[3] > 200, "the ring")
    elsewhere = spot(page, "words", *page_lab.WATCHED)
    assert overlay_at(page, elsewhere[0] - 9, elsewhere[1])[3] == 0
    # When its rows were made is known from the camera's rate, and still known when somebody looks again.
    page.click("#tab-plots")
    page.get_by_role("button", name="Add a plot").click()
    page.get_by_label("Table", exact=True).select_option("watched")
    rows = page.locator(".plot-section .row .number")
    until(lambda: re.fullmatch(r"[1-9]\d* rows", rows.inner_text()), "rows at their times")
    told = rows.inner_text()
    page.click("#tab-log")
    page.click("#tab-plots")
    until(lambda: rows.inner_text() == told, "the same rows")


def test_of_a_frame_before_all_rows_of_a_table_this_is_said(lab: Lab, page: Any) -> None:
    only(page, "words")
    shown(page, "words", lab.pushed["words"])
    page.get_by_role("switch", name="late").check()
    hint = page.get_by_text("Its rows begin after this frame")
    slider = page.get_by_role("slider", name="Frame", exact=True)
    for frame_id, told in ((2, True), (3, False)):
        slider.fill(str(frame_id))
        shown(page, "words", frame_id)
        until(lambda told=told: hint.is_visible() == told, f"the hint at frame {frame_id}")


def test_who_only_looks_is_offered_nothing_that_draws(lab: Lab) -> None:
    base = (lab.scope.page_url or "").partition("?")[0]
    viewer = lab.browser.new_page()
    viewer.goto(share(base.rstrip("/").rpartition(":")[2], 600.0))
    viewer.locator(".lease-mark").wait_for()
    assert viewer.locator(".lease-mark").inner_text() == "view only"
    tools = viewer.get_by_role("toolbar", name="Tools")
    assert tools.get_by_role("button", name="Pan and select").is_visible()
    assert tools.get_by_role("button", name="Rectangle").count() == 0
    viewer.keyboard.press("r")
    assert tools.get_by_role("button", name="Pan and select").get_attribute("aria-pressed") == "true"
    viewer.close()


def test_plots_and_csv_of_a_table(lab: Lab, page: Any) -> None:
    page.click("#tab-plots")
    page.get_by_role("button", name="Add a plot").click()
    page.get_by_label("Table", exact=True).select_option("tracks")
    page.get_by_label("Plot", exact=True).select_option("height")
    for against in ("time", "frame_id", "how often (histogram)"):
        page.get_by_label("against", exact=True).select_option(label=against)
        page.wait_for_selector(".plot canvas")
    until(lambda: "6 rows" in page.get_by_role("tabpanel").inner_text(), "six rows")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert [(int(row["frame_id"]), int(row["bead"]), float(row["height"])) for row in rows] == [
        (frame_id, bead, float(bead * frame_id)) for frame_id in (1, 2, 3) for bead in (7, 8)
    ]


# ------------------------------------------------------------------------------------------------------------------- time


def test_pause_rewind_and_back_to_live(lab: Lab, page: Any) -> None:
    only(page, "words")
    newest = lab.pushed["words"]
    shown(page, "words", newest)
    page.get_by_role("button", name="Pause").click()
    frame_id = lab.push("words")
    page.get_by_role("button", name="One frame back").click()
    seen = shown(page, "words", newest - 1)
    check_pixels(seen, lab.image("words", newest - 1))
    page.get_by_role("slider", name="Frame", exact=True).fill("2")
    check_pixels(shown(page, "words", 2), lab.image("words", 2))
    keys(page, ".")
    shown(page, "words", 3)
    assert page.locator(".when").text_content() == "past"
    keys(page, "1")
    # What is looked at stays, at another zoom.
    check_pixels(shown(page, "words", 3, lambda seen: seen["view"]["zoom"] == 1), lab.image("words", 3))
    keys(page, " ")
    shown(page, "words", frame_id)
    assert page.locator(".when").text_content() == "live"


def test_picture_is_saved_as_seen(lab: Lab, page: Any, tmp_path: Path) -> None:
    import imageio.v3 as imageio

    only(page, "bytes")
    for over in ("Scale bar", "ROIs", "tracks"):
        page.get_by_role("switch", name=over).uncheck()
    seen = shown(page, "bytes", lab.pushed["bytes"])
    with page.expect_download() as download:
        keys(page, "s")
    assert download.value.suggested_filename == f"bytes-{lab.pushed['bytes']}.png"
    picture = imageio.imread(Path(download.value.path()), extension=".png")
    pane = seen["pane"]
    cut = picture[pane["y"] : pane["y"] + pane["height"], pane["x"] : pane["x"] + pane["width"], :3]
    top = 40  # the name of the camera is written above
    np.testing.assert_array_equal(cut[top:], seen["colours"][top:])


# ------------------------------------------------------------------------------------------------------------ being there


def test_page_killed_comes_back_on_the_same_address(lab: Lab, page: Any) -> None:
    only(page, "words")
    shown(page, "words", lab.pushed["words"])
    take_control(page)
    keys(page, "e", "Enter")
    page.click("#tab-rois")
    rois = until(lambda: page.locator(".rois li").count(), "a ROI")
    pid = next(status.pid for status in lab.scope.status() if status.name == "page")
    os.kill(pid, signal.SIGKILL)
    page.wait_for_selector(".link.lost", state="attached")
    page.wait_for_selector(".link.open", state="attached")
    frame_id = lab.push("words")
    check_pixels(shown(page, "words", frame_id), lab.image("words", frame_id))
    until(lambda: page.locator(".rois li").count() == rois, "the same ROIs")
    # The browser itself tells of a connection that was refused meanwhile.
    lab.complaints[:] = [text for text in lab.complaints if "WebSocket connection" not in text]


def test_keys_are_told_and_work(lab: Lab, page: Any) -> None:
    keys(page, "?")
    dialog = page.get_by_role("dialog")
    assert dialog.is_visible()
    assert "Fit the image" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    page.locator("#tab-image").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tab-scope").get_attribute("aria-selected") == "true"
    # They work beside a slider and a list that were used with the mouse, too.
    only(page, "words")
    page.get_by_label("Gamma").focus()
    page.keyboard.press("1")
    until(lambda: look(page, "words")["view"]["zoom"] == 1, "one pixel to one")
    page.keyboard.press(" ")
    page.get_by_role("button", name="Go on live").wait_for()
    colours = page.get_by_label("Colours")
    colours.dispatch_event("pointerdown")
    colours.select_option("viridis")
    page.keyboard.press("f")
    until(lambda: look(page, "words")["view"]["zoom"] != 1, "fitted")
    assert colours.input_value() == "viridis"
    # Who chooses with the keyboard stays there.
    colours.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.tagName") == "SELECT"


AXE = """async () => (await axe.run()).violations.map(({ id, impact, nodes }) => (
    { id, impact, nodes: nodes.map((each) => `${each.html} ${each.failureSummary}`) }
))"""


@pytest.mark.parametrize("size", [(1280, 800), (768, 1024)])
def test_no_serious_finding_of_axe(lab: Lab, page: Any, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.evaluate((WEB / "node_modules/axe-core/axe.min.js").read_text())
    for tab in ("image", "scope", "control", "rois", "plots", "log"):
        page.click(f"#tab-{tab}")
        findings = page.evaluate(AXE)
        serious = [finding for finding in findings if finding["impact"] in ("serious", "critical")]
        assert serious == [], tab


BEYOND = """width => [...document.querySelectorAll('.topbar *, .timeline *, .statusline *, .tabs *, .panel button')]
    .filter((each) => each.getClientRects().length && each.getBoundingClientRect().right > width + 0.5)
    .map((each) => each.outerHTML)"""


@pytest.mark.parametrize("size", [(1280, 800), (768, 1024), (420, 900)])
def test_everything_fits(lab: Lab, page: Any, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    for role in ("tab", "switch", "button"):
        page.get_by_role(role).first.wait_for()
    for tab in ("image", "scope", "control", "rois", "plots", "log"):
        page.click(f"#tab-{tab}")
        wide, high = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        assert (wide, high) == size, f"{tab} does not fit"
        beyond = page.evaluate(BEYOND, size[0])
        assert beyond == [], tab


def test_the_next_recording_goes_to_the_folder_that_is_typed(lab: Lab, page: Any) -> None:
    page.click("#tab-control")
    folder = page.get_by_label("Folder", exact=True)
    there = page.get_by_role("button", name="Record there")
    folder.fill("..")
    there.click()
    page.get_by_text("the folder of a recording is one below").first.wait_for()
    folder.fill("evening/dish 1")
    there.click()
    page.wait_for_function("() => document.querySelector('.path').title.endsWith('/evening/dish 1/run.ome.zarr')")
    dataset = lab.scope.state.dataset
    assert dataset is not None
    assert dataset.folder == "evening/dish 1"
    assert Path(dataset.path).is_dir()
    assert there.is_disabled()


def test_stopping_asks_first_and_ends_the_scope(lab: Lab, page: Any) -> None:
    page.click("#tab-control")
    page.get_by_role("button", name="Stop the scope").click()
    page.get_by_role("dialog").get_by_role("button", name="Go on").click()
    page.get_by_role("switch", name="Record frames").click()  # a later command of the same connection
    until(lambda: not lab.scope.state.saving, "saving off")
    assert lab.scope.folder is not None
    assert '"scope.stop"' not in (lab.scope.folder / "audit.jsonl").read_text(encoding="utf-8")
    page.get_by_role("button", name="Stop the scope").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop it").click()
    assert lab.scope.wait(timeout_s=20.0)
    page.wait_for_function("() => /the scope has ended/.test(document.querySelector('.link').textContent)")
    # The path is one word for a shell, though a folder has a space in its name.
    assert re.search(r"mutoscope view browser '?/.*/run\.ome\.zarr'?$", page.locator(".notice.ended").inner_text())
    assert page.locator(".notice.ended code").inner_text().count("'") in (0, 2)
    assert page.locator(".when").text_content() == "ended"
    assert page.locator(".vitals").get_by_text("acquiring").count() == 0
    assert page.locator(".lease-mark").count() == 0
    assert "The run has ended" in page.get_by_role("tabpanel").inner_text()
