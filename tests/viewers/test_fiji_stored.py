"""mutoscope view fiji: recordings and plates in real ImageJ, read as they are looked at, checked by what it writes itself."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
from imagej_support import DEADLINE_S, JARS, Probe, compile_probe, installation, virtual_screen

from mutoscope import storage
from mutoscope.model.frame import PlaneIndex
from mutoscope.viewers.fiji import running


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A screen, and a folder with the compiled probe."""
    folder = tmp_path_factory.mktemp("probe")
    with virtual_screen() as display, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", display)
        yield compile_probe(folder)


@pytest.fixture
def home(screen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder of this test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(params=list(JARS))
def probe(request: pytest.FixtureRequest, screen: Path, home: Path) -> Iterator[Probe]:
    """An ImageJ that a person has started, with the live receiver and 200 MB of memory."""
    made = Probe(request.param, home, screen, owned=False, memory="200m")
    try:
        made.receiver()
        yield made
    finally:
        made.close()


@contextmanager
def view(dataset: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, once it has said that ImageJ shows the data set; killed if it is there at the end."""
    command = [sys.executable, "-m", "mutoscope", "view", "fiji", str(dataset)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=dataset.parent)
    assert process.stderr is not None
    assert process.stdout is not None
    try:
        said = [process.stderr.readline(), process.stderr.readline()]
        assert said == [f"ImageJ shows {dataset}\n", "Ctrl-C ends it\n"], (said, process.stderr.read())
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(DEADLINE_S)
        process.stdout.close()
        process.stderr.close()


def image_of(number: int, shape: tuple[int, int] = (24, 32)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 60000, shape).astype(np.uint16)


def test_a_plate_with_labels_is_a_hyperstack_for_its_images_and_one_for_its_labels(home: Path, probe: Probe) -> None:
    path = home / "plate.ome.zarr"
    store = storage.open("ome-zarr", path, filenames="imagexpress")
    for number, well in enumerate(("A01", "B03")):
        for channel in (1, 2):
            for z in (1, 2, 3):
                if (well, z) != ("B03", 3):
                    store.save(image_of(100 * number + 10 * channel + z), f"{well}_s1_w{channel}_z{z}_t1.tif")
    store.close()
    cells = np.zeros((1, 1, 3, 24, 32), "uint16")
    cells[0, 0, 1, 3:9, 4:20] = 7
    storage.save_labels(path, "cells", cells, image="B/03/0", axes="tczyx")
    with view(path) as command:
        assert probe.ask("save", "plate.ome.zarr", home / "images.tif") == ["true"]
        assert probe.ask("save", "plate.ome.zarr cells", home / "cells.tif") == ["true"]
        with tifffile.TiffFile(home / "images.tif") as tiff:
            assert tiff.series[0].axes == "TZCYX"
            pixels, about = tiff.asarray(), tiff.imagej_metadata
        assert pixels.shape == (2, 3, 2, 24, 32)
        for number, z, channel in np.ndindex(2, 3, 2):
            wanted = image_of(100 * number + 10 * (channel + 1) + z + 1) if (number, z) != (1, 2) else np.zeros((24, 32))
            assert np.array_equal(pixels[number, z, channel], wanted), (number, z, channel)
        assert about["mode"] == "composite"
        first = image_of(11)
        assert tuple(about["Ranges"][:2]) == (first.min(), first.max())
        with tifffile.TiffFile(home / "cells.tif") as tiff:
            held = tiff.asarray()
        assert held.shape == (2, 3, 24, 32)
        assert np.array_equal(held[1, 1], cells[0, 0, 1])
        assert not held[0].any()
        probe.ask("go", "plate.ome.zarr", 1, 2, 2)
        assert "(B/03/0 t0 c0 z1)" in probe.ask("window", "plate.ome.zarr")[5]
        probe.ask("go", "plate.ome.zarr", 2, 3, 2)
        assert "(missing)" in probe.ask("window", "plate.ome.zarr")[5]
        for title in ("plate.ome.zarr", "plate.ome.zarr cells"):
            probe.ask("close", title)
        assert command.wait(DEADLINE_S) == 0
    assert probe.process.poll() is None, "the person's ImageJ stays"


def test_one_that_is_larger_than_imagejs_memory_is_read_as_commands_ask_for_it(home: Path, probe: Probe) -> None:
    """400 MB in an ImageJ that may take 200: each plane is looked at, and all at once by ImageJ's own projection."""
    path = home / "run.ome.zarr"
    shape = (1024, 1024)
    with storage.open_writer(path, shape=shape, dtype="uint16", pixel_size_um=0.5) as writer:
        for number in range(200):
            writer.append(np.full(shape, (number * 37) % 200 + 1, np.uint16))
    with view(path) as command:
        with probe.attach() as imagej:
            assert imagej.state().heap_bytes < 200 << 20
        lines = [probe.ask("pixels", "run.ome.zarr", number) for number in (200, 3, 111)]
        assert [line[0] for line in lines] == [
            str(zlib.crc32(np.full(shape, (n * 37) % 200 + 1, ">u2"))) for n in (199, 2, 110)
        ]
        assert probe.command("run.ome.zarr", "Z Project...", "projection=[Max Intensity]") == ["MAX_run.ome.zarr"]
        assert probe.ask("pixels", "MAX_run.ome.zarr", 1)[0] == str(zlib.crc32(np.full(shape, 200, ">u2")))
        assert "µm" in probe.ask("window", "run.ome.zarr")[5] or "microns" in probe.ask("window", "run.ome.zarr")[5]
        command.send_signal(signal.SIGINT)
        assert command.wait(DEADLINE_S) == 0
        (answer,) = probe.command("run.ome.zarr", "Z Project...", "projection=[Max Intensity]")
        assert "the program that reads this data set has ended" in answer, "no result, rather than a wrong one"


def test_places_of_frames_are_imagejs_axes_and_a_damaged_plane_is_told(home: Path, probe: Probe) -> None:
    path = home / "run.ome.zarr"
    with storage.open_writer(path, shape=(24, 32), dtype="uint16", ome_zarr_version="0.4") as writer:
        for number, (t, z, c) in enumerate(np.ndindex(2, 3, 2)):
            writer.append(image_of(number), index=PlaneIndex(t=t, c=c, z=z))
    chunks = sorted(each for each in (path / "0").rglob("*") if each.is_file() and not each.name.startswith("."))
    assert len(chunks) == 12
    damaged = max(chunks, key=lambda each: [int(part) for part in each.relative_to(path / "0").parts])
    damaged.write_bytes(b"short")
    with view(path):
        for number, (t, z, c) in enumerate(np.ndindex(2, 3, 2)):
            place = number + 1
            assert probe.ask("go", "run.ome.zarr", c + 1, z + 1, t + 1)[3] == str(place)
            if place < 12:
                wanted = str(zlib.crc32(image_of(number).astype(">u2")))
                assert probe.ask("pixels", "run.ome.zarr", place) == [wanted, f"frame {place} t{t} c{c} z{z}"]
            else:
                assert (
                    str(damaged.name) in probe.ask("pixels", "run.ome.zarr", place)[1]
                    or "damaged" in probe.ask("pixels", "run.ome.zarr", place)[1]
                )
                (answer,) = probe.command("run.ome.zarr", "Duplicate...", "title=copy duplicate")
                assert "cannot be had" in answer


def test_an_imagej_that_it_has_started_ends_with_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / "ImageJ"
    folder.mkdir()
    shutil.copyfile(installation("central").program, folder / "ij.jar")
    monkeypatch.setenv("FIJI_HOME", str(folder))
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", f"-Duser.home={home} -Xmx300m")
    path = home / "run.ome.tiff"
    with storage.open_writer(path, shape=(24, 32), dtype="float32") as writer:
        for number in range(3):
            writer.append(image_of(number).astype(np.float32))
    with view(path) as command:
        (receiver,) = running()
        assert receiver.viewer == "mutoscope view"
        command.send_signal(signal.SIGTERM)
        assert command.wait(DEADLINE_S) == 0
    assert running() == []


def test_what_cannot_be_shown_is_one_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home / "run.ome.zarr"
    with storage.open_writer(path, shape=(8, 8), dtype="uint16") as writer:
        writer.append(np.ones((8, 8), np.uint16))

    def told(*arguments: str) -> str:
        command = [sys.executable, "-m", "mutoscope", "view", "fiji", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=home, timeout=DEADLINE_S)
        assert done.returncode == 2, (done.stdout, done.stderr)
        return done.stderr

    assert "there is nothing at" in told(str(home / "none.ome.zarr"))
    assert "fiji has none" in told(str(path), "--port", "8080")
    monkeypatch.setenv("FIJI_HOME", str(home))
    assert "is no folder of Fiji or ImageJ" in told(str(path))
    monkeypatch.setenv("FIJI_HOME", str(JARS["debian"]))
    monkeypatch.delenv("DISPLAY")
    assert "ImageJ needs a screen" in told(str(path))
