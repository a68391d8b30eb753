"""A process of its own for the ring tests: ``ring_process.py ROLE ARGUMENTS``. It prints when it is ready, and its end."""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from mutoscope.frames import FrameRing, attach_reader, attach_writer
from mutoscope.model.errors import MutoscopeError


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def own() -> None:
    """A stand-alone ring that is never closed; waits to be killed."""
    ring = FrameRing(slots=8, slot_bytes=4096, name="owned")
    say(ring.listen())
    sys.stdin.read()


def read(address: str, count: str = "0") -> None:
    reader = attach_reader(address, name="far")
    say("ready")
    seen = 0
    while not int(count) or seen < int(count):
        with reader.next(30) as frame:
            assert (frame.array == frame.frame_id).all()
            reader.commit(frame)
            seen += 1
    reader.close()


def hold(address: str) -> None:
    """Take a frame of a pool and keep it."""
    reader = attach_reader(address, "share", group="pool", name="holder", start="oldest")
    frame = reader.next(30)
    say(f"holds {frame.frame_id}")
    sys.stdin.read()


def write(address: str, pause_s: str = "0") -> None:
    writer = attach_writer(address)
    say("ready")
    while True:
        with writer.slot((4, 4), "uint16") as slot:
            slot.array[:] = writer.head + 1
        time.sleep(float(pause_s))


def claim(address: str) -> None:
    """Die with a slot in hand: the caller kills."""
    writer = attach_writer(address)
    slot = writer.try_claim((4, 4), "uint16")
    assert slot is not None
    slot.array[:] = 60000
    say("claimed")
    sys.stdin.read()


def stranger(address: str) -> None:
    os.setgid(65534)
    os.setuid(65534)
    read(address, "1")


def main() -> None:
    roles = {"own": own, "read": read, "hold": hold, "write": write, "claim": claim, "stranger": stranger}
    try:
        roles[sys.argv[1]](*sys.argv[2:])
        say("done")
    except MutoscopeError as error:
        say(f"{type(error).__name__} after {np.float64(time.monotonic())}")


if __name__ == "__main__":
    main()
