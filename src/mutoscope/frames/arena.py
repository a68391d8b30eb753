"""Ranges of shared memory that their owner lends, for data whose order and size a message tells.

Where a ring has slots of one size, and its readers find in the memory what is theirs, here a message over a socket says which
range holds what, and another one gives it back. So a borrower can do no harm, and may be any program.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mutoscope.frames import _os
from mutoscope.frames._segments import Segment
from mutoscope.frames.copies import copy_to
from mutoscope.model.errors import ClosedError, ConfigError

__all__ = ["Arena", "ArenaReader"]

_ALIGN = 4096


class Arena:
    """Shared memory whose owner takes ranges, fills them, and gives them back when their borrower is done.

    The lowest free range is taken first: it was used last, and is still in the processor's caches. Not safe for several
    threads at a time. The memory has no name: it goes with the last process that maps it.

    Parameters
    ----------
    size : int
        Bytes; their pages are reserved at once.
    name : str
        Shown as ``memfd:mutoscope-arena:<name>`` in ``/proc/*/fd``.

    Raises
    ------
    RingSizeError
        If so much shared memory cannot be had.

    Examples
    --------
    >>> with Arena(1 << 20, "example") as arena:
    ...     at = arena.take(6)
    ...     arena.fill(at, np.full((2, 3), 7, np.uint8))
    ...     reader = ArenaReader(os.dup(arena.fd))
    ...     total = int(reader.view(at, 6).sum())
    ...     arena.give(at)
    ...     (total, arena.used)
    (42, 0)
    """

    def __init__(self, size: int, name: str) -> None:
        if size < 1:
            raise ConfigError(f"shared memory has at least 1 byte, not {size}")
        self.size = _os.round_to_page(size)
        self.fd = _os.create_sealed_segment(f"arena:{name}", self.size)
        try:
            self._segment: Segment | None = Segment(self.fd, self.size, writable=True)
        except BaseException:
            os.close(self.fd)
            raise
        self._free: list[tuple[int, int]] = [(0, self.size)]
        self._taken: dict[int, int] = {}
        self.used = 0
        """Bytes that are taken."""

    def take(self, nbytes: int) -> int | None:
        """Take a range; returns where it begins, or None if no free range is as large."""
        needed = max(1, -(-nbytes // _ALIGN)) * _ALIGN
        for number, (at, size) in enumerate(self._free):
            if size >= needed:
                if size == needed:
                    del self._free[number]
                else:
                    self._free[number] = (at + needed, size - needed)
                self._taken[at] = needed
                self.used += needed
                return at
        return None

    def give(self, at: int) -> None:
        """Give a range back."""
        size = self._taken.pop(at)
        self.used -= size
        number = bisect_left(self._free, (at, 0))
        if number < len(self._free) and self._free[number][0] == at + size:
            size += self._free.pop(number)[1]
        if number and sum(self._free[number - 1]) == at:
            at, before = self._free[number - 1]
            self._free[number - 1] = (at, before + size)
        else:
            self._free.insert(number, (at, size))

    def fill(self, at: int, data: npt.NDArray[Any]) -> None:
        """Copy an array into a range, past the processor's caches where it is large: its reader is another process."""
        if self._segment is None:
            raise ClosedError("this shared memory is closed")
        if not copy_to(self._segment.address + at, data):
            np.copyto(self.view(at, data.shape, data.dtype), data)

    def view(self, at: int, shape: Sequence[int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return a range as an array of this form, writable; no copy."""
        if self._segment is None:
            raise ClosedError("this shared memory is closed")
        nbytes = math.prod(shape) * dtype.itemsize
        return self._segment.bytes[at : at + nbytes].view(dtype).reshape(shape)

    def close(self) -> None:
        """Let go of the memory; borrowers keep what they have mapped. Twice is fine."""
        if self._segment is not None:
            self._segment = None
            os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class ArenaReader:
    """The borrower's side of an :class:`Arena`: read-only. It has one descriptor, that of the mapping.

    Parameters
    ----------
    fd : int
        The arena's descriptor; it is closed here, whatever happens.

    Raises
    ------
    OSError
        If it cannot be mapped, or its owner could still shrink it.
    """

    def __init__(self, fd: int) -> None:
        try:
            self.size = _os.sealed_bytes(fd)
            self._segment = Segment(fd, self.size, writable=False)
        finally:
            os.close(fd)

    def view(self, at: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return a range as bytes, read-only; no copy.

        Raises
        ------
        ValueError
            If it does not lie inside.
        """
        if not 0 <= at <= at + nbytes <= self.size:
            raise ValueError(f"bytes {at} to {at + nbytes} do not lie in shared memory of {self.size}")
        return self._segment.bytes[at : at + nbytes]
