"""After a crash: trim the tail, remove what was half-written. Acknowledged frames are never touched."""

from __future__ import annotations

import contextlib
import functools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import DatasetError
from mutoscope.storage import _codec, _files, _flat, _layout, _nodes, _seal, _shard, _small
from mutoscope.storage._image_reader import ImageReader
from mutoscope.storage._runs import Runs
from mutoscope.storage.recording import adopt_unlisted, find_recording

__all__ = ["ImageReport", "RecoverReport", "open_images", "recover"]

_BLOCK = 4096


@dataclass(frozen=True)
class ImageReport:
    """What `recover` found and did in one image.

    Attributes
    ----------
    image : str
        Its group; ``"."`` is the root.
    frames : int
        Written frames that it holds, up to the last one.
    actions : tuple of str
        What was done, in words; empty if nothing was needed.
    doubtful : tuple of (int, int)
        Runs (first id, how many) of frames whose pixels are not all in their file: a power cut came before they were on
        the device, or the file was damaged. They are not changed. A process that is killed leaves none.
    """

    image: str
    frames: int
    actions: tuple[str, ...]
    doubtful: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class RecoverReport:
    """What `recover` found and did.

    Attributes
    ----------
    path : str
        The data set.
    images : tuple of ImageReport
        One for each image.
    actions : tuple of str
        What was done to the recording as a whole.
    """

    path: str
    images: tuple[ImageReport, ...]
    actions: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return bool(self.actions) or any(image.actions for image in self.images)

    def summary(self) -> str:
        """Return the report as lines of text."""
        lines = [f"{self.path}: {'repaired' if self.changed else 'nothing to repair'}", *self.actions]
        for image in self.images:
            name = "the image" if image.image == "." else image.image
            lines.append(f"{name}: {image.frames:,} frames" + "".join(f"; {action}" for action in image.actions))
            lines += [
                f"{name}: {count:,} frames from id {first} are not whole: a power cut, or damage"
                for first, count in image.doubtful
            ]
        return "\n".join(lines)


def recover(path: str | os.PathLike[str], *, decode: bool = True) -> RecoverReport:
    """Bring a recording that was not closed in order into the state that closing leaves. Doing it again changes nothing.

    The declared length becomes that of the written frames, the last shard is trimmed, left-over files are removed and
    images that were not listed yet are listed. A recording that was closed is not changed.

    Parameters
    ----------
    path : path
        Of the root, or of an OME-TIFF: there, whole pages that nothing leads to are linked again, what is behind the last
        one is cut, pages are counted, and planes with a channel or a depth get their place.
    decode : bool
        Whether what is compressed is decoded, on all cores, to name the frames that are not whole; it takes as long as reading
        them. Otherwise only the beginning of each chunk is looked at.

    Raises
    ------
    ScopeStateError
        If a writer has it open.
    DatasetError, DatasetNotFoundError
        If it is not a recording, or too damaged: an image that was closed with more frames than have ids is left as it is.
    """
    from mutoscope.storage.ome_tiff import is_ome_tiff
    from mutoscope.storage.ome_tiff.recover import recover_tiff

    if is_ome_tiff(path):
        return recover_tiff(path, decode)
    recording = find_recording(Path(path).absolute())
    adopted = adopt_unlisted(recording)
    actions = tuple(f"listed {name}" for name in adopted.images if name not in recording.images)
    return RecoverReport(
        str(recording.path), tuple(_recover_image(adopted.folder(name), name, decode) for name in adopted.images), actions
    )


def open_images(path: str | os.PathLike[str]) -> list[str]:
    """Return the images of a recording that are not closed: a writer has them, or left them so and `recover` closes them.

    Parameters
    ----------
    path : path
        Of the root, or of an OME-TIFF stream.

    Raises
    ------
    DatasetError, DatasetNotFoundError
        If it is not a recording, or too damaged.
    """
    from mutoscope.storage.ome_tiff import is_ome_tiff
    from mutoscope.storage.ome_tiff.recover import open_streams

    if is_ome_tiff(path):
        return open_streams(path)
    recording = find_recording(Path(path).absolute())
    return [name for name in recording.images if _own(recording.folder(name)).get("state") not in ("closed", "recovered")]


def _recover_image(image: Path, name: str, decode: bool) -> ImageReport:
    lock = _seal.hold_image(image)
    try:
        own = _own(image)
        actions = [f"removed {part}" for part in _seal.remove_parts(image)]
        actions += _restore_documents(image, own)
        frames, _ = _flat.last_written(image / _layout.FRAMES / "frame_id")
        if isinstance(known := own.get("frames"), int) and known > frames:
            raise DatasetError(
                f"{image}: was closed with {known} frames, and frames/frame_id tells of {frames}: the other ids were lost to "
                "damage. Pixels are left as they are, for they may be whole: restore frames/frame_id "
                "from a copy"
            )
        document = _nodes.read_array(image, _layout.LEVEL)
        level, _ = _layout.parse_level(document, str(image / _layout.LEVEL))
        actions += _restore_rows(image, level, frames)
        actions += _restore_indices(image, level, frames)
        state = "recovered" if own.get("state") not in ("closed", "recovered") else str(own["state"])
        actions += _seal.seal(image, level, frames, state)
        return ImageReport(name, frames, tuple(actions), _doubtful(image, level, decode))
    finally:
        os.close(lock)


def _restore_rows(image: Path, level: _layout.Level, frames: int) -> list[str]:
    """Bring files of flat arrays that were cut to their length again: what they lost is unknown, no reader takes short ones."""
    actions: list[str] = []
    for name, (dtype, fill) in (_layout.FLAT_ARRAYS | _layout.PLANE_ARRAYS).items():
        kind = np.dtype(dtype).newbyteorder("<")
        folder = _nodes.chunk_folder(image / _layout.FRAMES / name, level.version)
        for chunk in range(-(-frames // _layout.RECORDS_PER_CHUNK)):
            path = folder / str(chunk)
            try:
                fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as error:
                if not isinstance(error, FileNotFoundError | NotADirectoryError):
                    raise DatasetError(f"{path}: cannot be written to ({error.strerror})") from error
                continue
            try:
                whole = os.fstat(fd).st_size // kind.itemsize
                lost = _layout.RECORDS_PER_CHUNK - whole
                if lost > 0:
                    with _files.translated(path):
                        _files.write_all(fd, np.full(lost, np.dtype(dtype).type(fill), kind), whole * kind.itemsize)
                    actions.append(f"{path.relative_to(image)}: the last {lost} values were cut off")
            finally:
                os.close(fd)
    return actions


def _restore_indices(image: Path, level: _layout.Level, frames: int) -> list[str]:
    """Write the index of shards anew that have none at their end, as damage or a power cut may leave them."""
    actions: list[str] = []
    if level.published:  # nothing is ever written into a shard that is there
        return actions
    full = level.index()
    for shard in range(-(-frames // level.frames_per_shard)):
        path = image / _layout.LEVEL / "c" / str(shard) / "0" / "0"
        stored = min(level.frames_per_shard, frames - shard * level.frames_per_shard)
        sealed = stored * level.frame_bytes + level.index_length
        try:
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
            continue  # its frames are named as doubtful
        try:
            size = os.fstat(fd).st_size
            if size == level.shard_bytes and os.pread(fd, level.index_length, level.pixel_bytes) == full:
                continue
            trimmed = level.index(stored)
            if size == sealed and os.pread(fd, level.index_length, sealed - level.index_length) == trimmed:
                continue
            with _files.translated(path):
                os.ftruncate(fd, level.shard_bytes)
                _files.write_all(fd, full, level.pixel_bytes)
            actions.append(f"restored the index of {path.relative_to(image)}")
        finally:
            os.close(fd)
    return actions


def _doubtful(image: Path, level: _layout.Level, decode: bool) -> tuple[tuple[int, int], ...]:
    """Return runs of written frames whose pixels are not, or not wholly, in their files."""
    with contextlib.closing(ImageReader(image, image)) as reader:
        ids, positions = reader.ids, reader.positions  # both ascend
    shards, slots = np.divmod(positions, level.frames_per_shard)
    numbers, begins = np.unique(shards, return_index=True)
    runs = Runs()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "mutoscope-recover") as pool:
        look = functools.partial(_incomplete, image, level, decode)
        bad = pool.map(look, numbers.tolist(), np.split(slots, begins[1:]))
        for frame_ids, incomplete in zip(np.split(ids, begins[1:]), bad, strict=False):
            for frame_id in frame_ids[incomplete].tolist():
                runs.add(frame_id)
    return tuple(runs)


def _incomplete(image: Path, level: _layout.Level, decode: bool, shard: int, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which frames of a shard have a hole where pixels should be, or lie behind its end."""
    if level.published:
        return _damaged(image, level, shard, slots, decode)
    bad = np.zeros(slots.size, dtype=np.bool_)
    try:
        fd = _files.open_inside(image, f"{_layout.LEVEL}/c/{shard}/0/0")
    except DatasetError:
        return ~bad
    try:
        size = os.fstat(fd).st_size
        for number, slot in enumerate(slots.tolist()):
            begin = slot * level.frame_bytes
            end = begin + level.frame_bytes
            bad[number] = end > size or os.lseek(fd, begin, os.SEEK_HOLE) < end
    finally:
        os.close(fd)
    return bad


def _damaged(image: Path, level: _layout.Level, shard: int, slots: NDArray[np.int64], decode: bool) -> NDArray[np.bool_]:
    """Return which frames of a published shard are not in it, have a hole, or do not hold what they say."""
    bad = np.ones(slots.size, dtype=np.bool_)
    relative = f"{_layout.LEVEL}/{level.chunk_path(shard)}"
    try:
        fd = _files.open_inside(image, relative)
    except DatasetError:
        return bad
    try:
        if not level.sharded:
            size = os.fstat(fd).st_size
            if level.compression == "none":
                return bad & (size != level.frame_bytes or os.lseek(fd, 0, os.SEEK_HOLE) < size)
            return bad & (not _stored(fd, level, [(0, size)], decode))
        rows = _small.read_index(fd, level, relative).reshape(-1, level.strips, 2)
        bad[:] = [not _stored(fd, level, rows[slot].tolist(), decode) for slot in slots.tolist()]
    except DatasetError:
        return bad
    finally:
        os.close(fd)
    return bad


def _stored(fd: int, level: _layout.Level, places: list[tuple[int, int]], decode: bool) -> bool:
    """Return whether the chunks of a frame are there and hold what they say.

    The codecs carry no checksum. A block of zeros, which is what a device shows for what never reached it, is none of a codec's
    output, so it is looked for; all else shows when the chunk is decoded, if it shows at all.
    """
    target = np.empty(level.strip_bytes if decode else 0, dtype=np.uint8)
    for offset, length in places:
        if offset == _shard.EMPTY or os.lseek(fd, offset, os.SEEK_HOLE) < offset + length:
            return False
        if not _codec.looks_whole(level.compression, os.pread(fd, _codec.HEAD_BYTES, offset), length, level.strip_bytes):
            return False
        if not decode:
            continue
        if length > 2 * level.strip_bytes + _BLOCK:  # more than a codec needs at worst
            return False
        data = os.pread(fd, length, offset)
        if len(data) != length or _has_zero_block(data, offset):
            return False
        try:
            _codec.decode(level.compression, data, target)
        except ValueError:
            return False
    return True


def _has_zero_block(data: bytes, offset: int) -> bool:
    """Return whether a whole block of the device, in bytes that begin at `offset` of a file, is zeros."""
    first = -offset % _BLOCK
    count = max(0, len(data) - first) // _BLOCK
    blocks = np.frombuffer(data, np.uint8, count * _BLOCK, first if count else 0).reshape(-1, _BLOCK)
    return not bool(blocks.any(axis=1).all())


def _own(image: Path) -> dict[str, Any]:
    own = _nodes.read_group(image).get(_layout.NAMESPACE)
    if not isinstance(own, dict):
        raise DatasetError(f"{image}: was not written by Mutoscope")
    return own


def _restore_documents(image: Path, own: dict[str, Any]) -> list[str]:
    """Write array documents anew that a power cut left empty or torn: all that they say is known."""
    actions = []
    staging = image / _layout.LEVEL
    version = _nodes.version_of(image)
    for name in sorted(_layout.FLAT_ARRAYS):
        if not (image / _layout.FRAMES / name).is_dir():
            raise DatasetError(f"{image}: has no {_layout.FRAMES}/{name} any more: it cannot be recovered")
        relative = f"{_layout.FRAMES}/{name}/{_nodes.array_file(version)}"
        try:
            _layout.parse_flat(_files.read_document(image, relative), name, relative)
        except DatasetError:
            if (image / relative).is_symlink():
                raise
            _files.replace_document(image / relative, _layout.flat_document(name, 0, version), staging)
            actions.append(f"restored {relative}")
    relative = f"{_layout.LEVEL}/{_nodes.array_file(version)}"
    try:
        _layout.parse_level(_files.read_document(image, relative), relative)
    except DatasetError:
        level = _saved_level(own, version)
        if level is None or (image / relative).is_symlink():
            raise
        _files.replace_document(image / relative, _layout.level_document(level, 0), staging)
        actions.append(f"restored {relative}")
    return actions


def _saved_level(own: dict[str, Any], version: str) -> _layout.Level | None:
    saved = own.get("level")
    if not isinstance(saved, dict):
        return None
    try:
        compression = saved.get("compression", "none")
        level = _layout.Level(
            tuple(saved["shape"]), saved["dtype"], saved["frames_per_shard"], saved["strip"], compression, version
        )
        _layout.parse_level(_layout.level_document(level, 0), "saved level")
    except (KeyError, TypeError, ValueError, ZeroDivisionError, DatasetError):
        return None
    return level
