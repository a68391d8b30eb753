"""One file of pages: opened with care, walked from page to page, searched behind its end."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from mutoscope.model.errors import DatasetError
from mutoscope.storage import _files
from mutoscope.storage.ome_tiff import _description, _layout
from mutoscope.storage.ome_tiff._layout import Geometry, Page, Pages, Record

__all__ = ["DamagedPageError", "PageFile", "open_regular"]

_SCAN_BYTES = 4 * 1024 * 1024
_ROOM = _layout.RECORD.size + 512
_MAX_DESCRIPTION = 64 * 1024 * 1024


class DamagedPageError(DatasetError):
    """A page of a file is not as it was written; `recover` keeps those before it."""


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file, never through a link; DatasetError if it is missing or something else."""
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DatasetError(f"{path}: is missing") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise DatasetError(f"{path}: is not a file")
    return fd


class PageFile:
    """What a file's header and first page say, and the way through its pages. It owns no descriptor.

    Parameters
    ----------
    fd : int
        Open for reading.
    path : Path
        For messages.
    dataset : bytes, optional
        Which data set its pages must be of; that of its first page, if not given.

    Attributes
    ----------
    geometry : Geometry
        Of its frames.
    dataset : bytes
        Of its pages.
    description : bytes
        The live OME-XML.
    described : tuple of int
        Count and offset of the description that the first page names: the live one, or one that places the planes.
    """

    def __init__(self, fd: int, path: Path, dataset: bytes | None = None) -> None:
        self.fd = fd
        self.path = path
        header = os.pread(fd, 16, 0)
        if len(header) < 16 or header[:8] != _layout.HEADER:
            raise DatasetError(f"{path}: is not a BigTIFF of Mutoscope, or its header is damaged")
        [self.first] = struct.unpack("<Q", header[8:])
        data = self._read(self.first, _ROOM)
        try:
            record = Record(*_layout.RECORD.unpack_from(data))
            if record.magic != _layout.MAGIC:
                raise ValueError("it was not written by Mutoscope; tifffile may read it")
            directory = data[_layout.RECORD.size :]
            self.described = _layout.find_entry(directory, 270)
            self.geometry: Geometry = _layout.geometry_of(directory, str(path))
            self.description_entry = self.first + _layout.entry_at(directory, 270)
        except (ValueError, struct.error) as error:
            raise DamagedPageError(f"{path}: its first page cannot be read: {error}") from error
        if dataset is not None and record.dataset != dataset:
            raise DatasetError(f"{path}: belongs to another data set")
        self.dataset = record.dataset
        self.pages = Pages(self.geometry, self.dataset)
        self._size = 0
        self.description = self._live_description(min(self.first - _layout.RECORD.size, _layout.BLOCK))
        self.size_t_at = _description.size_t_at(self.description)

    def _live_description(self, end: int) -> bytes:
        text = os.pread(self.fd, max(0, end - _layout.DESCRIPTION_AT), _layout.DESCRIPTION_AT)
        length = text.find(b"\0") + 1
        if length == 0 or not text[: length - 1].endswith(b"</OME>"):
            raise DamagedPageError(f"{self.path}: its description is damaged")
        try:
            _description.size_t_at(text)
        except ValueError:
            raise DamagedPageError(f"{self.path}: its description is damaged") from None
        return text[:length]

    def _read(self, ifd: int, length: int) -> bytes:
        if not _layout.DESCRIPTION_AT + _layout.RECORD.size <= ifd < 2**62:
            raise DamagedPageError(f"{self.path}: a link leads to byte {ifd}, where no page can be")
        return os.pread(self.fd, length, ifd - _layout.RECORD.size)

    # ------------------------------------------------------------------ pages

    def page(self, ifd: int, *, number: int, last: Page | None) -> Page:
        """Return the page whose directory is at `ifd`, or raise DamagedPageError.

        Parameters
        ----------
        number : int
            Which page it is, from 0; for messages.
        last : Page or None
            The one before.
        """
        slot = self._read(ifd, self.pages.slot_bytes)
        described = ifd == self.first
        try:
            record, counts, following = self.pages.parse(slot, described)
            if record.ifd_offset != ifd or record.data_offset < self.pages.index_end(ifd - _layout.RECORD.size):
                raise ValueError("it is not where it was written")
            if last is not None and (
                ifd < last.record.ifd_offset + self.pages.slot_bytes
                or record.data_offset < last.end
                or record.ordinal <= last.record.ordinal
            ):
                raise ValueError("it is not behind the one before")
        except (ValueError, struct.error) as error:
            raise DamagedPageError(f"{self.path}: page {number} cannot be read: {error}") from error
        end = record.data_offset + record.data_bytes
        if end > self._size:
            self._size = os.fstat(self.fd).st_size
            if end > self._size:
                raise DamagedPageError(f"{self.path}: is too short for the frame of page {number}")
        return Page(record, counts, self.pages.link_at(ifd, described), end, following)

    def walk(self, last: Page | None = None, number: int = 0) -> Iterator[Page]:
        """Give the pages behind `last`, the `number`-th; from the first one, without."""
        if last is None:
            ifd = self.first
        else:
            [ifd] = struct.unpack("<Q", os.pread(self.fd, 8, last.link_at).ljust(8, b"\0"))
        while ifd:
            last = self.page(ifd, number=number, last=last)
            yield last
            ifd = last.next
            number += 1

    def end_of(self, last: Page) -> int:
        """Return where the next page may begin: behind the last one, and behind a description that places planes."""
        count, offset = self.described
        return _layout.align(max(last.end, count + offset), self.geometry.pixel_unit)

    def unlinked(self, last: Page, number: int) -> Page | None:
        """Return the next whole page behind `last` that nothing links to, None if there is none."""
        slot = last.record.ifd_offset - _layout.RECORD.size + self.pages.slot_bytes
        index_end = self.pages.index_end(last.record.ifd_offset - _layout.RECORD.size)
        for begin, end in ((slot, index_end), (last.end, os.fstat(self.fd).st_size)):
            for at in self._magics(begin, end):
                try:
                    return self.page(at + _layout.RECORD.size, number=number, last=last)
                except DamagedPageError:
                    continue
        return None

    def _magics(self, begin: int, end: int) -> Iterator[int]:
        """Give where records may begin."""
        while begin < end:
            block = os.pread(self.fd, min(_SCAN_BYTES, end - begin), begin)
            at = block.find(_layout.MAGIC)
            while at >= 0:
                yield begin + at
                at = block.find(_layout.MAGIC, at + 1)
            if len(block) < _SCAN_BYTES:
                return
            begin += len(block) - len(_layout.MAGIC)

    def forget_unlinked(self, last: Page) -> bool:
        """Empty the slots behind that of the last page in its index block; return whether there was something."""
        begin = last.record.ifd_offset - _layout.RECORD.size + self.pages.slot_bytes
        data = os.pread(self.fd, self.pages.index_end(begin - self.pages.slot_bytes) - begin, begin)
        if not any(data):
            return False
        _files.write_all(self.fd, bytes(len(data)), begin)
        return True

    def data(self, page: Page) -> bytearray:
        """Return the bytes of a page's pixels as stored, or raise DamagedPageError."""
        data = bytearray(page.record.data_bytes)
        self.read_into(memoryview(data), page)
        return data

    def read_into(self, target: memoryview, page: Page) -> None:
        """Read the bytes of a page's pixels as stored."""
        done = 0
        while done < len(target):
            got = os.preadv(self.fd, [target[done:]], page.record.data_offset + done)
            if got == 0:
                raise DamagedPageError(f"{self.path}: is too short for frame {page.record.frame_id}")
            done += got

    def full_description(self) -> bytes:
        """Return the description that the first page names; DamagedPageError if it is not there."""
        count, offset = self.described
        if not 0 < count <= _MAX_DESCRIPTION:
            raise DamagedPageError(f"{self.path}: its description has {count} bytes")
        return os.pread(self.fd, count, offset)
