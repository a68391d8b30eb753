"""Where a page is found: by the address that is printed, by programs of this computer, or by neither announcement nor harm."""

from __future__ import annotations

import asyncio
import http.client
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from page_client import connect, split

import mutoscope as ms
from mutoscope.runtime.page import listen
from mutoscope.viewers.announce import announced


def status_of(port: int, host: str, token: str) -> int:
    """Ask for the page on this computer's loopback, by the name that a browser would give."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/", headers={"Host": host, "Authorization": f"Bearer {token}"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_page_for_everyone_answers_to_the_name_that_is_printed() -> None:
    page = ms.PageSettings(host="0.0.0.0")
    with ms.Scope(sources={"eye": ms.SourceSettings((4, 4), "uint8")}, page=page) as scope:
        assert scope.page_url is not None
        base, token = split(scope.page_url)
        place = urlsplit(base)
        assert place.port is not None
        assert place.hostname == socket.gethostname().lower()
        assert status_of(place.port, place.netloc, token) in (200, 503)  # 503: without the front end
        assert status_of(place.port, f"evil.example:{place.port}", token) == 403
        asyncio.run(_ping(f"http://127.0.0.1:{place.port}/?token={token}"))  # its process has announced it by then
        (found,) = [each for each in announced("page") if each.token == token]
        assert (found.address, found.link) == (f"http://127.0.0.1:{place.port}/", base)


async def _ping(url: str) -> None:
    async with connect(url) as page:
        await page.message("state")


def test_a_page_that_cannot_be_announced_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    foreign = tmp_path / "mutoscope"
    foreign.mkdir(mode=0o777)
    foreign.chmod(0o777)
    record = tmp_path / "run.ome.zarr"
    with ms.Scope(sources={"eye": ms.SourceSettings((4, 4), "uint8")}, record=record, page=True) as scope:
        assert scope.page_url is not None
        asyncio.run(_ping(scope.page_url))
        assert [each.restarts for each in scope.status() if each.name == "page"] == [0]
        assert scope.folder is not None
        assert f"could not be announced: {foreign} is not a folder of yours alone" in (scope.folder / "scope.log").read_text()
    assert scope.result is not None
    assert scope.result.errors == []


def test_every_page_listens_on_names_and_numbers_of_both_kinds() -> None:
    for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        with listen(host, 0, "the page") as listener:
            assert (listener.family, listener.getsockname()[0]) == (family, host)
    with pytest.raises(ms.errors.ConfigError, match=r"the page cannot listen on 192\.0\.2\.1, port 0: .*; choose another"):
        listen("192.0.2.1", 0, "the page")
