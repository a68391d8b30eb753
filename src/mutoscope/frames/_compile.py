"""Compiles the native core. Imports nothing of Mutoscope, so that the build hook can load it by path.

After a change to the C sources of an editable install: ``python src/mutoscope/frames/_compile.py``.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CORE_DIR = Path(__file__).resolve().parent / "_core"
LIBRARY_NAME = "libmutoscope.so"
FLAGS = ("-std=c11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-pthread")


def compiler_command() -> list[str]:
    """Return the compiler to call: ``$CC``, the system's ``cc``, else ``zig cc`` of PyPI's ``ziglang``.

    Raises
    ------
    RuntimeError
        If none of the three is there; the message names the packages that bring one.
    """
    chosen = os.environ.get("CC")
    if chosen:
        return chosen.split()
    if shutil.which("cc"):
        return ["cc"]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    raise RuntimeError("no C compiler found: install one (Debian: apt-get install gcc) or run: pip install ziglang")


def compile_core(output: Path, defines: Sequence[str] = ()) -> Path:
    """Compile every C source of the core into one shared library.

    Parameters
    ----------
    output : Path
        Where the library goes. It is written beside that name and renamed, so a running process keeps its copy.
    defines : sequence of str
        Preprocessor symbols, for example ``"MUTOSCOPE_KILL_POINTS"`` for the build that the crash tests use.

    Returns
    -------
    Path
        ``output``.

    Raises
    ------
    RuntimeError
        If the compiler fails; the message holds what it printed.
    """
    sources = sorted(str(path) for path in CORE_DIR.glob("*.c"))
    partial = output.with_name(f".{output.name}.{os.getpid()}")
    command = [*compiler_command(), *FLAGS, *(f"-D{name}" for name in defines), *sources, "-o", str(partial)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the native core did not compile ({' '.join(command)}):\n{done.stderr}")
    os.replace(partial, output)
    return output


if __name__ == "__main__":
    sys.stdout.write(f"{compile_core(CORE_DIR / LIBRARY_NAME)}\n")
