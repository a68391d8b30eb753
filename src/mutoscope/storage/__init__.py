"""Where pixels rest: stores of items, and streams of frames that are written to disk, and read, while they grow.

A *store* (`open`, `backends`, `Stores`) takes and gives items by name: images, tables, ROIs, JSON, text. Every store keeps the
rules of `mutoscope.storage.interface`, and `mutoscope.storage.suite` checks them.

A *stream* is a data set that is made by `create_recording` (or `open_writer`, for one stream), which one process calls; each
image has one writer, which closes it. Readers open it at any time, in any process. Nothing but the data set itself is left
behind: a writer's lock ends with its process.

Importing this package costs next to nothing: a name loads what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mutoscope.storage._pyramid import PyramidReport, build_pyramid
    from mutoscope.storage._recover import ImageReport, RecoverReport, open_images, recover
    from mutoscope.storage._run_tables import run_tables
    from mutoscope.storage.converting import ConvertReport, convert
    from mutoscope.storage.exporting import ExportReport, export_cellprofiler, export_fiji, export_qupath
    from mutoscope.storage.interface import DataSink, DataSource, StorageBackend
    from mutoscope.storage.labels import LabelsInfo, delete_labels, labels_info, list_labels, load_labels, save_labels
    from mutoscope.storage.reader import FrameStreamReader
    from mutoscope.storage.recording import CameraLayout, Recording, create_recording, open_image_writer, write_attributes
    from mutoscope.storage.registry import BackendInfo, backends
    from mutoscope.storage.registry import open_backend as open  # noqa: A004 - `storage.open`, as `zarr.open`
    from mutoscope.storage.space import bytes_per_frame, free_bytes
    from mutoscope.storage.stores import Stores
    from mutoscope.storage.stream import info, open_reader, open_writer
    from mutoscope.storage.tables import delete_table, list_tables, load_table, save_table
    from mutoscope.storage.writer import Durability, FrameStreamWriter, Receipt, WriterStatistics

__all__ = [
    "BackendInfo",
    "CameraLayout",
    "ConvertReport",
    "DataSink",
    "DataSource",
    "Durability",
    "ExportReport",
    "FrameStreamReader",
    "FrameStreamWriter",
    "ImageReport",
    "LabelsInfo",
    "PyramidReport",
    "Receipt",
    "Recording",
    "RecoverReport",
    "StorageBackend",
    "Stores",
    "WriterStatistics",
    "backends",
    "build_pyramid",
    "bytes_per_frame",
    "convert",
    "create_recording",
    "delete_labels",
    "delete_table",
    "export_cellprofiler",
    "export_fiji",
    "export_qupath",
    "free_bytes",
    "info",
    "labels_info",
    "list_labels",
    "list_tables",
    "load_labels",
    "load_table",
    "open",
    "open_image_writer",
    "open_images",
    "open_reader",
    "open_writer",
    "recover",
    "run_tables",
    "save_labels",
    "save_table",
    "write_attributes",
]

_HOMES = {
    "BackendInfo": "mutoscope.storage.registry",
    "CameraLayout": "mutoscope.storage.recording",
    "ConvertReport": "mutoscope.storage.converting",
    "DataSink": "mutoscope.storage.interface",
    "DataSource": "mutoscope.storage.interface",
    "Durability": "mutoscope.storage.writer",
    "ExportReport": "mutoscope.storage.exporting",
    "FrameStreamReader": "mutoscope.storage.reader",
    "FrameStreamWriter": "mutoscope.storage.writer",
    "ImageReport": "mutoscope.storage._recover",
    "LabelsInfo": "mutoscope.storage.labels",
    "PyramidReport": "mutoscope.storage._pyramid",
    "Receipt": "mutoscope.storage.writer",
    "Recording": "mutoscope.storage.recording",
    "RecoverReport": "mutoscope.storage._recover",
    "StorageBackend": "mutoscope.storage.interface",
    "Stores": "mutoscope.storage.stores",
    "WriterStatistics": "mutoscope.storage.writer",
    "backends": "mutoscope.storage.registry",
    "build_pyramid": "mutoscope.storage._pyramid",
    "bytes_per_frame": "mutoscope.storage.space",
    "convert": "mutoscope.storage.converting",
    "create_recording": "mutoscope.storage.recording",
    "delete_labels": "mutoscope.storage.labels",
    "delete_table": "mutoscope.storage.tables",
    "export_cellprofiler": "mutoscope.storage.exporting",
    "export_fiji": "mutoscope.storage.exporting",
    "export_qupath": "mutoscope.storage.exporting",
    "free_bytes": "mutoscope.storage.space",
    "info": "mutoscope.storage.stream",
    "labels_info": "mutoscope.storage.labels",
    "list_labels": "mutoscope.storage.labels",
    "list_tables": "mutoscope.storage.tables",
    "load_labels": "mutoscope.storage.labels",
    "load_table": "mutoscope.storage.tables",
    "open": "mutoscope.storage.registry:open_backend",
    "open_image_writer": "mutoscope.storage.recording",
    "open_images": "mutoscope.storage._recover",
    "open_reader": "mutoscope.storage.stream",
    "open_writer": "mutoscope.storage.stream",
    "recover": "mutoscope.storage._recover",
    "run_tables": "mutoscope.storage._run_tables",
    "save_labels": "mutoscope.storage.labels",
    "save_table": "mutoscope.storage.tables",
    "write_attributes": "mutoscope.storage.recording",
}
"""Where each name is, with its name there where it is another."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mutoscope.storage' has no attribute {name!r}")
    home, _, own = _HOMES[name].partition(":")
    found = getattr(importlib.import_module(home), own or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
