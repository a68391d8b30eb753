"""Frames in shared memory: the ring, and beside it tables of typed rows, the status of all workers, and lent ranges (`Arena`).

This package owns the shared segments. A :class:`FrameRing`, :class:`Table` or :class:`Status` is created and closed by one
party, its owner; readers and writers only borrow. Segments have no names: the memory goes with the last process that maps
it, so there is nothing to unlink and nothing is left behind by a process that is killed. When an owner dies, everyone who
uses its ring gets ``RingClosedError``.
"""

from __future__ import annotations

from mutoscope.frames.arena import Arena, ArenaReader
from mutoscope.frames.attach import attach_reader, attach_writer
from mutoscope.frames.copies import copy_in, copy_out
from mutoscope.frames.lease import Batch, Frame
from mutoscope.frames.reader import FrameReader
from mutoscope.frames.ring import FrameRing
from mutoscope.frames.statistics import RingStatistics, RowStatistics
from mutoscope.frames.status import Status, StatusRow
from mutoscope.frames.table import Table, TableReader, TableReaderStatistics, TableStatistics, TableWriter
from mutoscope.frames.writer import FrameWriter, Slot

__all__ = [
    "Arena",
    "ArenaReader",
    "Batch",
    "Frame",
    "FrameReader",
    "FrameRing",
    "FrameWriter",
    "RingStatistics",
    "RowStatistics",
    "Slot",
    "Status",
    "StatusRow",
    "Table",
    "TableReader",
    "TableReaderStatistics",
    "TableStatistics",
    "TableWriter",
    "attach_reader",
    "attach_writer",
    "copy_in",
    "copy_out",
]
