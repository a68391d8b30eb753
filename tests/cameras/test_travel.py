"""A camera is in its own process what it is in the user's program, or is refused."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import mutoscope as ms
from mutoscope.cameras import Camera, Setting
from mutoscope.cameras.suite import CameraSuite
from mutoscope.model.errors import BufferUnavailableError, ConfigError


class Plain(Camera):
    """Its frames show what `pixel` says."""

    shape, dtype = (8, 10), "uint16"
    settings = (Setting(name="gain", kind="int", default=1, minimum=1, maximum=9, doc="Times the port."),)
    pixel = 1

    def start_sequence(self, n: int | None, get_buffer: Any) -> Iterator[Mapping[str, Any]]:
        delivered = 0
        while n is None or delivered < n:
            self.idle(0.001)
            try:
                get_buffer(self.shape, self.dtype)[:] = self.pixel
            except BufferUnavailableError:
                continue
            delivered += 1
            yield {}


class Port(Plain):
    def __init__(self, port: int, box: Any = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.port = port
        self.box = box
        self.made_at = time.monotonic_ns()  # differs with each construction: nobody expects it to travel

    @property
    def pixel(self) -> int:  # type: ignore[override]
        return self.port * self.get("gain")


class NoSettings(Plain):
    def __init__(self, port: int = 3) -> None:
        super().__init__()
        self.pixel = port


class Forgetful(Plain):
    def __init__(self, port: int) -> None:
        self.port = port


class TestPort(CameraSuite):
    def make_camera(self) -> Camera:
        return Port(7, gain=2)


class TestNoSettings(CameraSuite):
    def make_camera(self) -> Camera:
        return NoSettings(port=7)


@pytest.mark.parametrize("camera", [Port(7, gain=2), Port(port=14), NoSettings(14)])
def test_arguments_of_the_constructor_reach_the_camera(camera: Camera) -> None:
    with ms.Scope(camera=camera) as scope:
        reader = scope.reader(policy="every", on_full="block")
        scope.start_acquisition(3)
        with reader, reader.next(timeout_s=5.0) as frame:
            assert int(frame.array[0, 0]) == 14


def test_a_setting_changed_since_wins_over_the_argument() -> None:
    camera = Port(7, gain=2)
    camera.set("gain", 5)
    assert pickle.loads(pickle.dumps(camera)).pixel == 35


def test_arguments_are_saved_with_the_data() -> None:
    assert Port(7, box=("a", np.int64(1)), gain=2).describe()["arguments"] == {"port": 7, "box": ["a", "1"]}
    assert "arguments" not in Plain(gain=2).describe()


def changed() -> Camera:
    camera = Port(7)
    camera.port = 9
    return camera


def opened() -> Camera:
    camera = Plain()
    camera.open()
    return camera


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (changed, "port of Port is 9 here and would be 7 in the camera's process"),
        (
            lambda: Port(7, box=threading.Lock()),
            "the argument 'box' of Port cannot travel to the camera's process \\(cannot pickle",
        ),
        (
            lambda: Forgetful(3),
            "the constructor of Forgetful has not called super\\(\\).__init__\\(\\*\\*settings\\): call it first",
        ),
        (opened, "Plain is open here: close it first"),
    ],
)
def test_what_cannot_travel_is_refused_before_anything_starts(make: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        ms.Scope(camera=make()).start()
    assert "\n" not in str(caught.value)


def test_the_suite_finds_what_does_not_travel() -> None:
    class Suite(CameraSuite):
        def make_camera(self) -> Camera:
            return changed()

    with pytest.raises(ConfigError, match="port of Port is 9 here"):
        Suite().test_it_travels_as_class_and_settings()


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'port'"):
        Port()  # type: ignore[call-arg]
