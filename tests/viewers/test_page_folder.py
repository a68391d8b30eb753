"""The folder of the next recording, chosen by a client of the page: by the protocol, and read back with zarr-python."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import zarr
from page_client import PageClient, Refused, connect

import mutoscope as ms
from mutoscope.app.run_report import write_report
from mutoscope.cameras import SimulatedCamera
from mutoscope.runtime import Ledger

FRAMES = 20


def ids_of(dataset: Path) -> list[int]:
    return [int(each) for each in zarr.open_array(dataset / "frames" / "frame_id", mode="r")[:] if each]


async def acquire(page: PageClient, stored: int) -> None:
    await page.ask("acquire", frames=FRAMES)
    await page.message("state", lambda each: each["streams"]["camera"]["stored"] == stored and not each["scope"]["acquiring"])


def test_the_next_recording_goes_to_the_folder_that_a_client_chose(tmp_path: Path) -> None:
    root = tmp_path / "data"
    first, second = root / "run.ome.zarr", root / "day2" / "dish1" / "run.ome.zarr"
    (root / "taken").mkdir(parents=True)
    with ms.Scope(sources={"eye": ms.SourceSettings((4, 4), "uint8")}, record=root / "taken" / "run.ome.zarr"):
        pass
    (root / "out").symlink_to(tmp_path)

    async def look(url: str) -> None:
        async with connect(url) as page:
            await page.ask("lease", take=True, name="Ada")
            await acquire(page, FRAMES)
            assert (await page.message("hello"))["record"]["subfolder"] == ""
            for folder in ("..", "/tmp", "a/../../b", "out", "run.ome.zarr", "day2\0", "", "a" * 999):
                with pytest.raises(Refused) as refused:
                    await page.ask("folder", folder=folder)
                said = refused.value.error["message"]
                assert "folder" in said
                assert len(said.splitlines()) == 1
                assert len(said) < 600
            with pytest.raises(Refused, match=r"taken/run\.ome\.zarr") as refused:
                await page.ask("folder", folder="taken")
            assert len(refused.value.error["message"].splitlines()) == 1
            await page.ask("acquire")
            with pytest.raises(Refused, match="when the acquisition has ended"):
                await page.ask("folder", folder="day2")
            await page.ask("stop_acquisition")
            state = await page.message(
                "state",
                lambda each: not each["scope"]["acquiring"] and not each["streams"]["camera"]["pending"],
                after=len(page.texts),
            )
            before = state["streams"]["camera"]["stored"]
            assert await page.ask("folder", folder="./day2//dish1") == str(second)
            hello = await page.message("hello", lambda each: each["record"]["subfolder"])
            assert (hello["record"]["path"], hello["record"]["subfolder"]) == (str(second), "day2/dish1")
            await acquire(page, before + FRAMES)
            found = await page.ask("seek", stream="camera", number=0)
            assert found["frame_id"] == before + 1
            history = (await page.message("state", after=len(page.texts)))["streams"]["camera"]["history"]
            assert (history["first_id"], history["frames"]) == (before + 1, FRAMES)

    with ms.Scope(camera=SimulatedCamera(shape=(16, 24), rate_hz=200), record=first, page=True) as scope:
        assert scope.page_url is not None
        asyncio.run(look(scope.page_url))
    assert scope.result is not None
    assert scope.result.errors == []
    ledger = scope.ledger
    assert ledger.exact, ledger.problems
    assert write_report(second) == write_report(first) == root / "run.mutoscope" / "report.html"
    ids = ids_of(first)
    assert ids == list(range(1, len(ids) + 1))
    assert ids_of(second) == list(range(len(ids) + 1, len(ids) + FRAMES + 1))
    assert ledger.produced == ledger.stored == len(ids) + FRAMES
    assert ledger.to_dict()["paths"] == [str(first), str(second)]
    for dataset in (first, second):
        saved = json.loads((dataset / "zarr.json").read_text())["attributes"]["mutoscope"]["ledger"]
        assert Ledger(saved).stored == ledger.stored
    words = write_report(root / "run.mutoscope").read_text()
    assert f"{ledger.stored} frames stored" in words
    assert "Every frame is accounted for" in words
    audit = [json.loads(line) for line in (root / "run.mutoscope" / "audit.jsonl").read_text().splitlines()]
    assert any(each["command"] == "scope.set_folder" and "Ada" in each["who"] for each in audit)
