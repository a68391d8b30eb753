"""A target with all axes: OME-Zarr images (t, c, z, y, x), one for each position, a file a plane."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError
from mutoscope.storage import _aside, _codec, _files, _layout, _nodes
from mutoscope.storage.converting._members import copy_members, leave_members
from mutoscope.storage.converting._sources import Frames, Source, about
from mutoscope.storage.plate.description import COLOURS

__all__ = ["write_grid"]

Done = Callable[[int, str], None]
SOURCE = "mutoscope.source"
"""Attribute of the root under which the target says what it was made of."""


def write_grid(target: Path, source: Source, compression: str | None, version: str, overwrite: bool, done: Done) -> list[str]:
    """Make it; return its images."""
    frames = source.one()
    level = _layout.plan_level(frames.shape, frames.dtype, None, compression, version)
    level = _layout.Level(level.shape, level.dtype, 1, level.shape[0], level.compression, version)  # a plane is one chunk
    _codec.check_possible(level)
    positions = frames.sizes.get("position", 1)
    names = ["."] if positions == 1 else [str(number) for number in range(positions)]
    extra = {SOURCE: about(source), **({_layout.NAMESPACE: source.attributes} if source.attributes else {})}

    def fill(folder: Path) -> None:
        images = [folder if name == "." else folder / name for name in names]
        for number, image in enumerate(images):
            image.mkdir(exist_ok=True)
            own = extra if names == ["."] else {}
            _nodes.write_group(image, version, {**_attributes(frames, number, version, positions), **own})
            (image / _layout.LEVEL).mkdir()
            _nodes.write_array(image / _layout.LEVEL, _document(frames, level))
        if positions > 1:
            _nodes.write_group(folder / _layout.OME, version, _layout.ome_attributes(version, {"series": names}))
            _nodes.write_group(folder, version, _layout.with_series(dict(extra), version))
        encode = _codec.encoder(level)
        for number in range(frames.count):
            frame = frames.read(number)
            if frame.shape != level.shape or frame.dtype.newbyteorder("=") != np.dtype(level.dtype):
                raise ConfigError(f"{source.path}: plane {number} is {frame.shape} {frame.dtype.name}, unlike the first")
            index = frames.index(number)
            assert index is not None
            place = (max(index.t, 0), max(index.c, 0), max(index.z, 0))
            image = images[max(index.position, 0)]
            _write(image / _layout.LEVEL / _chunk(level, place), encode(np.ascontiguousarray(frame, level.numpy_dtype)))
            done(frame.nbytes, frames.name)
            kill_point("storage.convert.frame")
        if positions == 1:
            copy_members(source, folder)
        else:
            leave_members(source)
        kill_point("storage.convert.written")

    _aside.make_folder(Path(os.path.abspath(target)), fill, replace=overwrite)
    return names


def _chunk(level: _layout.Level, place: tuple[int, int, int]) -> str:
    numbers = "/".join(str(number) for number in (*place, 0, 0))
    return f"c/{numbers}" if level.version == "0.5" else numbers


def _write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        _files.write_all(fd, data, 0)
    finally:
        os.close(fd)


def _document(frames: Frames, level: _layout.Level) -> dict[str, Any]:
    """Return the document of the pixels."""
    shape = [*(frames.sizes.get(axis, 1) for axis in ("t", "c", "z")), *level.shape]
    chunk = [1, 1, 1, *level.shape]
    plain = _layout.level_document(level, 1)
    if level.version == "0.4":
        return {**plain, "shape": shape, "chunks": chunk}
    return {
        **plain,
        "shape": shape,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "codecs": plain["codecs"][0]["configuration"]["codecs"],
        "dimension_names": list("tczyx"),
    }


def _attributes(frames: Frames, position: int, version: str, positions: int) -> dict[str, Any]:
    """Return what OME-Zarr knows of an image; an unknown size is scale 1 without a unit."""

    def space(name: str, known: float | None) -> dict[str, str]:
        return {"name": name, "type": "space", **({"unit": "micrometer"} if known else {})}

    pixel, z_step = frames.pixel_size_um, frames.z_step_um
    scale = [1.0, 1.0, z_step or 1.0, pixel or 1.0, pixel or 1.0]
    image = {
        "name": frames.name if positions == 1 else f"{frames.name} {position}",
        "axes": [
            {"name": "t", "type": "time"},
            {"name": "c", "type": "channel"},
            space("z", z_step),
            space("y", pixel),
            space("x", pixel),
        ],
        "datasets": [{"path": _layout.LEVEL, "coordinateTransformations": [{"type": "scale", "scale": scale}]}],
    }
    own: dict[str, Any] = {"multiscales": [image]}
    if frames.channels:
        own["omero"] = {"channels": _channels(frames)}
    return _layout.ome_attributes(version, own)


_NAMED = {"red": "FF0000", "green": "00FF00", "blue": "0000FF", "grey": "FFFFFF", "alpha": "FFFFFF"}


def _channels(frames: Frames) -> list[dict[str, Any]]:
    kind = np.dtype(frames.dtype)
    low, high = (0.0, 1.0) if kind.kind == "f" else (float(np.iinfo(kind).min), float(np.iinfo(kind).max))
    window = {"min": low, "max": high, "start": low, "end": high}
    return [
        {"label": name, "color": _NAMED.get(name, COLOURS[number % len(COLOURS)]), "active": True, "window": window}
        for number, name in enumerate(frames.channels)
    ]
