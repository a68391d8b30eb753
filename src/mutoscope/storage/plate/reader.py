"""The reader of a plate: the planes of its images by their places, in any stored size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError
from mutoscope.storage._formats import check_region
from mutoscope.storage.plate import _documents
from mutoscope.storage.plate._image import PlateImage
from mutoscope.storage.plate._plate import Plate
from mutoscope.storage.plate.description import PlateDescription, Position

__all__ = ["PlateReader"]


class PlateReader:
    """Reads the planes of a plate, also while others store more. Not thread-safe; it holds no file open.

    Parameters
    ----------
    path : path
        Of the plate.

    Raises
    ------
    DatasetNotFoundError, DatasetError
        If there is none, or it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        self._plate = Plate(self.path)
        self._keys = {key.path: key for key in self._plate.images()}

    def __repr__(self) -> str:
        return f"PlateReader({str(self.path)!r}, images={len(self._keys)})"

    @property
    def description(self) -> PlateDescription:
        """What is known of the plate."""
        return self._plate.description

    @property
    def images(self) -> tuple[str, ...]:
        """Its images, such as ``"B/03/0"``, well by well: those that there were at the last :meth:`refresh`."""
        return tuple(self._keys)

    def refresh(self) -> None:
        """Take up the images that others have made."""
        self._keys = {key.path: key for key in self._plate.images()}

    def _image(self, image: str) -> PlateImage:
        found = self._plate.image(self._keys[image]) if image in self._keys else None
        if found is None:
            raise KeyError(image)
        return found

    def form(self, image: str) -> tuple[tuple[int, int], str]:
        """Return shape (y, x) and dtype of an image's planes; KeyError if there is no such image."""
        spec = self._image(image).spec
        return spec.shape, spec.dtype

    def position(self, image: str) -> Position | None:
        """Return where an image lies on the plate, None if that is not known; KeyError if there is no such image."""
        return self.description.position(self._keys[image])

    def stored(self, image: str) -> NDArray[np.bool_]:
        """Return which planes are stored, shape (t, c, z), as it is now."""
        found: NDArray[np.bool_] = self._image(image).states() != _documents.MISSING
        return found

    def levels(self, image: str, tcz: tuple[int, int, int]) -> int:
        """Return in how many sizes a plane is stored; 1 while it is being replaced, as its smaller sizes may be older."""
        found = self._image(image)
        return 1 if found.state(tcz) == _documents.REPLACING else found.spec.levels

    def read(
        self, image: str, tcz: tuple[int, int, int], *, level: int = 0, rows: slice | None = None, columns: slice | None = None
    ) -> NDArray[Any]:
        """Return a stored plane in one of its sizes, or rows and columns of that, as a new array.

        Parameters
        ----------
        image : str
            One of `images`.
        tcz : tuple of int
            Its place.
        level : int
            0 for the full size, 1 for the half, …
        rows, columns : slice, optional
            In pixels of that size.

        Raises
        ------
        KeyError
            If there is no such image.
        ConfigError
            If it is not stored in that size, or rows or columns do not lie inside.
        DatasetError
            If the plane is not stored, or is damaged.
        """
        found = self._image(image)
        if not 0 <= level < found.spec.levels:
            raise ConfigError(f"{found.path}: is stored in {found.spec.levels} sizes, so there is no level {level}")
        height, width = found.spec.level_shape(level)
        region = (rows or slice(0, height), columns or slice(0, width))
        part = check_region((height, width), region, str(found.path))
        return found.read(tcz, level=level, bounds=(part[0], part[1]))
