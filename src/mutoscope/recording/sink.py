"""A sink for the acquisitions of pymmcore-plus: ``core.mda.run(sequence, output=Sink("run.ome.zarr"))``."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mutoscope import storage
from mutoscope.model import PlaneIndex
from mutoscope.model.errors import ConfigError, MutoscopeError, ScopeStateError

__all__ = ["FrameTarget", "Sink"]

_log = logging.getLogger(__name__)


class FrameTarget(Protocol):
    """What takes frames: a source of a running scope, or a ring's writer."""

    def push(
        self,
        array: NDArray[Any],
        *,
        tick: int = 0,
        exposure_ms: float = math.nan,
        index: PlaneIndex | None = None,
        monotonic_ns: int | None = None,
        utc_ns: int | None = None,
    ) -> int:
        """Copy a frame and publish it; returns its ``frame_id``."""


class Sink:
    """Takes the frames of one useq sequence as pymmcore-plus runs it, and stores or publishes them.

    Each frame keeps its useq index as ``(t, c, z, position)``; the tiles of a grid are counted on as positions. The sequence is
    saved with the data. pymmcore-plus calls its output handlers in a thread of its own, from a queue without a bound: a sink
    that is slower than the camera costs memory there. Frames are numbered in the order they come.

    A frame that cannot be stored ends the storing. pymmcore-plus goes on, and would not hear an exception, so the error is kept
    in :attr:`error`, what follows is counted in :attr:`dropped`, and :meth:`close` (or leaving ``with``) raises it. `on_error`
    can end the acquisition: ``Sink(path, on_error=lambda error: core.mda.cancel())``.

    Parameters
    ----------
    output : path or FrameTarget
        A data set to make, or where to push the frames: a source of a running scope.
    overwrite, resume : bool
        As in :func:`mutoscope.storage.open_writer`; for a path only, as are the following.
    durability : {"process", "power"}
        What a stored frame survives.
    pixel_size_um : float, optional
        None: as pymmcore-plus says.
    on_error : callable, optional
        Called once with the first error, in the thread of pymmcore-plus.

    Attributes
    ----------
    stored : int
        Frames stored or published.
    dropped : int
        Frames that came after an error, with the one that caused it.
    error : MutoscopeError or OSError or ValueError or None
        The first error.

    Notes
    -----
    ``tick`` is the camera's own where its metadata has one. Times are the runner's (``runner_time_ms``), laid on this host's
    clocks by the arrival of the first frame: their differences are exact, their offset holds that frame's time in the queue.
    """

    def __init__(
        self,
        output: str | os.PathLike[str] | FrameTarget,
        *,
        overwrite: bool = False,
        resume: bool = False,
        durability: storage.Durability = "process",
        pixel_size_um: float | None = None,
        on_error: Callable[[BaseException], object] | None = None,
    ) -> None:
        self.path: str | None = None
        self._target: FrameTarget | None = None
        if isinstance(output, str | os.PathLike):
            self.path = os.fspath(output)
        elif callable(getattr(output, "push", None)):
            self._target = output
        else:
            raise ConfigError(f"a sink's output is a path or has push(array, ...), which {output!r} has not")
        self._options: dict[str, Any] = {"overwrite": overwrite, "resume": resume, "durability": durability}
        self._pixel_size_um = pixel_size_um
        self._on_error = on_error
        self._lock = threading.RLock()
        self._writer: storage.FrameStreamWriter | None = None
        self._sequence: Any = None
        self._summary: Mapping[str, Any] = {}
        self._camera: str | None = None
        self._start_ns: tuple[int, int] | None = None
        self._finished = False
        self._raised = False
        self.stored = 0
        self.dropped = 0
        self.error: MutoscopeError | OSError | ValueError | None = None

    # What pymmcore-plus calls

    def sequenceStarted(self, sequence: Any, meta: Mapping[str, Any] | None = None) -> None:
        """Remember the sequence; the data set is made with the first frame."""
        with self._lock:
            if self._sequence is not None or self._finished:
                self._fail(ScopeStateError("a sink takes one sequence; make another for the next"))
                return
            self._sequence, self._summary = sequence, meta or {}

    def frameReady(self, image: NDArray[Any], event: Any, meta: Mapping[str, Any] | None = None) -> None:
        """Store or publish a frame."""
        with self._lock:
            if self._finished and self.error is None:
                self._fail(ScopeStateError("a frame came after the sink was closed"))
            if self.error is not None:
                self.dropped += 1
                return
            try:
                self._take(np.asarray(image), event, meta or {})
            except (MutoscopeError, OSError, ValueError) as error:
                self.dropped += 1
                self._fail(error)

    def sequenceFinished(self, sequence: Any) -> None:
        """Close the data set."""
        with self._lock:
            self._end()

    # What its user calls

    def close(self) -> None:
        """Close the data set, and raise the error that ended the storing (once). Closing twice is fine."""
        with self._lock:
            self._end()
            if self.error is not None and not self._raised:
                self._raised = True
                raise self.error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        if kind is None:
            self.close()
        else:
            with self._lock:
                self._end()

    def _take(self, image: NDArray[Any], event: Any, meta: Mapping[str, Any]) -> None:
        if image.ndim != 2:
            raise ConfigError(f"frames are grey images (y, x), not of shape {image.shape}")
        camera = meta.get("camera_device")
        if self.stored == 0:
            self._camera = camera
        elif camera != self._camera:
            raise ConfigError(f"a sink takes the frames of one camera: {camera!r} came after {self._camera!r}")
        grid = int(getattr(self._sequence, "sizes", {}).get("g", 1) or 1)
        index = PlaneIndex.from_axes({str(getattr(k, "value", k)): int(v) for k, v in event.index.items()}, grid_size=grid)
        monotonic_ns, utc_ns = self._times(meta)
        more: dict[str, Any] = {
            "tick": _whole(meta.get("camera_metadata", {}).get("tick")),
            "exposure_ms": _positive(meta.get("exposure_ms", event.exposure)) or math.nan,
            "index": index,
            "monotonic_ns": monotonic_ns,
            "utc_ns": utc_ns,
        }
        if self._target is not None:
            self._target.push(image, **more)
        else:
            if self._writer is None:
                self._writer = self._open(image, meta)
            self._writer.append(image, **more)
        self.stored += 1

    def _open(self, image: NDArray[Any], meta: Mapping[str, Any]) -> storage.FrameStreamWriter:
        attributes: dict[str, Any] = {"camera_device": self._camera}
        dump = getattr(self._sequence, "model_dump", None)
        if dump is not None:
            attributes["useq_sequence"] = dump(mode="json", exclude_unset=True)
        size = self._pixel_size_um or _positive(meta.get("pixel_size_um"))
        return storage.open_writer(
            str(self.path),
            shape=(int(image.shape[0]), int(image.shape[1])),
            dtype=image.dtype,
            pixel_size_um=size,
            attributes=attributes,
            **self._options,
        )

    def _times(self, meta: Mapping[str, Any]) -> tuple[int, int]:
        now = time.monotonic_ns(), time.time_ns()
        runner_ms = meta.get("runner_time_ms")
        if runner_ms is None:
            return now
        passed = round(float(runner_ms) * 1e6)
        if self._start_ns is None:
            self._start_ns = now[0] - passed, now[1] - passed
        return self._start_ns[0] + passed, self._start_ns[1] + passed

    def _fail(self, error: MutoscopeError | OSError | ValueError) -> None:
        if self.error is not None:
            return
        self.error = error
        _log.error("%s: storing ended after %d frames: %s", self.path or "sink", self.stored, error)
        if self._on_error is not None:
            self._on_error(error)

    def _end(self) -> None:
        if self._finished:
            return
        self._finished = True
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except (MutoscopeError, OSError) as error:
                self._fail(error)
        if self.dropped:
            _log.error("%s: %d frames stored, %d dropped", self.path or "sink", self.stored, self.dropped)


def _positive(value: Any) -> float | None:
    return float(value) if value is not None and float(value) > 0 else None


def _whole(value: Any) -> int:
    """Return the number that a camera's metadata has as text, 0 where it is none."""
    text = str(value)
    return int(text) if text.isdecimal() else 0
