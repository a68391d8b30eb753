"""`recover` and `info` of an OME-TIFF stream, and setting its attributes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mutoscope.model.errors import DatasetError, DatasetNotFoundError
from mutoscope.storage import _files, _seal
from mutoscope.storage._recover import ImageReport, RecoverReport
from mutoscope.storage.ome_tiff._dataset import Lock, Names, Sidecar, change_sidecar
from mutoscope.storage.ome_tiff._pagefile import PageFile, open_regular
from mutoscope.storage.ome_tiff._repair import place_planes, repair, set_state

__all__ = ["open_streams", "recover_tiff", "write_tiff_attributes"]


def recover_tiff(path: str | os.PathLike[str], decode: bool = True) -> RecoverReport:
    """Put an OME-TIFF stream right, as `mutoscope.storage.recover` says."""
    names = Names(path)
    if not os.path.lexists(names.sidecar) and not (names.folder.is_dir() and names.present()):
        raise DatasetNotFoundError(f"{names.path}: there is no such data set")
    left_over = names.lock.exists()
    lock = Lock(names)
    try:
        states, actions = repair(names, look_at_pixels="all" if decode else "plain")
        sidecar = Sidecar.read(names)
        assert sidecar is not None
        for state in states:
            if state.placed:
                fd = open_regular(state.path, os.O_RDWR)
                try:
                    with _files.translated(state.path):
                        done = place_planes(PageFile(fd, state.path, sidecar.dataset), sidecar)
                finally:
                    os.close(fd)
                state.actions += [done] if done else []
        if set_state(names, states):
            actions.append("state: recovered")
        elif left_over:
            actions.append(f"removed {names.lock.name}")
    finally:
        lock.release()
    images = tuple(ImageReport(state.path.name, state.count, tuple(state.actions), tuple(state.doubtful)) for state in states)
    return RecoverReport(str(names.path), images, tuple(actions))


def open_streams(path: str | os.PathLike[str]) -> list[str]:
    """Return the name of an OME-TIFF stream that is not closed, as `mutoscope.storage.open_images` says."""
    names = Names(path)
    sidecar = Sidecar.read(names)
    if sidecar is None:
        raise DatasetNotFoundError(f"{names.sidecar}: is missing")
    return [] if sidecar.own.get("state") in ("closed", "recovered") else [names.path.name]


def write_tiff_attributes(path: str | os.PathLike[str], attributes: Mapping[str, Any], *, durable: bool = False) -> None:
    """Set attributes of an OME-TIFF stream in its sidecar, as `mutoscope.storage.write_attributes` says."""
    names = Names(path)
    change = _seal.checked_attributes(attributes)
    if Sidecar.read(names) is None:
        raise DatasetError(f"{names.sidecar}: is missing; mutoscope recover makes it anew")
    change_sidecar(names, change, durable=durable)
