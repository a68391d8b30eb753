"""The sink takes what pymmcore-plus acquires on a UniCore camera, and loses nothing silently."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mutoscope import Sink, storage
from mutoscope.model import PlaneIndex
from mutoscope.model.errors import ConfigError, DatasetExistsError, ScopeStateError

PROGRAM = Path(__file__).with_name("useq_run.py")


def run(task, path):
    done = subprocess.run([sys.executable, PROGRAM, task, path], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def witnessed(path):
    with np.load(f"{path}.npz") as file:
        return dict(file)


def test_a_hardware_burst_is_stored_bit_exactly(tmp_path):
    path = tmp_path / "run.ome.zarr"
    run("burst", path)
    seen = witnessed(path)
    assert len(seen["frames"]) == 12
    with storage.open_reader(path) as reader:
        np.testing.assert_array_equal(np.array(list(reader)), seen["frames"])
        assert reader.frame_ids.tolist() == list(range(1, 13))
        assert reader.ticks.tolist() == seen["ticks"].tolist()
        assert reader.planes()["t"].tolist() == list(range(12))
        assert set(reader.exposure_ms.tolist()) == {4.0}
        np.testing.assert_allclose(np.diff(reader.monotonic_ns) / 1e6, np.diff(seen["runner_ms"]), atol=1e-5)
        np.testing.assert_array_equal(np.diff(reader.utc_ns), np.diff(reader.monotonic_ns))
    info = storage.info(path)
    assert info["complete"], "the end of the sequence closes the data set"
    assert info["images"][0]["pixel_size_um"] == 0.5
    saved = json.loads((path / "zarr.json").read_text())["attributes"]["mutoscope"]
    assert saved["useq_sequence"]["time_plan"]["loops"] == 12


@pytest.mark.leaks_elsewhere("zarr-python keeps its event loop and thread pool for the life of the process")
def test_every_plane_of_a_sequence_has_its_place(tmp_path):
    import zarr

    path = tmp_path / "run.ome.zarr"
    events = run("planes", path)["index"]
    seen = witnessed(path)
    assert len(events) == 2 * 2 * 2 * 3
    with storage.open_reader(path) as reader:
        planes = reader.planes()
    for name, wanted in {
        "t": [event["t"] for event in events],
        "z": [event["z"] for event in events],
        "position": [2 * event["p"] + event["g"] for event in events],
        "c": [-1] * 24,
    }.items():
        assert planes[name].tolist() == wanted, name
    level = zarr.open_array(str(path / "0"), mode="r")
    np.testing.assert_array_equal(level[:].reshape(-1, 32, 40)[:24], seen["frames"])


def test_an_existing_data_set_is_kept_and_the_frames_are_counted_as_lost(tmp_path):
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(2, 2), dtype="uint8") as writer:
        writer.append(np.ones((2, 2), "uint8"))
    found = run("exists", path)
    assert found["stored"] == 0
    assert found["dropped"] == found["seen"] == 12, "a failed sink does not disturb the run"
    assert found["told"] == ["DatasetExistsError"]
    assert found["raised"].startswith("DatasetExistsError: ")
    with storage.open_reader(path) as reader:
        assert len(reader) == 1


def test_an_error_can_cancel_the_run(tmp_path):
    (tmp_path / "run.ome.zarr").write_text("in the way")
    found = run("cancel", tmp_path / "run.ome.zarr")
    assert found["seen"] < 500
    assert found["error"] != "NoneType"


def test_one_sink_is_for_one_sequence(tmp_path):
    found = run("twice", tmp_path / "run.ome.zarr")
    assert found["stored"] == 12
    assert "one sequence" in found["error"]
    with storage.open_reader(tmp_path / "run.ome.zarr") as reader:
        assert len(reader) == 12


def test_frames_go_to_a_ring_too(tmp_path):
    found = run("ring", tmp_path / "unused")
    assert found == {"same": [True] * 12, "stored": 12}


# Without pymmcore-plus: what a handler is called with is plain


class Event:
    def __init__(self, exposure=None, **index):
        self.index = index
        self.exposure = exposure


def test_the_handler_calls_alone(tmp_path):
    image = np.arange(12, dtype="uint16").reshape(3, 4)
    with Sink(tmp_path / "run.ome.zarr") as sink:
        sink.sequenceStarted(object(), {})
        sink.frameReady(image, Event(exposure=7.0, t=0, c=1))
        image[:] = 0  # the source may be used again at once
        sink.frameReady(image, Event(t=1, c=1), {"runner_time_ms": 5.0})
        sink.sequenceFinished(None)
    with storage.open_reader(tmp_path / "run.ome.zarr") as reader:
        assert reader[0].tolist() == np.arange(12).reshape(3, 4).tolist()
        assert reader.exposure_ms[0] == 7.0
        assert np.isnan(reader.exposure_ms[1])
        assert (reader.monotonic_ns > 0).all()
        assert reader.planes()["c"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("image", "meta", "sentence"),
    [
        (np.zeros((3, 4, 3), "uint16"), {}, "frames are grey images"),
        (np.zeros((3, 4), "uint16"), {"camera_device": "Other"}, "the frames of one camera: 'Other' came after None"),
        (np.zeros((5, 4), "uint16"), {}, "does not fit"),
        (np.zeros((3, 4), "uint8"), {}, "does not fit"),
    ],
)
def test_frames_that_do_not_fit(tmp_path, image, meta, sentence):
    sink = Sink(tmp_path / "run.ome.zarr")
    sink.frameReady(np.zeros((3, 4), "uint16"), Event(t=0))
    sink.frameReady(image, Event(t=1), meta)
    sink.frameReady(np.zeros((3, 4), "uint16"), Event(t=2))
    assert (sink.stored, sink.dropped) == (1, 2)
    with pytest.raises(ConfigError, match=sentence):
        sink.close()
    sink.close()
    with storage.open_reader(tmp_path / "run.ome.zarr") as reader:
        assert len(reader) == 1


def test_misuse_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"a path or has push\(array"):
        Sink(7)
    sink = Sink(tmp_path / "run.ome.zarr")
    sink.close()
    sink.frameReady(np.zeros((3, 4), "uint16"), Event(t=0))
    with pytest.raises(ScopeStateError, match="after the sink was closed"):
        sink.close()
    assert sink.dropped == 1
    with pytest.raises(ConfigError, match="wanted"):
        raise_inside(Sink(tmp_path / "other.ome.zarr"))
    assert issubclass(DatasetExistsError, ConfigError)


def raise_inside(sink):
    with sink:
        sink.frameReady(np.zeros((3, 4, 5), "uint16"), Event(t=0))
        raise ConfigError("this error is wanted, not the sink's")


def test_the_place_of_a_frame_pushed_on():
    pushed = []

    class Target:
        def push(self, array, **metadata):
            pushed.append((array.copy(), metadata))
            return len(pushed)

    with Sink(Target()) as sink:
        sink.frameReady(np.ones((2, 2), "uint8"), Event(t=3, p=2), {"camera_metadata": {"tick": "17"}})
    assert pushed[0][1]["index"] == PlaneIndex(t=3, position=2)
    assert pushed[0][1]["tick"] == 17
