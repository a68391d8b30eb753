"""ImageJ and Fiji as a viewer of data sets: ``viewers.open("fiji")``."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError, MutoscopeError, PeerDiedError
from mutoscope.model.roi import Roi
from mutoscope.model.roi_convert.imagej import to_imagej_roi
from mutoscope.viewers.adapter import HeldLayer, ViewerAdapter, check_index
from mutoscope.viewers.display import Arrangement
from mutoscope.viewers.fiji.folding import Folding
from mutoscope.viewers.fiji.imagej import ImageJ, Scale, WindowShape
from mutoscope.viewers.fiji.life import attach, ended_in_order, running, start
from mutoscope.viewers.fiji.link import ImageJError, WindowGoneError
from mutoscope.viewers.fiji.loop import Loop
from mutoscope.viewers.fiji.messages import ChannelStyle, WindowState
from mutoscope.viewers.fiji.pixels import StoredForm, stored_form
from mutoscope.viewers.fiji.rois import SentRois
from mutoscope.viewers.luts import lut_bytes, with_gamma
from mutoscope.viewers.model import ImageLayer, Layer, RoiLayer
from mutoscope.viewers.roi_pack import pack_rois, unpack_rois
from mutoscope.viewers.wire import Value

if TYPE_CHECKING:
    from mutoscope.viewers.core import ViewerCore

__all__ = ["FijiAdapter"]

log = logging.getLogger(__name__)

_TIMEOUT_S = 120.0
_MOST_PIXELS = (1 << 31) - 9
_GAP = 4
_GRAYS = "grays"


@dataclass
class _Window:
    """What ImageJ has of a layer of images."""

    layer: ImageLayer
    form: StoredForm
    folding: Folding
    size: tuple[int, int]
    composite: bool
    looks: tuple[Any, ...] = ()


class FijiAdapter(ViewerAdapter):
    """Shows each layer of images as a window of ImageJ: of one that a person has open, else of one that is started.

    It ends when a person ends ImageJ; an ImageJ that was started for this viewer ends with it.
    """

    kind: ClassVar[str] = "fiji"
    defaults: ClassVar[Mapping[str, Arrangement]] = {
        "source": "window",
        "channel": "channel",
        "z": "slice",
        "t": "frame",
        "well": "frame",
        "field": "frame",
    }

    def __init__(self) -> None:
        self._loop = Loop()
        self._made: ImageJ | None = None
        self._core: ViewerCore | None = None
        self._windows: dict[str, _Window] = {}
        self._rois: dict[str, RoiLayer] = {}
        self._sent: dict[str, SentRois] = {}
        self._luts: dict[str, tuple[str, bytes]] = {}
        self._lut_names: dict[bytes, str] = {}

    def check_image(self, dtype: np.dtype[Any], shape: tuple[int, ...], rgb: bool) -> None:
        stored_form(dtype, rgb)
        height, width = shape[-3:-1] if rgb else shape[-2:]
        if height * width > _MOST_PIXELS:
            raise ConfigError(f"a plane of ImageJ has at most {_MOST_PIXELS:,} pixels, not {height:,} x {width:,}")

    # -- life

    def began(self, core: ViewerCore) -> None:
        self._core = core

    def open(self, title: str) -> None:
        self._made = _find(title)
        log.info("ImageJ %s, Java %s, process %s", self._made.welcome.imagej, self._made.welcome.java, self._made.pid)

    @property
    def _imagej(self) -> ImageJ:
        if self._made is None:
            raise MutoscopeError("ImageJ is not open")
        return self._made

    def run(self) -> None:
        if self._loop.run(self._imagej, self._news) and not ended_in_order(self._imagej):
            raise PeerDiedError("ImageJ has died")

    def _news(self) -> None:
        """Take up what a person has done."""
        with self._until_it_ends():
            news, rois = self._imagej.news()
            for name in news.closed:
                self._was_closed(name)
            for edit, data in zip(news.edits, rois, strict=True):
                self._was_edited(edit.layer, edit.roi, data)

    def _was_closed(self, name: str) -> None:
        """A live window is not opened again; any other is, with what comes next."""
        window = self._windows.get(name)
        if window is not None and window.layer.live and self._core is not None:
            del self._windows[name]
            self._imagej.close_window(name)
            self._core.layer_closed(name)

    def _was_edited(self, name: str, roi_id: str, data: bytes | None) -> None:
        layer, sent = self._rois.get(name), self._sent.get(name)
        if layer is None or sent is None or self._core is None:
            return
        if data is None:
            self._core.roi_removed(name, roi_id)
            return
        try:
            roi = sent.edited(data)
        except MutoscopeError as error:
            self.tell(f"what was drawn is not told to the scope: {error}")
            return
        self._core.roi_changed(name, roi)

    def tell(self, text: str) -> None:
        log.info("%s", text)
        with self._until_it_ends():
            self._imagej.say(text)

    def draw(self, layer_id: str, roi: Roi) -> None:
        self._imagej.draw_roi(layer_id, to_imagej_roi(roi))
        self._news()

    def erase(self, layer_id: str, roi_id: str) -> None:
        self._imagej.erase_roi(layer_id, roi_id)
        self._news()

    def call_soon(self, callback: Callable[[], None], delay_s: float = 0.0) -> None:
        self._loop.call_soon(callback, delay_s)

    def stop(self) -> None:
        self._loop.stop()

    def close(self) -> None:
        self._loop.close()
        made, self._made = self._made, None
        if made is None:
            return
        try:
            if made.welcome.owned and not made.has_ended():
                made.quit()
        except ImageJError as error:
            log.warning("ImageJ stays open: %s", error)
        except PeerDiedError as error:
            log.info("ImageJ has ended: %s", error)
        finally:
            made.close()

    @contextlib.contextmanager
    def _until_it_ends(self) -> Iterator[None]:
        """Take it for the end of this viewer, and not for a fault, if a person ends ImageJ meanwhile."""
        try:
            yield
        except PeerDiedError:
            if not ended_in_order(self._imagej):
                raise
            log.info("a person has ended ImageJ, or its live receiver")
            self.stop()

    # -- images

    def show_images(self, layer: ImageLayer) -> None:
        with self._until_it_ends():
            window = self._windows.get(layer.id)
            try:
                self._update(layer, window)
            except WindowGoneError as error:
                if layer.live and error.code == "closed":
                    self._was_closed(layer.id)
                    return
                log.info("%s; %s is shown in a window of its own", error, layer.name)
                self._open_window(layer)

    def _update(self, layer: ImageLayer, window: _Window | None) -> None:
        if window is None:
            self._open_window(layer)
            return
        folding = Folding(layer)
        form = stored_form(layer.array.dtype, layer.rgb)
        smaller = any(new < old for new, old in zip(_size(layer), window.size, strict=True))
        if form != window.form or smaller or (folding.has_channels and not layer.rgb and not window.composite):
            self._imagej.close_window(layer.id)
            self._open_window(layer)
            return
        size = _size(layer)
        changed = list(layer.changed)
        if folding != window.folding or size != window.size:
            self._imagej.arrange(layer.id, _shape(layer, folding), folding.came_from(window.folding))
        if size != window.size:
            changed = [tuple(map(int, each)) for each in np.argwhere(~layer.missing)]
        window.layer, window.folding, window.size = layer, folding, size
        self._put_planes(window, changed)

    def _open_window(self, layer: ImageLayer) -> None:
        folding = Folding(layer)
        form = stored_form(layer.array.dtype, layer.rgb)
        window = _Window(layer, form, folding, _size(layer), composite=folding.has_channels and not layer.rgb)
        self._windows.pop(layer.id, None)
        self._imagej.open_window(layer.id, _title(layer), form, _shape(layer, folding), composite=window.composite)
        self._windows[layer.id] = window
        self._put_planes(window, [tuple(map(int, each)) for each in np.argwhere(~layer.missing)])
        for rois in self._rois.values():
            if rois.window_id == layer.window_id:
                self._put_rois(rois)

    def _put_planes(self, window: _Window, indices: list[tuple[int, ...]]) -> None:
        layer, folding = window.layer, window.folding
        for index in indices:
            place = folding.place(index)
            if layer.missing[index]:
                self._imagej.forget_plane(layer.id, place)
            else:
                self._imagej.put_plane(layer.id, place, layer.array[index], window.form, folding.label(index))
        self._style(window)
        self._imagej.show(layer.id)

    def _style(self, window: _Window) -> None:
        """Set what has changed of title, scale, look-up tables and ranges."""
        layer = window.layer
        channels = [] if layer.rgb else window.folding.channels()
        styles = [self._channel(window, c, channel) for c, channel in enumerate(channels, 1)]
        looks = (_title(layer), len(set(layer.luts.values())) > 1, _scale(layer, window.folding), styles)
        if looks != window.looks:
            title, overlay, scale, _ = looks
            self._imagej.style(layer.id, title=title, overlay=overlay, scale=scale, channels=styles)
            window.looks = looks

    def _channel(self, window: _Window, c: int, channel: Value | None) -> ChannelStyle:
        layer, level = window.layer, window.form.level
        low, high = layer.contrast.get(channel, layer.contrast.get(None, (0.0, 1.0)))
        colours = self._lut(layer.luts.get(channel, layer.luts.get(None, _GRAYS)), layer.gamma or 1.0)
        return ChannelStyle(c=c, low=level(low), high=level(high if high > low else low + 1), lut=colours)

    def _lut(self, name: str, gamma: float) -> bytes:
        """The colours of a look-up table: the page's, else ImageJ's; grays where neither has it."""
        if name not in self._luts:
            colours = lut_bytes(name)
            try:
                self._luts[name] = (name, colours or self._imagej.lut(name))
            except ImageJError as error:
                if error.code != "unknown":
                    raise
                log.warning("%s; there are grays instead", error)
                self._luts[name] = (_GRAYS, lut_bytes(_GRAYS) or b"")
        known, colours = self._luts[name]
        bent = with_gamma(colours, gamma)
        self._lut_names[bent] = known
        return bent

    # -- ROIs

    def show_rois(self, layer: RoiLayer) -> None:
        with self._until_it_ends():
            self._rois[layer.id] = layer
            self._put_rois(layer)

    def _put_rois(self, layer: RoiLayer) -> None:
        window = self._window_of(layer)
        if layer.marks != "rois":
            self._put_marks(layer, window)
            return
        folding = Folding(layer if window is None else window.layer)
        name = None if window is None else window.layer.id
        editable = layer.editable and window is not None
        rois = {_by_axes(layer, index, folding): given for index, given in layer.rois.items()}
        before = self._sent.get(layer.id)
        same = before is not None and (before.window, before.folding, before.editable) == (name, folding, editable)
        sent = before if before is not None and same else SentRois(name, folding, editable)
        try:
            sent.put(self._imagej, layer.id, rois, whole=not same)
        except WindowGoneError as error:
            log.info("%s; the ROIs of %s are in the ROI Manager alone", error, layer.name)
            sent = SentRois(None, folding)
            sent.put(self._imagej, layer.id, rois, whole=True)
        self._sent[layer.id] = sent

    def _put_marks(self, layer: RoiLayer, window: _Window | None) -> None:
        """Lay points or tracks over their window; those of a window that a person has closed are nowhere."""
        packed = layer.rois.get(())
        if window is None or packed is None:
            return
        vertices = np.asarray(packed.all_vertices, np.float32).reshape(-1, 2)[:, ::-1]
        with contextlib.suppress(WindowGoneError):
            sizes = np.diff(packed.offsets).tolist()
            self._imagej.put_marks(window.layer.id, layer.id, sizes, vertices, points=layer.marks == "points")

    def _window_of(self, layer: RoiLayer) -> _Window | None:
        """The window that ROIs lie on: of images with the same components, else the first one of their window."""
        found = [each for each in self._windows.values() if each.layer.window_id == layer.window_id]
        same = [each for each in found if each.layer.components == layer.components]
        return min(same or found, key=lambda each: each.layer.order, default=None)

    def remove(self, layer_id: str) -> None:
        with self._until_it_ends():
            if self._windows.pop(layer_id, None) is not None:
                self._imagej.close_window(layer_id)
            gone = self._rois.pop(layer_id, None)
            if gone is not None and gone.marks != "rois":
                self._put_marks(dataclasses.replace(gone, rois={(): unpack_rois(pack_rois([]))}), self._window_of(gone))
            elif gone is not None:
                sent = self._sent.pop(layer_id)
                window = sent.window if sent.window in self._windows else None
                with contextlib.suppress(WindowGoneError):
                    self._imagej.put_rois(layer_id, {}, window=window, whole=True)

    # -- what is there

    def screenshot(self) -> NDArray[np.uint8]:
        pictures = []
        for window in self._sorted():
            with contextlib.suppress(WindowGoneError):
                pictures.append(self._imagej.picture(window.layer.id))
        if not pictures:
            return np.zeros((1, 1, 3), np.uint8)
        height = max(len(each) for each in pictures)
        width = sum(each.shape[1] for each in pictures) + _GAP * (len(pictures) - 1)
        whole = np.zeros((height, width, 3), np.uint8)
        at = 0
        for each in pictures:
            whole[: each.shape[0], at : at + each.shape[1]] = each
            at += each.shape[1] + _GAP
        return whole

    def _sorted(self) -> list[_Window]:
        return sorted(self._windows.values(), key=lambda each: (each.layer.window, each.layer.order))

    def held_layers(self) -> list[HeldLayer]:
        found = []
        for window in self._sorted():
            try:
                found.append(self._held(window, self._imagej.describe(window.layer.id)))
            except WindowGoneError:
                continue
        counts = self._imagej.state().rois
        for layer in self._rois.values():
            if layer.marks == "rois" and (counts.get(layer.id) or (layer.live and self._window_of(layer) is not None)):
                found.append(_held_rois(layer))
        return found

    def _held(self, window: _Window, state: WindowState) -> HeldLayer:
        layer, form, folding = window.layer, window.form, window.folding
        counts = (state.channels, state.slices, state.frames)
        axes = folding.lengths if counts == folding.counts else counts
        keys = folding.channels() if len(layer.contrast) > 1 or None not in layer.contrast else [None]
        styles = list(zip(keys, state.styles, strict=False))
        scale = list(layer.scale)
        steps = {folding.only(1): state.scale.depth, folding.only(2): state.scale.interval or 1.0}
        for number, step in steps.items():
            if number is not None:
                scale[number] = step
        scale[-2:] = [state.scale.pixel_size] * 2
        return HeldLayer(
            id=layer.id,
            name=layer.name,
            window=layer.window,
            kind="images",
            axis_names=list(layer.axis_names),
            shape=[*axes, *form.shape(state.height, state.width)],
            dtype=form.source.name if state.pixels == form.word else state.pixels,
            contrast=[(channel, form.value(style.low), form.value(style.high)) for channel, style in styles],
            luts=[(channel, self._lut_names[style.lut]) for channel, style in styles if style.lut in self._lut_names],
            scale=scale,
            missing=state.missing,
        )

    def held_plane(self, layer_id: str, index: tuple[int, ...]) -> NDArray[Any]:
        window = self._windows.get(layer_id)
        if window is None:
            raise ConfigError(f"there is no layer of images {layer_id!r}")
        check_index(window.layer, index)
        stored, _ = self._imagej.read_plane(layer_id, window.folding.place(index), window.form)
        return window.form.restore(stored)

    def held_rois(self, layer_id: str, index: tuple[int, ...]) -> list[Roi]:
        layer, sent = self._rois.get(layer_id), self._sent.get(layer_id)
        if layer is None or sent is None:
            raise ConfigError(f"there is no layer of ROIs {layer_id!r}")
        check_index(layer, index)
        by_axes = _by_axes(layer, index, sent.folding)
        return sent.held(self._imagej, layer_id, [at or 0 for at in by_axes])


def _find(name: str) -> ImageJ:
    """Attach to what this viewer's predecessor has started, or a person; else start one."""
    receivers = sorted(running(), key=lambda each: each.viewer != name)
    for receiver in receivers:
        if receiver.viewer not in ("", name):
            continue
        try:
            found = attach(receiver, timeout_s=_TIMEOUT_S)
        except PeerDiedError as error:
            log.info("%s", error)
            continue
        if found.welcome.owned:
            found.close_left()
        return found
    return start(starter=name, timeout_s=_TIMEOUT_S)


def _size(layer: ImageLayer) -> tuple[int, int]:
    height, width = layer.array.shape[-3:-1] if layer.rgb else layer.array.shape[-2:]
    return height, width


def _shape(layer: ImageLayer, folding: Folding) -> WindowShape:
    return WindowShape(*_size(layer), *folding.counts)


def _title(layer: Layer) -> str:
    default = layer.window == "Mutoscope" or layer.name.startswith(layer.window)
    return layer.name if default else f"{layer.window} {layer.name}"


def _scale(layer: ImageLayer, folding: Folding) -> Scale:
    slices, frames = folding.only(1), folding.only(2)
    known = bool(layer.units[-1])
    timed = frames is not None and layer.units[frames] == "s"
    return Scale(
        pixel_size=layer.scale[-1],
        depth=1.0 if slices is None else layer.scale[slices],
        unit=layer.units[-1] if known else "pixel",
        interval=layer.scale[frames] if frames is not None and timed else 0.0,
        time_unit="sec",
    )


def _by_axes(layer: RoiLayer, index: tuple[int | None, ...], folding: Folding) -> tuple[int | None, ...]:
    """The index of ROIs by the axes of the images that they lie on."""
    said = dict(zip(layer.axes, index, strict=True))
    return tuple(said.get(axis) for axis in folding.axes)


def _held_rois(layer: RoiLayer) -> HeldLayer:
    return HeldLayer(
        id=layer.id,
        name=layer.name,
        window=layer.window,
        kind="rois",
        axis_names=list(layer.axis_names),
        shape=[len(values) for values in layer.values],
        scale=list(layer.scale),
    )
