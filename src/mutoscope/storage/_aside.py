"""Files and folders that are made beside their place and renamed into it: what a killed process leaves has no name."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetExistsError
from mutoscope.storage import _files, _replace
from mutoscope.storage._folder import _rename_new

__all__ = ["check_free", "make_file", "make_folder", "staging"]

_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)


def check_free(target: Path) -> None:
    """Raise DatasetExistsError if something is at `target` already, but for an empty folder."""
    if os.path.lexists(target) and not _replace.is_empty_folder(target):
        raise DatasetExistsError(f"{target}: exists already; choose another name")


@contextmanager
def refusals(target: Path) -> Iterator[None]:
    """Say in one sentence why nothing can be made at `target`."""
    with _files.translated(target):
        try:
            yield
        except OSError as error:
            if isinstance(error, ConfigError):
                raise
            if os.path.lexists(target) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise DatasetExistsError(f"{target}: was made by another process at this moment") from error
            if error.errno in _REFUSALS:
                raise ConfigError(f"{target}: cannot be made ({error.strerror})") from error
            raise


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `target`; it is gone afterwards. That of a killed process goes with the next one."""
    with refusals(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f"{target.name}.new")  # not the name of what a writer of the target itself puts aside
        _replace._remove_stale(beside)
        made = _replace._hidden(beside)
        made.mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def make_file(target: Path, write: Callable[[Path], None]) -> None:
    """Have `write` fill a file, which then appears whole at `target`; DatasetExistsError if there is one by then."""
    check_free(target)
    with staging(target) as folder:
        part = folder / target.name
        with _files.translated(target):
            write(part)
        kill_point("storage.aside.written")
        with refusals(target):
            fd = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _rename_new(f"{folder.name}/{part.name}", target.name, fd, fd)
            finally:
                os.close(fd)
        kill_point("storage.aside.placed")


def make_folder(target: Path, fill: Callable[[Path], None], *, replace: bool = False) -> None:
    """Have `fill` fill a folder, which then appears whole at `target`.

    Parameters
    ----------
    replace : bool
        In place of a Zarr data set that stands there; nothing else is ever replaced.

    Raises
    ------
    DatasetExistsError, ConfigError, ScopeStateError, DiskFullError
        If something is there; it must not be replaced; somebody writes to it; there is no room.
    """
    taken = os.path.lexists(target) and not _replace.is_empty_folder(target)
    if taken and not replace:
        raise DatasetExistsError(f"{target}: exists already; choose another name, or say overwrite")
    if taken:
        _replace.check_replaceable(target)
    with refusals(target):
        kept = _replace.make_folder(target, fill, replace=taken)
        if kept is not None:
            _replace.delete(target, kept)
