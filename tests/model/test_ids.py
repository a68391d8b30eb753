"""Id ranges behave as the set of integers that they stand for."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutoscope.model import IdRanges

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)).map(lambda p: (p[0], p[0] + p[1])), max_size=12)


def as_set(pairs) -> set[int]:
    return {value for first, last in pairs for value in range(first, last + 1)}


def check(found: IdRanges, expected: set[int]) -> None:
    assert set(found) == expected
    assert list(found) == sorted(expected)
    assert len(found) == found.count == len(expected)
    assert bool(found) == bool(expected)
    assert (found.first, found.last) == ((min(expected), max(expected)) if expected else (None, None))
    pairs = list(found.ranges())
    assert all(a[1] + 1 < b[0] for a, b in pairwise(pairs)), "adjacent ranges are joined"
    for value in range(70):
        assert (value in found) == (value in expected)


@given(ranges, ranges)
def test_set_operations_agree_with_sets_of_integers(first, second):
    a, b = IdRanges(first), IdRanges(second)
    check(a, as_set(first))
    check(a | b, as_set(first) | as_set(second))
    check(a - b, as_set(first) - as_set(second))
    check(a & b, as_set(first) & as_set(second))
    check(a, as_set(first))
    full = as_set(first)
    check(a.gaps(), set(range(min(full), max(full) + 1)) - full if full else set())


@given(st.lists(st.integers(0, 60), max_size=80))
def test_single_ids_in_any_order(values):
    found = IdRanges()
    for value in values:
        found.add(value)
    check(found, set(values))
    assert found == IdRanges.from_ids(sorted(values))


@given(ranges, ranges)
@settings(max_examples=50)
def test_removal(first, second):
    found = IdRanges(first)
    for pair in second:
        found.remove_range(*pair)
    check(found, as_set(first) - as_set(second))


@given(ranges)
def test_lists_and_runs_come_back(pairs):
    found = IdRanges(pairs)
    assert IdRanges.from_list(json.loads(json.dumps(found.to_list()))) == found
    assert IdRanges.from_runs(found.runs()) == found


def test_an_overnight_run_stays_small():
    found = IdRanges()
    for value in range(1, 200_001):
        if value % 50_000:
            found.add(value)
    assert len(found.to_list()) == 4
    assert found.count == 200_000 - 4
    assert str(found.gaps()) == "50000, 100000, 150000"


@pytest.mark.parametrize("bad", [(5, 4), (-1, 3)])
def test_impossible_ranges_are_refused(bad):
    with pytest.raises(ValueError, match="not a range of ids"):
        IdRanges([bad])
    with pytest.raises(ValueError, match="not a range of ids"):
        IdRanges().remove_range(*bad)


def test_a_negative_run_is_refused():
    with pytest.raises(ValueError, match="at least 0"):
        IdRanges().add_run(3, -1)


def test_a_copy_is_independent_and_sets_are_not_hashable():
    found = IdRanges([(1, 3)])
    other = found.copy()
    other.add(9)
    assert 9 not in found
    assert found != other
    assert found != [[1, 3]]
    with pytest.raises(TypeError):
        hash(found)


@given(st.lists(st.integers(0, 400), min_size=40, max_size=120), st.lists(st.integers(0, 400), min_size=40, max_size=120))
@settings(max_examples=50)
def test_differences_of_many_ranges(first, second):
    a, b = IdRanges.from_ids(first), IdRanges.from_ids(second)
    assert list(a - b) == sorted(set(first) - set(second))
    assert list(b - a) == sorted(set(second) - set(first))


def test_millions_of_ranges_stay_small_in_memory_and_in_words():
    many = IdRanges((2 * number, 2 * number) for number in range(300_000))
    assert many.range_count == 300_000
    assert sum(len(part) * part.itemsize for part in (many._firsts, many._lasts)) == 300_000 * 16
    assert many.to_list(2) == [[0, 0], [2, 2]]
    assert str(many).endswith("98 and 299,950 more ranges")
    assert (many - many).range_count == 0
    assert (many - IdRanges([(1, 599_997)])).to_list() == [[0, 0], [599_998, 599_998]]
