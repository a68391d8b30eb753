"""Smaller levels of an image, each pixel the mean of 2 x 2: built shard by shard, listed once all are whole.

A level is an array beside the pixels, ``<image>/1``, ``<image>/2``, …, of the same form, shards and compression. Its shards
are published by rename. Whoever builds holds the image's lock. A kill leaves arrays that the image does not list; the next run
goes on with them.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.storage import _codec, _files, _layout, _nodes, _seal, _shard, _small
from mutoscope.storage._half import half
from mutoscope.storage._image_reader import ImageReader

__all__ = ["Builder", "Companion", "PyramidReport", "build_pyramid"]

SMALLEST = 256
"""Levels are added until the longer side is not longer than this."""

_MAX_LEVELS = 16
_MAX_THREADS = 8
_LOOK_S = 0.1


@dataclass(frozen=True)
class PyramidReport:
    """What `build_pyramid` made.

    Attributes
    ----------
    path : str
        The data set.
    levels : dict
        Image → shapes (y, x) of its levels, the full size first.
    frames : int
        Frames of all images.
    """

    path: str
    levels: dict[str, tuple[tuple[int, int], ...]]
    frames: int

    def summary(self) -> str:
        """Return the report as lines of text."""
        shapes = {name: ", ".join(f"{y} × {x}" for y, x in found) for name, found in self.levels.items()}
        return "\n".join([f"{self.path}: {self.frames:,} frames", *(f"{name}: levels {text}" for name, text in shapes.items())])


def plan(level: _layout.Level, count: int | None) -> list[_layout.Level]:
    """Return the geometry of the smaller levels."""
    if count is not None and not 0 <= count <= _MAX_LEVELS:
        raise ConfigError(f"an image gets 0 to {_MAX_LEVELS} smaller levels, not {count}")
    found: list[_layout.Level] = []
    shape = level.shape
    while (max(shape) > SMALLEST if count is None else len(found) < count) and max(shape) > 1:
        shape = ((shape[0] + 1) // 2, (shape[1] + 1) // 2)
        strip = _layout.plan_level(shape, level.dtype, version=level.version).strip
        found.append(replace(level, shape=shape, strip=strip))
    return found


class Builder:
    """Builds the levels of one image; the caller holds its lock.

    Parameters
    ----------
    image : Path
        The image's group.
    count : int, optional
        How many smaller levels; until the longer side is at most `SMALLEST`, if not given.
    """

    def __init__(self, image: Path, count: int | None = None) -> None:
        self.image = image
        self.level, _ = _layout.parse_level(_nodes.read_array(image, _layout.LEVEL), str(image))
        self.levels = plan(self.level, count)
        self._encoders = [_codec.encoder(level) for level in self.levels]
        for number, level in enumerate(self.levels, 1):
            self._prepare(number, level)

    def _prepare(self, number: int, level: _layout.Level) -> None:
        """Make the array of a level, or find the one that an earlier run made."""
        folder = self.image / str(number)
        if _nodes.has_array(folder):
            found, _ = _layout.parse_level(_nodes.read_array(self.image, str(number)), str(folder))
            if found != level:
                raise DatasetError(f"{folder}: is there already and of another form; delete it to have it built")
            return
        with _files.translated(folder):
            folder.mkdir(exist_ok=True)
            _nodes.replace_array(folder, _layout.level_document(level, 0), self.image / _layout.LEVEL)

    def shards(self, frames: int) -> int:
        """Return how many shards so many frames take."""
        return -(-frames // self.level.frames_per_shard)

    def build(self, shard: int, frames: int, reader: ImageReader) -> None:
        """Build one shard of each level, unless it is there; `frames` is how many the image has.

        Frames that were never written, or are damaged, are left out: they read as zeros.
        """
        first = shard * self.level.frames_per_shard
        count = min(frames - first, self.level.frames_per_shard)
        todo = {k: self._shard(k, shard) for k in range(len(self.levels)) if not self._is_whole(k, shard, count)}
        if not todo:
            return
        written = set(reader.positions[(reader.positions >= first) & (reader.positions < first + count)].tolist())
        with contextlib.ExitStack() as closing, _files.translated(self.image):
            for small in todo.values():
                closing.callback(small.close)
            for position in range(first, first + count):
                self._add(position, todo, reader if position in written else None)
            for small in todo.values():
                if small.dirty:
                    small.publish(False)
                    kill_point("storage.pyramid.shard_published")

    def _add(self, position: int, todo: dict[int, _small.SmallShard], reader: ImageReader | None) -> None:
        try:
            plane = None if reader is None else reader.read_position(position)
        except DatasetError:  # `recover` names it as doubtful
            plane = None
        for k, level in enumerate(self.levels[: max(todo) + 1]):
            if plane is None:
                if k in todo:
                    todo[k].leave_out()
                continue
            plane = np.ascontiguousarray(half(plane), dtype=level.numpy_dtype)
            if k in todo:
                parts = [self._encoders[k](plane[row : row + level.strip]) for row in range(0, level.shape[0], level.strip)]
                todo[k].add(parts, [part.nbytes if isinstance(part, np.ndarray) else len(part) for part in parts])

    def _shard(self, k: int, shard: int) -> _small.SmallShard:
        return _small.SmallShard(self.levels[k], self.image / str(k + 1), shard, self.image / _layout.LEVEL)

    def _is_whole(self, k: int, shard: int, count: int) -> bool:
        level = self.levels[k]
        try:
            fd = os.open(self.image / str(k + 1) / level.chunk_path(shard), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            if not level.sharded:
                return True
            index = _small.read_index(fd, level, "")[: count * level.strips]
            return not np.any(index == _shard.EMPTY)
        except DatasetError:
            return False
        finally:
            os.close(fd)

    def finish(self, frames: int) -> None:
        """Declare the length of every level, then list them, both as a whole."""
        staging = self.image / _layout.LEVEL
        with _files.translated(self.image):
            for number, level in enumerate(self.levels, 1):
                _nodes.replace_array(self.image / str(number), _layout.level_document(level, frames), staging)
            kill_point("storage.pyramid.declared")
            _seal.list_levels(self.image, len(self.levels))
            kill_point("storage.pyramid.listed")


class Companion:
    """Builds the levels of an image while it is written, in a thread of the lowest priority; the writer owns it.

    Parameters
    ----------
    image : Path
        The image's group.
    acknowledged : callable
        Returns how many frames are stored.
    """

    def __init__(self, image: Path, acknowledged: Callable[[], int]) -> None:
        self._builder = Builder(image)
        self._acknowledged = acknowledged
        self._done = 0
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mutoscope-pyramid", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # of this thread alone, on Linux
        per_shard = self._builder.level.frames_per_shard
        while not self._stop.wait(_LOOK_S):
            try:
                self._go_on(self._acknowledged() // per_shard)
            except (OSError, DatasetError) as error:  # told by `finish`: the frames themselves are not touched by it
                self._error = error
                return

    def _go_on(self, shards: int) -> None:
        if shards <= self._done:
            return
        with contextlib.closing(ImageReader(self._builder.image, self._builder.image)) as reader:
            frames = shards * self._builder.level.frames_per_shard
            while self._done < shards and not self._stop.is_set():
                self._builder.build(self._done, frames, reader)
                self._done += 1

    def stop(self) -> None:
        """End the thread; twice is fine."""
        self._stop.set()
        self._thread.join()

    def finish(self, frames: int) -> None:
        """Build what is left, and list the levels.

        Raises
        ------
        DiskFullError
            If there is no room. The frames are stored; `build_pyramid` finishes the rest later.
        """
        self.stop()
        if self._error is not None:
            with _files.translated(self._builder.image):
                raise self._error
        _build(self._builder, frames, range(self._done, self._builder.shards(frames)))


def _build(builder: Builder, frames: int, shards: Sequence[int]) -> None:
    """Build shards on several cores, each thread one at a time, a frame in each; then list the levels."""
    if not builder.levels:
        return
    own = threading.local()
    readers: list[ImageReader] = []

    def one(shard: int) -> None:
        if not hasattr(own, "reader"):
            own.reader = ImageReader(builder.image, builder.image)
            readers.append(own.reader)
        builder.build(shard, frames, own.reader)

    threads = max(1, min(len(shards), len(os.sched_getaffinity(0)), _MAX_THREADS))
    try:
        with ThreadPoolExecutor(threads, "mutoscope-pyramid") as pool:
            jobs = [pool.submit(one, shard) for shard in shards]
            try:
                for job in jobs:
                    job.result()
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        for reader in readers:
            reader.close()
    builder.finish(frames)


def build_pyramid(path: str | os.PathLike[str], *, levels: int | None = None) -> PyramidReport:
    """Add smaller levels to every image of a recording, so that viewers open it at once. Doing it again changes nothing.

    A recording that was not closed in order is recovered first. Killed in between, the next call goes on.

    Parameters
    ----------
    path : path
        Of the root of an OME-Zarr recording.
    levels : int, optional
        How many smaller levels; until the longer side is at most 256 pixels, if not given.

    Raises
    ------
    ScopeStateError
        If a writer has it open.
    ConfigError
        If it is no OME-Zarr recording, or `levels` cannot be.
    DatasetNotFoundError, DatasetError, DiskFullError
        If there is nothing; if it is damaged; if there is no room: the levels are not listed then.
    """
    from mutoscope.storage._recover import recover
    from mutoscope.storage.ome_tiff import is_ome_tiff
    from mutoscope.storage.recording import find_recording

    if is_ome_tiff(path):
        raise ConfigError(f"{path}: is an OME-TIFF; pyramids are made of OME-Zarr recordings")
    recover(path, decode=False)
    recording = find_recording(Path(path).absolute())
    found: dict[str, tuple[tuple[int, int], ...]] = {}
    total = 0
    for name in recording.images:
        image = recording.folder(name)
        lock = _seal.hold_image(image)
        try:
            _, frames = _layout.parse_level(_nodes.read_array(image, _layout.LEVEL), str(image))
            builder = Builder(image, levels)
            _build(builder, frames, range(builder.shards(frames)))
        finally:
            os.close(lock)
        found[name] = (builder.level.shape, *(level.shape for level in builder.levels))
        total += frames
    return PyramidReport(str(recording.path), found, total)
