"""The owner's end of a ring."""

from __future__ import annotations

import ctypes
import os
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, SupportsIndex

from mutoscope.frames import _os, _process
from mutoscope.frames import _ring_native as native
from mutoscope.frames._segments import Handle, Segment, close_all, duplicate
from mutoscope.frames.reader import KIND as READER_KIND
from mutoscope.frames.reader import FrameReader
from mutoscope.frames.statistics import RingStatistics, RowStatistics
from mutoscope.frames.writer import KIND as WRITER_KIND
from mutoscope.frames.writer import FrameWriter
from mutoscope.model import IdRanges
from mutoscope.model.errors import ConfigError, RingClosedError, ScopeStateError

if TYPE_CHECKING:
    from mutoscope.frames.attach import RingListener

__all__ = ["FrameRing", "OnFull", "Policy", "Start"]

Policy = Literal["every", "latest", "share"]
OnFull = Literal["block", "drop", "detach"]
Start = Literal["new", "oldest"]

_POLICY_NAMES = {number: name for name, number in native.POLICIES.items()}
_ON_FULL_NAMES = {number: name for name, number in native.ON_FULL.items()}
_MAX_SLOTS = 65535
_LOG_CHUNK = 2048
_KEPT = 2


class FrameRing:
    """Slots in shared memory through which one producer hands frames to many readers. Whoever makes it owns it and closes it.

    Parameters
    ----------
    slots : int
        Frames that it can hold.
    slot_bytes : int
        Most bytes of one frame.
    name : str
        Shown in messages and in ``/proc/*/maps``.
    standalone : bool
        The ring itself watches the processes that hold its rows, in a native thread, and clears up after those that die. With
        False the caller does that by :meth:`reader_died` and :meth:`writer_died`. In both cases the owner's death closes it.
    row_count : int
        Most readers at a time, 64 at most.
    first_id : int
        The id of the first frame: a run that is resumed goes on counting.

    Raises
    ------
    RingSizeError
        If it does not fit in the memory that is free.
    ConfigError
        If a number is out of its bounds.

    Examples
    --------
    >>> import numpy as np
    >>> with FrameRing(slots=8, slot_bytes=64 * 64 * 2) as ring:
    ...     reader = ring.reader(policy="every")
    ...     writer = ring.writer()
    ...     with writer.slot(shape=(64, 64), dtype="uint16") as slot:
    ...         slot.array[:] = 7
    ...     with reader.next(timeout_s=1.0) as frame:
    ...         total = int(frame.array.sum())
    ...         reader.commit(frame)
    ...     (frame.frame_id, total, reader.lag)
    (1, 28672, 0)
    """

    def __init__(
        self,
        slots: int,
        slot_bytes: int,
        *,
        name: str = "ring",
        standalone: bool = True,
        row_count: int = 16,
        first_id: int = 1,
    ) -> None:
        for what, number in (("slots", slots), ("slot_bytes", slot_bytes), ("row_count", row_count)):
            if not isinstance(number, SupportsIndex):
                raise ConfigError(f"ring {name!r}: {what} is a whole number, not {number!r}")
        if not 4 <= slots <= _MAX_SLOTS:
            raise ConfigError(f"ring {name!r} needs 4 to {_MAX_SLOTS} slots, not {slots}")
        if slot_bytes < 1:
            raise ConfigError(f"ring {name!r} needs slots of at least 1 byte, not {slot_bytes}")
        if not 1 <= row_count <= native.MAX_ROWS:
            raise ConfigError(f"ring {name!r} can have 1 to {native.MAX_ROWS} readers, not {row_count}")
        if first_id < 1:
            raise ConfigError(f"ring {name!r}: frame ids begin at 1 or later, not {first_id}")
        self.name = name
        self.first_id = first_id
        self.slots = slots
        self.slot_bytes = _os.round_to_page(slot_bytes)
        self.row_count = row_count
        self.standalone = standalone
        self._pid = os.getpid()
        self._generation = _process.generation
        self._closed = False
        self._lock = threading.RLock()
        self._local: set[FrameReader | FrameWriter] = set()
        self._in_transit: list[tuple[int, Any]] = []
        self._listener: RingListener | None = None
        self._fds: list[int] = []
        self._data_bytes = slots * self.slot_bytes
        self._control_bytes = _os.round_to_page(native.control_bytes(slots, self.slot_bytes, row_count))
        self.ring_bytes = self._data_bytes + self._control_bytes
        try:
            self._data_fd = self._keep(_os.create_segment(f"frames:{name}", self._data_bytes))
            self._data_read_only_fd = self._keep(_os.reopen_read_only(self._data_fd))
            self._control_fd = self._keep(_os.create_segment(f"control:{name}", self._control_bytes))
            self._owner_pidfd = self._keep(_os.open_pidfd(self._pid))
            self._producer_bell = self._keep(_os.create_bell())
            self._owner_bell = self._keep(_os.create_bell())
            self._row_bells = [self._keep(_os.create_bell()) for _ in range(row_count)]
            self._control: Segment | None = Segment(self._control_fd, self._control_bytes, writable=True)
            native.format_control(self._control.address, slots, self.slot_bytes, row_count)
            native.begin(self._control.address, first_id)
            self._owner = native.own(
                self._control_fd,
                self._control_bytes,
                self._pid,
                native.descriptors([self._producer_bell, self._owner_bell, *self._row_bells]),
            )
            if not self._owner:
                raise MemoryError("no memory for a frame ring")
            if standalone:
                self._watch()
        except BaseException:
            close_all(self._fds)
            raise

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def _watch(self) -> None:
        failed = native.watch(self._owner)
        if failed:
            raise OSError(failed, f"ring {self.name!r}: no thread to watch its processes")

    def _address(self) -> int:
        if self._generation != _process.generation:
            raise _process.refuse_forked("ring", self._pid)
        if self._control is None:
            raise RingClosedError(f"ring {self.name!r} is closed")
        return self._control.address

    # -- readers and the writer of this process, or to be given to a child of multiprocessing

    def reader(
        self,
        policy: Policy = "every",
        *,
        leases: int = 2,
        on_full: OnFull = "block",
        lag_limit: int | None = None,
        at_most_hz: float | None = None,
        group: str | None = None,
        name: str = "reader",
        start: Start = "new",
    ) -> FrameReader:
        """Return a new reader.

        Parameters
        ----------
        policy : {"every", "latest", "share"}
            ``every``: all frames in order; ``commit`` frees them. ``latest``: the newest frame, never holds the producer.
            ``share``: each frame goes to one member of `group`; those of a member that dies go to others.
        leases : int
            Most frames that it may hold at a time, 256 at most.
        on_full : {"block", "drop", "detach"}
            What happens when this reader falls behind: ``block`` holds the producer, ``drop`` loses the oldest frames,
            which are counted, ``detach`` ends this reader. ``share`` has the first two.
        lag_limit : int, optional
            ``detach``: frames behind at which that happens; without it, when a frame that it needs is overwritten.
        at_most_hz : float, optional
            ``latest``: most frames a second.
        group : str
            ``share``: the pool's name.
        name : str
            Shown in messages and statistics.
        start : {"new", "oldest"}
            Begin with the next frame, or with the oldest from which on all are still there.

        Raises
        ------
        ConfigError
            If the ring has not enough slots for one more reader with that many leases, has no free row, or the
            arguments do not fit together.
        """
        with self._lock:
            meta, fds = self.assign_reader(
                pid=self._pid,
                policy=policy,
                leases=leases,
                on_full=on_full,
                lag_limit=lag_limit,
                at_most_hz=at_most_hz,
                group=group,
                name=name,
                start=start,
            )
            reader = FrameReader(meta, duplicate(fds))
            reader._on_give, reader._on_close = self._give, self._local.discard
            self._local.add(reader)
            return reader

    def writer(self) -> FrameWriter:
        """Return the writer; a ring has one at a time.

        Raises
        ------
        ScopeStateError
            If there is one already.
        """
        with self._lock:
            meta, fds = self.assign_writer(pid=self._pid)
            writer = FrameWriter(meta, duplicate(fds))
            writer._on_give, writer._on_close = self._give, self._local.discard
            self._local.add(writer)
            return writer

    def _give(self, row: int, child: Any) -> None:
        self._in_transit.append((row, child))

    def _settle_transit(self) -> None:
        """Take back what was given to children that ended before they opened it."""
        waiting = []
        for row, child in self._in_transit:
            attached = self._row_numbers(row)[0][20] if row >= 0 else self._ring_numbers()[2]
            if attached:
                continue
            if getattr(child, "pid", None) is None or child.poll() is None:
                waiting.append((row, child))
            elif row >= 0:
                native.reader_died(self._owner, row, 0)
            else:
                native.writer_died(self._owner)
        self._in_transit = waiting

    # -- rows and handles, for whoever starts the processes

    def assign_reader(
        self,
        *,
        pid: int,
        policy: Policy,
        leases: int = 2,
        on_full: OnFull = "block",
        lag_limit: int | None = None,
        at_most_hz: float | None = None,
        group: str | None = None,
        name: str = "reader",
        start: Start = "new",
        row: int | None = None,
        watched: bool | None = None,
        keep_losses: bool = False,
    ) -> Handle:
        """Assign a row to a reader in process `pid` and return the handle that opens it there.

        Parameters
        ----------
        pid : int
            The process; 0 when it is not known yet.
        policy, leases, on_full, lag_limit, at_most_hz, group, name, start
            As for :meth:`reader`.
        row : int, optional
            The successor takes over this row of a dead or closed reader with its cursor, its account and the frames in
            its hands.
        watched : bool, optional
            The ring itself clears up when that process dies; by default as ``standalone`` says.
        keep_losses : bool
            For ``every`` with ``on_full="drop"``: you promise to read what it loses (:meth:`dropped`, then :meth:`losses_read`)
            whenever :attr:`bell` is rung. The reader then waits for you rather than forget an id.

        Returns
        -------
        (dict, list of int)
            Plain values, and descriptors that stay the ring's: duplicate them or send them over a socket.
        """
        with self._lock:
            self._address()
            self._settle_transit()
            self._check_request(policy, leases, on_full, lag_limit, at_most_hz, group, name)
            if start not in ("new", "oldest"):
                raise ConfigError(f"reader {name!r} of ring {self.name!r}: start is 'new' or 'oldest', not {start!r}")
            request = native.RowRequest(
                row=-1 if row is None else row,
                policy=native.POLICIES[policy],
                on_full=native.ON_FULL[on_full],
                leases=leases,
                pid=pid,
                oldest=start == "oldest",
                lag_limit=lag_limit or 0,
                watched=self.standalone if watched is None else watched,
                keeps_log=keep_losses,
                name=name.encode()[: native.NAME_BYTES - 1],
                group=(group or "").encode(),
            )
            found: int = native.assign(self._owner, ctypes.byref(request))
            if found < 0:
                raise self._refusal(-found, request, row)
            bells = [self._row_bells[found]]
            if policy == "share":
                bells += self._row_bells
            meta = self._meta(READER_KIND) | {
                "row": found,
                "policy": policy,
                "on_full": on_full,
                "leases": leases,
                "at_most_hz": at_most_hz,
                "name": name,
            }
            fds = [self._control_fd, self._data_read_only_fd, self._owner_pidfd, self._producer_bell, self._owner_bell]
            return meta, fds + bells

    def _check_request(
        self,
        policy: str,
        leases: int,
        on_full: str,
        lag_limit: int | None,
        at_most_hz: float | None,
        group: str | None,
        name: str,
    ) -> None:
        problem = None
        if policy not in native.POLICIES:
            problem = f"policy {policy!r} is not one of {', '.join(native.POLICIES)}"
        elif on_full not in native.ON_FULL:
            problem = f"on_full {on_full!r} is not one of {', '.join(native.ON_FULL)}"
        elif not 1 <= leases <= native.MAX_PINS:
            problem = f"leases is 1 to {native.MAX_PINS}, not {leases}"
        elif (policy == "share") != bool(group):
            problem = "policy 'share' needs a group, and only that"
        elif policy == "share" and on_full == "detach":
            problem = "a pool blocks or drops; it cannot be detached"
        elif policy == "latest" and on_full != "block":
            problem = "policy 'latest' never holds the producer: on_full does not apply"
        elif group and len(group.encode()) >= native.NAME_BYTES:
            problem = f"the group's name {group!r} is longer than {native.NAME_BYTES - 1} bytes"
        elif lag_limit is not None and (on_full != "detach" or lag_limit < 1):
            problem = "lag_limit is a positive number of frames that goes with on_full='detach'"
        elif at_most_hz is not None and (policy != "latest" or not at_most_hz > 0):
            problem = "at_most_hz is a positive rate that goes with policy 'latest'"
        if problem:
            raise ConfigError(f"reader {name!r} of ring {self.name!r}: {problem}")

    def _refusal(self, code: int, request: Any, row: int | None) -> Exception:
        who = f"reader {request.name.decode()!r} of ring {self.name!r}"
        if code == native.CLOSED:
            return RingClosedError(f"ring {self.name!r} is closed")
        if code == native.LIMIT:
            caps = native.caps(self._owner, request.row)
            return ConfigError(
                f"{who}: {self.slots} slots are too few: its {request.leases} leases, the {caps} of the others and 2 for the "
                f"producer make {caps + request.leases + 2}"
            )
        if code == native.NO_ROW:
            return ConfigError(f"{who}: all {self.row_count} rows are taken (row_count=)")
        if code == native.NO_GROUP:
            return ConfigError(f"{who}: the ring has as many pools as it can hold")
        if row is not None:
            return ConfigError(f"{who}: row {row} has no reader of policy {_POLICY_NAMES[request.policy]!r} to succeed")
        return ConfigError(f"{who}: the members of pool {request.group.decode()!r} have another on_full")

    def _meta(self, kind: str) -> dict[str, Any]:
        return {
            "kind": kind,
            "ring": self.name,
            "slots": self.slots,
            "slot_bytes": self.slot_bytes,
            "row_count": self.row_count,
            "control_bytes": self._control_bytes,
            "data_bytes": self._data_bytes,
            "owner_pid": self._pid,
        }

    def assign_writer(self, *, pid: int, watched: bool | None = None) -> Handle:
        """Make process `pid` the producer and return the handle that opens the writer there.

        Raises
        ------
        ScopeStateError
            If the ring has a writer.
        """
        with self._lock:
            self._address()
            self._settle_transit()
            code = native.assign_writer(self._owner, pid, self.standalone if watched is None else watched)
            if code == native.CLOSED:
                raise RingClosedError(f"ring {self.name!r} is closed")
            if code != native.OK:
                raise ScopeStateError(f"ring {self.name!r} has a writer already; it takes one at a time")
            fds = [self._control_fd, self._data_fd, self._owner_pidfd, self._producer_bell, self._owner_bell]
            return self._meta(WRITER_KIND) | {"pid": pid}, fds + self._row_bells

    def writer_died(self) -> None:
        """Clear up after the producer's death: a slot that it was filling is empty again, everyone is woken."""
        with self._lock:
            self._address()
            native.writer_died(self._owner)

    def reader_died(self, row: int, *, keep: bool) -> RowStatistics:
        """Clear up after a reader's death.

        Parameters
        ----------
        row : int
            Its row.
        keep : bool
            True keeps its cursor, and so the frames, for a successor (``assign_reader(row=...)``). False frees the row; what it
            needed may be overwritten, and frames in the hands of a pool's member go to the others.

        Returns
        -------
        RowStatistics
            Its exact account at its death.
        """
        with self._lock:
            self._address()
            self._check_row(row)
            if keep:
                native.reader_died(self._owner, row, 1)
                return self._row(row)
            native.reader_died(self._owner, row, 1)  # settles its account
            last = self._row(row)
            native.reader_died(self._owner, row, 0)
            return last

    def _check_row(self, row: int) -> None:
        if not 0 <= row < self.row_count:
            raise ConfigError(f"ring {self.name!r} has rows 0 to {self.row_count - 1}, not {row}")

    # -- what it says of itself

    def head(self) -> int:
        """Return the newest published frame_id; 0 when there is none."""
        return int(native.head(self._address()))

    def rows(self) -> list[RowStatistics]:
        """Return what the rows in use say."""
        with self._lock:
            self._address()
            self._settle_transit()
            return [self._row(row) for row in range(self.row_count) if self._row_numbers(row)[0][0]]

    def _row_numbers(self, row: int) -> tuple[Any, bytes]:
        numbers = (ctypes.c_uint64 * 21)()
        names = ctypes.create_string_buffer(2 * native.NAME_BYTES)
        native.look_at_row(self._address(), row, numbers, names)
        return numbers, names.raw

    def _row(self, row: int) -> RowStatistics:
        numbers, names = self._row_numbers(row)
        (state, policy, on_full, leases, pid, leaving, detached, start, cursor, done, dropped, ranges) = numbers[:12]
        (shown, last_shown, progress, pins, newest, group_start, group_done, group_dropped) = numbers[12:20]
        group = policy == native.POLICIES["share"]
        latest = policy == native.POLICIES["latest"]
        begin = group_start if group else start
        produced = max(0, newest + 1 - begin)
        if detached:
            dropped = produced - done
        pending = produced - (group_done + group_dropped if group else done + dropped)
        offered = produced if latest else 0
        return RowStatistics(
            row=row,
            name=names[: native.NAME_BYTES].rstrip(b"\0").decode(errors="replace"),
            policy=_POLICY_NAMES.get(policy, ""),
            on_full=_ON_FULL_NAMES.get(on_full, ""),
            group=names[native.NAME_BYTES :].rstrip(b"\0").decode(),
            leases=leases,
            pid=pid,
            state="closed" if leaving else "kept" if state == _KEPT else "detached" if detached else "active",
            start_id=begin,
            cursor=last_shown + 1 if latest else cursor,
            done=done,
            dropped=dropped,
            dropped_ranges=ranges,
            shown=shown,
            offered=offered,
            skipped=offered - shown if latest else 0,
            lag=max(0, newest + 1 - (max(last_shown + 1, begin) if latest else cursor)),
            pins=pins,
            progress=progress,
            produced=produced,
            pending=0 if latest else pending,
            group_done=group_done,
            group_dropped=group_dropped,
        )

    def dropped(self, row: int, since: int = 0) -> list[tuple[int, int]]:
        """Return what a reader that drops has lost, by frame id.

        Parameters
        ----------
        row : int
            Its row; for ``share`` that of any member of the pool.
        since : int
            Entries of the log that are known already: its length at an earlier call. The ring keeps the last 2,047 (of a pool,
            which has one for each frame, 4,095).

        Returns
        -------
        list of (first_id, count)
            The entries from `since` on that the ring still has.
        """
        found: list[tuple[int, int]] = []
        known = -1
        while known != since:
            known = since
            more, since = self.read_dropped(row, known)
            found += more
        return found

    def read_dropped(self, row: int, since: int) -> tuple[list[tuple[int, int]], int]:
        """Return some entries as :meth:`dropped` does, and the number of entries that are known then."""
        with self._lock:
            address = self._address()
            self._check_row(row)
            entries, known = (ctypes.c_uint64 * (2 * _LOG_CHUNK))(), (ctypes.c_uint64 * 1)()
            count = native.look_at_dropped(address, row, since, _LOG_CHUNK, entries, known)
            values = entries[: 2 * count]
            return list(zip(values[::2], values[1::2], strict=True)), known[0]

    def losses_read(self, row: int, known: int) -> None:
        """Say that entries of a row's log up to number `known` are read: a reader with ``keep_losses`` may write over them."""
        with self._lock:
            self._address()
            self._check_row(row)
            native.log_read(self._owner, row, known)

    @property
    def bell(self) -> int:
        """A descriptor that is readable once a reader or writer came or went, or a log of losses is filling up.

        For whoever manages the processes (``standalone=False``); call :meth:`quiet` before looking.
        """
        return self._owner_bell

    def quiet(self) -> None:
        """Make :attr:`bell` unreadable until it is rung again."""
        _os.clear_bell(self._owner_bell)

    def unfinished(self, row: int) -> list[tuple[int, int]]:
        """Return what is neither done nor dropped: by a lossless reader, or by the pool of which it is a member.

        Parameters
        ----------
        row : int
            Its row.

        Returns
        -------
        list of (first_id, count)
            Ascending.
        """
        with self._lock:
            address = self._address()
            self._check_row(row)
            numbers = self._row_numbers(row)[0]
            cursor, newest = int(numbers[8]), int(numbers[16])
            if numbers[1] != native.POLICIES["share"]:
                return [(cursor, newest + 1 - cursor)] if newest >= cursor else []
            ids = [number for number in range(cursor, self.head() + 1) if native.unfinished(address, row, number)]
            return list(IdRanges.from_ids(ids).runs())

    def _ring_numbers(self) -> Any:
        numbers = (ctypes.c_uint64 * 8)()
        native.look_at_ring(self._address(), numbers)
        return numbers

    def statistics(self) -> RingStatistics:
        """Return what the ring as a whole has counted."""
        with self._lock:
            self._address()
            self._settle_transit()
            head, closed, pid, full_events, blocked_ns, discarded, starts, used = self._ring_numbers()
            return RingStatistics(
                name=self.name,
                produced=head - self.first_id + 1,
                slots=self.slots,
                slots_used=used,
                full_events=full_events,
                blocked_ns=blocked_ns,
                discarded=discarded,
                producer_pid=pid,
                producer_starts=starts,
                ring_bytes=self.ring_bytes,
                closed=bool(closed),
            )

    # -- processes started elsewhere

    def listen(self, name: str | None = None) -> str:
        """Let processes of the same user attach; see :func:`mutoscope.frames.attach_reader`.

        Parameters
        ----------
        name : str, optional
            Of the abstract Unix socket; a private one is chosen without it.

        Returns
        -------
        str
            The address to attach to.
        """
        from mutoscope.frames.attach import RingListener

        with self._lock:
            self._address()
            if self._listener is None:
                self._watch()
                self._listener = RingListener(self, name)
            return self._listener.address

    # -- end

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def close(self) -> None:
        """Close the ring: whoever uses it gets ``RingClosedError``; the memory goes with its last user. Twice is fine."""
        if self._closed or self._generation != _process.generation:
            return
        self._closed = True
        if self._listener is not None:
            self._listener.close()
        with self._lock:
            native.close_ring(self._owner)
            self._owner = None
            for user in list(self._local):
                user._ring_closed()
            self._control = None
            close_all(self._fds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FrameRing {self.name!r}, {self.slots} slots of {self.slot_bytes:,} bytes{', closed' if self._closed else ''}>"
