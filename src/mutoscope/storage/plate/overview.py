"""The overview of a plate: one small image of all wells, ``overview/0`` of shape (c, y, x), a tile a well.

A tile is a chunk: the first stored field of the well at its first time point, in the middle of the stored planes of that
channel. Without planes, the well's projection.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import DatasetError
from mutoscope.model.plate import PlateGeometry, WellName
from mutoscope.storage import _files, _layout
from mutoscope.storage._half import shrunk_to
from mutoscope.storage.plate import _documents
from mutoscope.storage.plate._image import PlateImage, remove_parts
from mutoscope.storage.plate._plate import Plate

__all__ = ["TILE", "update"]

TILE = 128
"""Pixels of a side of a tile."""

_log = logging.getLogger(__name__)


def update(plate: Plate, wells: Iterable[WellName]) -> None:
    """Make the tiles of some wells anew, and the overview if there is none. Several processes may do so at once.

    Parameters
    ----------
    plate : Plate
    wells : iterable of WellName
        Those of which something changed.
    """
    plate.refresh()
    folder = plate.root / _documents.OVERVIEW
    first = next((image for key in plate.images() if (image := plate.image(key)) is not None), None)
    if first is None:
        return
    dtype = first.spec.dtype
    level = folder / "0"
    geometry = _documents.geometry_of(plate.description, plate.wells)
    channels = max(plate.description.extent[1], 1)
    with _files.locked(plate.root):
        wanted = _document(dtype, channels, geometry)
        if not (level / "zarr.json").exists():
            level.mkdir(parents=True, exist_ok=True)
            _files.replace_document(level / "zarr.json", wanted, plate.staging())
            _files.replace_document(folder / "zarr.json", _layout.group_document(_attributes(plate)), plate.staging())
        else:
            there = _files.read_document(plate.root, f"{_documents.OVERVIEW}/0/zarr.json")
            dtype = there["data_type"]
            wanted = _document(dtype, max(channels, there["shape"][0]), geometry)
            if there != wanted:
                _files.replace_document(level / "zarr.json", wanted, plate.staging())
    remove_parts(level)
    for well in sorted(set(wells)):
        for channel, tile in _tiles(plate, well, channels).items():
            target = level / "c" / str(channel) / str(well.row) / str(well.column)
            target.parent.mkdir(parents=True, exist_ok=True)
            part = level / _files.part_name()
            try:
                part.write_bytes(tile.astype(np.dtype(dtype).newbyteorder("<")).tobytes())
                os.replace(part, target)
            finally:
                part.unlink(missing_ok=True)


def _document(dtype: str, channels: int, geometry: PlateGeometry) -> dict[str, Any]:
    shape = (channels, geometry.rows * TILE, geometry.columns * TILE)
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}} if np.dtype(dtype).itemsize > 1 else {"name": "bytes"}]
    return _documents._array(shape, dtype, (1, TILE, TILE), ["c", "y", "x"], codecs)


def _attributes(plate: Plate) -> dict[str, Any]:
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]}
    multiscale = {"name": f"{plate.description.name or 'plate'} overview", "axes": axes, "datasets": [dataset]}
    own = {"plate_layout": _documents.PLATE_LAYOUT, "tile": TILE}
    return {"ome": {"version": _documents.OME_VERSION, "multiscales": [multiscale]}, _layout.NAMESPACE: own}


def _tiles(plate: Plate, well: WellName, channels: int) -> dict[int, NDArray[Any]]:
    """Return the tile of each channel; a channel without planes gets an empty one, as one may be there from before."""
    found: dict[int, NDArray[Any]] = {}
    for key in sorted(plate._listed(well), key=lambda key: (key.projection, key.field)):
        image = plate.image(key)
        if image is None:
            continue
        states = image.states()
        for channel in range(min(channels, states.shape[1])):
            there = np.flatnonzero(states[0, channel])
            if channel not in found and there.size:
                try:
                    found[channel] = _tile(image, (0, channel, int(there[len(there) // 2])))
                except DatasetError as error:  # a damaged plane costs its tile; `recover` finds it
                    _log.warning("no tile of %s, channel %d: %s", key.path, channel, error)
    return {channel: found.get(channel, np.zeros((TILE, TILE), "uint8")) for channel in range(channels)}


def _tile(image: PlateImage, at: tuple[int, int, int]) -> NDArray[Any]:
    """Return a plane, shrunk and put in the middle of a tile."""
    small = shrunk_to(image.read(at, level=image.spec.levels - 1), TILE)
    tile = np.zeros((TILE, TILE), dtype=small.dtype)
    y, x = (TILE - small.shape[0]) // 2, (TILE - small.shape[1]) // 2
    tile[y : y + small.shape[0], x : x + small.shape[1]] = small
    return tile
