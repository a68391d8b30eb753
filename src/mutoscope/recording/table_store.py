"""The part of a recorder that stores the rows of the scope's tables, each in a file beside the data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mutoscope.frames import TableReader
from mutoscope.frames._columns import Columns
from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError, DiskFullError, RingClosedError
from mutoscope.runtime import control
from mutoscope.storage import _rows

__all__ = ["TableStore"]

BATCH_BYTES = 1 << 20


class _Stored:
    """A table that is stored: its reader, and its file."""

    def __init__(self, reader: TableReader, writer: _rows.RowsWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.batch = max(1, BATCH_BYTES // reader.dtype.itemsize)

    def take_up(self, rows_before: int) -> None:
        """Leave out the rows that a predecessor stored and was killed before it could say so.

        Rows since what it had said last follow one another, as losses are said first (see `look`), so their number tells which.

        Raises
        ------
        DatasetError
            If the file holds less than was stored.
        """
        said = self.reader.row_id - self.reader.lost
        more = self.writer.count - rows_before - said
        if more < 0:
            raise DatasetError(f"{self.writer.path} holds {-more:,} rows less than were stored")
        if more:
            self.reader.commit(self.reader.row_id + more)

    def look(self) -> None:
        """Store the rows that have come."""
        left = self.reader.lag
        while left > 0:
            rows = self.reader.read(max_rows=self.batch, commit=False)
            ids = self.reader.row_ids
            if not len(rows):
                return
            breaks = np.flatnonzero(np.diff(ids) != 1) + 1
            for first, last in zip((0, *breaks), (*breaks, len(rows)), strict=True):
                if int(ids[first]) > self.reader.committed + 1:
                    self.reader.commit(int(ids[first]) - 1)
                self.writer.append(rows[first:last])
                kill_point("recorder.rows_stored")
                self.reader.commit(int(ids[last - 1]))
            left -= len(rows)

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


class TableStore:
    """Stores every row of the tables that it is told of; a table whose rows cannot be stored is given up, and said.

    Parameters
    ----------
    attach : callable(table, file, rows)
        Asks the supervisor for the table's reader, saying the file and how many rows it holds; returns the reader and how many
        rows the file held before this run.
    say : callable(table, reason, message)
        Tells the supervisor that a table is not stored any more.
    """

    def __init__(
        self, attach: Callable[[str, str, int], tuple[TableReader, int]], say: Callable[[str, str, str], None]
    ) -> None:
        self._attach = attach
        self._say = say
        self._wanted: dict[str, tuple[control.OfferedTable, Path]] = {}
        self._stored: dict[str, _Stored] = {}
        self._failed: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._stored or self._wanted)

    def want(self, folder: Path, tables: Sequence[control.OfferedTable]) -> None:
        """Store these tables as well, from the next look on."""
        known = self._stored.keys() | self._failed
        self._wanted |= {table.name: (table, folder) for table in tables if table.name not in known}

    def look(self) -> None:
        """Store what has come. It waits for nobody but the disk."""
        wanted, self._wanted = self._wanted, {}  # opening asks the supervisor, which may tell of more meanwhile
        for name, (table, folder) in wanted.items():
            self._try(name, functools.partial(self._open, table, folder))
        for name, stored in list(self._stored.items()):
            self._try(name, stored.look)

    def _open(self, table: control.OfferedTable, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        writer = _rows.open_writer(folder, table.name, Columns.from_description(table.name, table.columns).dtype)
        try:
            reader, before = self._attach(table.name, str(writer.path), writer.count)
            self._stored[table.name] = stored = _Stored(reader, writer)
        except BaseException:
            writer.close()
            raise
        stored.take_up(before)

    def _try(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except RingClosedError:
            return  # the supervisor has closed it: there is nobody to store for
        except DiskFullError as error:
            self._give_up(name, "disk_full", error)
        except FileNotFoundError as error:
            self._give_up(name, "deleted", error)
        except (ConfigError, DatasetError, OSError) as error:
            self._give_up(name, "unstorable", error)

    def _give_up(self, name: str, reason: str, error: Exception) -> None:
        self._failed.add(name)
        stored = self._stored.pop(name, None)
        self._say(name, reason, f"the rows of the table {name!r} are not stored any more: {error}")
        if stored is not None:
            stored.close()

    def close(self) -> None:
        """Store what has come since, and close the files; twice is fine."""
        self.look()
        for name, stored in self._stored.items():
            self._try(name, stored.close)
        self._stored.clear()
