"""Saves labels and tables until a test ends it with SIGKILL.

python beside_child.py DATASET (labels|tables) NAME [overwrite] [once] [race]
python beside_child.py DATASET (labels|tables) NAME delete
"""

from __future__ import annotations

import os
import sys

import numpy as np

from mutoscope import storage
from mutoscope.model.errors import DatasetExistsError

SHAPE = (300, 520)


def labels_of(number: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 9, shape).astype("uint16")


def table_of(number: int) -> np.ndarray:
    rows = [(k + 1, number / 3, f"{number:03}") for k in range(400)]
    return np.array(rows, [("label", "u4"), ("x_px", "f4"), ("name", "U3")])


def save(dataset: str, kind: str, name: str, number: int, overwrite: bool) -> None:
    if kind == "labels":
        storage.save_labels(dataset, name, labels_of(number), overwrite=overwrite)
    else:
        storage.save_table(dataset, name, table_of(number), overwrite=overwrite)


if __name__ == "__main__":
    _, path, kind, name, *rest = sys.argv
    os.write(1, b"ready\n")
    if "delete" in rest:
        (storage.delete_labels if kind == "labels" else storage.delete_table)(path, name)
        sys.exit()
    if "race" in rest:
        sys.stdin.readline()
    for number in range(1, 2 if "once" in rest or "race" in rest else 1000):
        try:
            save(path, kind, name, number, "overwrite" in rest)
        except DatasetExistsError:
            os.write(1, b"refused\n")
        else:
            os.write(1, f"{number}\n".encode())
