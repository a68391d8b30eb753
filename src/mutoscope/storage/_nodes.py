"""Groups and arrays of a data set, as documents of Zarr 3 (OME-Zarr 0.5) or of Zarr 2 (OME-Zarr 0.4), never both in one.

Zarr 3 has one ``zarr.json`` a node. Zarr 2 has ``.zarray`` for an array, ``.zgroup`` and ``.zattrs`` for a group:
https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mutoscope.model.errors import DatasetError, DatasetNotFoundError
from mutoscope.storage import _files, _layout

__all__ = [
    "array_file",
    "chunk_folder",
    "group_files",
    "has_array",
    "has_group",
    "read_array",
    "read_group",
    "replace_array",
    "replace_group",
    "version_of",
    "write_array",
    "write_group",
]


def version_of(group: Path) -> str:
    """Return the version of OME-Zarr of a group: ``"0.4"`` where there is a ``.zgroup`` alone, else ``"0.5"``."""
    if not os.path.lexists(group / "zarr.json") and os.path.lexists(group / ".zgroup"):
        return "0.4"
    return "0.5"


def array_file(version: str) -> str:
    """Return the name of an array's document."""
    return "zarr.json" if version == "0.5" else ".zarray"


def group_files(version: str) -> tuple[str, ...]:
    """Return the names of a group's documents; the last one holds its attributes."""
    return ("zarr.json",) if version == "0.5" else (".zgroup", ".zattrs")


def chunk_folder(folder: Path, version: str) -> Path:
    """Return where the chunk files of an array of one axis lie."""
    return folder / "c" if version == "0.5" else folder


def has_array(folder: Path) -> bool:
    """Whether an array is there."""
    return (folder / "zarr.json").is_file() or (folder / ".zarray").is_file()


def has_group(folder: Path) -> bool:
    """Whether a group is there."""
    return (folder / "zarr.json").is_file() or (folder / ".zgroup").is_file()


def read_array(root: Path, relative: str) -> dict[str, Any]:
    """Return the document of an array in the data set `root`; `_layout.parse_level` and `parse_flat` know both kinds."""
    old = not os.path.lexists(root / relative / "zarr.json") and os.path.lexists(root / relative / ".zarray")
    return _files.read_document(root, f"{relative}/{'.zarray' if old else 'zarr.json'}")


def read_group(root: Path, relative: str = "") -> dict[str, Any]:
    """Return the attributes of a group in the data set `root`.

    Raises
    ------
    DatasetNotFoundError, DatasetError
        If there is nothing at `root`; if there is no group, or it is damaged.
    """
    group = root / relative if relative else root
    prefix = f"{relative}/" if relative else ""
    if version_of(group) == "0.5":
        return _files.attributes_of(_files.read_document(root, f"{prefix}zarr.json"), group)
    if _files.read_document(root, f"{prefix}.zgroup") != _layout.GROUP_2:
        raise DatasetError(f"{group}: is not a Zarr 2 group, or is damaged")
    if not os.path.lexists(group / ".zattrs"):
        return {}
    return _files.read_document(root, f"{prefix}.zattrs")


def write_array(folder: Path, document: Mapping[str, Any]) -> None:
    """Write the document of an array that nobody reads yet."""
    (folder / _name(document)).write_bytes(_files.encode(document))


def replace_array(folder: Path, document: Mapping[str, Any], staging: Path) -> Path:
    """Replace the document of an array as a whole; return it."""
    target = folder / _name(document)
    _files.replace_document(target, document, staging)
    return target


def _name(document: Mapping[str, Any]) -> str:
    return ".zarray" if document["zarr_format"] == 2 else "zarr.json"


def write_group(folder: Path, version: str, attributes: Mapping[str, Any]) -> None:
    """Write the documents of a group that nobody reads yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if version == "0.5":
        (folder / "zarr.json").write_bytes(_files.encode(_layout.group_document(dict(attributes))))
        return
    (folder / ".zattrs").write_bytes(_files.encode(attributes))
    (folder / ".zgroup").write_bytes(_files.encode(_layout.GROUP_2))


def replace_group(folder: Path, version: str, attributes: Mapping[str, Any], staging: Path, *, durable: bool = False) -> None:
    """Replace the attributes of a group as a whole; make the group if it is not there. What else its document says stays."""
    if version == "0.4":
        if not (folder / ".zgroup").exists():
            _files.replace_document(folder / ".zgroup", _layout.GROUP_2, staging, durable=durable)
        _files.replace_document(folder / ".zattrs", attributes, staging, durable=durable)
        return
    try:
        document = _files.read_document(folder, "zarr.json")
    except (DatasetError, DatasetNotFoundError):
        document = _layout.group_document({})
    document["attributes"] = dict(attributes)
    _files.replace_document(folder / "zarr.json", document, staging, durable=durable)
