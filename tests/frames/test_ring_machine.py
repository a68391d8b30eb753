"""A state machine of the ring against a plain model: write, lease, release, commit, crash and restart in any order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mutoscope.frames import Frame, FrameReader, FrameRing, FrameWriter
from mutoscope.frames._segments import close_all, duplicate
from mutoscope.frames.writer import Slot
from mutoscope.model.errors import FrameTimeoutError, LeaseLimitError

SLOTS = 18
SHAPES = ((2, 3), (4, 4), (1, 7))
OPTIONS: dict[str, dict[str, Any]] = {
    "every": {"policy": "every"},
    "wide": {"policy": "every", "leases": 4},
    "drop": {"policy": "every", "on_full": "drop"},
    "latest": {"policy": "latest"},
    "member1": {"policy": "share", "group": "pool"},
    "member2": {"policy": "share", "group": "pool"},
}
names = st.sampled_from(sorted(OPTIONS))


@dataclass
class Model:
    reader: FrameReader
    row: int
    held: list[Frame] = field(default_factory=list)
    views: list[np.ndarray] = field(default_factory=list)
    next_id: int = 1  # of the lossless ones
    taken: list[int] = field(default_factory=list)  # delivered and not committed
    done: set[int] = field(default_factory=set)


class RingMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ring = FrameRing(SLOTS, 64, name="machine", standalone=False)
        self.readers: dict[str, Model] = {}
        for name in OPTIONS:
            self.open(name, None)
        self.pool_done: set[int] = set()
        self.pool_taken: dict[int, str] = {}
        self.published = 0
        self.claimed: Slot | None = None
        self.open_writer()

    def open(self, name: str, row: int | None) -> None:
        meta, fds = self.ring.assign_reader(pid=0, name=name, row=row, **OPTIONS[name])
        self.readers[name] = Model(FrameReader.from_handle(meta, duplicate(fds)), meta["row"])

    def open_writer(self) -> None:
        meta, fds = self.ring.assign_writer(pid=0)
        self.writer = FrameWriter.from_handle(meta, duplicate(fds))

    # -- the producer

    @precondition(lambda self: self.claimed is None)
    @rule(count=st.integers(1, 12))
    def publish(self, count: int) -> None:
        for _ in range(count):
            value = self.published + 1
            slot = self.writer.try_claim(SHAPES[value % 3], "uint16")
            if slot is None:
                assert self.must_be_full(), "there was room, and the claim was refused"
                return
            slot.array[:] = slot.tick = value
            assert self.writer.publish(slot) == value
            self.published = value

    def must_be_full(self) -> bool:
        """Every slot is needed: by the newest frame, by a lossless reader, or by a pin."""
        needed = {self.published}
        for name in ("every", "wide"):
            cursor = self.ring_rows()[name].cursor
            needed.update(range(cursor, self.published + 1))
        needed.update(k for k in range(1, self.published + 1) if k not in self.pool_done)
        pinned = {int(view.flat[0]) for model in self.readers.values() for view in [*model.views]}
        pinned.update(frame.frame_id for model in self.readers.values() for frame in model.held)
        return len(needed | pinned) >= SLOTS

    @precondition(lambda self: self.claimed is None)
    @rule()
    def claim(self) -> None:
        self.claimed = self.writer.try_claim((4, 4), "uint16")
        if self.claimed is not None:
            self.claimed.array[:] = 65535

    @precondition(lambda self: self.claimed is not None)
    @rule()
    def discard(self) -> None:
        assert self.claimed is not None
        self.claimed.discard()
        self.claimed = None

    @rule()
    def writer_crashes(self) -> None:
        fds = self.writer._fds
        self.writer._let_go()
        close_all(fds)
        self.claimed = None
        self.ring.writer_died()
        self.open_writer()

    # -- readers

    @rule(name=names)
    def take(self, name: str) -> None:
        model = self.readers[name]
        try:
            frame = model.reader.next(0)
        except FrameTimeoutError:
            assert self.nothing_for(name)
            return
        except LeaseLimitError:
            return
        assert frame.array.shape == SHAPES[frame.frame_id % 3]
        assert (frame.array == frame.frame_id).all()
        assert frame.tick == frame.frame_id <= self.published
        model.held.append(frame)
        if name.startswith("member"):
            assert frame.frame_id not in self.pool_done
            assert self.pool_taken.get(frame.frame_id, name) == name
            self.pool_taken[frame.frame_id] = name
        elif name in ("every", "wide"):
            assert frame.frame_id == model.next_id
        else:
            assert frame.frame_id >= model.next_id
        if name == "latest":
            assert frame.frame_id == self.published
        model.next_id = frame.frame_id + 1
        model.taken.append(frame.frame_id)

    def nothing_for(self, name: str) -> bool:
        if name.startswith("member"):
            return all(k in self.pool_done or k in self.pool_taken for k in range(1, self.published + 1))
        return self.readers[name].next_id == self.published + 1

    @precondition(lambda self: any(model.held for model in self.readers.values()))
    @rule(data=st.data(), keep_view=st.booleans())
    def release(self, data: st.DataObject, keep_view: bool) -> None:
        name = data.draw(st.sampled_from(sorted(n for n, m in self.readers.items() if m.held)))
        model = self.readers[name]
        frame = model.held.pop(data.draw(st.integers(0, len(model.held) - 1)))
        if keep_view:
            model.views.append(frame.array[::-1])
        frame.release()

    @precondition(lambda self: any(model.views for model in self.readers.values()))
    @rule()
    def views_go(self) -> None:
        for model in self.readers.values():
            model.views.clear()

    @precondition(lambda self: any(model.taken for model in self.readers.values()))
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(n for n, m in self.readers.items() if m.taken)))
        model = self.readers[name]
        frame_id = data.draw(st.sampled_from(model.taken))
        model.reader.commit(frame_id)
        for done in [k for k in model.taken if k <= frame_id]:
            model.taken.remove(done)
            model.done.add(done)
            if name.startswith("member"):
                self.pool_done.add(done)
                del self.pool_taken[done]

    @rule(name=names, keep=st.booleans())
    def reader_crashes(self, name: str, keep: bool) -> None:
        model = self.readers[name]
        keep = keep or name in ("every", "wide", "drop")
        model.held.clear()
        model.views.clear()
        link = model.reader._link
        assert link is not None
        fds = link.fds
        link.end()
        model.reader._link = None
        close_all(fds)
        last = self.ring.reader_died(model.row, keep=keep)
        assert last.pins == 0
        if name.startswith("member"):
            for frame_id in [k for k, owner in self.pool_taken.items() if owner == name]:
                if keep:
                    continue
                del self.pool_taken[frame_id]
        done = model.done
        self.open(name, model.row if keep else None)
        fresh = self.readers[name]
        fresh.done = done
        if name.startswith("member"):
            fresh.taken = []
            # those in its hands come again, to the successor only
            for frame_id in [k for k, owner in self.pool_taken.items() if owner == name]:
                frame = fresh.reader.next(0)
                assert frame.frame_id == frame_id
                fresh.taken.append(frame_id)
                fresh.held.append(frame)
        elif name in ("every", "wide", "drop"):
            fresh.next_id = last.cursor
        else:
            fresh.next_id = model.next_id if keep else self.published + 1

    # -- always

    def ring_rows(self) -> dict[str, Any]:
        return {row.name: row for row in self.ring.rows()}

    @invariant()
    def accounts_are_exact(self) -> None:
        assert self.ring.head() == self.published
        rows = self.ring_rows()
        for name, model in self.readers.items():
            row = rows[name]
            if name.startswith("member"):
                assert row.group_done == len(self.pool_done)
                assert row.group_dropped == 0
                assert row.pending == self.published - len(self.pool_done)
            elif name == "latest":
                assert row.offered == row.shown + row.skipped
            else:
                assert row.produced == self.published == row.done + row.dropped + row.pending
                assert row.cursor == row.done + row.dropped + 1
                if name != "drop":
                    assert row.done == row.cursor - 1
                    assert row.dropped == 0
            assert row.pins == len(model.held) + len(model.views)

    @invariant()
    def what_is_held_stays_as_it_is(self) -> None:
        for model in self.readers.values():
            for frame in model.held:
                assert (frame.array == frame.frame_id).all()
            for view in model.views:
                assert (view == view.flat[0]).all()

    def teardown(self) -> None:
        for model in self.readers.values():
            model.held.clear()
            model.views.clear()
            model.reader.close()
        self.writer.close()
        self.ring.close()


RingMachine.TestCase.settings = settings(
    max_examples=120, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
TestRingMachine = RingMachine.TestCase
