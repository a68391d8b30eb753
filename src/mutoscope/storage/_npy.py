"""NPY files, and the reading of parts of any file that holds an array in one piece."""

from __future__ import annotations

import ast
import math
import operator
import os
import tokenize
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import DatasetError
from mutoscope.storage._arrays import native

__all__ = ["Plan", "beginning", "layout", "read", "read_part", "write"]

_MAX_HEADER = 1 << 20
_LONG_NAMES = 60_000
_DAMAGE = (
    *(ValueError, TypeError, LookupError, SyntaxError, RecursionError, OverflowError, MemoryError, AttributeError),
    *(EOFError, tokenize.TokenError, Warning),
)
"""What NumPy raises for a header that is none; Warning where warnings are errors."""


@dataclass(frozen=True)
class Plan:
    """Where an array lies in a file, in C order.

    Parameters
    ----------
    offset : int
        Of its first byte.
    shape : tuple of int
        Of the whole.
    dtype : dtype
        As it is stored.
    """

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write(file: IO[bytes], array: NDArray[Any]) -> None:
    """Write an array as `numpy.save` does, never with pickled objects."""
    names = repr(array.dtype)
    latin = names.encode("latin-1", "replace").decode("latin-1") == names
    version = (3, 0) if not latin else (1, 0) if len(names) < _LONG_NAMES else (2, 0)
    np.lib.format.write_array(file, np.ascontiguousarray(array).reshape(array.shape), version=version, allow_pickle=False)


def _header(file: IO[bytes], size: int, where: str, *, whole: bool = True) -> tuple[Plan, bool]:
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=_MAX_HEADER)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file, max_header_size=_MAX_HEADER)
        else:
            shape, fortran, dtype = _read_header_3_0(file, version)
        lengths = tuple(operator.index(length) for length in shape)
    except _DAMAGE as error:
        raise DatasetError(f"{where}: is not an NPY file, or is damaged ({type(error).__name__}: {error})") from None
    if dtype.hasobject:
        raise DatasetError(f"{where}: holds pickled Python objects, which are not read")
    plan = Plan(file.tell(), lengths, dtype)
    end = plan.offset + plan.nbytes
    if min(lengths, default=0) < 0 or end > size or (whole and end != size):
        raise DatasetError(f"{where}: has {size} bytes, an array {lengths} of {dtype} needs {end}")
    return plan, bool(fortran)


def _read_header_3_0(file: IO[bytes], version: tuple[int, int]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read a header whose names of fields are UTF-8, for which NumPy has no public reader."""
    length = int.from_bytes(file.read(4), "little")
    if version != (3, 0) or length > _MAX_HEADER:
        raise ValueError(f"version {version} with a header of {length} bytes")
    header = ast.literal_eval(file.read(length).decode("utf-8"))
    return header["shape"], header["fortran_order"], np.lib.format.descr_to_dtype(header["descr"])


def beginning(file: IO[bytes], size: int, where: str) -> Plan:
    """Return where the array lies that begins an NPY file; more may lie behind it."""
    return _header(file, size, where, whole=False)[0]


def layout(file: IO[bytes], size: int, where: str) -> Plan | None:
    """Return where the array of an NPY file lies; None if it is in Fortran order."""
    plan, fortran = _header(file, size, where)
    return None if fortran and len(plan.shape) > 1 else plan


def read(file: IO[bytes], size: int, where: str) -> NDArray[Any]:
    """Return the array of an NPY file."""
    plan, fortran = _header(file, size, where)
    if fortran:
        turned = read_part(
            file, Plan(plan.offset, plan.shape[::-1], plan.dtype), tuple(slice(0, n) for n in plan.shape[::-1]), where
        )
        return np.ascontiguousarray(turned.T)
    return read_part(file, plan, tuple(slice(0, n) for n in plan.shape), where)


def read_part(file: IO[bytes], plan: Plan, bounds: tuple[slice, ...], where: str) -> NDArray[Any]:
    """Return a part of an array as a new one in the native byte order; only the runs of bytes that hold it are read."""
    if not plan.shape:
        return read_part(file, Plan(plan.offset, (1,), plan.dtype), (slice(0, 1),), where).reshape(())
    target = np.empty([part.stop - part.start for part in bounds], dtype=plan.dtype)
    if target.nbytes:
        split = _last_cut(plan.shape, bounds)
        run = math.prod(plan.shape[split + 1 :])
        length = target.shape[split] * run * plan.dtype.itemsize
        raw = target.reshape(-1).view(np.uint8).data
        for number, index in enumerate(np.ndindex(*target.shape[:split])):
            start = 0
            for axis, i in enumerate(index):
                start = start * plan.shape[axis] + bounds[axis].start + i
            start = (start * plan.shape[split] + bounds[split].start) * run
            _read_into(file, raw[number * length : (number + 1) * length], plan.offset + start * plan.dtype.itemsize, where)
    return native(target)


def _last_cut(shape: tuple[int, ...], bounds: tuple[slice, ...]) -> int:
    """Return the last axis of which not everything is wanted; what follows it is contiguous."""
    cut = [axis for axis, part in enumerate(bounds) if part.stop - part.start != shape[axis]]
    return cut[-1] if cut else 0


def _read_into(file: IO[bytes], target: memoryview, offset: int, where: str) -> None:
    if offset < 0:
        raise DatasetError(f"{where}: is damaged: its pixels would begin before the file")
    done = 0
    while done < len(target):
        got = os.preadv(file.fileno(), [target[done:]], offset + done)
        if got == 0:
            raise DatasetError(f"{where}: ends before its last value")
        done += got
