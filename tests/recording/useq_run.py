"""Run a useq sequence on a UniCore camera, with sinks; a program of its own, started by test_sink.py.

It leaves by os._exit: when an interpreter ends while pymmcore's callback thread waits for it, the process aborts now and then
("FATAL: exception not rethrown"), which must not be taken for a failure of the sink.
"""

from __future__ import annotations

import json
import os
import sys
import traceback

import numpy as np
import useq
from pymmcore_plus.experimental.unicore import CameraDevice, UniMMCore

from mutoscope import Sink
from mutoscope.cameras import SimulatedCamera
from mutoscope.frames import FrameRing
from mutoscope.model.errors import MutoscopeError


class PortedCamera(CameraDevice):
    """A driver of Mutoscope as a device of UniCore: its start_sequence fits as it is."""

    def __init__(self, camera: SimulatedCamera) -> None:
        super().__init__()
        self.camera = camera

    def initialize(self) -> None:
        self.camera.open()

    def shutdown(self) -> None:
        self.camera.close()

    def get_exposure(self) -> float:
        return self.camera.exposure_ms

    def set_exposure(self, exposure: float) -> None:
        self.camera.set("exposure_ms", exposure)

    def shape(self):
        return self.camera.shape

    def dtype(self):
        return self.camera.dtype

    def start_sequence(self, n, get_buffer):
        return self.camera.start_sequence(n, get_buffer)


class Witness:
    """A second handler of the same run, which keeps every frame as pymmcore-plus gave it."""

    def __init__(self) -> None:
        self.frames = []

    def frameReady(self, image, event, meta):
        self.frames.append((image.copy(), {str(k.value): v for k, v in event.index.items()}, dict(meta)))


def sequence(kind: str) -> useq.MDASequence:
    if kind == "burst":
        return useq.MDASequence(time_plan={"interval": 0, "loops": 12})
    return useq.MDASequence(
        axis_order="tpgcz",
        time_plan={"interval": 0, "loops": 2},
        stage_positions=[(0, 0), (10, 0)],
        grid_plan={"rows": 1, "columns": 2, "fov_width": 1, "fov_height": 1},
        z_plan={"range": 2, "step": 1},
    )


def main(task: str, path: str) -> dict[str, object]:
    core = UniMMCore()
    core.loadPyDevice("Cam", PortedCamera(SimulatedCamera((32, 40), rate_hz=200, pattern="counter")))
    core.initializeDevice("Cam")
    core.setCameraDevice("Cam")
    core.setExposure(4.0)
    core.setAutoShutter(False)
    witness, found = Witness(), {}
    try:
        if task in ("burst", "planes"):
            core.mda.run(sequence(task), output=[Sink(path, pixel_size_um=0.5), witness])  # closed at the end of the sequence
            np.savez(
                f"{path}.npz",
                frames=[image for image, _, _ in witness.frames],
                ticks=[int(meta.get("camera_metadata", {}).get("tick", 0)) for _, _, meta in witness.frames],
                runner_ms=[meta["runner_time_ms"] for _, _, meta in witness.frames],
            )
            found["index"] = [index for _, index, _ in witness.frames]
        elif task == "exists":
            errors = []
            sink = Sink(path, on_error=errors.append)
            core.mda.run(sequence("burst"), output=[sink, witness])
            found = {"stored": sink.stored, "dropped": sink.dropped, "told": [type(error).__name__ for error in errors]}
            found["seen"] = len(witness.frames)
            try:
                sink.close()
            except MutoscopeError as error:
                found["raised"] = f"{type(error).__name__}: {error}"
            sink.close()
        elif task == "cancel":
            sink = Sink(path, on_error=lambda error: core.mda.cancel())
            slow = useq.MDASequence(time_plan={"interval": 0.05, "loops": 1000})
            core.mda.run(slow, output=[sink, witness])
            found = {"seen": len(witness.frames), "error": type(sink.error).__name__}
        elif task == "twice":
            sink = Sink(path)
            core.mda.run(sequence("burst"), output=sink)
            core.mda.run(sequence("burst"), output=sink)
            found = {"stored": sink.stored, "error": str(sink.error)}
        elif task == "ring":
            ring = FrameRing(slots=16, slot_bytes=32 * 40 * 2)
            reader, writer = ring.reader(policy="every"), ring.writer()
            with Sink(writer) as sink:
                core.mda.run(sequence("burst"), output=[sink, witness])
            same = []
            for image, _, _ in witness.frames:
                with reader.next(timeout_s=5) as frame:
                    same.append(bool((frame.array == image).all()) and frame.index.t == len(same))
                    reader.commit(frame)
            found = {"same": same, "stored": sink.stored}
            reader.close()
            writer.close()
            ring.close()
    finally:
        core.unloadAllDevices()
    return found


if __name__ == "__main__":
    status = 1
    try:
        print(json.dumps(main(sys.argv[1], sys.argv[2])))
        status = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
