"""What a process asked and is waiting for, and what it was asked and has not handled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mutoscope.bus import wire
from mutoscope.bus.wire import NIL

if TYPE_CHECKING:
    from mutoscope.bus.lines import InLine, OutLine

__all__ = ["Job", "Pending", "PendingAll"]


class Pending(msgspec.Struct, gc=False):
    """A call that waits for its answer."""

    number: int
    command: str
    kind: int
    posted: bool = False
    done: bool = False
    payload: msgspec.Raw = NIL
    error: Exception | None = None
    fds: Sequence[int] = ()
    source: str = ""
    line: OutLine | None = None  # on which it went; None: through the hub
    started: float = 0.0
    asked: bytes = b""  # the message, if it went on a line
    wake: Any = None  # the lock on which another thread waits for `done`


class PendingAll(Pending, gc=False):
    """A broadcast that waits for the answers of all who are expected to give one."""

    expected: tuple[str, ...] | None = None
    answers: dict[str, msgspec.Raw | Exception] = {}


class Job(msgspec.Struct, gc=False):
    """A command or an event that was received and waits to be handled. `id` 0 is an event, `line` None what the hub sent."""

    call: Callable[[Any], Any]
    value: Any
    name: str
    sender: str
    size: int
    id: int
    kind: int
    line: InLine | None = None
    ask: wire.Ask | None = None
    started: float = 0.0
