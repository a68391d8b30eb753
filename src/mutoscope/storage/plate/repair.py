"""Repair of a plate: what a power cut may have left, and what killed writers did not finish."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np

from mutoscope.model.errors import DatasetError
from mutoscope.storage import _files
from mutoscope.storage.plate import _documents, overview
from mutoscope.storage.plate._plate import Plate

__all__ = ["PlateRepair", "repair_plate"]


class PlateRepair(msgspec.Struct, frozen=True):
    """What a repair found and did.

    Parameters
    ----------
    path : str
    checked : int
        Planes that were marked stored.
    renewed : tuple of str
        Planes whose smaller levels were made anew, by the names that they were stored under.
    lost : tuple of str
        Planes whose pixels are missing or damaged; they are marked missing now, and can be stored again.
    """

    path: str
    checked: int
    renewed: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return it for a person."""
        found = [f"{self.path}: {self.checked:,} planes checked, {len(self.renewed):,} renewed, {len(self.lost):,} lost"]
        found += [f"  lost: {name}" for name in self.lost]
        return "\n".join(found)


def repair_plate(path: str | os.PathLike[str]) -> PlateRepair:
    """Read every plane that is marked stored; renew smaller levels that are not whole, mark missing what cannot be read.

    Parameters
    ----------
    path : path
        Of a plate. Others may read it meanwhile, and write other planes.

    Raises
    ------
    DatasetNotFoundError, DatasetError
        If nothing is there, or the plate's documents are damaged.
    DatasetExistsError
        If another writer holds a plane that needs repair.
    """
    plate = Plate(Path(os.path.abspath(path)))
    checked, renewed, lost, wells = 0, [], [], set()
    with _files.translated(plate.root):
        for key in plate.images():
            image = plate.image(key)
            if image is None:
                raise DatasetError(f"{plate.root}: lists {key.path}, which is not there")
            image.remove_parts()
            states = image.states()
            for t, c, z in np.argwhere(states != _documents.MISSING).tolist():
                at = (t, c, z)
                checked += 1
                name = image.name(at)
                try:
                    image.read(at)
                except DatasetError:
                    image.remove(at, name)
                    lost.append(name or f"{key.path} {at}")
                    wells.add(key.well)
                    continue
                if states[at] == _documents.REPLACING or not image.looks_whole(at):
                    image.renew(at, name)
                    renewed.append(name)
        if wells:
            overview.update(plate, wells)
    return PlateRepair(str(plate.root), checked, tuple(renewed), tuple(lost))
