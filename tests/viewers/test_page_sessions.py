"""What clients of a page have in common, with real connections and nothing else of a scope, in one loop."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from page_client import SUBPROTOCOL, connect, split

from mutoscope.viewers.page.access import Access
from mutoscope.viewers.page.sessions import Sessions
from mutoscope.viewers.page.site import Site
from mutoscope.viewers.page.tables import TableDesk


class Something:
    """What is shown: nothing, until it cannot even be said."""

    broken = False
    words = ""

    def hello(self) -> dict[str, Any]:
        if self.broken:
            raise RuntimeError("there is no hello any more")
        return {"scope": self.words}

    def state(self) -> dict[str, Any]:
        return {}

    async def perform(self, who: str, message: Any) -> Any:
        raise NotImplementedError

    def roi_changed(self, *_: Any) -> None:
        raise NotImplementedError


@asynccontextmanager
async def serving(shown: Something) -> AsyncIterator[tuple[Sessions, str]]:
    """Serve it; gives the address with the token."""
    listener, token = socket.create_server(("127.0.0.1", 0)), secrets.token_urlsafe()
    sessions = Sessions(shown, [], {}, TableDesk(lambda _: None), lease_s=1.0, limits={})  # type: ignore[arg-type, return-value]
    site = Site(Access("127.0.0.1", token, "", b"secret"), sessions.connect)
    await site.start(listener)
    running = asyncio.ensure_future(sessions.run())
    try:
        yield sessions, f"http://127.0.0.1:{listener.getsockname()[1]}/?token={token}"
    finally:
        running.cancel()
        await site.stop("over")
        sessions.close()


def test_a_client_whose_messages_cannot_be_made_is_cut_off_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    async def look() -> None:
        shown = Something()
        async with serving(shown) as (sessions, url), connect(url) as page:
            await page.message("hello")
            shown.broken = True
            sessions.hello_changed()
            assert await page.until_closed() == 1011
            shown.broken = False
            async with connect(url) as other:
                await other.ask("ping")

    asyncio.run(look())
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "c1 is cut off" in record.getMessage()
    assert record.exc_info is not None
    assert "no hello" in str(record.exc_info[1])


def test_what_everyone_is_told_is_encoded_once() -> None:
    class Counted:
        encoded = 0

        def __str__(self) -> str:
            Counted.encoded += 1
            return "value"

    async def look() -> None:
        async with serving(Something()) as (sessions, url), connect(url) as one, connect(url) as other:
            for page in (one, other):
                await page.message("hello")
            sessions._tell_all({"type": "news", "value": Counted()})
            for page in (one, other):
                assert (await page.message("news"))["value"] == "value"

    asyncio.run(look())
    assert Counted.encoded == 1


@pytest.mark.parametrize("how", ["asks for more and more", "stops"])
def test_a_client_that_takes_nothing_is_cut_off_with_4003(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "stops":
        monkeypatch.setattr("mutoscope.viewers.page.sessions.STUCK_S", 0.05)

    async def look() -> None:
        shown = Something()
        shown.words = "x" * (6 << 20)
        async with serving(shown) as (sessions, url), aiohttp.ClientSession() as session:
            base, token = split(url)
            bearer = {"Authorization": f"Bearer {token}"}
            lazy = await session.ws_connect(base + "ws", protocols=[SUBPROTOCOL], headers=bearer, max_msg_size=0)
            while (client := sessions.clients.get(1)) is None:
                await asyncio.sleep(0)
            for each, option in ((lazy, socket.SO_RCVBUF), (client.transport, socket.SO_SNDBUF)):
                assert each is not None
                each.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, 1 << 16)
            number = 0
            sessions.hello_changed()
            while not client.closing:  # it reads the first message, and the next one is more than the buffers on the way take
                if how == "asks for more and more":
                    number += 1
                    await lazy.send_json({"type": "ping", "id": number})
                await asyncio.sleep(0)
            while (message := await lazy.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
            assert (message.type, lazy.close_code) == (aiohttp.WSMsgType.CLOSE, 4003)
            shown.words = ""
            async with connect(url) as other:
                await other.ask("ping")

    asyncio.run(asyncio.wait_for(look(), 20))
