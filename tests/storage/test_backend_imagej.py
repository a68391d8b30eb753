"""Plain TIFF, as ImageJ itself reads it, headless. Needs Java and ImageJ's jar: MUTOSCOPE_IMAGEJ, or Debian's `libij-java`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mutoscope import storage
from mutoscope.model.errors import ConfigError
from mutoscope.storage.suite import image_of

CHECK = Path(__file__).with_name("ImageJCheck.java")
JAR = Path(os.environ.get("MUTOSCOPE_IMAGEJ", "/usr/share/java/ij.jar"))
FLAT = (20, 30)
CASES = [
    *[(FLAT, dtype, (1, 1, 1)) for dtype in ("uint8", "uint16", "int16", "float32", "int32", "bool")],
    ((3, 10, 12), "uint16", (1, 3, 1)),
    ((2, 3, 10, 12), "uint16", (3, 2, 1)),
    ((2, 3, 2, 5, 6), "float32", (2, 3, 2)),
    ((1, 3, 1, 5, 6), "uint8", (1, 3, 1)),
    ((2, 5, 6), "int32", (1, 2, 1)),
    ((20, 30, 3), "uint8", (1, 1, 1)),
]


def weighted_sum(image: np.ndarray) -> float:
    """As ImageJCheck.java sums it, of the values that ImageJ has for them."""
    if image.shape[-1] == 3 and image.dtype == np.uint8:
        image = image[..., 0].astype("i8") << 16 | image[..., 1].astype("i8") << 8 | image[..., 2]
    values = image.astype("u1") * 255.0 if image.dtype == bool else image
    if image.dtype == np.int32:
        values = image.astype("float32")
    return float((values.astype("f8").ravel() * (np.arange(values.size) % 1000 + 1)).sum())


def test_imagej_sees_the_same_pixels_and_axes(tmp_path: Path) -> None:
    if not JAR.is_file() or shutil.which("java") is None:
        pytest.skip("no ImageJ here: install imagej and default-jdk-headless, or set MUTOSCOPE_IMAGEJ to ij.jar")
    paths = [str(tmp_path / f"{number}.tif") for number in range(len(CASES))]
    with storage.open("disk", tmp_path) as store:
        for number, (shape, dtype, _) in enumerate(CASES):
            store.save(image_of(number, shape, dtype), f"{number}.tif")
    (tmp_path / "damaged.tif").write_bytes(Path(paths[0]).read_bytes()[:40])
    command = ["java", "-Djava.awt.headless=true", "-cp", str(JAR), str(CHECK), *paths, str(tmp_path / "damaged.tif")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    lines = [line for line in done.stdout.splitlines() if line.startswith(str(tmp_path))]
    assert len(lines) == len(CASES) + 1
    for number, (shape, dtype, axes) in enumerate(CASES):
        image = image_of(number, shape, dtype)
        path, width, height, *counted, _, total = lines[number].split()
        rgb = shape[-1] == 3 and dtype == "uint8"
        assert path == paths[number]
        assert (int(height), int(width)) == (shape[:2] if rgb else shape[-2:])
        assert tuple(int(count) for count in counted) == axes, (shape, dtype)
        assert float(total) == pytest.approx(weighted_sum(image), rel=1e-12), (shape, dtype)
    assert lines[-1].endswith("unreadable"), "the check can fail"


def test_what_imagej_reads_otherwise_is_refused(tmp_path: Path) -> None:
    with storage.open("disk", tmp_path) as store:
        for dtype in ("int8", "float64", "uint64", "float16", "complex64"):
            with pytest.raises(ConfigError, match=r"ImageJ does not read .*\.npy holds it"):
                store.save(np.zeros((3, 3), dtype), "a.tif")
        store.save(np.full((3, 3), 2**31 - 1, "uint32"), "labels.tif")
        with pytest.raises(ConfigError, match="negative"):
            store.save(np.full((3, 3), 2**31, "uint32"), "a.tif")
