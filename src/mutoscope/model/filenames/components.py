"""What a file name says about its plane, and the template that rebuilds the name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mutoscope.model.errors import ConfigError
from mutoscope.model.plate import PlateGeometry, WellName, row_letters

__all__ = ["ALIASES", "Components", "fill"]

ALIASES = {"site": "field", "z_index": "z", "timepoint": "t"}
"""Other names under which components are accepted."""

NUMBERS = ("field", "channel", "z", "t")
PLACES = ("source", "well", *NUMBERS)
_PLACE = re.compile(r"\{\{|\}\}|\{(?P<name>[a-z_]+)(?::(?P<style>[a-z0-9]+))?\}")


class Components(msgspec.Struct, frozen=True, kw_only=True):
    """Where a plane belongs, as its file name says.

    Numbers are the vendor's own; :meth:`indices` gives them from 0. What the name does not say is None (the source: empty).

    Parameters
    ----------
    source : str
        Plate or measurement.
    well : str or None
        ``"B03"``; rows beyond Z are ``"AA01"``.
    field : int or None
        Field of view in the well (``site`` of other programs).
    channel : int, str or None
        A number, or a name where the vendor writes names.
    z, t : int or None
        Plane and time point (``z_index`` and ``timepoint``).
    kind : str
        ``"image"``, ``"thumbnail"`` or ``"metadata"``.
    projection : bool
        The file is a projection along z, so it has no `z`.
    well_number : int or None
        The well as a number from 1, where the vendor counts wells and the plate is needed to name one: see :meth:`on_plate`.
    counted_from_0 : tuple of str
        The components that this vendor counts from 0; the others start at 1.
    parser : str
        The parser that read it.
    template : str
        The name with places for the components, from which :func:`mutoscope.model.filenames.format` rebuilds it.
    """

    source: str = ""
    well: str | None = None
    field: int | None = None
    channel: int | str | None = None
    z: int | None = None
    t: int | None = None
    kind: str = "image"
    projection: bool = False
    well_number: int | None = None
    counted_from_0: tuple[str, ...] = ()
    parser: str = ""
    template: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("image", "thumbnail", "metadata"):
            raise ConfigError(f"the kind of a file is image, thumbnail or metadata, not {self.kind!r}")
        for name in (*NUMBERS, "well_number"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 0:
                raise ConfigError(f"{name} of a file name is a number from 0, not {value}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Components:
        """Build from a mapping; `site`, `z_index` and `timepoint` are accepted for `field`, `z` and `t`.

        Raises
        ------
        ConfigError
            For an unknown name, for two names of one component, or a value of the wrong kind.

        Examples
        --------
        >>> Components.of({"well": "B3", "site": 2, "z_index": 4}).place()
        {'well': 'B03', 'field': 2, 'z': 4}
        """
        named: dict[str, Any] = {}
        for key, value in values.items():
            name = ALIASES.get(key, key)
            if name not in cls.__struct_fields__:
                known = ", ".join((*PLACES, *ALIASES))
                raise ConfigError(f"a plane has no component {key!r}; known: {known}")
            if name in named:
                raise ConfigError(f"component {name} is given twice, once as {key!r}")
            named[name] = value
        if named.get("well") is not None:
            named["well"] = str(WellName.parse(str(named["well"])))
        try:
            return msgspec.convert(named, cls)
        except msgspec.ValidationError as error:
            raise ConfigError(f"not the components of a plane: {error}") from error

    def place(self) -> dict[str, int | str]:
        """Return the components that the name gives, under the names `source`, `well`, `field`, `channel`, `z`, `t`."""
        return {name: value for name in PLACES if (value := getattr(self, name)) not in (None, "")}

    def indices(self) -> dict[str, int]:
        """Return the numbers among `field`, `channel`, `z`, `t`, each from 0."""
        found = {}
        for name in NUMBERS:
            value = getattr(self, name)
            if isinstance(value, int):
                found[name] = value - (name not in self.counted_from_0)
        return found

    def on_plate(self, plate: PlateGeometry) -> Components:
        """Return the same with `well` named, where the file name gave only the well's number."""
        if self.well is not None or self.well_number is None:
            return self
        return msgspec.structs.replace(self, well=str(plate.well(self.well_number)))

    def replace(self, **changes: Any) -> Components:
        """Return a copy with other components (aliases accepted); formatting it gives that plane's name."""
        named = {ALIASES.get(key, key): value for key, value in changes.items()}
        return msgspec.structs.replace(self, **named)


def escape(text: str) -> str:
    """Return literal text as a template writes it."""
    return text.replace("{", "{{").replace("}", "}}")


def fill(template: str, components: Components) -> str:
    """Put components into the places of a template.

    A place is ``{name}`` or ``{name:style}``. `name` is a component, `row`, `column` or `row_number` (of the well) or
    `well_number`; `style` is the least number of digits, or ``lower`` for a row in small letters. Braces are doubled.

    Raises
    ------
    ConfigError
        If a component is missing or does not fit, or the template has an unknown place.
    """
    parts: list[str] = []
    at = 0
    for match in _PLACE.finditer(template):
        parts += [template[at : match.start()], _place(match, components)]
        at = match.end()
    return "".join([*parts, template[at:]])


def places(template: str) -> set[str]:
    """Return the components that a template has places for."""
    found = {match["name"] for match in _PLACE.finditer(template) if match["name"]}
    return {"well" if name in _OF_WELL else name for name in found}


_OF_WELL: dict[str, Callable[[WellName], str | int]] = {
    "row": lambda well: row_letters(well.row),
    "row_number": lambda well: well.row + 1,
    "column": lambda well: well.column + 1,
}


def _place(match: re.Match[str], components: Components) -> str:
    name, style = match["name"], match["style"] or ""
    if name is None:
        return match[0][0]
    value: Any
    if name in _OF_WELL:
        if components.well is None:
            raise ConfigError("this name needs a well")
        value = _OF_WELL[name](WellName.parse(components.well))
    elif name in (*PLACES, "well_number"):
        value = getattr(components, name)
    else:
        raise ConfigError(f"a file name has no place called {name!r}")
    if value is None:
        raise ConfigError(f"this name needs the component {name}")
    if style == "lower":
        return str(value).lower()
    if style:
        if not isinstance(value, int):
            raise ConfigError(f"{name} must be a number in this name, not {value!r}")
        return f"{value:0{int(style)}}"
    return str(value)
