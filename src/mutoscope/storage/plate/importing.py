"""A folder of vendor files becomes a plate: every plane in its place, what was left out told with the reason."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgspec

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError, DatasetExistsError, DatasetNotFoundError, DiskFullError
from mutoscope.model.filenames import Components, NameParser, ParserLike, get_parser, names
from mutoscope.model.plate import PlateGeometry
from mutoscope.storage import _files, _layout, _names, _replace
from mutoscope.storage.plate import _chunk, _documents, _places, _tiff, overview
from mutoscope.storage.plate._documents import PlateImageSpec
from mutoscope.storage.plate._image import PlateImage
from mutoscope.storage.plate._places import ImageKey, Place
from mutoscope.storage.plate._plate import Plate, is_plate
from mutoscope.storage.plate._vendors import Survey, survey
from mutoscope.storage.plate.description import PlateChannel

__all__ = ["ImportReport", "SkippedFile", "import_plate"]

IMAGES = (".tif", ".tiff")
PASSED_OVER = ("thumbnail", "metadata", "unknown name")
"""Reasons to leave a file out that are in the nature of a vendor's folder; the others are losses."""

_COMPANY_S, _PAUSE_S = 10.0, 0.005
"""How long an import waits for another one that is writing the same plane, and how often it looks."""

Progress = Callable[[int, int, str], None]


class SkippedFile(msgspec.Struct, frozen=True):
    """A file that did not become a plane.

    Parameters
    ----------
    name : str
        Relative to the folder.
    reason : str
        ``"thumbnail"``, ``"metadata"``, ``"unknown name"`` (of what is no TIFF); and of images that the plate lacks ``"image of
        unknown name"``, ``"damaged"``, ``"duplicate"``, ``"other plate"``, ``"no place"``, ``"does not fit"``, ``"link"`` or
        ``"unreadable format"``.
    detail : str
        In words.
    """

    name: str
    reason: str
    detail: str = ""


class ImportReport(msgspec.Struct, frozen=True):
    """What an import did.

    Parameters
    ----------
    plate, filenames : str
        The plate's path; whose names they were.
    stored, already : int
        Planes that were written now; that were there, whole, before.
    missing : int
        Planes that the plate declares and does not have.
    wells, images : int
        How many the plate has.
    skipped : tuple of SkippedFile
    notes : tuple of str
        What vendor files say that could not be used, and what the microscope says it could not take.
    metadata_read : tuple of str
        Vendor files from which the plate's description comes.
    """

    plate: str
    filenames: str
    stored: int
    already: int
    missing: int
    wells: int
    images: int
    skipped: tuple[SkippedFile, ...] = ()
    notes: tuple[str, ...] = ()
    metadata_read: tuple[str, ...] = ()

    @property
    def lost(self) -> tuple[SkippedFile, ...]:
        """Files that should have become planes and did not."""
        return tuple(each for each in self.skipped if each.reason not in PASSED_OVER)

    def lines(self) -> list[str]:
        """Return the report for a person."""
        found = [
            f"{self.plate}: {self.stored:,} planes stored, {self.already:,} were there already; {self.filenames}",
            f"  {self.wells:,} wells, {self.images:,} images, {self.missing:,} planes missing",
        ]
        counts = Counter(each.reason for each in self.skipped)
        if counts:
            found.append("  left out: " + ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items())))
        found += [f"    {each.name}: {each.reason}{f', {each.detail}' if each.detail else ''}" for each in self.lost[:20]]
        if len(self.lost) > 20:
            found.append(f"    and {len(self.lost) - 20:,} more; --json lists all")
        found += [f"  note: {note}" for note in self.notes]
        return found


def import_plate(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    filenames: ParserLike = "auto",
    overwrite: bool = False,
    wells: int | None = None,
    pyramid: bool = True,
    with_overview: bool = True,
    compression: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Store the images of a vendor's folder as a plate.

    Called again for the same folder and plate, after a kill or with further files, it stores what is not there yet.

    Parameters
    ----------
    folder : path
        With all that is in it.
    out : path
        The plate, ``….ome.zarr``.
    filenames : str or NameParser
        Whose names they are; ``"auto"`` takes the vendor whose names most of the files have.
    overwrite : bool
        Make the plate anew in place of what stands there. That is kept beside it, as ``….replaced.ome.zarr``, until the
        import is through.
    wells : int, optional
        How many the plate has, where the vendor's files do not say.
    pyramid, with_overview : bool
        Whether to store smaller levels, and the overview of the plate.
    compression : str, optional
        ``"none"``, ``"blosc-lz4"``, ``"blosc-zstd"`` or ``"zstd"``.
    workers : int, optional
        Threads that read and write.
    progress : callable, optional
        Called with the number of planes done, of all, and the name of the last.

    Raises
    ------
    ConfigError
        If the folder holds no image of that vendor, or `out` cannot be.
    DatasetError
        If no image can be read.
    DiskFullError
        If there is no room; all that was stored before is whole.
    """
    source, root = Path(folder), Path(os.path.abspath(out))
    if not source.exists():
        raise DatasetNotFoundError(f"{source}: there is no such folder")
    if not source.is_dir():
        raise ConfigError(f"{source}: is not a folder")
    if root == source.resolve() or source.resolve().is_relative_to(root):
        raise ConfigError(f"{root}: the plate cannot take the place of the folder that it is made from")
    there = is_plate(root)
    if not overwrite and os.path.lexists(root) and not there and not (root.is_dir() and not any(root.iterdir())):
        raise DatasetExistsError(f"{root}: is there already and is no plate; choose another name, or say --overwrite")
    work = _Import(source, root, wells)
    work.look(filenames)
    work.find_places()
    plate = work.open_plate(_layout.check_compression(compression), pyramid=pyramid, replace=overwrite)
    work.store(plate, max(1, workers or min(4, os.cpu_count() or 1)), progress)
    plate.even_out(plate.images())
    if with_overview:
        with _files.translated(root):
            overview.update(plate, plate.wells)
    if plate.replaced is not None:
        _replace.delete(root, plate.replaced)
    return work.report(plate)


class _Import:
    def __init__(self, folder: Path, root: Path, wells: int | None) -> None:
        self.folder, self.root = folder, root
        self.geometry = None if wells is None else PlateGeometry.standard(wells)
        self.parser: NameParser
        self.said: dict[str, Components] = {}
        self.metadata: list[str] = []
        self.skipped: list[SkippedFile] = []
        self.planes: dict[Place, str] = {}
        self.found = Survey()
        self.headers: dict[str, _tiff.TiffHeader | None] = {}
        self.stored = self.already = 0

    def skip(self, name: str, reason: str, detail: object = "") -> None:
        self.skipped.append(SkippedFile(name, reason, str(detail)))

    # ------------------------------------------------------------------ names

    def look(self, filenames: ParserLike) -> None:
        """Find the files, and whose names they have."""
        files = sorted(self._walk(), key=_names.natural_key)
        auto = isinstance(filenames, str) and filenames.strip().lower() == "auto"
        self.parser = _detected(files, self.folder) if auto else get_parser(filenames)
        for name in files:
            said = self.parser.parse(name)
            if said is None and name.lower().endswith(IMAGES):
                knows = [
                    other for other in names() if (parser := get_parser(other)) is not self.parser and _is_image(parser, name)
                ]
                self.skip(name, "image of unknown name", f"a name of {' or '.join(knows)}" if knows else "")
            elif said is None or said.kind == "metadata":
                self.metadata.append(name)
                self.skip(name, "metadata" if said is not None else "unknown name")
            elif said.kind == "thumbnail":
                self.skip(name, "thumbnail")
            elif not name.lower().endswith(IMAGES):
                self.skip(name, "unreadable format", f"only {' and '.join(IMAGES)} are read")
            else:
                self.said[name] = said
        if not self.said:
            raise ConfigError(
                f"{self.folder}: none of its {len(files)} files has the name of an image of {self.parser.name}; "
                f"known are {', '.join(names())}, or say auto"
            )

    def _walk(self) -> Iterator[str]:
        real = self.folder.resolve()
        for where, folders, files in os.walk(real):
            here = Path(where)
            folders[:] = [name for name in folders if (here / name) != self.root and not (here / name / "zarr.json").exists()]
            for name in files:
                path = here / name
                relative = str(path.relative_to(real))
                if path.is_symlink() and not path.resolve().is_relative_to(real):
                    self.skip(relative, "link", "it leads out of the folder")
                elif not path.is_file():
                    self.skip(relative, "link", "it is not a file")
                else:
                    yield relative

    def find_places(self) -> None:
        """Find where each image belongs, and what is beside the images."""
        channels = sorted(
            {each.channel for each in self.said.values() if isinstance(each.channel, str)}, key=_names.natural_key
        )
        mixed = bool(channels) and any(isinstance(each.channel, int) for each in self.said.values())
        sources = Counter(each.source for each in self.said.values() if each.source)
        ours = sources.most_common(1)[0][0] if sources else ""
        for name, said in list(self.said.items()):
            channel = said.indices().get("channel", 0)
            if channels:
                channel = channels.index(str(said.channel)) if isinstance(said.channel, str) else -1
            problem = ""
            if said.source not in ("", ours):
                self.skip(name, "other plate", f"it is of {said.source!r}, not of {ours!r}")
            elif channel < 0 and mixed:
                problem = "its channel is a number, and those of the others are names"
            else:
                try:
                    place = _places.place_of(said, channel, self.geometry)
                except ConfigError as error:
                    problem = str(error)
                else:
                    if place in self.planes:
                        self.skip(name, "duplicate", f"{self.planes[place]} is the same plane ({place})")
                    else:
                        self.planes[place] = name
            if problem:
                self.skip(name, "no place", problem)
        if not self.planes:
            first = next(each for each in self.skipped if each.name in self.said)
            raise ConfigError(f"{self.folder}: no image has a place in a plate; {first.name}: {first.detail}")
        self.found = survey(self.folder, self.parser.name, self.metadata, self.planes, self.said, self.header)
        if channels:
            self.found.change(channels=tuple(PlateChannel(name=key, key=key) for key in channels))
        if self.geometry is not None:
            self.found.change(geometry=self.geometry)
        self.found.change(vendor={**self.found.description.vendor, "filenames": self.parser.name})

    def header(self, name: str) -> _tiff.TiffHeader | None:
        """Return the header of an image, None if it is damaged; each is read once."""
        if name not in self.headers:
            try:
                self.headers[name] = _tiff.read_header(self.folder / name)
            except (DatasetError, OSError):
                self.headers[name] = None
        return self.headers[name]

    # ------------------------------------------------------------------ the plate

    def open_plate(self, compression: str, *, pyramid: bool, replace: bool) -> Plate:
        """Make the plate with all its images, or open the one that is there and add what it lacks."""
        specs = self._specs(pyramid, compression)
        if replace or not is_plate(self.root):
            try:
                return Plate.make(self.root, self.found.description, specs, replace=replace)
            except DatasetExistsError:
                if not is_plate(self.root):  # else another import was quicker: both go on
                    raise
        plate = Plate(self.root)
        before = plate.description.vendor.get("filenames")
        if before not in (None, self.parser.name):
            raise ConfigError(
                f"{self.root}: is a plate of {before} names, not of {self.parser.name}; say --overwrite to make it anew"
            )
        plate.claim_source(self.found.description.source, str(self.folder))
        t, c, z = self.found.description.extent
        for key, spec in sorted(specs.items()):
            plate.ensure_extent(plate.ensure_image(key, spec), (t - 1, c - 1, 0 if key.projection else z - 1))
        return plate

    def _specs(self, pyramid: bool, compression: str) -> dict[ImageKey, PlateImageSpec]:
        """Return the geometry of each image: of its first plane that can be read, or that of the others if it has none."""
        specs: dict[ImageKey, PlateImageSpec] = {}
        for place, name in sorted(self.planes.items()):
            if place.image in specs:
                continue
            header = self.header(name)
            if header is not None:
                with contextlib.suppress(ConfigError):  # told when its turn comes to be stored
                    specs[place.image] = _documents.plan_image(
                        header.shape, header.dtype, pyramid=pyramid, compression=compression
                    )
        if not specs:
            raise DatasetError(f"{self.folder}: none of its {len(self.planes)} images can be read")
        _chunk.check_possible(next(iter(specs.values())))
        usual = Counter(specs.values()).most_common(1)[0][0]
        for key in {place.image for place in self.planes} | self.found.expected:
            specs.setdefault(key, usual)
        return specs

    def store(self, plate: Plate, workers: int, progress: Progress | None) -> None:
        """Store what is not there yet, several planes at once; each is told as soon as it is stored, in that order."""
        total = len(self.planes)
        ended: SimpleQueue[Future[Any]] = SimpleQueue()
        with ThreadPoolExecutor(workers, thread_name_prefix="mutoscope-import") as pool:
            waiting: dict[Future[Any], str] = {}
            try:
                for place, name in sorted(self.planes.items()):
                    image = plate.image(place.image)
                    if image is None:
                        raise DatasetError(f"{self.root}: lost the image {place.image.path}")
                    future = pool.submit(self._store, image, place, name)
                    waiting[future] = name
                    future.add_done_callback(ended.put)
                for done in range(1, total + 1):
                    future = ended.get()
                    outcome = future.result()
                    self._count(waiting[future], outcome)
                    if progress is not None:
                        progress(done, total, waiting[future])
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _count(self, name: str, outcome: str | tuple[str, str]) -> None:
        if isinstance(outcome, tuple):
            self.skip(name, *outcome)
        else:
            self.stored += outcome == "stored"
            self.already += outcome == "already"

    def _store(self, image: PlateImage, place: Place, name: str) -> str | tuple[str, str]:
        state = image.state(place.tcz)
        if state == _documents.STORED:
            held = image.name(place.tcz)
            if held != name:
                return ("duplicate", f"{held} is the same plane ({place})")
            if image.looks_whole(place.tcz):
                return "already"
        try:
            plane = _tiff.read_plane(self.folder / name)
        except DatasetError as error:
            return ("damaged", str(error))
        except OSError as error:
            if isinstance(error, DiskFullError):
                raise
            return ("damaged", error.strerror or str(error))
        try:
            plane = image.conform(plane, name)
        except ConfigError as error:
            return ("does not fit", str(error))
        end = time.monotonic() + _COMPANY_S
        while True:
            try:
                image.write(plane, place.tcz, name, overwrite=state != _documents.MISSING)
                break
            except DatasetExistsError as error:  # another import is at the same plane, or was quicker
                if image.state(place.tcz) == _documents.STORED and image.name(place.tcz) == name:
                    return "already"
                if image.state(place.tcz) != _documents.MISSING or time.monotonic() > end:
                    return ("duplicate", str(error))
            time.sleep(_PAUSE_S)
        kill_point("storage.plate.import_stored")
        return "stored"

    def report(self, plate: Plate) -> ImportReport:
        """Return what was done."""
        images = [image for key in plate.images() if (image := plate.image(key)) is not None]
        missing = sum(int((image.states() == _documents.MISSING).sum()) for image in images)
        order = {
            name: number for number, name in enumerate(sorted({each.name for each in self.skipped}, key=_names.natural_key))
        }
        used = set(self.found.read)
        skipped = [
            SkippedFile(each.name, "metadata") if each.name in used else each
            for each in sorted(self.skipped, key=lambda each: order[each.name])
        ]
        return ImportReport(
            plate=str(self.root),
            filenames=self.parser.name,
            stored=self.stored,
            already=self.already,
            missing=missing,
            wells=len(plate.wells),
            images=len(images),
            skipped=tuple(skipped),
            notes=tuple(self.found.notes),
            metadata_read=tuple(self.found.read),
        )


def _detected(files: list[str], folder: Path) -> NameParser:
    """Return the parser whose image names most of the files have.

    Raises
    ------
    ConfigError
        If none reads any, several read as many, or one reads images that this one does not know: the candidates are listed.
    """
    votes: Counter[str] = Counter()
    parsers = {name: get_parser(name) for name in names()}
    images = {file: [name for name, parser in parsers.items() if _is_image(parser, file)] for file in files}
    for vendors in images.values():
        votes.update(vendors)
    if not votes:
        sample = f", such as {files[0]!r}" if files else ""
        raise ConfigError(
            f"{folder}: no vendor is known for the names of its {len(files)} files{sample}; known are {', '.join(parsers)}"
        )
    best = max(votes.values())
    candidates = [name for name, count in votes.items() if count == best]
    chosen = parsers[candidates[0]]
    if len(candidates) > 1 or any(vendors and chosen.parse(file) is None for file, vendors in images.items()):
        listed = ", ".join(f"{name} ({count} images)" for name, count in votes.most_common())
        raise ConfigError(f"{folder}: these names may be of several vendors: {listed}; say which with --filenames")
    return chosen


def _is_image(parser: NameParser, file: str) -> bool:
    said = parser.parse(file)
    return said is not None and said.kind == "image"
