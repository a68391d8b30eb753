"""Serving a page until it is over, and letting its clients go in order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from mutoscope.viewers.page.sessions import Sessions
from mutoscope.viewers.page.site import Site

__all__ = ["serve_until"]


async def serve_until(
    over: asyncio.Event, site: Site, sessions: Sessions, listener: socket.socket, begun: Callable[[], None], farewell: str
) -> None:
    """Serve a page until something is over; every client is told then.

    Parameters
    ----------
    over : asyncio.Event
        Set when it is.
    site, sessions : Site, Sessions
        What is served.
    listener : socket
        Where; it stays open.
    begun : callable()
        Called once clients can connect.
    farewell : str
        Why connections are closed at the end.

    Raises
    ------
    Exception
        Whatever ended the site or its sessions before.
    """
    serving = await site.start(listener)
    running = asyncio.ensure_future(sessions.run())
    try:
        begun()
        stopped = asyncio.ensure_future(over.wait())
        await asyncio.wait([running, serving, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        for task in (running, serving):
            if task.done():
                task.result()
    finally:
        running.cancel()
        await sessions.ended({"reason": "stopped", "message": "", "errors": [], "dropped": {}})
        await site.stop(farewell)
        sessions.close()
