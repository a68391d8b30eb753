"""A process that a test ends with SIGKILL while it saves: prints one line for every save that returned.

python backend_child.py FOLDER (items|turns|race) [ARGUMENT]
"""

from __future__ import annotations

import os
import sys

import numpy as np

from mutoscope import storage
from mutoscope.model.errors import DatasetExistsError
from mutoscope.storage.suite import image_of

SUFFIXES = (".npy", ".tif", ".png", ".csv", ".json", ".txt")


def item_of(number: int, suffix: str) -> object:
    """Return the item that a number and a suffix determine."""
    if suffix in (".npy", ".tif", ".png"):
        return image_of(number, (40, 50))
    if suffix == ".csv":
        return np.array([(number, k) for k in range(300)], dtype=[("number", "i8"), ("k", "i8")])
    return {"number": number, "values": list(range(300))} if suffix == ".json" else f"{number}\n" * 300


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def items(folder: str, start: str = "0") -> None:
    """New names, one after the other, for ever."""
    store = storage.open("disk", folder)
    number = int(start)
    say("ready")
    while True:
        suffix = SUFFIXES[number % len(SUFFIXES)]
        store.save(item_of(number, suffix), f"new/{number}{suffix}", overwrite=True)
        say(f"new/{number}{suffix} {number}")
        number += 1


def turns(folder: str, start: str = "0") -> None:
    """The same names again and again."""
    store = storage.open("disk", folder, overwrite=True)
    number = int(start)
    say("ready")
    while True:
        suffix = SUFFIXES[number % len(SUFFIXES)]
        store.save(item_of(number, suffix), f"same{suffix}")
        say(f"same{suffix} {number}")
        number += 1


def race(folder: str, who: str) -> None:
    """Try to be the first to store each of a hundred names; one that is told so goes on with the next."""
    store = storage.open("disk", folder)
    say("ready")
    sys.stdin.readline()
    for number in range(100):
        store.save(image_of(int(who), (30, 30)), f"own/{who}-{number}.npy")
        try:
            store.save(image_of(int(who), (30, 30)), f"shared/{number}.npy")
        except DatasetExistsError:
            say(f"told {number}")
        else:
            say(f"won {number}")


if __name__ == "__main__":
    {"items": items, "turns": turns, "race": race}[sys.argv[2]](sys.argv[1], *sys.argv[3:])
