"""The command line. It owns nothing but the terminal; each command is a few lines around a function of the other packages."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in mutoscope itself
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

__all__ = ["main"]

INTERRUPTED = 130


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
    interrupted = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    try:
        import signal
        import threading

        former = signal.getsignal(signal.SIGINT)
        ours = threading.current_thread() is threading.main_thread() and former is signal.default_int_handler
        try:
            if ours:
                signal.signal(signal.SIGINT, interrupt)
            from mutoscope.cli._top import run_command

            return run_command(sys.argv[1:] if arguments is None else list(arguments))
        finally:
            if ours:
                signal.signal(signal.SIGINT, former)
    except BaseException as error:  # an interrupted import may end in any error
        if not (interrupted or isinstance(error, KeyboardInterrupt)):
            raise
        print("mutoscope: interrupted", file=sys.stderr)
        return INTERRUPTED
