"""What napari itself holds and paints, checked inside one process of it."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from imagej_support import virtual_screen

INSIDE = Path(__file__).with_name("napari_inside.py")
SOURCES = (INSIDE, INSIDE.with_name("napari_live_inside.py"))
DEADLINE_S = 240.0


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A napari that takes names of checks."""
    folder = tmp_path_factory.mktemp("inside")
    errors = folder / "errors"
    with virtual_screen() as display, open(errors, "w") as err:
        environment = os.environ | {
            "DISPLAY": display,
            "NAPARI_CONFIG": str(folder / "napari.yaml"),
            "XDG_RUNTIME_DIR": str(folder),
            "PYTHONPATH": os.pathsep.join([str(INSIDE.parent), *sys.path]),
        }
        command = [sys.executable, "-c", "import napari_live_inside, napari_inside; napari_inside.main()"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, text=True, env=environment
        ) as process:
            yield process
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 0, errors.read_text()[-4000:]
    said = errors.read_text()
    assert "Traceback" not in said, said[-4000:]
    assert "FutureWarning" not in said, said[-4000:]


def checks() -> list[str]:
    texts = [source.read_text(encoding="utf-8") for source in SOURCES]
    return [name for text in texts for name in re.findall(r"^@check\ndef (\w+)", text, re.MULTILINE)]


@pytest.mark.parametrize("name", checks())
def test_inside(name: str, inside: subprocess.Popen[str]) -> None:
    assert inside.stdin is not None
    assert inside.stdout is not None
    print(name, file=inside.stdin, flush=True)
    assert select.select([inside.stdout], [], [], DEADLINE_S)[0], "it does not answer"
    answer = inside.stdout.readline()
    assert answer, "it has ended"
    problem = json.loads(answer)
    assert not problem, problem
