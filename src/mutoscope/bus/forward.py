"""Commands of somebody who is no process of the scope: a client of its page."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from mutoscope.bus import routes
from mutoscope.bus.commands import HandlerSpec, Manifest
from mutoscope.bus.local import LocalCommands
from mutoscope.bus.peer import NOT_FOR_PAGE
from mutoscope.bus.wire import REQUEST, SUPERVISOR
from mutoscope.model.errors import MutoscopeError

__all__ = ["Answers", "Forwarding"]

OnReply = Callable[[Any, Exception | None], None]


@dataclass(frozen=True)
class Answers:
    """What a broadcast came to: value and error, by worker."""

    by_worker: dict[str, tuple[Any, Exception | None]]


class Deliver(Protocol):
    """Delivers a command to one worker; or returns why it cannot be, and then calls nobody."""

    def __call__(
        self, sender: str, name: str, command: str, raw: msgspec.Raw, timeout_s: float, on_reply: OnReply
    ) -> MutoscopeError | None: ...


class Note(Protocol):
    """Enters a command that ended into the audit."""

    def __call__(
        self,
        sender: str,
        target: str,
        command: str,
        kind: int,
        started: float,
        error: Exception | None,
        packed: msgspec.Raw | None = None,
    ) -> None: ...


class Forwarding:
    """Sends commands for clients of the page, to handlers that say ``page=True``. The hub owns it.

    Parameters
    ----------
    local : LocalCommands
        What the supervisor handles.
    manifests : mapping of str to Manifest
        What each worker has announced; the hub's own, as it is at any moment.
    deliver : callable
        Sends to one worker.
    known : callable
        Names of all processes that are, or were, there.
    note : callable
        For the audit: what did not get to a worker, and what the supervisor answered.
    """

    def __init__(
        self,
        local: LocalCommands,
        manifests: Mapping[str, Manifest],
        deliver: Deliver,
        known: Callable[[], set[str]],
        note: Note,
    ) -> None:
        self._local = local
        self._manifests = manifests
        self._deliver = deliver
        self._known = known
        self._note = note

    def send(self, sender: str, command: str, to: str | None, raw: msgspec.Raw, timeout_s: float, on_reply: OnReply) -> None:
        """Send one command.

        Parameters
        ----------
        sender : str
            Who asks, for the audit.
        command : str
            The name of the command.
        to : str or None
            The worker; None where one only handles it, or for a broadcast, which is answered with :class:`Answers`.
        raw : msgspec.Raw
            Its fields in msgpack.
        timeout_s : float
            How long its handler may take.
        on_reply : callable(value, error)
            Called once, from the hub's loop or from within this call.
        """
        started = time.monotonic()
        if command in self._local and to in (None, SUPERVISOR):

            def answered(value: Any, _fds: Sequence[int], error: Exception | None) -> None:
                self._note(sender, SUPERVISOR, command, REQUEST, started, error, raw)
                on_reply(value, error)

            self._local.forward(sender, command, raw, answered)
            return
        try:
            everyone = routes.find_broadcast(command, self._manifests) if to is None else {}
            targets = everyone or dict([routes.find_owner(command, to, self._manifests, self._known())])
            if not all(spec.page for spec in targets.values()):
                raise PermissionError(NOT_FOR_PAGE.format(command))
        except (MutoscopeError, PermissionError) as error:
            self._note(sender, to or "", command, REQUEST, started, error, raw)
            on_reply(None, error)
            return
        if not everyone:
            self._send_to(next(iter(targets)), sender, command, raw, timeout_s, on_reply)
            return
        answers: dict[str, tuple[Any, Exception | None]] = {}

        def one(name: str, value: Any, error: Exception | None) -> None:
            answers[name] = (value, error)
            if len(answers) == len(targets):
                on_reply(Answers(answers), None)

        for name in targets:
            self._send_to(name, sender, command, raw, timeout_s, functools.partial(one, name))

    def _send_to(self, name: str, sender: str, command: str, raw: msgspec.Raw, timeout_s: float, on_reply: OnReply) -> None:
        started = time.monotonic()
        error = self._deliver(sender, name, command, raw, timeout_s, on_reply)
        if error is not None:
            self._note(sender, name, command, REQUEST, started, error, raw)
            on_reply(None, error)

    def offered(self) -> dict[str, dict[str, HandlerSpec]]:
        """Return the commands that the page may send to workers, each with the workers that handle it."""
        offered: dict[str, dict[str, HandlerSpec]] = {}
        for name, announced in self._manifests.items():
            for spec in announced.handles:
                if spec.page and spec.delivery != "supervisor":
                    offered.setdefault(spec.command, {})[name] = spec
        return offered
