"""What an export made, and how frames lie in a stack."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.model.install import command_for
from mutoscope.storage.converting._sources import Frames

__all__ = ["ExportReport", "Progress", "need_tifffile", "places", "rate_of"]

Progress = Callable[[int, int, str], None]
"""Called with planes done, planes in all, and what is done."""

IMAGEJ_DTYPES = ("uint8", "uint16", "float32")
"""What ImageJ's own files hold. Source: ``ij.io.FileInfo``, GRAY8, GRAY16_UNSIGNED and GRAY32_FLOAT."""


class ExportReport(msgspec.Struct, frozen=True):
    """What an export made.

    Parameters
    ----------
    source, target, tool : str
    planes : int
        Images that were written.
    files : int
        Files that were written.
    notes : tuple of str
        What a person should know: what was left out, and why.
    """

    source: str
    target: str
    tool: str
    planes: int
    files: int
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return it as a person reads it."""
        files = "1 file" if self.files == 1 else f"{self.files:,} files"
        return [f"{self.source} → {self.target} for {self.tool}: {self.planes:,} planes in {files}", *self.notes]


def need_tifffile() -> Any:
    """Return tifffile, or raise with the command that installs it."""
    try:
        import tifffile
    except ImportError as error:
        raise BackendUnavailableError(f"TIFF needs tifffile: {command_for('tiff', 'tifffile')}") from error
    return tifffile


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell a full disk, which NumPy's ``tofile`` tells without the number of the error."""
    try:
        yield
    except OSError as error:
        if error.errno is None and "requested and" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def check_dtype(path: Path, frames: Frames, tool: str) -> None:
    """Raise ConfigError for pixels that ImageJ and CellProfiler do not read as they are."""
    if frames.dtype not in IMAGEJ_DTYPES:
        known = ", ".join(IMAGEJ_DTYPES)
        raise ConfigError(f"{path}: {tool} reads pixels of {known}, not {frames.dtype}; mutoscope convert makes an OME-TIFF")


def places(frames: Frames, position: int | None, path: Path) -> tuple[tuple[int, int, int], list[int], str]:
    """Return the sizes (t, c, z), the frames in that order (z fastest), and a note; each frame is a time if they fill no grid.

    Raises
    ------
    ConfigError
        If there are several positions and none was chosen, or no such one.
    """
    indices = [frames.index(number) for number in range(frames.count)]
    stated = sorted({index.position for index in indices if index is not None and index.position >= 0})
    if position is not None and position not in stated:
        raise ConfigError(f"{path}: has no position {position}; it has {', '.join(map(str, stated)) or 'none'}")
    if position is None and len(stated) > 1:
        raise ConfigError(f"{path}: has several positions, choose one with position=: {', '.join(map(str, stated))}")
    chosen = [k for k, index in enumerate(indices) if position is None or (index is not None and index.position == position)]
    note = ""
    if all(index is None for index in indices):
        return (len(chosen), 1, 1), chosen, note
    following: dict[tuple[int, int], int] = {}
    found = {}
    for number in chosen:
        index = indices[number]
        c, z = (max(index.c, 0), max(index.z, 0)) if index is not None else (0, 0)
        t = index.t if index is not None and index.t >= 0 else following.get((c, z), 0)
        following[c, z] = t + 1
        found[t, c, z] = number
    ranks = {t: rank for rank, t in enumerate(sorted({place[0] for place in found}))}
    sizes = (len(ranks), 1 + max(place[1] for place in found), 1 + max(place[2] for place in found))
    if len(found) == len(chosen) == int(np.prod(sizes)):
        return (
            sizes,
            [number for _, number in sorted((((ranks[t], c, z)), number) for (t, c, z), number in found.items())],
            note,
        )
    note = "the frames do not fill a stack of channels and depths, so each is a point in time; their places are in the labels"
    return (len(chosen), 1, 1), chosen, note


def rate_of(frames: Frames) -> float | None:
    """Return frames a second: as stated, else from the times of the first and the last frame."""
    if frames.rate_hz is not None or frames.count < 2:
        return frames.rate_hz
    first, last = (frames.metadata(number) for number in (0, frames.count - 1))
    span = last.get("monotonic_ns", 0) - first.get("monotonic_ns", 0)
    steps = last.get("frame_id", 0) - first.get("frame_id", 0)
    return steps * 1e9 / span if span > 0 and steps > 0 and first.get("monotonic_ns") else None
