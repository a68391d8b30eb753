"""The supervisor's side of the scope's web page: the listening socket and the tokens, which outlive the page's process."""

from __future__ import annotations

import ipaddress
import secrets
import socket

from mutoscope.model.errors import ConfigError
from mutoscope.runtime import control
from mutoscope.runtime.spec import PageSpec

__all__ = ["Page", "address_of", "listen", "local_address_of", "name_of"]

BACKLOG = 128


class Page:
    """Where the page of a scope listens, and who may come in. The supervisor owns it and closes it.

    Parameters
    ----------
    spec : PageSpec
        Where it is to listen.
    scope : str
        The scope's name, for messages.

    Raises
    ------
    ConfigError
        If it cannot listen there.
    """

    def __init__(self, spec: PageSpec, scope: str) -> None:
        self.spec = spec
        self.listener = listen(spec.host, spec.port, f"the page of {scope}")
        token = secrets.token_urlsafe(32)
        self.access = control.PageAccess(
            page=spec,
            url=f"{address_of(spec, self.listener.getsockname()[1])}?token={token}",
            token=token,
            view_token=secrets.token_urlsafe(32),
            secret=secrets.token_bytes(32),
        )

    def close(self) -> None:
        """Stop listening."""
        self.listener.close()


def listen(host: str, port: int, what: str) -> socket.socket:
    """Listen on an address of this computer, IPv4 or IPv6; the caller closes it.

    Parameters
    ----------
    host : str
        A name or a number.
    port : int
        0 for any that is free.
    what : str
        What listens, for the message.

    Raises
    ------
    ConfigError
        If nothing can listen there.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{what} cannot listen on {host}, port {port}: {why}; choose another with --port, or 0 for any that is free"
        ) from error


def name_of(host: str) -> str:
    """Return how others call what listens on `host`: this computer's own name where that is any of its addresses.

    Examples
    --------
    >>> name_of("127.0.0.1"), name_of("lab-pc"), name_of("0.0.0.0") == name_of("::") == socket.gethostname()
    ('127.0.0.1', 'lab-pc', True)
    """
    number = _number(host)
    return socket.gethostname() if number is not None and number.is_unspecified else host


def address_of(spec: PageSpec, port: int) -> str:
    """Return the address under which the page is found, with a slash at its end.

    Examples
    --------
    >>> address_of(PageSpec(worker="page"), 8765), address_of(PageSpec(worker="page", public_url="https://lab.example/a"), 1)
    ('http://127.0.0.1:8765/', 'https://lab.example/a/')
    """
    return spec.public_url.rstrip("/") + "/" if spec.public_url is not None else _address(name_of(spec.host), port)


def local_address_of(spec: PageSpec, port: int) -> str:
    """Return the address under which programs of this computer find the page, also where others go through a proxy.

    Examples
    --------
    >>> local_address_of(PageSpec(worker="page", host="0.0.0.0"), 8765), local_address_of(PageSpec(worker="page", host="::"), 1)
    ('http://127.0.0.1:8765/', 'http://[::1]:1/')
    """
    number = _number(spec.host)
    if number is None or not number.is_unspecified:
        return _address(spec.host, port)
    return _address("127.0.0.1" if number.version == 4 else "::1", port)


def _address(host: str, port: int) -> str:
    number = _number(host)
    return f"http://[{host}]:{port}/" if number is not None and number.version == 6 else f"http://{host}:{port}/"


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
