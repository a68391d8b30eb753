"""Exports as the other tools see them: ImageJ itself (opt in), tifffile, GeoJSON, CellProfiler's columns."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from storage_oracles_frames import frame_of

from mutoscope import storage
from mutoscope.model.errors import ConfigError, DatasetError, DatasetExistsError, DatasetNotFoundError
from mutoscope.model.roi import Polygon, Roi
from mutoscope.model.roi_convert import from_geojson, to_labels

JAR = Path(os.environ.get("MUTOSCOPE_IMAGEJ", "/usr/share/java/ij.jar"))
SHAPE = (24, 40)
IDS = [3, 4, 5, 9, 10, 11, 12, 40, 41, 42, 43, 44]


def record(path: Path, dtype: str = "uint16", planes: bool = True, **options: Any) -> Path:
    """Make 3 t × 2 c × 2 z, in the order t, c, z, with missing ids."""
    with storage.open_writer(path, shape=SHAPE, dtype=dtype, pixel_size_um=0.25, rate_hz=20.0, **options) as writer:
        for number, frame_id in enumerate(IDS):
            index = {"t": number // 4, "c": number // 2 % 2, "z": number % 2} if planes else None
            writer.append(frame_of(frame_id, SHAPE, dtype), frame_id=frame_id, index=index, utc_ns=10**18 + frame_id)
    return path


def stack(dtype: str = "uint16") -> np.ndarray:
    return np.stack([frame_of(frame_id, SHAPE, dtype) for frame_id in IDS]).reshape(3, 2, 2, *SHAPE)


@pytest.mark.parametrize("name", ["run.ome.zarr", "run.ome.tiff"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_hyperstack_as_tifffile_sees_it(tmp_path: Path, name: str, dtype: str) -> None:
    source = record(tmp_path / name, dtype)
    report = storage.export_fiji(source, tmp_path / "out" / "run.tif")
    with tifffile.TiffFile(tmp_path / "out" / "run.tif") as tiff:
        assert tiff.is_imagej
        assert tiff.series[0].axes == "TZCYX"
        np.testing.assert_array_equal(tiff.asarray(), stack(dtype).transpose(0, 2, 1, 3, 4))
        said = tiff.imagej_metadata
        assert said["unit"] == "um"
        assert said["finterval"] == pytest.approx(4 / 20)
        assert said["Labels"][1] == "frame 5 t0 c1 z0 2001-09-09T01:46:40.000000005Z"
        assert tiff.pages[0].tags["XResolution"].value == (4, 1)
    assert (report.planes, report.files, report.notes) == (12, 1, ())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.tif"]


def test_a_hyperstack_as_imagej_sees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not JAR.is_file() or shutil.which("java") is None:
        pytest.skip("no ImageJ here: install imagej and default-jdk-headless, or set MUTOSCOPE_IMAGEJ to ij.jar")
    paths = []
    for dtype in ("uint8", "uint16", "float32"):
        paths.append(tmp_path / f"{dtype}.tif")
        storage.export_fiji(record(tmp_path / f"{dtype}.ome.zarr", dtype), paths[-1])
    paths.append(tmp_path / "time.tif")
    storage.export_fiji(record(tmp_path / "time.ome.zarr", planes=False), paths[-1])
    with tifffile.TiffFile(paths[-1]) as tiff:
        assert len(tiff.pages) == 12
    monkeypatch.setattr("mutoscope.storage.exporting._fiji._CLASSIC_BYTES", 1000)
    storage.export_fiji(tmp_path / "uint16.ome.zarr", tmp_path / "long" / "uint16.tif")
    paths.append(tmp_path / "long" / "uint16.tif")  # the form that files of more than 4 GiB have: one page, planes behind it
    (tmp_path / "cut.tif").write_bytes(paths[0].read_bytes()[:50])
    check = Path(__file__).with_name("FijiCheck.java")
    command = ["java", "-Djava.awt.headless=true", "-Dfile.encoding=UTF-8", "-cp", str(JAR), str(check), *map(str, paths)]
    done = subprocess.run([*command, str(tmp_path / "cut.tif")], capture_output=True, check=True, timeout=120)
    said = done.stdout.decode("utf-8", "replace").splitlines()
    assert said[-1] == "unreadable", "the check can fail"
    lines = iter(said)
    for path in paths:
        flat = path.stem == "time"
        dtype = "uint16" if flat else path.stem
        head = next(lines).split()
        assert head[:5] == ["40", "24", "1", "1", "12"] if flat else ["40", "24", "2", "2", "3"]
        assert int(head[5]) == np.dtype(dtype).itemsize * 8
        assert (float(head[6]), head[8], float(head[9])) == (0.25, "um", pytest.approx(0.05 if flat else 0.2))
        planes = stack(dtype).reshape(12, *SHAPE) if flat else stack(dtype).transpose(0, 2, 1, 3, 4).reshape(12, *SHAPE)
        order = np.arange(12) if flat else np.arange(12).reshape(3, 2, 2).transpose(0, 2, 1).ravel()
        for plane, number in zip(planes, order, strict=True):
            total, _, label = next(lines).partition("|")
            assert float(total) == pytest.approx(float((plane.astype("f8").ravel() * (np.arange(plane.size) % 1000 + 1)).sum()))
            assert label.startswith(f"frame {IDS[number]} "), label


def test_frames_that_fill_no_stack_are_points_in_time(tmp_path: Path) -> None:
    with storage.open_writer(tmp_path / "run.ome.zarr", shape=SHAPE, dtype="uint8") as writer:
        for number, index in enumerate([{"t": 0, "c": 0}, {"t": 0, "c": 1}, {"t": 1, "c": 0}], 1):
            writer.append(frame_of(number, SHAPE, "uint8"), index=index)
    report = storage.export_fiji(tmp_path / "run.ome.zarr", tmp_path / "run.tif")
    assert "each is a point in time" in report.notes[0]
    with tifffile.TiffFile(tmp_path / "run.tif") as tiff:
        assert tiff.asarray().shape == (3, *SHAPE)
        assert tiff.imagej_metadata["Labels"] == ["frame 1 t0 c0", "frame 2 t0 c1", "frame 3 t1 c0"]


def test_positions_are_chosen(tmp_path: Path) -> None:
    with storage.open_writer(tmp_path / "run.ome.tiff", shape=SHAPE, dtype="uint8") as writer:
        for number in range(6):
            writer.append(frame_of(number, SHAPE, "uint8"), index={"t": number // 2, "position": number % 2})
    with pytest.raises(ConfigError, match="several positions, choose one with position=: 0, 1"):
        storage.export_fiji(tmp_path / "run.ome.tiff", tmp_path / "run.tif")
    storage.export_fiji(tmp_path / "run.ome.tiff", tmp_path / "run.tif", position=1)
    expected = np.stack([frame_of(number, SHAPE, "uint8") for number in (1, 3, 5)])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "run.tif"), expected)


def test_qupath_gets_the_image_and_rois(tmp_path: Path) -> None:
    source = record(tmp_path / "run.ome.zarr")
    drawn = [Roi(id="1", geometry=Polygon(exterior=((2, 3), (20, 3), (20, 15), (2, 15))), name="cell 1")]
    with storage.open("disk", tmp_path) as store:
        store.save(drawn, "drawn.zip")
    report = storage.export_qupath(source, tmp_path / "a", rois=tmp_path / "drawn.zip")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["image.ome.tiff", "image.ome.tiff.json", "rois.geojson"]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a" / "image.ome.tiff"), stack())
    [feature] = json.loads((tmp_path / "a" / "rois.geojson").read_text())["features"]
    assert feature["geometry"]["type"] == "Polygon"
    assert feature["properties"]["name"] == "cell 1"
    assert report.planes == 12

    objects = np.zeros((3, *SHAPE), "uint8")
    objects[0, 2:9, 3:11], objects[2, 12:20, 5:30], objects[2, 3:5, 3:5] = 4, 5, 6
    storage.save_labels(source, "cells", objects)
    report = storage.export_qupath(source, tmp_path / "b", from_labels="cells")
    found = from_geojson((tmp_path / "b" / "rois.geojson").read_bytes())
    assert [roi.plane.t for roi in found] == [0, 2, 2]
    np.testing.assert_array_equal(to_labels(found[1:], SHAPE) > 0, objects[2] > 0)
    assert report.notes[0] == "3 ROIs in rois.geojson"


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "load_data.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_cellprofiler_gets_a_plate(tmp_path: Path) -> None:
    images = {}
    with storage.open("ome-zarr", tmp_path / "plate.ome.zarr", filenames="imagexpress", overview=False) as plate:
        for number, (well, site, channel) in enumerate((w, s, c) for w in ("B03", "C04") for s in (1, 2) for c in (1, 2)):
            if (well, site, channel) != ("C04", 2, 2):
                images[well, str(site), channel] = frame_of(number, SHAPE)
                plate.save(frame_of(number, SHAPE), f"exp_{well}_s{site}_w{channel}.tif")
    report = storage.export_cellprofiler(tmp_path / "plate.ome.zarr", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [(row["Metadata_Well"], row["Metadata_Site"]) for row in rows] == [("B03", "1"), ("B03", "2"), ("C04", "1")]
    assert {row["Metadata_Plate"] for row in rows} == {"exp"}
    for row in rows:
        for channel in (1, 2):
            path = Path(row[f"Image_PathName_Channel{channel}"]) / row[f"Image_FileName_Channel{channel}"]
            np.testing.assert_array_equal(tifffile.imread(path), images[row["Metadata_Well"], row["Metadata_Site"], channel])
    assert report.planes == 6 == len(list((tmp_path / "out" / "images").iterdir()))
    assert report.notes[0].startswith("1 planes were left out")
    report = storage.export_cellprofiler(tmp_path / "plate.ome.zarr", tmp_path / "one", image="B/03/1")
    assert report.planes == 2


def test_cellprofiler_gets_a_stream(tmp_path: Path) -> None:
    source = record(tmp_path / "run.ome.zarr")
    storage.export_cellprofiler(source, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [(row["Metadata_T"], row["Metadata_Z"]) for row in rows] == [(str(t), str(z)) for t in (1, 2, 3) for z in (1, 2)]
    for number, row in enumerate(rows):
        t, z = divmod(number, 2)
        for c in (0, 1):
            path = Path(row[f"Image_PathName_Channel{c + 1}"]) / row[f"Image_FileName_Channel{c + 1}"]
            np.testing.assert_array_equal(tifffile.imread(path), stack()[t, c, z])


TOOLS = {
    "fiji": (storage.export_fiji, "out.tif"),
    "qupath": (storage.export_qupath, "out"),
    "cellprofiler": (storage.export_cellprofiler, "out"),
}


@pytest.mark.parametrize("tool", list(TOOLS))
def test_what_cannot_be_is_said_and_nothing_is_left(tmp_path: Path, tool: str) -> None:
    export, name = TOOLS[tool]
    with pytest.raises(DatasetNotFoundError):
        export(tmp_path / "nothing", tmp_path / name)
    if tool != "qupath":
        with pytest.raises(ConfigError, match="not int32"):
            export(record(tmp_path / "int.ome.zarr", "int32"), tmp_path / name)
    tifffile.imwrite(tmp_path / "cut.tif", np.zeros((3, *SHAPE), "uint8"), photometric="minisblack")
    with open(tmp_path / "cut.tif", "r+b") as file:
        file.truncate(2000)
    with pytest.raises(DatasetError):
        export(tmp_path / "cut.tif", tmp_path / name)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "out"))]
    source = record(tmp_path / "run.ome.zarr")
    export(source, tmp_path / name)
    with pytest.raises(DatasetExistsError, match="exists already"):
        export(source, tmp_path / name)


@pytest.mark.parametrize(
    ("tool", "point"),
    [
        ("fiji", "export.plane:5"),
        ("fiji", "aside.written"),
        ("qupath", "convert.frame:5"),
        ("qupath", "export.filled"),
        ("cellprofiler", "export.plane:5"),
        ("cellprofiler", "create.built"),
    ],
)
def test_a_killed_export_leaves_nothing_and_can_be_repeated(tmp_path: Path, tool: str, point: str) -> None:
    export, name = TOOLS[tool]
    source = record(tmp_path / "run.ome.zarr")
    command = [sys.executable, "-m", "mutoscope", "export", tool, str(source), str(tmp_path / name)]
    environment = os.environ | {"MUTOSCOPE_KILL_POINT": f"storage.{point}"}
    assert subprocess.run(command, env=environment, timeout=60, check=False).returncode == -9
    assert not (tmp_path / name).exists()
    report = export(source, tmp_path / name)
    assert report.planes == 12


def test_typed(tmp_path: Path) -> None:
    """What the command line makes of it: a summary, JSON on the last line, one sentence and exit code 2 for what cannot be."""
    record(tmp_path / "run.ome.zarr")

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mutoscope", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    done = typed("convert", "run.ome.zarr", "copy.ome.tiff", "--compression", "zlib", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["frames"] == 12
    assert "gaps 2: 30 frames were missing in the source" in done.stdout
    done = typed("export", "fiji", "copy.ome.tiff", "out.tif", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["planes"] == 12
    for words in (
        ("convert", "run.ome.zarr", "copy.ome.tiff"),
        ("export", "fiji", "run.ome.zarr", "out.tif"),
        ("export", "qupath", "run.ome.zarr", "new", "--rois", "nothing.zip"),
        ("export", "cellprofiler", "nothing", "new"),
    ):
        done = typed(*words)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert "Traceback" not in done.stderr
