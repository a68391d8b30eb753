"""SIGKILL of processes that fill a plate, and several of them at once: what is acknowledged is whole, nothing half is seen."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr
from plate_child import NAMES, SHAPE
from plate_folders import plane_of, write
from plate_names import place, tensorstore_plane, zarr_plane, zarr_states

from mutoscope import storage
from mutoscope.model import filenames
from mutoscope.model._faults import VARIABLE
from mutoscope.model.errors import DatasetExistsError
from mutoscope.storage._half import half
from mutoscope.storage.plate import import_plate, plate_info

CHILD = Path(__file__).with_name("plate_child.py")
PARSER = filenames.get_parser("imagexpress")
PLACES = {name: place(PARSER, name) for name in NAMES}

POINTS = {
    "storage.create.built": (1,),
    "storage.document.written": (1, 4, 9),
    "storage.plate.image_built": (3,),
    "storage.plate.image_placed": (2,),
    "storage.plate.image_listed": (2,),
    "storage.plate.level_grown": (1, 2),
    "storage.plate.record_made": (1, 2, 5),
    "storage.plate.parts_written": (1, 7),
    "storage.plate.level_placed": (1, 2),
    "storage.plate.name_written": (8,),
    "storage.plate.state_written": (1,),
}
SAVES = [(point, nth) for point, numbers in POINTS.items() for nth in numbers]
BATCHES = [
    ("storage.plate.image_placed", 3),
    ("storage.plate.parts_written", 1),
    ("storage.plate.level_placed", 21),
    ("storage.plate.name_written", 30),
    ("storage.plate.state_written", 18),
]
IMPORTS = [
    ("storage.create.built", 1),
    ("storage.plate.parts_written", 12),
    ("storage.plate.level_placed", 21),
    ("storage.plate.state_written", 18),
    ("storage.plate.import_stored", 30),
]


def start(plate: Path, *words: str, point: str = "") -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if point:
        environment[VARIABLE] = point
    command = [sys.executable, str(CHILD), str(plate), *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stdin=subprocess.PIPE)


def kill_after(child: subprocess.Popen[bytes], seconds: float) -> list[str]:
    """Let the child run for a while from when it is ready, then SIGKILL it; return the lines that it printed whole."""
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    end = time.monotonic() + seconds
    while time.monotonic() < end and child.poll() is None:
        time.sleep(0.001)
    child.kill()
    rest, _ = child.communicate(timeout=30)
    return rest.decode().split("\n")[:-1]


def until_killed(child: subprocess.Popen[bytes]) -> list[str]:
    output, _ = child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL
    return [line for line in output.decode().split("\n")[:-1] if line != "ready"]


def check(plate: Path, acknowledged: set[str]) -> set[str]:
    """Assert that zarr-python finds every acknowledged plane, and no half of any; return the names that are marked stored."""
    if not plate.exists():
        assert not acknowledged
        return set()
    assert isinstance(yaozarrs.validate_zarr_store(str(plate)).ome_metadata(), yaozarrs.v05.Plate)
    listed = {well["path"] for well in zarr.open_group(plate, mode="r").attrs["ome"]["plate"]["wells"]}
    states: dict[str, Any] = {}
    pixels: dict[str, Any] = {}
    stored = set()
    for name, where in PLACES.items():
        image = where.image.path
        if image not in states:
            there = (plate / image / "zarr.json").exists()
            states[image] = zarr_states(plate, image) if there else None
            pixels[image] = zarr.open_array(plate / image / "0", mode="r") if there else None
        marks = states[image]
        inside = marks is not None and all(at < length for at, length in zip(where.tcz, marks.shape, strict=True))
        mark = marks[where.tcz] if inside else 0
        wanted = plane_of(name, SHAPE)
        if mark:
            stored.add(name)
            assert mark == 1
            assert image.rpartition("/")[0] in listed
        if inside and all(at < length for at, length in zip(where.tcz, pixels[image].shape[:3], strict=True)):
            found = pixels[image][where.tcz]
            assert np.array_equal(found, wanted) or (not mark and not found.any()), name
        else:
            assert not mark
    assert acknowledged <= stored
    return stored


def check_whole(plate: Path) -> None:
    """Assert that all planes are there, in all levels, and that nothing half-written lies about."""
    assert check(plate, set(NAMES)) == set(NAMES)
    for name, where in PLACES.items():
        wanted = plane_of(name, SHAPE)
        assert np.array_equal(tensorstore_plane(plate, where), wanted)
        assert np.array_equal(tensorstore_plane(plate, where, 1), half(wanted))
    info = plate_info(plate)
    assert (info["stored"], info["missing"], info["replacing"]) == (len(NAMES), 0, 0)
    assert (plate / "overview" / "0" / "zarr.json").exists()
    with storage.open("ome-zarr", plate, filenames="imagexpress") as store:
        assert sorted(store.list_files(recursive=True)) == sorted(NAMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an ImageXpress with all planes."""
    made = tmp_path_factory.mktemp("imagexpress")
    for name in NAMES:
        write(made / name, plane_of(name, SHAPE))
    return made


@pytest.mark.parametrize(("point", "nth"), SAVES)
def test_a_save_that_is_killed_at_a_named_point(tmp_path: Path, point: str, nth: int) -> None:
    plate = tmp_path / "plate.ome.zarr"
    acknowledged = until_killed(start(plate, "save", str(nth), point=f"{point}:{nth}"))
    stored = check(plate, set(acknowledged))
    assert len(stored) - len(acknowledged) == (point == "storage.plate.state_written")
    with storage.open("ome-zarr", plate, filenames="imagexpress") as store:
        for name in NAMES[: 2 * nth]:
            if name not in stored:
                store.save(plane_of(name, SHAPE), name)
        # What a plane whose writer was killed left behind is in nobody's way.
        assert set(store.list_files(recursive=True)) == stored | set(NAMES[: 2 * nth])
    assert check(plate, stored) == stored | set(NAMES[: 2 * nth])


@pytest.mark.parametrize(("point", "nth"), IMPORTS)
def test_an_import_that_is_killed_at_a_named_point_goes_on(tmp_path: Path, folder: Path, point: str, nth: int) -> None:
    plate = tmp_path / "plate.ome.zarr"
    acknowledged = until_killed(start(plate, "import", str(folder), point=f"{point}:{nth}"))
    stored = check(plate, set(acknowledged))
    report = import_plate(folder, plate)
    assert (report.stored, report.already) == (len(NAMES) - len(stored), len(stored))
    check_whole(plate)
    assert not list(plate.rglob("*.part"))


def test_imports_that_are_killed_at_random_moments_go_on(tmp_path: Path, folder: Path) -> None:
    seed = int(os.environ.get("MUTOSCOPE_SEED", time.time_ns() % 2**32))
    print(f"seed {seed}: repeat with MUTOSCOPE_SEED={seed}")
    rng = random.Random(seed)
    kills = 0
    for turn in range(30):
        plate = tmp_path / f"{turn}.ome.zarr"
        acknowledged: set[str] = set()
        for _ in range(4):
            acknowledged |= set(kill_after(start(plate, "import", str(folder)), rng.uniform(0.0, 0.1)))
            kills += 1
            acknowledged |= check(plate, acknowledged)
            if len(acknowledged) == len(NAMES):
                break
        report = import_plate(folder, plate)
        assert report.already == len(acknowledged)
        check_whole(plate)
        if kills >= 20:
            break
    assert kills >= 20


def test_saves_that_are_killed_at_random_moments(tmp_path: Path) -> None:
    seed = int(os.environ.get("MUTOSCOPE_SEED", time.time_ns() % 2**32))
    print(f"seed {seed}: repeat with MUTOSCOPE_SEED={seed}")
    rng = random.Random(seed)
    plate, acknowledged = tmp_path / "plate.ome.zarr", set[str]()
    for turn in range(20):
        acknowledged |= set(kill_after(start(plate, "save", str(turn)), rng.uniform(0.0, 0.06)))
        check(plate, acknowledged)
    with storage.open("ome-zarr", plate, filenames="imagexpress") as store:
        for name in NAMES:
            if not store.exists(name):
                store.save(plane_of(name, SHAPE), name)
    check_whole(plate)


@pytest.mark.parametrize(("point", "nth"), BATCHES)
def test_a_batch_that_is_killed_at_a_named_point_goes_on(tmp_path: Path, point: str, nth: int) -> None:
    plate = tmp_path / "plate.ome.zarr"
    assert until_killed(start(plate, "batch", str(nth), point=f"{point}:{nth}")) == []
    stored = check(plate, set())
    again = start(plate, "batch", "1")
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0
    assert set(output.decode().split("\n")[1:-1]) == set(NAMES) - stored
    check_whole(plate)


def test_batches_that_are_killed_at_random_moments_go_on(tmp_path: Path) -> None:
    seed = int(os.environ.get("MUTOSCOPE_SEED", time.time_ns() % 2**32))
    print(f"seed {seed}: repeat with MUTOSCOPE_SEED={seed}")
    rng = random.Random(seed)
    stored: set[str] = set()
    plate = tmp_path / "plate.ome.zarr"
    for turn in range(8):
        stored |= set(kill_after(start(plate, "batch", str(turn)), rng.uniform(0.0, 0.04)))
        stored = check(plate, stored)
    with storage.open("ome-zarr", plate, filenames="imagexpress") as store:
        names = [name for name in NAMES if name not in stored]
        store.save_batch([plane_of(name, SHAPE) for name in names], names)
    check_whole(plate)


@pytest.mark.parametrize(
    "point", ["", "storage.plate.parts_written", "storage.plate.level_placed", "storage.plate.name_written"]
)
def test_a_plane_that_is_replaced_is_the_old_or_the_new_one(tmp_path: Path, point: str) -> None:
    plate = tmp_path / "plate.ome.zarr"
    rng = random.Random(7)
    begin, last = 0, dict[str, int]()
    for turn in range(3):
        child = start(plate, "replace", str(begin), point=f"{point}:{5 + turn}" if point else "")
        lines = until_killed(child) if point else kill_after(child, rng.uniform(0.0, 0.1))
        last.update({line.split(" ")[0]: int(line.split(" ")[1]) for line in lines})
        begin = max(last.values(), default=begin - 1) + 1
        for name in NAMES[:3]:
            if name in last:
                found = zarr_plane(plate, PLACES[name])
                new = [last[name], *([begin] if NAMES[begin % 3] == name else [])]
                old = [np.array_equal(found, plane_of(f"{name} {number}", SHAPE)) for number in new]
                assert any(old), name
                assert zarr_states(plate, PLACES[name].image.path)[PLACES[name].tcz] in (1, 2)
    with storage.open("ome-zarr", plate, filenames="imagexpress", overwrite=True) as store:
        for name in NAMES[:3]:
            store.save(plane_of(name, SHAPE), name)
    for name in NAMES[:3]:
        assert np.array_equal(zarr_plane(plate, PLACES[name], 1), half(plane_of(name, SHAPE)))
        assert zarr_states(plate, PLACES[name].image.path)[PLACES[name].tcz] == 1


def together(plate: Path, what: str, count: int) -> list[list[str]]:
    """Run children that begin at one moment; return what each printed."""
    children = [start(plate, what, str(who)) for who in range(count)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=120)[0].decode().split("\n")[:-1] for child in children]
    assert [child.returncode for child in children] == [0] * count
    return outputs


def test_four_processes_fill_one_plate_in_any_order(tmp_path: Path) -> None:
    plate = tmp_path / "plate.ome.zarr"
    assert together(plate, "share", 4) == [["done"]] * 4
    check_whole(plate)
    assert not list(plate.rglob("*.part"))


def test_two_imports_of_one_folder_fill_one_plate(tmp_path: Path, folder: Path) -> None:
    plate = tmp_path / "plate.ome.zarr"
    children = [start(plate, "import", str(folder)) for _ in range(2)]
    outputs = [child.communicate(timeout=120)[0].decode().split("\n")[1:-1] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert [sorted(output) for output in outputs] == [sorted(NAMES)] * 2
    check_whole(plate)
    report = import_plate(folder, plate)
    assert (report.already, report.lost) == (len(NAMES), ())


def test_a_plate_whose_writer_was_killed_can_be_made_anew(tmp_path: Path, folder: Path) -> None:
    plate = tmp_path / "plate.ome.zarr"
    for point in ("storage.plate.image_built:3", "storage.plate.parts_written:9"):
        until_killed(start(plate, "save", "1", point=point))
    assert list(plate.rglob("*.part"))
    report = import_plate(folder, plate, overwrite=True)
    assert (report.stored, report.already) == (len(NAMES), 0)
    check_whole(plate)
    assert not list(tmp_path.rglob("*.part"))


def test_of_two_writers_of_one_plane_one_wins_and_the_other_is_told(tmp_path: Path) -> None:
    plate = tmp_path / "plate.ome.zarr"
    outputs = together(plate, "race", 2)
    for name, where in PLACES.items():
        winners = [who for who in range(2) if f"won {name}" in outputs[who]]
        losers = [who for who in range(2) if f"told {name}" in outputs[who]]
        assert (len(winners), len(losers)) == (1, 1)
        wanted = plane_of(f"{name} {winners[0]}", SHAPE)
        assert np.array_equal(zarr_plane(plate, where), wanted)
        assert np.array_equal(zarr_plane(plate, where, 1), half(wanted))


def test_a_plane_that_is_being_written_is_refused_to_others(tmp_path: Path) -> None:
    name, other = NAMES[0], NAMES[1]
    with storage.open("ome-zarr", tmp_path / "a.zarr", filenames="imagexpress", overwrite=True) as store:
        store.save(plane_of("1", SHAPE), name)
        image = store.plate.image(PLACES[name].image)  # type: ignore[attr-defined]
        with image.claimed(PLACES[name].tcz, name):
            with storage.open("ome-zarr", tmp_path / "a.zarr", filenames="imagexpress", overwrite=True) as second:
                for each in (store, second):
                    with pytest.raises(DatasetExistsError, match="another writer at this moment"):
                        each.save(plane_of("2", SHAPE), name)
                second.save(plane_of("3", SHAPE), other)
        assert np.array_equal(store.load(name), plane_of("1", SHAPE))
        store.save(plane_of("2", SHAPE), name)
        assert np.array_equal(store.load(name), plane_of("2", SHAPE))


def test_readers_see_whole_planes_while_they_are_replaced(tmp_path: Path) -> None:
    plate = tmp_path / "plate.ome.zarr"
    children = [start(plate, "replace", "0"), start(plate, "replace", "1")]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    where, name = PLACES[NAMES[0]], NAMES[0]
    seen: set[bytes] = set()
    end = time.monotonic() + 10
    while len(seen) < 5 and time.monotonic() < end:
        if (plate / where.image.path / "planes/state/c.0.0.0").exists() and zarr_states(plate, where.image.path)[where.tcz]:
            seen.add(zarr_plane(plate, where).tobytes())
    for child in children:
        child.kill()
        child.communicate(timeout=30)
    assert len(seen) >= 2
    assert seen <= {plane_of(f"{name} {number}", SHAPE).tobytes() for number in range(0, 3000, 3)}
