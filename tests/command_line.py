"""Runs commands as a person would type them, and sees that they leave no process behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polling import until

MARK = "MUTOSCOPE_TEST_MARK"
MUTOSCOPE = [sys.executable, "-m", "mutoscope"]


class Typed:
    """A command that was typed in `folder`: its process, and a mark that all its descendants inherit."""

    def __init__(self, folder: Path, command: Sequence[str], **options: Any) -> None:
        self.mark = uuid.uuid4().hex
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | {MARK: self.mark, "PATH": path, "PYTHONUNBUFFERED": "1"}
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        self.process = subprocess.Popen(list(command), cwd=folder, env=environment, text=True, **options)
        self.stdout = self.stderr = ""

    def descendants(self) -> dict[int, str]:
        """Return pid and command line of each process with this mark, itself excepted."""
        wanted = f"{MARK}={self.mark}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.process.pid:
                continue
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def wait(self, timeout_s: float = 120.0) -> Typed:
        """Wait for its end; nothing of it may be left soon after."""
        try:
            self.stdout, self.stderr = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"not ended within {timeout_s} s; running: {self.descendants()}") from error
        until(lambda: not self.descendants(), lambda: f"left behind: {self.descendants()}")
        return self

    @property
    def code(self) -> int:
        """The exit code."""
        return self.process.returncode

    @property
    def last_json(self) -> Any:
        """The last line of standard output, decoded."""
        return json.loads(self.stdout.splitlines()[-1])

    def describe(self) -> str:
        """Return what it said, for a failed test."""
        return f"exit code {self.code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"

    def wait_until(self, condition: Any, timeout_s: float = 30.0) -> None:
        """Poll `condition` until it holds, while the command runs."""

        def look() -> bool:
            if condition():
                return True
            assert self.process.poll() is None, f"it ended before: exit code {self.process.returncode}"
            return False

        until(look, timeout_s=timeout_s)


@contextmanager
def typed(folder: Path, command: Sequence[str], **options: Any) -> Any:
    """A running command; killed with all that belongs to it if the test fails."""
    running = Typed(folder, command, **options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        for pid in running.descendants():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        for stream in (running.process.stdout, running.process.stderr):
            if stream is not None:
                stream.close()
        running.process.wait()


def run(folder: Path, *command: str, timeout_s: float = 120.0, **options: Any) -> Typed:
    """Run a command to its end."""
    with typed(folder, command, **options) as running:
        return running.wait(timeout_s)


def mutoscope(folder: Path, *words: str, timeout_s: float = 120.0, **options: Any) -> Typed:
    """Run a ``mutoscope`` command to its end."""
    return run(folder, *MUTOSCOPE, *words, timeout_s=timeout_s, **options)
