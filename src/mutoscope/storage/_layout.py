"""The layout on disk, version 1.2: its names, its numbers, and its documents of Zarr 3 and OME-Zarr 0.5.

``docs/layout.md`` is its specification.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from mutoscope.model.arguments import shown, whole
from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.storage import _shard

LAYOUT_VERSION = "1.2"
NAMESPACE = "mutoscope"
RUN_FOLDER = "run_folder"
LEVEL = "0"
FRAMES = "frames"
OME = "OME"

RECORDS_PER_CHUNK = 16384
"""Values of one chunk file of a flat array: 128 KiB of 8 bytes each, reserved when the file is created."""

SHARD_BYTES = 128 * 1024 * 1024
MAX_FRAMES_PER_SHARD = 4096
SMALL_SHARD_BYTES = 32 * 1024 * 1024
"""Pixels of a shard that is published as a whole, before compression."""
MAX_FRAMES_PER_SMALL_SHARD = 256
STRIP_BYTES = 512 * 1024
MAX_FRAME_BYTES = 1 << 40
MAX_DOCUMENT_BYTES = 64 * 1024 * 1024

VERSIONS = ("0.5", "0.4")
"""Of OME-Zarr; the first is the default."""

GROUP_2 = {"zarr_format": 2}
GROWTH = 64
"""Frames by which the declared length of an image of OME-Zarr 0.4 grows: each frame has a file of its own there."""

COMPRESSIONS = ("none", "blosc-lz4", "blosc-zstd", "zstd")
ZSTD_LEVEL = 1


class Blosc(NamedTuple):
    """Settings of Blosc; ``blocksize`` 0 leaves it the choice."""

    cname: str
    clevel: int
    blocksize: int


BLOSC = {"blosc-lz4": Blosc("lz4", 5, 0), "blosc-zstd": Blosc("zstd", 1, 128 * 1024)}
"""By compression. Blosc by itself chooses blocks of 32 KiB for zstd at this level, with which it takes a quarter more time."""

DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")

FLAT_ARRAYS: dict[str, tuple[str, Any]] = {
    "frame_id": ("uint64", 0),
    "tick": ("uint64", 0),
    "monotonic_ns": ("int64", 0),
    "utc_ns": ("int64", 0),
    "exposure_ms": ("float64", "NaN"),
}
"""Name → Zarr data type and fill value of the arrays that every image has."""

PLANE_ARRAYS: dict[str, tuple[str, Any]] = dict.fromkeys(("t", "c", "z", "position"), ("int32", -1))
"""The arrays of an image whose frames carry a plane index; -1 is unknown."""

_CAMERA = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_IMAGE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})(?:\.([1-9][0-9]{0,5}))?")


def check_camera_name(name: str) -> str:
    """Return `name`, or raise if it cannot name a camera's image on disk."""
    if not isinstance(name, str) or not _CAMERA.fullmatch(name) or name in (OME, LEVEL, FRAMES, "labels", "tables"):
        raise ConfigError(
            f"{name!r} cannot name a camera: at most 64 letters, digits, _ and -, "
            f"and not {LEVEL!r}, {FRAMES!r}, 'labels', 'tables' or {OME!r}"
        )
    return name


def split_image_name(name: str) -> tuple[str, int] | None:
    """Return the camera and the segment number of an image group's name, None if it is not one."""
    match = _IMAGE.fullmatch(name)
    if match is None or match[1] in (OME, LEVEL, FRAMES, "labels", "tables"):
        return None
    return match[1], int(match[2] or 0)


@dataclass(frozen=True)
class Level:
    """The geometry of one image's pixels.

    Parameters
    ----------
    shape : tuple of int
        A frame's (y, x).
    dtype : str
        One of `DTYPES`.
    frames_per_shard : int
        Frames of one shard file.
    strip : int
        Rows of one inner chunk; it divides y.
    compression : str
        One of `COMPRESSIONS`. A shard whose chunks are compressed is published as a whole.
    version : str
        One of `VERSIONS`. Zarr 2, and so 0.4, has no shards: a frame is one chunk, and that is a file.
    """

    shape: tuple[int, int]
    dtype: str
    frames_per_shard: int
    strip: int
    compression: str = "none"
    version: str = "0.5"

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def frame_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize

    @property
    def strips(self) -> int:
        return self.shape[0] // self.strip

    @property
    def strip_bytes(self) -> int:
        """Bytes of one inner chunk before compression."""
        return self.frame_bytes // self.strips

    @property
    def published(self) -> bool:
        """Whether frames come by the rename of a file that holds them, not by writing into one that is there."""
        return self.compression != "none" or self.version == "0.4"

    @property
    def sharded(self) -> bool:
        """Whether a file has an index."""
        return self.version == "0.5"

    @property
    def growth(self) -> int:
        """Frames by which the declared length grows."""
        return self.frames_per_shard if self.sharded else GROWTH

    def chunk_path(self, shard: int) -> str:
        """Return the file of a shard, relative to the array's folder."""
        return f"c/{shard}/0/0" if self.sharded else f"{shard}/0/0"

    @property
    def shard_chunks(self) -> int:
        return self.frames_per_shard * self.strips

    @property
    def pixel_bytes(self) -> int:
        """Bytes of pixels of a full shard."""
        return self.frames_per_shard * self.frame_bytes

    @property
    def index_length(self) -> int:
        return _shard.index_length(self.shard_chunks)

    @property
    def shard_bytes(self) -> int:
        return self.pixel_bytes + self.index_length

    def index(self, frames: int | None = None) -> bytes:
        """Return a shard's index of which the first `frames` frames are stored; all, if not given."""
        stored = None if frames is None else frames * self.strips
        return _shard.index_bytes(self.shard_chunks, self.frame_bytes // self.strips, stored)


def check_compression(compression: str | None) -> str:
    """Return the name of a compression that there is, or raise ConfigError; None is ``"none"``."""
    if compression is None:
        return "none"
    if compression not in COMPRESSIONS:
        raise ConfigError(f"OME-Zarr is compressed by {', '.join(map(repr, COMPRESSIONS))}, not {compression!r}")
    return compression


def check_scale(name: str, value: float | None) -> None:
    """Raise ConfigError unless it is a finite number above 0, or None: unknown."""
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or not 0 < value < math.inf
    ):
        raise ConfigError(f"{name} is a positive number or None, not {shown(value)}")


def check_version(version: str) -> str:
    """Return a version of OME-Zarr that can be written, or raise ConfigError."""
    if version not in VERSIONS:
        raise ConfigError(f"OME-Zarr is written in version {' or '.join(map(repr, VERSIONS))}, not {version!r}")
    return version


def plan_level(
    shape: tuple[int, int],
    dtype: DTypeLike,
    frames_per_shard: int | None = None,
    compression: str | None = None,
    version: str = VERSIONS[0],
) -> Level:
    """Choose strips and shards for frames of `shape` and `dtype`, or raise if they cannot be stored."""
    compression = check_compression(compression)
    check_version(version)
    try:
        height, width = (operator.index(value) for value in shape)
    except (TypeError, ValueError):
        raise ConfigError(f"a frame's shape is (y, x), two positive numbers, not {shape!r}") from None
    if height < 1 or width < 1:
        raise ConfigError(f"a frame's shape is (y, x), two positive numbers, not {shape!r}")
    try:
        name = np.dtype(dtype).name
    except (TypeError, ValueError, SyntaxError):
        raise ConfigError(f"{dtype!r} is not a data type") from None
    if dtype is None or name not in DTYPES:
        raise ConfigError(f"frames of {dtype if dtype is None else name} cannot be stored; these can: {', '.join(DTYPES)}")
    row_bytes = width * np.dtype(name).itemsize
    frame_bytes = height * row_bytes
    if frame_bytes > MAX_FRAME_BYTES:
        raise ConfigError(f"a frame of {frame_bytes} bytes is larger than this layout stores ({MAX_FRAME_BYTES})")
    if version == "0.4":
        if frames_per_shard not in (None, 1):
            raise ConfigError("OME-Zarr 0.4 has no shards: leave frames_per_shard out")
        return Level((height, width), name, 1, height, compression, version)
    divisors = {part for low in range(1, math.isqrt(height) + 1) if height % low == 0 for part in (low, height // low)}
    strip = min(sorted(divisors), key=lambda rows: abs(math.log(rows * row_bytes / STRIP_BYTES)))
    if frames_per_shard is None and compression != "none":
        frames_per_shard = max(1, min(MAX_FRAMES_PER_SMALL_SHARD, SMALL_SHARD_BYTES // frame_bytes))
    elif frames_per_shard is None:
        frames_per_shard = max(4, min(MAX_FRAMES_PER_SHARD, SHARD_BYTES // frame_bytes))
    elif not 1 <= whole("frames_per_shard", frames_per_shard, 0) <= 65536:
        raise ConfigError(f"frames_per_shard lies between 1 and 65536, not {frames_per_shard}")
    return Level((height, width), name, int(frames_per_shard), strip, compression)


_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_BYTES = {"name": "bytes"}


def _bytes_codec(dtype: str) -> dict[str, Any]:
    return _BYTES if np.dtype(dtype).itemsize == 1 else _LITTLE


def compressors(level: Level) -> list[dict[str, Any]]:
    """Return the codecs behind ``bytes``, with the settings that zarr-python has for them too (zstd: a faster level)."""
    if level.compression in BLOSC:
        size = np.dtype(level.dtype).itemsize
        shuffle = "bitshuffle" if size == 1 else "shuffle"
        settings = {"typesize": size, "shuffle": shuffle, **BLOSC[level.compression]._asdict()}
        return [{"name": "blosc", "configuration": settings}]
    if level.compression == "zstd":
        return [{"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}]
    return []


def compression_of(codec: str, settings: Mapping[str, Any]) -> str:
    """Return the compression whose codec, with these settings, a document names; KeyError if it is none of `COMPRESSIONS`."""
    if codec == "zstd":
        return "zstd"
    return {("blosc", each.cname): name for name, each in BLOSC.items()}[codec, settings["cname"]]


def codecs_compression(codecs: list[dict[str, Any]]) -> str:
    """Return the compression of a chunk of Zarr 3 whose first codec is ``bytes``; KeyError if it is none of `COMPRESSIONS`."""
    return "none" if len(codecs) == 1 else compression_of(codecs[1]["name"], codecs[1]["configuration"])


def _compressor_2(level: Level) -> dict[str, Any] | None:
    if level.compression in BLOSC:
        shuffle = 2 if np.dtype(level.dtype).itemsize == 1 else 1
        return {"id": "blosc", "shuffle": shuffle, **BLOSC[level.compression]._asdict()}
    if level.compression == "zstd":
        return {"id": "zstd", "level": ZSTD_LEVEL}  # tensorstore knows no other key
    return None


def _document_2(
    shape: list[int], chunks: list[int], dtype: str, fill: Any, compressor: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the ``.zarray`` of an array of Zarr 2."""
    return {
        "zarr_format": 2,
        "shape": shape,
        "chunks": chunks,
        "dtype": np.dtype(dtype).newbyteorder("<").str,
        "compressor": compressor,
        "fill_value": fill,
        "order": "C",
        "filters": None,
        "dimension_separator": "/",
    }


def level_document(level: Level, frames: int) -> dict[str, Any]:
    """Return the document of an image's pixels that declares `frames` frames."""
    height, width = level.shape
    if level.version == "0.4":
        fill = 0 if level.dtype[0] != "f" else 0.0
        return _document_2([frames, height, width], [1, height, width], level.dtype, fill, _compressor_2(level))
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [frames, height, width],
        "data_type": level.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [level.frames_per_shard, height, width]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0 if level.dtype[0] != "f" else 0.0,
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [1, level.strip, width],
                    "codecs": [_bytes_codec(level.dtype), *compressors(level)],
                    "index_codecs": [_LITTLE, {"name": "crc32c"}],
                    "index_location": "end",
                },
            }
        ],
        "dimension_names": ["t", "y", "x"],
        "attributes": {},
        "storage_transformers": [],
    }


def flat_document(name: str, length: int, version: str = VERSIONS[0]) -> dict[str, Any]:
    """Return the document of one flat array, one value a frame."""
    dtype, fill = (FLAT_ARRAYS | PLANE_ARRAYS)[name]
    if version == "0.4":
        return _document_2([length], [RECORDS_PER_CHUNK], dtype, fill, None)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [length],
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [RECORDS_PER_CHUNK]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [_LITTLE],
        "dimension_names": ["t"],
        "attributes": {},
        "storage_transformers": [],
    }


def group_document(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the ``zarr.json`` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def ome_image(name: str, pixel_size_um: float | None, rate_hz: float | None, version: str = VERSIONS[0]) -> dict[str, Any]:
    """Return the attributes by which OME-Zarr knows an image with one level and the axes t, y, x.

    An unknown pixel size is scale 1 without a unit, and so is an unknown frame rate.
    """
    space = {"type": "space"} if pixel_size_um is None else {"type": "space", "unit": "micrometer"}
    time = {"type": "time"} if rate_hz is None else {"type": "time", "unit": "second"}
    scale = [1.0 if rate_hz is None else 1.0 / rate_hz, *(2 * [1.0 if pixel_size_um is None else float(pixel_size_um)])]
    transformations = [{"type": "scale", "scale": scale}]
    image = {
        "name": name,
        "axes": [{"name": "t", **time}, {"name": "y", **space}, {"name": "x", **space}],
        "datasets": [{"path": LEVEL, "coordinateTransformations": transformations}],
    }
    return ome_attributes(version, {"multiscales": [image]})


def ome_attributes(version: str, own: dict[str, Any]) -> dict[str, Any]:
    """Return what OME-Zarr has in a group's attributes: under ``ome`` in 0.5, beside the others in 0.4."""
    if version == "0.5":
        return {"ome": {"version": version, **own}}
    images = [{"version": version, **image} for image in own.get("multiscales", [])]
    return {**own, "multiscales": images} if images else dict(own)


def with_series(attributes: dict[str, Any], version: str) -> dict[str, Any]:
    """Return the attributes of a root with the mark of the bioformats2raw layout among what is there."""
    mark = {"bioformats2raw.layout": 3}
    if version == "0.4":
        return {**attributes, **mark}
    return {**attributes, "ome": {"version": version, **attributes.get("ome", {}), **mark}}


def parse_level(document: dict[str, Any], where: str) -> tuple[Level, int]:
    """Return the geometry and the declared number of frames of a level's ``zarr.json``.

    Raises
    ------
    DatasetError
        If it is anything but what `level_document` writes.
    """
    if document.get("zarr_format") == 2:
        return _parse_level_2(document, where)
    try:
        frames, height, width = document["shape"]
        chunk = document["chunk_grid"]["configuration"]["chunk_shape"]
        sharding = document["codecs"][0]["configuration"]
        inner = sharding["chunk_shape"]
        compression = codecs_compression(sharding["codecs"])
        level = Level((height, width), document["data_type"], chunk[0], inner[1], compression)
        numbers = (frames, height, width, level.frames_per_shard, level.strip)
        sane = (
            all(type(value) is int for value in numbers)
            and level.dtype in DTYPES
            and 0 <= frames < 2**53
            and min(numbers[1:]) > 0
            and height % level.strip == 0
            and level.frames_per_shard <= 65536
            and level.frame_bytes <= MAX_FRAME_BYTES
        )
        if sane and _same(level_document(level, frames), document):
            return level, frames
    except (KeyError, IndexError, TypeError, ValueError):
        pass
    raise DatasetError(f"{where}: its metadata are not those of layout {LAYOUT_VERSION}, or are damaged")


def _parse_level_2(document: dict[str, Any], where: str) -> tuple[Level, int]:
    try:
        frames, height, width = document["shape"]
        compressor = document["compressor"]
        compression = "none" if compressor is None else compression_of(compressor["id"], compressor)
        level = Level((height, width), np.dtype(document["dtype"]).name, 1, height, compression, "0.4")
        sane = (
            all(type(value) is int for value in (frames, height, width))
            and level.dtype in DTYPES
            and 0 <= frames < 2**53
            and min(height, width) > 0
            and level.frame_bytes <= MAX_FRAME_BYTES
        )
        if sane and level_document(level, frames) == document:
            return level, frames
    except (KeyError, IndexError, TypeError, ValueError):
        pass
    raise DatasetError(f"{where}: its metadata are not those of layout {LAYOUT_VERSION}, or are damaged")


def parse_flat(document: dict[str, Any], name: str, where: str) -> int:
    """Return the declared length of a flat array, or raise if its ``zarr.json`` is not one of this layout."""
    shape = document.get("shape")
    length = shape[0] if isinstance(shape, list) and len(shape) == 1 else None
    version = "0.4" if document.get("zarr_format") == 2 else "0.5"
    if type(length) is int and 0 <= length < 2**53 and _same(flat_document(name, length, version), document):
        return length
    raise DatasetError(f"{where}: its metadata are not those of layout {LAYOUT_VERSION}, or are damaged")


def _same(expected: dict[str, Any], document: dict[str, Any]) -> bool:
    """Whether all that decides how bytes are read is as expected; attributes are anybody's."""
    skipped = {"attributes"}
    return {k: v for k, v in expected.items() if k not in skipped} == {k: v for k, v in document.items() if k not in skipped}
