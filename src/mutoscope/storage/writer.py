"""The writer of one image: appends frames that stay readable and exact whatever ends the process."""

from __future__ import annotations

import math
import operator
import os
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ClosedError, ConfigError, DatasetError
from mutoscope.storage import _behind, _files, _flat, _layout, _nodes, _seal, _sync, space
from mutoscope.storage._latency import LatencyHistogram
from mutoscope.storage._metadata import unfit_metadata

if TYPE_CHECKING:
    from mutoscope.storage._pyramid import Companion

__all__ = ["Durability", "FrameStreamWriter", "Receipt", "WriterStatistics"]

Durability = Literal["process", "power"]
_ROWS = _layout.RECORDS_PER_CHUNK
_MAX_ID = 2**62
"""So that what comes after it fits into a signed word of 64 bits too; at 1 MHz it is reached after 146,000 years."""
_NAN = math.nan
_RECORD = struct.Struct("<QqqdQ")  # tick, monotonic_ns, utc_ns, exposure_ms, frame_id: 8 bytes each
_PLANE = struct.Struct("<4i")


def _pack_plane(index: Any) -> bytes | None:
    """Return t, c, z, position as stored, -1 for unknown; None if all are."""
    names = _layout.PLANE_ARRAYS
    if isinstance(index, Mapping):
        unknown = sorted(str(name) for name in index if name not in names)
        if unknown:
            raise TypeError(f"a plane has {', '.join(names)}, not {', '.join(unknown)}")
        values = [index.get(name) for name in names]
    else:
        values = [getattr(index, name) for name in names]
    plane = _PLANE.pack(*(-1 if value is None else value for value in values))
    return None if plane == _UNKNOWN_PLANE else plane


_UNKNOWN_PLANE = _PLANE.pack(-1, -1, -1, -1)


def _whole(frame_id: Any, path: Path) -> int:
    """Return an id of another type of whole numbers, such as NumPy's."""
    try:
        return operator.index(frame_id)
    except TypeError:
        raise ConfigError(f"{path}: frame_id is a whole number, not {frame_id!r}") from None


def _unfit(frame_id: int, last: int) -> str:
    """Say what is wrong with an id, `last` being the one before."""
    if frame_id > _MAX_ID:
        return f"frame_id {frame_id} is too large: ids end at 2**62"
    return f"frame_id {frame_id} does not follow {last}, the last one"


def check_durability(durability: str) -> None:
    """Raise ConfigError unless it is one that there is."""
    if durability not in ("process", "power"):
        raise ConfigError(f"durability is 'process' or 'power', not {durability!r}")


class Receipt:
    """What `append` answers: the frame is written, and a stock reader finds it; or, of a compressed OME-Zarr, it will be soon.

    Attributes
    ----------
    position : int
        Its place along t in its image.
    frame_id : int
        Its id.
    """

    __slots__ = ("_syncer", "frame_id", "position")

    def __init__(self, position: int, frame_id: int, syncer: _sync.Syncer | None) -> None:
        self.position = position
        self.frame_id = frame_id
        self._syncer = syncer

    @property
    def acknowledged(self) -> bool:
        """Whether the frame is written, where a stock reader finds it. At once, unless the stream is compressed OME-Zarr."""
        return True

    @property
    def error(self) -> Exception | None:
        """Why the frame was lost after it was taken; None unless it was."""
        return None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the frame is acknowledged: True; False on time-out. Raises `error` if the frame was lost."""
        return True

    @property
    def durable(self) -> Durability | None:
        """``"process"``: survives the death of every process; ``"power"``: is on the device as well; None: not acknowledged."""
        if not self.acknowledged:
            return None
        syncer = self._syncer
        return "power" if syncer is not None and syncer.synced > self.position else "process"

    def __repr__(self) -> str:
        return f"Receipt(position={self.position}, frame_id={self.frame_id}, durable={self.durable!r})"


@dataclass(frozen=True)
class WriterStatistics:
    """What a writer did since it was opened.

    Attributes
    ----------
    frames, bytes : int
        Appended by this writer, pixels only.
    failed : int
        Appends that raised because of the device.
    last_frame_id : int
        Of the newest stored frame; 0: none.
    durable_frames : int
        Frames of the image known to be on the device; 0 unless durability is ``"power"``.
    append_p50_us, append_p99_us, append_max_us : float
        Time of an append, within 1/8 (p50, p99) or exact (max); nan before the first.
    pending : int
        Appended, but not acknowledged yet: of compressed OME-Zarr only.
    stored_bytes : int
        What was written for these pixels; shards that were published again count each time.
    acknowledge_p50_us, acknowledge_p99_us, acknowledge_max_us : float
        Time from the beginning of an append to the acknowledgement.
    """

    frames: int
    bytes: int
    failed: int
    last_frame_id: int
    durable_frames: int
    append_p50_us: float
    append_p99_us: float
    append_max_us: float
    pending: int = 0
    stored_bytes: int = 0
    acknowledge_p50_us: float = _NAN
    acknowledge_p99_us: float = _NAN
    acknowledge_max_us: float = _NAN


class FrameStreamWriter:
    """Appends the frames of one camera to one image. Made by `open_writer` and `open_image_writer`.

    Not thread-safe: one thread appends. A second writer of the same image, in any process, is refused. It is a context
    manager; leaving it closes the image in order.

    Attributes
    ----------
    path : Path
        The image's group.
    shape : tuple of int
        (y, x) of every frame.
    dtype : str
        Of every frame.
    """

    def __init__(self, image: Path, *, previous_id: int = 0, durability: Durability = "process", pyramid: bool = False) -> None:
        check_durability(durability)
        self.path = image
        self._level_folder = image / _layout.LEVEL
        self._frames_folder = image / _layout.FRAMES
        self._closed = False
        self._pixels_fd = -1
        self._shard = -1
        self._flats: dict[str, _flat.FlatWriter] = {}
        self._planes: list[_flat.FlatWriter] = []
        self._syncer: _sync.Syncer | None = None
        self._behind = _behind.Behind()
        self._pyramid: Companion | None = None
        self._reserve = space.Reserve(self._level_folder)
        self._latency = LatencyHistogram()
        self._frames = self._failed = 0
        self._lock_fd = _seal.hold_image(image)
        try:
            self._open(previous_id, durability)
            if pyramid:
                from mutoscope.storage._pyramid import Companion

                self._pyramid = Companion(image, lambda: self._count)
        except BaseException:
            self._release()
            raise

    def _open(self, previous_id: int, durability: Durability) -> None:
        document = _nodes.read_array(self.path, _layout.LEVEL)
        self._level, self._declared = _layout.parse_level(document, str(self._level_folder))
        self.shape = self._level.shape
        self.dtype = self._level.dtype
        self._numpy_dtype = self._level.numpy_dtype
        self._frame_bytes = self._level.frame_bytes
        self._index = b""
        _seal.remove_parts(self.path)
        self._count, last = _flat.last_written(self._frames_folder / "frame_id")
        self._last = last or previous_id
        for name in _layout.FLAT_ARRAYS:
            self._add_flat(name)
        if (self._frames_folder / "t").is_dir():
            self._planes = [self._add_flat(name) for name in _layout.PLANE_ARRAYS]
        _seal.set_state(self.path, "open")
        if self._count:
            _seal.list_levels(self.path, 0)
        self._reserve.take()
        created = self._reserve_rows(self._count, 1)
        self._enter_rows(self._count // _ROWS)
        if durability == "power":
            self._syncer = _sync.Syncer(self._in_use)
            folders = [self.path.parent, self.path, self._level_folder, self._frames_folder]
            self._syncer.add([*created, *folders, *(flat.folder for flat in self._flats.values())])
            self._syncer.start(self._count)

    def _add_flat(self, name: str) -> _flat.FlatWriter:
        folder = self._frames_folder / name
        document = _nodes.read_array(self.path, f"{_layout.FRAMES}/{name}")
        length = _layout.parse_flat(document, name, str(folder))
        flat = self._flats[name] = _flat.FlatWriter(folder, name, self._level_folder, length, self._level.version)
        return flat

    # ------------------------------------------------------------------ appending

    @property
    def count(self) -> int:
        """Frames stored in this image, those of earlier writers included."""
        return self._count

    @property
    def last_frame_id(self) -> int:
        """The newest id that was appended, of this image or the one that it continues; 0: none."""
        return self._last

    @property
    def acknowledged_id(self) -> int:
        """The newest id that is stored: the same, unless frames are `pending`."""
        return self._last

    @property
    def pending(self) -> int:
        """Frames that were appended and are not acknowledged yet: of compressed OME-Zarr only."""
        return 0

    def missing(self) -> list[str]:
        """Return the files that are needed to go on and that somebody deleted, relative to the image."""
        files = [self._level_folder / _nodes.array_file(self._level.version)]
        for flat in tuple(self._flats.values()):
            files += flat.files()
        if self._shard >= 0:
            files.append(self._level_folder / self._level.chunk_path(self._shard))
        return [str(file.relative_to(self.path)) for file in files if not file.exists()]

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def append(
        self,
        array: NDArray[Any],
        *,
        frame_id: int | None = None,
        tick: int = 0,
        monotonic_ns: int = 0,
        utc_ns: int = 0,
        exposure_ms: float = _NAN,
        index: Any = None,
    ) -> Receipt:
        """Store one frame. When this returns, it is written: the caller may reuse `array`.

        Parameters
        ----------
        array : ndarray, shape (y, x)
            Of this writer's shape and dtype. One that is C-contiguous and little-endian is written without a copy.
        frame_id : int, optional
            Larger than the last one; the next one, if not given.
        tick, monotonic_ns, utc_ns : int
            The camera's own counter and the times of the frame; 0 is unknown.
        exposure_ms : float
            nan is unknown.
        index : PlaneIndex or mapping, optional
            With any of t, c, z, position.

        Returns
        -------
        Receipt
            With the position in this image.

        Raises
        ------
        DiskFullError
            If there is no room. This frame is not stored, everything before is, and the writer can go on once there is
            room, or be closed.
        ConfigError
            If the array or the id do not fit.
        ClosedError
            After `close`.
        """
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
        failure = self._behind.error or (None if syncer is None else syncer.error)
        if failure is not None:
            raise DatasetError(f"{self.path}: the device failed to store earlier frames ({failure})") from failure
        try:
            record = _RECORD.pack(tick, monotonic_ns, utc_ns, exposure_ms, frame_id)
            plane = None if index is None else _pack_plane(index)
        except (struct.error, AttributeError, TypeError) as error:
            said = unfit_metadata(frame_id, tick, monotonic_ns, utc_ns, exposure_ms, index, error)
            raise ConfigError(f"{self.path}: {said}") from error
        position = self._count
        level = self._level
        shard, slot = divmod(position, level.frames_per_shard)
        try:
            if shard != self._shard:
                self._enter_shard(shard)
            nbytes = self._frame_bytes
            pixels: Any = array
            if os.pwrite(self._pixels_fd, pixels, slot * nbytes) != nbytes:
                _files.write_all(self._pixels_fd, pixels, slot * nbytes)
            kill_point("storage.append.pixels_written")
            chunk, row = divmod(position, _ROWS)
            if row == 0:
                self._enter_rows(chunk)
            flats = self._flats
            offset = row * 8
            pwrite = os.pwrite
            pwrite(flats["tick"].fd, record[:8], offset)
            pwrite(flats["monotonic_ns"].fd, record[8:16], offset)
            pwrite(flats["utc_ns"].fd, record[16:24], offset)
            pwrite(flats["exposure_ms"].fd, record[24:32], offset)
            if plane is not None or self._planes:
                self._write_plane(plane or _UNKNOWN_PLANE, position)
            kill_point("storage.append.times_written")
            pwrite(flats["frame_id"].fd, record[32:], offset)
        except OSError as error:
            self._failed += 1
            with _files.translated(self.path):
                raise error
        kill_point("storage.append.frame_id_written")
        self._count = position + 1
        self._last = frame_id
        self._frames += 1
        self._latency.add(time.perf_counter_ns() - began)
        return Receipt(position, frame_id, syncer)

    def _conform(self, array: Any) -> NDArray[Any]:
        array = np.asarray(array)
        if array.shape != self.shape:
            raise ConfigError(f"{self.path}: a frame of shape {array.shape} does not fit into one of frames {self.shape}")
        if array.dtype.newbyteorder("<") != self._numpy_dtype:
            raise ConfigError(f"{self.path}: a frame of {array.dtype.name} does not fit into one of {self.dtype}")
        return np.ascontiguousarray(array, dtype=self._numpy_dtype)

    def _write_plane(self, plane: bytes, position: int) -> None:
        if not self._planes:
            self._create_planes(position)
        offset = position % _ROWS * 4
        for number, flat in enumerate(self._planes):
            os.pwrite(flat.fd, plane[4 * number : 4 * number + 4], offset)

    # ------------------------------------------------------------------ growing

    def _create_planes(self, position: int) -> None:
        """Add the arrays of plane indices, as the first frame that has one comes."""
        _files.check_place(self._lock_fd, self._level_folder)
        length = self._flats["frame_id"].length
        created: list[Path] = [self._frames_folder]
        for name in reversed(_layout.PLANE_ARRAYS):  # "t" last: its presence says that all are there
            folder = self._frames_folder / name
            if not _nodes.has_array(folder):
                _flat.create(folder, name, length, self._level_folder, self._level.version)
            created += [folder, folder / _nodes.array_file(self._level.version)]
        flats = [self._add_flat(name) for name in _layout.PLANE_ARRAYS]
        try:
            for flat in flats:
                flat.declare(length)
                for chunk in range(position // _ROWS, max(length - 1, position) // _ROWS + 1):
                    created += flat.reserve(chunk)
        except BaseException:  # no room: the next frame that has a place tries again
            for flat in flats:
                del self._flats[flat.name]
            raise
        self._planes = flats
        self._enter_rows(position // _ROWS)
        self._note(created)

    def _reserve_rows(self, first: int, count: int) -> list[Path]:
        created: list[Path] = []
        for chunk in range(first // _ROWS, (first + count - 1) // _ROWS + 1):
            for flat in self._flats.values():
                created += flat.reserve(chunk)
        return created

    def _enter_rows(self, chunk: int) -> None:
        for flat in self._flats.values():
            if self._syncer is None:
                self._discard(flat.enter(chunk))
            else:
                with self._syncer.lock:
                    self._discard(flat.enter(chunk))

    def _enter_shard(self, shard: int) -> None:
        """Make the shard's file ready and declare it: rows of the flat arrays, the file with its index, their lengths."""
        level = self._level
        length = (shard + 1) * level.frames_per_shard
        with _files.translated(self.path):
            _files.check_place(self._lock_fd, self._level_folder)
            created = self._reserve_rows(self._count, length - self._count)
            path = self._level_folder / "c" / str(shard) / "0" / "0"
            fd = self._open_shard(path, self._count - shard * level.frames_per_shard)
            try:
                kill_point("storage.grow.shard_created")
                created += [path, path.parent, path.parent.parent, path.parent.parent.parent]
                rows = -(-length // _ROWS) * _ROWS  # whole chunks: a document less to replace for most shards
                created += [changed for flat in self._flats.values() if (changed := flat.declare(rows))]
                kill_point("storage.grow.rows_declared")
                self._declare(length)
                kill_point("storage.grow.declared")
            except BaseException:
                os.close(fd)
                raise
        if self._pixels_fd >= 0:
            self._behind.take(os.dup(self._pixels_fd), 0, level.shard_bytes)
        if self._syncer is None:
            self._discard(self._pixels_fd)
            self._pixels_fd = fd
        else:
            with self._syncer.lock:
                self._discard(self._pixels_fd)
                self._pixels_fd = fd
        self._shard = shard
        self._note([*created, self._level_folder / "zarr.json", self._level_folder, self._frames_folder])

    def _open_shard(self, path: Path, frames: int) -> int:
        """Open a shard's file at its full size with its complete index; `frames` of it are stored already."""
        level = self._level
        if not self._index:
            self._index = level.index()
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            _files.make_below(self._level_folder, path.parent)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            size = os.fstat(fd).st_size
            if size < level.shard_bytes and frames > 0:
                os.close(fd)
                fd = -1
                fd = _seal.unseal_shard(path, level, frames, self._index, self._level_folder)
            elif size != level.shard_bytes or os.pread(fd, level.index_length, level.pixel_bytes) != self._index:
                os.ftruncate(fd, level.shard_bytes)
                kill_point("storage.grow.shard_sized")
                _files.write_all(fd, self._index, level.pixel_bytes)
        except BaseException:
            if fd >= 0:
                os.close(fd)
            raise
        return fd

    def _declare(self, frames: int) -> None:
        if frames != self._declared:
            _nodes.replace_array(self._level_folder, _layout.level_document(self._level, frames), self._level_folder)
            self._declared = frames

    def _discard(self, fd: int) -> None:
        if fd < 0:
            return
        if self._syncer is None:
            os.close(fd)
        else:
            self._syncer.retire(fd)

    def _note(self, paths: list[Path]) -> None:
        if self._syncer is not None:
            self._syncer.add(paths)

    def _in_use(self) -> tuple[int, list[int]]:
        count = self._count
        fds = [self._pixels_fd, *(flat.fd for flat in self._flats.values())]
        return count, [fd for fd in fds if fd >= 0]

    # ------------------------------------------------------------------ the rest

    def flush(self, timeout_s: float | None = None) -> bool:
        """Have every frame that was appended acknowledged now.

        Returns
        -------
        bool
            True once they are; False on time-out.

        Raises
        ------
        DiskFullError
            If some of them were lost.
        """
        return True

    def wait_durable(self, receipt: Receipt, timeout_s: float | None = None) -> bool:
        """Wait until a frame is on the device.

        Returns
        -------
        bool
            True once it is; False on time-out, after a failure of the device, or if durability is not ``"power"``.
        """
        return self._syncer is not None and self._syncer.wait(receipt.position + 1, timeout_s)

    def statistics(self) -> WriterStatistics:
        """Return what this writer did so far; callable also after `close`."""
        return WriterStatistics(
            frames=self._frames,
            bytes=self._frames * self._frame_bytes,
            failed=self._failed,
            last_frame_id=self._last,
            durable_frames=self._syncer.synced if self._syncer is not None else 0,
            append_p50_us=self._latency.quantile(0.5) / 1e3,
            append_p99_us=self._latency.quantile(0.99) / 1e3,
            append_max_us=self._latency.largest / 1e3 if self._latency.largest else math.nan,
            **self._more_statistics(),
        )

    def _more_statistics(self) -> dict[str, Any]:
        names = ("p50", "p99", "max")
        values = (self._latency.quantile(0.5), self._latency.quantile(0.99), self._latency.largest or math.nan)
        own = {f"acknowledge_{name}_us": value / 1e3 for name, value in zip(names, values, strict=True)}
        return {"stored_bytes": self._frames * self._frame_bytes, **own}

    def close(self, ledger: Mapping[str, Any] | None = None) -> None:
        """End the image in order: trim its declared length to what is stored, save the ledger. Twice is fine.

        Parameters
        ----------
        ledger : mapping, optional
            Saved as ``mutoscope.ledger`` of the image's attributes.

        Raises
        ------
        DiskFullError
            If there is no room even for that. Every acknowledged frame is stored; `recover` finishes the rest later.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._reserve.release()
            _files.check_place(self._lock_fd, self._level_folder)
            _seal.seal(self.path, self._level, self._count, "closed", ledger)
            if self._syncer is not None:
                _seal.note_documents(self.path, self._syncer)
                self._syncer.sync()
            if self._pyramid is not None:
                self._pyramid.finish(self._count)
        finally:
            self._release()

    def _release(self) -> None:
        self._closed = True
        if self._pyramid is not None:
            self._pyramid.stop()
        self._behind.close()
        if self._syncer is not None:
            self._syncer.close()
        for flat in self._flats.values():
            flat.close()
        for fd in (self._pixels_fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._pixels_fd = self._lock_fd = -1

    def __enter__(self) -> FrameStreamWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
