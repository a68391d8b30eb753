"""Making a data set in one step, and replacing one without ever deleting what is not a data set."""

from __future__ import annotations

import ctypes
import errno
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

__all__ = ["check_replaceable", "delete", "is_empty_folder", "make_folder", "put_back", "replaced_folders"]

_serial = itertools.count()
_NODE = {"zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata"}
_CHUNK = re.compile(r"[0-9]+(\.[0-9]+)*|c(\.[0-9]+)*")
_STALE_S = 60.0
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CANNOT_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_rename_exchanging = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def is_empty_folder(path: Path) -> bool:
    """Whether `path` is a folder, not a link to one, with nothing in it."""
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def make_folder(root: Path, build: Callable[[Path], None], *, replace: bool) -> Path | None:
    """Have `build` fill a hidden folder beside `root`, then put it in place in one step.

    Returns
    -------
    Path or None
        Where what stood at `root` now is: beside it, whole, under a visible name (``run.replaced.ome.zarr``). Whoever asked
        for the replacement either deletes it with `delete` or has it back with `put_back`.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(root)
    made = _hidden(root)
    made.mkdir()
    try:
        build(made)
        kill_point("storage.create.built")
        if not replace:
            os.rename(made, root)
            return None
        kept = _free_name(root)
        os.rename(made, kept)
        made = kept
        kill_point("storage.create.beside")
        _exchange(root, kept)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    kill_point("storage.create.placed")
    return kept


def put_back(root: Path, kept: Path) -> None:
    """Undo a replacement: `kept` is at `root` again, and what stood there meanwhile is deleted."""
    _exchange(root, kept)
    kill_point("storage.create.put_back")
    delete(root, kept)


def delete(root: Path, folder: Path) -> None:
    """Delete a folder beside `root`: hidden first, so that nobody finds half of it; the next run ends what a kill stops."""
    hidden = _hidden(root)
    os.rename(folder, hidden)
    kill_point("storage.create.hidden")
    shutil.rmtree(hidden)


def replaced_folders(root: Path) -> list[Path]:
    """Return what was replaced at `root` and is still there: a run was killed before it had started."""
    stem, suffix = _split(root)
    mine = re.compile(re.escape(stem) + r"\.replaced(-[0-9]+)?" + re.escape(suffix))
    return sorted(root.parent / name for name in os.listdir(root.parent) if mine.fullmatch(name))


def _hidden(root: Path) -> Path:
    return root.parent / f".{root.name}.{os.getpid()}-{next(_serial)}{_files.PART}"


def _split(root: Path) -> tuple[str, str]:
    stem = root.name.removesuffix(".zarr").removesuffix(".ome")
    return stem, root.name[len(stem) :]


def _free_name(root: Path) -> Path:
    stem, suffix = _split(root)
    for number in itertools.count(1):
        name = root.parent / f"{stem}.replaced{'' if number == 1 else f'-{number}'}{suffix}"
        if not os.path.lexists(name):
            return name
    raise AssertionError


def _exchange(one: Path, other: Path) -> None:
    """Exchange two folders, in one step where the file system can; else `other` is at its own name or at that of `one`."""
    if _rename_exchanging is not None:
        if _rename_exchanging(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
            return
        error = ctypes.get_errno()
        if error not in _CANNOT_EXCHANGE:
            raise OSError(error, os.strerror(error), str(one), None, str(other))
    aside = _hidden(one)
    os.rename(other, aside)
    try:
        os.rename(one, other)
        try:
            os.rename(aside, one)
        except BaseException:
            os.rename(other, one)
            raise
    except BaseException:
        os.rename(aside, other)
        raise


def _remove_stale(root: Path) -> None:
    """Remove what a process that was killed while making or deleting this data set left hidden beside it."""
    mine = re.compile(re.escape(f".{root.name}.") + r"([0-9]+)-[0-9]+" + re.escape(_files.PART))
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
            ours = ours or (folder.parent.name == "tables" and name == "table.csv")
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
