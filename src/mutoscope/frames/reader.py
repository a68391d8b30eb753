"""The consumer's end of a ring."""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import assert_spawning, get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any

from mutoscope.frames import _process
from mutoscope.frames import _ring_native as native
from mutoscope.frames._holder import RingHolder, rebuild
from mutoscope.frames._segments import Segment, close_all
from mutoscope.frames.lease import Batch, Frame, Lease
from mutoscope.model.errors import (
    ConfigError,
    FramesLostError,
    FrameTimeoutError,
    LeaseLimitError,
    ScopeStateError,
)

__all__ = ["FrameReader"]

KIND = "ring reader"
_WAIT_SLICE_S = 0.5  # longest wait in C: a signal that comes just before it is handled after that time
_GAPS_KEPT = 65536
_unpack_front = native.FRONT.unpack_from


class _Link:
    """What a reader and its leases share. It goes when the reader is closed and the last lease is gone."""

    __slots__ = ("closing", "context", "control", "data", "fds", "refs", "unpins")

    def __init__(self, meta: Mapping[str, Any], fds: list[int]) -> None:
        self.fds = fds
        self.closing = False
        control = Segment(fds[0], meta["control_bytes"], writable=True)
        self.control: Segment | None = control
        if native.check_control(control.address, meta["control_bytes"]) != native.OK:
            raise ConfigError(f"the segment of ring {meta['ring']!r} is of another version of Mutoscope")
        self.data: Segment | None = Segment(fds[1], meta["data_bytes"], writable=False)
        rate: float | None = meta["at_most_hz"]
        self.context: int | None = native.reader_open(
            control.address, meta["row"], os.getpid(), native.descriptors(fds[2:]), round(1e9 / rate) if rate else 0
        )
        if not self.context:
            raise OSError("no memory or no descriptor left for a reader of the frame ring")
        self.refs: list[weakref.ref[Lease] | None] = [None] * meta["leases"]
        self.unpins = [self._unpin(number) for number in range(meta["leases"])]

    def _unpin(self, number: int) -> Callable[[object], None]:
        generation, release = _process.generation, native.reader_release

        def unpin(_: object) -> None:
            if generation != _process.generation:
                return  # a forked child's copy of a lease holds nothing
            release(self.context, number)
            if self.closing:
                self.settle()

        return unpin

    def settle(self) -> None:
        """Let go of everything unless a view still lives."""
        numbers = (ctypes.c_uint64 * 6)()
        if self.context is None:
            return
        native.reader_look(self.context, numbers)
        if numbers[5]:
            return
        self.end()
        close_all(self.fds)

    def end(self) -> None:
        """Unmap."""
        native.reader_free(self.context)
        self.context = self.control = self.data = None
        self.unpins, self.refs = [], []


class FrameReader(RingHolder):
    """Takes frames from a ring, in its own process and, at a time, one thread.

    Made by ``FrameRing.reader``, :func:`mutoscope.frames.attach_reader` or :meth:`from_handle`. It can be given to a child that
    ``multiprocessing`` spawns, and is then the child's; a forked child is refused.

    Parameters
    ----------
    meta : mapping
        The plain values of a handle.
    fds : sequence of int
        Its descriptors; they become the reader's own.
    """

    KIND = KIND
    ROLE = "reader"

    def __init__(self, meta: Mapping[str, Any], fds: Sequence[int]) -> None:
        super().__init__(meta, fds)
        self.name: str = meta["name"]
        self.policy: str = meta["policy"]
        self.on_full: str = meta["on_full"]
        self.leases: int = meta["leases"]
        self.row: int = meta["row"]
        self._slot_bytes: int = meta["slot_bytes"]
        self._gaps: deque[tuple[int, int]] = deque(maxlen=_GAPS_KEPT)
        self._batch_gaps: deque[tuple[int, int]] = deque(maxlen=2 * self.leases)
        self._loses = self.policy == "every" and self.on_full == "drop"
        try:
            self._link: _Link | None = _Link(meta, self._fds)
        except BaseException:
            close_all(self._fds)
            raise
        self._out = ctypes.create_string_buffer(native.DELIVERY_BYTES)
        self._out_address = ctypes.addressof(self._out)
        self._interfaces: list[tuple[bytes, dict[str, Any]]] = [(b"", {})] * meta["slots"]

    # -- frames

    def next(self, timeout_s: float | None = None) -> Frame:
        """Return the next frame by the reader's policy, waiting for it if need be.

        Parameters
        ----------
        timeout_s : float, optional
            Longest wait in seconds; None waits without end.

        Returns
        -------
        Frame
            A lease on the frame's slot. Use it as a context manager, or call its ``release``.

        Raises
        ------
        FrameTimeoutError
            No frame came in time.
        LeaseLimitError
            This reader already holds ``leases`` frames.
        FramesLostError
            Policy ``every`` with ``on_full="detach"``: the reader fell too far behind, and stays detached.
        RingClosedError
            The ring's owner closed it, or died.
        """
        link = self._link
        if link is None or self._generation != _process.generation:
            self._refuse()
        code = native.reader_take(link.context, self._out_address)
        if code:
            self._wait(link, code, timeout_s)
        delivery = self._out.raw
        slot, pin, gap_first, gap_count, frame_id = _unpack_front(delivery)
        if gap_count:
            self._batch_gaps.append((gap_first, gap_count))
            if self._loses:
                self._gaps.append((gap_first, gap_count))
        form, interface = self._interfaces[slot]
        if form != delivery[native.FORM]:
            interface = self._describe(slot, delivery[native.FORM])
        lease = Lease(interface, link)
        link.refs[pin] = weakref.ref(lease, link.unpins[pin])
        return Frame(delivery, frame_id, lease)

    def _describe(self, slot: int, form: bytes) -> dict[str, Any]:
        assert self._link is not None
        data = self._link.data
        assert data is not None
        height, width, dtype = native.FORM_LAYOUT.unpack(form)
        interface = {
            "version": 3,
            "shape": (height, width),
            "typestr": dtype.rstrip(b"\0").decode(),
            "data": (data.address + slot * self._slot_bytes, True),
        }
        self._interfaces[slot] = (form, interface)
        return interface

    def _wait(self, link: _Link, code: int, timeout_s: float | None) -> None:
        """Wait until a frame is delivered; raise for anything else."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if code == native.OK:
                return
            if code == native.CLOSED:
                self._end_by_owner()
            if code == native.LIMIT:
                held = "committed or released" if self.policy == "share" else "released"
                raise LeaseLimitError(
                    f"reader {self.name!r} of ring {self.ring_name!r} holds {self.leases} frame(s), its cap, "
                    f"and none is {held}: release some, or ask for more with leases="
                )
            if code == native.LOST:
                _, _, first, count, _ = native.FRONT.unpack_from(self._out.raw)
                raise FramesLostError(first, count, "detached" if self.on_full == "detach" else "overrun")
            if code == native.INTERRUPTED and self._callback is not None:
                self._callback()
                if self._link is not link:
                    self._refuse()
            left = _WAIT_SLICE_S if deadline is None else deadline - time.monotonic()
            if left <= 0 and code == native.TIMEOUT:
                raise FrameTimeoutError(f"ring {self.ring_name!r}: no frame for reader {self.name!r} within {timeout_s} s")
            self._waiting = True
            try:
                code = native.reader_wait(link.context, int(1e9 * min(max(left, 0.0), _WAIT_SLICE_S)), self._out_address)
            finally:
                self._waiting = False

    def batch(self, n: int, timeout_s: float | None = None) -> Batch:
        """Return the next `n` frames together, each with a lease of its own.

        Parameters
        ----------
        n : int
            How many; at most ``leases``.
        timeout_s : float, optional
            Longest wait in seconds for all of them; None waits without end.

        Returns
        -------
        Batch
            `n` frames; fewer, but at least one, when the time is up. ``gaps`` lists what was lost or skipped before and between
            them.

        Raises
        ------
        ValueError
            If `n` is not between 1 and ``leases``.
        FrameTimeoutError
            No frame at all came in time.
        """
        if not 1 <= n <= self.leases:
            raise ValueError(f"a batch of {n} frames needs leases={n}; reader {self.name!r} has {self.leases}")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        batch = Batch()
        self._batch_gaps.clear()
        try:
            while len(batch) < n:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                batch.append(self.next(left))
        except FrameTimeoutError:
            if not batch:
                raise
        except BaseException:
            batch.release()
            raise
        batch.gaps.extend(self._batch_gaps)
        return batch

    def commit(self, frame_or_id: Frame | int) -> None:
        """Say that this frame and all before it are done: their slots may be reused.

        With ``share`` it counts for the frames that this member took. With ``latest`` it does nothing.

        Raises
        ------
        ValueError
            If this reader has not taken that frame yet.
        RingClosedError
            The ring's owner closed it, or died.
        """
        link = self._link
        if link is None or self._generation != _process.generation:
            self._refuse()
        frame_id = frame_or_id if isinstance(frame_or_id, int) else frame_or_id.frame_id
        code = native.reader_commit(link.context, frame_id)
        if code == native.CLOSED:
            self._end_by_owner()
        if code == native.INVALID:
            raise ValueError(f"reader {self.name!r} has not taken frame {frame_id} yet and cannot commit it")

    def interrupt_with(self, fd: int, callback: Callable[[], None] | None) -> None:
        """Have waits wake when `fd` is readable, too.

        Parameters
        ----------
        fd : int
            A descriptor; -1 takes an earlier one back.
        callback : callable
            Runs in the waiting thread and has to make `fd` unreadable again. The wait then goes on with the rest of its
            time; an exception of the callback ends it.
        """
        link = self._link
        if link is None:
            self._refuse()
        self._callback = callback
        failed = native.reader_interrupt(link.context, fd if callback is not None else -1)
        if failed:
            self._callback = None
            raise OSError(failed, f"descriptor {fd} cannot be waited for: {os.strerror(failed)}")

    def drain_orphaned(self) -> None:
        """After the owner's death (not its close) go on delivering what was published, and only then raise ``RingClosedError``.

        For policy ``every``.
        """
        link = self._link
        if link is None:
            self._refuse()
        native.reader_drain(link.context)

    # -- what it says of itself

    def _look(self) -> Any:
        link = self._link
        if link is None:
            self._refuse()
        numbers = (ctypes.c_uint64 * 6)()
        native.reader_look(link.context, numbers)
        return numbers

    @property
    def cursor(self) -> int:
        """The first frame_id that is neither committed nor dropped."""
        return int(self._look()[0])

    @property
    def lag(self) -> int:
        """Frames published that this reader (``share``: its pool) is not done with."""
        numbers = self._look()
        return max(0, int(numbers[4]) + 1 - int(numbers[0]))

    @property
    def dropped(self) -> list[tuple[int, int]]:
        """What ``on_full="drop"`` lost since this was last asked: a list of (first_id, count)."""
        gaps = list(self._gaps)
        self._gaps.clear()
        return gaps

    def statistics(self) -> dict[str, int]:
        """Return ``cursor``, ``done``, ``dropped``, ``next_id``, ``newest_id`` and ``leases_held``."""
        numbers = self._look()
        names = ("cursor", "done", "dropped", "next_id", "newest_id", "leases_held")
        return dict(zip(names, map(int, numbers), strict=True))

    @property
    def closed(self) -> bool:
        """Whether this reader cannot be used any longer."""
        return self._link is None

    # -- end

    def _who(self) -> str:
        return f"reader {self.name!r}"

    def _leave(self) -> bool:
        """Give the row back. Views that still live stay valid until they go."""
        link, self._link = self._link, None
        if link is None:
            return False
        native.reader_leave(link.context)
        link.closing = True
        link.settle()
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        assert_spawning(self)
        link = self._link
        if link is None or self._generation != _process.generation:
            self._refuse()
        if self._look()[5]:
            raise ScopeStateError(f"reader {self.name!r} holds frames: release them before it goes to another process")
        native.reader_hand_over(link.context)
        link.end()
        self._link = None
        self._given = True
        if self._on_give is not None:
            self._on_give(self.row, get_spawning_popen())
        return rebuild, (FrameReader, self._meta, [DupFd(fd) for fd in self._fds])

    def __repr__(self) -> str:
        return f"<FrameReader {self.name!r} of ring {self.ring_name!r}, {self.policy}, row {self.row}>"
