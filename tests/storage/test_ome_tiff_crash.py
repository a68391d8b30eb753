"""SIGKILL of an OME-TIFF writer, at named points and at random: what it acknowledged is exact in tifffile before any repair."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ome_tiff_oracles import check_frames, page_count
from storage_oracles_frames import frame_of

import mutoscope.storage.ome_tiff
from mutoscope import storage
from mutoscope.model._faults import VARIABLE

CHILD = Path(__file__).with_name("ome_tiff_child.py")
SOURCES = Path(mutoscope.storage.ome_tiff.__file__).parent
POINTS = sorted({point for p in SOURCES.glob("*.py") for point in re.findall(r'kill_point\("([^"]+)"\)', p.read_text())})
IN_SCENARIO = [point for point in POINTS if point not in ("tiff.recover.linked", "tiff.overwrite.put_back")]
LATER = {"tiff.document.written": (2, 3, 4), "tiff.create.written": (2,), "tiff.append.linked": (5,), "tiff.close.placed": (3,)}
CASES = [(point, nth, "none") for point in IN_SCENARIO for nth in (1, *LATER.get(point, ()))]
CASES += [(point, 2, "zstd") for point in IN_SCENARIO if point.startswith("tiff.append.")]
RANDOM_KILLS = 24
SHAPE = (24, 40)


def acknowledged(output: bytes) -> dict[int, list[int]]:
    """Position → ids of every line that was printed whole."""
    found: dict[int, list[int]] = {}
    for line in output.decode().split("\n")[:-1]:
        words = line.split()
        if len(words) == 3:
            found.setdefault(int(words[0]), []).append(int(words[2]))
    return found


def file_of(path: Path, position: int) -> Path:
    return path if position == 0 else path.with_name(f"run.p{position}.ome.tiff")


def check(path: Path, acks: dict[int, list[int]]) -> dict[int, list[int]]:
    """Judge the files by what tifffile finds in them; return position → ids."""
    found = {}
    for position in (0, 1):
        own = acks.get(position, [])
        file = file_of(path, position)
        if not file.exists():
            assert not own
            continue
        ids = check_frames(file, dict(enumerate(own)))
        assert len(own) <= len(ids) <= len(own) + 1, "at most the frame whose acknowledgement was cut off"
        found[position] = ids
    return found


def run_child(path: Path, mode: str, compression: str, *, point: str | None = None) -> tuple[int, bytes]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if point:
        environment[VARIABLE] = point
    command = [sys.executable, CHILD, path, mode, compression]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=60, check=False)
    return done.returncode, done.stdout


def test_every_named_point_is_known() -> None:
    assert len(POINTS) >= 15


@pytest.mark.parametrize(("point", "nth", "compression"), CASES)
def test_killed_at_a_named_point(tmp_path: Path, point: str, nth: int, compression: str) -> None:
    path = tmp_path / "run.ome.tiff"
    with storage.open_writer(path, shape=(3, 3), dtype="uint8") as old:
        old.append(frame_of(1, (3, 3), "uint8"))
        old.append(frame_of(2, (3, 3), "uint8"), index={"position": 1})
    code, output = run_child(path, "scenario", compression, point=f"{point}:{nth}")
    assert code == -signal.SIGKILL, f"{point}:{nth} was not reached"
    if b"created" in output:
        found = check(path, acknowledged(output))
        before = sorted(i for ids in found.values() for i in ids)
        with storage.open_reader(path) as reader:
            assert reader.frame_ids.tolist() == before
        report = storage.recover(path)
        after = check(path, acknowledged(output))
        assert {image.image: image.frames for image in report.images} == {
            file_of(path, position).name: len(ids) for position, ids in after.items()
        }
        assert not any(image.doubtful for image in report.images)
        assert all(after[position][: len(ids)] == ids for position, ids in found.items()), "recover takes nothing away"
        assert not storage.recover(path).changed
        assert {entry.name for entry in tmp_path.iterdir()} == {
            path.with_name("run.ome.tiff.json").name,
            *(file_of(path, position).name for position in after),
        }
        with storage.open_writer(path, shape=SHAPE, dtype="uint16", compression=compression, resume=True) as writer:
            frame_id = writer.last_frame_id + 1
            assert frame_id > max(before, default=0)
            writer.append(frame_of(frame_id, SHAPE), frame_id=frame_id)
        assert check_frames(path)[-1] == frame_id
    code, output = run_child(path, "scenario", compression)
    assert (code, output.split()[-1]) == (0, b"done")
    assert check(path, acknowledged(output)) == acknowledged(output)
    assert storage.info(path)["complete"] is True


def test_killed_while_a_lost_page_is_linked_again(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.tiff"
    code, output = run_child(path, "scenario", "none", point="tiff.append.page_written:3")
    assert code == -signal.SIGKILL
    before = check(path, acknowledged(output))
    code, _ = run_child(path, "stream", "none", point="tiff.recover.linked")
    assert code == -signal.SIGKILL
    after = check(path, acknowledged(output))
    assert sum(map(len, after.values())) == sum(map(len, before.values())) + 1
    assert storage.recover(path).changed
    assert check(path, acknowledged(output)) == after


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_killed_at_random_and_gone_on_with(tmp_path: Path, compression: str) -> None:
    seed = int(os.environ.get("MUTOSCOPE_SEED", time.time_ns() % 2**32))
    print(f"seed {seed}: repeat with MUTOSCOPE_SEED={seed}")
    rng = random.Random(seed)
    path = tmp_path / "run.ome.tiff"
    acks: list[int] = []
    for kill in range(RANDOM_KILLS if compression == "none" else RANDOM_KILLS // 3):
        before = page_count(path)
        child = subprocess.Popen([sys.executable, CHILD, path, "stream", compression], stdout=subprocess.PIPE)
        assert child.stdout is not None
        head = child.stdout.readline()
        assert head == b"ready\n"
        for _ in range(rng.randrange(12)):  # reading paces the kill: after some acknowledgements, at any instant then
            head += child.stdout.readline()
        deadline = time.monotonic() + rng.random() * 0.002
        while time.monotonic() < deadline:
            pass
        child.kill()
        rest = child.stdout.read()
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        new = acknowledged(head + rest).get(0, [])
        assert not set(new) & set(acks), f"seed {seed}: an id was acknowledged twice"
        acks += new
        ids = check_frames(path) if path.exists() else []
        assert set(acks) <= set(ids), f"seed {seed}"
        assert before + len(new) <= len(ids) <= before + len(new) + 2  # a page linked again, and one not acknowledged
        if kill % 5 == 4:
            storage.recover(path)
            assert set(acks) <= set(check_frames(path))
    assert len(acks) > 20


OVERWRITING = ["tiff.overwrite.moved:1", "tiff.overwrite.moved:2", "tiff.overwrite.aside:1", "tiff.document.written:1"]
OVERWRITING += ["tiff.overwrite.removed:1", "tiff.overwrite.removed:2"]


@pytest.mark.parametrize("point", OVERWRITING)
def test_killed_while_it_replaces_a_data_set(tmp_path: Path, point: str) -> None:
    """The old one is whole in its place, or beside it, until the new one stands there."""
    path = tmp_path / "run.ome.tiff"
    old, _ = run_child(path, "scenario", "none")
    assert old == 0
    before = {position: check_frames(file_of(path, position)) for position in (0, 1)}
    code, output = run_child(path, "scenario", "none", point=point)
    assert code == -signal.SIGKILL
    assert b"created" not in output
    kept = tmp_path / "run.replaced.ome.tiff"
    if "tiff.overwrite.moved" in point:
        assert "took back what was about to be replaced" in storage.recover(path).actions
        assert {position: check_frames(file_of(path, position)) for position in (0, 1)} == before
        assert not storage.recover(path).changed
        assert not list(tmp_path.glob("run.replaced*"))
    elif "removed" in point:
        with storage.open_reader(path) as reader:
            assert len(reader) == 0
    else:
        with storage.open_reader(kept) as reader:
            assert len(reader) == sum(map(len, before.values()))
    code, output = run_child(path, "scenario", "none")
    assert code == 0
    assert check(path, acknowledged(output)) == acknowledged(output)


@pytest.mark.parametrize("point", ["tiff.overwrite.aside:1", "tiff.overwrite.put_back:1", None])
def test_killed_while_a_replaced_data_set_is_put_back(tmp_path: Path, point: str | None) -> None:
    path = tmp_path / "run.ome.tiff"
    assert run_child(path, "scenario", "none")[0] == 0
    before = {position: check_frames(file_of(path, position)) for position in (0, 1)}
    code, output = run_child(path, "put_back", "none", point=point) if point else run_child(path, "put_back", "none")
    assert code == (-signal.SIGKILL if point else 0)
    if point == "tiff.overwrite.aside:1":
        with storage.open_reader(tmp_path / "run.replaced.ome.tiff") as reader:
            assert len(reader) == sum(map(len, before.values()))
        return
    assert b"created" in output
    storage.recover(path)
    assert {position: check_frames(file_of(path, position)) for position in (0, 1)} == before
    assert not list(tmp_path.glob("run.replaced*"))
