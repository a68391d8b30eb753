"""The supervisor's side of the data set: made once everything fits, undone when the start fails, found again at the end."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from mutoscope import storage
from mutoscope.model.errors import MutoscopeError
from mutoscope.runtime.desk import Desk
from mutoscope.runtime.spec import ScopeSpec
from mutoscope.storage._place import DatasetPlace

__all__ = ["DataSet"]


OWN_FOLDER = "mutoscope-data"
"""Where data sets without a name go: nobody mistypes it."""


def missing_folders(path: Path) -> list[Path]:
    """Return the folders above `path` that are yet to be made, the highest first."""
    return [folder for folder in path.parents if not os.path.lexists(folder)][::-1]


class DataSet:
    """The data set of a scope, if it records. What it replaces stays beside it until the scope has started.

    Parameters
    ----------
    spec : ScopeSpec
        Where it is to be, and what becomes of what stands there.
    desk : Desk
        Says what goes wrong.
    """

    def __init__(self, spec: ScopeSpec, desk: Desk) -> None:
        self._spec = spec
        self._desk = desk
        self._recording: storage.Recording | None = None
        self._place: DatasetPlace | None = None
        self._started = False
        self._missing = missing_folders(Path(spec.record.path)) if spec.record is not None else []

    def create(self) -> dict[str, int]:
        """Make it; returns the first ``frame_id`` of each camera (after the last stored one when resuming)."""
        record = self._spec.record
        if record is None:
            return {}
        layouts = {
            stream.info.name: storage.CameraLayout(
                shape=stream.info.shape,
                dtype=stream.info.dtype,
                rate_hz=stream.info.rate_hz,
                pixel_size_um=stream.info.pixel_size_um,
                compression=record.compression,
            )
            for stream in self._spec.streams
            if stream.recorder is not None
        }
        settings = {stream.info.name: stream.info.settings for stream in self._spec.streams}
        self._recording = recording = storage.create_recording(
            record.path,
            layouts,
            overwrite=record.overwrite,
            resume=record.resume,
            ome_zarr_version=record.ome_zarr_version,
            attributes={"scope": self._spec.name, "settings": {**self._spec.settings, "cameras": settings}},
            keep_replaced=True,
        )
        self._tell_place(Path(record.path))
        self._place = DatasetPlace(record.path)
        for folder in recording.left_over:
            self._desk.note(logging.WARNING, f"{folder} was replaced by a run that was killed at its start: keep or delete it")
        return {name: recording.last_frame_id(name) + 1 for name in layouts}

    def _tell_place(self, path: Path) -> None:
        """Say on which disk the data set is; warn where several folders had to be made: perhaps a disk is not there."""
        disk = next((place for place in path.parents if os.path.ismount(place)), path)
        room = f"on the disk mounted at {disk}, where {storage.free_bytes(path):,} bytes are free"
        self._desk.note(logging.INFO, f"{path} is {room}")
        if len(self._missing) > 1 and self._missing[0].name != OWN_FOLDER:
            self._desk.note(
                logging.WARNING,
                f"made the folders {', '.join(map(str, self._missing))}, which were missing, {room}: if one of them was to be "
                "a disk, it is not mounted, or its name is another",
            )

    def started(self) -> None:
        """The scope runs: what was replaced is not needed any longer."""
        self._started = True
        if self._recording is None or self._recording.replaced is None:
            return
        try:
            self._recording.delete_replaced()
        except OSError as error:
            self._desk.report(f"{self._recording.replaced}, which was replaced, could not be deleted: {error}")

    def end(self) -> None:
        """Undo it unless the scope has started: what it replaced is back, and no empty data set stays behind."""
        if self._started or self._recording is None or self._spec.record is None or self._spec.record.resume:
            return
        try:
            self._recording.put_back()
        except (MutoscopeError, OSError) as error:
            kept = self._recording.replaced
            where = f"what it replaced is at {kept}" if kept is not None else "it is empty"
            self._desk.report(f"the data set could not be removed after the failed start ({where}): {error}")

    @property
    def path(self) -> str | None:
        """Where it is now, also when somebody renamed it; None when there is none, or it was deleted."""
        return None if self._place is None else self._place.now()

    @property
    def made(self) -> bool:
        """True once it was made, or opened to be resumed."""
        return self._recording is not None

    @property
    def begun(self) -> bool:
        """True once the scope has run: it may hold frames."""
        return self._started

    def loss(self) -> str:
        """What happened to it, if it is not where it was made; else an empty string."""
        what = self._place.loss() if self._place is not None else ""
        return f"the data set {self._place.path} was {what} while it was recorded" if self._place is not None and what else ""

    def close(self) -> None:
        """Let go of it."""
        if self._place is not None:
            self._place.close()
            self._place = None
