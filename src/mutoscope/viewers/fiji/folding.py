"""The axes of a layer as ImageJ's three: channels, slices, frames."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from mutoscope.viewers.fiji.imagej import Place
from mutoscope.viewers.model import Layer
from mutoscope.viewers.planes import AxisValue
from mutoscope.viewers.wire import Value

__all__ = ["Folding"]

_Key = tuple[tuple[str, AxisValue], ...]


class Folding:
    """Where each plane of a layer lies in ImageJ.

    An axis of channels is ImageJ's channels, one of z its slices, and all others together, the last one fastest, its frames.

    Parameters
    ----------
    layer : Layer
        Of images or ROIs; its axes and their values are copied.
    """

    def __init__(self, layer: Layer) -> None:
        self.axes = layer.axes
        self.lengths = tuple(map(len, layer.values))
        self._components = layer.axis_components
        self._values = layer.values
        self._of_role = tuple(
            tuple(number for number, axis in enumerate(layer.axes) if _role(axis, layer.axis_components[number]) == role)
            for role in "czt"
        )
        self._keys = tuple(self._keys_of(numbers) for numbers in self._of_role)

    def _keys_of(self, numbers: Sequence[int]) -> list[_Key]:
        """What each index of one of ImageJ's axes stands for; what a name does not say is left out."""
        values = [[(self.axes[number], value) for value in self._values[number]] for number in numbers]
        return [tuple(each for each in key if set(each[1]) != {None}) for key in itertools.product(*values)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Folding) and (self.axes, self._values) == (other.axes, other._values)

    __hash__ = None  # type: ignore[assignment]

    @property
    def counts(self) -> tuple[int, int, int]:
        """The number of channels, slices and frames."""
        channels, slices, frames = map(len, self._keys)
        return channels, slices, frames

    @property
    def has_channels(self) -> bool:
        """Whether an axis is ImageJ's channels."""
        return bool(self._of_role[0])

    def only(self, role: int) -> int | None:
        """Return the number of the axis that alone makes one of ImageJ's (0 channels, 1 slices, 2 frames); else None."""
        return self._of_role[role][0] if len(self._of_role[role]) == 1 else None

    def channels(self) -> list[Value | None]:
        """Return the channel that each of ImageJ's channels is; None where that is not known."""
        found: list[Value | None] = []
        for key in self._keys[0]:
            said = [
                value[self._components[self.axes.index(axis)].index("channel")]
                for axis, value in key
                if "channel" in self._components[self.axes.index(axis)]
            ]
            found.append(said[0] if said else None)
        return found

    def place(self, index: Sequence[int]) -> Place:
        """Return where a plane lies."""
        return Place(*(self._along(numbers, index) + 1 for numbers in self._of_role))

    def _along(self, numbers: Sequence[int], index: Sequence[int]) -> int:
        at = 0
        for number in numbers:
            at = at * self.lengths[number] + index[number]
        return at

    def places(self, index: Sequence[int | None]) -> list[Place]:
        """Return where ROIs lie; an index of None stands for all along an axis, as does 0 in a `Place`."""
        choices: list[list[int]] = []
        for numbers in self._of_role:
            if all(index[number] is None for number in numbers):
                choices.append([0])
                continue
            ranges = [range(self.lengths[n]) if index[n] is None else [index[n]] for n in numbers]
            choices.append([])
            for each in itertools.product(*ranges):
                whole: list[int] = [0] * len(index)
                for number, at in zip(numbers, each, strict=True):
                    whole[number] = int(at or 0)
                choices[-1].append(self._along(numbers, whole) + 1)
        return [Place(*each) for each in itertools.product(*choices)]

    def came_from(self, before: Folding) -> tuple[list[int], list[int], list[int]]:
        """Return for each of ImageJ's axes where its indices were before, from 0; -1 for new ones."""
        found = []
        for keys, old in zip(self._keys, before._keys, strict=True):
            known = {key: number for number, key in enumerate(old)}
            found.append([known.get(key, -1) for key in keys])
        return found[0], found[1], found[2]

    def label(self, index: Sequence[int]) -> str:
        """Return what a person reads above a plane: ``"well A01 channel 2 z 3"``."""
        words = []
        for number, at in enumerate(index):
            for name, value in zip(self._components[number], self._values[number][at], strict=True):
                if value is not None:
                    words.append(f"{name} {value}")
        return " ".join(words) or "image"

    @property
    def planes(self) -> int:
        """How many planes there are, with those that are missing."""
        return math.prod(self.counts)


def _role(axis: str, components: Sequence[str]) -> str:
    if axis in ("C", "Z"):
        return axis.lower()
    return "c" if components == ("channel",) else "z" if components == ("z",) else "t"
