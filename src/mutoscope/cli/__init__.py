"""The command line. It owns nothing but the terminal; each command is a few lines around a function of the other packages."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; by default those that it was called with.

    Returns
    -------
    int
        The exit code: 0 done, 1 something failed on the way (named in the summary), 2 what was asked for cannot be (one
        sentence on stderr), 130 interrupted.
    """
    from mutoscope.cli._top import run_command

    return run_command(sys.argv[1:] if arguments is None else list(arguments))
