"""What every worker is doing, in one small shared table that everyone can look at without asking anyone.

The supervisor creates it and writes who is in which row; the process in a row writes its counters. Each counter has one writer
and is one aligned 64-bit word, so nobody waits and nothing tears. It costs a store to count and a load to look.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from mutoscope.frames import _os
from mutoscope.frames._columns import address_of
from mutoscope.model.errors import ClosedError, ConfigError

__all__ = ["STATUS_COLUMNS", "SUPERVISOR_COLUMNS", "WORKER_COLUMNS", "Status", "StatusRow"]

SUPERVISOR_COLUMNS = ("state", "pid", "restarts", "incarnation")
"""Written by the supervisor only; one cache line."""

WORKER_COLUMNS = (
    "heartbeat_ns",
    "step_started_ns",
    "frames",
    "dropped",
    "missed",
    "timeouts",
    "timeouts_consecutive",
    "queue_full",
    "busy_ns",
    "last_utc_ns",
    "progress_a",
    "progress_b",
)
"""Written by the process of the row only; two cache lines."""

STATUS_COLUMNS = SUPERVISOR_COLUMNS + WORKER_COLUMNS

_MAGIC = 0x3153555441545355
_HEADER_WORDS = 8
_NAME_BYTES = 64
_ROW_WORDS = 24  # three cache lines of 64 bytes: supervisor (8 words), worker (16 words)
_FIRST_WORKER_WORD = 8
_PLACES = {name: index for index, name in enumerate(SUPERVISOR_COLUMNS)} | {
    name: _FIRST_WORKER_WORD + index for index, name in enumerate(WORKER_COLUMNS)
}

_kept_mapped: list[mmap.mmap | None] = []  # the guard thread writes there until the process ends

Words = npt.NDArray[np.uint64]
Handle = tuple[dict[str, Any], list[int]]


class _Column:
    """One counter of a row as an attribute of type int."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._place = _PLACES[name]

    @overload
    def __get__(self, row: None, kind: type[StatusRow]) -> Self: ...
    @overload
    def __get__(self, row: StatusRow, kind: type[StatusRow]) -> int: ...
    def __get__(self, row: StatusRow | None, kind: type[StatusRow]) -> Self | int:
        if row is None:
            return self
        return row._words.item(self._place)

    def __set__(self, row: StatusRow, value: int) -> None:
        if not row._first <= self._place < row._end:
            raise AttributeError(f"{self._name} of {row.name!r} can be looked at here, not written: {row._reason}")
        row._words[self._place] = value


class StatusRow:
    """One row, its counters as plain attributes (int). Get it from :meth:`Status.row`; the segment stays mapped while it lives.

    The supervisor may write ``state``, ``pid``, ``restarts`` and ``incarnation``; the process of the row the others; anyone
    else only looks. An attribute that is not yours to write raises :class:`AttributeError`.
    """

    __slots__ = ("_end", "_first", "_name", "_reason", "_words", "index")

    state = _Column("state")
    pid = _Column("pid")
    restarts = _Column("restarts")
    incarnation = _Column("incarnation")
    heartbeat_ns = _Column("heartbeat_ns")
    step_started_ns = _Column("step_started_ns")
    frames = _Column("frames")
    dropped = _Column("dropped")
    missed = _Column("missed")
    timeouts = _Column("timeouts")
    timeouts_consecutive = _Column("timeouts_consecutive")
    queue_full = _Column("queue_full")
    busy_ns = _Column("busy_ns")
    last_utc_ns = _Column("last_utc_ns")
    progress_a = _Column("progress_a")
    progress_b = _Column("progress_b")

    def __init__(self, index: int, name: npt.NDArray[np.uint8], words: Words, writable: tuple[int, int], reason: str) -> None:
        self.index = index
        self._name = name
        self._words = words
        self._first, self._end = writable
        self._reason = reason

    @property
    def name(self) -> str:
        """The name of the worker in this row."""
        return self._name.tobytes().rstrip(b"\0").decode("utf-8", "replace")

    def as_dict(self) -> dict[str, int | str]:
        """Return the name and all counters, as they are now."""
        return {"name": self.name} | {column: getattr(self, column) for column in STATUS_COLUMNS}


class Status:
    """The shared table of all workers.

    Examples
    --------
    >>> with Status.create(["camera", "recorder"]) as status:
    ...     status.row(0).state = 3
    ...     with Status.from_handle(*status.handle(row=0)) as of_the_camera:
    ...         of_the_camera.row(0).frames += 1
    ...     status.row(0).state, status.row(0).frames, status.names
    (3, 1, ['camera', 'recorder'])
    """

    def __init__(self, meta: Mapping[str, Any], fd: int, *, owner: bool) -> None:
        self.rows: int = meta["rows"]
        self._own_row: int | None = meta.get("row")
        self._owner = owner
        self._fd = fd
        self._writable = owner or self._own_row is not None
        size = self._size(self.rows)
        try:
            if os.fstat(fd).st_size != size:
                raise ConfigError(f"a status segment of {self.rows} rows has {size} bytes, not {os.fstat(fd).st_size}")
            self._map: mmap.mmap | None = _os.map_segment(fd, size, writable=self._writable)
            words: Words = np.frombuffer(self._map, np.uint64, size // 8)
            if owner:
                words[:2] = _MAGIC, self.rows
            elif words[0] != _MAGIC or words[1] != self.rows:
                raise ConfigError(f"the segment is not a status table of {self.rows} rows")
        except BaseException:
            os.close(fd)
            raise
        name_words = self.rows * _NAME_BYTES // 8
        self._names: npt.NDArray[np.uint8] | None = (
            words[_HEADER_WORDS : _HEADER_WORDS + name_words].view(np.uint8).reshape(self.rows, _NAME_BYTES)
        )
        first = _HEADER_WORDS + name_words
        self._words: Words | None = words[first : first + self.rows * _ROW_WORDS].reshape(self.rows, _ROW_WORDS)

    @staticmethod
    def _size(rows: int) -> int:
        return _os.round_to_page(8 * _HEADER_WORDS + rows * (_NAME_BYTES + 8 * _ROW_WORDS))

    @classmethod
    def create(cls, rows: int | Sequence[str]) -> Status:
        """Create the table: so many rows, or a row for each of these names. The caller owns it and closes it.

        Raises
        ------
        ConfigError
            If there is no row, or a name has more than 64 bytes of UTF-8.
        """
        names = [""] * rows if isinstance(rows, int) else list(rows)
        if not names:
            raise ConfigError("a status table needs at least one row")
        fd = _os.create_segment("status", cls._size(len(names)))
        status = cls({"rows": len(names)}, fd, owner=True)
        try:
            for index, name in enumerate(names):
                status.set_name(index, name)
        except BaseException:
            status.close()
            raise
        return status

    def handle(self, row: int | None = None) -> Handle:
        """Return what :meth:`from_handle` takes: for the process of `row`, or (``None``) for someone who only looks.

        The descriptor belongs to the caller: pass it on, then close it.
        """
        if row is None:
            return {"kind": "status", "rows": self.rows, "row": None}, [_os.reopen_read_only(self._open_fd())]
        self._check_index(row)
        return {"kind": "status", "rows": self.rows, "row": row}, [os.dup(self._open_fd())]

    @classmethod
    def from_handle(cls, meta: Mapping[str, Any], fds: Sequence[int]) -> Status:
        """Attach. The descriptor becomes this object's own and is closed with it.

        Raises
        ------
        ConfigError
            If the handle is not one of a status table.
        """
        (fd,) = fds
        if meta.get("kind") != "status":
            os.close(fd)
            raise ConfigError(f"a status table cannot be made from a handle of {meta.get('kind')!r}")
        return cls(meta, fd, owner=False)

    @property
    def names(self) -> list[str]:
        """The names of all rows."""
        return [self.row(index).name for index in range(self.rows)]

    def set_name(self, index: int, name: str) -> None:
        """Name a row (the supervisor only)."""
        encoded = name.encode()
        if len(encoded) > _NAME_BYTES:
            raise ConfigError(f"the name {name!r} has {len(encoded)} bytes, at most {_NAME_BYTES} are kept")
        names = self._check_index(index)[0]
        if not self._owner:
            raise AttributeError(f"row {index} can be named by the supervisor only")
        names[index] = np.frombuffer(encoded.ljust(_NAME_BYTES, b"\0"), np.uint8)

    def row(self, index: int) -> StatusRow:
        """Return row `index`; keep it, it costs more to get than to read."""
        names, words = self._check_index(index)
        if self._owner:
            writable, reason = (0, _FIRST_WORKER_WORD), "the process of the row writes it"
        elif index == self._own_row:
            writable, reason = (_FIRST_WORKER_WORD, _ROW_WORDS), "the supervisor writes it"
        else:
            writable, reason = (0, 0), "this end may only look"
        return StatusRow(index, names[index], words[index], writable, reason)

    def prepare(self, index: int) -> None:
        """Make a row ready for a new process: heartbeat, step start and consecutive time-outs begin at 0, counters go on.

        For the supervisor, while no process is in the row.
        """
        words = self._check_index(index)[1]
        if not self._owner:
            raise AttributeError(f"row {index} can be prepared by the supervisor only")
        for name in ("heartbeat_ns", "step_started_ns", "timeouts_consecutive"):
            words[index, _PLACES[name]] = 0

    def snapshot(self) -> list[dict[str, int | str]]:
        """Return names and counters of all rows, as they are now."""
        return [self.row(index).as_dict() for index in range(self.rows)]

    def heartbeat_address(self, index: int) -> int:
        """Return the address of a row's ``heartbeat_ns`` for the native guard thread.

        That thread writes until the process ends, so the mapping then stays until the process ends, :meth:`close` or not.
        """
        words = self._check_index(index)[1]
        if index != self._own_row:
            raise ConfigError(f"the heartbeat of row {index} is written by its own process only")
        _kept_mapped.append(self._map)
        return address_of(words[index, _PLACES["heartbeat_ns"] :])

    def close(self) -> None:
        """Let go of the segment; twice is fine. It stays mapped until the last row taken from here is dropped."""
        self._names = self._words = self._map = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open_fd(self) -> int:
        if self._fd < 0:
            raise ClosedError("this status table is closed")
        return self._fd

    def _check_index(self, index: int) -> tuple[npt.NDArray[np.uint8], Words]:
        if self._words is None or self._names is None:
            raise ClosedError("this status table is closed")
        if not 0 <= index < self.rows:
            raise ConfigError(f"the status table has rows 0 to {self.rows - 1}, not {index}")
        return self._names, self._words

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
