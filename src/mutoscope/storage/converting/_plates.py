"""Whole plates: into a plate of Mutoscope, or into a folder with an OME-TIFF for each field. Killed, they are gone on with."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError, DatasetNotFoundError, MutoscopeError
from mutoscope.model.plate import WellName
from mutoscope.storage import _files, _nodes
from mutoscope.storage.converting._members import copy_members, leave_members
from mutoscope.storage.converting._sources import Source, open_source
from mutoscope.storage.converting._streams import write_tiff
from mutoscope.storage.converting._unfinished import unfinished
from mutoscope.storage.ome_tiff._dataset import Names
from mutoscope.storage.plate import _chunk, _documents, is_plate, overview
from mutoscope.storage.plate._batch import BatchWriter, Plane
from mutoscope.storage.plate._documents import PlateImageSpec
from mutoscope.storage.plate._image import PlateImage
from mutoscope.storage.plate._places import ImageKey, well_path
from mutoscope.storage.plate._plate import Plate
from mutoscope.storage.plate.description import PlateChannel, PlateDescription
from mutoscope.storage.stream import open_reader

__all__ = ["PlateSource", "fields_of", "write_fields", "write_plate"]

Tcz = tuple[int, int, int]
Done = Callable[[int, str], None]


@dataclass(frozen=True)
class Field:
    """An image of a plate: its place, and the group that it is in the source."""

    key: ImageKey
    path: str


def fields_of(path: Path) -> list[Field]:
    """Return the images of a plate in OME-Zarr, none if there is no plate.

    Raises
    ------
    ConfigError
        If its rows and columns are not named as those of plates are.
    """
    if not path.is_dir() or not _nodes.has_group(path):
        return []
    if is_plate(path):
        return [Field(key, key.path) for key in Plate(path.absolute()).images()]
    listed = _ome(path).get("plate")
    if not isinstance(listed, dict):
        return []
    found = []
    try:
        for place in (str(each["path"]).strip("/") for each in listed["wells"]):
            try:
                well = WellName.parse(place.replace("/", ""))
            except ValueError as error:
                raise ConfigError(
                    f"{path}: its well {place!r} is none of a plate with rows A, B, … and columns 1, 2, …"
                ) from error
            images = _ome(path, place)["well"]["images"]
            found += [Field(ImageKey(well, number), f"{place}/{each['path']}") for number, each in enumerate(images)]
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path}: the plate's metadata are damaged ({error!r})") from error
    return found


def _ome(path: Path, group: str = "") -> dict[str, Any]:
    try:
        attributes = _nodes.read_group(path, group)
    except DatasetNotFoundError as error:
        raise DatasetError(f"{path / group}: is missing") from error
    found = attributes.get("ome", attributes)
    return found if isinstance(found, dict) else {}


class PlateSource(Source):
    """All images of a plate. It holds no file open.

    Attributes
    ----------
    fields : list of Field
    specs : dict of ImageKey to PlateImageSpec
        As the target is to have them.
    description : PlateDescription
    planes : int
        How many there are to copy.
    """

    def __init__(self, path: Path, fields: list[Field], compression: str) -> None:
        super().__init__()
        self.path, self.fields, self.frames = path, fields, []
        self.specs: dict[ImageKey, PlateImageSpec] = {}
        self.planes = 0
        self._own = Plate(path.absolute()) if is_plate(path) else None
        self._missing = 0
        wells = sorted({field.key.well for field in fields})
        if self._own is not None:
            self.kind, self.description = "plate of Mutoscope", self._own.description
            for field in fields:
                self._look_at_own(field, compression)
            paths = {well: well_path(well) for well in wells}
        else:
            self.kind, self.description = "OME-Zarr plate", PlateDescription()
            for field in fields:
                self._look_at(field, compression)
            paths = {field.key.well: field.path.rpartition("/")[0] for field in fields}
        self.members = [(None, None), *((paths[well], well_path(well)) for well in wells)]
        self.members += [(field.path, field.key.path) for field in fields]

    def close(self) -> None:
        pass

    def _image(self, field: Field) -> PlateImage:
        assert self._own is not None
        image = self._own.image(field.key)
        if image is None:
            raise DatasetError(f"{self.path / field.path}: is missing")
        return image

    def _look_at_own(self, field: Field, compression: str) -> None:
        image = self._image(field)
        self.specs[field.key] = dataclasses.replace(image.spec, compression=compression)
        stored = len(image.stored())
        self.planes += stored
        self._missing += int(np.prod(image.extent)) - stored

    def _look_at(self, field: Field, compression: str) -> None:
        with open_source(self.path, field.path) as source:
            frames = source.one()
            self.specs[field.key] = _documents.plan_image(frames.shape, frames.dtype, pyramid=True, compression=compression)
            self.planes += frames.count
            t, c, z = (frames.sizes.get(axis, 1) for axis in ("t", "c", "z"))
            if math.prod((t, c, z)) != frames.count:
                raise ConfigError(f"{self.path / field.path}: has other axes than t, c and z")
            known = self.description
            listed = _ome(self.path).get("plate", {})
            self.description = msgspec.structs.replace(
                known,
                name=known.name or str(listed.get("name") or ""),
                channels=known.channels or tuple(PlateChannel(name=name) for name in frames.channels),
                pixel_size_um=known.pixel_size_um or frames.pixel_size_um,
                z_step_um=known.z_step_um or frames.z_step_um,
                extent=(max(known.extent[0], t), max(known.extent[1], c), max(known.extent[2], z)),
            )

    @contextmanager
    def open(self, field: Field) -> Iterator[Iterator[tuple[Tcz, str, NDArray[Any]]]]:
        """Yield the planes of an image: the place, the name, and the pixels of each."""
        if self._own is not None:
            image = self._image(field)
            yield ((at, name, image.read(at)) for at, name in image.names())
            return
        with open_source(self.path, field.path) as source:
            frames = source.one()

            def planes() -> Iterator[tuple[Tcz, str, NDArray[Any]]]:
                for number in range(frames.count):
                    index = frames.index(number)
                    t, c, z = (number, 0, 0) if index is None else (max(index.t, 0), max(index.c, 0), max(index.z, 0))
                    name = f"{field.key.well}_s{field.key.field + 1}_w{c + 1}_z{z + 1}_t{t + 1}.tif"
                    yield (t, c, z), name, frames.read(number)

            yield planes()

    def count(self, *, stored: bool) -> int:
        """Return how many planes are copied: those that are stored, or all that are declared."""
        return self.planes if stored else self.planes + self._missing

    def told_missing(self) -> list[str]:
        """Return what is to be said of planes that the source lacks, for a target that cannot lack any."""
        return [f"that {self._missing:,} planes are missing: they are zeros in the copy"] if self._missing else []


def write_plate(target: Path, source: PlateSource, compression: str, overwrite: bool, done: Done) -> list[str]:
    """Make a plate of Mutoscope, or go on with it; return its images."""
    for spec in source.specs.values():
        _chunk.check_possible(spec)
    what = {"source": os.path.realpath(source.path), "target": "plate", "compression": compression}
    with unfinished(Path(os.path.abspath(target)), what, overwrite=overwrite) as root:
        plate = Plate(root) if is_plate(root) else Plate.make(root, source.description, source.specs)
        t, c, z = source.description.extent
        for field in source.fields:
            image = plate.ensure_image(field.key, source.specs[field.key])
            plate.ensure_extent(image, (t - 1, c - 1, 0 if field.key.projection else z - 1))
            with source.open(field) as planes, BatchWriter(overwrite=True) as work:
                for at, name, pixels in planes:
                    if not _is_there(image, at, name, pixels):
                        work.take(partial(_one, image, Plane(image.conform(pixels, name), at, name)))
                    done(pixels.nbytes, field.key.path)
                    kill_point("storage.convert.plane")
        plate.even_out(plate.images())
        with _files.translated(root):
            overview.update(plate, plate.wells)
        for _, group in source.members:
            for kind in ("labels", "tables"):  # those of a killed run may be half there
                shutil.rmtree(root / (group or "") / kind, ignore_errors=True)
        copy_members(source, root)
        kill_point("storage.convert.written")
    return [field.key.path for field in source.fields]


def _one(image: PlateImage, plane: Plane) -> tuple[PlateImage, list[Plane]]:
    return image, [plane]


def _is_there(image: PlateImage, at: Tcz, name: str, pixels: NDArray[Any]) -> bool:
    """Whether a killed run stored a plane as it is now: compared, for the source may have changed since."""
    if image.state(at) != _documents.STORED or image.name(at) != name or not image.looks_whole(at):
        return False
    try:
        return np.array_equal(image.read(at), pixels)
    except DatasetError:
        return False


def write_fields(target: Path, source: PlateSource, compression: str | None, done: Done) -> list[str]:
    """Make a folder with an OME-TIFF for each image, or go on with it; return the files."""
    what = {"source": os.path.realpath(source.path), "target": "OME-TIFF", "compression": compression or "none"}
    made = []
    with unfinished(Path(os.path.abspath(target)), what, overwrite=False) as folder:
        folder.mkdir(exist_ok=True)
        for field in source.fields:
            path = folder / f"{field.key.well}_{field.key.name}.ome.tiff"
            with open_source(source.path, field.path) as opened:
                frames = opened.one()
                if _is_copied(path, opened):
                    leave_members(opened)
                    for _ in range(frames.count):
                        done(math.prod(frames.shape) * np.dtype(frames.dtype).itemsize, path.name)
                else:
                    write_tiff(path, opened, compression, False, done)
                source.lost += [f"{each} of {field.key.path}" for each in opened.lost if each.startswith(("labels", "table"))]
            made.append(path.name)
            kill_point("storage.convert.field")
        kill_point("storage.convert.written")
    return made


def _is_copied(path: Path, source: Source) -> bool:
    """Whether a killed run made this file, and of what the source holds now; what is not, is removed."""
    frames = source.one()
    names = Names(path)
    if not names.sidecar.exists() and not path.exists():
        return False
    try:
        with open_reader(path) as reader:
            same = reader.attributes.get("state") == "closed" and len(reader) == frames.count
            if same and all(np.array_equal(reader[number], frames.read(number)) for number in range(frames.count)):
                return True
    except MutoscopeError:
        pass  # it is cut, or half in place: made again
    for each in (names.sidecar, *names.present().values()):
        each.unlink(missing_ok=True)
    return False
