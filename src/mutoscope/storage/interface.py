"""What every store does: the one interface of backends and viewers' sinks, and the rules that all keep.

- **Names** are relative paths with ``/`` between their parts. They cannot lead out of the store.
- **Overwriting** is refused unless asked for, of the store or of one call.
- **A save is all or nothing**: whoever looks finds the old item or the new one, whenever a process ends.
- **Nothing is shared**: the caller may change what was given to `save`, and what `load` returned, at once.
- **Lists** are in natural order: ``z2`` before ``z10``.
- **Errors**: `DatasetNotFoundError` (a `FileNotFoundError`) for a missing name, with near ones; `DatasetExistsError` (a
  `FileExistsError`) for one that is taken; `ConfigError` (a `ValueError`) for what cannot be; `DatasetError` for damaged
  items; `DiskFullError`; `ClosedError` after `close`.

`mutoscope.storage.suite.StorageSuite` checks all of it, for backends of other packages too.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

from numpy.typing import NDArray

from mutoscope.model import arguments
from mutoscope.model.errors import ClosedError, ConfigError, DatasetExistsError
from mutoscope.model.filenames import NameParser, ParserLike, get_parser
from mutoscope.storage import _formats, _names

__all__ = ["DataSink", "DataSource", "Name", "StorageBackend", "same_form"]

Name: TypeAlias = str | os.PathLike[str]


class _Store(ABC):  # noqa: B024 - its two heirs have the abstract methods
    """What sinks and sources have in common: options, and an end."""

    def __init__(self, address: Name | None = None, *, filenames: ParserLike | None = None, overwrite: bool = False) -> None:
        if address is not None:
            arguments.path("the address of a store", address, "results")
        self.address = address
        self.filenames: NameParser | None = None if filenames is None else get_parser(filenames)
        self.overwrite = arguments.flag("overwrite", overwrite)
        self._closed = False

    def disconnect(self) -> None:  # noqa: B027 - most stores have nothing to drop
        """Drop connections; a later call connects again. A viewer's window stays open. Without connections it does nothing."""

    def close(self) -> None:
        """End the use of this store; twice is fine. Stored items stay."""
        self._closed = True

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _replaces(self, overwrite: bool | None) -> bool:
        """Whether a call may replace an item: as it says itself, or else as the store was opened."""
        return self.overwrite if overwrite is None else arguments.flag("overwrite", overwrite)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self}: this store is closed")

    def __str__(self) -> str:
        return f"{type(self).__name__}({os.fspath(self.address)!r})" if self.address is not None else type(self).__name__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class DataSink(_Store):
    """Takes items: a store, or a viewer that shows them.

    Parameters
    ----------
    address : path, optional
        Where the items go.
    filenames : str or NameParser, optional
        How the microscope names its files (`mutoscope.model.filenames`), for those who place items by their names.
    overwrite : bool
        Whether an item of a taken name replaces the one that is there, where a call does not say so itself.
    """

    @abstractmethod
    def save(self, data: Any, name: Name, *, overwrite: bool | None = None) -> None:
        """Store one item.

        Parameters
        ----------
        data : array, table, list of Roi, str, or plain values
            Arrays of any library (DLPack, ``__array__``, ``__cuda_array_interface__``, ``.cpu()``, ``.get()``); tables are
            structured arrays of one dimension, pandas or Arrow; plain values are what JSON has. Copied before return.
        name : str
            Its suffix says the form.
        overwrite : bool, optional
            Replace an item of this name; as the store was opened, if not given.

        Raises
        ------
        DatasetExistsError
            If the name is taken.
        ConfigError
            If the name cannot be, or this store cannot hold the data under it.
        BackendUnavailableError
            If the form needs a library that is not installed; says how to get it.
        """

    def save_batch(self, data: Iterable[Any], names: Iterable[Name], *, overwrite: bool | None = None) -> None:
        """Store several items in order.

        Each is all or nothing. Names and lengths are checked before the first is stored; what fails later carries a note
        that says how many were stored before it.

        Raises
        ------
        ConfigError
            A `ValueError`, before anything is stored: data and names differ in number, or one name comes twice.
        """
        self._check_open()
        items, keys = _paired(data, names)
        self._check_batch(items, keys, self._replaces(overwrite))
        for number, (item, name) in enumerate(zip(items, keys, strict=True)):
            try:
                self.save(item, name, overwrite=overwrite)
            except Exception as error:
                error.add_note(f"{number} of {len(keys)} items were stored before {name!r}")
                raise

    def _check_batch(self, items: Sequence[Any], names: Sequence[str], overwrite: bool) -> None:
        """Raise for a batch of which something cannot be stored, as far as can be told beforehand."""


class DataSource(_Store):
    """Gives items that are stored."""

    @abstractmethod
    def load(self, name: Name) -> Any:
        """Return an item: a new array, a structured array, a list of Roi, text, or plain values.

        Raises
        ------
        DatasetNotFoundError
            A `FileNotFoundError`, with near names.
        DatasetError
            If it is damaged.
        ConfigError
            If the name cannot be, or names a folder.
        """

    def load_batch(self, names: Iterable[Name]) -> list[Any]:
        """Return several items in the order of their names; errors as `load`, the first one ends it."""
        return [self.load(name) for name in _listed(names)]

    def load_region(self, name: Name, region: Any) -> NDArray[Any]:
        """Return a part of an array as a new one, reading no more than it must.

        Parameters
        ----------
        name : str
            Of an array.
        region : slice or tuple of slices
            As in ``array[region]``, without steps; ``...`` stands for all axes between. It must lie inside.

        Raises
        ------
        ConfigError
            If the region does not lie inside, or the item is no array. Otherwise as `load`.
        """
        item = self.load(name)
        if not hasattr(item, "shape"):
            raise ConfigError(f"{os.fspath(name)!r} holds no array, so it has no regions")
        return _formats.crop(item, region, repr(os.fspath(name)))

    @abstractmethod
    def list_files(self, folder: Name = "", *, pattern: str | None = None, recursive: bool = False) -> list[str]:
        """Return the names of the items in a folder, in natural order, relative to the root of the store.

        Parameters
        ----------
        folder : str
            The root, if not given.
        pattern : str, optional
            Of the last part of a name: ``*``, ``?`` and ``[…]`` as in a shell, case counts.
        recursive : bool
            Also those in the folders inside.

        Raises
        ------
        DatasetNotFoundError
            If there is no such folder.
        """

    @abstractmethod
    def list_dirs(self, folder: Name = "") -> list[str]:
        """Return the names of the folders in a folder, as `list_files` does."""

    @abstractmethod
    def is_file(self, name: Name) -> bool:
        """Whether an item has this name; ConfigError if the name cannot be."""

    @abstractmethod
    def is_dir(self, name: Name) -> bool:
        """Whether a folder has this name; ConfigError if the name cannot be."""

    def exists(self, name: Name) -> bool:
        """Whether an item or a folder has this name; ConfigError if the name cannot be."""
        return self.is_file(name) or self.is_dir(name)


class StorageBackend(DataSink, DataSource):
    """A store: takes items and gives them back. Parameters as :class:`DataSink`."""

    any_suffix = False
    """Whether names without a suffix may hold items of any kind."""

    @abstractmethod
    def delete(self, name: Name, *, recursive: bool = False) -> None:
        """Remove an item or an empty folder; with `recursive` also a folder with all in it.

        Raises
        ------
        DatasetNotFoundError, ConfigError
            If there is none; if the folder is not empty.
        """

    @abstractmethod
    def copy(self, source: Name, target: Name, *, overwrite: bool | None = None) -> None:
        """Copy an item to another name of the same form, all or nothing; errors as `load` and `save`."""

    @abstractmethod
    def move(self, source: Name, target: Name, *, overwrite: bool | None = None) -> None:
        """Give an item another name of the same form, or a folder another name that is free, in one step."""

    @abstractmethod
    def ensure_directory(self, name: Name) -> None:
        """Make a folder, and those above it, unless it is there.

        Raises
        ------
        ConfigError
            If an item is in the way.
        """

    def _check_batch(self, items: Sequence[Any], names: Sequence[str], overwrite: bool) -> None:
        for name in names:
            if not (self.any_suffix and not _formats.suffix_of(name)):
                _formats.format_of(name)
            if not overwrite and self.is_file(name):
                raise self._taken(name)

    def _taken(self, name: str) -> Exception:
        return DatasetExistsError(f"{self}: {name!r} is there already; say overwrite=True, or choose another name")


def same_form(source: str, target: str) -> None:
    """Raise ConfigError if a copy would have another form than its name says."""
    known = [suffix if (suffix := _formats.suffix_of(name)) in _formats.suffixes() else None for name in (source, target)]
    forms = [_formats.format_of(f"x{suffix}").name if suffix else None for suffix in known]
    if forms[0] != forms[1]:
        raise ConfigError(
            f"{source!r} cannot become {target!r}: the suffix says another form; load it, and save it under the other name"
        )


def _listed(names: Iterable[Name]) -> list[str]:
    if isinstance(names, str | os.PathLike):
        raise ConfigError(f"names are a list, not the one name {os.fspath(names)!r}")
    if not isinstance(names, Iterable):
        raise ConfigError(f"names are a list, not {arguments.shown(names)}")
    return [_names.as_text(name) for name in names]


def _paired(data: Iterable[Any], names: Iterable[Name]) -> tuple[list[Any], list[str]]:
    keys = _listed(names)
    if not isinstance(data, Iterable):
        raise ConfigError(f"data are a list of items, not {arguments.shown(data)}")
    items = list(data)
    if len(items) != len(keys):
        raise ConfigError(f"{len(items)} items and {len(keys)} names: they must be as many; nothing was stored")
    seen: set[str] = set()
    for name in keys:
        checked = _names.check_new_name(name)
        if checked in seen:
            raise ConfigError(f"{name!r} comes twice among the names; nothing was stored")
        seen.add(checked)
    return items, keys
