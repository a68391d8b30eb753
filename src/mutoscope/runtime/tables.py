"""The supervisor's side of the tables: who writes which, who reads them, and who waits for one that is not there yet."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from mutoscope.bus import Deferred, Reply
from mutoscope.frames import Table
from mutoscope.frames._columns import described
from mutoscope.model.errors import CommandTimeoutError, ConfigError, DatasetError
from mutoscope.runtime import control
from mutoscope.runtime.desk import Desk
from mutoscope.storage._rows import open_rows

__all__ = ["Tables"]

HINT_S = 1.0
"""Who has waited so long for a table hears what there is."""


STORE = "store"
"""The key of a recorder's reader."""


@dataclass
class _Stored:
    """How a table is stored: the file, how many rows it held before this run, and why it is not stored any more."""

    file: Path
    before: int
    row: int
    reason: str = ""
    ended: tuple[int, int] | None = None
    """Cursor and lost rows of the recorder, once its row is given back."""


@dataclass
class _Entry:
    """A table: its owner's name, (row, pid) of each reader by (worker, key), and how it is stored."""

    owner: str
    table: Table
    rows: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    stored: _Stored | None = None
    unstorable: str = ""
    """Why it could not be stored at all."""

    def end_storing(self) -> None:
        """Keep the recorder's account: its row is given back."""
        if self.stored is not None and self.stored.ended is None:
            self.stored.ended = self.table.account_of(self.stored.row)[1:]

    def storing(self) -> dict[str, Any]:
        """How many rows are stored, lost by reason, and yet to be stored."""
        appended = self.table.statistics().appended
        cursor, lost, reason = 0, 0, self.unstorable
        if self.stored is not None:
            cursor, lost = self.stored.ended or self.table.account_of(self.stored.row)[1:]
            reason = self.stored.reason
        return accounted(appended, cursor - lost, lost, reason)

    def forget_closed(self) -> None:
        """Drop the places whose reader gave its row back; the row may be another's by now."""
        holders = {reader.row: reader.pid for reader in self.table.statistics().readers}
        self.rows = {place: (row, pid) for place, (row, pid) in self.rows.items() if holders.get(row) == pid}


@dataclass
class _Waiting:
    sender: str
    pid: int
    command: control.AttachTable
    deferred: Deferred
    until: float
    hint_at: float


class Tables:
    """All tables of a scope. The supervisor owns them and closes them.

    Parameters
    ----------
    desk : Desk
        Where it says what happens.
    on_created : callable()
        Called when there is a further table.
    """

    def __init__(self, desk: Desk, on_created: Callable[[], None] = lambda: None) -> None:
        self._desk = desk
        self._on_created = on_created
        self._entries: dict[str, _Entry] = {}
        self._waiting: list[_Waiting] = []

    @property
    def names(self) -> tuple[str, ...]:
        """The tables that there are."""
        return tuple(self._entries)

    def offered(self) -> tuple[control.OfferedTable, ...]:
        """The tables with their columns, for a page."""
        return tuple(
            control.OfferedTable(name, entry.owner, entry.table.capacity, described(entry.table.dtype))
            for name, entry in self._entries.items()
        )

    def create(self, sender: str, pid: int, command: control.CreateTable) -> Reply:
        """Make `sender` the writer of a table, which is created unless a predecessor left it."""
        dtype = np.dtype([tuple(column) for column in command.dtype])
        entry = self._entries.get(command.table)
        if entry is not None and entry.owner != sender:
            raise ConfigError(f"the table {command.table!r} belongs to {entry.owner}: give this one another name")
        if entry is not None and entry.table.dtype != dtype:
            raise ConfigError(f"the table {command.table!r} has columns {entry.table.dtype.descr}, not {dtype.descr}")
        if entry is None:
            entry = _Entry(sender, Table.create(command.table, dtype, command.capacity))
            self._entries[command.table] = entry
            self._desk.hub.publish(control.TablesChanged(tables=self.names))
            self._on_created()
        meta, fds = entry.table.assign_writer(pid=pid)
        served = [waiting for waiting in self._waiting if waiting.command.table == command.table]
        self._waiting = [waiting for waiting in self._waiting if waiting.command.table != command.table]
        for waiting in served:
            try:
                reply = self._reader(waiting.sender, waiting.pid, waiting.command)
            except ConfigError as error:
                waiting.deferred.reject(error)
            else:
                waiting.deferred.resolve(reply.value, reply.fds)
        return Reply(meta, fds)

    def attach(self, sender: str, pid: int, command: control.AttachTable) -> Reply | Deferred:
        """Give `sender` a reader, now or as soon as the table is created."""
        if command.table in self._entries:
            return self._reader(sender, pid, command)
        deferred = Deferred()
        now = time.monotonic()
        self._waiting.append(_Waiting(sender, pid, command, deferred, now + command.timeout_s, now + HINT_S))
        return deferred

    def store(self, sender: str, pid: int, command: control.StoreTable) -> Reply:
        """Give a recorder its reader, which begins with the first row, or where a predecessor ended."""
        entry = self._entries[command.table]
        attach = control.AttachTable(table=command.table, key=STORE, start="first")
        reply = self._reader(sender, pid, attach)
        if entry.stored is None:
            entry.stored = _Stored(Path(command.file), command.rows, reply.value["row"])
        entry.stored.row = reply.value["row"]
        return Reply({**reply.value, "rows_before": entry.stored.before}, reply.fds)

    def not_stored(self, command: control.TableNotStored) -> None:
        """Say, and keep for the ledger, that a table is not stored any more."""
        entry = self._entries[command.table]
        if entry.stored is None:
            entry.unstorable = command.reason
        else:
            entry.stored.reason = command.reason
            entry.end_storing()
        self._desk.report(command.message)

    def _reader(self, sender: str, pid: int, command: control.AttachTable) -> Reply:
        entry = self._entries[command.table]
        entry.forget_closed()
        kept = entry.rows.get((sender, command.key))
        row = kept[0] if kept is not None and kept[1] != pid else None
        meta, fds = entry.table.assign_reader(pid=pid, name=sender, start=command.start, row=row)
        entry.rows[sender, command.key] = (meta["row"], pid)
        return Reply(meta, fds)

    def _unknown(self, table: str) -> str:
        near = get_close_matches(table, self._entries, n=1)
        return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(self._entries) or 'none'}"

    def advance(self, now: float) -> None:
        """Answer those who have waited long enough, and tell those who may wait in vain."""
        for waiting in self._waiting:
            if waiting.hint_at <= now < waiting.until:
                waiting.hint_at = math.inf
                table = waiting.command.table
                text = f"{waiting.sender} waits for the table {table!r}, which nobody has created; {self._unknown(table)}"
                self._desk.note(logging.WARNING, text)
        overdue = [waiting for waiting in self._waiting if waiting.until <= now]
        self._waiting = [waiting for waiting in self._waiting if waiting.until > now]
        for waiting in overdue:
            table = waiting.command.table
            waiting.deferred.reject(
                CommandTimeoutError(
                    f"nobody has created the table {table!r} within {waiting.command.timeout_s:g} s; {self._unknown(table)}"
                )
            )

    def next_deadline(self) -> float | None:
        """When :meth:`advance` has something to do."""
        return min((min(waiting.until, waiting.hint_at) for waiting in self._waiting), default=None)

    def worker_died(self, worker: str, *, restarts: bool) -> None:
        """Give back what an ended process held; with `restarts` its successor goes on at the same rows."""
        self._waiting = [waiting for waiting in self._waiting if waiting.sender != worker]
        for entry in self._entries.values():
            if entry.owner == worker:
                entry.table.writer_died()
            if entry.stored is not None and (worker, STORE) in entry.rows and not restarts:
                entry.end_storing()
            entry.forget_closed()
            for place in [place for place in entry.rows if place[0] == worker]:
                entry.table.reader_died(entry.rows[place][0], keep=restarts)
                if not restarts:
                    del entry.rows[place]

    def account(self, *, recorded: bool) -> dict[str, Any]:
        """Rows appended by table, what each reader lost, and, of a scope that records, what is stored."""
        account = {}
        for name, entry in self._entries.items():
            statistics = entry.table.statistics()
            readers = {reader.name: {"lost": reader.lost, "pending": reader.lag} for reader in statistics.readers}
            account[name] = {"owner": entry.owner, "appended": statistics.appended, "readers": readers}
            if recorded:
                account[name] |= entry.storing()
        return account

    def read_back(self, account: dict[str, Any], reason: str) -> None:
        """Enter what the files hold: that is stored, whatever the recorder said. What is not was lost for `reason`."""
        for name, entry in self._entries.items():
            stored, held, lost, why = entry.stored, 0, 0, entry.unstorable or reason
            if stored is not None:
                lost, why = (stored.ended or (0, 0))[1], stored.reason or reason
                try:
                    held = len(open_rows(stored.file)) - stored.before
                except (DatasetError, OSError) as error:
                    self._desk.report(f"the stored rows of the table {name!r} could not be read back: {error}")
                    held, why = 0, "deleted"
            appended = account[name]["appended"]
            account[name].update(accounted(appended, held, lost, why))
            if (missing := appended - held - lost) and not entry.unstorable and not (stored and stored.reason):
                self._desk.report(f"{missing:,} rows of the table {name!r} were not stored before the end ({why})")

    def close(self) -> None:
        """Close all tables."""
        for entry in self._entries.values():
            entry.table.close()


def accounted(appended: int, stored: int, overrun: int, reason: str) -> dict[str, Any]:
    """Return the account of the storing of a table, of which what is neither stored nor overrun is lost for `reason`, if any.

    Examples
    --------
    >>> accounted(10, 6, 1, "")
    {'stored': 6, 'lost': {'overrun': 1}, 'pending': 3}
    >>> accounted(10, 6, 0, "disk_full")
    {'stored': 6, 'lost': {'disk_full': 4}, 'pending': 0}
    """
    lost = {"overrun": overrun} if overrun else {}
    left = appended - stored - overrun
    if reason and left:
        lost[reason] = left
    return {"stored": stored, "lost": lost, "pending": 0 if reason else left}
