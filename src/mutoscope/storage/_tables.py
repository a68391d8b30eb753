"""Tables: structured arrays of one dimension, from pandas and Arrow too, and as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from importlib import import_module
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import BackendUnavailableError, ConfigError, DatasetError
from mutoscope.storage._arrays import native

__all__ = ["check_csv", "is_foreign_table", "read_csv", "to_structured", "write_csv"]

_MAX_CELL = 131_072
"""Characters of a cell that Python's own reader takes. Source: `csv.field_size_limit`, its default."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?|nan|inf)", re.IGNORECASE)
_BOOLEANS = {"True": True, "False": False, "true": True, "false": False}


def is_foreign_table(data: object) -> bool:
    """Whether `data` is a table of pandas, Arrow, or anything that speaks the Arrow stream interface."""
    if type(data).__module__.split(".")[0] == "pandas":
        return type(data).__name__ == "DataFrame"
    return hasattr(data, "__arrow_c_stream__")


def to_structured(data: Any) -> NDArray[Any]:
    """Return a table of any kind as a structured array of one dimension.

    Raises
    ------
    ConfigError
        If two columns have one name, or one holds what a column cannot (nested values, objects, missing integers).
    """
    if isinstance(data, np.ndarray):
        table = data
    elif type(data).__module__.split(".")[0] == "pandas":
        series = [data.iloc[:, i] for i in range(data.shape[1])]
        columns = [column.to_numpy() for column in series]
        names = [str(name) for name in data.columns]
        _check_whole(names, columns, [getattr(column.dtype, "kind", "O") in "iu" for column in series])
        table = _from_columns(names, columns)
    else:
        try:
            arrow = import_module("pyarrow")
        except ImportError as error:
            raise BackendUnavailableError("to read an Arrow table: pip install pyarrow") from error
        frame = arrow.table(data)
        columns = [column.to_numpy(zero_copy_only=False) for column in frame.columns]
        _check_whole(frame.column_names, columns, [arrow.types.is_integer(column.type) for column in frame.columns])
        table = _from_columns(frame.column_names, columns)
    if table.ndim != 1:
        raise ConfigError(f"a table has one dimension, its rows, not the shape {table.shape}")
    if table.dtype.hasobject:
        raise ConfigError("a table with a column of Python objects cannot be stored")
    return native(table)


def _check_whole(names: Sequence[str], columns: Sequence[NDArray[Any]], whole: Sequence[bool]) -> None:
    """Raise if missing values made numbers with a fraction of whole ones, which large ones do not survive."""
    for name, column, was_whole in zip(names, columns, whole, strict=True):
        if was_whole and column.dtype.kind not in "iu":
            raise ConfigError(
                f"the column {name!r} lacks whole numbers, for which there is no value: fill them, or make it float"
            )


def _from_columns(names: Sequence[str], columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    _check_header(names, ConfigError, "this table")
    plain = [_plain_column(name, column) for name, column in zip(names, columns, strict=True)]
    if not plain:
        raise ConfigError("a table has at least one column")
    table = np.empty(len(plain[0]), dtype=[(name, column.dtype) for name, column in zip(names, plain, strict=True)])
    for name, column in zip(names, plain, strict=True):
        table[name] = column
    return table


def _plain_column(name: str, column: NDArray[Any]) -> NDArray[Any]:
    if not column.dtype.hasobject:
        return column
    values = column.tolist()
    if all(isinstance(value, str) for value in values):
        return np.array(values, dtype=np.str_) if values else np.empty(0, dtype="<U1")
    raise ConfigError(f"the column {name!r} holds objects or missing values that no column of numbers or text can hold")


def _check_header(names: Sequence[str], kind: type[Exception], where: str) -> None:
    if not all(names):
        raise kind(f"{where}: a column has no name")
    if len(set(names)) < len(names):
        raise kind(f"{where}: two columns have one name")


def write_csv(file: IO[bytes], table: NDArray[Any]) -> None:
    """Write a table as CSV in UTF-8: a header, then a line a row; numbers in full, so that they come back exactly."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text, lineterminator="\r\n")  # with it, a lone CR in a cell is quoted as well
        writer.writerow(table.dtype.names or ())
        writer.writerows(table.tolist() if not _has_dates(table) else _dates_as_text(table).tolist())
        text.flush()
    finally:
        text.detach()


def check_csv(table: NDArray[Any]) -> None:
    """Raise ConfigError for a table that CSV cannot hold."""
    for name in table.dtype.names or ():
        column = table.dtype[name]
        if column.shape or column.names or column.kind not in "biufUMm":
            raise ConfigError(f"the column {name!r} ({column}) has no form in CSV; .npy holds it")
        if column.kind == "U" and any("\0" in value or len(value) > _MAX_CELL for value in table[name].tolist()):
            raise ConfigError(f"the column {name!r} has text with a NUL or of more than {_MAX_CELL} characters; .npy holds it")
        if column.kind == "U" and not _encodable(table[name]):
            raise ConfigError(f"the column {name!r} has text that is not valid Unicode")
        if column.kind == "f" and column.itemsize > 8:
            raise ConfigError(f"the column {name!r} ({column}) has no exact form in CSV; .npy holds it")


def _encodable(column: NDArray[Any]) -> bool:
    try:
        "".join(column.tolist()).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _has_dates(table: NDArray[Any]) -> bool:
    return any(table.dtype[name].kind in "Mm" for name in table.dtype.names or ())


def _dates_as_text(table: NDArray[Any]) -> NDArray[Any]:
    names = table.dtype.names or ()
    columns = [table[name].astype(np.str_) if table.dtype[name].kind in "Mm" else table[name] for name in names]
    return _from_columns(names, columns)


def read_csv(file: IO[bytes], where: str) -> NDArray[Any]:
    """Return a CSV file as a structured array: each column int64 or uint64, float64, bool, or text, whichever holds all of it.

    Raises
    ------
    DatasetError
        If it has no header, rows of another length than the header, or is not UTF-8.
    """
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        rows = list(csv.reader(text, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{where}: is not CSV in UTF-8, or is damaged ({error})") from None
    finally:
        text.detach()
    if not rows or not rows[0]:
        raise DatasetError(f"{where}: is not CSV: it has no header")
    header, body = rows[0], [row for row in rows[1:] if row]
    _check_header(header, DatasetError, where)
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise DatasetError(f"{where}: row {number} has {len(row)} cells, its header {len(header)}, so it is damaged")
    return _from_columns(header, [_typed([row[i] for row in body]) for i in range(len(header))])


def _typed(cells: list[str]) -> NDArray[Any]:
    if not cells:
        return np.empty(0, dtype=np.float64)
    if all(_INTEGER.fullmatch(cell) for cell in cells):
        values = [int(cell) for cell in cells]
        for kind in (np.int64, np.uint64):
            if np.iinfo(kind).min <= min(values) and max(values) <= np.iinfo(kind).max:
                return np.array(values, dtype=kind)
    if all(_FLOAT.fullmatch(cell) for cell in cells):
        return np.array([float(cell) for cell in cells])
    if all(cell in _BOOLEANS for cell in cells):
        return np.array([_BOOLEANS[cell] for cell in cells])
    return np.array(cells, dtype=np.str_)
