"""The ledger: every frame accounted for, by id, under loss, death and restart."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab import PATIENT, EveryFrame, Looker, back, camera, kill, status_of

import mutoscope as ms
from mutoscope import storage
from mutoscope.model import IdRanges
from mutoscope.model.errors import ConfigError, DatasetNotFoundError
from mutoscope.runtime import Ledger
from polling import until


def finished(scope: ms.Scope, path: Path | None = None) -> dict[str, Any]:
    """Check what must hold after every run; returns the account of the camera."""
    ledger = scope.ledger
    assert ledger.exact, ledger.problems
    assert ledger.to_dict()["final"]
    assert ledger.pending == 0
    if path is not None:
        assert scope.folder is not None
        saved = json.loads((scope.folder / "ledger.json").read_text())
        with storage.open_reader(path, camera="camera") as reader:
            assert reader.ledger == saved == json.loads(json.dumps(ledger.to_dict()))
            here = [number for number in reader.frame_ids.tolist() if number >= ledger.cameras["camera"]["first_id"]]
        recorder = ledger.cameras["camera"]["consumers"]["recorder"]
        assert IdRanges.from_list(recorder["done_ids"]) == IdRanges.from_ids(here)
    account: dict[str, Any] = ledger.cameras["camera"]
    return account


def seen_ids(rows: np.ndarray[Any, Any]) -> IdRanges:
    """The ids of table rows, each of which must be there once."""
    ids = rows["frame_id"].tolist()
    assert len(set(ids)) == len(ids)
    return IdRanges.from_ids(ids)


def test_frames_dropped_by_a_slow_reader_are_known_by_id(tmp_path: Path) -> None:
    slow = ms.WorkerSettings(EveryFrame, settings={"pause_s": 0.02})
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(800), workers=[slow], record=path, reserve_bytes=0, ring_slots=24) as scope:
        table = scope.table_reader("seen by EveryFrame", start="oldest")
        scope.acquire(frames=800)
        until(lambda: scope.ledger.cameras["camera"]["consumers"]["EveryFrame"]["pending"] == 0)
        assert scope.ledger.exact, scope.ledger.problems
        seen = seen_ids(table.read())
    account = finished(scope, path)["consumers"]["EveryFrame"]
    lost = IdRanges.from_list(account["dropped"]["overrun"]["ids"])
    assert lost.count > 100
    assert seen.count == account["done"]
    assert not seen & lost
    assert seen | lost == IdRanges([(1, 800)])
    assert scope.ledger.stored == scope.ledger.produced == 800


@pytest.mark.parametrize("on_full", ["drop", "block"])
def test_a_lossless_reader_that_is_killed_again_and_again_sees_every_frame_once(on_full: str, tmp_path: Path) -> None:
    worker = ms.WorkerSettings(EveryFrame, settings={"on_full": on_full, "pause_s": 0.002}, restart=PATIENT)
    with ms.Scope(camera=camera(400), workers=[worker], ring_slots=32) as scope:
        table = scope.table_reader("seen by EveryFrame", start="oldest")
        scope.start_acquisition()
        for number in range(1, 4):
            until(lambda: len(table.latest(1)) and scope.ledger.produced > 20)
            kill(scope, "EveryFrame")
            back(scope, "EveryFrame", number)
        scope.stop_acquisition()
        scope.wait_acquisition()
        until(lambda: scope.ledger.cameras["camera"]["consumers"]["EveryFrame"]["pending"] == 0)
        rows = table.read()
    account = finished(scope)
    consumer = account["consumers"]["EveryFrame"]
    lost = IdRanges.from_list(consumer["dropped"].get("overrun", {"ids": []})["ids"])
    assert consumer["offered"] == account["produced"]
    # a frame whose row was appended and not yet committed when the process died comes again: that is all that may repeat
    ids = rows["frame_id"].tolist()
    repeated = {number for number in ids if ids.count(number) > 1}
    assert len(repeated) <= 3
    assert IdRanges.from_ids(ids) | lost == IdRanges([(1, account["produced"])])
    assert not (IdRanges.from_ids(ids) - IdRanges.from_ids(repeated)) & lost
    assert (lost.count == 0) == (on_full == "block")


def test_a_pool_shares_every_frame_also_when_a_member_dies_with_frames_in_hand(tmp_path: Path) -> None:
    members = [
        ms.WorkerSettings(
            EveryFrame,
            name=name,
            settings={"policy": "share", "group": "pool", "on_full": "block", "pause_s": 0.004},
            restart=PATIENT,
        )
        for name in ("one", "two", "three")
    ]
    with ms.Scope(camera=camera(300), workers=members, ring_slots=32) as scope:
        tables = [scope.table_reader(f"seen by {name}", start="oldest") for name in ("one", "two", "three")]
        scope.start_acquisition()
        for name in ("one", "two", "three", "two"):
            before = scope.ledger.produced
            until(lambda before=before: scope.ledger.produced > before + 20)  # type: ignore[misc]
            kill(scope, name)
        until(lambda: all(status.state == "running" for status in scope.status()))
        scope.stop_acquisition()
        scope.wait_acquisition()
        until(lambda: scope.ledger.cameras["camera"]["consumers"]["pool pool"]["pending"] == 0)
        ids = [number for table in tables for number in table.read()["frame_id"].tolist()]
    account = finished(scope)
    pool = account["consumers"]["pool pool"]
    assert pool["members"] == ["one", "three", "two"]
    assert (pool["done"], pool["dropped"], pool["pending"]) == (account["produced"], {}, 0)
    assert IdRanges.from_ids(ids) == IdRanges([(1, account["produced"])])
    assert len(ids) - len(set(ids)) <= 4


def test_a_pool_that_drops_knows_what_it_lost(tmp_path: Path) -> None:
    settings = {"policy": "share", "group": "pool", "pause_s": 0.02}
    members = [ms.WorkerSettings(EveryFrame, name=name, settings=settings) for name in ("one", "two")]
    with ms.Scope(camera=camera(600), workers=members, ring_slots=24) as scope:
        tables = [scope.table_reader(f"seen by {name}", start="oldest") for name in ("one", "two")]
        scope.acquire(frames=600)
        until(lambda: scope.ledger.cameras["camera"]["consumers"]["pool pool"]["pending"] == 0)
        seen = seen_ids(np.concatenate([table.read() for table in tables]))
    pool = finished(scope)["consumers"]["pool pool"]
    lost = IdRanges.from_list(pool["dropped"]["overrun"]["ids"])
    assert lost.count > 50
    assert not seen & lost
    assert seen | lost == IdRanges([(1, 600)])


def test_a_worker_that_fails_for_good_leaves_a_closed_account(tmp_path: Path) -> None:
    worker = ms.WorkerSettings(
        EveryFrame, settings={"on_full": "block", "pause_s": 0.01}, restart=ms.runtime.Restart(mode="never")
    )
    with ms.Scope(camera=camera(300), workers=[worker, Looker], ring_slots=32) as scope:
        scope.start_acquisition()
        until(lambda: scope.ledger.produced > 60)
        kill(scope, "EveryFrame")
        until(lambda: status_of(scope, "EveryFrame").state == "failed")
        before = scope.ledger.produced
        until(lambda: scope.ledger.produced > before + 60)  # it no longer holds the camera
        scope.stop_acquisition()
        scope.wait_acquisition()
    account = finished(scope)["consumers"]["EveryFrame"]
    assert account["offered"] < scope.ledger.produced
    lost = IdRanges.from_list(account["dropped"]["worker_lost"]["ids"])
    assert lost.last == account["offered_ids"][0][1]
    assert account["done"] + lost.count == account["offered"]
    assert scope.result is not None
    assert scope.result.errors == ["EveryFrame was killed by SIGKILL"]


def test_latest_readers_are_offered_everything_also_over_restarts(tmp_path: Path) -> None:
    with ms.Scope(camera=camera(400), workers=[ms.WorkerSettings(Looker, restart=PATIENT)]) as scope:
        scope.start_acquisition()
        for number in (1, 2):
            until(lambda: scope.ledger.produced > 40)
            kill(scope, "Looker")
            back(scope, "Looker", number)
        scope.stop_acquisition()
        scope.wait_acquisition()
    account = finished(scope)
    looker = account["consumers"]["Looker"]
    assert looker["offered"] == account["produced"] == looker["shown"] + looker["skipped"]
    assert looker["shown"] > 10
    assert looker["skipped"] > 10


def test_frames_while_saving_is_off_are_ledgered(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    restarts = {"recorder": PATIENT}
    with ms.Scope(camera=camera(400), record=path, reserve_bytes=0, restarts=restarts) as scope:
        scope.start_acquisition()
        until(lambda: scope.ledger.stored > 30)
        scope.set_state(saving=False)
        until(lambda: scope.ledger.dropped.get("saving_off", 0) > 30)
        kill(scope, "recorder")
        back(scope, "recorder")
        before = scope.ledger.dropped["saving_off"]
        until(lambda: scope.ledger.dropped["saving_off"] > before + 30)  # its successor knows the state
        scope.set_state(saving=True)
        before = scope.ledger.stored
        until(lambda: scope.ledger.stored > before + 30)
        assert scope.ledger.exact, scope.ledger.problems
        scope.stop_acquisition()
        scope.wait_acquisition()
        live = scope.ledger
    account = finished(scope, path)
    off = IdRanges.from_list(account["consumers"]["recorder"]["dropped"]["saving_off"]["ids"])
    assert len(off.to_list()) == 1
    assert scope.ledger.dropped["saving_off"] == off.count == live.dropped["saving_off"]
    assert scope.ledger.stored + off.count == scope.ledger.produced
    with storage.open_reader(path) as reader:
        assert reader.gaps() == [(off.first, off.count)]


def test_a_recorder_knows_that_saving_is_off_before_frames_come(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(400), record=path, reserve_bytes=0) as scope:
        recorder = kill(scope, "recorder", signal.SIGSTOP)
        told = threading.Thread(target=scope.set_state, kwargs={"saving": False})
        began = time.monotonic()
        told.start()
        try:
            until(lambda: not scope.state.saving)  # the supervisor has changed it
            told.join(0.5)
            assert told.is_alive() or time.monotonic() - began > 1.9  # the recorder cannot know yet
        finally:
            os.kill(recorder, signal.SIGCONT)
        told.join(30.0)
        assert not told.is_alive()
        scope.acquire(frames=5)
        assert scope.ledger.stored == 0
        assert scope.ledger.dropped == {"saving_off": 5}
    finished(scope, path)


def test_a_recorder_that_does_not_respond_is_not_waited_for_longer_than_promised(tmp_path: Path) -> None:
    with ms.Scope(camera=camera(400), record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        recorder, began = kill(scope, "recorder", signal.SIGSTOP), time.monotonic()
        try:
            scope.set_state(saving=False)
            assert time.monotonic() - began > 1.9
        finally:
            os.kill(recorder, signal.SIGCONT)
        scope.acquire(frames=5)
        assert scope.ledger.dropped == {"saving_off": 5}


def test_a_reader_that_is_closed_no_longer_counts(tmp_path: Path) -> None:
    with ms.Scope(camera=camera(400), ring_slots=24) as scope:
        reader = scope.reader(policy="every", on_full="block")
        scope.start_acquisition()
        for _ in range(10):
            with reader.next(timeout_s=10.0) as frame:
                reader.commit(frame)
        until(lambda: scope.ledger.produced >= 30)
        reader.close()
        before = scope.ledger.produced
        until(lambda: scope.ledger.produced > before + 60)
        again = scope.reader(policy="every", on_full="block")
        with again.next(timeout_s=10.0) as frame:
            assert frame.frame_id > before
            again.commit(frame)
        again.close()
        scope.stop_acquisition()
        scope.wait_acquisition()
    account = finished(scope)["consumers"]["program"]
    assert account["done"] == 11
    assert account["dropped"]["reader_closed"]["count"] == account["offered"] - 11
    assert len(account["offered_ids"]) == 2


def test_a_detached_reader_is_accounted_for(tmp_path: Path) -> None:
    with ms.Scope(camera=camera(400), ring_slots=24) as scope:
        reader = scope.reader(policy="every", on_full="detach", lag_limit=5)
        scope.acquire(frames=60)
        with pytest.raises(ms.model.errors.FramesLostError):
            reader.next(timeout_s=1.0)
        assert scope.ledger.exact, scope.ledger.problems
    account = finished(scope)["consumers"]["program"]
    assert account["dropped"] == {"detached": {"count": 60, "ids": [[1, 60]]}}


def test_a_stopped_recorder_is_ledgered_when_the_end_is_now(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(400), record=path, reserve_bytes=0) as scope:
        scope.start_acquisition()
        until(lambda: scope.ledger.stored > 30)
        kill(scope, "recorder", signal.SIGSTOP)
        before = scope.ledger.produced
        until(lambda: scope.ledger.produced > before + 30)
        kill(scope, "recorder")
        scope.stop(now=True)
    account = finished(scope, path)
    left = scope.ledger.dropped["stopped"]
    assert left > 20
    assert account["stored"] + left == account["produced"]
    assert any("were not stored before the end" in error for error in scope.result.errors)  # type: ignore[union-attr]


def test_exact_is_a_check() -> None:
    recorder = {
        "policy": "every", "from_id": 1, "offered": 10, "offered_ids": [[1, 10]], "done": 7, "done_ids": [[1, 5], [9, 10]],
        "dropped": {"disk_full": {"count": 3, "ids": [[6, 8]]}}, "pending": 0,
    }  # fmt: skip
    account = {"produced": 10, "first_id": 1, "last_id": 10, "missed": 0, "recorder": "recorder", "stored": 7}

    def ledger(**changes: Any) -> Ledger:
        return Ledger({"cameras": {"camera": {**account, "consumers": {"recorder": {**recorder, **changes}}}}, "restarts": {}})

    assert ledger().exact
    wrong: list[dict[str, Any]] = [
        {"done": 8},
        {"pending": 1},
        {"pending": -1, "done": 8},
        {"dropped": {"disk_full": {"count": 3, "ids": [[6, 7]]}}},
        {"dropped": {"disk_full": {"count": 3, "ids": [[5, 7]]}}},
        {"dropped": {"disk_full": {"count": 3, "ids": [[11, 13]]}}},
        {"offered": 11},
        {"offered_ids": [[2, 11]]},
    ]
    for change in wrong:
        assert not ledger(**change).exact, change
    shown = {"policy": "latest", "from_id": 1, "offered": 10, "offered_ids": [[1, 10]], "shown": 11, "skipped": -1}
    assert not Ledger({"cameras": {"camera": {**account, "consumers": {"x": shown}}}, "restarts": {}}).exact


def test_join_gives_each_frame_a_tables_value(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    worker = ms.WorkerSettings(EveryFrame, settings={"on_full": "block"})
    with ms.Scope(camera=camera(300), workers=[worker], record=path, reserve_bytes=0) as scope:
        table = scope.table_reader("seen by EveryFrame", start="oldest")
        scope.acquire(frames=40)
        until(lambda: len(table.latest(100)) == 40)
        rows = table.read()
    with storage.open_reader(path) as reader:
        times = reader.monotonic_ns
        totals = [float(reader.frame(number).sum()) for number in range(1, 41)]
        by_id = scope.ledger.join(rows, time="frame_id", frames=reader)
    assert by_id["frame_id"].tolist() == list(range(1, 41))
    assert by_id["total"].tolist() == totals
    assert not by_id["stale"].any()
    assert (by_id["age_s"] == 0).all()
    before = Ledger(scope.ledger.to_dict()).join(rows, columns=["total"], how="before")  # its own clock, the ledger's own path
    for frame, row in zip(times, before, strict=True):
        known = rows[rows["monotonic_ns"] <= frame]
        if len(known):
            assert row["total"] == known[-1]["total"]
            assert row["age_s"] == pytest.approx((frame - known[-1]["monotonic_ns"]) / 1e9)
        else:
            assert np.isnan(row["total"])
            assert row["stale"]
    after = scope.ledger.join(rows[::-1], columns=["total"], how="after", frames=path)
    for frame, row in zip(times, after, strict=True):
        assert row["total"] == rows[rows["monotonic_ns"] >= frame][0]["total"]
    assert (after["age_s"] < 0).all()
    stale = scope.ledger.join(rows[:20], columns=["total"], stale_after_s=0.01, frames=path)
    assert stale["stale"][-5:].all()
    assert stale["total"][-1] == rows[19]["total"]
    ramp = np.array([(times[0], 0.0), (times[-1], 1.0)], [("monotonic_ns", "i8"), ("z_um", "f8")])
    between = scope.ledger.join(ramp, how="interpolated", stale_after_s=1e6)
    assert between["z_um"] == pytest.approx((times - times[0]) / (times[-1] - times[0]))
    with pytest.raises(ConfigError, match="no column of time"):
        scope.ledger.join(np.zeros(3, [("value", "f8")]))
    with pytest.raises(ConfigError, match="no numeric column 'height'"):
        scope.ledger.join(rows, columns=["height"])
    with pytest.raises(ConfigError, match="how is one of before, after, interpolated"):
        scope.ledger.join(rows, how="nearest")
    with pytest.raises(DatasetNotFoundError):
        scope.ledger.join(rows, frames=tmp_path / "elsewhere.ome.zarr")


def test_missed_ticks_are_counted_beside_what_was_produced(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    blocker = ms.WorkerSettings(EveryFrame, settings={"on_full": "block", "pause_s": 0.02})
    with ms.Scope(camera=camera(500), workers=[blocker], record=path, reserve_bytes=0, ring_slots=24) as scope:
        began = time.monotonic()
        scope.acquire(frames=100)
        assert time.monotonic() - began > 1.0
    account = finished(scope, path)
    with storage.open_reader(path) as reader:
        ticks = reader.ticks.astype(int)
    missed = int(ticks[-1] - ticks[0] + 1 - len(ticks)) + int(ticks[0]) - 1
    assert missed > 20
    assert account["missed"] == missed == scope.ledger.missed
    assert account["produced"] == account["stored"] == 100
