"""Values that come with a frame and cannot be stored are named, and the writer goes on without that frame."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mutoscope import storage
from mutoscope.model.errors import ConfigError

WRONG: list[tuple[str, Any, str]] = [
    ("tick", "x", "tick of frame {} is a whole number from 0 to 2**64 - 1, not 'x'"),
    ("tick", -1, "tick of frame {} is a whole number from 0 to 2**64 - 1, not -1"),
    ("tick", 1.5, "tick of frame {} is a whole number from 0 to 2**64 - 1, not 1.5"),
    ("monotonic_ns", 2.5, "monotonic_ns of frame {} is a whole number of 64 bits, not 2.5"),
    ("utc_ns", "now", "utc_ns of frame {} is a whole number of 64 bits, not 'now'"),
    ("utc_ns", 2**63, "utc_ns of frame {} is a whole number of 64 bits, not 9223372036854775808"),
    ("exposure_ms", "5", "exposure_ms of frame {} is a number, nan where it is unknown, not '5'"),
    ("index", {"t": "first"}, "index of frame {} does not fit ("),
]
KINDS = {"plain": ("run.ome.zarr", {}), "compressed": ("run.ome.zarr", {"compression": "zstd"}), "tiff": ("run.ome.tiff", {})}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "value", "sentence"), WRONG)
@pytest.mark.parametrize("first", [False, True])
def test_what_cannot_be_stored_is_named(kind: str, name: str, value: Any, sentence: str, first: bool, tmp_path: Path) -> None:
    file, options = KINDS[kind]
    frame = np.full((8, 16), 7, "uint16")
    with storage.open_writer(tmp_path / file, shape=(8, 16), dtype="uint16", **options) as writer:
        if not first:
            writer.append(frame, tick=1)
        with pytest.raises(ConfigError, match=re.escape(sentence.format(1 if first else 2))) as caught:
            writer.append(frame, **{name: value})
        assert "\n" not in str(caught.value)
        writer.append(frame, tick=2)
    with storage.open_reader(tmp_path / file) as reader:
        assert reader.frame_ids.tolist() == ([1] if first else [1, 2])
        assert reader.ticks.tolist() == ([2] if first else [1, 2])
