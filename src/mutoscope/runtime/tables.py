"""The supervisor's side of the tables: who writes which, who reads them, and who waits for one that is not there yet."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np

from mutoscope.bus import Deferred, Reply
from mutoscope.frames import Table
from mutoscope.frames._columns import described
from mutoscope.model.errors import CommandTimeoutError, ConfigError
from mutoscope.runtime import control
from mutoscope.runtime.desk import Desk

__all__ = ["Tables"]

HINT_S = 1.0
"""Who has waited so long for a table hears what there is."""


@dataclass
class _Entry:
    """A table: its owner's name, and (row, pid) of each reader by (worker, key)."""

    owner: str
    table: Table
    rows: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

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
    """All tables of a scope. The supervisor owns them and closes them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
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
            entry.forget_closed()
            for place in [place for place in entry.rows if place[0] == worker]:
                entry.table.reader_died(entry.rows[place][0], keep=restarts)
                if not restarts:
                    del entry.rows[place]

    def account(self) -> dict[str, Any]:
        """Rows appended by table, and what each reader lost."""
        account = {}
        for name, entry in self._entries.items():
            statistics = entry.table.statistics()
            readers = {reader.name: {"lost": reader.lost, "pending": reader.lag} for reader in statistics.readers}
            account[name] = {"owner": entry.owner, "appended": statistics.appended, "readers": readers}
        return account

    def close(self) -> None:
        """Close all tables."""
        for entry in self._entries.values():
            entry.table.close()
