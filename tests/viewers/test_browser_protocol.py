"""What the page of a viewer says to a client that is written from ``docs/page-protocol.md``."""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_client import PageClient, Refused, connect

from mutoscope.model.roi import Line, Roi
from mutoscope.viewers import Display
from mutoscope.viewers.sink import ViewerSink, open_viewer
from mutoscope.viewers.suite import name_of, plane_of

SHAPE = (12, 17)
REST = {"well": "A01", "field": "1", "channel": "1"}


@pytest.fixture
def sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ViewerSink]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    display = Display(t_s=3.0, pixel_size_um=0.5, axis_names={"t": "time"}, contrast=(5, 500), lut="viridis")
    sink = open_viewer("browser", filenames="imagexpress", timeout_s=60.0, display=display)
    yield sink
    sink.close(leave_open=False)


def talk(sink: ViewerSink, say: Callable[[PageClient], Any]) -> None:
    async def run() -> None:
        async with connect(sink.link) as page:
            await say(page)

    asyncio.run(run())


def times_of(hello: dict[str, Any]) -> list[str]:
    """The values of the axis t."""
    axes = [axis for window in hello["windows"] for axis in window["axes"] if axis["name"] == "t"]
    return [value for axis in axes for value in axis["values"]]


async def hello_with(page: PageClient, streams: int, after: int = 0) -> dict[str, Any]:
    return await page.message("hello", lambda each: len(each["streams"]) == streams, after)


def test_planes_are_asked_for_by_a_value_of_each_axis(sink: ViewerSink) -> None:
    for t, z in ((2, 1), (10, 1), (10, 3)):
        sink.save(plane_of(10 * t + z, SHAPE), name_of(t=t, z=z), source="raw", until="displayed")

    async def say(page: PageClient) -> None:
        hello = await hello_with(page, 1)
        assert (hello["mode"], hello["role"], hello["record"]) == ("dataset", "view", None)
        (window,), (stream,) = hello["windows"], hello["streams"]
        axes = {axis["name"]: axis for axis in window["axes"]}
        assert list(axes) == stream["axes"] == ["well", "field", "t", "channel", "z"]
        assert axes["t"] == {"name": "t", "title": "time", "values": ["2", "10"], "step": 3.0, "unit": "s"}
        assert (stream["title"], stream["window"], stream["colours"]) == ("raw", window["name"], 1)
        assert stream["look"] == {"lut": "viridis", "contrast": [5.0, 500.0]}
        assert stream["pixel_size_um"] == 0.5
        name = stream["name"]
        index = await page.ask("index", stream=name)
        assert (index["shape"], index["frames"], index["gaps"]) == ([1, 1, 2, 1, 2], 3, [[2, 1]])
        await page.send("view", stream=name, crop=[2, 3, 11, 15], step=2)
        answer = await page.ask("seek", stream=name, at={**REST, "t": "10", "z": "3"})
        assert answer["frame_id"] == 4
        frame = await page.frame()
        assert np.array_equal(frame.pixels, plane_of(103, SHAPE)[2:11:2, 3:15:2])
        assert frame.plane == (1, 0, 1, -1)
        got = await page.ask("pixel", stream=name, y=4, x=5, at={"t": "10"})  # of others, the first
        assert got == {"frame_id": 3, "text": str(plane_of(101, SHAPE)[4, 5]), "number": float(plane_of(101, SHAPE)[4, 5])}
        for at, words in (({"t": "2", "z": "3"}, "has not come"), ({"t": "5"}, "has no t '5'")):
            with pytest.raises(Refused, match=words) as refused:
                await page.ask("seek", stream=name, at=at)
            assert refused.value.code == "unknown"
        with pytest.raises(Refused) as refused:
            await page.ask("seek", stream=name, at={"t": "2"}, number=0)
        assert refused.value.code == "malformed"
        # Ids are others once an axis has grown, values are not.
        await asyncio.to_thread(sink.save, plane_of(51, SHAPE), name_of(t=5, z=1), source="raw", until="displayed")
        await page.message("hello", lambda each: times_of(each) == ["2", "5", "10"])
        assert await page.message("changed", lambda each: each["layers"] == {name: None}) is not None
        assert (await page.ask("seek", stream=name, at={"t": "10", "z": "3"}))["frame_id"] == 6
        assert np.array_equal(page.frames[-1].pixels, plane_of(103, SHAPE)[2:11:2, 3:15:2])
        # A plane in its place is told by its values.
        await asyncio.to_thread(sink.save, plane_of(53, SHAPE), name_of(t=5, z=3), source="raw", until="displayed")
        await page.message("changed", lambda each: each["layers"] == {name: [["A01", "1", "5", "1", "3"]]})

    talk(sink, say)


def test_rois_of_a_plane_and_colours(sink: ViewerSink) -> None:
    colour = plane_of(1, (*SHAPE, 4), "uint16")
    line = Roi("a", Line((0.1, 0.2), (4.0, 6.0)))
    sink.save(colour, name_of(z=1), source="stained")
    sink.save([line], name_of(z=2), source="stained", until="displayed")

    async def say(page: PageClient) -> None:
        (stream,) = (await hello_with(page, 1))["streams"]
        assert stream["colours"] == 3
        (layer,) = stream["roi_layers"]
        assert await page.ask("plane_rois", layer=layer, at={"z": "1"}) == {"rois": [], "more": 0}
        (found,) = (await page.ask("plane_rois", layer=layer, at={"z": "2"}))["rois"]
        assert (found["id"], found["geometry"]) == ("a", {"type": "line", "start": [0.1, 0.2], "end": [4.0, 6.0]})
        for bad, at in (("none", {}), (layer, {"z": "7"})):
            with pytest.raises(Refused) as refused:
                await page.ask("plane_rois", layer=bad, at=at)
            assert refused.value.code == "unknown"
        await page.ask("seek", stream=stream["name"], at={"z": "1"})
        assert np.array_equal(page.frames[-1].pixels, colour[..., :3] >> 8)
        value = await page.ask("pixel", stream=stream["name"], y=1, x=2, at={"z": "1"})
        assert (value["text"], value["number"]) == (", ".join(map(str, colour[1, 2].tolist())), None)
        for change in ({"type": "put_roi", "stream": stream["name"], "roi": {}}, {"type": "stop_scope"}):
            with pytest.raises(Refused) as refused:
                await page.ask(change.pop("type"), **change)
            assert refused.value.code == "role"

    talk(sink, say)


def test_a_picture_is_taken_from_who_was_asked_and_only_whole(sink: ViewerSink) -> None:
    sink.save(np.full(SHAPE, 500, "uint16"), name_of(), source="raw", until="displayed")
    picture = plane_of(2, (30, 40, 3), "uint8")
    packed = zlib.compress(picture.tobytes())
    parts = [base64.b64encode(each).decode() for each in (packed[:100], packed[100:])]

    async def complain(page: PageClient, number: int, words: str, **fields: Any) -> None:
        heard = len(page.texts)
        told = {"shape": [30, 40], "part": 0, "parts": 1, "data": "", **fields}
        await page.send("picture", request=number, **told)
        error = await page.message("error", after=heard)
        assert words in error["message"]

    async def say(page: PageClient) -> None:
        await hello_with(page, 1)
        await complain(page, 1, "was not asked for")
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(sink.screenshot)
            number = (await page.message("picture"))["request"]
            await complain(page, number, "is not part 0", part=1, parts=2)
            await complain(page, number, "is not part 0", shape=[1 << 15, 1 << 15])
            await complain(page, number + 1, "was not asked for")
            for part, data in enumerate(parts):
                await page.send("picture", request=number, shape=[30, 40], part=part, parts=2, data=data)
            assert np.array_equal(await asyncio.wrap_future(asked), picture)
            # No picture, less than it says, and far more: that one is painted here instead.
            bomb = base64.b64encode(zlib.compress(bytes(1 << 26))).decode()
            assert len(bomb) < 1 << 20
            for bad in ("%%%", parts[0], bomb):
                heard = len(page.texts)
                asked = pool.submit(sink.screenshot)
                number = (await page.message("picture", after=heard))["request"]
                await complain(page, number, "no picture", data=bad)
                painted = await asyncio.wrap_future(asked)
                assert painted.shape == (*SHAPE, 3)

    talk(sink, say)
