"""What is sent of a frame, and its histogram, against NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_client import parse

from mutoscope.viewers.page import pixels

DTYPES = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64",
    "complex64", ">u2", ">i2", ">f4",
)  # fmt: skip
EXACT = ("bool", "uint8", "int8", "uint16", "int16", "float16", "float32", ">u2", ">i2", ">f4")


def image(dtype: str, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.random(shape) > 0.5
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return rng.integers(limits.min, limits.max, shape, dtype=kind.newbyteorder("="), endpoint=True).astype(kind)
    values = rng.normal(0, 1000, shape)
    return (values + 1j * values[::-1]).astype(kind) if kind.kind == "c" else values.astype(kind)


@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    crop=st.none() | st.tuples(*(st.integers(-10, 50) for _ in range(4))),
    step=st.integers(1, 9),
    seed=st.integers(0, 9),
)
@settings(max_examples=300, deadline=None)
def test_a_crop_is_what_numpy_cuts(dtype, shape, crop, step, seed):
    array = image(dtype, shape, seed)
    view = pixels.View(crop, step)
    stamp = pixels.Stamp(7, 1, 2, 3.5, (4, 5, 6, 7))
    message = parse(pixels.encode_frame(array, stamp, view, stream=3, skipped=9, request=11))
    y0, x0, y1, x1 = message.crop
    assert 0 <= y0 <= y1 <= shape[0]
    assert 0 <= x0 <= x1 <= shape[1]
    expected = array[y0:y1:step, x0:x1:step]
    assert message.pixels.shape == expected.shape
    wanted = (0, 0, *shape) if crop is None else crop
    if wanted[0] <= wanted[2] and wanted[1] <= wanted[3]:
        inside = array[max(wanted[0], 0) : max(wanted[2], 0), max(wanted[1], 0) : max(wanted[3], 0)][::step, ::step]
        np.testing.assert_array_equal(inside, expected)
    if np.dtype(dtype).kind == "c":
        np.testing.assert_allclose(message.values, np.abs(expected), rtol=1e-6)
    elif dtype in EXACT:
        np.testing.assert_array_equal(message.values, expected.astype(np.float64))
    elif np.dtype(dtype).kind == "f":
        np.testing.assert_allclose(message.values, expected, rtol=1e-6)
    elif expected.size:
        spread = float(int(expected.max()) - int(expected.min()))
        np.testing.assert_allclose(message.values, expected.astype(np.float64), atol=max(1, spread * 1e-7), rtol=1e-15)
    assert (message.frame_id, message.stream, message.skipped, message.request) == (7, 3, 9, 11)
    assert (message.monotonic_ns, message.utc_ns, message.exposure_ms, message.plane) == (1, 2, 3.5, (4, 5, 6, 7))


def test_whole_numbers_of_32_bit_are_exact_near_their_least():
    array = (np.arange(64, dtype=np.int64).reshape(8, 8) + 2**40).astype(np.int64)
    message = parse(pixels.encode_frame(array, pixels.Stamp(1), pixels.WHOLE, stream=0))
    np.testing.assert_array_equal(message.values.astype(np.int64), array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_histogram_counts_what_numpy_counts(dtype):
    array = image(dtype, (64, 48))
    found = pixels.histogram(array)
    assert found is not None
    values = np.abs(array) if np.dtype(dtype).kind == "c" else array
    values = values.astype(np.float64).ravel()
    assert (found.low, found.high) == (values.min(), values.max())
    assert sum(found.counts) == found.pixels == values.size
    bins = np.minimum((256 * ((values - found.low) / (found.high - found.low))).astype(int), 255)
    assert found.counts == np.bincount(bins, minlength=256).tolist()
    for percent, value in found.percentiles:
        expected = np.percentile(values, percent, method="inverted_cdf")
        assert value == expected, percent


def test_a_histogram_leaves_out_what_is_not_finite():
    array = np.array([[1.0, math.nan], [math.inf, 3.0]])
    found = pixels.histogram(array)
    assert found is not None
    assert (found.low, found.high, found.not_finite) == (1.0, 3.0, 2)
    assert pixels.histogram(np.full((2, 2), math.nan)) is None


def test_a_histogram_of_values_that_are_further_apart_than_the_largest_number():
    array = np.array([[-1.7e308, 0.0], [1.7e308, 1.7e308]])
    found = pixels.histogram(array)
    assert found is not None
    assert (found.low, found.high) == (-1.7e308, 1.7e308)
    assert (found.counts[0], found.counts[128], found.counts[255], sum(found.counts)) == (1, 1, 2, 4)


def test_a_flat_image_has_limits_that_differ():
    found = pixels.histogram(np.full((4, 4), 7, np.uint16))
    assert found is not None
    assert found.auto == (7.0, 8.0)
    assert found.counts[0] == 16


def test_exact_values():
    array = np.array([[2**63 - 1, -5]], dtype=np.int64)
    assert pixels.exact_value(array, 0, 0) == {"text": "9223372036854775807", "number": float(2**63 - 1)}
    assert pixels.exact_value(np.array([[math.nan]]), 0, 0) == {"text": "nan", "number": None}


@pytest.mark.parametrize(("exposure_ms", "sent"), [(1e300, math.nan), (-1e300, math.nan), (math.inf, math.inf), (3e38, 3e38)])
def test_an_exposure_that_no_f4_holds_is_not_known(exposure_ms: float, sent: float):
    message = pixels.encode_frame(np.zeros((2, 3), np.uint8), pixels.Stamp(1, exposure_ms=exposure_ms), pixels.WHOLE, stream=0)
    assert parse(bytes(message)).exposure_ms == pytest.approx(sent, nan_ok=True)
