"""How what comes to a viewer is arranged and drawn, until a person there changes it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from mutoscope.model import arguments
from mutoscope.model.errors import ConfigError

__all__ = ["Arrangement", "Display"]

Arrangement = Literal["layer", "stack", "window"]
"""A component makes layers over each other, an axis to scroll through, or windows beside each other."""

_COMPONENTS = ("source", "well", "field", "channel", "z", "t")


@dataclass(frozen=True, kw_only=True)
class Display:
    """How frames and planes are shown. What is None is as the viewer has it by default.

    Parameters
    ----------
    source, well, field, channel, z, t : {"layer", "stack", "window"}, optional
        What each component makes. On the page, ``source="layer"`` lays cameras over each other as channels, ``"window"`` (the
        default) has them side by side; it looks at no other component.
    lut : str, optional
        The name of a look-up table that the viewer knows, such as ``"grays"`` or ``"viridis"``.
    contrast : "auto" or (low, high), optional
        Limits in counts; ``"auto"`` follows the frames.
    gamma : float, optional
        Above 0.

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
    lut: str | None = None
    contrast: Literal["auto"] | tuple[float, float] | None = None
    gamma: float | None = None

    def __post_init__(self) -> None:
        kinds = get_args(Arrangement)
        for name in _COMPONENTS:
            value = getattr(self, name)
            if value is not None and value not in kinds:
                raise ConfigError(f"{name} of a Display is {', '.join(map(repr, kinds))} or None, not {arguments.shown(value)}")
        if self.lut is not None:
            arguments.text("lut of a Display", self.lut)
        if self.gamma is not None:
            arguments.more_than_zero("gamma of a Display", self.gamma)
        if self.contrast is not None and self.contrast != "auto":
            object.__setattr__(self, "contrast", _limits(self.contrast))

    def to_dict(self) -> dict[str, Any]:
        """Return what is stated, in plain values."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _limits(contrast: object) -> tuple[float, float]:
    what = "contrast of a Display is 'auto' or two numbers (low, high), low below high"
    if not isinstance(contrast, tuple | list) or len(contrast) != 2:
        raise ConfigError(f"{what}, not {arguments.shown(contrast)}")
    low, high = (arguments.number("contrast of a Display", value) for value in contrast)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{what}, not {arguments.shown(contrast)}")
    return low, high
