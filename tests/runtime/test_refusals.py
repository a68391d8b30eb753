"""Everything that can be asked for wrongly: one clear sentence each, and nothing left running."""

from __future__ import annotations

import dataclasses
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab import EveryFrame, Idler, Look, Looker, SetGain, Stage, WhoAreYou, camera

import mutoscope as ms
from mutoscope.model.errors import (
    BadPayloadError,
    CommandTimeoutError,
    ConfigError,
    DatasetError,
    DatasetExistsError,
    DatasetNotFoundError,
    RingSizeError,
    ScopeStateError,
    UnknownCommandError,
)
from mutoscope.runtime import Restart


class Unasked(ms.Command):
    pass


class SameName(ms.Command, name="SetGain"):
    level: int


class Rival(Idler):
    """Of another class, and yet an owner of the same direct command."""

    @ms.handles(SetGain)
    def set_gain(self, command: SetGain) -> float:
        return 0.0


class Namesake(Idler):
    @ms.handles(SameName)
    def set_gain(self, command: SameName) -> float:
        return 0.0


class UnknownCamera(Idler):
    def setup(self) -> None:
        self.frames = self.reader("thermal")


class UnknownPolicy(Idler):
    def setup(self) -> None:
        self.frames = self.reader("camera", policy="sometimes")


class UnknownTable(Idler):
    def setup(self) -> None:
        self.rows = self.table_reader("tracks", timeout_s=0.3)


class TwoReadersOfOneKey(Idler):
    def setup(self) -> None:
        self.one, self.two = self.reader("camera"), self.reader("camera")


class TooManyLeases(Idler):
    def setup(self) -> None:
        self.frames = self.reader("camera", policy="every", leases=100)


class TableThief(Idler):
    def setup(self) -> None:
        self.rows = self.table("seen by EveryFrame", dtype=[("frame_id", "u8"), ("monotonic_ns", "i8"), ("total", "f8")])


class BadTable(Idler):
    def setup(self) -> None:
        self.rows = self.table("objects", dtype=[("thing", "O")])


class Moves(Idler):
    moves = True


class SendsToNobody(Idler):
    sends = (Unasked,)


def absent() -> type[ms.Worker]:
    """A worker of a module that only this process has."""
    module = types.ModuleType("somewhere_else_entirely")
    kind = type("Stranger", (ms.Worker,), {"__module__": module.__name__})
    module.Stranger = kind  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    return kind


Make = Callable[[Path], Any]

REFUSED: dict[str, tuple[Make, type[Exception], str]] = {
    "nothing": (lambda p: ms.Scope(), ConfigError, "a scope needs a camera, a source or a worker"),
    "a class that is no worker": (
        lambda p: ms.Scope(workers=[dict]),
        ConfigError,
        "workers take Worker classes, not <class 'dict'>",
    ),  # type: ignore[list-item]
    "an instance": (lambda p: ms.Scope(workers=[Idler()]), ConfigError, "workers take Worker classes, not <lab.Idler object"),  # type: ignore[list-item]
    "a camera that is none": (
        lambda p: ms.Scope(camera=7),
        ConfigError,
        "camera 'camera' is 7, not a mutoscope.cameras.Camera",
    ),  # type: ignore[arg-type]
    "camera and cameras": (
        lambda p: ms.Scope(camera=camera(), cameras={"a": camera()}),
        ConfigError,
        "either camera= or cameras=",
    ),
    "overwrite and resume": (
        lambda p: ms.Scope(camera=camera(), overwrite=True, resume=True),
        ConfigError,
        "overwrite or resume",
    ),
    "a setting out of bounds": (lambda p: camera(rate_hz=-5), ConfigError, "rate_hz must be a number from .* not -5"),
    "an unknown setting": (lambda p: camera(gain_db=3), ConfigError, "has no setting 'gain_db'; "),
    "a worker setting that is not there": (
        lambda p: ms.WorkerSettings(Looker, settings={"gian": 2.0}),
        ConfigError,
        "Looker has no setting 'gian'; it has: gain",
    ),
    "something that moves without safe_state": (lambda p: ms.WorkerSettings(Moves), ConfigError, "define its safe_state"),
    "something that moves, restarted": (
        lambda p: ms.Scope(workers=[ms.WorkerSettings(Stage)], restarts={"Stage": Restart()}).start(),
        ConfigError,
        "Stage can move: its restart mode is 'consent' or 'never', not 'always'",
    ),
    "ring_seconds": (
        lambda p: ms.Scope(camera=camera(), ring_seconds=0),
        ConfigError,
        "ring_seconds must be more than 0, not 0",
    ),
    "ring_slots": (lambda p: ms.Scope(camera=camera(), ring_slots=4), ConfigError, "ring_slots must be at least 16, not 4"),
    "a reserve below nothing": (
        lambda p: ms.Scope(camera=camera(), reserve_bytes=-1),
        ConfigError,
        "reserve_bytes must be 0 or more, not -1",
    ),
    "a durability": (
        lambda p: ms.Scope(camera=camera(), durability="forever"),
        ConfigError,
        "durability is 'process' or 'power', not 'forever'",
    ),
    "a limit": (lambda p: ms.Scope(camera=camera(), hang_report_s=0), ConfigError, "hang_report_s must be more than 0, not 0"),
    "a restart mode": (lambda p: Restart(mode="sometimes"), ConfigError, "mode is always, never or consent, not 'sometimes'"),
    "a camera's name with a slash": (lambda p: ms.Scope(cameras={"a/b": camera()}), ConfigError, "'a/b' cannot name a camera"),
    "a source's name with a slash": (
        lambda p: ms.Scope(sources={"a/b": ms.SourceSettings((4, 4), "u1")}),
        ConfigError,
        "'a/b' cannot name a camera",
    ),
    "a name that is not text": (lambda p: ms.Scope(cameras={3: camera()}), ConfigError, "the name of a camera is text, not 3"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_before_anything_starts(what: str, tmp_path: Path) -> None:
    make, kind, words = REFUSED[what]
    with pytest.raises(kind, match=words) as caught:
        make(tmp_path)
    assert "\n" not in str(caught.value)


def _existing(path: Path) -> Path:
    path.mkdir()
    (path / "zarr.json").write_text("{}")
    return path


def _file(path: Path) -> Path:
    path.write_text("a file")
    return path


NOT_STARTED: dict[str, tuple[Callable[[Path], ms.Scope], type[Exception], str]] = {
    "a path that exists": (
        lambda p: ms.Scope(camera=camera(), record=_existing(p / "run.ome.zarr")),
        DatasetExistsError,
        "exists already: choose another name",
    ),
    "what must not be overwritten": (
        lambda p: ms.Scope(camera=camera(), record=_file(p / "run.ome.zarr"), overwrite=True),
        ConfigError,
        "is not a data set, so it is not overwritten",
    ),
    "a suffix": (lambda p: ms.Scope(camera=camera(), record=p / "run.tif"), ConfigError, r"run\.tif: recordings are OME-Zarr"),
    "a file in place of a folder": (
        lambda p: ms.Scope(camera=camera(), record=_file(p / "folder") / "run.ome.zarr"),
        ConfigError,
        "folder is a file, not a folder",
    ),
    "a folder that cannot be written": (
        lambda p: ms.Scope(camera=camera(), record="/proc/nowhere/run.ome.zarr"),
        ConfigError,
        "/proc/nowhere",
    ),
    "two workers of one name": (lambda p: ms.Scope(workers=[Idler, Idler]), ConfigError, "two workers have the name 'Idler'"),
    "a worker with a camera's name": (
        lambda p: ms.Scope(camera=camera(), workers=[ms.WorkerSettings(Idler, name="camera")]),
        ConfigError,
        "have the name 'camera'",
    ),
    "a reserved name": (
        lambda p: ms.Scope(workers=[ms.WorkerSettings(Idler, name="supervisor")]),
        ConfigError,
        "'supervisor' is taken",
    ),
    "a camera's and a source's name": (
        lambda p: ms.Scope(cameras={"a": camera()}, sources={"a": ms.SourceSettings((4, 4), "u1")}),
        ConfigError,
        "two cameras or sources",
    ),
    "the environment of nobody": (
        lambda p: ms.Scope(workers=[Idler], environment={"Tracker": {}}),
        ConfigError,
        "no worker 'Tracker' to set something for",
    ),
    "a worker that cannot be imported": (
        lambda p: ms.Scope(camera=camera(), workers=[absent()], record=p / "run.ome.zarr"),
        ConfigError,
        "worker Stranger cannot be imported in its process: No module named 'somewhere_else_entirely'",
    ),
    "two owners of a direct command": (
        lambda p: ms.Scope(camera=camera(), workers=[Looker, Rival]),
        ConfigError,
        "SetGain is a direct command with two owners",
    ),
    "two commands of one name": (
        lambda p: ms.Scope(camera=camera(), workers=[Looker, Namesake]),
        ConfigError,
        'two commands are called "SetGain"',
    ),
    "a command that nobody handles": (
        lambda p: ms.Scope(workers=[SendsToNobody]),
        ConfigError,
        "SendsToNobody sends Unasked, but nobody handles",
    ),
    "an unknown camera": (
        lambda p: ms.Scope(camera=camera(), workers=[UnknownCamera]),
        ConfigError,
        "there is no camera 'thermal'; this scope has: camera",
    ),
    "an unknown policy": (
        lambda p: ms.Scope(camera=camera(), workers=[UnknownPolicy]),
        ConfigError,
        "policy 'sometimes' is not one of",
    ),
    "an unknown table": (
        lambda p: ms.Scope(workers=[UnknownTable]),
        ConfigError,
        "there is no table 'tracks', and no worker that could create it; there are: none",
    ),
    "two readers of one key": (
        lambda p: ms.Scope(camera=camera(), workers=[TwoReadersOfOneKey]),
        ConfigError,
        "already reads camera with key 'camera': give the second",
    ),
    "more leases than slots": (
        lambda p: ms.Scope(camera=camera(), workers=[TooManyLeases], ring_slots=20),
        ConfigError,
        "20 slots are too few: its 100 leases",
    ),
    "somebody else's table": (
        lambda p: ms.Scope(camera=camera(), workers=[EveryFrame, TableThief], record=p / "run.ome.zarr"),
        ConfigError,
        "the table 'seen by EveryFrame' belongs to",
    ),
    "a table of objects": (lambda p: ms.Scope(workers=[BadTable]), ConfigError, "objects"),
    "a ring that does not fit": (
        lambda p: ms.Scope(camera=camera(shape=(4096, 4096)), ring_slots=60_000, record=p / "run.ome.zarr"),
        RingSizeError,
        r"need 2,013,265,920,000 bytes of memory \(camera: 60000 × 33,554,432\), [\d,]+ are available",
    ),
}


@pytest.mark.parametrize("what", NOT_STARTED)
def test_what_cannot_start_says_why_and_leaves_nothing(what: str, tmp_path: Path) -> None:
    make, kind, words = NOT_STARTED[what]
    scope = make(tmp_path)
    before = set(os.listdir(tmp_path))
    with pytest.raises(kind, match=words) as caught:
        scope.start()
    assert "\n" not in str(caught.value)
    assert not scope.running
    assert scope.result is None or scope.result.exit_reason == "failed_to_start"
    left = set(os.listdir(tmp_path)) - before
    assert left == ({"run.mutoscope"} if what == "somebody else's table" else set())  # the log of the worker that failed
    with pytest.raises(ScopeStateError, match="not running"):
        scope.request(WhoAreYou())


@pytest.mark.parametrize("how", ["overwrite", "resume"])
@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_is_no_data_set_is_known_before_anything_is_made(what: str, how: str, tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    if what == "file":
        path.touch()
    elif what == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("mine", encoding="utf-8")
    else:
        path.symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((ConfigError, DatasetError, DatasetNotFoundError), match=r"run\.ome\.zarr"):
        ms.Scope(camera=camera(), record=path, overwrite=how == "overwrite", resume=how == "resume").start()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_refused_start_takes_away_the_folders_that_it_made_and_no_others(tmp_path: Path) -> None:
    scope = ms.Scope(camera=camera(), workers=[absent()], record=tmp_path / "monday" / "first" / "run.ome.zarr")
    with pytest.raises(ConfigError, match="cannot be imported"):
        scope.start()
    assert not list(tmp_path.iterdir())
    (tmp_path / "monday" / "first" / "run.mutoscope").mkdir(parents=True)
    (tmp_path / "monday" / "first" / "run.mutoscope" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be imported"):
        scope.start()
    assert (tmp_path / "monday" / "first" / "run.mutoscope" / "notes.txt").read_text() == "mine"


def test_what_a_running_scope_is_asked_wrongly(tmp_path: Path) -> None:
    with ms.Scope(camera=camera(), workers=[Looker, Idler], record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        asked: list[tuple[Callable[[], Any], type[Exception], str]] = [
            (lambda: scope.acquire(frames=-1), ConfigError, "frames must be at least 1, not -1"),
            (lambda: scope.acquire(frames=0), ConfigError, "frames must be at least 1, not 0"),
            (lambda: scope.acquire(frames=2.5), ConfigError, r"frames must be a whole number, not 2\.5"),  # type: ignore[arg-type]
            (lambda: scope.acquire(seconds=-2.0), ConfigError, r"seconds must be more than 0, not -2\.0"),
            (lambda: scope.acquire(seconds=float("nan")), ConfigError, "seconds must be more than 0, not nan"),
            (lambda: scope.acquire(frames=1, seconds=1.0), ConfigError, "either frames= or seconds="),
            (
                lambda: scope.start_acquisition(3, cameras=["thermal"]),
                ConfigError,
                "there is no camera 'thermal'; this scope has: camera",
            ),
            (lambda: scope.request(Unasked()), UnknownCommandError, "nobody handles Unasked"),
            (lambda: scope.request(WhoAreYou(), to="Nemo"), UnknownCommandError, 'nobody is called "Nemo"; there are'),
            (lambda: scope.request(WhoAreYou(), to="Idler"), UnknownCommandError, "Idler does not handle WhoAreYou"),
            (lambda: scope.request(SetGain(gain="loud")), BadPayloadError, "SetGain.*[Ee]xpected `float`, got `str`"),  # type: ignore[arg-type]
            (lambda: SetGain(gian=3.0), TypeError, "[Uu]nexpected keyword argument|[Mm]issing required argument"),  # type: ignore[call-arg]
            (lambda: scope.request(Look(attribute="nothing")), AttributeError, "nothing"),
            (lambda: scope.reader("thermal"), ConfigError, "there is no camera 'thermal'"),
            (lambda: scope.reader(policy="every", leases=0), ConfigError, "leases is 1 to 256, not 0"),
            (lambda: scope.reader(policy="latest", at_most_hz=-1.0), ConfigError, "at_most_hz is a positive rate"),
            (lambda: scope.table_reader("tracks", timeout_s=0.2), CommandTimeoutError, "nobody has created the table 'tracks'"),
            (lambda: scope.table_reader("tracks", timeout_s=0.0), ConfigError, "timeout_s must be more than 0"),
            (lambda: scope.source("camera"), ConfigError, "there is no source 'camera'; this scope has: none"),
            (
                lambda: scope.allow_restart("Nemo"),
                ConfigError,
                "there is no worker 'Nemo'; this scope has: recorder, Looker, Idler, camera",
            ),
            (lambda: scope.start(), ScopeStateError, "this scope is running already"),
        ]
        for ask, kind, words in asked:
            with pytest.raises(kind, match=words) as caught:
                ask()
            assert "\n" not in str(caught.value), caught.value
        assert scope.acquire(frames=5).stored == {"camera": 5}
        assert all(status.restarts == 0 for status in scope.status())
    assert scope.result is not None
    assert scope.result.errors == []
    assert scope.ledger.exact
    assert np.isfinite(scope.ledger.produced)


def test_a_folder_that_another_scope_uses_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(), record=path, reserve_bytes=0) as scope:
        with pytest.raises(ConfigError, match=r"run\.mutoscope belongs to a scope that is running"):
            ms.Scope(camera=camera(), record=path, overwrite=True, reserve_bytes=0).start()
        assert scope.acquire(frames=5).stored == {"camera": 5}


def test_what_needs_a_running_scope_says_so() -> None:
    scope = ms.Scope(workers=[Idler])
    for ask in (
        scope.acquire,
        scope.stop_acquisition,
        lambda: scope.reader(),
        lambda: scope.state,
        lambda: scope.supervisor_pid,
    ):
        with pytest.raises(ScopeStateError, match="not running"):
            ask()
    with pytest.raises(ScopeStateError, match="it has not been started"):
        _ = scope.ledger
    assert scope.status() == []
    assert scope.wait()
    scope.stop()
    scope.close()
    with pytest.raises(ScopeStateError, match="Idler is not running in a scope"):
        Idler().request(WhoAreYou())


@pytest.mark.parametrize("resume", [False, True])
def test_what_nobody_foresaw_ends_the_start_in_one_sentence(resume: bool, tmp_path: Path) -> None:
    scope = ms.Scope(camera=camera(), record=tmp_path / "run.ome.zarr", resume=resume, reserve_bytes=0)
    scope._parts = dataclasses.replace(scope._parts, record=tmp_path / "a\0b.ome.zarr")  # past the check that refuses it
    words = "cannot be started, for a reason that was not foreseen: ValueError: embedded null byte"
    with pytest.raises(RuntimeError, match=words) as caught:
        scope.start()
    assert "\n" not in str(caught.value)
    assert not scope.running
