"""What the tests of plates share: names that are given any place, and readers from elsewhere."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
import zarr

from mutoscope.model.filenames import Components
from mutoscope.model.plate import WellName
from mutoscope.storage.plate._places import Place, place_of


class AnyName:
    """A parser that gives every name with the suffix ``.npy`` a field of its own."""

    name = "any"

    def parse(self, path: str) -> Components | None:
        if not path.endswith(".npy"):
            return None
        number = int.from_bytes(hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=6).digest(), "big")
        well = WellName(number % 8, number // 8 % 12)
        return Components(well=str(well), field=1 + number // 96 % 60_000, parser="any", template=path)

    def format(self, components: Components) -> str:
        return components.template


def zarr_plane(root: Path, place: Place, level: int = 0) -> np.ndarray[Any, Any]:
    """Return a plane as zarr-python reads it."""
    return np.asarray(zarr.open_array(root / place.image.path / str(level), mode="r")[place.tcz])


def tensorstore_plane(root: Path, place: Place, level: int = 0) -> np.ndarray[Any, Any]:
    """Return a plane as tensorstore reads it."""
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(root / place.image.path / str(level))}}
    return np.asarray(tensorstore.open(spec, recheck_cached_data=True).result()[place.tcz].read().result())


READERS = {"zarr-python": zarr_plane, "tensorstore": tensorstore_plane}


def zarr_states(root: Path, image: str) -> np.ndarray[Any, Any]:
    """Return ``planes/state`` of an image as zarr-python reads it."""
    return np.asarray(zarr.open_array(root / image / "planes" / "state", mode="r")[:])


def place(parser: Any, name: str) -> Place:
    """Return where a name with a numbered channel leads."""
    said = parser.parse(name)
    return place_of(said, said.indices().get("channel", 0), None)
