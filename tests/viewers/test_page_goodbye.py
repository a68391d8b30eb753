"""What is queued for a client is sent before its connection is closed; over a real connection, in one loop."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import web

from mutoscope.viewers.page.access import Visitor
from mutoscope.viewers.page.client import Client

PIECES, PIECE = 64, bytes(1 << 20)
"""More than the buffers of a connection take."""


def test_a_client_has_all_that_was_queued_before_it_counts_as_sent() -> None:
    async def look() -> None:
        came: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        over = asyncio.Event()

        async def serve(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            client = Client(1, Visitor("view", None), socket, "here", request.transport, lambda _: None)
            sender = asyncio.create_task(client.send_on())
            came.set_result(client)
            await over.wait()
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            assert client._sent.is_set(), "nobody waits for a sender that has ended"
            return socket

        app = web.Application()
        app.router.add_get("/", serve)
        runner = web.AppRunner(app, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{port}/", max_msg_size=0) as page:
            client = await came
            await asyncio.wait_for(client.sent(), 30)  # nothing was to be sent
            for _ in range(PIECES):
                client.say(bytearray(PIECE))
            client.say({"type": "ended"})
            sent = asyncio.ensure_future(client.sent())
            while client.sending_since is None:  # until the buffers are full: nobody reads, and most of it waits
                await asyncio.sleep(0)
            assert not sent.done()
            for _ in range(PIECES):
                assert len((await asyncio.wait_for(page.receive(), 30)).data) == len(PIECE)
            assert (await asyncio.wait_for(page.receive(), 30)).data == '{"type":"ended"}'
            await asyncio.wait_for(sent, 30)
            over.set()
        await runner.cleanup()

    asyncio.run(look())
