"""What only the viewer in the browser has: sliders in a real Chromium, windows, browsers that hang, and who may come in."""

from __future__ import annotations

import http.client
import itertools
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser_sink import choose, open_page, pixels
from browser_support import FLAGS, WEB, chromium
from test_page_browser import AXE, BEYOND, check_pixels, look, overlay_at, spot

from mutoscope.bench.viewer_kills import kill_many
from mutoscope.model.errors import ConfigError
from mutoscope.model.roi import Mask, Rectangle, Roi
from mutoscope.viewers import Display
from mutoscope.viewers.launch import find
from mutoscope.viewers.sink import ViewerSink, open_viewer, progress
from mutoscope.viewers.suite import name_of, plane_of
from polling import until

PATIENCE_S = 60.0
SHAPE = (30, 40)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for the announcements of the test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def open_sink() -> Iterator[Callable[..., ViewerSink]]:
    opened: list[ViewerSink] = []

    def make(**options: Any) -> ViewerSink:
        opened.append(open_viewer("browser", **{"filenames": "imagexpress", "timeout_s": PATIENCE_S, **options}))
        return opened[-1]

    yield make
    for sink in opened:
        sink.close(leave_open=False)


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Return what opens a viewer's page; nothing in it may fail."""
    complaints: list[str] = []
    pages: list[Any] = []

    def make(sink: ViewerSink, size: tuple[int, int] = (640, 520)) -> Any:
        pages.append(open_page(browser, sink.link, complaints, size))
        return pages[-1]

    yield make
    for page in pages:
        page.context.close()
    assert complaints == []


def layers(page: Any) -> list[dict[str, Any]]:
    """The layers that a page knows."""
    known: list[dict[str, Any]] = page.evaluate("() => window.mutoscope.viewer()")["layers"]
    return known


def titles(page: Any) -> list[str]:
    """What they are called."""
    return [each["title"] for each in layers(page)]


def layer(page: Any, title: str) -> dict[str, Any]:
    """Wait for a layer."""
    return until(lambda: next((each for each in layers(page) if each["title"] == title), None), f"the layer {title}")


def seen(page: Any, name: str, at: dict[str, str]) -> dict[str, Any]:
    """Wait until a layer shows a plane."""
    return until(lambda: (found := look(page, name)) and found["at"] == at and found, f"{name} at {at}")


def shown_as(page: Any, name: str, at: dict[str, str], image: np.ndarray) -> None:
    """Wait until a layer shows a plane, pixel by pixel as it was sent; the page may have to ask for it once more."""

    def has_come() -> bool:
        got = pixels(page, name) or {}
        return got.get("at") == at and np.array_equal(got.get("values"), image)

    until(has_come, f"{name} at {at}")
    check_pixels(seen(page, name, at), image)


def test_each_of_120_planes_is_where_it_belongs_pixel_by_pixel(
    open_sink: Callable[..., ViewerSink], visit: Callable[..., Any]
) -> None:
    """They come in random order while the page is open, and each is read back from the canvas."""
    wells, times, channels, depths = ("A01", "B03", "H12"), (1, 2, 5, 10, 11), (1, 3), (1, 2, 3, 10)
    places = [
        {"well": well, "t": t, "channel": channel, "z": z}
        for well, t, channel, z in itertools.product(wells, times, channels, depths)
    ]
    assert len(places) == 120
    order = list(range(120))
    random.Random(11).shuffle(order)
    sink = open_sink()
    page = visit(sink)
    for number in order[:60]:
        sink.save(plane_of(number, SHAPE), name_of(**places[number]), source="raw")
    assert sink.wait(PATIENCE_S).images.displayed == 60
    raw = layer(page, "raw")
    until(lambda: "60 of" in page.locator(".slider-foot [role=status]").inner_text(), "which planes have not come")
    for number in order[60:]:
        sink.save(plane_of(number, SHAPE), name_of(**places[number]), source="raw")
    assert sink.wait(PATIENCE_S).images.displayed == 120
    until(lambda: page.locator(".slider-foot [role=status]").inner_text() == "120 planes", "all planes")
    random.Random(12).shuffle(order)
    for number in order:
        at = {"field": "1", **{name: str(value) for name, value in places[number].items()}}
        page.evaluate("at => window.mutoscope.goTo(at)", at)
        shown_as(page, raw["name"], at, plane_of(number, SHAPE))


def test_sliders_keys_and_missing_planes(open_sink: Callable[..., ViewerSink], visit: Callable[..., Any]) -> None:
    sink = open_sink(display=Display(axis_names={"t": "time"}, pixel_size_um=0.5))
    page = visit(sink)
    assert page.get_by_text("Nothing has come yet").count() == 2
    images = {(t, z): plane_of(10 * t + z, SHAPE) for t in (1, 2, 4) for z in (1, 2, 3)}
    gone = images.pop((2, 2))
    for (t, z), image in images.items():
        sink.save(image, name_of(t=t, z=z), source="raw", until="displayed")
    name = layer(page, "raw")["name"]
    until(lambda: "1 of 9 planes have not come" in page.locator(".sliders").inner_text(), "what has not come")
    rest = {"well": "A01", "field": "1", "channel": "1"}
    time_slider, z_slider = page.get_by_role("slider", name="time"), page.get_by_role("slider", name="z", exact=True)
    z_slider.focus()
    page.keyboard.press("ArrowRight")
    shown_as(page, name, {**rest, "t": "1", "z": "2"}, images[1, 2])
    assert z_slider.get_attribute("aria-valuetext") == "z 2"
    page.locator("canvas.overlay").focus()
    page.keyboard.press(".")  # along the axis that was used last
    shown_as(page, name, {**rest, "t": "1", "z": "3"}, images[1, 3])
    page.keyboard.press(",")
    time_slider.fill("1")
    page.get_by_text("This plane has not come").wait_for()
    assert pixels(page, name) == {"at": {**rest, "t": "2", "z": "2"}}
    marked = """() => [...document.querySelectorAll('.track canvas')].map((each) => (
        [...each.getContext('2d').getImageData(0, 0, each.width, each.height).data].some((value) => value)))"""
    assert page.evaluate(marked) == [True, True]
    # It comes while it is looked at; another one is sent again, and one comes before all others of its axis.
    sink.save(gone, name_of(t=2, z=2), source="raw")
    shown_as(page, name, {**rest, "t": "2", "z": "2"}, gone)
    sink.save(plane_of(77, SHAPE), name_of(t=2, z=2), source="raw")
    shown_as(page, name, {**rest, "t": "2", "z": "2"}, plane_of(77, SHAPE))
    sink.save(plane_of(78, SHAPE), name_of(t=0, z=2), source="raw", until="displayed")
    until(lambda: time_slider.get_attribute("max") == "3", "one more time")
    shown_as(page, name, {**rest, "t": "2", "z": "2"}, plane_of(77, SHAPE))
    assert time_slider.input_value() == "2"
    page.keyboard.press(" ")
    until(lambda: pixels(page, name)["at"]["t"] != "2", "it is played")
    page.get_by_role("button", name="Stop playing time").click()


def test_rois_lie_on_their_plane(open_sink: Callable[..., ViewerSink], visit: Callable[..., Any]) -> None:
    sink = open_sink()
    box = Roi("box", Rectangle((12.0, 20.0), 8.0, 12.0), name="a cell")
    mask = Roi("mask", Mask.from_array(np.ones((4, 4), bool), origin=(20, 5)))
    for z in (1, 2, 3):
        sink.save(np.zeros(SHAPE, "uint16"), name_of(z=z), source="raw")
    sink.save([box, mask], name_of(z=2), source="raw", until="displayed")
    page = visit(sink)
    raw = layer(page, "raw")

    def edge() -> bool:
        """Whether the upper edge of the box is drawn."""
        return overlay_at(page, *spot(page, raw["name"], 8.0, 20.0))[3] > 100

    until(lambda: pixels(page, raw["name"]), "the first plane")
    assert not edge()
    page.get_by_role("slider", name="z").fill("1")
    until(edge, "the box on its plane")
    (rois,) = raw["roi_layers"]
    told = page.evaluate("layer => window.mutoscope.rois(layer)", rois)
    assert [each["id"] for each in told["rois"]] == ["box", "mask"]
    page.get_by_role("slider", name="z").fill("2")
    until(lambda: not edge(), "nothing on another plane")
    page.get_by_role("slider", name="z").fill("1")
    until(edge, "the box on its plane")
    page.get_by_role("switch", name="ROIs").uncheck()
    until(lambda: not edge(), "ROIs are not shown")
    page.get_by_role("switch", name="ROIs").check()
    until(edge, "the box on its plane")
    sink.save([], name_of(z=2), source="raw")
    until(lambda: not edge(), "an empty list clears the plane")
    sink.save([box], name_of(z=1), source="elsewhere")  # of these there is no image
    until(lambda: "elsewhere ROIs" in titles(page), "ROIs without images")
    sink.save(np.zeros(SHAPE, "uint16"), name_of(z=1), source="elsewhere")
    until(lambda: "elsewhere" in titles(page) and "elsewhere ROIs" not in titles(page), "their images")


def test_windows_colours_and_contrast_as_sent(open_sink: Callable[..., ViewerSink], visit: Callable[..., Any]) -> None:
    display = Display(well="window", channel="layer", lut={1: "green", 2: "magenta"}, contrast={1: (100, 4000)}, gamma=0.5)
    sink = open_sink(display=display)
    colour = plane_of(3, (*SHAPE, 3), "uint8")
    for well, number in (("A01", 10), ("B02", 20)):
        for channel in (1, 2):
            sink.save(plane_of(number + channel, SHAPE), name_of(well=well, channel=channel), source="raw")
    open_sink(display=Display(well="window")).save(colour, name_of(well="C03"), source="stained", until="displayed")
    sink.wait(PATIENCE_S)
    page = visit(sink, (1000, 700))
    until(lambda: len(layers(page)) == 5, "all layers")
    windows = page.get_by_label("Window", exact=True)
    assert windows.locator("option").all_inner_texts() == ["well A01", "well B02", "well C03"]
    assert page.get_by_role("button", name="Over each other").get_attribute("aria-pressed") == "true"
    for well, number in (("B02", 20), ("A01", 10)):
        windows.select_option(label=f"well {well}")
        own = [each for each in layers(page) if each["window"] == windows.input_value()]
        for channel, each in enumerate(sorted(own, key=lambda each: each["title"]), 1):
            got = until(lambda name=each["name"]: pixels(page, name), each["title"])
            assert np.array_equal(got["values"], plane_of(number + channel, SHAPE))
            assert each["shown"]["lut"] == {1: "green", 2: "magenta"}[channel]
            assert each["shown"]["gamma"] == 0.5
            limits = (100, 4000) if channel == 1 else None
            drawn = until(lambda name=each["name"]: look(page, name), each["title"])
            assert limits in (None, (drawn["lo"], drawn["hi"]))
    assert page.get_by_role("button", name="As sent").get_attribute("aria-pressed") == "true"
    page.get_by_label("Darkest", exact=True).fill("7")
    page.keyboard.press("Enter")
    assert page.get_by_role("button", name="Hold").get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="As sent").click()
    until(lambda: page.get_by_label("Darkest", exact=True).input_value() == "100", "as it was sent")
    windows.select_option(label="well C03")
    name = layer(page, "stained")["name"]
    until(lambda: np.array_equal((pixels(page, name) or {}).get("values"), colour), "colours")
    drawn = look(page, name)
    assert drawn is not None
    (top, left), zoom = (round(drawn["pane"][side] / 2 - drawn["view"][axis] * drawn["view"]["zoom"]) for side, axis in (
        ("height", "y"), ("width", "x"))), drawn["view"]["zoom"]  # fmt: skip
    for y, x in ((0, 0), (29, 39), (11, 17)):
        at = int(top + (y + 0.5) * zoom), int(left + (x + 0.5) * zoom)
        assert drawn["colours"][at].tolist() == colour[y, x].tolist()
    with pytest.raises(ConfigError, match="complex"):
        sink.save(np.zeros(SHAPE, complex), name_of())
    sink.clear()
    page.get_by_text("Nothing has come yet").first.wait_for()


def test_the_screenshot_is_what_the_browser_shows(open_sink: Callable[..., ViewerSink], visit: Callable[..., Any]) -> None:
    sink = open_sink(display=Display(contrast=(0, 255)))
    image = plane_of(1, SHAPE, "uint8")
    sink.save(image, name_of(), source="raw", until="displayed")
    assert np.array_equal(sink.screenshot(), np.repeat(image[..., None], 3, axis=2))  # painted, as no browser is there
    assert progress("browser").remark == "no browser is connected"
    page = visit(sink)
    name = layer(page, "raw")["name"]
    until(lambda: pixels(page, name), "the plane")
    page.get_by_role("switch", name="Scale bar").uncheck()
    drawn = look(page, name)
    assert drawn is not None
    picture = sink.screenshot()
    assert np.array_equal(picture, drawn["colours"])
    account = progress("browser")
    assert account.remark == ""
    assert account.summary() == "browser, connected: 1 of 1 images displayed"


def test_a_browser_that_hangs_slows_no_sender(open_sink: Callable[..., ViewerSink], tmp_path: Path) -> None:
    """A Chromium of its own is stopped, with all its processes, while it looks at what comes."""
    sink = open_sink(window_bytes=8 << 20)
    program = shutil.which("chromium")
    assert program is not None
    options = [*FLAGS, "--headless=new", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}"]
    with subprocess.Popen(
        [program, *options, sink.link], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            until(lambda: progress("browser").remark == "", "the browser has come")
            sink.save(plane_of(0, (500, 1000)), name_of(), source="raw", until="displayed")
            os.killpg(process.pid, signal.SIGSTOP)
            for number in range(300):
                sink.save(plane_of(number, (500, 1000)), name_of(z=number % 40 + 1), source="raw")
            account = sink.wait(PATIENCE_S)
            assert (account.images.sent, account.images.displayed) == (301, 301)
            assert account.images.dropped == account.images.failed == 0
            assert progress("browser").remark == ""  # it is still connected
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    until(lambda: progress("browser").remark != "", "the browser has gone")


def test_nobody_comes_in_without_the_token(open_sink: Callable[..., ViewerSink], capsys: pytest.CaptureFixture[str]) -> None:
    sink = open_sink()
    assert capsys.readouterr().err == f"the viewer browser: {sink.link}\n"
    assert open_sink().link == sink.link
    assert capsys.readouterr().err == ""  # it was told
    viewer = find("browser")
    assert viewer is not None
    (file,) = Path(os.environ["XDG_RUNTIME_DIR"], "mutoscope").glob("viewer-*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    place = urlsplit(sink.link)
    assert place.hostname == "127.0.0.1"
    token = place.query.removeprefix("token=")

    def status(path: str, **headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", place.port or 0, timeout=20)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    assert status("/") == status("/app.js") == status("/ws") == 401
    assert status("/", Authorization=f"Bearer {viewer.token}") == 401  # what lets a sender in is another one
    assert status("/", Authorization=f"Bearer {token}") == 200
    assert status(f"/?token={token}", Host="evil.example") == 403
    assert status(f"/?token={token[:-1]}x") == 401


def test_one_that_died_tells_its_new_address(open_sink: Callable[..., ViewerSink], capsys: pytest.CaptureFixture[str]) -> None:
    sink = open_sink()
    first, viewer = sink.link, find("browser")
    assert viewer is not None
    assert capsys.readouterr().err == f"the viewer browser: {first}\n"
    os.kill(viewer.pid, signal.SIGKILL)

    def is_back() -> bool:
        sink.save(plane_of(1, SHAPE), name_of(), source="raw")
        sink.wait(PATIENCE_S)
        return sink.link not in ("", first)

    until(is_back, "it is started again")
    assert capsys.readouterr().err.endswith(f"the viewer browser: {sink.link}\n")


def test_it_ends_when_nobody_sends_and_nobody_looks(monkeypatch: pytest.MonkeyPatch, browser: Any) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    sink = open_viewer("adapters:SoonAlone", "soon", timeout_s=PATIENCE_S, filenames="imagexpress")
    sink.save(plane_of(1, SHAPE), name_of(), source="raw", until="displayed")
    page = open_page(browser, sink.link, [])
    sink.close()
    time.sleep(2.5)  # longer than it goes on alone
    assert find("soon") is not None
    name = layer(page, "raw")["name"]
    assert np.array_equal(pixels(page, name)["values"], plane_of(1, SHAPE))
    page.context.close()
    until(lambda: find("soon") is None, "its end")


@pytest.mark.parametrize("size", [(1280, 800), (768, 1024)])
def test_no_serious_finding_of_axe(
    open_sink: Callable[..., ViewerSink], visit: Callable[..., Any], size: tuple[int, int]
) -> None:
    sink = open_sink(display=Display(well="window", channel="layer"))
    for well, t, z, channel in itertools.product(("A01", "A02"), (1, 2), (1, 2), (1, 2)):
        if (t, z) != (2, 1):
            sink.save(plane_of(1, SHAPE), name_of(well=well, t=t, z=z, channel=channel), source="raw")
    sink.save([Roi("box", Rectangle((12.0, 20.0), 8.0, 12.0))], name_of(), source="raw", until="displayed")
    page = visit(sink, size)
    until(lambda: len(layers(page)) == 4, "all layers")
    assert page.get_by_role("slider", name="t", exact=True).count() == 1
    page.evaluate((WEB / "node_modules/axe-core/axe.min.js").read_text())
    findings = page.evaluate(AXE)
    assert [finding for finding in findings if finding["impact"] in ("serious", "critical")] == []
    wide, high = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert (wide, high) == size
    assert page.evaluate(BEYOND.replace(".timeline *", ".sliders *"), size[0]) == []
    choose(page, None, ["z"], [1])


def test_killed_viewers_and_senders_are_accounted_for() -> None:
    outcome = kill_many(6, 3, "browser")
    assert outcome.problems == []
    assert (outcome.viewers, outcome.senders, outcome.unaccounted, outcome.left) == (3, 3, 0, 0)
