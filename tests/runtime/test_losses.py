"""Losses at a high rate: every lost frame is known by its id, and the account stays small."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np

import mutoscope as ms
from mutoscope.model import IdRanges
from mutoscope.runtime import Ledger
from mutoscope.runtime.consumers import RANGES_KEPT, Account, shortened, span_of
from polling import until

SOURCE = {"source": ms.SourceSettings((4, 4), "uint8", rate_hz=1000.0)}
TOLD = 10_000


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
        produced, overrun = 0, {}
        while "ids_more" not in overrun and produced < 4_000_000:
            for _ in range(10_000):
                produced = source.push(image)
            overrun = account(scope)["dropped"].get("overrun", {})
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
    missed = IdRanges([(1, produced)]) - taken
    overrun = account(scope)["dropped"]["overrun"]
    print(f"{produced:,} frames, {missed.range_count:,} separate losses of {missed.count:,} frames")
    assert missed.range_count > TOLD
    assert overrun["count"] == missed.count
    assert overrun["ids"] == missed.to_list(TOLD), "a message has the first ranges of them"
    assert overrun["ids_more"] == missed.count - IdRanges.from_list(overrun["ids"]).count


def test_the_account_of_millions_of_losses_stays_small() -> None:
    many = 1_500_000
    each = Account("every", "drop", ["Sieve"])
    for number in range(many):
        each.lose(2 * number + 1, 1)
    assert each.lost.range_count == RANGES_KEPT
    row = {"start_id": 1, "produced": 2 * many, "done": many, "dropped": many, "pending": 0, "cursor": 2 * many + 1}
    span = span_of(SimpleNamespace(policy="every", state="active", **row), each, 2 * many)  # type: ignore[arg-type]
    told, kept = each.to_dict(span), each.to_dict(span, RANGES_KEPT)
    for document in (told, kept, shortened(kept)):
        document["done_ids"], document["done_ids_more"] = [], many
        camera = {"first_id": 1, "last_id": 2 * many, "produced": 2 * many, "missed": 0, "recorder": None}
        ledger = Ledger({"cameras": {"camera": {**camera, "consumers": {"Sieve": document}}}, "restarts": {}})
        assert ledger.exact, ledger.problems
    assert len(msgspec.msgpack.encode(told)) < 1 << 18
    assert shortened(kept) == told
    assert len(kept["dropped"]["overrun"]["ids"]) == RANGES_KEPT
    assert (kept["dropped"]["overrun"]["count"], kept["dropped"]["overrun"]["ids_more"]) == (many, many - RANGES_KEPT)
