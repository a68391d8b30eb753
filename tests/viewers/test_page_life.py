"""The page's process may die, and clients may sleep: the camera and the recording never notice."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import aiohttp
import pytest
from page_client import DEADLINE_S, SUBPROTOCOL, PageClient, connect, split

import mutoscope as ms
from mutoscope.cameras import SimulatedCamera
from mutoscope.model import Points, Roi
from mutoscope.runtime import RoiChanged
from polling import until

POINT = {"id": "kept", "geometry": {"type": "points", "points": [[1.0, 2.0]]}}
READERS = 10


class Find(ms.Command):
    """Find something."""


class Finder(ms.Worker):
    """Finds a ROI when it is told to."""

    @ms.handles(Find, page=True)
    def find(self, command: Find) -> None:
        self.publish(RoiChanged(roi=Roi("found", Points([(3.0, 4.0)])), origin=self.name))


class Answer(ms.Command):
    """Answer with these words, as soon as there is such a file."""

    words: str
    file: str


class Waiter(ms.Worker):
    """Answers late."""

    @ms.handles(Answer, page=True)
    def answer(self, command: Answer) -> str:
        until(lambda: os.path.exists(command.file), timeout_s=4 * DEADLINE_S)
        return command.words


def pid_of_page(scope: ms.Scope) -> int:
    return next(status.pid for status in scope.status() if status.name == "page" and status.state == "running")


def test_a_page_that_is_killed_is_back_at_the_same_address(tmp_path: Path):
    async def before(url: str) -> None:
        async with connect(url) as page:
            await page.ask("lease", take=True)
            await page.ask("put_roi", stream="camera", roi=POINT)
            await page.ask("command", command="Find")
            await page.message("roi", lambda each: each.get("roi", {}).get("id") == "found")
            await page.ask("remove_roi", stream="camera", roi_id="found")

    async def killed(scope: ms.Scope, url: str) -> None:
        base, _ = split(url)
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            async with session.get(url) as welcome:
                assert welcome.status == 200
            socket = await session.ws_connect(base + "ws", protocols=[SUBPROTOCOL], origin=base.rstrip("/"))
            page = PageClient(socket)
            uptime_s = (await page.message("state"))["uptime_s"]
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
            texts = [line["text"] for each in again.texts if each["type"] == "log" for line in each["lines"]]
            assert sum("page is back after" in text for text in texts) == 1, texts
            assert (await again.message("state"))["uptime_s"] >= uptime_s
            assert not any(each["type"] == "roi" for each in again.texts), "what was removed comes back"
            await again.socket.close()
            await again._reader

    camera = SimulatedCamera(shape=(16, 24), rate_hz=200)
    with ms.Scope(camera=camera, workers=[Finder], record=tmp_path / "run.ome.zarr", page=True) as scope:
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


def test_a_supervisor_that_is_stopped_for_a_while_costs_no_client_its_connection(tmp_path: Path):
    async def look(scope: ms.Scope, url: str) -> None:
        async with connect(url) as page:
            await page.message("state")
            os.kill(scope.supervisor_pid, signal.SIGSTOP)
            try:
                took_s = 0.0
                while took_s < 1.0:  # until the page has waited for the supervisor, and given up
                    started = time.monotonic()
                    await page.ask("ping")
                    took_s = time.monotonic() - started
                    await asyncio.sleep(0.05)
            finally:
                os.kill(scope.supervisor_pid, signal.SIGCONT)
            await page.message("state", after=len(page.texts))
            await page.ask("ping")

    with ms.Scope(camera=SimulatedCamera(shape=(16, 24), rate_hz=100), record=tmp_path / "run.ome.zarr", page=True) as scope:
        assert scope.page_url is not None
        asyncio.run(look(scope, scope.page_url))
        assert next(each.restarts for each in scope.status() if each.name == "page") == 0
    assert scope.result is not None
    assert scope.result.errors == []


def test_what_a_killed_page_had_asked_answers_nobody_else(tmp_path: Path):
    file = tmp_path / "now"

    async def ask(page: PageClient, words: str) -> None:
        await page.ask("lease", take=True)
        await page.send("command", id=1000, command="Answer", fields={"words": words, "file": str(file)}, timeout_s=120.0)
        await page.ask("saving", on=True)  # so the supervisor has had the command

    async def again(url: str) -> str:
        for _ in range(300):
            try:
                async with connect(url) as page:
                    await ask(page, "for the second")
                    file.touch()
                    reply = await page.message("reply", lambda each: each["id"] == 1000)
                    return str(reply["value"])
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
        pytest.fail("the page did not come back")

    async def look(scope: ms.Scope, url: str) -> str:
        async with connect(url) as page:
            await ask(page, "for the first")
            os.kill(pid_of_page(scope), signal.SIGKILL)
            await page.until_closed()
        return await again(url)

    with ms.Scope(camera=SimulatedCamera(shape=(16, 24)), workers=[Waiter], page=True) as scope:
        assert scope.page_url is not None
        assert asyncio.run(look(scope, scope.page_url)) == "for the second"
