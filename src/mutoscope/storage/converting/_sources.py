"""What can be converted and exported: our own streams, and what other programs wrote, as frames with their metadata."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model import PlaneIndex
from mutoscope.model.errors import ConfigError, DatasetError, DatasetNotFoundError
from mutoscope.storage import _datasets, _layout, _nodes
from mutoscope.storage._names import image_choice
from mutoscope.storage.ome_tiff import is_ome_tiff
from mutoscope.storage.ome_tiff._dataset import Names
from mutoscope.storage.plate import is_plate
from mutoscope.storage.reader import FrameStreamReader
from mutoscope.storage.recording import find_recording
from mutoscope.storage.stream import open_reader

__all__ = ["Frames", "Source", "open_source"]

AXES = ("t", "c", "z", "position")
_OF_THE_LAYOUT = {
    *("layout", "images", "camera", "segment", "previous", "reason", "state", "frames", "level", "earlier_runs", "format"),
    *("dataset", "compression", "shape", "dtype", "pixel_size_um", "rate_hz", "first_frame_id", "source"),
}
_MAX_XML = 4 << 20


@dataclass(kw_only=True)
class Frames(ABC):
    """The frames of one camera, or of one image: read one at a time.

    Parameters
    ----------
    name : str
        Of the image that is made of it.
    count : int
    shape : tuple of int
        (y, x) of the last frame; all are alike, except in a recording whose camera changed meanwhile.
    dtype : str
    sizes : dict of str to int
        Of t, c, z and position, where the frames fill all places of such a grid; empty if they do not.
    channels : tuple of str
        Names, if there are any.
    has_ids : bool
        Whether frames have ids of their own.
    """

    name: str
    count: int
    shape: tuple[int, int]
    dtype: str
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    rate_hz: float | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    has_ids: bool = False
    uniform: bool = True

    @abstractmethod
    def read(self, number: int) -> NDArray[Any]:
        """Return a frame (y, x)."""

    def metadata(self, number: int) -> dict[str, Any]:
        """Return what a writer's `append` takes beside the pixels."""
        index = self.index(number)
        return {} if index is None else {"index": index}

    @abstractmethod
    def index(self, number: int) -> PlaneIndex | None:
        """Return the place of a frame, None if it has none."""

    def gaps(self) -> list[tuple[int, int]]:
        """Return (first missing id, how many)."""
        return []

    @property
    def is_grid(self) -> bool:
        """Whether frames run over more than time."""
        return any(self.sizes.get(axis, 1) > 1 for axis in ("c", "z", "position"))


class Source(ABC):
    """An open data set. A context manager.

    Attributes
    ----------
    path : Path
    kind : str
        Such as ``"OME-TIFF"``.
    frames : list of Frames
        One a camera.
    attributes : dict
        What the target saves as it is: ledger, settings, ….
    about : dict
        What the target saves under ``source``.
    lost : list of str
        What is in the data set and is not read.
    members : list of (str or None, str or None)
        Images of an OME-Zarr beside which labels and tables may lie, and the images of a copy that they belong to.
    copied : list of str
        Labels and tables that were copied.
    """

    path: Path
    kind: str
    frames: list[Frames]

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}
        self.about: dict[str, Any] = {}
        self.lost: list[str] = []
        self.members: list[tuple[str | None, str | None]] = []
        self.copied: list[str] = []

    @abstractmethod
    def close(self) -> None:
        """Close its files; twice is fine."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def one(self) -> Frames:
        """Return the frames, if there is one camera; ConfigError if there are several."""
        if len(self.frames) != 1:
            names = ", ".join(frames.name for frames in self.frames)
            raise ConfigError(
                f"{self.path}: has several cameras, choose one with image=: {names} {image_choice(self.frames[0].name)}"
            )
        return self.frames[0]


def open_source(path: str | os.PathLike[str], image: str | None = None) -> Source:
    """Open what is at `path`.

    Parameters
    ----------
    path : path
    image : str, optional
        A camera of a recording, a field of a plate (``"B/03/0"``), an image of a collection, a scene.

    Raises
    ------
    DatasetNotFoundError, DatasetError, ConfigError, BackendUnavailableError
        If nothing is there; it cannot be read; there is no such image, or none was chosen of several; a library is missing.
    """
    place = Path(path)
    if not os.path.lexists(place) and not Names(place).sidecar.is_file():
        raise DatasetNotFoundError(f"there is no data set {place}")
    if Names(place).sidecar.is_file() and is_ome_tiff(place):
        return _Recorded(place, image)
    if place.is_dir():
        if _is_recording(place):
            return _Recorded(place, image)
        if any((place / name).is_file() for name in ("NDTiff.index", "Full resolution/NDTiff.index")):
            from mutoscope.storage.converting._ndtiff import NdTiff

            return NdTiff(place, image)
    try:
        return _Foreign(place, image)
    except _datasets.UnknownKindError as error:
        from mutoscope.storage.converting import _bioio

        return _bioio.open_with_bioio(place, image, error)


def _is_recording(place: Path) -> bool:
    try:
        own = _nodes.read_group(place).get(_layout.NAMESPACE)
    except (DatasetError, DatasetNotFoundError):
        return False
    return isinstance(own, dict) and "layout" in own and "images" in own


# ---------------------------------------------------------------------- our own streams


class _Recorded(Source):
    def __init__(self, path: Path, image: str | None) -> None:
        super().__init__()
        self.path = path
        self._readers: list[FrameStreamReader] = []
        tiff = not path.is_dir()
        self.kind = "OME-TIFF stream of Mutoscope" if tiff else "OME-Zarr recording of Mutoscope"
        try:
            names: Sequence[str | None]
            names = [image] if tiff or image is not None else list(find_recording(path).cameras)
            for name in names:
                reader = open_reader(path, name)
                self._readers.append(reader)
            self.frames = [_of_reader(reader) for reader in self._readers]
            own = self._readers[0].attributes if tiff else _nodes.read_group(path)[_layout.NAMESPACE]
        except BaseException:
            self.close()
            raise
        self.attributes = {key: value for key, value in own.items() if key not in _OF_THE_LAYOUT}
        self.about = {key: own[key] for key in ("earlier_runs", "source") if own.get(key)}
        if not tiff:
            self._tell_what_stays(path)

    def _tell_what_stays(self, path: Path) -> None:
        if any(reader.levels > 1 for reader in self._readers):
            self.lost.append("smaller levels (mutoscope pyramid makes them again)")
        for reader, frames in zip(self._readers, self.frames, strict=True):
            if len(reader.images) == 1:
                image = None if reader.images[0] == "." else reader.images[0]
                self.members.append((image, frames.name if len(self.frames) > 1 else None))
                continue
            for name in reader.images:
                folder = path if name == "." else path / name
                self.lost += [f"{what} of the image {name}" for what in ("labels", "tables") if (folder / what).is_dir()]
        if len(self.frames) > 1:
            self.members.append((None, None))  # tables of the recording

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


def _of_reader(reader: FrameStreamReader) -> Frames:
    own = reader.attributes
    planes = reader.planes()
    columns = {
        "frame_id": reader.frame_ids,
        "tick": reader.ticks,
        "monotonic_ns": reader.monotonic_ns,
        "utc_ns": reader.utc_ns,
        "exposure_ms": reader.exposure_ms,
    }
    if not len(reader):
        raise DatasetError(f"{reader.path}: holds no frame")
    return _OwnFrames(
        name=str(own.get("camera") or "camera"),
        count=len(reader),
        shape=reader.shape,
        dtype=reader.dtype,
        pixel_size_um=_number(own.get("pixel_size_um")),
        rate_hz=_number(own.get("rate_hz")),
        sizes=_grid_of(planes, len(reader)),
        has_ids=True,
        uniform=len(reader.images) == 1 or not path_is_zarr(reader),
        reader=reader,
        columns=columns,
        planes=planes,
    )


def path_is_zarr(reader: FrameStreamReader) -> bool:
    """Whether a reader's images may be of several shapes."""
    return reader.path.is_dir()


@dataclass(kw_only=True)
class _OwnFrames(Frames):
    reader: FrameStreamReader
    columns: dict[str, NDArray[Any]]
    planes: dict[str, NDArray[np.int32]] | None

    def read(self, number: int) -> NDArray[Any]:
        return self.reader[number]

    def metadata(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = {name: values[number].item() for name, values in self.columns.items()}
        return {**found, "index": self.index(number)}

    def index(self, number: int) -> PlaneIndex | None:
        if self.planes is None:
            return None
        found = PlaneIndex(**{name: int(self.planes[name][number]) for name in AXES})
        return found if found.is_placed else None

    def gaps(self) -> list[tuple[int, int]]:
        return self.reader.gaps()


def _grid_of(planes: Mapping[str, NDArray[np.int32]] | None, count: int) -> dict[str, int]:
    """Return the sizes of the grid that planes fill whole, each place once; none if they do not."""
    if planes is None:
        return {"t": count}
    used = {name: planes[name] for name in AXES if np.any(planes[name] >= 0)}
    if any(np.any(values < 0) for values in used.values()):
        return {}
    sizes = {name: int(values.max()) + 1 for name, values in used.items()}
    if math.prod(sizes.values()) != count:
        return {}
    places = np.ravel_multi_index(tuple(used.values()), tuple(sizes.values()))
    return sizes if np.unique(places).size == count else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value < math.inf else None


# ---------------------------------------------------------------------- of other programs


class _Foreign(Source):
    """TIFF, OME-TIFF, folders of images, OME-Zarr."""

    def __init__(self, path: Path, image: str | None) -> None:
        super().__init__()
        self._data = _datasets.open_dataset(path, image)
        self.path = path
        facts = self._data.facts
        self.kind = facts.kind
        self.lost += self._data.lost()
        try:
            self.frames = [_foreign_frames(path, image, self._data)]
        except BaseException:
            self._data.close()
            raise
        if path.is_dir() and _nodes.has_group(path):
            self.members.append((image, None))
        if is_plate(path) and image is not None:
            self._count_missing(path, image)
        xml = self._data.ome_xml()
        if xml and len(xml) <= _MAX_XML:
            self.about["ome_xml"] = xml

    def _count_missing(self, path: Path, image: str) -> None:
        from mutoscope.storage.plate._plate import Plate

        plate = Plate(path)
        found = next((key for key in plate.images() if key.path == image.strip("/")), None)
        stored = plate.image(found) if found is not None else None
        missing = 0 if stored is None else int(np.sum(stored.states() == 0))
        if missing:
            self.lost.append(f"that {missing} planes are missing: they are zeros in the copy")

    def close(self) -> None:
        self._data.close()


def _foreign_frames(path: Path, image: str | None, data: _datasets.Dataset) -> Frames:
    facts = data.facts
    axes = {"position" if name == "p" else name: length for name, length in facts.axes}
    sizes = {name: axes[name] for name in AXES if name in axes}
    if len(sizes) != len(facts.axes) or math.prod(sizes.values()) != facts.count:
        sizes = {}
    colours = facts.samples if facts.samples > 1 else 1
    channels = data.channels()
    if colours > 1:
        if sizes.get("c", 1) > 1:
            raise ConfigError(f"{path}: has channels of colour images, which no target holds")
        sizes = {**sizes, "c": colours} if sizes or facts.count == 1 else {}
        channels = {2: ("grey", "alpha"), 3: ("red", "green", "blue"), 4: ("red", "green", "blue", "alpha")}[colours]
    return _ForeignFrames(
        name=image.replace("/", "_").replace(".", "_") if image else "camera",
        count=facts.count * colours,
        shape=facts.shape,
        dtype=facts.dtype,
        pixel_size_um=facts.pixel_size_um,
        z_step_um=data.z_step_um(),
        sizes=sizes,
        channels=channels if len(channels) == sizes.get("c", 1) else (),
        data=data,
        colours=colours,
        placed=any(sizes.get(name, 1) > 1 for name in ("c", "z", "position")),
    )


@dataclass(kw_only=True)
class _ForeignFrames(Frames):
    data: _datasets.Dataset
    colours: int
    placed: bool
    _last: tuple[int, NDArray[Any]] | None = None

    def read(self, number: int) -> NDArray[Any]:
        plane, sample = divmod(number, self.colours)
        if self.colours == 1:
            return self.data.read(plane)
        if self._last is None or self._last[0] != plane:
            self._last = (plane, self.data.read(plane))
        return np.ascontiguousarray(self._last[1][..., sample])

    def index(self, number: int) -> PlaneIndex | None:
        if not self.placed:
            return None
        plane, sample = divmod(number, self.colours)
        found = self.data.facts.index(plane)
        return found if self.colours == 1 else PlaneIndex(t=found.t, c=sample, z=found.z, position=found.position)


def about(source: Source) -> dict[str, Any]:
    """Return what a target says of its source."""
    found: dict[str, Any] = {"name": source.path.name, "kind": source.kind, **source.about}
    channels = {frames.name: list(frames.channels) for frames in source.frames if frames.channels}
    steps = {frames.name: frames.z_step_um for frames in source.frames if frames.z_step_um}
    return {**found, **({"channels": channels} if channels else {}), **({"z_step_um": steps} if steps else {})}
