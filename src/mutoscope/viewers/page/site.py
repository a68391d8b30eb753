"""The page by HTTP: its files, the cookie, and the door to the WebSocket. Everybody is checked here."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import logging
import mimetypes
import re
import socket as sockets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import WSCloseCode, web

from mutoscope.viewers.page.access import CONTROL, Access, Visitor
from mutoscope.viewers.page.door import Door
from mutoscope.viewers.page.messages import MESSAGE_BYTES, SUBPROTOCOL, encode
from mutoscope.viewers.page.moderation import Moderation

__all__ = ["STATIC", "Site"]

log = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("_static")
HEARTBEAT_S = 20.0
CONNECTIONS = 64
LONGEST_PATH = 200
SHARE_S = 30 * 24 * 3600.0
QUIET_S = 5.0
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HASHED = re.compile(r"[-.][A-Za-z0-9_-]{8,}\.[a-z0-9]+$")
_GO_ON = "location.replace(location.pathname)"
_GO_ON_HASH = base64.b64encode(hashlib.sha256(_GO_ON.encode()).digest()).decode()
_NO_FRONT_END = (
    "The page's front end is not part of this installation: it is built when Mutoscope is installed. The scope runs, and other "
    "programs can connect."
)
_ADDRESS_NEEDED = "This page opens with the address that the scope printed, which ends in ?token=…"
_WRONG_TOKEN = "This address is not, or no longer, valid: take the one that the scope printed, or ask for a new link."

Connect = Callable[[web.WebSocketResponse, Visitor, str, asyncio.BaseTransport | None], Awaitable[None]]


class Site:
    """Serves the page on a listening socket.

    Parameters
    ----------
    access : Access
        Who may come in.
    connect : callable(socket, visitor, address, transport)
        Talks to a client until it goes.
    """

    def __init__(self, access: Access, connect: Connect) -> None:
        self._access = access
        self._connect = connect
        self._sockets: set[web.WebSocketResponse] = set()
        self._refused: Counter[str] = Counter()
        self._said = 0.0
        self._runner: web.AppRunner | None = None
        self._door: Door | None = None
        self._moderation = Moderation()
        mimetypes.add_type("text/javascript", ".js")
        mimetypes.add_type("application/wasm", ".wasm")
        mimetypes.add_type("font/woff2", ".woff2")

    async def start(self, listener: sockets.socket) -> asyncio.Task[None]:
        """Serve from now on. Returns what goes on until :meth:`stop`; the socket is closed then."""
        self._moderation.begin()
        app = web.Application(client_max_size=4096, middlewares=[self._checked])
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await self._runner.setup()
        assert self._runner.server is not None
        self._door = Door(listener, self._runner.server, self._turned_out)
        return self._door.task

    async def stop(self, message: str) -> None:
        """Say goodbye to everyone and stop serving."""
        goodbyes = [socket.close(code=WSCloseCode.GOING_AWAY, message=message.encode()[:120]) for socket in self._sockets]
        if goodbyes:
            await asyncio.wait([asyncio.ensure_future(goodbye) for goodbye in goodbyes], timeout=0.5)
        if self._door is not None:
            await self._door.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._moderation.end()
        self.say_refused(now=True)
        if self._moderation.held:
            log.warning("%d lines about clients were left out", self._moderation.held)

    # -- checks

    @web.middleware
    async def _checked(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            response = await handler(request)
        except web.HTTPException as refusal:
            refusal.headers.update(_headers(refusal.content_type))
            raise
        if not response.prepared:
            response.headers.update(_headers(response.content_type))
        return response

    def _refuse(self, kind: type[web.HTTPException], why: str, text: str, request: web.Request) -> web.HTTPException:
        """Note a refusal for the log, where many are told together, and return it."""
        self._refused[f"{why} (from {request.remote})"] += 1
        self.say_refused()
        page = f"<!doctype html><html lang=en><meta charset=utf-8><title>Mutoscope</title><p>{html.escape(text)}</p></html>\n"
        return kind(text=page, content_type="text/html")

    def _turned_out(self) -> None:
        self._refused["a connection that asked for nothing, or long ago"] += 1
        self.say_refused()

    def say_refused(self, *, now: bool = False) -> None:
        """Write who was refused into the log, at most once in a while."""
        if self._refused and (now or time.monotonic() - self._said > QUIET_S):
            self._said = time.monotonic()
            told = ", ".join(f"{count} x {why}" for why, count in self._refused.most_common(10))
            self._refused.clear()
            log.warning("refused %s", told)

    def _visitor(self, request: web.Request) -> tuple[Visitor | None, bool]:
        """Return who asks, and whether it is a browser with its cookie."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._access.visitor(token.strip()), False
        return self._access.visitor(request.cookies.get(self._access.cookie)), True

    # -- pages

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        if not self._access.is_own_host(host):
            raise self._refuse(web.HTTPForbidden, "a foreign Host", "This page does not answer to that name.", request)
        if origin is not None and not self._access.is_own_origin(origin, host):
            raise self._refuse(web.HTTPForbidden, "a foreign Origin", "This page answers its own pages only.", request)
        path = self._path(request)
        if "token" in request.query and path == "" and request.method == "GET":
            return self._welcome(request, host)
        visitor, by_cookie = self._visitor(request)
        if visitor is None:
            raise self._refuse(web.HTTPUnauthorized, "no valid token", _ADDRESS_NEEDED, request)
        assert self._door is not None
        self._door.let_in(request.transport)
        try:
            if path == "ws" and request.method == "GET":
                return await self._open(request, visitor, origin, by_cookie)
            if path == "share" and request.method == "POST":
                return self._share(request, visitor)
            if request.method not in ("GET", "HEAD"):
                raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"])
            return self._file(path, request)
        finally:
            self._door.wait(request.transport)

    def _path(self, request: web.Request) -> str:
        """The path below the page's own address, whether a proxy has taken its base path away or not."""
        path = request.path
        base = self._access.base
        if base and (path == base or path.startswith(base + "/")):
            path = path[len(base) :]
        return path.removeprefix("/")

    def _welcome(self, request: web.Request, host: str) -> web.Response:
        token = request.query["token"]
        visitor = self._access.visitor(token)
        if visitor is None:
            raise self._refuse(web.HTTPUnauthorized, "a wrong token", _WRONG_TOKEN, request)
        response = web.Response(
            text=f"<!doctype html><html lang=en><meta charset=utf-8><title>Mutoscope</title><script>{_GO_ON}</script>"
            '<noscript><a href="./">Go on</a></noscript></html>\n',
            content_type="text/html",
        )
        public = self._access.is_public(host)
        response.set_cookie(
            self._access.cookie,
            token,
            httponly=True,
            samesite="Strict",
            secure=public and self._access.public_is_secure,
            path=(self._access.base if public else "") or "/",
            max_age=None if visitor.expires is None else max(1, int(visitor.expires - time.time())),
        )
        return response

    def _share(self, request: web.Request, visitor: Visitor) -> web.Response:
        if visitor.role != CONTROL:
            raise self._refuse(web.HTTPForbidden, "a view token that shares", "Only control may share the page.", request)
        try:
            seconds = float(request.query.get("seconds", "3600"))
        except ValueError:
            seconds = -1.0
        if not 0 < seconds <= SHARE_S:
            raise self._refuse(web.HTTPBadRequest, "a bad time", "A link lasts from 1 second to 30 days.", request)
        log.info("a link that only looks was made for %.0f s (from %s)", seconds, request.remote)
        return web.Response(text=encode({"token": self._access.share(seconds)}), content_type="application/json")

    def _file(self, path: str, request: web.Request) -> web.StreamResponse:
        parts = path.split("/") if path else ["index.html"]
        file = STATIC.joinpath(*parts) if len(path) <= LONGEST_PATH and all(_PART.fullmatch(part) for part in parts) else None
        if file is None or not file.is_file() or not file.resolve().is_relative_to(STATIC.resolve()):
            if parts == ["index.html"]:
                raise self._refuse(web.HTTPServiceUnavailable, "no front end", _NO_FRONT_END, request)
            raise web.HTTPNotFound(text="There is no such file.\n")
        response = web.FileResponse(file)
        hashed = _HASHED.search(parts[-1]) is not None and len(parts) > 1
        response.headers["Cache-Control"] = "private, max-age=31536000, immutable" if hashed else "no-store"
        return response

    # -- the WebSocket

    async def _open(self, request: web.Request, visitor: Visitor, origin: str | None, by_cookie: bool) -> web.StreamResponse:
        if by_cookie and origin is None:
            raise self._refuse(web.HTTPForbidden, "a WebSocket without Origin", "A browser says its Origin.", request)
        if SUBPROTOCOL not in [each.strip() for each in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]:
            text = f"This page speaks {SUBPROTOCOL}: load it again."
            raise self._refuse(web.HTTPBadRequest, "another subprotocol", text, request)
        if len(self._sockets) >= CONNECTIONS:
            raise self._refuse(web.HTTPServiceUnavailable, "too many connections", "Too many are connected.", request)
        socket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,), heartbeat=HEARTBEAT_S, max_msg_size=MESSAGE_BYTES, compress=False, timeout=0.5
        )
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            await self._connect(socket, visitor, request.remote or "", request.transport)
        finally:
            self._sockets.discard(socket)
        return socket


def _headers(content_type: str) -> dict[str, str]:
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    if content_type == "text/html":
        headers["Cache-Control"] = "no-store"
        headers["X-Frame-Options"] = "DENY"
        headers["Content-Security-Policy"] = (
            f"default-src 'self'; script-src 'self' 'sha256-{_GO_ON_HASH}' 'wasm-unsafe-eval'; "
            "style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data: blob:; worker-src 'self' blob:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        )
    return headers
