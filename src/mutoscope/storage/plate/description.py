"""What is known of a plate beside its pixels: size, channels, pixel size, where its fields lie."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from mutoscope.model.errors import ConfigError
from mutoscope.model.plate import PlateGeometry
from mutoscope.storage.plate._places import ImageKey

__all__ = ["PlateChannel", "PlateDescription", "Position"]

COLOURS = ("0000FF", "00FF00", "FF0000", "FF00FF", "00FFFF", "FFFF00", "FFFFFF")
"""Colours of channels that nobody gave one, in their order."""


class Position(msgspec.Struct, frozen=True):
    """Where the centre of a field lies, in µm: x to the right, y down, z as the vendor says."""

    y_um: float
    x_um: float
    z_um: float = 0.0


class PlateChannel(msgspec.Struct, frozen=True, kw_only=True):
    """One channel; what is unknown is None or empty.

    Parameters
    ----------
    name : str
        What a person calls it.
    key : str
        What file names call it, where that is text.
    excitation_nm, emission_nm, exposure_ms : float, optional
    colour : str
        Six hexadecimal digits.
    flatfield : str
        The flat-field profile as the vendor wrote it.
    """

    name: str = ""
    key: str = ""
    excitation_nm: float | None = None
    emission_nm: float | None = None
    exposure_ms: float | None = None
    colour: str = ""
    flatfield: str = ""


class PlateDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A plate.

    Parameters
    ----------
    name : str
        Of the plate.
    source : str
        What its file names call it; names of another plate are refused. Empty: not known yet.
    geometry : PlateGeometry, optional
        Its size; the smallest standard plate that has all wells, if not given.
    channels : tuple of PlateChannel
        By place, from 0.
    pixel_size_um, z_step_um : float, optional
    extent : tuple of int
        At least so many t, c and z has every image.
    positions : dict of str to Position
        By ``"B03/0"``, well and field.
    origin : str
        What positions are relative to: ``"well"`` (its centre) or ``"stage"``.
    vendor : dict
        What else the vendor's files say, in plain values.
    """

    name: str = ""
    source: str = ""
    geometry: PlateGeometry | None = None
    channels: tuple[PlateChannel, ...] = ()
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    extent: tuple[int, int, int] = (1, 1, 1)
    positions: dict[str, Position] = {}
    origin: str = "well"
    vendor: dict[str, Any] = {}

    def __post_init__(self) -> None:
        for name in ("pixel_size_um", "z_step_um"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} of a plate is a positive number or None, not {value}")
        if len(self.extent) != 3 or min(self.extent) < 1:
            raise ConfigError(f"the extent of a plate is (t, c, z), each 1 or more, not {self.extent}")

    def position(self, key: ImageKey) -> Position | None:
        """Return where a field lies, None if that is not known."""
        return self.positions.get(f"{key.well}/{key.field}")

    def channel(self, number: int) -> PlateChannel:
        """Return the channel of a place; one of which nothing is known if it is none of `channels`."""
        return self.channels[number] if number < len(self.channels) else PlateChannel()
