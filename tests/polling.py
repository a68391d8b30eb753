"""How tests wait for what other threads and processes do: by looking again and again, with a deadline."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

__all__ = ["halt", "until"]

Found = TypeVar("Found")
_LOOK_S = 0.01


def until(look: Callable[[], Found], what: str | Callable[[], str] = "", *, timeout_s: float = 60.0) -> Found:
    """Return the first true answer of `look`; AssertionError with `what`, which it waits for or then finds, if none comes."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what() if callable(what) else what or look}"
        time.sleep(_LOOK_S)
    return found


def halt(pid: int) -> None:
    """Stop a process by SIGSTOP, and wait until each of its threads has: on a busy machine some run on for a while."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: _threads_have_stopped(pid), f"process {pid} stops")


def _threads_have_stopped(pid: int) -> bool:
    try:
        found = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):  # one that ends just now
        return False
    return all(state in "Tt" for state in found)
