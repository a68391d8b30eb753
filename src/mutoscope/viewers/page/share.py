"""Links to a page for other people: they only look, and expire."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import msgspec

from mutoscope.model.errors import ConfigError, ScopeStateError
from mutoscope.viewers.watching.scopes import running_scope

__all__ = ["share"]

TIMEOUT_S = 10.0


def share(scope: str | None, seconds: float) -> str:
    """Return a link to the page of a scope that runs on this computer, as this user.

    Parameters
    ----------
    scope : str, optional
        Its name, or the beginning of it, or the port of its page; needed where several have a page.
    seconds : float
        How long the link holds.

    Raises
    ------
    ConfigError
        If there is no such scope, several, or the time cannot be.
    ScopeStateError
        If its page does not answer.
    """
    page = running_scope(scope)
    place = urlsplit(page.address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port or 80, timeout=TIMEOUT_S)
    try:
        connection.request(
            "POST", f"{place.path}share?seconds={seconds:.3f}", headers={"Authorization": f"Bearer {page.token}"}
        )
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise ScopeStateError(f"the page of {page.name} does not answer: {error}") from error
    finally:
        connection.close()
    if answer.status == http.client.BAD_REQUEST:
        raise ConfigError("a link holds from 1 second to 30 days")
    if answer.status != http.client.OK:
        raise ScopeStateError(f"the page of {page.name} does not share: it answered {answer.status}")
    token: str = msgspec.json.decode(content)["token"]
    return f"{page.link}?token={token}"
