"""Workers of a scope talk to each other on lines; the audit beside the data knows of every word."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from lab import PATIENT, back, camera, kill

import mutoscope as ms
from mutoscope.model.errors import PeerDiedError


class Double(ms.Command):
    value: int


class AskMany(ms.Command):
    count: int


class Hold(ms.Command):
    """Never answered."""


class AskHold(ms.Command):
    pass


class Doubler(ms.Worker):
    restart = PATIENT

    @ms.handles(Double)
    def double(self, command: Double) -> int:
        return 2 * command.value

    @ms.handles(Hold)
    def hold(self, command: Hold) -> None:
        threading.Event().wait()


class Asker(ms.Worker):
    @ms.handles(AskMany)
    def ask_many(self, command: AskMany) -> list[int]:
        return [self.request(Double(value=n)) for n in range(command.count)]

    @ms.handles(AskHold)
    def ask_hold(self, command: AskHold) -> None:
        self.request(Hold(), timeout_s=60.0)


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run.mutoscope" / "audit.jsonl").read_text().splitlines()]


def test_workers_ask_each_other_past_the_supervisor_and_the_audit_knows(tmp_path: Path) -> None:
    with ms.Scope(camera=camera(), workers=[Asker, Doubler], record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        assert scope.request(AskMany(count=300)) == [2 * n for n in range(300)]
        kill(scope, "Doubler")
        back(scope, "Doubler")
        assert scope.request(AskMany(count=100)) == [2 * n for n in range(100)]
        scope.acquire(frames=5)
    told = [entry for entry in entries(tmp_path) if entry["command"] == "Double"]
    assert [entry["payload"]["value"] for entry in told] == [*range(300), *range(100)]
    assert {(entry["who"], entry["to"], entry["result"]) for entry in told} == {("Asker", "Doubler", "ok")}
    times = [entry["utc_ns"] for entry in told]
    assert times == sorted(times)


def test_an_asker_hears_at_once_that_the_other_died() -> None:
    with ms.Scope(workers=[Asker, Doubler]) as scope:
        assert scope.request(AskMany(count=3)) == [0, 2, 4]
        killer = threading.Timer(0.5, lambda: kill(scope, "Doubler"))
        killer.start()
        with pytest.raises(PeerDiedError, match="Doubler did not answer Hold"):
            scope.request(AskHold(), timeout_s=60.0)
        killer.join()
        back(scope, "Doubler")
        assert scope.request(AskMany(count=3)) == [0, 2, 4]
