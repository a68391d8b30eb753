"""SIGKILL of the writer, at named points and at random: what it acknowledged is exact in zarr-python before any repair."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from storage_oracles import READERS, frame_of, zarr_ids
from storage_oracles_frames import FAST

import mutoscope.storage
from mutoscope import storage
from mutoscope.model._faults import VARIABLE
from mutoscope.storage import _layout

CHILD = Path(__file__).with_name("storage_child.py")
SOURCES = Path(mutoscope.storage.__file__).parent
ELSEWHERE = ("storage.aside.", "storage.beside.", "storage.pyramid.", "rows.")
"""Of conversions, of labels and tables, of pyramids, and of a run's tables: their own tests come by there."""
FOUND = {point for p in SOURCES.glob("*.py") for point in re.findall(r'kill_point\("([^"]+)"\)', p.read_text())}
POINTS = sorted(point for point in FOUND if not point.startswith(ELSEWHERE))
LATER = {
    "storage.create.built": (2,),
    "storage.create.beside": (2,),
    "storage.create.placed": (2,),
    "storage.create.hidden": (2,),
    "storage.append.pixels_written": (6, 20),
    "storage.document.written": (2, 5, 9, 14, 20, 26),
    "storage.grow.declared": (3,),
}
PUBLISHED = ("storage.publish.", "storage.append.taken")
"""Where writers of compressed streams alone come by."""
CASES: list[tuple[str, int, str, str]] = [
    (point, nth, "none", "0.5") for point in POINTS if not point.startswith(PUBLISHED) for nth in (1, *LATER.get(point, ()))
]
CASES += [(point, nth, "blosc-lz4", "0.5") for point in POINTS if point.startswith(PUBLISHED) for nth in (1, 4)]
CASES += [(point, 3, "none", "0.4") for point in POINTS if point.startswith("storage.publish.")]
CASES += [
    (f"storage.{name}", 1, "zstd", version)
    for version in ("0.5", "0.4")
    for name in ("close.declared", "close.rows", "image.placed", "grow.chunk_reserved")
]
RANDOM_KILLS = 24


def acknowledged(output: bytes) -> dict[str, dict[int, int]]:
    """Image → position → frame_id of every line that was printed whole."""
    found: dict[str, dict[int, int]] = {}
    for line in output.decode().split("\n")[:-1]:
        words = line.split()
        if len(words) == 3:
            found.setdefault(words[0], {})[int(words[1])] = int(words[2])
    return found


def check(
    path: Path, acks: dict[str, dict[int, int]], reader: str = "zarr-python", compression: str = "none", version: str = "0.5"
) -> dict[str, int]:
    """Judge a data set by what an independent reader finds in it; return image → frames that are written."""
    images = [name for name in [".", "camera.1", "camera.2", "camera.3"] if (path / name / "0").is_dir()]
    assert set(acks) <= set(images)
    written = {}
    for name in images:
        image = path / name
        ids = zarr_ids(image)
        count = int(np.count_nonzero(ids))
        assert not ids[count:].any(), "unwritten frames are marked so, and stand at the end"
        assert np.all(np.diff(ids[:count].astype(np.int64)) > 0), "no duplicates"
        level = zarr.open_group(image, mode="r")["0"]
        assert count <= level.shape[0] <= count + (FAST.frames_per_shard if version == "0.5" else _layout.GROWTH)
        assert level.shape[0] <= ids.size
        own = acks.get(name, {})
        assert all(ids[position] == frame_id for position, frame_id in own.items())
        assert max(own, default=-1) < count
        assert count <= max(own, default=-1) + 2 or not own or (compression, version) != ("none", "0.5"), (
            "stored just before the kill"
        )
        if count:
            pixels = READERS[reader](image, count)
            expected = [frame_of(int(i), level.shape[1:], str(level.dtype)) for i in ids[:count]]
            assert pixels.tobytes() == np.stack(expected).tobytes()
            planes = zarr.open_group(image, mode="r")["frames/t"][:count]
            assert planes.tolist() == ids[:count].tolist()
        written[name] = count
    return written


def run_child(path: Path, compression: str = "none", version: str = "0.5", *, point: str | None = None) -> tuple[int, bytes]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if point:
        environment[VARIABLE] = point
    done = subprocess.run(
        [sys.executable, CHILD, path, "scenario", compression, version],
        env=environment,
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def test_every_named_point_is_known() -> None:
    assert len(POINTS) >= 20


def test_every_named_point_is_reached_by_one_case_at_least() -> None:
    assert {point for point, *_ in CASES} == set(POINTS)


@pytest.mark.parametrize(("point", "nth", "compression", "version"), CASES)
def test_killed_at_a_named_point(tmp_path: Path, point: str, nth: int, compression: str, version: str) -> None:
    form = (compression, version)
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(3, 3), dtype="uint8") as old:
        old.append(np.ones((3, 3), "uint8"))
    code, output = run_child(path, *form, point=f"{point}:{nth}")
    assert code == -signal.SIGKILL, f"{point}:{nth} was not reached"
    if b"created" in output:
        before = check(path, acknowledged(output), "zarr-python", *form)
        report = storage.recover(path)
        assert {image.image: image.frames for image in report.images} == before
        assert check(path, acknowledged(output), "tensorstore", *form) == before
        assert all(zarr.open_group(path / n)["0"].shape[0] == count for n, count in before.items())
        assert all(zarr.open_group(path / n)["frames/frame_id"].shape[0] == count for n, count in before.items())
        assert not storage.recover(path).changed
        assert not list(path.rglob("*.part"))
        last = storage.info(path)["images"][-1]
        with storage.open_image_writer(path, "camera", continue_=True) as writer:
            frame_id = writer.last_frame_id + 1
            assert frame_id > max((i for own in acknowledged(output).values() for i in own.values()), default=0)
            writer.append(frame_of(frame_id, writer.shape, writer.dtype), frame_id=frame_id, index={"t": frame_id})
        assert check(path, acknowledged(output), "zarr-python", *form) == {**before, last["image"]: last["frames"] + 1}
    else:  # killed while the data set was being made: the old one or the new one is there, and the old one's frame is somewhere
        kept = [each for each in (path, *tmp_path.glob("run.replaced*.ome.zarr")) if storage.info(each)["frames"] == 1]
        assert storage.info(path)["frames"] in (0, 1)
        assert kept or (point, nth) == ("storage.create.hidden", 2), "only a replacement that is complete is deleted"
        for each in kept:
            assert zarr.open_group(each, mode="r")["0"][0].tolist() == np.ones((3, 3)).tolist()
    code, output = run_child(path, *form)
    assert (code, output.split()[-1]) == (0, b"done")
    check(path, acknowledged(output), "zarrs", *form)
    assert storage.info(path)["complete"] is True
    assert all(storage.info(each)["frames"] in (0, 1) for each in tmp_path.glob("run.replaced*.ome.zarr"))


@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize("compression", ["none", "blosc-lz4", "zstd"])
def test_killed_at_random_and_gone_on_with(tmp_path: Path, compression: str, version: str) -> None:
    form = (compression, version)
    seed = int(os.environ.get("MUTOSCOPE_SEED", time.time_ns() % 2**32))
    print(f"seed {seed}: repeat with MUTOSCOPE_SEED={seed}")
    rng = random.Random(seed)
    path = tmp_path / "run.ome.zarr"
    acks: dict[int, int] = {}
    kills = RANDOM_KILLS if form == ("none", "0.5") else RANDOM_KILLS // 3
    for kill in range(kills):
        child = subprocess.Popen([sys.executable, CHILD, path, "stream", *form], stdout=subprocess.PIPE)
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
        new = acknowledged(head + rest).get(".", {})
        assert not set(new) & set(acks), f"seed {seed}: a position was acknowledged twice"
        acks.update(new)
        check(path, {".": acks}, tuple(READERS)[kill % 3], *form)
        if kill % 5 == 4:
            storage.recover(path)
            check(path, {".": acks}, "zarr-python", *form)
    assert len(acks) > kills


def test_left_over_folders_of_a_killed_maker_are_removed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, CHILD, tmp_path / "run.ome.zarr", "scenario"],
        env={**os.environ, VARIABLE: "storage.create.built"},
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    storage.create_recording(tmp_path / "run.ome.zarr", {"camera": FAST})
    assert left.exists(), "one that may still be in the making is left alone"
    os.utime(left, (time.time() - 3600, time.time() - 3600))
    storage.create_recording(tmp_path / "run.ome.zarr", {"camera": FAST}, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.ome.zarr"]
