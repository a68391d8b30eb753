"""What a sink and a viewer say to each other: frozen tagged Structs in msgpack, each followed by bytes that it tells of.

A frame is two numbers (bytes of the message, bytes behind it; little-endian, 32 bits each), the message, and those bytes.
Pixels and vertices lie in the sender's shared memory, where the message says; or, where there is none to be had, behind it.
Nothing is unpickled or evaluated. New fields only at the end and only with defaults; anything else raises :data:`WIRE_VERSION`.
"""

from __future__ import annotations

import math
import struct
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta

__all__ = [
    "BEHIND",
    "MAX_ANSWER",
    "MAX_BEHIND",
    "MAX_MESSAGE",
    "MAX_REPLY",
    "PREFIX",
    "WIRE_VERSION",
    "Abort",
    "Account",
    "Answer",
    "Call",
    "Form",
    "FromSink",
    "FromViewer",
    "Goodbye",
    "Hello",
    "Image",
    "MalformedError",
    "Part",
    "Rois",
    "Tally",
    "Value",
    "Welcome",
    "decode_from_sink",
    "decode_from_viewer",
    "frame",
    "split",
]

WIRE_VERSION = 1
PREFIX = struct.Struct("<II")
MAX_MESSAGE = 1 << 20
"""Most bytes of a message of a sink."""
MAX_REPLY = 1 << 26
"""Most bytes of a message of a viewer: it may tell of many layers, or of many items that failed."""
MAX_BEHIND = 1 << 26
"""Most bytes behind one message of a sink."""
MAX_ANSWER = 1 << 31
"""Most bytes behind one message of a viewer."""
BEHIND = -1
"""Instead of a place in shared memory: the bytes are behind the message."""

Value: TypeAlias = int | str
"""Of a component: a number as the microscope counts, or a name."""

_Id: TypeAlias = Annotated[int, Meta(ge=1, lt=1 << 62)]
_Size: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 46)]
_At: TypeAlias = Annotated[int, Meta(ge=BEHIND, lt=1 << 46)]
_Stamp: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 62)]
_Count: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 62)]
_Text: TypeAlias = Annotated[str, Meta(max_length=4096)]
_Word: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
_Number: TypeAlias = Annotated[int, Meta(ge=-(1 << 62), lt=1 << 62)]
_Place: TypeAlias = Annotated[dict[_Word, _Number | Annotated[str, Meta(max_length=256)]], Meta(max_length=32)]
_Pixels: TypeAlias = Annotated[int, Meta(ge=1, lt=1 << 31)]
Runs: TypeAlias = list[tuple[int, int]]
"""Ids, as (first, count)."""

DTYPES = frozenset(np.dtype(code) for code in ("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"))
_BY_NAME = {dtype.str: dtype for dtype in DTYPES}


class MalformedError(ValueError):
    """What arrived is no message of a sink, or of a viewer: the connection cannot go on."""


class _Wire(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


# -- from a sink


class Hello(_Wire, tag=1, frozen=True):
    """The first message. A sink that only looks (`role` ``"look"``) sends no items.

    `shared` says that the descriptor of shared memory comes with it; `display` is what `Display.to_dict` returned.
    """

    version: int
    token: _Text
    role: str
    pid: _Count
    host: _Text
    program: _Text
    shared: bool
    display: dict[str, Any]


class Form(_Wire, frozen=True):
    """How the pixels lie: C order, native bytes; `dtype` as NumPy writes it."""

    shape: Annotated[list[_Pixels], Meta(min_length=2, max_length=8)]
    dtype: str
    rgb: bool

    def nbytes(self) -> int:
        """Return how many bytes they are."""
        return math.prod(self.shape) * _BY_NAME[self.dtype].itemsize

    def kind(self) -> np.dtype[Any]:
        """Return their dtype."""
        return _BY_NAME[self.dtype]


class Image(_Wire, tag=2, frozen=True):
    """A plane or a stack. `axes` names the axes before (y, x), each with the number of its first plane.

    Its bytes are at `at`; `nbytes` of them, the others in `Part` messages.
    """

    id: _Id
    name: _Text
    source: _Text
    folder: _Text
    place: _Place
    axes: Annotated[list[tuple[_Word, _Count]], Meta(max_length=6)]
    form: Form
    at: _At
    nbytes: _Size
    sent_ns: _Stamp


class Rois(_Wire, tag=3, frozen=True):
    """The ROIs of one plane, instead of those that were there; as `roi_pack` packs them, `total` bytes."""

    id: _Id
    name: _Text
    source: _Text
    folder: _Text
    place: _Place
    total: _Size
    at: _At
    nbytes: _Size
    sent_ns: _Stamp


class Part(_Wire, tag=4, frozen=True):
    """More bytes of an item, in order."""

    id: _Id
    at: _At
    nbytes: _Size


class Abort(_Wire, tag=5, frozen=True):
    """An item whose parts do not all come."""

    id: _Id


class Tally(_Wire, tag=6, frozen=True):
    """What this sink has dropped so far, images and ROIs."""

    images: _Count
    rois: _Count


class Call(_Wire, tag=7, frozen=True):
    """Ask for something, in the order of the items: ``clear``, ``screenshot``, ``layers``, ``plane``, ``rois``, ``progress``,
    ``watch``, ``give up``, ``unwatch``, ``watched``, ``draw``, ``erase``, ``quit``."""

    id: _Id
    what: _Word
    arguments: dict[str, Any]


# -- from a viewer


class Welcome(_Wire, tag=32, frozen=True):
    """The answer to `Hello`: whether shared memory will do, and where the viewer's log is. `refused` says why it is none."""

    version: int
    name: str
    kind: str
    pid: int
    shared: bool
    log: str
    refused: str = ""


class Account(_Wire, tag=33, frozen=True):
    """What became of items: copied, so that their memory is free; shown, the last of them at `shown_ns`; failed."""

    received: Runs
    displayed: Runs
    failed: list[tuple[int, str]]
    shown_ns: int


class Answer(_Wire, tag=34, frozen=True):
    """The answer to a `Call`; `error` is why there is none. An array's bytes are behind it, in the form told."""

    id: _Id
    value: Any
    error: str
    form: Form | None = None


class Goodbye(_Wire, tag=35, frozen=True):
    """The viewer ends: a person closed it, or it failed."""

    reason: str
    by_user: bool


FromSink: TypeAlias = Hello | Image | Rois | Part | Abort | Tally | Call
FromViewer: TypeAlias = Welcome | Account | Answer | Goodbye

_encoder = msgspec.msgpack.Encoder()
_from_sink = msgspec.msgpack.Decoder(FromSink)
_from_viewer = msgspec.msgpack.Decoder(FromViewer)


def frame(message: FromSink | FromViewer, behind: int = 0) -> bytes:
    """Return a frame's beginning: what comes before the `behind` bytes that the caller sends after it."""
    data = _encoder.encode(message)
    return PREFIX.pack(len(data), behind) + data


def split(data: bytes | bytearray, most: int, most_behind: int, at: int = 0) -> tuple[int, int]:
    """Return the bytes of the message that begins at `at`, and those behind it.

    Raises
    ------
    MalformedError
        If there are more than may be.
    """
    message, behind = PREFIX.unpack_from(data, at)
    if not 0 < message <= most or behind > most_behind:
        raise MalformedError(f"a frame of {message:,} and {behind:,} bytes")
    return message, behind


def decode_from_sink(data: bytes | memoryview) -> FromSink:
    """Return a sink's message, checked.

    Raises
    ------
    MalformedError
        If it is none.
    """
    try:
        message: FromSink = _from_sink.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise MalformedError(str(error)) from None
    if isinstance(message, Image):
        _check_image(message)
    elif isinstance(message, Rois) and message.nbytes > message.total:
        raise MalformedError("more bytes in a message than in all")
    return message


def _check_image(message: Image) -> None:
    form = message.form
    if form.dtype not in _BY_NAME:
        raise MalformedError(f"{form.dtype[:20]!r} is no dtype of pixels")
    if len(form.shape) != len(message.axes) + 2 + form.rgb:
        raise MalformedError(f"{len(form.shape)} axes, of which {len(message.axes)} have names")
    if form.rgb and form.shape[-1] not in (3, 4):
        raise MalformedError(f"{form.shape[-1]} colours")
    if message.axes:
        names = {name for name, _ in message.axes}
        if len(names) < len(message.axes) or names & message.place.keys():
            raise MalformedError("an axis that is said twice")
    total = form.nbytes()
    if total >= 1 << 46 or message.nbytes > total:
        raise MalformedError(f"an image of {total:,} bytes, of which {message.nbytes:,} are here")


def decode_from_viewer(data: bytes | memoryview) -> FromViewer:
    """Return a viewer's message; raises `MalformedError` if it is none."""
    try:
        message: FromViewer = _from_viewer.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise MalformedError(str(error)) from None
    return message
