"""The bytes on disk are those of docs/layout.md, read here with nothing but that page."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from storage_oracles import frame_of

from mutoscope import storage
from mutoscope.storage import _layout, _shard

PAGE = Path(__file__).resolve().parents[2] / "docs" / "layout.md"


@given(st.binary(max_size=5000))
def test_the_checksum_is_crc32c(data: bytes) -> None:
    assert _shard.crc32c(data) == google_crc32c.value(data)


def test_the_page_is_of_this_version() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.startswith(f"# Layout of a data set, version {_layout.LAYOUT_VERSION}\n")
    for name in (*_layout.FLAT_ARRAYS, *_layout.PLANE_ARRAYS, *_layout.DTYPES):
        assert f"`{name}`" in text
    assert f"{_layout.RECORDS_PER_CHUNK:,} values" in text


def index_of(shard: bytes, chunks: int) -> np.ndarray:
    """Return the index at a shard's end after checking its checksum."""
    raw, checksum = shard[-16 * chunks - 4 : -4], struct.unpack("<I", shard[-4:])[0]
    assert google_crc32c.value(raw) == checksum
    return np.frombuffer(raw, "<u8").reshape(chunks, 2)


def test_the_bytes_are_where_the_page_says(tmp_path: Path) -> None:
    path, shape, per_shard = tmp_path / "run.ome.zarr", (2000, 300), 3
    frame_bytes = 2000 * 300 * 2
    writer = storage.open_writer(path, shape=shape, dtype="uint16", frames_per_shard=per_shard)
    for frame_id in range(1, 6):
        writer.append(frame_of(frame_id, shape), tick=frame_id * 3)
    level = json.loads((path / "0/zarr.json").read_text())
    assert level["shape"] == [6, 2000, 300]
    height = level["codecs"][0]["configuration"]["chunk_shape"][1]
    assert (height, 2000 % height) == (1000, 0)
    chunks = per_shard * 2000 // height
    full = [[i * height * 600, height * 600] for i in range(chunks)]
    for shard in (0, 1):
        data = (path / f"0/c/{shard}/0/0").read_bytes()
        assert len(data) == per_shard * frame_bytes + 16 * chunks + 4
        assert index_of(data, chunks).tolist() == full
    ids = np.fromfile(path / "frames/frame_id/c/0", "<u8")
    assert (ids.size, ids[:6].tolist(), int(ids[6:].sum())) == (16384, [1, 2, 3, 4, 5, 0], 0)
    assert np.fromfile(path / "frames/tick/c/0", "<u8")[:5].tolist() == [3, 6, 9, 12, 15]
    assert json.loads((path / "frames/tick/zarr.json").read_text())["shape"] == [16384]
    writer.close()
    last = (path / "0/c/1/0/0").read_bytes()
    assert len(last) == 2 * frame_bytes + 16 * chunks + 4
    stored = 2 * 2000 // height
    assert index_of(last, chunks).tolist() == full[:stored] + [[2**64 - 1, 2**64 - 1]] * (chunks - stored)
    assert last[frame_bytes : 2 * frame_bytes] == frame_of(5, shape).tobytes()
    assert json.loads((path / "frames/tick/zarr.json").read_text())["shape"] == [5]


@pytest.mark.parametrize(
    ("shape", "dtype", "strip", "per_shard"),
    [
        ((512, 512), "uint16", 512, 256),
        ((2048, 2048), "uint16", 128, 16),
        ((1021, 1021), "uint16", 1021, 64),
        ((8, 8), "uint8", 8, 4096),
    ],
)
def test_strips_and_shards_of_usual_frames(shape: tuple[int, int], dtype: str, strip: int, per_shard: int) -> None:
    level = _layout.plan_level(shape, dtype)
    assert (level.strip, level.frames_per_shard) == (strip, per_shard)


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from(_layout.DTYPES))
def test_strips_are_whole_and_shards_bounded(height: int, width: int, dtype: str) -> None:
    level = _layout.plan_level((height, width), dtype)
    assert level.strip * level.strips == height
    assert level.index_length < 4_000_000
    assert level.frames_per_shard == 4 or level.pixel_bytes <= _layout.SHARD_BYTES
    assert _layout.parse_level(_layout.level_document(level, 7), "here") == (level, 7)
