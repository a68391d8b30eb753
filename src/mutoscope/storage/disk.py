"""A folder with one file an item, each in a form that everyone's tools read.

Whoever opens the store owns nothing but the right to use it: the folder is made when the first item is stored, and stays.
Several processes and threads may use one folder at once. A save writes beside the file's place and then renames, without
waiting for the device: it survives the death of every process, not a power cut.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError
from mutoscope.model.filenames import ParserLike
from mutoscope.storage import _formats, _names
from mutoscope.storage._folder import Folder, missing_error
from mutoscope.storage.interface import Name, StorageBackend, same_form

__all__ = ["DiskBackend"]


class DiskBackend(StorageBackend):
    """One file an item: TIFF, NPY, PNG, CSV, JSON, text and ROI zips, by suffix. Safe for threads and processes.

    Parameters
    ----------
    address : path, optional
        The folder; made with the first save. ``./mutoscope-data/<UTC stamp>``, if not given.
    filenames, overwrite
        As `DataSink`.
    """

    def __init__(self, address: Name | None = None, *, filenames: ParserLike | None = None, overwrite: bool = False) -> None:
        if address is None:
            address = Path("mutoscope-data") / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        super().__init__(address, filenames=filenames, overwrite=overwrite)
        self.path = Path(os.path.abspath(address))
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path}: is not a folder")
        self._folder = Folder(self.path)

    def __str__(self) -> str:
        return str(self.path)

    # ------------------------------------------------------------------ items

    def save(self, data: Any, name: Name, *, overwrite: bool | None = None) -> None:
        self._check_open()
        key = _names.check_new_name(name)
        if key.lower().endswith((".ome.tif", ".ome.tiff")):
            raise ConfigError(f"{key!r}: an OME-TIFF is written by storage.open_writer; a plain TIFF is named without .ome")
        form, _, value = _formats.check(data, key)
        self._write(key, lambda file: form.write(file, value), overwrite)

    def _write(self, key: str, fill: Callable[[IO[bytes]], None], overwrite: bool | None) -> None:
        wanted = self._replaces(overwrite)
        try:
            if self._folder.kind_of(key) == "folder":
                raise ConfigError(f"{self}: {key!r} is a folder")
            self._folder.write(key, fill, overwrite=wanted)
        except FileExistsError as error:
            raise (error if isinstance(error, ConfigError) else self._taken(key)) from None
        except NotADirectoryError:
            raise ConfigError(f"{self}: a part of {key!r} is an item, not a folder") from None

    @contextmanager
    def _reading(self, name: Name) -> Iterator[tuple[str, IO[bytes], int, str]]:
        self._check_open()
        key = _names.check_name(name)
        try:
            file = self._folder.open_file(key)
        except IsADirectoryError:
            raise ConfigError(f"{self}: {key!r} is a folder") from None
        except (FileNotFoundError, NotADirectoryError):
            raise missing_error(self._folder, key) from None
        with file:
            yield key, file, os.fstat(file.fileno()).st_size, f"{self}/{key}"

    def load(self, name: Name) -> Any:
        with self._reading(name) as (key, file, size, where):
            return _formats.read(key, file, size, where)

    def load_region(self, name: Name, region: Any) -> NDArray[Any]:
        with self._reading(name) as (key, file, size, where):
            return _formats.read_region(key, file, size, where, region)

    # ------------------------------------------------------------------ what is there

    def list_files(self, folder: Name = "", *, pattern: str | None = None, recursive: bool = False) -> list[str]:
        found: list[str] = []
        first = _names.check_folder(folder)
        waiting = [first]
        while waiting:
            key = waiting.pop()
            for name, kind in self._entries(key, strict=key == first):
                if kind.endswith("file") and (pattern is None or fnmatch.fnmatchcase(name.rpartition("/")[2], pattern)):
                    found.append(name)
                elif kind == "folder" and recursive:
                    waiting.append(name)
        return sorted(found, key=_names.natural_key)

    def list_dirs(self, folder: Name = "") -> list[str]:
        entries = self._entries(_names.check_folder(folder), strict=True)
        return sorted((name for name, kind in entries if kind.endswith("folder")), key=_names.natural_key)

    def _entries(self, key: str, *, strict: bool) -> list[tuple[str, str]]:
        """Return what is in a folder; one that went away meanwhile is empty unless `strict`."""
        self._check_open()
        try:
            return list(self._folder.entries(key))
        except (FileNotFoundError, NotADirectoryError):
            if strict and self._folder.kind_of(key) == "file":
                raise ConfigError(f"{self}: {key!r} is an item, not a folder") from None
            if key and strict:
                raise missing_error(self._folder, key) from None
            return []

    def is_file(self, name: Name) -> bool:
        self._check_open()
        return self._folder.kind_of(_names.check_folder(name)) == "file"

    def is_dir(self, name: Name) -> bool:
        self._check_open()
        key = _names.check_folder(name)
        return not key or self._folder.kind_of(key) == "folder"

    # ------------------------------------------------------------------ changes

    def delete(self, name: Name, *, recursive: bool = False) -> None:
        self._check_open()
        key = _names.check_name(name)
        kind = self._folder.kind_of(key)
        try:
            if kind == "folder" and not os.path.islink(self.path / key):
                self._folder.remove_folder(key, recursive=recursive)
            else:
                self._folder.remove_file(key)
        except (FileNotFoundError, NotADirectoryError):
            raise missing_error(self._folder, key) from None
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise ConfigError(f"{self}: the folder {key!r} is not empty; say recursive=True to delete all in it") from None

    def copy(self, source: Name, target: Name, *, overwrite: bool | None = None) -> None:
        wanted = _names.check_new_name(target)
        with self._reading(source) as (key, file, _, _):
            self._check_pair(key, wanted)
            self._write(wanted, lambda new: shutil.copyfileobj(file, new, 1 << 20), overwrite)

    def move(self, source: Name, target: Name, *, overwrite: bool | None = None) -> None:
        self._check_open()
        key, wanted = _names.check_name(source), _names.check_new_name(target)
        kind = self._folder.kind_of(key)
        if not kind:
            raise missing_error(self._folder, key)
        if kind == "file":
            self._check_pair(key, wanted)
            if self._folder.kind_of(wanted) == "folder":
                raise ConfigError(f"{self}: {wanted!r} is a folder")
        elif wanted == key or wanted.startswith(f"{key}/"):
            raise ConfigError(f"{self}: the folder {key!r} cannot become {wanted!r}")
        replace = kind == "file" and self._replaces(overwrite)
        try:
            self._folder.rename(key, wanted, overwrite=replace)
        except FileExistsError:
            raise self._taken(wanted) from None
        except NotADirectoryError:
            raise ConfigError(f"{self}: a part of {wanted!r} is an item, not a folder") from None
        except FileNotFoundError:
            raise missing_error(self._folder, key) from None

    def _check_pair(self, key: str, wanted: str) -> None:
        same_form(key, wanted)
        if key == wanted:
            raise ConfigError(f"{self}: {key!r} cannot become itself")

    def ensure_directory(self, name: Name) -> None:
        self._check_open()
        key = _names.check_new_folder(name)
        try:
            with self._folder.opened(key, make=True):
                return
        except NotADirectoryError:
            raise ConfigError(f"{self}: a part of {key!r} is an item, not a folder") from None
