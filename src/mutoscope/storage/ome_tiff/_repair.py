"""Putting files right: pages behind a damaged one are cut off or linked again, the count is set, planes are placed."""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import DatasetError, DatasetNotFoundError
from mutoscope.storage import _files
from mutoscope.storage._runs import Runs
from mutoscope.storage.ome_tiff import _description, _layout, _replace
from mutoscope.storage.ome_tiff._dataset import Names, Sidecar, change_sidecar
from mutoscope.storage.ome_tiff._layout import Page
from mutoscope.storage.ome_tiff._pagefile import DamagedPageError, PageFile, open_regular

__all__ = ["FileState", "Pixels", "place_planes", "repair", "show_live_description"]

Pixels = Literal["none", "plain", "all"]
_AT_ONCE = 1024  # pages that wait to be looked at


@dataclass
class FileState:
    """What a file holds once it was put right.

    Attributes
    ----------
    position : int
        Of the stage.
    path : Path
        The file.
    count : int
        Its pages.
    last : Page
        The last one.
    end : int
        Where the next one may begin.
    last_id : int
        Id of the last frame.
    placed : bool
        Whether a page has a channel or a depth.
    doubtful : list of (int, int)
        Runs of ids whose pixels are not all there.
    actions : list of str
        What was done.
    """

    position: int
    path: Path
    count: int
    last: Page
    end: int
    last_id: int
    placed: bool
    doubtful: list[tuple[int, int]] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)


def repair(names: Names, *, look_at_pixels: Pixels = "none") -> tuple[list[FileState], list[str]]:
    """Put all files of a data set right; the caller holds its lock. Doing it again changes nothing.

    Parameters
    ----------
    look_at_pixels : "none", "plain" or "all"
        Which pixels are read too, to name the frames that are not whole: none, those that are not compressed, or all.
    """
    actions = [f"removed {part}" for part in names.remove_parts()]
    present = names.present()
    try:
        sidecar = Sidecar.read(names)
    except DatasetError:
        if names.sidecar.is_symlink() or not present:
            raise
        sidecar = None
    if sidecar is None and not present:
        raise DatasetNotFoundError(f"{names.path}: there is no such data set")
    if sidecar is None:
        sidecar = _restored_sidecar(names, next(iter(present.values())))
        actions.append(f"restored {names.sidecar.name}")
    elif _replace.undo_unfinished(names):
        actions.append("took back what was about to be replaced")
        present = names.present()
    states = []
    for position, path in present.items():
        fd = open_regular(path, os.O_RDWR)
        try:
            with _files.translated(path):
                states.append(_repair_file(fd, position, path, sidecar, look_at_pixels))
        finally:
            os.close(fd)
    return states, actions


def _restored_sidecar(names: Names, path: Path) -> Sidecar:
    """Make a sidecar anew from what a file's first page says."""
    fd = open_regular(path)
    try:
        file = PageFile(fd, path)
    finally:
        os.close(fd)
    sidecar = Sidecar.new(file.geometry, "camera", None, None, {})
    sidecar.own["dataset"] = file.dataset.hex()
    sidecar.write(names)
    return sidecar


def _repair_file(fd: int, position: int, path: Path, sidecar: Sidecar, look_at_pixels: Pixels) -> FileState:
    file = PageFile(fd, path, sidecar.dataset)
    damage = ""
    actions: list[str] = []
    last: Page | None = None
    count = found = 0
    placed = False

    def take(pages: Iterator[Page]) -> None:
        nonlocal last, count, placed, damage
        try:
            for page in pages:
                last = page
                count += 1
                placed |= page.record.c >= 0 or page.record.z >= 0
        except DamagedPageError as error:
            if last is None:
                raise
            damage = damage or str(error)

    take(file.walk())
    if last is None:
        raise DamagedPageError(f"{path}: holds no page")
    while (other := file.unlinked(last, count)) is not None:
        _files.write_all(fd, other.record.ifd_offset.to_bytes(8, "little"), last.link_at)
        kill_point("tiff.recover.linked")
        take(iter((other,)))
        take(file.walk(other, count))
        found += 1
    if found:
        actions.append(f"linked {found} whole frames that nothing led to")
    elif damage:
        actions.append(f"cut behind page {count - 1}: {damage}")
    [following] = np.frombuffer(os.pread(fd, 8, last.link_at), "<u8").tolist()
    if following:
        _files.write_all(fd, bytes(8), last.link_at)
    kill_point("tiff.recover.ended")
    if set_size_t(file, count):
        actions.append(f"SizeT: {count}")
    if file.described != _live(file) and (found or damage or not _is_whole(file)):
        _point(file, *_live(file))
        actions.append("described by time alone")
    kill_point("tiff.recover.counted")
    if file.forget_unlinked(last):
        actions.append("emptied the places of pages behind the last frame")
    end = file.end_of(last)
    size = os.fstat(fd).st_size
    if size > end:
        os.ftruncate(fd, end)
        actions.append(f"cut {size - end} bytes behind the last frame")
    looked = look_at_pixels == "all" or (look_at_pixels == "plain" and file.geometry.compression == "none")
    doubtful = _doubtful(file) if looked else []
    return FileState(position, path, count, last, end, last.record.frame_id, placed, doubtful, actions)


def _doubtful(file: PageFile) -> list[tuple[int, int]]:
    from mutoscope.storage.ome_tiff.reader import read_pixels

    def is_whole(page: Page) -> bool:
        try:
            read_pixels(file, page)
        except DatasetError:
            return False
        return True

    runs, pages = Runs(), file.walk()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "mutoscope-recover") as pool:
        while some := list(itertools.islice(pages, _AT_ONCE)):
            for page, whole in zip(some, pool.map(is_whole, some), strict=True):
                if not whole:
                    runs.add(page.record.frame_id)
    return runs


# ---------------------------------------------------------------------- the description


def set_size_t(file: PageFile, count: int) -> bool:
    """Count the pages in the live description; return whether that changed it."""
    digits = b"%0*d" % (_description.SIZE_T_DIGITS, count)
    if os.pread(file.fd, len(digits), file.size_t_at) == digits:
        return False
    _files.write_all(file.fd, digits, file.size_t_at)
    return True


def show_live_description(file: PageFile, count: int) -> None:
    """Make the first page name the live description, counted first."""
    set_size_t(file, count)
    _point(file, *_live(file))
    kill_point("tiff.resume.pointed")


def _live(file: PageFile) -> tuple[int, int]:
    return len(file.description), _layout.DESCRIPTION_AT


def _is_whole(file: PageFile) -> bool:
    try:
        text = file.full_description()
    except DatasetError:
        return False
    return len(text) == file.described[0] and text.startswith(b"<?xml") and text.endswith(b"</OME>\0")


def place_planes(file: PageFile, sidecar: Sidecar) -> str | None:
    """Write a description that gives each page its place in (t, c, z), and make the first page name it.

    Returns
    -------
    str or None
        What was done, in words; None if nothing was.
    """
    last: Page | None = None
    places = array("i")
    utc_ns = position = 0
    for page in file.walk():
        if last is None:
            utc_ns, position = page.record.utc_ns, page.record.position
        last = page
        places.extend((page.record.t, page.record.c, page.record.z))
    planes = np.frombuffer(places, dtype=np.int32).reshape(-1, 3)
    placement = _description.place(planes)
    if placement is None or last is None:
        return None
    name = sidecar.own["camera"] + (f" p{position}" if position > 0 else "")
    size, rate = sidecar.number("pixel_size_um"), sidecar.number("rate_hz")
    text = _description.describe(file.geometry, name, placement, size, rate, utc_ns)
    if file.full_description() == text:
        return None
    at = file.end_of(last)
    try:
        _files.write_all(file.fd, text, at)
    except OSError:
        os.ftruncate(file.fd, at)
        raise
    kill_point("tiff.close.placed")
    _point(file, len(text), at)
    kill_point("tiff.close.pointed")
    return f"placed {len(planes)} planes: t {placement.t}, c {placement.c}, z {placement.z}"


def _point(file: PageFile, count: int, offset: int) -> None:
    """Set count and offset of the description: 16 bytes within one block, so in one step."""
    if file.described != (count, offset):
        _files.write_all(file.fd, count.to_bytes(8, "little") + offset.to_bytes(8, "little"), file.description_entry + 4)
        file.described = (count, offset)


def set_state(names: Names, states: list[FileState]) -> bool:
    """Note in the sidecar that the data set was put right; one that was closed in order stays that."""
    sidecar = Sidecar.read(names)
    assert sidecar is not None
    state = sidecar.own.get("state")
    change = {"state": state if state in ("closed", "recovered") else "recovered"}
    return change_sidecar(names, {**change, "frames": sum(found.count for found in states)})
