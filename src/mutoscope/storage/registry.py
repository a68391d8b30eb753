"""The table of stores by name, and the opening of one: ours, those of installed packages, or ``"module:Class"``."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.model.filenames import ParserLike
from mutoscope.model.install import install_command
from mutoscope.storage.interface import DataSink, DataSource, Name, StorageBackend

__all__ = ["BACKENDS", "BackendInfo", "BackendSpec", "backends", "find_backend", "open_backend"]

ENTRY_POINTS = "mutoscope.storage"


@dataclass(frozen=True)
class BackendSpec:
    """A store by name.

    Parameters
    ----------
    name : str
        What a person writes, in any case.
    target : str
        ``"module:Class"`` of a `DataSink`, a `DataSource` or a `StorageBackend`.
    stores : str
        What it stores, in one line.
    needs : tuple of (module, command)
        Modules without which it does not load, and the command that installs each.
    options : tuple of (module, what, command)
        Modules without which some of it does not work.
    """

    name: str
    target: str
    stores: str
    needs: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str, str], ...] = ()


BACKENDS = (
    BackendSpec(
        "memory",
        "mutoscope.storage.memory:MemoryBackend",
        "arrays, tables, ROIs, JSON and text in this process; memory://NAME is shared in it",
    ),
    BackendSpec(
        "disk",
        "mutoscope.storage.disk:DiskBackend",
        "a file an item: TIFF, NPY, PNG, CSV, JSON, text, ROI zip, GeoJSON",
        options=(
            ("tifffile", "TIFF", install_command("imagecodecs", "tifffile")),
            ("imageio", "PNG", install_command("imageio")),
            ("roifile", "ROI zip", install_command("roifile")),
        ),
    ),
    BackendSpec(
        "ome-zarr",
        "mutoscope.storage.plate:PlateBackend",
        "the planes of a well plate in one OME-Zarr (HCS), placed by the microscope's file names; streams: open_writer",
    ),
    BackendSpec(
        "ome-tiff",
        "mutoscope.storage.ome_tiff.store:OmeTiffBackend",
        "as disk, and arrays of 2 to 5 axes as OME-TIFF under ….ome.tif; streams: open_writer",
        needs=(("tifffile", install_command("imagecodecs", "tifffile")),),
    ),
)
"""The stores of this package. Others come from the entry points ``mutoscope.storage`` of installed packages."""


@dataclass(frozen=True)
class BackendInfo:
    """One row of `backends`.

    Parameters
    ----------
    name : str
        To give to `mutoscope.storage.open`.
    stores : str
        What it stores.
    available : bool
        Whether it loads here.
    need : str
        Why it, or some of it, does not load, with the command that helps; empty if there is nothing missing.
    source : str
        The package that brings it.
    """

    name: str
    stores: str
    available: bool
    need: str
    source: str


@dataclass(frozen=True)
class _Claim:
    spec: BackendSpec
    source: str


def _claims() -> dict[str, list[_Claim]]:
    """Return who claims each name; nothing is imported."""
    found: dict[str, list[_Claim]] = {spec.name.casefold(): [_Claim(spec, "mutoscope")] for spec in BACKENDS}
    for point in entry_points(group=ENTRY_POINTS):
        source = str(point.dist.name) if point.dist is not None else point.value.partition(":")[0]
        claim = _Claim(BackendSpec(point.name, point.value, ""), source)
        claims = found.setdefault(point.name.casefold(), [])
        if claim not in claims:  # a package that is found twice on the path is one claimant
            claims.append(claim)
    return found


def backends() -> tuple[BackendInfo, ...]:
    """Return every store by name, ours first, and whether it loads here. One that does not load is listed with the reason.

    Examples
    --------
    >>> from mutoscope import storage
    >>> [row.name for row in storage.backends()][:2]
    ['memory', 'disk']
    """
    return tuple(_info(claims) for claims in _claims().values())


def _info(claims: list[_Claim]) -> BackendInfo:
    spec, source = claims[0].spec, ", ".join(claim.source for claim in claims)
    try:
        kind = _load(claims)
    except (ConfigError, BackendUnavailableError) as error:
        return BackendInfo(spec.name, spec.stores, False, str(error), source)
    missing = [f"{what}: {command}" for module, what, command in spec.options if find_spec(module) is None]
    stores = spec.stores or (inspect.getdoc(kind) or "").partition("\n")[0]
    return BackendInfo(spec.name, stores, True, "; ".join(missing), source)


def find_backend(name: str) -> type[DataSink] | type[DataSource]:
    """Return the class of a store by its name, importing it.

    Parameters
    ----------
    name : str
        A name of `backends`, in any case, or ``"module:Class"``.

    Raises
    ------
    ConfigError
        If nothing has this name (the known and the nearest are listed), two packages claim it, or it is no store.
    BackendUnavailableError
        If it cannot be imported; says how to install what is missing.
    """
    if ":" in name:
        return _load([_Claim(BackendSpec(name, name, ""), name.partition(":")[0])])
    claims = _claims()
    if name.casefold() not in claims:
        near = difflib.get_close_matches(name.casefold(), claims, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"there is no store {name!r}; there are {', '.join(claims)}{hint}")
    return _load(claims[name.casefold()])


def _load(claims: list[_Claim]) -> type[DataSink] | type[DataSource]:
    claim, *others = claims
    spec = claim.spec
    if others:
        who = ", ".join(f"{each.source} ({each.spec.target})" for each in claims)
        raise ConfigError(f"the store {spec.name!r} is claimed by several packages: {who}; uninstall one, or give module:Class")
    for module, command in spec.needs:
        if find_spec(module) is None:
            raise BackendUnavailableError(f"the store {spec.name!r} needs {module}: {command}")
    module_name, _, attribute = spec.target.partition(":")
    try:
        found: Any = import_module(module_name)
    except ImportError as error:
        raise BackendUnavailableError(
            f"the store {spec.name!r} cannot be imported ({error}); "
            f"check the installation of {claim.source}: pip install {claim.source}"
        ) from error
    except Exception as error:  # a stranger's module: whatever it raises must not break the other stores
        raise BackendUnavailableError(
            f"the store {spec.name!r} of {claim.source} fails while it is imported ({type(error).__name__}: {error})"
        ) from error
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise ConfigError(f"the store {spec.name!r} names {spec.target}, which does not exist") from error
    if not (isinstance(found, type) and issubclass(found, DataSink | DataSource)):
        raise ConfigError(f"the store {spec.name!r} names {spec.target}, which is no DataSink and no DataSource")
    return found


def open_backend(
    backend: str, address: Name | None = None, filenames: ParserLike | None = None, **options: Any
) -> StorageBackend:
    """Open a store.

    Parameters
    ----------
    backend : str
        A name of `backends`, in any case; or ``"module:Class"`` of your own.
    address : path or str, optional
        Where: a folder for ``"disk"``, ``"memory://NAME"`` for a shared store in memory. Each backend has a default.
    filenames : str or NameParser, optional
        How the microscope names its files, for stores that place items by their names.
    **options
        Of the backend; ``overwrite=True`` is common to all.

    Returns
    -------
    StorageBackend
        A context manager. A backend that only takes or only gives items is a `DataSink` or `DataSource`.

    Raises
    ------
    ConfigError
        If there is no such store, or it takes no such option.
    BackendUnavailableError
        If it cannot load here; says how to install what is missing.

    Examples
    --------
    >>> from mutoscope import storage
    >>> with storage.open("memory") as store:
    ...     store.save({"threshold": 1500.0}, "settings.json")
    ...     store.load("settings.json")
    {'threshold': 1500.0}
    """
    if not isinstance(backend, str):
        raise ConfigError(f"a store is named by text, not {type(backend).__name__}")
    if "://" in backend and address is None:
        backend, address = backend.partition("://")[0], backend
    kind: Any = find_backend(backend)
    try:
        inspect.signature(kind).bind(address, filenames=filenames, **options)
    except TypeError as error:
        takes = ", ".join(list(inspect.signature(kind).parameters))
        raise ConfigError(f"the store {backend!r} cannot be opened like this: {error}; it takes {takes}") from None
    store: StorageBackend = kind(address, filenames=filenames, **options)
    return store
