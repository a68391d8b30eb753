"""What the two ends of a pipe say to each other: frozen tagged Structs in msgpack, each one message of ZeroMQ.

New fields only at the end and only with defaults; anything else raises :data:`PIPE_VERSION`. The docs describe them.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from mutoscope.viewers.wire import MalformedError

__all__ = [
    "CHUNK_BYTES",
    "MESSAGE_BYTES",
    "PIPE_VERSION",
    "Ack",
    "Beat",
    "Data",
    "End",
    "FromEnd",
    "Open",
    "Opened",
    "decode",
    "encode",
]

PIPE_VERSION = 1
CHUNK_BYTES = 1 << 17
"""Most bytes of the stream in one message."""
MESSAGE_BYTES = CHUNK_BYTES + 4096
"""Most bytes of a message."""

_Count: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 62)]
_Name: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class Open(_Message, tag=1, frozen=True):
    """Begin a session, or take it up again: the first message of a sender's connection.

    `session` is a name that nobody can guess; `have` the chunks that the sender has taken so far. `known` says that the gate
    has answered before, so that one which does not know the session must refuse it. `compression` is ``""``, ``"lz4"`` or
    ``"zstd"``.
    """

    version: int
    session: _Name
    have: _Count
    known: bool
    compression: Annotated[str, Meta(max_length=16)]


class Opened(_Message, tag=2, frozen=True):
    """The answer: `have` are the chunks that the gate has taken so far."""

    have: _Count


class Data(_Message, tag=3, frozen=True):
    """Chunk `number` of the stream, counted from 0: `size` bytes, `packed` if they are compressed; none at its end."""

    number: _Count
    size: Annotated[int, Meta(ge=0, le=CHUNK_BYTES)]
    packed: bool
    content: memoryview


class Ack(_Message, tag=4, frozen=True):
    """So many chunks have been handed on, and need not be kept."""

    count: _Count


class Beat(_Message, tag=5, frozen=True):
    """There is nothing to say, and somebody to say it."""


class End(_Message, tag=6, frozen=True):
    """The session is over, or there is none; `reason` is for a person."""

    reason: Annotated[str, Meta(max_length=2000)]


FromEnd: TypeAlias = Open | Opened | Data | Ack | Beat | End

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(FromEnd)


def encode(message: FromEnd) -> bytes:
    """Return a message as it is sent."""
    return _encoder.encode(message)


def decode(data: bytes | memoryview) -> FromEnd:
    """Return a message, checked; the content of `Data` is a view of `data`.

    Raises
    ------
    MalformedError
        If it is none.
    """
    try:
        message: FromEnd = _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise MalformedError(f"no message of a pipe: {error}") from None
    if isinstance(message, Data) and not message.packed and len(message.content) != message.size:
        raise MalformedError(f"a chunk of {len(message.content)} bytes that says it has {message.size}")
    return message
