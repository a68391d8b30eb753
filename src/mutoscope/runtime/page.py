"""The supervisor's side of the scope's web page: the listening socket and the tokens, which outlive the page's process."""

from __future__ import annotations

import ipaddress
import secrets
import socket

from mutoscope.model.errors import ConfigError
from mutoscope.runtime import control
from mutoscope.runtime.spec import PageSpec

__all__ = ["Page", "address_of"]

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
        try:
            family, _, _, _, address = socket.getaddrinfo(
                spec.host, spec.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self.listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"the page of {scope} cannot listen on {spec.host}, port {spec.port}: {why}; choose another with --port, "
                "or 0 for any that is free"
            ) from error
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


def address_of(spec: PageSpec, port: int) -> str:
    """Return the address under which the page is found, with a slash at its end.

    Examples
    --------
    >>> address_of(PageSpec(worker="page"), 8765), address_of(PageSpec(worker="page", public_url="https://lab.example/a"), 1)
    ('http://127.0.0.1:8765/', 'https://lab.example/a/')
    """
    if spec.public_url is not None:
        return spec.public_url.rstrip("/") + "/"
    host = spec.host
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        if number.is_unspecified:
            host = socket.gethostname()
        elif number.version == 6:
            host = f"[{host}]"
    return f"http://{host}:{port}/"
