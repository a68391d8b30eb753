"""Finished shards leave the page cache while the stream goes on; a device that fails to store them is told."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path

import numpy as np
import pytest

from mutoscope import storage
from mutoscope.model.errors import DatasetError
from mutoscope.storage import _behind
from mutoscope.storage._behind import AGE_S, MAX_WAITING, Behind
from polling import until

_libc = ctypes.CDLL(None, use_errno=True)


def cached_bytes(path: Path) -> int:
    """Return how much of a file is in the page cache (mincore(2))."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        pages = -(-view.size // mmap.PAGESIZE)
        there = (ctypes.c_ubyte * pages)()
        assert _libc.mincore(ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(view.size), there) == 0
        del view
        return sum(flag & 1 for flag in there) * mmap.PAGESIZE


def forgets(folder: Path) -> bool:
    """Whether the file system there can forget a file's pages; one that lives in memory cannot."""
    path = folder / "probe"
    path.write_bytes(bytes(1 << 20))
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    cached = cached_bytes(path)
    path.unlink()
    return cached == 0


def test_finished_shards_leave_the_page_cache(tmp_path: Path) -> None:
    image = np.arange(512 * 512, dtype=np.uint16).reshape(512, 512)
    with storage.open_writer(tmp_path / "run.ome.zarr", shape=image.shape, dtype=image.dtype) as writer:
        for number in range(600):
            writer.append(image + np.uint16(number))
        shards = [tmp_path / "run.ome.zarr" / "0" / "c" / str(shard) / "0" / "0" for shard in range(3)]
        assert cached_bytes(shards[2]) >= 88 * image.nbytes  # the shard that is being written stays
        if forgets(tmp_path):
            until(
                lambda: sum(map(cached_bytes, shards[:2])) <= 0.05 * 512 * image.nbytes,
                lambda: f"{[cached_bytes(shard) for shard in shards]} bytes are still cached",
            )
    with storage.open_reader(tmp_path / "run.ome.zarr") as reader:
        assert len(reader) == 600
        for number in (0, 255, 256, 511, 512, 599):
            np.testing.assert_array_equal(reader[number], image + np.uint16(number))


def test_what_the_device_refuses_is_told_by_the_next_append(tmp_path: Path) -> None:
    image = np.zeros((64, 64), np.uint8)
    with storage.open_writer(tmp_path / "run.ome.zarr", shape=image.shape, dtype=image.dtype) as writer:
        writer.append(image)
        reading, writing = os.pipe()  # what cannot be brought to a device, as a device that fails
        os.close(reading)
        writer._behind.take(writing, 0, 4096)
        until(lambda: writer._behind.error is not None)
        with pytest.raises(DatasetError, match="the device failed to store earlier frames"):
            writer.append(image)


def test_every_descriptor_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    behind = Behind()
    taken = [os.open(path, os.O_RDWR) for _ in range(20)]
    for fd in taken:
        behind.take(fd, 0, 1 << 20)
    behind.close()
    behind.close()
    behind.take(last := os.open(path, os.O_RDWR), 0, 1 << 20)  # too late: only closed
    assert behind.error is None
    for fd in {*taken, last}:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_what_an_ome_tiff_holds_leaves_the_page_cache(tmp_path: Path) -> None:
    image = np.arange(512 * 512, dtype=np.uint16).reshape(512, 512)
    path = tmp_path / "run.ome.tiff"
    with storage.open_writer(path, shape=image.shape, dtype=image.dtype) as writer:
        for number in range(600):
            writer.append(image + np.uint16(number))
        if forgets(tmp_path):
            until(lambda: cached_bytes(path) <= 120 * image.nbytes, lambda: f"{cached_bytes(path):,} bytes are still cached")
        writer.append(image)
    with storage.open_reader(path) as reader:
        assert len(reader) == 601
        for number in (0, 254, 255, 510, 511, 599):
            np.testing.assert_array_equal(reader[number], image + np.uint16(number))


def test_a_short_burst_stays_in_the_page_cache(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    forgotten = forgets(tmp_path)  # not by a file system that lives in memory
    behind = Behind()
    began = time.monotonic()
    behind.take(os.open(path, os.O_RDWR), 0, 1 << 20)
    until(lambda: not behind._given and not (forgotten and cached_bytes(path) > 0))
    assert time.monotonic() - began >= AGE_S
    behind.close()


def test_not_more_than_so_many_descriptors_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_behind, "AGE_S", 3600.0)  # none goes for its age
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 16))
    behind = Behind()
    for _ in range(MAX_WAITING + 40):
        behind.take(os.open(path, os.O_RDWR), 0, 1 << 16)
    until(lambda: len(behind._given) <= MAX_WAITING)
    assert len(behind._given) == MAX_WAITING
    behind.close()
