"""A folder whose arrays are OME-TIFF files: images and stacks with the names of their axes, a file each.

Streams that grow are written by `mutoscope.storage.open_writer` instead. Whoever opens the store owns nothing but the right to
use it, as of :mod:`mutoscope.storage.disk`, whose rules it keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError
from mutoscope.model.filenames import ParserLike
from mutoscope.storage import _formats, _images, _names
from mutoscope.storage.disk import DiskBackend
from mutoscope.storage.interface import Name
from mutoscope.storage.ome_tiff._dataset import SUFFIXES
from mutoscope.storage.ome_tiff._layout import DTYPES

__all__ = ["OmeTiffBackend"]

_AXES = {2: "YX", 3: "ZYX", 4: "ZCYX", 5: "TZCYX"}
_BIG = 2**32 - 2**25
_COMPRESSIONS = ("none", "zlib", "zstd")


class OmeTiffBackend(DiskBackend):
    """A folder in which arrays under ``….ome.tif`` or ``….ome.tiff`` are OME-TIFF files; all else is as in the store ``disk``.

    Safe for threads and processes.

    Parameters
    ----------
    address : path, optional
        The folder; made with the first save. ``./mutoscope-data/<UTC stamp>``, if not given.
    filenames, overwrite
        As `DataSink`.
    compression : str
        Of OME-TIFF: ``"none"``, ``"zlib"`` or ``"zstd"``.
    """

    def __init__(
        self,
        address: Name | None = None,
        *,
        filenames: ParserLike | None = None,
        overwrite: bool = False,
        compression: str = "none",
    ) -> None:
        if compression not in _COMPRESSIONS:
            raise ConfigError(f"OME-TIFF is compressed by {', '.join(map(repr, _COMPRESSIONS))}, not {compression!r}")
        super().__init__(address, filenames=filenames, overwrite=overwrite)
        self._compression = None if compression == "none" else compression

    def save(self, data: Any, name: Name, *, overwrite: bool | None = None) -> None:
        self._check_open()
        key = _names.check_new_name(name)
        if not _is_ome(key):
            super().save(data, name, overwrite=overwrite)
            return
        array = _checked(data, key)

        def fill(file: IO[bytes]) -> None:
            _images.need_tifffile().imwrite(
                file,
                array,
                ome=True,
                bigtiff=array.nbytes > _BIG,
                photometric="minisblack",
                compression=self._compression,
                metadata={"axes": _AXES[array.ndim]},
            )

        self._write(key, fill, overwrite)

    def _check_pair(self, key: str, wanted: str) -> None:
        if _is_ome(key) != _is_ome(wanted):
            raise ConfigError(f"{self}: {key!r} cannot become {wanted!r}: only one of them is the name of an OME-TIFF")
        super()._check_pair(key, wanted)

    def _check_batch(self, items: Sequence[Any], names: Sequence[str], overwrite: bool) -> None:
        for item, name in zip(items, names, strict=True):
            if _is_ome(name):
                _checked(item, name)
        super()._check_batch(items, names, overwrite)


def _is_ome(key: str) -> bool:
    return key.lower().endswith(SUFFIXES)


def _checked(data: Any, key: str) -> NDArray[Any]:
    kind, array = _formats.classify(data, key)
    if kind != "array":
        raise ConfigError(f"{key!r}: an OME-TIFF holds an array, nothing else; the store 'disk' has forms for the rest")
    if array.dtype.name not in DTYPES:
        raise ConfigError(f"{key!r}: an OME-TIFF holds {', '.join(DTYPES)}, not {array.dtype.name}")
    if array.ndim not in _AXES or not array.size:
        raise ConfigError(f"{key!r}: an OME-TIFF holds an image or a stack of 2 to 5 axes, not an array {array.shape}")
    if 1 in array.shape[:-2]:
        raise ConfigError(f"{key!r}: an axis of length 1 would not come back; leave it out of the array {array.shape}")
    return np.ascontiguousarray(array)
