"""Viewers that run, announced by files that only their user can read, so that other programs of that user find them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
from pathlib import Path

import msgspec

from mutoscope.frames import _os
from mutoscope.model.errors import ConfigError

__all__ = ["Announced", "announce", "announced", "private_folder", "withdraw"]


_MOST_BYTES = 1 << 16


class Announced(msgspec.Struct, frozen=True):
    """A viewer that runs.

    Parameters
    ----------
    kind : str
        ``"page"`` for the page of a scope, ``"viewer"`` for a viewer of data sets.
    name : str
        Of the scope, or of what it shows.
    address : str
        Where it listens on this computer: of a page with a slash at its end, of a viewer the path of its socket.
    link : str
        The address that other people use: the same, or that of a proxy. Of a viewer that is shown by another program, where
        a person looks at it, with what lets them in.
    token : str
        What lets a program in.
    pid, started : int
        The process that it ends with, and when that was started, in the kernel's ticks: a later one may have its number.
    viewer : str
        Of a viewer its kind, as in ``viewers.open(kind)``.
    """

    kind: str
    name: str
    address: str
    link: str
    token: str
    pid: int
    started: int
    viewer: str = ""


def private_folder() -> Path:
    """Return the folder of the announcements, made if need be; nobody else can look into it.

    Raises
    ------
    ConfigError
        If it cannot be made, or somebody else has made one in its place.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime):
        folder = Path(runtime) / "mutoscope"
    else:
        folder = Path(tempfile.gettempdir()) / f"mutoscope-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be made ({error.strerror}): let XDG_RUNTIME_DIR be a folder that you can write to"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(f"{folder} is not a folder of yours alone: remove it")
    return folder


def _start_of(pid: int) -> int | None:
    """Return when a process was started, in ticks since the boot; None if it is not there, or has ended."""
    facts = _os.process_facts(pid)
    return None if facts is None or facts.state in ("Z", "X") else facts.started


def announce(kind: str, name: str, address: str, link: str, token: str, pid: int, viewer: str = "") -> Path:
    """Announce a viewer that ends with process `pid`; returns its file, for :func:`withdraw`."""
    started = _start_of(pid)
    entry = Announced(kind, name, address, link, token, pid, started or 0, viewer)
    file = private_folder() / f"{kind}-{pid}.json"
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as out:
            out.write(msgspec.json.encode(entry))
        os.replace(partial, file)
    except OSError as error:  # the disk is full, say
        _remove(partial)
        raise OSError(error.errno, error.strerror, str(file)) from error
    return file


def withdraw(file: Path) -> None:
    """Take an announcement back, with its socket; twice is fine."""
    _remove(file)
    _remove(file.with_suffix(".sock"))


def _remove(file: Path) -> None:
    with contextlib.suppress(IsADirectoryError):  # none of ours: it stays, and is not looked at
        file.unlink(missing_ok=True)


def announced(kind: str) -> list[Announced]:
    """Return the viewers of a kind that run, and remove what others left behind."""
    found = []
    for file in sorted(private_folder().iterdir()):
        if _is_left_behind(kind, file):
            _remove(file)
        if not re.fullmatch(rf"{kind}-\d+\.json", file.name):
            continue
        try:
            entry = _read(file)
        except FileNotFoundError:
            continue
        if entry is not None and _start_of(entry.pid) == entry.started:
            found.append(entry)
        else:
            withdraw(file)
    return found


def _read(file: Path) -> Announced | None:
    """Return what a file announces; None if it is no announcement of this user.

    Raises
    ------
    OSError
        If it cannot be read now: this process may open no more files, say. It may well be one.
    """
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EACCES):  # a link, a socket, or nobody may read it
            return None
        raise
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_size > _MOST_BYTES:
            return None
        data = os.read(fd, _MOST_BYTES)
    finally:
        os.close(fd)
    try:
        entry = msgspec.json.decode(data, type=Announced)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return entry if 0 < entry.pid < 1 << 31 else None


def _is_left_behind(kind: str, file: Path) -> bool:
    """Whether a socket, or half an announcement, is that of a process that has ended."""
    match = re.fullmatch(rf"{kind}-(\d+)\.sock|\.{kind}-\d+\.json\.(\d+)", file.name)
    return match is not None and _start_of(int(match[1] or match[2])) is None
