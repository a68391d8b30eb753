"""Frames in hand: leases on slots, the views of them, batches.

A lease is what pins a slot. It is the base of every view of the frame's pixels and deliberately not an ndarray: NumPy keeps
only the innermost ndarray as the base of a slice, so a frame's own array may be gone while a slice of it lives. A lease
cannot be lost that way, and the slot stays pinned until the last view is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mutoscope.frames import _ring_native as native
from mutoscope.model.frame import FrameInfo, PlaneIndex

__all__ = ["Batch", "Frame", "Lease"]


class Lease:
    """The hold of one reader on one slot, as long as it lives. Views refer to it; nobody calls it."""

    __slots__ = ("__array_interface__", "__weakref__", "_mapping")

    def __init__(self, interface: dict[str, Any], mapping: object) -> None:
        self.__array_interface__ = interface
        self._mapping = mapping


class Frame:
    """One published frame. A context manager: leaving it gives the slot back as soon as no view of ``array`` lives.

    The header stays readable after that, the pixels do not: use :meth:`copy` to keep them.
    """

    __slots__ = ("_array", "_delivery", "_header", "_lease", "frame_id")

    frame_id: int
    """From 1; it advances by one with each published frame."""

    def __init__(self, delivery: bytes, frame_id: int, lease: Lease) -> None:
        self.frame_id = frame_id
        self._delivery = delivery
        self._lease: Lease | None = lease
        self._array: npt.NDArray[Any] | None = None
        self._header: tuple[Any, ...] | None = None

    @property
    def array(self) -> npt.NDArray[Any]:
        """The pixels, shape ``(y, x)``: a read-only view of the slot, no copy. The slot is held while any view lives.

        Raises
        ------
        ValueError
            After :meth:`release`.
        """
        array = self._array
        if array is None:
            if self._lease is None:
                raise ValueError(f"frame {self.frame_id} is released: its pixels may be overwritten; copy() keeps them")
            array = self._array = np.asarray(self._lease)
        return array

    def _field(self, number: int) -> Any:
        header = self._header
        if header is None:
            header = self._header = native.HEADER.unpack_from(self._delivery, native.HEADER_AT)
        return header[number]

    @property
    def tick(self) -> int:
        """The camera's own counter, 0 where it has none."""
        return int(self._field(1))

    @property
    def monotonic_ns(self) -> int:
        """``CLOCK_MONOTONIC`` of this host when the frame was published."""
        return int(self._field(2))

    @property
    def utc_ns(self) -> int:
        """Nanoseconds since the Unix epoch at that moment."""
        return int(self._field(3))

    @property
    def exposure_ms(self) -> float:
        """Exposure time, NaN where unknown."""
        return float(self._field(4))

    @property
    def shape(self) -> tuple[int, int]:
        """``(y, x)`` in pixels."""
        return self._field(5), self._field(6)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        dtype: np.dtype[Any] = np.dtype(self._field(7).rstrip(b"\0").decode())
        return dtype

    @property
    def index(self) -> PlaneIndex:
        """The place in (t, c, z, position)."""
        return PlaneIndex(self._field(8), self._field(9), self._field(10), self._field(11))

    @property
    def user(self) -> bytes:
        """The producer's own block, at most 64 bytes."""
        return bytes(self._field(14)[: self._field(12)])

    @property
    def info(self) -> FrameInfo:
        """The whole header as a value of its own."""
        return FrameInfo(
            frame_id=self.frame_id,
            tick=self.tick,
            monotonic_ns=self.monotonic_ns,
            utc_ns=self.utc_ns,
            exposure_ms=self.exposure_ms,
            shape=self.shape,
            dtype=self.dtype.name,
            index=self.index,
            user=self.user,
        )

    def copy(self) -> npt.NDArray[Any]:
        """Return the pixels as an array of the caller's own."""
        return self.array.copy()

    def release(self) -> None:
        """Give the slot back once no view of ``array`` lives. Twice is fine."""
        self._array = None
        self._lease = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._array = None
        self._lease = None

    def __repr__(self) -> str:
        height, width = self.shape
        return f"<Frame {self.frame_id} {height}x{width} {self.dtype.name}{' released' if self._lease is None else ''}>"


class Batch(list[Frame]):
    """Frames handed over together, oldest first. A context manager that releases them all.

    Parameters
    ----------
    frames : iterable of Frame
        In order.
    gaps : list of (first_id, count)
        Frames that are lost or skipped before and between these.
    """

    def __init__(self, frames: Iterable[Frame] = (), gaps: Iterable[tuple[int, int]] = ()) -> None:
        super().__init__(frames)
        self.gaps = list(gaps)

    def release(self) -> None:
        """Release every frame of the batch. Twice is fine."""
        for frame in self:
            frame.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.release()
