"""SIGKILL of a process that saves: what it acknowledged is whole for readers from elsewhere, nothing half-written is seen."""

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
from backend_child import SUFFIXES, item_of

from mutoscope import storage
from mutoscope.model._faults import VARIABLE
from mutoscope.model.errors import DatasetExistsError
from mutoscope.storage import _folder
from mutoscope.storage.suite import image_of, read_file_independently

CHILD = Path(__file__).with_name("backend_child.py")
RANDOM_KILLS = 20


def start(folder: Path, *words: str, point: str = "") -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if point:
        environment[VARIABLE] = point
    command = [sys.executable, str(CHILD), str(folder), *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stdin=subprocess.PIPE)


def kill_after(child: subprocess.Popen[bytes], seconds: float) -> bytes:
    """Let the child run for a while from when it is ready, then SIGKILL it; return what it printed."""
    assert child.stdout is not None
    output = child.stdout.readline()
    assert output == b"ready\n"
    time.sleep(seconds)
    child.kill()
    rest, _ = child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL
    return rest


def acknowledged(output: bytes) -> dict[str, int]:
    """Name → number of every line that was printed whole; the last one counts."""
    pairs = [line.split() for line in output.decode().split("\n")[:-1] if line != "ready"]
    return {name: int(number) for name, number in pairs}


def same(found: Any, number: int, suffix: str) -> bool:
    wanted = item_of(number, suffix)
    if suffix == ".csv":
        return bool(found == [["number", "k"], *[[str(a), str(b)] for a, b in wanted.tolist()]])  # type: ignore[attr-defined]
    return bool(np.array_equal(found, wanted)) if isinstance(found, np.ndarray) else bool(found == wanted)


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and not path.name.endswith(".part")]


@pytest.mark.parametrize("point", [_folder._WRITTEN, _folder._PLACED])
@pytest.mark.parametrize("nth", range(1, len(SUFFIXES) + 1))
def test_killed_at_a_named_point(tmp_path: Path, point: str, nth: int) -> None:
    child = start(tmp_path, "items", point=f"{point}:{nth}")
    output, _ = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    acks = acknowledged(output)
    assert len(acks) == nth - 1
    found = {str(path.relative_to(tmp_path)) for path in files(tmp_path)}
    last = f"new/{nth - 1}{SUFFIXES[nth - 1]}"
    assert found == {*acks, last} if point == _folder._PLACED else found == set(acks)
    for name in found:
        number, suffix = int(Path(name).stem), Path(name).suffix
        assert same(read_file_independently(tmp_path / name), number, suffix)
    with storage.open("disk", tmp_path) as store:
        assert set(store.list_files(recursive=True)) == found
        store.save(item_of(99, SUFFIXES[nth - 1]), last, overwrite=True)
    assert same(read_file_independently(tmp_path / last), 99, SUFFIXES[nth - 1])
    assert not list(tmp_path.rglob("*.part")), "the next save of the name took over what the killed one left"


@pytest.mark.parametrize("scenario", ["items", "turns"])
def test_killed_at_random_moments(tmp_path: Path, scenario: str) -> None:
    seed = int(os.environ.get("MUTOSCOPE_SEED", time.time_ns() % 2**32))
    print(f"seed {seed}: repeat with MUTOSCOPE_SEED={seed}")
    rng = random.Random(seed)
    begin, stored = 0, {}
    for _ in range(RANDOM_KILLS // 2):
        acks = acknowledged(kill_after(start(tmp_path, scenario, str(begin)), rng.uniform(0.0, 0.15)))
        stored.update(acks)
        begin = max(stored.values(), default=begin - 1) + 1
        found = {str(path.relative_to(tmp_path)): read_file_independently(path) for path in files(tmp_path)}
        assert set(stored) <= set(found)
        for name, value in found.items():
            suffix = Path(name).suffix
            # Acknowledged, or the next one, which was placed but not yet acknowledged.
            candidates = [int(Path(name).stem)] if scenario == "items" else [begin, *([stored[name]] if name in stored else [])]
            assert any(same(value, number, suffix) for number in candidates), name
        left = list(tmp_path.rglob("*.part"))
        assert len(left) <= len(SUFFIXES) if scenario == "turns" else len(left) <= RANDOM_KILLS // 2
    assert stored


def test_two_processes_write_at_once_and_one_of_each_name_wins(tmp_path: Path) -> None:
    children = [start(tmp_path, "race", str(who)) for who in range(2)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=60)[0].decode().split("\n")[:-1] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    for number in range(100):
        winners = [who for who in range(2) if f"won {number}" in outputs[who]]
        losers = [who for who in range(2) if f"told {number}" in outputs[who]]
        assert (len(winners), len(losers)) == (1, 1)
        assert np.array_equal(np.load(tmp_path / f"shared/{number}.npy"), image_of(winners[0], (30, 30)))
        for who in range(2):
            assert np.array_equal(np.load(tmp_path / f"own/{who}-{number}.npy"), image_of(who, (30, 30)))
    assert not list(tmp_path.rglob("*.part"))


def test_a_name_that_is_being_written_is_refused_to_others(tmp_path: Path) -> None:
    with storage.open("disk", tmp_path) as store, storage.open("disk", tmp_path, overwrite=True) as other:

        def fill(file: Any) -> None:
            for each in (store, other):
                with pytest.raises(DatasetExistsError, match="another writer at this moment"):
                    each.save(image_of(1), "a.npy")
            other.save(image_of(2), "b.npy")
            np.save(file, image_of(3))

        _folder.Folder(tmp_path).write("a.npy", fill, overwrite=False)
        assert np.array_equal(store.load("a.npy"), image_of(3))


def test_what_killed_writers_left_goes_away_and_what_is_in_use_stays(tmp_path: Path) -> None:
    old = time.time() - 3600
    names = [f".{letter * 24}.part" for letter in "abc"]
    for name in (*names, ".mine.part", "a.part"):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (old, old))
    os.utime(tmp_path / names[2])
    with open(tmp_path / names[1], "rb+") as held:
        _folder._lock(held.fileno())
        with storage.open("disk", tmp_path) as store:
            store.save(image_of(1), "x.npy")
            assert store.list_files() == ["a.part", "x.npy"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([names[1], names[2], ".mine.part", "a.part", "x.npy"])


def test_a_writer_killed_between_link_and_unlink_costs_nothing(tmp_path: Path) -> None:
    """On a file system without a no-replace rename an item may be left under both names: the next save must not empty it."""
    with storage.open("disk", tmp_path, overwrite=True) as store:
        store.save(image_of(1), "a.npy")
        with pytest.raises(RuntimeError):
            store._folder.write("a.npy", _note_hidden_and_fail, overwrite=True)  # type: ignore[attr-defined]
        os.link(tmp_path / "a.npy", tmp_path / _hidden[-1])
        with open(tmp_path / "a.npy", "rb") as before:
            store.save(image_of(2), "a.npy")
            assert np.array_equal(np.load(before), image_of(1)), "who had it open still reads the old one"
        assert np.array_equal(store.load("a.npy"), image_of(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy"]


_hidden: list[str] = []


def _note_hidden_and_fail(file: Any) -> None:
    _hidden.append(os.path.basename(os.readlink(f"/proc/self/fd/{file.fileno()}")))
    raise RuntimeError("the library failed half-way")


def test_a_save_that_fails_half_way_leaves_the_old_item(tmp_path: Path) -> None:
    with storage.open("disk", tmp_path, overwrite=True) as store:
        store.save(image_of(1), "a.npy")
        with pytest.raises(RuntimeError, match="half-way"):
            store._folder.write("a.npy", _note_hidden_and_fail, overwrite=True)  # type: ignore[attr-defined]
        assert np.array_equal(store.load("a.npy"), image_of(1))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_a_rename_is_tried_again_while_the_file_is_in_use() -> None:
    import errno

    calls: list[int] = []

    def busy_twice() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise OSError(errno.EBUSY, "in use by another machine")
        return "done"

    assert _folder.retrying(busy_twice) == "done"
    assert len(calls) == 3
    calls.clear()
    with pytest.raises(OSError, match="always"):
        _folder.retrying(lambda: (_ for _ in ()).throw(OSError(errno.EBUSY, "always")), timeout_s=0.02)
    with pytest.raises(PermissionError):
        _folder.retrying(lambda: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no")), timeout_s=60)


def test_the_rename_without_the_system_call_is_as_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems without renameat2 take the way over a link."""
    monkeypatch.setattr(_folder, "_libc", object())
    with storage.open("disk", tmp_path) as store:
        store.save(image_of(1), "a.npy")
        (tmp_path / "b.npy").symlink_to("a.npy")
        for name in ("a.npy", "b.npy"):
            with pytest.raises(DatasetExistsError):
                store.save(image_of(2), name)
        (tmp_path / "new").write_bytes(b"new")
        with store._folder.opened("") as fd:  # type: ignore[attr-defined]
            for name in ("a.npy", "b.npy"):
                with pytest.raises(FileExistsError):
                    _folder._rename_new("new", name, fd, fd)
        assert np.array_equal(store.load("a.npy"), image_of(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy", "new"]
