"""What a client of the page may do: control, acquisition, settings, commands, ROIs, tables; and that the audit knows."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest
from page_client import Refused, connect, split

import mutoscope as ms
from mutoscope.bus.payload import MAX_PAYLOAD_BYTES
from mutoscope.cameras import SimulatedCamera
from mutoscope.model import Points, Roi
from mutoscope.runtime import RoiChanged, RoiList, RoiRemoved
from mutoscope.viewers import Display

SHOWN = Display(source="layer", lut="viridis", contrast=(100, 4000))
COLUMNS = [("frame_id", "u8"), ("y", "f4"), ("x", "f4"), ("bead", "i4"), ("note", "S8")]


class SetThreshold(ms.Command, name="test.SetThreshold"):
    """Count what is brighter."""

    value: Annotated[float, msgspec.Meta(ge=0, description="Counts.")]
    mode: Literal["fast", "slow"] = "fast"
    z_um: float | None = None
    ids: tuple[int, ...] = ()


class Everywhere(ms.Command):
    pass


class NotForPages(ms.Command):
    pass


class AddRoi(ms.Command):
    roi_id: str


class Much(ms.Command):
    pass


class Answerer(ms.Worker):
    """Answers, and tells in a table what it heard of ROIs."""

    def setup(self) -> None:
        self.beads = self.table("beads", COLUMNS)
        self.heard: list[str] = []
        self.subscribe(RoiChanged, lambda event: self.heard.append(f"{event.image}/{event.roi.id} by {event.origin}"))
        self.subscribe(RoiRemoved, lambda event: self.heard.append(f"{event.image}/{event.roi_id} gone"))
        self.subscribe(RoiList, lambda event: self.heard.append(f"{len(event.rois)} ROIs"))
        rows = np.zeros(300, COLUMNS)
        rows["frame_id"], rows["y"], rows["bead"], rows["note"] = np.arange(300), np.nan, 7, b"caf\xe9"
        self.beads.append(rows)

    @ms.handles(SetThreshold, page=True)
    def set_threshold(self, command: SetThreshold) -> Any:
        if command.value == 13:
            raise ValueError("not thirteen")
        return {"value": command.value, "mode": command.mode, "z_um": command.z_um, "ids": list(command.ids)}

    @ms.handles(Everywhere, delivery="broadcast", page=True)
    def everywhere(self, command: Everywhere) -> Any:
        return list(self.heard)

    @ms.handles(Much, page=True)
    def much(self, command: Much) -> bytes:
        return bytes(MAX_PAYLOAD_BYTES - 20)

    @ms.handles(NotForPages)
    def not_for_pages(self, command: NotForPages) -> None:
        pass

    @ms.handles(AddRoi, page=True)
    def add_roi(self, command: AddRoi) -> None:
        self.publish(RoiChanged(roi=Roi(command.roi_id, Points([(3.0, 4.0)])), origin=self.name))
        self.beads.append((1000, 1.5, 2.5, 3, b"new"))


class Contrary(ms.Worker):
    """Fails where others answer."""

    @ms.handles(Everywhere, delivery="broadcast", page=True)
    def everywhere(self, command: Everywhere) -> Any:
        raise ValueError("not with me")


@pytest.fixture(scope="module")
def scope(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("control")
    camera = SimulatedCamera(shape=(16, 24), rate_hz=200)
    with ms.Scope(
        camera=camera,
        workers=[Answerer, Contrary],
        record=folder / "run.ome.zarr",
        page=ms.PageSettings(lease_s=2.0, display=SHOWN),
    ) as running:
        yield running


@pytest.fixture
def url(scope: ms.Scope) -> str:
    assert scope.page_url is not None
    return scope.page_url


def audit_of(scope: ms.Scope) -> list[dict[str, Any]]:
    assert scope.folder is not None
    return [json.loads(line) for line in (scope.folder / "audit.jsonl").read_text(encoding="utf-8").splitlines()]


def test_hello_says_what_there_is(url: str):
    async def look() -> None:
        async with connect(url) as page:
            hello = await page.message("hello", lambda each: each["tables"])
            assert (hello["protocol"], hello["mode"], hello["role"], hello["limits"]["lease_s"]) == (1, "live", "control", 2.0)
            assert hello["display"] == {"source": "layer", "lut": "viridis", "contrast": [100.0, 4000.0]}
            exposure = next(each for each in hello["streams"][0]["settings"] if each["name"] == "exposure_ms")
            assert (exposure["kind"], exposure["unit"], exposure["live"]) == ("float", "ms", True)
            assert [table["name"] for table in hello["tables"]] == ["beads"]
            assert [column["name"] for column in hello["tables"][0]["columns"]] == [name for name, _ in COLUMNS]
            overlay = {"y": "y", "x": "x", "frame_id": "frame_id", "id": "bead", "stream": "camera"}
            assert hello["tables"][0]["overlay"] == overlay
            commands = {each["name"]: each for each in hello["commands"]}
            assert set(commands) == {"test.SetThreshold", "Everywhere", "AddRoi", "Much"}
            command = commands["test.SetThreshold"]
            assert (command["title"], command["doc"]) == ("SetThreshold", "Count what is brighter.")
            value, mode, z_um, ids = command["fields"]
            assert (value["type"], value["minimum"], value["required"], value["doc"]) == ("float", 0, True, "Counts.")
            assert (mode["type"], mode["choices"], mode["default"]) == ("choice", ["fast", "slow"], "fast")
            assert (z_um["optional"], z_um["unit"]) == (True, "µm")
            assert (ids["type"], ids["items"]["type"]) == ("list", "int")
            assert commands["Everywhere"]["broadcast"]
            state = await page.message("state")
            assert {worker["name"] for worker in state["workers"]} == {"camera", "recorder", "page", "Answerer", "Contrary"}

    asyncio.run(look())


def test_one_client_at_a_time_has_control_for_a_while(url: str):
    async def look() -> None:
        async with connect(url) as ada, connect(url) as bob:
            with pytest.raises(Refused, match="take control first"):
                await ada.ask("saving", on=True)
            lease = await ada.ask("lease", take=True, name="Ada")
            assert lease["yours"]
            assert lease["expires_in_s"] > 1.5
            seen = await bob.message("lease", lambda each: each["holder"])
            assert (seen["name"], seen["yours"]) == ("Ada", False)
            for kind, fields in (("lease", {"take": True}), ("saving", {"on": True})):
                with pytest.raises(Refused, match="control is Ada's") as refused:
                    await bob.ask(kind, **fields)
                assert refused.value.code == "lease"
            heard = len(bob.texts)
            await bob.message("lease", lambda each: each["holder"] is None, after=heard)  # its time is over
            assert (await bob.ask("lease", take=True, name="Bob"))["yours"]
            await bob.ask("lease", take=False)
            assert (await ada.ask("lease", take=True))["yours"]
        async with connect(url) as carl:
            await carl.message("lease", lambda each: each["holder"] is None)  # it ended with the connection

    asyncio.run(look())


def test_commands_are_carried_out_answered_and_in_the_audit(url: str, scope: ms.Scope):
    async def look() -> None:
        async with connect(url) as page:
            await page.ask("lease", take=True, name="Ada")
            fields = {"value": 1.5, "mode": "slow", "z_um": None, "ids": [1, 2]}
            assert await page.ask("command", command="test.SetThreshold", fields=fields) == fields
            with pytest.raises(Refused, match="not thirteen") as refused:
                await page.ask("command", command="test.SetThreshold", fields={"value": 13.0})
            assert refused.value.code == "failed"
            assert refused.value.error["kind"] == "ValueError"
            assert "set_threshold" in refused.value.error["traceback"]
            for wrong in ({"value": "x"}, {}, {"value": 1.0, "more": 2}, {"value": -1.0}):
                with pytest.raises(Refused):
                    await page.ask("command", command="test.SetThreshold", fields=wrong)
            for name in ("NotForPages", "scope.attach_reader", "scope.stop", "Nobody"):
                with pytest.raises(Refused) as refused:
                    await page.ask("command", command=name)
                assert refused.value.code == "unknown"
            answers = await page.ask("command", command="Everywhere")
            assert answers["Answerer"]["ok"]
            wrong = answers["Contrary"]["error"]
            assert (wrong["code"], wrong["kind"], wrong["message"]) == ("failed", "ValueError", "not with me")
            assert 'raise ValueError("not with me")' in wrong["traceback"]

    asyncio.run(look())
    entries = [entry for entry in audit_of(scope) if entry["command"] == "test.SetThreshold"]
    assert len(entries) == 6
    assert all(entry["who"].startswith("page: c") and "Ada (control, 127.0.0.1)" in entry["who"] for entry in entries)
    assert [entry["result"].partition(":")[0] for entry in entries][:2] == ["ok", "ValueError"]
    assert entries[0]["payload"]["ids"] == [1, 2]


def test_an_answer_that_is_too_large_for_the_page_costs_no_worker(url: str, scope: ms.Scope):
    async def look() -> None:
        async with connect(url) as page:
            await page.ask("lease", take=True)
            with pytest.raises(Refused, match=f"at most {MAX_PAYLOAD_BYTES:,} go in one message"):
                await page.ask("command", command="Much")

    asyncio.run(look())
    assert {status.name: status.restarts for status in scope.status() if status.restarts} == {}


def test_acquisition_saving_and_settings(url: str, scope: ms.Scope):
    async def look() -> None:
        async with connect(url) as page:
            await page.ask("lease", take=True)
            before = scope.ledger.cameras["camera"]["produced"]
            await page.ask("acquire", frames=20)
            await page.message("state", lambda each: each["streams"]["camera"]["stored"] == before + 20)
            assert await page.ask("setting", stream="camera", setting="exposure_ms", value=2.0) == 2.0
            assert scope.get_setting("camera", "exposure_ms") == 2.0
            await page.message("state", lambda each: each["streams"]["camera"]["settings"]["exposure_ms"] == 2.0)
            for setting, value in (("exposure_ms", -5), ("exposure_ms", "x"), ("exposuer", 1.0)):
                with pytest.raises(Refused):
                    await page.ask("setting", stream="camera", setting=setting, value=value)
            await page.ask("saving", on=False)
            await page.ask("acquire", seconds=0.2)
            heard = len(page.texts)
            state = await page.message(
                "state", lambda each: each["streams"]["camera"]["dropped"].get("saving_off"), after=heard
            )
            await page.message("state", lambda each: not each["scope"]["acquiring"], after=heard)
            assert state["streams"]["camera"]["stored"] == before + 20
            await page.ask("lease", take=True)
            await page.ask("saving", on=True)
            await page.ask("acquire")
            with pytest.raises(Refused, match="already acquiring"):
                await page.ask("acquire")
            await page.ask("stop_acquisition")
            with pytest.raises(Refused, match="nothing to consent to"):
                await page.ask("allow_restart", worker="Answerer")

    asyncio.run(look())
    commands = {entry["command"] for entry in audit_of(scope) if entry["who"].startswith("page: ")}
    assert {"scope.start_acquisition", "scope.stop_acquisition", "scope.set_state", "scope.set_setting"} <= commands


def test_rois_reach_workers_and_everyone_who_looks(url: str, scope: ms.Scope):
    shape = {"type": "rectangle", "center": [5.0, 6.0], "height": 2.0, "width": 3.0, "angle_deg": 0.0}

    async def look() -> None:
        async with connect(url) as ada, connect(f"{split(url)[0]}?token={split(url)[1]}") as bob:
            await ada.ask("lease", take=True)
            made = await ada.ask("put_roi", stream="camera", roi={"id": "", "geometry": shape, "name": "cell"})
            seen = await bob.message("roi", lambda each: each.get("roi", {}).get("id") == made["roi_id"])
            assert seen["roi"]["geometry"] == shape
            assert seen["roi"]["name"] == "cell"
            with pytest.raises(Refused, match="changed meanwhile"):
                await ada.ask("put_roi", stream="camera", roi=seen["roi"], revision=made["revision"] - 1)
            mask = {"type": "mask", "origin": [1, 1], "shape": [2, 4], "bits": "8A=="}
            await ada.ask("put_roi", stream="camera", roi={"id": "m", "geometry": mask})
            for wrong in ({"id": "x"}, {"id": "x", "geometry": {"type": "line", "start": [0, 0]}}, {"geometry": 3}):
                with pytest.raises(Refused) as refused:
                    await ada.ask("put_roi", stream="camera", roi=wrong)
                assert refused.value.code == "malformed"
            await ada.ask("command", command="AddRoi", fields={"roi_id": "found"})
            found = await bob.message("roi", lambda each: each.get("roi", {}).get("id") == "found")
            assert (found["origin"], found["stream"]) == ("Answerer", "camera")
            await ada.ask("remove_roi", stream="camera", roi_id=made["roi_id"])
            await bob.message("roi", lambda each: each.get("removed") == made["roi_id"])
            heard = (await ada.ask("command", command="Everywhere"))["Answerer"]["value"]
            assert f"camera/{made['roi_id']} by page/{ada_id(ada)}" in heard
            assert f"camera/{made['roi_id']} gone" in heard
        async with connect(url) as carl:
            rois = await carl.message("rois")
            assert {each["roi"]["id"] for each in rois["rois"]} == {"m", "found"}

    def ada_id(page: Any) -> str:
        return next(each["client"] for each in page.texts if each["type"] == "hello")

    asyncio.run(look())
    assert [entry for entry in audit_of(scope) if entry["command"] == "scope.change_roi"]


def test_many_changes_of_rois_at_once_leave_few_lists(url: str):
    count = 30

    async def look() -> None:
        async with connect(url) as page:
            await page.ask("lease", take=True)
            before = (await page.ask("command", command="Everywhere"))["Answerer"]["value"]
            connection = page.socket.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # they go in one piece
            for number in range(count):
                roi = {"id": "moved", "geometry": {"type": "points", "points": [[1.0, float(number)]]}}
                await page.send("put_roi", id=10_000 + number, stream="camera", roi=roi)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
            await page.message("reply", lambda each: each["id"] == 10_000 + count - 1)
            await page.ask("ping")
            heard = (await page.ask("command", command="Everywhere"))["Answerer"]["value"][len(before) :]
            assert sum("moved by" in each for each in heard) == count
            assert 1 <= sum("ROIs" in each for each in heard) <= count / 4, heard

    asyncio.run(look())


def test_tables_come_as_columns_and_go_on(url: str):
    async def look() -> None:
        async with connect(url) as page:
            await page.message("hello", lambda each: each["tables"])
            await page.send("table", table="beads", rows=100, columns=["frame_id", "y", "note"])
            first = await page.message("table")
            assert first["first"]
            assert [len(column) for column in first["columns"].values()] == [100] * 3
            assert first["columns"]["frame_id"][-1] >= 299
            assert first["columns"]["y"][0] is None
            assert first["columns"]["note"][0] == "caf\ufffd"
            await page.ask("lease", take=True)
            heard = len(page.texts)
            await page.ask("command", command="AddRoi", fields={"roi_id": "found"})
            new = await page.message("table", after=heard)
            assert (new["first"], new["columns"]["frame_id"], new["columns"]["note"]) == (False, [1000], ["new"])
            assert new["last_row_id"] == first["last_row_id"] + 1
            for wrong in ({"table": "beeds"}, {"table": "beads", "columns": ["z"]}):
                await page.send("table", rows=5, **wrong)
            errors = [await page.message("error", lambda each, word=word: word in each["message"]) for word in ("beeds", "'z'")]
            assert {each["code"] for each in errors} == {"unknown"}
            await page.send("table", table="beads", rows=0)
            await page.ask("ping")

    asyncio.run(look())


def test_a_client_may_end_the_scope(tmp_path: Path):
    async def look(url: str) -> None:
        async with connect(url) as page:
            await page.ask("lease", take=True, name="Ada")
            await page.ask("stop_scope")
            ended = await page.message("ended")
            assert "asked by" in ended["reason"]
            assert await page.until_closed() == 1001

    with ms.Scope(camera=SimulatedCamera(shape=(8, 8), rate_hz=50), page=True) as scope:
        assert scope.page_url is not None
        asyncio.run(look(scope.page_url))
        assert scope.wait(timeout_s=20)
    assert scope.result is not None
    assert scope.result.exit_reason.startswith("asked by c")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Display(z="pile"), "z of a Display is 'layer', 'stack', 'window'"),
        (lambda: Display(contrast=(5, 5)), "low below high"),
        (lambda: Display(contrast="high"), "'auto' or two numbers"),
        (lambda: Display(gamma=0), "gamma of a Display must be more than 0"),
        (lambda: Display(overlays=3), "overlays of a Display is a list of names, not 3"),
        (lambda: ms.PageSettings(port=70000), "65535 or less"),
        (lambda: ms.PageSettings(port=-1), "0 or more"),
        (lambda: ms.PageSettings(public_url="lab"), "a public URL is an address"),
        (lambda: ms.PageSettings(display="auto"), "a mutoscope.viewers.Display"),
        (lambda: ms.PageSettings(lease_s=0), "more than 0"),
        (lambda: ms.Scope(camera=SimulatedCamera(), page="yes"), "page is True, False or mutoscope.PageSettings"),
    ],
)
def test_settings_that_cannot_be(make: Any, words: str):
    with pytest.raises(ms.errors.ConfigError, match=words):
        make()
