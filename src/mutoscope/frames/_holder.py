"""What a ring's reader and its writer have in common: how they come from a handle, go to another process, and end."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, NoReturn, Self

from mutoscope.frames import _process
from mutoscope.frames._segments import check_kind, close_all
from mutoscope.model.errors import ClosedError, RingClosedError, ScopeStateError

__all__ = ["RingHolder", "rebuild"]


class RingHolder:
    """One end of a ring. `on_close` and `on_give` are the ring's own, where it lives in this process."""

    KIND: ClassVar[str]
    ROLE: ClassVar[str]

    def __init__(self, meta: Mapping[str, Any], fds: Sequence[int]) -> None:
        check_kind(meta, self.KIND)
        self._meta = dict(meta)
        self._fds = list(fds)
        self.ring_name: str = meta["ring"]
        self._pid = os.getpid()
        self._generation = _process.generation
        self._callback: Callable[[], None] | None = None
        self._on_give: Callable[[int, Any], None] | None = None
        self._on_close: Callable[[Any], None] | None = None
        self._given = False
        self._owner_closed = False
        self._waiting = False

    @classmethod
    def from_handle(cls, meta: Mapping[str, Any], fds: Sequence[int]) -> Self:
        """Open what the ring's owner assigned.

        Parameters
        ----------
        meta : mapping
            The handle's plain values.
        fds : sequence of int
            Its descriptors; they become this object's own.
        """
        return cls(meta, fds)

    def _who(self) -> str:
        raise NotImplementedError

    def _refuse(self) -> NoReturn:
        """Say why it cannot be used any longer."""
        if self._generation != _process.generation:
            raise _process.refuse_forked(self.ROLE, self._pid)
        if self._given:
            raise ScopeStateError(f"{self._who()} was given to a child process and is that one's now")
        if self._owner_closed:
            raise RingClosedError(f"ring {self.ring_name!r} is closed: its owner closed it, or died")
        raise ClosedError(f"{self._who()} is closed")

    def _end_by_owner(self) -> NoReturn:
        self._owner_closed = True
        self.close()
        self._refuse()

    def _ring_closed(self) -> None:
        """Called by the ring of this process when it is closed. A thread that waits here ends by itself."""
        self._owner_closed = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Give the place in the ring back. Twice is fine."""
        if self._generation != _process.generation:
            return
        if self._on_close is not None:
            self._on_close(self)
        if self._leave():
            return
        if self._given:
            self._given = False
            close_all(self._fds)

    def _leave(self) -> bool:
        """Leave the ring; False when this object has left it already."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def rebuild(kind: type[RingHolder], meta: dict[str, Any], fds: list[Any]) -> RingHolder:
    """Open in a child of multiprocessing what its parent gave it."""
    taken = [fd.detach() for fd in fds]
    for fd in taken:
        os.set_inheritable(fd, False)
    return kind.from_handle(meta, taken)
