"""The worker that stores one camera's stream: every frame, in order, acknowledged only when it is written."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from mutoscope import storage
from mutoscope.bus import Command, handles
from mutoscope.frames import Frame
from mutoscope.model._faults import kill_point
from mutoscope.model.errors import (
    ConfigError,
    DatasetError,
    DiskFullError,
    FrameTimeoutError,
    PeerDiedError,
    RingClosedError,
)
from mutoscope.recording.table_store import TableStore
from mutoscope.runtime import Restart, Worker, control
from mutoscope.storage._place import DatasetPlace
from mutoscope.storage.ome_tiff import is_ome_tiff

__all__ = ["RecorderWorker"]

IDLE_S = 0.5
PENDING_S = 0.05
CHECK_S = 0.5
TABLES_S = 0.1
LEASES = 4
REPORT_EVERY = 8
ORPHANED_S = 1.0


class RecorderWorker(Worker):
    """Stores the frames of one camera; it holds the camera rather than lose one. One of them stores the scope's tables, too.

    A frame's slot is given back only after the frame is written and acknowledged. A successor of a killed recorder goes on
    after the last stored ``frame_id``: nothing is written twice, nothing is left out.

    Attributes
    ----------
    camera : str
        Whose frames.
    reserve_bytes : int
        The run ends in order when the file system has less room than this.
    durability : str
        ``"process"`` or ``"power"``, see :mod:`mutoscope.storage`.
    held_frames : int
        Of a compressed stream, frames are acknowledged together: at the latest when so many hold slots of the ring; 0: any
        number.
    pyramid : bool
        Smaller levels are built beside the frames.
    """

    kind = "recorder"
    restart = Restart(limit=10, within_s=60.0)
    camera: str
    reserve_bytes: int = 0
    durability: str = "process"
    held_frames: int = 0
    pyramid: bool = False

    def setup(self) -> None:
        """Open the image of this camera, after its last stored frame, and take the reader's place."""
        assert self.state.dataset is not None
        self._open(self.state.dataset.path)
        self._reader = self.reader(self.camera, policy="every", on_full="block", leases=LEASES, start="oldest", key=self.camera)
        self._reader.drain_orphaned()
        self._taken: deque[tuple[int, int]] = deque()
        """Id and time of frames that the writer has and has not acknowledged yet: they are not committed."""
        self._failed: str | None = None
        self._at_reserve = False
        self._refused: tuple[int, int, str] | None = None
        self._next_check = self._next_tables = 0.0
        self._tables = TableStore(self._host_or_raise().open_stored_table, self._table_given_up)

    def _open(self, path: str) -> None:
        """Store into the data set at `path` from now on, after the last frame of this camera that it holds."""
        self._path = path
        self._writer = storage.open_image_writer(
            path,
            self.camera,
            continue_=True,
            durability=self.durability,  # type: ignore[arg-type]
            pyramid=self.pyramid,
        )
        self._form: tuple[tuple[int, ...], np.dtype[Any]] = (self._writer.shape, np.dtype(self._writer.dtype))
        self._place = DatasetPlace(path)

    @handles(control.RecordInto, delivery="supervisor")
    def record_into(self, command: control.RecordInto) -> None:
        """Close the image, and go on in another data set."""
        if command.path == self._path:
            return  # it was started for that one
        self._flush()
        self._report_refused()
        self._writer.close()
        self._place.close()
        self._open(command.path)

    @handles(control.StoreTables, delivery="supervisor")
    def store_tables(self, command: control.StoreTables) -> None:
        """Store tables as well, from the next look on."""
        self._tables.want(Path(command.folder), command.tables)

    def _look_at_tables(self) -> None:
        """Store the rows that have come, of some time together."""
        now = time.monotonic()
        if self._tables and now > self._next_tables:
            self._tables.look()
            self._next_tables = now + TABLES_S

    def _table_given_up(self, table: str, reason: str, message: str) -> None:
        self._tell(control.TableNotStored(table=table, reason=reason, message=message))

    def step(self) -> None:
        """Store the next frame, and the rows that have come."""
        self._look_at_tables()
        try:
            frame = self._reader.next(timeout_s=PENDING_S if self._taken else TABLES_S if self._tables else IDLE_S)
        except FrameTimeoutError:
            self._flush(timeout_s=0.0)
            self._report_refused()
            self._check_place()
            raise
        with frame:
            self._take(frame)
        self._settle()
        if time.monotonic() > self._next_check:
            self._check_place()

    def _take(self, frame: Frame) -> None:
        frame_id = frame.frame_id
        if frame_id <= self._writer.last_frame_id:
            self._reader.commit(frame)  # stored by a predecessor that was killed before it could say so
            return
        if self._failed is not None:
            self._refuse(frame_id, self._failed)
            return
        if not self.state.saving:
            self._refuse(frame_id, "saving_off")
            return
        self._report_refused()
        try:
            receipt = self._store(frame)
        except ConfigError as error:
            self.log.error("%s: frame %d cannot be stored: %s", self.camera, frame_id, error)
            self._refuse(frame_id, "unstorable")
            return
        except (DatasetError, OSError) as error:
            self._give_up(error, frame_id)
            return
        if receipt.acknowledged and not self._taken:
            self._commit(frame_id, frame.utc_ns)
            return
        self._taken.append((frame_id, frame.utc_ns))
        if 0 < self.held_frames <= len(self._taken):
            self._flush(timeout_s=0.0)

    def _commit(self, frame_id: int, utc_ns: int, count: int = 1) -> None:
        """Give back the slots of stored frames, `frame_id` the newest of them."""
        kill_point("recorder.stored")
        self._reader.commit(frame_id)
        kill_point("recorder.committed")
        row = self._host_or_raise().row
        row.progress_a += count
        row.progress_b = frame_id
        row.last_utc_ns = max(0, utc_ns)  # counters have no sign: a replayed frame may be from before 1970

    def _settle(self) -> None:
        """Commit what the writer has acknowledged since the last look."""
        if not self._taken:
            return
        acknowledged, newest, count = self._writer.acknowledged_id, (0, 0), 0
        while self._taken and self._taken[0][0] <= acknowledged:
            newest = self._taken.popleft()
            count += 1
        if count:
            self._commit(*newest, count)

    def _flush(self, timeout_s: float | None = None) -> None:
        """Have the writer acknowledge what it has; with a time-out of 0 it is only told to."""
        if not self._taken:
            return
        try:
            self._writer.flush(timeout_s)
        except (DatasetError, OSError) as error:
            self._give_up(error)
        self._settle()

    def _give_up(self, error: Exception, *frame_ids: int) -> None:
        """Store nothing from now on: neither what the writer still had, nor `frame_ids`. Raise what is no end in order."""
        what = ""
        if isinstance(error, DiskFullError):
            reason = "disk_full"
        elif what := self._harm():
            reason = "dataset_lost"
        else:
            raise error
        lost = [*self._refuse_taken(reason), *frame_ids]
        for frame_id in frame_ids:
            self._refuse(frame_id, reason)
        told = str(error).partition("; frame")[0]  # a writer that stores later says which frames it lost, as is said here
        self._fail(reason, what or (f"frame {lost[0]} was not stored: {told}" if lost else str(error)))

    def _refuse_taken(self, reason: str) -> list[int]:
        """Refuse the frames that the writer had and did not store; return their ids."""
        self._settle()
        lost = [frame_id for frame_id, _ in self._taken]
        self._taken.clear()
        for frame_id in lost:
            self._refuse(frame_id, reason)
        return lost

    def _store(self, frame: Frame) -> storage.Receipt:
        array = frame.array
        if (array.shape, array.dtype) != self._form:
            self._change_form(array)
        return self._writer.append(
            array,
            frame_id=frame.frame_id,
            tick=frame.tick,
            monotonic_ns=frame.monotonic_ns,
            utc_ns=frame.utc_ns,
            exposure_ms=frame.exposure_ms,
            index=frame.index,
        )

    def _change_form(self, array: np.ndarray[Any, np.dtype[Any]]) -> None:
        if is_ome_tiff(self._path):
            raise ConfigError(f"an OME-TIFF holds frames of one shape and dtype, and this one is {array.shape} {array.dtype}")
        storage.CameraLayout((array.shape[0], array.shape[1]), array.dtype).level()  # refuses what cannot be stored
        self.log.info("%s: frames are now %s %s: a further image begins", self.camera, array.shape, array.dtype)
        self._writer.flush()
        self._settle()
        self._writer.close()
        self._writer = storage.open_image_writer(
            self._path,
            self.camera,
            shape=(array.shape[0], array.shape[1]),
            dtype=array.dtype,
            continue_=True,
            durability=self.durability,  # type: ignore[arg-type]
            pyramid=self.pyramid,
        )
        self._form = (array.shape, array.dtype)

    def _refuse(self, frame_id: int, reason: str) -> None:
        """Note a frame that will not be stored; it is reported before its slot is given back."""
        self._flush()  # those before it are committed first
        if self._refused is not None and self._refused[2] != reason:
            self._report_refused()
        first = self._refused[0] if self._refused is not None else frame_id
        self._refused = (first, frame_id, reason)
        if frame_id - first + 1 >= REPORT_EVERY:
            self._report_refused()

    def _report_refused(self) -> None:
        if self._refused is None:
            return
        first, last, reason = self._refused
        self._refused = None
        self._tell(control.FramesNotStored(stream=self.camera, first_id=first, last_id=last, reason=reason))
        self._reader.commit(last)
        row = self._host_or_raise().row
        row.dropped += last - first + 1

    def _tell(self, command: Command) -> None:
        """Tell the supervisor; nobody keeps a ledger any longer when it is gone."""
        if self._host_or_raise().orphaned:
            return
        try:
            self.send(command, to="supervisor")
        except PeerDiedError:
            if not self._host_or_raise().orphaned:
                raise

    def _fail(self, reason: str, message: str) -> None:
        """Store nothing from now on, and say why."""
        self._failed = reason
        self._report_refused()
        self._tell(control.RecordingFailed(stream=self.camera, reason=reason, message=message))

    def _harm(self) -> str:
        """What somebody did to the data set, as a sentence; empty if nothing."""
        if self._place.loss():
            return f"the data set {self._path} was moved or deleted while it was recorded"
        if missing := self._writer.missing():
            more, verb = (f" and {len(missing) - 1} more files", "were") if len(missing) > 1 else ("", "was")
            return f"{missing[0]}{more} of the data set {self._path} {verb} deleted while it was recorded"
        return ""

    def _check_place(self) -> None:
        """See whether the data set is still there, and whether there is room for more."""
        self._next_check = time.monotonic() + CHECK_S
        if self._failed is not None:
            return
        if harm := self._harm():
            self._refuse_taken("dataset_lost")
            self._fail("dataset_lost", harm)
            return
        if self._at_reserve or self.reserve_bytes <= 0:
            return
        free = storage.free_bytes(self._path)
        if free < self.reserve_bytes:
            self._at_reserve = True  # what is in flight is still stored: that is what the reserve is for
            message = f"{free:,} bytes are free, the reserve is {self.reserve_bytes:,}: the recording ends in order"
            self._tell(control.RecordingFailed(stream=self.camera, reason="disk_reserve", message=message))

    def teardown(self) -> None:
        """Store what is still in the ring (for a second at most when the supervisor is gone), then close the image."""
        until = time.monotonic() + ORPHANED_S
        while not (self._host_or_raise().orphaned and time.monotonic() > until):
            try:
                frame = self._reader.next(timeout_s=0.0)
            except (FrameTimeoutError, RingClosedError):
                break
            with frame:
                self._take(frame)
        self._flush()
        self._report_refused()
        self._tables.close()
        self._place.close()
        try:
            self._writer.close()
        except DiskFullError as error:
            self.log.error("%s: the image could not be closed in order: %s; mutoscope recover will", self.camera, error)
        except (DatasetError, OSError):
            if self._failed != "dataset_lost":
                raise
