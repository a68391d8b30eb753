"""The messages between a process and the hub, and on a line between two processes: frozen tagged Structs, msgpack arrays
behind a four-byte length.

New fields only at the end and only with defaults; anything else raises :data:`WIRE_VERSION`. Payloads stay packed
(:class:`msgspec.Raw`) on their way through the hub, which never looks inside them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any

import msgspec

from mutoscope.bus import payload
from mutoscope.bus.commands import Manifest
from mutoscope.bus.payload import MAX_PAYLOAD_BYTES
from mutoscope.model.errors import ErrorRecord, to_record

__all__ = [
    "BROADCAST",
    "HEADER_BYTES",
    "MAX_MESSAGE_BYTES",
    "NIL",
    "REQUEST",
    "SEND",
    "SUPERVISOR",
    "UNDECODABLE",
    "WIRE_VERSION",
    "Accept",
    "Answer",
    "Ask",
    "Call",
    "CallRecord",
    "CrashReport",
    "Credit",
    "Cut",
    "Deliver",
    "Done",
    "Fail",
    "Failure",
    "Goodbye",
    "Happened",
    "Hello",
    "Line",
    "LineEnded",
    "LineTaken",
    "MalformedError",
    "Problem",
    "Publish",
    "Refusal",
    "Return",
    "Routes",
    "Subscribe",
    "Targets",
    "Welcome",
    "decode_downward",
    "decode_record",
    "decode_upward",
    "body_bytes",
    "asked",
    "error_record",
    "pack",
    "pack_ask",
    "pack_return",
    "plain_text",
    "replied",
    "sendable",
]

WIRE_VERSION = 1
HEADER_BYTES = 4
MAX_MESSAGE_BYTES = MAX_PAYLOAD_BYTES + 64 * 1024
"""A payload and its envelope."""

_MAX_TEXT = 100_000  # characters of an error's message and traceback that are sent

SUPERVISOR = "supervisor"
SEND, REQUEST, BROADCAST = 0, 1, 2
NIL = msgspec.Raw(b"\xc0")


class MalformedError(ValueError):
    """What arrived is not a message: the connection cannot go on."""


class _Wire(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class Hello(_Wire, tag=1, frozen=True):
    """First message of a process: who it is, what it handles, how many bytes it takes unhandled, whether it takes lines."""

    version: int
    name: str
    pid: int
    inbox_bytes: int
    manifest: Manifest
    lines: bool = False


class Call(_Wire, tag=2, frozen=True):
    """A command for somebody; `id` is the sender's own number of it."""

    id: int
    kind: int
    command: str
    to: str | None
    timeout_s: float
    payload: msgspec.Raw
    wants_fds: bool = False


class Return(_Wire, tag=3, frozen=True):
    """A command was done (request) or received (send); `id` is the hub's number of the delivery."""

    id: int
    payload: msgspec.Raw


class Fail(_Wire, tag=4, frozen=True):
    """A command was refused or its handler raised."""

    id: int
    error: ErrorRecord


class Publish(_Wire, tag=5, frozen=True):
    """An event for whoever subscribed."""

    event: str
    payload: msgspec.Raw


class Subscribe(_Wire, tag=6, frozen=True):
    """Send me this event, its last value at once."""

    event: str


class Credit(_Wire, tag=7, frozen=True):
    """So many bytes of your window are free again (both directions)."""

    size: int


class Problem(_Wire, tag=8, frozen=True):
    """The handler of an acknowledged command raised. Upward `peer` is who sent it, downward who handled it."""

    peer: str
    command: str
    error: ErrorRecord


class CrashReport(_Wire, tag=9, frozen=True):
    """Why this process is about to end."""

    error: ErrorRecord


class Goodbye(_Wire, tag=10, frozen=True):
    """The end of the stream that follows is intended (both directions)."""

    reason: str


class CallRecord(msgspec.Struct, frozen=True, array_like=True):
    """A command that ended, for the audit: who sent what to whom, how long it took, how it ended, when (UTC).

    `kind` is 0 for a send, 1 for a request, 2 for a broadcast. `payload` is the command in msgpack; empty where it went over a
    line and has more than 4096 bytes.
    """

    sender: str
    target: str
    command: str
    kind: int
    duration_s: float
    outcome: str
    payload: bytes = b""
    utc_ns: int = 0


class LineTaken(_Wire, tag=11, frozen=True):
    """From now on the commands of this process to the peer of that line go over it; the hub hands over the other end."""

    line: int


class LineEnded(_Wire, tag=12, frozen=True):
    """The line ended at the asking side, which waits to hear why (:class:`Cut`)."""

    line: int


class Done(_Wire, tag=13, frozen=True):
    """How a command ended that went over a line."""

    record: CallRecord


class Welcome(_Wire, tag=20, frozen=True):
    """The hub's answer to Hello."""

    version: int
    name: str


class Refusal(_Wire, tag=21, frozen=True):
    """The hub's other answer to Hello; the end of the stream follows."""

    reason: str


class Deliver(_Wire, tag=22, frozen=True):
    """A command to handle; `id` is the hub's number of it."""

    id: int
    kind: int
    sender: str
    command: str
    payload: msgspec.Raw


class Answer(_Wire, tag=23, frozen=True):
    """The reply of `source` to the Call of this id; `fds` descriptors come with it, if the Call wanted them."""

    id: int
    source: str
    payload: msgspec.Raw
    fds: int = 0


class Failure(_Wire, tag=24, frozen=True):
    """Why `source` did not do the Call of this id."""

    id: int
    source: str
    error: ErrorRecord


class Targets(_Wire, tag=25, frozen=True):
    """To whom the broadcast of this id goes; one Answer or Failure follows for each."""

    id: int
    names: tuple[str, ...]


class Happened(_Wire, tag=26, frozen=True):
    """An event; `dropped` values of it were passed over since the last one, because this process was too slow."""

    event: str
    sender: str
    payload: msgspec.Raw
    dropped: int = 0


class Line(_Wire, tag=27, frozen=True):
    """A line to `peer`, whose near end comes with this message: for `commands`, and for `alone` where no target is named."""

    line: int
    peer: str
    window_bytes: int
    commands: tuple[str, ...]
    alone: tuple[str, ...]
    audited: bool


class Accept(_Wire, tag=28, frozen=True):
    """The far end of a line on which `sender` asks for `commands`; `fds` is 2 where the memory for the audit comes with it."""

    sender: str
    window_bytes: int
    commands: tuple[str, ...]
    audited: bool
    fds: int = 1


class Routes(_Wire, tag=29, frozen=True):
    """Which commands go over a line where no target is named; another worker came or went."""

    line: int
    alone: tuple[str, ...]


class Cut(_Wire, tag=30, frozen=True):
    """The line is over, because of that; what was asked and not answered has failed."""

    line: int
    reason: str


class Ask(_Wire, tag=40, frozen=True):
    """A command on a line; `id` is the sender's own number of it. Return, Fail and Credit come back."""

    id: int
    kind: int
    command: str
    timeout_s: float
    payload: msgspec.Raw


Body = bytes | memoryview
"""A message without its length; a view where it is large."""

Upward = (
    Hello | Call | Return | Fail | Publish | Subscribe | Credit | Problem | CrashReport | Goodbye | LineTaken | LineEnded | Done
)
Downward = (
    Welcome
    | Refusal
    | Deliver
    | Answer
    | Failure
    | Targets
    | Happened
    | Credit
    | Problem
    | Goodbye
    | Line
    | Accept
    | Routes
    | Cut
)
Replied = Return | Fail | Credit

_encode = msgspec.msgpack.Encoder().encode
_pack_length = struct.Struct(">I").pack
_unpack_length = struct.Struct(">I").unpack_from
_upward = msgspec.msgpack.Decoder(Upward).decode
_downward = msgspec.msgpack.Decoder(Downward).decode
_asked = msgspec.msgpack.Decoder(Ask).decode
_replied = msgspec.msgpack.Decoder(Replied).decode
_record = msgspec.msgpack.Decoder(CallRecord).decode


def pack(message: _Wire | CallRecord) -> bytes:
    """Return the message with its length in front, ready for the socket."""
    body = _encode(message)
    return _pack_length(len(body)) + body


_ASK, _RETURN = Ask.__struct_config__.tag, Return.__struct_config__.tag


def pack_ask(number: int, kind: int, name: str, timeout_s: float, command: Any) -> bytes:
    """Pack an :class:`Ask` for a command that is not encoded yet: both at once. Raises BadPayloadError."""
    return _pack_around(command, (_ASK, number, kind, name, timeout_s, command), name)


def pack_return(number: int, value: Any, *what: str) -> bytes:
    """Pack a :class:`Return` for a value that is not encoded yet: both at once. Raises BadPayloadError, which names `what`."""
    return _pack_around(value, (_RETURN, number, value), *what)


def _pack_around(value: Any, message: tuple[Any, ...], *what: str) -> bytes:
    try:
        body = payload.encode_bare(message)
    except Exception:
        payload.encode(value, *what)
        raise
    if len(body) > MAX_PAYLOAD_BYTES:
        payload.encode(value, *what)
    return _pack_length(len(body)) + body


def body_bytes(data: Body, position: int = 0) -> int:
    """Return the length that stands in front of the message at `position`."""
    size: int = _unpack_length(data, position)[0]
    return size


UNDECODABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What the bare decoders below raise for bytes that are no message."""


def _decoding(decode: Callable[[Body], Any], what: str) -> Callable[[Body], Any]:
    def decoding(body: Body) -> Any:
        try:
            return decode(body)
        except UNDECODABLE as error:
            raise MalformedError(str(error)) from error

    decoding.__doc__ = f"Decode {what}; raises MalformedError."
    return decoding


asked, replied = _asked, _replied  # bare, for those who catch UNDECODABLE themselves: a call less for each message
decode_upward = _decoding(_upward, "what a process sent to the hub")
decode_downward = _decoding(_downward, "what the hub sent")
decode_record = _decoding(_record, "a record of the audit")


def error_record(error: BaseException, traceback: str = "") -> ErrorRecord:
    """Describe an exception so that it can be sent, whatever its arguments and its text hold."""
    return sendable(to_record(error, traceback))


def sendable(record: ErrorRecord) -> ErrorRecord:
    """Return a record that can be sent: itself, or one whose text is shortened and escaped where it must be."""
    size = len(record.message) + len(record.traceback)
    try:
        size += len(_encode(record))
    except (TypeError, ValueError, OverflowError):
        size = _MAX_TEXT + 1
    if size <= _MAX_TEXT:
        return record
    message = plain_text(record.message)
    return ErrorRecord(plain_text(record.type_name), (message,), message, plain_text(record.traceback))


def plain_text(text: str, limit: int = _MAX_TEXT) -> str:
    """Return text that can be sent, whatever it holds: what is no Unicode (file names may be) is escaped, the rest cut off."""
    left = len(text) - limit
    plain = text[:limit].encode("utf-8", "backslashreplace").decode()
    return plain if left <= 0 else f"{plain} … ({left:,} more characters)"


class _Opening(msgspec.Struct, frozen=True, array_like=True):
    tag: int
    version: int


_opening = msgspec.msgpack.Decoder(_Opening)


def opening_version(body: Body, tag: int) -> int | None:
    """Return the version that an opening message names, whatever else it holds; None if it is no opening message."""
    try:
        opening = _opening.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return opening.version if opening.tag == tag else None


def hello(name: str, inbox_bytes: int, manifest: Manifest) -> Hello:
    """Return this process's first message."""
    return Hello(WIRE_VERSION, name, os.getpid(), inbox_bytes, manifest, lines=True)
