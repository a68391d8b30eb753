"""Several cameras, sources in the user's program, frames that change their form, and resuming."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from lab import PATIENT, EveryFrame, Looker, back, camera, kill, status_of

import mutoscope as ms
from mutoscope import storage
from mutoscope.bench.faults import check_data_set
from mutoscope.cameras import Camera, SimulatedCamera
from mutoscope.model import IdRanges
from mutoscope.model.errors import CameraError, ConfigError
from mutoscope.runtime import Ledger
from mutoscope.runtime.acquisition import STOP_STREAM_S
from polling import until


class Diarist(Camera):
    """Notes in a file when it starts and stops."""

    settings = (
        ms.cameras.Setting(name="diary", kind="str", default=""),
        ms.cameras.Setting(name="label", kind="str", default=""),
    )

    @property
    def shape(self) -> tuple[int, int]:
        return (8, 8)

    @property
    def dtype(self) -> str:
        return "uint8"

    @property
    def rate_hz(self) -> float:
        return 100.0

    def _write(self, word: str) -> None:
        with open(self.get("diary"), "a", encoding="utf-8") as file:
            file.write(f"{word} {self.get('label')}\n")

    def start_sequence(self, n: int | None, get_buffer: Any) -> Iterator[Mapping[str, Any]]:
        tick = 0
        self._write("start")
        try:
            while n is None or tick < n:
                self.wait_until(time.monotonic_ns() + 10_000_000)
                get_buffer((8, 8), np.uint8)[:] = 7
                tick += 1
                yield {"tick": tick}
        finally:
            self._write("stop")


def test_several_cameras_of_different_size_and_rate(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    cameras = {"wide": camera(200, shape=(16, 40)), "deep": camera(90, shape=(30, 10), dtype="uint8")}
    with ms.Scope(cameras=cameras, record=path, reserve_bytes=0) as scope:
        result = scope.acquire(frames=40)
        assert result.stored == result.produced == {"wide": 40, "deep": 40}
        scope.start_acquisition(10, cameras=["deep"])
        assert scope.wait_acquisition(30.0)
        kill(scope, "recorder.wide")
        kill(scope, "deep")
        assert scope.acquire(frames=20).stored == {"wide": 20, "deep": 20}
        assert scope.ledger.restarts == {"recorder.wide": 1, "deep": 1}
    assert scope.ledger.exact, scope.ledger.problems
    assert {name: account["stored"] for name, account in scope.ledger.cameras.items()} == {"wide": 60, "deep": 70}
    group = zarr.open_group(path, mode="r")
    assert group["OME"].attrs["ome"]["series"] == ["wide", "deep"]
    for name, count in (("wide", 60), ("deep", 70)):
        assert np.flatnonzero(group[f"{name}/frames/frame_id"][:]).size == count
        with storage.open_reader(path, camera=name) as reader:
            assert reader.frame_ids.tolist() == list(range(1, count + 1))
            for number in (0, count - 1):
                assert np.array_equal(reader[number], cameras[name].expected_frame(int(reader.ticks[number])))


def test_cameras_start_in_order_and_stop_in_reverse(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    names = ["master", "first slave", "second slave"]
    cameras = {name.replace(" ", "-"): Diarist(diary=str(diary), label=name.replace(" ", "-")) for name in names}
    with ms.Scope(cameras=cameras) as scope:
        for _ in range(3):
            diary.unlink(missing_ok=True)
            scope.start_acquisition()
            until(lambda: diary.exists() and diary.read_text().count("start") == 3)
            until(lambda: all(account["produced"] > 2 for account in scope.ledger.cameras.values()))
            scope.stop_acquisition()
            assert scope.wait_acquisition(30.0)
            words = [tuple(line.split()) for line in diary.read_text().splitlines()]
            order = list(cameras)
            assert words == [("start", name) for name in order] + [("stop", name) for name in reversed(order)]


def test_overlapping_acquisitions_end_each_for_itself() -> None:
    with ms.Scope(cameras={"a": camera(200), "b": camera(200)}) as scope:
        results: dict[str, Any] = {}
        first = scope.start_acquisition(cameras=["a"])
        second = scope.start_acquisition(20, cameras=["b"])
        assert (first, second) == (1, 2)
        with pytest.raises(ms.model.errors.ScopeStateError, match="a: already acquiring"):
            scope.start_acquisition(5, cameras=["a"])
        until(lambda: scope.ledger.cameras["b"]["produced"] == 20)
        assert not scope.wait_acquisition(0.1)
        thread = threading.Thread(target=lambda: results.update(waited=scope.wait_acquisition(30.0)))
        thread.start()
        scope.stop_acquisition()
        thread.join()
        assert results["waited"]


def test_a_stopped_camera_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with ms.Scope(cameras={"a": camera(200), "b": camera(200)}, record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        scope.start_acquisition()
        until(lambda: scope.ledger.stored > 20)
        kill(scope, "b", signal.SIGSTOP)
        began = time.monotonic()
        scope.stop_acquisition()
        assert scope.wait_acquisition(30.0)
        print(f"stopped {time.monotonic() - began:.2f} s after being asked")
    assert scope.ledger.exact
    assert scope.ledger.stored == scope.ledger.produced


class StoppedWhenAsked(SimulatedCamera):
    """Is stopped by a signal when it was told to stop, and before it has."""

    def start_sequence(self, n: int | None, get_buffer: Any) -> Iterator[Mapping[str, Any]]:
        try:
            yield from super().start_sequence(n, get_buffer)
        finally:
            os.kill(os.getpid(), signal.SIGSTOP)


def test_a_camera_that_is_stopped_just_as_it_is_asked_does_not_hold_up_the_end() -> None:
    with ms.Scope(camera=StoppedWhenAsked(shape=(16, 24), rate_hz=100)) as scope:
        scope.start_acquisition()
        until(lambda: scope.ledger.produced > 10)
        began = time.monotonic()
        scope.stop_acquisition()
        assert scope.wait_acquisition(30.0)
        assert time.monotonic() - began < STOP_STREAM_S - 1.0, "the time that a camera has to answer"
    assert scope.ledger.exact


def test_sources_are_recorded_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    random = np.random.default_rng(5)
    images = random.integers(0, 4096, (30, 20, 24), dtype=np.uint16)
    small = random.integers(0, 255, (30, 5, 6), dtype=np.uint8)
    sources = {"left": ms.SourceSettings((20, 24), "uint16", 100.0), "right": ms.SourceSettings((5, 6), "uint8", 100.0)}
    with ms.Scope(sources=sources, workers=[], record=path, reserve_bytes=0) as scope:
        left, right = scope.source("left"), scope.source("right")
        assert scope.source("left") is left
        for number in range(15):
            assert left.push(images[number], tick=number + 1, exposure_ms=2.5) == number + 1
            with right.slot((5, 6), "uint8") as slot:
                slot.array[:] = small[number]
        images[:15] += 1  # what was pushed has been copied
        with pytest.raises(RuntimeError, match="no, not this one"):
            with right.slot((5, 6), "uint8") as slot:
                raise RuntimeError("no, not this one")
        with pytest.raises(ValueError, match="60 x 60 px"):
            left.push(np.zeros((60, 60), np.uint16))

        def push_once_it_runs() -> None:
            until(lambda: scope.state.acquiring)
            for number in range(15, 30):
                left.push(images[number])
                right.push(small[number])

        pushing = threading.Thread(target=push_once_it_runs)
        pushing.start()
        result = scope.acquire(frames=15, timeout_s=30.0)
        pushing.join()
        assert result.stored == {"left": 15, "right": 15}
        assert result.reasons == {"left": "complete", "right": "complete"}
        kill(scope, "recorder.left")
        left.push(images[0])
        with pytest.raises(ConfigError, match="there is no source 'middle'; this scope has: left, right"):
            scope.source("middle")
    assert scope.ledger.exact, scope.ledger.problems
    assert scope.ledger.stored == scope.ledger.produced == 61
    images[:15] -= 1
    group = zarr.open_group(path, mode="r")
    assert np.array_equal(group["left/0"][:30], images)
    assert np.array_equal(group["left/0"][30], images[0] + 1)
    assert np.array_equal(group["right/0"][:30], small)
    with storage.open_reader(path, camera="left") as reader:
        assert reader.exposure_ms[:15].tolist() == [2.5] * 15
        assert reader.ticks[:15].tolist() == list(range(1, 16))


def test_frames_of_another_form_go_to_a_further_image(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    random = np.random.default_rng(6)
    forms: list[tuple[Sequence[int], str]] = [
        ((20, 24), "uint16"),
        ((10, 12), "uint16"),
        ((20, 24), "uint8"),
        ((20, 24), "uint16"),
    ]
    images = [[random.integers(0, 250, shape).astype(dtype) for _ in range(6)] for shape, dtype in forms]
    settings = ms.SourceSettings((20, 24), "uint16", varying=True)
    with ms.Scope(sources={"source": settings}, record=path, reserve_bytes=0) as scope:
        source = scope.source("source")
        for number, series in enumerate(images):
            for image in series:
                source.push(image)
            until(lambda number=number: scope.ledger.stored == 6 * (number + 1))  # type: ignore[misc]
            kill(scope, "recorder")
        back(scope, "recorder", 4)
    assert scope.ledger.exact, scope.ledger.problems
    with storage.open_reader(path) as reader:
        assert reader.images == (".", "source.1", "source.2", "source.3")
        assert reader.frame_ids.tolist() == list(range(1, 25))
        for number, image in enumerate(image for series in images for image in series):
            assert reader[number].dtype == image.dtype
            assert np.array_equal(reader[number], image)
    group = zarr.open_group(path, mode="r")
    assert np.array_equal(group["source.1/0"][:6], np.stack(images[1]))


def test_a_camera_that_refuses_to_start_stops_those_before_it(tmp_path: Path) -> None:
    cameras = {"good": Diarist(diary=str(tmp_path / "diary"), label="good"), "bad": camera(raise_at=1, fault_repeats=True)}
    with ms.Scope(cameras=cameras, restarts={"bad": ms.runtime.Restart(mode="never")}) as scope:
        with pytest.raises(CameraError, match="bad"):
            scope.acquire(frames=200)
        until(lambda: status_of(scope, "bad").state == "failed")
        with pytest.raises(CameraError, match="bad: the camera is failed: CameraError: the simulated camera was told to fail"):
            scope.acquire(frames=200)
        assert scope.wait_acquisition(30.0)
        scope.start_acquisition(5, cameras=["good"])
        assert scope.wait_acquisition(30.0)


def test_resuming_continues_ids_and_ledger(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    workers = [ms.WorkerSettings(EveryFrame, settings={"on_full": "block"}, restart=PATIENT), Looker]
    with ms.Scope(camera=camera(), record=path, reserve_bytes=0) as scope:
        scope.acquire(frames=30)
    with ms.Scope(camera=camera(), workers=workers, record=path, resume=True, reserve_bytes=0) as scope:
        rows = scope.table_reader("seen by EveryFrame", start="oldest")
        assert scope.acquire(frames=25).stored == {"camera": 25}
        kill(scope, "recorder")
        kill(scope, "camera")
        assert scope.acquire(frames=15).stored == {"camera": 15}
        until(lambda: len(rows.latest(100)) == 40)
        assert rows.read()["frame_id"].tolist() == list(range(31, 71))
        os.kill(scope.supervisor_pid, signal.SIGKILL)
        assert scope.wait(10.0)
    with ms.Scope(camera=camera(), record=path, resume=True, reserve_bytes=0) as scope:
        scope.acquire(frames=10)
    ledger = scope.ledger
    assert ledger.exact, ledger.problems
    account = ledger.cameras["camera"]
    assert (account["first_id"], account["last_id"], account["produced"], account["stored"]) == (71, 80, 10, 10)
    assert IdRanges.from_list(account["consumers"]["recorder"]["done_ids"]) == IdRanges([(71, 80)])
    with storage.open_reader(path) as reader:
        assert reader.frame_ids.tolist() == list(range(1, 81))
        assert reader.images == (".", "camera.1", "camera.2")
        assert Ledger(reader.ledger or {}).exact
        ticks, frames = reader.ticks, [reader[number] for number in range(80)]
    assert all(np.array_equal(frame, camera().expected_frame(int(tick))) for frame, tick in zip(frames, ticks, strict=True))
    assert check_data_set(path, camera(), acknowledged=30) == []


@pytest.mark.parametrize("last", [2**62, 2**63 - 2, 2**64 - 1])
def test_resuming_after_the_last_possible_id_is_refused(last: int, tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(), record=path, reserve_bytes=0) as scope:
        scope.acquire(frames=10)
    with open(path / "frames/frame_id/c/0", "r+b") as file:
        file.seek(9 * 8)
        file.write(last.to_bytes(8, "little"))
    scope = ms.Scope(camera=camera(), record=path, resume=True, reserve_bytes=0)
    with pytest.raises(ConfigError, match=f"cannot be resumed: the last frame_id of 'camera' is {last}, and ids end at"):
        scope.start()
    assert storage.info(path)["frames"] == 10


def test_resuming_what_does_not_exist_yet_begins_it(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with ms.Scope(camera=camera(), record=path, resume=True, reserve_bytes=0) as scope:
        assert scope.acquire(frames=5).stored == {"camera": 5}
    with storage.open_reader(path) as reader:
        assert reader.frame_ids.tolist() == [1, 2, 3, 4, 5]
