"""The producer's end of a ring."""

from __future__ import annotations

import ctypes
import math
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import assert_spawning, get_spawning_popen
from multiprocessing.reduction import DupFd
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mutoscope.frames import _process
from mutoscope.frames import _ring_native as native
from mutoscope.frames._holder import RingHolder, rebuild
from mutoscope.frames._segments import Segment, close_all
from mutoscope.frames.copies import LARGE_BYTES, copy_out
from mutoscope.model.errors import ConfigError, RingFullError, ScopeStateError
from mutoscope.model.frame import UNPLACED, USER_BYTES, PlaneIndex

__all__ = ["FrameWriter", "Slot"]

KIND = "ring writer"
_WAIT_SLICE_S = 0.5
_KINDS = "biufc"
_FIELDS = {
    "tick": "a whole number from 0 to 2**64 - 1",
    "monotonic_ns": "a whole number of nanoseconds below 2**63",
    "utc_ns": "a whole number of nanoseconds below 2**63",
    "exposure_ms": "a number",
    "index": "four whole numbers of 32 bits",
}


class Slot:
    """A slot that is being filled: a context manager that publishes on leaving, and discards when an exception leaves it.

    What the frame carries (``tick``, ``exposure_ms``, ``index``, ``user``, ``monotonic_ns``, ``utc_ns``) may be set until then;
    times of 0 become those of publishing.
    """

    __slots__ = (
        "_array",
        "_dtype",
        "_shape",
        "_timeout_s",
        "_writer",
        "exposure_ms",
        "frame_id",
        "index",
        "monotonic_ns",
        "number",
        "tick",
        "user",
        "utc_ns",
    )

    def __init__(
        self,
        writer: FrameWriter,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        timeout_s: float | None,
        tick: int = 0,
        exposure_ms: float = math.nan,
        index: PlaneIndex | None = None,
        user: bytes = b"",
    ) -> None:
        self._writer = writer
        self._shape = shape
        self._dtype = dtype
        self._timeout_s = timeout_s
        self._array: npt.NDArray[Any] | None = None
        self.tick = tick
        self.exposure_ms = exposure_ms
        self.index = index
        self.user = user
        self.monotonic_ns = 0
        self.utc_ns = 0
        self.number = -1
        self.frame_id = 0
        """Set by publishing."""

    @property
    def array(self) -> npt.NDArray[Any]:
        """The pixels, shape ``(y, x)``, undefined at first, writable until the slot is published or discarded.

        Raises
        ------
        ValueError
            Before and after.
        """
        if self._array is None:
            raise ValueError("this slot is not being filled: it is not claimed yet, or is published or discarded")
        return self._array

    def discard(self) -> None:
        """Give the slot back without a frame; no frame_id is used. Twice is fine."""
        self._writer._discard(self)

    def __enter__(self) -> Self:
        self._writer._claim(self, self._timeout_s)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if kind is not None:
            self.discard()
        elif self._array is not None:
            self._writer.publish(self)


class FrameWriter(RingHolder):
    """Publishes frames into a ring, in its own process and, at a time, one thread. A ring has one at a time.

    Made by ``FrameRing.writer``, :func:`mutoscope.frames.attach_writer` or :meth:`from_handle`. It can be given to a child that
    ``multiprocessing`` spawns, and is then the child's; a forked child is refused.

    Parameters
    ----------
    meta : mapping
        The plain values of a handle.
    fds : sequence of int
        Its descriptors; they become the writer's own.
    """

    KIND = KIND
    ROLE = "writer"

    def __init__(self, meta: Mapping[str, Any], fds: Sequence[int]) -> None:
        super().__init__(meta, fds)
        self.slot_bytes: int = meta["slot_bytes"]
        self._claimed: Slot | None = None
        self._views: list[tuple[object, object, npt.NDArray[Any]] | None] = [None] * meta["slots"]
        self._forms: dict[tuple[object, object], tuple[tuple[int, int], np.dtype[Any]]] = {}
        self._header = ctypes.create_string_buffer(native.HEADER.size)
        self._header_address = ctypes.addressof(self._header)
        self._context: int | None = None
        try:
            control = Segment(self._fds[0], meta["control_bytes"], writable=True)
            self._control: Segment | None = control
            if native.check_control(control.address, meta["control_bytes"]) != native.OK:
                raise ConfigError(f"the segment of ring {self.ring_name!r} is of another version of Mutoscope")
            self._data: Segment | None = Segment(self._fds[1], meta["data_bytes"], writable=True)
            self._context = native.writer_open(control.address, self._pid, native.descriptors(self._fds[2:]))
            if not self._context:
                raise MemoryError("no memory for the writer of the frame ring")
        except BaseException:
            close_all(self._fds)
            raise

    # -- claim, fill, publish

    def slot(
        self,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        *,
        tick: int = 0,
        exposure_ms: float = math.nan,
        index: PlaneIndex | None = None,
        user: bytes = b"",
        timeout_s: float | None = None,
    ) -> Slot:
        """Return a context manager that claims a slot, lets you fill it, and publishes it: no copy at all.

        Parameters
        ----------
        shape : (y, x)
            In pixels. It may differ from frame to frame as long as the frame fits in a slot.
        dtype : dtype_like
            A bool, integer, float or complex type.
        tick : int
            The camera's own counter.
        exposure_ms : float
            NaN where unknown.
        index : PlaneIndex, optional
            The place in (t, c, z, position).
        user : bytes
            At most 64 bytes.
        timeout_s : float, optional
            Longest wait in seconds for a free slot; None waits without end.

        Raises
        ------
        ValueError
            If the frame does not fit in a slot (before anything is claimed).
        RingFullError
            On entering: no slot came free in time.
        RingClosedError
            On entering: the ring's owner closed it, or died.
        """
        shape, kind = self._check_form(shape, dtype)
        return Slot(self, shape, kind, timeout_s, tick, exposure_ms, index, user)

    def push(
        self,
        array: npt.NDArray[Any],
        *,
        tick: int = 0,
        exposure_ms: float = math.nan,
        index: PlaneIndex | None = None,
        user: bytes = b"",
        monotonic_ns: int | None = None,
        utc_ns: int | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """Copy an image into a slot and publish it.

        Parameters
        ----------
        array : ndarray, shape (y, x)
            Copied before return; the caller may reuse it.
        tick, exposure_ms, index, user, timeout_s
            As for :meth:`slot`.
        monotonic_ns, utc_ns : int, optional
            When the image was taken; now if not given.

        Returns
        -------
        int
            The new frame's id.
        """
        if type(array) is not np.ndarray:
            array = np.asarray(array)
        shape, dtype = self._check_form(array.shape, array.dtype)
        if len(user) > USER_BYTES:
            raise _user_too_long(user)
        context = self._check_usable()
        if self._claimed is not None:
            raise _busy()
        number: int = native.writer_claim(context)
        if number < 0:
            number = self._wait_for_slot(number, timeout_s)
        try:
            view = self._view(number, shape, dtype)
            if array.nbytes < LARGE_BYTES:
                view[...] = array
            else:
                copy_out(view, array)
            if index is None:
                index = UNPLACED
            self._fill_header(shape, dtype, tick, monotonic_ns or 0, utc_ns or 0, exposure_ms, index, user)
        except BaseException:
            native.writer_discard(context, number)
            raise
        return native.writer_publish(context, number, self._header_address)  # type: ignore[no-any-return]

    def try_claim(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Slot | None:
        """Claim a slot without ever waiting.

        Returns
        -------
        Slot or None
            To be given to :meth:`publish`, or discarded. None when readers that may lose nothing hold every slot.
        """
        shape, kind = self._check_form(shape, dtype)
        slot = Slot(self, shape, kind, 0.0)
        number = self._try(slot)
        if number < 0:
            return None
        self._grant(slot, number)
        return slot

    def claim(self, shape: Sequence[int], dtype: npt.DTypeLike, timeout_s: float) -> Slot | None:
        """Claim a slot, waiting up to `timeout_s` seconds for one; as :meth:`try_claim`."""
        shape, kind = self._check_form(shape, dtype)
        slot = Slot(self, shape, kind, timeout_s)
        try:
            self._claim(slot, timeout_s)
        except RingFullError:
            return None
        return slot

    @property
    def head(self) -> int:
        """The newest published ``frame_id``; 0 before the first."""
        self._check_usable()
        assert self._control is not None
        return int(native.head(self._control.address))

    def publish(self, slot: Slot) -> int:
        """Publish a claimed and filled slot; its ``array`` ends with that.

        Returns
        -------
        int
            The new frame's id.
        """
        if self._claimed is not slot or self._context is None:
            self._check_usable()
            raise ScopeStateError("this slot is not claimed: it was published or discarded before")
        shape, user, index = slot._shape, slot.user, slot.index or UNPLACED
        try:
            if len(user) > USER_BYTES:
                raise _user_too_long(user)
            self._fill_header(shape, slot._dtype, slot.tick, slot.monotonic_ns, slot.utc_ns, slot.exposure_ms, index, user)
        except BaseException:
            self._discard(slot)
            raise
        slot._array = self._claimed = None
        slot.frame_id = frame_id = native.writer_publish(self._context, slot.number, self._header_address)
        return frame_id  # type: ignore[no-any-return]

    def _fill_header(
        self,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        tick: int,
        monotonic_ns: int,
        utc_ns: int,
        exposure_ms: float,
        index: PlaneIndex,
        user: bytes,
    ) -> None:
        place = (index.t, index.c, index.z, index.position)
        try:
            _pack_header(
                self._header, 0, 0, tick, monotonic_ns, utc_ns, exposure_ms, *shape, _code(dtype), *place, len(user), 0, user
            )
        except struct.error:
            values = {"tick": tick, "monotonic_ns": monotonic_ns, "utc_ns": utc_ns, "exposure_ms": exposure_ms, "index": place}
            raise _refuse_metadata(values) from None

    def _check_form(self, shape: Sequence[int], dtype: npt.DTypeLike) -> tuple[tuple[int, int], np.dtype[Any]]:
        key = (shape, dtype) if type(shape) is tuple and type(dtype) in (str, type(_UINT16)) else None
        known = self._forms.get(key) if key is not None else None
        if known is not None:
            return known
        kind = np.dtype(dtype)
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(f"a frame has shape (y, x) with at least one pixel, not {tuple(shape)}")
        if kind.kind not in _KINDS or len(kind.str) > 8:
            raise ValueError(f"a frame's pixels are bool, integer, float or complex, not {kind}")
        height, width = int(shape[0]), int(shape[1])
        if height * width * kind.itemsize > self.slot_bytes:
            raise ValueError(
                f"a frame of {height} x {width} {kind.name} is {height * width * kind.itemsize:,} bytes; "
                f"the slots of ring {self.ring_name!r} hold {self.slot_bytes:,}"
            )
        form = ((height, width), kind)
        if key is not None and len(self._forms) < 64:
            self._forms[key] = form
        return form

    def _check_usable(self) -> int:
        context = self._context
        if context is None or self._generation != _process.generation:
            self._refuse()
        return context

    def _try(self, slot: Slot) -> int:
        """Return the number of the claimed slot, or -1 when there is none."""
        context = self._check_usable()
        if self._claimed is not None:
            raise _busy()
        number: int = native.writer_claim(context)
        if number >= 0:
            return number
        if number == -native.CLOSED:
            self._end_by_owner()
        return -1

    def _claim(self, slot: Slot, timeout_s: float | None) -> None:
        if slot.number >= 0:
            raise ScopeStateError("a slot is filled once: ask the writer for another")
        number = self._try(slot)
        if number < 0:
            number = self._wait(timeout_s)
        self._grant(slot, number)

    def _grant(self, slot: Slot, number: int) -> None:
        slot._array = self._view(number, slot._shape, slot._dtype)
        slot.number = number
        self._claimed = slot

    def _view(self, number: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        known = self._views[number]
        if known is not None and known[0] == shape and known[1] == dtype:
            return known[2]
        assert self._data is not None
        at, size = number * self.slot_bytes, shape[0] * shape[1] * dtype.itemsize
        view = self._data.bytes[at : at + size].view(dtype).reshape(shape)
        self._views[number] = (shape, dtype, view)
        return view

    def _wait_for_slot(self, answer: int, timeout_s: float | None) -> int:
        if answer == -native.CLOSED:
            self._end_by_owner()
        return self._wait(timeout_s)

    def _wait(self, timeout_s: float | None) -> int:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        code = native.WAIT
        while True:
            left = _WAIT_SLICE_S if deadline is None else deadline - time.monotonic()
            if left <= 0 and code in (native.WAIT, native.TIMEOUT):
                raise RingFullError(
                    f"ring {self.ring_name!r} is full: no slot came free within {timeout_s} s, a lossless reader holds them all"
                )
            self._waiting = True
            try:
                number: int = native.writer_wait(self._check_usable(), int(1e9 * min(max(left, 0.0), _WAIT_SLICE_S)))
            finally:
                self._waiting = False
            if number >= 0:
                return number
            code = -number
            if code == native.CLOSED:
                self._end_by_owner()
            if code == native.INTERRUPTED and self._callback is not None:
                self._callback()

    def _discard(self, slot: Slot) -> None:
        if self._claimed is not slot:
            return
        slot._array = self._claimed = None
        if self._context is not None:
            native.writer_discard(self._context, slot.number)

    def interrupt_with(self, fd: int, callback: Callable[[], None] | None) -> None:
        """Have waits for a free slot wake when `fd` is readable, too; as ``FrameReader.interrupt_with``."""
        context = self._check_usable()
        self._callback = callback
        native.writer_interrupt(context, fd if callback is not None else -1)

    @property
    def closed(self) -> bool:
        """Whether this writer cannot be used any longer."""
        return self._context is None

    # -- end

    def _who(self) -> str:
        return f"the writer of ring {self.ring_name!r}"

    def _let_go(self) -> int | None:
        context, self._context = self._context, None
        if self._claimed is not None:
            self._claimed._array = None
        self._claimed = self._control = self._data = None
        self._views = []
        return context

    def _leave(self) -> bool:
        """Give the producer's place back, with a claimed slot if there is one."""
        if self._context is None:
            return False
        native.writer_leave(self._context)
        native.writer_free(self._context)
        self._let_go()
        close_all(self._fds)
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        assert_spawning(self)
        context = self._check_usable()
        if self._claimed is not None:
            raise ScopeStateError("a slot is being filled: publish or discard it before the writer goes to another process")
        native.writer_hand_over(context)
        native.writer_free(context)
        self._let_go()
        self._given = True
        if self._on_give is not None:
            self._on_give(-1, get_spawning_popen())
        return rebuild, (FrameWriter, self._meta, [DupFd(fd) for fd in self._fds])

    def __repr__(self) -> str:
        return f"<FrameWriter of ring {self.ring_name!r}>"


_UINT16 = np.dtype("uint16")
_codes: dict[np.dtype[Any], bytes] = {}
_pack_header = native.HEADER.pack_into


def _busy() -> ScopeStateError:
    return ScopeStateError("a slot is being filled already: publish or discard it first")


def _refuse_metadata(values: dict[str, Any]) -> ConfigError:
    """Say which of a frame's values is not what its field holds."""
    fields = {"tick": "Q", "monotonic_ns": "q", "utc_ns": "q", "exposure_ms": "d", "index": "iiii"}
    for name, form in fields.items():
        try:
            struct.pack(f"<{form}", *(values[name] if name == "index" else (values[name],)))
        except struct.error:
            return ConfigError(f"a frame's {name} is {_FIELDS[name]}, not {values[name]!r}")
    return ConfigError(f"the metadata of this frame do not fit: {values}")


def _user_too_long(user: bytes) -> ValueError:
    return ValueError(f"a frame's user block holds {USER_BYTES} bytes at most, not {len(user)}")


def _code(dtype: np.dtype[Any]) -> bytes:
    code = _codes.get(dtype)
    if code is None:
        code = _codes[dtype] = dtype.str.encode()
    return code
