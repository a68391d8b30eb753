"""The worker that runs a camera driver in a process of its own and publishes what it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mutoscope.bus import handles
from mutoscope.cameras._form import check_call, form_of, rate_of
from mutoscope.cameras.driver import Camera, SequenceStopped, assign
from mutoscope.frames import Slot
from mutoscope.model.errors import CameraError, ConfigError, DatasetError
from mutoscope.runtime import Restart, Worker, control

__all__ = ["CameraWorker"]

OPEN_RETRY_S = 0.05
OPEN_DEADLINE_S = 20.0
FULL_WAIT_S = 0.1


class CameraWorker(Worker):
    """Opens the camera in this process only, and fills ring slots in place.

    Attributes
    ----------
    camera : Camera
        The driver with its settings, not yet opened.
    stream : str
        The name of its ring.
    """

    kind = "camera"
    restart = Restart(limit=10, within_s=60.0)
    camera: Camera
    stream: str

    def setup(self) -> None:
        """Open the device; one that is still busy after a crash is tried again."""
        self._last_id = self._run = 0
        self._running = False
        self._stop_requested = False
        self._slot: Slot | None = None
        self._form: tuple[Any, Any] | None = None
        self.camera.incarnation = self._host_or_raise().incarnation - 1
        assign(self.camera, self.state.camera_settings.get(self.stream, {}))  # changed while a predecessor ran
        self._open_camera()
        self.camera.waiter = self._wait
        self._frames = self.writer(self.stream)

    def _open_camera(self) -> None:
        host = self._host_or_raise()
        deadline = time.monotonic() + OPEN_DEADLINE_S
        pause = OPEN_RETRY_S
        while True:
            try:
                self.camera.open()
            except CameraError as error:
                if not getattr(error, "retry", False) or time.monotonic() > deadline or self.stopping or host.orphaned:
                    raise
                self.log.warning("%s: %s; trying again", self.stream, error)
                again = time.monotonic() + pause
                while (left := again - time.monotonic()) > 0 and not self.stopping and not host.orphaned:
                    host.endpoint.pump(left)
                pause = min(2 * pause, 1.0)
            else:
                return

    @handles(control.StartStream, delivery="supervisor")
    def start(self, command: control.StartStream) -> None:
        """Take frames until ``last_id`` is published (0: until stopped)."""
        self._first_id, self._last_id, self._run = command.first_id, command.last_id, command.run
        self._stop_requested = False
        self._running = True

    @handles(control.StopStream, delivery="supervisor")
    def stop(self, command: control.StopStream) -> bool:
        """Stop after the frame in hand; True if a sequence runs, whose end is then told."""
        self._stop_requested = True
        return self._running

    @handles(control.ApplySetting, delivery="supervisor")
    def apply(self, command: control.ApplySetting) -> control.SettingApplied:
        """Change a live setting of the open camera, between two frames or while the driver waits."""
        before = self.camera.configuration()
        value = self.camera.set(command.setting, command.value)
        changed = {name: now for name, now in self.camera.configuration().items() if now != before[name]}
        return control.SettingApplied(value, {name: before[name] for name in changed}, changed, self._frames.head + 1)

    def step(self) -> None:
        """Run one sequence, or wait for commands."""
        if not self._running:
            self._host_or_raise().wait_for_commands(until=lambda: self._running)
            return
        reason, message = self._sequence()
        self._running = False
        if self._host_or_raise().orphaned:
            return
        ended = control.StreamEnded(
            stream=self.stream, run=self._run, last_id=self._frames.head, reason=reason, message=message
        )
        self.send(ended, to="supervisor")

    def _sequence(self) -> tuple[str, str]:
        host, writer, row = self._host_or_raise(), self._frames, self._host_or_raise().row
        while True:
            remaining = self._last_id - writer.head if self._last_id else None
            if remaining is not None and remaining <= 0:
                return "complete", ""
            self.camera.already_delivered = writer.head - self._first_id + 1
            self._told_start = False
            missed = row.missed
            self._last_tick = self._missed_ticks = published = 0
            self._counted = self._seen_missed = self.camera.counters.get("missed", 0)
            sequence = self.camera.sequence(remaining, self._buffer)
            try:
                for metadata in sequence:
                    self._publish(metadata)
                    published += 1
                    host.serve()
                    if self._stop_requested or self.stopping:
                        return "stopped", ""
                    if self._last_id and writer.head >= self._last_id:
                        return "complete", ""
            except SequenceStopped:
                return "stopped", ""
            except (ConfigError, DatasetError) as error:
                return "error", str(error)  # trying again would end in the same way
            finally:
                self._count_missed()
                if self._slot is not None:
                    self._slot.discard()
                    self._slot = None
                sequence.close()
            if remaining is not None and row.missed > missed and published:
                continue  # a driver that counts what it lost among the frames asked for is asked for the rest
            return self._ended_early()

    def _ended_early(self) -> tuple[str, str]:
        """The driver ended its sequence although more was asked for: only a camera whose frames come to an end may do that."""
        delivered = self._frames.head - self._first_id + 1
        asked = self._last_id - self._first_id + 1 if self._last_id else None
        said = f"the camera delivered {delivered:,}" + ("" if asked is None else f" of {asked:,}") + " frames and "
        if self.camera.ends:
            return "exhausted", "" if asked is None else said + "has no more"
        wanted = "" if asked is not None else ", though it was to go on until it is told to stop"
        return "error", f"{said}stopped{wanted}: start_sequence of {type(self.camera).__name__} came to its end"

    def _tell_start(self) -> None:
        """The driver waits for its device, or wants a buffer: the device runs, and the next camera may be started."""
        self._told_start = True
        if not self._host_or_raise().orphaned:
            self.send(control.StreamStarted(stream=self.stream, run=self._run), to="supervisor")

    def _wait(self, timeout_s: float) -> None:
        """What the driver waits with: commands are handled meanwhile, and a stop ends the sequence."""
        host = self._host_or_raise()
        if not self._told_start:
            self._tell_start()
        host.endpoint.pump(timeout_s)
        host.serve()
        if self._stop_requested or self.stopping:
            raise SequenceStopped

    def _buffer(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Give the driver a free slot; waits while a lossless reader holds them all (ticks missed meanwhile are counted)."""
        if not self._told_start:
            self._tell_start()
        if self._slot is not None:
            self._slot.discard()
        if (shape, dtype) != self._form:
            self._check_form(shape, dtype)
        slot = self._frames.try_claim(shape, dtype)
        while slot is None:
            self._host_or_raise().row.queue_full += 1
            self._host_or_raise().serve()
            if self._stop_requested or self.stopping:
                raise SequenceStopped
            slot = self._frames.claim(shape, dtype, timeout_s=FULL_WAIT_S)
        self._slot = slot
        return slot.array

    def _check_form(self, shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        """Refuse what does not fit in a slot, or cannot be stored, while it has no id."""
        size, info = math.prod(shape) * np.dtype(dtype).itemsize, self.scope.cameras[self.stream]
        if size > self._frames.slot_bytes:
            form = f"{' x '.join(map(str, shape))} px of {np.dtype(dtype)}"
            raise ConfigError(
                f"a frame of {form} is {size:,} bytes, the slots of {self.stream} hold {self._frames.slot_bytes:,}: begin with "
                "the largest frames, or start the scope again"
            )
        if self.scope.recorded and (tuple(shape), np.dtype(dtype).name) != (tuple(info.shape), info.dtype):
            from mutoscope import storage  # late: a camera's process starts without it

            storage.CameraLayout((shape[0], shape[1]), dtype).level()  # refuses what cannot be stored
        self._form = (shape, dtype)

    def _publish(self, metadata: Mapping[str, Any]) -> None:
        slot, self._slot = self._slot, None
        assert slot is not None  # Camera.sequence has checked that a buffer was taken, and the metadata
        slot.tick = tick = int(metadata.get("tick", 0))
        slot.exposure_ms = float(metadata.get("exposure_ms", math.nan))
        slot.index = metadata.get("index")
        slot.user = metadata.get("user", b"")
        slot.monotonic_ns = int(metadata.get("monotonic_ns", 0))
        slot.utc_ns = int(metadata.get("utc_ns", 0))
        self._frames.publish(slot)
        row = self._host_or_raise().row
        row.progress_a += 1
        row.last_utc_ns = time.time_ns()
        if self._last_tick and tick > self._last_tick + 1:
            self._missed_ticks += tick - self._last_tick - 1
        self._last_tick = tick
        self._count_missed()

    def _count_missed(self) -> None:
        """Enter exposures that never became frames: those that the driver counts or, if that is more, the gaps in its ticks."""
        missed = max(self.camera.counters.get("missed", 0) - self._seen_missed, self._missed_ticks)
        known = self._counted - self._seen_missed
        if missed > known:
            self._host_or_raise().row.missed += missed - known
            self._counted = self._seen_missed + missed

    def teardown(self) -> None:
        """Close the device."""
        self.camera.close()


def describe(camera: Camera) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Return the shape (y, x) and dtype that a camera will deliver.

    Raises
    ------
    ConfigError
        If they, or its rate, are none, or its ``start_sequence`` cannot be called; one sentence.
    """
    name = type(camera).__name__
    check_call(name, camera.start_sequence, "n", "get_buffer")
    rate_of(name, camera.rate_hz)
    return form_of(name, camera.shape, camera.dtype)
