"""For Fiji and ImageJ: one hyperstack TIFF."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError
from mutoscope.storage import _aside
from mutoscope.storage.converting._sources import Frames, open_source
from mutoscope.storage.exporting._report import ExportReport, Progress, check_dtype, need_tifffile, places, rate_of, writing

__all__ = ["export_fiji"]

_CLASSIC_BYTES = 2**32 - 2**25
"""Most bytes of a TIFF whose offsets have 32 bits, with room for its pages. More is one page that ImageJ reads on from."""


def export_fiji(
    dataset: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    image: str | None = None,
    position: int | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Write an ImageJ hyperstack (t, z, c, y, x): µm, frame interval, and the frame's id, place and time as label of its slice.

    Parameters
    ----------
    dataset : path
        Anything that `mutoscope.storage.convert` reads.
    target : path
        ``….tif``; must not be there.
    image : str, optional
        Which camera, field, image or scene, if there are several.
    position : int, optional
        Which stage position, if there are several.
    progress : callable, optional
        Called with planes done, planes in all, and the image's name.

    Raises
    ------
    ConfigError
        If ImageJ has no such pixels (it has uint8, uint16 and float32), or the target is there already.
    DatasetNotFoundError, DatasetError, BackendUnavailableError, DiskFullError
        As `mutoscope.storage.convert`.
    """
    place = Path(os.path.abspath(target))
    if place.suffix.lower() not in (".tif", ".tiff") or place.name.lower().endswith((".ome.tif", ".ome.tiff")):
        raise ConfigError(f"{target}: end the name of an ImageJ hyperstack in .tif")
    _aside.check_free(place)
    tifffile = need_tifffile()
    with open_source(dataset, image) as source:
        frames = source.one()
        check_dtype(source.path, frames, "ImageJ")
        (t, c, z), order, note = places(frames, position, source.path)
        order = [order[(i * c + k) * z + j] for i in range(t) for j in range(z) for k in range(c)]  # ImageJ: c fastest
        dtype = np.dtype(frames.dtype).newbyteorder(">")
        nbytes = frames.shape[0] * frames.shape[1] * dtype.itemsize * len(order)
        metadata: dict[str, Any] = {"axes": "TZCYX", "Labels": [_label(frames, number) for number in order]}
        if frames.pixel_size_um is not None:
            metadata["unit"] = "um"
            if frames.z_step_um is not None:
                metadata["spacing"] = frames.z_step_um
        rate = rate_of(frames)
        if rate is not None and t > 1:
            metadata["finterval"] = c * z / rate
        per_um = 1.0 if frames.pixel_size_um is None else 1.0 / frames.pixel_size_um

        def planes() -> Iterator[NDArray[Any]]:
            for done, number in enumerate(order, 1):
                plane = frames.read(number)
                if plane.shape != frames.shape or plane.dtype.name != frames.dtype:
                    raise ConfigError(f"{source.path}: frame {number} is {plane.shape} {plane.dtype.name}, unlike the last")
                yield plane.astype(dtype)
                kill_point("storage.export.plane")
                if progress is not None:
                    progress(done, len(order), frames.name)

        def write(path: Path) -> None:
            with writing(path):
                tifffile.imwrite(
                    path,
                    planes(),
                    shape=(t, z, c, *frames.shape),
                    dtype=dtype,
                    imagej=True,
                    photometric="minisblack",
                    resolution=(per_um, per_um),
                    metadata=metadata,
                    truncate=nbytes > _CLASSIC_BYTES,
                )

        _aside.make_file(place, write)
        return ExportReport(str(dataset), str(target), "Fiji", len(order), 1, (note,) if note else ())


def _label(frames: Frames, number: int) -> str:
    """Return what ImageJ shows above a slice."""
    said = frames.metadata(number)
    parts = [f"frame {said['frame_id']}"] if "frame_id" in said else [f"plane {number + 1}"]
    index = frames.index(number)
    if index is not None:
        parts += [f"{axis}{getattr(index, axis)}" for axis in ("t", "c", "z") if getattr(index, axis) >= 0]
        if 0 <= index.c < len(frames.channels):
            parts.append(frames.channels[index.c])
    if said.get("utc_ns"):
        parts.append(f"{np.datetime64(said['utc_ns'], 'ns')}Z")
    return " ".join(parts)
