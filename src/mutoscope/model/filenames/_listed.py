"""File names that stand in another file are checked before anybody opens them."""

from __future__ import annotations

import re

from mutoscope.model.errors import DatasetError

__all__ = ["listed_name"]


def listed_name(name: str, what: str) -> str:
    """Return a file name that a list gave, unless it could lead out of the folder of that list.

    Raises
    ------
    DatasetError
        For an absolute path, a drive, ``..``, a NUL or an empty name.
    """
    parts = re.split(r"[\\/]", name)
    if "\0" in name or ":" in name or len(name) > 4096 or any(part in ("", ".", "..") for part in parts):
        raise DatasetError(f"{what} names a file that is not below its own folder: {name[:80]!r}")
    return name
