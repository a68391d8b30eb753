"""Acquisitions: cameras started in order and stopped in reverse, and the moment when everything they took is stored."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mutoscope.bus import Deferred, wire
from mutoscope.model.errors import CameraError, ConfigError, MutoscopeError, PeerDiedError, ScopeStateError
from mutoscope.runtime import control
from mutoscope.runtime.desk import Desk
from mutoscope.runtime.members import Member
from mutoscope.runtime.streams import Stream

__all__ = ["STOP_STREAM_S", "Acquisitions"]

START_STREAM_S = 30.0
STOP_STREAM_S = 5.0
STARTED_S = 1.0


@dataclass
class _Acquisition:
    """One call: its streams in the order in which they start, those yet to be started, and who waits to hear that all have.

    `before` is the newest frame of each stream when it began; `seconds`, once all have started, how long it then goes on.
    """

    number: int
    streams: list[Stream]
    waiting: list[Stream]
    started: Deferred
    before: dict[str, int]
    seconds: float | None = None
    starting: Stream | None = None
    start_by: float = 0.0
    stop_at: float | None = None


class Acquisitions:
    """Starts and stops the streams of a scope.

    Parameters
    ----------
    desk : Desk
        The bus and the journal.
    streams : dict of str to Stream
        By name, in their order.
    members : dict of str to Member
        The workers, by name.
    on_change : callable
        Called with True when the first stream has started, with False when the last has ended.
    """

    def __init__(
        self, desk: Desk, streams: dict[str, Stream], members: dict[str, Member], on_change: Callable[[bool], None]
    ) -> None:
        self._desk = desk
        self._streams = streams
        self._members = members
        self._on_change = on_change
        self._number = 0
        self._open: list[_Acquisition] = []
        self._stopping = False
        self._idle: list[Deferred] = []
        self.failure: MutoscopeError | None = None

    @property
    def active(self) -> bool:
        """True while a stream runs."""
        return any(stream.active for stream in self._streams.values())

    @property
    def open(self) -> bool:
        """True while an acquisition runs, or its frames are not yet stored."""
        return bool(self._open)

    @property
    def awaiting_storage(self) -> bool:
        """True while an acquisition has ended and its frames are not yet stored."""
        return any(not any(stream.active for stream in each.streams) for each in self._open)

    @property
    def counting_source(self) -> bool:
        """True while a source that this program's user fills runs for a number of frames."""
        return any(stream.active and stream.spec.producer is None and stream.target_id for stream in self._streams.values())

    def next_deadline(self) -> float | None:
        """When :meth:`advance` has something to do."""
        due = [each.start_by for each in self._open if each.starting is not None]
        due += [stream.stop_by for stream in self._streams.values() if stream.stop_by is not None]
        due += [each.stop_at for each in self._open if each.stop_at is not None]
        return min(due, default=None)

    # -- starting

    def start(self, command: control.StartAcquisition) -> Deferred:
        """Start the streams named (all when none is), one after the other; answered with the acquisition's number."""
        unknown = [name for name in command.streams if name not in self._streams]
        if unknown:
            raise ConfigError(f"there is no camera {unknown[0]!r}; this scope has: {', '.join(self._streams) or 'none'}")
        if command.frames is not None and command.frames < 1:
            raise ConfigError(f"the number of frames is at least 1, not {command.frames}")
        if command.seconds is not None and not 0 < command.seconds < math.inf:
            raise ConfigError(f"the number of seconds is more than 0, not {command.seconds:g}")
        chosen = [stream for name, stream in self._streams.items() if not command.streams or name in command.streams]
        if not chosen:
            raise ConfigError("the scope has no camera: nothing can be acquired")
        busy = [stream.name for stream in chosen if stream.active]
        if busy:
            raise ScopeStateError(f"{', '.join(busy)}: already acquiring; stop the acquisition first")
        for stream in chosen:
            producer = self._producer(stream)
            if producer is not None and producer.state in ("failed", "needs consent", "ended"):
                raise CameraError(f"{stream.name}: the camera is {producer.state}: {producer.last_error}")
        self._number += 1
        for stream in chosen:
            stream.begin_id = stream.ring.head() + 1
            stream.target_id = stream.ring.head() + command.frames if command.frames else 0
            stream.active, stream.run, stream.stop_by = True, self._number, None
            stream.ended_reason, stream.ended_message = None, ""
        before = {stream.name: stream.ring.head() for stream in chosen}
        acquisition = _Acquisition(self._number, chosen, list(chosen), Deferred(), before, command.seconds)
        self._open.append(acquisition)
        self._on_change(True)
        self._start_next(acquisition)
        return acquisition.started

    def _producer(self, stream: Stream) -> Member | None:
        return self._members[stream.spec.producer] if stream.spec.producer is not None else None

    def _stopped_producer(self, stream: Stream) -> Member | None:
        producer = self._producer(stream)
        return producer if producer is not None and producer.child is not None and producer.child.stopped else None

    def _start_next(self, acquisition: _Acquisition) -> None:
        while acquisition.waiting:
            stream = acquisition.waiting.pop(0)
            producer = self._producer(stream)
            if stream.active and producer is not None and producer.serving:
                self._start_stream(stream, acquisition)
                return
            # a source begins by itself; a camera that is being restarted is told when it is back
        acquisition.started.resolve(acquisition.number)
        if acquisition.seconds is not None:
            acquisition.stop_at, acquisition.seconds = time.monotonic() + acquisition.seconds, None

    def _start_stream(self, stream: Stream, acquisition: _Acquisition | None) -> None:
        assert stream.spec.producer is not None

        def answered(_value: Any, error: Exception | None) -> None:
            if error is not None and not isinstance(error, PeerDiedError):  # the successor of a camera that died is told
                self._desk.report(f"{stream.name}: the camera could not be started: {error}")
                self.stream_ended(stream, "error", str(error))
                if acquisition is not None:
                    acquisition.started.reject(error)
                    self.stop(_own(acquisition))
            elif acquisition is not None and stream.active:
                acquisition.starting, acquisition.start_by = stream, time.monotonic() + STARTED_S
            elif acquisition is not None:
                self._start_next(acquisition)

        self._desk.hub.request(
            stream.spec.producer,
            control.StartStream(stream=stream.name, run=stream.run, first_id=stream.begin_id, last_id=stream.target_id),
            START_STREAM_S,
            answered,
        )

    def sequence_started(self, stream: Stream, command: control.StreamStarted) -> None:
        """A camera's device runs: the next one may be started."""
        for acquisition in self._open:
            if acquisition.starting is stream and command.run == acquisition.number:
                acquisition.starting = None
                self._start_next(acquisition)

    # -- stopping

    def stop(self, streams: list[Stream] | None = None) -> None:
        """Stop the streams (all when not given), the last started first, each after the one before has ended."""
        now, chosen = time.monotonic(), list(self._streams.values()) if streams is None else streams
        for stream in chosen:
            if stream.active and stream.stop_by is None:
                stream.stop_by = now + STOP_STREAM_S * (1 + len(self._streams))
        for acquisition in list(self._open):
            self._leave_out(acquisition, chosen)
        self._stop_next()

    def _leave_out(self, acquisition: _Acquisition, streams: list[Stream]) -> None:
        """Do not start these any more; the others of the acquisition still are."""
        acquisition.waiting = [stream for stream in acquisition.waiting if stream not in streams]
        if all(stream in streams for stream in _own(acquisition) if stream.active):
            acquisition.seconds = None
            acquisition.started.resolve(acquisition.number)
        if acquisition.starting is not None and acquisition.starting in streams:
            acquisition.starting = None
            self._start_next(acquisition)

    def _stop_next(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        try:
            for stream in reversed(self._streams.values()):
                if stream.active and stream.stop_by is not None and self._stop_stream(stream):
                    return
        finally:
            self._stopping = False

    def _stop_stream(self, stream: Stream) -> bool:
        """Ask a stream to stop; False when it has ended at once."""
        producer = self._producer(stream)
        if producer is None or not producer.serving or producer.child is None:
            self._end(stream, "stopped", "")
            return False
        if producer.child.stopped:
            self._end(stream, "stopped", _not_answered(producer))
            return False
        stream.stop_by = time.monotonic() + STOP_STREAM_S

        def answered(running: Any, error: Exception | None) -> None:
            if error is not None:
                self.stream_ended(stream, "stopped", str(error))
            elif not running:
                self.stream_ended(stream, "stopped", "")

        self._desk.hub.request(producer.name, control.StopStream(stream=stream.name), STOP_STREAM_S, answered)
        return stream.active

    def sequence_ended(self, stream: Stream, command: control.StreamEnded) -> None:
        """A camera says that its sequence ended; what an earlier run says late does not count."""
        if command.run == stream.run:
            if command.reason == "error":
                self._desk.report(f"{stream.name}: {command.message}")
            self.stream_ended(stream, command.reason, command.message)

    def stream_ended(self, stream: Stream, reason: str, message: str) -> None:
        """Note that a stream has ended, and stop the next one if they are being stopped."""
        stopping = stream.stop_by is not None
        self._end(stream, reason, message)
        if stopping:
            self._stop_next()

    def _end(self, stream: Stream, reason: str, message: str) -> None:
        if not stream.active:
            return
        stream.active, stream.stop_by = False, None
        stream.ended_reason, stream.ended_message = reason, message
        if not self.active:
            self._on_change(False)

    # -- what happens to cameras

    def member_ready(self, member: Member) -> None:
        """A camera is set up, perhaps again: what was running goes on."""
        for stream in self._streams.values():
            if stream.spec.producer == member.name and stream.active and member.incarnation > 1:
                self._start_stream(stream, None)

    def member_died(self, member: Member) -> None:
        """A camera that dies while it is being stopped has stopped."""
        for stream in self._streams.values():
            if stream.spec.producer == member.name and stream.active and stream.stop_by is not None:
                self.stream_ended(stream, "stopped", "")

    def member_lost(self, member: Member, what: str) -> None:
        """A camera will not come back."""
        for stream in self._streams.values():
            if stream.spec.producer == member.name and stream.active:
                self.stream_ended(stream, "error", what)

    def program_lost(self) -> None:
        """The user's program is gone, and its sources with it."""
        for stream in self._streams.values():
            if stream.spec.producer is None and stream.active:
                self.stream_ended(stream, "stopped", "the user's program ended")

    # -- the end of an acquisition

    def advance(self, now: float) -> None:
        """See which streams, and which acquisitions, have ended."""
        for stream in self._streams.values():
            if not stream.active:
                continue
            if stream.spec.producer is None and stream.target_id and stream.ring.head() >= stream.target_id:
                self.stream_ended(stream, "complete", "")
            elif stream.stop_by is not None and now > stream.stop_by:
                self.stream_ended(stream, "stopped", "the camera did not stop in time")
            elif stream.stop_by is not None and (stopped := self._stopped_producer(stream)) is not None:
                self.stream_ended(stream, "stopped", _not_answered(stopped))  # since it was asked
        for acquisition in list(self._open):
            if acquisition.stop_at is not None and now >= acquisition.stop_at:
                acquisition.stop_at = None
                self.stop(_own(acquisition))
            if acquisition.starting is not None and (now > acquisition.start_by or not acquisition.starting.active):
                acquisition.starting = None
                self._start_next(acquisition)
            if any(stream.active for stream in _own(acquisition)):
                continue
            if self.failure is None and not all(self.stored(stream) for stream in acquisition.streams):
                continue
            self._open.remove(acquisition)
            acquisition.started.resolve(acquisition.number)
            self._desk.hub.publish(
                control.AcquisitionEnded(
                    number=acquisition.number,
                    reasons={stream.name: stream.ended_reason or "stopped" for stream in acquisition.streams},
                    messages={stream.name: stream.ended_message for stream in acquisition.streams if stream.ended_message},
                    produced={name: self._streams[name].ring.head() - head for name, head in acquisition.before.items()},
                    stored={name: self._streams[name].stored_after(head) for name, head in acquisition.before.items()},
                    error=wire.error_record(self.failure) if self.failure is not None else None,
                )
            )
        if not self._open:
            for deferred in self._idle:
                self._answer_idle(deferred)
            self._idle.clear()

    def stored(self, stream: Stream) -> bool:
        """Tell whether everything of a stream that its recorder will store is stored."""
        recorder = stream.spec.recorder
        if recorder is None or self._members[recorder].state in ("failed", "ended"):
            return True
        return stream.drained(recorder)

    def wait(self) -> Deferred:
        """Answered when no acquisition is open."""
        deferred = Deferred()
        if self._open:
            self._idle.append(deferred)
        else:
            self._answer_idle(deferred)
        return deferred

    def _answer_idle(self, deferred: Deferred) -> None:
        if self.failure is not None:
            deferred.reject(self.failure)
        else:
            deferred.resolve(None)


def _own(acquisition: _Acquisition) -> list[Stream]:
    """Return the streams of an acquisition that no later one has started again."""
    return [stream for stream in acquisition.streams if stream.run == acquisition.number]


def _not_answered(producer: Member) -> str:
    return f"{producer.name} is stopped (SIGSTOP) and did not answer"
