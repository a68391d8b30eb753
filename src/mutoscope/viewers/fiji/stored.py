"""A stored data set in ImageJ or Fiji, as virtual hyperstacks: a plane is read when somebody, or a command, looks at it."""

from __future__ import annotations

import colorsys
import logging
import math
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mutoscope.model.errors import ConfigError, MutoscopeError, PeerDiedError
from mutoscope.viewers.fiji.imagej import ImageJ, Place, Scale, WindowShape
from mutoscope.viewers.fiji.life import attach, ended_in_order, running, start
from mutoscope.viewers.fiji.link import ImageJError, WindowGoneError
from mutoscope.viewers.fiji.loop import Loop
from mutoscope.viewers.fiji.messages import ChannelStyle, WantedPlane
from mutoscope.viewers.fiji.pixels import StoredForm, stored_form
from mutoscope.viewers.luts import lut_bytes
from mutoscope.viewers.stored import StoredImage, contrast_of, stored_labels

__all__ = ["show_stored"]

log = logging.getLogger(__name__)

MOST_PLANES = 1 << 22
MOST_PIXELS = (1 << 31) - 9
_STARTER = "mutoscope view"
_TIMEOUT_S = 120.0
_COLOURS = ("cyan", "magenta", "yellow", "green", "red", "blue", "grays")
_GOLDEN = 0.618033988749895


@dataclass(frozen=True)
class _Window:
    """One image of the data set, and where its axes are in ImageJ's."""

    title: str
    image: StoredImage
    form: StoredForm

    @property
    def counts(self) -> tuple[int, int, int]:
        """Channels, slices and frames: all axes that are neither channels nor z are frames, the last one fastest."""
        said = dict(zip(self.image.axes, self.image.shape, strict=True))
        channels, slices = said.get("c", 1), said.get("z", 1)
        return channels, slices, math.prod(self.image.shape) // (channels * slices)

    def index(self, place: Place) -> tuple[int, ...]:
        """Return which plane of the image is at a place."""
        rest, found = place.t - 1, []
        for axis, length in zip(reversed(self.image.axes), reversed(self.image.shape), strict=True):
            if axis in ("c", "z"):
                found.append((place.c if axis == "c" else place.z) - 1)
            else:
                rest, at = divmod(rest, length)
                found.append(at)
        return tuple(reversed(found))

    def check(self) -> None:
        """Raise ConfigError for what ImageJ cannot hold."""
        planes, (height, width) = math.prod(self.counts), self.image.plane_shape
        if planes > MOST_PLANES or height * width > MOST_PIXELS:
            raise ConfigError(
                f"{self.title}: {planes:,} planes of {height:,} x {width:,} pixels are more than ImageJ holds "
                f"({MOST_PLANES:,} planes, {MOST_PIXELS:,} pixels each): look at it by mutoscope view browser, or napari"
            )


def show_stored(path: Path, images: Sequence[StoredImage], opened: Callable[[ImageJ], None] | None = None) -> None:
    """Show a recording or a plate, until ImageJ is closed, or its windows in the ImageJ that a person had open.

    SIGINT and SIGTERM end it, too, and an ImageJ that it has started, unless the person has something unsaved there.

    Parameters
    ----------
    path : path
        Of an OME-Zarr, or an OME-TIFF.
    images : sequence of StoredImage
        What is in it: `stored_images`.
    opened : callable, optional
        Given the link to ImageJ when it shows the data set.

    Raises
    ------
    BackendUnavailableError
        If there is no ImageJ, or no Java.
    ConfigError
        If there is no screen, or ImageJ cannot hold the data set: says what can.
    DatasetError
        If what is seen first is damaged; a plane that is damaged is told in ImageJ where it is looked at.
    PeerDiedError
        If ImageJ has died.
    """
    windows = [_window(path, each) for each in [*images, *stored_labels(path, images)]]
    if not windows:
        raise ConfigError(f"{path}: there is no image in it yet")
    for window in windows:
        window.check()
    styles = [_styles(window) for window in windows]
    loop = Loop()
    before = {number: signal.signal(number, lambda *_: loop.stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _find() as imagej:
            try:
                shown = _Shown(imagej, windows, loop)
                shown.open(styles)
                if opened is not None:
                    opened(imagej)
                ended = loop.run(imagej, shown.take_news)
            except PeerDiedError:
                ended = True
            if not ended and imagej.welcome.owned:
                _end(imagej)
            elif ended and not ended_in_order(imagej):
                raise PeerDiedError("ImageJ has died")
    finally:
        loop.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _window(path: Path, image: StoredImage) -> _Window:
    return _Window(f"{path.name} {image.name}".strip(), image, stored_form(image.dtype))


def _find() -> ImageJ:
    """The ImageJ that a person has open with the live receiver, else one that is started."""
    for receiver in running():
        if not receiver.viewer:
            try:
                return attach(receiver, timeout_s=_TIMEOUT_S)
            except PeerDiedError as error:
                log.info("%s", error)
    return start(starter=_STARTER, timeout_s=_TIMEOUT_S)


def _end(imagej: ImageJ) -> None:
    try:
        imagej.quit()
    except ImageJError as error:
        log.warning("ImageJ stays open, without the planes that it has not read: %s", error)


class _Shown:
    """The windows of a data set, and who reads their planes."""

    def __init__(self, imagej: ImageJ, windows: Sequence[_Window], loop: Loop) -> None:
        self._imagej = imagej
        self._windows = {str(number): window for number, window in enumerate(windows)}
        self._loop = loop

    def open(self, styles: Sequence[list[ChannelStyle]]) -> None:
        """Open the windows; that of the first image last, in front of the others."""
        for (name, window), style in reversed(list(zip(self._windows.items(), styles, strict=True))):
            channels, slices, frames = window.counts
            shape = WindowShape(*window.image.plane_shape, channels, slices, frames)
            self._imagej.open_window(name, window.title, window.form, shape, composite=channels > 1, stored=True)
            self._imagej.style(name, overlay=1 < channels <= len(_COLOURS), scale=_scale(window), channels=style)
            self.take_news()
            self._show(name)

    def _show(self, name: str) -> None:
        """Have what has come be on the screen."""
        self._quietly(lambda: self._imagej.show(name))

    def take_news(self) -> None:
        """Put what is wanted, the plane that is wanted most before the others, as long as there is any."""
        while True:
            news, _ = self._imagej.news()
            for name in news.closed:
                self._windows.pop(name, None)
                self._imagej.close_window(name)
            if not self._windows and not self._imagej.welcome.owned:
                self._loop.stop()
                return
            if not news.wanted:
                return
            self._put(news.wanted[0])

    def _put(self, wanted: WantedPlane) -> None:
        place, window = Place(wanted.c, wanted.z, wanted.t), self._windows[wanted.window]
        index = window.index(place)
        try:
            plane = window.image.read(index)
        except (MutoscopeError, OSError) as error:
            log.warning("%s at %s: %s", window.title, index, error)
            why = str(error)
            self._quietly(lambda: self._imagej.unread_plane(wanted.window, place, why))
            return
        if plane is None:
            self._quietly(lambda: self._imagej.forget_plane(wanted.window, place))
        else:
            label = window.image.label(index)
            self._quietly(lambda: self._imagej.put_plane(wanted.window, place, plane, window.form, label))

    def _quietly(self, put: Callable[[], None]) -> None:
        """Do it, or leave it where a person has closed the window, or made something else of it, meanwhile."""
        try:
            put()
        except WindowGoneError as error:
            log.info("%s", error)


def _scale(window: _Window) -> Scale:
    image = window.image
    known = image.pixel_size_um is not None
    return Scale(
        pixel_size=image.pixel_size_um or 1.0,
        depth=image.z_step_um or 1.0,
        unit="µm" if known else "pixel",
        interval=image.interval_s or 0.0,
        time_unit="sec",
    )


def _styles(window: _Window) -> list[ChannelStyle]:
    found = []
    count = window.counts[0]
    for channel in range(count):
        lut: bytes | None
        if window.image.colours is not None:
            (low, high), lut = (0.0, 255.0), _labels_lut(window.image.colours)
        else:
            low, high = contrast_of(window.image, channel)
            lut = lut_bytes("grays" if count == 1 else _COLOURS[channel % len(_COLOURS)])
        found.append(ChannelStyle(c=channel + 1, low=window.form.level(low), high=window.form.level(high), lut=lut))
    return found


def _labels_lut(colours: Mapping[int, Sequence[int]]) -> bytes:
    """A colour for each label up to 255: its own, else one far from its neighbours'; 0 is black."""
    rows = [(0, 0, 0)]
    for label in range(1, 256):
        red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN) % 1.0, 0.5 + 0.5 * (label % 2), 1.0)
        own = colours.get(label)
        rows.append((own[0], own[1], own[2]) if own is not None else (int(255 * red), int(255 * green), int(255 * blue)))
    return bytes(row[number] for number in range(3) for row in rows)
