"""Names of stored items: relative paths with ``/`` between their parts, the same rules in every backend."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Iterable

from mutoscope.model.errors import ConfigError, DatasetNotFoundError

__all__ = ["PART_NAME", "as_text", "check_folder", "check_name", "check_new_name", "image_choice", "natural_key", "not_found"]

PART_NAME = re.compile(r"\..+\.part")
"""Names of half-written files; no item may have one."""

_MAX_NAME_BYTES = 1024
_MAX_PART_BYTES = 255
_DIGITS = re.compile(r"([0-9]+)")
_CONTROL = re.compile(r"[\x01-\x1f\x7f]")
_NEAR = 3


def image_choice(image: str) -> str:
    """Return how an image of several is chosen, in Python and on the command line.

    Examples
    --------
    >>> image_choice("left")
    "(image='left' in Python, --image left on the command line)"
    """
    return f"(image={image!r} in Python, --image {shlex.quote(image)} on the command line)"


def check_name(name: str | os.PathLike[str]) -> str:
    """Return a name without empty and ``.`` parts.

    Raises
    ------
    ConfigError
        If it is empty, absolute, has ``..`` in it or a NUL, is too long, or is reserved for half-written files.
    """
    folder = check_folder(name)
    if not folder:
        raise ConfigError(f"{os.fspath(name)!r} is no name")
    return folder


def check_folder(name: str | os.PathLike[str]) -> str:
    """Return the name of a folder as `check_name` does; the root is ``""``."""
    text = as_text(name)
    if "\0" in text:
        raise ConfigError(f"{text!r}: a name has no NUL in it")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ConfigError(f"{text!r}: a name is valid Unicode") from None
    if text.startswith("/"):
        raise ConfigError(f"{text!r}: a name is relative to the root of the store, not absolute")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ConfigError(f"{text!r}: a name cannot lead out of the store")
    for part in parts:
        if PART_NAME.fullmatch(part):
            raise ConfigError(f"{text!r}: names like {part!r} are kept for half-written files")
        if len(os.fsencode(part)) > _MAX_PART_BYTES:
            raise ConfigError(f"{part[:40]!r}…: a part of a name has at most {_MAX_PART_BYTES} bytes")
    joined = "/".join(parts)
    if len(os.fsencode(joined)) > _MAX_NAME_BYTES:
        raise ConfigError(f"{joined[:40]!r}…: a name has at most {_MAX_NAME_BYTES} bytes")
    return joined


def as_text(name: str | os.PathLike[str]) -> str:
    """Return a name as text, or raise ConfigError if it is no name at all."""
    text = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(text, str):
        raise ConfigError(f"a name is text, not {type(name).__name__}")
    return text


def check_new_name(name: str | os.PathLike[str]) -> str:
    """Return a name as `check_name` does, if an item may get it: other systems must be able to have it too.

    Raises
    ------
    ConfigError
        Also if it has control characters or a backslash, is not valid Unicode, or ends with a slash.
    """
    text = _checked(check_name, name)
    if os.fspath(name).endswith("/"):
        raise ConfigError(f"{os.fspath(name)!r} names a folder")
    return text


def check_new_folder(name: str | os.PathLike[str]) -> str:
    """Return the name of a folder to be made, under the rules of `check_new_name`; the root is ``""``."""
    return _checked(check_folder, name)


def _checked(check: object, name: str | os.PathLike[str]) -> str:
    raw = as_text(name)
    try:
        raw.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"{raw!r}: a name is valid Unicode") from None
    if "\\" in raw:
        raise ConfigError(f"{raw!r}: the parts of a name are separated by /, and it has no backslash")
    if _CONTROL.search(raw):
        raise ConfigError(f"{raw!r}: a name has no control characters")
    assert callable(check)
    text: str = check(name)
    return text


def natural_key(name: str) -> tuple[object, ...]:
    """Return a key that sorts numbers in names by their value: ``z2`` before ``z10``, folders before what follows them.

    Examples
    --------
    >>> sorted(["z10.tif", "z2.tif", "Z1.tif"], key=natural_key)
    ['Z1.tif', 'z2.tif', 'z10.tif']
    """
    parts = []
    for part in name.split("/"):
        pieces = [piece for piece in _DIGITS.split(part.casefold()) if piece]
        parts.append(tuple((0, int(piece), "") if _DIGITS.fullmatch(piece) else (1, 0, piece) for piece in pieces))
    return (tuple(parts), name)


def not_found(name: str, where: object, known: Iterable[str]) -> DatasetNotFoundError:
    """Return the error for a missing name, with the nearest ones that exist."""
    lower: dict[str, str] = {}
    for each in known:
        lower.setdefault(each.casefold(), each)
    near = [lower[match] for match in difflib.get_close_matches(name.casefold(), lower, n=_NEAR, cutoff=0.5)]
    hint = f"; near it: {', '.join(map(repr, near))}" if near else ""
    return DatasetNotFoundError(f"{where}: there is no {name!r}{hint}")
