"""Where things of a run lie."""

from __future__ import annotations

from pathlib import Path

from mutoscope.storage.ome_tiff import SUFFIXES

__all__ = ["DATASETS", "RUN", "run_folder"]

ZARR = (".ome.zarr", ".zarr")
DATASETS = (*ZARR, *SUFFIXES)
"""How the names of recordings end, in any case."""

RUN = ".mutoscope"
"""How the name of a run's folder ends."""


def run_folder(dataset: Path) -> Path:
    """Return the folder of the run that records this data set: log, audit, ledger and report.

    Examples
    --------
    >>> [run_folder(Path(name)).name for name in ("run.ome.zarr", "run.OME.TIFF", "run.ome.btf", "a.b.zarr")]
    ['run.mutoscope', 'run.mutoscope', 'run.mutoscope', 'a.b.mutoscope']
    """
    name = dataset.name
    suffix = next((end for end in DATASETS if name.lower().endswith(end)), dataset.suffix)
    return dataset.with_name(name[: len(name) - len(suffix)] + RUN)
