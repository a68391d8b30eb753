"""Compression of a page's strips, on several cores; what it holds is one frame."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import BackendUnavailableError
from mutoscope.model.install import install_command
from mutoscope.storage.ome_tiff._layout import Geometry

__all__ = ["Encoder", "decode", "load_codecs", "mark_of_strips"]

_MAX_THREADS = 8
_LEVELS = {"zlib": 1, "zstd": 1}


def load_codecs() -> Any:
    """Return imagecodecs, or raise BackendUnavailableError with the command that installs it."""
    try:
        import imagecodecs
    except ImportError as error:
        raise BackendUnavailableError(
            f"compressed OME-TIFF needs imagecodecs: {install_command('imagecodecs')}; or choose compression='none'"
        ) from error
    return imagecodecs


class Encoder:
    """Compresses frames; its owner closes it.

    Parameters
    ----------
    geometry : Geometry
        With a compression that is not ``"none"``.
    """

    def __init__(self, geometry: Geometry) -> None:
        codecs = load_codecs()
        self._encode: Callable[..., bytes] = {"zlib": codecs.deflate_encode, "zstd": codecs.zstd_encode}[geometry.compression]
        self._crc32: Callable[[bytes], int] = codecs.deflate_crc32  # what zlib's gives, several times as fast
        self._level = _LEVELS[geometry.compression]
        rows, height = geometry.rows_per_strip, geometry.shape[0]
        self._cuts = [slice(first, min(first + rows, height)) for first in range(0, height, rows)]
        threads = min(len(self._cuts), len(os.sched_getaffinity(0)), _MAX_THREADS)
        self._pool = ThreadPoolExecutor(threads, "mutoscope-encode") if threads > 1 else None

    def strips(self, frame: NDArray[Any]) -> Iterator[tuple[bytes, int]]:
        """Yield the compressed strips and the CRC-32 of each, in order; the later ones are compressed meanwhile."""

        def one(cut: slice) -> tuple[bytes, int]:
            data = self._encode(frame[cut], level=self._level)
            return data, self._crc32(data)

        return map(one, self._cuts) if self._pool is None else self._pool.map(one, self._cuts)

    def close(self) -> None:
        """End its threads; twice is fine."""
        if self._pool is not None:
            self._pool.shutdown()


def mark_of_strips(crcs: list[int]) -> int:
    """Return the CRC-32 of the strips' CRC-32s."""
    return zlib.crc32(struct.pack(f"<{len(crcs)}I", *crcs))


def decode(geometry: Geometry, data: memoryview, counts: tuple[int, ...]) -> tuple[NDArray[Any], int]:
    """Return the frame of compressed strips, and their mark; ValueError if they are damaged. Never more than one frame."""
    codecs = load_codecs()
    decoder = {"zlib": codecs.deflate_decode, "zstd": codecs.zstd_decode}[geometry.compression]
    frame = np.empty(geometry.shape, geometry.numpy_dtype)
    crcs, begin = [], 0
    for number, count in enumerate(counts):
        strip = data[begin : begin + count]
        begin += count
        crcs.append(codecs.deflate_crc32(strip))
        target = frame[number * geometry.rows_per_strip : (number + 1) * geometry.rows_per_strip]
        try:
            found = decoder(strip, out=target.reshape(-1).view(np.uint8))
        except RuntimeError as error:  # the root of imagecodecs' errors
            raise ValueError(f"a strip cannot be decompressed ({error})") from error
        if found.nbytes != target.nbytes:
            raise ValueError("a strip is shorter than its rows")
    return frame, mark_of_strips(crcs)
