"""Stored data sets in the page, with no scope; and links that are shared."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from page_client import Refused, connect, split

import mutoscope as ms
from command_line import mutoscope
from mutoscope import storage
from mutoscope.cameras import SimulatedCamera
from mutoscope.viewers.announce import announce, announced, withdraw

SHAPE = (12, 20)
GAPS = (4, 5)


def frame_of(frame_id: int, dtype: str) -> np.ndarray:
    return (np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) + frame_id).astype(dtype)


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for announcements of the test's own."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder / "mutoscope"


@contextmanager
def served(dataset: Path, *options: str) -> Iterator[str]:
    """Run ``mutoscope view browser``; gives its address."""
    command = [sys.executable, "-m", "mutoscope", "view", "browser", str(dataset), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert line.startswith("the page: http://127.0.0.1:"), line + process.stderr.read()
            yield line.removeprefix("the page: ").strip()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 0
            assert process.stderr.read().startswith("Ctrl-C ends it\n")
        finally:
            process.kill()


@pytest.mark.parametrize("name", ["run.ome.zarr", "run.ome.tiff"])
def test_a_stored_data_set_is_looked_through(tmp_path: Path, name: str):
    path = tmp_path / name
    with storage.open_writer(path, shape=SHAPE, dtype="int16") as writer:
        for frame_id in range(1, 11):
            if frame_id not in GAPS:
                writer.append(frame_of(frame_id, "int16"), frame_id=frame_id, utc_ns=1_700_000_000_000_000_000 + frame_id)

    async def look(url: str) -> None:
        async with connect(url) as page:
            hello = await page.message("hello")
            assert (hello["mode"], hello["role"]) == ("dataset", "view")
            (stream,) = hello["streams"]
            assert (stream["shape"], stream["dtype"], stream["sent_dtype"], stream["history"]) == (
                list(SHAPE), "int16", "u2", "dataset",
            )  # fmt: skip
            index = await page.ask("index", stream=stream["name"])
            assert (index["first_id"], index["last_id"], index["frames"], index["gaps"]) == (1, 10, 8, [[4, 2]])
            await page.send("view", stream=stream["name"], crop=[2, 3, 11, 17], step=2)
            for asked, expected in (({"frame_id": 7}, 7), ({"frame_id": 5}, 6), ({"number": 3}, 6), ({"fraction": 0.0}, 1)):
                count = len(page.frames)
                assert (await page.ask("seek", stream=stream["name"], **asked))["frame_id"] == expected
                frame = await page.frame(after=count)
                np.testing.assert_array_equal(frame.values, frame_of(expected, "int16")[2:11:2, 3:17:2])
            value = await page.ask("pixel", stream=stream["name"], y=5, x=6, frame_id=9)
            assert (value["frame_id"], value["text"]) == (9, str(frame_of(9, "int16")[5, 6]))
            with pytest.raises(Refused) as refused:
                await page.ask("pixel", stream=stream["name"], y=5, x=6, frame_id=4)
            assert refused.value.code == "unknown"
            with pytest.raises(Refused) as refused:
                await page.ask("acquire")
            assert refused.value.code == "role"
            state = await page.message("state")
            assert state["streams"][stream["name"]]["history"]["frames"] == 8

    with served(path) as url:
        asyncio.run(look(url))


def test_of_many_seeks_the_newest_is_done(tmp_path: Path):
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=SHAPE, dtype="uint16") as writer:
        for frame_id in range(1, 101):
            writer.append(frame_of(frame_id, "uint16"), frame_id=frame_id)

    async def look(url: str) -> None:
        async with connect(url) as page:
            (stream,) = (await page.message("hello"))["streams"]
            asked = [page.ask("seek", stream=stream["name"], number=number) for number in range(100)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            done = [each["number"] for each in answers if isinstance(each, dict)]
            assert done[-1] == 99
            assert {each.code for each in answers if isinstance(each, Refused)} <= {"superseded"}
            assert [frame.frame_id for frame in page.frames] == [number + 1 for number in done]

    with served(path) as url:
        asyncio.run(look(url))


def test_what_cannot_be_shown_is_refused_in_one_sentence(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for line in (("nothing.ome.zarr",), ("empty",)):
        done = mutoscope(tmp_path, "view", "browser", *line)
        assert done.code == 2, done.describe()
        assert len(done.stderr.splitlines()) == 1, done.describe()


def test_links_are_shared_with_those_who_only_look(tmp_path: Path, private: Path):
    done = mutoscope(tmp_path, "share", "--view")
    assert (done.code, done.stderr) == (2, "mutoscope: no scope of yours runs on this computer with a page\n"), done.describe()

    async def look(url: str) -> None:
        async with connect(url) as page:
            hello = await page.message("hello")
            assert hello["role"] == "view"
            assert hello["expires_utc_ms"] > hello["utc_ms"] + 3_000_000

    with ms.Scope(camera=SimulatedCamera(shape=(8, 8), rate_hz=50), page=True) as scope:
        assert scope.page_url is not None
        base, token = split(scope.page_url)

        async def served_already() -> None:
            async with connect(f"{base}?token={token}") as page:
                await page.ask("ping")

        asyncio.run(served_already())
        done = mutoscope(tmp_path, "share", "--view", "--hours", "1")
        assert done.code == 0, done.describe()
        link = done.stdout.strip()
        assert link.startswith(f"{base}?token=")
        assert token not in link
        asyncio.run(look(link))
        (file,) = private.iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
    assert list(private.iterdir()) == []


def test_what_a_dead_viewer_left_is_removed(private: Path):
    alive = announce("page", "one", "http://127.0.0.1:1/", "http://127.0.0.1:1/", "secret", os.getpid())
    dead = announce("page", "two", "http://127.0.0.1:2/", "http://127.0.0.1:2/", "secret", 2**22 + 1)
    (private / "page-7.json").write_text("{}")
    assert [each.name for each in announced("page")] == ["one"]
    assert not dead.exists()
    withdraw(alive)
    withdraw(alive)
    assert announced("page") == []
