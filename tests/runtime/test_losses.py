"""Losses at a high rate: every lost frame is known by its id, and the account stays small."""

from __future__ import annotations

from typing import Any

import numpy as np
from lab import until

import mutoscope as ms
from mutoscope.model import IdRanges

SOURCE = {"source": ms.SourceSettings((4, 4), "uint8", rate_hz=1000.0)}
ENOUGH = 20_000


class Sieve(ms.Worker):
    """Takes what it can of a stream that is too fast for it; which frames it had goes to a table."""

    def setup(self) -> None:
        self.frames = self.reader("source", policy="every", on_full="drop", leases=2)
        self.had = self.table("had", dtype=[("frame_id", "u8")], capacity=1 << 21)
        self.taken: list[int] = []

    def step(self) -> None:
        try:
            with self.frames.next(timeout_s=0.1) as frame:
                self.taken.append(frame.frame_id)
                self.frames.commit(frame)
        finally:
            if len(self.taken) > 1000 or (self.taken and self.frames.lag == 0):
                self.had.append(np.array([(number,) for number in self.taken], [("frame_id", "u8")]))
                self.taken = []


def account(scope: ms.Scope) -> dict[str, Any]:
    consumer: dict[str, Any] = scope.ledger.cameras["source"]["consumers"]["Sieve"]
    return consumer


def test_a_reader_that_loses_frames_at_the_rate_of_the_ring_is_accounted_for_by_id() -> None:
    image = np.zeros((4, 4), "uint8")
    with ms.Scope(sources=SOURCE, workers=[Sieve], ring_slots=20) as scope:
        had = scope.table_reader("had", start="oldest")
        scope.start_acquisition()
        source = scope.source("source")
        produced = separate = 0
        while separate < ENOUGH and produced < 4_000_000:
            for _ in range(10_000):
                produced = source.push(image)
            separate = len(account(scope)["dropped"].get("overrun", {"ids": []})["ids"])
        until(lambda: account(scope)["pending"] == 0)
        assert scope.ledger.exact, scope.ledger.problems
        counts = account(scope)
        taken = IdRanges()

        def all_said() -> bool:
            taken.update(IdRanges.from_ids(had.read()["frame_id"].tolist()))
            return taken.count == counts["done"]

        until(all_said, what="the worker said what it had")
    ledger = scope.ledger
    assert ledger.exact, ledger.problems
    lost = IdRanges.from_list(account(scope)["dropped"]["overrun"]["ids"])
    print(f"{produced:,} frames, {len(lost.to_list()):,} separate losses of {lost.count:,} frames")
    assert separate >= 1000
    assert lost == IdRanges([(1, produced)]) - taken
