"""Files of a data set: documents replaced as a whole, writes that are complete or raise, reads that stay inside the root."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError, DatasetNotFoundError, DiskFullError, ScopeStateError
from mutoscope.storage import _layout

__all__ = [
    "PART",
    "encode",
    "hold",
    "locked",
    "open_inside",
    "part_name",
    "read_document",
    "replace_document",
    "replace_file",
    "sync_folder",
    "translated",
    "write_all",
]

PART = ".part"
"""How the name of a half-written document ends; whoever opens the data set for writing removes it."""

_serial = itertools.count()
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


def part_name() -> str:
    """Return a name for what is half-written, of which this process makes no second one."""
    return f".{os.getpid()}-{next(_serial)}{PART}"


@contextmanager
def translated(path: str | Path) -> Iterator[None]:
    """Turn "no space left" of the operating system into :class:`DiskFullError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL and not isinstance(error, DiskFullError):
            raise DiskFullError(f"{path}: no space left on the device; all that was acknowledged is stored") from error
        raise


def write_all(fd: int, data: Any, offset: int) -> None:
    """Write all of a contiguous buffer at `offset`; OSError if that is not possible."""
    done = os.pwrite(fd, data, offset)
    view = None
    while True:
        view = memoryview(data).cast("B") if view is None else view
        if done >= view.nbytes:
            return
        written = os.pwrite(fd, view[done:], offset + done)
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done += written


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise NotImplementedError(f"an attribute of type {type(value).__name__} cannot be saved as JSON")


def encode(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON text; NumPy values, dataclasses and msgspec structures become plain, NaN null.

    Raises
    ------
    ConfigError
        If JSON cannot hold it, or it is larger than what `read_document` reads.
    """
    try:
        data = msgspec.json.format(msgspec.json.encode(document, enc_hook=_plain), indent=2) + b"\n"
    except (TypeError, NotImplementedError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(f"these attributes cannot be saved as JSON: {error}") from error
    if len(data) > _layout.MAX_DOCUMENT_BYTES:
        most = f"a document has {_layout.MAX_DOCUMENT_BYTES:,} at most"
        raise ConfigError(f"these attributes take {len(data):,} bytes as JSON; {most}")
    return data


def sync_folder(path: str | Path) -> None:
    """Bring a folder's entries to the device."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_document(target: Path, document: Mapping[str, Any], staging: Path, *, durable: bool = False) -> None:
    """Replace a ``zarr.json`` as a whole: a reader finds the old one or the new one, whenever this process ends.

    Parameters
    ----------
    target : Path
        The document.
    document : Mapping
        Its new content.
    staging : Path
        A folder of the same file system in which no Zarr reader looks for nodes: that of an array.
    durable : bool
        Also bring the content and the folder's entry to the device.
    """
    replace_file(target, encode(document), staging, durable=durable)


def replace_file(target: Path, data: bytes, staging: Path, *, durable: bool = False) -> None:
    """Replace or make a file as a whole, as `replace_document` does."""
    part = staging / part_name()
    with translated(target):
        for folder in (staging, target.parent):
            if not folder.is_dir():  # told by its own name, rather than by that of the part
                raise FileNotFoundError(errno.ENOENT, "the folder was moved or deleted", str(folder))
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            try:
                write_all(fd, data, 0)
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            kill_point("storage.document.written")
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(target.parent)


def open_inside(root: Path, relative: str) -> int:
    """Open a regular file of the data set `root` for reading and return its descriptor.

    Raises
    ------
    DatasetError
        If it is missing, not a regular file, or reached through a link that leads out of the data set.
    """
    path = f"{root}/{relative}"
    base = fd = -1
    try:
        base = os.open(root, os.O_PATH | os.O_CLOEXEC)
        fd = os.open(relative, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=base)
        if not _path_of(fd).startswith(os.path.join(_path_of(base), "")):
            raise DatasetError(f"{path}: leads out of the data set")
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise DatasetError(f"{path}: is not a file")
        found, fd = fd, -1
        return found
    except FileNotFoundError:
        raise DatasetError(f"{path}: is missing") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    finally:
        for each in (base, fd):
            if each >= 0:
                os.close(each)


def _path_of(fd: int) -> str:
    """Return where the kernel knows an open file to be, all links followed."""
    return os.readlink(f"/proc/self/fd/{fd}")


def read_document(root: Path, relative: str) -> dict[str, Any]:
    """Return a JSON document of the data set `root`."""
    if not os.path.lexists(root):
        raise DatasetNotFoundError(f"{root}: there is no such data set")
    fd = open_inside(root, relative)
    with open(fd, "rb") as file:
        data = file.read(_layout.MAX_DOCUMENT_BYTES + 1)
    where = root / relative
    if len(data) > _layout.MAX_DOCUMENT_BYTES:
        raise DatasetError(f"{where}: is larger than {_layout.MAX_DOCUMENT_BYTES} bytes")
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise DatasetError(f"{where}: is not JSON, or is damaged") from None
    if not isinstance(document, dict):
        raise DatasetError(f"{where}: is not the description of a group or an array")
    return document


def attributes_of(document: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Return the attributes of a group's document."""
    attributes = document.get("attributes", {})
    if document.get("zarr_format") != 3 or document.get("node_type") != "group" or not isinstance(attributes, dict):
        raise DatasetError(f"{where}: is not a Zarr 3 group, or is damaged")
    return attributes


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock for a short change of its documents; other processes wait. It ends with the process."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:  # a network file system without locks: its users keep to one writer
                raise
        yield
    finally:
        os.close(fd)


def make_below(base: Path, folder: Path) -> None:
    """Make a folder below `base`, which itself is never made: where it is missing, somebody moved or deleted it."""
    for place in reversed((folder, *folder.parents)):
        if place != base and place.is_relative_to(base):
            place.mkdir(exist_ok=True)


def check_place(fd: int, folder: Path) -> None:
    """Raise FileNotFoundError unless `folder` is the one that is open as `fd`: nothing is written where another one stands."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if os.path.samestat(os.fstat(fd), os.stat(folder)):
            return
    raise FileNotFoundError(errno.ENOENT, "the data set was moved or deleted while it was written", str(folder.parent))


def hold(folder: Path) -> int:
    """Take the writer's lock of an image for as long as the returned descriptor is open.

    Raises
    ------
    ScopeStateError
        If another writer holds it.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise ScopeStateError(f"{folder.parent}: another writer has it open") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(fd)
            raise
    return fd
