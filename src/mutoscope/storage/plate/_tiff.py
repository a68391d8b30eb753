"""The TIFF files of microscopes: one plane each, whoever wrote it and however it is compressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import DatasetError
from mutoscope.storage import _images

__all__ = ["TiffHeader", "read_header", "read_plane"]

MAX_DESCRIPTION = 16 << 20


class TiffHeader(msgspec.Struct, frozen=True):
    """What a file says of its plane before the pixels are read."""

    shape: tuple[int, ...]
    dtype: str
    description: bytes


def read_header(path: Path) -> TiffHeader:
    """Return shape, type and description of a TIFF's image; DatasetError if it is none or damaged."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            with _images._open_tiff(file) as tiff:
                series = _images._series(tiff, size, str(path))
                tag = series.keyframe.tags.get("ImageDescription")
                text = tag.value if tag is not None else ""
                data = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
                shape = tuple(int(length) for length in series.shape)
                return TiffHeader(shape, np.dtype(series.dtype).name, data[:MAX_DESCRIPTION])
        except _images._DAMAGE as error:
            raise _images._damaged(error, str(path), "TIFF") from None


def read_plane(path: Path) -> NDArray[Any]:
    """Return the plane of a TIFF; DatasetError if it is damaged, or holds something else than one plane."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        plane = _images.read_tiff(file, size, str(path))
    if plane.ndim != 2:
        raise DatasetError(f"{path}: holds an array {plane.shape}, not one plane (y, x)")
    return plane
