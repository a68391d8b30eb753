"""The tables of a scope for clients: the newest rows of each that somebody wants, and what each client has got of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.frames import TableReader
from mutoscope.model.errors import ClosedError
from mutoscope.viewers.page.messages import TABLE_ROWS, Refused, encode

__all__ = ["TableDesk", "TableView", "columns_of", "overlay_of", "plain"]

_EXACT = 2**53
_IDS = ("id", "track", "track_id", "bead", "particle", "label")


@dataclass
class TableView:
    """What one client wants of one table, and up to which row it has it."""

    rows: int
    period_s: float
    columns: tuple[str, ...]
    first: bool = True
    last_id: int = 0
    due: float = 0.0


class _Open:
    """A table that somebody looks at: its reader, and the newest rows."""

    def __init__(self, reader: TableReader) -> None:
        self.reader = reader
        self.rows = np.empty(0, reader.dtype)
        self.ids: NDArray[np.uint64] = np.empty(0, np.uint64)
        self.ended = False

    def look(self) -> None:
        try:
            new = self.reader.read(0.0)
        except ClosedError:
            self.ended = True
            return
        if len(new):
            self.rows = np.concatenate([self.rows, new])[-TABLE_ROWS:]
            self.ids = np.concatenate([self.ids, self.reader.row_ids])[-TABLE_ROWS:]

    @property
    def last_id(self) -> int:
        return int(self.ids[-1]) if len(self.ids) else 0


class TableDesk:
    """Opens tables while they are looked at. For one thread.

    Parameters
    ----------
    open_table : callable(name)
        Returns a reader that starts with the oldest row there is; raises for one that is not there.
    """

    def __init__(self, open_table: Callable[[str], TableReader]) -> None:
        self._open_table = open_table
        self._open: dict[str, _Open] = {}

    def view(self, table: str, rows: int, at_most_hz: float, columns: list[str] | None) -> TableView:
        """Begin to look at a table.

        Raises
        ------
        Refused
            If it has no such column.
        """
        if table not in self._open:
            self._open[table] = _Open(self._open_table(table))
            self._open[table].look()
        names = self._open[table].rows.dtype.names or ()
        wanted = tuple(names if columns is None else columns)
        for name in wanted:
            if name not in names:
                raise Refused("unknown", f"table {table!r} has no column {name!r}; it has {', '.join(names)}")
        return TableView(rows, 1.0 / at_most_hz, wanted)

    def close_unused(self, used: set[str]) -> None:
        """Let go of the tables that nobody looks at."""
        for table in [table for table in self._open if table not in used]:
            self._open.pop(table).reader.close()

    def look(self) -> None:
        """Take up what has come."""
        for each in self._open.values():
            if not each.ended:
                each.look()

    def is_due(self, table: str, view: TableView, now: float) -> bool:
        """Whether a client may be sent rows that it has not got."""
        return now >= view.due and (view.first or self._open[table].last_id > view.last_id)

    def message(self, table: str, view: TableView) -> str | None:
        """Return the rows that a client has not got, as the protocol's ``table``; None if there are none."""
        known = self._open.get(table)
        if known is None or not (view.first or known.last_id > view.last_id):
            return None
        start = 0 if view.first else int(np.searchsorted(known.ids, view.last_id, side="right"))
        start = max(start, len(known.ids) - view.rows)
        rows, ids = known.rows[start:], known.ids[start:]
        lost = 0 if view.first else known.last_id - view.last_id - len(rows)
        message = {
            "type": "table",
            "table": table,
            "first": view.first,
            "last_row_id": known.last_id,
            "lost": lost,
            "columns": {name: plain(rows[name]) for name in view.columns},
        }
        view.first, view.last_id, view.due = False, int(ids[-1]) if len(ids) else 0, time.monotonic() + view.period_s
        return encode(message)

    def close(self) -> None:
        """Let go of all tables."""
        self.close_unused(set())


def plain(column: NDArray[Any]) -> list[Any]:
    """Return the values of a column as the protocol has them."""
    kind = column.dtype.kind
    if kind == "S":
        return [value.decode("utf-8", "replace") for value in column.ravel().tolist()]
    if kind in "iu" and column.dtype.itemsize == 8 and column.size:
        exact = _EXACT if kind == "u" else _EXACT - 1
        if int(column.max()) > exact or int(column.min()) < -exact:
            flat = [value if -exact <= value <= exact else str(value) for value in column.ravel().tolist()]
            return list(np.array(flat, dtype=object).reshape(column.shape).tolist())
    if kind == "c":
        return [str(value) for value in column.ravel().tolist()]
    return list(column.tolist())


def columns_of(description: list[Any]) -> list[dict[str, Any]]:
    """Return a table's columns as the protocol has them."""
    return [
        {"name": name, "dtype": kind if isinstance(kind, str) else "struct", "shape": list(shape)}
        for name, kind, shape in description
    ]


def overlay_of(columns: list[dict[str, Any]], streams: list[str]) -> dict[str, Any] | None:
    """Guess from its columns how a table is drawn over an image; None if it cannot be.

    Examples
    --------
    >>> overlay_of([{"name": name, "shape": []} for name in ("frame_id", "bead", "y_px", "x_px")], ["camera"])
    {'y': 'y_px', 'x': 'x_px', 'frame_id': 'frame_id', 'id': 'bead', 'stream': 'camera'}
    """
    names = [each["name"] for each in columns if not each["shape"]]
    for y, x in (("y_px", "x_px"), ("y", "x")):
        if y in names and x in names:
            return {
                "y": y,
                "x": x,
                "frame_id": "frame_id" if "frame_id" in names else None,
                "id": next((name for name in _IDS if name in names), None),
                "stream": streams[0] if len(streams) == 1 else None,
            }
    return None
