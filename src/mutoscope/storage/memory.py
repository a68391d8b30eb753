"""A store in the memory of this process: ``memory://NAME`` is shared by all that open it here, unnamed ones are private.

A named store lives as long as the process; ``delete(name, recursive=True)`` of what is in it gives the memory back. Nothing
here is shared with other processes, and a forked child has a copy.
"""

from __future__ import annotations

import fnmatch
import os
import threading
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError, DatasetNotFoundError
from mutoscope.model.filenames import ParserLike
from mutoscope.storage import _formats, _names
from mutoscope.storage.interface import Name, StorageBackend, same_form

__all__ = ["MemoryBackend"]

SCHEME = "memory://"


@dataclass
class _Contents:
    """Items and folders of one store, under one lock."""

    items: dict[str, tuple[_formats.Kind, Any]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)


_named: dict[str, _Contents] = {}
_named_lock = threading.Lock()


class MemoryBackend(StorageBackend):
    """Items in memory, under the same rules as on disk. Safe for threads.

    Names with a suffix hold what a file of that suffix holds; names without one hold anything.

    Parameters
    ----------
    address : str, optional
        ``"memory://NAME"`` or ``"NAME"``: the store of that name in this process. Private, if not given.
    filenames, overwrite
        As `DataSink`.
    """

    any_suffix = True

    def __init__(self, address: Name | None = None, *, filenames: ParserLike | None = None, overwrite: bool = False) -> None:
        super().__init__(address, filenames=filenames, overwrite=overwrite)
        name = "" if address is None else os.fspath(address).removeprefix(SCHEME)
        if "://" in name:
            raise ConfigError(f"{address!r} is no address of a store in memory; that is {SCHEME}NAME")
        if name:
            with _named_lock:
                self._contents = _named.setdefault(name, _Contents())
        else:
            self._contents = _Contents()
        self._where = f"{SCHEME}{name}"

    def __str__(self) -> str:
        return self._where

    # ------------------------------------------------------------------ items

    def save(self, data: Any, name: Name, *, overwrite: bool | None = None) -> None:
        self._check_open()
        key = _names.check_new_name(name)
        if _formats.suffix_of(key):
            _, kind, value = _formats.check(data, key)
        else:
            kind, value = _formats.classify(data)
        value = _formats.copy_of(kind, value)
        with self._contents.lock:
            self._check_free(key, overwrite)
            self._make_folders(key.rpartition("/")[0])
            self._contents.items[key] = (kind, value)

    def _check_free(self, key: str, overwrite: bool | None) -> None:
        replaces = self._replaces(overwrite)
        if key in self._contents.folders:
            raise ConfigError(f"{self}: {key!r} is a folder")
        if key in self._contents.items and not replaces:
            raise self._taken(key)

    def _make_folders(self, key: str) -> None:
        parts = key.split("/") if key else []
        wanted = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        for folder in wanted:
            if folder in self._contents.items:
                raise ConfigError(f"{self}: {folder!r} is an item, not a folder")
        self._contents.folders.update(wanted)

    def _item(self, name: Name) -> tuple[str, _formats.Kind, Any]:
        self._check_open()
        key = _names.check_name(name)
        with self._contents.lock:
            if key in self._contents.folders:
                raise ConfigError(f"{self}: {key!r} is a folder")
            if key not in self._contents.items:
                raise self._missing(key)
            return key, *self._contents.items[key]

    def _missing(self, key: str) -> DatasetNotFoundError:
        return _names.not_found(key, self, [*self._contents.items, *self._contents.folders])

    def load(self, name: Name) -> Any:
        _, kind, value = self._item(name)
        return _formats.copy_of(kind, value)

    def load_region(self, name: Name, region: Any) -> NDArray[Any]:
        key, kind, value = self._item(name)
        if kind not in ("array", "table"):
            raise ConfigError(f"{self}: {key!r} holds no array, so it has no regions")
        return _formats.crop(value, region, f"{self}: {key!r}")

    # ------------------------------------------------------------------ what is there

    def list_files(self, folder: Name = "", *, pattern: str | None = None, recursive: bool = False) -> list[str]:
        return self._list(self._contents.items, folder, pattern, recursive)

    def list_dirs(self, folder: Name = "") -> list[str]:
        return self._list(self._contents.folders, folder, None, False)

    def _list(self, names: Any, folder: Name, pattern: str | None, recursive: bool) -> list[str]:
        self._check_open()
        key = _names.check_folder(folder)
        prefix = f"{key}/" if key else ""
        with self._contents.lock:
            if key in self._contents.items:
                raise ConfigError(f"{self}: {key!r} is an item, not a folder")
            if key and key not in self._contents.folders:
                raise self._missing(key)
            inside = [name for name in names if name.startswith(prefix)]
        return sorted(
            (
                name
                for name in inside
                if (recursive or "/" not in name[len(prefix) :])
                and (pattern is None or fnmatch.fnmatchcase(name.rpartition("/")[2], pattern))
            ),
            key=_names.natural_key,
        )

    def is_file(self, name: Name) -> bool:
        self._check_open()
        return _names.check_folder(name) in self._contents.items

    def is_dir(self, name: Name) -> bool:
        self._check_open()
        key = _names.check_folder(name)
        return not key or key in self._contents.folders

    # ------------------------------------------------------------------ changes

    def delete(self, name: Name, *, recursive: bool = False) -> None:
        self._check_open()
        key = _names.check_name(name)
        contents = self._contents
        with contents.lock:
            if key in contents.items:
                del contents.items[key]
                return
            if key not in contents.folders:
                raise self._missing(key)
            items = [each for each in contents.items if each.startswith(f"{key}/")]
            folders = [each for each in contents.folders if each.startswith(f"{key}/")]
            if (items or folders) and not recursive:
                raise ConfigError(f"{self}: the folder {key!r} is not empty; say recursive=True to delete all in it")
            for each in items:
                del contents.items[each]
            contents.folders.difference_update(folders, [key])

    def copy(self, source: Name, target: Name, *, overwrite: bool | None = None) -> None:
        wanted = _names.check_new_name(target)
        with self._contents.lock:
            key, kind, value = self._item(source)
            same_form(key, wanted)
            if key == wanted:
                raise ConfigError(f"{self}: {key!r} cannot become itself")
            self._check_free(wanted, overwrite)
            self._make_folders(wanted.rpartition("/")[0])
            self._contents.items[wanted] = (kind, value)  # never changed in place, so both may have it

    def move(self, source: Name, target: Name, *, overwrite: bool | None = None) -> None:
        self._check_open()
        key, wanted = _names.check_name(source), _names.check_new_name(target)
        with self._contents.lock:
            if key in self._contents.folders:
                self._move_folder(key, wanted)
                return
            self.copy(key, wanted, overwrite=overwrite)
            del self._contents.items[key]

    def _move_folder(self, key: str, wanted: str) -> None:
        contents = self._contents
        if wanted == key or wanted.startswith(f"{key}/"):
            raise ConfigError(f"{self}: the folder {key!r} cannot become {wanted!r}")
        if wanted in contents.items or wanted in contents.folders:
            raise self._taken(wanted)
        self._make_folders(wanted.rpartition("/")[0])
        size = len(key)
        for name in [name for name in contents.items if name.startswith(f"{key}/")]:
            contents.items[wanted + name[size:]] = contents.items.pop(name)
        for name in [name for name in contents.folders if name == key or name.startswith(f"{key}/")]:
            contents.folders.remove(name)
            contents.folders.add(wanted + name[size:])

    def ensure_directory(self, name: Name) -> None:
        self._check_open()
        key = _names.check_new_folder(name)
        with self._contents.lock:
            self._make_folders(key)
