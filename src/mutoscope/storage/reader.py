"""The reader of a stream: the written frames of one camera, live or closed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.arguments import shown
from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.storage import _formats, _layout, _nodes
from mutoscope.storage._image_reader import ImageReader
from mutoscope.storage._level_reader import Part

__all__ = ["FrameStreamReader"]


class FrameStreamReader:
    """Reads the written frames of a camera, over all images that it has in a recording. Made by `open_reader`.

    It may be open while the stream is written, by any process: `refresh` takes up what came since. Frames of an image that
    a change of shape began have their own shape and dtype. Not thread-safe. It never follows links out of the data set.
    It is a context manager.

    Attributes
    ----------
    path : Path
        The recording's root.
    """

    def __init__(self, root: Path, images: Callable[[], Sequence[str]]) -> None:
        self.path = root
        self._list = images
        self._images: dict[str, ImageReader] = {}
        self._starts: list[int] = []
        self._ids: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        try:
            self._take_up()
        except BaseException:
            self.close()
            raise

    def _take_up(self) -> None:
        for name in self._list():
            if name not in self._images:
                self._images[name] = ImageReader(self.path, self.path if name == "." else self.path / name)
        self._starts = np.cumsum([0, *(len(image) for image in self._images.values())]).tolist()
        ids = np.concatenate([image.ids for image in self._images.values()])
        if np.any(ids[1:] <= ids[:-1]):
            raise DatasetError(f"{self.path}: its images hold the same frame ids twice, so they are damaged")
        self._ids = ids

    def refresh(self) -> int:
        """Take up the frames that were written since the last look; return how many.

        Raises
        ------
        DatasetError
            If files are missing or damaged.
        """
        before = len(self)
        for image in self._images.values():
            image.refresh()
        self._take_up()
        return len(self) - before

    @property
    def images(self) -> tuple[str, ...]:
        """The image groups that it reads, oldest first; ``"."`` is the root."""
        return tuple(self._images)

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the frames of the newest image."""
        return self._newest.shape

    @property
    def dtype(self) -> str:
        """The data type of the frames of the newest image."""
        return self._newest.dtype

    @property
    def compression(self) -> str:
        """How the frames of the newest image are compressed: ``"none"``, …"""
        return self._newest.compression

    @property
    def levels(self) -> int:
        """Sizes in which the newest image is stored: the full one, and those of its pyramid."""
        return self._newest.levels

    @property
    def _newest(self) -> ImageReader:
        return list(self._images.values())[-1]

    def __len__(self) -> int:
        return int(self._ids.size)

    def __repr__(self) -> str:
        height, width = self.shape
        return f"{type(self).__name__}({str(self.path)!r}, frames={len(self)}, shape=({height}, {width}), dtype={self.dtype!r})"

    # ------------------------------------------------------------------ one value a frame

    @property
    def frame_ids(self) -> NDArray[np.uint64]:
        """Ids of the frames, ascending; a copy."""
        return self._ids.copy()

    @property
    def monotonic_ns(self) -> NDArray[np.int64]:
        """Times on the recording machine's monotonic clock; 0 is unknown."""
        return self._column("monotonic_ns")

    @property
    def utc_ns(self) -> NDArray[np.int64]:
        """Times since 1970 in UTC; 0 is unknown."""
        return self._column("utc_ns")

    @property
    def ticks(self) -> NDArray[np.uint64]:
        """The camera's own counter; 0 is unknown."""
        return self._column("tick")

    @property
    def exposure_ms(self) -> NDArray[np.float64]:
        """Exposure times; nan is unknown."""
        return self._column("exposure_ms")

    def _column(self, name: str) -> NDArray[Any]:
        return np.concatenate([image.column(name) for image in self._images.values()])

    def planes(self) -> dict[str, NDArray[np.int32]] | None:
        """Return t, c, z and position of the frames (-1: unknown), None if none had any."""
        if not any(image.has_planes for image in self._images.values()):
            return None
        return {
            name: np.concatenate([_plane_column(image, name) for image in self._images.values()])
            for name in _layout.PLANE_ARRAYS
        }

    def gaps(self) -> list[tuple[int, int]]:
        """Return (first missing id, how many) for each gap between the first and the last stored id."""
        steps = np.diff(self._ids)
        return [(int(self._ids[k]) + 1, int(steps[k]) - 1) for k in np.flatnonzero(steps > 1)]

    # ------------------------------------------------------------------ pixels

    def __getitem__(self, number: int | slice | tuple[int | slice, slice, slice]) -> NDArray[Any]:
        """Return a frame as a new array (y, x), or the frames of a slice as a new array (t, y, x); or a part of each.

        Parameters
        ----------
        number : int or slice, or a tuple of that and two slices
            Counts written frames, negative from the end. What a slice names is read into memory as a whole. In a tuple the
            second and third are rows and columns, without steps: ``reader[10:20, 0:128, 64:192]``; not compressed, an
            OME-Zarr's other rows are not read.

        Raises
        ------
        IndexError
            If there is no such frame; a slice takes those that there are.
        TypeError
            If it is neither. `frame` takes an id.
        ConfigError
            If a slice goes backwards, or over frames of different shapes or dtypes; if rows or columns do not lie inside.
        """
        part: Part = None
        if isinstance(number, tuple) and len(number) == 3:
            rows, columns = _formats.check_region(self.shape, number[1:], str(self.path))
            number, part = number[0], (rows, columns)
        if isinstance(number, slice):
            return self._stack(number, part)
        if not hasattr(number, "__index__"):
            raise TypeError(f"frames are taken by number or slice, not by {shown(number)}; frame(frame_id) takes an id")
        return self._read(operator.index(number), part)

    def levels_of(self, number: int) -> int:
        """Return in how many sizes a frame is stored."""
        return self._images[self._locate(number)[0]].levels

    def shape_of(self, number: int, level: int = 0) -> tuple[int, int]:
        """Return (y, x) of a frame in one of its sizes; each halves the one before, rounded up."""
        y, x = self._images[self._locate(number)[0]].shape
        return -(-y >> level), -(-x >> level)

    def read(self, number: int, *, level: int = 0, rows: slice | None = None, columns: slice | None = None) -> NDArray[Any]:
        """Return a frame in one of its sizes, or rows and columns of that, as a new array.

        Parameters
        ----------
        number : int
            Counts written frames, negative from the end.
        level : int
            0 for the full size, 1 for the half, …; fewer than `levels_of` says.
        rows, columns : slice, optional
            With start and stop, in pixels of that size.

        Raises
        ------
        IndexError
            If there is no such frame.
        ConfigError
            If it is not stored in that size, or rows or columns do not lie inside.
        """
        height, width = self.shape_of(number, level)
        region = (rows or slice(0, height), columns or slice(0, width))
        part = _formats.check_region((height, width), region, str(self.path))
        return self._read(number, (part[0], part[1]), level)

    def _read(self, number: int, part: Part = None, level: int = 0) -> NDArray[Any]:
        image, place = self._locate(number)
        return self._images[image].read(place, part, level)

    def _stack(self, wanted: slice, part: Part) -> NDArray[Any]:
        start, stop, step = wanted.indices(len(self))
        if step < 0:
            raise ConfigError(
                f"a slice of frames goes forwards: its step is 1 or more, not {step}; turn the stack itself round"
            )
        numbers = range(start, stop, step)
        if not numbers:
            size = self.shape if part is None else tuple(each.stop - each.start for each in part)
            return np.empty((0, *size), dtype=self.dtype)
        first = self._read(numbers[0], part)
        stack = np.empty((len(numbers), *first.shape), dtype=first.dtype)
        stack[0] = first
        for place, number in enumerate(numbers[1:], 1):
            frame = self._read(number, part)
            if (frame.shape, frame.dtype) != (first.shape, first.dtype):
                raise ConfigError(
                    f"frames {numbers[0]} and {number} are not of one form, so they are no stack: "
                    f"{first.shape} {first.dtype} and {frame.shape} {frame.dtype}"
                )
            stack[place] = frame
        return stack

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for number in range(len(self)):
            yield self[number]

    def frame(self, frame_id: int) -> NDArray[Any]:
        """Return the frame of an id; KeyError if it is not stored."""
        return self[self.number_of(frame_id)]

    def number_of(self, frame_id: int) -> int:
        """Return the place of an id among the written frames; KeyError if it is not stored."""
        if not hasattr(frame_id, "__index__"):
            raise TypeError(f"the id of a frame is a whole number, not {shown(frame_id)}")
        if 0 < frame_id < 2**64:
            number = int(np.searchsorted(self._ids, np.uint64(frame_id)))
            if number < len(self) and int(self._ids[number]) == frame_id:
                return number
        raise KeyError(frame_id)

    def position_of(self, number: int) -> tuple[str, int]:
        """Return the image group of a frame and its place along t there."""
        image, place = self._locate(number)
        return image, int(self._images[image].positions[place])

    def _locate(self, number: int) -> tuple[str, int]:
        size = len(self)
        if not -size <= number < size:
            raise IndexError(f"frame {number} of {size}")
        number %= size
        part = int(np.searchsorted(self._starts, number, side="right")) - 1
        return list(self._images)[part], number - self._starts[part]

    # ------------------------------------------------------------------ the rest

    @property
    def ledger(self) -> dict[str, Any] | None:
        """The account of frames saved with the recording, or else with its newest image; None if there is none."""
        root = _nodes.read_group(self.path).get(_layout.NAMESPACE)
        for own in (root, self.attributes):
            if isinstance(own, dict) and isinstance(own.get("ledger"), dict):
                return dict(own["ledger"])
        return None

    @property
    def attributes(self) -> dict[str, Any]:
        """What Mutoscope saved with the newest image: camera, state, pixel size, …"""
        return self._newest.attributes

    def close(self) -> None:
        """Close the files; twice is fine."""
        for image in self._images.values():
            image.close()

    def __enter__(self) -> FrameStreamReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _plane_column(image: ImageReader, name: str) -> NDArray[np.int32]:
    return image.column(name) if image.has_planes else np.full(len(image), -1, dtype=np.int32)
