"""The conformance suite of cameras: subclass it in a test file, and pytest checks a driver.

::

    from mutoscope.cameras.suite import CameraSuite

    class TestMyCamera(CameraSuite):
        def make_camera(self):
            return MyCamera(serial="1234")

Needs pytest, and the device where there is one.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from mutoscope.cameras.driver import Camera, SequenceStopped
from mutoscope.model import PlaneIndex
from mutoscope.model.errors import BufferUnavailableError, CameraError, ConfigError

__all__ = ["CameraSuite"]

_POISON = 0xA5


class _Buffers:
    """Hands out fresh poisoned buffers and remembers them; refuses those whose number `refuse` accepts."""

    def __init__(self, camera: Camera, refuse: Any = lambda number: False) -> None:
        self.camera = camera
        self.refuse = refuse
        self.asked = 0
        self.refused = 0
        self.current: NDArray[Any] | None = None

    def __call__(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        assert tuple(shape) == tuple(self.camera.shape), f"asked for {tuple(shape)}, its shape is {self.camera.shape}"
        assert np.dtype(dtype) == np.dtype(self.camera.dtype), f"asked for {dtype}, its dtype is {self.camera.dtype}"
        self.asked += 1
        if self.refuse(self.asked):
            self.refused += 1
            raise BufferUnavailableError("no slot is free")
        height, width = shape
        raw = np.full(height * width * np.dtype(dtype).itemsize, _POISON, np.uint8)
        self.current = raw.view(dtype).reshape(height, width)
        return self.current


class CameraSuite:
    """Checks of one driver. Override :meth:`make_camera`; the attributes say what a driver does differently.

    Attributes
    ----------
    frames : int
        How many frames a test takes.
    timeout_s : float
        Most seconds that they take.
    drops_when_refused : bool
        Whether an exposure without a buffer is lost (False for a camera that waits for its consumer).
    waits : bool
        Whether the driver waits through ``waiter`` or :meth:`Camera.idle` between frames.
    """

    frames = 5
    timeout_s = 20.0
    drops_when_refused = True
    waits = True

    def make_camera(self) -> Camera:
        """Return a new camera, not opened."""
        raise NotImplementedError("return a camera that is not opened")

    def take(self, camera: Camera, n: int | None, buffers: _Buffers, limit: int | None = None) -> list[tuple[Any, Any]]:
        """Take frames with a deadline; returns (metadata, buffer) pairs."""
        end = time.monotonic() + self.timeout_s
        plain = camera.waiter

        def waiter(timeout_s: float) -> None:
            assert time.monotonic() < end, f"no {n} frames within {self.timeout_s} s"
            plain(min(timeout_s, 0.1))

        camera.waiter = waiter
        taken: list[tuple[Mapping[str, Any], NDArray[Any]]] = []
        sequence = camera.start_sequence(n, buffers)
        try:
            for metadata in sequence:
                assert buffers.current is not None, "metadata without a buffer taken"
                taken.append((metadata, buffers.current))
                buffers.current = None
                assert time.monotonic() < end, f"no {n} frames within {self.timeout_s} s"
                if limit is not None and len(taken) >= limit:
                    break
        finally:
            sequence.close()  # type: ignore[attr-defined]  # a generator, by the interface
            camera.waiter = plain
        return taken

    # What it says of itself

    def test_constructing_opens_nothing(self) -> None:
        camera = self.make_camera()
        assert not camera.is_open
        camera.close()

    def test_it_travels_as_class_and_settings(self) -> None:
        camera = self.make_camera()
        configuration = camera.configuration()
        assert type(camera)(**configuration).configuration() == configuration
        other = pickle.loads(pickle.dumps(camera))
        assert type(other) is type(camera)
        assert other.configuration() == configuration

    def test_its_description_is_plain(self) -> None:
        camera = self.make_camera()
        described = camera.describe()
        assert json.loads(json.dumps(described)) == described
        assert {"driver", "shape", "dtype", "rate_hz", "pixel_size_um", "settings", "units"} <= set(described)
        msgspec.msgpack.encode(camera.configuration())

    def test_shape_dtype_and_rate(self) -> None:
        camera = self.make_camera()
        height, width = camera.shape
        assert isinstance(height, int)
        assert isinstance(width, int)
        assert min(height, width) >= 1
        assert np.dtype(camera.dtype).name == camera.dtype
        assert camera.rate_hz >= 0
        assert camera.pixel_size_um is None or camera.pixel_size_um > 0

    # Settings

    def test_settings_are_described_and_their_defaults_fit(self) -> None:
        specs = type(self.make_camera()).settings
        assert len({spec.name for spec in specs}) == len(specs)
        for spec in specs:
            assert spec.doc, f"{spec.name} says nothing of itself"
            if spec.default is not None:
                assert spec.check(spec.default) == spec.default, spec.name
            assert json.dumps(spec.describe())

    def test_values_out_of_bounds_are_refused_in_one_sentence(self) -> None:
        camera = self.make_camera()
        for spec in type(camera).settings:
            for bound, step in ((spec.minimum, -1), (spec.maximum, 1)):
                if bound is None or spec.choices:
                    continue
                beyond: Any = type(spec.check(_at(spec.kind, bound)))(_at(spec.kind, bound + step))
                before = camera.get(spec.name)
                with pytest.raises(ConfigError) as caught:
                    camera.set(spec.name, beyond)
                said = str(caught.value)
                assert spec.name in said
                assert spec.unit in said
                assert "\n" not in said
                assert camera.get(spec.name) == before
            if spec.choices:
                with pytest.raises(ConfigError, match=spec.name):
                    camera.set(spec.name, "no such choice")

    def test_unknown_settings_are_refused(self) -> None:
        camera = self.make_camera()
        with pytest.raises(ConfigError, match="no_such_setting"):
            type(camera)(**{**camera.configuration(), "no_such_setting": 1})
        with pytest.raises(ConfigError, match="no_such_setting"):
            camera.set("no_such_setting", 1)
        with pytest.raises(ConfigError, match="no_such_setting"):
            camera.get("no_such_setting")

    # Lifetime

    def test_opening_and_closing_twice(self) -> None:
        camera = self.make_camera()
        states = []
        for act in (camera.open, camera.open, camera.close, camera.close):
            act()
            states.append(camera.is_open)
        assert states == [True, True, False, False]
        with camera:
            assert len(self.take(camera, 1, _Buffers(camera))) == 1
        assert not camera.is_open

    def test_an_open_camera_stays_in_its_process(self) -> None:
        with self.make_camera() as camera, pytest.raises(TypeError, match="stays in its process"):
            pickle.dumps(camera)

    def test_no_frames_before_opening(self) -> None:
        camera = self.make_camera()
        with pytest.raises(CameraError):
            self.take(camera, 1, _Buffers(camera))

    # Frames

    def test_so_many_frames_and_no_more(self) -> None:
        with self.make_camera() as camera:
            buffers = _Buffers(camera)
            assert len(self.take(camera, self.frames, buffers)) == self.frames
            assert self.take(camera, 0, _Buffers(camera)) == []
            health = camera.health()
        assert health["delivered"] == self.frames
        assert health["exposed"] == health["delivered"] + health["overruns"]

    def test_metadata(self) -> None:
        with self.make_camera() as camera:
            taken = self.take(camera, self.frames, _Buffers(camera))
        ticks = [metadata["tick"] for metadata, _ in taken if "tick" in metadata]
        assert ticks == sorted(set(ticks)), "ticks advance"
        assert not ticks or ticks[0] >= 1
        for metadata, _ in taken:
            exposure = metadata.get("exposure_ms", math.nan)
            assert math.isnan(exposure) or exposure > 0
            assert isinstance(metadata.get("index", PlaneIndex()), PlaneIndex)
            assert isinstance(metadata.get("user", b""), bytes)

    def test_a_buffer_is_filled_and_then_left_alone(self) -> None:
        with self.make_camera() as camera:
            buffers = _Buffers(camera)
            kept: list[tuple[NDArray[Any], bytes]] = []
            sequence = camera.start_sequence(self.frames, buffers)
            for _ in sequence:
                assert buffers.current is not None
                kept.append((buffers.current, buffers.current.tobytes()))
                buffers.current = None
        for array, content in kept:
            assert content != bytes([_POISON]) * len(content), "the buffer was not filled"
            assert array.tobytes() == content, "the buffer was written to after it was given away"

    def test_an_endless_sequence_stops_and_starts_again(self) -> None:
        with self.make_camera() as camera:
            assert len(self.take(camera, None, _Buffers(camera), limit=2)) == 2
            assert len(self.take(camera, None, _Buffers(camera), limit=2)) == 2
            health = camera.health()
            assert health["delivered"] == 4
            assert health["exposed"] == health["delivered"] + health["overruns"]

    def test_a_refused_buffer_is_counted_and_the_sequence_goes_on(self) -> None:
        with self.make_camera() as camera:
            buffers = _Buffers(camera, refuse=lambda number: number in (2, 3))
            taken = self.take(camera, self.frames, buffers)
            health = camera.health()
        assert buffers.refused == 2
        assert len(taken) == self.frames
        assert health["exposed"] == health["delivered"] + health["overruns"]
        if self.drops_when_refused:
            assert health["overruns"] >= 2
            ticks = [metadata["tick"] for metadata, _ in taken if "tick" in metadata]
            assert not ticks or ticks[1] - ticks[0] >= 3, "the ticks of the refused exposures are missing"
        else:
            assert health["overruns"] == 0

    def test_what_the_buffer_source_raises_ends_the_sequence(self) -> None:
        class Stop(Exception):
            pass

        def refuse(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
            raise Stop

        with self.make_camera() as camera:
            with pytest.raises(Stop):
                list(camera.start_sequence(1, refuse))
            assert len(self.take(camera, 1, _Buffers(camera))) == 1, "and the camera still works"

    def test_the_waiter_can_end_a_sequence(self) -> None:
        if not self.waits:
            pytest.skip("this driver never waits")

        def waiter(timeout_s: float) -> None:
            raise SequenceStopped

        with self.make_camera() as camera:
            plain, camera.waiter = camera.waiter, waiter
            end, stopped = time.monotonic() + self.timeout_s, False
            try:
                for _ in camera.start_sequence(None, _Buffers(camera)):
                    assert time.monotonic() < end, "the driver never waits through its waiter"
            except SequenceStopped:
                stopped = True
            assert stopped, "the driver keeps SequenceStopped to itself"
            camera.waiter = plain
            assert len(self.take(camera, 1, _Buffers(camera))) == 1, "and the camera still works"

    def test_fixed_settings_stay_fixed_while_open(self) -> None:
        with self.make_camera() as camera:
            for spec in type(camera).settings:
                other = _another(spec, camera.get(spec.name))
                if spec.live or other is None:
                    continue
                with pytest.raises(ConfigError, match=f"{spec.name} .*cannot be changed while"):
                    camera.set(spec.name, other)


def _at(kind: str, value: float) -> Any:
    whole = int(value)
    return {"int": whole, "shape": (whole, whole), "ids": (whole,)}.get(kind, float(value))


def _another(spec: Any, value: Any) -> Any:
    """Return a value that fits and differs, or None where none is easily found."""
    if spec.choices:
        return next((choice for choice in spec.choices if choice != value), None)
    if spec.kind == "bool":
        return not value
    if spec.kind in ("int", "float") and spec.step is None:
        for other in (spec.minimum, spec.maximum):
            if other is not None and other != value:
                return _at(spec.kind, other)
    return None
