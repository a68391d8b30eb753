"""The top of the process: arguments in, exit code out, every foreseen error as one sentence."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

import cyclopts

from mutoscope.app.exit_codes import IMPOSSIBLE, exit_code_of
from mutoscope.cli._commands import app
from mutoscope.model.errors import MutoscopeError


def run_command(arguments: Sequence[str]) -> int:
    """Run one command and return the exit code of the process."""
    _fill_standard_streams()
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it finds wrong with a file, our own sentence says
    try:
        code = app(_program_arguments_apart(arguments), exit_on_error=False, print_error=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except cyclopts.CycloptsError as error:
        return _say(f"{_argument_error(error)} See mutoscope --help.", IMPOSSIBLE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains again when it flushes
        return 141
    except MutoscopeError as error:
        return _say(str(error), exit_code_of(error))
    except OSError as error:
        return _say(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", exit_code_of(error))


def _fill_standard_streams() -> None:
    """Where a standard stream was closed by whoever started us, put nothing there: else the next descriptor would become it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  lives as long as the process


def _program_arguments_apart(arguments: Sequence[str]) -> list[str]:
    """What follows the script of ``mutoscope run`` belongs to the script, options included."""
    tokens = list(arguments)
    if tokens[:1] != ["run"]:
        return tokens
    script = next((place for place, token in enumerate(tokens[1:], 1) if not token.startswith("-")), None)
    return tokens if script is None or "--" in tokens[:script] else [*tokens[:script], "--", *tokens[script:]]


def _argument_error(error: cyclopts.CycloptsError) -> str:
    if isinstance(error, cyclopts.UnusedCliTokensError):
        return f"Unexpected argument: {' '.join(error.unused_tokens or ())}."
    text = " ".join(str(error).split())
    return text if text.endswith((".", "?")) else f"{text}."


def _say(text: str, code: int) -> int:
    """Print one sentence where errors go; whatever it quotes from elsewhere is put on one line."""
    print(f"mutoscope: {' '.join(text.split())}", file=sys.stderr)
    return code
