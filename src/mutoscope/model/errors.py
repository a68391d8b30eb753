"""Errors, grouped by what a caller would do next, and how they cross processes.

Each class inherits a builtin where one fits, so that ``except TimeoutError`` works as a newcomer expects. An error raised in
another process arrives as its own class when it is one of these or a builtin, with the remote traceback attached as
``remote_traceback``; anything else arrives as :class:`RemoteError`.
"""

from __future__ import annotations

import builtins
from typing import Any

import msgspec

__all__ = [
    "BackendUnavailableError",
    "BadPayloadError",
    "BufferUnavailableError",
    "CameraBusyError",
    "CameraError",
    "ClosedError",
    "CommandTimeoutError",
    "ConfigError",
    "DatasetError",
    "DatasetExistsError",
    "DatasetNotFoundError",
    "DiskFullError",
    "ErrorRecord",
    "FrameTimeoutError",
    "FramesLostError",
    "ItemsFailedError",
    "LeaseLimitError",
    "MutoscopeError",
    "PeerDiedError",
    "RemoteError",
    "RingClosedError",
    "RingFullError",
    "RingSizeError",
    "ScopeStateError",
    "UnknownCommandError",
    "UnsupportedPlatformError",
    "ViewerTimeoutError",
    "ViewerUnavailableError",
    "from_record",
    "to_record",
]


class MutoscopeError(Exception):
    """The root of all errors that Mutoscope raises on purpose."""

    remote_traceback: str | None = None


class ConfigError(MutoscopeError, ValueError):
    """What was asked for cannot be: correct the arguments. Nothing was started or changed."""


class BadPayloadError(ConfigError):
    """A command's payload does not fit its declared fields, or cannot be encoded."""


class UnknownCommandError(MutoscopeError, LookupError):
    """Nobody handles this command, or the named target does not exist."""


class UnsupportedPlatformError(MutoscopeError, NotImplementedError):
    """This operating system has no implementation of the ring yet."""


class BackendUnavailableError(MutoscopeError, ImportError):
    """A named backend cannot load here; the message carries the command that installs it."""


class ScopeStateError(MutoscopeError, RuntimeError):
    """The scope is not in a state that allows this: started twice, or not running."""


class ClosedError(MutoscopeError):
    """You closed this object; open a new one."""


class PeerDiedError(MutoscopeError, ConnectionError):
    """The process at the other end ended without being asked to."""


class RemoteError(MutoscopeError):
    """An exception of another process whose class this process does not know.

    Parameters
    ----------
    type_name : str
        The class name there.
    message : str
        What it said.
    """

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(type_name, message)
        self.type_name = type_name
        self.message = message

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}"


class CommandTimeoutError(MutoscopeError, TimeoutError):
    """A command was not answered in time; it may still be carried out."""


class FrameTimeoutError(MutoscopeError, TimeoutError):
    """No frame came in time."""


class FramesLostError(MutoscopeError):
    """Frames that this reader was to have are gone.

    Parameters
    ----------
    first_id : int
        The first lost ``frame_id``.
    count : int
        How many, consecutive from there.
    reason : str
        Why, in the ledger's words (``"overrun"``, ``"detached"``, …).
    """

    def __init__(self, first_id: int, count: int, reason: str = "overrun") -> None:
        super().__init__(first_id, count, reason)
        self.first_id = first_id
        self.count = count
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.count} frame(s) lost from frame_id {self.first_id} ({self.reason})"


class RingFullError(MutoscopeError):
    """No slot came free in time: a lossless reader holds them all."""


class RingClosedError(ClosedError):
    """The ring's owner closed it, or died."""


class RingSizeError(ConfigError, MemoryError):
    """The ring does not fit in the memory that is free; the message holds the numbers."""


class LeaseLimitError(MutoscopeError):
    """This reader already holds as many frames as its cap allows: release some first."""


class BufferUnavailableError(MutoscopeError):
    """No slot is free for this exposure: it is missed, and counted so."""


class CameraError(MutoscopeError):
    """A camera refused or failed; the message is its own. `retry` says whether opening it again may help."""

    retry: bool = False


class CameraBusyError(CameraError):
    """The camera is held by another process, or has not yet noticed that its last holder died: open it again soon."""

    retry = True


class DatasetError(MutoscopeError):
    """A data set is damaged, empty, or not of a kind that can be read."""


class DatasetExistsError(ConfigError, FileExistsError):
    """A data set of this name exists already: choose another, or say overwrite or resume."""


class DatasetNotFoundError(ConfigError, FileNotFoundError):
    """There is no data set of this name."""


class DiskFullError(MutoscopeError, OSError):
    """The disk is full: this append failed, everything acknowledged before is stored."""


class ViewerUnavailableError(MutoscopeError, ConnectionError):
    """There is no viewer: it cannot be started, it was closed, or it ended; the message says which, and where its log is."""


class ViewerTimeoutError(MutoscopeError, TimeoutError):
    """The viewer did not show, or answer, in time; it may still do so."""


class ItemsFailedError(MutoscopeError):
    """Items were not shown: the message names the first of them and why, `Progress.failures` names them all."""


class ErrorRecord(msgspec.Struct, frozen=True):
    """An error on its way between processes: class name, arguments that are plain values, text, traceback."""

    type_name: str
    arguments: tuple[str | int | float | bool | None, ...]
    message: str
    traceback: str = ""


def to_record(error: BaseException, traceback: str = "") -> ErrorRecord:
    """Describe an exception in plain values.

    Parameters
    ----------
    error : BaseException
        Any exception.
    traceback : str
        Its formatted traceback.
    """
    text = _text(error)
    arguments: tuple[Any, ...] = error.args
    if isinstance(error, OSError) and len(arguments) == 2 and isinstance(error.filename, str):
        arguments = (*arguments, error.filename)  # which is not among its args
    if not all(isinstance(value, str | int | float | bool | None) for value in arguments):
        arguments = (text,)
    return ErrorRecord(type(error).__name__, tuple(arguments), text, traceback)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001  (whatever the author of the class made of it: what went wrong first is told)
        return f"its text cannot be made: __str__ raised {type(second).__name__}"


def from_record(record: ErrorRecord) -> Exception:
    """Rebuild the exception that `record` describes.

    Returns
    -------
    Exception
        Of its own class when that is one of this module or a builtin, else a :class:`RemoteError`. Its
        ``remote_traceback`` is the traceback of the process that raised it.
    """
    error = _rebuild(record)
    error.remote_traceback = record.traceback or None  # type: ignore[attr-defined]
    if record.traceback:
        error.add_note(f"in the other process:\n{record.traceback}")
    return error


def _rebuild(record: ErrorRecord) -> Exception:
    known = globals().get(record.type_name) if record.type_name in __all__ else None
    kind = known or getattr(builtins, record.type_name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return RemoteError(record.type_name, record.message)
    try:
        error = kind(*record.arguments)
        str(error)
    except Exception:  # noqa: BLE001  (the arguments came from outside: each class has its own way of refusing them)
        return RemoteError(record.type_name, record.message)
    return error
