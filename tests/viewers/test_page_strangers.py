"""Connections of strangers: however many there are, and however long they stay, the page goes on, and its clients come in."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from page_client import DEADLINE_S, connect, split
from page_scope import page_of, scope_with_page, url_of

import mutoscope as ms
from mutoscope.viewers.page.door import WAITING


@pytest.fixture
def scope(tmp_path: Path) -> Iterator[ms.Scope]:
    with scope_with_page(tmp_path) as running:
        yield running


def test_strangers_who_connect_and_stay_keep_nobody_out(scope: ms.Scope) -> None:
    base, _ = split(url_of(scope))
    host, port = base.removeprefix("http://").strip("/").split(":")
    pid = page_of(scope).pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    few = WAITING + 100
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, hard))
    strangers: list[socket.socket] = []

    async def look() -> None:
        async with connect(url_of(scope)) as page:
            for number in range(2 * WAITING):
                stranger = socket.create_connection((host, int(port)), timeout=DEADLINE_S)
                strangers.append(stranger)
                if number % 2:
                    stranger.sendall(b"GET / HTTP/1.1\r\nHost: ")  # half of a request
            async with connect(url_of(scope)) as other:
                await other.ask("ping")
                await other.message("state")
            for number in range(WAITING + 10):  # nor do those whose requests were answered
                strangers.append(socket.create_connection((host, int(port)), timeout=DEADLINE_S))
                strangers[-1].sendall(f"GET /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                assert strangers[-1].recv(1000).startswith(b"HTTP/1.1 401")
            await page.ask("ping")
            await page.message("state", after=len(page.texts))

    try:
        asyncio.run(look())
    finally:
        for each in strangers:
            each.close()
    assert (page_of(scope).pid, page_of(scope).restarts) == (pid, 0)
    assert scope.folder is not None
    assert "x a connection that asked for nothing" in (scope.folder / "scope.log").read_text(encoding="utf-8")


def test_a_name_that_is_too_long_for_a_file_is_not_found(scope: ms.Scope) -> None:
    base, token = split(url_of(scope))

    async def look() -> None:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
            for name in ("a" * 300 + ".js", "a/" * 2500, "assets/" + "b" * 255):
                async with session.get(base + name) as answer:
                    assert answer.status == 404, name

    asyncio.run(look())
    assert scope.folder is not None
    assert "Traceback" not in (scope.folder / "scope.log").read_text(encoding="utf-8")
