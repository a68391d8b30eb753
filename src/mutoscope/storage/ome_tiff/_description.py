"""The OME-XML of a file: one with a fixed-width SizeT that is counted up in place, and one that places every plane."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from mutoscope.storage.ome_tiff._layout import DESCRIPTION_AT, OME_TYPES, Geometry

__all__ = ["Placement", "SIZE_T_DIGITS", "describe", "live_description", "place", "size_t_at"]

SIZE_T_DIGITS = 10
MAX_PLACED = 500_000
"""Most planes that are placed one by one; the description of more would take too much memory in every reader."""

_SIZE_T = b'SizeT="'
_OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


@dataclass(frozen=True)
class Placement:
    """Sizes and, unless the pages come in that order, the place of each page.

    Parameters
    ----------
    order : str
        DimensionOrder.
    z, c, t : int
        Sizes.
    planes : sequence of (t, c, z)
        Of each page; empty if the pages are in `order`.
    """

    order: str
    z: int
    c: int
    t: int
    planes: tuple[tuple[int, int, int], ...] = ()


def describe(
    geometry: Geometry, name: str, placement: Placement, pixel_size_um: float | None, rate_hz: float | None, utc_ns: int
) -> bytes:
    """Return the OME-XML, ended by the zero that counts as part of it."""
    height, width = geometry.shape
    size = "" if pixel_size_um is None else f' PhysicalSizeX="{pixel_size_um!r}" PhysicalSizeY="{pixel_size_um!r}"'
    period = f' TimeIncrement="{1 / rate_hz!r}"' if rate_hz is not None and placement.c == placement.z == 1 else ""
    date = ""
    if 0 < utc_ns < 253402300800_000_000_000:
        stamp = datetime.fromtimestamp(utc_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        date = f"<AcquisitionDate>{stamp}</AcquisitionDate>"
    channels = "".join(f'<Channel ID="Channel:0:{c}" SamplesPerPixel="1"/>' for c in range(placement.c))
    if placement.planes:
        data = "".join(
            f'<TiffData IFD="{page}" FirstT="{t}" FirstC="{c}" FirstZ="{z}" PlaneCount="1"/>'
            for page, (t, c, z) in enumerate(placement.planes)
        )
    else:
        data = "<TiffData/>"
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{_OME}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        f' xsi:schemaLocation="{_OME} {_OME}/ome.xsd" Creator="Mutoscope"><Image ID="Image:0" Name="{name}">{date}'
        f'<Pixels ID="Pixels:0" DimensionOrder="{placement.order}" Type="{OME_TYPES[geometry.dtype]}" SizeX="{width}"'
        f' SizeY="{height}" SizeZ="{placement.z}" SizeC="{placement.c}" SizeT="{placement.t:0{SIZE_T_DIGITS}d}"'
        f' BigEndian="false"{size}{period}>{channels}{data}</Pixels></Image></OME>'
    )
    return text.encode() + b"\0"


def live_description(geometry: Geometry, name: str, pixel_size_um: float | None, rate_hz: float | None, utc_ns: int) -> bytes:
    """Return the OME-XML of a file with one frame: every page is a point in time."""
    return describe(geometry, name, Placement("XYZCT", 1, 1, 1), pixel_size_um, rate_hz, utc_ns)


def size_t_at(description: bytes) -> int:
    """Return where in the file the digits of SizeT stand in a live description, or raise ValueError."""
    return DESCRIPTION_AT + description.index(_SIZE_T) + len(_SIZE_T)


def place(planes: NDArray[np.int32]) -> Placement | None:
    """Return where pages belong that have a channel or a depth; None if time alone describes them.

    A page without t is the next one of its channel and depth; otherwise t counts the times that the file has. Pages that
    claim one place twice, or leave a place empty, are not placed: Bio-Formats cannot open a stack with missing planes.

    Parameters
    ----------
    planes : ndarray, shape (n, 3)
        t, c, z of each page, -1 where unknown.
    """
    count = len(planes)
    if not 0 < count <= MAX_PLACED or not np.any(planes[:, 1:] >= 0):
        return None
    stated = list(_with_times(planes.tolist()))
    ranks = {time: rank for rank, time in enumerate(sorted({time for time, _, _ in stated}))}
    placed = [(ranks[time], c, z) for time, c, z in stated]
    t, c, z = (1 + max(plane[axis] for plane in placed) for axis in range(3))
    if t * c * z != count or len(set(placed)) != count:
        return None
    if placed == [(i, j, k) for i in range(t) for j in range(c) for k in range(z)]:
        return Placement("XYZCT", z, c, t)
    if placed == [(i, j, k) for i in range(t) for k in range(z) for j in range(c)]:
        return Placement("XYCZT", z, c, t)
    return Placement("XYZCT", z, c, t, tuple(placed))


def _with_times(planes: Iterable[list[int]]) -> Iterable[tuple[int, int, int]]:
    following: dict[tuple[int, int], int] = {}
    for t, c, z in planes:
        spot = (max(c, 0), max(z, 0))
        time = t if t >= 0 else following.get(spot, 0)
        following[spot] = time + 1
        yield time, *spot
