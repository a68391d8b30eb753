"""How tests wait for what other threads and processes do: by looking again and again, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["until"]

Found = TypeVar("Found")
_LOOK_S = 0.01


def until(look: Callable[[], Found], what: str | Callable[[], str] = "", *, timeout_s: float = 60.0) -> Found:
    """Return the first true answer of `look`; AssertionError with `what`, which it waits for or then finds, if none comes."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what() if callable(what) else what or look}"
        time.sleep(_LOOK_S)
    return found
