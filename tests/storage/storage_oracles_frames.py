"""Frames that their id determines: no two ids give the same one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mutoscope.storage import CameraLayout

FAST = CameraLayout((24, 40), "uint16", frames_per_shard=4)


def fast(compression: str = "none", version: str = "0.5") -> CameraLayout:
    """Return small shards of small frames; OME-Zarr 0.4 has no shards."""
    return replace(FAST, compression=compression, frames_per_shard=FAST.frames_per_shard if version == "0.5" else None)


def frame_of(frame_id: int, shape: tuple[int, int] = (24, 40), dtype: str = "uint16") -> np.ndarray:
    """Return the frame that belongs to an id."""
    rng = np.random.default_rng(frame_id)
    if dtype.startswith("float"):
        return rng.normal(size=shape).astype(dtype)
    raw = rng.integers(1, 255, size=(*shape, np.dtype(dtype).itemsize), dtype=np.uint8)
    return raw.view(dtype)[..., 0]
