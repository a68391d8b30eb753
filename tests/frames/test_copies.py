"""Copies past the caches: every byte of the source arrives, nothing beside it is written, and the limits are NumPy's."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mutoscope.frames import Arena, ArenaReader, copies, copy_in, copy_out

DTYPES = ("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")


def _values(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (rng.standard_normal(shape) * 100).astype(kind)
    if kind.kind == "b":
        return rng.random(shape) < 0.5
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max, shape, kind, endpoint=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("every", [1, 3])
def test_a_plane_arrives_whole_with_the_limits_of_its_rows(dtype: str, every: int) -> None:
    rng = np.random.default_rng(1)
    source = _values(rng, (301, 333), dtype)
    around = np.full((305, 351), 1, dtype)
    target = around[2:303, 7:340]  # neither contiguous nor aligned
    limits = copy_in(target, source, every)
    np.testing.assert_array_equal(target, source)
    left = around.copy()
    left[2:303, 7:340] = 1
    assert (left == 1).all(), "something beside the plane was written"
    rows = source[::every]
    assert limits == (None if dtype == "f2" else (float(rows.min()), float(rows.max())))


def test_limits_are_those_of_finite_values() -> None:
    source = np.full((300, 200), np.nan, np.float32)
    assert copy_in(np.zeros_like(source), source, 1) == (np.inf, -np.inf)
    source[3] = [np.inf, -np.inf, *([-2.5, 7.0] * 99)]
    assert copy_in(np.zeros_like(source), source, 3) == (-2.5, 7.0)
    assert copy_in(np.zeros_like(source), source, 2) == (np.inf, -np.inf)


@pytest.mark.parametrize("layout", ["columns", "reversed", "transposed", "small", "strided rows"])
def test_other_layouts_are_copied_by_numpy(layout: str) -> None:
    whole = np.arange(600 * 800, dtype=np.uint32).reshape(600, 800)
    source = {
        "columns": whole[:, ::2],
        "reversed": whole[:, ::-1],
        "transposed": whole.T,
        "small": whole[:8, :8],
        "strided rows": whole[::-2],
    }[layout]
    target = np.zeros(source.shape, np.uint32)
    limits = copy_in(target, source, 1)
    np.testing.assert_array_equal(target, source)
    assert limits == ((float(source.min()), float(source.max())) if layout == "strided rows" else None)
    target[:] = 0
    copy_out(target, source)
    np.testing.assert_array_equal(target, source)


@pytest.mark.parametrize("offset", [0, 1, 2, 15, 16, 63])
@pytest.mark.parametrize("size", [1 << 22, (1 << 22) + 1, (1 << 22) + 77])
def test_a_frame_arrives_whole_however_it_is_aligned(offset: int, size: int) -> None:
    source = np.random.default_rng(size).integers(0, 256, size + 3, np.uint8)[3:]
    around = np.full(size + offset + 64, 9, np.uint8)
    copy_out(around[offset : offset + size], source)
    np.testing.assert_array_equal(around[offset : offset + size], source)
    assert (around[:offset] == 9).all()
    assert (around[offset + size :] == 9).all()


def test_what_cannot_be_written_is_refused_as_numpy_does() -> None:
    source = np.zeros((2048, 2048), np.uint16)
    target = np.zeros_like(source)
    target.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        copy_out(target, source)
    with pytest.raises(ValueError, match="read-only"):
        copy_in(target, source, 1)
    with pytest.raises(ValueError, match="broadcast"):
        copy_out(np.zeros((2048, 2047), np.uint16), source)


def test_where_an_array_begins() -> None:
    whole = np.zeros((40, 50), np.int16)
    for array in (whole, whole[3:, 7:], whole[::-1], whole.T, np.frombuffer(b"abc", np.uint8)):
        assert copies._address(array) == array.ctypes.data


def test_a_range_is_filled_whatever_comes() -> None:
    rng = np.random.default_rng(2)
    with Arena(8 << 20, "fill") as arena:
        for data in (
            rng.random((700, 500)),
            rng.random((3, 400, 500))[:, ::2],
            rng.random((4, 5)).astype("f4"),
            np.zeros((1, 1)),
        ):
            at = arena.take(data.nbytes)
            assert at is not None
            arena.fill(at, data)
            reader = ArenaReader(os.dup(arena.fd))
            np.testing.assert_array_equal(reader.view(at, data.nbytes).view(data.dtype).reshape(data.shape), data)


def test_objects_are_left_to_numpy() -> None:
    source = np.array([float(number) for number in range(600_000)], object)
    target = np.empty(600_000, object)
    copy_out(target, source)
    del source
    assert sum(target) == sum(range(600_000))
