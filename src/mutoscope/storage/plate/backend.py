"""The store of a plate: planes go in and come out by the names that the microscope gave them."""

from __future__ import annotations

import fnmatch
import os
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError, DatasetExistsError, DatasetNotFoundError
from mutoscope.model.filenames import Components, ParserLike
from mutoscope.model.plate import PlateGeometry
from mutoscope.storage import _files, _formats, _layout, _names
from mutoscope.storage.interface import Name, StorageBackend
from mutoscope.storage.plate import _chunk, _documents, _places, overview
from mutoscope.storage.plate._image import PlateImage
from mutoscope.storage.plate._places import ImageKey, Place
from mutoscope.storage.plate._plate import Plate, is_plate
from mutoscope.storage.plate.description import PlateDescription

__all__ = ["PlateBackend"]


class PlateBackend(StorageBackend):
    """A plate in OME-Zarr 0.5 (HCS): every plane lands where its vendor's name says. Safe for threads and processes.

    Parameters
    ----------
    address : path, optional
        Of the plate, ``….ome.zarr``; made with the first save. ``./mutoscope-data/<UTC stamp>.ome.zarr``, if not given.
    filenames : str or NameParser, optional
        How the microscope names its files; ``"auto"``, if not given.
    overwrite : bool
        Whether a plane replaces one that is there, where a call does not say so itself.
    wells : int, optional
        How many wells the plate has: 6, 12, 24, 48, 96, 384, 1536. The smallest plate that has all wells, if not given.
    pixel_size_um, z_step_um : float, optional
        Saved as the scale.
    pyramid : bool
        Whether to store smaller levels, down to 256 pixels.
    overview : bool
        Whether `close` makes the overview of the plate anew, if something was stored.
    compression : str, optional
        ``"none"``, which is the default, ``"blosc-lz4"`` or ``"zstd"``: of each plane as a whole, for images that this store
        makes.
    description : PlateDescription, optional
        All that is known of the plate; for a plate that is there already, see `describe`.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from mutoscope import storage
    >>> folder = tempfile.mkdtemp()
    >>> with storage.open("ome-zarr", f"{folder}/plate.ome.zarr", filenames="imagexpress") as plate:
    ...     plate.save(np.ones((4, 6), "uint16"), "exp_B03_s1_w2.tif")
    ...     plate.list_files(), int(plate.load("exp_B03_s1_w2.tif").sum())
    (['exp_B03_s1_w2.tif'], 24)
    """

    def __init__(
        self,
        address: Name | None = None,
        *,
        filenames: ParserLike | None = None,
        overwrite: bool = False,
        wells: int | None = None,
        pixel_size_um: float | None = None,
        z_step_um: float | None = None,
        pyramid: bool = True,
        overview: bool = True,
        compression: str | None = None,
        description: PlateDescription | None = None,
    ) -> None:
        if address is None:
            address = Path("mutoscope-data") / f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}.ome.zarr"
        super().__init__(address, filenames="auto" if filenames is None else filenames, overwrite=overwrite)
        if description is not None and not (wells is pixel_size_um is z_step_um is None):
            raise ConfigError("give either a description of the plate, or wells, pixel_size_um and z_step_um")
        geometry = None if wells is None else PlateGeometry.standard(wells)
        self._given = description or PlateDescription(geometry=geometry, pixel_size_um=pixel_size_um, z_step_um=z_step_um)
        self.path = Path(os.path.abspath(address))
        self._pyramid, self._overview = pyramid, overview
        self._compression = _layout.check_compression(compression)
        self._lock = threading.Lock()
        self._touched: set[ImageKey] = set()
        self._plate: Plate | None = None
        if os.path.lexists(self.path):
            if not self.path.is_dir():
                raise ConfigError(f"{self.path}: is not a folder")
            if is_plate(self.path):
                self._plate = Plate(self.path)
            elif any(self.path.iterdir()):
                raise ConfigError(f"{self.path}: is there already, and is no plate of Mutoscope")

    def __str__(self) -> str:
        return str(self.path)

    # ------------------------------------------------------------------ where names lead

    @property
    def plate(self) -> Plate | None:
        """The plate on disk, None as long as there is none."""
        if self._plate is None and is_plate(self.path):
            self._plate = Plate(self.path)
        return self._plate

    @property
    def description(self) -> PlateDescription:
        """What is known of the plate."""
        plate = self.plate
        return self._given if plate is None else plate.description

    def describe(self, description: PlateDescription) -> None:
        """Say what the plate is: channels, pixel size, positions. Images that are there are described anew."""
        self._check_open()
        self._given = description
        if self.plate is not None:
            self.plate.describe(description)

    def _said(self, key: str) -> Components:
        assert self.filenames is not None
        said = self.filenames.parse(key)
        if said is None:
            raise ConfigError(f"{key!r} is no file name of {self.filenames.name}, so it has no place in a plate")
        return said

    def place(self, name: Name) -> Place | None:
        """Return where a name leads, None if its channel is one that the plate does not have.

        Raises
        ------
        ConfigError
            If the name cannot be, or is none of a plane.
        """
        key = _names.check_name(name)
        return self._place(self._said(key), key)

    def _place(self, said: Components, key: str) -> Place | None:
        channel = self._channel(said, key, make=False)
        try:
            return None if channel is None else _places.place_of(said, channel, self.description.geometry)
        except ConfigError as error:
            raise ConfigError(f"{key!r}: {error}") from None

    def _channel(self, said: Components, key: str, *, make: bool) -> int | None:
        named = any(channel.key for channel in self.description.channels)
        if isinstance(said.channel, str) or (named and said.channel is not None):
            text = str(said.channel)
            keys = [channel.key for channel in self.description.channels]
            if text not in keys and self.plate is not None:
                self.plate.refresh()  # another process may have brought it
                keys = [channel.key for channel in self.description.channels]
            if text in keys:
                return keys.index(text)
            if self.description.channels and not named:
                raise ConfigError(f"{key!r} names a channel, and the channels of {self} have numbers")
            if not make:
                return None
            if self.plate is not None:
                return self.plate.channel_of(text)
            return 0 if not keys else None
        return said.indices().get("channel", 0)

    def _image_of(self, key: str) -> tuple[PlateImage, Place] | None:
        """Return the image and place of a stored plane, None if there is none of this name."""
        plate = self.plate
        if plate is None:
            return None
        try:
            said = self._said(key)
            place = self._place(said, key)
        except ConfigError:
            return None
        image = None if place is None else plate.image(place.image)
        if image is None or place is None or image.state(place.tcz) == _documents.MISSING:
            return None
        if said.source and plate.description.source not in ("", said.source):
            return None
        return image, place

    def _found(self, name: Name) -> tuple[PlateImage, Place, str]:
        self._check_open()
        key = _names.check_name(name)
        found = self._image_of(key)
        if found is None:
            if self._is_folder(key):
                raise ConfigError(f"{self}: {key!r} is a folder")
            raise _names.not_found(key, self, (each for each, _ in zip(self._all_names(), range(10_000), strict=False)))
        return (*found, key)

    def _all_names(self) -> Iterator[str]:
        plate = self.plate
        for key in plate.images() if plate is not None else ():
            image = plate.image(key) if plate is not None else None
            if image is not None:
                for _, name in image.names():
                    yield name

    # ------------------------------------------------------------------ planes

    def save(self, data: Any, name: Name, *, overwrite: bool | None = None) -> None:
        self._check_open()
        key = _names.check_new_name(name)
        if len(key.encode()) > _documents.NAME_BYTES:
            raise ConfigError(f"{key[:60]!r}…: the name of a plane has at most {_documents.NAME_BYTES} bytes")
        said = self._said(key)
        kind, value = _formats.classify(data, key)
        if kind != "array":
            raise ConfigError(f"{key!r}: a plate stores planes (y, x), not {_formats._WORDS[kind]}")
        try:
            spec = _documents.plan_image(value.shape, value.dtype, pyramid=self._pyramid, compression=self._compression)
            _chunk.check_possible(spec)
        except ConfigError as error:
            raise ConfigError(f"{key!r}: {error}") from None
        place = self._ready(said, key, spec)
        plate = self.plate
        assert plate is not None
        with self._lock:
            plate.claim_source(said.source, key)
            image = plate.ensure_image(place.image, spec)
            plane = image.conform(value, key)
            plate.ensure_extent(image, place.tcz)
            self._touched.add(place.image)
        image.write(plane, place.tcz, key, overwrite=self._replaces(overwrite))

    def _ready(self, said: Components, key: str, spec: _documents.PlateImageSpec) -> Place:
        """Return the place of a new plane; the plate and the plane's channel are there afterwards."""
        with self._lock:
            channel = self._channel(said, key, make=True)
            try:
                place = _places.place_of(said, 0 if channel is None else channel, self.description.geometry)
            except ConfigError as error:
                raise ConfigError(f"{key!r}: {error}") from None
            if self.plate is None:
                try:
                    self._plate = Plate.make(self.path, self._given, {place.image: spec})
                except DatasetExistsError:
                    if self.plate is None:
                        raise
            if isinstance(said.channel, str):
                channel = self._channel(said, key, make=True)
                assert channel is not None
                place = _places.place_of(said, channel, self.description.geometry)
            return place

    def load(self, name: Name) -> NDArray[Any]:
        image, place, _ = self._found(name)
        return image.read(place.tcz)

    def load_region(self, name: Name, region: Any) -> NDArray[Any]:
        image, place, key = self._found(name)
        rows, columns = _formats.check_region(image.spec.shape, region, repr(key))
        return image.read(place.tcz, bounds=(rows, columns))

    def _check_batch(self, items: Sequence[Any], names: Sequence[str], overwrite: bool) -> None:
        seen: dict[Place, str] = {}
        for name in names:
            place = self.place(name)
            if place is None:
                continue
            if place in seen:
                raise ConfigError(f"{seen[place]!r} and {name!r} are the same plane ({place}); nothing was stored")
            seen[place] = name
            if not overwrite and self._image_of(name) is not None:
                raise self._taken(name)

    # ------------------------------------------------------------------ what is there

    def list_files(self, folder: Name = "", *, pattern: str | None = None, recursive: bool = False) -> list[str]:
        found = []
        prefix = self._checked_folder(folder)
        for name in self._all_names():
            rest = name[len(prefix) :]
            if not name.startswith(prefix) or ("/" in rest and not recursive):
                continue
            if pattern is None or fnmatch.fnmatchcase(name.rpartition("/")[2], pattern):
                found.append(name)
        return sorted(found, key=_names.natural_key)

    def list_dirs(self, folder: Name = "") -> list[str]:
        prefix = self._checked_folder(folder)
        names = {name[len(prefix) :] for name in self._all_names() if name.startswith(prefix)}
        found = {prefix + rest.partition("/")[0] for rest in names if "/" in rest}
        return sorted(found, key=_names.natural_key)

    def _checked_folder(self, folder: Name) -> str:
        self._check_open()
        key = _names.check_folder(folder)
        if key and not self._is_folder(key):
            if self._image_of(key) is not None:
                raise ConfigError(f"{self}: {key!r} is an item, not a folder")
            raise DatasetNotFoundError(f"{self}: there is no folder {key!r}")
        return f"{key}/" if key else ""

    def _is_folder(self, key: str) -> bool:
        return any(name.startswith(f"{key}/") for name in self._all_names())

    def is_file(self, name: Name) -> bool:
        self._check_open()
        key = _names.check_folder(name)
        return bool(key) and self._image_of(key) is not None

    def is_dir(self, name: Name) -> bool:
        self._check_open()
        key = _names.check_folder(name)
        return not key or self._is_folder(key)

    # ------------------------------------------------------------------ changes

    def delete(self, name: Name, *, recursive: bool = False) -> None:
        self._check_open()
        key = _names.check_name(name)
        if self._image_of(key) is None and self._is_folder(key):
            if not recursive:
                raise ConfigError(f"{self}: the folder {key!r} is not empty; say recursive=True to delete all in it")
            for inside in self.list_files(key, recursive=True):
                self.delete(inside)
            return
        image, place, key = self._found(name)
        image.remove(place.tcz, key)
        self._touched.add(place.image)

    def copy(self, source: Name, target: Name, *, overwrite: bool | None = None) -> None:
        image, place, key = self._found(source)
        wanted = _names.check_new_name(target)
        if self.place(wanted) == place:
            raise ConfigError(f"{self}: {key!r} cannot become {wanted!r}: they are one plane")
        self.save(image.read(place.tcz), wanted, overwrite=overwrite)

    def move(self, source: Name, target: Name, *, overwrite: bool | None = None) -> None:
        """Copy a plane to another place, then remove it from the first; a process that is killed between may leave both."""
        self.copy(source, target, overwrite=overwrite)
        self.delete(source)

    def ensure_directory(self, name: Name) -> None:
        """Refused for all but the root: the folders of a plate's names are those of its planes."""
        self._check_open()
        key = _names.check_new_folder(name)
        if key and not self._is_folder(key):
            raise ConfigError(f"{self}: a plate has no folder {key!r} without planes in it")

    # ------------------------------------------------------------------ the end

    def finish(self) -> None:
        """Have all images that were written to declare as much as the largest, and make the overview anew."""
        plate = self.plate
        with self._lock:
            touched, self._touched = self._touched, set()
        if plate is None or not touched:
            return
        plate.even_out(touched)
        if self._overview:
            with _files.translated(self.path):
                overview.update(plate, {key.well for key in touched})

    def close(self) -> None:
        """Finish the plate and end the use of this store; twice is fine."""
        if not self.closed:
            try:
                self.finish()
            finally:
                super().close()
