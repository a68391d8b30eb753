"""Addresses of viewers on other computers, and ZeroMQ, which reaches them."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from typing import Any

from mutoscope.model import arguments
from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.model.install import install_command

__all__ = ["PREFIX", "Address", "address_of", "check_descriptors", "is_remote", "load_zmq"]

PREFIX = "tcp://"
_DESCRIPTORS = 32
"""That a context, its threads and sockets need, and some more, as other threads open files meanwhile."""
_FORM = re.compile(r"(?:tcp://)?(?:(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9_*][A-Za-z0-9_.-]*):)?(?P<port>[0-9]{1,5})/?")


@dataclass(frozen=True)
class Address:
    """Where a viewer listens.

    Parameters
    ----------
    host : str
        A name or a number, without brackets.
    port : int
        0, to listen at any that is free.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"{PREFIX}[{self.host}]:{self.port}" if ":" in self.host else f"{PREFIX}{self.host}:{self.port}"

    def resolve(self) -> list[str]:
        """Return the numeric addresses that ZeroMQ takes, the likeliest first.

        Raises
        ------
        OSError
            If the name is not known.
        """
        found = []
        for _, _, _, _, where in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            text = str(Address(str(where[0]), self.port))
            if text not in found:
                found.append(text)
        return found


def is_remote(address: object) -> bool:
    """Whether this names a viewer by where it listens, and not by its name on this computer."""
    return isinstance(address, str) and address.startswith(PREFIX)


def address_of(text: str, *, listens: bool = False) -> Address:
    """Return an address: ``tcp://host:port``; to listen, what follows ``tcp://`` will do, or a port: of this computer only.

    Raises
    ------
    ConfigError
        If it is none.
    """
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    port = int(match["port"]) if match is not None else -1
    if match is None or not (0 if listens else 1) <= port <= 65535 or not (listens or (match["host"] and is_remote(text))):
        example = "tcp://0.0.0.0:5680, or a port alone for this computer" if listens else "tcp://microscope-pc:5680"
        raise ConfigError(f"an address of a viewer is such as {example}, not {arguments.shown(text)}")
    host = (match["host"] or "127.0.0.1").strip("[]")
    if host == "*":
        host = "0.0.0.0"
    return Address(host, port)


def check_descriptors() -> None:
    """Raise OSError where there are too few file descriptors left for a connection: ZeroMQ would end the process then."""
    taken: list[int] = []
    try:
        for _ in range(_DESCRIPTORS):
            taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    finally:
        for fd in taken:
            os.close(fd)


def load_zmq() -> Any:
    """Return ZeroMQ.

    Raises
    ------
    BackendUnavailableError
        If it is not installed, or cannot encrypt.
    """
    try:
        import zmq
    except ImportError as error:
        raise BackendUnavailableError(f"viewers on another computer need pyzmq: {install_command('pyzmq')}") from error
    if not zmq.has("curve"):
        raise BackendUnavailableError("this pyzmq was built without encryption (CURVE): install the one of PyPI")
    return zmq
