"""Where pixels rest: stores of items, and streams of frames that are written to disk, and read, while they grow.

A *store* (`open`, `backends`, `Stores`) takes and gives items by name: images, tables, ROIs, JSON, text. Every store keeps the
rules of `mutoscope.storage.interface`, and `mutoscope.storage.suite` checks them.

A *stream* is a data set that is made by `create_recording` (or `open_writer`, for one stream), which one process calls; each
image has one writer, which closes it. Readers open it at any time, in any process. Nothing but the data set itself is left
behind: a writer's lock ends with its process.
"""

from mutoscope.storage._pyramid import PyramidReport, build_pyramid
from mutoscope.storage.interface import DataSink, DataSource, StorageBackend
from mutoscope.storage.reader import FrameStreamReader
from mutoscope.storage.recording import CameraLayout, Recording, create_recording, open_image_writer, write_attributes
from mutoscope.storage.recover import ImageReport, RecoverReport, recover
from mutoscope.storage.registry import BackendInfo, backends
from mutoscope.storage.registry import open_backend as open  # noqa: A004 - `storage.open`, as `zarr.open`
from mutoscope.storage.space import bytes_per_frame, free_bytes
from mutoscope.storage.stores import Stores
from mutoscope.storage.stream import info, open_reader, open_writer
from mutoscope.storage.writer import Durability, FrameStreamWriter, Receipt, WriterStatistics

__all__ = [
    "BackendInfo",
    "CameraLayout",
    "DataSink",
    "DataSource",
    "Durability",
    "FrameStreamReader",
    "FrameStreamWriter",
    "ImageReport",
    "PyramidReport",
    "Receipt",
    "RecoverReport",
    "Recording",
    "StorageBackend",
    "Stores",
    "WriterStatistics",
    "backends",
    "build_pyramid",
    "bytes_per_frame",
    "create_recording",
    "free_bytes",
    "info",
    "open",
    "open_image_writer",
    "open_reader",
    "open_writer",
    "recover",
    "write_attributes",
]
