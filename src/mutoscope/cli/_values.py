"""What is typed becomes a value: whole numbers are never rounded ones, and an empty path is none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cyclopts import Token

from mutoscope.model.errors import ConfigError

__all__ = ["out_path", "whole"]

_WHOLE = re.compile(r"[+-]?[0-9]+(_[0-9]+)*")


def whole(_kind: Any, tokens: Sequence[Token]) -> int | tuple[int, ...]:
    """Return the whole numbers of one option: a number for one, a tuple for several.

    Raises
    ------
    ConfigError
        For a fraction or anything else.
    """
    found = []
    for token in tokens:
        if not _WHOLE.fullmatch(token.value):
            raise ConfigError(f"{token.keyword or 'a number'} takes whole numbers, not {token.value!r}")
        found.append(int(token.value))
    return found[0] if len(found) == 1 else tuple(found)


def out_path(out: str | None) -> Path | None:
    """Return ``--out`` as a path; an empty one, as a shell makes it of a variable that is not set, is refused."""
    if out is not None and not out.strip():
        raise ConfigError("--out is empty: name a folder, or a data set that ends in .ome.zarr")
    return None if out is None else Path(out)
