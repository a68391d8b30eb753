"""Where a plane belongs in a plate: from what its file name says to an image of the plate and a place in that image."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta

from mutoscope.model.errors import ConfigError
from mutoscope.model.filenames import Components
from mutoscope.model.plate import PlateGeometry, WellName

__all__ = ["MAX_INDEX", "ImageKey", "Place", "place_of"]

MAX_INDEX = {"t": 1 << 20, "channel": 1 << 10, "z": 1 << 16, "field": 1 << 16}
"""Largest places, so that a misread name cannot declare an array that nobody can list."""

_IMAGE = re.compile(r"(0|[1-9][0-9]{0,4})(p?)")
_WELL = re.compile(r"([A-Z]{1,2})/([0-9]{2,3})")


class ImageKey(msgspec.Struct, frozen=True, order=True):
    """One image of a plate: a field of a well, or the projections of that field along z.

    Examples
    --------
    >>> key = ImageKey(WellName.parse("B03"), 0)
    >>> key.path, ImageKey(key.well, 0, projection=True).path
    ('B/03/0', 'B/03/0p')
    """

    well: WellName
    field: Annotated[int, Meta(ge=0)]
    projection: bool = False

    @property
    def name(self) -> str:
        """The image's name in its well."""
        return f"{self.field}p" if self.projection else str(self.field)

    @property
    def path(self) -> str:
        """The image's group, from the plate's root."""
        return f"{well_path(self.well)}/{self.name}"

    @classmethod
    def read(cls, well: WellName, name: object) -> ImageKey | None:
        """Return the image that a name in a well means, None if it is not one of this layout."""
        match = _IMAGE.fullmatch(name) if isinstance(name, str) else None
        return None if match is None else cls(well, int(match[1]), bool(match[2]))


class Place(msgspec.Struct, frozen=True, order=True):
    """Where a plane is: its image, and t, c, z there, all from 0."""

    image: ImageKey
    t: int
    c: int
    z: int

    @property
    def tcz(self) -> tuple[int, int, int]:
        """The place in the image."""
        return (self.t, self.c, self.z)

    def __str__(self) -> str:
        kind = ", projection" if self.image.projection else ""
        return f"{self.image.well}, field {self.image.field}{kind}, t {self.t}, c {self.c}, z {self.z}"


def well_path(well: WellName) -> str:
    """Return the group of a well: ``"B/03"``."""
    return f"{well.row_name}/{well.column_name}"


def read_well_path(path: object) -> WellName | None:
    """Return the well of a group's path, None if it is not one of this layout."""
    match = _WELL.fullmatch(path) if isinstance(path, str) else None
    if match is None or int(match[2]) == 0:
        return None
    well = WellName.parse(f"{match[1]}{match[2]}")
    return well if well_path(well) == path else None


@lru_cache(maxsize=4096)
def _well(text: str) -> WellName:
    return WellName.parse(text)


def place_of(said: Components, channel: int, geometry: PlateGeometry | None) -> Place:
    """Return the place of a plane.

    Parameters
    ----------
    said : Components
        What its name says. A field, time point or plane that the name does not say is the first.
    channel : int
        The channel's place, from 0.
    geometry : PlateGeometry, optional
        Needed where the name has only the number of the well.

    Raises
    ------
    ConfigError
        If it is no plane, has no well, or is impossibly far out.
    """
    if said.kind != "image":
        raise ConfigError(f"a {said.kind} file is no plane of a plate")
    if said.well is None and geometry is not None:
        said = said.on_plate(geometry)
    if said.well is None:
        how = "only its number: say the plate's size (wells=96)" if said.well_number is not None else "none"
        raise ConfigError(f"a plane of a plate needs a well, and this name says {how}")
    well = _well(said.well)
    if geometry is not None and well not in geometry:
        raise ConfigError(f"well {well} is outside of a plate of {geometry.rows} rows and {geometry.columns} columns")
    index = said.indices()
    index["channel"] = channel
    for name, most in MAX_INDEX.items():
        value = index.get(name, 0)
        if not 0 <= value < most:
            raise ConfigError(f"{name} {value} (from 0) of this name lies outside of 0 to {most - 1}")
    z = 0 if said.projection else index.get("z", 0)
    return Place(ImageKey(well, index.get("field", 0), said.projection), index.get("t", 0), channel, z)
