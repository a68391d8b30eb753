"""A sender's connection, from the viewer's side."""

from __future__ import annotations

import socket

from mutoscope.viewers import wire
from mutoscope.viewers.client import Client

MESSAGES = 3000


def test_what_a_sender_had_said_is_read_after_it_has_gone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        client = Client(ours)
        client.hello = wire.Hello(wire.WIRE_VERSION, "", "send", 1, "here", "test", False, {})
        said = b"".join(wire.frame(wire.Abort(number + (1 << 60))) for number in range(MESSAGES))
        said += wire.frame(wire.Call(1, "screenshot", {"of": "x" * 500_000}))  # more than is read at a time
        theirs.settimeout(10)
        theirs.sendall(said)
        theirs.close()
        found = []
        while not client.ended:
            client.say(wire.Goodbye("are you there?", by_user=False))
            found += [message for message, _ in client.read()]
    assert [message.id for message in found] == [*((1 << 60) + number for number in range(MESSAGES)), 1]  # type: ignore[union-attr]
