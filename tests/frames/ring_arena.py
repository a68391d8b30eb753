"""A ring, its producer and readers as processes of their own that are killed and restarted: the arena of the crash tests.

Run as a program, so that it has no threads and may fork: ``ring_arena.py points NAME[:NTH] ...`` or ``ring_arena.py random
KILLS SEED``. It prints one JSON object a line. What it checks is told by the pixels and ids themselves: each frame is filled
with its own id, and each reader notes in shared memory what it has processed, before it commits.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from mutoscope.frames import FrameReader, FrameRing, FrameWriter, _os
from mutoscope.frames._segments import duplicate
from mutoscope.model.errors import FrameTimeoutError
from mutoscope.model.ids import IdRanges

MOST_IDS = 1 << 20
SHAPES = ((32, 64), (48, 48), (16, 100))
TORN, DISORDER = 0, 1

# name -> (what it does, options of its row, pause in s after each frame)
READERS: dict[str, tuple[str, dict[str, Any], float]] = {
    "fast": ("every", {"policy": "every"}, 0),
    "slow": ("every", {"policy": "every", "leases": 3}, 0.0002),
    "drop": ("every", {"policy": "every", "on_full": "drop"}, 0.003),
    "latest": ("latest", {"policy": "latest"}, 0.001),
    "member1": ("share", {"policy": "share", "group": "pool"}, 0),
    "member2": ("share", {"policy": "share", "group": "pool"}, 0.0003),
    "casual": ("share", {"policy": "share", "group": "casual", "on_full": "drop", "leases": 1}, 0.003),
}


class Arena:
    def __init__(self) -> None:
        self.ring = FrameRing(slots=24, slot_bytes=12288, name="arena", standalone=False)
        self.notes = mmap.mmap(-1, 64)
        self.wrong = np.frombuffer(self.notes, np.uint64)
        self.seen_maps = {name: mmap.mmap(-1, MOST_IDS) for name in READERS}
        self.rows: dict[str, int] = {}
        self.children: dict[str, tuple[int, int]] = {}
        self.dropped: dict[str, list[tuple[int, int]]] = {"drop": [], "casual": []}
        self.extra_done: dict[str, int] = {}

    # -- what the children do

    def produce(self, writer: FrameWriter) -> None:
        while True:
            value = writer.head + 1
            if value >= MOST_IDS:
                signal.pause()
            with writer.slot(SHAPES[value % 3], "uint32", timeout_s=20) as slot:
                slot.array[0] = value
                slot.array[1:] = value
                slot.tick = value

    def read(self, reader: FrameReader, name: str) -> None:
        kind, _, pause_s = READERS[name]
        seen = np.frombuffer(self.seen_maps[name], np.uint8)
        expected = reader.cursor
        while True:
            try:
                frame = reader.next(20)
            except FrameTimeoutError:
                continue
            with frame:
                array, frame_id = frame.array, frame.frame_id
                if array.shape != SHAPES[frame_id % 3] or array[0, 0] != frame_id or frame.tick != frame_id:
                    self.wrong[TORN] += 1
                if pause_s:
                    time.sleep(random.random() * 2 * pause_s)
                if not (array == frame_id).all():
                    self.wrong[TORN] += 1
                if (kind == "every" and name != "drop" and frame_id != expected) or (kind != "share" and frame_id < expected):
                    self.wrong[DISORDER] += 1
                expected = frame_id + 1
                seen[frame_id] = min(int(seen[frame_id]) + 1, 255)
                reader.commit(frame)
                del array  # a view holds its lease

    # -- what a supervisor does

    def fork(self, name: str, role: Callable[[], None], kill_point: str | None) -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                if kill_point:
                    os.environ["MUTOSCOPE_KILL_POINT"] = kill_point
                random.seed()
                role()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        self.children[name] = (pid, _os.open_pidfd(pid))

    def start(self, name: str, kill_point: str | None = None) -> None:
        if name == "producer":
            meta, fds = self.ring.assign_writer(pid=0)
            self.fork(name, lambda: self.produce(FrameWriter.from_handle(meta, duplicate(fds))), kill_point)
            return
        row = self.rows.get(name)
        meta, fds = self.ring.assign_reader(pid=0, name=name, row=row, **READERS[name][1])
        self.rows[name] = meta["row"]
        self.fork(name, lambda: self.read(FrameReader.from_handle(meta, duplicate(fds)), name), kill_point)

    def start_all(self, target: str = "", kill_point: str | None = None) -> None:
        for name in [*READERS, "producer"]:
            self.start(name, kill_point if name == target else None)

    def bury(self, name: str, *, keep: bool = True, timeout_s: float = 20) -> int:
        """Wait for the end of a child and clear up after it; return its status."""
        pid, pidfd = self.children.pop(name)
        ended = _os.wait_readable([pidfd], timeout_s)
        if not ended:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
        if name == "producer":
            self.ring.writer_died()
        else:
            last = self.ring.reader_died(self.rows[name], keep=keep)
            if not keep:
                assert last.name == name
                del self.rows[name]
        return status if ended else -1

    def kill(self, name: str, *, keep: bool = True) -> None:
        os.kill(self.children[name][0], signal.SIGKILL)
        self.bury(name, keep=keep)

    def note_dropped(self) -> None:
        for name, known in self.dropped.items():
            if name in self.rows:
                known += self.ring.dropped(self.rows[name], since=len(known))

    def run_until(self, head: int, timeout_s: float = 30) -> bool:
        end = time.monotonic() + timeout_s
        while self.ring.head() < head:
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
            self.note_dropped()
        return True

    def finish(self) -> dict[str, Any]:
        """Stop producing, let the readers come to the end, check every account."""
        self.kill("producer")
        head = self.ring.head()
        end = time.monotonic() + 30
        while time.monotonic() < end:
            self.note_dropped()
            rows = {row.name: row for row in self.ring.rows()}
            if all(row.pending == 0 for row in rows.values()) and rows["latest"].lag == 0:
                break
            time.sleep(0.005)
        for name in list(self.children):
            self.kill(name)
        self.note_dropped()
        rows = {row.name: row for row in self.ring.rows()}
        problems = []
        if self.wrong[TORN] or self.wrong[DISORDER]:
            problems.append(f"torn {self.wrong[TORN]}, out of order {self.wrong[DISORDER]}")
        pool = np.frombuffer(self.seen_maps["member1"], np.uint8) | np.frombuffer(self.seen_maps["member2"], np.uint8)
        for name, row in rows.items():
            if row.policy == "latest":
                continue
            done, dropped = (row.group_done, row.group_dropped) if row.group else (row.done, row.dropped)
            lost = IdRanges.from_runs(self.dropped.get(name, []))
            seen = pool if row.group == "pool" else np.frombuffer(self.seen_maps[name], np.uint8)
            if row.produced != head or row.cursor != head + 1 or row.pending:
                problems.append(f"{name}: not at the end: {row}, head {head}")
            if done + dropped != row.produced or len(lost) != dropped:
                problems.append(f"{name}: {row.produced} produced, {done} done, {dropped} dropped, {len(lost)} named")
            unseen = IdRanges.from_ids(int(k) for k in np.flatnonzero(seen[1 : head + 1] == 0) + 1) - lost
            if unseen:
                problems.append(f"{name}: never processed and not named as dropped: {unseen}")
            if name not in self.dropped and dropped:
                problems.append(f"{name}: a reader that blocks lost {dropped}")
        slots_used = self.ring.statistics().slots_used
        self.ring.close()
        return {
            "head": head,
            "problems": problems,
            "dropped": {name: row.dropped + row.group_dropped for name, row in rows.items()},
            "slots_used": slots_used,
        }


def role_of(point: str) -> str:
    """Who passes a kill point of that name."""
    if point.startswith(("ring.claim", "ring.publish", "ring.share.dropp")):
        return "producer"
    if point.startswith("ring.share"):
        return "member1"
    return {"ring.wait.flagged": "latest"}.get(point, "slow")


def run_point(named: str, role: str) -> dict[str, Any]:
    arena = Arena()
    arena.start_all(role, named)
    status = arena.bury(role)
    reached = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL if status >= 0 else False
    others = all(not _os.wait_readable([pidfd], 0) for _, pidfd in arena.children.values())
    arena.start(role)
    went_on = arena.run_until(arena.ring.head() + 200)
    return {"point": named, "role": role, "reached": reached, "others_alive": others, "went_on": went_on, **arena.finish()}


def run_random(kills: int, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    arena = Arena()
    arena.start_all()
    reaped_ms = []
    stalls = 0
    for _ in range(kills):
        pause_until = time.monotonic() + chance.random() * 0.04
        while time.monotonic() < pause_until:
            time.sleep(0.002)
            arena.note_dropped()
        name = chance.choice([*READERS, "producer", "producer"])
        keep = not name.startswith("member") or chance.random() < 0.5
        began = time.monotonic()
        arena.kill(name, keep=keep)
        reaped_ms.append((time.monotonic() - began) * 1000)
        arena.start(name)
    stalls += not arena.run_until(arena.ring.head() + 100)
    ms = float(np.median(reaped_ms))
    return {"kills": kills, "seed": seed, "stalls": stalls, "kill_to_cleared_ms": ms, **arena.finish()}


def main() -> None:
    if sys.argv[1] == "points":
        for named in sys.argv[2:]:
            point, _, role = named.partition("@")
            print(json.dumps(run_point(point, role or role_of(point.partition(":")[0]))), flush=True)
    else:
        print(json.dumps(run_random(int(sys.argv[2]), int(sys.argv[3]))), flush=True)


if __name__ == "__main__":
    main()
