"""ImageJ as Python sees it: windows with planes, looks and ROIs, and the questions what is there."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mutoscope.frames import _os
from mutoscope.model.errors import CommandTimeoutError, RingSizeError
from mutoscope.viewers.fiji.link import ImageJError, Link
from mutoscope.viewers.fiji.messages import (
    Arrange,
    ChannelStyle,
    Close,
    CloseLeft,
    Describe,
    Done,
    DrawRoi,
    EraseRoi,
    Forget,
    HeldPlane,
    HeldRois,
    LutColours,
    Map,
    News,
    NewsOf,
    Open,
    Picture,
    PlanePicture,
    PlaneRois,
    PutMarks,
    PutPlane,
    PutRois,
    Quit,
    Read,
    ReadLut,
    ReadRois,
    Say,
    Scale,
    Show,
    State,
    StateOf,
    Style,
    Unmap,
    Unread,
    Welcome,
    WindowState,
)
from mutoscope.viewers.fiji.pixels import StoredForm
from mutoscope.viewers.fiji.shared import SharedPlane

__all__ = ["ImageJ", "Place", "Scale", "WindowShape"]


class WindowShape(NamedTuple):
    """The size of planes, and how many there are along each of ImageJ's axes."""

    height: int
    width: int
    channels: int = 1
    slices: int = 1
    frames: int = 1


class Place(NamedTuple):
    """Where a plane is, as ImageJ counts: from 1. Of ROIs, 0 stands for all planes along an axis."""

    c: int = 1
    z: int = 1
    t: int = 1


class ImageJ:
    """A running ImageJ or Fiji with the live receiver. Not safe for several threads at a time.

    Windows belong to this connection, and are named by the caller; they stay when it is closed.

    Parameters
    ----------
    link : Link
        Owned, and closed with this.
    shared : bool
        Whether planes go through shared memory; where that cannot be had or mapped, they go over the socket.
    timeout_s : float
        For each request.
    pid : int, optional
        Of ImageJ's process, where that is on this computer.
    process : Popen, optional
        The same, where it is a child of this process.
    """

    def __init__(
        self,
        link: Link,
        *,
        shared: bool = True,
        timeout_s: float = 30.0,
        pid: int | None = None,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self._link = link
        self._pid = pid
        self._process = process
        self._timeout_s = timeout_s
        self._may_share = shared
        self._shared: SharedPlane | None = None
        self._segments = 0

    @property
    def welcome(self) -> Welcome:
        """What ImageJ said of itself: its version, Java's, and whether a program may end it (`owned`)."""
        return self._link.welcome

    @property
    def shares_memory(self) -> bool:
        """Whether planes go through shared memory, as far as is known."""
        return self._may_share

    @property
    def pid(self) -> int | None:
        """The number of ImageJ's process, where that is on this computer."""
        return self._pid

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """ImageJ's process, where it is a child of this one."""
        return self._process

    def fileno(self) -> int:
        """Return the socket's descriptor: readable when ImageJ ends, or answers too late."""
        return self._link.fileno()

    def has_ended(self) -> bool:
        """Return whether ImageJ, or its live receiver, has ended; never waits."""
        return self._link.has_ended()

    def take_notice(self) -> bool:
        """Return whether there are news since this was asked last: see `news`; never waits."""
        return self._link.take_notice()

    def news(self) -> tuple[NewsOf, list[bytes | None]]:
        """Return what there is to do: planes that people look at and that are not there, windows that they have closed, ROIs
        that they have drawn, changed or (None) removed, in the order of `NewsOf.edits`."""
        news, behind = self._link.ask(News(id=self._link.next_id()), NewsOf, (), self._timeout_s)
        found, at = [], 0
        for edit in news.edits:
            found.append(bytes(behind[at : at + edit.size]) if edit.size else None)
            at += edit.size
        return news, found

    def _done(self, request: Any, behind: Sequence[Any] = ()) -> Done:
        return self._link.ask(request, Done, behind, self._timeout_s)[0]

    # -- windows

    def open_window(
        self, window: str, title: str, form: StoredForm, shape: WindowShape, *, composite: bool, stored: bool = False
    ) -> None:
        """Open a window all of whose planes are missing.

        Parameters
        ----------
        window : str
            Its name for later calls; one of a window that a person has closed may be used again.
        title : str
            What a person reads.
        form : StoredForm
            Of its pixels.
        shape : WindowShape
            At first: see `arrange`.
        composite : bool
            Whether each channel has a look of its own; not for RGB.
        stored : bool
            Whether its planes are to be put when `news` has them as wanted: ImageJ keeps as many as it has room for. Such a
            window cannot be arranged.

        Raises
        ------
        ImageJError
            If ImageJ has not the memory for it, or a window of this name is open.
        """
        sizes = _sizes(shape)
        request = Open(
            id=self._link.next_id(), window=window, title=title, pixels=form.word, composite=composite, stored=stored, **sizes
        )
        self._done(request)

    def arrange(self, window: str, shape: WindowShape, came_from: tuple[Sequence[int], Sequence[int], Sequence[int]]) -> None:
        """Give a window more planes, or larger ones, without closing it; those that are there move with their indices.

        Parameters
        ----------
        window : str
            Its name.
        shape : WindowShape
            From now on; height and width become no smaller. Smaller planes lie at the upper left, with zeros around them.
        came_from : (channels, slices, frames)
            For each index from now on, from 0, what it was before; -1 for a new one. An index that is not named is lost.

        Raises
        ------
        WindowGoneError
            If a person has closed it, or made something else of it.
        """
        from_c, from_z, from_t = (list(each) for each in came_from)
        self._done(
            Arrange(id=self._link.next_id(), window=window, from_c=from_c, from_z=from_z, from_t=from_t, **_sizes(shape))
        )

    def put_plane(self, window: str, place: Place, plane: NDArray[Any], form: StoredForm, label: str) -> None:
        """Copy a plane into a window, to be seen at the next `show`; on return the caller may reuse its memory.

        Parameters
        ----------
        window : str
            Its name.
        place : Place
            What is there is replaced.
        plane : ndarray, shape (y, x) or (y, x, colour)
            Of the size of the window.
        form : StoredForm
            Of the window.
        label : str
            What a person reads above the plane.
        """
        shape = form.shape(*plane.shape[:2])
        size = math.prod(shape) * form.dtype.itemsize
        shared = self._room(size)
        common: dict[str, Any] = {"id": self._link.next_id(), "window": window, "label": label, **place._asdict()}
        if shared is not None:
            form.store(plane, shared.bytes[:size].view(form.dtype).reshape(shape))
            self._done(PutPlane(segment=shared.number, at=0, size=size, **common))
            return
        stored = np.empty(shape, form.dtype)
        form.store(plane, stored)
        self._done(PutPlane(**common), [stored.reshape(-1).view(np.uint8)])

    def _room(self, size: int) -> SharedPlane | None:
        """Return shared memory for so many bytes; None if there is none, or ImageJ cannot map it."""
        if not self._may_share or (self._shared is not None and self._shared.size >= size):
            return self._shared
        self._drop_shared()
        self._segments += 1
        try:
            made = SharedPlane(self._segments, size)
        except RingSizeError:
            self._may_share = False
            return None
        try:
            self._done(Map(id=self._link.next_id(), segment=made.number, path=made.path, size=made.size))
        except ImageJError as error:
            made.close()
            if error.code != "unmappable":
                raise
            self._may_share = False
            return None
        except BaseException:
            made.close()
            raise
        self._shared = made
        return made

    def _drop_shared(self) -> None:
        if self._shared is not None:
            number = self._shared.number
            self._shared.close()
            self._shared = None
            self._done(Unmap(id=self._link.next_id(), segment=number))

    def forget_plane(self, window: str, place: Place) -> None:
        """Have a plane be missing from the next `show` on."""
        self._done(Forget(id=self._link.next_id(), window=window, **place._asdict()))

    def unread_plane(self, window: str, place: Place, why: str) -> None:
        """Have a plane of a stored window be one that cannot be read; whoever waits for it is told why."""
        self._done(Unread(id=self._link.next_id(), window=window, why=why[:1000], **place._asdict()))

    def show(self, window: str) -> None:
        """Show the planes that have come; returns when ImageJ's event thread has done it."""
        self._done(Show(id=self._link.next_id(), window=window))

    def style(
        self,
        window: str,
        *,
        title: str | None = None,
        overlay: bool | None = None,
        scale: Scale | None = None,
        channels: Sequence[ChannelStyle] = (),
    ) -> list[bool]:
        """Set how a window looks; what is not given stays.

        Parameters
        ----------
        window : str
            Its name.
        title : str, optional
            What a person reads.
        overlay : bool, optional
            Whether channels are laid over each other (at most 8 of a composite), or seen one at a time.
        scale : Scale, optional
            Steps and units.
        channels : sequence of ChannelStyle
            Ranges in stored values (`StoredForm.level`) and look-up tables.

        Returns
        -------
        list of bool
            For each of `channels` whether its range was set: one that a person has changed since stays as it is.
        """
        request = Style(
            id=self._link.next_id(),
            window=window,
            title=title,
            overlay=overlay,
            scale=None if scale is None else [scale],
            channels=list(channels) or None,
        )
        return self._done(request).set

    def close_window(self, window: str) -> None:
        """Close a window without asking anybody; one that is closed already is fine."""
        self._done(Close(id=self._link.next_id(), window=window))

    def close_left(self) -> None:
        """Close the windows, and remove the ROIs, of connections that are gone.

        Raises
        ------
        ImageJError
            If a person has started this ImageJ: what is left there is theirs.
        """
        self._done(CloseLeft(id=self._link.next_id()))

    # -- ROIs

    def put_rois(
        self, layer: str, rois: Mapping[Place, Sequence[bytes]], *, window: str | None, whole: bool, editable: bool = False
    ) -> None:
        """Have these ROIs on planes, in the ROI Manager and over the window, instead of those that the layer has there.

        Parameters
        ----------
        layer : str
            What they have in common: those of other layers and of the person stay.
        rois : mapping of Place to bytes
            As :func:`~mutoscope.model.roi_convert.to_imagej_roi` writes them; an empty list clears a plane.
        window : str or None
            Over which they lie.
        whole : bool
            Whether the layer loses those on planes that are not named.
        editable : bool
            Whether a person may draw in it: these are all of its ROIs then, and `news` has what the person does.
        """
        planes = [PlaneRois(sizes=[len(each) for each in rois[place]], **place._asdict()) for place in rois]
        behind = [each for place in rois for each in rois[place]]
        request = PutRois(id=self._link.next_id(), layer=layer, whole=whole, planes=planes, window=window, editable=editable)
        self._done(request, [b"".join(behind)])

    def put_marks(self, window: str, layer: str, sizes: Sequence[int], vertices: NDArray[np.float32], *, points: bool) -> None:
        """Have these marks over a window, and not in the ROI Manager, instead of those that the layer has there.

        Parameters
        ----------
        window, layer : str
            Their names.
        sizes : sequence of int
            How many vertices each mark has.
        vertices : ndarray, shape (n, 2), float32
            (x, y) of all of them, as ImageJ counts.
        points : bool
            Whether each is a set of points; else a line.
        """
        sizes = [int(size) for size in sizes if size]
        request = PutMarks(id=self._link.next_id(), window=window, layer=layer, points=points, sizes=sizes)
        self._done(request, [np.ascontiguousarray(vertices, np.float32).reshape(-1).view(np.uint8)])

    def say(self, text: str) -> None:
        """Have a person read something in ImageJ's status bar."""
        self._done(Say(id=self._link.next_id(), text=text[:1000]))

    def draw_roi(self, layer: str, roi: bytes) -> None:
        """Draw a ROI in an editable layer, or drag the one of its id there, by what a person has for it; for tests."""
        self._done(DrawRoi(id=self._link.next_id(), layer=layer), [roi])

    def erase_roi(self, layer: str, roi_id: str) -> None:
        """Delete a ROI of an editable layer in the ROI Manager; for tests."""
        self._done(EraseRoi(id=self._link.next_id(), layer=layer, roi=roi_id))

    def held_rois(self, layer: str) -> dict[Place, list[bytes]]:
        """Return the ROIs of a layer as the ROI Manager has them now, by the plane that they were put on."""
        answer, behind = self._link.ask(ReadRois(id=self._link.next_id(), layer=layer), HeldRois, (), self._timeout_s)
        found: dict[Place, list[bytes]] = {}
        at = 0
        for plane in answer.planes:
            of_plane = found.setdefault(Place(plane.c, plane.z, plane.t), [])
            for size in plane.sizes:
                of_plane.append(bytes(behind[at : at + size]))
                at += size
        return found

    # -- what is there

    def describe(self, window: str) -> WindowState:
        """Return a window as ImageJ has it."""
        return self._link.ask(Describe(id=self._link.next_id(), window=window), WindowState, (), self._timeout_s)[0]

    def read_plane(self, window: str, place: Place, form: StoredForm) -> tuple[NDArray[Any], HeldPlane]:
        """Return the stored pixels of a plane, shape (y, x) or (y, x, 3), with its label and whether it is missing."""
        state = self.describe(window)
        request = Read(id=self._link.next_id(), window=window, **place._asdict())
        answer, behind = self._link.ask(request, HeldPlane, (), self._timeout_s)
        return np.frombuffer(behind, form.dtype).reshape(form.shape(state.height, state.width)), answer

    def lut(self, name: str) -> bytes:
        """Return 256 reds, greens and blues of a look-up table of ImageJ's: built in, or in its folder ``luts``.

        Raises
        ------
        ImageJError
            If it has none of this name (code ``"unknown"``).
        """
        return self._link.ask(ReadLut(id=self._link.next_id(), name=name), LutColours, (), self._timeout_s)[0].colours

    def picture(self, window: str) -> NDArray[np.uint8]:
        """Return what a person sees on a window's canvas, shape (y, x, 3), sRGB."""
        answer, behind = self._link.ask(Picture(id=self._link.next_id(), window=window), PlanePicture, (), self._timeout_s)
        return np.frombuffer(behind, np.uint8).reshape(answer.height, answer.width, 3)

    def state(self) -> StateOf:
        """Return how much there is: windows, paints, ROIs."""
        return self._link.ask(State(id=self._link.next_id()), StateOf, (), self._timeout_s)[0]

    # -- the end

    def quit(self) -> int | None:
        """End ImageJ in its own way, and wait until its process has ended.

        Returns
        -------
        int or None
            Its exit code, 0; None where it is no child of this process.

        Raises
        ------
        ImageJError
            If a person has started it (code ``"refused"``), or has changed an image there and not saved it (``"unsaved"``).
        CommandTimeoutError
            If it has not ended in time.
        """
        pidfd = None if self._process is not None or self._pid is None else _os.open_pidfd(self._pid)
        try:
            self._done(Quit(id=self._link.next_id()))
            self.close()
            if self._process is not None:
                return self._process.wait(self._timeout_s)
            if pidfd is not None and not _os.wait_readable([pidfd], self._timeout_s):
                raise self._still_there()
        except subprocess.TimeoutExpired:
            raise self._still_there() from None
        finally:
            if pidfd is not None:
                os.close(pidfd)
        return None

    def _still_there(self) -> CommandTimeoutError:
        return CommandTimeoutError(f"ImageJ has not ended within {self._timeout_s:g} s: is a dialog open there?")

    def close(self) -> None:
        """Hang up; ImageJ keeps its windows. Twice is fine."""
        self._link.close()
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _sizes(shape: WindowShape) -> dict[str, int]:
    return dict(shape._asdict())
