"""Who looks at a viewer's layers: they are told which planes came, and asked for what is on their screens."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mutoscope.viewers.page.client import Client
from mutoscope.viewers.page.messages import Refused, SendPicture, encode
from mutoscope.viewers.page.picture import Picture

__all__ = ["Onlookers"]

CHANGED_TOLD = 1000
"""Most planes of a layer that are told one by one."""


class Onlookers:
    """The clients of a page as those who look at layers. For the server's loop.

    Parameters
    ----------
    clients : mapping of int to Client
        Those that are connected now, by their numbers.
    """

    def __init__(self, clients: Mapping[int, Client]) -> None:
        self._clients = clients
        self._numbers = itertools.count(1)
        self._asked: dict[int, Picture] = {}

    def planes_changed(self, changes: Mapping[str, set[tuple[str, ...]] | None]) -> None:
        """Tell everyone which planes of which layers are others now; None for any of them.

        What a client has not taken yet grows into one message, so that one that reads slowly costs no more than that.
        """
        for client in self._clients.values():
            for layer, planes in changes.items():
                known = client.changed.setdefault(layer, set())
                both = None if planes is None or known is None else known | planes
                client.changed[layer] = None if both is not None and len(both) > CHANGED_TOLD else both
            client.due("changed", functools.partial(_changed_message, client))

    async def picture(self, timeout_s: float) -> NDArray[np.uint8] | None:
        """Return what a client has on its screen, shape (y, x, 3): the one that was heard last; None if it does not tell."""
        if not self._clients:
            return None
        client = max(self._clients.values(), key=lambda each: each.heard)
        number = next(self._numbers)
        asked = self._asked[number] = Picture(client.number, asyncio.get_running_loop().create_future())
        client.say({"type": "picture", "request": number})
        try:
            return await asyncio.wait_for(asked.done, timeout_s)
        except TimeoutError:
            return None
        finally:
            del self._asked[number]

    def picture_came(self, client: Client, message: SendPicture) -> None:
        """Take a part of a picture; raises Refused where that client was not asked for it."""
        asked = self._asked.get(message.request)
        if asked is None or asked.client != client.number:
            raise Refused("unknown", f"picture {message.request} was not asked for, or comes too late")
        asked.add(message)


def _changed_message(client: Client) -> str:
    changed, client.changed = client.changed, {}
    return encode({"type": "changed", "layers": {name: planes and sorted(planes) for name, planes in changed.items()}})
