"""What a stream cannot hold, as docs/formats.md lists it: refused, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mutoscope import storage
from mutoscope.model.errors import ConfigError
from mutoscope.storage import CameraLayout

SHAPE = (8, 12)
PLAIN = CameraLayout(SHAPE, "uint16")


def write(path: Path) -> None:
    with storage.open_writer(path, shape=SHAPE, dtype="uint16") as writer:
        writer.append(np.ones(SHAPE, "uint16"))


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float16", "bool", "complex64"])
@pytest.mark.parametrize("name", ["run.ome.zarr", "run.ome.tiff"])
def test_types_that_no_stream_holds(tmp_path: Path, name: str, dtype: str) -> None:
    with pytest.raises(ConfigError, match="cannot be stored"):
        storage.open_writer(tmp_path / name, shape=SHAPE, dtype=dtype)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda path: storage.create_recording(path, {"left": PLAIN, "right": PLAIN}), "holds one camera, not 2"),
        (lambda path: storage.open_writer(path, shape=SHAPE, dtype="uint16", pyramid=True), "pyramid"),
    ],
)
def test_what_an_ome_tiff_is_not_begun_with(tmp_path: Path, what: Callable[[Path], object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        what(tmp_path / "run.ome.tiff")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda path: storage.open_writer(path, shape=(4, 4), dtype="uint16", resume=True), "frames of another kind"),
        (lambda path: storage.build_pyramid(path), "pyramid|OME-Zarr"),
        (lambda path: storage.save_labels(path, "cells", np.ones(SHAPE, "uint8")), "no OME-Zarr, which alone has labels"),
        (lambda path: storage.save_table(path, "rows", np.ones(3, [("a", "u1")])), "no OME-Zarr, which alone has labels"),
    ],
)
def test_what_an_ome_tiff_does_not_take(tmp_path: Path, what: Callable[[Path], object], said: str) -> None:
    path = tmp_path / "run.ome.tiff"
    write(path)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=said):
        what(path)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before
