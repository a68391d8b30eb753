"""The ledger as users see it: every frame accounted for, by consumer and reason."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from mutoscope.model import IdRanges
from mutoscope.model.errors import ConfigError, DatasetError
from mutoscope.runtime.consumers import LOSSLESS
from mutoscope.runtime.figures import RunFigures
from mutoscope.runtime.join import join_values, numeric_columns

if TYPE_CHECKING:
    from mutoscope import storage

__all__ = ["Ledger"]

CLOCKS = ("monotonic_ns", "utc_ns")


class Ledger:
    """The account of every frame of a run.

    For each lossless consumer ``offered = done + dropped + pending``, by frame id, where a consumer that was there all the time
    was offered everything that was produced; for each latest-wins consumer ``offered = shown + skipped``. *Dropped* are frames
    that were produced and that a lossless consumer did not keep, by reason; exposures that a camera could not hand over, and
    which never became frames, are *missed*.

    A list of ids has at most 10,000 ranges here and in the data set's attributes, and a million in ``ledger.json``. Where there
    are more, how many frames they are stands beside it (``ids_more``).

    Parameters
    ----------
    document : dict
        What the supervisor reports, and what ``ledger.json`` and the data set's attributes hold.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def to_dict(self) -> dict[str, Any]:
        """The whole account in plain values (the same dict as in ``ledger.json``)."""
        return self._document

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Ledger:
        """Read ``ledger.json`` of a run's folder.

        Raises
        ------
        DatasetError
            If it is damaged.
        """
        path = Path(folder) / "ledger.json"
        try:
            ledger = cls(msgspec.json.decode(path.read_bytes()))
            _ = ledger.figures
        except (DatasetError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DatasetError(f"{path} is damaged ({error}): there is no report without it") from error
        return ledger

    @cached_property
    def figures(self) -> RunFigures:
        """The counts, with their types.

        Raises
        ------
        DatasetError
            If the document is no ledger.
        """
        try:
            return msgspec.convert(self._document, RunFigures)
        except msgspec.ValidationError as error:
            raise DatasetError(f"this is no ledger: {error}") from error

    @property
    def cameras(self) -> dict[str, Any]:
        """The account of each camera: ``produced``, ``missed``, ``stored``, ``consumers``.

        Where settings were changed while it ran, ``settings_changed`` has each change: ``setting``, ``value``, ``before``,
        ``from_id`` (the first frame published after it), ``utc_ns`` and ``by``; the first thousand, and
        ``settings_changed_more`` says how many more there were.
        """
        cameras: dict[str, Any] = self._document["cameras"]
        return cameras

    @property
    def produced(self) -> int:
        """Frames published by all cameras."""
        return self.figures.produced

    @property
    def stored(self) -> int:
        """Frames that recorders stored."""
        return self.figures.stored

    @property
    def missed(self) -> int:
        """Exposures that cameras could not hand over: they never became frames."""
        return self.figures.missed

    @property
    def dropped(self) -> dict[str, int]:
        """Frames that were produced and that no data set holds, by reason."""
        return self.figures.dropped

    @property
    def pending(self) -> int:
        """Frames that were published and neither stored nor dropped (0 after the end)."""
        return self.figures.pending

    @property
    def restarts(self) -> dict[str, int]:
        """Restarts by worker."""
        return self.figures.restarts

    @property
    def problems(self) -> list[str]:
        """What is wrong with this account, one sentence each; none of a sound run."""
        found = []
        for name, camera in self.cameras.items():
            for consumer, account in camera["consumers"].items():
                found += [f"{name}, {consumer}: {problem}" for problem in _check(camera, account)]
        for name, rows in self.figures.tables.items():
            if rows.stored is not None and rows.appended != rows.stored + sum(rows.lost.values()) + rows.pending:
                found.append(
                    f"table {name}: {rows.appended} rows = stored {rows.stored} + lost {rows.lost} + {rows.pending} fails"
                )
        return found

    @property
    def exact(self) -> bool:
        """True when the promise holds for every consumer, frame id by frame id."""
        return not self.problems

    def summary(self) -> str:
        """The account in a few lines for people."""
        lines = []
        for name, camera in self.figures.cameras.items():
            line = f"{name}: produced {camera.produced:,}"
            if camera.recorder is not None:
                line += f", stored {camera.stored:,}"
            lines.append(line + f", missed {camera.missed:,}")
            for consumer, account in camera.consumers.items():
                head = f"  {consumer}: offered {account.offered:,}, "
                if account.shown is not None:
                    lines.append(head + f"shown {account.shown:,}, skipped {account.skipped:,}")
                    continue
                dropped = ", ".join(f"{reason} {entry.count:,}" for reason, entry in account.dropped.items())
                lines.append(head + f"done {account.done:,}, dropped {dropped or 0}, pending {account.pending:,}")
        for name, rows in self.figures.tables.items():
            if rows.stored is not None:
                lost = ", ".join(f"{reason} {count:,}" for reason, count in rows.lost.items())
                lines.append(f"table {name}: {rows.appended:,} rows, stored {rows.stored:,}, lost {lost or 0}")
        if len(self.figures.paths) > 1:
            lines.append(f"stored in {len(self.figures.paths)} data sets: {', '.join(self.figures.paths)}")
        for worker, count in self.restarts.items():
            lines.append(f"{worker}: restarted {count} ×")
        return "\n".join(lines) or "no camera"

    def join(
        self,
        table: npt.NDArray[Any],
        *,
        columns: Sequence[str] | None = None,
        time: str | None = None,
        camera: str | None = None,
        how: str = "before",
        stale_after_s: float = 1.0,
        frames: storage.FrameStreamReader | str | os.PathLike[str] | None = None,
    ) -> npt.NDArray[Any]:
        """Give each stored frame the value that a table had at its time.

        Parameters
        ----------
        table : structured ndarray
            Rows, as ``TableReader.read`` gives them, in any order.
        columns : sequence of str, optional
            The numeric columns wanted; all of them, if not given.
        time : str, optional
            The column that says when a row holds: ``monotonic_ns`` or ``utc_ns`` on the clocks of the frames, or
            ``frame_id``, which stands for that frame's time (rows of frames that are not stored are left out). By default the
            first of these that the table has.
        camera : str, optional
            Whose frames; the only camera, if not given.
        how : {"before", "after", "interpolated"}
            The last row at or before the frame, the first at or after it, or linear between the two.
        stale_after_s : float
            In seconds; a value taken from a row further away is flagged.
        frames : FrameStreamReader or path, optional
            The data set; that of this run, if not given.

        Returns
        -------
        structured ndarray, shape (stored frames,)
            ``frame_id``, the columns as float64 (nan where the table has no row on the side asked for), ``age_s`` (the frame's
            time minus the row's, in seconds; of the further row when interpolated) and ``stale``.

        Raises
        ------
        ConfigError
            If the table has no column of time, or not a column asked for.
        DatasetNotFoundError
            If the data set is not where it was written.
        """
        names = table.dtype.names or ()
        chosen = time or next((name for name in (*CLOCKS, "frame_id") if name in names), None)
        if chosen is None or chosen not in names:
            wanted = repr(time) if time is not None else "of time (monotonic_ns, utc_ns or frame_id)"
            raise ConfigError(f"the table has no column {wanted}; it has: {', '.join(names) or 'none'}")
        from mutoscope import storage  # late: a worker's process starts without it

        if isinstance(frames, storage.FrameStreamReader):
            return _join(table, frames, chosen, numeric_columns(table, columns, chosen), how, stale_after_s)
        path = frames if frames is not None else self._document.get("path")
        if path is None:
            raise ConfigError("this run was not recorded: there are no stored frames to join a table to")
        with storage.open_reader(path, camera=camera or self._only_camera()) as reader:
            return _join(table, reader, chosen, numeric_columns(table, columns, chosen), how, stale_after_s)

    def _only_camera(self) -> str:
        if len(self.cameras) != 1:
            raise ConfigError(f"say whose frames with camera=: there are {', '.join(self.cameras) or 'none'}")
        return next(iter(self.cameras))


def _join(
    table: npt.NDArray[Any],
    frames: storage.FrameStreamReader,
    time: str,
    columns: dict[str, npt.NDArray[Any]],
    how: str,
    stale_after_s: float,
) -> npt.NDArray[Any]:
    ids = frames.frame_ids
    frame_times = frames.utc_ns if time == "utc_ns" else frames.monotonic_ns
    times = table[time]
    if time == "frame_id":
        known = np.isin(times, ids)
        times = frame_times[np.searchsorted(ids, times[known])]
        columns = {name: column[known] for name, column in columns.items()}
    values, age_s, stale = join_values(frame_times, times, columns, how=how, stale_after_s=stale_after_s)
    dtype = [("frame_id", "u8"), *((name, "f8") for name in columns), ("age_s", "f8"), ("stale", "?")]
    result = np.empty(len(ids), dtype)
    result["frame_id"], result["age_s"], result["stale"] = ids, age_s, stale
    for name, column in values.items():
        result[name] = column
    return result


def _check(camera: dict[str, Any], account: dict[str, Any]) -> list[str]:
    """Check one consumer's account against the ids that it names."""
    offered = IdRanges.from_list(account["offered_ids"])
    produced = IdRanges([(camera["first_id"], camera["last_id"])]) if camera["produced"] else IdRanges()
    found = []
    if offered.count != account["offered"] or offered - produced:
        found.append(f"it was offered {account['offered']} frames ({offered}), produced were {produced}")
    if account["policy"] not in LOSSLESS:
        if min(account["shown"], account["skipped"]) < 0 or account["offered"] != account["shown"] + account["skipped"]:
            found.append(f"offered {account['offered']}, shown {account['shown']}, skipped {account['skipped']}")
        return found
    total = IdRanges()
    for reason, entry in account["dropped"].items():
        ids = IdRanges.from_list(entry["ids"])
        known = ids.count + entry.get("ids_more", 0)
        if known != entry["count"]:
            found.append(f"{entry['count']} frames were dropped ({reason}), {known} of them are known by id")
        if ids & total or ids - offered:
            found.append(
                f"frames dropped for {reason} are counted twice, or were not offered: {(ids & total) | (ids - offered)}"
            )
        total |= ids
    done = IdRanges.from_list(account["done_ids"]) if "done_ids" in account else None
    known = done.count + account.get("done_ids_more", 0) if done is not None else 0
    if done is not None and (known != account["done"] or done & total or done - offered):
        found.append(f"done {account['done']}, of which {known} are known by id, {(done & total).count} also dropped")
    dropped = sum(entry["count"] for entry in account["dropped"].values())
    if min(account["done"], dropped, account["pending"]) < 0:
        found.append("a count is negative")
    if account["offered"] != account["done"] + dropped + account["pending"]:
        found.append(
            f"offered {account['offered']} = done {account['done']} + dropped {dropped} + pending {account['pending']} fails"
        )
    return found
