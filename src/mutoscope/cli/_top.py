"""The top of the process: arguments in, exit code out, every foreseen error as one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import cyclopts

from mutoscope.cli._commands import app
from mutoscope.model.errors import (
    BackendUnavailableError,
    ConfigError,
    DatasetError,
    DiskFullError,
    MutoscopeError,
    UnsupportedPlatformError,
)

ASKED_THE_IMPOSSIBLE = (ConfigError, BackendUnavailableError, DatasetError, UnsupportedPlatformError)
UNUSABLE_PATH = (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)


def run_command(arguments: Sequence[str]) -> int:
    """Run one command and return the exit code of the process."""
    try:
        code = app(_program_arguments_apart(arguments), exit_on_error=False, print_error=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except cyclopts.CycloptsError as error:
        return _say(f"{_argument_error(error)} See mutoscope --help.", 2)
    except DiskFullError as error:
        return _say(str(error), 1)
    except ASKED_THE_IMPOSSIBLE as error:
        return _say(str(error), 2)
    except MutoscopeError as error:
        return _say(f"{type(error).__name__}: {error}", 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains again when it flushes
        return 141
    except UNUSABLE_PATH as error:
        return _say(f"{error.strerror}: {error.filename}" if error.filename else str(error), 2)
    except KeyboardInterrupt:
        return _say("interrupted", 130)


def _program_arguments_apart(arguments: Sequence[str]) -> list[str]:
    """What follows the script of ``mutoscope run`` belongs to the script, options included."""
    tokens = list(arguments)
    if tokens[:1] != ["run"] or "--" in tokens:
        return tokens
    script = next((place for place, token in enumerate(tokens[1:], 1) if not token.startswith("-")), None)
    return tokens if script is None else [*tokens[:script], "--", *tokens[script:]]


def _argument_error(error: cyclopts.CycloptsError) -> str:
    if isinstance(error, cyclopts.UnusedCliTokensError):
        return f"Unexpected argument: {' '.join(error.unused_tokens or ())}."
    text = " ".join(str(error).split())
    return text if text.endswith((".", "?")) else f"{text}."


def _say(text: str, code: int) -> int:
    """Print one sentence where errors go; whatever it quotes from elsewhere is put on one line."""
    print(f"mutoscope: {' '.join(text.split())}", file=sys.stderr)
    return code
