"""What a camera driver is: a class with settings that fills buffers it is handed.

An instance is only a class and its settings until it is opened, so that it can travel to the process in which the device is
opened. Nothing here knows of rings, workers or scopes.
"""

from __future__ import annotations

import inspect
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from mutoscope.cameras._form import check_call, form_of
from mutoscope.cameras._sequence import FROZEN, ExposureCount, check_metadata
from mutoscope.cameras.settings import Setting, check_settings, unknown_setting
from mutoscope.frames import copy_out
from mutoscope.model.errors import BufferUnavailableError, CameraError, ConfigError, ScopeStateError

__all__ = ["Camera", "CopyingCamera", "GetBuffer", "SequenceStopped", "sleep"]

log = logging.getLogger(__name__)

GetBuffer = Callable[[Sequence[int], DTypeLike], NDArray[Any]]
"""Hands out a writable array of the shape ``(y, x)`` and dtype asked for; may raise :class:`BufferUnavailableError`."""

_WAIT_S = 0.1
_ENDED = object()
FROZEN_TICK = (
    "the tick of %s does not advance (it is %d again): exposures that are missed cannot be counted; "
    "yield the camera's own counter of exposures, or leave 'tick' out"
)


class SequenceStopped(Exception):
    """Raised by a :attr:`Camera.waiter` to end a sequence; a driver lets it pass."""


def sleep(timeout_s: float) -> None:
    """Wait as a camera on its own does; the default of :attr:`Camera.waiter`."""
    time.sleep(timeout_s)


class _FromConstructor:
    """Stands for what the constructor of :class:`Camera` makes, until it has."""

    def __get__(self, camera: Camera | None, owner: type[Camera]) -> Any:
        raise ConfigError(
            f"the constructor of {owner.__name__} has not called super().__init__(**settings): call it first, it makes the "
            "settings"
        )


class Camera(ABC):
    """A camera driver.

    A subclass lists its :attr:`settings`, says its shape, dtype and rate, and implements :meth:`start_sequence`; most override
    :meth:`open_device` and :meth:`close_device`. What is the same for every driver happens in :meth:`sequence`, which is how
    frames are taken: it needs an open camera, checks buffers and metadata, and counts exposures. One thread uses an instance,
    in one process: the camera's own.

    An instance travels to that process as its class, the arguments of its constructor and its settings, and is constructed
    there again. A constructor of a driver's own may take arguments that are no settings; they are plain values, and are saved
    with the data. It passes the others on: ``super().__init__(**settings)``.

    Parameters
    ----------
    **settings
        Values for the class's settings; what is not given has its default. Nothing is opened.

    Raises
    ------
    ConfigError
        For an unknown setting or a value that does not fit; one sentence.

    Attributes
    ----------
    waiter : callable
        Called with a time in seconds by a driver that waits, so that its process can do other things meanwhile. It may return
        early, and may raise :class:`SequenceStopped`.
    incarnation : int
        How many times this camera's process was started again after a failure; set by the process before opening.
    already_delivered : int
        How many frames an earlier process delivered of the sequence that is started next; set before :meth:`start_sequence`. A
        camera that shows stored data goes on after them, others take no notice.
    counters : dict of str to int
        See :meth:`health`.
    ends : bool
        Of a class: whether its frames come to an end (a replay). Any other camera that stops before it gave what it was asked
        for has failed.
    lent_as : str or None
        The name under which a scope of this program runs the camera; set by the scope.
    counts_itself : bool
        Of a class: whether the driver counts ``exposed``, ``delivered`` and ``missed`` itself, because it knows more than its
        ticks and the buffers that it was refused tell.
    """

    settings: ClassVar[tuple[Setting, ...]] = ()
    ends: ClassVar[bool] = False
    counts_itself: ClassVar[bool] = False
    waiter: Callable[[float], object]
    lent_as: str | None = None
    _given: tuple[tuple[Any, ...], dict[str, Any]]
    _values: Any = _FromConstructor()
    _open: Any = _FromConstructor()

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember the arguments: they travel."""
        self = super().__new__(cls)
        self._given = args, kwargs
        return self

    def __init__(self, **settings: Any) -> None:
        self._values = check_settings(type(self).__name__, type(self).settings, settings)
        self._open = False
        self.waiter = sleep
        self.incarnation = 0
        self.already_delivered = 0
        self.counters: dict[str, int] = {}
        self._form: tuple[Any, Any] | None = None
        self._ticks_are_frozen = False
        self._clear_counters()

    # What it is

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """``(y, x)`` of the frames in pixels."""

    @property
    @abstractmethod
    def dtype(self) -> str:
        """NumPy name of the pixels' type."""

    @property
    def rate_hz(self) -> float:
        """Frames per second as set; 0 where it depends on somebody else (a trigger, a consumer)."""
        return 0.0

    @property
    def pixel_size_um(self) -> float | None:
        """Edge of a square pixel in the sample, None where it is unknown."""
        return None

    @property
    def exposure_ms(self) -> float:
        """Exposure as set, NaN where it is unknown."""
        return float("nan")

    # Lifetime

    @property
    def is_open(self) -> bool:
        """Whether the device is open here."""
        return bool(self._open)

    def open(self) -> None:
        """Open the device; nothing if it is open.

        Raises
        ------
        CameraBusyError
            If it may work soon: the device is held, or has not yet noticed that its last holder died. ``retry`` is true.
        CameraError
            If it will not work.
        """
        if self._open:
            return
        self._clear_counters()
        self.open_device()
        self._open = True

    def close(self) -> None:
        """Close the device; a second time does nothing."""
        if not self._open:
            return
        self._open = False
        self.close_device()

    def open_device(self) -> None:  # noqa: B027  (nothing to do is a fair default)
        """Open the hardware. Override where there is some; clean up before raising."""

    def close_device(self) -> None:  # noqa: B027
        """Close the hardware. Override where there is some; called once for each successful opening."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Frames

    @abstractmethod
    def start_sequence(self, n: int | None, get_buffer: GetBuffer) -> Iterator[Mapping[str, Any]]:
        """Acquire frames: take a buffer, fill it, yield its metadata. For a driver to implement; :meth:`sequence` calls it.

        The form of ``pymmcore_plus.experimental.unicore.CameraDevice.start_sequence``, so that drivers port both ways.

        Parameters
        ----------
        n : int or None
            How many frames to deliver; None for no end.
        get_buffer : callable
            Called with ``(shape, dtype)`` for each frame; the array belongs to the driver until it yields. When it raises
            :class:`BufferUnavailableError` the exposure is dropped and counted, and the driver goes on with the next one. It
            may block, and then exposures may be missed meanwhile. Anything else that it raises ends the sequence.

        Yields
        ------
        mapping
            Metadata of the frame just filled, published when this is yielded. All keys are optional, others are refused:
            ``tick`` (the camera's own counter of exposures, from 1: it advances with each one, so that a gap is a missed
            exposure; left out where the camera has none), ``exposure_ms``, ``index`` (a :class:`~mutoscope.model.PlaneIndex`),
            ``monotonic_ns``, ``utc_ns``, ``user`` (at most 64 bytes).
        """

    def sequence(self, n: int | None, get_buffer: GetBuffer) -> Generator[Mapping[str, Any]]:
        """Take frames from the open camera: :meth:`start_sequence`, with what it asks for and yields checked and counted.

        Parameters
        ----------
        n, get_buffer
            As for :meth:`start_sequence`.

        Yields
        ------
        mapping
            As there.

        Raises
        ------
        CameraError
            At once, if the camera is not open.
        ConfigError
            If the driver asks for a buffer that differs from its `shape` and `dtype`, yields without having taken one, or
            yields metadata that are none.
        """
        if not self._open:
            raise CameraError(f"{type(self).__name__} is not open: open() comes before its frames")
        return self._checked_sequence(n, get_buffer)

    def _checked_sequence(self, n: int | None, get_buffer: GetBuffer) -> Generator[Mapping[str, Any]]:
        if n == 0:
            return
        name, count, taken = type(self).__name__, ExposureCount(self.counters, counted=self.counts_itself), False

        def give(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
            nonlocal taken
            if (shape, dtype) != self._form:
                self._check_form(shape, dtype)
            try:
                buffer = get_buffer(shape, dtype)
            except BufferUnavailableError:
                count.refused += 1
                count.settle()
                raise
            taken = True
            return buffer

        check_call(name, self.start_sequence, "n", "get_buffer")
        frames: Any = self.start_sequence(n, give)
        if not isinstance(frames, Iterator):
            raise ConfigError(
                f"start_sequence of {name} returned {frames!r}: it must yield metadata, such as {{'tick': 1}}, for each frame"
            )
        try:
            for metadata in frames:
                if not taken:
                    raise ConfigError(
                        f"{name} yielded metadata without having taken a buffer: call get_buffer(shape, dtype) for each frame, "
                        "fill the array that it returns, then yield"
                    )
                check_metadata(name, metadata)
                taken = False
                self.counters["timeouts_consecutive"] = 0
                if count.frame(metadata.get("tick")) >= FROZEN and not self._ticks_are_frozen:
                    self._ticks_are_frozen = True
                    log.warning(FROZEN_TICK, name, metadata["tick"])
                yield metadata
        finally:
            count.settle()
            if isinstance(frames, Generator):
                frames.close()

    def _check_form(self, shape: Sequence[int], dtype: DTypeLike) -> None:
        """Refuse a buffer of another form than the camera says it has now; a setting may have changed that."""
        name = type(self).__name__
        declared, wanted = form_of(name, self.shape, self.dtype), form_of(name, shape, dtype)
        if wanted != declared:
            raise ConfigError(
                f"{type(self).__name__} asks for a buffer of {_by(wanted[0])} px of {wanted[1]}, and its shape and dtype say "
                f"{_by(declared[0])} px of {declared[1]}: they must say what comes, also after it has changed"
            )
        self._form = (shape, dtype)

    def health(self) -> dict[str, int]:
        """Return the counters since opening.

        ``exposed`` (ticks), ``delivered`` (frames yielded), ``missed`` (exposures that never became frames: late, refused a
        buffer, or dropped by the device), ``timeouts`` and ``timeouts_consecutive`` (waits in which the device gave nothing),
        and what a driver adds. After a sequence ``exposed = delivered + missed``; while it runs the difference is what is
        still in the camera's own memory.

        :meth:`sequence` counts the first three: ``missed`` are the buffers refused and what the driver adds with
        ``count("missed", k)``, or, if that is more, the gaps in its ticks.
        """
        return dict(self.counters)

    # Settings

    def get(self, name: str) -> Any:
        """Return a setting's value; ConfigError for an unknown name."""
        if name not in self._values:
            raise ConfigError(unknown_setting(type(self).__name__, name, self._values))
        return self._values[name]

    def set(self, name: str, value: Any) -> Any:
        """Change a setting and return the value as set.

        Raises
        ------
        ConfigError
            If the name is unknown, the value does not fit, or the camera is open and the setting is fixed while it is.
        ScopeStateError
            If a scope runs this camera: its own process has it, and ``scope.set_setting`` reaches that.
        """
        spec = self.setting(name)
        checked = spec.check(value)
        if self.lent_as is not None:
            raise ScopeStateError(
                f"this {type(self).__name__} runs in a scope, in a process of its own, which a change here would not reach: "
                f"call scope.set_setting({self.lent_as!r}, {name!r}, {checked!r})"
            )
        if self._open and not spec.live and checked != self._values[name]:
            raise ConfigError(
                f"{name} of {type(self).__name__} cannot be changed while the camera is open (it is no live setting): give it "
                "before the start"
            )
        before = self._values[name]
        self._values[name] = checked
        try:
            self.check()
            if self._open and checked != before:
                self.apply_setting(name, checked)
        except Exception:
            self._values[name] = before
            raise
        return self._values[name]

    def setting(self, name: str) -> Setting:
        """Return the spec of a setting; ConfigError for an unknown name."""
        for spec in type(self).settings:
            if spec.name == name:
                return spec
        raise ConfigError(unknown_setting(type(self).__name__, name, self._values))

    def check(self) -> None:  # noqa: B027
        """Check what depends on several settings; override where something does. Raise ConfigError, one sentence."""

    def apply_setting(self, name: str, value: Any) -> None:  # noqa: B027
        """Carry a changed setting to the open device; override where there is one."""

    def configuration(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return dict(self._values)

    def arguments(self) -> dict[str, Any]:
        """Return, by name, what the constructor was given beside settings."""
        args, kwargs = self._given
        bound: dict[str, Any] = {}
        signature = inspect.signature(type(self).__init__)
        for name, value in signature.bind(self, *args, **kwargs).arguments.items():
            bound.update(value if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value})
        return {name: value for name, value in bound.items() if value is not self and name not in self._values}

    def describe(self) -> dict[str, Any]:
        """Return what is saved with the data: class, shape, dtype, rate, pixel size, settings and their units.

        Arguments of the constructor that are no settings are there too, as ``arguments``.
        """
        cls, given = type(self), self.arguments()
        arguments = {"arguments": msgspec.json.decode(msgspec.json.encode(given, enc_hook=str))} if given else {}
        return {
            "driver": f"{cls.__module__}:{cls.__qualname__}",
            "shape": list(self.shape),
            "dtype": self.dtype,
            "rate_hz": self.rate_hz,
            "pixel_size_um": self.pixel_size_um,
            "settings": {name: list(value) if isinstance(value, tuple) else value for name, value in self._values.items()},
            "units": {spec.name: spec.unit for spec in cls.settings if spec.unit},
            **arguments,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        if self._open:
            raise TypeError(f"an open {type(self).__name__} stays in its process; send it before opening")
        return _rebuild, (type(self), *self._given, self.configuration(), self.incarnation)

    def __repr__(self) -> str:
        given = {spec.name: spec.default for spec in type(self).settings}
        text = ", ".join(f"{name}={value!r}" for name, value in self._values.items() if value != given[name])
        return f"{type(self).__name__}({text})"

    # For drivers

    def wait_until(self, deadline_ns: int) -> None:
        """Wait until ``time.monotonic_ns()`` reaches `deadline_ns`, through :attr:`waiter`."""
        while (left := deadline_ns - time.monotonic_ns()) > 0:
            self.waiter(left / 1e9)

    def idle(self, timeout_s: float = 0.0) -> None:
        """Let the process do other things; for a driver whose SDK waits in pieces of its own (of 0.1 s at most)."""
        self.waiter(min(timeout_s, _WAIT_S))

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter of :meth:`health`."""
        self.counters[name] = self.counters.get(name, 0) + amount

    def count_timeout(self) -> None:
        """Count a wait in which the device gave nothing."""
        self.count("timeouts")
        self.count("timeouts_consecutive")

    def _clear_counters(self) -> None:
        self.counters.clear()
        self.counters.update(exposed=0, delivered=0, missed=0, timeouts=0, timeouts_consecutive=0)


class CopyingCamera(Camera):
    """A camera whose SDK owns the frames' memory: the driver yields arrays, each is copied once into the buffer.

    A subclass implements :meth:`frames` in place of :meth:`start_sequence`.
    """

    counts_itself: ClassVar[bool] = True

    @abstractmethod
    def frames(self) -> Iterator[tuple[NDArray[Any], Mapping[str, Any]]]:
        """Start the device and yield ``(array (y, x), metadata)`` until closed or at the end of its data.

        The array is copied before the next one is asked for, so it may live in the SDK's memory. A tick that advances by more
        than one in the metadata counts as missed. Stop the device in a ``finally``: the iterator is closed when enough frames
        came.
        """

    def start_sequence(self, n: int | None, get_buffer: GetBuffer) -> Iterator[Mapping[str, Any]]:
        """Copy each frame into a buffer; see :meth:`Camera.start_sequence`."""
        delivered, tick = 0, self.first_tick - 1
        frames = self.frames()
        if not isinstance(frames, Iterator):
            raise ConfigError(
                f"frames of {type(self).__name__} returned {frames!r:.80}: it must yield (array, metadata) for each frame"
            )
        try:
            while n is None or delivered < n:
                item = next(frames, _ENDED)
                if item is _ENDED:
                    return
                array, metadata = self._checked_item(item)
                missed = max(int(metadata.get("tick", tick + 1)) - tick - 1, 0)
                tick += missed + 1
                self.count("exposed", missed + 1)
                self.count("missed", missed)
                self.counters["timeouts_consecutive"] = 0
                buffer = self.take_buffer(array, get_buffer)
                if buffer is None:
                    self.count("missed")
                    continue
                copy_out(buffer, array)
                delivered += 1
                self.count("delivered")
                yield {"tick": tick, **metadata}
        finally:
            close = getattr(frames, "close", None)
            if close is not None:
                close()

    def _checked_item(self, item: Any) -> tuple[NDArray[Any], Mapping[str, Any]]:
        """Refuse what is not a frame with its metadata: trying again would yield the same."""
        name = type(self).__name__
        if not isinstance(item, tuple) or len(item) != 2:
            kind = "an array without metadata" if isinstance(item, np.ndarray) else f"{item!r:.80}"
            raise ConfigError(f"frames of {name} yields {kind}: yield (array, metadata), such as array, {{'tick': 1}}")
        array, metadata = item
        if not isinstance(array, np.ndarray):
            raise ConfigError(f"frames of {name} yields ({array!r:.80}, …): the first of the two is a NumPy array of (y, x)")
        check_metadata(name, metadata)
        return array, metadata

    @property
    def first_tick(self) -> int:
        """The tick with which :meth:`frames` begins; earlier ones are not missing."""
        return 1

    def take_buffer(self, array: NDArray[Any], get_buffer: GetBuffer) -> NDArray[Any] | None:
        """Return a buffer for `array`, or None to drop it; override where a frame can wait."""
        try:
            return get_buffer(array.shape, array.dtype)
        except BufferUnavailableError:
            return None


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "no"


def assign(camera: Camera, values: Mapping[str, Any]) -> None:
    """Give a camera that is not open several settings at once; ConfigError if they do not fit."""
    camera._values.update({name: camera.setting(name).check(value) for name, value in values.items()})
    camera.check()


def _rebuild(
    cls: type[Camera], args: tuple[Any, ...], kwargs: dict[str, Any], configuration: dict[str, Any], incarnation: int
) -> Camera:
    camera = cls(*args, **kwargs)
    camera._values = dict(configuration)  # which may have been changed since
    camera.incarnation = incarnation
    return camera
