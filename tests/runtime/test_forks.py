"""A worker that forks: the child is told that the bus is its parent's, whatever it does, and the parent goes on."""

from __future__ import annotations

import os
from pathlib import Path

from lab import Stage, status_of

import mutoscope as ms


class Fork(ms.Command):
    ask: bool


class Ask(ms.Command):
    value: int


class Answerer(ms.Worker):
    @ms.handles(Ask)
    def answer(self, command: Ask) -> int:
        return command.value


class Forking(Stage):
    """Its child goes on as if it were the worker."""

    @ms.handles(Fork)
    def fork(self, command: Fork) -> int:
        self.request(Ask(value=1))
        child = os.fork()
        if child == 0:
            self.log.warning("the child speaks")
            if command.ask:
                self.request(Ask(value=2))
            return 0
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_that_goes_on_as_the_worker_harms_nothing(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    workers = [Answerer, ms.WorkerSettings(Forking, settings={"diary": str(diary)})]
    with ms.Scope(workers=workers) as scope:
        for ask in (True, False, True):
            assert scope.request(Fork(ask=ask), timeout_s=20.0) == 70
        assert status_of(scope, "Forking").restarts == 0
        assert scope.request(Ask(value=3)) == 3
        assert "safe" not in diary.read_text()
