"""The groups of a plate: its root, rows and wells, made and listed under one lock; the images are `_image`'s."""

from __future__ import annotations

import errno
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
        self._ensured: set[ImageKey] = set()
        self._staging: Path | None = None
        self.replaced: Path | None = None
        self.refresh()

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

    def refresh(self) -> dict[str, Any]:
        """Take up what other processes changed; returns the root's document."""
        document = _files.read_document(self.root, "zarr.json")
        attributes = _files.attributes_of(document, self.root)
        self.description, self._wells, self._fields = _documents.parse_plate(attributes, str(self.root))
        return document

    def _change(self, change: Callable[[PlateDescription], PlateDescription]) -> None:
        """Change the description in the root's document, under its lock."""
        with _files.locked(self.root), _files.translated(self.root):
            document = self.refresh()
            self._declare(document, change(self.description), self._wells, self._fields)

    def _declare(self, document: dict[str, Any], plate: PlateDescription, wells: list[WellName], fields: int) -> None:
        """Write anew what the root's document, as `refresh` has just read it, says. For the holder of the root's lock."""
        if (plate, wells, fields) == (self.description, self._wells, self._fields):
            return
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

    def _listed(self, well: WellName) -> list[ImageKey]:
        """Return the images that a well lists."""
        return self._listed_in(_files.read_document(self.root, f"{_places.well_path(well)}/zarr.json"), well)

    def _listed_in(self, document: dict[str, Any], well: WellName) -> list[ImageKey]:
        path = _places.well_path(well)
        try:
            attributes = _files.attributes_of(document, self.root / path)
            named = [each["path"] for each in attributes["ome"]["well"]["images"]]
            named += attributes[_layout.NAMESPACE]["projections"]
            found = [ImageKey.read(well, name) for name in dict.fromkeys(named)]
        except (KeyError, TypeError, ValueError):
            raise DatasetError(f"{self.root / path}: the well's metadata are damaged") from None
        if any(key is None for key in found):
            raise DatasetError(f"{self.root / path}: lists an image that is none of this layout")
        return [key for key in found if key is not None]

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
        if key not in self._ensured:  # one that `image` found may be unlisted: whoever made it may have been killed
            self._add_image(key, spec)
            self._images.setdefault(key, PlateImage(self.root, key)).remove_parts()
            self._ensured.add(key)
        return self._images[key]

    def _add_image(self, key: ImageKey, spec: PlateImageSpec) -> None:
        with _files.translated(self.root):
            well = self.root / _places.well_path(key.well)
            if not (well / key.name).exists() or key.well not in self._wells or key not in self._listed(key.well):
                part, described = self.staging() / _files.part_name(), self.description
                try:
                    if not (well / key.name).exists():  # built beside others; what has taken its place by then stays there
                        PlateImage.build(part, spec, key, _extent(described, key), described)
                        kill_point("storage.plate.image_built")
                    with _files.locked(self.root):  # one at a time places wells and images
                        document = self.refresh()
                        for folder in (well.parent, well):
                            self._ensure_group(folder)
                        if not (well / key.name).exists():
                            if self.description != described or not part.exists():
                                shutil.rmtree(part, ignore_errors=True)
                                PlateImage.build(part, spec, key, _extent(self.description, key), self.description)
                            os.rename(part, well / key.name)
                        kill_point("storage.plate.image_placed")
                        images = self._list_in_well(key, well)
                        kill_point("storage.plate.image_listed")
                        wells = self._wells if key.well in self._wells else [*self._wells, key.well]
                        fields = max(self._fields, sum(not image.projection for image in images))
                        self._declare(document, self.description, wells, fields)
                finally:
                    shutil.rmtree(part, ignore_errors=True)

    def _ensure_group(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        if not (folder / "zarr.json").exists():
            _files.replace_document(folder / "zarr.json", _layout.group_document({}), self.staging())

    def _list_in_well(self, key: ImageKey, folder: Path) -> list[ImageKey]:
        """Have a well list an image; returns those that it lists then."""
        document = _files.read_document(self.root, f"{_places.well_path(key.well)}/zarr.json")
        attributes = _files.attributes_of(document, folder)
        images = self._listed_in(document, key.well) if "ome" in attributes else []
        if key in images:
            return images
        images.append(key)
        fresh = _documents.well_attributes(images)
        attributes["ome"] = {**attributes.get("ome", {}), **fresh["ome"]}
        attributes[_layout.NAMESPACE] = {**attributes.get(_layout.NAMESPACE, {}), **fresh[_layout.NAMESPACE]}
        document["attributes"] = attributes
        _files.replace_document(folder / "zarr.json", document, self.staging())
        return images

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
