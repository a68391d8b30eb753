"""What a user may say of the page."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from urllib.parse import urlsplit

from mutoscope.model import arguments
from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.model.install import command_for
from mutoscope.viewers.display import Display

__all__ = ["HISTORY_BYTES", "LEASE_S", "PageSettings", "check_available"]

HISTORY_BYTES = 256 * 1024 * 1024
LEASE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """Where the page of a scope listens, and what it keeps.

    Parameters
    ----------
    port : int
        0 for any that is free.
    host : str
        The address to listen on. By default this computer only; ``"0.0.0.0"`` for everyone who can reach it, then without
        encryption: put a TLS proxy in front of it, or forward a port.
    public_url : str, optional
        The address under which a proxy shows the page, with its path: ``"https://lab.example/scope1/"``.
    history_bytes : int
        Memory for frames of cameras that are not recorded, to look back at; 0 for none.
    lease_s : float
        How long a client keeps control after its last command.
    display : Display, optional
        How it begins: contrast, look-up table, cameras side by side or over each other.

    Raises
    ------
    ConfigError
        If one of them cannot be.
    """

    port: int = 0
    host: str = "127.0.0.1"
    public_url: str | None = None
    history_bytes: int = HISTORY_BYTES
    lease_s: float = LEASE_S
    display: Display | None = None

    def __post_init__(self) -> None:
        if arguments.whole("the page's port", self.port, 0) > 65535:
            raise ConfigError(f"the page's port must be 65535 or less, not {self.port}")
        if not arguments.text("the page's host", self.host):
            raise ConfigError("the page's host is an address such as '127.0.0.1', not an empty text")
        arguments.whole("history_bytes of the page", self.history_bytes, 0)
        arguments.more_than_zero("lease_s of the page", self.lease_s)
        if self.display is not None and not isinstance(self.display, Display):
            raise ConfigError(f"the page's display is a mutoscope.viewers.Display, not {arguments.shown(self.display)}")
        if self.public_url is not None:
            check_public_url(arguments.text("the page's public_url", self.public_url))


def check_public_url(url: str) -> None:
    """Raise ConfigError unless this can be the address of a page behind a proxy.

    Examples
    --------
    >>> check_public_url("https://lab.example/scope1/")
    >>> check_public_url("lab.example")
    Traceback (most recent call last):
    mutoscope.model.errors.ConfigError: a public URL is an address such as 'https://lab.example/scope1/', not 'lab.example'
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
        good = good and parts.username is None and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or any(letter.isspace() for letter in url):
        raise ConfigError(f"a public URL is an address such as 'https://lab.example/scope1/', not {url!r}")


def check_available() -> None:
    """Raise BackendUnavailableError, with the command that installs what is missing, where the page cannot be served."""
    if importlib.util.find_spec("aiohttp") is None:
        raise BackendUnavailableError(f"the page needs aiohttp: {command_for('page', 'aiohttp')}")
