"""A source's frames are what it declared; what does not fit is refused before it has an id, and nothing is lost in silence."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

import numpy as np
import pytest

import mutoscope as ms
from command_line import mutoscope, run
from mutoscope.model.errors import ConfigError

DECLARED = {"detector": ms.SourceSettings(shape=(20, 24), dtype="uint16", rate_hz=100.0)}


def test_a_frame_that_was_not_declared_is_refused_before_it_has_an_id(tmp_path: Path) -> None:
    with ms.Scope(sources=DECLARED, record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        source = scope.source("detector")
        assert source.push(np.zeros((20, 24), "uint16")) == 1
        for image in (np.zeros((24, 20), "uint16"), np.zeros((20, 24), "uint8"), np.zeros(480, "uint16"), np.zeros((20, 24))):
            with pytest.raises(
                ValueError, match=r"'detector' was declared with frames of 20 x 24 px of uint16, and this one is"
            ):
                source.push(image)
        with pytest.raises(ConfigError, match="varying=True"):
            source.slot((10, 12), "uint16")
        with pytest.raises(ConfigError, match="uint8"):
            source.slot((20, 24), "uint8")
        with source.slot() as slot:
            slot.array[:] = 2
        assert slot.frame_id == 2
        assert source.push(np.full((20, 24), 3, ">u2")) == 3, "another byte order is the same frame"
    assert scope.ledger.stored == 3
    assert scope.ledger.exact
    with ms.storage.open_reader(tmp_path / "run.ome.zarr") as reader:
        assert reader.images == (".",)
        assert [int(reader[number][0, 0]) for number in range(3)] == [0, 2, 3]


@pytest.mark.parametrize("name", ["run.ome.zarr", "run.ome.tiff"])
def test_frames_from_before_1970_are_stored_and_told(tmp_path: Path, name: str) -> None:
    then = [-(2**62), -1, 1]
    with ms.Scope(sources={"detector": ms.SourceSettings((20, 24), "uint16")}, record=tmp_path / name) as scope:
        source = scope.source("detector")
        for utc_ns in then:
            source.push(np.zeros((20, 24), "uint16"), utc_ns=utc_ns)
    assert scope.result is not None
    assert scope.result.errors == []
    assert scope.ledger.exact
    assert scope.ledger.restarts == {}
    with ms.storage.open_reader(tmp_path / name) as reader:
        assert reader.utc_ns.tolist() == then
    told = mutoscope(tmp_path, "info", name)
    assert (told.code, told.stderr) == (0, "")


def test_a_source_that_varies_is_stored_where_it_can_be(tmp_path: Path) -> None:
    varying = {"detector": ms.SourceSettings(shape=(20, 24), dtype="uint16", varying=True)}
    with ms.Scope(sources=varying, record=tmp_path / "run.ome.zarr", reserve_bytes=0) as scope:
        source = scope.source("detector")
        source.push(np.zeros((20, 24), "uint16"))
        source.push(np.zeros((10, 12), "uint16"))
        with pytest.raises(ConfigError, match="frames of complex64 cannot be stored; these can: uint8"):
            source.push(np.zeros((10, 12), "complex64"))
        with pytest.raises(ConfigError, match="at least one pixel"):
            source.push(np.zeros((0, 12), "uint16"))
        larger = (
            r"frames of at most 960 bytes \(20 x 24 px of uint16\), and this one, 200 x 240 px of uint16, has 96,000: declare"
        )
        with pytest.raises(ConfigError, match=larger):
            source.push(np.zeros((200, 240), "uint16"))
        with pytest.raises(ConfigError, match=larger):
            source.slot((200, 240))
        with pytest.raises(ConfigError, match=r"20 x 24 px of uint32, has 1,920"):
            source.push(np.zeros((20, 24), "uint32"))
        with pytest.raises(ConfigError, match="bool, integer, float or complex, not object"):
            source.push(np.zeros((2, 2), object))
        with pytest.raises(ConfigError, match=r"a slot has a shape \(y, x\) and a NumPy type, not 3 and 'foo'"):
            source.slot(3, "foo")  # type: ignore[arg-type]
    assert scope.ledger.stored == 2
    with ms.storage.open_reader(tmp_path / "run.ome.zarr") as reader:
        assert reader.images == (".", "detector.1")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"shape": (20,), "dtype": "uint16"}, "shape of a source is .*not \\(20,\\)"),
        ({"shape": (20, 0), "dtype": "uint16"}, "above 0, not \\(20, 0\\)"),
        ({"shape": 20, "dtype": "uint16"}, "not 20"),
        ({"shape": (20, 2.5), "dtype": "uint16"}, "2.5"),
        ({"shape": (20, 24), "dtype": "uint61"}, "not 'uint61'"),
        ({"shape": (20, 24), "dtype": "U5"}, "<U5"),
        ({"shape": (20, 24), "dtype": "uint16", "rate_hz": 0}, "rate_hz .* not 0"),
        ({"shape": (20, 24), "dtype": "uint16", "pixel_size_um": -1.0}, "pixel_size_um .* not -1.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ms.SourceSettings(**settings)


@pytest.mark.parametrize("dtype", ["complex64", "int64", "bool", "float16"])
def test_what_cannot_be_stored_is_refused_at_construction_of_a_scope_that_records(dtype: str) -> None:
    sources = {"detector": ms.SourceSettings(shape=(4, 4), dtype=dtype)}
    with pytest.raises(ConfigError, match=f"source 'detector': frames of {dtype} cannot be stored; these can: uint8"):
        ms.Scope(sources=sources, record="run.ome.zarr")
    ms.Scope(sources=sources)  # without a recording it can be


UNSTORABLE = """
import numpy as np
import mutoscope as ms

if __name__ == "__main__":
    settings = ms.SourceSettings((20, 24), "float64", varying=True)
    with ms.Scope(sources={"detector": settings}, record="run.ome.zarr", reserve_bytes=0) as scope:
        source = scope.source("detector")
        source.push(np.zeros((20, 24)))
        for _ in range(3):
            source._writer.push(np.zeros((20, 24), "complex64"))  # past the check, as a writer of another kind might
"""


def test_frames_that_were_not_stored_are_said_and_fail_the_run(tmp_path: Path) -> None:
    (tmp_path / "scope.py").write_text(UNSTORABLE, encoding="utf-8")
    done = mutoscope(tmp_path, "run", "--json", "scope.py")
    assert done.code == 1, done.describe()
    assert "error     detector: 3 frames were not stored, as they cannot be (2-4)" in done.stdout, done.describe()
    assert done.last_json["dropped"] == {"unstorable": 3}
    assert "3 frames were not stored" in done.stderr, "a program without `mutoscope run` is told, too"
    ledger = json.loads((tmp_path / "run.mutoscope" / "ledger.json").read_text(encoding="utf-8"))
    assert any("3 frames were not stored" in problem for problem in ledger["problems"])


def test_warnings_of_a_worker_reach_the_program(caplog: pytest.LogCaptureFixture) -> None:
    class Grumbler(ms.Worker):
        def setup(self) -> None:
            try:
                raise RuntimeError("no light")
            except RuntimeError:
                self.log.warning("the lamp is %s", "old", exc_info=True)
            self.log.info("the stage is new")

    with caplog.at_level(logging.WARNING, "mutoscope"), ms.Scope(workers=[Grumbler]):
        pass
    assert "Grumbler: the lamp is old" in caplog.text
    assert "the stage is new" not in caplog.text
    assert "Traceback" not in caplog.text, "that is in scope.log"


WAITS = """
import mutoscope as ms

if __name__ == "__main__":
    sources = {"detector": ms.SourceSettings((20, 24), "uint16")}
    with ms.Scope(sources=sources) as scope:
        try:
            scope.acquire(frames=10, timeout_s=4.0)
        except TimeoutError as error:
            print(error)
"""


def test_an_acquisition_that_waits_for_a_source_says_so(tmp_path: Path) -> None:
    (tmp_path / "scope.py").write_text(WAITS, encoding="utf-8")
    done = run(tmp_path, "python", "scope.py")
    assert done.code == 0, done.describe()
    waits = "waits for source 'detector' (0 of 10 frames)"
    assert f"did not end within 4 s; it goes on, and {waits}" in done.stdout, done.describe()
    assert f"acquire() {waits}; nothing has been pushed for 3 s: push from another thread" in done.stderr, done.describe()


def test_an_acquisition_is_filled_by_another_thread_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with ms.Scope(sources=DECLARED) as scope:
        source, enough = scope.source("detector"), threading.Event()

        def push() -> None:
            while not enough.wait(0.01):
                source.push(np.zeros((20, 24), "uint16"))

        pusher = threading.Thread(target=push)
        pusher.start()
        try:
            assert scope.acquire(frames=10, timeout_s=30.0).produced["detector"] >= 10
        finally:
            enough.set()
            pusher.join()
    assert caplog.text == ""
