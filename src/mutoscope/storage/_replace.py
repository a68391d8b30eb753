"""Making a data set in one step, and replacing one without ever deleting what is not a data set."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.storage import _files, _layout

__all__ = ["check_replaceable", "is_empty_folder", "make_folder"]

_serial = itertools.count()
_NODE = {"zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata"}
_CHUNK = re.compile(r"[0-9]+(\.[0-9]+)*|c(\.[0-9]+)*")
_STALE_S = 60.0


def is_empty_folder(path: Path) -> bool:
    """Whether `path` is a folder, not a link to one, with nothing in it."""
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def make_folder(root: Path, build: Callable[[Path], None], *, replace: bool) -> None:
    """Have `build` fill a hidden folder beside `root`, then rename it into place, the old one aside and then away."""
    root.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(root)
    label = f".{root.name}.{os.getpid()}-{next(_serial)}"
    part = root.parent / f"{label}{_files.PART}"
    part.mkdir()
    try:
        build(part)
        kill_point("storage.create.built")
        if replace:
            old = root.parent / f"{label}-old{_files.PART}"
            os.rename(root, old)
            kill_point("storage.create.moved_away")
            os.rename(part, root)
            kill_point("storage.create.placed")
            shutil.rmtree(old)
        else:
            os.rename(part, root)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _remove_stale(root: Path) -> None:
    """Remove what a process that was killed while making this data set left beside it."""
    mine = re.compile(re.escape(f".{root.name}.") + r"([0-9]+)-[0-9]+(-old)?" + re.escape(_files.PART))
    for name in os.listdir(root.parent):
        match = mine.fullmatch(name)
        if match is None or os.path.exists(f"/proc/{match[1]}"):
            continue
        entry = root.parent / name
        try:
            age_s = time.time() - entry.lstat().st_mtime
        except FileNotFoundError:
            continue
        if age_s > _STALE_S:
            shutil.rmtree(entry, ignore_errors=True)


def check_replaceable(root: Path) -> None:
    """Raise unless everything under `root` belongs to a Zarr data set that nobody is writing."""
    if root.is_symlink() or not root.is_dir():
        raise ConfigError(f"{root}: is not a data set, so it is not overwritten; choose another name")
    if not any((root / name).is_file() for name in _NODE):
        raise ConfigError(f"{root}: is a folder but not a data set, so it is not overwritten; choose another name")
    _check_node(root)


def _check_node(folder: Path) -> None:
    names = set(os.listdir(folder))
    array = ".zarray" in names or _is_array(folder)
    for name in sorted(names):
        entry = folder / name
        if entry.is_symlink():
            raise _refusal(entry)
        if entry.is_file():
            ours = name in _NODE or name.endswith(_files.PART) or (folder.name == _layout.OME and name == "METADATA.ome.xml")
            if not ours and not (array and _CHUNK.fullmatch(name)):
                raise _refusal(entry)
        elif array and (_CHUNK.fullmatch(name) or name.endswith(_files.PART)):
            if _CHUNK.fullmatch(name):
                _check_chunks(entry)
        elif any((entry / node).is_file() for node in _NODE):
            _check_node(entry)
        else:
            raise _refusal(entry)
    if array:
        os.close(_files.hold(folder))


def _is_array(folder: Path) -> bool:
    try:
        return _files.read_document(folder, "zarr.json").get("node_type") == "array"
    except DatasetError:
        return False


def _check_chunks(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_symlink() or not _CHUNK.fullmatch(entry.name):
            raise _refusal(entry)
        if entry.is_dir():
            _check_chunks(entry)


def _refusal(entry: Path) -> ConfigError:
    return ConfigError(f"{entry}: does not belong to a data set, so nothing is overwritten; choose another name")
