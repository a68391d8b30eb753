"""One image of a plate: its planes, each in a file of its own for each level, and the record of which are there.

A plane is written under a lock on its own byte of ``planes/state``, beside its place, and renamed; its state is set last.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError, DatasetExistsError
from mutoscope.storage import _files, _layout
from mutoscope.storage._folder import _rename_new
from mutoscope.storage._half import half
from mutoscope.storage.plate import _chunk, _documents
from mutoscope.storage.plate._documents import MISSING, REPLACING, STORED, PlateImageSpec
from mutoscope.storage.plate._places import ImageKey
from mutoscope.storage.plate.description import PlateDescription

__all__ = ["PlateImage", "remove_parts"]

Tcz = tuple[int, int, int]

_PART = re.compile(r"\.([0-9]+)-[0-9]+" + re.escape(_files.PART))
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_FLOCK = struct.Struct("hhqqi4x")
"""The kernel's ``struct flock`` of 64-bit Linux: type, whence, start, length, pid."""


class PlateImage:
    """The planes of one image. Any number of processes and threads may use it at once.

    Parameters
    ----------
    root : Path
        Of the plate.
    key : ImageKey
        Which image.

    Attributes
    ----------
    spec : PlateImageSpec
        Shape, type and levels.
    extent : tuple of int
        (t, c, z) as last seen; others may have let it grow since.
    """

    def __init__(self, root: Path, key: ImageKey) -> None:
        self.root = root
        self.key = key
        self.path = root / key.path
        self._text = str(self.path)
        self.spec, self.extent = self._read_spec()  # which sees that the image lies in the plate
        self._real = os.path.realpath(self.path)
        self._inside = os.path.join(os.path.realpath(root), "")

    def _read_spec(self) -> tuple[PlateImageSpec, Tcz]:
        attributes = _files.attributes_of(_files.read_document(self.root, f"{self.key.path}/zarr.json"), self.path)
        try:
            levels = len(attributes["ome"]["multiscales"][0]["datasets"])
        except (KeyError, IndexError, TypeError):
            raise DatasetError(f"{self.path}: is no image of a plate, or its metadata are damaged") from None
        document = _files.read_document(self.root, f"{self.key.path}/0/zarr.json")
        return _documents.parse_level(document, levels, str(self.path))

    # ------------------------------------------------------------------ making and growing

    @staticmethod
    def build(folder: Path, spec: PlateImageSpec, key: ImageKey, extent: Tcz, plate: PlateDescription) -> None:
        """Write an image without planes into a folder that nobody reads yet."""
        for level in range(spec.levels):
            _write(folder / str(level), _documents.level_document(spec, level, extent))
        _write(folder / _documents.PLANES / _documents.STATE, _documents.state_document(extent))
        _write(folder / _documents.PLANES / _documents.NAME, _documents.name_document(extent))
        _write(folder / _documents.PLANES, _layout.group_document({}))
        _write(folder, _layout.group_document(_documents.image_attributes(spec, key, extent, plate)))

    def grow(self, extent: Tcz, plate: PlateDescription) -> None:
        """Declare at least so many t, c and z. Readers find every plane at every moment."""
        if _covers(self.extent, extent):
            return
        with _files.locked(self.path), _files.translated(self.path):
            _, there = self._read_spec()
            wanted: Tcz = (max(there[0], extent[0]), max(there[1], extent[1]), max(there[2], extent[2]))
            if wanted != there:
                planes = self.path / _documents.PLANES
                staging = self.path / "0"
                for name, document in (
                    (_documents.STATE, _documents.state_document(wanted)),
                    (_documents.NAME, _documents.name_document(wanted)),
                ):
                    _files.replace_document(planes / name / "zarr.json", document, staging)
                for level in reversed(range(self.spec.levels)):
                    document = _documents.level_document(self.spec, level, wanted)
                    _files.replace_document(self.path / str(level) / "zarr.json", document, staging)
                    kill_point("storage.plate.level_grown")
                if wanted[1] != there[1]:
                    self._describe(wanted, plate)
            self.extent = wanted

    def describe(self, plate: PlateDescription) -> None:
        """Write anew what the image says of itself."""
        with _files.locked(self.path):
            _, self.extent = self._read_spec()
            self._describe(self.extent, plate)

    def _describe(self, extent: Tcz, plate: PlateDescription) -> None:
        document = _files.read_document(self.root, f"{self.key.path}/zarr.json")
        attributes = _files.attributes_of(document, self.path)
        fresh = _documents.image_attributes(self.spec, self.key, extent, plate)
        attributes["ome"] = {**attributes.get("ome", {}), **fresh["ome"]}
        attributes[_layout.NAMESPACE] = {**attributes.get(_layout.NAMESPACE, {}), **fresh[_layout.NAMESPACE]}
        _files.replace_document(self.path / "zarr.json", document, self.path / "0")

    def remove_parts(self) -> None:
        """Remove half-written files of processes that are gone."""
        remove_parts(self.path / "0")

    # ------------------------------------------------------------------ the record of planes

    @contextmanager
    def claimed(self, at: Tcz, name: str) -> Iterator[Claim]:
        """Hold a plane for writing; one holder at a time, of all processes and threads.

        Raises
        ------
        DatasetExistsError
            If another one holds it.
        """
        relative, offset = _state_file(at)
        path = f"{self._text}/{relative}"
        with _files.translated(path):
            fd = self._open_record(path, _STATE_BYTES)
            try:
                _lock_byte(fd, offset, f"{self.root}: {name!r} is being written by another writer at this moment")
                try:
                    yield Claim(fd, offset)
                finally:
                    _unlock_byte(fd, offset)
            finally:
                os.close(fd)

    def state(self, at: Tcz) -> int:
        """Return what ``planes/state`` says of a plane."""
        data = self._pread(*_state_file(at), 1)
        return data[0] if data else MISSING

    def states(self) -> NDArray[np.uint8]:
        """Return ``planes/state`` as declared, shape (t, c, z)."""
        _, self.extent = self._read_spec()
        whole: NDArray[np.uint8] = np.zeros(self.extent, dtype="uint8")
        chunk = _documents.STATE_CHUNK
        for entry in os.listdir(self.path / _STATE_FOLDER):
            match = _STATE_FILE.fullmatch(entry)
            if match is None:
                continue
            first = [int(number) * size for number, size in zip(match.groups(), chunk, strict=True)]
            if any(start >= length for start, length in zip(first, self.extent, strict=True)):
                continue
            data = self._pread(f"{_STATE_FOLDER}/{entry}", 0, _STATE_BYTES)
            part = np.zeros(_STATE_BYTES, dtype="uint8")
            part[: len(data)] = np.frombuffer(data, dtype="uint8")
            target = whole[tuple(slice(start, start + size) for start, size in zip(first, chunk, strict=True))]
            target[...] = part.reshape(chunk)[tuple(slice(0, length) for length in target.shape)]
        return whole

    def stored(self) -> list[Tcz]:
        """Return the places of the planes that are stored, in order."""
        return [(int(t), int(c), int(z)) for t, c, z in np.argwhere(self.states() != MISSING)]

    def name(self, at: Tcz) -> str:
        """Return the name under which a plane was stored."""
        return self._pread(*_name_file(at), _documents.NAME_BYTES).rstrip(b"\0").decode("utf-8", "replace")

    def names(self) -> Iterator[tuple[Tcz, str]]:
        """Yield the places of the planes that are stored, in order, each with its name; a file of names is read once."""
        last, data = "", b""
        for at in self.stored():
            path, offset = _name_file(at)
            if path != last:
                last, data = path, self._pread(path, 0, _NAME_CHUNK_BYTES)
            name = data[offset : offset + _documents.NAME_BYTES]
            yield at, name.rstrip(b"\0").decode("utf-8", "replace")

    def _write_name(self, at: Tcz, name: str) -> None:
        relative, offset = _name_file(at)
        path = f"{self._text}/{relative}"
        fd = self._open_record(path, _NAME_CHUNK_BYTES)
        try:
            _files.write_all(fd, name.encode("utf-8").ljust(_documents.NAME_BYTES, b"\0"), offset)
        finally:
            os.close(fd)

    def _open_record(self, path: str, size: int) -> int:
        """Open a file of the record for writing; made at its full size, so that no reader ever meets a shorter one."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            part = self.path / "0" / _files.part_name()
            made = os.open(part, flags | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                os.ftruncate(made, size)
                kill_point("storage.plate.record_made")
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with contextlib.suppress(FileExistsError):  # another writer was quicker
                    _rename_new(str(part), path, made, made)  # absolute, so from no folder
            finally:
                os.close(made)
                part.unlink(missing_ok=True)
            fd = os.open(path, flags)
        if os.fstat(fd).st_size < size:  # of a version that could be killed before
            os.posix_fallocate(fd, 0, size)  # never shrinks, so it may be done by several
        return fd

    def _open(self, relative: str) -> int:
        """Open a file of the image for reading; -1 if there is none, DatasetError if it is no file or outside of the plate."""
        path = f"{self._real}/{relative}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return -1
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise DatasetError(f"{path}: is not a file")
        if not os.readlink(f"/proc/self/fd/{fd}").startswith(self._inside):
            os.close(fd)
            raise DatasetError(f"{path}: leads out of the data set")
        return fd

    def _pread(self, relative: str, offset: int, count: int) -> bytes:
        """Return bytes of a file of the image, none if it is not there."""
        fd = self._open(relative)
        if fd < 0:
            return b""
        try:
            return os.pread(fd, count, offset)
        finally:
            os.close(fd)

    # ------------------------------------------------------------------ pixels

    def chunk_path(self, level: int, at: Tcz) -> Path:
        """Return the file of a plane's pixels."""
        return self.path / _chunk_file(level, at)

    def conform(self, plane: NDArray[Any], name: str) -> NDArray[Any]:
        """Return a plane as it is stored; ConfigError if it does not belong with the others."""
        if plane.shape != self.spec.shape or plane.dtype.newbyteorder("<") != self.spec.numpy_dtype:
            raise ConfigError(
                f"{name!r}: a plane {plane.shape} of {plane.dtype.name} does not fit into {self.key.path}, "
                f"whose planes are {self.spec.shape} of {self.spec.dtype}"
            )
        return np.ascontiguousarray(plane, dtype=self.spec.numpy_dtype)

    def write(self, plane: NDArray[Any], at: Tcz, name: str, *, overwrite: bool) -> None:
        """Store a plane that `conform` returned, in a place that the image has declared; all or nothing.

        Raises
        ------
        DatasetExistsError
            If one is there already, or another writer holds the place.
        """
        with self.claimed(at, name) as claim:
            before = claim.state
            if before != MISSING and not overwrite:
                held = self.name(at)
                also = "" if held == name else f" (as {held!r})"
                raise DatasetExistsError(f"{self.root}: {name!r} is there already{also}; say overwrite=True to replace it")
            parts: list[tuple[str, str]] = []
            with _files.translated(self.root):
                try:
                    for level in range(self.spec.levels):
                        if level:
                            plane = half(plane)
                        parts.append((self._part(plane), f"{self._text}/{_chunk_file(level, at)}"))
                    kill_point("storage.plate.parts_written")
                    if before != MISSING:
                        claim.state = REPLACING
                    for part, target in parts:
                        _place(part, target, new=before == MISSING)
                        kill_point("storage.plate.level_placed")
                    self._write_name(at, name)
                    kill_point("storage.plate.name_written")
                    claim.state = STORED
                except BaseException:
                    for part, _ in parts:
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(part)
                    raise
            kill_point("storage.plate.state_written")

    def _part(self, plane: NDArray[Any]) -> str:
        path = f"{self._text}/0/{_files.part_name()}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            _files.write_all(fd, _chunk.encode(self.spec, plane), 0)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(fd)
        return path

    def remove(self, at: Tcz, name: str) -> bool:
        """Remove a plane; whether there was one."""
        with self.claimed(at, name) as claim:
            if claim.state == MISSING:
                return False
            claim.state = MISSING
            kill_point("storage.plate.state_cleared")
            for level in range(self.spec.levels):
                self.chunk_path(level, at).unlink(missing_ok=True)
            self._write_name(at, "")
        return True

    def read(self, at: Tcz, level: int = 0, bounds: tuple[slice, slice] | None = None) -> NDArray[Any]:
        """Return a stored plane, or a part of it, as a new array; DatasetError if its file is missing or damaged."""
        relative = _chunk_file(level, at)
        where = f"{self.path}/{relative}"
        fd = self._open(relative)
        if fd < 0:
            raise DatasetError(f"{where}: is missing")
        try:
            return _chunk.read(self.spec, self.spec.level_shape(level), fd, bounds, where)
        finally:
            os.close(fd)

    def looks_whole(self, at: Tcz) -> bool:
        """Whether the files of a stored plane are there and as long as they must be, as far as that can be told quickly."""
        for level in range(self.spec.levels):
            if not _chunk.looks_whole(self.spec, self.spec.level_shape(level), self.chunk_path(level, at)):
                return False
        return True

    def renew(self, at: Tcz, name: str) -> None:
        """Make the smaller levels of a stored plane anew from its full one."""
        with self.claimed(at, name) as claim:
            plane = np.ascontiguousarray(self.read(at), dtype=self.spec.numpy_dtype)
            for level in range(1, self.spec.levels):
                plane = half(plane)
                _place(self._part(plane), f"{self._text}/{_chunk_file(level, at)}", new=False)
            claim.state = STORED


class Claim:
    """A plane that is held for writing."""

    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self._offset = offset

    @property
    def state(self) -> int:
        """What ``planes/state`` says of it."""
        data = os.pread(self._fd, 1, self._offset)
        return data[0] if data else MISSING

    @state.setter
    def state(self, value: int) -> None:
        _files.write_all(self._fd, bytes([value]), self._offset)


_STATE_FOLDER = f"{_documents.PLANES}/{_documents.STATE}"
_NAME_FOLDER = f"{_documents.PLANES}/{_documents.NAME}"
_STATE_FILE = re.compile(r"c\.([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})")


def _chunk_file(level: int, at: Tcz) -> str:
    """Return the file of a plane's pixels, from the image."""
    return f"{level}/c/{at[0]}/{at[1]}/{at[2]}/0/0"


def _within(at: Tcz, chunk: Tcz) -> tuple[str, int]:
    """Return the chunk that a place is in, by its key, and the number of the place in it."""
    (i, t), (j, c), (k, z) = (divmod(value, size) for value, size in zip(at, chunk, strict=True))
    return f"c.{i}.{j}.{k}", (t * chunk[1] + c) * chunk[2] + z


def _state_file(at: Tcz) -> tuple[str, int]:
    """Return the file of a plane's state, from the image, and where the state is in it."""
    part, number = _within(at, _documents.STATE_CHUNK)
    return f"{_STATE_FOLDER}/{part}", number


def _name_file(at: Tcz) -> tuple[str, int]:
    """Return the file of a plane's name, from the image, and where the name is in it."""
    part, number = _within(at, _documents.NAME_CHUNK)
    return f"{_NAME_FOLDER}/{part}.0", number * _documents.NAME_BYTES


def remove_parts(folder: Path) -> None:
    """Remove from a folder what processes that are gone left half-written."""
    for entry in os.listdir(folder):
        match = _PART.fullmatch(entry)
        if match is None or os.path.exists(f"/proc/{match[1]}"):
            continue
        path = folder / entry
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


_STATE_BYTES = int(np.prod(_documents.STATE_CHUNK))
_NAME_CHUNK_BYTES = int(np.prod(_documents.NAME_CHUNK)) * _documents.NAME_BYTES


def _lock_byte(fd: int, offset: int, message: str) -> None:
    """Lock one byte for this open file, whoever else in this process or another has the file open."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise DatasetExistsError(message) from None
        if error.errno not in _NO_LOCKS:  # a network file system without locks: one writer a plane
            raise


def _unlock_byte(fd: int, offset: int) -> None:
    """Give the lock back. Closing would not, if this process was forked meanwhile."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, offset, 1, 0))
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _place(part: str, target: str, *, new: bool) -> None:
    if new:
        _make_folders(os.path.dirname(target))
    try:
        os.replace(part, target)
    except FileNotFoundError:
        _make_folders(os.path.dirname(target))
        os.replace(part, target)


def _make_folders(folder: str) -> None:
    """Make a folder and those above it; most often only the last two are missing."""
    above = os.path.dirname(folder)
    try:
        os.mkdir(above)
    except FileExistsError:
        pass
    except FileNotFoundError:
        os.makedirs(above, exist_ok=True)
    try:
        os.mkdir(folder)
    except FileExistsError:
        pass


def _covers(extent: Tcz, wanted: Tcz) -> bool:
    return all(have >= want for have, want in zip(extent, wanted, strict=True))


def _write(folder: Path, document: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zarr.json").write_bytes(_files.encode(document))
