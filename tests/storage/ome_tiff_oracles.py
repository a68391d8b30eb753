"""What the tests of OME-TIFF share: frames, ids and places as tifffile and the specification give them, not our reader."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from storage_oracles_frames import frame_of

RECORD = struct.Struct("<16s16sQQQqqd4iQQQQII")  # as docs/layout-ome-tiff.md says
TAG = 50740


@dataclass(frozen=True)
class TiffFrame:
    """A page as tifffile sees it."""

    frame_id: int
    place: tuple[int, int, int, int]
    pixels: np.ndarray
    offset: int
    stored: int


def tiff_frames(path: Path) -> list[TiffFrame]:
    """Return all pages of a file; asserts that it is an OME-TIFF whose one series shows them all, or all but the last."""
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert file.is_bigtiff
        pages = list(file.pages)
        [series] = file.series
        assert int(np.prod(series.shape[:-2], dtype=int)) in (len(pages), len(pages) - 1)
        found = []
        for page in pages:
            record = RECORD.unpack(page.tags[TAG].value)
            assert record[0] == b"mutoscope\0tiff\1\0"
            found.append(TiffFrame(record[3], record[8:12], page.asarray(), page.dataoffsets[0], sum(page.databytecounts)))
    return found


def check_frames(path: Path, ids: dict[int, int] | None = None) -> list[int]:
    """Assert that pages are exact and that page k has the id of `ids`; return the ids of all pages."""
    found = tiff_frames(path)
    for frame in found:
        expected = frame_of(frame.frame_id, frame.pixels.shape, str(frame.pixels.dtype))
        assert frame.pixels.tobytes() == expected.tobytes(), f"{path}: frame {frame.frame_id}"
    numbers = [frame.frame_id for frame in found]
    assert numbers == sorted(set(numbers))
    for page, frame_id in (ids or {}).items():
        assert numbers[page] == frame_id
    return numbers


def page_count(path: Path) -> int:
    """Return how many pages a file has; 0 if it is not there."""
    with contextlib.suppress(FileNotFoundError):
        return len(tiff_frames(path))
    return 0
