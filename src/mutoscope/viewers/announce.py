"""Viewers that run, announced by files that only their user can read, so that other programs of that user find them."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from pathlib import Path

import msgspec

from mutoscope.model.errors import ConfigError

__all__ = ["Announced", "announce", "announced", "withdraw"]


class Announced(msgspec.Struct, frozen=True):
    """A viewer that runs.

    Parameters
    ----------
    kind : str
        ``"page"`` for the page of a scope.
    name : str
        Of the scope, or of what it shows.
    address : str
        Where it listens on this computer, with a slash at its end.
    link : str
        The address that other people use: the same, or that of a proxy.
    token : str
        What lets a program in.
    pid, started : int
        The process that it ends with, and when that was started, in the kernel's ticks: a later one may have its number.
    """

    kind: str
    name: str
    address: str
    link: str
    token: str
    pid: int
    started: int


def _folder() -> Path:
    """Return the folder of the announcements, made if need be; nobody else can look into it.

    Raises
    ------
    ConfigError
        If somebody else has made one in its place.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        folder = Path(runtime) / "mutoscope"
    else:
        folder = Path(tempfile.gettempdir()) / f"mutoscope-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(f"{folder} is not a folder of yours alone: remove it")
    return folder


def _start_of(pid: int) -> int | None:
    """Return when a process was started, in ticks since the boot; None if it is not there."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])


def announce(kind: str, name: str, address: str, link: str, token: str, pid: int) -> Path:
    """Announce a viewer that ends with process `pid`; returns its file, for :func:`withdraw`."""
    started = _start_of(pid)
    entry = Announced(kind, name, address, link, token, pid, started or 0)
    file = _folder() / f"{kind}-{pid}.json"
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as out:
        out.write(msgspec.json.encode(entry))
    os.replace(partial, file)
    return file


def withdraw(file: Path) -> None:
    """Take an announcement back; twice is fine."""
    file.unlink(missing_ok=True)


def announced(kind: str) -> list[Announced]:
    """Return the viewers of a kind that run, and remove what others left behind."""
    found = []
    for file in sorted(_folder().iterdir()):
        if not re.fullmatch(rf"{kind}-\d+\.json", file.name):
            continue
        try:
            entry = msgspec.json.decode(file.read_bytes(), type=Announced)
        except (OSError, msgspec.MsgspecError):
            withdraw(file)
            continue
        if _start_of(entry.pid) == entry.started:
            found.append(entry)
        else:
            withdraw(file)
    return found
