"""What a caller gave, checked: each function returns it in its plain form, or raises one sentence that says what is taken."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mutoscope.model.errors import ConfigError

__all__ = ["flag", "mapping", "more_than_zero", "number", "path", "shown", "text", "texts", "whole"]

_SHOWN = 80


def shown(value: object) -> str:
    """Return how a wrong value looks in a sentence: on one line, and not long."""
    words = " ".join(repr(value).split())
    return words if len(words) <= _SHOWN else f"{words[: _SHOWN - 1]}…"


def flag(what: str, value: object) -> bool:
    """Return True or False; text and numbers are neither.

    Examples
    --------
    >>> flag("overwrite", "yes")
    Traceback (most recent call last):
        ...
    mutoscope.model.errors.ConfigError: overwrite is True or False, not 'yes'
    """
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(f"{what} is True or False, not {shown(value)}")
    return bool(value)


def number(what: str, value: object) -> float:
    """Return a number as a float; nan and infinity pass."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ConfigError(f"{what} is a number, not {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(f"{what} is a number, not one of so many digits") from None


def more_than_zero(what: str, value: object) -> float:
    """Return a finite number above 0 as a float."""
    found = number(what, value)
    if not 0 < found < math.inf:
        raise ConfigError(f"{what} must be more than 0{' and finite' if found == math.inf else ''}, not {value}")
    return found


def whole(what: str, value: object, least: int) -> int:
    """Return a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError(f"{what} must be a whole number, not {shown(value)}")
    if value < least:
        raise ConfigError(f"{what} must be {f'{least} or more' if least == 0 else f'at least {least}'}, not {value}")
    return int(value)


def text(what: str, value: object) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise ConfigError(f"{what} is text, not {shown(value)}")
    return str(value)


def texts(what: str, value: object) -> tuple[str, ...]:
    """Return several texts; one alone is one of them."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Iterable):
        raise ConfigError(f"{what} is a list of names, not {shown(value)}")
    return tuple(text(f"each of {what}", item) for item in value)


def path(what: str, value: object, example: str) -> Path:
    """Return a path, of text or of anything with ``__fspath__`` that gives text."""
    found = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(found, str) or not found or "\0" in found:
        raise ConfigError(f"{what} is a path such as {example!r}, not {shown(value)}")
    return Path(found)


def mapping(what: str, value: object, example: str) -> dict[Any, Any]:
    """Return a mapping as a new dict; None is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{what} is a dict such as {example}, not {shown(value)}")
    return dict(value)
