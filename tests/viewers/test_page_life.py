"""The page's process may die, and clients may sleep: the camera and the recording never notice."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import aiohttp
from page_client import DEADLINE_S, SUBPROTOCOL, PageClient, connect, split

import mutoscope as ms
from mutoscope.cameras import SimulatedCamera

POINT = {"id": "kept", "geometry": {"type": "points", "points": [[1.0, 2.0]]}}
READERS = 10


def pid_of_page(scope: ms.Scope) -> int:
    return next(status.pid for status in scope.status() if status.name == "page" and status.state == "running")


def test_a_page_that_is_killed_is_back_at_the_same_address(tmp_path: Path):
    async def before(url: str) -> None:
        async with connect(url) as page:
            await page.ask("lease", take=True)
            await page.ask("put_roi", stream="camera", roi=POINT)

    async def killed(scope: ms.Scope, url: str) -> None:
        base, _ = split(url)
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            async with session.get(url) as welcome:
                assert welcome.status == 200
            socket = await session.ws_connect(base + "ws", protocols=[SUBPROTOCOL], origin=base.rstrip("/"))
            page = PageClient(socket)
            await page.message("hello")
            os.kill(pid_of_page(scope), signal.SIGKILL)
            await page.until_closed()
            await page._reader
            again = PageClient(await session.ws_connect(base + "ws", protocols=[SUBPROTOCOL], origin=base.rstrip("/")))
            assert [each["roi"]["id"] for each in (await again.message("rois"))["rois"]] == ["kept"]
            await again.send("view", stream="camera")
            await again.send("credit", stream="camera", frames=1)
            await again.frame()
            lines = (await again.message("log"))["lines"]
            assert any("was killed by SIGKILL" in line["text"] for line in lines)  # what happened before it was there
            await again.socket.close()
            await again._reader

    with ms.Scope(camera=SimulatedCamera(shape=(16, 24), rate_hz=200), record=tmp_path / "run.ome.zarr", page=True) as scope:
        url = scope.page_url
        assert url is not None
        asyncio.run(before(url))
        scope.start_acquisition()
        asyncio.run(killed(scope, url))
        assert scope.page_url == url
        scope.stop_acquisition()
        assert scope.wait_acquisition(timeout_s=DEADLINE_S)
        camera = scope.ledger.cameras["camera"]
        assert camera["stored"] == camera["produced"]
    assert scope.result is not None
    assert scope.result.errors == []


async def _read_for(url: str, until: asyncio.Event, counts: list[int]) -> None:
    async with connect(url) as page:
        await page.send("view", stream="camera")
        await page.send("credit", stream="camera", frames=2)
        while not until.is_set():
            seen = len(page.frames)
            try:
                async with asyncio.timeout(0.5):
                    await page.until(lambda seen=seen: len(page.frames) > seen)
            except TimeoutError:
                continue
            await page.send("credit", stream="camera", frames=len(page.frames) - seen)
        counts.append(len(page.frames))


async def _sleep_for(url: str, until: asyncio.Event) -> None:
    """Ask for frames and read none: the bytes stay in the kernel."""
    base, token = split(url)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        socket = await session.ws_connect(base + "ws", protocols=[SUBPROTOCOL], max_msg_size=0)
        for _ in range(200):
            await socket.send_json({"type": "view", "stream": "camera"})
            await socket.send_json({"type": "credit", "stream": "camera", "frames": 4})
        await until.wait()
        await socket.close()


def test_clients_that_read_and_one_that_does_not_cost_the_recorder_no_frame(tmp_path: Path):
    frames = 1500

    async def look(scope: ms.Scope, url: str) -> list[int]:
        until, counts = asyncio.Event(), []
        clients = [asyncio.create_task(_read_for(url, until, counts)) for _ in range(READERS)]
        clients.append(asyncio.create_task(_sleep_for(url, until)))
        scope.start_acquisition(frames=frames)
        deadline = time.monotonic() + 2 * DEADLINE_S
        while not await asyncio.to_thread(scope.wait_acquisition, 0.5):
            assert time.monotonic() < deadline
        until.set()
        await asyncio.gather(*clients)
        return counts

    camera = SimulatedCamera(shape=(128, 128), rate_hz=500)
    with ms.Scope(camera=camera, record=tmp_path / "run.ome.zarr", page=True) as scope:
        assert scope.page_url is not None
        counts = asyncio.run(look(scope, scope.page_url))
        account = scope.ledger.cameras["camera"]
        page = account["consumers"]["page"]
    assert (account["produced"], account["stored"]) == (frames, frames)
    assert account["consumers"]["recorder"]["dropped"] == {}
    assert len(counts) == READERS
    assert min(counts) > 0
    assert page["offered"] == page["shown"] + page["skipped"]
    assert page["shown"] <= frames
