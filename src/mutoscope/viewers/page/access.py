"""Who may come in: hosts, origins, tokens with a role, and the cookie that stands for one."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
import struct
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from mutoscope.runtime.page import name_of

__all__ = ["CONTROL", "VIEW", "Access", "Visitor"]

CONTROL, VIEW = "control", "view"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SHARED = struct.Struct("<d8s")
_MAX_TOKEN = 512


@dataclass(frozen=True)
class Visitor:
    """Somebody with a token: the role that it gives, and when it ends (seconds since 1970), if it does."""

    role: str
    expires: float | None = None

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and time.time() >= self.expires


class Access:
    """The page's rules of who may come in.

    Parameters
    ----------
    host : str
        Where the page listens.
    token, view_token : str
        The tokens of the two roles; empty for none.
    secret : bytes
        With which links that expire are signed, so that they hold after a restart of the page's process.
    public_url : str, optional
        The address that a proxy gives it.
    """

    def __init__(self, host: str, token: str, view_token: str, secret: bytes, public_url: str | None = None) -> None:
        self._tokens = [(known, role) for known, role in ((token, CONTROL), (view_token, VIEW)) if known]
        self._secret = secret
        parts = urlsplit(public_url) if public_url is not None else None
        self.base = parts.path.rstrip("/") if parts is not None else ""
        self.public_origin = f"{parts.scheme}://{parts.netloc}".lower() if parts is not None else None
        self._public_host = parts.netloc.lower() if parts is not None else None
        self.public_is_secure = parts is not None and parts.scheme == "https"
        self._names = _LOOPBACK | {host.lower(), name_of(host).lower()}
        self._any_number = not _is_loopback(host)
        self.cookie = f"mutoscope-{hashlib.sha256(secret).hexdigest()[:10]}"

    # -- tokens

    def visitor(self, token: str | None) -> Visitor | None:
        """Return who has this token, or None."""
        if not token or len(token) > _MAX_TOKEN or not token.isascii():
            return None
        for known, role in self._tokens:
            if hmac.compare_digest(known.encode(), token.encode()):
                return Visitor(role)
        return self._shared(token)

    def share(self, seconds: float) -> str:
        """Return a token that only looks, for so many seconds."""
        body = _SHARED.pack(time.time() + seconds, secrets.token_bytes(8))
        return _text(body + self._sign(body))

    def _shared(self, token: str) -> Visitor | None:
        try:
            signed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        body = signed[: _SHARED.size]
        if len(body) != _SHARED.size or not hmac.compare_digest(self._sign(body), signed[_SHARED.size :]):
            return None
        visitor = Visitor(VIEW, _SHARED.unpack(body)[0])
        return None if visitor.expired else visitor

    def _sign(self, body: bytes) -> bytes:
        return hmac.new(self._secret, body, hashlib.sha256).digest()[:24]

    # -- hosts and origins

    def is_own_host(self, host: str | None) -> bool:
        """Whether a ``Host`` header names this page: the proxy's name, or an address of this computer with any port.

        A name that somebody else's name server could point here is refused.
        """
        if not host:
            return False
        if host.lower() == self._public_host:
            return True
        try:
            parts = urlsplit(f"//{host}")
            name = (parts.hostname or "").lower()
            _ = parts.port
        except ValueError:
            return False
        if parts.path or parts.query or parts.username is not None:
            return False
        return name in self._names or (self._any_number and _is_number(name))

    def is_public(self, host: str | None) -> bool:
        """Whether a ``Host`` header is the proxy's."""
        return host is not None and host.lower() == self._public_host

    def is_own_origin(self, origin: str, host: str) -> bool:
        """Whether a page of this ``Origin`` is one of ours, if it asks `host`."""
        if self.public_origin is not None and origin.lower() == self.public_origin:
            return True
        if self.is_public(host):
            return False
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme == "http" and parts.netloc.lower() == host.lower() and self.is_own_host(host)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
