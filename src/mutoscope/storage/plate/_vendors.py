"""What vendors' files say of a plate beside the pixels, as one description and a list of the planes that were to be taken."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mutoscope.model.errors import DatasetError
from mutoscope.model.filenames import Components, cellvoyager, imagexpress, opera_phenix
from mutoscope.model.plate import PlateGeometry, WellName
from mutoscope.storage.plate._documents import MAX_PLANES
from mutoscope.storage.plate._places import MAX_INDEX, ImageKey, Place
from mutoscope.storage.plate._tiff import TiffHeader
from mutoscope.storage.plate.description import PlateChannel, PlateDescription, Position

__all__ = ["Survey", "survey"]

T = TypeVar("T")

MAX_BYTES = 1 << 30
MAX_EXPECTED = 100_000


@dataclass
class Survey:
    """What was found beside the images.

    Attributes
    ----------
    description : PlateDescription
    expected : set of ImageKey
        Images that the vendor's files list, whether their files are there or not.
    listed : int
        Planes that the vendor's files list; 0 if they list none.
    read, notes : list of str
        Files that were read; what could not be used, and why.
    """

    description: PlateDescription = field(default_factory=PlateDescription)
    expected: set[ImageKey] = field(default_factory=set)
    listed: int = 0
    read: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def change(self, **values: Any) -> None:
        """Set fields of the description."""
        self.description = msgspec.structs.replace(self.description, **values)


def survey(
    folder: Path,
    parser: str,
    metadata: Iterable[str],
    planes: Mapping[Place, str],
    said: Mapping[str, Components],
    header: Callable[[str], TiffHeader | None],
) -> Survey:
    """Read what is beside the images.

    Parameters
    ----------
    folder : Path
    parser : str
        Whose files these are.
    metadata : iterable of str
        Names of files that are no images.
    planes : mapping of Place to str
        Where each image belongs.
    said : mapping of str to Components
        What each image's name says.
    header : callable
        Returns the header of an image, None if it is damaged.
    """
    found = Survey()
    sources = Counter(each.source for each in said.values() if each.source)
    source = sources.most_common(1)[0][0] if sources else ""
    extent = tuple(max((place.tcz[axis] for place in planes), default=0) + 1 for axis in range(3))
    found.change(source=source, name=source, extent=extent)
    known = {"imagexpress": _imagexpress, "opera_phenix": _phenix, "cellvoyager": _voyager}.get(parser)
    if known is not None:
        known(found, folder, sorted(metadata, key=lambda name: (name.count("/"), name)), planes, header)
    return found


def _read(found: Survey, folder: Path, names: Iterable[str], suffix: str, read: Callable[[bytes], T]) -> T | None:
    """Return what the first file of a suffix that can be read says."""
    for name in names:
        if not name.lower().endswith(suffix):
            continue
        path = folder / name
        try:
            if path.stat().st_size > MAX_BYTES:
                raise DatasetError(f"it is longer than {MAX_BYTES} bytes")
            value = read(path.read_bytes())
        except (DatasetError, OSError) as error:
            found.notes.append(f"{name}: {error}")
            continue
        found.read.append(name)
        return value
    return None


def _widen(found: Survey, t: int, c: int, z: int) -> None:
    """Have the plate declare at least so much, unless that cannot be."""
    have = found.description.extent
    wanted = (max(have[0], t), max(have[1], c), max(have[2], z))
    most = MAX_INDEX["t"], MAX_INDEX["channel"], MAX_INDEX["z"]
    if any(value > limit for value, limit in zip(wanted, most, strict=True)) or math.prod(wanted) > MAX_PLANES:
        found.note(f"{found.read[-1]}: says there are {wanted[0]} x {wanted[1]} x {wanted[2]} planes (t, c, z); not believed")
        return
    found.change(extent=wanted)


def _expect(found: Survey, keys: Iterable[ImageKey]) -> None:
    """Have the plate list images of which perhaps no file is there, unless they are implausibly many or far out."""
    wanted = set(itertools.islice(keys, MAX_EXPECTED + 1))
    geometry = found.description.geometry
    if len(wanted) > MAX_EXPECTED or any(key.field >= MAX_INDEX["field"] for key in wanted):
        found.note(f"{found.read[-1]}: lists more images than can be believed; those without files are not recorded as missing")
        return
    outside = {str(key.well) for key in wanted if geometry is not None and key.well not in geometry}
    if outside:
        found.note(f"{found.read[-1]}: lists well {min(outside)}, which is outside of its own plate")
        wanted = {key for key in wanted if geometry is None or key.well in geometry}
    found.expected |= wanted


def _fitting(found: Survey, geometry: PlateGeometry, planes: Mapping[Place, str]) -> PlateGeometry | None:
    """Return the size of the plate that a vendor's file says, None if images lie outside of it."""
    if all(place.image.well in geometry for place in planes):
        return geometry
    found.note(f"{found.read[-1]}: its plate is too small for the wells that the names say; its size was not used")
    return None


# ---------------------------------------------------------------------- ImageXpress


def _imagexpress(
    found: Survey,
    folder: Path,
    metadata: list[str],
    planes: Mapping[Place, str],
    header: Callable[[str], TiffHeader | None],
) -> None:
    htd = _read(found, folder, metadata, ".htd", imagexpress.read_htd)
    channels: dict[int, PlateChannel] = {}
    if htd is not None:
        channels = {number: PlateChannel(name=name) for number, name in enumerate(htd.channels)}
        found.change(geometry=_fitting(found, htd.plate, planes))
        _widen(found, htd.timepoints, len(htd.channels), htd.z_steps)
        wells = [WellName.parse(well) for well in htd.wells]
        _expect(found, (ImageKey(well, number) for well in wells for number in range(len(htd.sites))))
        found.change(vendor={"vendor": "ImageXpress", "description": htd.description, "plate_id": htd.plate_id})
    described: dict[int, imagexpress.MetaSeriesPlane] = {}
    positions: dict[str, Position] = {}
    heights: dict[tuple[ImageKey, int], dict[int, float]] = {}
    damaged = 0
    for place, name in sorted(planes.items()):
        key = f"{place.image.well}/{place.image.field}"
        stack = (ImageKey(place.image.well, place.image.field), place.c)
        if key in positions and place.c in described and (place.t or place.image.projection or stack[1]):
            continue
        said = _description(header(name))
        if said is None:
            damaged += 1
            continue
        described.setdefault(place.c, said)
        if not place.image.projection and said.stage_z_um is not None and place.t == 0:
            heights.setdefault(stack, {})[place.z] = said.stage_z_um
        position = _position(said)
        if position is not None:
            positions.setdefault(key, position)
    if not described:
        if damaged:
            found.notes.append("no image has the description that MetaXpress writes: pixel size and positions are not known")
        return
    relative = all(said.offset_x_um is not None for said in described.values())
    for number, said in described.items():
        before = channels.get(number, PlateChannel())
        channels[number] = msgspec.structs.replace(
            before, name=before.name or said.illumination, emission_nm=said.emission_nm, exposure_ms=said.exposure_ms
        )
    found.change(
        channels=_in_order(channels),
        pixel_size_um=_one({said.pixel_size_um for said in described.values()}),
        z_step_um=_step(heights.values()),
        positions=positions,
        origin="well" if relative else "stage",
    )


def _description(header: TiffHeader | None) -> imagexpress.MetaSeriesPlane | None:
    if header is None or not header.description.lstrip().startswith(b"<"):
        return None
    try:
        return imagexpress.read_plane_description(header.description)
    except DatasetError:
        return None


def _position(said: imagexpress.MetaSeriesPlane) -> Position | None:
    if said.offset_y_um is not None and said.offset_x_um is not None:
        return Position(said.offset_y_um, said.offset_x_um)
    if said.stage_y_um is not None and said.stage_x_um is not None:
        return Position(said.stage_y_um, said.stage_x_um)
    return None


# ---------------------------------------------------------------------- Opera Phenix


def _phenix(
    found: Survey,
    folder: Path,
    metadata: list[str],
    planes: Mapping[Place, str],
    header: Callable[[str], TiffHeader | None],
) -> None:
    index = _read(found, folder, metadata, ".xml", opera_phenix.read_index)
    if index is None:
        return
    found.change(geometry=_fitting(found, index.plate, planes))
    positions: dict[str, Position] = {}
    heights: dict[tuple[ImageKey, int], dict[int, float]] = {}
    listed: set[ImageKey] = set()
    for image in sorted(index.images, key=lambda each: (each.well, each.field, each.t, each.channel, each.z)):
        key = ImageKey(WellName.parse(image.well), max(image.field - 1, 0))
        listed.add(key)
        if image.y_um is not None and image.x_um is not None:
            positions.setdefault(f"{image.well}/{key.field}", Position(image.y_um, image.x_um, image.z_um or 0.0))
        if image.z_um is not None and image.t == 1:
            heights.setdefault((key, image.channel), {})[image.z - 1] = image.z_um
        _widen(found, image.t, image.channel, image.z)
    _expect(found, listed)
    channels = {
        number - 1: PlateChannel(
            name=channel.name,
            excitation_nm=channel.excitation_nm,
            emission_nm=channel.emission_nm,
            exposure_ms=channel.exposure_ms,
            flatfield=channel.flatfield,
        )
        for number, channel in index.channels.items()
        if 1 <= number <= 99
    }
    found.listed = len(index.images)
    found.change(
        name=index.name or index.plate_id or found.description.name,
        channels=_in_order(channels),
        pixel_size_um=_one({channel.pixel_size_um for channel in index.channels.values()}),
        z_step_um=_step(heights.values()),
        positions=positions,
        vendor={"vendor": "Opera Phenix", "plate_id": index.plate_id, "started": index.started},
    )


# ---------------------------------------------------------------------- CellVoyager


def _voyager(
    found: Survey,
    folder: Path,
    metadata: list[str],
    planes: Mapping[Place, str],
    header: Callable[[str], TiffHeader | None],
) -> None:
    records = _read(found, folder, metadata, ".mlf", cellvoyager.read_mlf)
    detail = _read(found, folder, metadata, ".mrf", cellvoyager.read_mrf)
    settings = _read(found, folder, metadata, ".mes", cellvoyager.read_mes) or {}
    vendor: dict[str, Any] = {"vendor": "CellVoyager"}
    if detail is not None:
        found.change(geometry=_fitting(found, detail.plate, planes))
    if records is not None:
        wanted: set[ImageKey] = set()
        positions: dict[str, Position] = {}
        heights: dict[tuple[ImageKey, int], dict[int, float]] = {}
        for image in sorted(records.images, key=lambda each: (each.well, each.field, each.t, each.channel, each.z)):
            key = ImageKey(WellName.parse(image.well), max(image.field - 1, 0))
            wanted.add(key)
            positions.setdefault(f"{image.well}/{key.field}", Position(image.y_um, image.x_um, image.z_um))
            if image.t == 1:
                heights.setdefault((key, image.channel), {})[image.z - 1] = image.z_um
            _widen(found, image.t, image.channel, image.z)
        _expect(found, wanted)
        found.listed = len(records.images)
        for each in records.errors:
            found.note(f"the microscope could not take a plane of well {each.well}: {' '.join(each.message.split())[:200]}")
        found.change(positions=positions, z_step_um=_step(heights.values()))
    numbers = {number for number in ({*detail.channels} if detail is not None else set()) | {*settings} if 1 <= number <= 99}
    channels = {}
    for number in numbers:
        setting = settings.get(number, cellvoyager.VoyagerSetting(number))
        channels[number - 1] = PlateChannel(
            name=setting.name,
            excitation_nm=setting.excitation_nm,
            exposure_ms=setting.exposure_ms,
            colour=setting.colour,
        )
    found.change(channels=_in_order(channels))
    if detail is not None:
        vendor |= {"title": detail.title, "began": detail.began, "ended": detail.ended}
        vendor["shading"] = {str(number): channel.shading for number, channel in detail.channels.items() if channel.shading}
        found.change(
            name=detail.title or found.description.name,
            pixel_size_um=_one({channel.pixel_size_um for channel in detail.channels.values()}),
        )
    found.change(vendor=vendor)


# ---------------------------------------------------------------------- what they share


def _in_order(channels: Mapping[int, PlateChannel]) -> tuple[PlateChannel, ...]:
    return tuple(channels.get(number, PlateChannel()) for number in range(max(channels, default=-1) + 1))


def _one(values: set[float | None]) -> float | None:
    """Return the value that all agree on, None if they do not."""
    known = {value for value in values if value is not None and 0 < value < 1e9}
    return known.pop() if len(known) == 1 else None


def _step(stacks: Iterable[Mapping[int, float]]) -> float | None:
    """Return the commonest distance of neighbouring planes, None if there are no stacks or they go nowhere."""
    steps: Counter[float] = Counter()
    for heights in stacks:
        for z, height in heights.items():
            if z + 1 in heights:
                steps[round(abs(heights[z + 1] - height), 3)] += 1
    step = steps.most_common(1)[0][0] if steps else 0.0
    return step if step > 0 else None
