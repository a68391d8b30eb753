"""Typed rows that one process appends and up to sixteen others read: tracks, counts, telemetry.

The owner (a supervisor, or whoever calls :meth:`Table.create`) creates the two segments and the bells, hands out one writer and
the readers' rows, and closes them. The writer never waits: a reader that falls more than `capacity` rows behind has lost
rows, and knows exactly how many.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import assert_spawning
from multiprocessing.reduction import DupFd
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt

from mutoscope.frames import _os
from mutoscope.frames import _table_native as native
from mutoscope.frames._columns import Columns, Rows, address_of
from mutoscope.model.errors import ClosedError, ConfigError, RingClosedError, ScopeStateError

__all__ = ["Table", "TableReader", "TableReaderStatistics", "TableStatistics", "TableWriter"]

Handle = tuple[dict[str, Any], list[int]]


class TableReaderStatistics(msgspec.Struct, frozen=True):
    """What a reader's row says: ``delivered = cursor - lost`` counts from where it started."""

    row: int
    """The reader's place, 0 to 15."""
    name: str
    """Its name."""
    pid: int
    """The process that reads."""
    cursor: int
    """Id of the last row that it took, or lost."""
    lost: int
    """Rows that were overwritten before it came."""
    lag: int
    """Rows that it has yet to take."""


class TableStatistics(msgspec.Struct, frozen=True):
    """A table at one moment."""

    appended: int
    """Rows appended since the table was created: the newest row's id."""
    capacity: int
    """Rows that are kept."""
    readers: tuple[TableReaderStatistics, ...]
    """One entry for each reader."""


class _Mapped:
    """A mapped segment and its address."""

    def __init__(self, fd: int, size: int, *, writable: bool) -> None:
        self.map: mmap.mmap = _os.map_segment(fd, size, writable=writable)
        self.address = address_of(np.frombuffer(self.map, np.uint8, 1))

    def close(self) -> None:
        self.map.close()


def _sizes(columns: Columns, capacity: int) -> tuple[int, int]:
    data = native.table_bytes(capacity, columns.dtype.itemsize)
    return _os.round_to_page(data), _os.round_to_page(native.control_bytes())


class Table:
    """The owner's end of a table. Use :meth:`create`.

    Examples
    --------
    >>> with Table.create("spots", [("frame_id", "u8"), ("count", "i8")], capacity=1000) as table:
    ...     with table.writer() as writer, table.reader(start="oldest") as reader:
    ...         row_id = writer.append((1, 42))
    ...         reader.read()["count"].tolist()
    [42]
    """

    def __init__(self, columns: Columns, capacity: int) -> None:
        self.name = columns.name
        self.dtype = columns.dtype
        self.capacity = capacity
        self._columns = columns
        self._closed = False
        self._writers = 0
        self._names: dict[int, str] = {}
        self._fds: list[int] = []
        self._maps: list[_Mapped] = []
        data_size, control_size = _sizes(columns, capacity)
        try:
            for size, what in ((data_size, "table"), (control_size, "control")):
                self._fds.append(_os.create_segment(f"{what}:{self.name}", size))
                self._maps.append(_Mapped(self._fds[-1], size, writable=True))
            self._fds.append(_os.reopen_read_only(self._fds[0]))
            self._fds += [_os.create_bell() for _ in range(native.READERS)]
        except BaseException:
            self._release()
            raise
        self._data, self._control = (part.address for part in self._maps)
        native.init(self._data, capacity, columns.dtype.itemsize)

    @classmethod
    def create(cls, name: str, dtype: npt.DTypeLike, capacity: int = 65536) -> Table:
        """Create a table.

        Parameters
        ----------
        name : str
            Shown in messages and in ``/proc/*/maps``.
        dtype : dtype_like
            Named columns of fixed size, for example ``[("frame_id", "u8"), ("x_um", "f8"), ("label", "S8")]``.
        capacity : int
            Rows that are kept; older ones are overwritten.

        Raises
        ------
        ConfigError
            If the columns cannot be shared or `capacity` is below 2.
        RingSizeError
            If it does not fit in the memory that is available.
        """
        if capacity < 2:
            raise ConfigError(f"table {name!r} needs a capacity of at least 2 rows, not {capacity}")
        return cls(Columns(name, dtype), int(capacity))

    # -- for the supervisor: rows and handles

    def assign_writer(self, *, pid: int) -> Handle:
        """Make process `pid` the writer; an earlier one is refused from now on. Its successor's row ids go on.

        Returns
        -------
        tuple of dict and list of int
            Plain values and descriptors for :meth:`TableWriter.from_handle`. The descriptors stay the table's: pass
            duplicates on.
        """
        self._check_open()
        self._writers += 1
        native.set_writer(self._data, self._writers)
        self.wake_readers()
        meta = {**self._meta("writer"), "writer": self._writers, "pid": pid}
        return meta, [self._fds[0], self._fds[1], *self._bells]

    def assign_reader(self, *, pid: int, name: str = "reader", start: str = "new", row: int | None = None) -> Handle:
        """Give process `pid` a reader's row.

        Parameters
        ----------
        pid : int
            The process that will read.
        name : str
            For the statistics.
        start : {"new", "oldest", "first"}
            Begin with the next row to be appended, with the oldest that is still kept, or with row 1: what is not kept any more
            is then lost to this reader, and counted.
        row : int, optional
            Take over the row of a reader that died, with its account: rows that it had taken do not come again.

        Returns
        -------
        tuple of dict and list of int
            Plain values and descriptors for :meth:`TableReader.from_handle`; pass duplicates on.

        Raises
        ------
        ConfigError
            If all rows are taken, or `start` is none of these.
        """
        self._check_open()
        if pid < 1:
            raise ConfigError(f"table {self.name!r}: {pid} is not a process")
        if start not in ("new", "oldest", "first"):
            raise ConfigError(f"table {self.name!r}: start is 'new', 'oldest' or 'first', not {start!r}")
        if row is None:
            free = self._free_rows()
            if not free:
                readers = ", ".join(self._names.values())
                raise ConfigError(f"table {self.name!r} has {native.READERS} readers already ({readers})")
            row, head = free[0], native.head(self._data)
            cursor = {"new": head, "oldest": max(0, head - self.capacity), "first": 0}[start]
            native.row_reset(self._control, row, pid, cursor)
        elif row in self._names:
            native.row_inherit(self._control, row, pid)
        else:
            raise ConfigError(f"table {self.name!r} has no reader in row {row} whose account could be taken over")
        self._names[row] = name
        _os.clear_bell(self._bells[row])
        return {**self._meta("reader"), "row": row, "reader": name, "pid": pid}, [self._fds[2], self._fds[1], self._bells[row]]

    def writer_died(self) -> None:
        """Refuse the dead writer's number and wake every reader: its last row may have been published without a ring."""
        self._check_open()
        self._writers += 1
        native.set_writer(self._data, self._writers)
        self.wake_readers()

    def reader_died(self, row: int, *, keep: bool = False) -> None:
        """Free a reader's row, or `keep` its account for a successor (``assign_reader(row=row)``)."""
        self._check_open()
        native.row_awake(self._control, row)
        if not keep:
            self._names.pop(row, None)
            native.row_reset(self._control, row, 0, 0)

    def wake_readers(self) -> None:
        """Ring every bell."""
        for bell in self._bells:
            _os.ring_bell(bell)

    def statistics(self) -> TableStatistics:
        """Return the counts of the table and of every reader."""
        self._check_open()
        head = native.head(self._data)
        readers = []
        for row, name in sorted(self._names.items()):
            cursor, lost, pid = native.row_account(self._control, row)
            if pid == 0:
                continue
            readers.append(TableReaderStatistics(row, name, pid, cursor, lost, max(0, head - cursor)))
        return TableStatistics(head, self.capacity, tuple(readers))

    def account_of(self, row: int) -> tuple[int, int, int]:
        """Return (rows appended, cursor, rows lost) as a reader's row says, also when its process is gone."""
        self._check_open()
        cursor, lost, _ = native.row_account(self._control, row)
        return int(native.head(self._data)), cursor, lost

    # -- for a program that owns the table and uses it itself

    def writer(self) -> TableWriter:
        """Return the writer, for this process or (as an argument) for a child of ``multiprocessing`` with ``spawn``."""
        meta, fds = self.assign_writer(pid=os.getpid())
        return TableWriter.from_handle(meta, _duplicates(fds))

    def reader(self, *, name: str = "reader", start: str = "new") -> TableReader:
        """Return a reader, for this process or (as an argument) for a child of ``multiprocessing`` with ``spawn``."""
        meta, fds = self.assign_reader(pid=os.getpid(), name=name, start=start)
        return TableReader.from_handle(meta, _duplicates(fds))

    def close(self) -> None:
        """Close the table: readers may take what is left, then they and the writer get :class:`RingClosedError`."""
        if self._closed:
            return
        native.close(self._data)
        self.wake_readers()
        self._release()

    def _release(self) -> None:
        self._closed = True
        for part in self._maps:
            part.close()
        for fd in self._fds:
            os.close(fd)
        self._maps, self._fds = [], []

    def _free_rows(self) -> list[int]:
        """Rows that nobody has; when there are none, rows whose process is gone are freed."""
        for dead in (False, True):
            for row in list(self._names):
                pid = native.row_account(self._control, row)[2]
                if pid == 0 or (dead and not os.path.exists(f"/proc/{pid}")):
                    self._names.pop(row)
            free = [row for row in range(native.READERS) if row not in self._names]
            if free:
                return free
        return []

    @property
    def _bells(self) -> list[int]:
        return self._fds[3:]

    def _meta(self, kind: str) -> dict[str, Any]:
        return {"kind": f"table-{kind}", "name": self.name, "columns": self._columns.description, "capacity": self.capacity}

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"table {self.name!r} is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _duplicates(fds: Sequence[int]) -> list[int]:
    made: list[int] = []
    try:
        for fd in fds:
            made.append(os.dup(fd))
    except OSError:
        for fd in made:
            os.close(fd)
        raise
    return made


def _attach_spawned(kind: type[_End], meta: Mapping[str, Any], fds: Sequence[Any]) -> _End:
    return kind.from_handle(meta, [fd.detach() for fd in fds])


class _End:
    """What the writer and a reader have in common: the mapped segments, and who may use them."""

    _kind = ""

    def __init__(self, meta: Mapping[str, Any], fds: Sequence[int]) -> None:
        self._meta = dict(meta)
        self._fds = list(fds)
        self._maps: list[_Mapped] = []
        self._closed = False
        self._given = False
        self._pid = os.getpid()
        try:
            if meta.get("kind") != f"table-{self._kind}":
                raise ConfigError(f"a table {self._kind} cannot be made from a handle of {meta.get('kind')!r}")
            self.name: str = meta["name"]
            self.capacity: int = meta["capacity"]
            self._columns = Columns.from_description(self.name, meta["columns"])
            sizes = _sizes(self._columns, self.capacity)
            for fd, size, writable in zip(self._fds, sizes, (self._kind == "writer", True), strict=False):
                if os.fstat(fd).st_size != size:
                    raise ConfigError(f"the segment of table {self.name!r} has {os.fstat(fd).st_size} bytes, not {size}")
                self._maps.append(_Mapped(fd, size, writable=writable))
            self._data, self._control = (part.address for part in self._maps)
            if not native.fits(self._data, self.capacity, self._columns.dtype.itemsize):
                raise ConfigError(f"the segment of table {self.name!r} is not a table of {self._columns.dtype}")
        except BaseException:
            _End.close(self)
            raise

    @classmethod
    def from_handle(cls, meta: Mapping[str, Any], fds: Sequence[int]) -> Self:
        """Attach to a table. The descriptors become this object's own and are closed with it.

        Raises
        ------
        ConfigError
            If the handle does not belong to a table of this form.
        """
        return cls(meta, fds)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The columns, packed."""
        return self._columns.dtype

    def close(self) -> None:
        """Let go of the table; twice is fine. The table and its other users go on."""
        self._closed = True
        for part in self._maps:
            part.close()
        for fd in self._fds:
            os.close(fd)
        self._maps, self._fds = [], []

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(f"this {self._kind} of table {self.name!r} is closed")
        if self._given:
            raise ClosedError(f"this {self._kind} of table {self.name!r} was given to a child process")
        if os.getpid() != self._pid:
            raise ScopeStateError(
                f"this {self._kind} of table {self.name!r} belongs to process {self._pid}; a forked child must not use it"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        assert_spawning(self)
        self._check()
        self._given = True
        return _attach_spawned, (type(self), self._meta, [DupFd(fd) for fd in self._fds])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class TableWriter(_End):
    """The one writer of a table. For one thread of one process; it never waits.

    Killed at any instant, it leaves whole rows only; its successor's row ids go on after the last of them.
    """

    _kind = "writer"

    def __init__(self, meta: Mapping[str, Any], fds: Sequence[int]) -> None:
        super().__init__(meta, fds)
        self._number: int = meta["writer"]
        bells = self._fds[2:]
        self._bells = (ctypes.c_int * len(bells))(*bells)

    def append(self, rows: Any) -> int:
        """Append one row or many; they can be read when this returns.

        Parameters
        ----------
        rows : tuple, list, numpy.void or structured ndarray
            One row as values in column order, or a 1-D structured array with the same column names. Copied. A batch
            of more than a quarter of the capacity becomes readable in pieces.

        Returns
        -------
        int
            The id of the last row appended; ids count from 1.

        Raises
        ------
        ConfigError
            If a value does not fit its column; nothing of the call was appended.
        RingClosedError
            If the owner closed the table, or gave it to another writer.
        """
        self._check()
        packed, address = self._columns.pack(rows)
        last: int = native.append(self._data, self._control, self._number, self._bells, address, len(packed))
        if last >= 0:
            return last
        raise RingClosedError(f"table {self.name!r} " + ("is closed" if last == -1 else "has been given to another writer"))

    @property
    def row_id(self) -> int:
        """The id of the newest row of the table, whoever appended it; 0 when there is none."""
        self._check()
        return int(native.head(self._data))


class TableReader(_End):
    """One reader of a table, for one thread of one process. It takes every row once, in order."""

    _kind = "reader"

    def __init__(self, meta: Mapping[str, Any], fds: Sequence[int]) -> None:
        super().__init__(meta, fds)
        self._row: int = meta["row"]
        self._bell = self._fds[2]
        self._interrupts: dict[int, Callable[[], None]] = {}
        native.row_inherit(self._control, self._row, self._pid)
        self._cursor, self._lost, _ = native.row_account(self._control, self._row)
        self._done = self._cursor, self._lost
        self.row_ids: npt.NDArray[np.uint64] = np.empty(0, np.uint64)

    def close(self) -> None:
        """Let go of the table and free this reader's row; twice is fine."""
        if self._maps and not self._given and os.getpid() == self._pid:
            native.row_leave(self._control, self._row, self._pid)
        super().close()

    @property
    def lost(self) -> int:
        """Rows since the start that were overwritten before this reader came: exact."""
        return self._lost

    @property
    def row_id(self) -> int:
        """The id up to which rows were read (or lost); the next one read has a higher id."""
        return self._cursor

    @property
    def lag(self) -> int:
        """Rows that are yet to be read."""
        self._check()
        return max(0, int(native.head(self._data)) - self._cursor)

    def read(self, timeout_s: float | None = 0.0, max_rows: int | None = None, *, commit: bool = True) -> Rows:
        """Take the rows that have come since the last call, in order.

        Parameters
        ----------
        timeout_s : float or None
            How long to wait for the first row when there is none; ``None`` waits without end.
        max_rows : int, optional
            Take at most so many; the others stay for the next call.
        commit : bool
            They are done with. Otherwise :meth:`commit` says so, before the next call; until then a successor of this process
            takes them again.

        Returns
        -------
        ndarray, shape (n,), the table's dtype
            A copy; empty when nothing came in time. :attr:`row_ids` holds their ids.

        Raises
        ------
        RingClosedError
            If the table is closed and everything that was left has been read.
        """
        self._check()
        if max_rows is not None and max_rows < 1:
            raise ConfigError(f"max_rows is at least 1, not {max_rows}")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            head = int(native.head(self._data))
            if head > self._cursor:
                rows = self._take(head, max_rows, commit)
                if len(rows):
                    return rows
                continue  # all of them were overwritten meanwhile: counted, and newer ones are there
            if native.closed(self._data) and int(native.head(self._data)) == head:
                raise RingClosedError(f"table {self.name!r} is closed")
            if not self._wait(deadline):
                self.row_ids = np.empty(0, np.uint64)
                return np.empty(0, self.dtype)

    def latest(self, n: int = 1) -> Rows:
        """Return the last `n` rows (fewer when there are fewer), oldest first; what :meth:`read` gives next stays as it is.

        Returns
        -------
        ndarray, shape (up to n,), the table's dtype
            A copy. :attr:`row_ids` holds their ids.
        """
        self._check()
        if n < 1:
            raise ConfigError(f"the number of rows is at least 1, not {n}")
        while True:
            head = int(native.head(self._data))
            first = max(1, head - min(n, self.capacity) + 1)
            rows, self.row_ids = self._copy(first, head)
            if len(rows) or head == 0:
                return rows

    def interrupt_with(self, fd: int, callback: Callable[[], None]) -> None:
        """Wake a waiting :meth:`read` also when `fd` is readable.

        Parameters
        ----------
        fd : int
            Stays the caller's.
        callback : callable
            Called without arguments in the waiting thread; it must make `fd` unreadable again. Then the wait goes on with
            the rest of its time, unless the callback raises.
        """
        self._interrupts[fd] = callback

    @property
    def committed(self) -> int:
        """The id up to which rows are done with, or lost."""
        return self._done[0]

    def commit(self, row_id: int) -> None:
        """Say that the rows of the last :meth:`read` up to `row_id` are done with, as are those lost before it.

        In a reader that has not read yet `row_id` may lie ahead: a predecessor was done with those rows, and they do not come.
        """
        self._check()
        cursor, lost = self._done
        if len(self.row_ids):
            lost += (row_id - cursor) - int(np.count_nonzero((self.row_ids > cursor) & (self.row_ids <= row_id)))
        native.row_commit(self._control, self._row, row_id, lost)
        self._done = row_id, lost
        self._cursor, self._lost = max(self._cursor, row_id), max(self._lost, lost)

    def _take(self, head: int, max_rows: int | None, commit: bool) -> Rows:
        first = max(self._cursor + 1, head - self.capacity + 1)
        last = head if max_rows is None else min(head, first + max_rows - 1)
        rows, ids = self._copy(first, last)
        lost = self._lost + (last - self._cursor) - len(rows)
        if commit:
            native.row_commit(self._control, self._row, last, lost)
            self._done = last, lost
        self._cursor, self._lost, self.row_ids = last, lost, ids
        return rows

    def _copy(self, first: int, last: int) -> tuple[Rows, npt.NDArray[np.uint64]]:
        room = max(0, last - first + 1)
        rows, ids = np.empty(room, self.dtype), np.empty(room, np.uint64)
        found = native.copy(self._data, first, last, address_of(rows), address_of(ids)) if room else 0
        return (rows, ids) if found == room else (rows[:found].copy(), ids[:found].copy())

    def _wait(self, deadline: float | None) -> bool:
        """Sleep until there may be something to read; False when the deadline has passed."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        if native.row_sleep(self._data, self._control, self._row, self._cursor):
            return True
        try:
            ready = _os.wait_readable([self._bell, *self._interrupts], left)
        finally:
            native.row_awake(self._control, self._row)
        if self._bell in ready:
            _os.clear_bell(self._bell)
        for fd in ready:
            if fd in self._interrupts:
                self._interrupts[fd]()
        return True
