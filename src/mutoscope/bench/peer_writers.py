"""How other packages write a stream of frames: what their documentation recommends, for a length that is not known before.

The durability is the same for all: what is acknowledged is in the page cache, and nothing waits for the device. The
configurations are those of https://github.com/cgohlke/tifffile#examples,
https://google.github.io/tensorstore/python/api/tensorstore.TensorStore.write.html,
https://zarr.readthedocs.io/en/stable/user-guide/arrays/, https://github.com/acquire-project/acquire-zarr#usage and
https://pymmcore-plus.github.io/ome-writers/.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from mutoscope.bench.streams import FRAMES_PER_SHARD, Image, Stream

__all__ = [
    "AcquireZarr",
    "OmeWriters",
    "TensorstoreSharded",
    "TensorstoreZarr2",
    "TifffileAppend",
    "TifffileContiguous",
    "TifffilePages",
    "ZarrPython",
    "ZarrPythonSharded",
]

_MAX_UNDERWAY_BYTES = 64 * 1024 * 1024


class TifffileContiguous(Stream):
    """``TiffWriter.write(frame, contiguous=True)``, frame after frame."""

    def __init__(self, path: Path, shape: tuple[int, int], codec: str) -> None:
        import tifffile

        self._writer = tifffile.TiffWriter(path, bigtiff=True)

    def put(self, frame: Image) -> None:
        """Write it behind those before."""
        self._writer.write(frame, contiguous=True)

    def close(self) -> None:
        """Write the pages' directories."""
        self._writer.close()


class TifffilePages(Stream):
    """``TiffWriter.write``, each frame a page of its own, compressed on all cores."""

    def __init__(self, path: Path, shape: tuple[int, int], codec: str) -> None:
        import tifffile

        self._writer = tifffile.TiffWriter(path, bigtiff=True)
        self._options: dict[str, Any] = {"metadata": None, "photometric": "minisblack"}
        if codec != "none":
            strip = max(1, 512 * 1024 // (shape[1] * 2))
            self._options |= {
                "compression": codec,
                "compressionargs": {"level": 1},
                "rowsperstrip": min(shape[0], strip),
                "maxworkers": len(os.sched_getaffinity(0)),
            }

    def put(self, frame: Image) -> None:
        """Write a page."""
        self._writer.write(frame, contiguous=False, **self._options)

    def close(self) -> None:
        """Close."""
        self._writer.close()


class TifffileAppend(Stream):
    """``TiffWriter(path, append=True)`` for each frame: the file is closed between any two."""

    def __init__(self, path: Path, shape: tuple[int, int], codec: str) -> None:
        self._path = path

    def put(self, frame: Image) -> None:
        """Open, append a page, close."""
        import tifffile

        with tifffile.TiffWriter(self._path, append=self.appended > 0, bigtiff=True) as writer:
            writer.write(frame, metadata=None, photometric="minisblack")

    def close(self) -> None:
        """Nothing is open."""


class _Tensorstore(Stream):
    """Writes with futures; a frame is acknowledged when the future of its write, and of all before, is done."""

    _step = 1

    def __init__(self, path: Path, shape: tuple[int, int], codec: str) -> None:
        import tensorstore

        spec = self._spec(shape, codec) | {"kvstore": {"driver": "file", "path": f"{path}/"}}
        context = tensorstore.Context({"file_io_sync": False, "cache_pool": {"total_bytes_limit": 0}})
        self._store = tensorstore.open(spec, context=context, create=True).result()
        self._underway: deque[tuple[int, Any]] = deque()
        self._max = max(1, _MAX_UNDERWAY_BYTES // (shape[0] * shape[1] * 2 * self._step))
        self._committed = 0
        self._declared = 0
        self._batch = np.empty((self._step, *shape), np.uint16)
        self._filled = 0

    def _spec(self, shape: tuple[int, int], codec: str) -> dict[str, Any]:
        raise NotImplementedError

    @property
    def acknowledged(self) -> int:
        """Frames whose futures are done."""
        while self._underway and self._underway[0][1].done():
            number, future = self._underway.popleft()
            future.result()
            self._committed = number
        return self._committed

    def put(self, frame: Image) -> None:
        """Write it, once a shard is full; the source is the caller's again when the copy's future is done."""
        if self._step == 1:
            self._filled = 1
            self._write(frame[np.newaxis])
            return
        self._batch[self._filled] = frame
        self._filled += 1
        if self._filled == self._step:
            self._write(self._batch)

    def _write(self, frames: Image) -> None:
        first, end = self._declared, self._declared + self._filled
        self._filled = 0
        self._store = self._store.resize(exclusive_max=[end, *self._store.shape[1:]]).result()
        self._declared = end
        writing = self._store[first:end].write(frames)
        self._underway.append((end, writing))
        writing.copy.result()
        if len(self._underway) > self._max:
            self._underway[0][1].result()
        _ = self.acknowledged

    def close(self) -> None:
        """Write what is left and wait for all."""
        if self._filled:
            self._write(self._batch[: self._filled])
        for number, future in self._underway:
            future.result()
            self._committed = number
        self._underway.clear()


class TensorstoreZarr2(_Tensorstore):
    """Zarr 2, each frame a chunk, which is a file."""

    def _spec(self, shape: tuple[int, int], codec: str) -> dict[str, Any]:
        compressor = {
            "none": None,
            "blosc-lz4": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1},
            "blosc-zstd": {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 1},
            "zstd": {"id": "zstd", "level": 1},
        }[codec]
        metadata = {"shape": [0, *shape], "chunks": [1, *shape], "dtype": "<u2", "compressor": compressor}
        return {"driver": "zarr", "metadata": {**metadata, "dimension_separator": "/"}}


class TensorstoreSharded(_Tensorstore):
    """Zarr 3, shards of many frames, each written once and whole: partial writes would encode a shard again for each frame."""

    _step = FRAMES_PER_SHARD

    def __init__(self, path: Path, shape: tuple[int, int], codec: str) -> None:
        self._step = max(1, min(FRAMES_PER_SHARD, _MAX_UNDERWAY_BYTES // 2 // (shape[0] * shape[1] * 2)))
        super().__init__(path, shape, codec)

    def _spec(self, shape: tuple[int, int], codec: str) -> dict[str, Any]:
        codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
        codecs += _codecs_3(codec)
        sharding = {"chunk_shape": [1, *shape], "codecs": codecs}
        metadata = {
            "shape": [0, *shape],
            "data_type": "uint16",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [self._step, *shape]}},
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        }
        return {"driver": "zarr3", "metadata": metadata}


def _codecs_3(codec: str) -> list[dict[str, Any]]:
    blosc = {"typesize": 2, "shuffle": "shuffle", "blocksize": 0}
    return {
        "none": [],
        "blosc-lz4": [{"name": "blosc", "configuration": blosc | {"cname": "lz4", "clevel": 5}}],
        "blosc-zstd": [{"name": "blosc", "configuration": blosc | {"cname": "zstd", "clevel": 1}}],
        "zstd": [{"name": "zstd", "configuration": {"level": 1, "checksum": False}}],
    }[codec]


class ZarrPython(Stream):
    """``Array.append``, each frame a chunk, which is a file."""

    _step = 1
    _shards: tuple[int, ...] | None = None

    def __init__(self, path: Path, shape: tuple[int, int], codec: str) -> None:
        import zarr
        import zarr.codecs

        compressors: Any = {
            "none": None,
            "blosc-lz4": zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
            "blosc-zstd": zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
            "zstd": zarr.codecs.ZstdCodec(level=1),
        }[codec]
        shards = None if self._step == 1 else (self._step, *shape)
        self._array: Any = zarr.create_array(
            path,
            shape=(0, *shape),
            chunks=(1, *shape),
            shards=shards,
            dtype="uint16",
            compressors=compressors,
            filters=None,
        )
        self._batch = np.empty((self._step, *shape), np.uint16)
        self._filled = 0

    @property
    def acknowledged(self) -> int:
        """Frames whose `append` has returned."""
        return self.appended - self._filled

    def put(self, frame: Image) -> None:
        """Append, a shard at a time."""
        if self._step == 1:
            self._array.append(frame[np.newaxis])
            return
        self._batch[self._filled] = frame
        self._filled += 1
        if self._filled == self._step:
            self._array.append(self._batch)
            self._filled = 0

    def append(self, frame: Image) -> None:
        """As of every stream; a frame that failed is not in the batch."""
        filled = self._filled
        try:
            super().append(frame)
        except BaseException:
            self._filled = filled
            raise

    def close(self) -> None:
        """Append what is left."""
        if self._filled:
            self._array.append(self._batch[: self._filled])
            self._filled = 0


class ZarrPythonSharded(ZarrPython):
    """The same by shards, each written once and whole."""

    def __init__(self, path: Path, shape: tuple[int, int], codec: str) -> None:
        self._step = max(1, min(FRAMES_PER_SHARD, _MAX_UNDERWAY_BYTES // 2 // (shape[0] * shape[1] * 2)))
        super().__init__(path, shape, codec)


class AcquireZarr(Stream):
    """``ZarrStream.append``: it has no way to ask whether a frame is stored."""

    def __init__(self, path: Path, shape: tuple[int, int], codec: str) -> None:
        import acquire_zarr as aqz

        compression = None
        if codec != "none":
            compression = aqz.CompressionSettings(
                compressor=aqz.Compressor.BLOSC1,
                codec=aqz.CompressionCodec.BLOSC_LZ4 if codec == "blosc-lz4" else aqz.CompressionCodec.BLOSC_ZSTD,
                level=5 if codec == "blosc-lz4" else 1,
                shuffle=1,
            )
        time, space = aqz.DimensionType.TIME, aqz.DimensionType.SPACE
        shard = max(1, min(FRAMES_PER_SHARD, _MAX_UNDERWAY_BYTES // 2 // (shape[0] * shape[1] * 2)))
        sizes = [("t", time, 0, 1, shard), ("y", space, shape[0], shape[0], 1), ("x", space, shape[1], shape[1], 1)]
        dimensions = [
            aqz.Dimension(name=name, kind=kind, array_size_px=size, chunk_size_px=chunk, shard_size_chunks=shards)
            for name, kind, size, chunk, shards in sizes
        ]
        array = aqz.ArraySettings(dimensions=dimensions, data_type=aqz.DataType.UINT16, compression=compression)
        aqz.set_log_level(aqz.LogLevel.NONE)
        self._stream: Any = aqz.ZarrStream(aqz.StreamSettings(store_path=str(path), arrays=[array]))

    def put(self, frame: Image) -> None:
        """Append."""
        self._stream.append(frame)

    def close(self) -> None:
        """Close."""
        self._stream.close()


class OmeWriters(Stream):
    """``OMEStream.append``, by one of its backends; those that write chunks as files have a frame in each."""

    def __init__(self, path: Path, shape: tuple[int, int], codec: str, backend: str) -> None:
        import ome_writers

        shard = None
        if backend == "acquire-zarr":  # which must shard
            shard = max(1, min(FRAMES_PER_SHARD, _MAX_UNDERWAY_BYTES // 2 // (shape[0] * shape[1] * 2)))
        dimensions = [
            ome_writers.Dimension(name="t", type="time", count=None, chunk_size=1, shard_size_chunks=shard),
            ome_writers.Dimension(name="y", type="space", count=shape[0], chunk_size=shape[0]),
            ome_writers.Dimension(name="x", type="space", count=shape[1], chunk_size=shape[1]),
        ]
        settings = {
            "root_path": str(path),
            "dimensions": dimensions,
            "dtype": "uint16",
            "format": {"name": "ome-tiff" if backend == "tifffile" else "ome-zarr", "backend": backend},
            "compression": None if codec == "none" else codec,
        }
        self._stream: Any = ome_writers.create_stream(ome_writers.AcquisitionSettings.model_validate(settings))

    def put(self, frame: Image) -> None:
        """Append."""
        self._stream.append(frame)

    def close(self) -> None:
        """Close."""
        self._stream.close()
