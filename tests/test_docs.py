"""Everything that the pages tell a reader to type is typed here: Python blocks, `mutoscope` and `make` lines, examples.

In a page, a comment on the line before a block says what is special about it:

- ``<!-- continues -->``: the block needs those before it (back to the last one without this comment);
- ``<!-- not run: reason -->``: the block is only checked to be Python, or not at all if it is no Python.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n`]*\n(?P<text>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL)
REMARK = re.compile(r"<!-- (?P<kind>continues|not run)(?:: (?P<reason>.+?))? -->\s*\Z")
TYPED = re.compile(r"^\$? ?(?P<line>(?:mutoscope|make)\b.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    remark: str | None
    before: str = ""

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, those that continue others with the others' text before them."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    so_far = ""
    for match in FENCE.finditer(text):
        remark = REMARK.search(text[: match.start()])
        kind = remark["kind"] if remark else None
        assert kind != "not run" or remark["reason"], f"{page}: a block that is not run needs its reason"
        line = text.count("\n", 0, match.start()) + 1
        lines = [each.removeprefix(match["indent"]) for each in match["text"].splitlines()]
        block = Block(page, line, match["language"], "\n".join(lines) + "\n", kind, so_far if kind == "continues" else "")
        if block.language == "python" and kind != "not run":
            so_far = block.before + block.text
        found.append(block)
    return found


BLOCKS = [block for page in PAGES if page.exists() for block in blocks_of(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
RUN = [block for block in PYTHON if block.remark != "not run"]
SHELL = [
    (block, match["line"])
    for block in BLOCKS
    if block.language in ("bash", "sh", "console")
    for match in TYPED.finditer(block.text)
]


def processes_in(folder: Path) -> list[str]:
    """Return the command lines of the processes whose working folder is in `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            where = os.readlink(entry / "cwd")
            if where == str(folder) or where.startswith(f"{folder}/"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def run_in(folder: Path, command: list[str], timeout_s: float = 180) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in `folder`, and see that it leaves no process behind."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as runtime:  # several programs have a viewer of the same name
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"PATH": path, "XDG_RUNTIME_DIR": runtime},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    assert not processes_in(folder), "a process is left"
    return done


def run_program(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    program = folder / "program.py"
    program.write_text(text, encoding="utf-8")
    done = run_in(folder, [sys.executable, "-W", "error", str(program)])
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def test_there_are_blocks_to_run() -> None:
    assert RUN
    assert SHELL


@pytest.mark.parametrize("block", RUN, ids=lambda block: block.name)
def test_python_block_runs(block: Block, tmp_path: Path) -> None:
    run_program(tmp_path, block.before + block.text)


def test_python_blocks_that_are_not_run_are_python() -> None:
    for block in PYTHON:
        ast.parse(block.text, filename=block.name)


@pytest.mark.parametrize(("block", "line"), SHELL, ids=[f"{block.name}-{line}" for block, line in SHELL])
def test_typed_line_is_understood(block: Block, line: str, tmp_path: Path) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        done = run_in(tmp_path, ["make", "--dry-run", "--directory", str(ROOT), *words[1:]])
        assert done.returncode == 0, done.stderr
        return
    from mutoscope.cli._commands import app

    app.parse_args(words[1:], exit_on_error=False, print_error=False)
    if block.remark != "not run" and words[1] in ("demo", "doctor"):
        extra = ["--frames", "50", "--headless", "--out", "data"] if words[1] == "demo" else []
        kept = [word for word in words[1:] if word not in ("--headless",)]
        if "--frames" in kept or "--seconds" in kept or "--out" in kept:
            extra = ["--headless"]
        done = run_in(tmp_path, [sys.executable, "-m", "mutoscope", *kept, *extra])
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    done = run_in(tmp_path, [sys.executable, "-W", "error", str(example)])
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"


def test_relative_links_lead_somewhere() -> None:
    dead = []
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                dead.append(f"{page.relative_to(ROOT)} -> {target}")
    assert not dead


NOTEBOOK = """
import sys
import nbformat
from nbclient import NotebookClient

sources = open(sys.argv[1], encoding="utf-8").read().split("#--#")
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=".")
print("".join(output.get("text", "") for cell in notebook.cells for output in cell.outputs))
"""


def test_the_first_program_runs_in_a_notebook(tmp_path: Path) -> None:
    """Workers are defined in a cell, so there is no file that they could be imported from."""
    definitions, _, rest = (ROOT / "examples" / "spot_counter.py").read_text(encoding="utf-8").partition("if __name__")
    check = "assert scope.ledger.exact\nprint(ms.storage.info('run.ome.zarr'))\nprint('stored:', scope.ledger.stored)\n"
    (tmp_path / "cells.txt").write_text("#--#".join([definitions, f"if __name__{rest}", check]), encoding="utf-8")
    (tmp_path / "notebook.py").write_text(NOTEBOOK, encoding="utf-8")
    done = run_in(tmp_path, [sys.executable, "notebook.py", "cells.txt"])
    assert done.returncode == 0, done.stderr
    assert "stored: 1000" in done.stdout
