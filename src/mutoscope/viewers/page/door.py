"""The listening socket: whoever connects waits at the door until a request of theirs is let in, and only so many can."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

__all__ = ["WAITING", "Door"]

log = logging.getLogger(__name__)

WAITING = 256
"""Connections of which no request is worked on. Each has a descriptor; a process may have 1024 of them as a rule."""
RETRY_S = 1.0


class Door:
    """Accepts connections. One that asks nothing makes room for newer ones, so that strangers who stay keep nobody out.

    For a running loop.

    Parameters
    ----------
    listener : socket.socket
        Listens; closed by :meth:`close`.
    serve : callable
        Returns the protocol of a connection.
    on_turned_out : callable
        Called for each connection that had to make room.
    """

    def __init__(
        self, listener: socket.socket, serve: Callable[[], asyncio.Protocol], on_turned_out: Callable[[], None]
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._serve = serve
        self._on_turned_out = on_turned_out
        self._waiting: dict[asyncio.Transport, None] = {}  # in the order in which they came, or were served last
        self.task = asyncio.create_task(self._accept())
        """Accepts until closed; whoever owns the door raises what else ends it."""

    def let_in(self, transport: asyncio.BaseTransport | None) -> None:
        """A request of this connection is worked on."""
        if isinstance(transport, asyncio.Transport):
            self._waiting.pop(transport, None)

    def wait(self, transport: asyncio.BaseTransport | None) -> None:
        """No request of this connection is worked on any more, or not yet."""
        if not isinstance(transport, asyncio.Transport) or transport.is_closing():
            return
        self.let_in(transport)
        self._waiting[transport] = None
        if len(self._waiting) > WAITING:
            self._make_room()

    async def close(self) -> None:
        """Accept nobody any more. Twice is fine."""
        self.task.cancel()
        await asyncio.wait([self.task])
        self._listener.close()

    def _make_room(self) -> None:
        for transport in [each for each in self._waiting if each.is_closing()]:
            del self._waiting[transport]
        while len(self._waiting) > WAITING:
            longest = next(iter(self._waiting))
            del self._waiting[longest]
            longest.abort()
            self._on_turned_out()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
                transport, _ = await loop.connect_accepted_socket(self._serve, connection)
            except OSError as error:
                log.warning("nobody can connect to the page for a moment: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            self.wait(transport)
