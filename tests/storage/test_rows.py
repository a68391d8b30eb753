"""Files of rows: their bytes, what stock NumPy reads of them at any moment, and what a writer leaves and takes up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mutoscope import storage
from mutoscope.model.errors import ConfigError, DatasetError, DatasetNotFoundError
from mutoscope.storage import _rows

SPOTS = np.dtype([("frame_id", "<u8"), ("x_px", "<f4"), ("name", "S3")])


def rows(first: int, last: int) -> np.ndarray:
    return np.array([(number, number / 2, f"{number % 1000}") for number in range(first, last + 1)], SPOTS)


def test_the_bytes_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "spots.npy"
    with _rows.RowsWriter(path, SPOTS) as writer:
        writer.append(rows(1, 2))
        writer.append(rows(3, 3))
    data = path.read_bytes()
    text = b"{'descr': [('frame_id', '<u8'), ('x_px', '<f4'), ('name', '|S3')], 'fortran_order': False, 'shape': ("
    text += b"                   3,), }"
    assert data[:4096] == b"\x93NUMPY\x01\x00" + (4086).to_bytes(2, "little") + text.ljust(4085) + b"\n"
    assert data[4096:] == bytes.fromhex(
        "01000000000000000000003f310000 02000000000000000000803f320000 03000000000000000000c03f330000"
    )


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_stock_numpy_maps_it_while_it_is_written(tmp_path: Path, count: int) -> None:
    path = tmp_path / "spots.npy"
    with _rows.RowsWriter(path, SPOTS) as writer:
        if count:
            writer.append(rows(1, count))
        os.pwrite(writer._fd, b"half a row", 4096 + count * SPOTS.itemsize)
        live = np.load(path, mmap_mode="r")
        assert live.dtype == SPOTS
        assert np.array_equal(live, rows(1, count))
        assert np.array_equal(_rows.open_rows(path), rows(1, count))
        assert not _rows.open_rows(path).flags.writeable
    assert np.array_equal(np.load(path), rows(1, count))
    with _rows.RowsWriter(path, SPOTS) as writer:
        assert writer.count == count
        writer.append(rows(count + 1, count + 3))
    assert np.array_equal(np.load(path), rows(1, count + 3))


@pytest.mark.parametrize(
    "columns",
    [
        [("y", ">f8"), ("when", ">M8[ns]"), ("box", ">i2", (2, 2))],
        [("µm €", "<f8"), ("flag", "?"), ("inner", [("a", ">u2"), ("b", "U4")])],
        [(f"column_{number:03d}", "<u1") for number in range(150)],
        [(f"column_{number:05d}", "<u1") for number in range(3500)],
    ],
)
def test_any_columns_come_back_little_endian(tmp_path: Path, columns: list[tuple[str, str]]) -> None:
    dtype = np.dtype(columns)
    data = np.frombuffer(bytes(range(1, 7)) * dtype.itemsize, dtype)
    written = np.zeros(len(data), dtype)
    for name in dtype.names or ():
        if dtype[name].kind in "iufMb":
            written[name] = data[name] if dtype[name].kind != "b" else [True, False] * 3
    path = tmp_path / "table.npy"
    with _rows.RowsWriter(path, dtype) as writer:
        writer.append(written)
        assert writer._place // 4096 == (writer._place + 19) // 4096, "the count lies in one block"
    found = np.load(path, mmap_mode="r", max_header_size=1 << 20)
    assert found.dtype == dtype.newbyteorder("<")
    assert np.array_equal(found.astype(dtype), written)
    assert np.array_equal(_rows.open_rows(path), found)


@pytest.mark.parametrize("point", ["rows.written:3", "rows.counted:3", "storage.document.written"])
def test_a_killed_writer_leaves_whole_batches(tmp_path: Path, point: str) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_rows import SPOTS, _rows, rows
writer = _rows.RowsWriter(Path({str(tmp_path)!r}) / "spots.npy", SPOTS)
for batch in range(10):
    writer.append(rows(writer.count + 1, writer.count + 100))
"""
    environment = {**os.environ, "MUTOSCOPE_KILL_POINT": point}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    path = tmp_path / "spots.npy"
    expected = {"rows.written:3": 200, "rows.counted:3": 300}.get(point, 0)
    assert path.exists() == (expected > 0)
    if expected:
        assert np.array_equal(np.load(path, mmap_mode="r"), rows(1, expected))
    with _rows.RowsWriter(path, SPOTS) as writer:
        assert writer.count == expected
        writer.append(rows(expected + 1, 1000))
    assert np.array_equal(np.load(path), rows(1, 1000))


def test_other_columns_go_into_a_further_file(tmp_path: Path) -> None:
    other = np.dtype([("frame_id", "<u8")])
    for dtype, file in ((SPOTS, "spots.npy"), (other, "spots.1.npy"), (SPOTS, "spots.npy"), (other, "spots.1.npy")):
        with _rows.open_writer(tmp_path, "spots", dtype) as writer:
            assert writer.path == tmp_path / file
            writer.append(np.zeros(1, dtype))
    assert len(np.load(tmp_path / "spots.npy")) == len(np.load(tmp_path / "spots.1.npy")) == 2


@pytest.mark.parametrize("name", ["spots", "seen by Looker", "a/b", "..", "spots.1", "µ € 字", "100%", "C:\\x", "A" * 200])
def test_a_name_is_a_safe_file_and_comes_back(name: str) -> None:
    for segment in (0, 3):
        file = _rows.file_name(name, segment)
        assert "/" not in file
        assert not file.startswith(".")
        assert _rows.table_of(file) == (name, segment)


def test_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(ConfigError, match="is no name of a file"):
        _rows.file_name("x" * 201)
    assert _rows.table_of("a/b.npy") is None
    assert _rows.table_of(".npy") is None


def test_what_is_damaged_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "run.mutoscope" / "tables"
    folder.mkdir(parents=True)
    assert storage.run_tables(tmp_path / "run.mutoscope") == {}
    np.save(folder / "plain.npy", np.zeros(3))
    with pytest.raises(DatasetError, match="holds no rows of a table"):
        storage.run_tables(tmp_path / "run.mutoscope")
    (folder / "plain.npy").unlink()
    with _rows.RowsWriter(folder / "spots.npy", SPOTS) as writer:
        writer.append(rows(1, 100))
    os.truncate(folder / "spots.npy", 4096 + 99 * SPOTS.itemsize)
    with pytest.raises(DatasetError, match="needs 5596"):
        storage.run_tables(tmp_path / "run.mutoscope")
    with pytest.raises(DatasetNotFoundError):
        storage.run_tables(tmp_path / "other.ome.zarr")
