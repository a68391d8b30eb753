"""Which frames a reader gets: latest, share, and what happens to lossless readers that fall behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from mutoscope.frames import FrameReader, FrameRing, FrameWriter, _os
from mutoscope.model.errors import FramesLostError, FrameTimeoutError, LeaseLimitError, RingFullError
from mutoscope.model.ids import IdRanges

SHAPE = (8, 8)


@pytest.fixture
def ring() -> Iterator[FrameRing]:
    with FrameRing(slots=16, slot_bytes=4096, name="test") as made:
        yield made


def publish(writer: FrameWriter, count: int) -> None:
    for _ in range(count):
        with writer.slot(SHAPE, "uint32", timeout_s=5) as slot:
            slot.array[:] = slot.tick = writer.head + 1


def take_one(reader: FrameReader, commit: bool = True) -> int:
    with reader.next(1) as frame:
        assert (frame.array == frame.frame_id).all()
        if commit:
            reader.commit(frame)
        return frame.frame_id


def drain(reader: FrameReader) -> list[int]:
    ids = []
    while True:
        try:
            with reader.next(0) as frame:
                assert (frame.array == frame.frame_id).all()
                ids.append(frame.frame_id)
                reader.commit(frame)
        except FrameTimeoutError:
            return ids


# ---------------------------------------------------------------- latest


def test_latest_gets_the_newest_and_skips(ring: FrameRing) -> None:
    writer, reader = ring.writer(), ring.reader(policy="latest")
    publish(writer, 1)
    assert take_one(reader) == 1
    publish(writer, 40)
    assert take_one(reader) == 41
    with pytest.raises(FrameTimeoutError):
        reader.next(0)
    row = ring.rows()[0]
    assert (row.shown, row.offered, row.skipped, row.lag) == (2, 41, 39, 0)


def test_latest_that_never_releases_holds_nobody_up(ring: FrameRing) -> None:
    writer, reader = ring.writer(), ring.reader(policy="latest", leases=3)
    held = []
    for _ in range(3):
        publish(writer, 5)
        held.append(reader.next(1))
    publish(writer, 100)
    with pytest.raises(LeaseLimitError, match="holds 3 frame"):
        reader.next(0)
    for frame in held:
        assert (frame.array == frame.frame_id).all()
    held.pop().release()
    assert take_one(reader) == 115


def test_at_most_hz_is_a_timer(ring: FrameRing) -> None:
    writer, reader = ring.writer(), ring.reader(policy="latest", at_most_hz=50)
    stop = threading.Event()

    def produce() -> None:
        while not stop.wait(0.001):
            publish(writer, 1)

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        times = []
        for _ in range(8):
            with reader.next(5):
                times.append(time.monotonic())
    finally:
        stop.set()
        thread.join()
    assert min(np.diff(times)) >= 0.0195
    publish(writer, 2)
    reader.next(1).release()
    publish(writer, 1)
    with pytest.raises(FrameTimeoutError):  # there is a new one, but it is not due
        reader.next(0.001)


def test_batch_of_latest_flags_what_it_skipped(ring: FrameRing) -> None:
    writer, reader = ring.writer(), ring.reader(policy="latest", leases=3)
    publish(writer, 4)
    with reader.batch(2, 0.05) as batch:
        assert [frame.frame_id for frame in batch] == [4]
        assert batch.gaps == [(1, 3)]


# ---------------------------------------------------------------- every: block, drop, detach


def test_slow_lossless_reader_blocks(ring: FrameRing) -> None:
    writer, reader, fast = ring.writer(), ring.reader(), ring.reader(name="fast")
    publish(writer, 16)
    drain(fast)
    with pytest.raises(RingFullError):
        writer.slot(SHAPE, "uint32", timeout_s=0.01).__enter__()
    assert drain(reader) == list(range(1, 17))
    publish(writer, 5)
    assert drain(fast) == drain(reader) == list(range(17, 22))


def test_drop_counts_and_names_what_it_lost(ring: FrameRing) -> None:
    writer, reader = ring.writer(), ring.reader(on_full="drop")
    publish(writer, 100)
    row = ring.rows()[0]
    assert (row.produced, row.done, row.dropped, row.pending) == (100, 0, 0, 100)
    got = drain(reader)
    lost = IdRanges.from_runs(reader.dropped)
    assert got[-1] == 100
    assert len(got) == 16  # all that the slots can hold
    assert sorted([*got, *lost]) == list(range(1, 101))
    assert reader.dropped == []
    row = ring.rows()[0]
    assert (row.produced, row.done, row.dropped, row.pending, row.cursor) == (100, len(got), len(lost), 0, 101)
    assert IdRanges.from_runs(ring.dropped(0)) == lost


def test_drop_below_an_uncommitted_frame_waits_for_its_commit(ring: FrameRing) -> None:
    writer, reader = ring.writer(), ring.reader(on_full="drop", leases=2)
    publish(writer, 1)
    first = reader.next(1)
    publish(writer, 60)
    second = reader.next(1)
    assert second.frame_id > 2
    row = ring.rows()[0]
    assert (row.cursor, row.done, row.dropped) == (1, 0, 0)
    reader.commit(first)
    row = ring.rows()[0]
    assert (row.cursor, row.done, row.dropped) == (second.frame_id, 1, second.frame_id - 2)
    reader.commit(second)
    first.release()
    second.release()
    drain(reader)
    row = ring.rows()[0]
    assert row.done + row.dropped == row.produced == 61


def test_drop_reader_does_not_lose_while_there_is_room(ring: FrameRing) -> None:
    writer, reader = ring.writer(), ring.reader(on_full="drop")
    seen = []
    for _ in range(30):
        publish(writer, 15)
        seen += drain(reader)
    assert seen == list(range(1, 451))


def test_detach_at_its_limit(ring: FrameRing) -> None:
    writer, reader = ring.writer(), ring.reader(on_full="detach", lag_limit=5)
    publish(writer, 5)
    assert take_one(reader) == 1
    publish(writer, 2)
    for _ in range(2):
        with pytest.raises(FramesLostError) as raised:
            reader.next(1)
        assert (raised.value.first_id, raised.value.count, raised.value.reason) == (2, 6, "detached")
    publish(writer, 40)
    row = ring.rows()[0]
    assert (row.state, row.produced, row.done, row.dropped, row.pending) == ("detached", 47, 1, 46, 0)


def test_detach_without_limit_when_overtaken(ring: FrameRing) -> None:
    writer, reader = ring.writer(), ring.reader(on_full="detach")
    publish(writer, 16)
    assert [take_one(reader) for _ in range(3)] == [1, 2, 3]
    publish(writer, 4)
    with pytest.raises(FramesLostError):
        reader.next(1)


def test_batch(ring: FrameRing) -> None:
    writer, reader = ring.writer(), ring.reader(leases=4)
    with pytest.raises(ValueError, match="leases=5"):
        reader.batch(5)
    with pytest.raises(ValueError):
        reader.batch(0)
    with pytest.raises(FrameTimeoutError):
        reader.batch(2, 0.01)
    publish(writer, 6)
    with reader.batch(4, 1) as batch:
        assert [frame.frame_id for frame in batch] == [1, 2, 3, 4]
        assert batch.gaps == []
        assert np.stack([frame.array for frame in batch]).shape == (4, 8, 8)
        reader.commit(batch[-1])
    batch.release()
    with reader.batch(4, 0.02) as rest:
        assert [frame.frame_id for frame in rest] == [5, 6]


def test_batch_flags_dropped_frames(ring: FrameRing) -> None:
    writer, reader = ring.writer(), ring.reader(leases=4, on_full="drop")
    publish(writer, 1)
    first = reader.next(1)
    reader.commit(first)
    publish(writer, 50)
    with reader.batch(3, 1) as batch:
        ids = [frame.frame_id for frame in batch]
        assert batch.gaps == [(2, ids[0] - 2)]
    first.release()


# ---------------------------------------------------------------- share


def test_share_gives_each_frame_to_one_member(ring: FrameRing) -> None:
    writer = ring.writer()
    members = [ring.reader(policy="share", group="pool", name=f"m{k}") for k in range(3)]
    got: list[list[int]] = [[], [], []]
    for round_number in range(20):
        publish(writer, 6)
        for turn in range(6):
            k = (turn + round_number) % 3
            got[k].append(take_one(members[k]))
    assert sorted(frame_id for ids in got for frame_id in ids) == list(range(1, 121))
    rows = ring.rows()
    assert [row.done for row in rows] == [40, 40, 40]
    assert all((row.group, row.produced, row.group_done, row.pending, row.cursor) == ("pool", 120, 120, 0, 121) for row in rows)


def test_member_that_holds_a_frame_does_not_stop_the_pool(ring: FrameRing) -> None:
    writer = ring.writer()
    slow, quick = (ring.reader(policy="share", group="pool", name=name) for name in ("slow", "quick"))
    publish(writer, 1)
    held = slow.next(1)
    for _ in range(40):
        publish(writer, 3)
        assert len(drain(quick)) == 3
    assert (held.array == 1).all()
    row = ring.rows()[1]
    assert (row.cursor, row.group_done, row.pending) == (1, 120, 1)
    slow.commit(held)
    held.release()
    assert ring.rows()[0].cursor == 122


def test_uncommitted_frames_of_a_member_that_closes_go_to_others(ring: FrameRing) -> None:
    writer = ring.writer()
    leaver, stayer = (ring.reader(policy="share", group="pool", name=name) for name in ("leaver", "stayer"))
    publish(writer, 4)
    assert take_one(leaver, commit=False) == 1
    assert take_one(leaver, commit=False) == 2
    with pytest.raises(LeaseLimitError):
        leaver.next(0)
    assert take_one(stayer) == 3
    leaver.close()
    assert drain(stayer) == [1, 2, 4]


def test_share_blocks_or_drops(ring: FrameRing) -> None:
    writer = ring.writer()
    blocking = ring.reader(policy="share", group="careful")
    dropping = ring.reader(policy="share", group="casual", on_full="drop")
    publish(writer, 16)
    with pytest.raises(RingFullError):
        writer.slot(SHAPE, "uint32", timeout_s=0.01).__enter__()
    blocking.close()
    publish(writer, 50)
    got = drain(dropping)
    row = next(row for row in ring.rows() if row.group == "casual")
    assert row.produced == 66 == row.group_done + row.group_dropped
    assert row.pending == 0
    lost = IdRanges.from_runs(ring.dropped(row.row))
    assert sorted([*got, *lost]) == list(range(1, 67))


def test_hung_member_of_a_dropping_pool_does_not_stop_the_camera_for_good() -> None:
    with FrameRing(slots=8, slot_bytes=4096) as ring:
        writer = ring.writer()
        hung = ring.reader(policy="share", group="casual", on_full="drop", leases=1)
        other = ring.reader(policy="share", group="casual", on_full="drop", leases=1)
        publish(writer, 1)
        held = hung.next(1)
        seen = []
        for _ in range(600):
            publish(writer, 1)
            seen.append(take_one(other))
        assert (held.array == 1).all()
        assert seen == list(range(2, 602))
        hung.commit(held)  # too late: it was given up
        held.release()
        row = ring.rows()[0]
        assert (row.produced, row.group_done, row.group_dropped, row.pending) == (601, 600, 1, 0)
        assert ring.dropped(0) == [(1, 1)]


def test_two_pools_and_a_recorder_side_by_side(ring: FrameRing) -> None:
    writer = ring.writer()
    readers = {name: ring.reader(policy="share", group=name, name=name) for name in ("a", "b")}
    recorder, viewer = ring.reader(name="recorder"), ring.reader(policy="latest", name="viewer")
    seen: dict[str, list[int]] = {"a": [], "b": [], "recorder": []}
    for _ in range(30):
        publish(writer, 7)
        for name, reader in (*readers.items(), ("recorder", recorder)):
            seen[name] += drain(reader)
        drain(viewer)
    assert seen["a"] == seen["b"] == seen["recorder"] == list(range(1, 211))


def test_pool_begins_anew_after_its_last_member_left(ring: FrameRing) -> None:
    writer = ring.writer()
    first = ring.reader(policy="share", group="pool")
    publish(writer, 3)
    assert drain(first) == [1, 2, 3]
    first.close()
    publish(writer, 30)
    second = ring.reader(policy="share", group="pool")
    publish(writer, 2)
    assert drain(second) == [34, 35]
    assert [row.group_done for row in ring.rows() if row.state == "active"] == [2]


@pytest.mark.parametrize("looks", ["when rung", "late"])
def test_losses_that_the_owner_reads_are_known_by_id_at_any_rate(looks: str) -> None:
    """Taken and lost in turn: one entry of the log a frame. Without a look the reader waits rather than forget an id."""
    with FrameRing(slots=8, slot_bytes=64, standalone=False) as ring:
        meta, fds = ring.assign_reader(pid=os.getpid(), policy="every", on_full="drop", leases=1, keep_losses=True)
        image = np.zeros((4, 4), "uint8")
        lost, taken = IdRanges(), IdRanges()
        known = waited = 0

        def look() -> None:
            nonlocal known
            ring.quiet()
            more, known = ring.read_dropped(meta["row"], known)
            for first, count in more:
                lost.add_run(first, count)
            ring.losses_read(meta["row"], known)

        with ring.writer() as writer, FrameReader.from_handle(meta, [os.dup(fd) for fd in fds]) as reader:
            for _ in range(20_000):
                writer.push(image)
                writer.push(image)
                try:
                    with reader.next(timeout_s=0.0) as frame:
                        taken.add(frame.frame_id)
                        reader.commit(frame)
                except FrameTimeoutError:
                    waited += 1
                    assert looks == "late"
                    assert _os.wait_readable([ring.bell], 0.0), "whoever waits for the owner has rung"
                    if waited % 50 == 0:
                        look()
                if looks == "when rung" and _os.wait_readable([ring.bell], 0.0):
                    look()
            look()
            [row] = ring.rows()
        assert (waited > 0) is (looks == "late")
        assert row.done == taken.count
        assert lost == IdRanges([(1, row.cursor - 1)]) - taken
        assert lost.count == row.dropped
        assert row.dropped_ranges > 15_000
