"""What becomes of a driver's mistakes: one sentence, no frame in a wrong form, and no short delivery that counts as success."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import mutoscope as ms
from mutoscope.cameras import Camera, CopyingCamera, Setting
from mutoscope.model import PlaneIndex
from mutoscope.model.errors import BufferUnavailableError, CameraError, ConfigError


class Scripted(Camera):
    """Yields what it is told: the metadata of frame k are ``said[k]``, the last ones again and again; ends after `frames`."""

    said: tuple[Any, ...] = ({},)
    forms: tuple[tuple[tuple[int, int], str], ...] = ()
    announces = True
    forgets_buffer = False
    settings = (
        Setting(name="frames", kind="int", default=1_000_000, minimum=0, doc="After these, it ends."),
        Setting(name="as_generator", kind="bool", default=True, doc="Or nothing is yielded at all."),
    )
    shape, dtype = (8, 10), "uint16"

    def start_sequence(self, n: int | None, get_buffer: Any) -> Iterator[Mapping[str, Any]]:
        return self._frames(n, get_buffer) if self.get("as_generator") else None

    def _frames(self, n: int | None, get_buffer: Any) -> Iterator[Mapping[str, Any]]:
        for number in range(min(self.get("frames"), 1_000_000 if n is None else n)):
            self.idle(0.001)
            shape, dtype = self.forms[min(number, len(self.forms) - 1)] if self.forms else (self.shape, self.dtype)
            if self.announces:
                self.shape, self.dtype = shape, dtype
            if not self.forgets_buffer:
                get_buffer(shape, dtype)[:] = number + 1
            yield self.said[min(number, len(self.said) - 1)]


def make(**attributes: Any) -> type[Scripted]:
    return type("Scripted", (Scripted,), attributes)


BAD_METADATA = [
    ({"tik": 1}, "yields metadata with the key 'tik'; did you mean 'tick'\\? the keys are tick, exposure_ms, index"),
    ({"gain": 1}, "yields metadata with the key 'gain'; the keys are tick, exposure_ms"),
    ({"tick": 1.5}, "yields tick=1.5; it must be a whole number"),
    ({"tick": None}, "yields tick=None"),
    ({"tick": -1}, "yields tick=-1"),
    ({"exposure_ms": "5"}, "yields exposure_ms='5'; it must be a number, in ms"),
    ({"index": {"t": 1}}, "yields index={'t': 1}; it must be a mutoscope.model.PlaneIndex"),
    ({"user": b"x" * 65}, "it must be bytes such as b'lab', at most 64 of them"),
    ({"user": "x"}, "yields user='x'; it must be bytes such as b'lab'"),
    ({"utc_ns": "now"}, "yields utc_ns='now'"),
    (None, "yields None where the metadata of a frame go"),
]


@pytest.mark.parametrize(("metadata", "sentence"), BAD_METADATA)
def test_metadata_that_are_none_are_refused_in_one_sentence(metadata: Any, sentence: str) -> None:
    with make(said=(metadata,))() as camera, pytest.raises(ConfigError, match=sentence) as caught:
        list(camera.sequence(2, np.zeros))
    assert "\n" not in str(caught.value)


def test_metadata_of_every_key_pass() -> None:
    metadata = {"tick": np.uint32(1), "exposure_ms": np.float32(2), "index": PlaneIndex(t=1), "user": b"lab"}
    with make(said=(metadata | {"utc_ns": 1, "monotonic_ns": 2},))() as camera:
        assert len(list(camera.sequence(1, np.zeros))) == 1


@pytest.mark.parametrize(
    ("camera", "sentence"),
    [
        (make(forgets_buffer=True), "yielded metadata without having taken a buffer: call get_buffer"),
        (
            make(forms=(((4, 10), "uint16"),), announces=False),
            "a buffer of 4 x 10 px of uint16, .* say 8 x 10 px of uint16",
        ),
        (make(forms=(((8, 10), "uint8"),), announces=False), "asks for a buffer of 8 x 10 px of uint8"),
    ],
)
def test_a_driver_that_does_not_do_as_it_says_is_refused(camera: type[Scripted], sentence: str) -> None:
    with camera() as opened, pytest.raises(ConfigError, match=sentence):
        list(opened.sequence(2, np.zeros))


def test_start_sequence_that_returns_nothing_is_refused() -> None:
    with (
        make()(as_generator=False) as camera,
        pytest.raises(ConfigError, match="start_sequence of Scripted returned None"),
    ):
        list(camera.sequence(2, np.zeros))


def test_no_frames_from_a_camera_that_is_not_open() -> None:
    camera = make()()
    with pytest.raises(CameraError, match="Scripted is not open: open\\(\\) comes before its frames"):
        camera.sequence(1, np.zeros)


class Refusing(Camera):
    """Goes on when it is refused a buffer; its device drops ticks 4 and 5 and says so only by its tick, or by a count."""

    shape, dtype = (2, 2), "uint8"
    ticks = True

    def start_sequence(self, n: int | None, get_buffer: Any) -> Iterator[Mapping[str, Any]]:
        tick = delivered = 0
        while n is None or delivered < n:
            tick += 1
            if tick == 4:
                tick += 2
                if not self.ticks:
                    self.count("missed", 2)
            try:
                get_buffer(self.shape, self.dtype)[:] = 1
            except BufferUnavailableError:
                continue
            delivered += 1
            yield {"tick": tick} if self.ticks else {}


@pytest.mark.parametrize("ticks", [True, False])
def test_the_base_class_counts_exposures(ticks: bool) -> None:
    asked = iter(range(1, 100))

    def get_buffer(shape: Any, dtype: Any) -> Any:
        if next(asked) == 2:
            raise BufferUnavailableError("full")
        return np.zeros(shape, dtype)

    camera = Refusing()
    camera.ticks = ticks  # type: ignore[misc]
    with camera:
        for frames in (5, 2):
            assert len(list(camera.sequence(frames, get_buffer))) == frames
        health = camera.health()
    assert health["delivered"] == 7
    assert health["missed"] == 3
    assert health["exposed"] == 10


@pytest.mark.parametrize("said", [{"tick": 7}, {"tick": 0}])
def test_a_tick_that_does_not_advance_is_warned_about_once(said: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mutoscope"), make(said=(said,))() as camera:
        for _ in range(2):
            assert len(list(camera.sequence(8, np.zeros))) == 8
    assert caplog.text.count("does not advance") == 1
    assert f"it is {said['tick']} again" in caplog.text


class Copying(CopyingCamera):
    """Yields what it is told."""

    shape, dtype = (8, 10), "uint16"
    item: Any = None

    def frames(self) -> Iterator[Any]:
        yield self.item


class Returning(Copying):
    def frames(self) -> Any:
        return self.item


PIXELS = np.zeros((8, 10), "uint16")
BAD_ITEMS = [
    (
        Copying,
        PIXELS,
        "frames of Copying yields an array without metadata: yield \\(array, metadata\\), such as array, {'tick': 1}",
    ),
    (Copying, None, "frames of Copying yields None: yield"),
    (Copying, (7, {}), "frames of Copying yields \\(7, …\\): the first of the two is a NumPy array"),
    (Copying, (PIXELS, 3), "Copying yields 3 where the metadata of a frame go"),
    (Copying, (PIXELS, {"tick": "a"}), "Copying yields tick='a'; it must be a whole number"),
    (Returning, None, "frames of Returning returned None: it must yield \\(array, metadata\\)"),
]


def of_copying(kind: type[Copying], item: Any) -> Copying:
    return type(kind.__name__, (kind,), {"item": item})()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("kind", "item", "sentence"), BAD_ITEMS)
def test_frames_without_metadata_are_refused_in_one_sentence(kind: type[Copying], item: Any, sentence: str) -> None:
    with of_copying(kind, item) as camera, pytest.raises(ConfigError, match=sentence) as caught:
        list(camera.sequence(2, np.zeros))
    assert "\n" not in str(caught.value)


class OneArgument(Scripted):
    def start_sequence(self, n: int | None) -> Iterator[Mapping[str, Any]]:  # type: ignore[override]
        yield {}


BAD_FORMS = [
    (make(shape=(3, 32, 32)), "shape of Scripted is \\(y, x\\), two whole numbers above 0, not \\(3, 32, 32\\)"),
    (make(shape=(32, 0)), "shape of Scripted is .*, not \\(32, 0\\)"),
    (make(shape="32x32"), "shape of Scripted is .*, not '32x32'"),
    (make(dtype="uint12"), "dtype of Scripted is the name of a NumPy type such as 'uint8' or 'uint16', not 'uint12'"),
    (make(dtype=None), "dtype of Scripted is .*, not None"),
    (OneArgument, "start_sequence of OneArgument takes \\(n: .*: define it as start_sequence\\(self, n, get_buffer\\)"),
]


@pytest.mark.parametrize(("kind", "sentence"), BAD_FORMS)
def test_what_a_driver_says_wrongly_of_itself_is_refused_by_sequence(kind: type[Camera], sentence: str) -> None:
    with kind() as camera, pytest.raises(ConfigError, match=sentence):
        list(camera.sequence(1, lambda shape, dtype: np.zeros((2, 2))))


# In a scope


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        *BAD_FORMS,
        (make(rate_hz="fast"), "rate_hz of Scripted is a number of frames per second, .*, not 'fast'"),
        (make(rate_hz=-1), "-1"),
    ],
)
def test_what_a_driver_says_wrongly_of_itself_is_refused_before_anything_starts(kind: type[Camera], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        ms.Scope(camera=kind()).start()
    assert "\n" not in str(caught.value)


def test_an_array_without_metadata_is_told_at_once() -> None:
    with ms.Scope(camera=of_copying(Copying, PIXELS)) as scope:
        with pytest.raises(CameraError, match="frames of Copying yields an array without metadata"):
            scope.acquire(frames=5)
    assert scope.ledger.restarts == {}, "trying again would end in the same way"


def test_what_a_driver_does_wrong_ends_the_acquisition_and_uses_no_id() -> None:
    for attributes, sentence in (
        ({"said": ({"tick": 1}, {"tik": 2})}, "did you mean 'tick'"),
        ({"forms": (((8, 10), "uint16"), ((4, 10), "uint16")), "announces": False}, "asks for a buffer of 4 x 10 px"),
        ({"forms": (((8, 10), "uint16"), ((80, 100), "uint16"))}, "is 16,000 bytes, the slots of camera hold 4,096"),
    ):
        with ms.Scope(camera=make(**attributes)()) as scope:
            with pytest.raises(CameraError, match=sentence):
                scope.acquire(frames=5)
            assert scope.ledger.produced == 1
        assert scope.ledger.restarts == {}, "trying again would end in the same way"


def test_a_camera_that_announces_another_form_begins_a_further_image(tmp_path: Path) -> None:
    forms = (((8, 10), "uint16"), ((8, 10), "uint16"), ((4, 5), "uint16"), ((4, 5), "uint8"))
    with ms.Scope(camera=make(forms=forms)(), record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        scope.acquire(frames=6)
    with ms.storage.open_reader(tmp_path / "run.ome.zarr") as reader:
        assert reader.images == (".", "camera.1", "camera.2")
        assert [(reader[k].shape, int(reader[k][0, 0])) for k in (1, 2, 5)] == [((8, 10), 2), ((4, 5), 3), ((4, 5), 6)]


def test_what_cannot_be_stored_never_reaches_the_recorder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="camera 'camera': frames of complex64 cannot be stored"):
        ms.Scope(camera=make(dtype="complex64")(), record=tmp_path / "a.ome.zarr", reserve_bytes=0).start()
    forms = (((8, 10), "uint16"), ((4, 5), "complex64"))
    with ms.Scope(camera=make(forms=forms)(), record=tmp_path / "b.ome.zarr", reserve_bytes=0) as scope:
        with pytest.raises(CameraError, match="frames of complex64 cannot be stored"):
            scope.acquire(frames=6)
    assert (scope.ledger.produced, scope.ledger.stored) == (1, 1)


@pytest.mark.parametrize("frames", [0, 3])
def test_a_camera_that_stops_before_it_delivered_has_failed(frames: int, tmp_path: Path) -> None:
    with ms.Scope(camera=make()(frames=frames), record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        with pytest.raises(CameraError, match=f"the camera delivered {frames} of 100 frames and stopped: start_sequence of"):
            scope.acquire(frames=100)
        with pytest.raises(CameraError, match=f"the camera delivered {frames} frames and stopped, though it was to go on"):
            scope.acquire(seconds=20.0)
        assert scope.ledger.stored == 2 * frames
    assert any("stopped" in error for error in scope.result.errors)


def test_a_replay_that_ends_before_says_so(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "three.tif", np.zeros((3, 8, 8), "uint16"), photometric="minisblack")
    with ms.Scope(camera=ms.cameras.ReplayCamera(tmp_path / "three.tif", rate_hz=500.0)) as scope:
        result = scope.acquire(frames=10)
        assert result.reasons == {"camera": "exhausted"}
        assert result.messages == {"camera": "the camera delivered 3 of 10 frames and has no more"}
        assert scope.acquire().messages == {}


def test_a_frozen_tick_is_warned_about_in_the_users_program(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mutoscope"), ms.Scope(camera=make(said=({"tick": 5},))()) as scope:
        scope.acquire(frames=20)
    assert caplog.text.count("the tick of Scripted does not advance (it is 5 again)") == 1
