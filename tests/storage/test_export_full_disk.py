"""A full disk, on a small file system of its own: copies, exports, labels and tables say so and leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mutoscope import storage
from mutoscope.model.errors import DiskFullError

Mount = Callable[[int], Path]


def recording(path: Path, frames: int) -> Path:
    with storage.open_writer(path, shape=(256, 256), dtype="uint16") as writer:
        for frame in np.random.default_rng(1).integers(0, 60000, (frames, 256, 256), dtype="uint16"):
            writer.append(frame)
    return path


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (storage.convert, "copy.ome.zarr"),
        (storage.convert, "copy.ome.tiff"),
        (storage.export_fiji, "copy.tif"),
        (storage.export_qupath, "copy"),
        (storage.export_cellprofiler, "copy"),
    ],
)
def test_copies_are_not_there(mount: Mount, tmp_path: Path, make: Callable[..., Any], name: str) -> None:
    disk = mount(2000)  # KiB, of which a copy takes more
    source = recording(tmp_path / "run.ome.zarr", 40)
    with pytest.raises(DiskFullError, match="no space left"):
        make(source, disk / "out" / name)
    assert not list((disk / "out").iterdir())


def save_until_full(save: Callable[[int], None]) -> None:
    for number in range(99):
        save(number)


def test_labels_and_tables_are_not_there_and_the_data_set_is_as_it_was(mount: Mount) -> None:
    path = recording(mount(3000) / "run.ome.zarr", 4)
    noise = np.random.default_rng(2).integers(0, 2**31, (4, 256, 256), dtype="uint32")
    rows = np.random.default_rng(3).random(30000).view([("a", "f8")])
    storage.save_labels(path, "flat", noise[0])
    with pytest.raises(DiskFullError, match="no space left"):
        save_until_full(lambda number: storage.save_labels(path, f"stack{number}", noise))
    with pytest.raises(DiskFullError, match="no space left"):
        storage.save_labels(path, "flat", noise, overwrite=True)
    np.testing.assert_array_equal(storage.load_labels(path, "flat"), noise[0])
    with pytest.raises(DiskFullError, match="no space left"):
        save_until_full(lambda number: storage.save_table(path, f"t{number}", rows))
    for name in storage.list_labels(path)[1:]:
        np.testing.assert_array_equal(storage.load_labels(path, name), noise)
    for name in storage.list_tables(path):
        np.testing.assert_array_equal(storage.load_table(path, name), rows)
    assert storage.info(path)["complete"]
    assert not list(path.rglob("*-beside-*"))
