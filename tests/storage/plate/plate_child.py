"""A process that a test ends with SIGKILL while it fills a plate: prints the name of every plane that is acknowledged.

python plate_child.py PLATE (import FOLDER | save START | batch START | replace START | share WHO | race WHO)
"""

from __future__ import annotations

import os
import random
import sys
from itertools import product

from plate_folders import plane_of

from mutoscope import storage
from mutoscope.model.errors import DatasetExistsError
from mutoscope.storage.plate import import_plate

SHAPE = (300, 280)
NAMES = [
    f"TimePoint_{t}/x_{well}_s{site}_w{wave}_z{z}.tif"
    for well, t, site, wave, z in product(("B02", "H12", "AA01"), (1, 2), (1, 2), (1, 2), (1, 2))
]
"""Forty-eight planes whose places let every axis of a plate grow."""


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def shuffled(seed: int) -> list[str]:
    """Return the names in an order of arrival."""
    names = list(NAMES)
    random.Random(seed).shuffle(names)
    return names


def import_(plate: str, folder: str) -> None:
    say("ready")
    import_plate(folder, plate, workers=2, progress=lambda done, total, name: say(name))


def save(plate: str, seed: str) -> None:
    """Each plane that is not there yet, in an order of its own."""
    with storage.open("ome-zarr", plate, filenames="imagexpress") as store:
        say("ready")
        for name in shuffled(int(seed)):
            if not store.exists(name):
                store.save(plane_of(name, SHAPE), name)
                say(name)


def batch(plate: str, seed: str) -> None:
    """All planes that are not there yet, at once, in an order of their own."""
    with storage.open("ome-zarr", plate, filenames="imagexpress") as store:
        names = [name for name in shuffled(int(seed)) if not store.exists(name)]
        planes = [plane_of(name, SHAPE) for name in names]
        say("ready")
        store.save_batch(planes, names)
        for name in names:
            say(name)


def replace(plate: str, start: str) -> None:
    """The same few planes again and again, each time with other pixels."""
    with storage.open("ome-zarr", plate, filenames="imagexpress", overwrite=True) as store:
        say("ready")
        number = int(start)
        while True:
            name = NAMES[number % 3]
            store.save(plane_of(f"{name} {number}", SHAPE), name)
            say(f"{name} {number}")
            number += 1


def share(plate: str, who: str) -> None:
    """A quarter of the planes, in an order of its own; the plate is made by whoever comes first."""
    with storage.open("ome-zarr", plate, filenames="imagexpress") as store:
        say("ready")
        sys.stdin.readline()
        for name in shuffled(int(who)):
            if NAMES.index(name) % 4 == int(who):
                store.save(plane_of(name, SHAPE), name)
    say("done")


def race(plate: str, who: str) -> None:
    """Try to be the first to store each plane."""
    with storage.open("ome-zarr", plate, filenames="imagexpress") as store:
        say("ready")
        sys.stdin.readline()
        for name in NAMES:
            try:
                store.save(plane_of(f"{name} {who}", SHAPE), name)
            except DatasetExistsError:
                say(f"told {name}")
            else:
                say(f"won {name}")


if __name__ == "__main__":
    roles = {"import": import_, "save": save, "batch": batch, "replace": replace, "share": share, "race": race}
    roles[sys.argv[2]](sys.argv[1], sys.argv[3])
