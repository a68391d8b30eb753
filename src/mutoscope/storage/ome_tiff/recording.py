"""Beginning an OME-TIFF stream, or going on with one: for one writer, or for a recorder that another process starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from mutoscope.model.errors import ConfigError, DatasetExistsError, DatasetNotFoundError, ScopeStateError
from mutoscope.storage import _layout as _common
from mutoscope.storage import _seal
from mutoscope.storage.ome_tiff import _layout, _replace
from mutoscope.storage.ome_tiff._codec import Encoder, load_codecs
from mutoscope.storage.ome_tiff._dataset import Lock, Names, Sidecar, change_sidecar
from mutoscope.storage.ome_tiff._layout import Geometry
from mutoscope.storage.ome_tiff._repair import FileState, repair
from mutoscope.storage.ome_tiff.writer import OmeTiffWriter
from mutoscope.storage.recording import CameraLayout, Recording, check_choice
from mutoscope.storage.writer import _MAX_ID, Durability, check_durability

__all__ = ["TiffRecording", "check_tiff_layout", "check_tiff_place", "create_tiff_recording", "go_on", "open_tiff_writer"]

_OWN = {"format", "dataset", "compression", "shape", "dtype", "pixel_size_um", "rate_hz"}


@dataclass(frozen=True)
class TiffRecording(Recording):
    """An OME-TIFF stream that is being recorded, as `Recording` is of OME-Zarr; it has one camera."""

    camera: str = "camera"
    last_id: int = 0
    """Of what it held when it was made or resumed."""

    def delete_replaced(self) -> None:
        """Delete what was replaced, if it is kept."""
        if self.replaced is not None:
            _replace.delete(self.replaced)

    def put_back(self) -> None:
        """Delete this data set, and have what it replaced back in its place; ScopeStateError if it holds a frame."""
        names = Names(self.path)
        lock = Lock(names)
        try:
            if names.present():
                raise ScopeStateError(f"{self.path}: holds frames already, so what it replaced stays at {self.replaced}")
            if self.replaced is not None:
                _replace.put_back(names, self.replaced)
            else:
                names.sidecar.unlink(missing_ok=True)
        finally:
            lock.release()

    @property
    def left_over(self) -> list[Path]:
        """Other data sets that were replaced here by runs that were killed before they had started."""
        return [path for path in _replace.left_over(Names(self.path)) if path != self.replaced]

    def last_frame_id(self, camera: str) -> int:
        """Return the newest id that was stored when it was made or resumed; 0: none."""
        return self.last_id


def check_tiff_layout(layout: CameraLayout) -> Geometry:
    """Return the geometry of a camera's frames, or raise ConfigError."""
    if layout.frames_per_shard is not None:
        raise ConfigError("an OME-TIFF has no shards: leave frames_per_shard out")
    for what, value in (("pixel_size_um", layout.pixel_size_um), ("rate_hz", layout.rate_hz)):
        _common.check_scale(what, value)
    geometry = _layout.plan_geometry(layout.shape, layout.dtype, layout.compression)
    if geometry.compression != "none":
        load_codecs()
    return geometry


def check_tiff_place(path: str | os.PathLike[str], *, overwrite: bool = False, resume: bool = False) -> None:
    """Raise what `create_tiff_recording` would raise of what stands at a path; nothing is changed."""
    check_choice(overwrite, resume)
    names = Names(path)
    if not names.folder.is_dir() or not _taken(names):
        return
    if resume:
        if not names.present() and Sidecar.read(names) is None:
            raise DatasetNotFoundError(f"{names.path}: there is no such data set")
    elif overwrite:
        _replace.check_replaceable(names)
    else:
        raise DatasetExistsError(f"{names.path} exists already: choose another name, or say overwrite or resume")


def create_tiff_recording(
    path: str | os.PathLike[str],
    cameras: Mapping[str, CameraLayout],
    *,
    overwrite: bool = False,
    resume: bool = False,
    attributes: Mapping[str, Any] | None = None,
    keep_replaced: bool = False,
) -> TiffRecording:
    """Make the data set that one camera will be recorded into, as `create_recording` does."""
    check_choice(overwrite, resume)
    names = Names(path)
    if len(cameras) != 1:
        raise ConfigError(f"{names.path.name}: an OME-TIFF holds one camera, not {len(cameras)}: record into OME-Zarr")
    [(name, layout)] = cameras.items()
    geometry, sidecar, extra = _prepared(name, layout, attributes or {})
    lock = _locked(names)
    try:
        states, kept = _begin(names, sidecar, geometry, extra, overwrite=overwrite, resume=resume, keep_replaced=keep_replaced)
    finally:
        lock.release()
    last = max((state.last_id for state in states), default=0)
    return TiffRecording(names.path, (names.path.name,), kept, name, last)


def go_on(
    path: str | os.PathLike[str],
    camera: str,
    durability: Durability,
    *,
    shape: tuple[int, int] | None = None,
    dtype: DTypeLike | None = None,
    continue_: bool = False,
    pyramid: bool = False,
) -> OmeTiffWriter:
    """Open the writer of a data set that `create_tiff_recording` made, as `open_image_writer` does."""
    check_durability(durability)
    if pyramid:
        raise ConfigError("pyramids are made of OME-Zarr: leave pyramid out")
    names = Names(path)
    own = Sidecar.read(names)
    if own is None and not names.present():
        raise DatasetNotFoundError(f"{names.path}: there is no such data set")
    lock = Lock(names)
    try:
        states, _ = repair(names)
        sidecar = Sidecar.read(names)
        assert sidecar is not None  # repair makes it
        if camera != sidecar.own["camera"]:
            raise ConfigError(f"{names.path}: has no camera {camera!r}; it has {sidecar.own['camera']}")
        geometry = sidecar.geometry()
        wanted = (tuple(shape or geometry.shape), geometry.dtype if dtype is None else np.dtype(dtype).name)
        if wanted != (geometry.shape, geometry.dtype):
            raise ConfigError(f"{names.path}: holds frames of {geometry.shape} {geometry.dtype}, not {wanted[0]} {wanted[1]}")
        if states and not continue_:
            raise ConfigError(f"{names.path}: holds frames already; say continue_=True to go on behind them")
        change_sidecar(names, {"state": "open"})
        return _writer(names, lock, geometry, states, durability)
    except BaseException:
        lock.release()
        raise


def open_tiff_writer(
    path: str | os.PathLike[str],
    *,
    shape: tuple[int, int],
    dtype: DTypeLike,
    name: str = "camera",
    pixel_size_um: float | None = None,
    rate_hz: float | None = None,
    overwrite: bool = False,
    resume: bool = False,
    durability: Durability = "process",
    compression: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> OmeTiffWriter:
    """Make an OME-TIFF stream, or go on with one, and open its writer.

    The parameters and errors are those of `mutoscope.storage.open_writer`. The sidecar is made at once, the file with the
    first frame: a TIFF without pages is not valid.
    """
    check_durability(durability)
    check_choice(overwrite, resume)
    layout = CameraLayout(shape, dtype, pixel_size_um, rate_hz, compression=compression)
    geometry, sidecar, extra = _prepared(name, layout, attributes or {})
    names = Names(path)
    lock = _locked(names)
    try:
        states, _ = _begin(names, sidecar, geometry, extra, overwrite=overwrite, resume=resume, keep_replaced=False)
        return _writer(names, lock, geometry, states, durability)
    except BaseException:
        lock.release()
        raise


def _prepared(name: str, layout: CameraLayout, attributes: Mapping[str, Any]) -> tuple[Geometry, Sidecar, dict[str, Any]]:
    """Look at all that can be refused before anything is touched."""
    _common.check_camera_name(name)
    geometry = check_tiff_layout(layout)
    extra = dict(_seal.checked_attributes(attributes))
    if own := sorted(_OWN & set(extra)):
        raise ConfigError(f"these attributes belong to the layout and cannot be set: {', '.join(own)}")
    size = None if layout.pixel_size_um is None else float(layout.pixel_size_um)
    rate = None if layout.rate_hz is None else float(layout.rate_hz)
    sidecar = Sidecar.new(geometry, name, size, rate, extra)
    sidecar.encode()
    return geometry, sidecar, extra


def _locked(names: Names) -> Lock:
    try:
        names.folder.mkdir(parents=True, exist_ok=True)
        return Lock(names)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise ConfigError(f"{names.path}: cannot be made ({error.strerror})") from error


def _writer(names: Names, lock: Lock, geometry: Geometry, states: list[FileState], durability: Durability) -> OmeTiffWriter:
    lock.reserve()
    encoder = Encoder(geometry) if geometry.compression != "none" else None
    try:
        return OmeTiffWriter(names, lock, encoder, geometry, states, durability)
    except BaseException:
        if encoder is not None:
            encoder.close()
        raise


def _taken(names: Names) -> bool:
    return bool(names.present()) or os.path.lexists(names.sidecar)


def _begin(
    names: Names,
    sidecar: Sidecar,
    geometry: Geometry,
    extra: Mapping[str, Any],
    *,
    overwrite: bool,
    resume: bool,
    keep_replaced: bool,
) -> tuple[list[FileState], Path | None]:
    """Make the sidecar, or take up what is there; the caller holds the lock. Also tells where what was replaced is kept."""
    names.remove_parts()
    taken = _taken(names)
    if taken and not overwrite and not resume:
        raise DatasetExistsError(f"{names.path}: exists already; choose another name, or say overwrite or resume")
    if not taken or overwrite:
        kept = None
        if taken:
            kept = _replace.set_aside(names)
        try:
            sidecar.write(names)
        except BaseException:
            if kept is not None:
                _replace.put_back(names, kept)
            raise
        if kept is not None and not keep_replaced:
            _replace.delete(kept)
            kept = None
        return [], kept
    states, _ = repair(names)
    old = Sidecar.read(names)
    assert old is not None  # repair makes it
    was = old.geometry()
    if (was.shape, was.dtype, was.compression) != (geometry.shape, geometry.dtype, geometry.compression):
        raise ConfigError(
            f"{names.path}: holds frames of {was.shape} {was.dtype}, compression {was.compression!r}: "
            "frames of another kind need a new name"
        )
    if (last := max((state.last_id for state in states), default=0)) >= _MAX_ID:
        raise ConfigError(f"{names.path}: cannot be resumed: the last frame_id is {last}, and ids end at 2**62")
    runs = old.own.get("earlier_runs")
    earlier = {key: old.own[key] for key in old.own if key in ("ledger", "settings", *extra)}
    runs = [*(runs if isinstance(runs, list) else []), earlier]
    change_sidecar(names, {"state": "open", "ledger": None, **extra, "earlier_runs": runs})
    return states, None
