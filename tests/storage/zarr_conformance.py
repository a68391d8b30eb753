"""Readers from elsewhere over every form of OME-Zarr that is written, live and closed, and the table of what they find.

python tests/storage/zarr_conformance.py  runs them all and writes the table into docs/formats.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bioio_ome_zarr
import numpy as np
import pytest
import tensorstore
import yaozarrs
import zarr
import zarrs  # noqa: F401  registers its codec pipeline
from ome_zarr_models import open_ome_zarr
from storage_oracles_frames import frame_of

from mutoscope import storage

PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
BEGIN, END = "<!-- readers: begin -->\n", "<!-- readers: end -->\n"
HERE = Path(__file__).parent
SHAPE = (24, 40)
FRAMES = 6
NPM = ("zarrita@0.7.5",)
NGFF = ("ngff-zarr==0.50.0", "zarrista", "itkwasm", "wasmtime", "importlib-resources", "rich-argparse")
"""With what it imports and the tests' environment lacks; all that it declares would be 300 MB."""
NGIO = (
    *("ngio==1.1.3", "anndata>=0.12.5,<0.14", "polars", "polars-runtime-32", "pooch", "platformdirs", "h5py", "natsort"),
    *("array-api-compat", "legacy-api-wrap", "session-info2", "scverse-misc", "filelock"),
)
"""The same for ngio."""
NAPARI = ("napari-ome-zarr==0.10.0",)

STREAMS = [(version, compression) for version in ("0.5", "0.4") for compression in ("none", "blosc-lz4", "blosc-zstd", "zstd")]
PLATE = "plate 0.5"
FORMS = [*(f"{version} {compression}" for version, compression in STREAMS), PLATE]


@dataclass
class Image:
    """One image to read: where, and the frames that a reader must find first in it."""

    form: str
    path: Path
    frames: list[np.ndarray]
    ids: list[int] | None

    def expected(self) -> list[str]:
        return [hashlib.sha256(frame.tobytes()).hexdigest() for frame in self.frames]


@dataclass
class Finding:
    """What a reader found in an image: ids if it can tell them, digests of the first frames; or why it failed."""

    ids: list[int] | None = None
    frames: list[str] = field(default_factory=list)
    error: str | None = None

    def agrees(self, image: Image) -> bool:
        right_ids = self.ids is None or image.ids is None or self.ids == image.ids
        return self.error is None and right_ids and self.frames == image.expected()


Reader = Callable[[list[Image]], list[Finding]]


# ---------------------------------------------------------------------- the readers


def _level(path: Path) -> str:
    attributes = dict(zarr.open_group(path, mode="r").attrs)
    return str(attributes.get("ome", attributes)["multiscales"][0]["datasets"][0]["path"])


def _digests(array: Any, count: int) -> list[str]:
    planes = (np.asarray(array[t]).reshape(array.shape[-2:]) for t in range(count))
    return [hashlib.sha256(np.ascontiguousarray(plane).tobytes()).hexdigest() for plane in planes]


def _each(one: Callable[[Image], Finding]) -> Reader:
    def read(images: list[Image]) -> list[Finding]:
        found = []
        for image in images:
            try:
                found.append(one(image))
            except Exception as error:  # whatever it raises is its answer
                found.append(Finding(error=f"{type(error).__name__}: {error}"))
        return found

    return read


def _zarr(image: Image) -> Finding:
    group = zarr.open_group(image.path, mode="r")
    ids = None if image.ids is None else [int(i) for i in group["frames/frame_id"][:] if i]
    return Finding(ids, _digests(group[_level(image.path)], len(image.frames)))


def _zarrs(image: Image) -> Finding:
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return _zarr(image)


def _tensorstore(image: Image) -> Finding:
    def opened(array: str) -> Any:
        driver = "zarr3" if (image.path / array / "zarr.json").exists() else "zarr"
        spec = {"driver": driver, "kvstore": {"driver": "file", "path": str(image.path / array)}}
        return tensorstore.open(spec, recheck_cached_data=True).result()

    ids = None if image.ids is None else [int(i) for i in opened("frames/frame_id").read().result() if i]
    return Finding(ids, _digests(opened(_level(image.path)), len(image.frames)))


def _bioio(image: Image) -> Finding:
    return Finding(frames=_digests(bioio_ome_zarr.Reader(str(image.path)).get_image_dask_data("TZCYX"), len(image.frames)))


def _answers(done: subprocess.CompletedProcess[str], images: list[Image]) -> list[Finding]:
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    return [Finding(**told[str(image.path)]) for image in images]


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mutoscope-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _installed(name: str, command: list[str]) -> Path:
    """Return a folder of this user with a tool in it, which a command installs where it runs, once; skip if it cannot."""
    kept = _cache() / name
    if not kept.exists():
        part = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=_cache()))
        done = subprocess.run(command, cwd=part, capture_output=True, text=True, check=False, timeout=280)
        if done.returncode:
            shutil.rmtree(part)
            pytest.skip(f"{name} cannot be installed: {done.stderr.strip()[-200:]}")
        try:
            part.rename(kept)
        except OSError:  # another session was quicker
            if not kept.exists():
                raise
            shutil.rmtree(part)
    return kept


def _zarrita(images: list[Image]) -> list[Finding]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("no node and npm: install nodejs and npm")
    folder = _installed("zarrita-0.7.5", [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", ".", *NPM])
    script = folder / f"check-{os.getpid()}.mjs"  # node looks for the package from there
    shutil.copyfile(HERE / "ZarritaCheck.mjs", script)
    try:
        command = [node, script, str(len(images[0].frames)), *(image.path for image in images)]
        return _answers(subprocess.run(command, capture_output=True, text=True, check=False, timeout=60), images)
    finally:
        script.unlink()


def _apart(name: str, packages: tuple[str, ...], reader: str) -> Reader:
    """Return a reader whose packages are installed in a folder of their own and used in a process of its own."""

    def read(images: list[Image]) -> list[Finding]:
        folder = _installed(name, [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", ".", *packages])
        command = [
            sys.executable,
            HERE / "ome_zarr_check.py",
            reader,
            str(len(images[0].frames)),
            *(image.path for image in images),
        ]
        environment = os.environ | {"PYTHONPATH": str(folder)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        return _answers(done, images)

    return read


def _yaozarrs(image: Image) -> Finding:
    version = yaozarrs.v04 if image.form.startswith("0.4") else yaozarrs.v05
    found = yaozarrs.validate_zarr_store(str(image.path)).ome_metadata()
    assert isinstance(found, version.Image), f"is {type(found)}"
    return Finding(frames=image.expected())


def _ome_zarr_models(image: Image) -> Finding:
    found = open_ome_zarr(zarr.open_group(image.path, mode="r"))
    assert type(found).__name__ == "Image", f"is {type(found)}"
    assert type(found).__module__.startswith(f"ome_zarr_models.v0{image.form[2] if image.form[0] == '0' else 5}")
    return Finding(frames=image.expected())


PIXELS: dict[str, Reader] = {
    "zarr-python": _each(_zarr),
    "zarrs": _each(_zarrs),
    "tensorstore": _each(_tensorstore),
    "zarrita.js": _zarrita,
    "ngff-zarr": _apart("ngff-zarr-0.50.0-modules", NGFF, "ngff_zarr"),
    "ngio": _apart("ngio-1.1.3-modules", NGIO, "ngio"),
    "napari-ome-zarr": _apart("napari-ome-zarr-0.10.0-modules", NAPARI, "napari_ome_zarr"),
    "bioio-ome-zarr": _each(_bioio),
}
METADATA: dict[str, Reader] = {"yaozarrs": _each(_yaozarrs), "ome-zarr-models": _each(_ome_zarr_models)}
READERS: dict[str, Reader] = PIXELS | METADATA
UNTESTED = ("QuPath", "Fiji (N5 plug-ins)")


# ---------------------------------------------------------------------- what they read


@contextmanager
def live_images(folder: Path) -> Iterator[list[Image]]:
    """Write one image of each form, and give them while their writers are open; leaving closes them."""
    with ExitStack() as writers:
        images = []
        for version, compression in STREAMS:
            path = folder / f"{version}-{compression}.ome.zarr"
            shards = 4 if version == "0.5" else None
            writer = writers.enter_context(
                storage.open_writer(
                    path,
                    shape=SHAPE,
                    dtype="uint16",
                    compression=compression,
                    ome_zarr_version=version,
                    frames_per_shard=shards,
                    pixel_size_um=0.11,
                )
            )
            ids = [2 * k + 1 for k in range(FRAMES)]
            for frame_id in ids:
                writer.append(frame_of(frame_id), frame_id=frame_id)
            assert writer.flush(60.0)
            images.append(Image(f"{version} {compression}", path, [frame_of(i) for i in ids], ids))
        store = writers.enter_context(storage.open("ome-zarr", folder / "plate.ome.zarr", filenames="imagexpress"))
        planes = [frame_of(100 + t) for t in range(FRAMES)]
        for t, plane in enumerate(planes, 1):
            store.save(plane, f"TimePoint_{t}/ZStep_1/x_B03_s1_w1.TIF")
        [field_] = [each.parent for each in (folder / "plate.ome.zarr").rglob("0") if each.parent.parent.parent.name == "B"]
        images.append(Image(PLATE, field_, planes, None))
        yield images


def matrix(images: list[Image], readers: dict[str, Reader] = READERS) -> dict[tuple[str, str], Finding]:
    """Return (reader, form) → what it found."""
    found = {}
    for name, read in readers.items():
        for image, finding in zip(images, read(images), strict=True):
            found[name, image.form] = finding
    return found


def table(live: dict[tuple[str, str], bool], closed: dict[tuple[str, str], bool]) -> str:
    """Return the table of the page: reader × form."""
    words = {
        (True, True): "live, closed",
        (False, True): "closed only",
        (True, False): "live only",
        (False, False): "**fails**",
    }
    heads = [form.replace("none", "uncompressed") for form in FORMS]
    lines = ["| reader | " + " | ".join(heads) + " |", "|---|" + "---|" * len(FORMS)]
    for name in READERS:
        note = "" if name in PIXELS else " (metadata)"
        cells = [words[live[name, form], closed[name, form]] for form in FORMS]
        lines.append(f"| {name}{note} | " + " | ".join(cells) + " |")
    lines += [f"| {name} | " + " | ".join(["not tested"] * len(FORMS)) + " |" for name in UNTESTED]
    return "\n".join(lines) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        with live_images(Path(name)) as images:
            live = matrix(images)
        closed = matrix(images)
        judged = [
            {key: finding.agrees(next(i for i in images if i.form == key[1])) for key, finding in found.items()}
            for found in (live, closed)
        ]
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(text[:before] + table(*judged) + text[after:], encoding="utf-8")
    for key, finding in {**live, **closed}.items():
        if finding.error:
            print(*key, finding.error, file=sys.stderr)


if __name__ == "__main__":
    main()
