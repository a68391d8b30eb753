"""A tape of what a writer asks the operating system to change in a folder, and every state that SIGKILL may leave of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

Files = dict[str, bytes]
"""Name → content of every file of the folder."""


@dataclass(frozen=True)
class Event:
    """One change: ``make``, ``write``, ``size``, ``rename``, ``remove``, or ``note``, which changes nothing."""

    kind: str
    file: int = 0
    """Which file, by the order in which they were made; it keeps that over a rename."""
    name: str = ""
    target: str = ""
    offset: int = 0
    data: bytes = b""
    note: Any = None


@dataclass
class Tape:
    """Events of one folder, in the order of the calls of `os`. Other ways to write are seen by `check_complete`."""

    folder: Path
    events: list[Event] = field(default_factory=list)
    _files: dict[str, int] = field(default_factory=dict)
    _open: dict[int, int] = field(default_factory=dict)

    def note(self, note: Any) -> None:
        """Put something between two events."""
        self.events.append(Event("note", note=note))

    def record(self, patch: pytest.MonkeyPatch) -> None:
        """Record from now on, until the patch is undone."""
        really: dict[str, Callable[..., Any]] = {
            name: getattr(os, name)
            for name in ("open", "close", "pwrite", "ftruncate", "posix_fallocate", "rename", "replace", "unlink")
        }

        def name_of(path: Any) -> str | None:
            place = Path(os.path.abspath(os.fspath(path)))
            return place.name if place.parent == self.folder else None

        def open_(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            name = name_of(path)
            made = name is not None and flags & os.O_CREAT and not os.path.lexists(path)
            fd: int = really["open"](path, flags, *rest, **options)
            if name is not None and os.path.isfile(path):
                if made:
                    self._files[name] = len(self.events)
                    self.events.append(Event("make", len(self.events), name))
                self._open[fd] = self._files[name]
            return fd

        def close(fd: int) -> None:
            self._open.pop(fd, None)
            really["close"](fd)

        def pwrite(fd: int, data: Any, offset: int) -> int:
            written: int = really["pwrite"](fd, data, offset)
            if fd in self._open:
                taken = bytes(memoryview(data).cast("B")[:written])
                self.events.append(Event("write", self._open[fd], offset=offset, data=taken))
            return written

        def ftruncate(fd: int, length: int) -> None:
            really["ftruncate"](fd, length)
            if fd in self._open:
                self.events.append(Event("size", self._open[fd], offset=length))

        def posix_fallocate(fd: int, offset: int, length: int) -> None:
            really["posix_fallocate"](fd, offset, length)
            if fd in self._open:
                self.events.append(Event("size", self._open[fd], offset=os.fstat(fd).st_size))

        def rename(source: Any, target: Any) -> None:
            really["rename"](source, target)
            before, after = name_of(source), name_of(target)
            if before is not None and after is not None:
                self._files[after] = self._files.pop(before)
                self.events.append(Event("rename", self._files[after], before, after))

        def unlink(path: Any, **options: Any) -> None:
            really["unlink"](path, **options)
            name = name_of(path)
            if name is not None:
                self.events.append(Event("remove", self._files.pop(name), name))

        for shim in (close, pwrite, ftruncate, posix_fallocate, rename, unlink):
            patch.setattr(os, shim.__name__, shim)
        patch.setattr(os, "open", open_)
        patch.setattr(os, "replace", rename)

    def check_complete(self) -> None:
        """Assert that the events make of nothing exactly what lies in the folder: no write has gone another way."""
        *_, (_, files) = replay(self.events)
        assert files == {path.name: path.read_bytes() for path in self.folder.iterdir()}


def replay(events: list[Event], torn: Callable[[Event], Iterator[int]] | None = None) -> Iterator[tuple[Event, Files]]:
    """Yield the files after each event; before a write, also those that it leaves when it is cut after some of its bytes.

    Parameters
    ----------
    torn : callable, optional
        Gives, for a write, after how many bytes it is to be cut.
    """
    contents: dict[int, bytearray] = {}
    names: dict[str, int] = {}

    def now() -> Files:
        return {name: bytes(contents[file]) for name, file in names.items()}

    for event in events:
        if event.kind == "make":
            names[event.name] = event.file
            contents[event.file] = bytearray()
        elif event.kind == "write":
            content = contents[event.file]
            before = bytes(content)
            for cut in torn(event) if torn is not None else ():
                _put(content, event.offset, event.data[:cut])
                yield event, now()
                content[:] = before
            _put(content, event.offset, event.data)
        elif event.kind == "size":
            content = contents[event.file]
            del content[event.offset :]
            content.extend(bytes(event.offset - len(content)))
        elif event.kind == "rename":
            names[event.target] = names.pop(event.name)
        elif event.kind == "remove":
            del names[event.name]
        yield event, now()


def _put(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data
