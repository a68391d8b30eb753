"""What is often done instead: a named block of shared memory for each image, announced by JSON over zmq.

As OpenHCS does it: the sender makes a block with a name that is unique, copies the image, and tells its path, form, components
and an id of its own (polystore/streaming, StreamingSharedMemoryAuthority); the viewer opens the block and removes it
(openhcs/runtime, napari_viewer_server, fiji_viewer_server).
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable
from multiprocessing import resource_tracker, shared_memory
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["announce_block", "number_of", "take_block"]

_T = TypeVar("_T")


def announce_block(
    send: Callable[[bytes], object], image: npt.NDArray[Any], number: int, name: str = "", *, tracked: bool = False
) -> shared_memory.SharedMemory:
    """Copy an image into a block and send its note; returns the block, which the caller closes.

    `tracked` leaves the block to Python's resource tracker, too, which removes it when this process ends.
    """
    block = shared_memory.SharedMemory(create=True, size=image.nbytes, name=name or f"mutoscope-{uuid.uuid4().hex[:12]}")
    if not tracked:
        resource_tracker.unregister(f"/{block.name}", "shared_memory")  # the reader removes it
    copy: npt.NDArray[Any] = np.ndarray(image.shape, image.dtype, block.buf)
    copy[:] = image
    del copy
    note = {
        "path": f"A01_s1_w1_z1_t{number + 1}.tif",
        "shape": image.shape,
        "dtype": str(image.dtype),
        "shm_name": block.name,
        "data_type": "image",
        "metadata": {"well": "A01", "site": 1, "channel": 1, "z_index": 1, "timepoint": number + 1},
        "image_id": str(uuid.uuid4()),
    }
    try:
        send(json.dumps(note).encode())
    except BaseException:
        block.close()
        raise
    return block


def number_of(note: dict[str, Any]) -> int:
    """Return the number that an image was announced with."""
    return int(note["metadata"]["timepoint"]) - 1


def take_block(note: dict[str, Any], look: Callable[[npt.NDArray[Any]], _T]) -> _T:
    """Open the block that a note names, remove it, and return what `look` made of the image, of which it may keep a copy only;
    FileNotFoundError if the block is gone."""
    block = shared_memory.SharedMemory(note["shm_name"])
    found = look(np.ndarray(tuple(note["shape"]), np.dtype(note["dtype"]), block.buf))
    block.close()
    with contextlib.suppress(FileNotFoundError):  # the tracker of a sender that was killed was first
        block.unlink()
    return found
