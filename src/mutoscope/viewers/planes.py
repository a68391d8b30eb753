"""Planes in an array that grows: where each lies is decided by its place alone, never by when it came."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.frames import copy_in
from mutoscope.viewers.wire import Value

__all__ = ["AxisValue", "AxisValues", "PlaneArray", "value_key"]

AxisValue = tuple[Value | None, ...]
"""What an index of an axis stands for: a value of each component that makes this axis, None where a name does not say it."""

_DIGITS = re.compile(r"([0-9]+)")
_SAMPLED_ROWS = 64


def value_key(value: Value | None) -> tuple[Any, ...]:
    """Return what sorts the values of a component: what is not said, then numbers, then text with its numbers by value."""
    if value is None:
        return (0,)
    if isinstance(value, int):
        return (1, value)
    pieces = (piece for piece in _DIGITS.split(value.casefold()) if piece)
    return (2, tuple((0, int(piece), "") if _DIGITS.fullmatch(piece) else (1, 0, piece) for piece in pieces), value)


def _axis_key(value: AxisValue) -> tuple[Any, ...]:
    return tuple(map(value_key, value))


class AxisValues:
    """The values along one axis, sorted. What comes at the end is added to `values` and `index`; else both become others, so
    that whoever keeps them has what they were, and perhaps more behind it."""

    def __init__(self) -> None:
        self.values: list[AxisValue] = []
        self.index: dict[AxisValue, int] = {}
        self._keys: list[tuple[Any, ...]] = []

    def add(self, value: AxisValue) -> None:
        """Add a value; those after it move on."""
        if value in self.index:
            return
        key = _axis_key(value)
        at = bisect_left(self._keys, key)
        self._keys.insert(at, key)
        if at == len(self.values):
            self.values.append(value)
            self.index[value] = at
        else:
            self.values = [*self.values[:at], value, *self.values[at:]]
            self.index = {each: number for number, each in enumerate(self.values)}


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis as an array has it: the first `length` of its values."""

    values: list[AxisValue]
    index: dict[AxisValue, int]
    length: int

    def begins(self, other: _Axis) -> bool:
        """Whether the other has the same values, and perhaps more behind them."""
        return self.values is other.values and self.length <= other.length


@dataclass(slots=True, eq=False)
class _Plane:
    """A plane that is there: its index, its own size, the limits of its pixels (the lower above the upper where it has none),
    the group whose planes share a contrast, who sent it, and whether it is among those that have changed."""

    index: tuple[int, ...]
    shape: tuple[int, ...]
    limits: tuple[float, float]
    group: Value | None
    source: str
    changed: bool


_NO_LIMITS = (1.0, 0.0)
_ALL = (0.0, 100.0)


class PlaneArray:
    """Planes of one dtype in one array, ``(*axes, y, x)`` or ``(*axes, y, x, colour)``.

    The array has room for more than it shows: each axis doubles when it is full, so that a plane is copied a bounded number
    of times however many come after it. Memory of planes that are not there is never touched.

    Parameters
    ----------
    dtype : dtype
        Of the pixels.
    colours : int
        3 or 4 where the last axis is colour, else 0.
    rescale : bool
        Bring smaller planes to the size of the largest (nearest neighbour); else they lie at the upper left, padded by zeros.
    """

    def __init__(self, dtype: np.dtype[Any], colours: int, rescale: bool) -> None:
        self.dtype = dtype
        self.colours = colours
        self.axes: tuple[str, ...] = ()
        self._rescale = rescale
        self._planes: dict[tuple[AxisValue, ...], _Plane] = {}
        self._layout: tuple[_Axis, ...] = ()
        self._size = (0, 0)
        self._buffer: NDArray[Any] = np.zeros((0, 0), dtype)
        self._missing: NDArray[np.bool_] = np.ones((), bool)
        self._bounds: dict[Value | None, tuple[float, float]] = {}
        self._changed: list[_Plane] = []
        self._gone: set[tuple[AxisValue, ...]] = set()

    @property
    def array(self) -> NDArray[Any]:
        """The pixels: a view that shows later planes too, until the array has to grow."""
        front = tuple(slice(0, axis.length) for axis in self._layout)
        height, width = self._size
        view: NDArray[Any] = self._buffer[(*front, slice(0, height), slice(0, width))]
        return view

    @property
    def values(self) -> tuple[tuple[AxisValue, ...], ...]:
        """What the indices of each axis stand for."""
        return tuple(tuple(axis.values[: axis.length]) for axis in self._layout)

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Which planes are not there, shape ``axes``; a copy."""
        return self._missing[tuple(slice(0, axis.length) for axis in self._layout)].copy()

    def index(self, place: Sequence[AxisValue]) -> tuple[int, ...]:
        """Return where a place is."""
        return tuple(axis.index[value] for axis, value in zip(self._layout, place, strict=True))

    def _find(self, place: tuple[AxisValue, ...]) -> tuple[int, ...] | None:
        """Return where a place is; None if it does not lie inside."""
        found = []
        for axis, value in zip(self._layout, place, strict=True):
            number = axis.index.get(value)
            if number is None or number >= axis.length:
                return None
            found.append(number)
        return tuple(found)

    def __len__(self) -> int:
        return len(self._planes)

    def places(self, source: str | None = None) -> list[tuple[AxisValue, ...]]:
        """Return the places of the planes that are there, of one source or of all."""
        return [place for place, plane in self._planes.items() if source in (None, plane.source)]

    def changed(self) -> frozenset[tuple[int, ...]]:
        """Return the indices of the planes that came or went since `forget_changes`."""
        return frozenset([plane.index for plane in self._changed] + [self.index(place) for place in self._gone])

    def forget_changes(self) -> None:
        """They have been looked at."""
        for plane in self._changed:
            plane.changed = False
        self._changed, self._gone = [], set()

    def limits(self) -> dict[Value | None, tuple[float, float]]:
        """Return the smallest and the largest value of each group, over the planes that are there and have any."""
        return dict(self._bounds)

    def arrange(self, axes: tuple[str, ...], values: Mapping[str, AxisValues]) -> tuple[bool, bool]:
        """Follow the axes of a window, whose values may have become more.

        Returns
        -------
        (changed, moved)
            Whether anything is different now, and whether the array is another one. `axes` are all that it has had, and maybe
            more; planes that are there have None along new ones.
        """
        found = [values[axis] for axis in axes]
        layout = tuple(_Axis(each.values, each.index, len(each.values)) for each in found)
        if axes == self.axes and all(
            new.values is old.values and new.length == old.length for new, old in zip(layout, self._layout, strict=True)
        ):
            return False, False
        is_other = axes != self.axes
        moved = self._lay_out(axes, layout, self._size)
        if is_other:
            self._changed, self._gone = list(self._planes.values()), set()
            for plane in self._changed:
                plane.changed = True
        return True, moved

    def put(
        self,
        place: tuple[AxisValue, ...],
        plane: NDArray[Any],
        group: Value | None,
        percentiles: tuple[float, float] | None,
        source: str,
    ) -> bool | None:
        """Copy a plane to its place, instead of the one that is there; returns whether the array is another one, or None, and
        nothing was done, if its place does not lie inside.

        `group` names those that share a contrast, whose limits are these percentiles of each plane's pixels.
        """
        held = self._planes.get(place)
        index = self._find(place) if held is None else held.index
        if index is None:
            return None
        shape = plane.shape[:2]
        grown = False
        if shape != self._size or not self._buffer.size:
            size = (max(self._size[0], shape[0]), max(self._size[1], shape[1]))
            if size != self._size or not self._buffer.size:
                grown = self._lay_out(self.axes, self._layout, size)
        limits = self._write(index, plane)
        if self.colours or percentiles is None:
            limits = _NO_LIMITS
        elif limits is None or percentiles != _ALL:
            limits = _limits(plane, percentiles)
        before = _NO_LIMITS
        if held is None:
            held = self._planes[place] = _Plane(index, shape, limits, group, source, False)
            self._missing[index] = False
        else:
            before = held.limits
            held.shape, held.limits, held.source = shape, limits, source
        if not held.changed:
            held.changed = True
            self._changed.append(held)
        self._count_in(group, limits, before)
        return grown

    def remove(self, places: Iterable[tuple[AxisValue, ...]]) -> None:
        """Take planes away: their places are missing again."""
        groups = set()
        for place in places:
            gone = self._planes.pop(place)
            self._buffer[gone.index] = 0
            self._missing[gone.index] = True
            self._gone.add(place)
            groups.add(gone.group)
        self._changed = [plane for plane in self._planes.values() if plane.changed]
        for group in groups:
            self._recount(group)

    def _count_in(self, group: Value | None, limits: tuple[float, float], before: tuple[float, float]) -> None:
        bounds = self._bounds.get(group)
        if limits == bounds:
            return
        low, high = limits
        if bounds is None:
            if low <= high:
                self._bounds[group] = limits
        elif (before[0] == bounds[0] and low > bounds[0]) or (before[1] == bounds[1] and high < bounds[1]):
            self._recount(group)  # the one that was the limit is replaced
        elif low <= high:
            self._bounds[group] = (min(low, bounds[0]), max(high, bounds[1]))

    def _recount(self, group: Value | None) -> None:
        found = [plane.limits for plane in self._planes.values() if plane.group == group and plane.limits[0] <= plane.limits[1]]
        self._bounds.pop(group, None)
        if found:
            self._bounds[group] = (min(low for low, _ in found), max(high for _, high in found))

    def _write(self, index: tuple[int, ...], plane: NDArray[Any]) -> tuple[float, float] | None:
        """Copy a plane; returns its limits where they cost nothing."""
        target = self._buffer[index]
        height, width = plane.shape[:2]
        if (height, width) == self._size:
            return copy_in(target, plane, _every(height))
        if self._rescale:
            np.copyto(target, plane[_nearest(height, self._size[0])][:, _nearest(width, self._size[1])])
        else:
            np.copyto(target[:height, :width], plane)
            target[height:] = 0
            target[:height, width:] = 0
        return None

    def _lay_out(self, axes: tuple[str, ...], layout: tuple[_Axis, ...], size: tuple[int, int]) -> bool:
        """Have room for these axes and this size, with every plane at its place; True if the array is another one then."""
        if self._fits(axes, layout, size):
            self.axes, self._layout = axes, layout
            return False
        fresh = self._allocate(self._room(axes, layout, size), tuple(axis.length for axis in layout), size)
        held = [(place, plane, self._taken(plane)) for place, plane in self._planes.items()]
        old_axes = self.axes
        self._buffer = fresh
        self._missing = np.ones(fresh.shape[: len(layout)], bool)
        self.axes, self._layout, self._size, self._planes = axes, layout, size, {}
        for place, plane, pixels in held:
            known = dict(zip(old_axes, place, strict=True))
            moved = tuple(
                known[name] if name in known else (None,) * len(axis.values[0]) for name, axis in zip(axes, layout, strict=True)
            )
            index = self.index(moved)
            self._write(index, pixels)
            self._missing[index] = False
            self._planes[moved] = plane
            plane.index = index
        return True

    def _taken(self, plane: _Plane) -> NDArray[Any]:
        """A plane as it came."""
        height, width = plane.shape
        whole: NDArray[Any] = self._buffer[plane.index]
        if not self._rescale or (height, width) == self._size:
            return whole[:height, :width]
        return whole[_first(height, self._size[0])][:, _first(width, self._size[1])]

    def _fits(self, axes: tuple[str, ...], layout: tuple[_Axis, ...], size: tuple[int, int]) -> bool:
        """Whether what is there stays where it is, and the rest has room behind it."""
        if axes != self.axes or size != self._size or not self._buffer.size:
            return False
        return all(
            old.begins(new) and new.length <= room
            for new, old, room in zip(layout, self._layout, self._buffer.shape, strict=False)
        )

    def _room(self, axes: tuple[str, ...], layout: tuple[_Axis, ...], size: tuple[int, int]) -> tuple[int, ...]:
        """How long each axis becomes: twice what it was where it has to grow."""
        had = dict(zip(self.axes, self._buffer.shape, strict=False)) if self._buffer.size else {}
        front = []
        for name, axis in zip(axes, layout, strict=True):
            before = had.get(name, 0)
            front.append(before if before >= axis.length else max(axis.length, 2 * before))
        return (*front, *size, *((self.colours,) if self.colours else ()))

    def _allocate(self, shape: tuple[int, ...], lengths: tuple[int, ...], size: tuple[int, int]) -> NDArray[Any]:
        try:
            return np.zeros(shape, self.dtype)
        except MemoryError:
            return np.zeros((*lengths, *size, *((self.colours,) if self.colours else ())), self.dtype)


def _every(height: int) -> int:
    """Of how many rows one is looked at for a contrast: that is enough, and takes a small part of the time of the copy."""
    return -(-height // _SAMPLED_ROWS)


def _limits(plane: NDArray[Any], percentiles: tuple[float, float]) -> tuple[float, float]:
    rows = plane[:: _every(plane.shape[0])]
    if rows.dtype.kind == "f":
        rows = rows[np.isfinite(rows)].astype(np.float64)
        if not rows.size:
            return _NO_LIMITS
    if percentiles == _ALL:
        return float(np.minimum.reduce(rows, axis=None)), float(np.maximum.reduce(rows, axis=None))
    low, high = np.percentile(rows, percentiles)
    return float(low), float(high)


def _nearest(length: int, wanted: int) -> NDArray[np.intp]:
    """Indices that bring `length` pixels to `wanted`."""
    return np.arange(wanted, dtype=np.intp) * length // wanted


def _first(length: int, wanted: int) -> NDArray[np.intp]:
    """Indices that bring them back, for what was made larger: the first pixel made of each."""
    return -(-np.arange(length, dtype=np.intp) * wanted // length)
