"""What a frame carries besides its pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

__all__ = ["UNPLACED", "USER_BYTES", "FrameInfo", "PlaneIndex"]

USER_BYTES = 64
"""Most bytes of the block that a producer may add to each frame."""


class PlaneIndex(msgspec.Struct, frozen=True):
    """Where a frame belongs in (t, c, z, position); -1 where nobody said.

    Parameters
    ----------
    t, c, z : int
        Index in time, optical channel and depth.
    position : int
        Index of the stage position (a field of a plate, a tile of a grid).
    """

    t: int = -1
    c: int = -1
    z: int = -1
    position: int = -1

    @property
    def is_placed(self) -> bool:
        """Whether at least one component is stated."""
        return self.t >= 0 or self.c >= 0 or self.z >= 0 or self.position >= 0

    @classmethod
    def from_axes(cls, index: Mapping[str, int], *, grid_size: int = 1) -> PlaneIndex:
        """Place a frame by named axes, as ``useq.MDAEvent.index`` names them.

        Parameters
        ----------
        index : mapping of str to int
            Keys ``t``, ``c``, ``z``, ``p`` (position) and ``g`` (tile of a grid within a position); others are ignored.
            Source: useq-schema, ``useq.Axis``.
        grid_size : int
            Tiles a position, so that tile ``g`` of position ``p`` becomes position ``p * grid_size + g``.
        """
        position = index.get("p", -1)
        if "g" in index:
            position = max(position, 0) * grid_size + index["g"]
        return cls(t=index.get("t", -1), c=index.get("c", -1), z=index.get("z", -1), position=position)


UNPLACED = PlaneIndex()
"""The index of a frame that nobody placed."""


class FrameInfo(msgspec.Struct, frozen=True):
    """One frame's header.

    Parameters
    ----------
    frame_id : int
        From 1, advancing by one with each published frame; 0 means no frame.
    tick : int
        The camera's own exposure counter, 0 where it has none. A gap means exposures that never became frames.
    monotonic_ns : int
        ``CLOCK_MONOTONIC`` of this host when the frame reached the camera process: for latencies within one host.
    utc_ns : int
        Nanoseconds since the Unix epoch at the same moment: for the record.
    exposure_ms : float
        NaN where unknown.
    shape : tuple of int
        ``(y, x)`` in pixels.
    dtype : str
        NumPy name, such as ``"uint16"``.
    index : PlaneIndex
        The place in (t, c, z, position).
    user : bytes
        At most 64 bytes of the producer's own.
    """

    frame_id: int
    tick: int = 0
    monotonic_ns: int = 0
    utc_ns: int = 0
    exposure_ms: float = math.nan
    shape: tuple[int, int] = (0, 0)
    dtype: str = "uint16"
    index: PlaneIndex = UNPLACED
    user: bytes = b""
