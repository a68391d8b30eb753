"""The supervisor's own commands: the hub answers them itself, with descriptors if asked for, at once or later."""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from mutoscope.bus import payload, wire
from mutoscope.bus.commands import Command, HandlerSpec, identity, message_name
from mutoscope.bus.peer import NOT_FOR_PAGE, Peer
from mutoscope.bus.reply import Deferred, Reply
from mutoscope.bus.wire import BROADCAST, NIL, SEND, SUPERVISOR
from mutoscope.model.errors import BadPayloadError, ConfigError

__all__ = ["LocalCommands", "Post"]


class Post(Protocol):
    """Sends a message to a peer and returns its bytes; with `give` the descriptors `fds` are handed over, else duplicated."""

    def __call__(self, peer: Peer, message: Any, fds: Sequence[int] = (), *, give: bool = False) -> int: ...


class _Local(msgspec.Struct, frozen=True):
    kind: type[Command]
    call: Callable[[str, Any], Any]
    script: bool
    page: bool


class LocalCommands:
    """What the supervisor handles.

    Parameters
    ----------
    post : callable
        How the hub sends a message.
    answered : callable(peer, call, started, error)
        Hears how each ended, after its answer has been given to `post`.
    """

    def __init__(self, post: Post, answered: Callable[[Peer, wire.Call, float, Exception | None], None]) -> None:
        self._post = post
        self._answered = answered
        self._known: dict[str, _Local] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._known

    @property
    def identities(self) -> dict[str, str]:
        """The identity of each command's class, by name."""
        return {name: identity(local.kind) for name, local in self._known.items()}

    def register(self, kind: type[Command], call: Callable[[str, Any], Any], *, script: bool, page: bool) -> None:
        """Answer a command from now on."""
        name = message_name(kind)
        payload.check_encodable(kind, name)
        if name in self._known:
            raise ConfigError(f"{name} is registered already")
        self._known[name] = _Local(kind, call, script, page)

    def handle(self, peer: Peer, call: wire.Call) -> None:
        """Answer one call, or have it answered later."""
        started, local = time.monotonic(), self._known[call.command]
        if call.kind == BROADCAST:
            self._post(peer, wire.Targets(call.id, (SUPERVISOR,)))
        try:
            peer.check_permitted(HandlerSpec(call.command, "", "direct", local.script, local.page))
            command = payload.decode(call.payload, local.kind, call.command)
            result = local.call(peer.name, command)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is its sender's to hear
            self._answer(peer, call, started, None, (), error)
            return
        if isinstance(result, Deferred):
            result.bind(functools.partial(self._answer, peer, call, started))
        elif isinstance(result, Reply):
            self._answer(peer, call, started, result.value, result.fds, None)
        else:
            self._answer(peer, call, started, result, (), None)

    def forward(
        self, sender: str, name: str, packed: msgspec.Raw, answer: Callable[[Any, Sequence[int], Exception | None], None]
    ) -> None:
        """Answer a command of somebody who is no peer, if the page may send it; `answer` is called once, now or later."""
        local = self._known[name]
        try:
            if not local.page:
                raise PermissionError(NOT_FOR_PAGE.format(name))
            result = local.call(sender, payload.decode(packed, local.kind, name))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is its sender's to hear
            answer(None, (), error)
            return
        if isinstance(result, Deferred):
            result.bind(answer)
        else:
            answer(result.value if isinstance(result, Reply) else result, (), None)

    def _answer(
        self, peer: Peer, call: wire.Call, started: float, value: Any, fds: Sequence[int], error: Exception | None
    ) -> None:
        if error is None:
            try:
                packed = NIL if call.kind == SEND else msgspec.Raw(payload.encode(value, f"reply to {call.command}"))
                wanted = tuple(fds) if call.wants_fds else ()
                self._post(peer, wire.Answer(call.id, SUPERVISOR, packed, len(wanted)), wanted)
            except (BadPayloadError, OSError, ValueError) as refused:
                error = refused
        if error is not None:
            text = getattr(error, "remote_traceback", None) or ""
            if not text and error.__traceback__:
                text = "".join(traceback.format_exception(error))
            self._post(peer, wire.Failure(call.id, SUPERVISOR, wire.error_record(error, text)))
        self._answered(peer, call, started, error)
