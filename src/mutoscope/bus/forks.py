"""Tells a process from its forked children, at the price of one attribute look-up."""

from __future__ import annotations

import os

from mutoscope.model.errors import ScopeStateError

__all__ = ["Home"]

_generation = 0


def _forked() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_forked)


class Home:
    """The process in which a connection was made: a forked child has copies of its descriptors, and may not use them."""

    __slots__ = ("_generation", "_pid")

    def __init__(self) -> None:
        self._generation = _generation
        self._pid = os.getpid()

    @property
    def left(self) -> bool:
        """Whether this is a forked child."""
        return self._generation != _generation

    def check(self, name: str) -> None:
        """Raise ScopeStateError in a forked child."""
        if self._generation != _generation:
            raise ScopeStateError(
                f"the bus connection of {name} belongs to process {self._pid} and cannot be used in its forked child "
                f"{os.getpid()}: have the child tell its parent over a pipe, or start it with multiprocessing's spawn method"
            )
