"""Whose are the entries of ``/dev/shm``: those of this test session, or of other programs on the machine?

An entry is a stranger's if another user owns it, or if only processes outside this session hold it (mapped or open). What a
process of this session holds is ours, and so is what nobody holds: a block that was closed and not unlinked is held by nobody.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

SHM = Path("/dev/shm")
MARK = "MUTOSCOPE_TEST_SESSION"
"""In the environment of every process that this session starts, also of those whose parents have died."""


def mark() -> None:
    """Have the processes that this one starts know their session."""
    os.environ[MARK] = uuid.uuid4().hex


def entries() -> set[str]:
    """The names in ``/dev/shm``, whosever they are."""
    return set(os.listdir(SHM))


def ours(names: set[str]) -> list[str]:
    """Those of `names` that exist and are not strangers'."""
    existing = {inode: name for name in names if (inode := _inode(name))}
    if not existing:
        return []
    family = _family()
    held, held_by_us = set(), set()
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        found = _held(pid) & set(existing)
        held |= found
        if found and (pid in family or _marked(pid)):
            held_by_us |= found
    left = {name for inode, name in existing.items() if inode in held_by_us or inode not in held}
    return sorted(left & entries())


def _inode(name: str) -> int:
    """The inode of an entry of this user; 0 for another's, and for one that is gone."""
    try:
        found = (SHM / name).lstat()
    except FileNotFoundError:
        return 0
    return found.st_ino if found.st_uid == os.geteuid() else 0


def _held(pid: int) -> set[int]:
    """Inodes in ``/dev/shm`` that a process has mapped or open; none where the process is another user's, or gone.

    A semaphore is mapped under a name that it had before its own: only the inode is the same.
    """
    found = set()
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            found.update(int(line.split(None, 5)[4]) for line in file if "/dev/shm/" in line)
        for entry in os.listdir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(f"/proc/{pid}/fd/{entry}").startswith("/dev/shm/"):
                    found.add(os.stat(f"/proc/{pid}/fd/{entry}").st_ino)
            except FileNotFoundError:
                continue
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return set()
    return found


def _family() -> set[int]:
    """This process and its descendants."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    parents[int(entry)] = int(file.read().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def _marked(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{MARK}={os.environ.get(MARK, '')}".encode() in file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
