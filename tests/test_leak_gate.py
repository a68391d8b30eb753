"""The gate that every test passes: what a test leaves in ``/dev/shm`` fails it, and what strangers have there does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest

import shared_memory

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = """
import multiprocessing, subprocess, sys
from multiprocessing.shared_memory import SharedMemory
import conftest

conftest._until_settled.__defaults__ = (0.3,)
CHILD = '''
from multiprocessing import resource_tracker, shared_memory
block = shared_memory.SharedMemory("mutoscope_leaked_by_a_child", create=True, size=64)
resource_tracker.unregister(block._name, "shared_memory")
block.close()
'''
kept = []

def test_a_block():
    kept.append(SharedMemory(create=True, size=64))

def test_a_block_that_is_closed_and_not_unlinked():
    SharedMemory(create=True, size=64).close()

def test_a_semaphore():
    kept.append(multiprocessing.get_context("spawn").Semaphore())

def test_a_block_of_a_child():
    subprocess.run([sys.executable, "-c", CHILD], check=True)

def test_nothing():
    block = SharedMemory(create=True, size=64)
    block.close()
    block.unlink()
"""


@pytest.mark.alone
def test_a_test_that_leaks_fails(tmp_path: Path) -> None:
    program = tmp_path / "test_leaks.py"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    try:
        done = subprocess.run(
            [*command, "--rootdir", str(tmp_path), str(program)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        (shared_memory.SHM / "mutoscope_leaked_by_a_child").unlink(missing_ok=True)
    assert done.returncode == 1, done.stdout + done.stderr
    caught = re.findall(r"^ERROR .*::(\w+) - ", done.stdout, re.MULTILINE)
    found = re.findall(r"^E +AssertionError: left behind: {.*'/dev/shm entries': \['", done.stdout, re.MULTILINE)
    leaks = ["test_a_block", "test_a_block_that_is_closed_and_not_unlinked", "test_a_semaphore", "test_a_block_of_a_child"]
    assert caught == leaks, done.stdout
    assert len(found) == len(leaks), done.stdout


STRANGER = """
import multiprocessing, sys
from multiprocessing.shared_memory import SharedMemory
block, lock = SharedMemory(create=True, size=64), multiprocessing.get_context("spawn").Semaphore()
print(block.name, lock._semlock.name.removeprefix("/"), flush=True)
sys.stdin.read()
lock = None
block.close(), block.unlink()
"""


@pytest.mark.alone
def test_what_a_stranger_has_there_does_not_count() -> None:
    before = shared_memory.entries()
    environment = {name: value for name, value in os.environ.items() if name != shared_memory.MARK}
    # A shell that ends at once: the stranger is no descendant of this process.
    shell = subprocess.Popen(
        ["sh", "-c", 'exec 3<&0; "$0" -c "$1" <&3 & exit 0', sys.executable, STRANGER],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    with shell.stdin, shell.stdout:
        block_name, semaphore_name = shell.stdout.readline().split()
        shell.wait()
        new = shared_memory.entries() - before
        assert {block_name, f"sem.{semaphore_name}"} <= new
        assert shared_memory.ours(new) == []
        block = SharedMemory(create=True, size=64)
        try:
            assert shared_memory.ours(shared_memory.entries() - before) == [block.name]
        finally:
            block.close()
            block.unlink()
            resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
        shell.stdin.close()
        assert shell.stdout.read() == "", "the stranger has ended"
