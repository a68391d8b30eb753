"""Frames of a running scope, as a client of the page gets them, against NumPy."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from page_client import PageClient, Refused, connect
from test_page_pixels import image

import mutoscope as ms
from mutoscope.cameras import SimulatedCamera

KINDS = ("uint8", "uint16", "float32", "int16", "int32", "float64")


def test_frames_of_every_type_are_numpys_crops(tmp_path: Path):
    shape = (40, 56)
    sources = {kind: ms.SourceSettings(shape, kind, rate_hz=20) for kind in KINDS}
    frames = {kind: image(kind, shape, 3) for kind in KINDS}

    async def look(scope: ms.Scope) -> None:
        assert scope.page_url is not None
        async with connect(scope.page_url) as page:
            hello = await page.message("hello")
            assert [stream["name"] for stream in hello["streams"]] == list(KINDS)
            for index, kind in enumerate(KINDS):
                told = hello["streams"][index]
                assert (told["shape"], told["dtype"], told["history"]) == (list(shape), kind, "recording")
                await page.send("view", stream=kind, crop=[4, 7, 30, 51], step=3)
                await page.send("credit", stream=kind, frames=1)
                await page.ask("ping")
                scope.source(kind).push(frames[kind])
                message = await page.frame(lambda each, index=index: each.stream == index)
                expected = frames[kind][4:30:3, 7:51:3].astype(np.float64)
                assert (message.crop, message.step, message.full) == ((4, 7, 30, 51), 3, shape)
                spread = np.ptp(expected) if kind == "int32" else 0.0
                np.testing.assert_allclose(message.values, expected, rtol=1e-6 if kind == "float64" else 0, atol=spread * 1e-7)
                value = await page.ask("pixel", stream=kind, y=5, x=9)
                assert value["frame_id"] == 1
                assert np.dtype(kind).type(value["text"]) == frames[kind][5, 9]

    with ms.Scope(sources=sources, record=tmp_path / "run.ome.zarr", page=True) as scope:
        asyncio.run(look(scope))


def test_a_client_gets_no_more_than_its_credit_and_always_the_newest(tmp_path: Path):
    async def look(scope: ms.Scope) -> None:
        assert scope.page_url is not None
        source = scope.source("eye")
        async with connect(scope.page_url) as page:
            for value in range(1, 4):
                source.push(np.full((4, 6), value, np.uint16))
            await page.send("credit", stream="eye", frames=2)
            await page.ask("ping")
            assert page.frames == []  # without a view nothing is sent
            await page.send("view", stream="eye")
            first = await page.frame()
            assert (first.frame_id, int(first.pixels[0, 0]), first.skipped) == (3, 3, 0)
            for value in range(4, 9):
                source.push(np.full((4, 6), value, np.uint16))
            second = await page.frame(after=1)
            assert 4 <= second.frame_id <= 8
            source.push(np.full((4, 6), 9, np.uint16))
            await page.message("state", lambda state: state["streams"]["eye"]["produced"] == 9)
            assert len(page.frames) == 2  # no credit, no frame
            await page.send("credit", stream="eye", frames=1)
            third = await page.frame(after=2)
            assert third.frame_id == 9
            assert third.skipped == 9 - second.frame_id - 1
            await page.send("credit", stream="eye", frames=1)
            await page.send("view", stream="eye", crop=[1, 1, 3, 4])
            again = await page.frame(after=3)  # another part of the newest frame, though no new one came
            assert (again.frame_id, again.pixels.shape, again.skipped) == (9, (2, 3), 0)
            outside = len(page.frames)
            await page.send("view", stream="eye", crop=[100, 100, 200, 200])
            await page.send("credit", stream="eye", frames=1)
            assert (await page.frame(after=outside)).pixels.size == 0

    with ms.Scope(sources={"eye": ms.SourceSettings((4, 6), "uint16", rate_hz=10)}, page=True) as scope:
        asyncio.run(look(scope))


def test_a_change_of_shape_is_told_and_shown():
    async def look(scope: ms.Scope) -> None:
        assert scope.page_url is not None
        source = scope.source("eye")
        async with connect(scope.page_url) as page:
            await page.send("view", stream="eye")
            await page.send("credit", stream="eye", frames=4)
            await page.ask("ping")
            source.push(np.ones((8, 8), np.uint16))
            assert (await page.frame()).full == (8, 8)
            source.push(np.ones((4, 6), np.uint8))
            changed = await page.frame(lambda each: each.full == (4, 6))
            assert changed.pixels.dtype == np.uint8
            hello = await page.message("hello", lambda each: each["streams"][0]["dtype"] == "uint8")
            assert hello["streams"][0]["shape"] == [4, 6]

    varying = ms.SourceSettings((8, 8), "uint16", rate_hz=10, varying=True)
    with ms.Scope(sources={"eye": varying}, page=True) as scope:
        asyncio.run(look(scope))


async def _seek_everywhere(page: PageClient, last: int) -> None:
    for asked, expected in (({"frame_id": 5}, 5), ({"number": 0}, 1), ({"number": -1}, last), ({"fraction": 1.0}, last)):
        value = await page.ask("seek", stream="eye", **asked)
        assert value["frame_id"] == expected
        frame = await page.frame(lambda each, expected=expected: each.request and each.frame_id == expected)
        assert frame.flags & 1
        np.testing.assert_array_equal(frame.pixels, np.full((4, 6), expected, np.uint16))
    index = await page.ask("index", stream="eye")
    assert (index["first_id"], index["last_id"], index["frames"], index["gaps"]) == (1, last, last, [])
    with pytest.raises(Refused) as refused:
        await page.ask("seek", stream="eye", frame_id=1, number=2)
    assert refused.value.code == "malformed"


def test_rewind_through_a_recording_that_goes_on(tmp_path: Path):
    async def look(scope: ms.Scope) -> None:
        assert scope.page_url is not None
        source = scope.source("eye")
        async with connect(scope.page_url) as page:
            with pytest.raises(Refused) as refused:
                await page.ask("seek", stream="eye", number=0)
            assert refused.value.code == "unknown"
            for last in (10, 20):
                while source.push(np.zeros((4, 6), np.uint16) + scope.ledger.cameras["eye"]["produced"] + 1) < last:
                    pass
                await page.message("state", lambda each, last=last: each["streams"]["eye"]["stored"] == last)
                await _seek_everywhere(page, last)

    record = tmp_path / "run.ome.zarr"
    with ms.Scope(sources={"eye": ms.SourceSettings((4, 6), "uint16", rate_hz=10)}, record=record, page=True) as scope:
        asyncio.run(look(scope))


def test_what_is_not_recorded_is_kept_for_a_while():
    async def look(scope: ms.Scope) -> None:
        assert scope.page_url is not None
        source = scope.source("eye")
        async with connect(scope.page_url) as page:
            assert (await page.message("hello"))["streams"][0]["history"] == "memory"
            for value in range(1, 8):
                source.push(np.full((64, 64), value, np.uint16))
                await page.message("state", lambda state, v=value: state["streams"]["eye"]["history"]["last_id"] == v)
            history = (await page.message("state", lambda each: each["streams"]["eye"]["produced"] == 7))["streams"]["eye"][
                "history"
            ]
            assert (history["frames"], history["bytes"]) == (4, 4 * 64 * 64 * 2)  # the oldest were forgotten
            assert (await page.ask("seek", stream="eye", frame_id=1))["frame_id"] == 4
            assert int((await page.frame()).pixels[0, 0]) == 4

    kept = ms.PageSettings(history_bytes=4 * 64 * 64 * 2)
    with ms.Scope(sources={"eye": ms.SourceSettings((64, 64), "uint16", rate_hz=10)}, page=kept) as scope:
        asyncio.run(look(scope))


def test_histograms_come_to_those_who_want_them():
    async def look(scope: ms.Scope) -> None:
        assert scope.page_url is not None
        async with connect(scope.page_url) as page, connect(scope.page_url) as other:
            for each in (page, other):
                await each.send("view", stream="camera", step=8)
                await each.send("credit", stream="camera", frames=4)
            await page.send("histogram", stream="camera", on=True)
            scope.start_acquisition()
            found = await page.message("histogram")
            assert sum(found["counts"]) == found["pixels"] == 64 * 64
            assert found["low"] <= found["auto"][0] <= found["auto"][1] <= found["high"]
            await other.message("state", lambda state: state["streams"]["camera"]["produced"] > 50)
            assert not [each for each in other.texts if each["type"] == "histogram"]

    with ms.Scope(camera=SimulatedCamera(shape=(64, 64), rate_hz=100), page=True) as scope:
        asyncio.run(look(scope))
