"""Which exit code an error means: 2 for what cannot be as asked, 1 for what failed on the way."""

from __future__ import annotations

from mutoscope.model.errors import (
    BackendUnavailableError,
    ConfigError,
    DatasetError,
    ScopeStateError,
    UnknownCommandError,
    UnsupportedPlatformError,
)

__all__ = ["FAILED", "IMPOSSIBLE", "exit_code_of"]

FAILED = 1
IMPOSSIBLE = 2

_CORRECT_WHAT_YOU_ASKED = (
    ConfigError,
    BackendUnavailableError,
    DatasetError,
    ScopeStateError,
    UnknownCommandError,
    UnsupportedPlatformError,
)
_UNUSABLE_PATH = (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of a process that ends with this error.

    Examples
    --------
    >>> exit_code_of(ConfigError("shape must be positive")), exit_code_of(TimeoutError("no answer"))
    (2, 1)
    >>> exit_code_of(ScopeStateError("run.ome.zarr: another writer has it open"))
    2
    """
    return IMPOSSIBLE if isinstance(error, (*_CORRECT_WHAT_YOU_ASKED, *_UNUSABLE_PATH)) else FAILED
