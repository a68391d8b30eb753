"""``mutoscope plate import`` and what the page on plates has people type."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest
from plate_folders import imagexpress, plane_of, write
from plate_names import place, zarr_plane

from command_line import MUTOSCOPE, mutoscope, typed
from mutoscope.model import filenames

PAGE = Path(__file__).resolve().parents[3] / "docs" / "plates.md"


def typed_lines() -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("mutoscope ")]


def test_the_page_can_be_typed_from_top_to_bottom(tmp_path: Path) -> None:
    planes = {f"x_B02_s1_w{wave}_z{z}.tif": plane_of(f"{wave}{z}") for wave in (1, 2) for z in (1, 2)}
    for name, plane in planes.items():
        write(tmp_path / "measurement" / name, plane)
    lines = typed_lines()
    assert len(lines) >= 6
    for line in lines:
        done = mutoscope(tmp_path, *shlex.split(line)[1:])
        assert done.code == 0, done.describe()
    for plate in ("screen.ome.zarr", "small.ome.zarr"):
        for name, plane in planes.items():
            assert np.array_equal(zarr_plane(tmp_path / plate, place(filenames.get_parser("imagexpress"), name)), plane)


def test_an_import_and_its_report(tmp_path: Path) -> None:
    planes = imagexpress(tmp_path / "in")
    done = mutoscope(tmp_path, "plate", "import", "in", "--filenames", "imagexpress", "out.ome.zarr", "--json")
    assert done.code == 1, "a file of another plate is among them"
    assert (done.last_json["stored"], done.last_json["already"]) == (len(planes), 0)
    assert {each["reason"] for each in done.last_json["skipped"]} == {"thumbnail", "metadata", "unknown name", "other plate"}
    assert "other_B02_s1_w1.TIF: other plate" in done.stdout
    told = mutoscope(tmp_path, "info", "out.ome.zarr", "--json")
    assert told.code == 0, told.describe()
    assert (told.last_json["stored"], told.last_json["missing"]) == (len(planes), 12)
    assert [well["well"] for well in told.last_json["wells"]] == ["B02", "C03"]
    lines = mutoscope(tmp_path, "info", "out.ome.zarr").stdout
    assert "c 2 (DAPI, Texas Red)" in lines
    assert "12 missing" in lines


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("plate import", ["FOLDER"]),
        ("plate import in", ["OUT"]),
        ("plate import nowhere out.ome.zarr", ["nowhere"]),
        ("plate import notes.txt out.ome.zarr", ["notes.txt", "folder"]),
        ("plate import empty out.ome.zarr", ["empty", "0 files"]),
        ("plate import in out.ome.zarr --filenames imagexpres", ["imagexpres", "did you mean 'imagexpress'"]),
        ("plate import in out.ome.zarr --filenames opera_phenix", ["none of its 1 files", "opera_phenix"]),
        ("plate import in out.ome.zarr --wells 95", ["95"]),
        ("plate import in out.ome.zarr --compression lzma", ["lzma", "zstd"]),
        ("plate import in notes.txt", ["notes.txt", "no plate"]),
        ("plate import in in", ["made from"]),
        ("plate import in full --overwrite", ["not overwritten"]),
        ("plate imprt in out.ome.zarr", ["imprt"]),
        ("info full", ["full"]),
    ],
)
def test_what_cannot_be_is_one_sentence(tmp_path: Path, line: str, words: list[str]) -> None:
    write(tmp_path / "in/x_B02_s1_w1.tif", plane_of("a"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    for notes in (tmp_path / "notes.txt", tmp_path / "full/notes.txt"):
        notes.write_text("not an image\n", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    done = mutoscope(tmp_path, *line.split())
    assert done.code == 2, done.describe()
    assert "Traceback" not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1, done.describe()
    for word in words:
        assert word in done.stderr, done.describe()
    assert sorted(tmp_path.rglob("*")) == before


def test_ctrl_c_ends_an_import_and_the_next_one_goes_on(tmp_path: Path) -> None:
    names = [f"x_B02_s{site}_w1.tif" for site in range(1, 80)]
    for name in names:
        write(tmp_path / "in" / name, plane_of(name, (600, 500)))
    with typed(tmp_path, [*MUTOSCOPE, "plate", "import", "in", "out.ome.zarr"]) as running:
        stored = tmp_path / "out.ome.zarr/B/02/3/0/c"
        running.wait_until(stored.exists)
        running.process.send_signal(signal.SIGINT)
        running.wait()
    assert running.code == 130, running.describe()
    assert "Traceback" not in running.stderr
    done = mutoscope(tmp_path, "plate", "import", "in", "out.ome.zarr", "--json")
    assert done.code == 0, done.describe()
    assert done.last_json["already"] >= 1
    assert done.last_json["already"] + done.last_json["stored"] == len(names)
    assert done.last_json["missing"] == 0


def test_a_terminal_shows_progress(tmp_path: Path) -> None:
    write(tmp_path / "in/x_B02_s1_w1.tif", plane_of("a"))
    ours, theirs = pty.openpty()
    try:
        with typed(tmp_path, [*MUTOSCOPE, "plate", "import", "in", "out.ome.zarr"], stderr=theirs) as running:
            running.wait()
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux says so when the other end is closed
                break
            if not piece:
                break
            shown += piece
    finally:
        os.close(ours)
    assert running.code == 0, running.describe()
    assert b"1/1" in shown
    assert "1 planes stored" in running.stdout
