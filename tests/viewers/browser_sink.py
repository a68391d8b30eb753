"""A sink whose viewer is looked at in a real Chromium: what it holds is read there, and compared with what the server has."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope.model.roi import Roi
from mutoscope.viewers.adapter import HeldLayer
from mutoscope.viewers.launch import find
from mutoscope.viewers.sink import ViewerSink
from polling import until

EXACT = {"bool", "uint8", "uint16", "int8", "int16", "float16", "float32"}
"""What a browser is sent exactly; of others it has float32."""
SENT = {"u1": "u1", "u2": "<u2", "f4": "<f4", "rgb": "u1"}


def open_page(browser: Any, address: str, complaints: list[str], size: tuple[int, int] = (1000, 700)) -> Any:
    """Open a viewer's page in a context of its own, as another person's browser would."""
    page = browser.new_context(viewport={"width": size[0], "height": size[1]}).new_page()
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.goto(address)
    page.wait_for_function("window.mutoscope && document.querySelector('.link.open')")
    return page


def pixels(page: Any, layer: str) -> dict[str, Any] | None:
    """What the browser has of the plane that it shows of a layer; without ``values`` where that has not come."""
    seen = page.evaluate("layer => window.mutoscope.pixels(layer)", layer)
    if seen is not None and "sent" in seen:
        crop = seen["crop"]
        shape = (crop["height"], crop["width"], *([3] if crop["kind"] == "rgb" else []))
        sent = np.frombuffer(base64.b64decode(seen["sent"]), SENT[crop["kind"]]).reshape(shape)
        exact = (seen["scale"], seen["offset"]) == (1, 0)
        seen["values"] = sent if exact else sent.astype(np.float64) * seen["scale"] + seen["offset"]
    return seen


def choose(page: Any, window: str | None, axes: Iterable[str], index: Iterable[int]) -> dict[str, str]:
    """See a plane, by its indices along the axes of a window; returns the values that these stand for."""
    viewer = page.evaluate("() => window.mutoscope.viewer()")
    if window is not None and viewer["window"] != window:
        page.get_by_label("Window", exact=True).select_option(window)
    about = next(each for each in viewer["windows"] if window in (None, each["name"]))
    values = {axis["name"]: axis["values"] for axis in about["axes"]}
    at = {axis: values[axis][number] for axis, number in zip(axes, index, strict=True)}
    page.evaluate("at => window.mutoscope.goTo(at)", at)
    return at


class BrowserSink:
    """Like a `ViewerSink`, with a browser that is connected to its viewer whenever something is read from it."""

    def __init__(self, sink: ViewerSink, browser: Any, complaints: list[str]) -> None:
        self._sink = sink
        self._browser = browser
        self._complaints = complaints
        self._page: Any = None
        self._address = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    def page(self) -> Any:
        """The page of the viewer that is there now."""
        found = find(self._sink.name, "browser")
        assert found is not None
        if found.link != self._address:
            self.leave()
            self._page = open_page(self._browser, found.link, self._complaints)
            self._address = found.link
        return self._page

    def leave(self) -> None:
        """Close the browser's window."""
        if self._page is not None:
            self._page.context.close()
        self._page, self._address = None, ""

    def close(self, leave_open: bool = True) -> None:
        self.leave()
        self._sink.close(leave_open=leave_open)

    # -- what the browser has

    def layers(self) -> list[HeldLayer]:
        held: list[HeldLayer] = self._sink.layers()
        page = self.page()
        until(lambda: self._knows(page, held), f"the browser knows {[layer.name for layer in held]}")
        return held

    def _knows(self, page: Any, held: list[HeldLayer]) -> bool:
        viewer = page.evaluate("() => window.mutoscope.viewer()")
        streams = {each["name"]: each for each in viewer["layers"]}
        images = [layer for layer in held if layer.kind == "images"]
        rois = {layer.id for layer in held if layer.kind == "rois"}
        told = {each for stream in streams.values() for each in stream["roi_layers"]}
        return (
            {layer.id for layer in images} == streams.keys() - rois
            and told == rois
            and all(self._is_like(layer, streams[layer.id], viewer) for layer in images)
        )

    def _is_like(self, layer: HeldLayer, stream: dict[str, Any], viewer: dict[str, Any]) -> bool:
        front = len(stream["axes"])
        window = next(each for each in viewer["windows"] if each["name"] == stream["window"])
        axes = {axis["name"]: axis for axis in window["axes"]}
        shown, same = stream["shown"], []
        for number, name in enumerate(stream["axes"]):
            axis = axes[name]
            same += [
                axis["title"] == layer.axis_names[number],
                len(axis["values"]) == layer.shape[number],
                axis["step"] == layer.scale[number],
            ]
        if len(layer.contrast) == 1 and stream["window"] == viewer["window"] and stream["colours"] == 1:
            _, low, high = layer.contrast[0]
            same += [
                shown["mode"] == "sent",
                (float(shown["lo"]), float(shown["hi"])) == (low, high if high > low else low + 1),
            ]
        if layer.luts:
            same.append(shown["lut"] == layer.luts[0][1])
        wanted = (layer.name, layer.window, layer.shape[front : front + 2], layer.dtype)
        same.append((stream["title"], window["title"], stream["shape"], stream["dtype"]) == wanted)
        return all(same)

    def plane(self, layer: HeldLayer, index: Iterable[int] = ()) -> NDArray[Any]:
        """Look at a plane; returns its pixels as the browser has them, where it is sent them exactly."""
        index = list(index)
        wanted = self._sink.plane(layer, index)
        page = self.page()
        seen: dict[str, Any] = {}

        def has_come() -> bool:
            stream = next(s for s in page.evaluate("() => window.mutoscope.viewer()")["layers"] if s["name"] == layer.id)
            at = choose(page, stream["window"], stream["axes"], index)
            found = pixels(page, layer.id)
            if found is None or found["at"] != at or "values" not in found:
                return False
            seen.update(found)
            return seen["crop"]["step"] == 1 and self._as_sent(seen["values"], wanted)

        until(has_come, f"{layer.name} {index} in the browser")
        if wanted.dtype.name in EXACT and seen["values"].ndim == wanted.ndim:
            return seen["values"].astype(wanted.dtype)
        return wanted

    @staticmethod
    def _as_sent(values: NDArray[Any], wanted: NDArray[Any]) -> bool:
        if values.shape != wanted.shape:
            return False
        if wanted.dtype.name in EXACT:
            return values.astype(wanted.dtype).tobytes() == wanted.tobytes()
        reach = float(wanted.max()) - float(wanted.min())
        return np.allclose(values, wanted.astype(np.float64), rtol=0 if reach else 1e-7, atol=max(reach, 1.0) * 2.0**-23)

    def rois(self, layer: HeldLayer, index: Iterable[int] = ()) -> list[Roi]:
        """Look at a plane; returns its ROIs as the browser has them."""
        index = list(index)
        wanted = self._sink.rois(layer, index)
        page = self.page()
        found: list[Roi] = []

        def has_come() -> bool:
            at = choose(page, self._window(page, layer), layer.axis_names[:-2], index)
            told = page.evaluate("layer => window.mutoscope.rois(layer)", layer.id)
            if told is None or any(told["at"].get(axis) != value for axis, value in at.items()):
                return False
            found[:] = msgspec.convert(told["rois"], list[Roi], strict=False)
            return sorted(found, key=lambda roi: roi.id) == sorted(wanted, key=lambda roi: roi.id)

        until(has_come, f"{layer.name} {index} in the browser")
        return found

    @staticmethod
    def _window(page: Any, layer: HeldLayer) -> str | None:
        viewer = page.evaluate("() => window.mutoscope.viewer()")
        return next((each["window"] for each in viewer["layers"] if layer.id in each["roi_layers"]), None)


def opener(
    make: Callable[..., ViewerSink], browser: Any, complaints: list[str], opened: list[BrowserSink]
) -> Callable[..., BrowserSink]:
    """Return what opens such sinks, each of which is noted."""

    def open_one(*arguments: Any, **options: Any) -> BrowserSink:
        opened.append(BrowserSink(make(*arguments, **options), browser, complaints))
        return opened[-1]

    return open_one
