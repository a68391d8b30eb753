"""From what can be read to OME-Zarr and OME-TIFF: bit by bit the same pixels, all of it or nothing.

`convert` makes the target aside and renames it into place. ``docs/exports.md`` lists what each target holds.
"""

from mutoscope.storage.converting._convert import ConvertReport, convert

__all__ = ["ConvertReport", "convert"]
