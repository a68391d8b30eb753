"""`memory` and `disk` keep the rules that every store keeps; what is on disk is read by tools from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mutoscope import storage
from mutoscope.storage import StorageBackend
from mutoscope.storage.suite import StorageSuite, read_file_independently


class TestDisk(StorageSuite):
    def open_store(self, folder: Path, **options: Any) -> StorageBackend:
        return storage.open("disk", folder / "store", **options)

    def read_independently(self, folder: Path, name: str) -> Any:
        return read_file_independently(folder / "store" / name)


class TestMemory(StorageSuite):
    def open_store(self, folder: Path, **options: Any) -> StorageBackend:
        return storage.open("memory", f"memory://{folder}", **options)
