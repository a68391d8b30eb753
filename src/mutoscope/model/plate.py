"""Wells and plates: names, order, and the standard geometries.

A well is a row and a column, both from 0 here, and ``"B03"`` to a person. Rows go on after ``Z`` with ``AA`` (a plate of 1536
wells ends with row ``AF``), as spreadsheets count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from mutoscope.model.errors import ConfigError

__all__ = ["STANDARD_PLATES", "PlateGeometry", "WellName", "row_letters", "row_number"]

MAX_ROWS = 26 + 26 * 26
"""Rows that one or two letters can name: ``A`` to ``ZZ``."""

STANDARD_PLATES: dict[int, tuple[int, int]] = {
    1: (1, 1),
    2: (1, 2),
    4: (2, 2),
    6: (2, 3),
    8: (2, 4),
    12: (3, 4),
    24: (4, 6),
    48: (6, 8),
    96: (8, 12),
    384: (16, 24),
    1536: (32, 48),
    3456: (48, 72),
}
"""Wells of a plate → its rows and columns (ANSI/SLAS 4-2004 for 96, 384 and 1536)."""

_WELL = re.compile(r"([A-Za-z]{1,2})[ _-]*([0-9]{1,3})")


def row_letters(row: int) -> str:
    """Return the letters of a row counted from 0.

    Examples
    --------
    >>> row_letters(1), row_letters(25), row_letters(26), row_letters(31)
    ('B', 'Z', 'AA', 'AF')
    """
    if not 0 <= row < MAX_ROWS:
        raise ConfigError(f"a row of a plate is a number from 0 to {MAX_ROWS - 1}, not {row}")
    return chr(65 + row) if row < 26 else chr(64 + row // 26) + chr(65 + row % 26)


def row_number(letters: str) -> int:
    """Return the row, counted from 0, that one or two letters name (in either case).

    Examples
    --------
    >>> row_number("b"), row_number("AA")
    (1, 26)
    """
    if not (1 <= len(letters) <= 2 and letters.isascii() and letters.isalpha()):
        raise ConfigError(f"a row of a plate is one or two letters, not {letters!r}")
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - 64
    return number - 1


class WellName(msgspec.Struct, frozen=True, order=True):
    """A well by its row and column, both counted from 0. Sorts by row, then column.

    Examples
    --------
    >>> well = WellName.parse("b3")
    >>> str(well), well.row, well.column, well.name(padding=1)
    ('B03', 1, 2, 'B3')
    >>> str(WellName.parse("AA01"))
    'AA01'
    """

    row: Annotated[int, Meta(ge=0, lt=MAX_ROWS)]
    column: Annotated[int, Meta(ge=0, lt=999)]

    def __post_init__(self) -> None:
        if not (0 <= self.row < MAX_ROWS and 0 <= self.column < 999):
            raise ConfigError(
                f"a well has a row from 0 to {MAX_ROWS - 1} and a column from 0 to 998, not {self.row}, {self.column}"
            )

    @classmethod
    def parse(cls, text: str) -> WellName:
        """Read ``"B03"``, ``"b3"``, ``"B-03"``, ``"B - 3"`` or ``"AA01"``.

        Raises
        ------
        ConfigError
            If it is no letters-and-number of this kind; column 0 is none.
        """
        match = _WELL.fullmatch(text.strip()) if text.isascii() else None
        if match is None or int(match[2]) == 0:
            raise ConfigError(f"not a well name such as B03 or AA01: {text!r}")
        return cls(row_number(match[1]), int(match[2]) - 1)

    @property
    def row_name(self) -> str:
        """The row's letters."""
        return row_letters(self.row)

    @property
    def column_name(self) -> str:
        """The column's number, at least two digits."""
        return f"{self.column + 1:02}"

    def name(self, padding: int = 2) -> str:
        """Return letters and column number of at least `padding` digits."""
        return f"{self.row_name}{self.column + 1:0{padding}}"

    def __str__(self) -> str:
        return self.name()


class PlateGeometry(msgspec.Struct, frozen=True):
    """How many rows and columns a plate has.

    Examples
    --------
    >>> plate = PlateGeometry.standard(96)
    >>> plate.rows, plate.columns, str(plate.well(14)), plate.number(WellName.parse("B02"))
    (8, 12, 'B02', 14)
    >>> PlateGeometry.holding([WellName.parse("AA01")])
    PlateGeometry(rows=32, columns=48)
    """

    rows: Annotated[int, Meta(ge=1, le=MAX_ROWS)]
    columns: Annotated[int, Meta(ge=1, le=999)]

    def __post_init__(self) -> None:
        if not (1 <= self.rows <= MAX_ROWS and 1 <= self.columns <= 999):
            raise ConfigError(f"a plate has 1 to {MAX_ROWS} rows and 1 to 999 columns, not {self.rows} and {self.columns}")

    @classmethod
    def standard(cls, wells: int) -> PlateGeometry:
        """Return the standard plate of so many wells (6, 12, 24, 48, 96, 384, 1536, …)."""
        if wells not in STANDARD_PLATES:
            raise ConfigError(f"no standard plate has {wells} wells; known: {', '.join(map(str, STANDARD_PLATES))}")
        return cls(*STANDARD_PLATES[wells])

    @classmethod
    def holding(cls, wells: Iterable[WellName]) -> PlateGeometry:
        """Return the smallest standard plate of 6 or more wells that has all of `wells`, else just their rows and columns."""
        seen = list(wells)
        rows = max((well.row for well in seen), default=0) + 1
        columns = max((well.column for well in seen), default=0) + 1
        for count, (height, width) in STANDARD_PLATES.items():
            if count >= 6 and height >= rows and width >= columns:
                return cls(height, width)
        return cls(rows, columns)

    def __contains__(self, well: object) -> bool:
        return isinstance(well, WellName) and well.row < self.rows and well.column < self.columns

    def wells(self) -> Iterator[WellName]:
        """Iterate over all wells, row by row."""
        return (WellName(row, column) for row in range(self.rows) for column in range(self.columns))

    def number(self, well: WellName) -> int:
        """Return a well's number: from 1, row by row, as Yokogawa and Olympus count."""
        if well not in self:
            raise ConfigError(f"well {well} is outside of a plate of {self.rows} rows and {self.columns} columns")
        return well.row * self.columns + well.column + 1

    def well(self, number: int) -> WellName:
        """Return the well of this number; the inverse of :meth:`number`."""
        if not 1 <= number <= self.rows * self.columns:
            raise ConfigError(
                f"a plate of {self.rows} x {self.columns} wells has numbers 1 to {self.rows * self.columns}, not {number}"
            )
        return WellName(*divmod(number - 1, self.columns))

    def row_names(self) -> list[str]:
        """Return the rows' letters in order."""
        return [row_letters(row) for row in range(self.rows)]

    def column_names(self) -> list[str]:
        """Return the columns' numbers in order, at least two digits each."""
        return [f"{column + 1:02}" for column in range(self.columns)]
