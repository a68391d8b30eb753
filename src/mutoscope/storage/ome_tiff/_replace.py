"""Replacing a data set: its files stay whole under another name until the new one is there; what is not one stays."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.storage.ome_tiff._dataset import Names, Sidecar
from mutoscope.storage.ome_tiff._pagefile import PageFile, open_regular

__all__ = ["check_replaceable", "delete", "left_over", "put_back", "set_aside", "undo_unfinished"]

_TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_replaceable(names: Names) -> None:
    """Raise ConfigError unless all that has the names of a data set's files is a TIFF or a sidecar."""
    for path in names.present().values():
        try:
            fd = open_regular(path)
        except DatasetError as error:
            raise ConfigError(f"{error}, so it is not replaced") from error
        try:
            beginning = os.pread(fd, 4, 0)
        finally:
            os.close(fd)
        if beginning and beginning not in _TIFF_BEGINNINGS:
            raise ConfigError(f"{path}: is not a TIFF, so it is not replaced")
    if os.path.lexists(names.sidecar):
        try:
            Sidecar.read(names)
        except DatasetError as error:
            raise ConfigError(f"{error}, so it is not replaced") from error


def set_aside(names: Names) -> Path:
    """Give the files of a data set a visible name beside their own (``run.replaced.ome.tiff``), the sidecar last; return it.

    A kill in between leaves images there without their sidecar, by which `undo_unfinished` knows them. The caller holds the
    lock. ConfigError, as of `check_replaceable`, before anything is moved.
    """
    check_replaceable(names)
    undo_unfinished(names)
    kept = _free(names)
    for position, path in reversed(names.present().items()):
        os.rename(path, kept.position(position))
        kill_point("tiff.overwrite.moved")
    if os.path.lexists(names.sidecar):
        os.rename(names.sidecar, kept.sidecar)
    kill_point("tiff.overwrite.aside")
    return kept.path


def put_back(names: Names, path: Path) -> None:
    """Have a data set that was set aside at `path` again in its place, where a new one without frames stands."""
    kept = Names(path)
    if os.path.lexists(kept.sidecar):
        os.rename(kept.sidecar, names.sidecar)
    else:
        names.sidecar.unlink(missing_ok=True)
    kill_point("tiff.overwrite.put_back")
    _move_back(names, kept)


def undo_unfinished(names: Names) -> bool:
    """Put images back that a killed process had set aside without their sidecar; the caller holds the lock."""
    done = False
    own = Sidecar.read(names)
    for kept in _kept(names):
        if own is None or os.path.lexists(kept.sidecar) or not _are_of(kept, own.dataset):
            continue
        _move_back(names, kept)
        done = True
    return done


def delete(path: Path) -> None:
    """Delete a data set that was set aside; the sidecar goes last."""
    kept = Names(path)
    for file in reversed(kept.present().values()):
        file.unlink()
        kill_point("tiff.overwrite.removed")
    kept.sidecar.unlink(missing_ok=True)


def left_over(names: Names) -> list[Path]:
    """Return the data sets that were set aside here and are still there."""
    return [kept.path for kept in _kept(names)]


def _move_back(names: Names, kept: Names) -> None:
    for position, path in kept.present().items():
        if not os.path.lexists(names.position(position)):
            os.rename(path, names.position(position))


def _are_of(kept: Names, dataset: bytes) -> bool:
    for path in kept.present().values():
        try:
            fd = open_regular(path)
            try:
                PageFile(fd, path, dataset)
            finally:
                os.close(fd)
        except DatasetError:
            return False
    return True


def _kept(names: Names) -> list[Names]:
    stem, suffix = names.stem, names.suffix
    mine = re.compile(re.escape(f"{stem}.replaced") + r"(-[0-9]+)?(\.p[1-9][0-9]{0,4})?" + re.escape(suffix) + r"(\.json)?")
    found = {match[1] or "" for match in map(mine.fullmatch, os.listdir(names.folder)) if match is not None}
    return [Names(names.folder / f"{stem}.replaced{number}{suffix}") for number in sorted(found)]


def _free(names: Names) -> Names:
    taken = {kept.path for kept in _kept(names)}
    for number in itertools.count(1):
        path = names.folder / f"{names.stem}.replaced{'' if number == 1 else f'-{number}'}{names.suffix}"
        if path not in taken:
            return Names(path)
    raise AssertionError
