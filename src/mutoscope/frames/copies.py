"""Copies of pixels on their way between processes, by the native core: past the processor's caches, as what it writes is read
by another one, and what it reads was written by another one."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.frames._native import library

__all__ = ["LARGE_BYTES", "copy_in", "copy_out", "copy_to"]

_FROM_BYTES = 1 << 16
"""Smaller arrays are copied by NumPy: calling the core takes longer than it saves."""
LARGE_BYTES = 1 << 22
"""A frame that does not stay in a core's caches until a reader comes."""

_pointer, _u64 = ctypes.c_void_p, ctypes.c_uint64
_copy_out = library.mutoscope_copy_out
_copy_out.restype, _copy_out.argtypes = None, [_pointer, _pointer, _u64]
_copy_rows = library.mutoscope_copy_rows
_Two = ctypes.c_double * 2
_copy_rows.restype = None
_copy_rows.argtypes = [*(_pointer, ctypes.c_int64, _pointer, ctypes.c_int64), *(_u64, _u64, ctypes.c_int, _u64, _Two)]
_KINDS = {
    np.dtype(code): number for number, code in enumerate(("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8"), start=1)
} | {np.dtype(bool): 1}
"""Whose limits the core can take; the numbers are those of ``copies.c``."""


def copy_out(target: NDArray[Any], source: NDArray[Any]) -> None:
    """Copy a frame into shared memory, past the processor's caches where it would not stay in them.

    Parameters
    ----------
    target : ndarray
        Writable, of the shape of `source`.
    source : ndarray
        Of any layout, and of a dtype that NumPy turns into that of `target`. It shares no memory with it.

    Examples
    --------
    >>> target = np.zeros((2000, 2000), "uint16")
    >>> copy_out(target, np.full((2000, 2000), 7, "uint16"))
    >>> int(target.sum())
    28000000
    """
    if not (
        source.nbytes >= LARGE_BYTES
        and _alike(target, source)
        and target.flags.c_contiguous
        and copy_to(_address(target), source)
    ):
        np.copyto(target, source)


def copy_to(address: int, source: NDArray[Any]) -> bool:
    """Copy an array to where another process reads it next; False, and nothing was done, if that is not worth it: of one that
    is small or not contiguous. There must be room for it."""
    nbytes = source.nbytes
    if nbytes < _FROM_BYTES or not source.flags.c_contiguous or source.dtype.hasobject:
        return False
    _copy_out(address, _address(source), nbytes)
    return True


def copy_in(target: NDArray[Any], source: NDArray[Any], every: int) -> tuple[float, float] | None:
    """Copy a plane out of shared memory, and tell the limits of its values.

    Parameters
    ----------
    target : ndarray
        Writable, of the shape and dtype of `source`: (y, x), or (y, x, colour).
    source : ndarray
        Of any layout. It shares no memory with `target`.
    every : int
        The limits are those of every so many rows.

    Returns
    -------
    (low, high) or None
        Of the finite values in those rows, with ``low > high`` where there are none; None where this cannot be told on the way
        (float16, other layouts, small planes). The plane is copied all the same.

    Examples
    --------
    >>> target = np.zeros((300, 200), "uint16")
    >>> copy_in(target, np.arange(60_000, dtype="uint16").reshape(300, 200), 1)
    (0.0, 59999.0)
    """
    kind, nbytes = _KINDS.get(source.dtype), source.nbytes
    if kind is None or nbytes < _FROM_BYTES or not (_alike(target, source) and _has_rows(target) and _has_rows(source)):
        np.copyto(target, source)
        return None
    limits, rows = _Two(math.inf, -math.inf), source.shape[0]
    to, to_step, step = _address(target), target.strides[0], source.strides[0]
    _copy_rows(to, to_step, _address(source), step, rows, nbytes // rows, kind, every, limits)
    return limits[0], limits[1]


def _alike(target: NDArray[Any], source: NDArray[Any]) -> bool:
    return target.shape == source.shape and target.dtype == source.dtype and target.flags.writeable


def _has_rows(array: NDArray[Any]) -> bool:
    """Whether each row is contiguous."""
    return array.flags.c_contiguous or array[0].flags.c_contiguous


def _address(array: NDArray[Any]) -> int:
    """Return where an array begins. What NumPy offers for it takes eight times as long; every extension that is compiled
    against NumPy relies on the pointer being the first thing in the object, behind what all objects have (``PyArray_DATA``)."""
    address = ctypes.c_void_p.from_address(id(array) + object.__basicsize__).value
    assert address is not None
    return address
