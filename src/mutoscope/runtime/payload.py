"""How a worker's class travels to its process: by import path, or by value when a script or a notebook cell defines it.

The bytes made here reach the child only inside its inherited start-up payload, never over a socket.
"""

from __future__ import annotations

import pickle
from typing import Any

from mutoscope.bus import dumps
from mutoscope.model.errors import ConfigError

__all__ = ["pack", "unpack"]


def pack(value: Any, what: str) -> bytes:
    """Pickle `value` for an inherited start-up payload.

    Parameters
    ----------
    value : object
        Usually a class and its settings.
    what : str
        How an error names it, for example ``"worker SpotCounter"``.

    Returns
    -------
    bytes
        By reference for what can be imported, by value for what ``__main__`` defines.

    Raises
    ------
    ConfigError
        If it cannot be pickled.
    """
    try:
        return dumps(value)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"{what} cannot be sent to its process: {error}") from error


def unpack(data: bytes, what: str) -> Any:
    """Load what :func:`pack` made. Only ever called on a payload inherited from the parent process.

    Raises
    ------
    ConfigError
        If a module or name in it cannot be imported in this process.
    """
    try:
        return pickle.loads(data)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{what} cannot be imported in its process: {error}") from error
