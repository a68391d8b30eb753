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
from mutoscope.storage import _rows
from mutoscope.viewers.announce import announce, announced, withdraw
from mutoscope.viewers.page.stored_tables import StoredTables
from polling import until

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


COLUMNS = [("frame_id", "<u8"), ("x", "<f4"), ("when", "<i8")]


def test_of_stored_tables_the_rows_around_a_frame_are_sent(tmp_path: Path):
    path, folder = tmp_path / "run.ome.zarr", tmp_path / "run.mutoscope" / "tables"
    with storage.open_writer(path, shape=SHAPE, dtype="uint8") as writer:
        writer.append(frame_of(1, "uint8"))
    folder.mkdir(parents=True)
    rows = np.array([(number // 3, number, 2**60) for number in range(60_000)], COLUMNS)
    with _rows.RowsWriter(folder / "spots.npy", rows.dtype) as table:
        table.append(rows)
    with _rows.RowsWriter(folder / "timeless.npy", rows[["x"]].dtype) as table:
        table.append(rows[["x"]])

    async def look(url: str) -> None:
        async with connect(url) as page:
            hello = await page.message("hello")
            (spots,) = hello["tables"]  # nothing tells of which frames the rows of the other one are
            assert (spots["name"], spots["capacity"], spots["stored"]) == ("spots", 0, True)
            cases = (
                (100, 10, 20, 20_000, (90, 120), (90, 120)),
                (2, 10, 20, 20_000, (0, 22), (0, 22)),
                (19_990, 5, 50, 20_000, (19_985, 19_999), (19_985, 19_999)),
                (50_000, 5, 50, 20_000, (19_994, 19_999), (19_994, 50_000)),
                (10_000, 10_000, 10_000, 20_000, (3_334, 10_000), (3_334, 10_000)),
                (100, 1, 1000, 30, (99, 108), (99, 108)),
            )
            for frame_id, before, after, most, sent, told in cases:
                answer = await page.ask("rows", table="spots", frame_id=frame_id, before=before, after=after, rows=most)
                ids = answer["columns"]["frame_id"]
                assert len(ids) <= most
                assert (ids[0], ids[-1]) == sent, (frame_id, ids[0], ids[-1])
                assert (answer["first_id"], answer["last_id"]) == told, frame_id
                first = int(answer["columns"]["x"][0])
                assert answer["columns"]["x"] == [float(number) for number in range(first, first + len(ids))]
                assert set(answer["columns"]["when"]) == {str(2**60)}
            for about, code in (
                ({"table": "timeless"}, "refused"),
                ({"table": "none"}, "unknown"),
                ({"columns": ["y"]}, "unknown"),
            ):
                with pytest.raises(Refused) as refused:
                    await page.ask("rows", **{"table": "spots", "frame_id": 1, "before": 1, "after": 1, **about})
                assert refused.value.code == code
            with _rows.RowsWriter(folder / "spots.npy", rows.dtype) as table:  # as a recorder that goes on
                table.append(np.array([(20_000, 1, 2)], COLUMNS))
            answer = await page.ask("rows", table="spots", frame_id=20_000, before=0, after=0)
            assert answer["columns"]["frame_id"] == [20_000]

    with served(path) as url:
        asyncio.run(look(url))


def test_a_damaged_table_does_not_hide_the_frames(tmp_path: Path):
    path, folder = tmp_path / "run.ome.zarr", tmp_path / "run.mutoscope" / "tables"
    with storage.open_writer(path, shape=SHAPE, dtype="uint8") as writer:
        writer.append(frame_of(1, "uint8"))
    folder.mkdir(parents=True)
    (folder / "spots.npy").write_bytes(b"no array")
    tables = StoredTables(path, None, ["camera"])
    assert tables.hello() == []


def test_the_histogram_of_a_frame_of_the_past_is_that_of_the_whole_frame(tmp_path: Path):
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=SHAPE, dtype="uint16") as writer:
        for frame_id in (1, 2):
            writer.append(frame_of(frame_id, "uint16"), frame_id=frame_id)

    async def look(url: str) -> None:
        async with connect(url) as page:
            (stream,) = (await page.message("hello"))["streams"]
            await page.send("view", stream=stream["name"], crop=[2, 3, 4, 5])
            await page.send("histogram", stream=stream["name"], on=True)
            answer = await page.ask("seek", stream=stream["name"], frame_id=2)
            told = await page.message("histogram")
            frame = await page.frame()
            assert told["request"] == frame.request != 0
            assert (told["frame_id"], answer["frame_id"], told["pixels"]) == (2, 2, SHAPE[0] * SHAPE[1])
            assert (told["low"], told["high"]) == (frame_of(2, "uint16").min(), frame_of(2, "uint16").max())
            assert sum(told["counts"]) == SHAPE[0] * SHAPE[1]
            # Another part of the same frame changes no contrast; another frame does.
            await page.send("view", stream=stream["name"], crop=[0, 0, 12, 20])
            await page.ask("seek", stream=stream["name"], frame_id=2)
            await page.ask("seek", stream=stream["name"], frame_id=1)
            assert [each["frame_id"] for each in page.texts if each["type"] == "histogram"] == [2, 1]

    with served(path) as url:
        asyncio.run(look(url))


def halved(plane: np.ndarray) -> np.ndarray:
    """The means of 2 x 2, halves rounded up."""
    even = np.pad(plane, [(0, size % 2) for size in plane.shape], mode="edge").astype(np.float64)
    mean = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
    return np.floor(mean + 0.5).astype(plane.dtype)


def test_of_a_small_image_only_the_small_size_is_read(tmp_path: Path):
    path = tmp_path / "run.ome.zarr"
    shape = (601, 900)
    image = np.random.default_rng(3).integers(0, 60000, shape).astype(np.uint16)
    with storage.open_writer(path, shape=shape, dtype="uint16", pyramid=True) as writer:
        writer.append(image, frame_id=1)
    (pixels,) = (path / "0").glob("c/*/0/0")
    pixels.rename(tmp_path / "away")  # who reads the full size fails

    async def look(url: str) -> None:
        async with connect(url) as page:
            (stream,) = (await page.message("hello"))["streams"]
            name = stream["name"]
            assert stream["levels"] == 3
            once, twice = halved(image), halved(halved(image))
            for step, small, stride in ((2, once, 1), (4, twice, 1), (6, once, 3), (8, twice, 2)):
                await page.send("view", stream=name, crop=[96, 192, 601, 480], step=step, levels=True)
                count = len(page.frames)
                await page.ask("seek", stream=name, frame_id=1)
                frame = await page.frame(after=count)
                by = step // stride
                assert (frame.flags & 4, frame.step, frame.crop) == (4, step, (96, 192, 601, 480))
                np.testing.assert_array_equal(frame.values, small[96 // by :, 192 // by : 480 // by][::stride, ::stride])
            for view in ({"step": 3, "levels": True}, {"step": 2}):
                await page.send("view", stream=name, **view)
                with pytest.raises(Refused):
                    await page.ask("seek", stream=name, frame_id=1)
            (tmp_path / "away").rename(pixels)
            for view in ({"step": 3, "levels": True}, {"step": 2}):
                await page.send("view", stream=name, **view)
                count = len(page.frames)
                await page.ask("seek", stream=name, frame_id=1)
                frame = await page.frame(after=count)
                assert frame.flags & 4 == 0
                np.testing.assert_array_equal(frame.values, image[:: view["step"], :: view["step"]])
            value = await page.ask("pixel", stream=name, y=601 - 1, x=7)
            assert value["number"] == image[600, 7]

    with served(path) as url:
        asyncio.run(look(url))


def plane_of(well: int, wave: int, z: int) -> np.ndarray:
    return np.random.default_rng([well, wave, z]).integers(0, 4000, (40, 60)).astype(np.uint16)


def test_the_planes_of_a_plate_are_chosen_by_their_field(tmp_path: Path):
    path = tmp_path / "plate.ome.zarr"
    with storage.open("ome-zarr", path, filenames="imagexpress", wells=96) as plate:
        for well, wave, z in ((2, 1, 1), (2, 1, 3), (2, 2, 1), (11, 1, 2)):
            plate.save(plane_of(well, wave, z), f"x_B{well:02}_s1_w{wave}_z{z}.tif")

    async def look(url: str) -> None:
        async with connect(url) as page:
            hello = await page.message("hello")
            assert (hello["mode"], hello["display"]) == ("dataset", {"source": "layer"})
            assert (hello["plate"]["rows"], hello["plate"]["columns"]) == (8, 12)
            wells = {each["well"]: each for each in hello["plate"]["wells"]}
            assert {name: (each["row"], each["column"], each["stored"], each["missing"]) for name, each in wells.items()} == {
                "B02": (1, 1, 3, 3),
                "B11": (1, 10, 1, 5),
            }
            first, second = (each["name"] for each in hello["streams"])
            (other,) = (each["image"] for each in wells["B11"]["images"])
            index = await page.ask("index", stream=first)
            assert (index["frames"], index["first_id"], index["last_id"], index["gaps"]) == (2, 1, 3, [[2, 1]])
            assert (await page.ask("index", stream=second))["gaps"] == [[2, 2]]
            assert (await page.ask("index", stream=first, image=other))["gaps"] == [[1, 1], [3, 1]]
            for stream, asked, frame_id, known in (
                (first, {"frame_id": 3}, 3, (2, 1, 3)),
                (second, {"number": 0}, 1, (2, 2, 1)),
                (first, {"number": 0, "image": other}, 2, (11, 1, 2)),
            ):
                count = len(page.frames)
                assert (await page.ask("seek", stream=stream, **asked))["frame_id"] == frame_id
                frame = await page.frame(after=count)
                assert frame.plane == (0, known[1] - 1, known[2] - 1, -1)
                np.testing.assert_array_equal(frame.values, plane_of(*known))
            value = await page.ask("pixel", stream=first, y=3, x=5, frame_id=2, image=other)
            assert value["number"] == plane_of(11, 1, 2)[3, 5]
            for refused in (
                {"stream": second, "frame_id": 2, "exact": True},  # which is missing
                {"stream": second, "number": 0, "image": other},  # no plane of this channel there
                {"stream": first, "number": 0, "image": "B/11/9"},
                {"stream": first, "number": 0, "image": "../B/11/0"},
            ):
                with pytest.raises(Refused) as error:
                    await page.ask("seek", **refused)
                assert error.value.code == "unknown"

    with served(path) as url:
        asyncio.run(look(url))


def test_a_name_that_is_no_text_is_shown_escaped(tmp_path: Path):
    path = tmp_path / os.fsdecode(b"caf\xe9.ome.zarr")
    with storage.open_writer(path, shape=SHAPE, dtype="uint16") as writer:
        writer.append(frame_of(1, "uint16"))

    async def look(url: str) -> None:
        async with connect(url) as page:
            hello = await page.message("hello")
            assert (hello["scope"], hello["record"]["path"]) == ("caf\\udce9.ome.zarr", f"{tmp_path}/caf\\udce9.ome.zarr")
            await page.message("state")

    with served(path) as url:
        asyncio.run(look(url))


def test_a_plate_whose_first_image_is_gone_is_shown_without_it(tmp_path: Path):
    path = tmp_path / "plate.ome.zarr"
    with storage.open("ome-zarr", path, filenames="imagexpress", wells=96) as plate:
        for well in (2, 5, 11):
            plate.save(plane_of(well, 1, 1), f"x_B{well:02}_s1_w1_z1.tif")
    (path / "B" / "02" / "0" / "zarr.json").unlink()

    async def look(url: str) -> None:
        async with connect(url) as page:
            hello = await page.message("hello")
            wells = {each["well"]: each["images"][0]["image"] for each in hello["plate"]["wells"]}
            assert list(wells) == ["B05", "B11"]
            (stream,) = (each["name"] for each in hello["streams"])
            assert (await page.ask("index", stream=stream, image=wells["B11"]))["frames"] == 1
            (path / "B" / "05" / "0" / "zarr.json").unlink()
            for kind, fields in (("index", {}), ("seek", {"number": 0}), ("pixel", {"y": 0, "x": 0})):
                for image in ("B/02/0", wells["B05"]):
                    with pytest.raises(Refused, match=f"image {image} is not there any more") as refused:
                        await page.ask(kind, stream=stream, image=image, **fields)
                    assert refused.value.code == "unknown"

    with served(path) as url:
        asyncio.run(look(url))
    (path / "B" / "11" / "0" / "zarr.json").unlink()
    refused = mutoscope(tmp_path, "view", "browser", str(path))
    assert (refused.code, refused.stdout) == (2, ""), refused.describe()
    assert "this plate has no image yet" in refused.stderr
    assert "Traceback" not in refused.stderr


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
    assert done.code == 2, done.describe()
    assert done.stderr.startswith("mutoscope: no scope of yours runs on this computer with a page"), done.describe()

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


def test_of_scopes_of_one_name_the_port_says_which(tmp_path: Path, private: Path):
    def scope() -> ms.Scope:
        return ms.Scope(camera=SimulatedCamera(shape=(8, 8), rate_hz=50), page=True)

    with scope() as one, scope() as other:
        bases = [split(each.page_url or "")[0] for each in (one, other)]
        ports = [base.rstrip("/").rpartition(":")[2] for base in bases]
        until_announced(private, 2)
        done = mutoscope(tmp_path, "share", "--view")
        assert done.code == 2, done.describe()
        for port in ports:
            assert f"(port {port})" in done.stderr
        for base, port in zip(bases, ports, strict=True):
            done = mutoscope(tmp_path, "share", "--view", port)
            assert done.stdout.startswith(f"{base}?token="), done.describe()


def until_announced(private: Path, count: int) -> None:
    until(lambda: private.exists() and len(list(private.glob("page-*.json"))) >= count, "the pages are announced")


def test_what_a_dead_viewer_left_is_removed(private: Path):
    alive = announce("page", "one", "http://127.0.0.1:1/", "http://127.0.0.1:1/", "secret", os.getpid())
    dead = announce("page", "two", "http://127.0.0.1:2/", "http://127.0.0.1:2/", "secret", 2**22 + 1)
    (private / "page-7.json").write_text("{}")
    assert [each.name for each in announced("page")] == ["one"]
    assert not dead.exists()
    withdraw(alive)
    withdraw(alive)
    assert announced("page") == []
