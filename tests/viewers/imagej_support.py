"""A real ImageJ on a screen of its own, for tests: that of Maven Central (``fiji/build.py --imagej``) and that of Debian."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mutoscope.model.errors import BackendUnavailableError
from mutoscope.viewers.fiji import ImageJ, attach, running
from mutoscope.viewers.fiji.find import Installation, installation_of
from mutoscope.viewers.fiji.install import packaged_plugin
from polling import until

ROOT = Path(__file__).resolve().parents[2]
JARS = {"central": ROOT / "fiji/target/ij.jar", "debian": Path("/usr/share/java/ij.jar")}
PROBE = Path(__file__).with_name("FijiProbe.java")
DEADLINE_S = 120.0


@contextmanager
def virtual_screen() -> Iterator[str]:
    """A screen of no monitor; yields its DISPLAY."""
    if shutil.which("Xvfb") is None:
        pytest.skip("no Xvfb here: install xvfb")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1600x1200x24", "-nolisten", "tcp"]
    process = subprocess.Popen(command, pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with open(read, "rb") as told:
            assert select.select([told], [], [], DEADLINE_S)[0], "Xvfb says nothing"
            number = told.readline().decode().strip()
        assert number.isdigit(), "Xvfb has ended"
        yield f":{number}"
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def installation(which: str) -> Installation:
    """The ImageJ of one of `JARS`."""
    if not JARS[which].is_file() or shutil.which("java") is None:
        pytest.skip("no such ImageJ here: python fiji/build.py --imagej, or install imagej and default-jre")
    try:
        packaged_plugin()
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    found = installation_of(JARS[which])
    assert found is not None
    return found


class Probe:
    """ImageJ with the live receiver, started with `FijiProbe.java` around it.

    Parameters
    ----------
    which : str
        Of `JARS`.
    home : Path
        What Java takes for the person's folder.
    classes : Path
        The compiled probe.
    owned : bool
        Whether it is started as a program of Mutoscope does.
    memory : str
        What Java may take.
    """

    def __init__(self, which: str, home: Path, classes: Path, *, owned: bool = True, memory: str = "600m") -> None:
        environment = {**os.environ, **({"MUTOSCOPE_STARTED": "1"} if owned else {})}
        environment.pop("JAVA_TOOL_OPTIONS", None)
        path = os.pathsep.join(map(str, (installation(which).program, packaged_plugin(), classes)))
        self.errors = home / f"{which}.log"
        self._log = self.errors.open("ab")
        self.process = subprocess.Popen(
            ["java", f"-Duser.home={home}", f"-Xmx{memory}", "-cp", path, "FijiProbe", str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=home,
            env=environment,
        )

    def receiver(self):  # type: ignore[no-untyped-def]
        """Its announcement, waited for."""

        def look():  # type: ignore[no-untyped-def]
            assert self.process.poll() is None, self.errors.read_text()
            return next((found for found in running() if found.pid == self.process.pid), None)

        return until(look, "its live receiver", timeout_s=DEADLINE_S)

    def attach(self, **options) -> ImageJ:  # type: ignore[no-untyped-def]
        return attach(self.receiver(), timeout_s=options.pop("timeout_s", DEADLINE_S), **options)

    def ask(self, *words: object) -> list[str]:
        """Ask ImageJ itself: fields of `FijiProbe.answer`."""
        self.tell(*words)
        return self.told()

    def command(self, title: str, command: str, options: str = "") -> list[str]:
        """Run a command of ImageJ's on an image, in a thread as its menus do; the title of what came of it, or the error."""
        self.ask("command", title, command, options)
        return self.ask("ran", "")

    def tell(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(("\t".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()

    def told(self, word: str = "answer") -> list[str]:
        """The fields of the next line that begins with this word."""
        assert self.process.stdout is not None
        while True:
            line = self.process.stdout.readline().decode().rstrip("\n")
            assert line or self.process.poll() is None, self.errors.read_text()
            if line.split("\t")[0] == word:
                fields = line.split("\t")[1:]
                assert fields[:1] != ["failed"], fields
                return fields

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)
        for stream in (self.process.stdin, self.process.stdout, self._log):
            assert stream is not None
            stream.close()


@contextmanager
def running_probe(which: str, home: Path, classes: Path, *, owned: bool = True) -> Iterator[Probe]:
    """A probe whose live receiver is there; it is killed in the end."""
    probe = Probe(which, home, classes, owned=owned)
    try:
        probe.receiver()
        yield probe
    finally:
        probe.close()


def compile_probe(folder: Path) -> Path:
    """Compile the probe into a folder; returns it."""
    if shutil.which("javac") is None:
        pytest.skip("no JDK here: install default-jdk-headless")
    program = installation("debian").program
    path = os.pathsep.join((str(program), str(packaged_plugin())))
    command = ["javac", "-cp", path, "-d", str(folder), str(PROBE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder
