"""Reads images with ngff-zarr, in a process of its own: ngff_zarr_check.py FRAMES PATH... prints path → {frames}."""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np


def main() -> None:
    import ngff_zarr  # only there, where this is run

    found = {}
    for path in sys.argv[2:]:
        try:
            image = ngff_zarr.from_ngff_zarr(path, validate=True).images[0]
            planes = [np.ascontiguousarray(image.data[t]) for t in range(int(sys.argv[1]))]
            found[path] = {"ids": None, "frames": [hashlib.sha256(plane.tobytes()).hexdigest() for plane in planes]}
        except Exception as error:  # whatever it raises is its answer
            found[path] = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
