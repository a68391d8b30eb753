"""What frames carry survives OME-Zarr → OME-TIFF → OME-Zarr, and tables survive CSV; conversions are killed at random."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mutoscope import storage
from mutoscope.model.errors import DatasetError, DatasetNotFoundError

COLUMNS = ("frame_ids", "ticks", "monotonic_ns", "utc_ns", "exposure_ms")
DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")
PLACE = st.one_of(
    st.none(), st.fixed_dictionaries({}, optional={name: st.integers(0, 6) for name in ("t", "c", "z", "position")})
)
FRAME = st.fixed_dictionaries(
    {
        "step": st.integers(1, 9),
        "tick": st.integers(0, 2**64 - 1),
        "monotonic_ns": st.integers(0, 2**62),
        "utc_ns": st.integers(0, 2**62),
        "exposure_ms": st.one_of(st.just(float("nan")), st.floats(0, 1e9)),
        "index": PLACE,
    }
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.data(),
    dtype=st.sampled_from(DTYPES),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    frames=st.lists(FRAME, min_size=1, max_size=7),
    way=st.sampled_from([("a.ome.zarr", "b.ome.tiff", "c.ome.zarr"), ("a.ome.tiff", "b.ome.zarr", "c.ome.tiff")]),
    version=st.sampled_from(["0.5", "0.4"]),
)
def test_what_frames_carry_survives_the_way_there_and_back(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    dtype: str,
    shape: tuple[int, int],
    frames: list[dict[str, Any]],
    way: tuple[str, str, str],
    version: str,
) -> None:
    paths = [tmp_path_factory.mktemp("way") / name for name in way]
    pixels = [data.draw(arrays.arrays(dtype, shape)) for _ in frames]
    frame_id = 0
    with storage.open_writer(paths[0], shape=shape, dtype=dtype, attributes={"note": [1, None, "ä"]}) as writer:
        for frame, array in zip(frames, pixels, strict=True):
            frame_id += frame["step"]
            carried = {key: value for key, value in frame.items() if key != "step"}
            writer.append(array, frame_id=frame_id, **carried)
        writer.close({"stored": len(frames)})
    for source, target in itertools.pairwise(paths):
        options = {"ome_zarr_version": version} if target.name.endswith("zarr") else {}
        storage.convert(source, target, **options)
    with storage.open_reader(paths[0]) as first, storage.open_reader(paths[2]) as last:
        for number, array in enumerate(pixels):
            assert last[number].tobytes() == array.tobytes()
            assert last[number].dtype == np.dtype(dtype)
        for name in COLUMNS:
            np.testing.assert_array_equal(getattr(first, name), getattr(last, name))
        planes, others = first.planes(), last.planes()
        assert (planes is None) == (others is None)
        for name in planes or ():
            np.testing.assert_array_equal(planes[name], others[name])
        assert last.ledger == {"stored": len(frames)}
        assert last.attributes["note"] == [1, None, "ä"]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
VALUES = {
    "i8": st.integers(-(2**63), 2**63 - 1),
    "u8": st.integers(0, 2**64 - 1),
    "i2": st.integers(-(2**15), 2**15 - 1),
    "f8": st.floats(width=64),
    "f4": st.floats(width=32),
    "?": st.booleans(),
    "U5": TEXT,
}


@settings(max_examples=50, deadline=None)
@given(data=st.data(), kinds=st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4), rows=st.integers(0, 5))
def test_tables_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kinds: list[str], rows: int
) -> None:
    table = np.zeros(rows, dtype=[(f"column {number}", kind) for number, kind in enumerate(kinds)])
    for number, kind in enumerate(kinds):
        table[f"column {number}"] = [data.draw(VALUES[kind]) for _ in range(rows)]
    path = tmp_path_factory.mktemp("table") / "run.ome.zarr"
    with storage.open_writer(path, shape=(2, 3), dtype="uint8") as writer:
        writer.append(np.zeros((2, 3), "uint8"))
    storage.save_table(path, "t", table)
    found = storage.load_table(path, "t")
    assert found.dtype == table.dtype
    for name in table.dtype.names:
        np.testing.assert_array_equal(found[name], table[name])


@pytest.mark.parametrize("name", ["copy.ome.zarr", "copy.ome.tiff"])
def test_kills_at_random(tmp_path: Path, name: str) -> None:
    source, target = tmp_path / "run.ome.zarr", tmp_path / name
    frames = np.random.default_rng(5).integers(0, 60000, (300, 64, 64), dtype="uint16")
    with storage.open_writer(source, shape=(64, 64), dtype="uint16") as writer:
        for frame in frames:
            writer.append(frame)
    chance = random.Random(11)
    command = [sys.executable, str(Path(__file__).with_name("convert_child.py")), str(source), str(target)]
    for _ in range(5):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.random() / 20)
            process.kill()
            process.communicate(timeout=60)
        try:
            whole = storage.info(target)
        except (DatasetNotFoundError, DatasetError):
            continue
        assert whole["complete"] or name.endswith("tiff")
        if whole["complete"]:
            break
    if not (os.path.lexists(target) and storage.info(target)["complete"]):
        storage.convert(source, target)
    with storage.open_reader(target) as reader:
        np.testing.assert_array_equal(np.stack(list(reader)), frames)
