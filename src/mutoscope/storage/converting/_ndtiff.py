"""NDTiff, as pycro-manager and Micro-Manager write it, through its own library ``ndstorage``."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model import PlaneIndex
from mutoscope.model.errors import BackendUnavailableError, ConfigError, DatasetError
from mutoscope.model.install import command_for
from mutoscope.storage.converting._sources import Frames, Source, _number

__all__ = ["NdTiff"]

_NAMES = {"time": "t", "channel": "c", "z": "z", "position": "position"}
_STITCHED = ("row", "column")
_DAMAGE = (OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError, EOFError)


class NdTiff(Source):
    """One NDTiff data set; the full resolution of one that is stitched."""

    kind = "NDTiff"

    def __init__(self, path: Path, image: str | None) -> None:
        super().__init__()
        if image is not None:
            raise ConfigError(f"{path}: an NDTiff data set has one image; leave image= out")
        try:
            from ndstorage import Dataset
        except ImportError as error:
            raise BackendUnavailableError(f"NDTiff needs its library: {command_for('ndtiff', 'ndstorage')}") from error
        self.path = path
        full = path / "Full resolution"
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints how far it is
                self._data: Any = Dataset(str(full if full.is_dir() else path))
            self._begin()
        except _DAMAGE as error:
            raise DatasetError(f"{path}: not a readable NDTiff data set: {error}") from error
        if full.is_dir():
            self.lost.append("smaller resolutions, and where tiles overlap")

    def _begin(self) -> None:
        listed = [dict(each) for each in self._data.get_image_coordinates_list()]
        if not listed:
            raise DatasetError(f"{self.path}: holds no frame")
        unknown = sorted({name for each in listed for name in each} - {*_NAMES, *_STITCHED})
        if unknown:
            raise ConfigError(f"{self.path}: runs over {', '.join(unknown)}, which no target holds")
        values = {name: sorted({each[name] for each in listed if name in each}, key=_order) for name in (*_NAMES, *_STITCHED)}
        ranks = {name: {value: rank for rank, value in enumerate(found)} for name, found in values.items()}
        columns = max(len(values["column"]), 1)
        planes = []
        for each in listed:
            place = {_NAMES[name]: ranks[name][each[name]] for name in _NAMES if name in each}
            if "row" in each or "column" in each:
                tile = ranks["row"].get(each.get("row"), 0) * columns + ranks["column"].get(each.get("column"), 0)
                place["position"] = place.get("position", 0) * max(len(values["row"]), 1) * columns + tile
            planes.append(PlaneIndex(**place))
        order = sorted(range(len(planes)), key=lambda k: (planes[k].position, planes[k].t, planes[k].z, planes[k].c))
        first = np.asarray(self._data.read_image(**listed[0]))
        if first.ndim != 2:
            raise ConfigError(f"{self.path}: holds colour images, which no target holds")
        said = self._data.read_metadata(**listed[0])
        named = [str(value) for value in values["channel"]]
        if named and all(isinstance(value, int) for value in values["channel"]):
            named = []
        summary = self._data.summary_metadata
        size = _number(said.get("PixelSizeUm")) or _number(summary.get("PixelSize_um"))
        self.frames = [
            _NdFrames(
                name="camera",
                count=len(listed),
                shape=(int(first.shape[0]), int(first.shape[1])),
                dtype=first.dtype.name,
                pixel_size_um=size,
                z_step_um=_number(summary.get("z-step_um")),
                sizes=_sizes(planes),
                channels=tuple(named),
                data=self._data,
                keys=[listed[k] for k in order],
                places=[planes[k] for k in order],
                path=self.path,
            )
        ]
        self.about["metadata"] = dict(summary)
        self.about["first_image_metadata"] = dict(said)
        self.lost.append("metadata of each image, except its exposure time (those of the first, and the summary, are kept)")

    def close(self) -> None:
        self._data.close()


def _order(value: object) -> tuple[bool, Any]:
    return (isinstance(value, str), value)


def _sizes(planes: list[PlaneIndex]) -> dict[str, int]:
    """Return the sizes of the grid that the planes fill, each place once; none if they do not."""
    sizes = {}
    for name in ("t", "c", "z", "position"):
        found = [getattr(plane, name) for plane in planes]
        if max(found) >= 0:
            if min(found) < 0:
                return {}
            sizes[name] = max(found) + 1
    return sizes if math.prod(sizes.values()) == len(planes) == len(set(planes)) else {}


@dataclass(kw_only=True)
class _NdFrames(Frames):
    data: Any
    keys: list[dict[str, Any]]
    places: list[PlaneIndex]
    path: Path

    def read(self, number: int) -> NDArray[Any]:
        try:
            return np.asarray(self.data.read_image(**self.keys[number]))
        except _DAMAGE as error:
            raise DatasetError(f"{self.path}: image {self.keys[number]} cannot be read: {error}") from error

    def metadata(self, number: int) -> dict[str, Any]:
        said: Mapping[str, Any] = self.data.read_metadata(**self.keys[number])
        exposure = _number(said.get("Exposure"))
        return {**super().metadata(number), **({} if exposure is None else {"exposure_ms": exposure})}

    def index(self, number: int) -> PlaneIndex | None:
        return self.places[number] if self.places[number].is_placed else None
