"""Everything else, through bioio and its plug-ins, where they are installed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model import PlaneIndex
from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.model.install import command_for
from mutoscope.storage._names import image_choice
from mutoscope.storage.converting._sources import Frames, Source, _number

__all__ = ["open_with_bioio"]


def open_with_bioio(path: Path, scene: str | None, refusal: DatasetError) -> Source:
    """Open a file with bioio, or raise why it cannot be read."""
    try:
        import bioio
    except ImportError:
        raise DatasetError(f"{refusal}; bioio reads more: {command_for('bioio', 'bioio')}, and its plug-in") from refusal
    return BioioSource(path, scene, bioio)


class BioioSource(Source):
    """One scene of what bioio reads."""

    def __init__(self, path: Path, scene: str | None, bioio: Any) -> None:
        super().__init__()
        self.path = path
        try:
            self._image: Any = bioio.BioImage(path)
        except Exception as error:  # plug-ins of others raise what they like
            raise DatasetError(
                f"{path}: bioio cannot read it: {str(error).splitlines()[0] if str(error) else error!r}"
            ) from error
        scenes = [str(name) for name in self._image.scenes]
        if scene is not None and scene not in scenes:
            raise ConfigError(f"{path}: has no image {scene!r}; it has {', '.join(scenes)}")
        if scene is None and len(scenes) > 1:
            raise ConfigError(
                f"{path}: holds several images, choose one with image=: {', '.join(scenes)} {image_choice(scenes[0])}"
            )
        self._image.set_scene(scene or scenes[0])
        self.kind = f"{type(self._image.reader).__module__.partition('.')[0]} image"
        dims = self._image.dims
        if "S" in dims.order and int(dims.S) > 1:
            raise ConfigError(f"{path}: holds colour images, which are not converted")
        sizes = {"t": int(dims.T), "c": int(dims.C), "z": int(dims.Z)}
        pixel = self._image.physical_pixel_sizes
        self.frames = [
            _BioioFrames(
                name="camera",
                count=sizes["t"] * sizes["c"] * sizes["z"],
                shape=(int(dims.Y), int(dims.X)),
                dtype=np.dtype(self._image.dtype).newbyteorder("=").name,
                pixel_size_um=_number(pixel.X),
                z_step_um=_number(pixel.Z),
                sizes=sizes,
                channels=tuple(str(name) for name in self._image.channel_names or ()),
                image=self._image,
                path=path,
            )
        ]
        self.lost.append("metadata of the file's own format, except sizes and names of channels")

    def close(self) -> None:
        close = getattr(self._image.reader, "close", None)
        if close is not None:
            with contextlib.suppress(OSError):
                close()


@dataclass(kw_only=True)
class _BioioFrames(Frames):
    image: Any
    path: Path

    def _place(self, number: int) -> tuple[int, int, int]:
        rest, c = divmod(number, self.sizes["c"])
        t, z = divmod(rest, self.sizes["z"])
        return t, c, z

    def read(self, number: int) -> NDArray[Any]:
        t, c, z = self._place(number)
        try:
            plane = np.asarray(self.image.get_image_dask_data("YX", T=t, C=c, Z=z).compute(scheduler="synchronous"))
        except Exception as error:  # plug-ins of others raise what they like
            raise DatasetError(f"{self.path}: the plane t {t}, c {c}, z {z} cannot be read: {error}") from error
        return plane.astype(self.dtype, copy=False)

    def index(self, number: int) -> PlaneIndex | None:
        t, c, z = self._place(number)
        return PlaneIndex(t=t, c=c, z=z) if self.is_grid else None
