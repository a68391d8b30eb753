"""Leases: a slot stays pinned exactly as long as somebody can see it."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from mutoscope.frames import FrameRing, FrameWriter
from mutoscope.model.errors import FrameTimeoutError, LeaseLimitError

SHAPE = (16, 16)


@pytest.fixture
def ring() -> Iterator[FrameRing]:
    with FrameRing(slots=8, slot_bytes=4096, name="test") as made:
        yield made


def publish(writer: FrameWriter, count: int) -> None:
    for _ in range(count):
        with writer.slot(SHAPE, "uint32", timeout_s=5) as slot:
            slot.array[:] = writer.head + 1


def pins(ring: FrameRing) -> int:
    return sum(row.pins for row in ring.rows())


def test_leaving_the_block_unpins(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()
    publish(writer, 1)
    with reader.next(1) as frame:
        assert pins(ring) == 1
        assert int(frame.array.sum()) == 256
    assert pins(ring) == 0
    with pytest.raises(ValueError, match="released"):
        _ = frame.array
    assert (frame.frame_id, frame.shape) == (1, SHAPE)  # the header stays
    frame.release()


def test_views_outlive_the_block(ring: FrameRing) -> None:
    reader, writer = ring.reader(policy="latest", leases=3), ring.writer()
    publish(writer, 1)
    with reader.next(1) as frame:
        part = frame.array[2:4, ::2][:, 1:]
        turned = frame.array.T[::3].view(np.int32)
    publish(writer, 50)
    assert (part == 1).all()
    assert (turned == 1).all()
    assert pins(ring) == 1
    del part
    assert pins(ring) == 1
    del turned
    assert pins(ring) == 0


def test_the_base_of_every_view_is_the_lease_not_an_array(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()
    publish(writer, 1)
    with reader.next(1) as frame:
        base = frame.array[1:][1:].base
        while isinstance(base, np.ndarray):
            base = base.base
        assert hasattr(base, "__array_interface__")
        gone = weakref.ref(base)
        del base
    assert gone() is None


def test_views_cannot_be_written(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()
    publish(writer, 1)
    with reader.next(1) as frame:
        with pytest.raises(ValueError):
            frame.array[0, 0] = 1
        with pytest.raises(ValueError):
            frame.array.setflags(write=True)
        copy = frame.copy()
    copy[:] = 5


def test_reader_that_never_releases_meets_its_cap(ring: FrameRing) -> None:
    reader, other, writer = ring.reader(name="greedy"), ring.reader(name="other"), ring.writer()
    publish(writer, 4)
    held = [reader.next(1), reader.next(1)]
    with pytest.raises(LeaseLimitError, match="greedy"):
        reader.next(1)
    for _ in range(2):
        reader.commit(held[-1])
        other.next(1).release()
    other.commit(2)
    # committed and pinned: nobody overwrites them, everybody goes on
    publish(writer, 4)
    assert [int(frame.array[0, 0]) for frame in held] == [1, 2]
    held.clear()
    with reader.next(1) as frame:
        assert frame.frame_id == 3


def test_cap_can_be_raised(ring: FrameRing) -> None:
    reader, writer = ring.reader(leases=6), ring.writer()
    publish(writer, 6)
    held = [reader.next(1) for _ in range(6)]
    assert pins(ring) == 6
    assert [int(frame.array[3, 3]) for frame in held] == list(range(1, 7))
    publish(writer, 2)
    with pytest.raises(LeaseLimitError):
        reader.next(0)


def test_release_wakes_a_producer_that_waits_for_a_pin(ring: FrameRing) -> None:
    reader, writer = ring.reader(leases=2), ring.writer()
    slow = ring.reader(leases=2, name="slow")
    publish(writer, 8)
    held = reader.next(1)
    reader.next(1).release()
    reader.commit(2)
    slow.next(1).release()
    slow.commit(1)
    # only frame 1's slot could be free, and it is pinned
    done = threading.Event()

    def produce() -> None:
        publish(writer, 1)
        done.set()

    thread = threading.Thread(target=produce)
    thread.start()
    assert not done.wait(0.1)
    held.release()
    assert done.wait(5)
    thread.join()


def test_view_outlives_its_reader_and_its_ring() -> None:
    ring = FrameRing(slots=8, slot_bytes=4096)
    reader, writer = ring.reader(), ring.writer()
    publish(writer, 1)
    with reader.next(1) as frame:
        view = frame.array[4:]
    reader.close()
    assert pins(ring) == 1
    publish(writer, 50)
    assert (view == 1).all()
    ring.close()
    assert (view == 1).all()
    del view


def test_row_of_a_closed_reader_is_not_given_away_while_a_view_lives() -> None:
    with FrameRing(slots=8, slot_bytes=4096, row_count=1) as ring:
        reader, writer = ring.reader(leases=1), ring.writer()
        publish(writer, 1)
        frame = reader.next(1)
        reader.close()
        with pytest.raises(ValueError, match="all 1 rows"):
            ring.reader(leases=1)
        frame.release()
        publish(writer, 1)
        fresh = ring.reader(leases=1)
        with pytest.raises(FrameTimeoutError):
            fresh.next(0)


def test_view_in_a_reference_cycle_goes_with_the_collector(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()
    publish(writer, 1)
    with reader.next(1) as frame:
        cycle: list[object] = [frame.array[1:]]
        cycle.append(cycle)
    del cycle
    gc.collect()
    assert pins(ring) == 0


def test_views_released_by_another_thread(ring: FrameRing) -> None:
    reader, writer = ring.reader(leases=4), ring.writer()
    pool: list[np.ndarray] = []
    ready = threading.Semaphore(0)

    def consume() -> None:
        for _ in range(200):
            ready.acquire()
            assert (pool[0] == pool[0][0, 0]).all()
            pool.pop(0)

    thread = threading.Thread(target=consume)
    thread.start()
    taken = 0
    while taken < 200:
        publish(writer, 1)
        while True:
            try:
                with reader.next(1) as frame:
                    pool.append(frame.array)
                    reader.commit(frame)
                break
            except LeaseLimitError:
                continue
        taken += 1
        ready.release()
        del frame
    thread.join()
    assert pins(ring) == 0
