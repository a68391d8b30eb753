"""A mapped segment and where it lies in this process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mutoscope.frames import _os
from mutoscope.model.errors import ConfigError

Handle = tuple[dict[str, Any], list[int]]
"""Plain values, and the descriptors that belong to them: how a reader or writer travels to another process."""


class Segment:
    """A mapping that lives as long as something refers to it; views of a frame do."""

    __slots__ = ("address", "bytes")

    def __init__(self, fd: int, size: int, *, writable: bool) -> None:
        self.bytes = np.frombuffer(_os.map_segment(fd, size, writable=writable), np.uint8)
        self.address: int = self.bytes.__array_interface__["data"][0]


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)


def duplicate(fds: Iterable[int]) -> list[int]:
    """Return a copy of each descriptor, close-on-exec; all or none."""
    copies: list[int] = []
    try:
        copies.extend(os.dup(fd) for fd in fds)
    except OSError:
        close_all(copies)
        raise
    return copies


def check_kind(meta: Mapping[str, Any], kind: str) -> None:
    """Refuse a handle of another kind of object."""
    if meta.get("kind") != kind:
        raise ConfigError(f"this is a handle of a {meta.get('kind')!r}, not of a {kind!r}")
