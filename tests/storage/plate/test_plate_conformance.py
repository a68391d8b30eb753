"""A plate keeps the rules that every store keeps, as far as a plate can hold what they are about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plate_names import AnyName, place, zarr_plane

from mutoscope import storage
from mutoscope.model.errors import ConfigError
from mutoscope.storage import StorageBackend
from mutoscope.storage.suite import TABLE_DTYPE, StorageSuite


class TestPlate(StorageSuite):
    images = tuple((".npy", shape, dtype) for shape in ((6, 9), (1, 1), (300, 517)) for dtype in ("uint8", "uint16", "float32"))
    refused = (
        ("a.npy", np.zeros((3, 3), "complex64")),
        ("a.npy", np.zeros((3, 3), "bool")),
        ("a.npy", np.zeros((0, 3), "uint8")),
        ("a.npy", np.zeros(5, "uint8")),
        ("a.npy", np.zeros((2, 5, 5), "uint8")),
        ("a.npy", np.zeros(3, TABLE_DTYPE)),
        ("a.npy", "text"),
        ("a.npy", {"a": 1}),
        ("a.json", np.zeros((3, 3))),
        ("a.unheard", np.zeros((3, 3))),
        ("a" * 254 + "/" + "b" * 254 + "/" + "c.npy", np.zeros((3, 3))),
    )
    tables = plain = text = None
    folders = reshapes = False

    def test_tables(self, store: StorageBackend, folder: Path) -> None:
        with pytest.raises(ConfigError, match="planes"):
            store.save(np.zeros(3, TABLE_DTYPE), "a.npy")

    def open_store(self, folder: Path, **options: Any) -> StorageBackend:
        return storage.open("OME-Zarr", folder / "plate.ome.zarr", filenames=AnyName(), **options)

    def read_independently(self, folder: Path, name: str) -> Any:
        return zarr_plane(folder / "plate.ome.zarr", place(AnyName(), name))


class TestCompressedPlate(TestPlate):
    """The same with compressed planes."""

    def open_store(self, folder: Path, **options: Any) -> StorageBackend:
        return super().open_store(folder, compression="zstd", **options)
