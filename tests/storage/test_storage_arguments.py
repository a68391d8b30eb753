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


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tiff"])
def test_a_slice_of_frames_is_a_stack_and_a_copy(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"run{suffix}"
    frames = np.arange(7 * 4 * 5, dtype="uint16").reshape(7, 4, 5)
    with storage.open_writer(path, shape=(4, 5), dtype="uint16") as writer:
        for frame in frames:
            writer.append(frame)
    with storage.open_reader(path) as reader:
        for wanted in (slice(None), slice(2, 5), slice(-2, None), slice(None, None, 3), slice(5, 100), slice(np.int64(1), 4)):
            stack = reader[wanted]
            assert stack.dtype == "uint16"
            assert np.array_equal(stack, frames[wanted])
            stack[:] = 0
            assert np.array_equal(reader[wanted], frames[wanted]), "a copy"
        assert reader[5:2].shape == (0, 4, 5)
        assert np.array_equal(reader[np.int64(3)], frames[3])
        with pytest.raises(ConfigError, match="a slice of frames goes forwards: its step is 1 or more, not -1"):
            reader[::-1]
        for wrong in ("a", 1.5, None, (0, 1)):
            with pytest.raises(TypeError, match="frames are taken by number or slice, not by "):
                reader[wrong]  # type: ignore[index]
            with pytest.raises(TypeError, match="the id of a frame is a whole number, not "):
                reader.frame(wrong)  # type: ignore[arg-type]
        with pytest.raises(IndexError, match="frame 7 of 7"):
            reader[7]


def test_frames_of_two_forms_are_no_stack(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    for shape in ((4, 5), (2, 3)):
        with storage.open_writer(path, shape=shape, dtype="uint16", resume=path.exists()) as writer:
            for _ in range(3):
                writer.append(np.ones(shape, "uint16"))
    with storage.open_reader(path) as reader:
        assert reader[0:3].shape == (3, 4, 5)
        assert reader[3:].shape == (3, 2, 3)
        with pytest.raises(ConfigError, match="frames 1 and 3 are not of one form, so they are no stack"):
            reader[1:5]
