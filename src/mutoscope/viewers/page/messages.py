"""What a client may say, and how it is refused. The protocol is in ``docs/page-protocol.md``."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from mutoscope.model.errors import ErrorRecord
from mutoscope.model.roi import Roi

__all__ = [
    "CONTROL",
    "MESSAGE_BYTES",
    "PROTOCOL",
    "SUBPROTOCOL",
    "TABLE_ROWS",
    "Acquire",
    "AllowRestart",
    "AskCommand",
    "AskHistogram",
    "AskIndex",
    "AskPixel",
    "AskPlaneRois",
    "AskRows",
    "AskTable",
    "ChangeSetting",
    "FromClient",
    "GiveCredit",
    "Ping",
    "PutRoi",
    "Refused",
    "RemoveRoi",
    "Saving",
    "Seek",
    "SendPicture",
    "SetFolder",
    "SetView",
    "StopAcquisition",
    "StopScope",
    "TakeLease",
    "decode",
    "encode",
    "refusal",
]

PROTOCOL = 1
SUBPROTOCOL = f"mutoscope.page.{PROTOCOL}"
MESSAGE_BYTES = 1 << 20
TABLE_ROWS = 20_000

RequestId: TypeAlias = Annotated[int, Meta(ge=1, le=2**32 - 1)]
Name: TypeAlias = Annotated[str, Meta(max_length=1000)]
Pixel: TypeAlias = Annotated[int, Meta(ge=-(2**31), le=2**31)]
Rate: TypeAlias = Annotated[float, Meta(gt=0, le=1000)]
Patience: TypeAlias = Annotated[float, Meta(gt=0, le=600)]
At: TypeAlias = Annotated[dict[Name, Name], Meta(max_length=64)]
"""A value of each axis that matters, as ``hello`` has it; the first one of those that are not named."""


class _FromClient(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type"):
    pass


class Ping(_FromClient, tag="ping", frozen=True):
    """Are you there, and what time is it?"""

    id: RequestId


class SetView(_FromClient, tag="view", frozen=True):
    """Which part of a stream is shown."""

    stream: Name
    crop: tuple[Pixel, Pixel, Pixel, Pixel] | None = None
    step: Annotated[int, Meta(ge=1, le=65535)] = 1
    levels: bool = False
    at_most_hz: Rate | None = None


class GiveCredit(_FromClient, tag="credit", frozen=True):
    """So many more frames may come."""

    stream: Name
    frames: Annotated[int, Meta(ge=1, le=1000)]


class AskHistogram(_FromClient, tag="histogram", frozen=True):
    """Whether histograms of a stream are wanted."""

    stream: Name
    on: bool


class AskPixel(_FromClient, tag="pixel", frozen=True):
    """The exact value of a pixel."""

    id: RequestId
    stream: Name
    y: Pixel
    x: Pixel
    frame_id: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    image: Name | None = None
    at: At | None = None


class Seek(_FromClient, tag="seek", frozen=True):
    """A frame of the past."""

    id: RequestId
    stream: Name
    frame_id: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    number: Annotated[int, Meta(ge=-(2**53), le=2**53)] | None = None
    fraction: float | None = None
    utc_ms: float | None = None
    image: Name | None = None
    at: At | None = None
    exact: bool = False


class AskIndex(_FromClient, tag="index", frozen=True):
    """What there is of the past."""

    id: RequestId
    stream: Name
    image: Name | None = None


class AskPlaneRois(_FromClient, tag="plane_rois", frozen=True):
    """The ROIs of a layer on one plane."""

    id: RequestId
    layer: Name
    at: At


class SendPicture(_FromClient, tag="picture", frozen=True):
    """A part of what is seen, which the page has asked for."""

    request: RequestId
    shape: tuple[Annotated[int, Meta(ge=1, le=1 << 15)], Annotated[int, Meta(ge=1, le=1 << 15)]]
    part: Annotated[int, Meta(ge=0, lt=1 << 10)]
    parts: Annotated[int, Meta(ge=1, le=1 << 10)]
    data: str


class AskTable(_FromClient, tag="table", frozen=True):
    """The rows of a table, from now on."""

    table: Name
    rows: Annotated[int, Meta(ge=0, le=TABLE_ROWS)]
    at_most_hz: Rate = 5.0
    columns: Annotated[list[Name], Meta(max_length=1000)] | None = None


class AskRows(_FromClient, tag="rows", frozen=True):
    """Stored rows of a table, around a frame."""

    id: RequestId
    table: Name
    frame_id: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    before: Annotated[int, Meta(ge=0, le=10**6)]
    after: Annotated[int, Meta(ge=0, le=10**6)]
    rows: Annotated[int, Meta(ge=1, le=TABLE_ROWS)] = TABLE_ROWS
    columns: Annotated[list[Name], Meta(max_length=1000)] | None = None


class TakeLease(_FromClient, tag="lease", frozen=True):
    """Take control, or give it back."""

    id: RequestId
    take: bool
    name: Annotated[str, Meta(max_length=40)] = ""
    brief: bool = False


class Acquire(_FromClient, tag="acquire", frozen=True):
    """Start cameras."""

    id: RequestId
    frames: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    seconds: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    streams: Annotated[list[Name], Meta(max_length=100)] = []


class StopAcquisition(_FromClient, tag="stop_acquisition", frozen=True):
    """Stop them."""

    id: RequestId


class Saving(_FromClient, tag="saving", frozen=True):
    """Whether frames are stored."""

    id: RequestId
    on: bool


class SetFolder(_FromClient, tag="folder", frozen=True):
    """Where the next recording goes."""

    id: RequestId
    folder: Name


class ChangeSetting(_FromClient, tag="setting", frozen=True):
    """Change a live setting of a camera."""

    id: RequestId
    stream: Name
    setting: Name
    value: Any


class AskCommand(_FromClient, tag="command", frozen=True):
    """A command to a worker."""

    id: RequestId
    command: Name
    to: Name | None = None
    fields: dict[str, Any] = {}
    timeout_s: Patience = 10.0


class AllowRestart(_FromClient, tag="allow_restart", frozen=True):
    """Consent to the restart of what can move."""

    id: RequestId
    worker: Name


class StopScope(_FromClient, tag="stop_scope", frozen=True):
    """End the scope."""

    id: RequestId
    now: bool = False


class PutRoi(_FromClient, tag="put_roi", frozen=True):
    """Make or replace a ROI; its `id` may be empty."""

    id: RequestId
    stream: Name
    roi: dict[str, Any]
    revision: int | None = None


class RemoveRoi(_FromClient, tag="remove_roi", frozen=True):
    """Remove a ROI."""

    id: RequestId
    stream: Name
    roi_id: Name


CONTROL = (Acquire, StopAcquisition, Saving, SetFolder, ChangeSetting, AskCommand, AllowRestart, StopScope, PutRoi, RemoveRoi)
"""What needs the lease."""

FromClient: TypeAlias = (
    Ping
    | SetView
    | GiveCredit
    | AskHistogram
    | AskPixel
    | Seek
    | AskIndex
    | AskPlaneRois
    | SendPicture
    | AskTable
    | AskRows
    | TakeLease
    | Acquire
    | StopAcquisition
    | Saving
    | SetFolder
    | ChangeSetting
    | AskCommand
    | AllowRestart
    | StopScope
    | PutRoi
    | RemoveRoi
)

_decoder = msgspec.json.Decoder(FromClient)
_encoder = msgspec.json.Encoder(enc_hook=str)


class Refused(Exception):
    """A request that is refused: the protocol's code, and one sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


def decode(text: str) -> FromClient:
    """Read a client's message.

    Raises
    ------
    Refused
        If it is none.
    """
    try:
        message: FromClient = _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Refused("malformed", f"this is no message: {error}") from error
    return message


def encode(message: Any) -> str:
    """Write a message; numbers that are not finite become null, and what is no Unicode (file names may be) is escaped."""
    try:
        return _encoder.encode(message).decode()
    except UnicodeEncodeError:
        return _encoder.encode(_escaped(msgspec.to_builtins(message, enc_hook=str))).decode()


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(key): _escaped(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(each) for each in value]
    return value


def refusal(error: BaseException | ErrorRecord) -> dict[str, Any]:
    """Return an error as a reply has it."""
    if isinstance(error, Refused):
        return {"code": error.code, "kind": error.code, "message": error.message, "traceback": None}
    if isinstance(error, ErrorRecord):
        timeout = error.type_name in ("CommandTimeoutError", "TimeoutError")
        code = "timeout" if timeout else "failed" if error.traceback else "refused"
        return {"code": code, "kind": error.type_name, "message": error.message, "traceback": error.traceback or None}
    code = "timeout" if isinstance(error, TimeoutError) else "refused"
    return {"code": code, "kind": type(error).__name__, "message": str(error), "traceback": None}


def roi_of(given: dict[str, Any], new_id: str) -> Roi:
    """Read a ROI as a client gives it; an empty or missing id becomes `new_id`.

    Raises
    ------
    Refused
        If it is none.
    """
    try:
        return msgspec.convert({**given, "id": given.get("id") or new_id}, Roi, strict=False)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Refused("malformed", f"this is no ROI: {error}") from error
