"""The store of a plate: planes go in and come out by the names that the microscope gave them."""

from __future__ import annotations

import fnmatch
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError, DatasetExistsError, DatasetNotFoundError
from mutoscope.model.filenames import Components, ParserLike
from mutoscope.model.plate import PlateGeometry
from mutoscope.storage import _files, _formats, _layout, _names
from mutoscope.storage.interface import Name, StorageBackend, _paired
from mutoscope.storage.plate import _chunk, _documents, _places, overview
from mutoscope.storage.plate._batch import BatchWriter, Plane, run_length
from mutoscope.storage.plate._image import PlateImage
from mutoscope.storage.plate._places import ImageKey, Place
from mutoscope.storage.plate._plate import Plate, is_plate
from mutoscope.storage.plate.description import PlateDescription

__all__ = ["PlateBackend"]


class _New(NamedTuple):
    """A plane that is to be stored."""

    pixels: NDArray[Any]
    name: str
    place: Place
    spec: _documents.PlateImageSpec


def _settle(plate: Plate, news: Sequence[_New]) -> tuple[PlateImage, list[Plane]]:
    """Return the image of planes, made if need be, which declares them afterwards, and the planes as it stores them."""
    first = news[0]
    image = plate.ensure_image(first.place.image, first.spec)
    planes = [Plane(image.conform(new.pixels, new.name), new.place.tcz, new.name) for new in news]
    t, c, z = (max(each) for each in zip(*(plane.at for plane in planes), strict=True))
    plate.ensure_extent(image, (t, c, z))
    return image, planes


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
        ``"none"``, which is the default, ``"blosc-lz4"``, ``"blosc-zstd"`` or ``"zstd"``: of each plane as a whole, for images
        that this store makes.
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
        if self.plate is None:
            return None
        try:
            return self._stored(self._said(key), key)
        except ConfigError:
            return None

    def _stored(self, said: Components, key: str) -> tuple[PlateImage, Place] | None:
        """Return the image and place of a plane whose name says this, None if it is not stored."""
        place = self._place(said, key)
        return None if place is None else self._stored_at(said, place)

    def _stored_at(self, said: Components, place: Place) -> tuple[PlateImage, Place] | None:
        plate = self.plate
        if plate is None:
            return None
        image = plate.image(place.image)
        if image is None or image.state(place.tcz) == _documents.MISSING:
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
        plate, news = self._prepare([(data, key, self._new(key))])
        with self._lock:
            image, planes = _settle(plate, news)
        for plane in planes:
            image.write(plane.pixels, plane.at, plane.name, overwrite=self._replaces(overwrite))

    def save_batch(self, data: Iterable[Any], names: Iterable[Name], *, overwrite: bool | None = None) -> None:
        """Store several planes on all cores, in no order that is promised.

        Each is all or nothing. Names, their places and lengths are checked before the first is stored. When one of them cannot
        be stored, those under way are written to their end and no further one is begun; the error carries a note that says how
        many were stored.
        """
        self._check_open()
        items, given_names = _paired(data, names)
        keys = [_names.check_new_name(name) for name in given_names]
        replaces = self._replaces(overwrite)
        images: dict[ImageKey, list[tuple[Any, str, Components]]] = {}
        for item, key, (said, image) in zip(items, keys, self._check_places(keys, replaces), strict=True):
            images.setdefault(image, []).append((item, key, said))
        work = BatchWriter(overwrite=replaces)
        length = run_length(len(keys))
        try:
            with work:
                for given in images.values():
                    for first in range(0, len(given), length):
                        work.take(partial(_settle, *self._prepare(given[first : first + length])))
        except Exception as error:
            error.add_note(f"{work.stored} of {len(keys)} planes of the batch were stored")
            raise

    def _check_places(self, names: Sequence[str], overwrite: bool) -> list[tuple[Components, ImageKey]]:
        """Return what names say, and the images they lead to; raise if two mean one plane, or one is taken."""
        seen: dict[Place, str] = {}
        found = []
        for key in names:
            said = self._new(key)
            place = self._place(said, key)
            found.append((said, self._image_key(said, key) if place is None else place.image))
            if place is None:
                continue
            if place in seen:
                raise ConfigError(f"{seen[place]!r} and {key!r} are the same plane ({place}); nothing was stored")
            seen[place] = key
            if not overwrite and self._stored_at(said, place) is not None:
                raise self._taken(key)
        return found

    def _new(self, key: str) -> Components:
        """Return what the name of a new plane says."""
        if len(key.encode()) > _documents.NAME_BYTES:
            raise ConfigError(f"{key[:60]!r}…: the name of a plane has at most {_documents.NAME_BYTES} bytes")
        return self._said(key)

    def _image_key(self, said: Components, key: str) -> ImageKey:
        """Return the image of a plane, whose channel may be yet to come."""
        try:
            return _places.place_of(said, 0, self.description.geometry).image
        except ConfigError as error:
            raise ConfigError(f"{key!r}: {error}") from None

    def _prepare(self, given: Sequence[tuple[Any, str, Components]]) -> tuple[Plate, list[_New]]:
        """Return new planes with their places, and the plate, which is there and has their channels afterwards.

        Parameters
        ----------
        given : sequence of (data, name, Components)
            One or more planes of one image.
        """
        found = []
        specs: dict[tuple[Any, ...], _documents.PlateImageSpec] = {}
        for data, key, said in given:
            kind, value = _formats.classify(data, key)
            if kind != "array":
                raise ConfigError(f"{key!r}: a plate stores planes (y, x), not {_formats._WORDS[kind]}")
            spec = specs.get((value.shape, value.dtype))
            if spec is None:
                try:
                    spec = _documents.plan_image(value.shape, value.dtype, pyramid=self._pyramid, compression=self._compression)
                    _chunk.check_possible(spec)
                except ConfigError as error:
                    raise ConfigError(f"{key!r}: {error}") from None
                specs[value.shape, value.dtype] = spec
            plate, place = self._ready(said, key, spec)
            with self._lock:
                plate.claim_source(said.source, key)
                self._touched.add(place.image)
            found.append(_New(value, key, place, spec))
        return plate, found

    def _ready(self, said: Components, key: str, spec: _documents.PlateImageSpec) -> tuple[Plate, Place]:
        """Return the plate and the place of a new plane; the plane's channel is there afterwards."""
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
            plate = self.plate
            assert plate is not None
            return plate, place

    def load(self, name: Name) -> NDArray[Any]:
        image, place, _ = self._found(name)
        return image.read(place.tcz)

    def load_region(self, name: Name, region: Any) -> NDArray[Any]:
        image, place, key = self._found(name)
        rows, columns = _formats.check_region(image.spec.shape, region, repr(key))
        return image.read(place.tcz, bounds=(rows, columns))

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
