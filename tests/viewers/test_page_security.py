"""Who is refused by the page: without a token, with a wrong one, from elsewhere, with what is no message. It lives on."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from page_client import SUBPROTOCOL, Refused, connect, split

import mutoscope as ms
from mutoscope.bench.page_fuzz import CUT_OFF, POINT, fuzz
from mutoscope.cameras import SimulatedCamera
from mutoscope.viewers.page.access import Access
from mutoscope.viewers.page.site import STATIC

PUBLIC = "https://lab.example/scopes/one/"
PAGE = 200 if (STATIC / "index.html").is_file() else 503
"""What the page itself is answered with: 503 where the front end was not built."""
FUZZED = 2000
"""Of the 20,000 messages that ``mutoscope bench page`` sends."""


@pytest.fixture(scope="module")
def scope(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ms.Scope]:
    folder = tmp_path_factory.mktemp("page")
    cameras = {"eye": SimulatedCamera(shape=(16, 24), rate_hz=100)}
    with ms.Scope(cameras=cameras, record=folder / "run.ome.zarr", page=True) as running:
        running.acquire(frames=3)
        yield running


@pytest.fixture
def url(scope: ms.Scope) -> str:
    assert scope.page_url is not None
    return scope.page_url


def log_of(scope: ms.Scope) -> str:
    assert scope.folder is not None
    return (scope.folder / "scope.log").read_text(encoding="utf-8")


async def alive(url: str) -> None:
    async with connect(url) as page:
        await page.message("hello")
        await page.ask("ping")


@asynccontextmanager
async def browser(url: str) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """A session with the cookie, as a browser has it."""
    base, _ = split(url)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.get(url) as welcome:
            assert welcome.status == 200
            cookie = welcome.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
            assert cookie.startswith("mutoscope-")
            assert "token" not in (await welcome.text())
        yield session, base


async def status_of(session: aiohttp.ClientSession, url: str, **options: object) -> int:
    async with session.get(url, **options) as answer:  # type: ignore[arg-type]
        await answer.read()
        return answer.status


def test_only_this_computer_is_listened_to(url: str):
    port = int(split(url)[0].rsplit(":", 1)[1].strip("/"))
    with open("/proc/net/tcp", encoding="ascii") as table:
        listening = [line.split()[1] for line in table if line.split()[3] == "0A"]
    assert [each for each in listening if each.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_tokens_and_cookies(url: str, scope: ms.Scope):
    async def look() -> None:
        base, token = split(url)
        async with aiohttp.ClientSession() as stranger:
            for path in ("", "ws", "assets/app.js", "share"):
                assert await status_of(stranger, base + path) == 401, path
            for wrong in ("", "x", token[:-1], token + "x", "ü" * 10, "A" * 5000, "a.b", token.swapcase()):
                assert await status_of(stranger, base, params={"token": wrong}) == 401
                bearer = {"Authorization": f"Bearer {wrong}".encode("ascii", "replace").decode()}
                assert await status_of(stranger, base + "ws", headers=bearer) == 401
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await stranger.ws_connect(base + "ws", protocols=[SUBPROTOCOL])
            assert refused.value.status == 401
        async with browser(url) as (session, _):
            assert await status_of(session, base) == PAGE
            async with session.ws_connect(base + "ws", protocols=[SUBPROTOCOL], origin=base.rstrip("/")) as ws:
                assert (await ws.receive_json())["type"] == "hello"
        await alive(url)

    asyncio.run(look())
    assert "no valid token" in log_of(scope)
    assert split(url)[1] not in log_of(scope)


def test_foreign_hosts_origins_and_forged_sockets(url: str):
    async def look() -> None:
        base, token = split(url)
        here = base.removeprefix("http://").strip("/")
        port = here.rsplit(":", 1)[1]
        async with browser(url) as (session, _):
            # With the token beside it, so that nothing but the Host is refused; the cookie belongs to another name.
            bearer = {"Authorization": f"Bearer {token}"}
            for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "[::1", "user@127.0.0.1"):
                assert await status_of(session, base, headers={"Host": host, **bearer}) == 403, host
            for host in (f"localhost:{port}", "127.0.0.1:9999"):  # the second one is a forwarded port
                assert await status_of(session, base, headers={"Host": host, **bearer}) == PAGE, host
            for origin in (
                "http://evil.example",
                "null",
                f"https://{here}",
                f"http://{here}.evil.example",
                "file://",
                "http://",
            ):
                assert await status_of(session, base, headers={"Origin": origin}) == 403, origin
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await session.ws_connect(base + "ws", protocols=[SUBPROTOCOL], origin=origin)
                assert refused.value.status == 403
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:  # a cookie without Origin is no browser's
                await session.ws_connect(base + "ws", protocols=[SUBPROTOCOL])
            assert refused.value.status == 403
            for protocols in ((), ("mutoscope.page.2",)):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await session.ws_connect(base + "ws", protocols=protocols, origin=base.rstrip("/"))
                assert refused.value.status == 400
        await alive(url)

    asyncio.run(look())


def raw(url: str, request: bytes, *, to_its_end: bool = True) -> bytes:
    """Send bytes as they are, and return what comes back; or send no more, and see the connection end."""
    host, port = split(url)[0].removeprefix("http://").strip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        if not to_its_end:
            connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_no_file_but_the_pages_own(url: str):
    _, token = split(url)
    paths = (
        "/../../../../etc/passwd", "/..%2f..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/worker.py", "//etc/passwd",
        "/assets/../../worker.py", "/.git/config", "/assets/%00", "/worker.py", "/_static/index.html",
        "/assets/..\\..\\worker.py", "/~root",
    )  # fmt: skip
    for path in paths:
        answer = raw(
            url,
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode(),
        )
        assert answer.split(b" ", 2)[1] in (b"400", b"404"), (path, answer[:200])
        assert b"root:" not in answer
        assert b"import" not in answer
    asyncio.run(alive(url))


def test_what_is_no_http_at_all(url: str):
    rng = random.Random(1)
    for request in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET",
        b"GET / HTTP/9.9\r\n\r\n",
        b"A" * 70000,
        b"\r\n" * 1000,
        rng.randbytes(3000),
    ):
        raw(url, request, to_its_end=False)
    asyncio.run(alive(url))


def test_a_link_that_looks_changes_nothing_and_expires(url: str, scope: ms.Scope):
    async def look() -> None:
        base, token = split(url)
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
            async with session.post(base + "share", params={"seconds": "3.0"}) as answer:
                shared = (await answer.json(content_type=None))["token"]
            for wrong in ("0", "-1", "nan", "inf", "1e99", "x"):
                async with session.post(base + "share", params={"seconds": wrong}) as answer:
                    assert answer.status == 400, wrong
        made = time.monotonic()
        async with connect(f"{base}?token={shared}") as page:
            hello = await page.message("hello")
            assert hello["role"] == "view"
            assert hello["expires_utc_ms"] > 0
            for kind, fields in (
                ("lease", {"take": True}), ("acquire", {}), ("stop_acquisition", {}), ("saving", {"on": False}),
                ("folder", {"folder": "a"}),
                ("setting", {"stream": "eye", "setting": "x", "value": 1}), ("command", {"command": "x"}), ("stop_scope", {}),
                ("put_roi", {"stream": "eye", "roi": {"id": "a", "geometry": POINT}}),
                ("remove_roi", {"stream": "eye", "roi_id": "a"}), ("allow_restart", {"worker": "x"}),
            ):  # fmt: skip
                with pytest.raises(Refused) as refused:
                    await page.ask(kind, **fields)
                assert refused.value.code == "role", kind
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {shared}"}) as session:
                async with session.post(base + "share") as answer:
                    assert answer.status == 403
            assert await page.until_closed() == 4001
            assert time.monotonic() - made >= 2.0
        async with aiohttp.ClientSession() as session:
            assert await status_of(session, base, params={"token": shared}) == 401

    asyncio.run(look())
    assert scope.running
    assert "was refused: this link only looks" in log_of(scope)


def test_shared_tokens_cannot_be_made_up():
    ours = Access("127.0.0.1", "token", "view", b"secret")
    other = Access("127.0.0.1", "token", "view", b"other secret")
    shared = ours.share(60)
    assert ours.visitor(shared) is not None
    assert ours.visitor(shared).role == "view"
    assert other.visitor(shared) is None
    rng = random.Random(2)
    for _ in range(200):
        letters = list(shared)
        place = rng.randrange(len(letters))
        letters[place] = rng.choice([each for each in "ABCDabcd0123-_" if each != letters[place]])
        changed = ours.visitor("".join(letters))
        assert changed is None or changed == ours.visitor(shared)  # the last letter has bits that say nothing
    assert ours.visitor(ours.share(-1)) is None


def test_behind_a_proxy():
    access = Access("127.0.0.1", "token", "", b"secret", PUBLIC)
    assert access.base == "/scopes/one"
    for host in ("lab.example", "127.0.0.1:8000", "localhost"):
        assert access.is_own_host(host)
        assert access.is_own_origin("https://lab.example", host)
    assert not access.is_own_origin("http://lab.example", "lab.example:80")
    assert not access.is_own_origin("https://other.example", "lab.example")


def test_what_is_no_message_is_refused_and_the_page_lives(url: str, scope: ms.Scope):
    base, token = split(url)
    _, codes = asyncio.run(fuzz(base, token, "eye", FUZZED, seed=3))
    assert codes == {CUT_OFF}
    asyncio.run(alive(url))
    page = next(each for each in scope.status() if each.name == "page")
    assert page.restarts == 0, page
    assert "malformed messages" in log_of(scope)


def test_a_message_that_is_too_large_ends_its_connection(url: str):
    async def look() -> None:
        async with connect(url) as page:
            await page.socket.send_str(json.dumps({"type": "ping", "id": 1, "extra": "x" * (1 << 20)}))
            assert await page.until_closed() == 1009
        await alive(url)

    asyncio.run(look())


def test_every_page_is_shut_off_from_others(url: str):
    async def look() -> None:
        async with browser(url) as (session, base):
            for path in ("", "nothing"):
                async with session.get(base + path) as answer:
                    assert answer.headers["X-Content-Type-Options"] == "nosniff"
                    assert answer.headers["Referrer-Policy"] == "no-referrer"
            async with session.get(url) as answer:
                assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
                assert answer.headers["Cache-Control"] == "no-store"

    asyncio.run(look())


def test_a_port_that_is_taken_is_refused_in_one_sentence(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sources = {"eye": ms.SourceSettings((4, 4), "uint8")}
        with pytest.raises(ms.errors.ConfigError, match=f"cannot listen on 127.0.0.1, port {port}"):
            ms.Scope(sources=sources, page=ms.PageSettings(port=port)).start()


def test_strangers_do_not_fill_the_log(tmp_path: Path):
    with ms.Scope(camera=SimulatedCamera(shape=(16, 24), rate_hz=100), record=tmp_path / "run.ome.zarr", page=True) as running:
        assert running.page_url is not None
        base, token = split(running.page_url)
        for _ in range(200):
            raw(running.page_url, b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 9000 + b"\r\n\r\n")

        async def insist() -> None:
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
                async with session.post(base + "share", params={"seconds": "600"}) as answer:
                    shared = (await answer.json(content_type=None))["token"]
            async with connect(f"{base}?token={shared}") as page:
                for _ in range(300):
                    with pytest.raises(Refused):
                        await page.ask("stop_acquisition")
            for _ in range(60):
                await alive(running.page_url or "")

        asyncio.run(insist())
    log = log_of(running)
    assert "no HTTP was refused" in log
    assert "Traceback" not in log
    assert "were left out" in log
    written = sum("page: " in line for line in log.splitlines())
    assert 40 <= written < 400, "620 lines would have been written, with 200 tracebacks"
    assert len(log) < 60_000
