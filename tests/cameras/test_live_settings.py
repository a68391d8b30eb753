"""Settings of a camera that are changed while a scope runs: applied, refused, remembered by successors, and recorded."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mutoscope as ms
from mutoscope.cameras import Camera, Setting
from mutoscope.model.errors import BufferUnavailableError, CameraError, ConfigError, ScopeStateError
from polling import until


class Bright(Camera):
    """Its frames show the level with which the device runs; the device refuses a level of 13."""

    shape, dtype, rate_hz = (8, 10), "uint16", 200.0
    settings = (
        Setting(name="level", kind="int", default=1, unit="counts", minimum=1, maximum=99, live=True, doc="Of every pixel."),
        Setting(name="window", kind="shape", default=(8, 10), unit="px", minimum=1, maximum=64, live=True, doc="Not used."),
        Setting(name="twice", kind="int", default=2, live=True, doc="Follows level."),
        Setting(name="port", kind="int", default=3, doc="Of the device."),
    )

    def open_device(self) -> None:
        self.device_level = self.get("level")

    def apply_setting(self, name: str, value: Any) -> None:
        if value == 13:
            raise CameraError("the device refuses 13")
        if value == 14:
            raise RuntimeError("the SDK fell over")
        if name == "level":
            self.device_level = value
            self._values["twice"] = 2 * value

    def start_sequence(self, n: int | None, get_buffer: Any) -> Iterator[Mapping[str, Any]]:
        tick = delivered = 0
        start = time.monotonic_ns()
        while n is None or delivered < n:
            tick += 1
            self.wait_until(start + tick * 5_000_000)
            try:
                get_buffer(self.shape, self.dtype)[:] = self.device_level
            except BufferUnavailableError:
                continue
            delivered += 1
            yield {"tick": tick}


class Brighten(ms.Command):
    level: int


class Changer(ms.Worker):
    @ms.handles(Brighten)
    def brighten(self, command: Brighten) -> Any:
        answer = self.request(ms.SetSetting(camera="camera", setting="level", value=command.level))
        return [answer, self.state.camera_settings]


def level_of(reader: Any) -> int:
    with reader.next(timeout_s=5.0) as frame:
        return int(frame.array[0, 0])


def test_a_live_setting_reaches_the_running_camera_and_is_recorded(tmp_path: Path) -> None:
    with ms.Scope(camera=Bright(), record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        assert scope.set_setting("camera", "level", 5) == 5
        scope.start_acquisition()
        with scope.reader() as reader:
            until(lambda: level_of(reader) == 5)
            assert scope.set_setting("camera", "level", np.int32(9)) == 9
            until(lambda: level_of(reader) == 9)
        assert scope.set_setting("camera", "window", (4, 5)) == (4, 5)
        assert scope.get_setting("camera", "window") == (4, 5)
        assert scope.camera_settings() == {"level": 9, "window": (4, 5), "twice": 18, "port": 3}
        assert scope.set_setting("camera", "port", 3) == 3, "as it is"
        live = scope.ledger.cameras["camera"]["settings_changed"]
        scope.stop_acquisition()
        assert scope.wait_acquisition(10.0)
    changes = scope.ledger.cameras["camera"]["settings_changed"]
    assert changes == live
    said = [(change["setting"], change["before"], change["value"], change["by"]) for change in changes]
    by = "program"
    assert said == [
        ("level", 1, 5, by), ("twice", 2, 10, by), ("level", 5, 9, by), ("twice", 10, 18, by), ("window", [8, 10], [4, 5], by),
    ]  # fmt: skip
    assert changes[0]["from_id"] == 1
    with ms.storage.open_reader(tmp_path / "run.ome.zarr") as reader:
        assert reader.ledger["cameras"]["camera"]["settings_changed"] == changes
        levels = {int(frame_id): int(reader[k][0, 0]) for k, frame_id in enumerate(reader.frame_ids)}
    boundary = changes[2]["from_id"]
    assert {level for frame_id, level in levels.items() if frame_id < boundary} == {5}
    assert {level for frame_id, level in levels.items() if frame_id >= boundary} == {9}
    assert f"camera: level is 9, was 5, from frame {boundary} on; asked by program" in (scope.folder / "scope.log").read_text()
    audit = [json.loads(line) for line in (scope.folder / "audit.jsonl").read_text().splitlines()]
    assert [entry["who"] for entry in audit if entry["command"] == "scope.set_setting"] == ["program"] * 4


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    source = ms.SourceSettings(shape=(8, 8), dtype="uint8")
    with ms.Scope(cameras={"left": Bright()}, sources={"pushed": source}) as scope:
        for camera, setting, value, sentence in (
            ("left", "levle", 1, "Bright has no setting 'levle'; did you mean 'level'?"),
            ("left", "level", 100, "level must be a whole number from 1 to 99 counts, not 100"),
            ("left", "level", "x", "level must be .*, not 'x'"),
            ("left", "port", 4, "port of Bright cannot be changed while the camera is open \\(it is no live setting\\)"),
            ("right", "level", 4, "there is no camera 'right'; this scope has: left"),
            ("pushed", "level", 4, "pushed is a source, .*: it has no settings"),
        ):
            with pytest.raises(ConfigError, match=sentence):
                scope.set_setting(camera, setting, value)
            with pytest.raises(ConfigError, match=sentence):  # a worker, or a page, that sends the bare command
                scope.request(ms.SetSetting(camera=camera, setting=setting, value=value))
        with pytest.raises(CameraError, match="the device refuses 13"):
            scope.set_setting("left", "level", 13)
        with pytest.raises(RuntimeError, match="the SDK fell over"):
            scope.set_setting("left", "level", 14)
        assert scope.get_setting("left", "level") == 1
        with pytest.raises(ConfigError, match="has no setting 'x'"):
            scope.get_setting("left", "x")
        scope.start_acquisition(3, cameras=["left"])
        assert scope.wait_acquisition(10.0)
        assert scope.ledger.produced == 3
    assert "settings_changed" not in scope.ledger.cameras["left"]
    with pytest.raises(ScopeStateError, match="not running"):
        scope.set_setting("left", "level", 2)


def test_a_worker_may_send_the_command_and_sees_the_change() -> None:
    with ms.Scope(camera=Bright(), workers=[Changer]) as scope:
        answer, _ = scope.request(Brighten(level=7))
        assert answer == 7
        until(lambda: scope.state.camera_settings == {"camera": {"level": 7, "twice": 14}})
        answer, seen = scope.request(Brighten(level=7))
        assert seen == {"camera": {"level": 7, "twice": 14}}
        assert [change["by"] for change in scope.ledger.cameras["camera"]["settings_changed"]] == ["Changer"] * 2


def test_a_successor_opens_with_the_changed_value() -> None:
    with ms.Scope(camera=Bright()) as scope:
        scope.set_setting("camera", "level", 42)
        [before] = scope.status()
        os.kill(before.pid, signal.SIGKILL)
        until(lambda: (now := scope.status()[0]).restarts == 1 and now.state == "running")
        with scope.reader(policy="every") as reader:
            scope.start_acquisition(2)
            assert level_of(reader) == 42
        assert scope.get_setting("camera", "level") == 42


def test_an_instance_that_a_scope_runs_cannot_be_set() -> None:
    camera = Bright()
    camera.set("level", 2)
    with ms.Scope(cameras={"left": camera}) as scope:
        with pytest.raises(ScopeStateError, match=r"scope\.set_setting\('left', 'level', 5\)"):
            camera.set("level", 5)
        assert scope.get_setting("left", "level") == camera.get("level") == 2
    assert camera.set("level", 5) == 5
