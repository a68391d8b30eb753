"""The bytes of a page: its directory, and the record that each frame carries. ``docs/layout-ome-tiff.md`` specifies them."""

from __future__ import annotations

import operator
import struct
import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mutoscope.model.errors import ConfigError, DatasetError

LAYOUT_VERSION = "1.0"
MAGIC = b"mutoscope\0tiff\x01\0"
"""Begins each record: the name of its maker, ended by a zero as tag 50740 asks for, then the version."""

HEADER = b"II" + struct.pack("<HHH", 43, 8, 0)
FIRST_LINK = 8
"""Where the header says which directory is the first."""
DESCRIPTION_AT = 16
BLOCK = 4096
"""No directory and no number that is written in place crosses a multiple of this: such a write is never half done."""

LARGE_FRAME_BYTES = 64 * BLOCK
"""From this size on, pixels that are not compressed begin at a multiple of `BLOCK`, to fill whole pages of the page cache."""

DIRECTORY_ROOM = 256
"""Of each directory; that of the first page fills it."""

RECORD = struct.Struct("<16s16sQQQqqd4iQQQQII")
RECORD_TAG = 50740  # DNGPrivateData: DNG 1.4, "a place for camera manufacturers to store private data"; libtiff knows it
COMPRESSIONS = {"none": 1, "zlib": 8, "zstd": 50000}
"""Name → value of tag 259. Source: TIFF Technical Note 2 (8); libtiff's tiff.h (50000)."""

DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")
OME_TYPES = {name: name for name in DTYPES} | {"float32": "float", "float64": "double"}
SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}
STRIPS = 16
MIN_STRIP_BYTES, MAX_STRIP_BYTES = 128 * 1024, 512 * 1024
"""A compressed frame has about so many strips, for as many cores, but none that is not worth handing to another one."""

MAX_FRAME_BYTES = 1 << 40
_ENTRY = struct.Struct("<HHQQ")
_COUNT = struct.Struct("<Q")
_LINK = struct.Struct("<Q")
_CRC = struct.Struct("<II")
_WORD = np.dtype("<u8")


@dataclass(frozen=True)
class Geometry:
    """What all pages of a file have in common.

    Parameters
    ----------
    shape : tuple of int
        (y, x).
    dtype : str
        One of `DTYPES`.
    compression : str
        One of `COMPRESSIONS`.
    rows_per_strip : int
        Rows that are compressed together; all of them without compression.
    """

    shape: tuple[int, int]
    dtype: str
    compression: str
    rows_per_strip: int

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """Little endian."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def frame_bytes(self) -> int:
        """Of the pixels, not compressed."""
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize

    @property
    def strips(self) -> int:
        """Of one page."""
        return -(-self.shape[0] // self.rows_per_strip)

    @property
    def index_unit(self) -> int:
        """Index blocks begin at multiples of this; what fits into it is the size of one."""
        return 16 * BLOCK if self.frame_bytes >= LARGE_FRAME_BYTES else BLOCK

    @property
    def pixel_unit(self) -> int:
        """The pixels of a page begin at a multiple of this."""
        return BLOCK if self.compression == "none" and self.frame_bytes >= LARGE_FRAME_BYTES else 8


def plan_geometry(shape: tuple[int, int], dtype: DTypeLike, compression: str | None) -> Geometry:
    """Return the geometry of frames, or raise ConfigError."""
    compression = compression or "none"
    if not (isinstance(compression, str) and compression in COMPRESSIONS):
        raise ConfigError(f"the compression of an OME-TIFF is one of {', '.join(COMPRESSIONS)}, not {compression!r}")
    try:
        name = np.dtype(dtype).name if dtype is not None else "None"
        height, width = (operator.index(size) for size in shape)
    except (TypeError, ValueError, SyntaxError) as error:
        raise ConfigError(f"frames have a shape (y, x) and a dtype, not {shape!r} and {dtype!r}") from error
    if name not in DTYPES:
        raise ConfigError(f"frames of {name} cannot be stored; there are {', '.join(DTYPES)}")
    row_bytes = width * np.dtype(name).itemsize
    if not 0 < height < 2**31 or not 0 < width < 2**31 or height * row_bytes > MAX_FRAME_BYTES:
        raise ConfigError(f"frames of shape {shape} cannot be stored")
    strip_bytes = min(MAX_STRIP_BYTES, max(MIN_STRIP_BYTES, height * row_bytes // STRIPS))
    rows = height if compression == "none" else min(height, max(1, strip_bytes // row_bytes))
    return Geometry((height, width), name, compression, rows)


class FrameMeta(NamedTuple):
    """What is known of a frame besides its pixels."""

    frame_id: int
    tick: int
    monotonic_ns: int
    utc_ns: int
    exposure_ms: float
    t: int
    c: int
    z: int
    position: int


class Record(NamedTuple):
    """What a page says of its frame and of itself."""

    magic: bytes
    dataset: bytes
    ordinal: int
    frame_id: int
    tick: int
    monotonic_ns: int
    utc_ns: int
    exposure_ms: float
    t: int
    c: int
    z: int
    position: int
    data_offset: int
    data_bytes: int
    ifd_offset: int
    mark: int
    crc: int
    reserved: int


class Page(NamedTuple):
    """One page of a file that was read and found right."""

    record: Record
    counts: tuple[int, ...]
    link_at: int
    end: int
    next: int


class Place(NamedTuple):
    """Where the next page goes."""

    record_at: int
    pixels_at: int


def align(offset: int, unit: int = 8) -> int:
    """Return the next multiple of `unit`."""
    return -(-offset // unit) * unit


class Pages:
    """Builds, and checks, the pages of one geometry, and tells where they go.

    Attributes
    ----------
    slot_bytes : int
        Of a slot of an index block: record, room for a directory, and offsets and counts of the strips if there are several.
    """

    def __init__(self, geometry: Geometry, dataset: bytes) -> None:
        self.geometry = geometry
        self.dataset = dataset
        dtype = np.dtype(geometry.dtype)
        height, width = geometry.shape
        before = b"".join(
            _ENTRY.pack(*entry)
            for entry in (
                (256, 4, 1, width),
                (257, 4, 1, height),
                (258, 3, 1, dtype.itemsize * 8),
                (259, 3, 1, COMPRESSIONS[geometry.compression]),
                (262, 3, 1, 1),
            )
        )
        between = _ENTRY.pack(277, 3, 1, 1) + _ENTRY.pack(278, 4, 1, geometry.rows_per_strip)
        after = _ENTRY.pack(339, 3, 1, SAMPLE_FORMATS[dtype.kind])
        self._strips = number = geometry.strips
        offsets = struct.pack("<HHQ", 273, 16, number)
        counts = struct.pack("<HHQ", 279, 16, number)
        record = struct.pack("<HHQ", RECORD_TAG, 1, RECORD.size)
        self._begin = _COUNT.pack(11) + before + offsets
        self._begin_described = _COUNT.pack(12) + before
        self._offsets = offsets
        self._between = between + counts
        self._after = after + record
        self.slot_bytes = RECORD.size + DIRECTORY_ROOM + (16 * number if number > 1 else 0)
        self._unit = geometry.index_unit
        self._pixel_unit = geometry.pixel_unit
        self._index_bytes = max(self._unit, align(self.slot_bytes, BLOCK))

    # ------------------------------------------------------------------ places

    def index_end(self, record_at: int) -> int:
        """Return where the index block ends that a record lies in."""
        return record_at // self._unit * self._unit + self._index_bytes

    def place(self, after: int | None, end: int) -> Place:
        """Return where a page goes.

        Parameters
        ----------
        after : int or None
            Where the record of the page before is; None for the first.
        end : int
            Where all that is in the file ends.
        """
        if after is not None:
            record_at = after + self.slot_bytes
            if record_at % BLOCK + min(self.slot_bytes, BLOCK) > BLOCK:
                record_at = align(record_at, BLOCK)
            if record_at + self.slot_bytes <= self.index_end(after):
                return Place(record_at, align(end, self._pixel_unit))
        record_at = align(end, self._unit)
        return Place(record_at, align(record_at + self._index_bytes, self._pixel_unit))

    def directory_bytes(self, described: bool) -> int:
        """Return the length of a directory, its link included."""
        return _COUNT.size + _ENTRY.size * (12 if described else 11) + _LINK.size

    def link_at(self, ifd: int, described: bool) -> int:
        """Return where the directory at `ifd` links to the next one."""
        return ifd + self.directory_bytes(described) - _LINK.size

    # ------------------------------------------------------------------ bytes

    def directory(
        self, record_at: int, strips: tuple[int, int], description: tuple[int, int] | None = None, following: int = 0
    ) -> bytes:
        """Return a directory; `strips` are the values of tags 273 and 279, `description` count and offset of tag 270."""
        pack = _LINK.pack
        begin = self._begin
        if description is not None:
            begin = b"".join((self._begin_described, _ENTRY.pack(270, 2, *description), self._offsets))
        offsets, counts = strips
        end = self._after
        return b"".join((begin, pack(offsets), self._between, pack(counts), end, pack(record_at), pack(following)))

    def build(
        self,
        place: Place,
        ordinal: int,
        meta: FrameMeta,
        counts: tuple[int, ...],
        mark: int,
        description: tuple[int, int] | None = None,
    ) -> bytes:
        """Return what a page's slot holds: its record, its directory, and the tables of its strips."""
        record_at, pixels_at = place
        if self._strips == 1:
            tables, strips = b"", (pixels_at, counts[0])
        else:
            tables, strips = _tables(pixels_at, counts), self._tables_at(record_at)
        fields = (MAGIC, self.dataset, ordinal, *meta, pixels_at, sum(counts), record_at + RECORD.size, mark)
        record = RECORD.pack(*fields, 0, 0)[:-8]
        crc = _CRC.pack(zlib.crc32(tables, zlib.crc32(record)), 0)
        directory = self.directory(record_at, strips, description)
        return b"".join((record, crc, directory.ljust(DIRECTORY_ROOM, b"\0") if tables else directory, tables))

    def _tables_at(self, record_at: int) -> tuple[int, int]:
        at = record_at + RECORD.size + DIRECTORY_ROOM
        return at, at + 8 * self._strips

    def parse(self, slot: bytes, described: bool) -> tuple[Record, tuple[int, ...], int]:
        """Return record, bytes of each strip and link of a page, or raise ValueError if it is not as it was written."""
        size = RECORD.size + self.directory_bytes(described)
        if len(slot) < (size if self._strips == 1 else self.slot_bytes):
            raise ValueError("it is cut")
        record = Record(*RECORD.unpack_from(slot))
        if record.magic != MAGIC or record.dataset != self.dataset:
            raise ValueError("it has no record of this data set")
        tables = slot[RECORD.size + DIRECTORY_ROOM : self.slot_bytes] if self._strips > 1 else b""
        if record.crc != zlib.crc32(tables, zlib.crc32(slot[: RECORD.size - 8])):
            raise ValueError("its record is damaged")
        directory = slot[RECORD.size : size]
        description = find_entry(directory, 270) if described else None
        record_at = record.ifd_offset - RECORD.size
        if self._strips == 1:
            counts: tuple[int, ...] = (record.data_bytes,)
            strips = (record.data_offset, record.data_bytes)
        else:
            counts = struct.unpack(f"<{self._strips}Q", tables[8 * self._strips :])
            if sum(counts) != record.data_bytes or tables != _tables(record.data_offset, counts):
                raise ValueError("its table of strips is damaged")
            strips = self._tables_at(record_at)
        following = int(_LINK.unpack(directory[-_LINK.size :])[0])
        if directory != self.directory(record_at, strips, description, following):
            raise ValueError("its directory is damaged")
        if self.geometry.compression == "none" and record.data_bytes != self.geometry.frame_bytes:
            raise ValueError("its size is wrong")
        return record, counts, following


def _tables(data_offset: int, counts: tuple[int, ...]) -> bytes:
    offsets = [data_offset]
    for count in counts[:-1]:
        offsets.append(offsets[-1] + count)
    return struct.pack(f"<{2 * len(counts)}Q", *offsets, *counts)


def entries(directory: bytes) -> dict[int, tuple[int, int, int]]:
    """Return tag → (type, count, value) of a directory that begins with its number of entries."""
    number = int(_COUNT.unpack_from(directory)[0])
    if number > 64 or len(directory) < _COUNT.size + number * _ENTRY.size:
        raise ValueError("it has no directory")
    found = (_ENTRY.unpack_from(directory, _COUNT.size + k * _ENTRY.size) for k in range(number))
    return {tag: (kind, count, value) for tag, kind, count, value in found}


def find_entry(directory: bytes, tag: int) -> tuple[int, int]:
    """Return count and value of a tag, or raise ValueError."""
    try:
        _, count, value = entries(directory)[tag]
    except KeyError:
        raise ValueError(f"it has no tag {tag}") from None
    return count, value


def entry_at(directory: bytes, tag: int) -> int:
    """Return the offset of a tag's entry within its directory."""
    return _COUNT.size + list(entries(directory)).index(tag) * _ENTRY.size


def geometry_of(directory: bytes, where: str) -> Geometry:
    """Return the geometry that a directory states, or raise DatasetError."""
    found = entries(directory)
    try:
        value = {tag: found[tag][2] for tag in (256, 257, 258, 259, 278, 339)}
        kind = {number: letter for letter, number in SAMPLE_FORMATS.items()}[value[339]]
        dtype = np.dtype(f"{kind}{value[258] // 8}").name
        compression = {number: name for name, number in COMPRESSIONS.items()}[value[259]]
        geometry = plan_geometry((value[257], value[256]), dtype, compression)
    except (KeyError, TypeError, ConfigError):
        raise DatasetError(f"{where}: its first directory is damaged, or not one of Mutoscope") from None
    rows = value[278]
    if not 0 < rows <= geometry.shape[0] or (compression == "none" and rows != geometry.shape[0]):
        raise DatasetError(f"{where}: its first directory is damaged, or not one of Mutoscope")
    return Geometry(geometry.shape, dtype, compression, rows)


def mark_of(pixels: NDArray[Any]) -> int:
    """Return the sum of one 8-byte word from every 4096 bytes of a contiguous array: it tells pages that were lost."""
    count = (pixels.nbytes + BLOCK - 8) // BLOCK
    if count == 0:
        return 0
    words: NDArray[np.uint64] = np.ndarray(count, _WORD, pixels, 0, (BLOCK,))
    return int(np.add.reduce(words))
