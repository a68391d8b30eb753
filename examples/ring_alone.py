import numpy as np

image = np.random.default_rng(seed=1).integers(0, 4096, size=(2048, 2048), dtype="uint16")

from mutoscope.frames import FrameRing                          # the ring alone

ring = FrameRing(slots=16, slot_bytes=2048 * 2048 * 2)
reader = ring.reader(policy="every")                            # can be given to a child of multiprocessing (spawn), as can the writer
writer = ring.writer()
with writer.slot(shape=(2048, 2048), dtype="uint16") as slot:   # published on leaving the block
    slot.array[:] = image
with reader.next(timeout_s=1.0) as frame:
    frame.array, frame.frame_id, frame.monotonic_ns
    reader.commit(frame)
