"""The writer of an OME-TIFF stream: each frame is a page that is whole before anything leads to it."""

from __future__ import annotations

import math
import os
import struct
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ClosedError, ConfigError, DatasetError
from mutoscope.storage import _files, _sync
from mutoscope.storage._behind import Behind
from mutoscope.storage._latency import LatencyHistogram
from mutoscope.storage._metadata import unfit_metadata
from mutoscope.storage.ome_tiff import _description, _layout
from mutoscope.storage.ome_tiff._codec import Encoder, mark_of_strips
from mutoscope.storage.ome_tiff._dataset import MAX_POSITION, Lock, Names, Sidecar, change_sidecar
from mutoscope.storage.ome_tiff._layout import FrameMeta, Geometry, Pages
from mutoscope.storage.ome_tiff._pagefile import PageFile, open_regular
from mutoscope.storage.ome_tiff._repair import FileState, place_planes, show_live_description
from mutoscope.storage.writer import (
    _MAX_ID,
    _PLANE,
    _UNKNOWN_PLANE,
    Durability,
    FrameStreamWriter,
    Receipt,
    _pack_plane,
    _unfit,
    _whole,
)

__all__ = ["OmeTiffWriter"]

_MAX_OPEN = 64
_STAMP = struct.Struct("<q")
_BEHIND_BYTES = 128 * 1024 * 1024
"""Handed to the device at a time."""


@dataclass
class _Open:
    """Where the next page of a file goes."""

    path: Path
    fd: int
    count: int
    ordinal: int
    record_at: int
    """Where the record of the last page is."""
    end: int
    """Where all that is in the file ends."""
    link_at: int
    size_t_at: int
    placed: bool
    behind: int
    """Where what has not been handed to the device begins."""


class OmeTiffWriter(FrameStreamWriter):
    """Appends the frames of one camera to an OME-TIFF, one file for each stage position. Made by `open_writer`.

    Not thread-safe: one thread appends. A second writer of the same data set, in any process, is refused. It is a context
    manager; leaving it closes the data set in order. A receipt's position counts all frames of the data set.
    """

    def __init__(  # the parts of the account are the base's; nothing of its files is used, so its set-up is not either
        self,
        names: Names,
        lock: Lock,
        encoder: Encoder | None,
        geometry: Geometry,
        states: list[FileState],
        durability: Durability,
    ) -> None:
        sidecar = Sidecar.read(names)
        assert sidecar is not None
        self.path = names.path
        self.shape = geometry.shape
        self.dtype = geometry.dtype
        self._names = names
        self._lock = lock
        self._encoder = encoder
        self._geometry = geometry
        self._sidecar = sidecar
        self._pages = Pages(geometry, sidecar.dataset)
        self._numpy_dtype = geometry.numpy_dtype
        self._frame_bytes = geometry.frame_bytes
        self._closed = False
        self._broken: OSError | None = None
        self._latency = LatencyHistogram()
        self._frames = self._failed = 0
        self._syncer = None
        self._behind = Behind()
        self._open_files: OrderedDict[int, _Open] = OrderedDict()
        self._files: dict[int, _Open] = {}
        for state in states:
            self._files[state.position] = self._take_up(state)
        self._count = sum(state.count for state in states)
        self._last = max((state.last_id for state in states), default=0)
        if durability == "power":
            self._syncer = _sync.Syncer(self._in_use)
            self._syncer.add([names.folder, names.sidecar, *(file.path for file in self._files.values())])
            self._syncer.start(self._count)

    def _take_up(self, state: FileState) -> _Open:
        fd = open_regular(state.path, os.O_RDWR)
        try:
            with _files.translated(state.path):
                file = PageFile(fd, state.path, self._pages.dataset)
                if file.geometry != self._geometry:
                    raise ConfigError(f"{state.path}: its strips have other sizes than this version writes; use a new name")
                show_live_description(file, state.count)
        finally:
            os.close(fd)
        last = state.last
        return _Open(
            state.path,
            -1,
            state.count,
            last.record.ordinal + 1,
            last.record.ifd_offset - _layout.RECORD.size,
            state.end,
            last.link_at,
            file.size_t_at,
            state.placed,
            _layout.align(state.end, _layout.BLOCK),
        )

    def missing(self) -> list[str]:
        """Return the files of the data set that somebody deleted, relative to its folder."""
        files = [self._names.sidecar, *(file.path for file in self._files.values())]
        return [file.name for file in files if not file.exists()]

    # ------------------------------------------------------------------ appending

    def append(
        self,
        array: NDArray[Any],
        *,
        frame_id: int | None = None,
        tick: int = 0,
        monotonic_ns: int = 0,
        utc_ns: int = 0,
        exposure_ms: float = math.nan,
        index: Any = None,
    ) -> Receipt:
        """Store one frame, as `FrameStreamWriter.append` does. `index.position` chooses the file."""
        began = time.perf_counter_ns()
        if self._closed:
            raise ClosedError(f"{self.path}: this writer is closed")
        if (
            type(array) is not np.ndarray
            or array.shape != self.shape
            or array.dtype != self._numpy_dtype
            or not array.flags.c_contiguous
        ):
            array = self._conform(array)
        last = self._last
        if frame_id is None:
            frame_id = last + 1
        elif type(frame_id) is not int:
            frame_id = _whole(frame_id, self.path)
        if not last < frame_id <= _MAX_ID:
            raise ConfigError(f"{self.path}: {_unfit(frame_id, last)}")
        syncer = self._syncer
        failure = self._broken or self._behind.error or (syncer.error if syncer is not None else None)
        if failure is not None:
            raise DatasetError(f"{self.path}: the device failed to store earlier frames ({failure})") from failure
        try:
            plane = _PLANE.unpack(_UNKNOWN_PLANE if index is None else _pack_plane(index) or _UNKNOWN_PLANE)
        except (struct.error, AttributeError, TypeError) as error:
            said = unfit_metadata(frame_id, tick, monotonic_ns, utc_ns, exposure_ms, index, error)
            raise ConfigError(f"{self.path}: {said}") from error
        meta = FrameMeta(frame_id, tick, monotonic_ns, utc_ns, exposure_ms, *plane)
        position = meta.position if meta.position > 0 else 0
        if position > MAX_POSITION:
            raise ConfigError(f"{self.path}: position {position} of frame {frame_id} is above {MAX_POSITION}")
        try:
            file = self._files.get(position)
            if file is None:
                self._create(position, meta, array)
            else:
                self._add(file, position, meta, array)
        except struct.error as error:
            said = unfit_metadata(frame_id, tick, monotonic_ns, utc_ns, exposure_ms, index, error)
            raise ConfigError(f"{self.path}: {said}") from error
        except OSError as error:
            self._failed += 1
            with _files.translated(self.path):
                raise error
        number = self._count
        self._count = number + 1
        self._last = frame_id
        self._frames += 1
        self._latency.add(time.perf_counter_ns() - began)
        return Receipt(number, frame_id, syncer)

    def _write_pixels(self, fd: int, array: NDArray[Any], at: int) -> tuple[tuple[int, ...], int]:
        """Write a frame as it is stored; returns how many bytes each strip has, and the mark."""
        if self._encoder is None:
            _files.write_all(fd, array, at)
            return (self._frame_bytes,), _layout.mark_of(array)
        counts, crcs = [], []
        for data, crc in self._encoder.strips(array):
            _files.write_all(fd, data, at)
            at += len(data)
            counts.append(len(data))
            crcs.append(crc)
        return tuple(counts), mark_of_strips(crcs)

    def _add(self, file: _Open, position: int, meta: FrameMeta, array: NDArray[Any]) -> None:
        fd = self._opened(position, file)
        place = self._pages.place(file.record_at, file.end)
        try:
            counts, mark = self._write_pixels(fd, array, place.pixels_at)
            slot = self._pages.build(place, file.ordinal, meta, counts, mark)
            kill_point("tiff.append.pixels_written")
            _files.write_all(fd, slot, place.record_at)
        except BaseException:  # a disk that is full, what cannot be stored, an interrupt
            os.ftruncate(fd, file.end)  # gives the room back
            raise
        kill_point("tiff.append.page_written")
        ifd = place.record_at + _layout.RECORD.size
        try:
            os.pwrite(fd, ifd.to_bytes(8, "little"), file.link_at)
            kill_point("tiff.append.linked")
            os.pwrite(fd, b"%0*d" % (_description.SIZE_T_DIGITS, file.count + 1), file.size_t_at)
        except OSError as error:
            self._take_back(fd, file, place.record_at, error)
            raise
        kill_point("tiff.append.counted")
        file.count += 1
        file.ordinal += 1
        file.record_at = place.record_at
        file.end = place.pixels_at + sum(counts)
        file.link_at = self._pages.link_at(ifd, False)
        file.placed |= meta.c >= 0 or meta.z >= 0
        if file.end - file.behind >= _BEHIND_BYTES:
            self._hand_over(file)

    def _hand_over(self, file: _Open) -> None:
        """Have the device store what is finished: all but the first block and the index block in use, which are written to."""
        unit = self._geometry.index_unit
        begin, end = file.behind, file.end // _layout.BLOCK * _layout.BLOCK
        file.behind = end
        index_at = file.record_at // unit * unit
        if begin < index_at:
            self._behind.take(os.dup(file.fd), begin, index_at - begin)
            begin = min(end, self._pages.index_end(file.record_at))
        if begin < end:
            self._behind.take(os.dup(file.fd), begin, end - begin)

    def _take_back(self, fd: int, file: _Open, record_at: int, error: OSError) -> None:
        """Remove a page that could not be counted; a device that refuses that too is not written to any more."""
        try:
            os.pwrite(fd, bytes(8), file.link_at)
            _files.write_all(fd, bytes(self._pages.slot_bytes), record_at)
            os.ftruncate(fd, file.end)
        except OSError:
            self._broken = error

    def _create(self, position: int, meta: FrameMeta, array: NDArray[Any]) -> None:
        """Make a file with its first frame: built aside, then renamed into place."""
        path = self._names.position(position)
        name = self._sidecar.own["camera"] + (f" p{position}" if position else "")
        size, rate = self._sidecar.number("pixel_size_um"), self._sidecar.number("rate_hz")
        _STAMP.pack(meta.utc_ns)  # what is no number is refused as in any other frame
        text = _description.live_description(self._geometry, name, size, rate, meta.utc_ns)
        place = self._pages.place(None, _layout.DESCRIPTION_AT + len(text))
        ifd = place.record_at + _layout.RECORD.size
        part = self._names.part()
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            counts, mark = self._write_pixels(fd, array, place.pixels_at)
            slot = self._pages.build(place, 0, meta, counts, mark, (len(text), _layout.DESCRIPTION_AT))
            _files.write_all(fd, slot, place.record_at)
            _files.write_all(fd, _layout.HEADER + ifd.to_bytes(8, "little") + text, 0)
            kill_point("tiff.create.written")
            if self._syncer is not None:
                os.fdatasync(fd)
            os.rename(part, path)
        except BaseException:
            os.close(fd)
            part.unlink(missing_ok=True)
            raise
        kill_point("tiff.create.placed")
        file = _Open(
            path,
            fd,
            1,
            1,
            place.record_at,
            place.pixels_at + sum(counts),
            self._pages.link_at(ifd, True),
            _description.size_t_at(text),
            meta.c >= 0 or meta.z >= 0,
            _layout.align(place.pixels_at, _layout.BLOCK),
        )
        self._files[position] = file
        self._keep_open(position, file)
        if self._syncer is not None:
            self._syncer.add([path, self._names.folder])

    # ------------------------------------------------------------------ descriptors

    def _opened(self, position: int, file: _Open) -> int:
        if file.fd < 0:
            file.fd = open_regular(file.path, os.O_RDWR)
            self._keep_open(position, file)
        return file.fd

    def _keep_open(self, position: int, file: _Open) -> None:
        """Count a descriptor among the open ones; the one that was opened longest ago goes."""
        if self._syncer is None:
            self._open_files[position] = file
            if len(self._open_files) > _MAX_OPEN:
                _, oldest = self._open_files.popitem(last=False)
                os.close(oldest.fd)
                oldest.fd = -1
            return
        with self._syncer.lock:
            self._open_files[position] = file
            if len(self._open_files) > _MAX_OPEN:
                _, oldest = self._open_files.popitem(last=False)
                self._syncer.retire(oldest.fd)
                oldest.fd = -1

    def _in_use(self) -> tuple[int, list[int]]:
        return self._count, [file.fd for file in list(self._open_files.values()) if file.fd >= 0]

    # ------------------------------------------------------------------ the end

    def close(self, ledger: Mapping[str, Any] | None = None) -> None:
        """End the data set in order: place planes that have a channel or a depth, save state and ledger. Twice is fine.

        Parameters
        ----------
        ledger : mapping, optional
            Saved as ``mutoscope.ledger`` of the sidecar.

        Raises
        ------
        DiskFullError
            If there is no room even for that. Every acknowledged frame is stored; `recover` finishes the rest later.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._lock.give_room()
            for position, file in self._files.items():
                if file.placed:
                    with _files.translated(file.path):
                        place_planes(PageFile(self._opened(position, file), file.path), self._sidecar)
            change: dict[str, Any] = {"state": "closed", "frames": self._count}
            if ledger is not None:
                change["ledger"] = dict(ledger)
            kill_point("tiff.close.described")
            change_sidecar(self._names, change)
            kill_point("tiff.close.state")
            if self._syncer is not None:
                self._syncer.add([self._names.sidecar, self._names.folder])
                self._syncer.sync()
        finally:
            self._release()

    def _release(self) -> None:
        self._closed = True
        self._behind.close()
        if self._syncer is not None:
            self._syncer.close()
        if self._encoder is not None:
            self._encoder.close()
        for file in self._open_files.values():
            os.close(file.fd)
            file.fd = -1
        self._open_files.clear()
        self._lock.release()
