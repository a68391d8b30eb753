"""Damaged, hostile and foreign files: one clear error or the item, never a crash, a hang, or a look outside the root."""

from __future__ import annotations

import io
import os
import random
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from mutoscope import storage
from mutoscope.model.errors import ConfigError, DatasetError, DatasetNotFoundError
from mutoscope.storage.suite import image_of

TABLE = np.array([(n, n / 3, f"name {n}") for n in range(20)], [("a", "i8"), ("b", "f8"), ("c", "U8")])
ITEMS: dict[str, Any] = {
    "grey.tif": image_of(1, (20, 30)),
    "stack.tif": image_of(2, (3, 10, 12), "float32"),
    "plain.tif": image_of(2, (3, 10, 12), "int32"),
    "bool.tif": image_of(3, (10, 13), "bool"),
    "a.npy": image_of(4, (20, 30)),
    "table.npy": TABLE,
    "a.png": image_of(5, (20, 30), "uint8"),
    "rgb.png": image_of(5, (20, 30, 3), "uint8"),
    "a.csv": TABLE,
    "a.json": {"values": [1, 2.5, {"deep": ["x"] * 10}]},
    "a.txt": "text " * 20,
}
CUT_IS_TOLD = {name for name in ITEMS if not name.endswith((".csv", ".txt"))}
"""The forms of which every loss at the end can be told."""

FLIPS = 60
SECONDS = 5.0


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with storage.open("disk", tmp_path / "store", overwrite=True) as opened:
        for name, item in ITEMS.items():
            opened.save(item, name)
        yield opened


def attempt(store: Any, name: str, region: Any = None) -> Any:
    """Load; return what came, or None for the one error that is allowed."""
    began = time.monotonic()
    try:
        return store.load(name) if region is None else store.load_region(name, region)
    except DatasetError as error:
        said = str(error)
    finally:
        assert time.monotonic() - began < SECONDS
    assert name in said
    assert "\n" not in said
    return None


@pytest.mark.parametrize("name", ITEMS)
def test_truncated_files(store: Any, name: str) -> None:
    path = store.path / name
    whole = path.read_bytes()
    for size in sorted({*range(min(len(whole), 40)), *range(40, len(whole), max(1, len(whole) // 40)), len(whole) - 1}):
        path.write_bytes(whole[:size])
        found = attempt(store, name)
        if isinstance(ITEMS[name], np.ndarray):
            region = attempt(store, name, slice(0, 1)) if not name.endswith(".csv") else None
            assert found is not None or region is None or name.endswith(".tif")
        if name in CUT_IS_TOLD and not (name.endswith(".json") and size == len(whole) - 1):
            same = found is not None and np.array_equal(np.asarray(found), np.asarray(ITEMS[name]))
            assert found is None or same, f"{name} cut at {size} gave something else"


@pytest.mark.parametrize("name", ITEMS)
def test_flipped_bits(store: Any, name: str) -> None:
    seed = int(os.environ.get("MUTOSCOPE_SEED", time.time_ns() % 2**32))
    print(f"seed {seed}: repeat with MUTOSCOPE_SEED={seed}")
    rng = random.Random(seed)
    path = store.path / name
    whole = path.read_bytes()
    for turn in range(FLIPS):
        broken = bytearray(whole)
        for _ in range(1 + turn % 3):
            near_the_start = min(len(broken), 400) if turn % 2 else len(broken)
            broken[rng.randrange(near_the_start)] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        attempt(store, name)
        if isinstance(ITEMS[name], np.ndarray) and not name.endswith(".csv"):
            try:
                attempt(store, name, (slice(0, 1), ...))
            except ConfigError:
                continue  # what is left has no such region


@pytest.mark.parametrize("name", sorted(ITEMS))
def test_other_content_under_the_name(store: Any, name: str) -> None:
    contents = [
        b"",
        b"\0" * 1000,
        b"II*\0",
        b"MM\0+\0\x08\0\0",
        b"\x89PNG\r\n\x1a\n",
        b"\x93NUMPY\x01\0",
        os.urandom(500),
        b"\xff" * 99,
    ]
    contents += [(store.path / other).read_bytes() for other in ITEMS if other.rpartition(".")[2] != name.rpartition(".")[2]]
    for content in contents:
        (store.path / name).write_bytes(content)
        found = attempt(store, name)
        assert found is None or name.endswith((".txt", ".csv")), f"{content[:20]!r} gave {found!r}"


def npy(header: str, body: bytes = b"", version: int = 1) -> bytes:
    text = header.encode("utf-8")
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + body


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '<u2', 'fortran_order': False, 'shape': (1000000000000, 1000000000), }"),
        npy("{'descr': '<u2', 'fortran_order': False, 'shape': (-1, 4), }"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"\x80\x04N."),
        npy("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }", b"\x80\x04N."),
        npy("{'descr': '<u2', 'fortran_order': False, 'shape': 'x', }"),
        npy("__import__('os').system('touch outside')"),
        npy("(" * 5000 + ")" * 5000, version=2),
        npy("{'descr': '<u2'}", version=3),
        npy("{'descr': [('µ', '|O')], 'fortran_order': False, 'shape': (1,), }", b"\x80\x04N.", version=3),
        npy("{}", version=9),
        npy("{'descr': '<u2', 'fortran_order': True, 'shape': (3, 3), }", b"\0" * 17),
    ],
)
def test_hostile_npy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with storage.open("disk", tmp_path) as store:
        assert attempt(store, "a.npy") is None
        assert attempt(store, "a.npy", slice(0, 1)) is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_npy_as_others_write_it(tmp_path: Path) -> None:
    arrays = {
        "fortran": np.asfortranarray(image_of(1, (4, 5, 6))),
        "big": image_of(2, (4, 5)).astype(">u2"),
        "µ": np.zeros(3, [("µm", "f8"), ("n", "i2", (2,))]),
        "dates": np.array(["2026-01-31"], "M8[D]"),
        "complex": image_of(3, (4, 5), "float32") * 1j,
    }
    with storage.open("disk", tmp_path) as store:
        for name, array in arrays.items():
            with open(tmp_path / f"{name}.npy", "wb") as file:
                version = (3, 0) if name == "µ" else None
                np.lib.format.write_array(file, array, version=version, allow_pickle=False)
            assert np.array_equal(store.load(f"{name}.npy"), array), name
            assert np.array_equal(store.load_region(f"{name}.npy", slice(1, None)), array[1:]), name
            store.save(array, f"{name} again.npy")
            assert np.array_equal(np.load(tmp_path / f"{name} again.npy"), array), name


def png_bomb(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_images_that_say_they_are_huge(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_bomb(2**31 - 1, 2**31 - 1, b"\0" * 100))
    (tmp_path / "b.png").write_bytes(png_bomb(200_000, 200_000, b"\0" * 100))
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((4, 4), "uint16"), metadata=None)
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        places = {tag.name: tag.valueoffset for tag in tiff.pages[0].tags}
    for name in ("ImageWidth", "ImageLength"):
        data[places[name] : places[name] + 2] = b"\xff\xff"
    (tmp_path / "a.tif").write_bytes(data)
    tifffile.imwrite(
        tmp_path / "b.tif", np.zeros((4, 4), "uint16"), description='{"shape": [100000, 100000, 100000]}', metadata=None
    )
    ij = "ImageJ=1.11a\nimages=999999999\nslices=999999999\nhyperstack=true\n"
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((4, 4), "uint16"), description=ij, metadata=None)
    ij = "ImageJ=1.11a\nimages=1\nmutoscope_shape=9999999999,9999999999\n"
    tifffile.imwrite(tmp_path / "d.tif", np.zeros((4, 4), "uint16"), description=ij, metadata=None)
    with storage.open("disk", tmp_path) as store:
        for name in store.list_files():
            found = attempt(store, name)
            assert found is None or found.nbytes < 1000, name


def test_a_circle_of_pages_ends(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), "uint16"), metadata=None)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    first = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[first : first + 2])[0]
    data[first + 2 + 12 * count : first + 6 + 12 * count] = struct.pack("<I", first)
    (tmp_path / "a.tif").write_bytes(data)
    with storage.open("disk", tmp_path) as store:
        attempt(store, "a.tif")


def test_a_tiff_that_names_other_files_does_not_open_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "store"
    outside.mkdir(), inside.mkdir()
    secret = np.full((4, 4), 4242, "uint16")
    tifffile.imwrite(outside / "secret.tif", secret, metadata=None)
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:11111111-1111-1111-1111-111111111111"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
        'Type="uint16" SizeX="4" SizeY="4" SizeZ="1" SizeC="1" SizeT="1"><Channel ID="Channel:0:0"/><TiffData IFD="0" '
        'PlaneCount="1"><UUID FileName="../outside/secret.tif">urn:uuid:22222222-2222-2222-2222-222222222222</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    tifffile.imwrite(inside / "a.tif", np.ones((4, 4), "uint16"), description=xml, metadata=None)
    (inside / "NDTiff.index").write_bytes(b"\0" * 64)
    monkeypatch.chdir(inside)
    with storage.open("disk", inside) as store:
        found = attempt(store, "a.tif")
        assert found is None or not np.array_equal(found, secret)
        region = attempt(store, "a.tif", slice(0, 4))
        assert region is None or not np.array_equal(region, secret)


def test_deep_and_wild_json(tmp_path: Path) -> None:
    wild = [
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 50_000,
        "NaN",
        "[Infinity]",
        "1" * 5000,
        '{"a": 1',
        "\ud800",
        "",
    ]
    with storage.open("disk", tmp_path) as store:
        for content in wild:
            (tmp_path / "a.json").write_bytes(content.encode("utf-8", "surrogatepass"))
            assert attempt(store, "a.json") is None, content[:20]
        (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
        assert store.load("a.json") == {"a": 1}
        deep: Any = []
        for _ in range(10_000):
            deep = [deep]
        with pytest.raises(ConfigError, match="nested"):
            store.save(deep, "deep.json")


def test_csv_as_others_write_it(tmp_path: Path) -> None:
    with storage.open("disk", tmp_path) as store:
        (tmp_path / "a.csv").write_bytes(
            b"\xef\xbb\xbfLabel,Area,Ok,Big\r\n1,2,true,18446744073709551615\r\n2,3.5,False,0\r\n\r\n"
        )
        found = store.load("a.csv")
        assert found.dtype == np.dtype([("Label", "i8"), ("Area", "f8"), ("Ok", "?"), ("Big", "u8")])
        assert found.tolist() == [(1, 2.0, True, 2**64 - 1), (2, 3.5, False, 0)]
        bad = [b"", b"\n", b"a,a\n1,2\n", b"a,\n1,2\n", b"a,b\n1\n", b'a\n"open', b"a\n\xff\n", b"a\n" + b"x" * 200_000]
        for content in bad:
            (tmp_path / "a.csv").write_bytes(content)
            assert attempt(store, "a.csv") is None, content[:20]
        (tmp_path / "a.csv").write_bytes(b"a,b\n99999999999999999999999,1e999\n")
        assert store.load("a.csv")["b"].tolist() == [np.inf]


# ---------------------------------------------------------------------- links, pipes and folders


def test_links_that_leave_the_root_are_refused(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "store"
    outside.mkdir()
    np.save(outside / "secret.npy", np.ones(3))
    with storage.open("disk", inside, overwrite=True) as store:
        store.save(np.zeros(3), "real/own.npy")
        (inside / "file.npy").symlink_to(outside / "secret.npy")
        (inside / "folder").symlink_to(outside)
        (inside / "up").symlink_to("..")
        (inside / "circle").symlink_to("circle")
        (inside / "dangling.npy").symlink_to("../nothing.npy")
        for name in ("file.npy", "folder/secret.npy", "up/outside/secret.npy", "dangling.npy"):
            for act in (
                store.load,
                lambda n: store.load_region(n, slice(0, 1)),
                lambda n: store.copy(n, "x.npy"),
                store.is_file,
            ):
                with pytest.raises(ConfigError, match="leads out"):
                    act(name)
        for name in ("folder/new.npy", "folder/secret.npy", "up/new.npy"):
            for act in (lambda n: store.save(np.zeros(3), n), lambda n: store.copy("real/own.npy", n), store.delete):
                with pytest.raises(ConfigError, match="leads out"):
                    act(name)
        for act in (store.list_files, store.list_dirs, store.ensure_directory, lambda n: store.delete(n, recursive=True)):
            with pytest.raises(ConfigError, match="leads out"):
                act("folder")
        with pytest.raises((DatasetNotFoundError, ConfigError, OSError)):
            store.load("circle/a.npy")
        assert store.list_files(recursive=True) == ["real/own.npy"]
        assert store.list_dirs() == ["real"]
        with pytest.raises(ConfigError, match="leads out"):
            store.save(np.zeros(3), "file.npy")
    assert sorted(path.name for path in outside.iterdir()) == ["secret.npy"]
    assert np.array_equal(np.load(outside / "secret.npy"), np.ones(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "store"]


def test_links_that_stay_inside_are_followed(tmp_path: Path) -> None:
    with storage.open("disk", tmp_path / "store") as store:
        store.save(np.arange(3), "real/own.npy")
        (tmp_path / "store" / "short").symlink_to("real")
        (tmp_path / "store" / "own.npy").symlink_to("short/own.npy")
        assert np.array_equal(store.load("short/own.npy"), np.arange(3))
        assert np.array_equal(store.load("own.npy"), np.arange(3))
        store.save(np.arange(4), "short/new.npy")
        assert store.list_files(recursive=True) == ["own.npy", "real/new.npy", "real/own.npy"]
        assert store.list_dirs() == ["real", "short"]
        store.delete("real", recursive=True)
        assert store.list_files(recursive=True) == []
    (tmp_path / "link").symlink_to("store")
    with storage.open("disk", tmp_path / "link") as store:
        store.save(np.arange(3), "a.npy")
        assert store.list_files() == ["a.npy"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npy")
    with storage.open("disk", tmp_path) as store, pytest.raises(ConfigError, match="neither a file nor a folder"):
        store.load("a.npy")


def test_deleting_a_folder_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    np.save(tmp_path / "outside" / "keep.npy", np.ones(3))
    with storage.open("disk", tmp_path / "store") as store:
        store.save(np.ones(3), "a/b.npy")
        (tmp_path / "store" / "a" / "link").symlink_to(tmp_path / "outside")
        store.delete("a", recursive=True)
        assert store.list_dirs() == []
    assert (tmp_path / "outside" / "keep.npy").is_file()


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="not a folder"):
        storage.open("disk", tmp_path / "file")


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.roi", b"\0" * 50_000_000)
    with storage.open("disk", tmp_path) as store, pytest.raises((ConfigError, DatasetError)):
        store.load("a.zip")
