"""Plates: every plane of a well plate in one OME-Zarr, placed by the file names of the microscope.

`mutoscope.storage.open("ome-zarr", ...)` gives the store, `import_plate` fills one from a folder of vendor files, and
`plate_info` tells what is there and what is missing. A plate on disk has no owner: processes share it, and each save is whole
or not there. ``docs/layout.md`` is the specification of what is on disk.
"""

from mutoscope.storage.plate._plate import is_plate
from mutoscope.storage.plate.backend import PlateBackend
from mutoscope.storage.plate.description import PlateChannel, PlateDescription, Position
from mutoscope.storage.plate.importing import ImportReport, SkippedFile, import_plate
from mutoscope.storage.plate.info import plate_info, plate_lines
from mutoscope.storage.plate.reader import PlateReader
from mutoscope.storage.plate.repair import PlateRepair, repair_plate

__all__ = [
    "ImportReport",
    "PlateBackend",
    "PlateChannel",
    "PlateDescription",
    "PlateReader",
    "PlateRepair",
    "Position",
    "SkippedFile",
    "import_plate",
    "plate_info",
    "plate_lines",
    "repair_plate",
    "is_plate",
]
