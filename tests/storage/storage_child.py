"""A writer that a test ends with SIGKILL: prints one line for every frame that is acknowledged, after it is.

python storage_child.py PATH (scenario|stream|reopen) [COMPRESSION [VERSION]]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from storage_oracles_frames import fast, frame_of

from mutoscope import storage
from mutoscope.storage import FrameStreamWriter, Receipt

OPTIONS = sys.argv[3:] if __name__ == "__main__" else []  # pytest looks into every module
FAST = fast(*OPTIONS)
VERSION = OPTIONS[1] if len(OPTIONS) > 1 else "0.5"


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def append(writer: FrameStreamWriter, frames: int) -> None:
    name = writer.path.name if writer.path.name.startswith("camera") else "."
    waiting: list[Receipt] = []
    for _ in range(frames):
        frame_id = writer.last_frame_id + 1 + (writer.last_frame_id % 7 == 6)  # some ids are missing
        waiting.append(writer.append(frame_of(frame_id, writer.shape, writer.dtype), frame_id=frame_id, index={"t": frame_id}))
        if frame_id % 5 == 3:
            writer.flush()
        while waiting and waiting[0].acknowledged:
            receipt = waiting.pop(0)
            say(f"{name} {receipt.position} {receipt.frame_id}")
    for receipt in waiting:
        assert writer.flush()
        assert receipt.acknowledged
        say(f"{name} {receipt.position} {receipt.frame_id}")


def scenario(path: str) -> None:
    """Everything that a recorder may go through."""
    if os.path.exists(path):
        storage.create_recording(
            path, {"camera": FAST}, overwrite=True, keep_replaced=True, ome_zarr_version=VERSION
        ).put_back()
    recording = storage.create_recording(path, {"camera": FAST}, overwrite=True, keep_replaced=True, ome_zarr_version=VERSION)
    recording.delete_replaced()
    say("created")
    with storage.open_image_writer(recording, "camera") as writer:
        append(writer, 18)
    with storage.open_image_writer(recording, "camera", continue_=True) as writer:
        append(writer, 3)
    with storage.open_image_writer(recording, "camera", shape=(9, 31), dtype="float32") as writer:
        append(writer, 6)
    storage.write_attributes(path, {"ledger": {"produced": 27}})
    say("resuming")
    recording = storage.create_recording(path, {"camera": FAST}, resume=True)
    with storage.open_image_writer(recording, "camera") as writer:
        append(writer, 6)
    say("done")


def stream(path: str) -> None:
    """Go on for ever behind what is there, as a restarted recorder does."""
    if not Path(path).exists():
        storage.create_recording(path, {"camera": FAST}, ome_zarr_version=VERSION)
    with storage.open_image_writer(path, "camera", continue_=True) as writer:
        say("ready")
        while True:
            append(writer, 1 if FAST.compression == "none" else 7)


def reopen(path: str) -> None:
    """Close and go on, again and again: the declared length, the last index and the end of the file keep changing."""
    storage.create_recording(path, {"camera": FAST}, ome_zarr_version=VERSION)
    say("ready")
    while True:
        with storage.open_image_writer(path, "camera", continue_=True) as writer:
            append(writer, 3)


if __name__ == "__main__":
    {"scenario": scenario, "stream": stream, "reopen": reopen}[sys.argv[2]](sys.argv[1])
