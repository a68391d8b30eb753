"""What is done on the page of ``mutoscope demo``: the acquisition is stopped, and goes on in another folder."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import zarr
from page_client import connect

FRAMES = 20


def test_an_acquisition_that_is_stopped_on_the_page_can_go_on_there(tmp_path: Path) -> None:
    first = tmp_path / "run.ome.zarr"
    options = ["--shape", "32", "48", "--rate-hz", "50", "--out", str(first), "--json"]
    command = [sys.executable, "-m", "mutoscope", "demo", *options]

    async def look(url: str) -> int:
        async with connect(url) as page:
            await page.ask("lease", take=True, name="Ada")
            await page.message("state", lambda each: each["streams"]["camera"]["stored"])
            await page.ask("stop_acquisition")
            state = await page.message(
                "state",
                lambda each: not each["scope"]["acquiring"] and not each["streams"]["camera"]["pending"],
                after=len(page.texts),
            )
            before: int = state["streams"]["camera"]["stored"]
            await page.ask("folder", folder="dish 2")
            await page.ask("acquire", frames=FRAMES)
            await page.message(
                "state",
                lambda each: each["streams"]["camera"]["stored"] == before + FRAMES and not each["scope"]["acquiring"],
            )
            return before

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        try:
            before = asyncio.run(look(demo.stderr.readline().removeprefix("the page: ").strip()))
            said = demo.stderr.readline()
            assert said.startswith("recording to "), said
            said = demo.stderr.readline()
            assert said.startswith("the acquisition was stopped on the page, where it can go on"), said
            demo.send_signal(signal.SIGINT)
            out, told = demo.communicate(timeout=60)
            assert demo.returncode == 0, told
        finally:
            demo.kill()
    assert json.loads(out.splitlines()[-1])["stored"] == before + FRAMES
    second = tmp_path / "dish 2" / "run.ome.zarr"
    ids = [zarr.open_array(path / "frames" / "frame_id", mode="r")[:] for path in (first, second)]
    assert [int(each) for each in ids[0]] == list(range(1, before + 1))
    assert [int(each) for each in ids[1]] == list(range(before + 1, before + FRAMES + 1))
