"""A camera that shows a data set again."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import count
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mutoscope.cameras.driver import CopyingCamera, GetBuffer
from mutoscope.cameras.settings import Setting
from mutoscope.model.errors import BufferUnavailableError, CameraError, ConfigError
from mutoscope.storage._datasets import COLOURS, Dataset, Facts, open_dataset, to_grey

__all__ = ["ReplayCamera"]

_READ_AHEAD_BYTES = 64 << 20
_LOOK_UP_S = 0.05
_REFUSED_WAIT_S = 0.002


class ReplayCamera(CopyingCamera):
    """Replays a data set: multi-page TIFF or OME-TIFF, a folder of TIFF or PNG files in natural order, or OME-Zarr.

    Frames are read ahead in the camera's process by one thread (`read_ahead` frames, 64 MiB at most). They keep their dtype and
    are bit-exact. No frame is left out because reading is slow; the sequence then runs late, which :meth:`health` counts as
    ``late``. With a rate, a frame for which there is no buffer is a missed exposure, as with any camera; without one it waits.

    Parameters
    ----------
    path : path
        Of the data set; looked at when `shape` is asked for or the camera is opened.
    rate_hz : float, optional
        Frames per second; None: as fast as they are taken.
    loop : bool
        Begin again after the last frame; otherwise the sequence ends there.
    colour : {"red", "green", "blue", "luminance"}, optional
        How a colour image becomes grey. A colour data set without it is a ConfigError.
    image : str, optional
        Which image of an OME-Zarr that holds several, such as ``"B/03/0"`` of a plate.
    pixel_size_um : float, optional
        None: as the data set says.
    read_ahead : int
        Frames.

    Raises
    ------
    DatasetNotFoundError, DatasetError, ConfigError, BackendUnavailableError
        From `shape`, `dtype`, `pixel_size_um`, `facts` and :meth:`open`: nothing is there, it cannot be read, colour was not
        chosen, or a library is missing.
    """

    ends: ClassVar[bool] = True
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="path", kind="path", default="", doc="Of the data set."),
        Setting(
            name="rate_hz", kind="float", optional=True, unit="Hz", minimum=0.001, maximum=100_000.0, live=True,
            doc="Frames per second; None: as fast as they are taken.",
        ),
        Setting(name="loop", kind="bool", default=False, doc="Begin again after the last frame."),
        Setting(name="colour", kind="str", optional=True, choices=COLOURS, doc="How a colour image becomes grey."),
        Setting(name="image", kind="str", optional=True, doc="Which image of an OME-Zarr that holds several."),
        Setting(
            name="pixel_size_um", kind="float", optional=True, unit="µm", minimum=1e-6, maximum=1e6,
            doc="Edge of a pixel; None: as the data set says.",
        ),
        Setting(name="read_ahead", kind="int", default=8, unit="frames", minimum=1, maximum=1024, doc="Frames read ahead."),
    )  # fmt: skip

    def __init__(
        self,
        path: str | os.PathLike[str],
        rate_hz: float | None = None,
        loop: bool = False,
        colour: str | None = None,
        *,
        image: str | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(path, str | os.PathLike) and os.fspath(path):
            path = os.path.abspath(os.fspath(path))  # its process may have another working folder
        super().__init__(path=path, rate_hz=rate_hz, loop=loop, colour=colour, image=image, **settings)
        self._facts: Facts | None = None
        self._dataset: Dataset | None = None
        if not self.get("path"):
            raise ConfigError("path must name a data set, not be empty")

    @property
    def facts(self) -> Facts:
        """What the data set says of itself: kind, count, shape, dtype, colour samples, axes, pixel size."""
        if self._facts is None:
            dataset = open_dataset(self.get("path"), self.get("image"))
            try:
                self._check_colour(dataset.facts)
                dataset.check()
            finally:
                dataset.close()
            self._facts = dataset.facts
        return self._facts

    @property
    def shape(self) -> tuple[int, int]:
        """``(y, x)`` in pixels, from the data set."""
        return self.facts.shape

    @property
    def dtype(self) -> str:
        """NumPy name of the pixels' type, from the data set."""
        return self.facts.dtype

    @property
    def rate_hz(self) -> float:
        """As set; 0 where frames come as fast as they are taken."""
        return float(self.get("rate_hz") or 0.0)

    @property
    def pixel_size_um(self) -> float | None:
        """As set, or as the data set says."""
        size: float | None = self.get("pixel_size_um")
        return self.facts.pixel_size_um if size is None else size

    def describe(self) -> dict[str, Any]:
        """Return what is saved with the data; ``replayed`` says from what and how colour became grey."""
        facts = self.facts
        conversion = None
        if facts.samples > 1:
            conversion = f"{self.get('colour')} of {('grey and alpha', 'RGB', 'RGBA')[facts.samples - 2]}"
        replayed = {"kind": facts.kind, "frames": facts.count, "conversion": conversion}
        return {**super().describe(), "replayed": replayed}

    def set(self, name: str, value: Any) -> Any:
        """Change a setting; see :meth:`Camera.set`."""
        result = super().set(name, value)
        if not self.is_open:
            self._facts = None
        return result

    def open_device(self) -> None:
        """Open the data set."""
        dataset = open_dataset(self.get("path"), self.get("image"))
        try:
            self._check_colour(dataset.facts)
        except ConfigError:
            dataset.close()
            raise
        self._dataset, self._facts = dataset, dataset.facts
        self.counters["late"] = 0

    def close_device(self) -> None:
        """Close the data set."""
        if self._dataset is not None:
            self._dataset.close()
            self._dataset = None

    def frames(self) -> Iterator[tuple[NDArray[Any], Mapping[str, Any]]]:
        """Yield the frames in order, paced by the rate."""
        if self._dataset is None:
            raise CameraError("the replay camera is not open")
        facts = self._dataset.facts
        due_ns = time.monotonic_ns()
        for tick, (number, array) in zip(count(self.first_tick), self._read_ahead(self._dataset), strict=False):
            rate_hz = self.get("rate_hz")
            if rate_hz is not None:
                due_ns += round(1e9 / rate_hz)
                now_ns = time.monotonic_ns()
                if now_ns > due_ns + 1e9 / rate_hz:
                    self.count("late")
                    due_ns = now_ns
                self.wait_until(due_ns)
            yield array, {"tick": tick, "index": facts.index(number)}

    @property
    def first_tick(self) -> int:
        """The place of the first frame in the data set, from 1; further on where an earlier process delivered some."""
        return self.already_delivered + 1

    def take_buffer(self, array: NDArray[Any], get_buffer: GetBuffer) -> NDArray[Any] | None:
        """Return a buffer; without a rate, wait for one."""
        while True:
            try:
                return get_buffer(array.shape, array.dtype)
            except BufferUnavailableError:
                if self.get("rate_hz") is not None:
                    return None
                self.idle(_REFUSED_WAIT_S)

    def _read_ahead(self, dataset: Dataset) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (number, grey frame) in order; one thread reads, a bounded number of frames ahead."""
        facts = dataset.facts
        frame_bytes = facts.shape[0] * facts.shape[1] * facts.samples * np.dtype(facts.dtype).itemsize
        ahead = max(1, min(int(self.get("read_ahead")), _READ_AHEAD_BYTES // frame_bytes))
        begin = self.first_tick - 1
        numbers = (number % facts.count for number in (count(begin) if self.get("loop") else range(begin, facts.count)))
        pending: deque[tuple[int, Future[NDArray[Any]]]] = deque()
        reader = ThreadPoolExecutor(1, "mutoscope-replay")
        try:
            while True:
                while len(pending) < ahead and (number := next(numbers, None)) is not None:
                    pending.append((number, reader.submit(self._load, dataset, number)))
                if not pending:
                    return
                number, future = pending.popleft()
                while not future.done():
                    wait([future], timeout=_LOOK_UP_S)
                    self.idle()
                yield number, future.result()
        finally:
            reader.shutdown(wait=True, cancel_futures=True)

    def _load(self, dataset: Dataset, number: int) -> NDArray[Any]:
        array = dataset.read(number)
        return to_grey(array, self.get("colour")) if dataset.facts.samples > 1 else array

    def _check_colour(self, facts: Facts) -> None:
        colour, path = self.get("colour"), self.get("path")
        options = COLOURS if facts.samples > 2 else ("luminance",)
        if facts.samples == 1 and colour is not None:
            raise ConfigError(f"{path}: is grey already: leave colour ({colour}) out")
        if facts.samples > 1 and colour not in options:
            said = "" if colour is None else f", not {colour}"
            raise ConfigError(
                f"{path}: is a colour image ({facts.samples} samples): say how it becomes grey, {' or '.join(options)}{said} "
                f"(colour={options[0]!r} in Python, --colour {options[0]} on the command line)"
            )
