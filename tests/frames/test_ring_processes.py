"""Processes that attach, deaths that a stand-alone ring sees by itself, wake-ups that must not be lost."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mutoscope.frames import FrameRing, _os, attach_reader, attach_writer
from mutoscope.frames import _ring_native as native
from mutoscope.frames._segments import duplicate
from mutoscope.frames.reader import FrameReader
from mutoscope.frames.writer import FrameWriter
from mutoscope.model.errors import ConfigError, FrameTimeoutError, PeerDiedError, RingClosedError, ScopeStateError
from polling import until

PROCESS = Path(__file__).with_name("ring_process.py")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def ring() -> Iterator[FrameRing]:
    with FrameRing(slots=8, slot_bytes=4096, name="test") as made:
        yield made


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, str(PROCESS), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(child)
        return child

    yield run
    for child in started:
        child.kill()
        child.communicate()


def line(child: subprocess.Popen[str], timeout_s: float = 20) -> str:
    assert child.stdout is not None
    assert _os.wait_readable([child.stdout.fileno()], timeout_s), "the process says nothing"
    return child.stdout.readline().strip()


def publish(writer: FrameWriter, count: int) -> None:
    for _ in range(count):
        with writer.slot((4, 4), "uint16", timeout_s=5) as slot:
            slot.array[:] = writer.head + 1


# ---------------------------------------------------------------- attaching


def test_attach_by_socket(ring: FrameRing, start: Start) -> None:
    address = ring.listen()
    assert ring.listen() == address
    far, writer = start("read", address, "5"), ring.writer()
    assert line(far) == "ready"
    publish(writer, 5)
    assert line(far) == "done"
    row = ring.rows()[0]
    assert (row.name, row.pid, row.done, row.state) == ("far", far.pid, 5, "closed")
    writer.close()
    producer, near = start("write", address, "0.001"), attach_reader(address, "latest")
    assert line(producer) == "ready"
    with near.next(5) as frame:
        assert (frame.array == frame.frame_id).all()
        assert frame.frame_id > 5
    with pytest.raises(ScopeStateError):
        attach_writer(address)
    with pytest.raises(ConfigError):
        attach_reader(address, "share")
    with pytest.raises(ConfigError):
        attach_reader(address, leases=8)
    near.close()


def test_nobody_listens(ring: FrameRing) -> None:
    with pytest.raises(RingClosedError):
        attach_reader("mutoscope-ring-nobody")
    address = ring.listen("mutoscope-test-named")
    assert address == "mutoscope-test-named"
    ring.close()
    with pytest.raises(RingClosedError):
        attach_writer(address)


@pytest.mark.parametrize("garbage", [b"\x05\0\0\0hello", b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n", b""])
def test_garbage_on_the_socket_harms_nobody(ring: FrameRing, garbage: bytes) -> None:
    address = ring.listen()
    sock = _os.connect_privately(address, 5)
    sock.sendall(garbage)
    sock.close()
    attach_reader(address, "latest").close()


if os.geteuid() == 0:  # only then can a process become another user

    def test_another_user_is_refused(ring: FrameRing, start: Start) -> None:
        stranger = start("stranger", ring.listen())
        assert line(stranger).startswith(PeerDiedError.__name__)
        assert ring.rows() == []


# ---------------------------------------------------------------- deaths


def test_dead_reader_is_cleared_without_anybody_asking(ring: FrameRing, start: Start) -> None:
    far, writer = start("read", ring.listen()), ring.writer()
    assert line(far) == "ready"
    publish(writer, 20)
    os.kill(far.pid, signal.SIGSTOP)
    while writer.try_claim((4, 4), "uint16") is not None:
        writer.publish(writer._claimed)  # type: ignore[arg-type]
    os.kill(far.pid, signal.SIGKILL)
    publish(writer, 20)  # waits until the watching thread has freed the row
    assert ring.rows() == []


def test_dead_pool_members_frame_goes_to_another(ring: FrameRing, start: Start) -> None:
    address, writer = ring.listen(), ring.writer()
    member = ring.reader(policy="share", group="pool", name="member")
    publish(writer, 1)
    holder = start("hold", address)
    assert line(holder) == "holds 1"
    with pytest.raises(FrameTimeoutError):
        member.next(0)
    os.kill(holder.pid, signal.SIGKILL)
    with member.next(10) as frame:
        assert frame.frame_id == 1
        member.commit(frame)
    until(lambda: len(ring.rows()) == 1)
    assert ring.rows()[0].pending == 0


def test_dead_producer_with_a_slot_in_hand(ring: FrameRing, start: Start) -> None:
    address, reader = ring.listen(), ring.reader()
    for round_number in range(3):
        producer = start("claim", address)
        assert line(producer) == "claimed"
        with pytest.raises(ScopeStateError):
            ring.writer()
        producer.kill()
        until(lambda: ring.statistics().producer_pid == 0)
        with ring.writer() as writer:
            publish(writer, 3)
        for k in range(3):
            with reader.next(5) as frame:
                assert frame.frame_id == round_number * 3 + k + 1
                assert (frame.array == frame.frame_id).all()
                reader.commit(frame)


@pytest.mark.alone
def test_death_of_a_stand_alone_owner_ends_everyone_promptly(start: Start) -> None:
    owner = start("own")
    address = line(owner)
    sleeper, busy, idle = start("read", address), start("write", address), attach_reader(address, "latest")
    assert line(sleeper) == line(busy) == "ready"
    with idle.next(10):
        pass
    killed = time.monotonic()
    owner.kill()
    for child in (sleeper, busy):
        what, _, when = line(child).partition(" after ")
        assert what == "RingClosedError"
        assert float(when) - killed < 2

    until(lambda: ended(idle))
    assert idle.closed


def test_waiting_producer_sees_its_owner_die(start: Start) -> None:
    owner = start("own")
    address = line(owner)
    keeper = attach_reader(address)
    writer = start("write", address)
    assert line(writer) == "ready"
    until(lambda: keeper.lag == 8)
    owner.kill()
    assert line(writer).startswith("RingClosedError")
    until(lambda: ended(keeper))


def ended(reader: FrameReader) -> bool:
    try:
        reader.next(5).release()
    except RingClosedError:
        return True
    return False


def test_nothing_is_left_by_killed_processes(start: Start) -> None:
    before = set(os.listdir("/dev/shm"))
    owner = start("own")
    children = [start("write", address := line(owner)), start("read", address)]
    for child in children:
        line(child)
    for child in (owner, *children):
        child.kill()
        child.wait()
    assert set(os.listdir("/dev/shm")) == before
    for pid in (owner.pid, *(child.pid for child in children)):
        assert not os.path.exists(f"/proc/{pid}/fd")


FORGETFUL = """
import contextlib, gc, os, subprocess, sys
from mutoscope.frames import FrameRing
from polling import until

def watched():
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += "pidfd" in os.readlink(f"/proc/self/fd/{fd}")
    return found

ring = FrameRing(slots=8, slot_bytes=4096)
reader, writer = ring.reader(), ring.writer()
child = subprocess.Popen([sys.executable, sys.argv[1], "read", ring.listen()], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
if sys.argv[2] == "drop":
    ring._listener.close()
    del ring, reader, writer
    gc.collect()
before = watched()
child.kill()
child.wait()
if sys.argv[2] == "drop":
    until(lambda: watched() != before, "the native thread sees the death, though nobody holds the ring")
print("end", flush=True)
"""


@pytest.mark.parametrize("how", ["exit", "drop"])
def test_ring_that_nobody_closes_does_no_harm(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORGETFUL, str(PROCESS), how],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PROCESS.parents[1]), os.environ.get("PYTHONPATH", "")])},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


# ---------------------------------------------------------------- wake-ups


def test_no_wake_up_is_lost() -> None:
    """Both ends sleep with no time-out to speak of: one lost wake-up and this stands still for ten seconds."""
    rounds, most_ns = 15000, 10_000_000_000
    with FrameRing(slots=4, slot_bytes=4096, standalone=False) as ring:
        reader_handle, writer_handle = ring.assign_reader(pid=0, policy="every", leases=1), ring.assign_writer(pid=0)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                reader = FrameReader.from_handle(reader_handle[0], duplicate(reader_handle[1]))
                link = reader._link
                assert link is not None
                chance = random.Random(1)
                out = ctypes.create_string_buffer(native.DELIVERY_BYTES)
                address = ctypes.addressof(out)
                for number in range(1, rounds + 1):
                    if native.reader_wait(link.context, most_ns, address) != native.OK:
                        os._exit(2)
                    pin, frame_id = native.FRONT.unpack_from(out.raw)[1], native.FRONT.unpack_from(out.raw)[4]
                    assert frame_id == number
                    for _ in range(chance.randrange(60)):
                        pass
                    native.reader_commit(link.context, frame_id)
                    native.reader_release(link.context, pin)
                code = 0
            finally:
                os._exit(code)
        writer = FrameWriter.from_handle(writer_handle[0], duplicate(writer_handle[1]))
        chance = random.Random(2)
        header = ctypes.create_string_buffer(native.HEADER.size)
        native.HEADER.pack_into(header, 0, 0, 0, 0, 0, 0.0, 4, 4, b"<u2", 0, 0, 0, 0, 0, 0, b"")
        longest = 0.0
        try:
            for number in range(rounds):
                began = time.monotonic()
                slot = native.writer_wait(writer._context, most_ns)
                longest = max(longest, time.monotonic() - began)
                assert slot >= 0, (number, slot)
                # now and then all is consumed, so that the reader sleeps, too
                for _ in range(chance.randrange(40) if number % 64 else 5000):
                    pass
                native.writer_publish(writer._context, slot, ctypes.addressof(header))
            assert os.waitpid(child, 0)[1] == 0
            child = 0
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            writer.close()
        assert longest < 5
        row = ring.rows()[0]
        assert (row.done, row.pending) == (rounds, 0)


def test_a_reader_that_sleeps_is_rung_each_time(ring: FrameRing) -> None:
    """Paced, so that the reader is asleep at every frame."""
    reader_handle = ring.assign_reader(pid=0, policy="every")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            reader = FrameReader.from_handle(reader_handle[0], duplicate(reader_handle[1]))
            for _ in range(200):
                began = time.monotonic_ns()
                with reader.next(20) as frame:
                    reader.commit(frame)
                    if frame.monotonic_ns > began and time.monotonic_ns() - frame.monotonic_ns > 400_000_000:
                        os._exit(2)
            code = 0
        finally:
            os._exit(code)
    with ring.writer() as writer:
        for _ in range(200):
            publish(writer, 1)
            os.sched_yield()
            end = time.monotonic() + 0.002
            while time.monotonic() < end:
                time.sleep(0.0005)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array([row.done for row in ring.rows()]).tolist() == [200] or ring.rows() == []
