"""Compression of inner chunks: what OME-Zarr streams are written and read with. numcodecs, which zarr-python stands on too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.model.install import install_command
from mutoscope.storage import _layout

__all__ = ["HEAD_BYTES", "check_possible", "decode", "encoder", "looks_whole"]

_SHUFFLE, _BITSHUFFLE = 1, 2
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
HEAD_BYTES = 16
"""So many bytes of a chunk are enough for `looks_whole`."""

_MAX_BLOSC_BYTES = 2**31 - 64


def _numcodecs() -> tuple[Any, Any]:
    try:
        from numcodecs import blosc, zstd
    except ImportError as error:
        raise BackendUnavailableError(
            f"compressed OME-Zarr needs numcodecs: {install_command('numcodecs')}; or choose compression='none'"
        ) from error
    return blosc, zstd


def check_possible(level: _layout.Level) -> None:
    """Raise BackendUnavailableError, with the command that helps, or ConfigError if frames cannot be compressed so here."""
    if level.compression != "none":
        _numcodecs()
    if level.compression in _layout.BLOSC and level.strip_bytes > _MAX_BLOSC_BYTES:
        raise ConfigError(f"a chunk of {level.strip_bytes} bytes is larger than Blosc compresses; choose 'zstd' or 'none'")


def encoder(level: _layout.Level) -> Callable[[NDArray[Any]], bytes | NDArray[Any]]:
    """Return a function that encodes one contiguous inner chunk. Several threads may call it at once; it releases the GIL."""
    if level.compression == "none":
        return lambda chunk: chunk
    blosc, zstd = _numcodecs()
    if level.compression == "zstd":
        compress_zstd: Callable[..., bytes] = zstd.compress
        return lambda chunk: compress_zstd(chunk, _layout.ZSTD_LEVEL)
    compress_blosc: Callable[..., bytes] = blosc.compress
    settings = _layout.BLOSC[level.compression]
    cname = settings.cname.encode()
    shuffle = _BITSHUFFLE if np.dtype(level.dtype).itemsize == 1 else _SHUFFLE
    return lambda chunk: compress_blosc(chunk, cname, settings.clevel, shuffle, settings.blocksize)


def decode(compression: str, data: bytes, out: NDArray[Any]) -> None:
    """Decode one inner chunk into `out`, all of it; ValueError if it is damaged. Never takes more room than `out`.

    Parameters
    ----------
    compression : str
        One of `_layout.COMPRESSIONS`, not ``"none"``.
    data : bytes
        The chunk as stored.
    out : ndarray
        C-contiguous.
    """
    blosc, zstd = _numcodecs()
    target = out.reshape(-1).view(np.uint8)
    if not looks_whole(compression, data[:HEAD_BYTES], len(data), target.nbytes):
        raise ValueError("it is not the chunk that should be here")
    try:
        if compression == "zstd":
            zstd.decompress(data, target)
        else:
            blosc.decompress(data, target)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"it cannot be decompressed ({error})") from error


def looks_whole(compression: str, head: bytes, stored: int, size: int) -> bool:
    """Return whether the first bytes of a chunk of `stored` bytes say that it holds `size` bytes, compressed so.

    Blosc's header: https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst; zstd's: RFC 8878, 3.1.1.1.
    """
    if compression in _layout.BLOSC:
        if len(head) < HEAD_BYTES or stored < HEAD_BYTES:
            return False
        sizes = (int.from_bytes(head[4:8], "little"), int.from_bytes(head[12:16], "little"))
        return head[0] == 2 and sizes == (size, stored)
    return _zstd_header(head)[1] == size


def _zstd_header(head: bytes) -> tuple[int, int]:
    """Return the length of a zstd frame's header and the size of its content; (0, -1) if it does not tell."""
    if len(head) < 6 or head[:4] != _ZSTD_MAGIC:
        return 0, -1
    single, kind, dictionary = head[4] >> 5 & 1, head[4] >> 6, head[4] & 3
    begin = 5 + (not single) + (0, 1, 2, 4)[dictionary]
    length = (1 if single else 0, 2, 4, 8)[kind]
    if length == 0 or len(head) < begin + length:
        return 0, -1
    return begin + length, int.from_bytes(head[begin : begin + length], "little") + (256 if kind == 1 else 0)
