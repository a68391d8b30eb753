"""A folder of files from which no name leads out: the walking, publishing and removing under `mutoscope.storage.disk`.

Every step is taken from an open descriptor and never follows a link, so that nobody can put a link in the way between a
check and its use. A link that stays inside the root is resolved first; one that leaves it is refused.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import itertools
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetExistsError, DatasetNotFoundError
from mutoscope.storage import _files, _names

__all__ = ["Folder", "retrying"]

T = TypeVar("T")

_WRITTEN, _PLACED = "storage.item.written", "storage.item.placed"
"""Points at which a crash test may end a save."""

_NOREPLACE = 1
_SHARING = (errno.EBUSY, errno.ETXTBSY, errno.EAGAIN)
"""What network file systems answer while another machine has a file open. Source: Linux, fs/smb/client/smb2maperror.c."""

_RETRY_S = 2.0
_STALE_S = 60.0
_PROBE_BYTES = 1 << 16
_LINKS = 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_OURS = re.compile(r"\.[0-9a-f]{24}" + re.escape(_files.PART))

_libc = ctypes.CDLL(None, use_errno=True)


def retrying(action: Callable[[], T], timeout_s: float = _RETRY_S) -> T:
    """Return what `action` returns; while it fails because somebody else has the file in use, try again until the time-out."""
    end = time.monotonic() + timeout_s
    pause_s = 0.001
    while True:
        try:
            return action()
        except OSError as error:
            if error.errno not in _SHARING or time.monotonic() + pause_s > end:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.1)


def _rename_new(source: str, target: str, source_fd: int, target_fd: int) -> None:
    """Rename, unless the target exists: FileExistsError."""
    renameat2 = getattr(_libc, "renameat2", None)
    if renameat2 is not None:
        if renameat2(source_fd, os.fsencode(source), target_fd, os.fsencode(target), _NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):  # a file system, or a kernel, that cannot
            raise OSError(code, os.strerror(code), target)
    os.link(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
    os.unlink(source, dir_fd=source_fd)


class Folder:
    """A root and what is under it. Safe for threads and processes.

    Parameters
    ----------
    root : Path
        Need not exist until something is stored.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._swept: set[str] = set()

    def __str__(self) -> str:
        return str(self.root)

    # ------------------------------------------------------------------ walking

    def _real(self, key: str) -> str:
        """Return a name without links, or raise ConfigError if it leads out."""
        root = os.path.realpath(self.root)
        real = os.path.realpath(os.path.join(root, key))
        if real == root:
            return ""
        if not real.startswith(os.path.join(root, "")):
            raise ConfigError(f"{self}: {key!r} leads out of the store")
        return real[len(os.path.join(root, "")) :]

    @contextmanager
    def opened(self, key: str, *, make: bool = False) -> Iterator[int]:
        """Yield a descriptor of the folder `key`; `make` makes what is missing.

        Raises
        ------
        FileNotFoundError, NotADirectoryError, ConfigError
            If it is not there; an item is in the way; it leads out.
        """
        fd = self._open_folder(key, make)
        try:
            yield fd
        finally:
            os.close(fd)

    def _open_folder(self, key: str, make: bool) -> int:
        if make:
            self.root.mkdir(parents=True, exist_ok=True)
        for _ in range(_LINKS):
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for part in key.split("/") if key else []:
                    if make:
                        try:
                            os.mkdir(part, dir_fd=fd)
                        except FileExistsError:
                            pass
                    inner = os.open(part, _FOLDER, dir_fd=fd)
                    os.close(fd)
                    fd = inner
                return fd
            except OSError as error:
                os.close(fd)
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                real = self._real(key)
                if real == key:
                    raise
                key = real  # reached over a link that stays inside: once more, without it
        raise ConfigError(f"{self}: {key!r} has too many links")

    def open_file(self, key: str) -> IO[bytes]:
        """Open a regular file for reading.

        Raises
        ------
        FileNotFoundError, IsADirectoryError, ConfigError
            If it is not there; is a folder; leads out or is not a file.
        """
        for _ in range(_LINKS):
            folder, _, part = key.rpartition("/")
            with self.opened(folder) as parent:
                try:
                    fd = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
                except OSError as error:
                    if error.errno != errno.ELOOP:
                        raise
                    real = self._real(key)
                    if real in ("", key):
                        raise
                    key = real
                    continue
            mode = os.fstat(fd).st_mode
            if stat.S_ISREG(mode):
                return _file_of(fd, "rb")
            os.close(fd)
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), key)
            raise ConfigError(f"{self}: {key!r} is neither a file nor a folder")
        raise ConfigError(f"{self}: {key!r} has too many links")

    def kind_of(self, key: str) -> str:
        """Return ``"file"``, ``"folder"``, or ``""`` for what is not there or neither; ConfigError for what leads out."""
        try:
            mode = os.stat(os.path.join(os.path.realpath(self.root), self._real(key)), follow_symlinks=False).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return ""
        return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else ""

    def entries(self, key: str) -> Iterator[tuple[str, str]]:
        """Yield (name, kind) of what is in a folder, half-written files and links that lead out left aside."""
        with self.opened(key) as fd, os.scandir(fd) as found:
            prefix = f"{key}/" if key else ""
            for entry in found:
                if _names.PART_NAME.fullmatch(entry.name):
                    continue
                name = prefix + entry.name
                if entry.is_symlink():
                    try:
                        kind = self.kind_of(name)
                    except ConfigError:
                        continue
                    yield name, f"linked {kind}" if kind else ""
                elif entry.is_dir(follow_symlinks=False):
                    yield name, "folder"
                elif entry.is_file(follow_symlinks=False):
                    yield name, "file"

    # ------------------------------------------------------------------ changes

    def write(self, key: str, fill: Callable[[IO[bytes]], None], *, overwrite: bool) -> None:
        """Have `fill` write a file beside its place, then give it its name.

        Raises
        ------
        FileExistsError
            If the name is taken.
        DatasetExistsError
            If another writer, in whatever process, is writing this very name.
        """
        folder, _, part = key.rpartition("/")
        with self.opened(folder, make=True) as parent, _files.translated(self.root / key):
            self._sweep(folder, parent)
            if not overwrite and _lexists(part, parent):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), key)
            hidden, file = self._claim(key, part, parent)
            with file:
                try:
                    with _told(file):
                        fill(file)
                        file.flush()
                    kill_point(_WRITTEN)
                    self._place(hidden, part, parent, parent, overwrite)
                except BaseException:
                    os.unlink(hidden, dir_fd=parent)  # still ours: the lock is held until the file is closed
                    raise
            kill_point(_PLACED)

    def _claim(self, key: str, part: str, parent: int) -> tuple[str, IO[bytes]]:
        """Open the half-written file of a name, which only one writer can hold."""
        hidden = f".{hashlib.blake2b(os.fsencode(part), digest_size=12).hexdigest()}{_files.PART}"
        while True:
            fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=parent)
            try:
                _lock(fd)
                if _is_at(fd, hidden, parent):
                    if os.fstat(fd).st_nlink == 1:
                        os.ftruncate(fd, 0)
                        return hidden, _file_of(fd, "w+b")
                    os.unlink(hidden, dir_fd=parent)  # a writer was killed between linking and unlinking: it is the item
            except BlockingIOError:
                os.close(fd)
                raise DatasetExistsError(f"{self}: {key!r} is being written by another writer at this moment") from None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # or the other writer gave it its name between our open and our lock: once more

    def _place(self, source: str, target: str, source_fd: int, target_fd: int, overwrite: bool) -> None:
        if overwrite:
            retrying(lambda: os.replace(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd))
        else:
            retrying(lambda: _rename_new(source, target, source_fd, target_fd))

    def _sweep(self, folder: str, fd: int) -> None:
        """Remove, once for each folder, what killed writers left there."""
        if folder in self._swept:
            return
        self._swept.add(folder)
        for name in os.listdir(fd):
            if not _OURS.fullmatch(name):
                continue
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode) or time.time() - status.st_mtime < _STALE_S:
                    continue
                part = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            except FileNotFoundError:
                continue
            try:
                _lock(part)
                if _is_at(part, name, fd):
                    os.unlink(name, dir_fd=fd)
            except BlockingIOError:
                continue  # somebody is writing it
            finally:
                os.close(part)

    def remove_file(self, key: str) -> None:
        """Remove a file, or the link that has this name."""
        folder, _, part = key.rpartition("/")
        with self.opened(folder) as parent:
            retrying(lambda: os.unlink(part, dir_fd=parent))

    def remove_folder(self, key: str, *, recursive: bool) -> None:
        """Remove a folder; OSError (ENOTEMPTY) if there is something in it and `recursive` is not said."""
        folder, _, part = key.rpartition("/")
        with self.opened(folder) as parent:
            if recursive:
                _remove_tree(part, parent)
            else:
                os.rmdir(part, dir_fd=parent)

    def rename(self, source: str, target: str, *, overwrite: bool) -> None:
        """Rename a file or a folder in one step; FileExistsError if the name is taken."""
        (from_folder, _, from_part), (to_folder, _, to_part) = source.rpartition("/"), target.rpartition("/")
        with self.opened(from_folder) as from_fd:
            os.stat(from_part, dir_fd=from_fd, follow_symlinks=False)
            with self.opened(to_folder, make=True) as to_fd:
                self._place(from_part, to_part, from_fd, to_fd, overwrite)


def _remove_tree(part: str, parent: int) -> None:
    try:
        fd = os.open(part, _FOLDER, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        os.unlink(part, dir_fd=parent)
        return
    try:
        for name in os.listdir(fd):
            _remove_tree(name, fd)
    finally:
        os.close(fd)
    os.rmdir(part, dir_fd=parent)


@contextmanager
def _told(file: IO[bytes]) -> Iterator[None]:
    """Give a failed write its reason: `numpy.ndarray.tofile` raises an OSError without a number."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            for _ in range(2):  # the first may still write a part
                os.pwrite(file.fileno(), bytes(_PROBE_BYTES), os.fstat(file.fileno()).st_size)
        raise


def _file_of(fd: int, mode: str) -> IO[bytes]:
    """Return an open descriptor as a file whose name is text: libraries take the folder of it."""
    file: IO[bytes] = open("item", mode, opener=lambda path, flags: fd)  # noqa: SIM115 - the caller closes it
    return file


def _lexists(part: str, parent: int) -> bool:
    try:
        os.stat(part, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):  # a file system without locks: one writer a name
            raise


def _is_at(fd: int, name: str, parent: int) -> bool:
    """Whether the open file still has this name."""
    try:
        there = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def missing_error(folder: Folder, key: str) -> DatasetNotFoundError:
    """Return the error for a missing name, with those near it of the same folder, and the folder's name itself."""
    above = key.rpartition("/")[0]
    known: list[str] = []
    while True:
        try:
            known = [name for name, _ in itertools.islice(folder.entries(above), 10_000)]
            break
        except (OSError, ConfigError):
            if not above:
                break
            above = above.rpartition("/")[0]
    return _names.not_found(key, folder, known)
