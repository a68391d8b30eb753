"""The pre-indexed shard: one file of consecutive frames whose complete index stands at its end from the moment it is created.

Offsets of uncompressed strips are known beforehand, so the index never changes while frames are appended, and an append is one
write of pixels. Zarr 3 sharding codec: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

from __future__ import annotations

import struct

import numpy as np

__all__ = ["EMPTY", "crc32c", "index_bytes", "index_length"]

EMPTY = 2**64 - 1
"""Offset and length of an inner chunk that is not stored."""

_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected: RFC 3720, appendix B.4


def _table() -> list[int]:
    rows = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        rows.append(value)
    return rows


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of `data`.

    Parameters
    ----------
    data : bytes
        A shard's index, some kilobytes: one table look-up a byte, so that no package is needed for it.

    Examples
    --------
    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    table = _TABLE
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def index_length(chunks: int) -> int:
    """Return the bytes that the index of a shard of `chunks` inner chunks takes, its checksum included."""
    return 16 * chunks + 4


def index_bytes(chunks: int, chunk_bytes: int, stored: int | None = None) -> bytes:
    """Return the index of a shard, with its checksum.

    Parameters
    ----------
    chunks : int
        Inner chunks of a full shard.
    chunk_bytes : int
        Bytes of one inner chunk; chunk i lies at ``i * chunk_bytes``.
    stored : int, optional
        How many are stored, from the first on; the others are marked as absent. All, if not given.
    """
    stored = chunks if stored is None else stored
    index = np.full((chunks, 2), EMPTY, dtype="<u8")
    index[:stored, 0] = np.arange(stored, dtype="<u8") * chunk_bytes
    index[:stored, 1] = chunk_bytes
    raw = index.tobytes()
    return raw + struct.pack("<I", crc32c(raw))
