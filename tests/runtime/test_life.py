"""What a scope does in the order of its life: start, share its state, quit once, start again; what moves needs consent."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab import (
    PATIENT,
    Bystander,
    EveryFrame,
    Everywhere,
    Idler,
    Look,
    Looker,
    Misbehave,
    SetGain,
    Stage,
    WhoAreYou,
    back,
    camera,
    kill,
    status_of,
)

import mutoscope as ms
from mutoscope.model.errors import CommandTimeoutError, ScopeStateError
from mutoscope.runtime import control
from polling import until


class TableOwner(ms.Worker):
    """Creates its table only when it is told to."""

    @ms.handles(SetGain)
    def begin(self, command: SetGain) -> float:
        self.values = self.table("values", dtype=[("value", "f8")])
        self.values.append((command.gain,))
        return command.gain


class TableFan(Idler):
    """Waits in its setup for somebody else's table."""

    total = 0.0

    def setup(self) -> None:
        self.values = self.table_reader("seen by EveryFrame", start="oldest")

    def step(self) -> None:
        self.total += len(self.values.read(timeout_s=0.2))

    @ms.handles(WhoAreYou)
    def who(self, command: WhoAreYou) -> str:
        return self.name


def test_something_that_moves_is_not_restarted_without_consent(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    with ms.Scope(workers=[ms.WorkerSettings(Stage, settings={"diary": str(diary)}), Bystander]) as scope:
        assert diary.read_text().split() == ["setup"]
        kill(scope, "Stage")
        until(lambda: status_of(scope, "Stage").state == "needs consent")
        with pytest.raises(ScopeStateError, match="Bystander is running; there is nothing to consent to"):
            scope.allow_restart("Bystander")
        assert status_of(scope, "Stage").pid is None
        assert diary.read_text().split() == ["setup"]
        scope.allow_restart("Stage")
        back(scope, "Stage")
        assert diary.read_text().split() == ["setup", "safe", "setup"]
        scope.send(Misbehave(how="raise"), to="Stage")
        until(lambda: status_of(scope, "Stage").state == "needs consent")
        assert diary.read_text().split() == ["setup", "safe", "setup", "safe"]
        scope.allow_restart("Stage")
        back(scope, "Stage", 2)
    assert diary.read_text().split()[4:] == ["safe", "setup", "safe", "teardown"]
    assert scope.result is not None
    assert scope.result.errors == []


def test_quit_ends_the_scope_once(tmp_path: Path) -> None:
    with ms.Scope(camera=camera(), workers=[Idler], record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        scope.start_acquisition()
        until(lambda: scope.ledger.stored > 10)
        scope.send(Misbehave(how="quit"))
        assert scope.wait(30.0)
        with pytest.raises(ScopeStateError, match=r"the scope has ended: quit \(Idler: seen enough\)"):
            scope.acquire(frames=1)
    assert scope.result == ms.app.scope.ScopeResult("quit", [], "Idler: seen enough")
    assert scope.ledger.exact
    assert scope.ledger.produced == scope.ledger.stored
    log = (tmp_path / "run.mutoscope" / "scope.log").read_text()
    assert log.count("the scope ends") == 1


def test_the_program_may_quit_too_and_stopping_twice_is_fine() -> None:
    scope = ms.Scope(workers=[Idler])
    scope.start()
    scope.send(control.Quit(reason="enough"))
    assert scope.wait(30.0)
    scope.stop()
    scope.stop(now=True)
    scope.close()
    assert scope.result is not None
    assert (scope.result.exit_reason, scope.result.message) == ("quit", "program: enough")
    with pytest.raises(ScopeStateError, match="this scope is not running"):
        scope.request(WhoAreYou())


def test_start_stop_start_in_one_interpreter(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    scope = ms.Scope(camera=camera(), workers=[Looker], record=path, overwrite=True, reserve_bytes=0)
    for frames in (10, 20):
        scope.start()
        with pytest.raises(ScopeStateError, match="running already"):
            scope.start()
        assert scope.acquire(frames=frames).stored == {"camera": frames}
        scope.stop()
        assert scope.ledger.stored == frames
        assert not scope.running


def test_two_scopes_at_once(tmp_path: Path) -> None:
    one = ms.Scope(camera=camera(), workers=[Looker], record=tmp_path / "one.ome.zarr", reserve_bytes=0)
    two = ms.Scope(camera=camera(200), workers=[Looker], record=tmp_path / "two.ome.zarr", reserve_bytes=0)
    with one, two:
        results: dict[str, Any] = {}
        threads = [
            threading.Thread(target=lambda n=n, s=s, f=f: results.update({n: s.acquire(frames=f)}))
            for n, s, f in (("one", one, 40), ("two", two, 30))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert one.supervisor_pid != two.supervisor_pid
        assert one.request(SetGain(gain=2.0)) == 2.0
    assert results["one"].stored == {"camera": 40}
    assert results["two"].stored == {"camera": 30}
    assert one.ledger.exact
    assert two.ledger.exact


def test_state_and_settings_are_shared_also_with_a_successor(tmp_path: Path) -> None:
    settings = {"objective": "60x", "operator": "somebody"}
    with ms.Scope(camera=camera(), workers=[ms.WorkerSettings(Idler, restart=PATIENT)], settings=settings) as scope:
        assert scope.request(Look(attribute="state.settings")) == settings
        scope.set_state(settings={"objective": "20x"}, mode="calibrating", saving=False)
        expected = {"objective": "20x", "operator": "somebody"}
        until(lambda: scope.request(Look(attribute="state.settings")) == expected)
        kill(scope, "Idler")
        back(scope, "Idler")
        assert scope.request(Look(attribute="state.settings")) == expected
        assert scope.request(Look(attribute="state.mode")) == "calibrating"
        assert scope.request(Look(attribute="state.saving")) is False
        assert scope.state.settings == expected
        scope.start_acquisition()
        until(lambda: scope.request(Look(attribute="state.acquiring")) is True)
        scope.stop_acquisition()
        until(lambda: scope.request(Look(attribute="state.acquiring")) is False)
        info = scope.request(Look(attribute="scope"))
        assert info["cameras"]["camera"]["shape"] == [16, 24]
        assert sorted(info["workers"]) == ["Idler", "camera"]


def test_named_instances_are_addressed_by_name() -> None:
    left, right = (ms.WorkerSettings(Looker, name=name, settings={"gain": 3.0}) for name in ("left", "right"))
    with ms.Scope(camera=camera(), workers=[left, right, Idler, ms.WorkerSettings(Idler, name="other")]) as scope:
        assert scope.request(WhoAreYou(), to="left") == "left"
        assert scope.request(WhoAreYou(), to="right") == "right"
        with pytest.raises(ms.model.errors.ConfigError, match="handled by left, right: say which with to="):
            scope.request(WhoAreYou())
        assert scope.broadcast(Everywhere()) == {"Idler": "Idler", "other": "other"}


def test_tables_are_waited_for_and_known_to_all(tmp_path: Path) -> None:
    with ms.Scope(camera=camera(), workers=[TableFan, EveryFrame, ms.WorkerSettings(TableOwner, restart=PATIENT)]) as scope:
        assert scope.request(Look(attribute="scope.tables"), to="TableFan") == ["seen by EveryFrame"]
        with pytest.raises(
            CommandTimeoutError, match=r"nobody has created the table 'values' within 0\.3 s; there are: seen by"
        ):
            scope.table_reader("values", timeout_s=0.3)
        found: list[Any] = []
        waiting = threading.Thread(target=lambda: found.append(scope.table_reader("values", start="oldest", timeout_s=30.0)))
        waiting.start()
        assert scope.request(SetGain(gain=0.5)) == 0.5
        waiting.join()
        until(lambda: scope.request(Look(attribute="scope.tables"), to="TableFan") == ["seen by EveryFrame", "values"])
        assert found[0].read(timeout_s=10.0)["value"].tolist() == [0.5]
        kill(scope, "TableOwner")
        back(scope, "TableOwner")
        assert scope.request(SetGain(gain=0.75)) == 0.75
        assert found[0].read(timeout_s=10.0)["value"].tolist() == [0.75]
        assert found[0].row_ids.tolist() == [2]
        scope.acquire(frames=30)
        until(lambda: scope.request(Look(attribute="total"), to="TableFan") == 30)
        tables = scope.ledger.to_dict()["tables"]
        assert tables["seen by EveryFrame"]["appended"] == 30
        assert tables["seen by EveryFrame"]["readers"]["TableFan"] == {"lost": 0, "pending": 0}


def test_a_table_reader_that_is_killed_goes_on_where_it_was() -> None:
    worker = ms.WorkerSettings(TableFan, restart=PATIENT)
    with ms.Scope(camera=camera(), workers=[worker, EveryFrame]) as scope:
        scope.acquire(frames=20)
        until(lambda: scope.request(Look(attribute="total"), to="TableFan") == 20)
        kill(scope, "TableFan")
        scope.acquire(frames=25)
        back(scope, "TableFan")
        until(lambda: scope.request(Look(attribute="total"), to="TableFan") == 25)


def test_every_command_is_in_the_audit(tmp_path: Path) -> None:
    with ms.Scope(camera=camera(), workers=[Looker, Idler], record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        scope.request(SetGain(gain=4.0))
        with pytest.raises(ValueError, match="told to fail"):
            scope.request(Misbehave(how="raise in handler"))
        scope.broadcast(Everywhere())
        scope.acquire(frames=5)
    entries = [json.loads(line) for line in (tmp_path / "run.mutoscope" / "audit.jsonl").read_text().splitlines()]
    told = {(entry["who"], entry["to"], entry["command"], entry["result"]) for entry in entries}
    assert ("program", "Looker", "SetGain", "ok") in told
    assert ("program", "Idler", "Misbehave", "ValueError: the handler was told to fail") in told
    assert ("program", "Idler", "Everywhere", "ok") in told
    assert ("program", "supervisor", "scope.start_acquisition", "ok") in told
    assert ("Looker", "supervisor", "scope.attach_reader", "ok") in told
    assert ("program", "supervisor", "scope.stop", "ok") in told
    [gain] = [entry for entry in entries if entry["command"] == "SetGain"]
    assert gain["payload"] == {"gain": 4.0}
    assert abs(gain["utc_ns"] - time.time_ns()) < 600e9
    assert all(entry["ms"] >= 0 for entry in entries)
    assert not any(entry["command"] == "scope.get_ledger" for entry in entries)


def test_an_acquisition_by_time_and_its_progress(tmp_path: Path) -> None:
    seen: list[int] = []
    with ms.Scope(camera=camera(), workers=[Looker], record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        result = scope.acquire(seconds=0.5, on_progress=lambda scope: seen.append(scope.ledger.stored))
        assert result.reasons == {"camera": "stopped"}
        assert result.seconds >= 0.5
        assert result.produced == result.stored
        assert result.stored["camera"] > 20
        assert seen == sorted(seen)
        with pytest.raises(CommandTimeoutError, match=r"did not end within 0\.2 s"):
            scope.acquire(timeout_s=0.2)
        assert not scope.wait_acquisition(0.05)
        scope.stop_acquisition()
        assert scope.wait_acquisition(30.0)
        assert scope.ledger.stored == scope.ledger.produced
        assert scope.wait_acquisition()


def test_readers_in_the_program(tmp_path: Path) -> None:
    with ms.Scope(camera=camera()) as scope:
        with scope.reader(policy="every", on_full="block", leases=3) as every, scope.reader(key="newest") as latest:
            scope.start_acquisition(frames=30)
            ids = []
            while len(ids) < 30:
                batch = every.batch(3, timeout_s=10.0)
                ids += [frame.frame_id for frame in batch]
                every.commit(ids[-1])
                batch.release()
            assert ids == list(range(1, 31))
            with latest.next(timeout_s=10.0) as frame:
                assert np.array_equal(frame.array, camera().expected_frame(frame.tick))
            assert scope.wait_acquisition(30.0)
            consumers = scope.ledger.cameras["camera"]["consumers"]
            assert consumers["program"]["done"] == 30
            assert consumers["program/newest"]["offered"] == 30
    assert scope.ledger.exact, scope.ledger.problems


class Turns(Idler):
    """Counts what it comes to after the step that it inherits."""

    turns = 0

    def step(self) -> None:
        super().step()
        self.turns += 1


def test_a_step_without_work_of_its_own_returns_after_each_command() -> None:
    with ms.Scope(workers=[Turns]) as scope:
        seen = [scope.request(Look(attribute="turns")) for _ in range(50)]
    assert seen == sorted(seen)
    assert seen[-1] >= 10
