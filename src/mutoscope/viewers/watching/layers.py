"""What a viewer shows of a running scope: its newest frames, marks from its tables, and ROIs, as layers of one window.

:class:`LiveScope` is filled in the thread of the connection and shown in that of the window system.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope.model.roi import Roi
from mutoscope.viewers.account import WatchedStream
from mutoscope.viewers.model import Changes, ImageLayer, RoiLayer
from mutoscope.viewers.page.pixels import SentFrame, histogram, restored
from mutoscope.viewers.roi_pack import PackedRois
from mutoscope.viewers.watching.marks import TableMarks
from mutoscope.viewers.watching.rois import Edit, RoiSheet

__all__ = ["LiveScope"]

_CONTRAST_S = 1.0
_AGES = 1000
_ROWS = 20_000
_SAME_CLOCK_NS = 2_000_000_000


class _Stream:
    """A camera: its frame that waits, and what the layer has."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.name: str = about["name"]
        self.learn(about)
        self.array: NDArray[Any] = np.zeros(self.shape, self.dtype)
        self.frame_id = 0
        self.monotonic_ns = 0
        self.waiting: tuple[SentFrame, NDArray[Any]] | None = None
        self.contrast: tuple[float, float] | None = None
        self.contrast_of: tuple[np.dtype[Any], float] | None = None
        self.closed = False
        self.moved = True
        self.dirty = True
        self.sheet = RoiSheet()
        self.rois_dirty = True
        self.shown = 0
        self.skipped = 0
        self.just_taken = False
        self.ages_ms: deque[float] = deque(maxlen=_AGES)

    def learn(self, about: dict[str, Any]) -> None:
        self.shape = (int(about["shape"][0]), int(about["shape"][1]))
        self.dtype: str = about["dtype"]
        self.pixel_size_um: float | None = about["pixel_size_um"]

    def take(self) -> bool:
        """Have the frame that waits in the layer's array; whether there was one."""
        if self.waiting is None:
            return False
        (frame, values), self.waiting = self.waiting, None
        if values.shape != self.array.shape or values.dtype != self.array.dtype:
            self.array, self.moved = np.array(values), True
        else:
            np.copyto(self.array, values)
        self.frame_id, self.monotonic_ns, self.just_taken = frame.frame_id, frame.monotonic_ns, True
        self.dirty = True
        return True

    def learn_contrast(self, values: NDArray[Any]) -> None:
        """Limits from the frames of the first second, which stay then."""
        now = time.monotonic()
        if self.contrast_of is None or self.contrast_of[0] != values.dtype:
            self.contrast, self.contrast_of = None, (values.dtype, now + _CONTRAST_S)
        if self.contrast is not None and now > self.contrast_of[1]:
            return
        found = histogram(values)
        if found is not None:
            low, high = found.auto
            known = self.contrast or (low, high)
            self.contrast = min(low, known[0]), max(high, known[1])


class _Marks:
    """A table: its rows, and what is drawn of them."""

    def __init__(self, table: TableMarks, stream: str) -> None:
        self.table = table
        self.stream = stream
        self.drawn: dict[Literal["points", "tracks"], PackedRois] = {}
        self.dirty = False


class LiveScope:
    """A scope that is watched, as a viewer shows it. All methods may be called from any thread.

    Parameters
    ----------
    id : str
        Of its window; its layers have it before theirs.
    name : str
        What a person reads.
    """

    def __init__(self, id: str, name: str) -> None:  # noqa: A002 - as layers have it
        self.id = id
        self.name = name
        self._suffix = ""
        self._editable = False
        self._same_clock = False
        self._lock = threading.Lock()
        self._streams: dict[str, _Stream] = {}
        self._ordered: list[_Stream] = []
        self._marks: dict[str, _Marks] = {}
        self._gone = False

    # -- from the connection

    def hear_hello(self, message: dict[str, Any], same_host: bool) -> list[str]:
        """Take a ``hello`` of the protocol; returns the tables that are new, by name."""
        with self._lock:
            self.name = message["scope"]
            self._editable = True
            ahead_ns = message["monotonic_ms"] * 1e6 - time.monotonic_ns()
            self._same_clock = same_host and abs(ahead_ns) < _SAME_CLOCK_NS
            for about in message["streams"]:
                known = self._streams.get(about["name"])
                if known is None:
                    self._streams[about["name"]] = _Stream(about)
                else:
                    known.learn(about)
            self._ordered = [self._streams[about["name"]] for about in message["streams"]]
            new = []
            for about in message["tables"]:
                overlay, name = about["overlay"], about["name"]
                if overlay and self._ordered and name not in self._marks and about["capacity"]:
                    stream = overlay["stream"] or self._ordered[0].name
                    self._marks[name] = _Marks(TableMarks(name, overlay, _ROWS), stream)
                    new.append(name)
            self._all_anew()
        return new

    def say(self, suffix: str) -> None:
        """Have something behind the scope's name in the title of its window."""
        with self._lock:
            if suffix != self._suffix:
                self._suffix = suffix
                self._all_anew()

    def _all_anew(self) -> None:
        for stream in self._ordered:
            stream.dirty = stream.rois_dirty = True

    @property
    def streams(self) -> list[str]:
        """Cameras, in order, but those whose layer a person has closed."""
        with self._lock:
            return [stream.name for stream in self._ordered if not stream.closed]

    def tables(self) -> dict[str, list[str]]:
        """Return the tables that are drawn, with the columns that this needs."""
        with self._lock:
            return {name: marks.table.columns for name, marks in self._marks.items()}

    def hear_frame(self, frame: SentFrame) -> None:
        """Have a frame shown next; one that waits is not, then."""
        with self._lock:
            if frame.stream >= len(self._ordered):
                return
            stream = self._ordered[frame.stream]
        values = restored(frame, stream.dtype)
        stream.learn_contrast(values)
        with self._lock:
            stream.skipped += frame.skipped + (stream.waiting is not None)
            stream.waiting = frame, values

    def hear_table(self, message: dict[str, Any]) -> None:
        """Take rows."""
        with self._lock:
            marks = self._marks.get(message["table"])
            if marks is not None:
                marks.table.hear(message)

    def draw_marks(self) -> bool:
        """Draw the marks of the frames that are shown now; whether any have changed."""
        drawn = False
        with self._lock:
            for marks in self._marks.values():
                stream = self._streams[marks.stream]
                if stream.frame_id and marks.table.is_due(stream.frame_id):
                    points, tracks = marks.table.draw(stream.frame_id)
                    marks.drawn = {"tracks": tracks, "points": points} if marks.table.has_tracks else {"points": points}
                    marks.dirty = drawn = True
        return drawn

    def hear_rois(self, message: dict[str, Any]) -> None:
        """Take a ``rois`` of the protocol: all of them."""
        found: dict[str, list[tuple[Roi, int]]] = {}
        for each in message["rois"]:
            roi = msgspec.convert(each["roi"], Roi, strict=False)
            found.setdefault(each["stream"], []).append((roi, each["revision"]))
        with self._lock:
            for stream in self._ordered:
                stream.sheet.hear_all(found.get(stream.name, []))

    def hear_roi(self, message: dict[str, Any]) -> None:
        """Take a ``roi`` of the protocol: one that was changed or removed."""
        roi = None if "removed" in message else msgspec.convert(message["roi"], Roi, strict=False)
        with self._lock:
            stream = self._streams.get(message["stream"])
            if stream is None:
                return
            if roi is None:
                stream.sheet.hear_removed(message["removed"])
            else:
                stream.sheet.hear(roi, message["revision"])

    # -- what a person does

    def edit(self, layer_id: str, roi_id: str, roi: Roi | None) -> bool:
        """A person has changed or (None) removed a ROI of a layer; returns whether something is to be sent."""
        with self._lock:
            stream = self._stream_of(layer_id)
            return stream is not None and self._rois_id(stream) == layer_id and stream.sheet.edit(roi_id, roi)

    def close_layer(self, layer_id: str) -> bool:
        """A person has closed a layer of images; returns whether none is left."""
        with self._lock:
            stream = self._stream_of(layer_id)
            if stream is not None and layer_id == self._image_id(stream):
                stream.closed = True
            return all(each.closed for each in self._ordered)

    def take_edits(self) -> list[tuple[str, Edit]]:
        """Return what is to be sent, each with its stream."""
        with self._lock:
            return [(stream.name, edit) for stream in self._ordered for edit in stream.sheet.take_unsent()]

    def sheet(self, stream: str, do: Literal["confirm", "set_back", "send_again"], edit: Edit, revision: int = 0) -> None:
        """Say what became of an edit."""
        with self._lock:
            sheet = self._streams[stream].sheet
            if do == "confirm":
                sheet.confirm(edit, revision)
            elif do == "set_back":
                sheet.set_back(edit)
            else:
                sheet.send_again(edit)

    def forget_edits(self) -> None:
        """The scope hears of nothing any more: what it had is shown, and cannot be edited."""
        with self._lock:
            self._editable = False
            for stream in self._ordered:
                stream.sheet.forget_edits()
                stream.rois_dirty = True

    # -- for the viewer

    def take_changes(self) -> tuple[Changes, list[str]]:
        """Return what has changed since the last time, and the streams of which a frame was taken. For one thread."""
        changes, taken = Changes(), list[str]()
        with self._lock:
            if self._gone:
                return changes, taken
            for stream in self._ordered:
                if stream.closed:
                    continue
                if stream.take():
                    taken.append(stream.name)
                if stream.dirty:
                    changes.images.append(self._shown_image(stream))
                    stream.dirty = stream.moved = False
            for marks in self._marks.values():
                if marks.dirty and not self._streams[marks.stream].closed:
                    changes.rois += [self._shown_marks(marks, kind, drawn) for kind, drawn in marks.drawn.items()]
                    marks.dirty = False
            for stream in self._ordered:
                if stream.closed:
                    continue
                packed = stream.sheet.take()
                if packed is not None or stream.rois_dirty:
                    changes.rois.append(self._shown_rois(stream, stream.sheet.packed() if packed is None else packed))
                    stream.rois_dirty = False
        return changes, taken

    def shown(self) -> None:
        """The viewer's layers have what was taken last."""
        now = time.monotonic_ns()
        with self._lock:
            for stream in self._ordered:
                if stream.just_taken:
                    stream.just_taken = False
                    stream.shown += 1
                    if self._same_clock and stream.monotonic_ns:
                        stream.ages_ms.append((now - stream.monotonic_ns) / 1e6)

    def leave(self) -> list[str]:
        """Show nothing more; returns the ids of all layers that it has, or has had."""
        with self._lock:
            self._gone = True
            found = [name for stream in self._ordered for name in (self._image_id(stream), self._rois_id(stream))]
            return found + [self._marks_id(marks, kind) for marks in self._marks.values() for kind in marks.drawn]

    def report(self) -> list[WatchedStream]:
        """Return what was shown of each camera."""
        with self._lock:
            return [_report(stream) for stream in self._ordered]

    def _image_id(self, stream: _Stream) -> str:
        return f"{self.id}/{stream.name}"

    def _rois_id(self, stream: _Stream) -> str:
        return f"{self.id}/{stream.name}/rois"

    def _marks_id(self, marks: _Marks, kind: str) -> str:
        return f"{self.id}//{marks.table.name}/{kind}"

    def _stream_of(self, layer_id: str) -> _Stream | None:
        return next((each for each in self._ordered if layer_id in (self._image_id(each), self._rois_id(each))), None)

    def _common(self, stream: _Stream, id_: str, name: str, order: int) -> dict[str, Any]:
        step, unit = (stream.pixel_size_um, "µm") if stream.pixel_size_um else (1.0, "")
        return {
            "id": id_,
            "name": name,
            "window_id": self.id,
            "window": self.name + self._suffix,
            "order": order,
            "components": {"source": stream.name},
            "axes": (),
            "axis_components": (),
            "axis_names": ("y", "x"),
            "values": (),
            "scale": (step, step),
            "units": (unit, unit),
            "window_axes": (),
            "window_shape": (),
            "live": True,
        }

    def _shown_image(self, stream: _Stream) -> ImageLayer:
        return ImageLayer(
            **self._common(stream, self._image_id(stream), stream.name, self._ordered.index(stream)),
            array=stream.array,
            rgb=False,
            missing=np.array(stream.frame_id == 0),
            contrast={} if stream.contrast is None else {None: stream.contrast},
            luts={},
            gamma=None,
            changed=frozenset([()]),
            moved=stream.moved,
            frame_id=stream.frame_id,
            monotonic_ns=stream.monotonic_ns,
        )

    def _shown_marks(self, marks: _Marks, kind: Literal["points", "tracks"], drawn: PackedRois) -> RoiLayer:
        stream, number = self._streams[marks.stream], list(self._marks).index(marks.table.name)
        order = len(self._ordered) + 2 * number + (kind == "points")
        name = marks.table.name if kind == "points" else f"{marks.table.name} {kind}"
        return RoiLayer(
            **self._common(stream, self._marks_id(marks, kind), name, order),
            rois={(): drawn},
            marks=kind,
        )

    def _shown_rois(self, stream: _Stream, packed: PackedRois) -> RoiLayer:
        order = len(self._ordered) + 2 * len(self._marks) + self._ordered.index(stream)
        return RoiLayer(
            **self._common(stream, self._rois_id(stream), f"{stream.name} ROIs", order),
            rois={(): packed},
            editable=self._editable,
        )


def _report(stream: _Stream) -> WatchedStream:
    ages = sorted(stream.ages_ms)
    return WatchedStream(
        name=stream.name,
        frame_id=stream.frame_id,
        shown=stream.shown,
        skipped=stream.skipped,
        age_ms=ages[len(ages) // 2] if ages else None,
        age_p99_ms=ages[min(len(ages) - 1, len(ages) * 99 // 100)] if ages else None,
    )
