"""The conversion: opens the source, chooses the form of the target, and tells what came of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from mutoscope.model.errors import ConfigError
from mutoscope.storage import _layout
from mutoscope.storage._names import image_choice
from mutoscope.storage.converting import _grid, _plates, _streams
from mutoscope.storage.converting._sources import Frames, Source, open_source
from mutoscope.storage.ome_tiff import SUFFIXES

__all__ = ["ConvertReport", "Progress", "convert"]

Progress = Callable[[int, int, str], None]
"""Called with frames done, frames in all, and what is done."""


class ConvertReport(msgspec.Struct, frozen=True):
    """What a conversion made.

    Parameters
    ----------
    source, target : str
        Paths.
    source_kind, target_kind : str
        Such as ``"ImageJ TIFF"`` and ``"OME-Zarr 0.5"``.
    frames : int
    images : tuple of str
        Image groups of an OME-Zarr (``"."`` is the root), or files of an OME-TIFF.
    axes : str
        Of each image: ``"tyx"`` for a stream, ``"tczyx"`` for a stack.
    gaps : tuple of (int, int)
        First missing id and how many, as in the source.
    kept : tuple of str
        What came over beside the pixels.
    not_kept : tuple of str
        What is in the source and not in the target.
    bytes : int
        Pixels, before compression.
    seconds : float
        How long it took.
    """

    source: str
    target: str
    source_kind: str
    target_kind: str
    frames: int
    images: tuple[str, ...]
    axes: str
    gaps: tuple[tuple[int, int], ...]
    kept: tuple[str, ...]
    not_kept: tuple[str, ...]
    bytes: int
    seconds: float

    def lines(self) -> list[str]:
        """Return it as a person reads it."""
        found = [
            f"{self.source} ({self.source_kind}) → {self.target} ({self.target_kind})",
            f"frames {self.frames:,} in {len(self.images)} {'image' if len(self.images) == 1 else 'images'}, axes {self.axes}, "
            f"{self.bytes / 1e6:,.1f} MB in {self.seconds:.1f} s",
        ]
        if self.gaps:
            missing = sum(count for _, count in self.gaps)
            found.append(f"gaps {len(self.gaps)}: {missing:,} frames were missing in the source, and their ids stay free")
        if self.kept:
            found.append(f"kept: {', '.join(self.kept)}")
        if self.not_kept:
            found.append(f"not kept: {'; '.join(self.not_kept)}")
        return found


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    image: str | None = None,
    compression: str | None = None,
    ome_zarr_version: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ConvertReport:
    """Copy a data set into OME-Zarr or OME-TIFF. The target appears whole or not at all, also under SIGKILL.

    Frames that run over time, and all recordings of Mutoscope, become a stream (t, y, x) with their ids, times and places.
    Stacks of other programs, with channels, depth or positions, become in OME-Zarr an image (t, c, z, y, x), one for each
    position; in OME-TIFF their planes are placed. Memory stays that of a few frames. The copy of a whole plate that was
    killed, or had no room, is gone on with by the next call: planes that are there are compared, not copied again.

    Parameters
    ----------
    source : path
        A stream of Mutoscope in either form; a TIFF of one or many pages, OME-TIFF, a folder of TIFF or PNG, OME-Zarr, also
        plates, NDTiff (with ``ndstorage``), what bioio reads (where it is installed).
    target : path
        ``….ome.zarr`` (or ``.zarr``) or ``….ome.tiff``; of a whole plate ``….ome.zarr``, or a folder that gets an OME-TIFF for
        each field.
    image : str, optional
        Which camera, field, image or scene, if there are several. All cameras of a recording fit into one OME-Zarr.
    compression : str, optional
        As `mutoscope.storage.open_writer`.
    ome_zarr_version : str, optional
        ``"0.5"``, which is the default, or ``"0.4"``.
    overwrite : bool
        Replace a data set that stands there, once the new one is whole.
    progress : callable, optional
        Called with frames done, frames in all, and the name of the image.

    Returns
    -------
    ConvertReport

    Raises
    ------
    DatasetNotFoundError, DatasetError
        If there is nothing at `source`, or it cannot be read or is damaged.
    ConfigError
        If the target cannot hold it, or cannot be. DatasetExistsError if something is there.
    BackendUnavailableError
        If a library is missing; says how to install it.
    DiskFullError
        If there is no room; nothing is left then.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from mutoscope import storage
    >>> folder = tempfile.mkdtemp()
    >>> with storage.open_writer(f"{folder}/run.ome.zarr", shape=(4, 6), dtype="uint16") as writer:
    ...     receipt = writer.append(np.ones((4, 6), "uint16"), frame_id=7)
    >>> report = storage.convert(f"{folder}/run.ome.zarr", f"{folder}/run.ome.tiff")
    >>> report.frames, storage.open_reader(f"{folder}/run.ome.tiff").frame_ids
    (1, array([7], dtype=uint64))
    """
    began = time.perf_counter()
    place = Path(target)
    if image is None and (fields := _plates.fields_of(Path(source))):
        whole = _plates.PlateSource(Path(source), fields, _layout.check_compression(compression if _is_zarr(place) else None))
        return _convert_plate(whole, place, compression, ome_zarr_version, overwrite, progress, began)
    tiff = place.name.lower().endswith(SUFFIXES)
    if not tiff and not _is_zarr(place):
        raise ConfigError(f"{place}: end the name in .ome.zarr or .ome.tiff, the two that are converted into")
    if tiff and ome_zarr_version is not None:
        raise ConfigError("an OME-TIFF has no version of OME-Zarr: leave ome_zarr_version out")
    version = _layout.check_version(ome_zarr_version or _layout.VERSIONS[0])
    if os.path.realpath(source) == os.path.realpath(target):
        raise ConfigError(f"{place}: is what is to be converted; choose another name")
    with open_source(source, image) as opened:
        done = _Counter(sum(frames.count for frames in opened.frames), progress)
        if tiff:
            sizes = opened.one().sizes
            kind, axes = "OME-TIFF", "tczyx" if max(sizes.get("c", 1), sizes.get("z", 1)) > 1 else "tyx"
            images = _streams.write_tiff(place, opened, compression, overwrite, done)
        elif any(frames.is_grid and not frames.has_ids for frames in opened.frames):
            kind, axes = f"OME-Zarr {version}", "tczyx"
            images = _grid.write_grid(place, opened, compression, version, overwrite, done)
        else:
            kind, axes = f"OME-Zarr {version}", "tyx"
            images = _streams.write_zarr(place, opened, compression, version, overwrite, done)
        return ConvertReport(
            source=str(source),
            target=str(place),
            source_kind=opened.kind,
            target_kind=kind,
            frames=done.total,
            images=tuple(images),
            axes=axes,
            gaps=tuple(gap for frames in opened.frames for gap in frames.gaps()),
            kept=tuple(_kept(opened)),
            not_kept=(*opened.lost, *_not_held(opened, tiff, axes)),
            bytes=done.bytes,
            seconds=time.perf_counter() - began,
        )


def _is_zarr(place: Path) -> bool:
    return place.suffix == ".zarr"


def _convert_plate(
    source: _plates.PlateSource,
    place: Path,
    compression: str | None,
    version: str | None,
    overwrite: bool,
    progress: Progress | None,
    began: float,
) -> ConvertReport:
    """Copy a whole plate."""
    first = source.fields[0].path
    if place.name.lower().endswith(SUFFIXES):
        choice = image_choice(first)
        raise ConfigError(f"{source.path}: it is a plate, choose a field with image= {choice}, or name a folder for all fields")
    if _layout.check_version(version or _layout.VERSIONS[0]) != _layout.VERSIONS[0]:
        raise ConfigError(
            f"{place}: plates are written in OME-Zarr {_layout.VERSIONS[0]}; single fields (image=) in others, too"
        )
    real = Path(os.path.realpath(place))
    if real == source.path.resolve() or source.path.resolve() in real.parents:
        raise ConfigError(f"{place}: lies in what is to be converted; choose another name")
    done = _Counter(source.count(stored=_is_zarr(place)), progress)
    if _is_zarr(place):
        images = _plates.write_plate(place, source, _layout.check_compression(compression), overwrite, done)
    else:
        if overwrite:
            raise ConfigError(f"{place}: a folder of OME-TIFF is never replaced; delete it, or choose another name")
        if version is not None:
            raise ConfigError("an OME-TIFF has no version of OME-Zarr: leave ome_zarr_version out")
        images = _plates.write_fields(place, source, compression, done)
    missing = [] if _is_zarr(place) else source.told_missing()
    return ConvertReport(
        source=str(source.path),
        target=str(place),
        source_kind=source.kind,
        target_kind=f"OME-Zarr {_layout.VERSIONS[0]} plate" if _is_zarr(place) else "folder of OME-TIFF",
        frames=done.total,
        images=tuple(images),
        axes="tczyx",
        gaps=(),
        kept=("places of all planes", *source.copied) if _is_zarr(place) else ("places of all planes",),
        not_kept=(*source.lost, *missing),
        bytes=done.bytes,
        seconds=time.perf_counter() - began,
    )


class _Counter:
    """Counts frames, and reports them."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total = total
        self.done = self.bytes = 0
        self._progress = progress

    def __call__(self, nbytes: int, name: str) -> None:
        self.done += 1
        self.bytes += nbytes
        if self._progress is not None:
            self._progress(self.done, self.total, name)


def _kept(source: Source) -> list[str]:
    found = []
    if any(frames.has_ids for frames in source.frames):
        found.append("frame ids, ticks, times, exposure times, plane indices")
    elif any(frames.index(0) is not None for frames in source.frames):
        found.append("places in t, c, z and position")
    if any(frames.pixel_size_um for frames in source.frames):
        found.append("pixel size")
    return [*found, *source.copied, *sorted(source.attributes), *(f"source.{key}" for key in sorted(source.about))]


def _not_held(source: Source, tiff: bool, axes: str) -> list[str]:
    found = []
    named: list[Frames] = [frames for frames in source.frames if frames.channels]
    if named and (tiff or axes == "tyx"):
        found.append("names of channels in the image's own metadata (they are in its attributes, under source)")
    if any(frames.z_step_um for frames in source.frames) and (tiff or axes == "tyx"):
        found.append("step along z in the image's own metadata (it is in its attributes, under source)")
    if axes == "tczyx" and not tiff and any(frames.rate_hz for frames in source.frames):
        found.append("frame rate")
    if axes == "tczyx" and not tiff and any("exposure_ms" in frames.metadata(0) for frames in source.frames):
        found.append("exposure times")
    if tiff and source.kind.startswith("OME-Zarr recording"):
        found.append("the division into images of resumed runs")
    return found
