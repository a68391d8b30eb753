"""The supervisor's side of the data set: made once everything fits, undone when the start fails, found again at the end."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from mutoscope import storage
from mutoscope.model.arguments import shown
from mutoscope.model.errors import ConfigError, DatasetExistsError, DiskFullError, MutoscopeError
from mutoscope.runtime.desk import Desk
from mutoscope.runtime.spec import ScopeSpec
from mutoscope.storage import _nodes
from mutoscope.storage._layout import RUN_FOLDER
from mutoscope.storage._place import DatasetPlace

__all__ = ["DataSet"]


OWN_FOLDER = "mutoscope-data"
"""Where data sets without a name go: nobody mistypes it."""


BEGIN_BYTES = 1024 * 1024
"""What an image takes at most before its first frame, with what its writer keeps for the end."""


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
        self._earlier: list[DatasetPlace] = []
        self._started = False
        self._missing = missing_folders(Path(spec.record.path)) if spec.record is not None else []

    def create(self) -> dict[str, int]:
        """Make it; returns the first ``frame_id`` of each camera (after the last stored one when resuming)."""
        record = self._spec.record
        if record is None:
            return {}
        layouts = self._layouts()
        recording = self._recording = self._make(record.path, overwrite=record.overwrite, resume=record.resume)
        self._tell_place(Path(record.path))
        self._place = DatasetPlace(record.path)
        for folder in recording.left_over:
            self._desk.note(logging.WARNING, f"{folder} was replaced by a run that was killed at its start: keep or delete it")
        return {name: recording.last_frame_id(name) + 1 for name in layouts}

    def go_on_in(self, folder: str) -> str:
        """Make another data set of the same name in a folder below that of the first, and return its path.

        Raises
        ------
        ConfigError
            If the folder is not below, or cannot be made.
        DatasetExistsError
            If there is a data set already.
        DiskFullError
            If there is no room beyond the reserve: the recording would end as it begins.
        """
        assert self._spec.record is not None
        first = Path(self._spec.record.path)
        below = _below(first.parent, folder)
        place = first.parent / below / first.name
        try:
            _check_beside(first, below, folder, self._spec.folder)
            if os.path.lexists(place):
                raise DatasetExistsError(f"{place} is there already: choose another folder")
            self._check_room(place)
            own = self._spec.folder
            more = {} if own is None else {RUN_FOLDER: os.path.relpath(Path(own).absolute(), place.parent.absolute())}
            self._make(str(place), overwrite=False, resume=False, more=more)
            place_of_it = DatasetPlace(place)
        except OSError as error:
            if isinstance(error, MutoscopeError):
                raise
            raise ConfigError(f"nothing can be recorded in the folder {shown(folder)}: {error.strerror or error}") from error
        self._tell_place(place)
        if self._place is not None:
            self._earlier.append(self._place)
        self._place = place_of_it
        return str(place)

    def _check_room(self, place: Path) -> None:
        assert self._spec.record is not None
        free, reserve = storage.free_bytes(place), self._spec.record.reserve_bytes
        if free <= reserve + BEGIN_BYTES * len(self._layouts()):
            raise DiskFullError(
                f"{free:,} bytes are free where {place} is to be, the reserve is {reserve:,}: choose another folder, or free "
                "some space"
            )

    def _layouts(self) -> dict[str, storage.CameraLayout]:
        record = self._spec.record
        assert record is not None
        return {
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

    def _make(
        self, path: str, *, overwrite: bool, resume: bool, more: Mapping[str, str] = MappingProxyType({})
    ) -> storage.Recording:
        record = self._spec.record
        assert record is not None
        settings = {stream.info.name: stream.info.settings for stream in self._spec.streams}
        return storage.create_recording(
            path,
            self._layouts(),
            overwrite=overwrite,
            resume=resume,
            ome_zarr_version=record.ome_zarr_version,
            attributes={"scope": self._spec.name, "settings": {**self._spec.settings, "cameras": settings}, **more},
            keep_replaced=True,
        )

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
        self._missing = []

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
    def paths(self) -> list[str]:
        """Where all data sets of the run are now, the oldest first, but for those that are not there any more."""
        places = [*self._earlier, *([] if self._place is None else [self._place])]
        return [path for path in (place.now() for place in places) if path is not None]

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
        for place in [*self._earlier, *([] if self._place is None else [self._place])]:
            place.close()
        self._earlier.clear()
        self._place = None


def _below(root: Path, folder: str) -> Path:
    """Return a folder relative to `root`; raises ConfigError if it is not below it, also by a link."""
    place = Path(folder)
    control = any(unicodedata.category(letter) == "Cc" for letter in folder)
    inside = not control and not place.is_absolute() and ".." not in place.parts
    try:
        inside = inside and (root / place).resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, UnicodeError) as error:
        raise ConfigError(f"nothing can be recorded in the folder {shown(folder)}: {error}") from error
    if not inside:
        raise ConfigError(f"the folder of a recording is one below {root}, such as 'day2/dish1', not {shown(folder)}")
    return place


def _check_beside(first: Path, below: Path, folder: str, own: str | None) -> None:
    """Raise ConfigError if a folder below that of the data set `first` is inside a data set, or inside `own`, the run's log."""
    root = first.parent.resolve()
    place = (root / below).resolve()  # where links lead
    inside = (place, *place.parents)
    for each in inside[: inside.index(root)]:
        if each.name == first.name or _nodes.has_group(each):
            raise ConfigError(f"the folder {shown(folder)} is inside a data set: choose one beside it")
    if own is not None and Path(own).resolve() in inside:
        raise ConfigError(f"the folder {shown(folder)} is inside the one of the run's own log: choose one beside it")
