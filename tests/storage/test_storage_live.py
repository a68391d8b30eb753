"""Readers of others, in another process, while frames are appended, shards begin, and images are closed and gone on with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from storage_oracles import READERS, frame_of, zarr_ids

from mutoscope import storage

CHILD = Path(__file__).with_name("storage_child.py")
LOOKS = 60


@pytest.mark.parametrize("reader", [*READERS, "mutoscope"])
@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("stream", ("none", "0.5")),
        ("reopen", ("none", "0.5")),
        ("stream", ("blosc-lz4", "0.5")),
        ("reopen", ("zstd", "0.5")),
        ("stream", ("zstd", "0.4")),
        ("reopen", ("none", "0.4")),
    ],
)
def test_a_live_reader_is_never_wrong(tmp_path: Path, mode: str, form: tuple[str, str], reader: str) -> None:
    path = tmp_path / "run.ome.zarr"
    child = subprocess.Popen([sys.executable, CHILD, path, mode, *form], stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"ready\n"
        acknowledged = seen = 0
        looks = LOOKS if form == ("none", "0.5") else LOOKS // 2
        for _ in range(looks):
            line = child.stdout.readline().split()
            acknowledged = int(line[1]) + 1
            if reader == "mutoscope":
                with storage.open_reader(path) as opened:
                    ids, first = opened.frame_ids, max(0, len(opened) - 20)
                    frames = np.stack([opened[k] for k in range(first, len(opened))])
            else:
                ids = zarr_ids(path)
                count = int(np.count_nonzero(ids))
                assert zarr.open_group(path, mode="r")["0"].shape[0] >= count
                ids, first = ids[:count], max(0, count - 20)
                frames = READERS[reader](path, count, first)
            assert np.all(np.diff(ids.astype(np.int64)) > 0)
            assert len(ids) >= acknowledged
            assert frames.tobytes() == np.stack([frame_of(int(i)) for i in ids[first:]]).tobytes()
            seen = len(ids)
        assert seen >= looks
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
