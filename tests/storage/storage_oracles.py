"""What the tests of storage share: independent readers to judge by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
import zarr
import zarrs  # noqa: F401  registers its codec pipeline
from storage_oracles_frames import frame_of


def zarr_ids(image: Path) -> np.ndarray:
    """Return ``frames/frame_id`` as zarr-python reads it."""
    return zarr.open_group(image, mode="r")["frames/frame_id"][:]


def zarr_frames(image: Path, count: int, first: int = 0) -> np.ndarray:
    """Return the frames `first` to `count` as zarr-python reads them."""
    array = zarr.open_group(image, mode="r")["0"]
    assert array.shape[0] >= count
    return array[first:count]


def zarrs_frames(image: Path, count: int, first: int = 0) -> np.ndarray:
    """Return the frames `first` to `count` as the Rust codecs of zarrs read them."""
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return zarr.open_group(image, mode="r")["0"][first:count]


def tensorstore_frames(image: Path, count: int, first: int = 0) -> np.ndarray:
    """Return the frames `first` to `count` as tensorstore reads them."""
    driver = "zarr3" if (image / "0" / "zarr.json").exists() else "zarr"
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": str(image / "0")}}
    return tensorstore.open(spec, recheck_cached_data=True).result()[first:count].read().result()


READERS: dict[str, Any] = {"zarr-python": zarr_frames, "tensorstore": tensorstore_frames, "zarrs": zarrs_frames}


def assert_exact(image: Path, ids: list[int], readers: tuple[str, ...] = ("zarr-python",)) -> None:
    """Assert that an image holds exactly the frames of `ids`, in order, and that all else is marked unwritten."""
    stored = zarr_ids(image)
    assert stored[: len(ids)].tolist() == ids
    assert not stored[len(ids) :].any()
    level = zarr.open_group(image, mode="r")["0"]
    assert len(ids) <= level.shape[0] <= stored.size
    if not ids:
        return
    expected = np.stack([frame_of(frame_id, level.shape[1:], str(level.dtype)) for frame_id in ids])
    for reader in readers:
        found = READERS[reader](image, len(ids))
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes(), reader


__all__ = ["READERS", "assert_exact", "frame_of", "tensorstore_frames", "zarr_frames", "zarr_ids", "zarrs_frames"]
