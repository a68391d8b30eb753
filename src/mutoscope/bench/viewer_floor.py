"""What images from one process to another cost at least where each copies them by NumPy: into shared memory, and out of it.

Nothing else is done: no names, no places, no account; both processes spin on two counters instead of telling each other.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from mutoscope.bench.harness import touched
from mutoscope.bench.peers import Control, Peer, Peers
from mutoscope.frames import _os
from mutoscope.frames._segments import Segment

__all__ = ["launch_copiers"]

_SLOTS = 16
_PAGE = 4096

Image = npt.NDArray[np.uint16]


def launch_copiers(peers: Peers, side: int, places: int) -> tuple[Peer, Peer]:
    """Launch one process that copies images into shared memory, and one that copies them out, to one of `places` in turn."""
    fd = _os.create_sealed_segment("copies", _PAGE + _SLOTS * side * side * 2)
    try:
        near = peers.launch(copying_sender, fds=[fd], fd=fd, side=side)
        return near, peers.launch(copying_viewer, fds=[fd], fd=fd, side=side, places=places)
    finally:
        os.close(fd)


def _shared(fd: int, side: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[Any]]:
    """The two counters, of images that are there and of those that are taken; and the slots."""
    memory = Segment(fd, _PAGE + _SLOTS * side * side * 2, writable=True).bytes
    return memory[:16].view(np.uint64), memory[_PAGE:].view(np.uint16).reshape(_SLOTS, side, side)


def copying_sender(control: Control, fd: int, side: int) -> None:
    """The process that has the images."""
    counters, slots = _shared(fd, side)
    images = [touched((side, side), np.uint16) for _ in range(2)]
    done = 0
    control.say("ready")
    for count in control.orders():
        for _ in range(count):
            while counters[1] + _SLOTS <= done:
                time.sleep(0)
            np.copyto(slots[done % _SLOTS], images[done % 2])
            done += 1
            counters[0] = done


def copying_viewer(control: Control, fd: int, side: int, places: int) -> None:
    """The process that wants them."""
    counters, slots = _shared(fd, side)
    planes = touched((places, side, side), np.uint16)
    done = 0
    control.say("ready")
    for count in control.orders():
        for _ in range(count):
            while counters[0] <= done:
                time.sleep(0)
            np.copyto(planes[done % places], slots[done % _SLOTS])
            done += 1
            counters[1] = done
        control.say("done")
