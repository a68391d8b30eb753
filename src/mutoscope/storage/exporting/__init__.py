"""Out to other tools: a data set in the form that Fiji, QuPath or CellProfiler opens. All of it or nothing.

``docs/exports.md`` says what each form holds.
"""

from mutoscope.storage.exporting._cellprofiler import export_cellprofiler
from mutoscope.storage.exporting._fiji import export_fiji
from mutoscope.storage.exporting._qupath import export_qupath
from mutoscope.storage.exporting._report import ExportReport

__all__ = ["ExportReport", "export_cellprofiler", "export_fiji", "export_qupath"]
