"""The groups of a plate: its root, rows and wells, made and listed under one lock; the images are `_image`'s."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError, DatasetExistsError, DatasetNotFoundError
from mutoscope.model.plate import WellName
from mutoscope.storage import _files, _layout, _replace
from mutoscope.storage.plate import _documents, _places
from mutoscope.storage.plate._documents import PlateImageSpec
from mutoscope.storage.plate._image import PlateImage, remove_parts
from mutoscope.storage.plate._places import ImageKey
from mutoscope.storage.plate.description import PlateChannel, PlateDescription

__all__ = ["Plate", "is_plate"]

_serial = itertools.count()


def is_plate(path: str | os.PathLike[str]) -> bool:
    """Whether a plate of Mutoscope is there."""
    try:
        document = _files.read_document(Path(path), "zarr.json")
        own = _files.attributes_of(document, Path(path)).get(_layout.NAMESPACE)
    except (DatasetError, DatasetNotFoundError):
        return False
    return isinstance(own, dict) and "plate_layout" in own and "plate" in own


class Plate:
    """A plate on disk. Any number of processes and threads may use it at once.

    Parameters
    ----------
    root : Path
        Of the plate, which must be there.

    Attributes
    ----------
    replaced : Path or None
        Where the data set is now that this plate was made in place of; whoever made it deletes it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._images: dict[ImageKey, PlateImage] = {}
        self._staging: Path | None = None
        self.replaced: Path | None = None
        self.description, self._wells, self._fields = self._read()

    # ------------------------------------------------------------------ making

    @classmethod
    def make(
        cls, root: Path, plate: PlateDescription, images: Mapping[ImageKey, PlateImageSpec], *, replace: bool = False
    ) -> Plate:
        """Make a plate with images that have no planes yet; it appears whole.

        Parameters
        ----------
        images : mapping
            One or more.
        replace : bool
            In place of a data set that stands there.

        Raises
        ------
        DatasetExistsError, ConfigError
            If something is there already; if what is there must not be replaced.
        """
        _documents.check_extent(plate.extent)
        taken = os.path.lexists(root) and not _replace.is_empty_folder(root)
        if taken and not replace:
            raise DatasetExistsError(f"{root}: exists already; choose another name, or say overwrite")
        if taken:
            _replace.check_replaceable(root)

        def build(folder: Path) -> None:
            wells: dict[WellName, list[ImageKey]] = {}
            for key, spec in images.items():
                PlateImage.build(folder / key.path, spec, key, _extent(plate, key), plate)
                wells.setdefault(key.well, []).append(key)
            for well, keys in wells.items():
                _write(folder / _places.well_path(well), _documents.well_attributes(keys))
                _write(folder / well.row_name, {})
            fields = max(sum(not key.projection for key in keys) for keys in wells.values())
            _write(folder, _documents.plate_attributes(plate, wells, max(fields, 1)))

        with _files.translated(root):
            try:
                replaced = _replace.make_folder(root, build, replace=taken)
            except OSError as error:
                if os.path.lexists(root) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise DatasetExistsError(f"{root}: was made by another process at this moment") from error
                if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT):
                    raise ConfigError(f"{root}: cannot be made ({error.strerror})") from error
                raise
        made = cls(root)
        made.replaced = replaced
        return made

    # ------------------------------------------------------------------ the root's document

    def _read(self) -> tuple[PlateDescription, list[WellName], int]:
        document = _files.read_document(self.root, "zarr.json")
        return _documents.parse_plate(_files.attributes_of(document, self.root), str(self.root))

    def refresh(self) -> None:
        """Take up what other processes changed."""
        self.description, self._wells, self._fields = self._read()

    def _change(self, change: Callable[[PlateDescription], PlateDescription], new: Iterable[ImageKey] = ()) -> None:
        """Change the root's document under its lock: the description, and the wells of further images, which are there."""
        with _files.locked(self.root), _files.translated(self.root):
            self.refresh()
            before = (self.description, self._wells, self._fields)
            plate = change(self.description)
            wells, fields = list(self._wells), self._fields
            for key in new:
                wells += [] if key.well in wells else [key.well]
                fields = fields if key.projection else max(fields, len(self._listed(key.well, projection=False)))
            if (plate, wells, fields) == before:
                return
            document = _files.read_document(self.root, "zarr.json")
            attributes = _files.attributes_of(document, self.root)
            fresh = _documents.plate_attributes(plate, wells, fields)
            attributes["ome"] = {**attributes["ome"], **fresh["ome"]}
            attributes[_layout.NAMESPACE] = {**attributes[_layout.NAMESPACE], **fresh[_layout.NAMESPACE]}
            _files.replace_document(self.root / "zarr.json", document, self.staging())
            self.description, self._wells, self._fields = plate, sorted(wells), fields

    def staging(self) -> Path:
        """Return a folder for what is half-written, in which no reader looks for nodes: that of an array of the plate."""
        if self._staging is None or not self._staging.is_dir():
            found = (self.root / key.path / "0" for well in self.wells for key in self._listed(well))
            self._staging = next((folder for folder in found if folder.is_dir()), None)
            if self._staging is None:
                raise DatasetError(f"{self.root}: has no image")
            remove_parts(self._staging)
        return self._staging

    # ------------------------------------------------------------------ what is there

    @property
    def wells(self) -> list[WellName]:
        """The wells that the plate lists, in order."""
        return sorted(self._wells)

    def _listed(self, well: WellName, *, projection: bool | None = None) -> list[ImageKey]:
        """Return the images that a well lists."""
        path = _places.well_path(well)
        try:
            document = _files.read_document(self.root, f"{path}/zarr.json")
            attributes = _files.attributes_of(document, self.root / path)
            named = [each["path"] for each in attributes["ome"]["well"]["images"]]
            named += attributes[_layout.NAMESPACE]["projections"]
            found = [ImageKey.read(well, name) for name in dict.fromkeys(named)]
        except (KeyError, TypeError, ValueError):
            raise DatasetError(f"{self.root / path}: the well's metadata are damaged") from None
        if any(key is None for key in found):
            raise DatasetError(f"{self.root / path}: lists an image that is none of this layout")
        keys = [key for key in found if key is not None]
        return keys if projection is None else [key for key in keys if key.projection is projection]

    def images(self) -> list[ImageKey]:
        """Return all images that wells list, well by well."""
        self.refresh()
        return [key for well in self.wells for key in sorted(self._listed(well))]

    def image(self, key: ImageKey) -> PlateImage | None:
        """Return an image, None if there is none."""
        found = self._images.get(key)
        if found is None:
            if not (self.root / key.path / "zarr.json").exists():
                return None
            found = self._images[key] = PlateImage(self.root, key)
        return found

    # ------------------------------------------------------------------ growing

    def ensure_image(self, key: ImageKey, spec: PlateImageSpec) -> PlateImage:
        """Return an image, made and listed if it was not."""
        found = self._images.get(key)
        if found is None:
            self._add_image(key, spec)
            found = self._images[key] = PlateImage(self.root, key)
            found.remove_parts()
        return found

    def _add_image(self, key: ImageKey, spec: PlateImageSpec) -> None:
        with _files.translated(self.root):
            well = self.root / _places.well_path(key.well)
            if not (well / key.name).exists() or key.well not in self._wells or key not in self._listed(key.well):
                with _files.locked(self.root):  # one at a time makes wells and images
                    self.refresh()
                    for folder in (well.parent, well):
                        self._ensure_group(folder)
                    if not (well / key.name).exists():
                        part = self.staging() / f".{os.getpid()}-{next(_serial)}{_files.PART}"
                        try:
                            PlateImage.build(part, spec, key, _extent(self.description, key), self.description)
                            kill_point("storage.plate.image_built")
                            os.rename(part, well / key.name)
                        except BaseException:
                            shutil.rmtree(part, ignore_errors=True)
                            raise
                    kill_point("storage.plate.image_placed")
                    self._list_in_well(key, well)
                    kill_point("storage.plate.image_listed")
                self._change(lambda plate: plate, [key])

    def _ensure_group(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        if not (folder / "zarr.json").exists():
            _files.replace_document(folder / "zarr.json", _layout.group_document({}), self.staging())

    def _list_in_well(self, key: ImageKey, folder: Path) -> None:
        document = _files.read_document(self.root, f"{_places.well_path(key.well)}/zarr.json")
        attributes = _files.attributes_of(document, folder)
        images = self._listed(key.well) if "ome" in attributes else []
        if key in images:
            return
        fresh = _documents.well_attributes([*images, key])
        attributes["ome"] = {**attributes.get("ome", {}), **fresh["ome"]}
        attributes[_layout.NAMESPACE] = {**attributes.get(_layout.NAMESPACE, {}), **fresh[_layout.NAMESPACE]}
        document["attributes"] = attributes
        _files.replace_document(folder / "zarr.json", document, self.staging())

    def ensure_extent(self, image: PlateImage, tcz: tuple[int, int, int]) -> None:
        """Have an image declare a place, and the plate that its images reach so far."""
        t, c, z = tcz[0] + 1, tcz[1] + 1, tcz[2] + 1
        if image.extent[0] >= t and image.extent[1] >= c and image.extent[2] >= z:
            return
        planes_z = 1 if image.key.projection else z
        _documents.check_extent((t, c, z))
        self._change(lambda plate: _wider(plate, (t, c, planes_z)))
        image.grow((t, c, z), self.description)

    def channel_of(self, key: str) -> int:
        """Return the place of a channel that file names call by text; a new one comes behind the others."""

        def add(plate: PlateDescription) -> PlateDescription:
            if any(channel.key == key for channel in plate.channels):
                return plate
            return msgspec.structs.replace(plate, channels=(*plate.channels, _named(key)))

        keys = [channel.key for channel in self.description.channels]
        if key not in keys:
            self._change(add)
            keys = [channel.key for channel in self.description.channels]
        return keys.index(key)

    def claim_source(self, source: str, name: str) -> None:
        """Refuse names of another plate: the first one that says which plate it is decides."""
        if not source or source == self.description.source:
            return
        if not self.description.source:
            self._change(lambda plate: plate if plate.source else msgspec.structs.replace(plate, source=source))
        if source != self.description.source:
            raise ConfigError(
                f"{name!r} is of the plate {source!r}, and {self.root} is the plate {self.description.source!r}; "
                "a store holds one plate"
            )

    def describe(self, plate: PlateDescription) -> None:
        """Say anew what the plate and each of its images is; what is declared stays at least as large."""
        self._change(lambda old: _wider(plate, old.extent))
        for key in self.images():
            image = self.image(key)
            if image is not None:
                image.describe(self.description)

    def even_out(self, keys: Iterable[ImageKey]) -> None:
        """Have images declare as much as the largest of the plate: viewers that tile plates want all alike."""
        self.refresh()
        for key in keys:
            image = self.image(key)
            if image is not None:
                image.grow(_extent(self.description, key), self.description)


def _extent(plate: PlateDescription, key: ImageKey) -> tuple[int, int, int]:
    t, c, z = plate.extent
    return (t, c, 1 if key.projection else z)


def _wider(plate: PlateDescription, extent: tuple[int, int, int]) -> PlateDescription:
    t, c, z = (max(pair) for pair in zip(plate.extent, extent, strict=True))
    return plate if (t, c, z) == plate.extent else msgspec.structs.replace(plate, extent=(t, c, z))


def _named(key: str) -> PlateChannel:
    return PlateChannel(name=key, key=key)


def _write(folder: Path, attributes: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zarr.json").write_bytes(_files.encode(_layout.group_document(attributes)))
