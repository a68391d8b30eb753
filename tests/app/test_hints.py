"""What a newcomer forgets is said on standard error, while the program waits, in words that tell what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import run

UNCOMMITTED = """
import mutoscope as ms


class Every(ms.Worker):
    on_full = "drop"
    commits = False

    def setup(self):
        self.frames = self.reader("camera", policy="every", on_full=self.on_full)

    def step(self):
        with self.frames.next(timeout_s=0.1) as frame:
            if self.commits:
                self.frames.commit(frame)


if __name__ == "__main__":
    settings = {settings!r}
    camera = ms.cameras.SimulatedCamera(shape=(32, 32), rate_hz=200.0)
    with ms.Scope(camera=camera, workers=[ms.WorkerSettings(Every, settings=settings)], hang_report_s=0.5) as scope:
        scope.acquire(seconds=2.0)
"""


@pytest.mark.parametrize("on_full", ["drop", "block"])
def test_a_worker_that_commits_nothing_is_told_how(tmp_path: Path, on_full: str) -> None:
    (tmp_path / "scope.py").write_text(UNCOMMITTED.replace("{settings!r}", repr({"on_full": on_full})), encoding="utf-8")
    done = run(tmp_path, "python", "scope.py")
    assert done.code == 0, done.describe()
    said = [line for line in done.stderr.splitlines() if "committed none" in line]
    assert len(said) == 1, done.describe()
    assert "Every has committed none of the" in said[0]
    assert "call self.frames.commit(frame)" in said[0]
    assert "has not responded" not in done.stderr, "it does respond"


def test_a_worker_that_commits_is_told_nothing(tmp_path: Path) -> None:
    (tmp_path / "scope.py").write_text(UNCOMMITTED.replace("{settings!r}", repr({"commits": True})), encoding="utf-8")
    done = run(tmp_path, "python", "scope.py")
    assert done.stderr == "", done.describe()


TABLES = """
import time
import mutoscope as ms


class Meter(ms.Worker):
    def setup(self):
        self.table("means", dtype=[("mean", "f8")])


if __name__ == "__main__":
    camera = ms.cameras.SimulatedCamera(shape=(32, 32))
    for workers in ([Meter], []):
        with ms.Scope(camera=camera, workers=workers) as scope:
            began = time.monotonic()
            try:
                scope.table_reader("mean", timeout_s=3.0)
            except Exception as error:
                print(type(error).__name__, error, "at once" if time.monotonic() - began < 2.0 else "")
"""


def test_a_table_that_nobody_has_is_said_soon(tmp_path: Path) -> None:
    (tmp_path / "scope.py").write_text(TABLES, encoding="utf-8")
    done = run(tmp_path, "python", "scope.py")
    assert done.code == 0, done.describe()
    assert "program waits for the table 'mean', which nobody has created; did you mean 'means'?" in done.stderr, done.describe()
    first, second = done.stdout.splitlines()
    assert first.strip() == "CommandTimeoutError nobody has created the table 'mean' within 3 s; did you mean 'means'?"
    assert second == "ConfigError there is no table 'mean', and no worker that could create it; there are: none at once"
