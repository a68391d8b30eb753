"""`memory` and `disk` keep the rules that every store keeps; what is on disk is read by tools from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from mutoscope import storage
from mutoscope.model.errors import ConfigError
from mutoscope.storage import StorageBackend
from mutoscope.storage.suite import StorageSuite, image_of, read_file_independently


class TestDisk(StorageSuite):
    def open_store(self, folder: Path, **options: Any) -> StorageBackend:
        return storage.open("disk", folder / "store", **options)

    def read_independently(self, folder: Path, name: str) -> Any:
        return read_file_independently(folder / "store" / name)


class TestMemory(StorageSuite):
    def open_store(self, folder: Path, **options: Any) -> StorageBackend:
        return storage.open("memory", f"memory://{folder}", **options)


class TestOmeTiff(StorageSuite):
    images = (
        *StorageSuite.images,
        *((".ome.tif", (6, 9), name) for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")),
        *((".ome.tiff", (3, 6, 9), "uint16"), (".ome.tif", (2, 3, 6, 9), "uint8"), (".ome.tif", (2, 3, 2, 4, 5), "float32")),
        (".ome.tif", (1, 1), "uint16"),
    )
    refused = (
        *StorageSuite.refused,
        ("a.ome.tif", np.zeros((3, 3), "complex64")),
        ("a.ome.tif", np.zeros((3, 3), bool)),
        ("a.ome.tif", np.zeros((1, 3, 3), "uint8")),
        ("a.ome.tif", np.zeros((0, 3), "uint8")),
        ("a.ome.tif", np.zeros(5, "uint8")),
        ("a.ome.tif", "text"),
    )

    def open_store(self, folder: Path, **options: Any) -> StorageBackend:
        return storage.open("ome-tiff", folder / "store", **options)

    def read_independently(self, folder: Path, name: str) -> Any:
        path = folder / "store" / name
        if ".ome." in name:
            with tifffile.TiffFile(path) as tiff:
                assert tiff.is_ome
        return read_file_independently(path)

    def test_an_ome_tiff_keeps_its_name_and_refuses_what_it_cannot_be(self, folder: Path) -> None:
        with self.open_store(folder, compression="zlib") as store:
            image = image_of(1, (3, 40, 50))
            store.save(image, "a.ome.tif")
            with tifffile.TiffFile(folder / "store" / "a.ome.tif") as tiff:
                assert (tiff.series[0].axes, tiff.pages[0].compression.name) == ("ZYX", "ADOBE_DEFLATE")
            for change in (store.copy, store.move):
                with pytest.raises(ConfigError, match="OME-TIFF"):
                    change("a.ome.tif", "b.tif")
            store.move("a.ome.tif", "b.ome.tiff")
            assert np.array_equal(store.load("b.ome.tiff"), image)
            with pytest.raises(ConfigError, match="not complex64"):
                store.save_batch([image, np.zeros((3, 3), "complex64")], ["c.ome.tif", "d.ome.tif"])
            assert store.list_files() == ["b.ome.tiff"]
        with pytest.raises(ConfigError, match="'zlib'"):
            storage.open("ome-tiff", folder, compression="lzw")
