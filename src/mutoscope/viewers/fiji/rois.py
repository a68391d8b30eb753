"""ROIs on their way to ImageJ, and back as they were sent unless a person has changed them there."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from mutoscope.model.errors import ConfigError
from mutoscope.model.roi import Roi, RoiPlane
from mutoscope.model.roi_convert import from_imagej, to_imagej_roi
from mutoscope.viewers.fiji.folding import Folding
from mutoscope.viewers.fiji.imagej import ImageJ, Place

__all__ = ["SentRois"]

log = logging.getLogger(__name__)

_SINGLE = 1e-3
_ALL_PLANES = Place(0, 0, 0)


@dataclass
class _Sent:
    """The ROIs of a plane as they were given, and as ImageJ got them."""

    given: Sequence[Roi]
    by_id: dict[str, tuple[Roi, bytes]]


@dataclass
class SentRois:
    """What ImageJ has of a layer of ROIs.

    Parameters
    ----------
    window : str or None
        Over which they lie.
    folding : Folding
        Of the planes that they lie on.
    editable : bool
        Whether a person may draw among them.
    """

    window: str | None
    folding: Folding
    editable: bool = False
    _sent: dict[Place, _Sent] = field(default_factory=dict)

    def put(self, imagej: ImageJ, layer: str, rois: Mapping[tuple[int | None, ...], Sequence[Roi]], *, whole: bool) -> None:
        """Have ImageJ hold these ROIs and no others of this layer; what it has already is not sent again.

        Parameters
        ----------
        imagej : ImageJ
            Where.
        layer : str
            The layer's name there.
        rois : mapping of index to sequence of Roi
            By the axes of `folding`.
        whole : bool
            Whether ImageJ may have others of this layer.
        """
        wanted = {place: given for index, given in rois.items() for place in self.folding.places(index)}
        before = {} if whole else self._sent
        new: dict[Place, list[bytes]] = {place: [] for place in before if place not in wanted}
        kept: dict[Place, _Sent] = {}
        for place, given in wanted.items():
            known = before.get(place)
            if known is not None and known.given is given:
                kept[place] = known
                continue
            kept[place] = _Sent(given, _converted(given))
            new[place] = [data for _, data in kept[place].by_id.values()]
        if new or whole:
            imagej.put_rois(layer, new, window=self.window, whole=whole, editable=self.editable)
        self._sent = kept

    def edited(self, data: bytes) -> Roi:
        """Take up a ROI that a person has drawn or changed; returns it with what ImageJ does not keep of it."""
        (held,) = from_imagej(data)
        held = msgspec.structs.replace(held, plane=RoiPlane())
        sent = self._sent.setdefault(_ALL_PLANES, _Sent((), {}))
        known = sent.by_id.get(held.id)
        if known is not None:
            name = held.name if known[0].name or held.name != held.id else ""
            held = msgspec.structs.replace(known[0], geometry=held.geometry, name=name)
        sent.by_id[held.id] = (held, data)
        return held

    def held(self, imagej: ImageJ, layer: str, index: Sequence[int]) -> list[Roi]:
        """Return the ROIs that ImageJ has on a plane: as they were sent, unless a person has changed them."""
        place = self.folding.place(index)
        found = []
        for where, held in imagej.held_rois(layer).items():
            if all(at in (0, wanted) for at, wanted in zip(where, place, strict=True)):
                sent = self._sent.get(where)
                found += [_as_sent(data, {} if sent is None else sent.by_id) for data in held]
        return found


def _converted(given: Sequence[Roi]) -> dict[str, tuple[Roi, bytes]]:
    found: dict[str, tuple[Roi, bytes]] = {}
    for roi in given:
        try:
            found[roi.id] = (roi, to_imagej_roi(roi))
        except ConfigError as error:
            log.warning("ROI %s is not shown: %s", roi.id, error)
    return found


def _as_sent(data: bytes, sent: Mapping[str, tuple[Roi, bytes]]) -> Roi:
    (held,) = from_imagej(data)
    if held.id not in sent:
        return held
    roi, ours = sent[held.id]
    if not _same(held.geometry, from_imagej(ours)[0].geometry):
        return msgspec.structs.replace(held, plane=roi.plane)
    return msgspec.structs.replace(roi, name=held.name) if roi.name and held.name != roi.name else roi


def _same(one: object, other: object) -> bool:
    """Whether two geometries are the same in single precision, which ImageJ has."""
    if type(one) is not type(other):
        return False
    numbers: list[list[float]] = []
    for each in (one, other):
        numbers.append([])
        _collect(msgspec.to_builtins(each), numbers[-1])
    return len(numbers[0]) == len(numbers[1]) and bool(np.allclose(numbers[0], numbers[1], rtol=1e-6, atol=_SINGLE))


def _collect(value: Any, into: list[float]) -> None:
    if isinstance(value, int | float):
        into.append(float(value))
    elif isinstance(value, Mapping):
        for each in value.values():
            _collect(each, into)
    elif isinstance(value, list | tuple):
        for each in value:
            _collect(each, into)
