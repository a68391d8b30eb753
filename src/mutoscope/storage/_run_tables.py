"""The tables that the workers of a run wrote, as they are stored beside its data."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import DatasetError, DatasetNotFoundError
from mutoscope.storage import _layout, _nodes, _rows
from mutoscope.storage._run_folder import RUN, run_folder
from mutoscope.storage.ome_tiff import is_ome_tiff

__all__ = ["TABLES", "rows_of", "run_tables"]

TABLES = "tables"
"""The folder of the tables inside that of the run."""


def run_tables(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Open the tables that the workers of a run wrote, also while they are written.

    Parameters
    ----------
    path : path
        A recording (OME-Zarr or OME-TIFF), or the folder of its run, ``<name>.mutoscope``.

    Returns
    -------
    dict of str to structured ndarray, shape (rows,)
        By name, in the order of the names. The rows that are stored now, oldest first, mapped read-only: only what is looked at
        is read. Columns are those of the table, little-endian. A table whose columns were others in an earlier run of a resumed
        recording is there as ``<name>.1`` and so on. Empty if the run had no tables, or its folder is not beside the data.

    Raises
    ------
    DatasetNotFoundError
        If there is nothing at `path`.
    DatasetError
        If a file is damaged.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from mutoscope import storage
    >>> path = f"{tempfile.mkdtemp()}/run.ome.zarr"
    >>> with storage.open_writer(path, shape=(4, 6), dtype="uint16") as writer:
    ...     receipt = writer.append(np.ones((4, 6), "uint16"))
    >>> storage.run_tables(path)                          # no scope recorded this one
    {}
    """
    given = Path(path)
    if not os.path.lexists(given):
        raise DatasetNotFoundError(f"{given}: there is no such data set")
    folder = _tables_folder(given)
    return {name: _rows.open_rows(file) for name, file in table_files(folder).items()} if folder is not None else {}


def table_files(folder: Path) -> dict[str, Path]:
    """Return the files of rows in a run's folder of tables, by the names under which they are shown."""
    found = sorted((place, file) for file in os.listdir(folder) if (place := _rows.table_of(file)) is not None)
    return {f"{table}.{segment}" if segment else table: folder / file for (table, segment), file in found}


def rows_of(run: Path, table: str, dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Return the rows of a table of these columns in a run's folder, as `run_tables` does; None if there are none yet."""
    for segment in itertools.count():
        path = run / TABLES / _rows.file_name(table, segment)
        if not os.path.lexists(path):
            return None
        rows = _rows.open_rows(path)
        if rows.dtype == _rows.stored_form(dtype):
            return rows
    raise AssertionError("unreachable")


def _tables_folder(path: Path) -> Path | None:
    """Return the folder of the tables of a run that is named by its folder or one of its data sets; None if there is none."""
    path = path.absolute()
    if path.name.endswith(RUN):
        folder = path / TABLES
        return folder if folder.is_dir() else None
    for place in (run_folder(path), _first_run_folder(path)):
        if place is not None and (place / TABLES).is_dir():
            return place / TABLES
    return None


def _first_run_folder(path: Path) -> Path | None:
    """Return the folder of the run of a data set that was begun in another folder than the run's first one."""
    try:
        below = _own_attributes(path).get(_layout.RUN_FOLDER)
    except (DatasetError, DatasetNotFoundError):
        return None  # nothing is known of it: whoever opens the data set itself is told
    return Path(os.path.normpath(path.parent / below)) if isinstance(below, str) else None


def _own_attributes(path: Path) -> dict[str, Any]:
    if is_ome_tiff(path):
        from mutoscope.storage.ome_tiff.reader import OmeTiffReader  # late: the start of a recorder does without it

        with OmeTiffReader(path) as reader:
            return reader.attributes
    own = _nodes.read_group(path).get(_layout.NAMESPACE)
    return own if isinstance(own, dict) else {}
