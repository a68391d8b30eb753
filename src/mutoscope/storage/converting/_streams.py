"""Targets that are streams: made whole in a hidden folder, then put in place."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError, DatasetExistsError
from mutoscope.storage import _aside, _layout
from mutoscope.storage._names import image_choice
from mutoscope.storage.converting._members import copy_members, leave_members
from mutoscope.storage.converting._sources import Frames, Source, about
from mutoscope.storage.ome_tiff import _replace
from mutoscope.storage.ome_tiff._dataset import Lock, Names, Sidecar
from mutoscope.storage.ome_tiff.recording import open_tiff_writer
from mutoscope.storage.recording import CameraLayout, create_recording, find_recording, open_image_writer

__all__ = ["write_tiff", "write_zarr"]

Done = Callable[[int, str], None]
_PLACING = "placing"
"""State of an OME-TIFF whose files are being put in place."""


def write_zarr(target: Path, source: Source, compression: str | None, version: str, overwrite: bool, done: Done) -> list[str]:
    """Make an OME-Zarr stream of all cameras; return its images."""
    for frames in source.frames:
        _layout.check_camera_name(frames.name)
    root = Path(os.path.abspath(target))

    def fill(folder: Path) -> None:
        layouts = {}
        for frames in source.frames:
            first = frames.read(0)
            layouts[frames.name] = CameraLayout(
                (first.shape[0], first.shape[1]), first.dtype, frames.pixel_size_um, frames.rate_hz, compression=compression
            )
        attributes = {**source.attributes, "source": about(source)}
        create_recording(folder, layouts, ome_zarr_version=version, attributes=attributes)
        for frames in source.frames:
            _fill_camera(folder, frames, done)
        copy_members(source, folder)
        kill_point("storage.convert.written")

    _aside.make_folder(root, fill, replace=overwrite)
    return list(find_recording(root).images)


def _fill_camera(folder: Path, frames: Frames, done: Done) -> None:
    number = 0
    while number < frames.count:
        frame = frames.read(number)
        shape, dtype = (frame.shape[0], frame.shape[1]), frame.dtype
        with open_image_writer(folder, frames.name, shape=shape, dtype=dtype, continue_=True) as writer:
            while frame.shape == shape and frame.dtype == dtype:
                writer.append(frame, **frames.metadata(number))
                done(frame.nbytes, frames.name)
                kill_point("storage.convert.frame")
                number += 1
                if number == frames.count:
                    break
                frame = frames.read(number)


def write_tiff(target: Path, source: Source, compression: str | None, overwrite: bool, done: Done) -> list[str]:
    """Make an OME-TIFF stream of one camera; return its files."""
    frames = source.one()
    leave_members(source)
    names = Names(target)
    if not overwrite:
        _check_free(names)
    with _aside.staging(names.path) as folder:
        inner = Names(folder / names.path.name)
        first = frames.read(0)
        shape = (first.shape[0], first.shape[1])
        with closing(
            open_tiff_writer(
                inner.path,
                shape=shape,
                dtype=first.dtype,
                name=_layout.check_camera_name(frames.name),
                pixel_size_um=frames.pixel_size_um,
                rate_hz=frames.rate_hz,
                compression=compression,
                attributes={**source.attributes, "source": about(source)},
            )
        ) as writer:
            for number in range(frames.count):
                frame = frames.read(number)
                if frame.shape != shape or frame.dtype != np.dtype(first.dtype):
                    raise ConfigError(
                        f"{source.path}: its frames change from {shape} {first.dtype.name} to {frame.shape} "
                        f"{frame.dtype.name}, which one OME-TIFF cannot hold; convert its images one by one, such as "
                        f"{frames.name}.0 {image_choice(f'{frames.name}.0')}"
                    )
                writer.append(frame, **frames.metadata(number))
                done(frame.nbytes, frames.name)
                kill_point("storage.convert.frame")
        kill_point("storage.convert.written")
        with _aside.refusals(names.path):
            return _place(inner, names, overwrite)


def _check_free(names: Names) -> None:
    """Raise unless nothing is there, or what a conversion left that was killed while it put its files in place."""
    if not names.folder.is_dir() or _is_left_over(names):
        return
    if names.present() or os.path.lexists(names.sidecar):
        raise DatasetExistsError(f"{names.path}: exists already; choose another name, or say overwrite")


def _is_left_over(names: Names) -> bool:
    return _left_over(names) is not None


def _left_over(names: Names) -> Sidecar | None:
    """Return the sidecar of a conversion that was killed while it put its files in place."""
    try:
        found = Sidecar.read(names)
    except DatasetError:
        return None
    return found if found is not None and found.own.get("state") == _PLACING else None


def _set_aside_then(names: Names, left: Sidecar) -> Path | None:
    """Return what the killed conversion was to replace, if it is still there."""
    replaces = left.own.get("replaces")
    return next((path for path in _replace.left_over(names) if path.name == replaces), None)


def _place(inner: Names, names: Names, overwrite: bool) -> list[str]:
    """Put the files in place, the one of position 0 last; until then, and a moment longer, the sidecar says so."""
    whole = Sidecar.read(inner)
    assert whole is not None
    lock = Lock(names)
    try:
        if not overwrite:
            _check_free(names)
        kept = None
        if (left := _left_over(names)) is not None:
            _replace.check_replaceable(names)
            kept = _set_aside_then(names, left)
            _replace.delete(names.path)
        elif names.present() or os.path.lexists(names.sidecar):
            kept = _replace.set_aside(names)
        Sidecar({**whole.own, "state": _PLACING, "replaces": kept.name if kept is not None else None}).write(names)
        kill_point("storage.convert.marked")
        placed = []
        for position, path in sorted(inner.present().items(), reverse=True):
            os.rename(path, names.position(position))
            kill_point("storage.convert.file_placed")
            placed.append(names.position(position).name)
        whole.write(names)
        kill_point("storage.convert.placed")
        if kept is not None:
            _replace.delete(kept)
        return placed[::-1]
    finally:
        lock.release()
