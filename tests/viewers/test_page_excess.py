"""What a client of the page may say, and is too much: it is refused, and neither other clients nor the log suffer from it."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from page_client import Refused, connect
from page_scope import page_of, scope_with_page, url_of

import mutoscope as ms
from mutoscope.viewers.page.board import ROI_BYTES


@pytest.fixture
def scope(tmp_path: Path) -> Iterator[ms.Scope]:
    with scope_with_page(tmp_path) as running:
        yield running


def test_rois_are_never_more_than_whoever_comes_can_be_sent(scope: ms.Scope) -> None:
    bits = base64.b64encode(os.urandom(600_000)).decode()
    mask = {"type": "mask", "origin": [0, 0], "shape": [2000, 2400], "bits": bits}
    most = ROI_BYTES // len(bits)

    async def back_again() -> None:
        for _ in range(300):
            try:
                async with connect(url_of(scope)) as page:
                    assert len((await page.message("rois"))["rois"]) == most
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
        pytest.fail("the page did not come back with its ROIs")

    async def look() -> None:
        async with connect(url_of(scope)) as page:
            await page.ask("lease", take=True)
            for number in range(most):
                await page.ask("put_roi", stream="camera", roi={"id": f"m{number}", "geometry": mask})
            with pytest.raises(Refused, match=f"larger than {ROI_BYTES:,} bytes together"):
                await page.ask("put_roi", stream="camera", roi={"id": "more", "geometry": mask})
            await page.ask("put_roi", stream="camera", roi={"id": "m0", "geometry": mask})  # in the place of itself
            await page.ask("remove_roi", stream="camera", roi_id="m1")
            await page.ask("put_roi", stream="camera", roi={"id": "again", "geometry": mask})
            async with connect(url_of(scope)) as other:
                assert len((await other.message("rois"))["rois"]) == most
                await other.ask("ping")
        os.kill(page_of(scope).pid, signal.SIGKILL)
        await back_again()

    asyncio.run(look())


def test_no_name_writes_lines_of_its_own_into_the_log(scope: ms.Scope) -> None:
    name = "Ada\n2026-01-01T00:00:00Z ERROR  \x1b[31m\u202e"

    async def look() -> None:
        async with connect(url_of(scope)) as page:
            assert (await page.ask("lease", take=True, name=name))["name"] == "Ada 2026-01-01T00:00:00Z ERROR [31m"
            await page.ask("setting", stream="camera", setting="exposure_ms", value=5.0)
            with pytest.raises(Refused) as refused:
                await page.ask("setting", stream="camera", setting="exposure_ms", value="x" * 900_000)
            assert len(refused.value.error["message"]) < 1000
            await page.ask("stop_scope")
            await page.until_closed()

    asyncio.run(look())
    assert scope.wait(30.0)
    assert scope.folder is not None
    log = (scope.folder / "scope.log").read_text(encoding="utf-8")
    assert "asked by page: c1 Ada 2026" in log
    assert not any(line.startswith("2026-01-01") for line in log.splitlines())
    assert "\x1b" not in log
    assert "xxxxxxxxxx" * 30 not in log
