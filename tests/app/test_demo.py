"""The demonstration and the replay as a person runs them: to their length, until Ctrl-C, onto a full disk, in a terminal."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from command_line import MUTOSCOPE, Typed, mutoscope, run, typed
from external_inputs import external_data_folder

SMALL = ["--shape", "64", "64", "--headless", "--json"]


def stored_ids(path: str | Path) -> np.ndarray:
    """Read with a stock reader which frames are stored."""
    ids = zarr.open_array(Path(path) / "frames" / "frame_id", mode="r")[:]
    return ids[ids > 0]


def dataset_started(folder: Path) -> bool:
    """Whether a data set in `folder` has its first frames."""
    found = [path for pattern in ("", "mutoscope-data/*/") for path in folder.glob(f"{pattern}run.ome.zarr")]
    if not found or not (found[0] / "frames" / "frame_id").exists():
        return False
    return len(stored_ids(found[0])) > 5


def test_a_number_of_frames(tmp_path: Path) -> None:
    done = mutoscope(tmp_path, "demo", "--frames", "300", "--headless", "--json")
    assert done.code == 0, done.describe()
    summary = done.last_json
    assert summary["produced"] == summary["stored"] + sum(summary["dropped"].values())
    assert (summary["produced"], summary["stored"], summary["pending"], summary["restarts"]) == (300, 300, 0, 0)
    assert summary["exact"]
    assert summary["exit_reason"] == "finished"
    assert summary["rate_hz"] == pytest.approx(100, rel=0.2)
    path = Path(summary["path"])
    assert path.parents[2] == tmp_path
    assert re.fullmatch(r"\d{8}T\d{6}Z", path.parent.name)
    assert stored_ids(path).tolist() == list(range(1, 301))
    assert zarr.open_array(path / "0", mode="r").shape == (300, 512, 512)
    assert (path.parent / "run.mutoscope" / "ledger.json").is_file()


def test_a_number_of_seconds_to_a_named_place_twice(tmp_path: Path) -> None:
    words = ["demo", "--seconds", "0.5", "--out", "here", *SMALL]
    assert mutoscope(tmp_path, *words).code == 0
    refused = mutoscope(tmp_path, *words)
    assert refused.code == 2
    assert "--overwrite" in refused.stderr
    done = mutoscope(tmp_path, *words, "--overwrite")
    assert done.code == 0, done.describe()
    assert done.last_json["path"] == str(tmp_path / "here" / "run.ome.zarr")
    assert stored_ids(done.last_json["path"]).tolist() == list(range(1, done.last_json["stored"] + 1))


def test_ctrl_c_once_ends_in_order(tmp_path: Path) -> None:
    with typed(tmp_path, [*MUTOSCOPE, "demo", *SMALL]) as running:
        running.wait_until(lambda: dataset_started(tmp_path))
        running.process.send_signal(signal.SIGINT)
        running.wait(20.0)
        assert running.code == 0, running.describe()
        summary = running.last_json
    assert summary["stored"] == summary["produced"] > 0
    assert summary["pending"] == 0
    assert summary["exact"]
    assert len(stored_ids(summary["path"])) == summary["stored"]


def test_ctrl_c_of_the_terminal_reaches_every_process_and_still_ends_in_order(tmp_path: Path) -> None:
    """The terminal signals the whole foreground group; only the program acts on it."""
    with typed(tmp_path, [*MUTOSCOPE, "demo", *SMALL], process_group=0) as running:
        running.wait_until(lambda: dataset_started(tmp_path))
        os.killpg(running.process.pid, signal.SIGINT)
        running.wait(20.0)
        assert running.code == 0, running.describe()
        assert running.last_json["stored"] == running.last_json["produced"] > 0


def test_ctrl_c_during_the_start_is_an_orderly_end_too(tmp_path: Path) -> None:
    with typed(tmp_path, [*MUTOSCOPE, "demo", *SMALL]) as running:
        running.wait_until(lambda: any("supervisor" in text for text in running.descendants().values()))
        running.process.send_signal(signal.SIGINT)
        running.wait(20.0)
        assert running.code == 0, running.describe()
        assert running.last_json["exact"]


HANGS_ON_STOP = """
import time
import mutoscope as ms

class Stubborn(ms.Worker):
    def teardown(self):
        open("tearing-down", "w").close()
        time.sleep(60)

if __name__ == "__main__":
    from mutoscope.app import session
    scope = ms.Scope(
        camera=ms.cameras.SimulatedCamera(shape=(64, 64)), workers=[Stubborn], record="run.ome.zarr"
    )
    summary = session.record(scope, frames=None, seconds=None, display=None, announce=print)
    print(summary.stored, summary.pending, summary.exact)
"""


@pytest.mark.alone
def test_ctrl_c_twice_ends_now(tmp_path: Path) -> None:
    """One worker does not end when asked; the second Ctrl-C does not wait for it."""
    (tmp_path / "program.py").write_text(HANGS_ON_STOP, encoding="utf-8")
    with typed(tmp_path, [sys.executable, "program.py"]) as running:
        running.wait_until(lambda: dataset_started(tmp_path))
        running.process.send_signal(signal.SIGINT)
        running.wait_until((tmp_path / "tearing-down").exists)
        running.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        running.wait(15.0)
        assert running.code == 0, running.describe()
        assert time.monotonic() - began < 10.0
    stored, pending, exact = running.stdout.split()[-3:]
    assert (int(pending), exact) == (0, "True")
    assert len(stored_ids(tmp_path / "run.ome.zarr")) == int(stored)


def test_sigterm_ends_in_order(tmp_path: Path) -> None:
    with typed(tmp_path, [*MUTOSCOPE, "demo", *SMALL]) as running:
        running.wait_until(lambda: dataset_started(tmp_path))
        running.process.terminate()
        running.wait(20.0)
        assert running.code == 0, running.describe()


def test_a_killed_recorder_is_in_the_summary(tmp_path: Path) -> None:
    with typed(tmp_path, [*MUTOSCOPE, "demo", "--frames", "400", *SMALL]) as running:
        running.wait_until(lambda: dataset_started(tmp_path))
        pid = next(pid for pid, text in running.descendants().items() if "recorder" in text)
        os.kill(pid, signal.SIGKILL)
        running.wait(60.0)
    assert running.code == 0, running.describe()
    summary = running.last_json
    assert summary["restarts"] == 1
    assert summary["restarts_by_worker"] == {"recorder": 1}
    assert summary["exact"]
    assert len(stored_ids(summary["path"])) == summary["stored"] == summary["produced"] == 400


# -- a full disk

ON_A_SMALL_DISK = """
set -e
mkdir disk
mount -t tmpfs -o size=$1 mutoscope-test disk
shift
"$@" || echo "exit code $?"
cp -r disk copy
"""


def on_a_small_disk(folder: Path, size: str, *command: str) -> Typed:
    """Run a command in a mount namespace where ``disk`` is a small tmpfs; what it holds at the end is in ``copy``."""
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no mount namespace, so no small disk can be made")
    return run(folder, *namespace, "bash", "-c", ON_A_SMALL_DISK, "bash", size, *command)


def test_a_disk_that_becomes_full_is_named_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(FILLS_THE_DISK, encoding="utf-8")
    done = on_a_small_disk(tmp_path, "24m", *MUTOSCOPE, "run", "--headless", "--json", "program.py")
    assert "exit code 1" in done.stdout, done.describe()
    summary = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    assert "disk_full" in summary, done.describe()
    found = re.search(r"acknowledged (\d+)", done.stdout)
    assert found is not None, done.describe()
    assert len(stored_ids(tmp_path / "copy" / "run.ome.zarr")) == int(found[1]) > 0
    assert "Traceback" not in done.stderr, done.describe()


FILLS_THE_DISK = """
import mutoscope as ms

if __name__ == "__main__":
    camera = ms.cameras.SimulatedCamera(shape=(256, 256), rate_hz=200.0)
    scope = ms.Scope(camera=camera, record="disk/run.ome.zarr", reserve_bytes=0)
    try:
        with scope:
            scope.acquire()
    finally:
        print("acknowledged", scope.ledger.stored)
"""


def test_a_run_that_reaches_the_reserve_ends_in_order(tmp_path: Path) -> None:
    done = on_a_small_disk(tmp_path, "64m", *MUTOSCOPE, "demo", *SMALL, "--out", "disk/data")
    assert "exit code 1" in done.stdout, done.describe()
    assert "reserve" in done.stdout, done.describe()
    assert "Traceback" not in done.stderr, done.describe()


def test_a_run_that_cannot_fit_is_refused_before_it_starts(tmp_path: Path) -> None:
    done = on_a_small_disk(tmp_path, "400m", *MUTOSCOPE, "demo", "--frames", "100000", *SMALL, "--out", "disk/data")
    assert "exit code 2" in done.stdout, done.describe()
    assert "100,000 frames" in done.stderr, done.describe()
    assert not list((tmp_path / "copy").iterdir()), "nothing was made"


def test_an_overwrite_counts_what_it_gives_back_and_a_refused_one_costs_nothing(tmp_path: Path) -> None:
    script = """
    set -e
    mutoscope demo --shape 256 256 --rate-hz 200 --frames 600 --headless --out disk/data
    mutoscope demo --shape 256 256 --rate-hz 200 --frames 99999999 --headless --out disk/data --overwrite || echo "code $?"
    mutoscope demo --shape 256 256 --rate-hz 200 --frames 610 --headless --out disk/data --overwrite
    """
    done = on_a_small_disk(tmp_path, "390m", "bash", "-c", script)
    assert "code 2" in done.stdout, done.describe()
    assert "exit code" not in done.stdout, done.describe()
    assert len(stored_ids(tmp_path / "copy" / "data" / "run.ome.zarr")) == 610


# -- replay


def test_a_replay_is_bit_exact(tmp_path: Path) -> None:
    images = np.random.default_rng(seed=5).integers(0, 65535, size=(30, 40, 56), dtype="uint16")
    tifffile.imwrite(tmp_path / "stack.tif", images, photometric="minisblack")
    done = mutoscope(tmp_path, "replay", "stack.tif", "--rate-hz", "100", "--headless", "--json")
    assert done.code == 0, done.describe()
    assert done.last_json["exit_reason"] == "finished"
    assert (zarr.open_array(Path(done.last_json["path"]) / "0", mode="r")[:] == images).all()


def test_a_replay_loops_to_its_length(tmp_path: Path) -> None:
    images = np.arange(3 * 8 * 8, dtype="uint8").reshape(3, 8, 8)
    tifffile.imwrite(tmp_path / "stack.tif", images, photometric="minisblack")
    done = mutoscope(tmp_path, "replay", "stack.tif", "--rate-hz", "100", "--loop", "--frames", "10", "--headless", "--json")
    assert done.code == 0, done.describe()
    stored = zarr.open_array(Path(done.last_json["path"]) / "0", mode="r")[:]
    assert (stored == images[np.arange(10) % 3]).all()


REAL = {
    "cells/Fluo_Hela_02_img.tif": ([], (20, 700, 1100)),
    "particles/bulk_water_000-019": (["--colour", "green"], None),
}


@pytest.mark.external_data
@pytest.mark.parametrize("name", REAL)
def test_real_inputs_are_recorded_bit_exactly(tmp_path: Path, external_data: Path, name: str) -> None:
    options, shape = REAL[name]
    source = external_data / name
    done = mutoscope(tmp_path, "replay", str(source), "--rate-hz", "50", *options, "--headless", "--json")
    assert done.code == 0, done.describe()
    summary = done.last_json
    assert summary["stored"] == 20
    assert summary["dropped"] == {}
    stored = zarr.open_array(Path(summary["path"]) / "0", mode="r")[:]
    if source.is_dir():
        import imageio.v3 as imageio

        expected = np.stack([imageio.imread(path)[..., 1] for path in sorted(source.glob("*.png"))])
        assert "green" in " ".join(summary["notes"])
    else:
        expected = tifffile.imread(source)
        assert expected.shape == shape
    assert stored.dtype == expected.dtype
    assert (stored == expected).all()


def test_real_inputs_are_where_they_are_looked_for() -> None:
    folder = external_data_folder()
    if folder is not None:
        assert all((folder / name).exists() for name in REAL)


# -- in a terminal


def in_a_terminal(folder: Path, *command: str) -> tuple[Typed, str]:
    """Run a command whose output is a terminal; returns it and what the terminal saw."""
    master, slave = pty.openpty()
    seen = b""
    try:
        with typed(folder, command, stdin=slave, stdout=slave, stderr=slave) as running:
            os.close(slave)
            while True:
                try:
                    piece = os.read(master, 65536)
                except OSError:  # the last process that had the terminal is gone
                    break
                if not piece:
                    break
                seen += piece
            running.wait(30.0)
    finally:
        os.close(master)
    return running, seen.decode()


def test_the_terminal_shows_progress_rates_workers_and_losses(tmp_path: Path) -> None:
    environment = ["env", "TERM=xterm-256color", "COLUMNS=140", "LINES=40"]
    running, seen = in_a_terminal(tmp_path, *environment, *MUTOSCOPE, "demo", "--frames", "120", "--shape", "64", "64")
    assert running.code == 0, seen
    for words in ("mutoscope demo", "of 120 frames", "recorder", "SpotCounter", "missed ", "running", "Hz", "ring"):
        assert words in seen, seen
    assert "stored    120" in seen
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l"), "the cursor was not given back"
