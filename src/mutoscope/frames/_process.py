"""Tells a process from its forked children, at the price of one attribute look-up."""

from __future__ import annotations

import os

from mutoscope.model.errors import ScopeStateError

generation = 0


def _forked() -> None:
    global generation
    generation += 1


os.register_at_fork(after_in_child=_forked)


def refuse_forked(what: str, pid: int) -> ScopeStateError:
    """Return the error for the use of `what` in a child that was forked from process `pid`."""
    return ScopeStateError(
        f"this {what} belongs to process {pid} and cannot be used in its forked child {os.getpid()}: "
        "give it to a child that multiprocessing spawns, or attach to the ring there"
    )
