import mutoscope as ms

class SetThreshold(ms.Command):
    value: float

class SpotCounter(ms.Worker):
    threshold = 1000.0

    def setup(self):
        self.frames = self.reader("camera", policy="latest")
        self.counts = self.table("spots", dtype=[("frame_id", "u8"), ("count", "i8")])

    def step(self):
        with self.frames.next(timeout_s=0.1) as frame:          # frame.array: read-only view, shape (y, x)
            self.counts.append((frame.frame_id, int((frame.array > self.threshold).sum())))

    @ms.handles(SetThreshold)
    def set_threshold(self, command) -> float:
        self.threshold = command.value
        return self.threshold

if __name__ == "__main__":
    camera = ms.cameras.SimulatedCamera(shape=(512, 512), dtype="uint16", rate_hz=200)
    with ms.Scope(camera=camera, workers=[SpotCounter], record="run.ome.zarr") as scope:
        scope.acquire(frames=1000)                              # returns when they are stored
        assert scope.request(SetThreshold(value=1500.0), timeout_s=1) == 1500.0
        print(scope.ledger.summary())                           # produced, stored, shown, dropped by reason
