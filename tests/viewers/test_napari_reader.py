"""The reader of napari's plug-in: arrays of planes that are read when they are indexed. Without napari."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mutoscope import storage
from mutoscope.model.frame import PlaneIndex
from mutoscope.viewers.napari.reader import LazyPlanes, get_reader, layers_of


def lazy(front: tuple[int, ...], missing: tuple[int, ...] | None = None) -> tuple[LazyPlanes, np.ndarray, list[Any]]:
    whole = np.random.default_rng(1).integers(0, 1000, (*front, 6, 9)).astype(np.uint16)
    read: list[Any] = []

    def plane(index: tuple[int, ...]) -> np.ndarray | None:
        read.append(index)
        return None if index == missing else whole[index]

    if missing is not None:
        whole = whole.copy()
        whole[missing] = 0
    return LazyPlanes(front, (6, 9), "uint16", plane), whole, read


@pytest.mark.parametrize(
    "key",
    [
        (0, 1),
        (-1, -1),
        (slice(None), 2),
        (1, slice(None, None, -2)),
        (0, 1, slice(2, 4)),
        (0, 1, slice(None), slice(1, -1, 3)),
        (0, 1, 2, 3),
        (Ellipsis, 3),
        (Ellipsis, slice(0, 2), slice(0, 2)),
        (slice(1, 1),),
        0,
        slice(0, 1),
        Ellipsis,
        (np.int64(1), np.int64(2), slice(None), slice(None)),
    ],
)
def test_it_is_indexed_as_numpy_is(key: Any) -> None:
    planes, whole, _ = lazy((2, 3), missing=(1, 1))
    found = planes[key]
    assert found.shape == whole[key].shape
    assert np.array_equal(found, whole[key])


def test_only_what_is_indexed_is_read() -> None:
    planes, whole, read = lazy((100, 3))
    assert (planes.shape, planes.ndim, planes.dtype, planes.size) == (whole.shape, 4, whole.dtype, whole.size)
    assert read == []
    assert np.array_equal(planes[7, 2], whole[7, 2])
    assert read == [(7, 2)]
    assert np.array_equal(np.asarray(planes), whole)
    with pytest.raises(IndexError):
        planes[100, 0]


@pytest.mark.parametrize("suffix", ["ome.zarr", "ome.tiff"])
def test_a_recording_without_places_is_a_stack(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"run.{suffix}"
    with storage.open_writer(path, shape=(20, 30), dtype="uint16", pixel_size_um=0.5) as writer:
        for number in range(5):
            writer.append(np.full((20, 30), number + 1, np.uint16))
    reader = get_reader(str(path))
    assert reader is not None
    ((planes, options, kind),) = reader(str(path))
    assert kind == "image"
    assert planes.shape == (5, 20, 30)
    assert [int(planes[number].mean()) for number in range(5)] == [1, 2, 3, 4, 5]
    assert options["axis_labels"] == ["t", "y", "x"]
    assert options["scale"] == [1.0, 0.5, 0.5]


def test_frames_lie_where_they_say(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(4, 5), dtype="uint16") as writer:
        for t in range(2):
            for z in range(3):
                for c in range(2):
                    if (t, z) != (1, 2):
                        writer.append(np.full((4, 5), 100 * t + 10 * z + c, np.uint16), index=PlaneIndex(t=t, c=c, z=z))
    layers = layers_of(path)
    assert [options["name"] for _, options, _ in layers] == ["run channel 0", "run channel 1"]
    for c, (planes, options, _) in enumerate(layers):
        assert options["axis_labels"] == ["t", "z", "y", "x"]
        assert planes.shape == (2, 3, 4, 5)
        assert (planes[1, 1] == 110 + c).all()
        assert (planes[1, 2] == 0).all(), "it is not stored"


def test_a_plate_has_a_layer_for_each_channel(tmp_path: Path) -> None:
    store = storage.open("ome-zarr", tmp_path / "plate.ome.zarr", filenames="imagexpress")
    for well in ("A01", "B03"):
        for channel in (1, 2):
            for z in (1, 2):
                if (well, z) != ("B03", 2):
                    store.save(np.full((8, 9), 10 * channel + z, np.uint16), f"{well}_s1_w{channel}_z{z}_t1.tif")
    store.close()
    layers = layers_of(tmp_path / "plate.ome.zarr")
    assert len(layers) == 2
    for channel, (planes, options, _) in enumerate(layers, 1):
        assert options["axis_labels"] == ["field", "t", "z", "y", "x"]
        assert len(options["metadata"]["images"]) == 2
        assert planes.shape == (2, 1, 2, 8, 9)
        assert (planes[0, 0, 1] == 10 * channel + 2).all()
        assert (planes[1, 0, 0] == 10 * channel + 1).all()
        assert (planes[1, 0, 1] == 0).all()


def test_what_is_no_data_set_of_ours_is_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "other.zarr").mkdir()
    (tmp_path / "notes.ome.tif").write_bytes(b"II*\0 no TIFF")
    assert get_reader(str(tmp_path / "other.zarr")) is None
    assert get_reader(str(tmp_path / "notes.ome.tif")) is None
    assert get_reader(str(tmp_path / "absent.zarr")) is None
    assert get_reader([str(tmp_path / "other.zarr")]) is None
