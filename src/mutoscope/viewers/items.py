"""What a sink takes, checked before anything is sent: an image or the ROIs of a plane, and where its name says it belongs."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model import arguments
from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.model.filenames import Components, NameParser, names
from mutoscope.model.filenames.patterns import REMEMBERED
from mutoscope.model.roi import Roi
from mutoscope.storage import _arrays
from mutoscope.viewers.roi_pack import pack_rois
from mutoscope.viewers.wire import DTYPES, Value

__all__ = ["MOST_TEXT", "ImageItem", "Item", "RoiItem", "item_of", "items_of", "sendable"]

log = logging.getLogger(__name__)

_FOLLOWING = ("z", "channel", "t")
"""The axes of a stack before (y, x), innermost first, as OME orders them; those that the name gives are left out."""
_SUFFIX = re.compile(r"(\.ome)?\.[A-Za-z0-9]{1,8}$|\.roi\.zip$", re.IGNORECASE)
_MOST_NAME = 4096
MOST_TEXT = 4096
"""Characters of a source, or of a folder, that a message can hold."""
_MOST_COMPONENTS, _MOST_WORD, _MOST_VALUE, _MOST_NUMBER = 32, 64, 256, 1 << 62
_COLOURS = (3, 4)


@dataclass(slots=True)
class ImageItem:
    """An image with its place. `array` is the caller's own, or shares memory with it; `axes` are those before (y, x)."""

    name: str
    place: dict[str, Value]
    array: NDArray[Any]
    axes: list[tuple[str, int]]
    rgb: bool


@dataclass(slots=True)
class RoiItem:
    """The ROIs of a plane with its place, packed."""

    name: str
    place: dict[str, Value]
    packed: bytes


Item = ImageItem | RoiItem


def items_of(data: Iterable[Any], names: Iterable[Any], parser: NameParser) -> list[Item]:
    """Return the items of a batch, without those that are text.

    Raises
    ------
    ConfigError
        For the first of them that cannot be shown, or if there are not as many names as data. Nothing was sent.
    """
    if isinstance(names, str | os.PathLike) or not isinstance(names, Iterable):
        raise ConfigError(f"names are a list, not {arguments.shown(names)}; nothing was sent")
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise ConfigError(f"data are a list of items, not {arguments.shown(data)}; nothing was sent")
    keys, values = list(names), list(data)
    if len(values) != len(keys):
        raise ConfigError(f"{len(values)} items and {len(keys)} names: they must be as many; nothing was sent")
    found = [item_of(value, name, parser) for value, name in zip(values, keys, strict=True)]
    taken = [item.name for item in found if item is not None]
    if len(set(taken)) < len(taken):
        twice = next(name for number, name in enumerate(taken) if name in taken[:number])
        raise ConfigError(f"{twice!r} comes twice among the names; nothing was sent")
    return [item for item in found if item is not None]


def item_of(data: Any, name: Any, parser: NameParser) -> Item | None:
    """Return the item that a name and its data make; None for text, which no viewer shows."""
    text = _checked_name(name)
    if isinstance(data, np.ndarray) or _arrays.is_array(data):
        components = _parsed(text, parser, cut=False)
        try:
            array = _arrays.to_numpy(data)
        except (ConfigError, BackendUnavailableError) as error:
            raise type(error)(f"{text!r}: {error}; nothing was sent") from error
        return _image(text, components, array)
    if isinstance(data, str):
        _say_text(text)
        return None
    if isinstance(data, Roi):
        raise ConfigError(f"{text!r}: ROIs are a list of Roi, also one alone; nothing was sent")
    if not isinstance(data, list | tuple):
        raise ConfigError(
            f"{text!r}: a {type(data).__name__} cannot be shown; viewers take images and lists of Roi; nothing was sent"
        )
    if not all(isinstance(each, Roi) for each in data):
        kinds = sorted({type(each).__name__ for each in data})
        raise ConfigError(f"{text!r}: a list is shown when all in it are Roi, not {', '.join(kinds)}; nothing was sent")
    components = _parsed(text, parser, cut=True)
    try:
        packed = pack_rois(data)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{text!r}: one of its ROIs cannot be sent: {error}; nothing was sent") from error
    return RoiItem(text, _place(text, components), packed)


def _checked_name(name: Any) -> str:
    text = os.fspath(name) if not isinstance(name, str) and isinstance(name, os.PathLike) else name
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigError(f"a name is text, not {arguments.shown(name)}; nothing was sent")
    text = sendable(text)
    if len(text) > _MOST_NAME or (not text.isascii() and len(text.encode()) > _MOST_NAME):
        raise ConfigError(f"{text[:80]!r}…: a name has at most {_MOST_NAME} bytes; nothing was sent")
    return text


def sendable(text: str) -> str:
    """Return a text, or a path, as a message can hold it: what is no character in it is replaced."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return text


def _parsed(name: str, parser: NameParser, *, cut: bool) -> Components:
    """Return what a name says. Forms that no microscope writes are read as if they were its images; `cut` also leaves out what
    a program has added to such a name (``…_nuclei.roi.zip``)."""
    found = parser.parse(name)
    stem = name if found is not None else _SUFFIX.sub("", name)
    while found is None:
        found = parser.parse(f"{stem}.tif") or parser.parse(f"{stem}.tiff")
        if found is None:
            shorter = stem.rpartition("_")[0] if cut else ""
            if not shorter or "/" in stem[len(shorter) :]:
                known, cure = parser.name, "filenames= says whose names these are"
                if known == "auto":
                    known = f"any of {', '.join(names())}"
                    cure = "say whose names these are (filenames=), or give it one such as 'A01_s1_w1_z1_t1.tif'"
                raise ConfigError(f"{name!r} is no file name of {known}, so its place is not known: {cure}; nothing was sent")
            stem = shorter
    if found.kind == "metadata":
        raise ConfigError(f"{name!r} is the name of a microscope's metadata, not of an image; nothing was sent")
    return found


_OWN = frozenset(Components.__struct_fields__)


def _place(name: str, components: Components) -> dict[str, Value]:
    """Return the components but the source, which the caller states, with those that a parser has added. Not to be changed."""
    try:
        return _remembered(components) if type(components) is Components else _checked_place(components)
    except _TooMuchError as error:
        raise ConfigError(f"{name!r}: {error}; nothing was sent") from None


class _TooMuchError(ValueError):
    pass


def _checked_place(components: Components) -> dict[str, Value]:
    place = _said_by(components)
    for component, value in place.items():
        fits = len(value) <= _MOST_VALUE if isinstance(value, str) else -_MOST_NUMBER <= value < _MOST_NUMBER
        if not fits or not 0 < len(component) <= _MOST_WORD:
            raise _TooMuchError(f"its {component} is more than can be sent")
    if len(place) > _MOST_COMPONENTS:
        raise _TooMuchError(f"it has {len(place)} components, at most {_MOST_COMPONENTS} can be sent")
    return place


@lru_cache(maxsize=REMEMBERED)
def _remembered(components: Components) -> dict[str, Value]:
    """What `Components` say is asked for as often as their name is."""
    return _checked_place(components)


def _said_by(components: Components) -> dict[str, Value]:
    place: dict[str, Value] = {name: value for name, value in components.place().items() if name != "source"}
    if "well" not in place and components.well_number is not None:
        place["well"] = components.well_number
    if type(components) is not Components:
        for name in components.__struct_fields__:
            value = getattr(components, name)
            if name not in _OWN and isinstance(value, int | str) and value != "" and not isinstance(value, bool):
                place[name] = sendable(value) if isinstance(value, str) else value
    return place


def _image(name: str, components: Components, array: NDArray[Any]) -> ImageItem:
    if array.dtype.fields is not None or array.dtype not in DTYPES:
        raise ConfigError(
            f"{name!r}: pixels are bool, integers or floats of at most 64 bits, not {array.dtype}; nothing was sent"
        )
    if array.ndim < 2 or array.size == 0:
        raise ConfigError(f"{name!r}: an image has shape (y, x) and at least one pixel, not {array.shape}; nothing was sent")
    rgb = array.ndim >= 3 and array.shape[-1] in _COLOURS and array.dtype in (np.uint8, np.uint16)
    if array.ndim >= 3 and array.shape[-1] in _COLOURS and not rgb:
        _say_no_colour(name, array)
    place = _place(name, components)
    count = array.ndim - 2 - rgb
    if not count:
        return ImageItem(name, place, array, [], bool(rgb))
    free = [axis for axis in _FOLLOWING if axis not in place]
    if count > len(free):
        raise ConfigError(
            f"{name!r}: an image of shape {array.shape} has {count} axes before (y, x), and its name leaves "
            f"{', '.join(reversed(free)) or 'none'} for them; nothing was sent"
        )
    axes = [(axis, 0 if axis in components.counted_from_0 else 1) for axis in reversed(free[:count])]
    return ImageItem(name, place, array, axes, bool(rgb))


_said: set[str] = set()
_said_no_colour: set[str] = set()


def _say_text(name: str) -> None:
    if not _said:
        _said.add(name)
        log.info("%r is text: no viewer shows it; this is said once", name)


def _say_no_colour(name: str, array: NDArray[Any]) -> None:
    if not _said_no_colour:
        _said_no_colour.add(name)
        log.warning(
            "%r: the last axis of %s of %s is taken for x, not for colour, which is uint8 or uint16; this is said once",
            *(name, array.shape, array.dtype),
        )
