"""The writer of an image whose files appear whole: frames are encoded on all cores and published by rename.

It writes what is compressed, and all of OME-Zarr 0.4, where a frame is a file.

A frame is acknowledged when the file that holds it was renamed into place and its ``frame_id`` is written: a little after
`append` returns. Its receipt says when. What a writer holds is bounded: `append` waits while too many frames are on their way.
"""

from __future__ import annotations

import contextlib
import os
import queue
import struct
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ClosedError, ConfigError, DatasetError, DiskFullError
from mutoscope.storage import _codec, _files, _nodes
from mutoscope.storage._latency import LatencyHistogram
from mutoscope.storage._metadata import unfit_metadata
from mutoscope.storage._small import SmallShard
from mutoscope.storage.writer import (
    _MAX_ID,
    _NAN,
    _RECORD,
    _ROWS,
    _UNKNOWN_PLANE,
    Durability,
    FrameStreamWriter,
    Receipt,
    _pack_plane,
    _unfit,
    _whole,
)

__all__ = ["DeferredReceipt", "PublishingWriter"]

MAX_DELAY_S = 0.5
"""A frame is published at the latest this long after it was appended, if encoding and device keep up."""

_HELD_BYTES = 64 * 1024 * 1024
_MAX_HELD = 128
_MAX_THREADS = 16
_TIMES = (("tick", 0), ("monotonic_ns", 8), ("utc_ns", 16), ("exposure_ms", 24))
_PENDING, _ACKNOWLEDGED, _LOST = range(3)


class _Job:
    """One frame on its way; all fields change under the writer's lock, or in the thread that has it."""

    __slots__ = ("began_ns", "error", "frame_id", "left", "parts", "pixels", "plane", "position", "record", "state")

    def __init__(self, position: int, frame_id: int, record: bytes, plane: bytes | None, units: int, began_ns: int) -> None:
        self.position = position
        self.frame_id = frame_id
        self.record = record
        self.plane = plane
        self.began_ns = began_ns
        self.pixels: NDArray[Any] | None = None
        self.parts: list[Any] = [None] * units
        self.left = units
        self.state = _PENDING
        self.error: Exception | None = None


class DeferredReceipt(Receipt):
    """What `append` of a compressed stream answers: the frame was taken; it says itself when it is stored."""

    __slots__ = ("_changed", "_job")

    def __init__(self, job: _Job, syncer: Any, changed: threading.Condition) -> None:
        super().__init__(job.position, job.frame_id, syncer)
        self._job = job
        self._changed = changed

    @property
    def acknowledged(self) -> bool:
        """Whether the frame is written, where a stock reader finds it."""
        return self._job.state == _ACKNOWLEDGED

    @property
    def error(self) -> Exception | None:
        """Why the frame was lost, if it was; the writer's next call raises it too."""
        return self._job.error if self._job.state == _LOST else None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the frame is acknowledged: True; False on time-out. Raises its error if it was lost."""
        with self._changed:
            self._changed.wait_for(lambda: self._job.state != _PENDING, timeout_s)
        if self.error is not None:
            raise self.error
        return self.acknowledged


class PublishingWriter(FrameStreamWriter):
    """Appends frames to an image of compressed shards. Made by `open_writer` and `open_image_writer`.

    As `FrameStreamWriter`, but frames are acknowledged later: when their shard is full, after half a second, by `flush` and by
    `close`. It owns a thread for each core and one that publishes; `close` ends them.
    """

    def __init__(self, image: Path, *, previous_id: int = 0, durability: Durability = "process", pyramid: bool = False) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        """Notified for callers: room, acknowledgements, failures."""
        self._ready = threading.Condition(self._lock)
        """Notified for the publishing thread: encoded frames, wishes."""
        self._jobs: deque[_Job] = deque()
        self._in_hand: list[_Job] = []
        self._unpublished: list[_Job] = []
        self._free: list[NDArray[Any]] = []
        self._made = 0
        self._flush_to = 0
        self._ending = False
        self._failing = False
        self._failure: tuple[Exception, str] | None = None
        self._broken: Exception | None = None
        self._small: SmallShard | None = None
        self._work: queue.SimpleQueue[tuple[_Job, int] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stored_bytes = 0
        self._acknowledging = LatencyHistogram()
        super().__init__(image, previous_id=previous_id, durability=durability, pyramid=pyramid)

    def _open(self, previous_id: int, durability: Durability) -> None:
        super()._open(previous_id, durability)
        level = self._level
        self._encode = _codec.encoder(level)
        self._next = self._count
        self._acknowledged = self._last
        self._max_held = max(2, min(_MAX_HELD, _HELD_BYTES // self._frame_bytes))
        self._cuts = [slice(first, first + level.strip) for first in range(0, self.shape[0], level.strip)]
        shard, frames = divmod(self._count, level.frames_per_shard)
        if frames:
            begun = SmallShard(level, self._level_folder, shard, self._level_folder)
            begun.take_up(frames)  # to say now that it is damaged; it is entered, and declared, with the first frame
            begun.close()
        count = min(len(os.sched_getaffinity(0)), _MAX_THREADS)
        names = ["mutoscope-publish", *(["mutoscope-encode"] * count)]
        self._threads = [
            threading.Thread(target=self._publish_all if number == 0 else self._encode_all, name=name, daemon=True)
            for number, name in enumerate(names)
        ]
        for thread in self._threads:
            thread.start()

    # ------------------------------------------------------------------ the caller's side

    @property
    def acknowledged_id(self) -> int:
        return self._acknowledged

    @property
    def pending(self) -> int:
        return self._next - self._count

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
        """Take one frame, as `FrameStreamWriter.append` does: it is copied, so the caller may reuse `array` at once.

        It is stored, and its receipt acknowledged, a little later. A frame that cannot be stored is told by its receipt, and
        by the next call of `append`, `flush` or `close`, which raises: that frame and all that came after it are not
        stored, all before are, and the writer goes on with the next.
        """
        began = time.perf_counter_ns()
        if self._closed:
            raise ClosedError(f"{self.path}: this writer is closed")
        if type(array) is not np.ndarray or array.shape != self.shape or array.dtype != self._numpy_dtype:
            array = self._conform(array)
        pixels = self._room()
        try:
            if frame_id is None:
                frame_id = self._last + 1
            elif type(frame_id) is not int:
                frame_id = _whole(frame_id, self.path)
            if not self._last < frame_id <= _MAX_ID:
                raise ConfigError(f"{self.path}: {_unfit(frame_id, self._last)}")
            try:
                record = _RECORD.pack(tick, monotonic_ns, utc_ns, exposure_ms, frame_id)
                plane = None if index is None else _pack_plane(index)
            except (struct.error, AttributeError, TypeError) as error:
                said = unfit_metadata(frame_id, tick, monotonic_ns, utc_ns, exposure_ms, index, error)
                raise ConfigError(f"{self.path}: {said}") from error
            job = _Job(self._next, frame_id, record, plane, len(self._cuts), began)
            np.copyto(pixels, array)
            job.pixels = pixels
        except BaseException:
            with self._lock:
                self._free.append(pixels)
            raise
        with self._lock:
            self._check()
            job.position = self._next
            self._jobs.append(job)
            self._next += 1
            self._last = frame_id
            for unit in range(len(self._cuts)):
                self._work.put((job, unit))
        kill_point("storage.append.taken")
        self._latency.add(time.perf_counter_ns() - began)
        return DeferredReceipt(job, self._syncer, self._changed)

    def _room(self) -> NDArray[Any]:
        """Return a buffer for one frame; waits while all are in use."""
        with self._lock:
            while True:
                self._check()
                if self._free:
                    return self._free.pop()
                if self._made < self._max_held:
                    self._made += 1
                    return np.empty(self.shape, self._numpy_dtype)
                self._changed.wait()

    def _check(self) -> None:
        """Raise for frames that were lost, once; the caller has the lock."""
        while self._failing:
            self._changed.wait()
        if self._failure is not None:
            (error, what), self._failure = self._failure, None
            if isinstance(error, DiskFullError):
                raise DiskFullError(f"{error}; {what}") from error
            error.add_note(what)
            raise error
        failure = self._broken or (self._syncer.error if self._syncer is not None else None)
        if failure is not None:
            raise DatasetError(f"{self.path}: the device failed to store earlier frames ({failure})") from failure

    def flush(self, timeout_s: float | None = None) -> bool:
        with self._lock:
            wanted = self._flush_to = self._next
            self._ready.notify()
            self._changed.wait_for(
                lambda: self._count >= wanted or self._failing or (self._failure or self._broken) is not None, timeout_s
            )
            self._check()
            return self._count >= wanted

    # ------------------------------------------------------------------ the encoding threads

    def _encode_all(self) -> None:
        encode = self._encode
        while (item := self._work.get()) is not None:
            job, unit = item
            assert job.pixels is not None
            error: Exception | None = None
            data: Any = None
            try:
                data = encode(job.pixels[self._cuts[unit]])
            except Exception as problem:  # noqa: BLE001 - the top of a thread; the publishing thread tells it, in order
                error = problem
            with self._lock:
                job.parts[unit] = data
                job.error = job.error or error
                job.left -= 1
                if job.left == 0 and (self._failing or (self._jobs and self._jobs[0] is job)):
                    self._ready.notify()

    # ------------------------------------------------------------------ the publishing thread

    def _publish_all(self) -> None:
        try:
            self._publish_until_the_end()
        except Exception as error:  # noqa: BLE001 - the top of a thread: nobody may wait for it for ever
            with self._lock:
                self._broken, self._failing = error, False
                for job in (*self._in_hand, *self._unpublished, *self._jobs):
                    if job.state == _PENDING:
                        job.error, job.state = error, _LOST
                self._changed.notify_all()

    def _publish_until_the_end(self) -> None:
        while True:
            with self._lock:
                while not (ready := self._take_ready()) and not self._due():
                    if self._ending and not self._jobs and not self._unpublished:
                        return
                    self._ready.wait(self._patience())
            self._in_hand = ready
            try:
                for job in ready:
                    self._add(job)
                if self._due():
                    self._publish()
            except Exception as error:  # noqa: BLE001 - whatever a codec raises: the frames are lost, and that is told
                self._lose(error, ready)

    def _take_ready(self) -> list[_Job]:
        """Take the encoded frames that are next in order; the caller has the lock."""
        ready = []
        while self._jobs and self._jobs[0].left == 0:
            ready.append(self._jobs.popleft())
        return ready

    def _due(self) -> bool:
        if not self._unpublished:
            return False
        if self._ending and not self._jobs:
            return True
        if self._flush_to > self._unpublished[0].position and self._unpublished[-1].position + 1 >= self._flush_to:
            return True
        return time.perf_counter_ns() - self._unpublished[0].began_ns >= MAX_DELAY_S * 1e9

    def _patience(self) -> float | None:
        if not self._unpublished:
            return None
        return max(0.0, MAX_DELAY_S - (time.perf_counter_ns() - self._unpublished[0].began_ns) / 1e9)

    def _add(self, job: _Job) -> None:
        if job.error is not None:
            raise job.error
        shard = job.position // self._level.frames_per_shard
        if self._small is None or self._small.number != shard:
            self._enter_small_shard(shard)
        assert self._small is not None
        self._small.add(job.parts, [part.nbytes if isinstance(part, np.ndarray) else len(part) for part in job.parts])
        self._unpublished.append(job)
        self._give_back(job)
        kill_point("storage.publish.frame_added")
        if self._small.frames == self._level.frames_per_shard:
            self._publish()

    def _give_back(self, job: _Job) -> None:
        with self._lock:
            job.parts = []
            if job.pixels is not None:
                self._free.append(job.pixels)
                job.pixels = None
            self._changed.notify_all()

    def _enter_small_shard(self, shard: int) -> None:
        """Declare a shard before there is one: a file that is missing reads as zeros."""
        if self._small is not None:
            self._small.close()
            self._small = None
        _files.check_place(self._lock_fd, self._level_folder)
        growth = self._level.growth
        length = -(-((shard + 1) * self._level.frames_per_shard) // growth) * growth
        created = self._reserve_rows(self._count, length - self._count)
        rows = -(-length // _ROWS) * _ROWS
        created += [changed for flat in self._flats.values() if (changed := flat.declare(rows))]
        kill_point("storage.publish.rows_declared")
        self._declare(length)
        kill_point("storage.publish.declared")
        document = self._level_folder / _nodes.array_file(self._level.version)
        self._note([*created, document, self._level_folder, self._frames_folder])
        small = SmallShard(self._level, self._level_folder, shard, self._level_folder)
        if self._count > shard * self._level.frames_per_shard:
            small.take_up(self._count - shard * self._level.frames_per_shard)
        self._small = small

    def _publish(self) -> None:
        """Rename the shard into place, write what belongs to its new frames, acknowledge them."""
        jobs, small = self._unpublished, self._small
        assert small is not None
        _files.check_place(self._lock_fd, self._level_folder)
        if any(job.plane is not None for job in jobs) and not self._planes:
            self._create_planes(self._count)
        self._stored_bytes += small.publish(self._syncer is not None)
        folder = small.path.parent
        self._note([small.path, folder, folder.parent, folder.parent.parent])
        first = self._count
        while first < self._count + len(jobs):
            end = min(self._count + len(jobs), (first // _ROWS + 1) * _ROWS)
            self._write_rows(first, jobs[first - self._count : end - self._count])
            first = end
        now = time.perf_counter_ns()
        with self._lock:
            for job in jobs:
                job.state = _ACKNOWLEDGED
                self._acknowledging.add(now - job.began_ns)
            self._count += len(jobs)
            self._frames += len(jobs)
            self._acknowledged = jobs[-1].frame_id
            self._unpublished = []
            self._changed.notify_all()

    def _write_rows(self, first: int, jobs: list[_Job]) -> None:
        chunk, row = divmod(first, _ROWS)
        self._enter_rows(chunk)
        for name, place in _TIMES:
            _files.write_all(self._flats[name].fd, b"".join(job.record[place : place + 8] for job in jobs), row * 8)
        for number, flat in enumerate(self._planes):
            values = [(job.plane or _UNKNOWN_PLANE)[4 * number : 4 * number + 4] for job in jobs]
            _files.write_all(flat.fd, b"".join(values), row * 4)
        kill_point("storage.publish.times_written")
        _files.write_all(self._flats["frame_id"].fd, b"".join(job.record[32:] for job in jobs), row * 8)
        kill_point("storage.publish.frame_id_written")

    def _lose(self, error: Exception, taken: list[_Job]) -> None:
        """Publish what can be, and give up every frame that is not: their receipts and the next call say so."""
        with self._lock:
            self._failing = True
        if isinstance(error, OSError) and self._unpublished:
            with contextlib.suppress(OSError):  # the first error is the one that is told
                self._publish()
        with self._lock:
            while any(job.left for job in self._jobs):
                self._ready.wait()
            added = set(map(id, self._unpublished))
            rest = [job for job in taken if job.state == _PENDING and id(job) not in added]
            lost = [*self._unpublished, *rest, *self._jobs]
            self._jobs.clear()
            written, self._unpublished = len(self._unpublished), []
        if self._small is not None:
            self._small.close()
            self._small = None
        try:
            self._erase_ids(written)
        except OSError as problem:
            self._broken = problem
        failure = error
        if isinstance(error, OSError):
            try:
                with _files.translated(self.path):
                    raise error
            except OSError as told:
                failure = told
        for job in lost:
            self._give_back(job)
        with self._lock:
            for job in lost:
                job.error, job.state = failure, _LOST
            self._next, self._last = self._count, self._acknowledged
            self._failed += len(lost)
            if lost:
                first, last = lost[0].frame_id, lost[-1].frame_id
                which = f"frame {first} was" if first == last else f"frames {first} to {last} were"
                self._failure = failure, f"{which} not stored"
            self._failing = False
            self._changed.notify_all()

    def _erase_ids(self, count: int) -> None:
        """Mark rows as unwritten whose ids were written before the device failed."""
        for position in range(self._count, self._count + count):
            chunk, row = divmod(position, _ROWS)
            self._enter_rows(chunk)
            os.pwrite(self._flats["frame_id"].fd, bytes(8), row * 8)

    # ------------------------------------------------------------------ the end

    def _more_statistics(self) -> dict[str, Any]:
        return {
            "pending": self.pending,
            "stored_bytes": self._stored_bytes,
            "acknowledge_p50_us": self._acknowledging.quantile(0.5) / 1e3,
            "acknowledge_p99_us": self._acknowledging.quantile(0.99) / 1e3,
            "acknowledge_max_us": self._acknowledging.largest / 1e3 if self._frames else _NAN,
        }

    def close(self, ledger: Mapping[str, Any] | None = None) -> None:
        """Publish what is left, then end the image in order, as `FrameStreamWriter.close`. Twice is fine.

        Raises
        ------
        DiskFullError
            If frames were lost that no call has told of yet, or there is no room to close. All acknowledged ones are stored.
        """
        if self._closed:
            return
        self._end_threads()
        super().close(ledger)
        with self._lock:
            self._check()

    def _end_threads(self) -> None:
        with self._lock:
            self._ending = True
            self._ready.notify()
        for number, thread in enumerate(self._threads):
            if number == 1:
                for _ in self._threads[1:]:
                    self._work.put(None)
            thread.join()
        self._threads = []

    def _release(self) -> None:
        self._end_threads()
        if self._small is not None:
            self._small.close()
            self._small = None
        self._free = []
        super()._release()
