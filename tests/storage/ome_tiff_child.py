"""A writer of OME-TIFF that a test ends with SIGKILL: prints one line for every frame that is acknowledged, after it is.

python ome_tiff_child.py PATH (scenario|stream|put_back) COMPRESSION
"""

from __future__ import annotations

import os
import sys

import numpy as np
from storage_oracles_frames import frame_of

from mutoscope import storage
from mutoscope.storage import FrameStreamWriter
from mutoscope.storage.recording import CameraLayout, create_recording

SHAPE = (24, 40)


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def append(writer: FrameStreamWriter, frames: int, positions: int = 1) -> None:
    for number in range(frames):
        frame_id = writer.last_frame_id + 1 + (writer.last_frame_id % 7 == 6)  # some ids are missing
        position = number % positions
        index = {"c": number // positions % 2, "position": position}
        receipt = writer.append(frame_of(frame_id, SHAPE), frame_id=frame_id, index=index)
        say(f"{position} {receipt.position} {receipt.frame_id}")


def scenario(path: str, compression: str) -> None:
    """Everything that a writer may go through."""
    with storage.open_writer(path, shape=SHAPE, dtype="uint16", compression=compression, overwrite=True) as writer:
        say("created")
        append(writer, 8, positions=2)
    with storage.open_writer(path, shape=SHAPE, dtype="uint16", compression=compression, resume=True) as writer:
        say("resumed")
        append(writer, 4, positions=2)
        writer.close({"produced": 12})
    say("done")


def stream(path: str, compression: str) -> None:
    """Go on for ever behind what is there, as a restarted recorder does."""
    with storage.open_writer(path, shape=SHAPE, dtype="uint16", compression=compression, resume=True) as writer:
        say("ready")
        while True:
            append(writer, 1)


def put_back(path: str, compression: str) -> None:
    """Begin a recording in place of what is there, and think better of it, as a scope does that fails to start."""
    layout = CameraLayout(SHAPE, np.dtype("uint16"), compression=compression)
    recording = create_recording(path, {"camera": layout}, overwrite=True, keep_replaced=True)
    say("created")
    recording.put_back()
    say("done")


if __name__ == "__main__":
    {"scenario": scenario, "stream": stream, "put_back": put_back}[sys.argv[2]](sys.argv[1], sys.argv[3])
