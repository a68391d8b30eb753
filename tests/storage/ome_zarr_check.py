"""Reads images with a reader of OME-Zarr, in a process of its own: READER FRAMES PATH... prints path → {frames}."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numpy as np

# The packages are only there where this is run.


def ngff_zarr(path: str, frames: int) -> list[Any]:
    import ngff_zarr

    image = ngff_zarr.from_ngff_zarr(path, validate=True).images[0]
    return [image.data[t] for t in range(frames)]


def ngio(path: str, frames: int) -> list[Any]:
    import ngio

    image = ngio.open_ome_zarr_container(path, mode="r").get_image()
    return [image.get_as_numpy(t=t) for t in range(frames)]


def napari_ome_zarr(path: str, frames: int) -> list[Any]:
    from napari_ome_zarr import napari_get_reader

    data, options, kind = napari_get_reader(path)(path)[0]
    assert kind == "image", kind
    whole = data[0] if isinstance(data, list) else data
    axis = options.get("channel_axis")
    if axis is not None:
        whole = whole[(slice(None),) * axis + (0,)]
    return [whole[t] for t in range(frames)]


def main() -> None:
    read, frames = {each.__name__: each for each in (ngff_zarr, ngio, napari_ome_zarr)}[sys.argv[1]], int(sys.argv[2])
    found: dict[str, dict[str, Any]] = {}
    for path in sys.argv[3:]:
        try:
            planes = [np.asarray(plane) for plane in read(path, frames)]
            planes = [np.ascontiguousarray(plane.reshape(plane.shape[-2:])) for plane in planes]
            found[path] = {"ids": None, "frames": [hashlib.sha256(plane.tobytes()).hexdigest() for plane in planes]}
        except Exception as error:  # whatever it raises is its answer
            found[path] = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
