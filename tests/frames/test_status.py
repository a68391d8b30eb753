"""The shared table of all workers: who may write what, who can look, and that it outlives its processes."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from typing import Any

import msgspec
import pytest

from mutoscope.frames.status import STATUS_COLUMNS, SUPERVISOR_COLUMNS, WORKER_COLUMNS, Status
from mutoscope.model.errors import ClosedError, ConfigError
from polling import until


def attach(status: Status, row: int | None) -> Status:
    meta, fds = status.handle(row)
    return Status.from_handle(msgspec.msgpack.decode(msgspec.msgpack.encode(meta)), fds)


def test_every_column_is_its_own_word_in_lines_of_its_writer() -> None:
    with Status.create(3) as status, attach(status, 1) as mine:
        for number, column in enumerate(SUPERVISOR_COLUMNS, start=1):
            setattr(status.row(1), column, number)
        for number, column in enumerate(WORKER_COLUMNS, start=100):
            setattr(mine.row(1), column, 2**63 + number)
        for looker in (status, mine):
            expected = dict(zip(SUPERVISOR_COLUMNS, range(1, 5), strict=True))
            expected |= {column: 2**63 + number for number, column in enumerate(WORKER_COLUMNS, start=100)}
            assert {column: getattr(looker.row(1), column) for column in STATUS_COLUMNS} == expected
            assert all(getattr(looker.row(other), column) == 0 for other in (0, 2) for column in STATUS_COLUMNS)
        starts = [mine.row(index)._words.ctypes.data for index in range(3)]
        spans = [range(8), range(8, 24)]  # of the supervisor, of the worker
        lines = [{(start + 8 * word) // 64 for word in span} for start in starts for span in spans]
        assert sum(len(some) for some in lines) == len(set.union(*lines)) == 9, "two writers share a cache line"


def test_only_the_writer_of_a_column_may_write_it() -> None:
    with Status.create(["camera", "recorder"]) as status, attach(status, 0) as camera, attach(status, None) as looker:
        with pytest.raises(AttributeError, match=r"frames of 'camera' .* the process of the row writes it"):
            status.row(0).frames = 1
        with pytest.raises(AttributeError, match=r"state of 'camera' .* the supervisor writes it"):
            camera.row(0).state = 1
        for row, column in ((camera.row(1), "frames"), (looker.row(0), "frames"), (looker.row(0), "state")):
            with pytest.raises(AttributeError, match="may only look"):
                setattr(row, column, 1)
        with pytest.raises(AttributeError):
            camera.set_name(0, "mine")
        with pytest.raises(AttributeError):
            camera.prepare(0)
        assert all(row[column] == 0 for row in status.snapshot() for column in STATUS_COLUMNS)


def test_someone_who_only_looks_gets_a_mapping_that_cannot_be_written() -> None:
    with Status.create(2) as status:
        meta, (fd,) = status.handle()
        with pytest.raises(PermissionError):
            mmap.mmap(fd, 4096, prot=mmap.PROT_WRITE | mmap.PROT_READ)
        with Status.from_handle(meta, [fd]) as looker, pytest.raises(ValueError, match="read-only"):
            looker.row(0)._words[0] = 1


def test_names_are_in_the_segment() -> None:
    longest = "ä" * 32
    with Status.create(["camera", longest, ""]) as status, attach(status, None) as looker:
        assert looker.names == ["camera", longest, ""]
        status.set_name(2, "late")
        assert looker.row(2).name == "late"
        assert looker.snapshot()[2]["name"] == "late"
        with pytest.raises(ConfigError, match="66 bytes, at most 64"):
            status.set_name(0, "ä" * 33)
        assert looker.names == ["camera", longest, "late"]


@pytest.mark.parametrize("value", [-1, 2**64, "many", None])
def test_a_counter_takes_64_bits_unsigned(value: Any) -> None:
    with Status.create(1) as status, pytest.raises((OverflowError, ValueError, TypeError)):
        status.row(0).pid = value


def test_wrong_rows_and_handles_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one row"):
        Status.create(0)
    with pytest.raises(ConfigError, match="at least one row"):
        Status.create(-2)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match="at most 64"):
        Status.create(["x" * 65])
    with Status.create(2) as status:
        for index in (-1, 2):
            with pytest.raises(ConfigError, match="rows 0 to 1"):
                status.row(index)
            with pytest.raises(ConfigError, match="rows 0 to 1"):
                status.handle(index)
        meta, fds = status.handle(0)
        for wrong in ({"kind": "table-reader"}, {**meta, "rows": 200}, {}):
            with pytest.raises(ConfigError):
                Status.from_handle(wrong, [os.dup(fds[0])])
        other = os.memfd_create("other")
        os.truncate(other, os.fstat(fds[0]).st_size)
        with pytest.raises(ConfigError, match="is not a status table"):
            Status.from_handle(meta, [other])
        os.close(fds[0])
        with pytest.raises(ConfigError, match="its own process"):
            status.heartbeat_address(0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_closing_twice_is_fine_and_a_kept_row_stays_readable() -> None:
    status = Status.create(["camera"])
    row = status.row(0)
    row.state = 7
    status.close()
    status.close()
    assert row.state == 7
    with pytest.raises(ClosedError):
        status.row(0)
    with pytest.raises(ClosedError):
        status.handle()


def test_prepare_keeps_the_counters_and_clears_the_signs_of_life() -> None:
    with Status.create(["camera"]) as status, attach(status, 0) as camera:
        mine = camera.row(0)
        mine.frames, mine.heartbeat_ns, mine.step_started_ns, mine.timeouts_consecutive, mine.timeouts = 5, 6, 7, 8, 9
        status.prepare(0)
        assert (mine.frames, mine.timeouts) == (5, 9)
        assert (mine.heartbeat_ns, mine.step_started_ns, mine.timeouts_consecutive) == (0, 0, 0)


CHILD = """
import json, sys, os, time
from mutoscope.frames import _os
from mutoscope.frames._native import library
from mutoscope.frames.status import Status

meta, fds, lifeline = json.loads(sys.argv[1])
status = Status.from_handle(meta, fds)
row = status.row(meta["row"])
bell = _os.create_bell()
assert library.mutoscope_guard_start(lifeline, bell, status.heartbeat_address(meta["row"]), 1_000_000, 10**10) == 0
for _ in range(1000):
    row.frames += 1
del row
status.close()  # the guard thread goes on writing
_os.wait_readable([bell], 60)
"""


def test_a_worker_counts_its_guard_beats_and_its_death_leaves_the_counts() -> None:
    with Status.create(["camera", "other"]) as status:
        meta, fds = status.handle(row=0)
        lifeline, mine = os.pipe()
        child = subprocess.Popen([sys.executable, "-c", CHILD, json.dumps([meta, fds, lifeline])], pass_fds=[*fds, lifeline])
        os.close(fds[0])
        os.close(lifeline)
        try:
            row = status.row(0)
            until(lambda: row.frames >= 1000 or child.poll() is not None)
            assert child.poll() is None
            beats = set[int]()

            def beaten() -> bool:
                beats.add(row.heartbeat_ns)
                return len(beats) >= 5

            until(beaten, "it beats on, although the status is closed there")
            assert abs(time.monotonic_ns() - max(beats)) < 20e9
        finally:
            child.kill()
            child.wait()
            os.close(mine)
        assert row.frames == 1000
        with attach(status, 0) as successor:
            successor.row(0).frames += 1
        assert (row.frames, status.row(1).heartbeat_ns) == (1001, 0)


def test_an_address_of_the_own_heartbeat_is_the_word_itself() -> None:
    code = """
import ctypes, json, sys
from mutoscope.frames.status import Status
meta, fds = json.loads(sys.argv[1])
status = Status.from_handle(meta, fds)
ctypes.c_uint64.from_address(status.heartbeat_address(1)).value = 42
assert status.row(1).heartbeat_ns == 42
"""
    with Status.create(2) as status:
        meta, fds = status.handle(row=1)
        subprocess.run([sys.executable, "-c", code, json.dumps([meta, fds])], pass_fds=fds, check=True)
        os.close(fds[0])
        assert [row.heartbeat_ns for row in (status.row(0), status.row(1))] == [0, 42]
