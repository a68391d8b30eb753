"""The user's own program, run in this process as ``python`` would run it, with a display around its scopes."""

from __future__ import annotations

import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mutoscope.app.exit_codes import FAILED, IMPOSSIBLE, exit_code_of
from mutoscope.app.summary import RunSummary
from mutoscope.model.errors import ConfigError, DatasetNotFoundError, MutoscopeError

if TYPE_CHECKING:
    from types import TracebackType

    from mutoscope.app.display import ScopeDisplay
    from mutoscope.app.scope import Scope
    from mutoscope.viewers.page.settings import PageSettings

__all__ = ["ProgramOutcome", "run_program"]

LOOKED_AT_BYTES = 4096

_FRAME = re.compile(r'^  File "[^\n]*", line [0-9]+[^\n]*\n(?:    [^\n]*\n)*', re.MULTILINE)
_NOT_THEIRS = re.compile(
    rf'  File "(<frozen |{re.escape(str(Path(__file__).parents[1]))}/|{re.escape(os.path.dirname(os.__file__))}/[a-z_]+[./])'
)
"""A frame of Mutoscope or of Python's own library."""


@dataclass(frozen=True)
class ProgramOutcome:
    """How the program ended: its exit code, and the summary of the last scope that it ran, if any."""

    exit_code: int
    summary: RunSummary | None


def run_program(
    script: Path,
    arguments: Sequence[str],
    *,
    display: ScopeDisplay | None = None,
    page: PageSettings | None = None,
    announce: Callable[[str], None] = lambda _line: None,
) -> ProgramOutcome:
    """Run a Python program to its end.

    Parameters
    ----------
    script : Path
        Runs as ``__main__``, with its folder first on ``sys.path``.
    arguments : sequence of str
        Its ``sys.argv[1:]``.
    display : ScopeDisplay, optional
        Draws each scope that the program starts.
    page : PageSettings, optional
        The page of each scope that says nothing of one itself.
    announce : callable
        Takes lines for people.

    Returns
    -------
    ProgramOutcome
        Exit code 1 if the program raised (its traceback is on stderr) or its last scope did not end in order.

    Raises
    ------
    MutoscopeError
        If there is no such program, or if it asked for what cannot be: one of those that :func:`exit_code_of` answers with 2.
        Where in the program is on stderr then.
    """
    if not script.is_file():
        raise DatasetNotFoundError(f"there is no program {script}")
    with script.open("rb") as file:
        start = file.read(LOOKED_AT_BYTES)
    if b"\0" in start:
        raise ConfigError(f"{script} is no Python program; a data set is shown by: mutoscope view browser {script}")
    from mutoscope.app import scope as scope_module

    seen: list[Scope] = []
    observers: list[Callable[[Scope], None]] = [seen.append, lambda scope: _tell_page(scope, announce)]
    if display is not None:
        observers.append(display.watch)
    scope_module.observers.extend(observers)
    scope_module.page_unless_said = page
    try:
        with _as_main(script, arguments):
            code = _run(script)
    finally:
        scope_module.page_unless_said = None
        for observer in observers:
            scope_module.observers.remove(observer)
        for scope in seen:
            scope.close()
        if display is not None:
            display.close()
    if not seen:
        return ProgramOutcome(code, None)
    summary = RunSummary.of(seen[-1])
    return ProgramOutcome(code or summary.exit_code, summary)


def _tell_page(scope: Scope, announce: Callable[[str], None]) -> None:
    if scope.page_url is not None:
        announce(f"the page: {scope.page_url}")


@contextmanager
def _as_main(script: Path, arguments: Sequence[str]) -> Iterator[None]:
    former_arguments, former_path = sys.argv, list(sys.path)
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        yield
    finally:
        sys.argv = former_arguments
        sys.path[:] = former_path


def _run(script: Path) -> int:
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except MutoscopeError as error:
        sys.stderr.write(_own_frames(error, script))
        if exit_code_of(error) == IMPOSSIBLE:
            raise
        sys.stderr.write(f"{script}: {type(error).__name__}: {error}\n")
        return FAILED
    except Exception as error:  # noqa: BLE001 - this is the top of the user's program, as the interpreter would be
        traceback.print_exception(error.with_traceback(_from_script_on(error.__traceback__, script)))
        return 1
    return 0


def _from_script_on(trace: TracebackType | None, script: Path) -> TracebackType | None:
    """Leave out the frames above the program's first: all of them, if it did not begin to run."""
    found = trace
    while found is not None and found.tb_frame.f_code.co_filename != str(script):
        found = found.tb_next
    return found


def _own_frames(error: MutoscopeError, script: Path) -> str:
    """Return where in the program, and in its workers, an error of ours comes from, as a traceback would say it."""
    lines = traceback.format_tb(_from_script_on(error.__traceback__, script))
    if error.remote_traceback is not None:
        lines += _FRAME.findall(error.remote_traceback)
    return "".join(line for line in dict.fromkeys(lines) if not _NOT_THEIRS.match(line))
