"""The simulated camera: conformance, exact content, a clock that does not wait, and its faults."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mutoscope.cameras import SimulatedCamera
from mutoscope.cameras.suite import CameraSuite
from mutoscope.model.errors import BufferUnavailableError, CameraBusyError, CameraError, ConfigError


class TestSimulated(CameraSuite):
    def make_camera(self):
        return SimulatedCamera(shape=(96, 130), rate_hz=500, seed=3)


class TestCounter(CameraSuite):
    def make_camera(self):
        return SimulatedCamera(shape=(3, 5), dtype="uint8", rate_hz=2000, pattern="counter", exposure_ms=0.25)


class Buffers:
    """Fresh buffers, kept with what they were filled with."""

    def __init__(self, before=None):
        self.before = before
        self.kept = []

    def __call__(self, shape, dtype):
        if self.before is not None:
            self.before(len(self.kept))
        self.kept.append(np.zeros(shape, dtype))
        return self.kept[-1]


def take(camera, n, buffers=None):
    buffers = buffers or Buffers()
    ticks = [metadata["tick"] for metadata in camera.start_sequence(n, buffers)]
    return ticks, buffers.kept


@pytest.mark.parametrize("pattern", ["beads", "noise", "counter"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int16", "int32", "float32", "float64"])
def test_every_frame_is_what_another_process_would_expect(pattern, dtype):
    with SimulatedCamera(shape=(70, 101), dtype=dtype, rate_hz=2000, pattern=pattern, seed=5) as camera:
        other = pickle.loads(pickle.dumps(SimulatedCamera(**camera.configuration())))
        ticks, frames = take(camera, 8)
    for tick, frame in zip(ticks, frames, strict=True):
        np.testing.assert_array_equal(frame, other.expected_frame(tick))
        assert frame.dtype == dtype
    assert len({frame.tobytes() for frame in frames}) == 8, "no two frames are the same"


def test_frames_depend_on_the_seed_and_not_on_the_rate():
    first = SimulatedCamera(shape=(64, 64), seed=1)
    assert (first.expected_frame(9) != SimulatedCamera(shape=(64, 64), seed=2).expected_frame(9)).any()
    np.testing.assert_array_equal(first.expected_frame(9), SimulatedCamera(shape=(64, 64), seed=1, rate_hz=7).expected_frame(9))
    first.set("seed", 2)
    np.testing.assert_array_equal(first.expected_frame(9), SimulatedCamera(shape=(64, 64), seed=2).expected_frame(9))


@pytest.mark.parametrize("tick", [1, 4093, 4094, 1_000_000_007])
def test_the_counter_holds_its_tick(tick):
    for dtype, bits in (("uint8", 8), ("uint16", 16), ("int32", 31)):
        frame = SimulatedCamera(shape=(4, 16), dtype=dtype, pattern="counter").expected_frame(tick)
        assert sum(int(value) << (bits * digit) for digit, value in enumerate(frame[0, : -(-64 // bits)])) == tick


def test_beads_are_where_truth_says():
    camera = SimulatedCamera(shape=(256, 300), beads=9, noise=0.0, background=50, bead_intensity=20_000, seed=11)
    for tick in (1, 2, 700, 5000):
        frame, truth = camera.expected_frame(tick).astype(float) - 50, camera.truth(tick)
        assert truth.shape == (9, 2)
        for y, x in truth:
            rows, columns = np.arange(int(y) - 8, int(y) + 10), np.arange(int(x) - 8, int(x) + 10)
            window = frame[np.ix_(rows, columns)]
            assert (window.sum(1) @ rows) / window.sum() == pytest.approx(y, abs=2e-3)
            assert (window.sum(0) @ columns) / window.sum() == pytest.approx(x, abs=2e-3)


def test_beads_diffuse_as_far_as_set():
    camera = SimulatedCamera(shape=(512, 512), bead_step_px=0.5, seed=4)
    path = np.array([camera.truth(tick) for tick in range(1, 1001)])
    assert path.min() > 0
    assert path.max() < 511
    for lag in (1, 4):
        squared = ((path[lag:] - path[:-lag]) ** 2).mean()
        assert squared == pytest.approx(lag * 0.5**2, rel=0.1)


def test_noise_has_its_mean_and_deviation():
    frame = SimulatedCamera(shape=(512, 512), pattern="noise", background=200, noise=12).expected_frame(77)
    assert frame.mean() == pytest.approx(200, abs=0.2)
    assert frame.std() == pytest.approx(12, abs=0.2)


def test_bright_beads_never_wrap_around():
    frame = SimulatedCamera(shape=(128, 128), dtype="uint8", bead_intensity=1e6, background=250, noise=3).expected_frame(5)
    assert frame.min() > 200


def test_large_frames_keep_the_noise_pool_small():
    camera = SimulatedCamera(shape=(4096, 4096), pattern="noise")
    camera.expected_frame(3)
    assert camera._scene.pool.nbytes <= 4096 * 2 * (4096 + 256)


# The clock


def test_frames_come_at_their_rate():
    with SimulatedCamera(shape=(16, 16), rate_hz=400, beads=0) as camera:
        begin = time.monotonic()
        ticks, _ = take(camera, 40)
        assert time.monotonic() - begin >= ticks[-1] / 400


def test_a_consumer_that_is_late_loses_counted_frames_and_gets_no_burst():
    def late(number):
        if number == 10:
            time.sleep(0.1)

    with SimulatedCamera(shape=(16, 16), rate_hz=2000, buffer_frames=4, pattern="counter") as camera:
        stamps = []
        buffers = Buffers(late)
        ticks = []
        for metadata in camera.start_sequence(200, buffers):
            ticks.append(metadata["tick"])
            stamps.append(time.monotonic_ns())
        health = camera.health()
        for tick, frame in zip(ticks, buffers.kept, strict=True):
            np.testing.assert_array_equal(frame, camera.expected_frame(tick))
    assert ticks[10] - ticks[9] >= 0.1 * 2000 - 4 - 1, "what was missed is missing"
    assert health["missed"] == ticks[-1] - len(ticks) == health["exposed"] - health["delivered"]
    offsets = np.array(stamps) - np.array(ticks) * 1e9 / 2000
    assert (offsets - offsets.min()).max() < (4 + 1) * 1e9 / 2000 + 50e6, "no frame older than the camera's memory"


def test_a_burst_is_bounded_by_the_cameras_memory():
    def late(number):
        if number == 5:
            time.sleep(0.2)

    with SimulatedCamera(shape=(8, 8), rate_hz=20, buffer_frames=3, pattern="counter") as camera:
        ticks, stamps = [], []
        for metadata in camera.start_sequence(12, Buffers(late)):
            ticks.append(metadata["tick"])
            stamps.append(time.monotonic())
    gap = ticks[5] - ticks[4] - 1
    assert gap >= 1, f"four periods late with three frames of memory: {ticks}"
    assert stamps[9] - stamps[5] >= 1 / 20, "at most three at once, then at the rate again"


def test_no_buffer_is_a_counted_drop():
    asked = iter(range(1, 1000))

    def get_buffer(shape, dtype):
        if next(asked) in (3, 4, 5):
            raise BufferUnavailableError("full")
        return np.zeros(shape, dtype)

    with SimulatedCamera(shape=(8, 8), rate_hz=300, buffer_frames=4096, pattern="counter") as camera:
        ticks = [m["tick"] for m in camera.start_sequence(6, get_buffer)]
        assert ticks == [1, 2, 6, 7, 8, 9]
        assert camera.health()["missed"] == 3


def test_the_rate_changes_while_it_runs():
    with SimulatedCamera(shape=(8, 8), rate_hz=2000, pattern="counter") as camera:
        ticks = []
        for metadata in camera.start_sequence(30, Buffers()):
            ticks.append(metadata["tick"])
            if len(ticks) == 10:
                camera.set("rate_hz", 50)
                changed = time.monotonic()
        assert time.monotonic() - changed >= 15 / 50
        assert camera.health()["exposed"] == ticks[-1]
        with pytest.raises(ConfigError, match="shape of SimulatedCamera cannot be changed while"):
            camera.set("shape", (9, 9))


@pytest.mark.alone
def test_a_thousand_frames_a_second_leave_most_of_a_core():
    with SimulatedCamera(shape=(512, 512), rate_hz=1000) as camera:
        slots = [np.zeros((512, 512), "uint16") for _ in range(16)]
        numbers = iter(range(10**6))
        begin = time.process_time()
        ticks = [m["tick"] for m in camera.start_sequence(500, lambda shape, dtype: slots[next(numbers) % 16])]
        used = time.process_time() - begin
    assert used < 0.5 * ticks[-1] / 1000, f"{used:.3f} s of processor time for {ticks[-1]} exposures"


# Faults


def test_ticks_that_the_camera_loses():
    with SimulatedCamera(shape=(8, 8), rate_hz=1000, drop_at=(2, 4, 5), buffer_frames=4096) as camera:
        ticks, _ = take(camera, 5)
        assert ticks == [1, 3, 6, 7, 8]
        assert camera.health()["missed"] == 3


def test_an_injected_error():
    with SimulatedCamera(shape=(8, 8), rate_hz=1000, raise_at=4, buffer_frames=4096) as camera:
        ticks = []
        with pytest.raises(CameraError, match="told to fail at tick 4"):
            ticks.extend(m["tick"] for m in camera.start_sequence(None, Buffers()))
        assert ticks == [1, 2, 3]
        assert camera.health()["delivered"] == 3


def test_a_stall_is_counted_and_passes():
    with SimulatedCamera(shape=(8, 8), rate_hz=200, stall_at=5, stall_s=0.25, buffer_frames=20) as camera:
        waits = []
        plain = camera.waiter
        camera.waiter = lambda timeout_s: (waits.append(timeout_s), plain(timeout_s))
        ticks, _ = take(camera, 12)
        health = camera.health()
    assert ticks[:4] == [1, 2, 3, 4]
    assert ticks[4] >= 5 + 0.25 * 200 - 20 - 1
    assert health["timeouts"] >= 3
    assert health["timeouts_consecutive"] == 0
    assert max(waits) <= 0.1, "a stalled driver looks up often"


def test_an_endless_stall_can_be_ended():
    class Enough(Exception):
        pass

    camera = SimulatedCamera(shape=(8, 8), rate_hz=1000, stall_at=3)

    def waiter(timeout_s):
        if camera.health()["timeouts"] >= 2:
            raise Enough
        time.sleep(timeout_s)

    camera.waiter = waiter
    with camera, pytest.raises(Enough):
        take(camera, None)


def test_refusals_to_open():
    camera = SimulatedCamera(shape=(8, 8), refuse_open=2)
    for _ in range(2):
        with pytest.raises(CameraBusyError) as caught:
            camera.open()
        assert caught.value.retry
        assert not camera.is_open
    camera.open()
    camera.close()
    never = SimulatedCamera(shape=(8, 8), refuse_open=-1)
    with pytest.raises(CameraError, match="every opening") as refused:
        never.open()
    assert not refused.value.retry


def test_refusals_to_open_again():
    camera = SimulatedCamera(shape=(8, 8), refuse_reopen=1)
    camera.open()
    camera.close()
    with pytest.raises(CameraBusyError):
        camera.open()
    camera.open()
    camera.close()
    restarted = SimulatedCamera(shape=(8, 8), refuse_reopen=-1)
    restarted.incarnation = 1
    with pytest.raises(CameraError, match="every opening"):
        pickle.loads(pickle.dumps(restarted)).open()


def test_a_restarted_process_has_no_second_fault_unless_told():
    for repeats in (False, True):
        camera = SimulatedCamera(shape=(8, 8), rate_hz=1000, raise_at=2, drop_at=3, fault_repeats=repeats, buffer_frames=4096)
        camera.incarnation = 1
        with camera:
            if repeats:
                with pytest.raises(CameraError):
                    take(camera, 4)
            else:
                assert take(camera, 4)[0] == [1, 2, 3, 4]


def test_a_segfault_ends_the_process():
    code = (
        "import numpy as np\n"
        "from mutoscope.cameras import SimulatedCamera\n"
        "camera = SimulatedCamera(shape=(8, 8), rate_hz=1000, segfault_at=4, buffer_frames=4096)\n"
        "camera.open()\n"
        "for metadata in camera.start_sequence(None, np.zeros):\n"
        "    print(metadata['tick'], flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGSEGV, done.stderr
    assert done.stdout.split() == ["1", "2", "3"]


def test_a_blocking_stall_lets_nothing_else_happen():
    code = (
        "import time, numpy as np\n"
        "from mutoscope.cameras import SimulatedCamera\n"
        "camera = SimulatedCamera(shape=(8, 8), rate_hz=1000, stall_at=2, stall_blocks=True)\n"
        "calls = []\n"
        "camera.waiter = lambda s: (calls.append(1), time.sleep(s), print('wait', flush=True))\n"
        "camera.open()\n"
        "for metadata in camera.start_sequence(None, np.zeros):\n"
        "    print('frame', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        try:
            child.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            child.kill()
        lines = child.stdout.read().split()
    assert lines.count("frame") == 1
    assert lines.count("wait") <= 10, "the waiter was called during the stall"


# Settings


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rate_hz": -1}, "rate_hz must be a number from 0.001 to 100000 Hz, not -1"),
        ({"rate_hz": float("nan")}, "rate_hz must be a number from 0.001 to 100000 Hz, not nan"),
        ({"rate_hz": "fast"}, "rate_hz must be a number from 0.001 to 100000 Hz, not 'fast'"),
        ({"shape": (0, 5)}, r"shape must be two whole numbers \(y, x\) from 1 to 32768 px, not \(0, 5\)"),
        ({"shape": 512}, r"shape must be two whole numbers \(y, x\) from 1 to 32768 px, not 512"),
        ({"dtype": "complex64"}, "dtype must be one of 'uint8', .*, not 'complex64'"),
        ({"dtype": "no such"}, "dtype must be one of"),
        ({"pattern": "stars"}, "pattern must be one of 'beads', 'noise', 'counter', not 'stars'"),
        ({"rate_hz": 100, "exposure_ms": 11}, "exposure_ms must be at most the frame period of 10 ms at 100 Hz, not 11"),
        ({"shape": (64, 64), "beads": 500}, "beads must be at most 4 in a frame of 64 x 64 px, not 500"),
        ({"bead": 5}, "SimulatedCamera has no setting 'bead'; did you mean 'beads'?"),
        ({"fault_repeats": 1}, "fault_repeats must be true or false, not 1"),
        ({"seed": True}, "seed must be a whole number from 0 to 2147483647, not True"),
    ],
)
def test_one_clear_sentence(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        SimulatedCamera(**settings)


def test_a_setting_that_does_not_fit_the_others_is_put_back():
    camera = SimulatedCamera(rate_hz=100, exposure_ms=10)
    with pytest.raises(ConfigError, match="frame period of 5 ms at 200 Hz"):
        camera.set("rate_hz", 200)
    assert camera.rate_hz == 100
    assert camera.set("exposure_ms", 5) == 5.0
    assert camera.set("rate_hz", 200) == 200.0


def test_numpy_values_are_taken():
    camera = SimulatedCamera(shape=np.zeros((20, 30)).shape, dtype=np.uint8, rate_hz=np.float32(50), seed=np.int64(3))
    assert camera.configuration()["dtype"] == "uint8"
    assert type(camera.configuration()["seed"]) is int
    assert type(camera.configuration()["rate_hz"]) is float
