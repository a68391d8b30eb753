"""A copy that takes long: made in a hidden folder that outlives a kill, gone on with by the next run, then put in place.

``.<name>.unfinished`` beside the target holds `STATE`, which says what the copy is of, and the copy itself, `DATA`. A run holds
a lock on the folder; a copy of something else, or in another form, is begun anew.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import DatasetExistsError, DiskFullError, MutoscopeError
from mutoscope.storage import _aside, _files, _replace

__all__ = ["unfinished"]

STATE, DATA = "state.json", "data"


@contextmanager
def unfinished(target: Path, what: Mapping[str, Any], *, overwrite: bool) -> Iterator[Path]:
    """Yield where the copy is to be made, or gone on with; leaving it without an error puts it at `target`, in one step.

    Parameters
    ----------
    target : Path
        Absolute.
    what : mapping
        What the copy is of, and how it is made, in plain values.
    overwrite : bool
        In place of a Zarr data set that stands there; nothing else is ever replaced.

    Raises
    ------
    DatasetExistsError, ConfigError
        If something is at `target`; if that must not be replaced.
    ScopeStateError
        If another run makes this copy.
    """
    _check(target, overwrite)
    folder = target.with_name(f".{target.name}.unfinished")
    with _aside.refusals(target):
        folder.mkdir(parents=True, exist_ok=True)
    held = _files.hold(folder)
    try:
        data = folder / DATA
        before = _read(folder)
        if before.get("placing") not in (None, _inode(data)) or before.get("what") != dict(what):
            for entry in folder.iterdir():
                _remove(entry)
        else:
            _remove_hidden(folder)
            _remove_hidden(data)
        _write(folder, {"what": dict(what)})
        try:
            yield data
        except DiskFullError:
            raise  # it may get room
        except MutoscopeError:
            shutil.rmtree(folder)
            raise
        kill_point("storage.convert.unplaced")
        _place(folder, data, target, overwrite, what)
        shutil.rmtree(folder)
    finally:
        os.close(held)


def _check(target: Path, overwrite: bool) -> bool:
    """Return whether something is to be replaced."""
    taken = os.path.lexists(target) and not _replace.is_empty_folder(target)
    if taken and not overwrite:
        raise DatasetExistsError(f"{target}: exists already; choose another name, or say overwrite")
    if taken:
        _replace.check_replaceable(target)
    return taken


def _place(folder: Path, data: Path, target: Path, overwrite: bool, what: Mapping[str, Any]) -> None:
    with _aside.refusals(target):
        taken = _check(target, overwrite)
        _write(folder, {"what": dict(what), "placing": _inode(data)})  # what is at `data` afterwards is another one, or none
        kill_point("storage.convert.placing")
        if taken:
            _replace._exchange(target, data)
        else:
            os.rename(data, target)
    kill_point("storage.convert.exchanged")


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = msgspec.json.decode((folder / STATE).read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(folder: Path, state: Mapping[str, Any]) -> None:
    _files.replace_file(folder / STATE, _files.encode(state), folder)


def _remove_hidden(folder: Path) -> None:
    """Remove what a killed run left half-made."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name.startswith("."):
            _remove(entry)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()
