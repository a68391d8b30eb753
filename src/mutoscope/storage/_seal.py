"""Ending an image: its declared length, its last shard and its state. A crash at any step leaves a valid image."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.storage import _files, _layout, _nodes, _sync

__all__ = [
    "change_attributes",
    "hold_image",
    "list_levels",
    "note_documents",
    "remove_parts",
    "seal",
    "set_state",
    "trim_shard",
    "unseal_shard",
]

_PART_NAME = re.compile(r"\.([0-9]+)-.*" + re.escape(_files.PART))
RESERVE = f".reserve{_files.PART}"
_COPY_BYTES = 8 * 1024 * 1024


def hold_image(image: Path) -> int:
    """Take the writer's lock of an image; ScopeStateError if another writer has it, DatasetError if it is no image."""
    try:
        return _files.hold(image / _layout.LEVEL)
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(f"{image}: is not an image of this layout") from None


def remove_parts(image: Path) -> list[str]:
    """Remove what processes that were killed left half-written; the caller holds the image's lock."""
    folder = image / _layout.LEVEL
    removed = []
    for name in os.listdir(folder):
        match = _PART_NAME.fullmatch(name)
        if name != RESERVE and (match is None or os.path.exists(f"/proc/{match[1]}")):
            continue
        entry = folder / name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
        removed.append(name)
    return removed


def change_attributes(group: Path, change: Mapping[str, Any], staging: Path, *, durable: bool = False) -> bool:
    """Set keys of a group's Mutoscope attributes, under the group's lock; return whether anything changed."""
    with _files.locked(group):
        version = _nodes.version_of(group)
        attributes = _nodes.read_group(group)
        own = attributes.get(_layout.NAMESPACE)
        if not isinstance(own, dict):
            raise DatasetError(f"{group}: was not written by Mutoscope")
        new = {**own, **change}
        if new == own:
            return False
        attributes[_layout.NAMESPACE] = new
        _nodes.replace_group(group, version, attributes, staging, durable=durable)
    return True


def set_state(image: Path, state: str, **more: Any) -> bool:
    """Set an image's state (``open``, ``closed``, ``recovered``) and other attributes of it."""
    return change_attributes(image, {"state": state, **more}, image / _layout.LEVEL)


def list_levels(image: Path, count: int) -> None:
    """Have an image list its full size and `count` smaller levels; what is to be seen stays where it is.

    A writer that goes on takes them out of the list (0), as they lack the frames to come.
    """
    with _files.locked(image):
        version = _nodes.version_of(image)
        attributes = _nodes.read_group(image)
        own = attributes.get("ome", {}) if version == "0.5" else attributes
        try:
            [multiscale] = own["multiscales"]
            full = multiscale["datasets"][0]
            time, *space = full["coordinateTransformations"][0]["scale"]
        except (KeyError, IndexError, TypeError, ValueError):
            raise DatasetError(f"{image}: does not describe its levels as this layout does, or is damaged") from None
        datasets = [full]
        for number in range(1, count + 1):
            scale = [time, *(size * 2**number for size in space)]
            shift = [0.0, *(size * (2**number - 1) / 2 for size in space)]
            moves = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
            datasets.append({"path": str(number), "coordinateTransformations": moves})
        if multiscale["datasets"] != datasets:
            multiscale["datasets"] = datasets
            _nodes.replace_group(image, version, attributes, image / _layout.LEVEL)


def seal(image: Path, level: _layout.Level, frames: int, state: str, ledger: Mapping[str, Any] | None = None) -> list[str]:
    """Trim an image to its `frames` stored frames; the caller holds its lock. Doing it again changes nothing.

    The order is: declared length, index, end of file, lengths of the flat arrays, state. A reader finds a valid image
    between any two of them, and the flat arrays are never shorter than the pixels.

    Returns
    -------
    list of str
        What was done, in words.
    """
    done: list[str] = []
    pixels = image / _layout.LEVEL
    document = _nodes.read_array(image, _layout.LEVEL)
    _, declared = _layout.parse_level(document, str(pixels))
    if declared != frames:
        _nodes.replace_array(pixels, _layout.level_document(level, frames), pixels)
        done.append(f"declared length {declared} → {frames}")
    kill_point("storage.close.declared")
    trimmed = trim_shard(image, level, frames)
    if trimmed:
        done.append(f"last shard trimmed by {trimmed} bytes")
    for name in _layout.FLAT_ARRAYS | _layout.PLANE_ARRAYS:
        folder = image / _layout.FRAMES / name
        if name in _layout.PLANE_ARRAYS and not _nodes.has_array(folder):
            continue
        length = _layout.parse_flat(_nodes.read_array(image, f"{_layout.FRAMES}/{name}"), name, str(folder))
        if length != frames:
            _nodes.replace_array(folder, _layout.flat_document(name, frames, level.version), pixels)
            done.append(f"{_layout.FRAMES}/{name}: length {length} → {frames}")
    kill_point("storage.close.rows")
    more: dict[str, Any] = {"frames": frames}
    if ledger is not None:
        more["ledger"] = dict(ledger)
    if set_state(image, state, **more):
        done.append(f"state: {state}")
    kill_point("storage.close.state")
    return done


def trim_shard(image: Path, level: _layout.Level, frames: int) -> int:
    """Cut the room of frames that never came off the last shard; return the bytes cut.

    The new index, with the absent chunks marked, is written behind the last frame, where nothing is stored; then the file
    ends there. Where the index would reach into the old one nothing is cut: there is next to nothing to gain.
    """
    shard, stored = divmod(frames, level.frames_per_shard)
    if stored == 0 or level.published:  # a shard that is published as a whole never has room for frames to come
        return 0
    end = stored * level.frame_bytes
    size = end + level.index_length
    if size > level.pixel_bytes:
        return 0
    path = image / _layout.LEVEL / "c" / str(shard) / "0" / "0"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return 0  # somebody removed it: there is nothing to trim, and every reader says what is missing
    try:
        present = os.fstat(fd).st_size
        if present == size:
            return 0
        if present != level.shard_bytes:
            raise DatasetError(f"{path}: has {present} bytes instead of {level.shard_bytes} or {size}")
        with _files.translated(path):
            _files.write_all(fd, level.index(stored), end)
        kill_point("storage.close.index")
        os.ftruncate(fd, size)
        kill_point("storage.close.trimmed")
    finally:
        os.close(fd)
    return present - size


def unseal_shard(path: Path, level: _layout.Level, frames: int, index: bytes, staging: Path) -> int:
    """Bring a trimmed shard back to its full size by a copy that replaces it; return the copy's descriptor."""
    part = staging / f".{os.getpid()}-shard{_files.PART}"
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    target = -1
    try:
        needed = frames * level.frame_bytes
        if os.fstat(source).st_size < needed:
            raise DatasetError(f"{path}: is shorter than the {frames} frames stored in it")
        with _files.translated(path):
            target = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            offset = 0
            while offset < needed:
                data = os.pread(source, min(_COPY_BYTES, needed - offset), offset)
                if not data:
                    raise DatasetError(f"{path}: ended while it was copied")
                _files.write_all(target, data, offset)
                offset += len(data)
            os.ftruncate(target, level.shard_bytes)
            _files.write_all(target, index, level.pixel_bytes)
            kill_point("storage.unseal.copied")
            os.replace(part, path)
    except BaseException:
        if target >= 0:
            os.close(target)
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(source)
    return target


def note_documents(image: Path, syncer: _sync.Syncer) -> None:
    """Have all documents and the last shard of an image brought to the device."""
    folders = [image, image / _layout.LEVEL, image / _layout.FRAMES]
    folders += [image / _layout.FRAMES / name for name in os.listdir(image / _layout.FRAMES)]
    folders = [folder for folder in folders if folder.is_dir()]
    names = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
    syncer.add([*(folder / name for folder in folders for name in names if (folder / name).exists()), *folders])


def checked_attributes(change: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes that a caller may set, or raise for one that belongs to the layout."""
    own = {"layout", "images", "camera", "segment", "previous", "reason", "state", "frames", "level", "earlier_runs"}
    taken = sorted(own & set(change))
    if taken:
        raise ConfigError(f"these attributes belong to the layout and cannot be set: {', '.join(taken)}")
    return dict(change)
