"""What a plate holds, in plain values and as lines."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mutoscope.model.errors import DatasetNotFoundError
from mutoscope.storage.plate import _documents
from mutoscope.storage.plate._plate import Plate

__all__ = ["plate_info", "plate_lines"]


def plate_info(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describe a plate in plain values.

    Returns
    -------
    dict
        ``path``, ``plate_layout``, ``name``, ``rows``, ``columns``, ``wells`` (for each ``well``, ``fields`` (numbers),
        ``stored``, ``missing``), ``extent`` (t, c, z), ``channels`` (names), ``pixel_size_um``, ``z_step_um``, ``stored``,
        ``missing``, ``replacing`` (stored, their smaller levels perhaps older) and ``images``: for each ``image`` (its path),
        ``well``, ``field``, ``projection``, ``shape`` (t, c, z, y, x), ``dtype``, ``levels``, ``stored`` and ``missing`` (list
        of [t, c, z]).

    Raises
    ------
    DatasetNotFoundError, DatasetError
        If nothing is there, or it is no plate or damaged.
    """
    root = Path(os.path.abspath(path))
    if not os.path.lexists(root):
        raise DatasetNotFoundError(f"{root}: there is no such data set")
    plate = Plate(root)
    images: list[dict[str, Any]] = []
    wells: dict[str, dict[str, Any]] = {}
    replacing = 0
    for key in plate.images():
        image = plate.image(key)
        if image is None:
            continue
        states = image.states()
        gone = np.argwhere(states == _documents.MISSING).tolist()
        stored = int(np.count_nonzero(states))
        replacing += int(np.count_nonzero(states == _documents.REPLACING))
        images.append(
            {
                "image": key.path,
                "well": str(key.well),
                "field": key.field,
                "projection": key.projection,
                "shape": [*image.extent, *image.spec.shape],
                "dtype": image.spec.dtype,
                "levels": image.spec.levels,
                "stored": stored,
                "missing": gone,
            }
        )
        well = wells.setdefault(str(key.well), {"well": str(key.well), "fields": [], "stored": 0, "missing": 0})
        well["stored"] += stored
        well["missing"] += len(gone)
        if not key.projection:
            well["fields"].append(key.field)
    known = plate.description
    geometry = _documents.geometry_of(known, plate.wells)
    channels = max(known.extent[1], 1)
    return {
        "path": str(root),
        "plate_layout": _documents.PLATE_LAYOUT,
        "name": known.name or known.source,
        "rows": geometry.rows,
        "columns": geometry.columns,
        "extent": list(known.extent),
        "channels": [known.channel(c).name or f"channel {c + 1}" for c in range(channels)],
        "pixel_size_um": known.pixel_size_um,
        "z_step_um": known.z_step_um,
        "stored": sum(image["stored"] for image in images),
        "missing": sum(len(image["missing"]) for image in images),
        "replacing": replacing,
        "wells": list(wells.values()),
        "images": images,
    }


def plate_lines(info: Mapping[str, Any]) -> list[str]:
    """Return what `plate_info` tells, as lines for people."""
    t, c, z = info["extent"]
    size, step = info["pixel_size_um"], info["z_step_um"]
    whole = "complete" if not info["missing"] else f"{info['missing']:,} missing"
    found = [
        f"{info['path']}: plate {info['name'] or 'without a name'}, {info['stored']:,} planes stored, {whole}",
        f"  plate    {info['rows']} rows, {info['columns']} columns; {len(info['wells'])} wells, {len(info['images'])} images",
        f"  axes     t {t}, c {c} ({', '.join(info['channels'])}), z {z}",
        f"  pixel    {'size unknown' if size is None else f'{size:g} µm'}{'' if step is None else f', z step {step:g} µm'}",
    ]
    for well in info["wells"]:
        images = [image for image in info["images"] if image["well"] == well["well"]]
        shapes = sorted({(*image["shape"][3:], image["dtype"]) for image in images})
        pixels = ", ".join(f"{height} x {width} px {dtype}" for height, width, dtype in shapes)
        projections = sum(image["projection"] for image in images)
        also = f", {projections} of projections" if projections else ""
        state = "complete" if not well["missing"] else f"{well['missing']:,} missing"
        found.append(f"  {well['well']:<8} {len(well['fields'])} fields{also}, {well['stored']:,} planes, {state}; {pixels}")
    if info["replacing"]:
        found.append(f"  {info['replacing']:,} planes were being replaced; store them again to renew their smaller levels")
    return found
