"""How what comes to a viewer is arranged and drawn, until a person there changes it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from mutoscope.model import arguments
from mutoscope.model.errors import ConfigError

__all__ = ["COMPONENTS", "Arrangement", "Contrast", "Display", "Percentiles", "Sizes"]

Arrangement = Literal["layer", "stack", "window", "channel", "slice", "frame"]
"""A component makes layers over each other, an axis to scroll through, or windows beside each other. ``"channel"``,
``"slice"`` and ``"frame"`` are the three axes of ImageJ: those of one kind share an axis, the first of them outermost."""

Sizes = Literal["pad", "rescale", "separate"]
"""Images of differing sizes at the places of one layer: smaller ones are padded, or brought to the size of the largest, or each
size has a layer of its own."""

COMPONENTS = ("source", "well", "field", "t", "channel", "z")
"""What every viewer places by, outermost first."""

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Percentiles:
    """Limits of the contrast as percentiles of the pixels, 0 to 100.

    Parameters
    ----------
    low, high : float
        `low` below `high`.
    """

    low: float = 1.0
    high: float = 99.8

    def __post_init__(self) -> None:
        for value in (self.low, self.high):
            arguments.number("a percentile", value)
        if not 0 <= self.low < self.high <= 100:
            raise ConfigError(f"percentiles are two numbers from 0 to 100, low below high, not {self.low} and {self.high}")


Contrast: TypeAlias = Literal["auto"] | tuple[float, float] | Percentiles
"""``"auto"``: the smallest and the largest value; two limits in counts; or percentiles of what is there."""

Channel: TypeAlias = int | str


@dataclass(frozen=True, kw_only=True)
class Display:
    """How frames and planes are shown. What is None is as the viewer has it by default.

    Parameters
    ----------
    source, well, field, channel, z, t : {"layer", "stack", "window", "channel", "slice", "frame"}, optional
        What each component makes (:data:`Arrangement`). On the page, ``source="layer"`` lays cameras over each other as
        channels, ``"window"`` (the default) has them side by side; it looks at no other component.
    others : mapping of str to such a value, optional
        The same for components that a parser of file names adds.
    order : sequence of str, optional
        Components, outermost first: the order of axes, and of the parts of names of layers and windows. What is not named
        comes before these, in the order source, well, field, t, channel, z.
    lut : str or mapping of channel to str, optional
        The name of a look-up table that the viewer knows, such as ``"grays"`` or ``"viridis"``. With one for each channel,
        channels are layers where nothing else is said.
    contrast : "auto", (low, high), Percentiles, or mapping of channel to one of these, optional
        Limits in counts; ``"auto"`` follows the pixels.
    gamma : float, optional
        Above 0.
    sizes : {"pad", "rescale", "separate"}, optional
        What becomes of images of differing sizes (:data:`Sizes`); ``"pad"`` by default.
    axis_names : mapping of str to str, optional
        What a viewer calls the axis of a component, such as ``{"t": "time"}``; also ``"y"`` and ``"x"``.
    pixel_size_um, z_um, t_s : float, optional
        What a step along y and x, along z, and along t is, in µm and seconds; 1, without a unit, where it is not known.
    overlays : sequence of str, optional
        On the page: the names of tables that are drawn over the images from the beginning.

    Raises
    ------
    ConfigError
        If one of them cannot be.

    Examples
    --------
    >>> Display(source="layer", contrast=(100, 4000)).to_dict()
    {'source': 'layer', 'contrast': (100.0, 4000.0)}
    """

    source: Arrangement | None = None
    well: Arrangement | None = None
    field: Arrangement | None = None
    channel: Arrangement | None = None
    z: Arrangement | None = None
    t: Arrangement | None = None
    others: Mapping[str, Arrangement] = dataclasses.field(default_factory=dict)
    order: tuple[str, ...] | None = None
    lut: str | Mapping[Channel, str] | None = None
    contrast: Contrast | Mapping[Channel, Contrast] | None = None
    gamma: float | None = None
    sizes: Sizes | None = None
    axis_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pixel_size_um: float | None = None
    z_um: float | None = None
    t_s: float | None = None
    overlays: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in COMPONENTS:
            _check_choice(name, getattr(self, name), Arrangement)
        others = arguments.mapping("others of a Display", self.others, '{"plate": "layer"}')
        for name, value in others.items():
            if arguments.text("a component of a Display", name) in COMPONENTS:
                raise ConfigError(f"{name} of a Display is said by {name}=, not among others")
            if value is None:
                raise ConfigError(f"{name} of a Display is an arrangement, not None")
            _check_choice(name, value, Arrangement)
        self._set("others", others)
        names = arguments.mapping("axis_names of a Display", self.axis_names, '{"t": "time"}')
        self._set("axis_names", {arguments.text("an axis", axis): arguments.text("its name", names[axis]) for axis in names})
        if self.order is not None:
            self._set("order", arguments.texts("order of a Display", self.order))
        if self.lut is not None:
            self._set("lut", _each("lut of a Display", self.lut, arguments.text))
        _check_choice("sizes", self.sizes, Sizes)
        for name in ("gamma", "pixel_size_um", "z_um", "t_s"):
            if getattr(self, name) is not None:
                arguments.more_than_zero(f"{name} of a Display", getattr(self, name))
        if self.contrast is not None:
            self._set("contrast", _each("contrast of a Display", self.contrast, _checked_contrast))
        if self.overlays is not None:
            self._set("overlays", arguments.texts("overlays of a Display", self.overlays))
        if self.channel in ("stack", "slice", "frame") and self.per_channel:
            raise ConfigError(
                f"a lut or contrast for each channel needs channels that are layers, not channel={self.channel!r}"
            )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def per_channel(self) -> bool:
        """Whether channels differ in look-up table or contrast."""
        return isinstance(self.lut, Mapping) or isinstance(self.contrast, Mapping)

    def arrangement(self, component: str, defaults: Mapping[str, Arrangement]) -> Arrangement:
        """Return what a component makes, with the viewer's defaults for what is not said; ``"stack"`` beyond those."""
        stated: Arrangement | None = getattr(self, component) if component in COMPONENTS else self.others.get(component)
        if stated is not None:
            return stated
        default = defaults.get(component, "stack")
        return "layer" if component == "channel" and default == "stack" and self.per_channel else default

    def contrast_of(self, channel: Channel | None) -> Contrast:
        """Return the contrast of a channel."""
        if isinstance(self.contrast, Mapping):
            return "auto" if channel is None else self.contrast.get(channel, "auto")
        return self.contrast or "auto"

    def lut_of(self, channel: Channel | None) -> str | None:
        """Return the look-up table of a channel; None for the viewer's own."""
        if isinstance(self.lut, Mapping):
            return None if channel is None else self.lut.get(channel)
        return self.lut

    def rank(self, component: str) -> tuple[int, int, str]:
        """Return what sorts components, outermost first."""
        if self.order and component in self.order:
            return (1, self.order.index(component), component)
        return (0, COMPONENTS.index(component) if component in COMPONENTS else -1, component)

    def to_dict(self) -> dict[str, Any]:
        """Return what is stated, in plain values."""
        stated = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {name: _plain(value) for name, value in stated.items() if value is not None and value != {}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Display:
        """Build one from what :meth:`to_dict` returned.

        Raises
        ------
        ConfigError
            If it is not of that form.
        """
        known = {each.name for each in dataclasses.fields(cls)}
        unknown = sorted(map(str, set(values) - known))
        if unknown:
            raise ConfigError(f"a Display has no {', '.join(unknown)}")
        stated = dict(values)
        for name in ("lut", "contrast"):
            if isinstance(stated.get(name), Mapping) or _is_pairs(stated.get(name)):
                stated[name] = _from_plain(stated[name])
        return cls(**stated)


def _check_choice(name: str, value: object, kinds: Any) -> None:
    if value is not None and value not in get_args(kinds):
        raise ConfigError(
            f"{name} of a Display is {', '.join(map(repr, get_args(kinds)))} or None, not {arguments.shown(value)}"
        )


def _each(what: str, value: Any, check: Callable[[str, Any], _Value]) -> _Value | dict[Channel, _Value]:
    """Check one value, or one for each channel."""
    if not isinstance(value, Mapping):
        return check(what, value)
    if not all(isinstance(channel, int | str) and not isinstance(channel, bool) for channel in value):
        raise ConfigError(f"{what} for each channel names channels by number or text, not {arguments.shown(list(value))}")
    return {channel: check(f"{what} for channel {channel}", value[channel]) for channel in value}


def _checked_contrast(what: str, value: Any) -> Contrast:
    if value == "auto" or isinstance(value, Percentiles):
        return value  # type: ignore[no-any-return]
    words = f"{what} is 'auto' or two numbers (low, high), low below high, or Percentiles"
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ConfigError(f"{words}, not {arguments.shown(value)}")
    low, high = (arguments.number(what, each) for each in value)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{words}, not {arguments.shown(value)}")
    return low, high


def _plain(value: Any) -> Any:
    if isinstance(value, Percentiles):
        return {"percentiles": [value.low, value.high]}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _plain(each) for key, each in value.items()}
        return [[key, _plain(each)] for key, each in value.items()]
    return value


def _is_pairs(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, list) for each in value)


def _from_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"percentiles"} and isinstance(value["percentiles"], list | tuple) and len(value["percentiles"]) == 2:
            return Percentiles(*value["percentiles"])
        return {key: _from_plain(each) for key, each in value.items()}
    if _is_pairs(value):
        if not all(len(pair) == 2 and isinstance(pair[0], int | str) for pair in value):
            raise ConfigError("a Display has a value for each channel: [[channel, value], …]")
        return {channel: _from_plain(each) for channel, each in value}
    return value
