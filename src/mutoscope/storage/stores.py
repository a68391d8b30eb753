"""Several stores behind one: `Stores` routes each call to the member that is named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.model.filenames import ParserLike
from mutoscope.storage import registry
from mutoscope.storage.interface import DataSink, DataSource, Name

__all__ = ["Stores"]


class Stores:
    """Stores by the names that you give them. It owns them: `close` closes all.

    Parameters
    ----------
    members : mapping of str to store
        A store that is open, or what opens one: a name for `mutoscope.storage.open`, or ``(name, address)``.

    Attributes
    ----------
    unavailable : dict of str to str
        What `available` could not open, with the reason.

    Examples
    --------
    >>> import numpy as np
    >>> from mutoscope.storage import Stores
    >>> with Stores({"raw": "memory", "results": ("memory", "memory://results")}) as stores:
    ...     stores.save(np.zeros((2, 3), "uint16"), "a.npy", store="raw")
    ...     stores.save({"spots": 12}, "a.json", store="results")
    ...     stores.load("a.npy", store="raw").shape, stores.load("a.json", store="results")
    ((2, 3), {'spots': 12})
    """

    def __init__(self, members: Mapping[str, DataSink | DataSource | str | tuple[str, Name]]) -> None:
        self.unavailable: dict[str, str] = {}
        self._members: dict[str, DataSink | DataSource] = {}
        try:
            for name, member in members.items():
                self._members[name] = _opened(name, member)
        except BaseException:
            ours = [store for name, store in self._members.items() if store is not members[name]]
            _visit("closing what was opened", [(str(store), store.close) for store in ours])
            raise

    @classmethod
    def available(cls, addresses: Mapping[str, Name] | None = None, filenames: ParserLike | None = None) -> Stores:
        """Open every store that loads here, under its own name; the others are listed in `unavailable` with the reason.

        Viewers start no window before the first item is saved.

        Parameters
        ----------
        addresses : mapping of str to path, optional
            Where, for the stores that need to be told, by name.
        filenames : str or NameParser, optional
            As `mutoscope.storage.open`.
        """
        stores = cls({})
        wanted = {name.casefold(): address for name, address in (addresses or {}).items()}
        rows = {row.name.casefold(): row for row in registry.backends()}
        unknown = sorted(set(wanted) - set(rows))
        if unknown:
            raise ConfigError(f"there is no store {unknown[0]!r} to give an address; there are {', '.join(rows)}")
        for key, row in rows.items():
            if not row.available:
                stores.unavailable[row.name] = row.need
                continue
            try:
                stores._members[row.name] = registry.open_backend(row.name, wanted.get(key), filenames)
            except (ConfigError, BackendUnavailableError, OSError) as error:
                stores.unavailable[row.name] = str(error)
        return stores

    # ------------------------------------------------------------------ members

    def __getitem__(self, name: str) -> DataSink | DataSource:
        if name not in self._members:
            raise ConfigError(f"there is no member {name!r}; there are {', '.join(self._members) or 'none'}")
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def _sink(self, name: str) -> DataSink:
        store = self[name]
        if not isinstance(store, DataSink):
            raise ConfigError(f"{name!r} only gives items, it takes none")
        return store

    def _source(self, name: str) -> DataSource:
        store = self[name]
        if not isinstance(store, DataSource):
            raise ConfigError(f"{name!r} only takes items, it gives none")
        return store

    def save(self, data: Any, name: Name, *, store: str, overwrite: bool | None = None) -> None:
        """Store one item in the member `store`; as `DataSink.save`."""
        self._sink(store).save(data, name, overwrite=overwrite)

    def save_batch(self, data: Iterable[Any], names: Iterable[Name], *, store: str, overwrite: bool | None = None) -> None:
        """Store several items in the member `store`; as `DataSink.save_batch`."""
        self._sink(store).save_batch(data, names, overwrite=overwrite)

    def load(self, name: Name, *, store: str) -> Any:
        """Return an item of the member `store`; as `DataSource.load`."""
        return self._source(store).load(name)

    def load_batch(self, names: Iterable[Name], *, store: str) -> list[Any]:
        """Return several items of the member `store`; as `DataSource.load_batch`."""
        return self._source(store).load_batch(names)

    # ------------------------------------------------------------------ the end

    def disconnect(self) -> None:
        """Drop every member's connections; viewers' windows stay open, and a later save connects again.

        Raises
        ------
        ExceptionGroup
            Of what members raised, after all were visited.
        """
        _visit("disconnecting", [(name, store.disconnect) for name, store in self._members.items()])

    def close(self) -> None:
        """Close every member; twice is fine. ExceptionGroup as `disconnect`."""
        _visit("closing", [(name, store.close) for name, store in self._members.items()])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _opened(name: str, member: Any) -> DataSink | DataSource:
    if isinstance(member, DataSink | DataSource):
        return member
    if isinstance(member, str):
        return registry.open_backend(member)
    if isinstance(member, tuple) and len(member) == 2:
        return registry.open_backend(*member)
    raise ConfigError(f"the member {name!r} is a store, the name of one, or (name, address), not {member!r}")


def _visit(what: str, calls: list[tuple[str, Callable[[], None]]]) -> None:
    errors: list[Exception] = []
    for name, call in calls:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - every member has its turn; all errors are raised below
            error.add_note(f"while {what} the store {name!r}")
            errors.append(error)
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(calls)} stores failed while {what}", errors)
