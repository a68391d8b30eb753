"""The end of a scope whose workers died just before it: the data set is closed, and the account too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lab import EveryFrame, camera, kill, status_of

import mutoscope as ms
from mutoscope import storage
from mutoscope.bench.faults import check_data_set
from mutoscope.runtime import Restart
from polling import until

LATER = Restart(backoff_s=60.0, backoff_max_s=60.0)
"""Whoever dies is still to be started again when the scope ends."""


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("policy", [LATER, Restart()])
def test_a_recorder_that_dies_just_before_the_end_leaves_a_closed_data_set(
    policy: Restart, compression: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "run.ome.zarr"
    restarts = {"recorder": policy}
    with ms.Scope(camera=camera(), record=path, compression=compression, reserve_bytes=0, restarts=restarts) as scope:
        scope.acquire(frames=60)
        kill(scope, "recorder")
        if policy is LATER:
            until(lambda: status_of(scope, "recorder").state == "restarting")
    assert scope.result is not None
    assert scope.result.errors == []
    # whether the death or the end came first is left open, unless it was waited for
    assert status_of(scope, "recorder").state in (("ended",) if policy is LATER else ("ended", "failed"))
    assert scope.ledger.exact, scope.ledger.problems
    assert (scope.ledger.stored, scope.ledger.pending) == (60, 0)
    found = storage.info(path)
    [image] = found["images"]
    assert image["shape"] == [60, 16, 24]
    assert image["state"] in ("recovered", "closed")
    assert storage.open_images(path) == []
    assert not storage.recover(path).changed
    assert check_data_set(path, camera(), acknowledged=60) == []
    if policy is LATER:
        assert image["state"] == "recovered"
        log = (tmp_path / "run.mutoscope" / "scope.log").read_text()
        assert "the data set was left open by its recorder, and is closed now: " in log


@pytest.mark.parametrize("policy", [LATER, Restart(mode="consent")])
def test_what_a_dead_worker_was_still_to_see_is_not_pending_for_ever(policy: Restart, tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    restarts = {"EveryFrame": policy}
    with ms.Scope(camera=camera(), workers=[EveryFrame], record=path, reserve_bytes=0, restarts=restarts) as scope:
        scope.acquire(frames=20)
        until(lambda: scope.ledger.cameras["camera"]["consumers"]["EveryFrame"]["done"] == 20)
        kill(scope, "EveryFrame")
        until(lambda: status_of(scope, "EveryFrame").state in ("restarting", "needs consent"))
        scope.acquire(frames=30)
    assert status_of(scope, "EveryFrame").state == "ended"
    account = scope.ledger.cameras["camera"]["consumers"]["EveryFrame"]
    assert (account["done"], account["pending"]) == (20, 0)
    assert account["dropped"] == {"worker_lost": {"count": 30, "ids": [[21, 50]]}}
    assert scope.ledger.exact, scope.ledger.problems
    assert scope.ledger.stored == 50


def test_what_a_reader_of_the_program_did_not_take_is_not_pending_for_ever() -> None:
    with ms.Scope(camera=camera()) as scope:
        reader = scope.reader(policy="every", on_full="drop")
        scope.acquire(frames=10)
        with reader.next(timeout_s=10.0) as frame:
            first = np.array(frame.array)
            reader.commit(frame)
        held = reader.next(timeout_s=10.0)
        before = held.copy()
    with held:
        assert np.array_equal(held.array, before), "what is in the program's hands stays there"
    assert first.shape == (16, 24)
    account = scope.ledger.cameras["camera"]["consumers"]["program"]
    assert (account["done"], account["pending"], account["dropped"]) == (1, 0, {"stopped": {"count": 9, "ids": [[2, 10]]}})
    assert scope.ledger.exact, scope.ledger.problems
