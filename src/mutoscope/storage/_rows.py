"""Rows of a table in one NPY file that grows: at every moment `numpy.load` opens it, with the rows that it holds then.

The header keeps room for the count of rows. A batch is written behind the rows that are counted, then the count is written in
place, in one write inside a block of 4,096 bytes: whoever is killed leaves the old count or the new one. What lies behind the
counted rows is not there, and the next writer writes over it.
Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html (versions 1.0 to 3.0).
"""

from __future__ import annotations

import itertools
import os
import struct
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.storage import _files, _npy

__all__ = ["RowsWriter", "file_name", "open_rows", "open_writer", "table_of"]

BLOCK = 4096
DIGITS = 20
"""Room for the count: as many digits as 2**64 has."""

MAX_NAME = 200
_SAFE = " _-"
SUFFIX = ".npy"
_HEADER_1_0 = 1 << 16


def file_name(table: str, segment: int = 0) -> str:
    """Return the name of the file of a table, of the `segment`-th one where its columns have changed between runs.

    Raises
    ------
    ConfigError
        If the name is too long for a file.

    Examples
    --------
    >>> file_name("seen by 1"), file_name("a/b.c"), file_name("spots", 1)
    ('seen by 1.npy', 'a%2Fb%2Ec.npy', 'spots.1.npy')
    """
    safe = quote(table, safe=_SAFE).replace(".", "%2E")
    if not safe or len(safe) > MAX_NAME:
        raise ConfigError(f"the name of the table {table[:80]!r} is no name of a file: it takes {len(safe)} letters")
    return f"{safe}.{segment}{SUFFIX}" if segment else safe + SUFFIX


def table_of(file: str) -> tuple[str, int] | None:
    """Return the table and the segment of which this is the name of the file; None if it is of none.

    Examples
    --------
    >>> table_of("a%2Fb%2Ec.npy"), table_of("spots.1.npy"), table_of("spots.txt")
    (('a/b.c', 0), ('spots', 1), None)
    """
    stem = file.removesuffix(SUFFIX)
    safe, _, segment = stem.partition(".")
    if stem == file or not safe or (segment and not (segment.isascii() and segment.isdigit() and len(segment) < 9)):
        return None
    table, number = unquote(safe), int(segment or 0)
    return (table, number) if file == quote(table, safe=_SAFE).replace(".", "%2E") + stem[len(safe) :] + SUFFIX else None


def header(dtype: np.dtype[Any], count: int = 0) -> tuple[bytes, int]:
    """Return the header of a file of rows, whole blocks, and where in it the count stands.

    Examples
    --------
    >>> data, place = header(np.dtype([("frame_id", "<u8")]), 7)
    >>> len(data), data[:8], data[place : place + 20]
    (4096, b'\\x93NUMPY\\x01\\x00', b'                   7')
    """
    before = f"{{'descr': {np.lib.format.dtype_to_descr(dtype)!r}, 'fortran_order': False, "
    try:
        encoded, version = before.encode("latin-1"), 1
    except UnicodeEncodeError:
        encoded, version = before.encode("utf-8"), 3
    if version == 1 and len(encoded) + 2 * BLOCK > _HEADER_1_0:
        version = 2
    start = 10 if version == 1 else 12
    key = b"'shape': ("
    place = start + len(encoded) + len(key)
    if place // BLOCK != (place + DIGITS - 1) // BLOCK:  # the count stays inside one block
        gap = -place % BLOCK
        encoded, place = encoded + b" " * gap, place + gap
    text = encoded + key + f"{count:{DIGITS}d}".encode() + b",), }"
    whole = -(-(start + len(text) + 1) // BLOCK) * BLOCK
    text += b" " * (whole - start - len(text) - 1) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text, place


def stored_form(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the columns as they are stored: little-endian."""
    return dtype.newbyteorder("<")


def _read_header(path: Path) -> _npy.Plan:
    """Return where the counted rows of a file lie.

    Raises
    ------
    DatasetError
        If it is no file of rows, or shorter than it says.
    """
    fd = _files.open_inside(path.parent, path.name)
    with open(fd, "rb") as file:
        plan = _npy.beginning(file, os.fstat(fd).st_size, str(path))
    if len(plan.shape) != 1 or not plan.dtype.names:
        raise DatasetError(f"{path}: holds no rows of a table, but an array {plan.shape} of {plan.dtype}")
    return plan


def open_rows(path: Path) -> NDArray[Any]:
    """Return the rows that a file holds now, mapped read-only.

    Raises
    ------
    DatasetError
        If it is missing, no file of rows, or damaged.
    """
    plan = _read_header(path)
    while (again := _read_header(path)) != plan:  # read while the count was written
        plan = again
    if not plan.shape[0]:
        empty = np.empty(0, plan.dtype)
        empty.flags.writeable = False
        return empty
    return np.memmap(path, plan.dtype, "r", plan.offset, plan.shape)


class RowsWriter:
    """The one writer of a file of rows.

    Parameters
    ----------
    path : Path
        Made if it is not there; else rows go on behind those that it counts.
    dtype : dtype
        Of the rows.

    Raises
    ------
    ConfigError
        If the file has other columns.
    DatasetError
        If it is damaged.
    DiskFullError
        If there is no room for it.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.path = path
        self.dtype = stored_form(dtype)
        self.count = 0
        empty, self._place = header(self.dtype)
        self._start = len(empty)
        if os.path.lexists(path):
            plan = _read_header(path)
            if plan.dtype != self.dtype:
                raise ConfigError(f"{path} has the columns {plan.dtype}, not {self.dtype}")
            if plan.offset != self._start:
                raise DatasetError(f"{path}: its header has no room for the count of rows")
            self.count = plan.shape[0]
        else:
            _files.replace_file(path, empty, path.parent)
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows behind the others: all of them are stored when this returns, none of them when it raises.

        Raises
        ------
        DiskFullError
            If there is no room.
        FileNotFoundError
            If the file was deleted.
        """
        with _files.translated(self.path):
            if os.fstat(self._fd).st_nlink == 0:
                raise FileNotFoundError(f"{self.path} was deleted while it was written")
            data = np.ascontiguousarray(rows.astype(self.dtype, copy=False))
            _files.write_all(self._fd, data.view(np.uint8), self._start + self.count * self.dtype.itemsize)
            kill_point("rows.written")
            _files.write_all(self._fd, f"{self.count + len(rows):{DIGITS}d}".encode(), self._place)
            self.count += len(rows)
            kill_point("rows.counted")

    def close(self) -> None:
        """End the file behind its last row; twice is fine."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.ftruncate(fd, self._start + self.count * self.dtype.itemsize)
            finally:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_writer(folder: Path, table: str, dtype: np.dtype[Any]) -> RowsWriter:
    """Go on in the file of a table in `folder`; where it has other columns in those that are there, in a further one."""
    for segment in itertools.count():
        path = folder / file_name(table, segment)
        try:
            return RowsWriter(path, dtype)
        except ConfigError:  # it has other columns
            continue
    raise AssertionError("unreachable")
