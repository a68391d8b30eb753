"""The ring as its users see it: publishing, reading, committing, bounds, ends."""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker

import numpy as np
import pytest

from mutoscope.frames import FrameReader, FrameRing, FrameWriter, _os
from mutoscope.model.errors import (
    ClosedError,
    ConfigError,
    FrameTimeoutError,
    RingClosedError,
    RingFullError,
    RingSizeError,
    ScopeStateError,
)
from mutoscope.model.frame import PlaneIndex
from polling import until

SHAPE = (32, 48)


@pytest.fixture(autouse=True, scope="module")
def tracker() -> None:
    """multiprocessing's own helper process stays until the end; have it there before the leak gate counts."""
    resource_tracker.ensure_running()


@pytest.fixture
def ring() -> Iterator[FrameRing]:
    with FrameRing(slots=8, slot_bytes=32 * 48 * 2, name="test") as made:
        yield made


def publish(writer: FrameWriter, count: int, first: int = 1) -> None:
    for value in range(first, first + count):
        with writer.slot(SHAPE, "uint16", tick=value, timeout_s=5) as slot:
            slot.array[:] = value


def take(reader: FrameReader, count: int, timeout_s: float = 5) -> list[int]:
    ids = []
    for _ in range(count):
        with reader.next(timeout_s) as frame:
            assert (frame.array == frame.tick).all()
            ids.append(frame.frame_id)
            reader.commit(frame)
    return ids


def test_everything_a_frame_carries_arrives(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()
    image = np.arange(32 * 48, dtype=np.uint16).reshape(SHAPE)
    before = time.monotonic_ns(), time.time_ns()
    frame_id = writer.push(image, tick=7, exposure_ms=2.5, index=PlaneIndex(1, 2, 3, 4), user=b"note")
    after = time.monotonic_ns(), time.time_ns()
    with reader.next(1.0) as frame:
        assert frame_id == frame.frame_id == 1
        assert np.array_equal(frame.array, image)
        assert not frame.array.flags.writeable
        assert before[0] <= frame.monotonic_ns <= after[0]
        assert before[1] <= frame.utc_ns <= after[1]
        info = frame.info
    assert (info.tick, info.exposure_ms, info.index, info.user) == (7, 2.5, PlaneIndex(1, 2, 3, 4), b"note")
    assert (info.shape, info.dtype, info.frame_id) == (SHAPE, "uint16", 1)
    writer.push(image, monotonic_ns=11, utc_ns=12)
    with reader.next(1.0) as frame:
        assert (frame.monotonic_ns, frame.utc_ns) == (11, 12)
        assert math.isnan(frame.exposure_ms)
        assert not frame.index.is_placed


def test_header_set_inside_the_block(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()
    with writer.slot(SHAPE, "uint16") as slot:
        slot.array[:] = 0
        slot.tick, slot.user, slot.index, slot.exposure_ms = 9, b"u", PlaneIndex(t=5), 1.5
    assert slot.frame_id == 1
    with reader.next(1.0) as frame:
        assert (frame.tick, frame.user, frame.index.t, frame.exposure_ms) == (9, b"u", 5, 1.5)


def test_source_may_be_reused_after_push(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()
    image = np.full(SHAPE, 5, np.uint16)
    writer.push(image)
    image[:] = 99
    with reader.next(1.0) as frame:
        assert (frame.array == 5).all()


def test_strided_source(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()
    image = np.arange(64 * 96, dtype=np.uint16).reshape(64, 96)[::2, ::2]
    writer.push(image)
    with reader.next(1.0) as frame:
        assert np.array_equal(frame.array, image)


def test_every_reads_all_in_order_many_laps(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()
    seen = []
    for lap in range(20):
        publish(writer, 5, first=lap * 5 + 1)
        seen += take(reader, 5)
    assert seen == list(range(1, 101))
    row = ring.rows()[0]
    assert (row.produced, row.done, row.dropped, row.pending, row.cursor) == (100, 100, 0, 0, 101)


def test_most_recently_freed_slot_is_reused(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()
    addresses = set()
    for value in range(1, 30):
        publish(writer, 1, first=value)
        with reader.next(1.0) as frame:
            addresses.add(frame.array.__array_interface__["data"][0])
            reader.commit(frame)
    assert len(addresses) <= 3


def test_shapes_and_dtypes_may_change(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()
    images = [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.ones((32, 48), np.uint16),
        np.array([[True, False]]),
        np.arange(4, dtype=np.complex64).reshape(1, 4),
        np.arange(9, dtype=">u2").reshape(3, 3),
        np.zeros((16, 16), np.float64),
    ]
    for image in images * 3:
        writer.push(image)
        with reader.next(1.0) as frame:
            assert frame.shape == image.shape
            assert frame.dtype == image.dtype == frame.array.dtype
            assert np.array_equal(frame.array, image)
            reader.commit(frame)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((4096, 48), "uint16"), ((32, 48, 3), "uint8"), ((0, 4), "uint8"), ((4,), "uint8"), ((4, 4), "O"), ((4, 4), "M8[s]")],
)
def test_frames_that_cannot_be_are_refused_before_claiming(ring: FrameRing, shape: tuple[int, ...], dtype: str) -> None:
    writer = ring.writer()
    with pytest.raises(ValueError):
        writer.slot(shape, dtype)
    assert writer.try_claim(SHAPE, "uint16") is not None


def test_user_block_too_long_discards_the_slot(ring: FrameRing) -> None:
    writer = ring.writer()
    with pytest.raises(ValueError, match="64"):
        writer.push(np.zeros(SHAPE, np.uint16), user=b"x" * 65)
    assert writer.push(np.zeros(SHAPE, np.uint16), user=b"x" * 64) == 1


def test_exception_while_filling_discards(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()

    def fail() -> None:
        with writer.slot(SHAPE, "uint16") as slot:
            slot.array[:] = 1
            raise ZeroDivisionError

    for _ in range(30):
        with pytest.raises(ZeroDivisionError):
            fail()
    with pytest.raises(FrameTimeoutError):
        reader.next(0)
    publish(writer, 1)
    assert take(reader, 1) == [1]
    assert ring.statistics().discarded == 30


def test_discard_and_use_after_the_end(ring: FrameRing) -> None:
    writer = ring.writer()
    with writer.slot(SHAPE, "uint16") as slot:
        slot.discard()
        slot.discard()
    with pytest.raises(ValueError):
        _ = slot.array
    with writer.slot(SHAPE, "uint16") as slot:
        pass
    with pytest.raises(ValueError):
        _ = slot.array
    with pytest.raises(ScopeStateError):
        writer.publish(slot)
    with pytest.raises(ScopeStateError):
        slot.__enter__()
    assert ring.head() == 1


def test_try_claim_never_waits(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()
    published = 0
    while (slot := writer.try_claim(SHAPE, "uint16")) is not None:
        slot.array[:] = slot.tick = published + 1
        published = writer.publish(slot)
    assert published == ring.slots
    assert ring.statistics().full_events == 1
    assert take(reader, 1) == [1]
    assert writer.try_claim(SHAPE, "uint16") is not None
    with pytest.raises(ScopeStateError):
        writer.try_claim(SHAPE, "uint16")


def test_writer_waits_for_a_lossless_reader(ring: FrameRing) -> None:
    reader, writer = ring.reader(name="recorder"), ring.writer()
    publish(writer, ring.slots)
    began = time.monotonic()
    with pytest.raises(RingFullError, match=r"within 0\.05 s"):
        publish_one_with_timeout(writer, 0.05)
    assert time.monotonic() - began >= 0.05

    def consume() -> None:
        take(reader, 1)

    thread = threading.Thread(target=consume)
    thread.start()
    publish(writer, 1, first=99)
    thread.join()
    assert ring.head() == ring.slots + 1
    assert ring.statistics().blocked_ns > 0


def publish_one_with_timeout(writer: FrameWriter, timeout_s: float) -> None:
    with writer.slot(SHAPE, "uint16", timeout_s=timeout_s):
        pass


def test_commit_is_cumulative_and_bounded(ring: FrameRing) -> None:
    reader, writer = ring.reader(leases=4), ring.writer()
    publish(writer, 4)
    for _ in range(3):
        reader.next(1.0).release()
    reader.commit(2)
    assert (reader.cursor, reader.lag) == (3, 2)
    reader.commit(1)
    assert reader.cursor == 3
    with pytest.raises(ValueError, match="frame 4"):
        reader.commit(4)
    assert reader.statistics() == {"cursor": 3, "done": 2, "dropped": 0, "next_id": 4, "newest_id": 4, "leases_held": 0}


def test_time_out_is_kept(ring: FrameRing) -> None:
    reader = ring.reader()
    for timeout_s in (0, 0.03):
        began = time.monotonic()
        with pytest.raises(FrameTimeoutError) as raised:
            reader.next(timeout_s)
        assert time.monotonic() - began >= timeout_s
        assert isinstance(raised.value, TimeoutError)


def test_new_reader_starts_with_the_next_frame_and_oldest_with_what_is_there(ring: FrameRing) -> None:
    writer = ring.writer()
    keeper = ring.reader(name="keeper")
    publish(writer, 5)
    new, oldest = ring.reader(name="new"), ring.reader(name="oldest", start="oldest")
    publish(writer, 1, first=6)
    assert take(new, 1) == [6]
    assert take(oldest, 6) == [1, 2, 3, 4, 5, 6]
    assert take(keeper, 6) == [1, 2, 3, 4, 5, 6]
    new.close()
    late = ring.reader(name="late", start="oldest")
    ids = take(late, 1)
    assert ids[0] <= 6
    assert [*ids, *take(late, 6 - ids[0])] == list(range(ids[0], 7))


def test_second_writer_is_refused_until_the_first_closes(ring: FrameRing) -> None:
    first = ring.writer()
    with pytest.raises(ScopeStateError):
        ring.writer()
    publish(first, 2)
    claimed = first.try_claim(SHAPE, "uint16")
    assert claimed is not None
    first.close()
    first.close()
    with pytest.raises(ClosedError):
        first.push(np.zeros(SHAPE, np.uint16))
    with pytest.raises(ValueError):
        _ = claimed.array
    second = ring.writer()
    assert second.push(np.zeros(SHAPE, np.uint16)) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "some"},
        {"on_full": "explode"},
        {"leases": 0},
        {"leases": 7},
        {"policy": "share"},
        {"group": "pool"},
        {"policy": "share", "group": "pool", "on_full": "detach"},
        {"policy": "latest", "on_full": "drop"},
        {"at_most_hz": 10},
        {"policy": "latest", "at_most_hz": 0},
        {"lag_limit": 3},
        {"on_full": "detach", "lag_limit": 0},
        {"policy": "share", "group": "x" * 40},
    ],
)
def test_arguments_that_do_not_fit_together(ring: FrameRing, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="test"):
        ring.reader(**options)  # type: ignore[arg-type]
    assert ring.rows() == []


def test_attaching_is_refused_when_the_slots_do_not_suffice(ring: FrameRing) -> None:
    ring.reader(leases=4)
    with pytest.raises(ConfigError, match=r"8 slots are too few: its 3 leases, the 4 of the others.* make 9"):
        ring.reader(leases=3)
    reader = ring.reader(leases=2)
    reader.close()
    ring.reader(leases=2)


def test_rows_are_used_again_and_run_out() -> None:
    with FrameRing(slots=8, slot_bytes=64, row_count=2) as ring:
        for _ in range(10):
            ring.reader(leases=1).close()
        keep = [ring.reader(leases=1), ring.reader(leases=1)]
        with pytest.raises(ConfigError, match="all 2 rows"):
            ring.reader(leases=1)
        assert len(keep) == len(ring.rows()) == 2


def test_closed_reader_no_longer_holds_the_producer_and_its_account_stays(ring: FrameRing) -> None:
    reader, writer = ring.reader(name="gone"), ring.writer()
    publish(writer, 3)
    take(reader, 2)
    reader.close()
    reader.close()
    assert reader.closed
    with pytest.raises(ClosedError):
        reader.next(0)
    publish(writer, 20, first=4)
    row = ring.rows()[0]
    assert (row.state, row.done, row.pending, row.produced) == ("closed", 2, 1, 3)


def test_closing_the_ring_ends_everyone(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()
    ended: list[type[BaseException]] = []

    def wait(call: object) -> None:
        try:
            call()  # type: ignore[operator]
        except Exception as error:
            ended.append(type(error))

    publish(writer, ring.slots)
    sleeper = ring.reader(policy="latest", name="sleeper", leases=1)
    threads = [
        threading.Thread(target=wait, args=(lambda: publish(writer, 1),)),
        threading.Thread(target=wait, args=(lambda: sleeper.next(60),)),
    ]
    for thread in threads:
        thread.start()
    until(lambda: sleeper._waiting and writer._waiting, "both wait when the ring is closed")
    ring.close()
    ring.close()
    for thread in threads:
        thread.join(5)
    assert ended == [RingClosedError, RingClosedError]
    for call in (lambda: reader.next(0), lambda: reader.commit(1), ring.head, ring.rows, ring.writer, lambda: ring.reader()):
        with pytest.raises(RingClosedError):
            call()
    assert sleeper.closed
    assert writer.closed


def test_ring_that_does_not_fit_says_the_numbers() -> None:
    available = _os.available_memory()
    with pytest.raises(RingSizeError, match=r"[\d,]{9,} bytes .* [\d,]+ are available") as raised:
        FrameRing(slots=64, slot_bytes=available // 32)
    assert isinstance(raised.value, ValueError)
    assert isinstance(raised.value, MemoryError)


@pytest.mark.parametrize(("slots", "slot_bytes", "rows"), [(3, 64, 16), (70000, 64, 16), (8, 0, 16), (8, 64, 0), (8, 64, 65)])
def test_ring_out_of_bounds(slots: int, slot_bytes: int, rows: int) -> None:
    with pytest.raises(ConfigError):
        FrameRing(slots, slot_bytes, row_count=rows)


def test_interrupt_runs_the_callback_and_the_wait_goes_on(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()
    bell, calls = _os.create_bell(), []

    def answer() -> None:
        _os.clear_bell(bell)
        calls.append(threading.current_thread())
        if len(calls) == 3:
            raise KeyError("enough")

    try:
        reader.interrupt_with(bell, answer)
        _os.ring_bell(bell)
        with pytest.raises(FrameTimeoutError):
            reader.next(0.02)
        assert calls == [threading.current_thread()]
        timer = threading.Timer(0.05, _os.ring_bell, [bell])
        timer.start()
        later = threading.Timer(0.15, publish, [writer, 1])
        later.start()
        assert take(reader, 1) == [1]
        assert len(calls) == 2
        timer.join()
        later.join()
        _os.ring_bell(bell)
        with pytest.raises(KeyError):
            reader.next(10)
        publish(writer, ring.slots - 1, first=2)
        writer.interrupt_with(bell, answer)
        _os.ring_bell(bell)
        reader.commit(reader.next(1))
        calls.clear()
        publish(writer, 2, first=9)
        with pytest.raises(RingFullError):
            publish_one_with_timeout(writer, 0.02)
        reader.interrupt_with(-1, None)
        writer.interrupt_with(-1, None)
    finally:
        os.close(bell)


def test_an_idle_reader_costs_next_to_nothing(ring: FrameRing) -> None:
    reader = ring.reader()
    used = time.thread_time()
    with pytest.raises(FrameTimeoutError):
        reader.next(0.5)
    assert time.thread_time() - used < 0.02


def test_forked_child_refuses(ring: FrameRing) -> None:
    reader, writer = ring.reader(), ring.writer()
    publish(writer, 1)
    held = reader.next(1)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        refused = 0
        for call in (lambda: reader.next(0), lambda: reader.commit(1), lambda: writer.slot(SHAPE, "u2").__enter__(), ring.head):
            try:
                call()
            except ScopeStateError:
                refused += 1
        held.release()
        reader.close()
        writer.close()
        ring.close()
        os.write(write_end, bytes([refused]))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read_end, 1) == b"\x04"
    os.close(read_end)
    os.close(write_end)
    assert ring.rows()[0].pins == 1  # the child's copy of the lease let nothing go
    held.release()
    publish(writer, 1, first=2)
    assert take(reader, 1) == [2]


def count_in_child(reader: FrameReader, count: int) -> None:
    assert take(reader, count) == list(range(1, count + 1))


def publish_in_child(writer: FrameWriter, count: int) -> None:
    publish(writer, count)


def test_reader_and_writer_go_to_children_of_multiprocessing(ring: FrameRing) -> None:
    context = multiprocessing.get_context("spawn")
    reader, writer = ring.reader(), ring.writer()
    children = [
        context.Process(target=count_in_child, args=(reader, 50)),
        context.Process(target=publish_in_child, args=(writer, 50)),
    ]
    for child in children:
        child.start()
    with pytest.raises(ScopeStateError, match="given to a child"):
        reader.next(0)
    with pytest.raises(ScopeStateError, match="given to a child"):
        writer.push(np.zeros(SHAPE, np.uint16))
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    reader.close()
    writer.close()
    until(lambda: not (ring.rows() or ring.statistics().producer_pid), "the ring sees that both ended without closing")
    assert ring.head() == 50
    assert ring.writer().push(np.zeros(SHAPE, np.uint16)) == 51


def test_pickling_elsewhere_is_refused(ring: FrameRing) -> None:
    for thing in (ring.reader(), ring.writer()):
        with pytest.raises(RuntimeError, match="through inheritance"):
            pickle.dumps(thing)


def test_child_that_dies_before_it_opens_the_reader(ring: FrameRing) -> None:
    writer = ring.writer()
    reader = ring.reader()
    child = multiprocessing.get_context("spawn").Process(target=print, args=(reader,))
    child.start()
    child.kill()
    child.join()
    reader.close()
    assert ring.rows() == []
    publish(writer, 20)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("tick", -1, "a frame's tick is a whole number from 0 to 2\\*\\*64 - 1, not -1"),
        ("tick", 2**64, "a frame's tick is a whole number from 0"),
        ("tick", 1.5, "a frame's tick is a whole number from 0 to 2\\*\\*64 - 1, not 1.5"),
        ("utc_ns", 2**63, "a frame's utc_ns is a whole number of nanoseconds"),
        ("monotonic_ns", "now", "a frame's monotonic_ns is a whole number of nanoseconds below 2\\*\\*63, not 'now'"),
        ("exposure_ms", "long", "a frame's exposure_ms is a number, not 'long'"),
    ],
)
def test_metadata_that_do_not_fit_are_refused_by_name_and_cost_no_id(name: str, value: object, words: str) -> None:
    image = np.zeros((4, 4), "uint8")
    with FrameRing(slots=4, slot_bytes=64) as ring, ring.writer() as writer:
        with pytest.raises(ConfigError, match=words):
            writer.push(image, **{name: value})  # type: ignore[arg-type]
        slot = writer.try_claim((4, 4), "uint8")
        assert slot is not None
        setattr(slot, name, value)
        with pytest.raises(ConfigError, match=words):
            writer.publish(slot)
        assert writer.push(image, tick=2**64 - 1, utc_ns=-1) == 1
        assert ring.statistics().slots_used == 1


@pytest.mark.parametrize("wrong", [{"slots": "a"}, {"slots": 4.5}, {"slot_bytes": "x"}, {"row_count": []}])
def test_sizes_that_are_no_numbers_are_refused_in_a_sentence(wrong: dict[str, object]) -> None:
    [what] = wrong
    with pytest.raises(ConfigError, match=f"ring 'ring': {what} is a whole number, not "):
        FrameRing(**{"slots": 4, "slot_bytes": 100, **wrong})  # type: ignore[arg-type]
