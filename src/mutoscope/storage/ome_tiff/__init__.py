"""Streams of frames in OME-TIFF: one BigTIFF for each stage position, valid for any reader at every moment.

Its users come through `mutoscope.storage`: `open_writer`, `open_reader`, `recover`, `info`. A data set is made, locked and
closed by its one writer; ``docs/layout-ome-tiff.md`` is the specification of its files.
"""

from mutoscope.storage.ome_tiff._dataset import SUFFIXES, is_ome_tiff

__all__ = ["SUFFIXES", "is_ome_tiff"]
