"""Tables beside what they are of, in OME-Zarr: a group ``tables`` of an image, a well, a plate or a recording.

OME-Zarr has no tables of its own yet. This is the form that ngio and Fractal have for them, with its CSV backend: a group
with ``type``, ``table_version`` and ``backend`` in its attributes, and the rows in ``table.csv``, which anything reads.
Source: https://fractal-analytics-platform.github.io/ngio/stable/table_specs/overview
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.storage import _arrays, _files, _layout, _nodes, _tables
from mutoscope.storage._beside import Member, Parent, find_parent

__all__ = ["delete_table", "list_tables", "load_table", "save_table"]

FILE = "table.csv"
_TABLES = Member("tables", "the table")
_MAX_BYTES = 1 << 30


def save_table(
    dataset: str | os.PathLike[str],
    name: str,
    table: Any,
    *,
    image: str | None = None,
    labels: str | None = None,
    overwrite: bool = False,
) -> None:
    """Save a table beside an image, a well, a plate or a recording. All of it or, if this process is killed, none.

    Parameters
    ----------
    dataset : path
        An OME-Zarr.
    name : str
        At most 128 letters, digits, ``_``, ``-`` and ``.``.
    table : structured array, pandas or Arrow table
        With at least one column, of numbers, truth values, text or dates.
    image : str, optional
        Beside what: a camera of a recording, a field (``"B/03/0"``) or a well (``"B/03"``) of a plate. The root, if not given.
    labels : str, optional
        Of which labels of the image this table has a row each, by its column ``label``.
    overwrite : bool
        Replace a table of this name.

    Raises
    ------
    DatasetExistsError
        If there is one of this name.
    ConfigError
        If it is no table, or has a column that CSV cannot hold.
    DatasetNotFoundError, DatasetError, DiskFullError
        If there is no such data set; it is damaged; there is no room.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from mutoscope import storage
    >>> path = f"{tempfile.mkdtemp()}/run.ome.zarr"
    >>> with storage.open_writer(path, shape=(4, 6), dtype="uint16") as writer:
    ...     receipt = writer.append(np.ones((4, 6), "uint16"))
    >>> storage.save_table(path, "spots", np.array([(1, 2.5)], dtype=[("label", "u4"), ("x_px", "f4")]))
    >>> storage.list_tables(path), storage.load_table(path, "spots")["x_px"]
    (['spots'], array([2.5], dtype=float32))
    """
    parent = find_parent(dataset, image, any_group=True)
    if not isinstance(table, np.ndarray) and not _tables.is_foreign_table(table):
        table = _arrays.to_numpy(table) if _arrays.is_array(table) else table
    if not isinstance(table, np.ndarray) and not _tables.is_foreign_table(table):
        raise ConfigError(f"a table is a structured array, or one of pandas or Arrow, not {type(table).__name__}")
    rows = _tables.to_structured(table)
    if not rows.dtype.names:
        raise ConfigError("a table is a structured array: give its columns names")
    _tables.check_csv(rows)
    own: dict[str, Any] = {"type": "generic_table", "table_version": "1", "backend": "csv"}
    if labels is not None:
        if "label" not in rows.dtype.names or rows.dtype["label"].kind not in "iu":
            raise ConfigError("a table of labels has a column 'label' of integers")
        own |= {"type": "feature_table", "region": {"path": f"../labels/{labels}"}, "instance_key": "label"}
        own |= {"index_key": "label", "index_type": "int"}
    own[_layout.NAMESPACE] = {"columns": {key: rows.dtype[key].newbyteorder("<").str for key in rows.dtype.names}}

    def build(folder: Path) -> None:
        with open(folder / FILE, "wb") as file:
            _tables.write_csv(file, rows)
        _nodes.write_group(folder, parent.version, own)

    _TABLES.save(parent, name, build, overwrite=overwrite)


def list_tables(dataset: str | os.PathLike[str], *, image: str | None = None) -> list[str]:
    """Return the names of the tables beside an image, a well, a plate or a recording, in the order of their saving."""
    return _TABLES.listed(find_parent(dataset, image, any_group=True))


def load_table(dataset: str | os.PathLike[str], name: str, *, image: str | None = None) -> NDArray[Any]:
    """Return a table as a structured array, its columns of the types that they were saved with.

    Raises
    ------
    DatasetNotFoundError
        If there is no such table; names near ones.
    DatasetError
        If it is damaged, or of another backend than CSV.
    """
    parent = find_parent(dataset, image, any_group=True)
    relative = _TABLES.path(parent, name)
    attributes = _nodes.read_group(parent.root, relative)
    if attributes.get("backend") != "csv":
        raise DatasetError(f"{parent.root / relative}: is a table of the backend {attributes.get('backend')!r}; 'csv' is read")
    where = f"{relative}/{FILE}"
    with open(_files.open_inside(parent.root, where), "rb") as file:
        if os.fstat(file.fileno()).st_size > _MAX_BYTES:
            raise DatasetError(f"{parent.root / where}: is larger than {_MAX_BYTES} bytes")
        own = attributes.get(_layout.NAMESPACE)
        columns = own.get("columns") if isinstance(own, dict) else None
        if not isinstance(columns, dict):
            return _tables.read_csv(file, str(parent.root / where))
        return _read_typed(file, columns, str(parent.root / where))


def delete_table(dataset: str | os.PathLike[str], name: str, *, image: str | None = None) -> None:
    """Delete a table. If this process is killed, it is there whole or is not listed any more.

    Raises
    ------
    DatasetNotFoundError
        If there is no such table; names near ones.
    ConfigError, DatasetError, DiskFullError
        If nothing can be written there; the data set is damaged; there is no room for the list.
    """
    _TABLES.delete(find_parent(dataset, image, any_group=True), name)


def tables_of(parent: Parent, labels: str) -> list[str]:
    """Return the tables that have a row each of some labels."""
    return [name for name in _TABLES.listed(parent) if labels_of(parent, name) == labels]


def labels_of(parent: Parent, name: str) -> str | None:
    """Return the labels that a table has a row each of, None if it is of none."""
    region = _nodes.read_group(parent.root, _TABLES.path(parent, name)).get("region")
    path = region.get("path") if isinstance(region, dict) else None
    return path.removeprefix("../labels/") if isinstance(path, str) else None


def _read_typed(file: IO[bytes], columns: dict[str, Any], where: str) -> NDArray[Any]:
    """Return the rows with their columns in the types that they were saved with."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        header, *body = csv.reader(text, strict=True)
        kinds = [np.dtype(columns[name]).newbyteorder("=") for name in header]
        if len(set(header)) < len(header) or set(columns) != set(header):
            raise ValueError("its columns are not those that it had")
        if any(kind.hasobject or kind.kind not in "biufUMm" for kind in kinds):
            raise ValueError("its columns are of types that it cannot have had")
        rows = [row for row in body if row]
        if any(len(row) != len(header) for row in rows):
            raise ValueError("a row is not as long as the header")
        found = np.empty(len(rows), dtype=list(zip(header, kinds, strict=True)))
        for number, (name, kind) in enumerate(zip(header, kinds, strict=True)):
            found[name] = _column([row[number] for row in rows], kind)
        return found
    except (csv.Error, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"{where}: is damaged: {error}") from None
    finally:
        text.detach()


def _column(cells: list[str], kind: np.dtype[Any]) -> NDArray[Any]:
    values: list[Any] = list(cells)
    if kind.kind == "b":
        values = [_BOOLEANS[cell] for cell in cells]
    elif kind.kind in "iu":
        values = [int(cell) for cell in cells]
    elif kind.kind == "f":
        values = [float(cell) for cell in cells]
    elif kind.kind in "Mm":
        return np.array(cells, dtype=np.str_).astype(kind) if cells else np.empty(0, dtype=kind)
    return np.array(values, dtype=kind)


_BOOLEANS = {"True": True, "False": False}
