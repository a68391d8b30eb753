"""Wrong types given to a stream's writer or to a store: one sentence each that says what is taken, and nothing is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mutoscope import storage
from mutoscope.model.errors import ConfigError

WRITER: list[tuple[str, Any, str]] = [
    ("path", 3, "path is a path such as 'run.ome.zarr', not 3"),
    ("path", b"run.ome.zarr", "path is a path such as"),
    ("path", "", "path is a path such as 'run.ome.zarr', not ''"),
    ("path", "a\0.ome.zarr", "path is a path such as"),
    ("shape", 3, r"\(y, x\)"),
    ("shape", (4.5, 2), r"\(y, x\)"),
    ("dtype", None, "None"),
    ("dtype", "(2,", r"'\(2,'"),
    ("backend", ["ome-zarr"], r"there is no backend \['ome-zarr'\]"),
    ("name", 3, "3 cannot name a camera"),
    ("pixel_size_um", "a", "pixel_size_um is a positive number or None, not 'a'"),
    ("rate_hz", True, "rate_hz is a positive number or None, not True"),
    ("overwrite", "yes", "overwrite is True or False, not 'yes'"),
    ("resume", 1, "resume is True or False, not 1"),
    ("durability", None, "durability is 'process' or 'power', not None"),
    ("frames_per_shard", "a", "frames_per_shard must be a whole number, not 'a'|an OME-TIFF has no shards"),
    ("frames_per_shard", 1.5, "frames_per_shard must be a whole number, not 1.5|an OME-TIFF has no shards"),
    ("compression", ["zstd"], r"not \['zstd'\]"),
    ("ome_zarr_version", 0.4, "written in version '0.5' or '0.4', not 0.4|an OME-TIFF has no version"),
    ("pyramid", "yes", "pyramid is True or False, not 'yes'"),
    ("attributes", [1], r"attributes is a dict such as {'sample': 'beads'}, not \[1\]"),
    ("attributes", "abc", "attributes is a dict such as"),
    ("attributes", {1: 2}, "the name of an attribute is text, not 1"),
]


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tiff"])
@pytest.mark.parametrize(("name", "value", "words"), WRITER)
def test_a_writer_refuses_a_wrong_type(name: str, value: Any, words: str, suffix: str, tmp_path: Path) -> None:
    given = {"path": tmp_path / f"run{suffix}", "shape": (4, 5), "dtype": "uint16", name: value}
    with pytest.raises(ConfigError, match=words) as caught:
        storage.open_writer(given.pop("path"), **given)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


STORES = ["memory", "disk", "ome-tiff"]


@pytest.mark.parametrize("backend", [*STORES, "ome-zarr"])
def test_a_store_refuses_a_wrong_type_when_it_is_opened(backend: str, tmp_path: Path) -> None:
    for address in (3, b"results", ["results"]):
        with pytest.raises(ConfigError, match="the address of a store is a path such as 'results', not "):
            storage.open(backend, address)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="overwrite is True or False, not 'yes'"):
        storage.open(backend, tmp_path / "plate.ome.zarr", overwrite="yes")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("backend", STORES)
def test_a_store_refuses_a_wrong_name(backend: str, tmp_path: Path) -> None:
    image = np.zeros((4, 5), "uint16")
    with storage.open(backend, tmp_path / "results") as store:
        for name in (3, None, ["a.tif"], b"a.tif", image):
            with pytest.raises(ConfigError, match=f"a name is text, not {type(name).__name__}$"):
                store.save(image, name)
            for call in (store.load, store.is_file, store.is_dir, store.list_files, store.list_dirs, store.delete):
                with pytest.raises(ConfigError, match=f"a name is text, not {type(name).__name__}$"):
                    call(name)
            with pytest.raises(ConfigError, match="a name is text"):
                store.ensure_directory(name)
            with pytest.raises(ConfigError, match="a name is text"):
                store.save_batch([image], [name])
        with pytest.raises(ConfigError, match="a name is text, not ndarray"):
            store.save("a.tif", image)  # the other way round
        with pytest.raises(ConfigError, match="names are a list, not 3"):
            store.save_batch([image], 3)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="data are a list of items, not 3"):
            store.save_batch(3, ["a.tif"])  # type: ignore[arg-type]
        store.save(image, "a.tif")
        for call in (lambda: store.save(image, "a.tif", overwrite="no"), lambda: store.copy("a.tif", "b.tif", overwrite="no")):
            with pytest.raises(ConfigError, match="overwrite is True or False, not 'no'"):
                call()
        with pytest.raises(ConfigError, match="a name is text, not int"):
            store.copy("a.tif", 3)  # type: ignore[arg-type]
        assert store.list_files() == ["a.tif"]
