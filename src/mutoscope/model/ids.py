"""Sets of frame ids, kept as ranges: what a ledger counts with."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise

__all__ = ["IdRanges"]

SHOWN = 50
FEW = 16
"""Up to so many ranges are taken out one by one; more in one pass over both sets."""


class IdRanges:
    """A set of ids as sorted, disjoint, inclusive ranges.

    A run of a million frames with three drops is four ranges. Adding in order costs O(1), adding anywhere a binary search
    (and a move of the ranges behind it).

    Parameters
    ----------
    ranges : iterable of (first, last)
        Inclusive ranges in any order; they may overlap.

    Examples
    --------
    >>> seen = IdRanges([(1, 5), (8, 9)])
    >>> seen.add(6)
    >>> seen.to_list(), len(seen), 7 in seen
    ([[1, 6], [8, 9]], 8, False)
    >>> (IdRanges([(1, 9)]) - seen).to_list()
    [[7, 7]]
    """

    __slots__ = ("_firsts", "_lasts")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, ranges: Iterable[Sequence[int]] = ()) -> None:
        self._firsts = array("Q")
        self._lasts = array("Q")
        for first, last in ranges:
            self.add_range(first, last)

    @classmethod
    def from_list(cls, ranges: Iterable[Sequence[int]]) -> IdRanges:
        """Rebuild what :meth:`to_list` gave: ``[[first, last], ...]``, both ends inside."""
        return cls(ranges)

    @classmethod
    def from_runs(cls, runs: Iterable[tuple[int, int]]) -> IdRanges:
        """Build from ``(first_id, count)`` pairs, the form in which a ring reports gaps."""
        result = cls()
        for first, count in runs:
            result.add_run(first, count)
        return result

    @classmethod
    def from_ids(cls, ids: Iterable[int]) -> IdRanges:
        """Build from single ids in any order."""
        result = cls()
        for value in ids:
            result.add_range(value, value)
        return result

    def add(self, frame_id: int) -> None:
        """Add one id; adding it twice changes nothing."""
        lasts = self._lasts
        if lasts and frame_id == lasts[-1] + 1:
            lasts[-1] = frame_id
        else:
            self.add_range(frame_id, frame_id)

    def add_run(self, first_id: int, count: int) -> None:
        """Add `count` consecutive ids from `first_id`; a count of 0 adds nothing."""
        if count < 0:
            raise ValueError(f"a run has at least 0 ids, not {count}")
        if count:
            self.add_range(first_id, first_id + count - 1)

    def add_range(self, first: int, last: int) -> None:
        """Add the ids from `first` to `last`, both included."""
        if first < 0 or last < first:
            raise ValueError(f"not a range of ids: {first} to {last}")
        firsts, lasts = self._firsts, self._lasts
        if not lasts or first > lasts[-1] + 1:
            firsts.append(first)
            lasts.append(last)
            return
        begin = bisect_left(lasts, first - 1)
        end = bisect_right(firsts, last + 1)
        if begin < end:
            first, last = min(first, firsts[begin]), max(last, lasts[end - 1])
        firsts[begin:end] = array("Q", (first,))
        lasts[begin:end] = array("Q", (last,))

    def remove_range(self, first: int, last: int) -> None:
        """Take out the ids from `first` to `last`, both included; those not in the set are no error."""
        if first < 0 or last < first:
            raise ValueError(f"not a range of ids: {first} to {last}")
        firsts, lasts = self._firsts, self._lasts
        begin = bisect_left(lasts, first)
        end = bisect_right(firsts, last)
        if begin >= end:
            return
        keep: list[tuple[int, int]] = []
        if firsts[begin] < first:
            keep.append((firsts[begin], first - 1))
        if lasts[end - 1] > last:
            keep.append((last + 1, lasts[end - 1]))
        firsts[begin:end] = array("Q", (a for a, _ in keep))
        lasts[begin:end] = array("Q", (b for _, b in keep))

    def update(self, other: IdRanges) -> None:
        """Add every id of `other`."""
        for first, last in other.ranges():
            self.add_range(first, last)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Iterate over the inclusive ranges ``(first, last)`` in order."""
        return zip(self._firsts, self._lasts, strict=True)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Iterate over ``(first_id, count)`` in order."""
        return ((first, last - first + 1) for first, last in self.ranges())

    def gaps(self) -> IdRanges:
        """Return the ids that are missing between the first and the last."""
        return IdRanges((a[1] + 1, b[0] - 1) for a, b in pairwise(self.ranges()))

    def union(self, other: IdRanges) -> IdRanges:
        """Return the ids that are in either."""
        small, large = (self, other) if len(self._firsts) < len(other._firsts) else (other, self)
        result = large.copy()
        result.update(small)
        return result

    def difference(self, other: IdRanges) -> IdRanges:
        """Return the ids that are here and not in `other`."""
        if len(other._firsts) < FEW:
            result = self.copy()
            for first, last in other.ranges():
                result.remove_range(first, last)
            return result
        result = IdRanges()
        for first, last in self.ranges():
            at = bisect_left(other._lasts, first)
            while at < len(other._firsts) and other._firsts[at] <= last:
                if first < other._firsts[at]:
                    result.add_range(first, other._firsts[at] - 1)
                first = other._lasts[at] + 1
                at += 1
            if first <= last:
                result.add_range(first, last)
        return result

    def intersection(self, other: IdRanges) -> IdRanges:
        """Return the ids that are in both."""
        result = IdRanges()
        mine, theirs = list(self.ranges()), list(other.ranges())
        i = j = 0
        while i < len(mine) and j < len(theirs):
            first, last = max(mine[i][0], theirs[j][0]), min(mine[i][1], theirs[j][1])
            if first <= last:
                result.add_range(first, last)
            if mine[i][1] < theirs[j][1]:
                i += 1
            else:
                j += 1
        return result

    __or__ = union
    __sub__ = difference
    __and__ = intersection

    @property
    def count(self) -> int:
        """How many ids the set has."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    @property
    def first(self) -> int | None:
        """The smallest id, or None."""
        return self._firsts[0] if self._firsts else None

    @property
    def last(self) -> int | None:
        """The largest id, or None."""
        return self._lasts[-1] if self._lasts else None

    def __len__(self) -> int:
        return self.count

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges():
            yield from range(first, last + 1)

    def __contains__(self, frame_id: object) -> bool:
        if not isinstance(frame_id, int):
            return False
        at = bisect_left(self._lasts, frame_id)
        return at < len(self._firsts) and self._firsts[at] <= frame_id

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IdRanges):
            return NotImplemented
        return self._firsts == other._firsts and self._lasts == other._lasts

    def __repr__(self) -> str:
        return f"IdRanges({self.to_list()!r})"

    def __str__(self) -> str:
        shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in islice(self.ranges(), SHOWN))
        more = self.range_count - SHOWN
        return (f"{shown} and {more:,} more ranges" if more > 0 else shown) or "none"

    def copy(self) -> IdRanges:
        """Return an independent copy."""
        result = IdRanges()
        result._firsts, result._lasts = self._firsts[:], self._lasts[:]
        return result

    @property
    def range_count(self) -> int:
        """Of how many ranges it consists."""
        return len(self._firsts)

    def to_list(self, limit: int | None = None) -> list[list[int]]:
        """Return ``[[first, last], ...]``, plain values for JSON and msgpack; of the first `limit` ranges, if that is given."""
        return [[first, last] for first, last in islice(self.ranges(), limit)]
