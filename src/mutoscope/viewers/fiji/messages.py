"""What Python and the plug-in say to each other: MessagePack maps with a ``type`` and an ``id``.

Each comes after two numbers: the bytes of the message, and those behind it (little-endian, 32 bits each).
``docs/fiji-protocol.md`` describes them; new fields only with defaults.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

import msgspec

__all__ = [
    "MAX_BEHIND",
    "MAX_MESSAGE",
    "PREFIX",
    "PROTOCOL",
    "Answer",
    "Arrange",
    "ChannelStyle",
    "Close",
    "CloseLeft",
    "Describe",
    "Done",
    "DrawRoi",
    "EditedRoi",
    "EraseRoi",
    "Forget",
    "HeldPlane",
    "HeldRois",
    "HeldStyle",
    "Hello",
    "LutColours",
    "Map",
    "News",
    "NewsOf",
    "Notice",
    "Open",
    "Picture",
    "PlanePicture",
    "PlaneRois",
    "PutMarks",
    "PutPlane",
    "PutRois",
    "Quit",
    "Read",
    "ReadLut",
    "ReadRois",
    "Refusal",
    "Request",
    "Say",
    "Scale",
    "Show",
    "State",
    "StateOf",
    "Style",
    "Unmap",
    "Unread",
    "WantedPlane",
    "Welcome",
    "WindowState",
]

PROTOCOL = 2
PREFIX = struct.Struct("<II")
MAX_MESSAGE = 32 << 20
MAX_BEHIND = (1 << 31) - 1


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    id: int


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """The step along y and x, along z, and along t, with their units; 1 and ``"pixel"`` where it is not known."""

    pixel_size: float = 1.0
    depth: float = 1.0
    unit: str = "pixel"
    interval: float = 0.0
    time_unit: str = "sec"


class ChannelStyle(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The look of a channel, from 1: its range in stored values, and 256 reds, greens and blues; None leaves them."""

    c: int
    low: float
    high: float
    lut: bytes | None = None


class PlaneRois(msgspec.Struct, frozen=True, kw_only=True):
    """How many bytes each ROI of a plane has; the place counts from 1, with 0 for all planes along an axis."""

    c: int
    z: int
    t: int
    sizes: list[int]


# -- requests


class Hello(_Message, frozen=True, tag="hello"):
    """The first message."""

    version: int
    token: str


class Map(_Message, frozen=True, tag="map"):
    """Map shared memory, to be named by its number from now on."""

    segment: int
    path: str
    size: int


class Unmap(_Message, frozen=True, tag="unmap"):
    """Let go of shared memory."""

    segment: int


class Open(_Message, frozen=True, tag="open"):
    """Open a window whose planes are all missing; `stored`: whose planes are asked for by `News` when they are looked at."""

    window: str
    title: str
    pixels: str
    width: int
    height: int
    channels: int
    slices: int
    frames: int
    composite: bool
    stored: bool = False


class Arrange(_Message, frozen=True, tag="arrange"):
    """Lay the planes of a window out anew: where the indices of each axis were before, -1 for new ones."""

    window: str
    width: int
    height: int
    channels: int
    slices: int
    frames: int
    from_c: list[int]
    from_z: list[int]
    from_t: list[int]


class PutPlane(_Message, frozen=True, tag="plane"):
    """Copy a plane; it is seen at the next `Show`. Its bytes are in a segment, or behind the message."""

    window: str
    c: int
    z: int
    t: int
    label: str
    segment: int | None = None
    at: int | None = None
    size: int | None = None


class Forget(_Message, frozen=True, tag="forget"):
    """Have a plane be missing."""

    window: str
    c: int
    z: int
    t: int


class Unread(_Message, frozen=True, tag="unread"):
    """A plane of a stored window cannot be read."""

    window: str
    c: int
    z: int
    t: int
    why: str


class Show(_Message, frozen=True, tag="show"):
    """Show the planes that have come."""

    window: str


class Style(_Message, frozen=True, tag="style"):
    """How a window looks; what is None stays."""

    window: str
    title: str | None = None
    overlay: bool | None = None
    scale: list[Scale] | None = None
    channels: list[ChannelStyle] | None = None


class Close(_Message, frozen=True, tag="close"):
    """Close a window; one that is not there is closed already."""

    window: str


class CloseLeft(_Message, frozen=True, tag="close_left"):
    """Close what clients that are gone have left in an ImageJ that was started by a program."""


class PutRois(_Message, frozen=True, tag="rois"):
    """ROIs of a layer on these planes, instead of what it has there; `whole`: and of what it has anywhere else.

    `editable`: of all planes of a window; what a person draws and changes there is told by `NewsOf`.
    """

    layer: str
    whole: bool
    planes: list[PlaneRois]
    window: str | None = None
    editable: bool = False


class PutMarks(_Message, frozen=True, tag="marks"):
    """Points, or lines of so many vertices each, over a window instead of those that the layer has there."""

    window: str
    layer: str
    points: bool
    sizes: list[int]


class Say(_Message, frozen=True, tag="say"):
    """Have a person read something."""

    text: str


class DrawRoi(_Message, frozen=True, tag="draw"):
    """Draw a ROI in an editable layer, or drag the one of its id there, as a person does. The ROI is behind it."""

    layer: str


class EraseRoi(_Message, frozen=True, tag="erase"):
    """Delete a ROI of an editable layer, as a person does."""

    layer: str
    roi: str


class Describe(_Message, frozen=True, tag="describe"):
    """Ask for the state of a window."""

    window: str


class Read(_Message, frozen=True, tag="read"):
    """Ask for the pixels of a plane."""

    window: str
    c: int
    z: int
    t: int


class ReadRois(_Message, frozen=True, tag="held_rois"):
    """Ask for the ROIs of a layer, as the ROI Manager has them."""

    layer: str


class ReadLut(_Message, frozen=True, tag="lut"):
    """Ask for a look-up table that ImageJ has, by name."""

    name: str


class Picture(_Message, frozen=True, tag="picture"):
    """Ask for what a person sees on a window's canvas."""

    window: str


class State(_Message, frozen=True, tag="state"):
    """Ask how much there is."""


class News(_Message, frozen=True, tag="news"):
    """Ask for what a `Notice` has told of."""


class Quit(_Message, frozen=True, tag="quit"):
    """End an ImageJ that was started by a program."""


# -- answers


class Notice(_Message, frozen=True, tag="notice"):
    """No answer: there are news. It comes once, until they are asked for."""


class Welcome(_Message, frozen=True, tag="welcome"):
    """The answer to `Hello`; `owned`: started by a program, which may end it."""

    version: int
    imagej: str
    java: str
    owned: bool


class Done(_Message, frozen=True, tag="done"):
    """It is done; to a `Style`: which of the ranges were set, as a person's own ones stay."""

    set: list[bool] = []


class Refusal(_Message, frozen=True, tag="error"):
    """It was not done."""

    code: str
    message: str


class HeldStyle(msgspec.Struct, frozen=True, kw_only=True):
    """The look of a channel as ImageJ has it."""

    lut: bytes
    low: float
    high: float


class WindowState(_Message, frozen=True, tag="window"):
    """A window as ImageJ has it; `shown` is the place (c, z, t), from 1, and `paints` how often it was painted."""

    title: str
    pixels: str
    width: int
    height: int
    channels: int
    slices: int
    frames: int
    shown: tuple[int, int, int]
    missing: int
    paints: int
    scale: Scale
    styles: list[HeldStyle]


class HeldPlane(_Message, frozen=True, tag="plane"):
    """The pixels are behind it."""

    label: str
    missing: bool


class HeldRois(_Message, frozen=True, tag="rois"):
    """The ROIs are behind it."""

    planes: list[PlaneRois]


class LutColours(_Message, frozen=True, tag="lut"):
    """256 reds, greens and blues."""

    colours: bytes


class PlanePicture(_Message, frozen=True, tag="picture"):
    """Three bytes a pixel are behind it."""

    width: int
    height: int


class StateOf(_Message, frozen=True, tag="state"):
    """What there is: the client's open windows, all images of ImageJ, paints of the client's windows and of all clients',
    ROIs by layer (under the empty name: those of others)."""

    windows: list[str]
    images: int
    paints: int
    painted: int
    rois: dict[str, int]
    heap_bytes: int


class WantedPlane(msgspec.Struct, frozen=True):
    """A plane of a stored window that somebody looks at."""

    window: str
    c: int
    z: int
    t: int


class EditedRoi(msgspec.Struct, frozen=True):
    """A ROI that a person has drawn or changed; its `size` bytes are behind the message, or are 0 where it was removed."""

    layer: str
    roi: str
    size: int


class NewsOf(_Message, frozen=True, tag="news"):
    """The planes that are wanted, of each window the most wanted one first; the windows that a person has closed; the ROIs that
    a person has drawn, changed or removed, each as it is now."""

    wanted: list[WantedPlane]
    closed: list[str]
    edits: list[EditedRoi]


Request: TypeAlias = (
    Hello
    | Map
    | Unmap
    | Open
    | Arrange
    | PutPlane
    | Forget
    | Unread
    | Show
    | Style
    | Close
    | CloseLeft
    | PutRois
    | PutMarks
    | Say
    | DrawRoi
    | EraseRoi
    | Describe
    | Read
    | ReadLut
    | ReadRois
    | Picture
    | State
    | News
    | Quit
)
Answer: TypeAlias = (
    Welcome | Done | Refusal | WindowState | HeldPlane | HeldRois | LutColours | PlanePicture | StateOf | NewsOf | Notice
)
