"""Which scope somebody means: one of this user's own that runs here, by its name, or any other by the link of its page."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit, urlunsplit

from mutoscope.model import arguments
from mutoscope.model.errors import ConfigError
from mutoscope.viewers.announce import Announced, announced

__all__ = ["ScopeAddress", "address_of", "checked_scope", "running_scope", "url_of"]


@dataclass(frozen=True)
class ScopeAddress:
    """Where the page of a scope is.

    Parameters
    ----------
    name : str
        Of the scope; of one that is only known by its link, the computer in it.
    url : str
        Of its page, with a slash at its end.
    token : str
        What lets a program in.
    """

    name: str
    url: str
    token: str

    @property
    def is_here(self) -> bool:
        """Whether the scope runs on this computer, as this user."""
        return any(page.token == self.token for page in announced("page"))

    @property
    def is_loopback(self) -> bool:
        """Whether its address leads nowhere on another computer."""
        return urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")


def running_scope(scope: str | None = None) -> Announced:
    """Return the page of a scope of this user that runs on this computer.

    Parameters
    ----------
    scope : str, optional
        Its name, or the beginning of it, or the port of its page; needed where several have a page.

    Raises
    ------
    ConfigError
        If there is no such scope, or several.
    """
    pages = announced("page")
    if not pages:
        raise ConfigError("no scope of yours runs on this computer with a page; one that was started with --headless has none")
    told = ", ".join(f"{page.name} (port {_port(page)})" for page in pages)
    of_port = [page for page in pages if scope == str(_port(page))]
    of_name = [page for page in pages if scope is None or page.name == scope]
    named = of_port or of_name or [page for page in pages if page.name.startswith(scope or "")]
    if not named:
        raise ConfigError(f"there is no page of a scope {scope!r}; there are: {told}")
    if len(named) > 1:
        raise ConfigError(f"several scopes have a page, say which by its name or its port: {told}")
    return named[0]


def _port(page: Announced) -> int | None:
    return urlsplit(page.address).port


def address_of(scope: str | None = None) -> ScopeAddress:
    """Return where a scope's page is.

    Parameters
    ----------
    scope : str, optional
        As for `running_scope`; or the link of a page, as ``mutoscope run`` and ``mutoscope share`` print it.

    Raises
    ------
    ConfigError
        If there is no such scope, several, or it is a link without a token.

    Examples
    --------
    >>> address_of("https://lab.example/scope1/?token=abc")
    ScopeAddress(name='lab.example', url='https://lab.example/scope1/', token='abc')
    >>> address_of("http://localhost:8123/?token=abc").url
    'http://127.0.0.1:8123/'
    """
    if scope is not None and "://" in checked_scope(scope):
        return _of_link(scope)
    page = running_scope(scope)
    return ScopeAddress(page.name, page.address, page.token)


def checked_scope(scope: str) -> str:
    """Return what names a scope; ConfigError if it is no text, or empty."""
    if not arguments.text("a scope", scope):
        raise ConfigError("the name of a scope is not empty; leave it out for the one that there is")
    return scope


def url_of(link: str) -> str:
    """Return the address of a page as `Watched.address` has it, without the token; raises ConfigError if it is no link."""
    return _parts(link)[0]


def _of_link(link: str) -> ScopeAddress:
    url, host, tokens = _parts(link)
    if len(tokens) != 1:
        raise _no_link(link)
    name = next((page.name for page in announced("page") if page.token == tokens[0]), host)
    return ScopeAddress(name, url, tokens[0])


def _parts(link: str) -> tuple[str, str, list[str]]:
    try:
        parts = urlsplit(link)
        host, _ = parts.hostname, parts.port  # each is checked when it is asked for
        tokens = parse_qs(parts.query).get("token", [])
    except ValueError:
        raise _no_link(link) from None
    if parts.scheme not in ("http", "https") or not host:
        raise _no_link(link)
    path = parts.path if parts.path.endswith("/") else parts.path + "/"
    netloc = parts.netloc
    if parts.scheme == "http" and host == "localhost":  # one scope has one address
        netloc = netloc.lower().replace("localhost", "127.0.0.1")
    return urlunsplit((parts.scheme, netloc, path, "", "")), host, tokens


def _no_link(link: str) -> ConfigError:
    return ConfigError(
        f"the link of a scope is that of its page, such as 'http://127.0.0.1:8123/?token=…', not {arguments.shown(link)}"
    )
