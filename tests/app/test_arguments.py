"""Wrong types given to a scope and to what it is composed of: one sentence each, at once, that says what is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mutoscope as ms
from mutoscope.model.errors import ConfigError


class Ask(ms.Command):
    pass


class Bell(ms.Event):
    pass


class Idler(ms.Worker):
    gain = 1.0

    @ms.handles(Ask)
    def ask(self, command: Ask) -> int:
        return 7


def camera() -> Any:
    return ms.cameras.SimulatedCamera(shape=(16, 16), rate_hz=100.0)


SCOPE: list[tuple[str, Any, str]] = [
    ("cameras", [1], r"cameras is a dict such as {'left': camera}, not \[1\]"),
    ("cameras", {3: None}, "the name of a camera is text, not 3"),
    ("sources", [1], r"sources is a dict such as {'detector': SourceSettings\(…\)}, not \[1\]"),
    ("sources", {"a": 3}, "source 'a' is 3, not a mutoscope.SourceSettings"),
    ("workers", 3, r"workers is a list of Worker classes or WorkerSettings, such as \[Tracker\], not 3"),
    ("workers", "Idler", "workers is a list of Worker classes .* not 'Idler'"),
    ("workers", None, "workers is a list of Worker classes .* not None"),
    ("workers", {"a": Idler}, "workers is a list of Worker classes"),
    ("workers", [3], "workers take Worker classes, not 3"),
    ("record", 3, "record is a path such as 'run.ome.zarr', True or None, not 3"),
    ("record", b"run.ome.zarr", "record is a path such as"),
    ("record", "", "record is a path such as 'run.ome.zarr', not ''"),
    ("record", "a\0.ome.zarr", "record is a path such as"),
    ("overwrite", "yes", "overwrite is True or False, not 'yes'"),
    ("resume", 1, "resume is True or False, not 1"),
    ("outlive", None, "outlive is True or False, not None"),
    ("ring_seconds", "a", "ring_seconds is a number, not 'a'"),
    ("ring_seconds", True, "ring_seconds is a number, not True"),
    ("ring_seconds", float("nan"), "ring_seconds must be more than 0"),
    ("ring_seconds", float("inf"), "ring_seconds must be more than 0 and finite, not inf"),
    ("ring_seconds", 10**400, "ring_seconds is a number, not one of so many digits"),
    ("ring_slots", "a", "ring_slots must be a whole number, not 'a'"),
    ("ring_slots", 20.5, "ring_slots must be a whole number, not 20.5"),
    ("reserve_bytes", 1.5, "reserve_bytes must be a whole number, not 1.5"),
    ("settings", [1], r"settings is a dict such as {'sample': 'beads'}, not \[1\]"),
    ("durability", ["power"], "durability is 'process' or 'power'"),
    ("compression", 3, "compression is text, not 3"),
    ("compression", "gzip", "compressed by 'none', 'blosc-lz4', 'blosc-zstd', 'zstd', not 'gzip'"),
    ("environment", [1], "environment is a dict such as"),
    ("environment", {"Idler": "A=1"}, r"environment\['Idler'\] is a dict such as {'OMP_NUM_THREADS': '1'}, not 'A=1'"),
    ("environment", {"Idler": {"A": 1}}, r"environment\['Idler'\]\['A'\] is text, not 1"),
    ("restarts", [1], "restarts is a dict such as"),
    ("restarts", {"Idler": "never"}, r"restarts\['Idler'\] is a mutoscope.Restart, not 'never'"),
    ("hang_report_s", "a", "hang_report_s is a number, not 'a'"),
    ("recorder_hang_s", None, "recorder_hang_s is a number, not None"),
    ("setup_timeout_s", [1], r"setup_timeout_s is a number, not \[1\]"),
]


@pytest.mark.parametrize(("name", "value", "words"), SCOPE)
def test_a_scope_refuses_a_wrong_type_when_it_is_made(name: str, value: Any, words: str) -> None:
    given = {name: value} if name == "cameras" else {"camera": camera(), name: value}
    with pytest.raises(ConfigError, match=words) as caught:
        ms.Scope(**given)
    assert "\n" not in str(caught.value)


PARTS: list[tuple[Any, dict[str, Any], str]] = [
    (ms.WorkerSettings, {"worker": 3}, "workers take Worker classes, not 3"),
    (ms.WorkerSettings, {"worker": Idler, "name": 3}, "the name of a worker is text, not 3"),
    (ms.WorkerSettings, {"worker": Idler, "settings": [1]}, r"settings is a dict such as {'threshold': 500.0}, not \[1\]"),
    (ms.WorkerSettings, {"worker": Idler, "settings": {3: 1}}, "the name of a setting is text, not 3"),
    (ms.WorkerSettings, {"worker": Idler, "restart": "never"}, r"restart is a mutoscope.Restart, such as Restart\("),
    (ms.Restart, {"limit": "a"}, "limit of a restart must be a whole number, not 'a'"),
    (ms.Restart, {"within_s": "a"}, "within_s of a restart is a number, not 'a'"),
    (ms.Restart, {"backoff_s": None}, "backoff_s of a restart is a number, not None"),
    (ms.SourceSettings, {"shape": 3, "dtype": "u1"}, "the shape of a source is"),
    (ms.SourceSettings, {"shape": (3, 4), "dtype": None}, "the dtype of a source is a NumPy type such as 'uint16', not None"),
    (ms.SourceSettings, {"shape": (3, 4), "dtype": "(2,"}, "the dtype of a source is a NumPy type"),
    (ms.SourceSettings, {"shape": (3, 4), "dtype": "u1", "rate_hz": "a"}, "rate_hz of a source is a number above 0, not 'a'"),
    (ms.SourceSettings, {"shape": (3, 4), "dtype": "u1", "pixel_size_um": [1]}, "pixel_size_um of a source is a number"),
    (ms.SourceSettings, {"shape": (3, 4), "dtype": "u1", "varying": "yes"}, "varying of a source is True or False"),
]


@pytest.mark.parametrize(("kind", "given", "words"), PARTS)
def test_a_part_refuses_a_wrong_type_when_it_is_made(kind: Any, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        kind(**given)


def test_what_is_meant_is_taken(tmp_path: Path) -> None:
    """A worker alone, and numbers and truths of NumPy, reach the supervisor in their plain forms."""
    with ms.Scope(
        camera=camera(),
        workers=Idler,
        record=tmp_path / "run.ome.zarr",
        ring_seconds=np.float32(0.5),
        ring_slots=np.int64(64),
        overwrite=np.bool_(True),
        reserve_bytes=np.uint64(0),
    ) as scope:
        assert [each.name for each in scope.status() if each.kind == "worker"] == ["Idler"]
        number = scope.start_acquisition(np.int32(3), cameras="camera")
        assert number == 1
        assert scope.wait_acquisition(10.0)
        assert scope.ledger.stored == 3
        for call, words in (
            (lambda: scope.acquire(frames="a"), "frames must be a whole number, not 'a'"),
            (lambda: scope.acquire(frames=True), "frames must be a whole number, not True"),
            (lambda: scope.acquire(seconds="a"), "seconds is a number, not 'a'"),
            (lambda: scope.acquire(seconds=float("inf")), "seconds must be more than 0 and finite, not inf"),
            (lambda: scope.acquire(3, timeout_s="a"), "timeout_s is a number, not 'a'"),
            (lambda: scope.acquire(3, on_progress=3), "on_progress is a function that takes the scope, not 3"),
            (lambda: scope.start_acquisition(1.5), "frames must be a whole number, not 1.5"),
            (lambda: scope.start_acquisition(3, seconds="a"), "seconds is a number, not 'a'"),
            (lambda: scope.start_acquisition(3, cameras=3), "cameras is a list of names, not 3"),
            (lambda: scope.start_acquisition(3, cameras=[3]), "each of cameras is text, not 3"),
            (lambda: scope.wait_acquisition("a"), "timeout_s is a number, not 'a'"),
            (lambda: scope.wait("a"), "timeout_s is a number, not 'a'"),
            (lambda: scope.reader(3), "the name of a camera is text, not 3"),
            (lambda: scope.reader(policy=3), "policy is text, not 3"),
            (lambda: scope.reader(start="now"), "start is 'new' or 'oldest', not 'now'"),
            (lambda: scope.table_reader(3), "the name of a table is text, not 3"),
            (lambda: scope.table_reader("a", timeout_s="a"), "timeout_s is a number, not 'a'"),
            (lambda: scope.source([]), r"the name of a source is text, not \[\]"),
            (lambda: scope.allow_restart(3), "the name of a worker is text, not 3"),
            (lambda: scope.set_state(saving="yes"), "saving is True or False, not 'yes'"),
            (lambda: scope.set_state(settings=[1]), "settings is a dict such as"),
            (lambda: scope.request(Ask), r"give an instance: Ask\(\)"),
            (lambda: scope.send(Ask), r"give an instance: Ask\(\)"),
            (lambda: scope.broadcast(Ask), r"give an instance: Ask\(\)"),
            (lambda: scope.publish(Bell), r"give an instance: Bell\(\)"),
            (lambda: scope.request(Bell()), "Bell is an event: publish it"),
            (lambda: scope.publish(Ask()), "Ask is a command: send or request it"),
            (lambda: scope.subscribe(Bell(), print), r"is a subclass of mutoscope.Event, not Bell\(\)"),
            (lambda: scope.subscribe(Bell, 3), "the callback of Bell is a function that takes the event, not 3"),
            (lambda: scope.stop(now="yes"), "now is True or False, not 'yes'"),
        ):
            with pytest.raises(ConfigError, match=words):
                call()
        assert scope.request(Ask()) == 7
    assert ms.Scope(workers=ms.WorkerSettings(Idler)) is not None


class Vague(ms.cameras.SimulatedCamera):
    @property
    def pixel_size_um(self) -> Any:
        return "small"


def test_a_camera_that_says_nonsense_of_itself_is_refused_before_anything_starts(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"Expected `float \| null`, got `str` - at `.*pixel_size_um"):
        ms.Scope(camera=Vague(shape=(16, 16))).start()
    assert capfd.readouterr().err == ""
