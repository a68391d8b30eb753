"""What the driver base classes do for any driver, and that the conformance suite finds faults."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest

from mutoscope import cameras
from mutoscope.cameras import Camera, CopyingCamera, Setting, SimulatedCamera, table
from mutoscope.cameras.settings import check_settings
from mutoscope.cameras.suite import CameraSuite
from mutoscope.model.errors import BackendUnavailableError, BufferUnavailableError, CameraError, ConfigError


class SdkCamera(CopyingCamera):
    """Stands for a camera whose SDK reuses one array, and which itself lost ticks 3 and 4."""

    settings = (
        Setting(name="gain", kind="float", default=1.0, unit="dB", minimum=0.0, maximum=24.0, step=0.5, doc="Gain.", live=True),
        Setting(name="mode", kind="str", default="slow", choices=("slow", "fast"), doc="Readout."),
    )
    running = 0

    @property
    def shape(self) -> tuple[int, int]:
        return (4, 6)

    @property
    def dtype(self) -> str:
        return "uint16"

    def frames(self) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        if not self.is_open:
            raise CameraError("not open")
        memory = np.zeros((4, 6), "uint16")
        self.running += 1
        try:
            tick = 0
            while True:
                tick += 1 if tick != 2 else 3
                self.idle()
                memory[:] = tick % 65536
                yield memory, {"tick": tick}
        finally:
            self.running -= 1


class TestSdkCamera(CameraSuite):
    def make_camera(self):
        return SdkCamera(gain=2.5)


def test_frames_are_copied_and_gaps_counted():
    kept = []

    def get_buffer(shape, dtype):
        if len(kept) == 4:
            kept.append(None)
            raise BufferUnavailableError("full")
        kept.append(np.zeros(shape, dtype))
        return kept[-1]

    with SdkCamera() as camera:
        ticks = [metadata["tick"] for metadata in camera.sequence(6, get_buffer)]
        assert camera.running == 0, "the iterator was closed when enough frames had come"
        health = camera.health()
    assert ticks == [1, 2, 5, 6, 8, 9]
    assert [int(frame[0, 0]) for frame in kept if frame is not None] == ticks
    assert (health["exposed"], health["delivered"], health["missed"]) == (9, 6, 3)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("gain", 24.5, "gain must be a number from 0 to 24 dB in steps of 0.5, not 24.5"),
        ("gain", 0.3, "in steps of 0.5, not 0.3"),
        ("gain", None, "gain must be a number from 0 to 24 dB in steps of 0.5, not None"),
        ("gain", [1], "not \\[1\\]"),
        ("mode", "Fast", "mode must be one of 'slow', 'fast', not 'Fast'"),
        ("gian", 1, "SdkCamera has no setting 'gian'; did you mean 'gain'?"),
        ("x", 1, "SdkCamera has no setting 'x'; it has gain, mode"),
    ],
)
def test_settings_say_what_fits(name, value, sentence):
    camera = SdkCamera()
    with pytest.raises(ConfigError, match=sentence):
        camera.set(name, value)
    with pytest.raises(ConfigError, match=sentence):
        SdkCamera(**{name: value})


def test_live_settings_reach_the_device_and_a_refusal_puts_them_back():
    class Device(SdkCamera):
        applied: list[Any] = []  # noqa: RUF012

        def apply_setting(self, name, value):
            if value == 3.0:
                raise CameraError("the device refuses a gain of 3")
            self.applied.append((name, value))

    with Device() as camera:
        assert camera.set("gain", 2) == 2.0
        with pytest.raises(CameraError, match="refuses"):
            camera.set("gain", 3)
        assert camera.get("gain") == 2.0
        with pytest.raises(ConfigError, match="mode of Device cannot be changed while the camera is open"):
            camera.set("mode", "fast")
        assert camera.set("mode", "slow") == "slow"
    assert camera.applied == [("gain", 2.0)]


def test_bounds_in_words():
    assert Setting(name="a", kind="int").expected() == "a whole number"
    assert Setting(name="a", kind="float", minimum=1, unit="s", optional=True).expected() == "a number of at least 1 s or None"
    assert Setting(name="a", kind="float", maximum=2.5).expected() == "a number of at most 2.5"
    assert Setting(name="a", kind="bool").expected() == "true or false"
    assert check_settings("x", [Setting(name="a", kind="ids")], {"a": 3}) == {"a": (3,)}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"kind": "flaot"}, "setting 'gain': there is no kind 'flaot'; did you mean 'float'\\?"),
        ({"kind": "colour"}, "there is no kind 'colour'; there are int, float, bool, str, path, shape, ids"),
        ({"name": "the gain", "kind": "int"}, "a Python name such as 'exposure_ms', not 'the gain'"),
        ({"kind": "float", "minimum": 5, "maximum": 1}, "its minimum 5 is above its maximum 1"),
        ({"kind": "float", "minimum": "1"}, "its minimum is a number, not '1'"),
        ({"kind": "float", "maximum": float("nan")}, "its maximum is a number, not nan"),
        ({"kind": "int", "minimum": 0.5}, "its minimum is a whole number as its values are, not 0.5"),
        ({"kind": "str", "minimum": 1}, "text has no minimum, and 1 is given"),
        ({"kind": "bool", "step": 1}, "true or false has no step, and 1 is given"),
        ({"kind": "float", "step": 0}, "its step is above 0, not 0"),
        (
            {"kind": "float", "step": 5, "minimum": 0, "maximum": 2},
            "its step 5 is more than the 2 from its minimum to its",
        ),
        ({"kind": "str", "unit": "ms"}, "text has no unit, and 'ms' is given"),
        ({"name": "exposure_ms", "kind": "float", "unit": "s"}, "its name says ms, its unit is 's'"),
        ({"kind": "str", "choices": ("slow", 3)}, "the choice 3 is not text within its bounds"),
        ({"kind": "str", "choices": ("slow", "slow")}, "the choice 'slow' is there twice"),
        ({"kind": "str", "choices": "slow"}, "its choices are a tuple, not 'slow'"),
        ({"kind": "int", "choices": (1, 2, 40), "maximum": 16}, "the choice 40 is not a whole number within its bounds"),
        ({"kind": "int", "default": 17, "maximum": 16}, "its default does not fit: gain must be .* at most 16, not 17"),
        ({"kind": "str", "default": "fast", "choices": ("slow",)}, "its default does not fit: gain must be one of 'slow'"),
    ],
)
def test_a_setting_that_contradicts_itself_is_refused(given, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Setting(**{"name": "gain", **given})


def test_settings_that_are_none_or_there_twice_are_refused():
    with pytest.raises(ConfigError, match="x has two settings of the name 'a'"):
        check_settings("x", [Setting(name="a", kind="int"), Setting(name="a", kind="str")], {})
    with pytest.raises(ConfigError, match="the settings of x are a tuple of Setting"):
        check_settings("x", ["a"], {})
    assert Setting(name="mode", kind="str", choices=["slow", "fast"]).choices == ("slow", "fast")


def test_a_camera_that_fails_to_open_is_not_open():
    class Broken(SdkCamera):
        closed = 0

        def open_device(self):
            raise CameraError("no such serial number")

        def close_device(self):
            self.closed += 1

    camera = Broken()
    with pytest.raises(CameraError, match="serial"), camera:
        pass
    camera.close()
    assert not camera.is_open
    assert camera.closed == 0


def test_the_suite_without_pytest_says_how_to_get_it():
    code = "import sys; sys.modules['pytest'] = None\nfrom mutoscope.cameras.suite import CameraSuite\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.splitlines()[-1].endswith("the conformance suite of cameras needs pytest: pip install pytest")


# The table


def test_drivers_by_name():
    assert [spec.name for spec in cameras.available()][:2] == ["simulated", "replay"]
    camera = cameras.create("simulated", shape=(8, 9))
    assert isinstance(camera, SimulatedCamera)
    assert camera.shape == (8, 9)
    assert cameras.find("replay") is cameras.ReplayCamera
    with pytest.raises(ConfigError, match="no camera driver 'andor'; there are simulated, replay"):
        cameras.create("andor")


@pytest.mark.parametrize(
    ("target", "error", "sentence"),
    [
        ("no_such_module_at_all:Camera", BackendUnavailableError, "cannot be imported .*no_such_module_at_all"),
        ("mutoscope.cameras.simulated:Nothing", ConfigError, "which does not exist"),
        ("mutoscope.cameras.settings:Setting", ConfigError, "which is no Camera"),
    ],
)
def test_a_driver_of_another_package_that_does_not_load(monkeypatch, target, error, sentence):
    point = EntryPoint("lab", target, table.ENTRY_POINTS)
    monkeypatch.setattr(table, "entry_points", lambda group: [point])
    assert cameras.available()[-1].name == "lab"
    with pytest.raises(error, match=sentence):
        cameras.find("lab")


def test_a_driver_of_another_package(monkeypatch):
    point = EntryPoint("lab", "mutoscope.cameras.simulated:SimulatedCamera", table.ENTRY_POINTS)
    monkeypatch.setattr(table, "entry_points", lambda group: [point])
    assert isinstance(cameras.create("lab", rate_hz=5), SimulatedCamera)


# The suite finds what is wrong


class _Fine(SdkCamera):
    pass


class WritesLate(Camera):
    """Fills the buffer it gave away."""

    shape, dtype = (4, 6), "uint16"

    def start_sequence(self, n, get_buffer):
        last = None
        for tick in range(1, 1 + (n or 1000)):
            buffer = get_buffer(self.shape, self.dtype)
            if last is not None:
                last[0] = tick
            buffer[:] = last = buffer
            self.counters["exposed"] += 1
            self.counters["delivered"] += 1
            yield {"tick": tick}


class NeverFills(WritesLate):
    def start_sequence(self, n, get_buffer):
        for tick in range(1, 1 + (n or 1000)):
            get_buffer(self.shape, self.dtype)
            yield {"tick": tick}


class OneTooMany(SdkCamera):
    def start_sequence(self, n, get_buffer):
        return super().start_sequence(None if n is None else n + 1, get_buffer)


class DoesNotCount(SdkCamera):
    def count(self, name, amount=1):
        if name != "missed":
            super().count(name, amount)


class StopsAtRefusal(SdkCamera):
    def take_buffer(self, array, get_buffer):
        return get_buffer(array.shape, array.dtype)


class KeepsStopToItself(SdkCamera):
    def idle(self, timeout_s=0.0):
        pass


class OpensInInit(SdkCamera):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.open()


class WrongShape(SdkCamera):
    shape = (4, 5)


FAULTS = [
    (WritesLate, "test_a_buffer_is_filled_and_then_left_alone"),
    (NeverFills, "test_a_buffer_is_filled_and_then_left_alone"),
    (OneTooMany, "test_so_many_frames_and_no_more"),
    (DoesNotCount, "test_a_refused_buffer_is_counted_and_the_sequence_goes_on"),
    (StopsAtRefusal, "test_a_refused_buffer_is_counted_and_the_sequence_goes_on"),
    (KeepsStopToItself, "test_the_waiter_can_end_a_sequence"),
    (OpensInInit, "test_constructing_opens_nothing"),
    (WrongShape, "test_so_many_frames_and_no_more"),
]


@pytest.mark.parametrize(("driver", "test"), FAULTS, ids=lambda item: getattr(item, "__name__", item))
def test_the_suite_finds_faults(driver, test):
    suite = CameraSuite()
    suite.timeout_s = 0.5
    suite.make_camera = _Fine
    getattr(suite, test)()
    suite.make_camera = driver
    with pytest.raises((AssertionError, BufferUnavailableError, ConfigError)) as caught:
        getattr(suite, test)()
    assert len(str(caught.value).split()) > 6, "it says what the driver must do"
