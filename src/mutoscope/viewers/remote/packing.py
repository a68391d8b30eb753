"""Compression of chunks, with Blosc of numcodecs: fast, and it says beforehand how much comes out."""

from __future__ import annotations

from typing import Any

import numpy as np

from mutoscope.model import arguments
from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.model.install import install_command
from mutoscope.viewers.wire import MalformedError

__all__ = ["COMPRESSIONS", "check_compression", "pack", "unpack"]

COMPRESSIONS = ("lz4", "zstd")
_LEVEL = 1
_HEAD_BYTES = 16
_LEAST_BYTES = 256
"""What is smaller goes as it is."""
_BLOSC_VERSION = 2


def _blosc() -> Any:
    try:
        from numcodecs import blosc
    except ImportError as error:
        raise BackendUnavailableError(
            f"compression on the way needs numcodecs: {install_command('numcodecs')}; or leave compression= out"
        ) from error
    return blosc


def check_compression(compression: str) -> None:
    """Raise ConfigError if there is no such compression, BackendUnavailableError if what it needs is not installed."""
    if compression and compression not in COMPRESSIONS:
        raise ConfigError(f"compression is 'lz4', 'zstd' or None, not {arguments.shown(compression)}")
    if compression:
        _blosc()


def pack(compression: str, data: bytes) -> bytes | None:
    """Return a chunk compressed, its bytes taken in pairs, as most pixels have two; None if that does not make it smaller."""
    if not compression or len(data) < _LEAST_BYTES:
        return None
    words = np.frombuffer(data, np.uint8 if len(data) % 2 else np.uint16)
    packed: bytes = _blosc().compress(words, compression.encode(), _LEVEL)
    return packed if len(packed) < len(data) else None


def unpack(data: memoryview, size: int) -> memoryview:
    """Return a chunk of `size` bytes; no more is ever written.

    Raises
    ------
    MalformedError
        If it is not what it says.
    """
    head = bytes(data[:_HEAD_BYTES])
    said = (int.from_bytes(head[4:8], "little"), int.from_bytes(head[12:16], "little"))
    if len(head) < _HEAD_BYTES or head[0] != _BLOSC_VERSION or said != (size, len(data)):
        raise MalformedError("a compressed chunk of another size than it says")
    out = np.empty(size, np.uint8)
    try:
        _blosc().decompress(data, out)
    except (RuntimeError, ValueError, BackendUnavailableError) as error:
        raise MalformedError(f"a chunk that cannot be decompressed: {error}") from None
    return out.data
