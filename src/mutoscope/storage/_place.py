"""Where a data set is while it is recorded: whether it is still there, and where it went."""

from __future__ import annotations

import os
from pathlib import Path

from mutoscope.model.errors import DatasetError, DatasetNotFoundError
from mutoscope.storage import _nodes
from mutoscope.storage.ome_tiff._dataset import Names, Sidecar, is_ome_tiff

__all__ = ["DatasetPlace", "taken_bytes"]


class DatasetPlace:
    """A data set that was just made, known again by what it is, not by its name. It holds a descriptor until `close`.

    Parameters
    ----------
    path : path
        Of the root of an OME-Zarr, or of an OME-TIFF stream.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._fd = -1
        self._dataset = b""
        if is_ome_tiff(path):
            sidecar = Sidecar.read(Names(path))
            if sidecar is None:
                raise DatasetNotFoundError(f"{path}: there is no such data set")
            self._dataset = sidecar.dataset
        else:
            self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def now(self) -> str | None:
        """Return where it is; None if it was deleted, or is an OME-TIFF that was moved: its files have nothing in common."""
        if self._dataset:
            return self.path if self._is_tiff() else None
        if self._fd < 0:
            return None
        found = os.readlink(f"/proc/self/fd/{self._fd}")
        return found if self._is_folder(found) and _nodes.has_group(Path(found)) else None

    def loss(self) -> str:
        """Return what happened to it, ``""`` if it is where it was made."""
        now = self.now()
        if now is not None and (self._dataset or self._is_folder(self.path)):
            return ""
        if self._dataset:
            return "moved or deleted"
        return f"moved to {now}" if now is not None else "deleted"

    def close(self) -> None:
        """Let go of it; twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_tiff(self) -> bool:
        try:
            sidecar = Sidecar.read(Names(self.path))
        except DatasetError:
            return False
        return sidecar is not None and sidecar.dataset == self._dataset

    def _is_folder(self, path: str) -> bool:
        try:
            return os.path.samestat(os.stat(path), os.fstat(self._fd))
        except OSError:
            return False


def taken_bytes(path: str | os.PathLike[str]) -> int:
    """Return what a data set, or a file, takes on its disk, in bytes; 0 if there is none."""
    if is_ome_tiff(path):
        names = Names(path)
        files = [*names.present().values(), names.sidecar] if names.folder.is_dir() else []
    elif os.path.isfile(path):
        files = [Path(path)]
    else:
        files = [Path(folder, name) for folder, _, found in os.walk(path) for name in found]
    return sum(file.lstat().st_blocks * 512 for file in files if os.path.lexists(file))
