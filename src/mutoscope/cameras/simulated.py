"""A camera without hardware: seeded scenes on a free-running clock, and faults on demand."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mutoscope.cameras._clock import FreeRunningClock
from mutoscope.cameras._scene import Scene, SceneSettings, make_scene, most_beads
from mutoscope.cameras.driver import Camera, GetBuffer
from mutoscope.cameras.settings import Setting
from mutoscope.model.errors import BufferUnavailableError, CameraBusyError, CameraError, ConfigError

__all__ = ["SimulatedCamera"]

_DTYPES = ("uint8", "uint16", "uint32", "int16", "int32", "float32", "float64")
_DEFAULT_BEADS = 16
_STALL_SLICE_S = 0.1


class SimulatedCamera(Camera):
    """A simulated camera.

    Exposure `k` is complete at ``k / rate_hz`` after the start, whether or not anybody takes it. The camera's own memory holds
    `buffer_frames` of them; one that is overwritten before it was taken, or for which there was no buffer, is counted
    as missed, and the tick goes on. A frame costs one copy and its beads' stamps: the noise is rendered at opening, and that of
    a frame is a stretch of its rows.

    Every frame is a function of the settings and the tick: :meth:`expected_frame` recomputes it and :meth:`truth` gives the
    positions of the beads in it.

    Parameters
    ----------
    shape : (y, x)
        In pixels.
    dtype : str or dtype
        One of uint8, uint16, uint32, int16, int32, float32, float64.
    rate_hz : float
        Of the free-running clock. May be changed while open.
    pattern : {"beads", "noise", "counter"}
        ``counter`` is a ramp whose first pixels hold the tick.
    seed : int
        Of everything random.
    beads : int, optional
        How many; by default 16, or as many as fit.
    bead_sigma_px, bead_intensity : float
        Standard deviation of a bead's Gaussian image, and its height in counts; by default 2000, or 120 for uint8.
    bead_step_px : float
        Standard deviation of a bead's step from tick to tick along each axis: a diffusion coefficient of
        ``bead_step_px ** 2 * rate_hz / 2``.
    background, noise : float
        Mean and standard deviation of the background, in counts.
    noise_frames : int
        Size of the rendered noise in frames (at most 32 MiB, at least one frame and 256 rows).
    exposure_ms : float, optional
        At most the frame period, which is the default. It is stated, not simulated. May be changed while open.
    pixel_size_um : float, optional
        None: unknown.
    buffer_frames : int
        Frames that the camera's own memory holds.
    drop_at : int or tuple of int
        Ticks that the camera itself loses.
    stall_at : int, optional
        From this tick on, nothing comes for `stall_s` seconds; the clock goes on.
    stall_s : float, optional
        None: for ever.
    stall_blocks : bool
        Stall inside the driver, as a hanging SDK does, without letting the process do anything else.
    raise_at, segfault_at : int, optional
        At this tick, raise a CameraError, or read address 0.
    refuse_open : int
        The first so many openings of an instance are refused as busy; -1: every opening fails for good.
    refuse_reopen : int
        As `refuse_open`, but only where the camera was open before: after a close, or in a restarted process.
    fault_repeats : bool
        Whether a restarted process has the faults at ticks again.

    Examples
    --------
    >>> import numpy as np
    >>> camera = SimulatedCamera(shape=(64, 64), rate_hz=1000, pattern="counter")
    >>> buffer = np.empty((64, 64), "uint16")
    >>> with camera:
    ...     ticks = [metadata["tick"] for metadata in camera.sequence(2, lambda shape, dtype: buffer)]
    >>> len(ticks), bool((buffer == camera.expected_frame(ticks[-1])).all())
    (2, True)
    """

    counts_itself: ClassVar[bool] = True
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="shape", kind="shape", default=(512, 512), unit="px", minimum=1, maximum=32768, doc="Frame size (y, x)."),
        Setting(name="dtype", kind="str", default="uint16", choices=_DTYPES, doc="Type of the pixels."),
        Setting(
            name="rate_hz", kind="float", default=100.0, unit="Hz", minimum=0.001, maximum=100_000.0, live=True,
            doc="Frames per second of the free-running clock.",
        ),
        Setting(name="pattern", kind="str", default="beads", choices=("beads", "noise", "counter"), doc="What is seen."),
        Setting(name="seed", kind="int", default=0, minimum=0, maximum=2**31 - 1, doc="Seed of everything random."),
        Setting(name="beads", kind="int", optional=True, minimum=0, maximum=100_000, doc="How many beads; None: up to 16."),
        Setting(
            name="bead_sigma_px", kind="float", default=2.0, unit="px", minimum=0.5, maximum=50.0,
            doc="Standard deviation of a bead's image.",
        ),
        Setting(
            name="bead_intensity", kind="float", optional=True, unit="counts", minimum=0.0, maximum=1e6,
            doc="Height of a bead's image; None: 2000, or 120 for uint8.",
        ),
        Setting(
            name="bead_step_px", kind="float", default=0.3, unit="px", minimum=0.0, maximum=1000.0,
            doc="Standard deviation of a bead's step from tick to tick along each axis.",
        ),
        Setting(name="background", kind="float", default=100.0, unit="counts", minimum=0.0, maximum=1e6, doc="Its mean."),
        Setting(name="noise", kind="float", default=5.0, unit="counts", minimum=0.0, maximum=1e6, doc="Its deviation."),
        Setting(name="noise_frames", kind="int", default=8, unit="frames", minimum=1, maximum=256, doc="Noise rendered."),
        Setting(
            name="exposure_ms", kind="float", optional=True, unit="ms", minimum=0.001, maximum=1e6, live=True,
            doc="Exposure as stated; None: the frame period.",
        ),
        Setting(name="pixel_size_um", kind="float", optional=True, unit="µm", minimum=1e-6, maximum=1e6, doc="None: unknown."),
        Setting(
            name="buffer_frames", kind="int", default=4, unit="frames", minimum=1, maximum=4096,
            doc="Frames that the camera's own memory holds.",
        ),
        Setting(name="drop_at", kind="ids", default=(), minimum=1, doc="Ticks that the camera itself loses."),
        Setting(name="stall_at", kind="int", optional=True, minimum=1, doc="Tick from which nothing comes."),
        Setting(name="stall_s", kind="float", optional=True, unit="s", minimum=0.0, doc="For how long; None: for ever."),
        Setting(name="stall_blocks", kind="bool", default=False, doc="Stall inside the driver, as a hanging SDK does."),
        Setting(name="raise_at", kind="int", optional=True, minimum=1, doc="Tick at which a CameraError is raised."),
        Setting(name="segfault_at", kind="int", optional=True, minimum=1, doc="Tick at which the process reads address 0."),
        Setting(name="refuse_open", kind="int", default=0, minimum=-1, doc="Openings refused as busy; -1: all, for good."),
        Setting(name="refuse_reopen", kind="int", default=0, minimum=-1, doc="The same once it was open before."),
        Setting(name="fault_repeats", kind="bool", default=False, doc="Whether a restarted process has the faults again."),
    )  # fmt: skip

    def __init__(
        self,
        shape: tuple[int, int] = (512, 512),
        dtype: DTypeLike = "uint16",
        rate_hz: float = 100.0,
        *,
        pattern: str = "beads",
        seed: int = 0,
        beads: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            shape=shape, dtype=_dtype_name(dtype), rate_hz=rate_hz, pattern=pattern, seed=seed, beads=beads, **settings
        )
        self._scene: Scene | None = None
        self._clock: FreeRunningClock | None = None
        self._was_open = False
        self._refused = 0
        self.check()

    @property
    def shape(self) -> tuple[int, int]:
        """``(y, x)`` in pixels."""
        shape: tuple[int, int] = self.get("shape")
        return shape

    @property
    def dtype(self) -> str:
        """NumPy name of the pixels' type."""
        return str(self.get("dtype"))

    @property
    def rate_hz(self) -> float:
        """Frames per second of the free-running clock."""
        return float(self.get("rate_hz"))

    @property
    def pixel_size_um(self) -> float | None:
        """As set."""
        size: float | None = self.get("pixel_size_um")
        return size

    @property
    def exposure_ms(self) -> float:
        """As stated, or the frame period."""
        exposure = self.get("exposure_ms")
        return 1000.0 / self.rate_hz if exposure is None else float(exposure)

    def check(self) -> None:
        """Check the exposure against the rate, and that the beads find room."""
        exposure, period = self.get("exposure_ms"), 1000.0 / self.rate_hz
        if exposure is not None and exposure > period * (1 + 1e-9):
            raise ConfigError(
                f"exposure_ms must be at most the frame period of {period:g} ms at {self.rate_hz:g} Hz, not {exposure:g}"
            )
        beads, room = self.get("beads"), most_beads(self.shape, self.get("bead_sigma_px"))
        if beads is not None and beads > room:
            raise ConfigError(f"beads must be at most {room} in a frame of {self.shape[0]} x {self.shape[1]} px, not {beads}")

    # What is in the frames

    def truth(self, tick: int) -> NDArray[np.float64]:
        """Return the true positions of the beads in the frame of `tick`.

        Returns
        -------
        ndarray, shape (beads, 2), float64
            ``(y, x)`` in pixels, integers at pixel centres; multiples of 1/16 pixel, exactly as drawn. A row is one bead in
            every frame.
        """
        return self._scene_now().truth(_checked_tick(tick))

    def expected_frame(self, tick: int) -> NDArray[Any]:
        """Return the frame of `tick`, bit for bit, as a new array ``(y, x)``."""
        out = np.empty(self.shape, self.dtype)
        self._scene_now().render(_checked_tick(tick), out)
        return out

    # Lifetime

    def open_device(self) -> None:
        """Render the noise, unless an opening is to be refused."""
        limit = int(self.get("refuse_open"))
        if self._was_open or self.incarnation > 0:
            limit = -1 if -1 in (limit, self.get("refuse_reopen")) else max(limit, int(self.get("refuse_reopen")))
        if limit < 0:
            raise CameraError("the simulated camera was told to refuse every opening")
        if self._refused < limit:
            self._refused += 1
            raise CameraBusyError(f"the simulated camera is busy ({self._refused} of {limit} refusals)")
        self._refused = 0
        self._was_open = True
        self._scene_now()

    def close_device(self) -> None:
        """Let the noise go."""
        self._scene = None
        self._clock = None

    def set(self, name: str, value: Any) -> Any:
        """Change a setting; see :meth:`Camera.set`."""
        result = super().set(name, value)
        if not self.is_open:
            self._scene = None
        return result

    def apply_setting(self, name: str, value: Any) -> None:
        """Change the running clock."""
        if name == "rate_hz" and self._clock is not None:
            self._clock.set_rate(float(value))

    # Frames

    def start_sequence(self, n: int | None, get_buffer: GetBuffer) -> Iterator[Mapping[str, Any]]:
        """Start the clock at tick 1 and deliver `n` frames; see :meth:`Camera.start_sequence`."""
        if not self.is_open:
            raise CameraError("the simulated camera is not open")
        return self._sequence(n, get_buffer)

    def _sequence(self, n: int | None, get_buffer: GetBuffer) -> Iterator[Mapping[str, Any]]:
        scene, shape, dtype = self._scene_now(), self.shape, np.dtype(self.dtype)
        clock = self._clock = FreeRunningClock(self.rate_hz, int(self.get("buffer_frames")))
        faulty = self.incarnation == 0 or self.get("fault_repeats")
        lost = frozenset(self.get("drop_at") if faulty else ())
        incidents = self._incidents() if faulty else {}
        before = self.counters["exposed"]
        delivered, tick = 0, 1  # tick: the next exposure to take
        try:
            while n is None or delivered < n:
                self.wait_until(clock.due_ns(tick))
                self.counters["timeouts_consecutive"] = 0
                for incident in [at for at in incidents if at <= tick]:
                    self._happen(incidents.pop(incident), tick)
                tick = self._skip(tick, clock.oldest())
                if tick in lost:
                    tick = self._skip(tick, tick + 1)
                    continue
                try:
                    buffer = get_buffer(shape, dtype)
                except BufferUnavailableError:
                    tick = self._skip(tick, tick + 1)
                    continue
                tick = self._skip(tick, clock.oldest())  # the camera may have run on while the buffer was waited for
                while tick in lost:
                    tick = self._skip(tick, tick + 1)
                self.wait_until(clock.due_ns(tick))
                scene.render(tick, buffer)
                taken, tick = tick, tick + 1
                delivered += 1
                self.count("delivered")
                self.counters["exposed"] = before + max(clock.exposed(), taken)
                yield {"tick": taken, "exposure_ms": self.exposure_ms}
        finally:
            self.counters["exposed"] = before + max(tick - 1, 0)

    def _skip(self, tick: int, to: int) -> int:
        """Count the exposures from `tick` up to `to` as lost."""
        if to > tick:
            self.count("missed", to - tick)
            return to
        return tick

    def _incidents(self) -> dict[int, str]:
        """Faults by tick; where two share a tick the later of these wins."""
        return {at: name for name in ("stall_at", "raise_at", "segfault_at") if (at := self.get(name)) is not None}

    def _happen(self, incident: str, tick: int) -> None:
        if incident == "raise_at":
            raise CameraError(f"the simulated camera was told to fail at tick {tick}")
        if incident == "segfault_at":
            ctypes.string_at(0)
        seconds = self.get("stall_s")
        end = math.inf if seconds is None else time.monotonic() + seconds
        while time.monotonic() < end:
            if self.get("stall_blocks"):
                time.sleep(min(_STALL_SLICE_S, max(end - time.monotonic(), 0.0)))
            else:
                self.idle(min(_STALL_SLICE_S, max(end - time.monotonic(), 0.0)))
            self.count_timeout()

    def _scene_now(self) -> Scene:
        if self._scene is None:
            background, noise = float(self.get("background")), float(self.get("noise"))
            beads, intensity = self.get("beads"), self.get("bead_intensity")
            room = most_beads(self.shape, self.get("bead_sigma_px"))
            self._scene = make_scene(
                SceneSettings(
                    pattern=self.get("pattern"),
                    shape=self.shape,
                    dtype=self.dtype,
                    seed=int(self.get("seed")),
                    beads=min(_DEFAULT_BEADS, room) if beads is None else int(beads),
                    bead_sigma_px=float(self.get("bead_sigma_px")),
                    bead_intensity=float(intensity if intensity is not None else 120 if self.dtype == "uint8" else 2000),
                    bead_step_px=float(self.get("bead_step_px")),
                    background=background,
                    noise=noise,
                    noise_frames=int(self.get("noise_frames")),
                )
            )
        return self._scene


def _dtype_name(dtype: DTypeLike) -> str:
    try:
        return np.dtype(dtype).name
    except TypeError:
        return str(dtype)


def _checked_tick(tick: int) -> int:
    if tick < 1:
        raise ValueError(f"ticks count from 1, not {tick}")
    return tick
