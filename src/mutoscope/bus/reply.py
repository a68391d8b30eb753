"""What a handler of the supervisor may return instead of a plain value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Deferred", "Reply"]


class Reply:
    """A value together with file descriptors.

    Parameters
    ----------
    value : object
        The reply.
    fds : sequence of int
        Descriptors for the sender of the command. They are duplicated and stay the caller's.
    """

    __slots__ = ("fds", "value")

    def __init__(self, value: Any, fds: Sequence[int] = ()) -> None:
        self.value = value
        self.fds = tuple(fds)


class Deferred:
    """An answer that is given later: return it from a handler, keep it, and resolve or reject it once.

    Only for the hub's thread. Answering after the sender died, or twice, does nothing more.
    """

    __slots__ = ("_answer", "_outcome", "done")

    def __init__(self) -> None:
        self.done = False
        self._answer: Callable[[Any, Sequence[int], Exception | None], None] | None = None
        self._outcome: tuple[Any, Sequence[int], Exception | None] | None = None

    def resolve(self, value: Any = None, fds: Sequence[int] = ()) -> None:
        """Give the reply, with descriptors that are duplicated and stay the caller's."""
        self._settle(value, fds, None)

    def reject(self, error: Exception) -> None:
        """Have the sender's request raise `error`."""
        self._settle(None, (), error)

    def bind(self, answer: Callable[[Any, Sequence[int], Exception | None], None]) -> None:
        """Name who hears the outcome; done by the hub."""
        self._answer = answer
        if self._outcome is not None:
            answer(*self._outcome)

    def _settle(self, value: Any, fds: Sequence[int], error: Exception | None) -> None:
        if self.done:
            return
        self.done = True
        self._outcome = (value, tuple(fds), error)
        if self._answer is not None:
            self._answer(*self._outcome)
