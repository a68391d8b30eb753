"""The frame ring against what it cannot beat: a bare hand-over between two processes, memcpy, a bare eventfd.

Hand-over: a producer copies images into slots, a reader in another process touches a row of each. Floor: slots of the same
kind, the same bells, two counters; no pins, no fences, no headers, no account. Peer: what is often done instead, one named
block of shared memory for each image, announced by JSON over zmq.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import mmap
import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from mutoscope.bench.blocks import announce_block, take_block
from mutoscope.bench.harness import MIN_ROUNDS, Bench, Measures, Report, percentile, touched
from mutoscope.bench.peers import Control, Peer, Peers
from mutoscope.frames import FrameReader, FrameRing, _os
from mutoscope.model.install import install_command

__all__ = ["run"]

SLOTS = 8
BARE_DEPTH = 3
"""Slots that the bare hand-over uses in turn: as few as the ring comes down to by reusing the most recently freed one."""
IMAGES = {512: 500, 2048: 60}
"""Side in pixels, and images a round."""
PEER_IMAGES = {512: 50, 2048: 15}
WAKE_UPS = 400
WAKE_PERIOD_S = 0.001
READERS = 8
RATE_HZ = 500
_TIMEOUT_S = 20.0
_HEAD, _TAIL, _READER_SLEEPS, _PRODUCER_SLEEPS = 0, 16, 32, 48  # words, each on a cache line of its own

Image = npt.NDArray[np.uint16]


def touch(image: npt.NDArray[Any], number: int) -> int:
    """Look at one row of the image, as every reader here does."""
    return int(image[number % image.shape[0]].max())


# -- the floor


class BareSlots:
    """A queue of slots between two processes that trust each other: nothing of what makes the ring safe."""

    def __init__(self, fd: int, bells: Sequence[int], side: int) -> None:
        self._map = mmap.mmap(fd, bare_bytes(side), flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        self.words = memoryview(self._map)[: mmap.PAGESIZE].cast("Q")
        pixels = np.frombuffer(self._map, np.uint16, offset=mmap.PAGESIZE)
        self.slots = list(pixels.reshape(BARE_DEPTH, side, side))
        self.reader_bell, self.producer_bell = bells

    def _sleep(self, flag: int, bell: int, watched: int, value: int) -> None:
        words = self.words
        words[flag] = 1
        if words[watched] == value:
            poller = select.poll()
            poller.register(bell, select.POLLIN)
            poller.poll(20)  # without fences a wake-up may be lost
        words[flag] = 0
        _os.clear_bell(bell)

    def put(self, image: Image) -> None:
        """Copy an image into the next slot."""
        words, slots = self.words, self.slots
        head = words[_HEAD]
        while head - words[_TAIL] >= BARE_DEPTH:
            self._sleep(_PRODUCER_SLEEPS, self.producer_bell, _TAIL, head - BARE_DEPTH)
        np.copyto(slots[head % BARE_DEPTH], image)
        words[_HEAD] = head + 1
        if words[_READER_SLEEPS]:
            _os.ring_bell(self.reader_bell)

    def take(self) -> None:
        """Touch the next image and give its slot back."""
        words, slots = self.words, self.slots
        tail = words[_TAIL]
        while words[_HEAD] == tail:
            self._sleep(_READER_SLEEPS, self.reader_bell, _HEAD, tail)
        touch(slots[tail % BARE_DEPTH], tail)
        words[_TAIL] = tail + 1
        if words[_PRODUCER_SLEEPS]:
            _os.ring_bell(self.producer_bell)


def bare_bytes(side: int) -> int:
    """Return the size of the bare queue's segment."""
    return mmap.PAGESIZE + BARE_DEPTH * side * side * 2


# -- the processes


def bare_reader(control: Control, fd: int, bells: list[int], side: int) -> None:
    """Take as many as told from the bare queue."""
    queue = BareSlots(fd, bells, side)
    control.say("ready")
    for count in control.orders():
        for _ in range(count):
            queue.take()
        control.say("done")


def ring_reader(control: Control, meta: dict[str, Any], handle: list[int]) -> None:
    """Take and commit as many as told; answer how late they came, since they were published and since their tick."""
    with FrameReader.from_handle(meta, handle) as reader:
        control.say("ready")
        for count in control.orders():
            late: list[float] = []
            in_hand: list[float] = []
            for number in range(count):
                with reader.next(_TIMEOUT_S) as frame:
                    now = time.monotonic_ns()
                    if frame.tick:
                        late.append((now - frame.monotonic_ns) / 1e3)
                        in_hand.append((now - frame.tick) / 1e3)
                    touch(frame.array, number)
                    reader.commit(frame)
            control.say(_lateness(late) | {"in hand": percentile(in_hand, 50) if in_hand else 0.0})


def bell_reader(control: Control, fd: int, bell: int) -> None:
    """Wait on a bare eventfd; the time of ringing stands in a shared word."""
    words = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("Q")
    control.say("ready")
    for count in control.orders():
        late = []
        for _ in range(count):
            os.eventfd_read(bell)
            late.append((time.monotonic_ns() - words[0]) / 1e3)
        control.say(_lateness(late))


def block_writer(control: Control, port: int, side: int) -> None:
    """Make a named block for each image and announce it."""
    import zmq

    context = zmq.Context()
    sock = context.socket(zmq.PUSH)
    sock.connect(f"tcp://127.0.0.1:{port}")
    images = [touched((side, side), np.uint16) for _ in range(2)]
    control.say("ready")
    for count in control.orders():
        for number in range(count):
            block = announce_block(sock.send, images[number % 2], number)
            block.close()
    context.destroy(linger=0)


def block_reader(control: Control, port: int) -> None:
    """Open, touch and remove the block of each image that is announced."""
    import zmq

    context = zmq.Context()
    sock = context.socket(zmq.PULL)
    sock.bind(f"tcp://127.0.0.1:{port}")
    control.say("ready")
    for count in control.orders():
        for number in range(count):
            take_block(json.loads(sock.recv()), functools.partial(touch, number=number))
        control.say("done")
    context.destroy(linger=0)


def _lateness(late: Sequence[float]) -> dict[str, float]:
    return {"p50": percentile(late, 50), "p99": percentile(late, 99)} if late else {}


# -- the bench


@contextlib.contextmanager
def _shared(size: int, bells: int) -> Iterator[tuple[int, list[int]]]:
    fds = [_os.create_segment("bench", size), *(_os.create_bell() for _ in range(bells))]
    try:
        yield fds[0], fds[1:]
    finally:
        for fd in fds:
            os.close(fd)


def _rate(count: int, work: Callable[[], object], reader: Peer) -> Measures:
    """Return images a second, until the reader has said that it has them all."""
    reader.tell(count)
    began = time.perf_counter()
    for _ in range(count):
        work()
    reader.answer()
    return count / (time.perf_counter() - began)


def _launch_ring_reader(peers: Peers, ring: FrameRing, name: str) -> Peer:
    meta, fds = ring.assign_reader(pid=0, policy="every", name=name)
    return peers.launch(ring_reader, fds=fds, meta=meta, handle=fds)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _hand_over(bench: Bench, side: int, count: int, peer_count: int) -> None:
    images = [touched((side, side), np.uint16) for _ in range(2)]
    target = touched((side, side), np.uint16)
    turn = [0]

    def image() -> Image:
        turn[0] ^= 1
        return images[turn[0]]

    def memcpy() -> Measures:
        began = time.perf_counter()
        for _ in range(count):
            np.copyto(target, image())
        return count / (time.perf_counter() - began)

    with (
        Peers() as peers,
        FrameRing(SLOTS, side * side * 2, name="bench", standalone=False) as ring,
        _shared(bare_bytes(side), 2) as (segment, bells),
    ):
        far = _launch_ring_reader(peers, ring, "bench")
        bare, writer = BareSlots(segment, bells, side), ring.writer()
        bare_far = peers.launch(bare_reader, fds=[segment, *bells], fd=segment, bells=bells, side=side)
        cases: dict[str, Callable[[], Measures]] = {
            "memcpy": memcpy,
            "bare": lambda: _rate(count, lambda: bare.put(image()), bare_far),
            "ring": lambda: _rate(count, lambda: writer.push(image(), timeout_s=_TIMEOUT_S), far),
        }
        with_blocks = importlib.util.find_spec("zmq") is not None
        if with_blocks:
            port = _free_port()
            block_far = peers.launch(block_reader, port=port)
            block_near = peers.launch(block_writer, port=port, side=side)

            def blocks() -> Measures:
                block_far.tell(peer_count)
                began = time.perf_counter()
                block_near.tell(peer_count)
                block_far.answer()
                return peer_count / (time.perf_counter() - began)

            cases["blocks"] = blocks
        peers.wait_ready()
        rounds = bench.alternate(cases, label=f"hand-over of {side} x {side}")
    name = f"{side} x {side} uint16 hand-over"
    note = f"{count} images a round; a reader in another process touches a row"
    bench.ratio(name, rounds, of="ring", to="bare", unit="1/s", at_least=0.9, note=note)
    if not with_blocks:
        bench.note(
            f"not measured: a named block for each image, announced over zmq; it needs pyzmq: {install_command('pyzmq')}"
        )
    else:
        note = f"a named block for each image, announced by JSON over zmq; {peer_count} images a round"
        bench.ratio(f"{name}, against blocks", rounds, of="ring", to="blocks", unit="1/s", at_least=10, note=note)
    bench.ratio(f"{name}, against memcpy", rounds, of="ring", to="memcpy", unit="1/s")
    bench.ratio(f"{side} x {side} bare hand-over, against memcpy", rounds, of="bare", to="memcpy", unit="1/s")


def _wake_up(bench: Bench, count: int) -> None:
    pixels = touched((64, 64), np.uint16)

    def paced(work: Callable[[], object], reader: Peer) -> Measures:
        reader.tell(count)
        for _ in range(count):
            time.sleep(WAKE_PERIOD_S)
            work()
        answer: dict[str, float] = reader.answer()
        return answer

    with (
        Peers() as peers,
        FrameRing(SLOTS, pixels.nbytes, name="bench", standalone=False) as ring,
        _shared(mmap.PAGESIZE, 0) as (segment, _),
        mmap.mmap(segment, mmap.PAGESIZE) as mapped,
        memoryview(mapped) as page,
        page.cast("Q") as words,
    ):
        bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
        try:

            def ring_bare() -> None:
                words[0] = time.monotonic_ns()
                os.eventfd_write(bell, 1)

            far, bare_far = (
                _launch_ring_reader(peers, ring, "bench"),
                peers.launch(bell_reader, fds=[segment, bell], fd=segment, bell=bell),
            )
            writer = ring.writer()
            peers.wait_ready()
            rounds = bench.alternate(
                {
                    "eventfd": lambda: paced(ring_bare, bare_far),
                    "ring": lambda: paced(lambda: writer.push(pixels, tick=time.monotonic_ns()), far),
                },
                label="wake-up",
            )
        finally:
            os.close(bell)
    note = f"{count} a round at {1 / WAKE_PERIOD_S:.0f} Hz; from the moment of publishing until the reader has the frame"
    bench.ratio("wake-up, p50", rounds, of="ring", to="eventfd", measure="p50", unit="µs", at_most=3, note=note)
    bench.ratio("wake-up, p99", rounds, of="ring", to="eventfd", measure="p99", unit="µs")
    bench.figure("from before the push to the frame in hand, p50", rounds.of("ring", "in hand"), unit="µs")


def _eight_readers(bench: Bench, seconds: float) -> None:
    image = touched((512, 512), np.uint16)
    count = max(1, int(RATE_HZ * seconds))
    with Peers() as peers, FrameRing(4 * READERS, image.nbytes, name="bench", standalone=False) as ring:
        readers = [_launch_ring_reader(peers, ring, f"reader {number}") for number in range(READERS)]
        writer = ring.writer()
        peers.wait_ready()
        for reader in readers:
            reader.tell(count)
        began, full = time.perf_counter(), 0
        for number in range(count):
            wait_s = began + number / RATE_HZ - time.perf_counter()
            if wait_s > 0:
                time.sleep(wait_s)
            slot = writer.try_claim(image.shape, image.dtype)
            if slot is None:
                full += 1
                slot = writer.slot(image.shape, image.dtype, timeout_s=_TIMEOUT_S).__enter__()
            np.copyto(slot.array, image)
            writer.publish(slot)
        rate = count / (time.perf_counter() - began)
        for reader in readers:
            reader.answer()
        rows = ring.rows()
    name = f"{READERS} readers of 512 x 512 at {RATE_HZ} fps"
    lost = sum(row.produced - row.done for row in rows) + sum(row.dropped for row in rows)
    bench.figure(f"{name}: frames lost", lost, at_most=0, exact=True, note=f"{count} frames, each to {READERS} processes")
    bench.figure(f"{name}: rate", rate, unit="1/s", at_least=0.99 * RATE_HZ)
    bench.figure(f"{name}: ring full", full)


def run(*, quick: bool = False, rounds: int = MIN_ROUNDS, console: Console | None = None) -> Report:
    """Measure the hand-over, the wake-up and eight readers.

    Parameters
    ----------
    quick : bool
        Everything once with few images; only what must never fail is judged.
    rounds : int
        How often floor and test alternate; ratios are judged from 7 on.
    console : rich.console.Console, optional
        Where the progress goes; to standard error when None.
    """
    bench = Bench("ring", rounds=rounds, timing=not quick, console=console)
    for side, count in IMAGES.items():
        _hand_over(bench, side, count if not quick else 5, PEER_IMAGES[side] if not quick else 2)
    _wake_up(bench, WAKE_UPS if not quick else 20)
    _eight_readers(bench, 4.0 if not quick else 0.2)
    return bench.report()
