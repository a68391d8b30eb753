"""The columns of a table: their description as plain values, and the checks that a row fits them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mutoscope.model.errors import ConfigError

__all__ = ["Columns", "address_of", "described"]

Rows = npt.NDArray[np.void]


def address_of(array: npt.NDArray[Any]) -> int:
    """Return the address of an array's first byte (``array.ctypes.data`` takes a microsecond)."""
    address: int = array.__array_interface__["data"][0]
    return address


def _packed(dtype: np.dtype[Any], where: str) -> np.dtype[Any]:
    """Return `dtype` without gaps between its fields; refuse what cannot lie in shared memory."""
    if dtype.fields is None:
        if dtype.hasobject:
            raise ConfigError(f"{where} holds Python objects, which cannot be shared: use numbers or fixed-size text")
        if dtype.itemsize == 0:
            raise ConfigError(f"{where} has no size: say how long its text is, for example 'S16'")
        return dtype
    parts: list[tuple[str, Any, tuple[int, ...]]] = []
    for name in dtype.names or ():
        inner: np.dtype[Any] = dtype.fields[name][0]
        base, shape = inner.subdtype if inner.subdtype is not None else (inner, ())
        parts.append((name, _packed(base, f"{where}, column {name!r}"), shape))
    return np.dtype(parts)


def described(dtype: np.dtype[Any]) -> list[Any]:
    """Return the columns of a dtype in plain values: (name, type, shape), the type a list again where it is structured."""
    columns = []
    for name in dtype.names or ():
        inner: np.dtype[Any] = dtype[name]
        base, shape = inner.subdtype if inner.subdtype is not None else (inner, ())
        columns.append([name, described(base) if base.fields is not None else base.str, list(shape)])
    return columns


def _rebuild(description: Any) -> np.dtype[Any]:
    parts: list[tuple[str, Any, tuple[int, ...]]] = []
    try:
        for name, kind, shape in description:
            if not isinstance(name, str) or not isinstance(kind, str | list | tuple):
                raise TypeError(f"column {name!r} of kind {kind!r}")
            parts.append((name, np.dtype(kind) if isinstance(kind, str) else _rebuild(kind), tuple(int(n) for n in shape)))
        return np.dtype(parts)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a table's columns cannot be rebuilt from {description!r}: {error}") from error


class Columns:
    """The packed dtype of a table, and how rows are brought into it.

    Parameters
    ----------
    name : str
        The table's name, for messages.
    dtype : dtype_like
        A structured dtype with at least one column.

    Raises
    ------
    ConfigError
        If the dtype has no columns, or columns that cannot be shared.
    """

    def __init__(self, name: str, dtype: npt.DTypeLike) -> None:
        try:
            given = np.dtype(dtype)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"table {name!r}: {dtype!r} is not a dtype: {error}") from error
        if not given.names:
            raise ConfigError(f"table {name!r} needs named columns, for example dtype=[('frame_id', 'u8'), ('count', 'i8')]")
        self.name = name
        self.dtype = _packed(given, f"table {name!r}")
        self.names = tuple(self.dtype.names or ())
        self._scratch: Rows = np.zeros(1, self.dtype)
        self._scratch_address = address_of(self._scratch)
        self._integers: list[tuple[int, int, int]] = []
        self._floats: list[int] = []
        self._texts: list[tuple[int, int]] = []
        for index, column in enumerate(self.names):
            kind = self.dtype[column]
            if kind.kind in "iu":
                limits = np.iinfo(kind)
                self._integers.append((index, int(limits.min), int(limits.max)))
            elif kind.kind == "f":
                self._floats.append(index)
            elif kind.kind in "SU":
                self._texts.append((index, kind.itemsize // (4 if kind.kind == "U" else 1)))

    @classmethod
    def from_description(cls, name: str, description: Sequence[Any]) -> Columns:
        """Rebuild from :attr:`description`; nothing is evaluated."""
        return cls(name, _rebuild(description))

    @property
    def description(self) -> list[Any]:
        """The columns as nested lists of plain values: ``[name, kind, shape]`` each."""
        return described(self.dtype)

    def pack(self, rows: Any) -> tuple[Rows, int]:
        """Return `rows` as a contiguous 1-D array of :attr:`dtype`, and its address; one row shares a buffer with the next.

        Parameters
        ----------
        rows : tuple, list, numpy.void or structured ndarray
            One row as a sequence of values in column order, or any number of rows as a structured array with
            the same column names (in any order) and values that fit.

        Raises
        ------
        ConfigError
            If a value does not fit its column: nothing is cut, wrapped or rounded in silence.
        """
        if isinstance(rows, np.ndarray | np.void):
            packed = self._pack_array(np.atleast_1d(np.asarray(rows)))
            return packed, address_of(packed)
        if not isinstance(rows, tuple | list):
            raise self._error(rows, "a row is a tuple of values, or a structured array")
        if len(rows) != len(self.names):
            raise self._error(rows, f"it has {len(rows)} values for {len(self.names)} columns")
        values = tuple(rows)
        for index, low, high in self._integers:
            value = values[index]
            try:
                whole = operator.index(value)
            except TypeError:
                raise self._error(rows, f"{self.names[index]} takes whole numbers, not {value!r}") from None
            if not low <= whole <= high:
                raise self._error(rows, f"{self.names[index]} takes {low} to {high}")
        for index in self._floats:
            if not hasattr(values[index], "__float__"):  # NumPy would read text, and take None for nan
                raise self._error(rows, f"{self.names[index]} takes numbers, not {values[index]!r}")
        for index, length in self._texts:
            if not isinstance(values[index], str | bytes) or len(values[index]) > length:
                raise self._error(rows, f"{self.names[index]} takes text of at most {length} characters")
        try:
            self._scratch[0] = values
        except (ValueError, TypeError, OverflowError) as error:
            raise self._error(rows, str(error)) from error
        return self._scratch, self._scratch_address

    def _pack_array(self, rows: npt.NDArray[Any]) -> Rows:
        if rows.dtype == self.dtype and rows.ndim == 1:
            return np.ascontiguousarray(rows)
        if rows.ndim != 1 or rows.dtype.names is None or set(rows.dtype.names) != set(self.names):
            raise self._error(f"an array of {rows.dtype}, shape {rows.shape}", "a batch is 1-D with the same column names")
        packed = np.empty(len(rows), self.dtype)
        for column in self.names:
            wanted = packed.dtype[column].base
            both_whole = wanted.kind in "iu" and rows.dtype[column].base.kind in "iu"  # then the values decide
            try:
                converted = rows[column].astype(wanted, casting="unsafe" if both_whole else "same_kind")
            except TypeError as error:
                raise self._error(f"an array of {rows.dtype}", f"{column}: {error}") from error
            if converted.dtype.kind in "iuSU" and not np.array_equal(converted, rows[column]):
                raise self._error(f"an array of {rows.dtype}", f"{column}: some values do not fit")
            packed[column] = converted
        return packed

    def _error(self, rows: object, why: str) -> ConfigError:
        columns = ", ".join(f"{name} {self.dtype[name]}" for name in self.names)
        shown = rows if isinstance(rows, str) else repr(rows)
        return ConfigError(f"table {self.name!r} ({columns}) cannot take {shown[:200]}: {why}")
