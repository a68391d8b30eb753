"""What a driver says of its frames, and how its methods are called, checked before a device is opened."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mutoscope.model.errors import ConfigError

__all__ = ["check_call", "form_of", "rate_of"]


def form_of(name: str, shape: Any, dtype: Any) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Return the shape and dtype that a driver of this name declares.

    Raises
    ------
    ConfigError
        If they are none; one sentence.

    Examples
    --------
    >>> form_of("GradientCamera", [128, 256], "uint16")
    ((128, 256), dtype('uint16'))
    >>> form_of("GradientCamera", (3, 128, 256), "uint16")
    Traceback (most recent call last):
    mutoscope.model.errors.ConfigError: shape of GradientCamera is (y, x), two whole numbers above 0, not (3, 128, 256)
    """
    sizes = tuple(shape) if isinstance(shape, Sequence | np.ndarray) and not isinstance(shape, str | bytes) else ()
    if len(sizes) != 2 or not all(isinstance(n, int | np.integer) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise ConfigError(f"shape of {name} is (y, x), two whole numbers above 0, not {shape!r}")
    try:
        if dtype is None:
            raise TypeError
        kind = np.dtype(dtype)
    except TypeError:
        raise ConfigError(f"dtype of {name} is the name of a NumPy type such as 'uint8' or 'uint16', not {dtype!r}") from None
    return (int(sizes[0]), int(sizes[1])), kind


def rate_of(name: str, rate_hz: Any) -> float:
    """Return the rate that a driver of this name declares; ConfigError, one sentence, if it is none."""
    fits = isinstance(rate_hz, int | float | np.number) and not isinstance(rate_hz, bool)
    if not fits or not 0 <= rate_hz < math.inf:
        raise ConfigError(
            f"rate_hz of {name} is a number of frames per second, 0 where somebody else decides, not {rate_hz!r}: give a "
            "number, or a property that returns one"
        )
    return float(rate_hz)


def check_call(name: str, method: Callable[..., Any], *arguments: str) -> None:
    """Raise ConfigError, one sentence, unless a method of a driver of this name takes these arguments by their order."""
    signature = inspect.signature(method)
    try:
        signature.bind(*arguments)
    except TypeError:
        said = ", ".join(("self", *arguments))
        raise ConfigError(f"{method.__name__} of {name} takes {signature}: define it as {method.__name__}({said})") from None
