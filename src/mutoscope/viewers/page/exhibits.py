"""What a page without a scope shows: a recording or a plate, each as streams of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from mutoscope import storage
from mutoscope.model.errors import ConfigError
from mutoscope.model.plate import WellName
from mutoscope.storage.plate import PlateReader, plate_info
from mutoscope.viewers.page.past import Past, StoredPast
from mutoscope.viewers.page.plate_past import PlatePast
from mutoscope.viewers.page.stored_tables import StoredTables
from mutoscope.viewers.page.streams import StreamForm

__all__ = ["Exhibit", "PlateExhibit", "RecordingExhibit", "exhibit_of"]


class Exhibit(Protocol):
    """A stored data set. `pasts` and `forms` have its streams, in their order; `tables` are those of its run."""

    pasts: dict[str, Past]
    forms: dict[str, StreamForm]
    tables: StoredTables | None

    def about(self, stream: str) -> dict[str, Any]:
        """Return what ``hello`` says of a stream beside its form."""

    def more(self) -> dict[str, Any]:
        """Return what ``hello`` says of the whole beside the streams."""

    def history(self, stream: str) -> dict[str, Any] | None:
        """Return what ``state`` says of a stream, None if it depends on what a client has chosen."""


class RecordingExhibit:
    """The cameras of a recording."""

    def __init__(self, path: Path, described: dict[str, Any]) -> None:
        self._images: dict[str, dict[str, Any]] = {image["camera"]: image for image in described["images"]}
        names = described["cameras"]
        stored = {name: StoredPast(path, name if len(names) > 1 else None, "dataset") for name in names}
        self.pasts: dict[str, Past] = dict(stored)
        self.forms = {name: StreamForm(*past.form()) for name, past in stored.items()}
        self._levels = {name: past.levels for name, past in stored.items()}
        self.tables: StoredTables | None = StoredTables(path, described.get("ledger"), names)
        self._indices = {name: past.index() for name, past in stored.items()}

    def about(self, stream: str) -> dict[str, Any]:
        """Rate and pixel size, as they were recorded."""
        image = self._images.get(stream, {})
        rate_hz = image.get("rate_hz") or image.get("nominal_rate_hz")
        return {"rate_hz": rate_hz, "pixel_size_um": image.get("pixel_size_um"), "levels": self._levels[stream]}

    def more(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def history(self, stream: str) -> dict[str, Any] | None:
        """Which frames there were when the page was opened."""
        index = self._indices[stream]
        ids = {"first_id": index.first_id, "last_id": index.last_id, "frames": index.frames}
        return {"kind": "dataset", **ids, "bytes": 0}


class PlateExhibit:
    """The channels of a plate, over each other; a client chooses the well and the field, of those that there are now."""

    tables: StoredTables | None = None

    def __init__(self, path: Path) -> None:
        self._reader = PlateReader(path)
        self._info = plate_info(path)
        if not self._info["images"]:
            raise ConfigError(f"{path}: this plate has no image yet")
        first = self._info["images"][0]
        form = StreamForm(tuple(first["shape"][3:]), first["dtype"])
        taken: dict[str, int] = {}
        self.pasts: dict[str, Past] = {}
        for channel, name in enumerate(self._info["channels"]):
            taken[name] = taken.get(name, 0) + 1
            self.pasts[name if taken[name] == 1 else f"{name} ({taken[name]})"] = PlatePast(self._reader, channel)
        self.forms = dict.fromkeys(self.pasts, form)
        self._levels = max(image["levels"] for image in self._info["images"])
        self._plate = self._described()

    def about(self, stream: str) -> dict[str, Any]:
        """Pixel size and sizes."""
        return {"rate_hz": None, "pixel_size_um": self._info["pixel_size_um"], "levels": self._levels}

    def more(self) -> dict[str, Any]:
        """The wells, with their fields and what is missing."""
        return {"plate": self._plate, "display": {"source": "layer"} if len(self.pasts) > 1 else {}}

    def _described(self) -> dict[str, Any]:
        wells: dict[str, dict[str, Any]] = {}
        for image in self._info["images"]:
            name = WellName.parse(image["well"])
            well = wells.setdefault(
                image["well"],
                {"well": image["well"], "row": name.row, "column": name.column, "stored": 0, "missing": 0, "images": []},
            )
            position = self._reader.position(image["image"])
            missing = len(image["missing"])
            well["stored"] += image["stored"]
            well["missing"] += missing
            well["images"].append(
                {
                    "image": image["image"],
                    "field": image["field"],
                    "projection": image["projection"],
                    "extent": image["shape"][:3],
                    "stored": image["stored"],
                    "missing": missing,
                    "position_um": None if position is None else [position.y_um, position.x_um],
                }
            )
        plate = {"name": self._info["name"], "rows": self._info["rows"], "columns": self._info["columns"]}
        return {**plate, "wells": list(wells.values())}

    def history(self, stream: str) -> dict[str, Any] | None:
        """It depends on the field."""
        return None


def exhibit_of(path: Path) -> Exhibit:
    """Open a data set to show it.

    Raises
    ------
    DatasetNotFoundError, DatasetError
        If there is none, or it cannot be read.
    ConfigError
        If it is nothing that the page shows.
    """
    if storage.plate.is_plate(path):
        return PlateExhibit(path)
    described = storage.info(path)
    if "cameras" not in described:
        raise ConfigError(f"{path} is neither a recording nor a plate: the page shows those")
    return RecordingExhibit(path, described)
