"""The reader of an OME-TIFF stream, and what `info` tells of one."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ClosedError, ConfigError, DatasetError, DatasetNotFoundError
from mutoscope.storage._level_reader import Part
from mutoscope.storage.ome_tiff import _codec, _layout
from mutoscope.storage.ome_tiff._dataset import Names, Sidecar
from mutoscope.storage.ome_tiff._layout import Geometry, Page
from mutoscope.storage.ome_tiff._pagefile import DamagedPageError, PageFile, open_regular
from mutoscope.storage.reader import FrameStreamReader

__all__ = ["OmeTiffReader", "read_pixels"]

_MAX_OPEN = 64
_PLANES = ("t", "c", "z", "position")


def read_pixels(file: PageFile, page: Page) -> NDArray[Any]:
    """Return the frame of a page as a new array, or raise DatasetError if it is not as it was written."""
    geometry = file.geometry
    record = page.record
    if record.data_offset + record.data_bytes > os.fstat(file.fd).st_size:
        raise DamagedPageError(f"{file.path}: is too short for frame {record.frame_id}")
    try:
        if geometry.compression == "none":
            frame = np.empty(geometry.shape, geometry.numpy_dtype)
            file.read_into(frame.data.cast("B"), page)
            mark = _layout.mark_of(frame)
        else:
            frame, mark = _codec.decode(geometry, memoryview(file.data(page)), page.counts)
    except (ValueError, MemoryError) as error:
        raise DamagedPageError(f"{file.path}: frame {record.frame_id} cannot be read: {error}") from error
    if mark != record.mark:
        raise DamagedPageError(f"{file.path}: the pixels of frame {record.frame_id} are not those that were written")
    return frame


class _File:
    """The pages of one file that were seen so far."""

    def __init__(self, path: Path, dataset: bytes | None) -> None:
        self.path = path
        self.fd = open_regular(path)
        try:
            self.file = PageFile(self.fd, path, dataset)
        except BaseException:
            os.close(self.fd)
            raise
        self.pages: list[Page] = []

    def refresh(self) -> None:
        last = self.pages[-1] if self.pages else None
        self.pages.extend(self.file.walk(last, len(self.pages)))

    def suspend(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def resume(self) -> None:
        if self.fd < 0:
            self.fd = open_regular(self.path)
            self.file.fd = self.fd


class OmeTiffReader(FrameStreamReader):
    """Reads the frames of an OME-TIFF stream, of all its positions, by their ids. Made by `open_reader`.

    It may be open while the stream is written, by any process: `refresh` takes up what came since. Not thread-safe. It
    follows no links. It is a context manager.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._names = Names(path)
        self.path = self._names.path
        self._files: dict[int, _File] = {}
        self._in_use: OrderedDict[int, None] = OrderedDict()
        self._closed = False
        self._ids = np.empty(0, dtype=np.uint64)
        self._order: list[tuple[int, Page]] = []
        self._sidecar = self._read_sidecar()
        try:
            self.refresh()
        except BaseException:
            self.close()
            raise

    def _read_sidecar(self) -> Sidecar | None:
        try:
            return Sidecar.read(self._names)
        except DatasetNotFoundError as error:
            raise DatasetError(str(error)) from error

    def refresh(self) -> int:
        """Take up the frames that were written since the last look; return how many."""
        if self._closed:
            raise ClosedError(f"{self.path}: this reader is closed")
        before = len(self._order)
        sidecar = self._sidecar = self._read_sidecar()
        complete = sidecar is not None and sidecar.own.get("state") in ("closed", "recovered")
        try:
            present = self._names.present()
        except FileNotFoundError:
            present = {}
        if not present and sidecar is None:
            raise DatasetNotFoundError(f"{self.path}: there is no such data set")
        dataset = sidecar.dataset if sidecar is not None else None
        self._look(present, dataset)
        newest = max((entry.pages[-1].record.frame_id for entry in self._files.values()), default=0)
        if len(present) > 1:
            self._look(present, dataset)  # all that is older than the newest of the first look is seen by now
        order = [
            (position, page)
            for position, entry in self._files.items()
            for page in entry.pages
            if page.record.frame_id <= newest
        ]
        order.sort(key=lambda found: found[1].record.frame_id)
        ids = np.array([page.record.frame_id for _, page in order], dtype=np.uint64)
        if np.any(ids[1:] <= ids[:-1]) or (ids.size and ids[0] == 0):
            raise DatasetError(f"{self.path}: holds the same frame ids twice, so it is damaged")
        promised = sidecar.own.get("frames") if sidecar is not None else None
        if complete and isinstance(promised, int) and len(order) < promised:
            raise DatasetError(f"{self.path}: holds {len(order)} frames and had {promised}, so it is damaged")
        self._order, self._ids = order, ids
        return len(order) - before

    def _look(self, present: dict[int, Path], dataset: bytes | None) -> None:
        for position, path in present.items():
            if dataset is None and self._files:
                dataset = next(iter(self._files.values())).file.dataset
            entry = self._files.get(position)
            if entry is None:
                entry = _File(path, dataset)
                self._files[position] = entry
            self._use(position)
            entry.refresh()
            if entry.file.geometry != next(iter(self._files.values())).file.geometry:
                raise DatasetError(f"{path}: its frames are of another kind than those of the other positions")

    def _use(self, position: int) -> _File:
        entry = self._files[position]
        entry.resume()
        self._in_use[position] = None
        self._in_use.move_to_end(position)
        if len(self._in_use) > _MAX_OPEN:
            oldest, _ = self._in_use.popitem(last=False)
            self._files[oldest].suspend()
        return entry

    # ------------------------------------------------------------------ what it is

    @property
    def images(self) -> tuple[str, ...]:
        """The files that it reads."""
        return tuple(entry.path.name for entry in self._files.values())

    @property
    def _geometry(self) -> Geometry:
        for entry in self._files.values():
            return entry.file.geometry
        assert self._sidecar is not None
        return self._sidecar.geometry()

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the frames."""
        return self._geometry.shape

    @property
    def dtype(self) -> str:
        """The data type of the frames."""
        return self._geometry.dtype

    @property
    def compression(self) -> str:
        """``"none"``, ``"zlib"`` or ``"zstd"``."""
        return self._geometry.compression

    def _column(self, name: str) -> NDArray[Any]:
        kind = _KINDS.get(name, np.int32)
        field = name if name in _KINDS or name in _PLANES else "tick"
        return np.array([getattr(page.record, field) for _, page in self._order], dtype=kind)

    def planes(self) -> dict[str, NDArray[np.int32]] | None:
        """Return t, c, z and position of the frames (-1: unknown), None if none had any."""
        found: dict[str, NDArray[np.int32]] = {name: self._column(name) for name in _PLANES}
        return found if any(np.any(values >= 0) for values in found.values()) else None

    # ------------------------------------------------------------------ pixels

    @property
    def levels(self) -> int:
        """1: an OME-TIFF has no pyramid."""
        return 1

    def levels_of(self, number: int) -> int:
        """Return 1: an OME-TIFF has no pyramid."""
        return 1

    def shape_of(self, number: int, level: int = 0) -> tuple[int, int]:
        """Return (y, x) of a frame."""
        return self.shape

    def _read(self, number: int, part: Part = None, level: int = 0) -> NDArray[Any]:
        if self._closed:
            raise ClosedError(f"{self.path}: this reader is closed")
        if level != 0:
            raise ConfigError(f"{self.path}: is stored in one size, so there is no level {level}")
        position, page = self._at(number)
        whole = read_pixels(self._use(position).file, page)
        return whole if part is None else whole[part].copy()

    def _at(self, number: int) -> tuple[int, Page]:
        size = len(self._order)
        if not -size <= number < size:
            raise IndexError(f"frame {number} of {size}")
        return self._order[number]

    def position_of(self, number: int) -> tuple[str, int]:
        """Return the file of a frame and its page there."""
        position, page = self._at(number)
        entry = self._files[position]
        return entry.path.name, entry.pages.index(page)

    # ------------------------------------------------------------------ the rest

    @property
    def ledger(self) -> dict[str, Any] | None:
        """The account of frames saved in the sidecar; None if there is none."""
        ledger = self.attributes.get("ledger")
        return dict(ledger) if isinstance(ledger, dict) else None

    @property
    def attributes(self) -> dict[str, Any]:
        """What the sidecar says: camera, state, pixel size, …; empty if it is not there."""
        sidecar = self._read_sidecar()
        return {} if sidecar is None else sidecar.own

    def close(self) -> None:
        """Close the files; twice is fine."""
        self._closed = True
        for entry in self._files.values():
            with contextlib.suppress(OSError):
                entry.suspend()


_KINDS: dict[str, Any] = {
    "tick": np.uint64,
    "monotonic_ns": np.int64,
    "utc_ns": np.int64,
    "exposure_ms": np.float64,
}
