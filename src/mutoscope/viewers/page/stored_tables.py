"""The stored rows of tables around a frame: only those are read, of a file of any length."""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope import storage
from mutoscope.frames._columns import described
from mutoscope.model.errors import DatasetError
from mutoscope.viewers.page.messages import AskRows, Refused
from mutoscope.viewers.page.tables import columns_of, overlay_of, plain

__all__ = ["StoredTables", "rows_near", "tells_frames"]

FRAME_ID = "frame_id"
log = logging.getLogger(__name__)


def tells_frames(dtype: np.dtype[Any]) -> bool:
    """Whether a column tells of which frame each row is."""
    return FRAME_ID in (dtype.names or ()) and not dtype[FRAME_ID].shape and dtype[FRAME_ID].kind in "iu"


class StoredTables:
    """The tables of a run that are stored beside a data set, those that tell of which frame a row is.

    Parameters
    ----------
    path : path
        Of the data set.
    ledger : dict, optional
        Its ledger, which tells who wrote them.
    streams : list of str
        The cameras that are shown.
    """

    def __init__(self, path: Path, ledger: dict[str, Any] | None, streams: list[str]) -> None:
        self._path = path
        account = ledger if isinstance(ledger, dict) else {}
        try:
            tables = storage.run_tables(path)
        except (DatasetError, OSError) as error:
            log.warning("the tables of the run are not shown: %s", error)
            tables = {}
        self._abouts = [_about(name, rows, account, streams) for name, rows in tables.items() if tells_frames(rows.dtype)]

    def hello(self) -> list[dict[str, Any]]:
        """Return what the protocol's ``hello`` says of them."""
        return self._abouts

    def rows(self, table: str) -> NDArray[Any]:
        """Open the rows that are stored now."""
        try:
            return storage.run_tables(self._path)[table]
        except (KeyError, OSError) as error:
            known = ", ".join(each["name"] for each in self._abouts) or "none"
            raise Refused("unknown", f"there is no table {table!r}; there are: {known}") from error


def _about(name: str, rows: NDArray[Any], ledger: dict[str, Any], streams: list[str]) -> dict[str, Any]:
    columns = columns_of(described(rows.dtype))
    overlay = overlay_of(columns, streams)
    accounts = ledger.get("tables")
    account = accounts.get(name) if isinstance(accounts, dict) else None
    owner = account.get("owner") if isinstance(account, dict) else None
    if overlay is not None and overlay["stream"] is None and owner is not None:
        cameras = ledger.get("cameras") or {}
        read = [stream for stream in streams if owner in cameras.get(stream, {}).get("consumers", {})]
        overlay["stream"] = read[0] if len(read) == 1 else None
    about = {"name": name, "owner": owner or "", "capacity": 0, "stored": True}
    return {**about, "columns": columns, "overlay": overlay}


def rows_near(rows: NDArray[Any], wanted: AskRows) -> dict[str, Any]:
    """Return the rows around a frame, as the protocol has them. Their ids of frames are taken to be in order.

    Examples
    --------
    >>> rows = np.array([(1, 0.5), (3, 1.5), (3, 2.5), (8, 3.5)], [("frame_id", "u8"), ("x", "f4")])
    >>> rows_near(rows, AskRows(id=1, table="spots", frame_id=4, before=2, after=2))
    {'columns': {'frame_id': [1, 3, 3], 'x': [0.5, 1.5, 2.5]}, 'first_id': 0, 'last_id': 6}
    """
    names = rows.dtype.names or ()
    chosen = names if wanted.columns is None else tuple(wanted.columns)
    for name in chosen:
        if name not in names:
            raise Refused("unknown", f"table {wanted.table!r} has no column {name!r}; it has {', '.join(names)}")
    if not tells_frames(rows.dtype):
        raise Refused(
            "refused", f"the table {wanted.table!r} has no column {FRAME_ID!r}: nothing tells which rows belong to a frame"
        )
    ids = rows[FRAME_ID]
    count, places = len(ids), range(len(ids))

    def id_at(place: int) -> int:
        return int(ids[place])

    here = bisect_right(places, wanted.frame_id, key=id_at)  # behind the rows of the frame, and those before it
    newest = id_at(here - 1) if here else 0
    start = max(bisect_left(places, newest - wanted.before, key=id_at), here - wanted.rows)
    whole = bisect_right(places, wanted.frame_id + wanted.after, lo=here, key=id_at)
    end = min(whole, start + wanted.rows)
    last = wanted.frame_id + wanted.after
    if end < whole:
        last = max(wanted.frame_id, id_at(end) - 1)
    elif end == count:  # more may come for the frames behind
        last = max(wanted.frame_id, id_at(count - 1) if count else 0)
    part = np.array(rows[start:end])
    first = 0 if start == 0 else int(part[FRAME_ID][0]) if len(part) else wanted.frame_id
    return {"columns": {name: plain(part[name]) for name in chosen}, "first_id": first, "last_id": last}
