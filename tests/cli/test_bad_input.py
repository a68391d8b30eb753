"""What cannot be: one clear sentence, exit code 2, no traceback, nothing left running, nothing written."""

from __future__ import annotations

import shlex
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile

from command_line import mutoscope
from mutoscope import storage

SCRIPTS = {
    "missing_worker.py": """
import mutoscope as ms
import vanishing

with ms.Scope(camera=ms.cameras.SimulatedCamera(shape=(32, 32)), workers=[vanishing.Worker]) as scope:
    scope.acquire(frames=1)
""",
    "bad_setting.py": """
import mutoscope as ms

ms.cameras.SimulatedCamera(shape=(32, 32), rate_hz=-5)
""",
    "unknown_setting.py": """
import mutoscope as ms

ms.cameras.SimulatedCamera(shape=(32, 32), exposuer_ms=2.0)
""",
    "bad_field.py": """
import mutoscope as ms

class SetThreshold(ms.Command):
    value: float

class Counter(ms.Worker):
    @ms.handles(SetThreshold)
    def set_threshold(self, command):
        return command.value

if __name__ == "__main__":
    with ms.Scope(camera=ms.cameras.SimulatedCamera(shape=(32, 32)), workers=[Counter]) as scope:
        scope.request(SetThreshold(value="much"))
""",
    "two_of_one_name.py": """
import mutoscope as ms

class Counter(ms.Worker):
    pass

if __name__ == "__main__":
    with ms.Scope(camera=ms.cameras.SimulatedCamera(shape=(32, 32)), workers=[Counter, Counter]):
        pass
""",
    "no_frames.py": """
import mutoscope as ms

if __name__ == "__main__":
    with ms.Scope(camera=ms.cameras.SimulatedCamera(shape=(32, 32))) as scope:
        scope.acquire(frames=0)
""",
    "unknown_camera.py": """
import mutoscope as ms

class Watcher(ms.Worker):
    def setup(self):
        self.frames = self.reader("camrea")

if __name__ == "__main__":
    with ms.Scope(camera=ms.cameras.SimulatedCamera(shape=(32, 32)), workers=[Watcher]):
        pass
""",
}

CASES = [
    # words typed, words that the sentence holds
    ("dem", ["dem", "demo"]),
    ("--frames 5", ["--frames"]),
    ("demo --fames 5", ["--fames", "--frames"]),
    ("demo 5", ["5"]),
    ("demo --frames -3", ["frames", "-3"]),
    ("demo --frames 0", ["frames", "0"]),
    ("demo --frames many", ["--frames", "many"]),
    ("demo --seconds 0", ["seconds", "0"]),
    ("demo --seconds nan", ["seconds", "nan"]),
    ("demo --frames 5 --seconds 2", ["frames", "seconds"]),
    ("demo --rate-hz 0", ["rate", "0"]),
    ("demo --rate-hz inf", ["rate", "inf"]),
    ("demo --shape 0 512", ["shape", "0"]),
    ("demo --shape 512", ["--shape"]),
    ("demo --shape 99999 512", ["shape", "32768"]),
    ("demo --shape 32768 32768", ["GiB|bytes|memory"]),
    ("demo --seed -1", ["seed", "-1"]),
    ("demo --frames 5 --out taken.ome.zarr", ["taken.ome.zarr", "--overwrite"]),
    ("demo --frames 5 --out notes.txt", ["notes.txt", "file"]),
    ("demo --frames 5 --out notes.txt/run.ome.zarr", ["notes.txt", "file"]),
    ("demo --frames 5 --out x.ome.tiff --compression blosc-lz4", ["blosc-lz4", "zlib"]),
    ("demo --frames 5 --out x.tif", ["x.tif: recordings are OME-Zarr"]),
    ("demo --frames 5 --out x.ZARR", ["x.ZARR: recordings are OME-Zarr"]),
    ("demo --frames 5 --out ''", ["--out is empty"]),
    ("replay grey.tif --out ''", ["--out is empty"]),
    ("demo --frames 1.9", ["--frames takes whole numbers, not '1.9'"]),
    ("demo --frames 1e3", ["--frames takes whole numbers, not '1e3'"]),
    ("demo --frames 5 --seed 1.7", ["--seed takes whole numbers, not '1.7'"]),
    ("demo --frames 5 --shape 10.7 20.2", ["--shape takes whole numbers, not '10.7'"]),
    ("demo --frames 99999999999", ["99,999,999,999 frames need"]),
    ("replay grey.tif --frames 2.5", ["--frames takes whole numbers"]),
    ("pyramid taken.ome.zarr --levels 1.5", ["--levels takes whole numbers"]),
    ("plate import empty out.ome.zarr --wells 95.9", ["--wells takes whole numbers"]),
    ("export fiji grey.tif out.tif --position 0.5", ["--position takes whole numbers"]),
    ("bench faults --kills 2.5", ["--kills takes whole numbers"]),
    ("demo --frames 5 --out /proc/nowhere", ["/proc/nowhere"]),
    ("run grey.tif", ["grey.tif is no Python program"]),
    ("replay", ["replay"]),
    ("replay nothing.tif", ["nothing.tif"]),
    ("replay empty", ["empty"]),
    ("replay empty.tif", ["empty.tif"]),
    ("replay notes.txt", ["notes.txt"]),
    ("replay cut.tif", ["cut.tif"]),
    ("replay colour.png", ["say how it becomes grey, red or green or blue or luminance", "--colour red"]),
    ("replay grey.tif --colour red", ["grey already"]),
    ("replay colour --colour gren", ["gren", "green"]),
    ("replay two.ome.zarr", ["choose one with image=: left, right (image='left' in Python, --image left on the command line)"]),
    ("replay two.ome.zarr --image middle", ["middle", "left"]),
    ("replay grey.tif --image left", ["left", "grey.tif is none"]),
    ("convert two.ome.zarr out.ome.tiff", ["choose one with image=: left, right", "--image left"]),
    ("replay grey.tif --rate-hz -1", ["rate", "-1"]),
    ("replay grey.tif --frames -1", ["frames", "-1"]),
    ("run", ["run"]),
    ("run nothing.py", ["nothing.py"]),
    ("run empty", ["empty"]),
    ("run bad_setting.py", ["rate_hz", "-5"]),
    ("run unknown_setting.py", ["exposuer_ms", "exposure_ms"]),
    ("run bad_field.py", ["value", "SetThreshold"]),
    ("run two_of_one_name.py", ["Counter", "name"]),
    ("run no_frames.py", ["frames", "0"]),
    ("run unknown_camera.py", ["camrea", "camera"]),
    ("info nothing.ome.zarr", ["nothing.ome.zarr"]),
    ("info notes.txt", ["notes.txt is a file, and no data set"]),
    ("info grey.tif", ["grey.tif is a file, and no data set"]),
    ("info empty", ["empty is a folder, but no data set: it has no zarr.json or .zgroup"]),
    ("info .", ["did you mean taken.ome.zarr or two.ome.zarr?"]),
    ("recover notes.txt", ["notes.txt is a file, and no data set"]),
    ("recover nothing.ome.zarr", ["nothing.ome.zarr"]),
    ("recover empty", ["empty is a folder, but no data set"]),
    ("bench", ["bench"]),
    ("bench rng", ["rng", "ring"]),
    ("bench ring --kills 5", ["kills", "faults"]),
    ("bench faults --kills 0", ["kills", "0"]),
    ("doctor now", ["now"]),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with things that are not what was hoped for."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.tif").touch()
    (tmp_path / "notes.txt").write_text("not an image\n", encoding="utf-8")
    (tmp_path / "taken.ome.zarr").mkdir()
    tifffile.imwrite(tmp_path / "grey.tif", np.zeros((4, 32, 32), "uint16"), photometric="minisblack")
    whole = (tmp_path / "grey.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 3])
    cameras = dict.fromkeys(("left", "right"), storage.CameraLayout((32, 32), "uint8"))
    storage.create_recording(tmp_path / "two.ome.zarr", cameras)
    for name in cameras:
        with storage.open_image_writer(tmp_path / "two.ome.zarr", name) as writer:
            writer.append(np.full((32, 32), len(name), "uint8"))
    (tmp_path / "colour").mkdir()
    imageio.imwrite(tmp_path / "colour.png", np.zeros((32, 32, 3), "uint8"))
    imageio.imwrite(tmp_path / "colour" / "0.png", np.zeros((32, 32, 3), "uint8"))
    for name, text in SCRIPTS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.parametrize(("line", "expected"), CASES, ids=[line for line, _ in CASES])
def test_bad_input_is_one_sentence(folder: Path, line: str, expected: list[str]) -> None:
    before = listing(folder)
    done = mutoscope(folder, *shlex.split(line), timeout_s=60.0)
    assert done.code == 2, done.describe()
    assert "Traceback" not in done.stdout + done.stderr, done.describe()
    sentences = done.stderr.splitlines()
    if line.endswith(".py") and line != "run nothing.py":
        where, sentences = sentences[:-1], sentences[-1:]
        where = [text for text in where if not text.startswith("the page: ")]
        assert where, "it says where in the program"
        assert all(text.startswith(("    ", '  File "')) for text in where), done.describe()
        assert all(line.split()[1] in text for text in where if "File" in text), done.describe()
    assert len(sentences) == 1, done.describe()
    assert sentences[0].startswith("mutoscope: "), done.describe()
    for words in expected:
        assert any(word in sentences[0] for word in words.split("|")), done.describe()
    assert listing(folder) == before, "something was written"


def test_a_worker_whose_module_is_gone_is_named(tmp_path: Path) -> None:
    """The class was imported from a module that its own process cannot find."""
    (tmp_path / "scope.py").write_text(SCRIPTS["missing_worker.py"].replace("import vanishing", VANISHING), encoding="utf-8")
    done = mutoscope(tmp_path, "run", "scope.py", timeout_s=60.0)
    assert done.code == 2, done.describe()
    assert "Traceback" not in done.stderr, done.describe()
    assert "vanishing" in done.stderr, done.describe()


VANISHING = """
import pathlib
pathlib.Path("vanishing.py").write_text("import mutoscope\\nclass Worker(mutoscope.Worker):\\n    pass\\n")
import vanishing
pathlib.Path("vanishing.py").unlink()
import shutil
shutil.rmtree("__pycache__", ignore_errors=True)
"""


def test_help_and_version_are_no_errors(tmp_path: Path) -> None:
    for words in ([], ["--help"], ["demo", "--help"], ["replay", "--help"], ["bench", "--help"], ["--version"]):
        done = mutoscope(tmp_path, *words)
        assert done.code == 0, done.describe()
        assert done.stdout
        assert "--empty" not in done.stdout, "an option that makes no sense"
        assert "--no-" not in done.stdout


def test_ctrl_c_is_only_told_where_it_is_needed(folder: Path) -> None:
    done = mutoscope(folder, "replay", "grey.tif", "--headless", "--out", "a")
    assert done.code == 0, done.describe()
    assert "Ctrl-C" not in done.stderr, done.describe()


def test_a_replay_that_is_shorter_than_asked_says_so(folder: Path) -> None:
    done = mutoscope(folder, "replay", "grey.tif", "--frames", "9", "--headless", "--out", "a")
    assert done.code == 0, done.describe()
    assert "note      the camera delivered 4 of 9 frames and has no more" in done.stdout, done.describe()


def test_one_camera_of_two_is_replayed(folder: Path) -> None:
    done = mutoscope(folder, "replay", "two.ome.zarr", "--image", "right", "--headless", "--out", "a", "--json")
    assert done.code == 0, done.describe()
    with storage.open_reader(done.last_json["path"]) as reader:
        assert (reader[0] == len("right")).all()
