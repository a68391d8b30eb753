"""The ways of storing a stream of frames that the benches compare: Mutoscope's own, and those of other packages.

Each is a row of `WAYS`: the writer in the configuration that its documentation recommends for streams of unknown length, when
it counts a frame as acknowledged, and the stock reader by which it is judged. A package is imported when its way is opened.
"""

from __future__ import annotations

import importlib.util
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.install import install_command

__all__ = ["FRAMES_PER_SHARD", "RETURN", "WAYS", "Found", "Stream", "Way", "frame_of", "read"]

FRAMES_PER_SHARD = 64
"""Of the peers that shard."""

RETURN = "append returns"
"""When most peers count a frame as stored; they have nothing else to ask."""

Image = NDArray[np.uint16]


class Stream(ABC):
    """A stream of frames that is being written."""

    appended = 0
    """Frames handed over."""

    @property
    def acknowledged(self) -> int:
        """Frames, from the first on, that the writer says are stored."""
        return self.appended

    def append(self, frame: Image) -> None:
        """Hand over the next frame."""
        self.put(frame)
        self.appended += 1

    @abstractmethod
    def put(self, frame: Image) -> None:
        """Hand the frame to the writer as its documentation says."""

    @abstractmethod
    def close(self) -> None:
        """End the stream in order."""


@dataclass(frozen=True)
class Way:
    """One writer in one configuration."""

    name: str
    codec: str
    """``"none"`` or the compression's name."""
    file: str
    """What the data set is called."""
    opener: str
    """``"module:function"``, called as ``function(path, shape, codec, **options)``; returns a `Stream`."""
    reader: str
    """The stock reader: a key of `READERS`."""
    modules: tuple[str, ...] = ()
    """What it needs to be installed."""
    packages: tuple[str, ...] = ()
    """The same by the names of the package index."""
    acknowledged: str = RETURN
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """Name and codec."""
        return self.name if self.codec == "none" else f"{self.name}, {self.codec}"

    @property
    def ours(self) -> bool:
        """Whether it is Mutoscope's."""
        return not self.packages

    @property
    def missing(self) -> str | None:
        """Return the command that installs what is missing here, None if all is there."""
        if all(importlib.util.find_spec(module) is not None for module in self.modules):
            return None
        return install_command(*self.packages)

    def open(self, path: Path, shape: tuple[int, int]) -> Stream:
        """Make the data set and its writer."""
        module, _, function = self.opener.partition(":")
        made: Stream = getattr(importlib.import_module(module), function)(path, shape, self.codec, **dict(self.options))
        return made


class OwnStream(Stream):
    """A writer of Mutoscope; ids are the frames' numbers from 1 on."""

    def __init__(self, path: Path, shape: tuple[int, int], codec: str, ome_zarr_version: str | None = None) -> None:
        from mutoscope import storage

        self._writer = storage.open_writer(
            path, shape=shape, dtype="uint16", compression=codec, ome_zarr_version=ome_zarr_version
        )

    @property
    def acknowledged(self) -> int:
        """The newest id that is stored."""
        return self._writer.acknowledged_id

    def put(self, frame: Image) -> None:
        """Append."""
        self._writer.append(frame)

    def close(self) -> None:
        """Close."""
        self._writer.close()


_ZARR_CODECS = ("none", "blosc-lz4", "blosc-zstd", "zstd")


def _own(name: str, file: str, reader: str, codecs: tuple[str, ...], version: str | None = None) -> list[Way]:
    said = RETURN if reader == "tifffile" else "the receipt says so"
    opener = "mutoscope.bench.streams:OwnStream"
    options = () if version is None else (("ome_zarr_version", version),)
    return [Way(name, codec, file, opener, reader, acknowledged=said, options=options) for codec in codecs]


_ON_COMMIT = "its write future is done"
_PEERS: tuple[tuple[str, tuple[str, ...], str, str, str, tuple[str, ...], str], ...] = (
    ("tifffile, contiguous", ("none",), "run.tif", "TifffileContiguous", "tifffile", ("tifffile",), RETURN),
    ("tifffile, pages", ("none", "zlib", "zstd"), "run.tif", "TifffilePages", "tifffile", ("tifffile", "imagecodecs"), RETURN),
    ("tifffile, append=True", ("none",), "run.tif", "TifffileAppend", "tifffile", ("tifffile",), RETURN),
    ("tensorstore, zarr3 sharded", _ZARR_CODECS, "run.zarr", "TensorstoreSharded", "zarr", ("tensorstore",), _ON_COMMIT),
    ("tensorstore, zarr2", _ZARR_CODECS, "run.zarr", "TensorstoreZarr2", "zarr", ("tensorstore",), _ON_COMMIT),
    ("zarr-python", _ZARR_CODECS, "run.zarr", "ZarrPython", "zarr", ("zarr",), RETURN),
    ("zarr-python, sharded", _ZARR_CODECS, "run.zarr", "ZarrPythonSharded", "zarr", ("zarr",), RETURN),
    ("acquire-zarr", ("none", "blosc-lz4", "blosc-zstd"), "run.zarr", "AcquireZarr", "zarr", ("acquire-zarr",), RETURN),
)
"""Name, codecs, file, class in `peer_writers`, reader, packages, when a frame is acknowledged."""

_OME_WRITERS = (
    ("tensorstore", "tensorstore", ("none", "blosc-lz4", "blosc-zstd")),
    ("zarr-python", "zarr", ("none", "blosc-lz4", "blosc-zstd")),
    ("acquire-zarr", "acquire-zarr", ("none", "blosc-lz4", "blosc-zstd")),
    ("tifffile", "tifffile", ("none",)),
)
"""Its backends: name, package, codecs."""


def _peers() -> list[Way]:
    writers = "mutoscope.bench.peer_writers:"
    ways = [
        Way(name, codec, file, writers + opener, reader, tuple(map(_module, packages)), packages, acknowledged)
        for name, codecs, file, opener, reader, packages, acknowledged in _PEERS
        for codec in codecs
    ]
    for backend, package, codecs in _OME_WRITERS:
        tiff = backend == "tifffile"
        modules = ("ome_writers", _module(package))
        for codec in codecs:
            ways.append(
                Way(
                    f"ome-writers, {backend}",
                    codec,
                    "run.ome.tiff" if tiff else "run.ome.zarr",
                    writers + "OmeWriters",
                    "tifffile" if tiff else "level",
                    modules,
                    (f"ome-writers[{backend}]", package),
                    options=(("backend", backend),),
                )
            )
    return ways


def _module(package: str) -> str:
    return package.replace("-", "_")


WAYS: tuple[Way, ...] = (
    *_own("OME-Zarr 0.5", "run.ome.zarr", "recording", _ZARR_CODECS),
    *_own("OME-Zarr 0.4", "run.ome.zarr", "recording", _ZARR_CODECS, "0.4"),
    *_own("OME-TIFF", "run.ome.tiff", "tifffile", ("none", "zlib", "zstd")),
    *_peers(),
)
"""Every writer in every configuration that is compared."""


def frame_of(number: int, shape: tuple[int, int]) -> Image:
    """Return frame `number`, from 0: photons on a background, no two alike and none of zeros."""
    key = (shape, number % len(_SEEDS))
    if key not in _frames:
        _frames[key] = np.random.default_rng(_SEEDS[key[1]]).poisson(100.0, shape).astype(np.uint16)
    return _frames[key] + np.uint16(1 + number)


_MAX_TRACES = 5
_SEEDS = range(4)
_frames: dict[tuple[tuple[int, int], int], Image] = {}


@dataclass
class Found:
    """What a stock reader finds in a data set."""

    declared: int = 0
    """Frames that the data set says it has."""
    right: frozenset[int] = frozenset()
    """Numbers of the frames that are what was appended."""
    told: frozenset[int] = frozenset()
    """Numbers of declared frames that the data set itself marks as not written."""
    problem: str = ""
    """Why it could not be opened, in one line, if it could not."""
    trace: str = ""
    """The reader's traceback then; of a data set that was opened, those of the frames that could not be read."""

    @property
    def untold(self) -> int:
        """Frames that are declared, are not what was appended, and are not marked."""
        return sum(number not in self.right and number not in self.told for number in range(self.declared))


def read(way: Way, path: Path, shape: tuple[int, int], count: int) -> Found:
    """Read a data set with its stock reader, as it lies there; at most `count` frames are compared.

    A frame that cannot be read is one that is not there; so is every frame of a data set that cannot be opened.
    """
    try:
        declared, get, told = READERS[way.reader](path)
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a reader raises: its user has nothing
        return Found(problem=f"{type(error).__name__}: {error}".split("\n")[0][:200], trace=traceback.format_exc())
    right = set()
    traces: list[str] = []
    for number in range(min(declared, count)):
        try:
            found = get(number)
        except Exception:  # noqa: BLE001 - as above
            if len(traces) < _MAX_TRACES:
                traces.append(f"frame {number}: {traceback.format_exc()}")
            continue
        if found.shape == shape and np.array_equal(found, frame_of(number, shape)):
            right.add(number)
    return Found(declared, frozenset(right), told, trace="\n".join(traces))


Opened = tuple[int, Callable[[int], NDArray[Any]], frozenset[int]]


def _read_recording(path: Path) -> Opened:
    import zarr

    group: Any = zarr.open_group(path, mode="r")
    level, ids = group["0"], group["frames/frame_id"][:]
    told = frozenset(np.flatnonzero(ids[: level.shape[0]] == 0).tolist())
    return level.shape[0], lambda number: np.asarray(level[number]), told


def _read_zarr(path: Path) -> Opened:
    import zarr

    array: Any = zarr.open_array(path, mode="r")
    return array.shape[0], lambda number: np.asarray(array[number]), frozenset()


def _read_level(path: Path) -> Opened:
    import zarr

    level: Any = zarr.open_group(path, mode="r")["0"]
    return level.shape[0], lambda number: np.asarray(level[number]), frozenset()


def _read_tiff(path: Path) -> Opened:
    """The series or the pages, whichever are more.

    The pages are those of a file that is opened anew: where a series was asked for, tifffile gives a page that no series has,
    such as one that is linked and not yet counted in the OME-XML, no keyframe, and fails to read it.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        pages = len(file.pages)
        series = file.series[0].asarray() if file.series else np.empty((0, 0, 0))
        series = series[np.newaxis] if series.ndim == 2 else series
        if len(series) >= pages:
            return len(series), lambda number: np.asarray(series[number]), frozenset()
    with tifffile.TiffFile(path) as file:
        frames = [page.asarray() for page in file.pages]
    return len(frames), lambda number: np.asarray(frames[number]), frozenset()


READERS: dict[str, Callable[[Path], Opened]] = {
    "recording": _read_recording,
    "zarr": _read_zarr,
    "level": _read_level,
    "tifffile": _read_tiff,
}
"""zarr-python for Zarr, tifffile for TIFF."""
