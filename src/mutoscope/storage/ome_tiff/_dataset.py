"""The files of a data set: their names, the sidecar, and the lock that a writer holds."""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ClosedError, ConfigError, DatasetError, DatasetNotFoundError, ScopeStateError
from mutoscope.storage import _files
from mutoscope.storage.ome_tiff._layout import DTYPES, LAYOUT_VERSION, Geometry, plan_geometry

__all__ = ["Lock", "Names", "SUFFIXES", "Sidecar", "is_ome_tiff", "replace_whole"]

SUFFIXES = (".ome.tiff", ".ome.tif", ".ome.btf", ".ome.tf8")
MAX_POSITION = 99_999
RESERVE_BYTES = 64 * 1024
"""Room that the lock's file takes until the writer closes: a full disk can still be closed in order."""

_serial = itertools.count()


def is_ome_tiff(path: str | os.PathLike[str]) -> bool:
    """Whether a path names an OME-TIFF stream by its suffix, or its sidecar stands beside it; a folder never does."""
    place = Path(path)
    if place.is_dir():
        return False
    return place.name.lower().endswith(SUFFIXES) or Names(place).sidecar.is_file()


class Names:
    """The names of all files of the data set at `path`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        name = self.path.name
        suffix = next((end for end in SUFFIXES if name.lower().endswith(end)), self.path.suffix)
        self.stem, self.suffix = name[: len(name) - len(suffix)], name[len(name) - len(suffix) :]
        self.folder = self.path.parent
        self.sidecar = self.folder / f"{name}.json"
        self.lock = self.folder / f".{name}.lock"
        self._other = re.compile(re.escape(self.stem) + r"\.p([1-9][0-9]{0,4})" + re.escape(self.suffix))
        self._part = re.compile(re.escape(f".{name}.") + r"([0-9]+)-[0-9]+" + re.escape(_files.PART))

    def position(self, position: int) -> Path:
        """Return the file of a stage position."""
        return self.path if position == 0 else self.folder / f"{self.stem}.p{position}{self.suffix}"

    def part(self) -> Path:
        """Return a name for a file in the making."""
        return self.folder / f".{self.path.name}.{os.getpid()}-{next(_serial)}{_files.PART}"

    def present(self) -> dict[int, Path]:
        """Return position → file of those that are there, by their names; they may be of another data set."""
        found = {0: self.path} if os.path.lexists(self.path) else {}
        for entry in os.listdir(self.folder):
            match = self._other.fullmatch(entry)
            if match is not None and not os.path.lexists(f"{self.folder / entry}.json"):
                found[int(match[1])] = self.folder / entry
        return dict(sorted(found.items()))

    def remove_parts(self) -> list[str]:
        """Remove files in the making of processes that are gone."""
        removed = []
        for entry in os.listdir(self.folder):
            match = self._part.fullmatch(entry)
            if match is not None and not os.path.exists(f"/proc/{match[1]}"):
                (self.folder / entry).unlink(missing_ok=True)
                removed.append(entry)
        return removed


def replace_whole(names: Names, target: Path, data: bytes, *, durable: bool = False) -> None:
    """Make or replace a file as a whole: who looks finds the old one or the new one."""
    part = names.part()
    with _files.translated(target):
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            try:
                _files.write_all(fd, data, 0)
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            kill_point("tiff.document.written")
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        if durable:
            _files.sync_folder(target.parent)


class Sidecar:
    """The JSON document beside the pixels: ``{"mutoscope": {...}}``.

    Attributes
    ----------
    own : dict
        What stands under ``mutoscope``.
    """

    def __init__(self, own: dict[str, Any]) -> None:
        self.own = own

    @classmethod
    def new(
        cls,
        geometry: Geometry,
        name: str,
        pixel_size_um: float | None,
        rate_hz: float | None,
        attributes: Mapping[str, Any],
    ) -> Sidecar:
        """Return one for a data set that begins."""
        return cls(
            {
                "layout": LAYOUT_VERSION,
                "format": "ome-tiff",
                "dataset": uuid.uuid4().hex,
                "camera": name,
                "state": "open",
                "shape": list(geometry.shape),
                "dtype": geometry.dtype,
                "compression": geometry.compression,
                "pixel_size_um": pixel_size_um,
                "rate_hz": rate_hz,
                **attributes,
            }
        )

    @classmethod
    def read(cls, names: Names) -> Sidecar | None:
        """Return that of a data set; None if there is none; DatasetError if it is damaged."""
        if not os.path.lexists(names.sidecar):
            return None
        own = _files.read_document(names.folder, names.sidecar.name).get("mutoscope")
        if not isinstance(own, dict) or own.get("format") != "ome-tiff":
            raise DatasetError(f"{names.sidecar}: is not the sidecar of an OME-TIFF of Mutoscope")
        version = own.get("layout")
        if not isinstance(version, str) or version.split(".")[0] != LAYOUT_VERSION.split(".")[0]:
            raise DatasetError(f"{names.sidecar}: has layout {version!r}; this version reads {LAYOUT_VERSION}")
        found = cls(own)
        try:
            found.geometry()
            if len(found.dataset) != 16:
                raise ValueError
        except (KeyError, TypeError, ValueError, ConfigError):
            raise DatasetError(f"{names.sidecar}: does not say what the frames are, so it is damaged") from None
        return found

    def geometry(self) -> Geometry:
        """Return the geometry of the frames to come."""
        own = self.own
        if own["dtype"] not in DTYPES:
            raise ValueError
        return plan_geometry(tuple(own["shape"]), own["dtype"], own["compression"])

    @property
    def dataset(self) -> bytes:
        """What tells the pages of this data set from those of others."""
        return bytes.fromhex(self.own["dataset"])

    def number(self, key: str) -> float | None:
        """Return a positive number, None if there is none."""
        value = self.own.get(key)
        return float(value) if isinstance(value, int | float) and 0 < value < float("inf") else None

    def encode(self) -> bytes:
        """Return the document's text; ConfigError if an attribute cannot be saved."""
        return _files.encode({"mutoscope": self.own})

    def write(self, names: Names, *, durable: bool = False) -> None:
        """Replace the file."""
        replace_whole(names, names.sidecar, self.encode(), durable=durable)


def change_sidecar(names: Names, change: Mapping[str, Any], *, durable: bool = False) -> bool:
    """Set keys of the sidecar, under the folder's lock; return whether anything changed."""
    with _files.locked(names.folder):
        found = Sidecar.read(names)
        if found is None:
            raise DatasetNotFoundError(f"{names.sidecar}: is missing")
        new = {**found.own, **change}
        if new == found.own:
            return False
        Sidecar(new).write(names, durable=durable)
    return True


class Lock:
    """The writer's lock of a data set: a hidden file beside it, locked as long as the process lives.

    Raises
    ------
    ScopeStateError
        If another writer holds it.
    """

    def __init__(self, names: Names) -> None:
        self._path = names.lock
        self._fd = -1
        while self._fd < 0:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                raise ScopeStateError(f"{names.path}: another writer has it open") from None
            except OSError as error:
                if error.errno not in _files._NO_LOCKS:
                    os.close(fd)
                    raise
            try:
                same = os.stat(self._path).st_ino == os.fstat(fd).st_ino
            except FileNotFoundError:
                same = False
            if same:  # else its holder removed it at this moment
                self._fd = fd
            else:
                os.close(fd)

    def reserve(self) -> None:
        """Take the room that closing needs; DiskFullError if there is none."""
        if self._fd < 0:
            raise ClosedError(f"{self._path}: was released")
        with _files.translated(self._path):
            os.posix_fallocate(self._fd, 0, RESERVE_BYTES)

    def give_room(self) -> None:
        """Give that room back."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)

    def release(self) -> None:
        """End it and remove its file; twice is fine."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1
