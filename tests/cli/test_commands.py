"""The commands that only look: info, recover, doctor, bench."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from command_line import MUTOSCOPE, mutoscope, run
from mutoscope import storage
from mutoscope.app.doctor import examine, lines
from mutoscope.app.report import dataset_lines, describe
from mutoscope.app.scope import Scope
from mutoscope.cameras import SimulatedCamera


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Frames 1 to 3 and 6 to 8, as an interrupted recording leaves them when `close` never came."""
    path = tmp_path / "cut.ome.zarr"
    writer = storage.open_writer(path, shape=(16, 24), dtype="uint16", frames_per_shard=16)
    for frame_id in (1, 2, 3, 6, 7, 8):
        image = np.full((16, 24), frame_id, "uint16")
        writer.append(image, frame_id=frame_id, monotonic_ns=frame_id * 10_000_000, utc_ns=1_800_000_000_000_000_000)
    writer.close()
    return path


def test_info_tells_frames_gaps_and_times(dataset: Path) -> None:
    done = mutoscope(dataset.parent, "info", dataset.name)
    assert done.code == 0, done.describe()
    for words in ("6 frames", "16 x 24 px, uint16", "1 to 8", "2 from 4", "2027-01-15T08:00:00.000Z", "size unknown"):
        assert words in done.stdout, done.describe()


def test_info_as_json_is_what_storage_says(dataset: Path) -> None:
    done = mutoscope(dataset.parent, "info", str(dataset), "--json")
    told = json.loads(json.dumps(storage.info(dataset)))
    told["images"][0]["missed"] = None  # no ticks were stored
    assert done.last_json == told


def test_recover_says_what_it_did(dataset: Path) -> None:
    done = mutoscope(dataset.parent, "recover", dataset.name)
    assert done.code == 0, done.describe()
    assert done.stdout.endswith("nothing to repair\nthe image: 6 frames\n")
    done = mutoscope(dataset.parent, "recover", dataset.name, "--json")
    assert done.last_json["images"][0]["frames"] == 6


def test_an_ome_tiff_is_told_and_recovered_like_any_recording(tmp_path: Path) -> None:
    with storage.open_writer(tmp_path / "run.ome.tiff", shape=(16, 24), dtype="uint16") as writer:
        for frame_id in (1, 2, 5):
            writer.append(np.full((16, 24), frame_id, "uint16"), frame_id=frame_id)
    done = mutoscope(tmp_path, "info", "run.ome.tiff")
    assert done.code == 0, done.describe()
    assert "3 frames of 16 x 24 px, uint16" in done.stdout, done.describe()
    assert "2 from 3" in done.stdout, done.describe()
    with (tmp_path / "run.ome.tiff").open("ab") as file:
        file.write(b"torn")
    done = mutoscope(tmp_path, "recover", "run.ome.tiff", "--json")
    assert done.code == 0, done.describe()
    assert done.last_json["images"][0]["frames"] == 3
    assert len(storage.open_reader(tmp_path / "run.ome.tiff")) == 3


def test_each_run_of_a_resumed_data_set_has_its_ledger_and_all_have_their_totals(tmp_path: Path) -> None:
    camera = SimulatedCamera(shape=(16, 16), rate_hz=500.0)
    for resume, frames in ((False, 1200), (True, 34), (True, 5)):
        with Scope(camera=camera, record=tmp_path / "run.ome.zarr", resume=resume) as scope:
            scope.acquire(frames=frames)
    lines = mutoscope(tmp_path, "info", "run.ome.zarr").stdout.splitlines()
    for number, words in ((1, "produced 1,200, stored 1,200"), (2, "produced 34, stored 34"), (3, "produced 5, stored 5")):
        assert words in lines[lines.index(f"ledger of run {number} of 3") + 1]
    assert lines[-1].startswith("all 3 runs together: produced 1,239, stored 1,239, missed ")
    told = describe(tmp_path / "run.ome.zarr")
    assert [len(told["earlier_runs"]), told["ledger"]["cameras"]["camera"]["produced"]] == [2, 5]
    said = dataset_lines({**told, "earlier_runs": [{"ledger": None}, *told["earlier_runs"][1:]]})
    assert said[said.index("ledger of run 1 of 3") + 1] == "  none: the run was cut off, or goes on"
    assert said[-1].startswith("the 2 runs with a ledger together: produced 39, stored 39, missed ")


@pytest.mark.parametrize("name", ["run.ome.zarr", "run.ome.tiff"])
@pytest.mark.parametrize("command", ["recover", "pyramid"])
def test_what_is_being_recorded_is_left_alone_with_one_sentence(tmp_path: Path, name: str, command: str) -> None:
    with storage.open_writer(tmp_path / name, shape=(16, 24), dtype="uint16") as writer:
        writer.append(np.ones((16, 24), "uint16"), frame_id=1)
        done = mutoscope(tmp_path, command, name)
    assert done.code == 2, done.describe()
    assert done.stderr.count("\n") == 1, done.describe()
    assert "Error" not in done.stderr, done.describe()
    said = "is an OME-TIFF" if name.endswith("tiff") and command == "pyramid" else "another writer has it open"
    assert said in done.stderr, done.describe()


def test_what_was_cut_off_is_said_to_be() -> None:
    image = {"camera": "camera", "segment": 1, "shape": [64, 8, 8], "dtype": "uint8", "frames": 2, "pixel_size_um": 0.11}
    image |= {"gaps": [[k, 1] for k in range(9)], "first_frame_id": 1, "last_frame_id": 99, "rate_hz": None, "duration_s": 0.0}
    image |= {"first_utc_ns": 0, "last_utc_ns": 0, "missed": 12}
    lines = "\n".join(dataset_lines({"path": "x", "frames": 2, "complete": False, "images": [image], "ledger": None}))
    for words in ("not closed", "camera.1", "and 4 more", "0.11 µm", "declared 64 frames", "from     unknown"):
        assert words in lines


def test_doctor_tells_where_imagej_is_and_whether_it_has_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ImageJ"
    folder.mkdir()
    (folder / "ij.jar").write_bytes(b"no jar")
    monkeypatch.setenv("FIJI_HOME", str(folder))
    report = examine(tmp_path)
    first = report["imagej"][0]
    assert (first["kind"], first["program"]) == ("imagej", str(folder / "ij.jar"))
    assert "mutoscope fiji install" in first["plugin"] or "fiji/build.py" in first["plugin"]
    assert any(str(folder / "ij.jar") in line for line in lines(report))
    monkeypatch.setenv("FIJI_HOME", str(tmp_path))
    report = examine(tmp_path)
    assert "is no folder of Fiji or ImageJ" in report["imagej"][0]["plugin"]
    assert not any("FIJI_HOME" in problem for problem in report["problems"]), "a scope runs without it"


def test_doctor_finds_that_a_scope_can_run_here(tmp_path: Path) -> None:
    done = mutoscope(tmp_path, "doctor", "--json")
    assert done.code == (1 if done.last_json["problems"] else 0), done.describe()
    report = done.last_json
    assert report["core"]["loads"]
    assert report["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert report["limits"]["cores"] == len(os.sched_getaffinity(0))
    assert report["limits"]["memory_available_bytes"] <= report["limits"]["memory_bytes"]
    assert {"replay", "bench"} <= set(report["extras"])
    assert "zarr" in report["readers"]
    assert "open files" in done.stdout


def test_doctor_names_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    """Where the native core is not built, it still answers."""
    environment = os.environ | {"MUTOSCOPE_CORE_LIBRARY": str(tmp_path / "nowhere.so")}
    code = "import json; from mutoscope.app.doctor import examine; print(json.dumps(examine()))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert not report["core"]["loads"]
    assert any("_compile.py" in problem for problem in report["problems"])


def test_doctor_says_how_to_get_what_opens_a_recording() -> None:
    report = examine()
    report["readers"] = {"zarr": None, "tifffile": "2026.1"}
    said = [" ".join(line.split()) for line in lines(report)]
    assert "zarr missing: pip install zarr" in said
    assert "tifffile 2026.1" in said


def test_doctor_knows_every_extra() -> None:
    extras = examine()["extras"]
    for name, extra in extras.items():
        assert extra["command"].startswith("pip install "), name
        assert "mutoscope" not in extra["command"], "this package may not be on the index: it works from a checkout, too"
    assert extras["bench"]["command"] == "pip install pyzmq zarr"
    assert extras["napari"]["command"] == "pip install bermuda napari 'pyside6-essentials<6.12'", "what is left out is said"


def test_the_bench_of_the_bus_loses_no_command_and_its_last_line_is_json(tmp_path: Path) -> None:
    done = mutoscope(tmp_path, "bench", "bus", "--quick", "--json")
    assert done.code == 0, done.describe()
    assert done.last_json["bench"] == "bus"
    assert done.last_json["passed"] is True
    by_name = {result["name"]: result for result in done.last_json["results"]}
    assert [result["passed"] for name, result in by_name.items() if name.endswith("missing")] == [True, True]
    assert by_name["request from worker to worker, p50"]["passed"] is None
    assert by_name["request from worker to worker of a running scope, p50"]["passed"] is None


def test_bench_says_what_it_cannot_measure_and_what_it_does_not_judge(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['zmq'] = None; from mutoscope.cli import main; sys.exit(main(['bench', 'ring', '--quick']))"
    done = run(tmp_path, sys.executable, "-c", hide)
    assert done.code == 0, done.describe()
    said = " ".join(done.stdout.split())
    assert "not measured: a named block for each image, announced over zmq; it needs pyzmq: pip install pyzmq" in said
    assert "not judged: a bound is judged on at least 7 timed rounds" in said


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_standard_streams_do_no_harm(tmp_path: Path, closed: str) -> None:
    """As some service managers start programs; else the first ring would become standard output."""
    words = f"demo --frames 20 --shape 32 32 --headless --out data {closed}"
    done = run(tmp_path, "bash", "-c", f"{shlex.join(MUTOSCOPE)} {words}")
    assert done.code == 0, done.describe()
    assert storage.info(tmp_path / "data" / "run.ome.zarr")["frames"] == 20


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    done = run(tmp_path, "bash", "-c", f"{shlex.join(MUTOSCOPE)} doctor | true; echo ${{PIPESTATUS[0]}}")
    assert done.stdout.strip() in ("0", "141"), done.describe()
    assert "Traceback" not in done.stderr


INTERRUPTED = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

from mutoscope.cli import main
sys.meta_path.insert(0, Finder())
sys.exit(main(["demo", "--frames", "5", "--headless"]))
"""


@pytest.mark.parametrize(
    "module",
    [
        "mutoscope.cli._top",
        "cyclopts",
        "mutoscope.app.demo",
        "numpy",
        "numpy._core._multiarray_umath",
        "numpy.linalg",
        "msgspec",
    ],
)
def test_ctrl_c_while_a_command_is_being_loaded_is_one_line(tmp_path: Path, module: str) -> None:
    done = run(tmp_path, sys.executable, "-c", INTERRUPTED, module)
    assert done.code == 130, done.describe()
    assert done.stderr == "mutoscope: interrupted\n", done.describe()
    assert not list(tmp_path.iterdir())


def test_next_to_nothing_is_loaded_before_ctrl_c_is_looked_after() -> None:
    code = "import sys, mutoscope.cli; print([name for name in ('typing', 're', 'signal', 'numpy') if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(Path(storage.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
