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
from numpy.typing import DTypeLike, NDArray

from mutoscope.cameras._travel import check_travel
from mutoscope.cameras.driver import Camera, SequenceStopped
from mutoscope.model.errors import BackendUnavailableError, BufferUnavailableError, CameraError, ConfigError
from mutoscope.model.install import install_command

try:
    import pytest
except ImportError as error:
    raise BackendUnavailableError(f"the conformance suite of cameras needs pytest: {install_command('pytest')}") from error

__all__ = ["CameraSuite"]

_POISON = 0xA5
_REFUSED = "no slot is free: catch BufferUnavailableError around get_buffer, and go on with the next exposure"


class _Buffers:
    """Hands out fresh poisoned buffers and remembers them; refuses those whose number `refuse` accepts."""

    def __init__(self, camera: Camera, refuse: Any = lambda number: False) -> None:
        self.camera = camera
        self.refuse = refuse
        self.asked = 0
        self.refused = 0
        self.current: NDArray[Any] | None = None

    def __call__(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        self.asked += 1
        if self.refuse(self.asked):
            self.refused += 1
            raise BufferUnavailableError(_REFUSED)
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
        asked = limit if n is None else n
        late = f"start_sequence has not yielded {asked} frames within {self.timeout_s:g} s (timeout_s of the suite)"
        plain = camera.waiter

        def waiter(timeout_s: float) -> None:
            assert time.monotonic() < end, late
            plain(min(timeout_s, 0.1))

        camera.waiter = waiter
        taken: list[tuple[Mapping[str, Any], NDArray[Any]]] = []
        sequence = camera.sequence(n, buffers)
        try:
            for metadata in sequence:
                assert buffers.current is not None, "call get_buffer for each frame before you yield its metadata"
                taken.append((metadata, buffers.current))
                buffers.current = None
                assert time.monotonic() < end, late
                if limit is not None and len(taken) >= limit:
                    break
        finally:
            sequence.close()
            camera.waiter = plain
        return taken

    # What it says of itself

    def test_constructing_opens_nothing(self) -> None:
        camera = self.make_camera()
        assert not camera.is_open, "leave the device alone in __init__: open_device opens it, in the camera's own process"
        camera.close()

    def test_it_travels_as_class_and_settings(self) -> None:
        camera = self.make_camera()
        check_travel(camera)
        other = pickle.loads(pickle.dumps(camera))
        assert type(other) is type(camera), "the class must be found by its module and name in another process"
        said = "must travel with it: leave __reduce__ to Camera"
        assert other.configuration() == camera.configuration(), f"its settings {said}"
        assert other.describe() == camera.describe(), f"the arguments of its constructor {said}"

    def test_its_description_is_plain(self) -> None:
        camera = self.make_camera()
        described = camera.describe()
        plain = "describe() is saved with the data as JSON: return plain values (str, int, float, bool, None, list, dict)"
        assert json.loads(json.dumps(described)) == described, plain
        missing = {"driver", "shape", "dtype", "rate_hz", "pixel_size_um", "settings", "units"} - set(described)
        assert not missing, f"describe() lacks {', '.join(sorted(missing))}: begin with super().describe()"
        msgspec.msgpack.encode(camera.configuration())

    def test_shape_dtype_and_rate(self) -> None:
        camera = self.make_camera()
        height, width = camera.shape
        said = f"shape is (y, x), two ints of at least 1, not {camera.shape!r}"
        assert isinstance(height, int), said
        assert isinstance(width, int), said
        assert min(height, width) >= 1, said
        assert np.dtype(camera.dtype).name == camera.dtype, f"dtype is NumPy's name of it as text, not {camera.dtype!r}"
        assert camera.rate_hz >= 0, f"rate_hz is 0 where it is unknown, else above, not {camera.rate_hz!r}"
        size = camera.pixel_size_um
        assert size is None or size > 0, f"pixel_size_um is None where it is unknown, else above 0, not {size!r}"

    # Settings

    def test_settings_are_described_and_their_defaults_fit(self) -> None:
        specs = type(self.make_camera()).settings
        for spec in specs:
            assert spec.doc, f"say in one line what {spec.name} is: Setting(name={spec.name!r}, …, doc=…)"
            if spec.default is not None:
                said = f"give {spec.name} a default of its own kind, {spec.check(spec.default)!r} and not {spec.default!r}"
                assert spec.check(spec.default) == spec.default, said
            assert json.dumps(spec.describe()), f"describe {spec.name} in plain values"

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
                said, rule = str(caught.value), f"the refusal of {spec.name} is one sentence with its name and unit"
                assert spec.name in said, f"{rule}, not {said!r}"
                assert spec.unit in said, f"{rule}, not {said!r}"
                assert "\n" not in said, f"{rule}, not {said!r}"
                assert camera.get(spec.name) == before, f"{spec.name} must keep its value when another one is refused"
            if spec.choices:
                with pytest.raises(ConfigError, match=spec.name):
                    camera.set(spec.name, "no such choice")

    def test_unknown_settings_are_refused(self) -> None:
        camera = self.make_camera()
        args, kwargs = camera._given
        with pytest.raises((ConfigError, TypeError), match="no_such_setting"):  # a TypeError where it takes no settings at all
            type(camera)(*args, **kwargs, no_such_setting=1)
        with pytest.raises(ConfigError, match="no_such_setting"):
            camera.set("no_such_setting", 1)
        with pytest.raises(ConfigError, match="no_such_setting"):
            camera.get("no_such_setting")

    # Lifetime

    def test_opening_and_closing_twice(self) -> None:
        camera = self.make_camera()
        states: list[bool] = []
        for act in (camera.open, camera.open, camera.close, camera.close):
            act()
            states.append(camera.is_open)
        said = f"is_open after open, open, close, close must be True, True, False, False, not {states}"
        assert states == [True, True, False, False], f"{said}: override open_device and close_device, not open and close"
        with camera:
            assert len(self.take(camera, 1, _Buffers(camera))) == 1, "closed and opened again, it must work again"
        assert not camera.is_open, "leaving `with camera:` must close it: leave __exit__ to Camera"

    def test_an_open_camera_stays_in_its_process(self) -> None:
        with self.make_camera() as camera, pytest.raises(TypeError, match="stays in its process"):
            pickle.dumps(camera)

    def test_no_frames_before_opening(self) -> None:
        camera = self.make_camera()
        try:
            taken = self.take(camera, 1, _Buffers(camera))
        except CameraError:
            taken = []
        assert not taken, "no frames from a camera that is not open: leave sequence() to Camera"

    # Frames

    def test_so_many_frames_and_no_more(self) -> None:
        with self.make_camera() as camera:
            buffers = _Buffers(camera)
            count = len(self.take(camera, self.frames, buffers))
            assert count == self.frames, f"start_sequence({self.frames}, …) must yield {self.frames} frames, not {count}"
            count = len(self.take(camera, 0, _Buffers(camera)))
            assert count == 0, f"start_sequence(0, …) must yield nothing, not {count} frames"
            health = camera.health()
        self._check_health(health, self.frames)

    def test_metadata(self) -> None:
        with self.make_camera() as camera:
            taken = self.take(camera, self.frames, _Buffers(camera))
        ticks = [metadata["tick"] for metadata, _ in taken if "tick" in metadata]
        said = f"tick is the camera's own counter: it begins at 1 or above and advances with every exposure, not {ticks}"
        assert ticks == sorted(set(ticks)), said
        assert not ticks or ticks[0] >= 1, said
        for metadata, _ in taken:
            exposure = metadata.get("exposure_ms", math.nan)
            assert math.isnan(exposure) or exposure > 0, f"exposure_ms is above 0, or left out, not {exposure!r}"

    def test_a_buffer_is_filled_and_then_left_alone(self) -> None:
        with self.make_camera() as camera:
            buffers = _Buffers(camera)
            kept: list[tuple[NDArray[Any], bytes]] = []
            for _ in camera.sequence(self.frames, buffers):
                assert buffers.current is not None, "call get_buffer for each frame before you yield its metadata"
                kept.append((buffers.current, buffers.current.tobytes()))
                buffers.current = None
        for array, content in kept:
            assert content != bytes([_POISON]) * len(content), "fill the buffer before you yield: it was not written to"
            assert array.tobytes() == content, "leave the buffer alone once you have yielded: it was written to after that"

    def test_an_endless_sequence_stops_and_starts_again(self) -> None:
        with self.make_camera() as camera:
            for what in ("start_sequence(None, …) must yield until it is closed", "it must work again after it was closed"):
                count = len(self.take(camera, None, _Buffers(camera), limit=2))
                assert count == 2, f"{what}: it gave {count} of 2 frames"
            health = camera.health()
        self._check_health(health, 4)

    def test_a_refused_buffer_is_counted_and_the_sequence_goes_on(self) -> None:
        with self.make_camera() as camera:
            buffers = _Buffers(camera, refuse=lambda number: number in (2, 3))
            taken = self.take(camera, self.frames, buffers)
            health = camera.health()
        said = "when get_buffer raises BufferUnavailableError, catch it, and go on with the next exposure until n are delivered"
        assert buffers.refused == 2, f"{said}; it asked {buffers.asked} times"
        assert len(taken) == self.frames, f"{said}; it gave {len(taken)} of {self.frames} frames"
        self._check_health(health, self.frames)
        missed = health["missed"]
        if not self.drops_when_refused:
            assert missed == 0, f"a camera that waits for its consumer loses nothing, and health() says {missed} missed"
            return
        assert missed >= 2, f"two buffers were refused, and health() says {missed} missed: leave the counting to Camera"
        ticks = [metadata["tick"] for metadata, _ in taken if "tick" in metadata]
        said = f"tick must advance for the exposures that were refused a buffer, too: two were, between {ticks[:2]}"
        assert not ticks or ticks[1] - ticks[0] >= 3, said
        exposures = ticks[-1] - ticks[0] + 1 if ticks else missed + len(taken)
        said = f"the ticks tell of {exposures - len(taken)} missed exposures, health() of {missed} missed"
        counted = missed == exposures - len(taken) or type(camera).counts_itself
        assert counted, f"{said}: Camera counts the buffers that were refused, leave them to it"

    def test_what_the_buffer_source_raises_ends_the_sequence(self) -> None:
        class Stop(Exception):
            pass

        def refuse(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
            raise Stop

        with self.make_camera() as camera:
            with pytest.raises(Stop):
                list(camera.sequence(1, refuse))
            assert len(self.take(camera, 1, _Buffers(camera))) == 1, "it must work again after get_buffer ended a sequence"

    def test_the_waiter_can_end_a_sequence(self) -> None:
        if not self.waits:
            pytest.skip("this driver never waits")

        def waiter(timeout_s: float) -> None:
            raise SequenceStopped

        with self.make_camera() as camera:
            plain, camera.waiter = camera.waiter, waiter
            end, stopped = time.monotonic() + self.timeout_s, False
            try:
                for _ in camera.sequence(None, _Buffers(camera)):
                    assert time.monotonic() < end, "wait with self.wait_until or self.idle (waits = False if it never waits)"
            except SequenceStopped:
                stopped = True
            assert stopped, "let SequenceStopped pass: it ends the sequence when a stop is asked for"
            camera.waiter = plain
            assert len(self.take(camera, 1, _Buffers(camera))) == 1, "it must work again after its sequence was stopped"

    def test_fixed_settings_stay_fixed_while_open(self) -> None:
        with self.make_camera() as camera:
            for spec in type(camera).settings:
                other = _another(spec, camera.get(spec.name))
                if spec.live or other is None:
                    continue
                with pytest.raises(ConfigError, match=f"{spec.name} .*cannot be changed while"):
                    camera.set(spec.name, other)

    @staticmethod
    def _check_health(health: Mapping[str, int], delivered: int) -> None:
        said = f"health() is {dict(health)}"
        assert health["delivered"] == delivered, f"{said}: delivered must be the {delivered} frames yielded"
        balance = health["delivered"] + health["missed"]
        assert health["exposed"] == balance, f"{said}: after a sequence exposed must be delivered + missed, {balance}"


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
