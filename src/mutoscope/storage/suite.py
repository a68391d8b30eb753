"""The conformance suite of stores: subclass it in a test file, and pytest checks a backend.

::

    from mutoscope import storage
    from mutoscope.storage.suite import StorageSuite

    class TestMyStore(StorageSuite):
        def open_store(self, folder, **options):
            return storage.open("mystore", folder / "store", **options)

        def read_independently(self, folder, name):
            return somebody_elses_reader(folder / "store" / name)

Needs pytest, and for the oracles of files (`read_file_independently`) tifffile and imageio.
"""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from mutoscope.model.errors import ClosedError, ConfigError, DatasetExistsError, DatasetNotFoundError
from mutoscope.storage.interface import DataSink, DataSource, StorageBackend

__all__ = ["StorageSuite", "image_of", "read_file_independently"]

ESCAPES = (
    *("../outside.npy", "a/../../outside.npy", "/etc/outside.npy", "..", "a\0.npy", "", "a/../b.npy"),
    *(".x.part", "n" * 300 + ".npy"),
)
"""Names that no store takes, for reading or writing."""

NOT_TO_BE_MADE = ("a\\b.npy", "a\n.npy", "\udc80.npy", "a.npy/")
"""Names that no store gives to a new item."""

TABLE_DTYPE = [("label", "<i8"), ("area", "<f8"), ("name", "<U12"), ("kept", "?")]


def image_of(number: int, shape: tuple[int, ...] = (6, 9), dtype: str = "uint16") -> NDArray[Any]:
    """Return an array that its number determines; no two numbers give the same one."""
    rng = np.random.default_rng(number)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    if np.dtype(dtype).kind == "b":
        return rng.integers(0, 2, size=shape).astype(bool)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, size=shape, dtype=dtype, endpoint=True)


def read_file_independently(path: Path) -> Any:
    """Return what tifffile, imageio, NumPy, Python's csv and json find in a file; CSV gives rows of text."""
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff"):
        import tifffile

        return tifffile.imread(path)
    if suffix == ".png":
        import imageio.v3

        return imageio.v3.imread(path)
    if suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.reader(file, strict=True))
    text = path.read_bytes().decode("utf-8")
    return json.loads(text) if suffix == ".json" else text


class StorageSuite:
    """Checks of one backend. Override `open_store`, and `read_independently` where something else can read the store.

    Attributes
    ----------
    images : tuple of (suffix, shape, dtype)
        Arrays that it holds exactly.
    refused : tuple of (name, data)
        What it cannot store, beside what no store can.
    tables, plain, text : str or None
        Suffix under which it holds tables, plain values, text; None if it does not.
    folders : bool
        Whether folders are things of their own, which may be empty, be moved, and be in the way of an item. If not, a folder
        is there as long as an item's name begins with it.
    reshapes : bool
        Whether an item may be replaced by one of another shape.
    """

    images: ClassVar[tuple[tuple[str, tuple[int, ...], str], ...]] = (
        *(
            (".npy", (6, 9), "uint16"),
            (".npy", (2, 3, 4, 5, 6, 7), "float64"),
            (".npy", (0, 4), "int64"),
            (".npy", (), "float32"),
        ),
        *((".tif", (6, 9), name) for name in ("uint8", "uint16", "float32", "int16", "int32", "bool")),
        *(
            (".tif", (1, 1), "uint16"),
            (".tiff", (3, 6, 9), "uint16"),
            (".tif", (1, 6, 9), "uint8"),
            (".tif", (7, 5, 3), "uint8"),
        ),
        *((".tif", (2, 3, 2, 4, 5), "float32"), (".tif", (1, 3, 1, 4, 5), "uint16"), (".tif", (2, 1, 5), "int32")),
        *((".png", (6, 9), "uint8"), (".png", (6, 9), "uint16"), (".png", (6, 9, 3), "uint8"), (".png", (6, 9, 4), "uint8")),
    )
    refused: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("a.tif", np.zeros((3, 3), "complex64")),
        ("a.tif", np.zeros((3, 3), "float64")),
        ("a.tif", np.full((3, 3), 2**31, "uint32")),
        ("a.tif", np.zeros((0, 3), "uint8")),
        ("a.tif", np.zeros(5, "uint8")),
        ("a.png", np.zeros((3, 3), "float32")),
        ("a.npy", "text"),
        ("a.json", np.zeros((3, 3))),
        ("a.txt", {"a": 1}),
        ("a.csv", np.zeros((3, 3))),
        ("a.tif", np.zeros(3, TABLE_DTYPE)),
        ("a.csv", np.zeros(2, [("xy", "f8", (2,))])),
        ("a.json", {"a": float("nan")}),
        ("a.json", {1: "a"}),
        ("a.json", [object()]),
        ("a.unheard", np.zeros((3, 3))),
    )
    tables: str | None = ".csv"
    plain: str | None = ".json"
    text: str | None = ".txt"
    folders: bool = True
    reshapes: bool = True

    def open_store(self, folder: Path, **options: Any) -> StorageBackend:
        """Return the store of `folder`, opened; the same one when it is called again in a test."""
        raise NotImplementedError("return an open store")

    def read_independently(self, folder: Path, name: str) -> Any:
        """Return what an independent reader finds under a name, or None where there is none."""
        return None

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A folder of the test's own."""
        return tmp_path

    @pytest.fixture
    def store(self, folder: Path) -> Any:
        """The store of the test's folder."""
        with self.open_store(folder) as store:
            yield store

    @pytest.fixture(params=["save", "load"])
    def way(self, request: pytest.FixtureRequest) -> str:
        """Both directions."""
        return str(request.param)

    # What comes back

    def test_what_is_stored_comes_back_exactly(self, store: StorageBackend, folder: Path) -> None:
        for number, (suffix, shape, dtype) in enumerate(self.images):
            name = f"image {number}{suffix}"
            image = image_of(number, shape, dtype)
            store.save(image, name)
            loaded = store.load(name)
            assert (loaded.shape, loaded.dtype) == (shape, np.dtype(dtype)), name
            assert loaded.tobytes() == image.tobytes(), name
            assert loaded.flags.writeable
            independent = self.read_independently(folder, name)
            if independent is not None:
                assert independent.dtype == np.dtype(dtype), name
                assert np.array_equal(independent.reshape(shape), image), name

    def test_big_endian_and_strided_arrays(self, store: StorageBackend) -> None:
        wide = image_of(1, (8, 12)).astype(">u2")[::2, 1::3]
        for suffix in {suffix for suffix, shape, dtype in self.images if len(shape) == 2 and dtype == "uint16"}:
            store.save(wide, f"wide{suffix}")
            assert np.array_equal(store.load(f"wide{suffix}"), wide)
            assert store.load(f"wide{suffix}").dtype.isnative

    def test_tables(self, store: StorageBackend, folder: Path) -> None:
        if self.tables is None:
            pytest.skip("this store holds no tables")
        rows = [(1, 0.1, 'a "b", c', True), (-(2**62), -1e-300, "line\r\nbreak", False), (3, float("inf"), "µ", True)]
        table = np.array(rows, TABLE_DTYPE)
        name = f"table{self.tables}"
        store.save(table, name)
        loaded = store.load(name)
        assert loaded.dtype.names == table.dtype.names
        assert loaded.tolist() == rows
        independent = self.read_independently(folder, name)
        if isinstance(independent, list):
            assert independent[0] == [name for name, _ in TABLE_DTYPE]
            assert [float(row[1]) for row in independent[1:]] == [row[1] for row in rows]
            assert [row[2] for row in independent[1:]] == [row[2] for row in rows]

    def test_plain_values_and_text(self, store: StorageBackend, folder: Path) -> None:
        value = {"a": [1, 2.5, None, True, "µ\n"], "b": {"": {}}, "big": 2**70, "tiny": 5e-324}
        text = "Ünïcode\r\n\ttabs\n\n no end of line \x0b"
        for suffix, data in ((self.plain, value), (self.text, text)):
            if suffix is not None:
                store.save(data, f"item{suffix}")
                assert store.load(f"item{suffix}") == data
                assert self.read_independently(folder, f"item{suffix}") in (None, data)

    def test_what_it_cannot_store_is_refused_and_leaves_nothing(self, store: StorageBackend) -> None:
        for name, data in (*self.refused, ("a.npy", np.array([object()])), ("a.npy", b"bytes"), ("a.npy", object())):
            with pytest.raises(ConfigError) as caught:
                store.save(data, name)
            assert str(caught.value)
        assert store.list_files(recursive=True) == []

    def test_nothing_is_shared(self, store: StorageBackend) -> None:
        image = image_of(1)
        before = image.copy()
        store.save(image, "a.npy")
        image[:] = 7
        first = store.load("a.npy")
        assert np.array_equal(first, before)
        first[:] = 9
        region = store.load_region("a.npy", (slice(0, 2), slice(0, 2)))
        region[:] = 9
        assert np.array_equal(store.load("a.npy"), before)
        if self.plain is not None:
            value = {"list": [1, 2]}
            store.save(value, f"a{self.plain}")
            value["list"].append(3)
            store.load(f"a{self.plain}")["list"].append(4)
            assert store.load(f"a{self.plain}") == {"list": [1, 2]}

    def test_arrays_of_other_libraries(self, store: StorageBackend) -> None:
        image = image_of(1)

        class OnlyDlpack:
            def __dlpack__(self, **options: Any) -> Any:
                return image.__dlpack__(**options)

            def __dlpack_device__(self) -> Any:
                return image.__dlpack_device__()

        class OnlyArray:
            def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
                return image

        class OnDevice:
            """Its memory is out of reach; `get` or `cpu` gives a copy."""

            shape, dtype = image.shape, image.dtype

            def __dlpack_device__(self) -> tuple[int, int]:
                return (2, 0)

            def __dlpack__(self, **options: Any) -> Any:
                raise BufferError("on a GPU")

        class WithGet(OnDevice):
            def get(self) -> NDArray[Any]:
                return image

        class WithCpu(OnDevice):
            def cpu(self) -> OnlyDlpack:
                return OnlyDlpack()

        for kind in (OnlyDlpack, OnlyArray, WithGet, WithCpu):
            store.save(kind(), f"{kind.__name__}.npy")
            assert np.array_equal(store.load(f"{kind.__name__}.npy"), image), kind.__name__
        with pytest.raises(ConfigError):
            store.save(OnDevice(), "a.npy")

    # Regions

    def test_regions(self, store: StorageBackend) -> None:
        kinds = [(suffix, shape, dtype) for suffix, shape, dtype in self.images if len(shape) >= 2 and min(shape) > 0]
        for number, (suffix, shape, dtype) in enumerate(kinds):
            name, image = f"{number}{suffix}", image_of(number, shape, dtype)
            store.save(image, name)
            middle = tuple(slice(length // 3, max(length - 1, length // 3)) for length in shape)
            regions: tuple[Any, ...] = (
                *(middle, (..., slice(0, 1)), slice(0, 1), (slice(None), ...), (..., *middle[-2:]), middle[:1]),
            )
            for region in regions:
                part = store.load_region(name, region)
                assert part.dtype == image.dtype
                assert np.array_equal(part, image[region]), (name, region)

    def test_regions_that_do_not_fit_are_refused(self, store: StorageBackend) -> None:
        store.save(image_of(1, (6, 9)), "a.npy")
        full = slice(None)
        bad = ((slice(0, 7),), (slice(-2, 3),), (slice(0, 4, 2),), (full, full, full), (3,), (..., ...), (slice(4, 2),), ("x",))
        for region in bad:
            with pytest.raises(ConfigError):
                store.load_region("a.npy", region)
        with pytest.raises(DatasetNotFoundError):
            store.load_region("b.npy", slice(0, 1))
        if self.text is not None:
            store.save("text", f"a{self.text}")
            with pytest.raises(ConfigError):
                store.load_region(f"a{self.text}", slice(0, 1))

    # Names

    def test_overwriting_is_refused_unless_asked_for(self, store: StorageBackend, folder: Path) -> None:
        one, two = image_of(1), image_of(2, (3, 4) if self.reshapes else (6, 9))
        store.save(one, "a.npy")
        with pytest.raises(DatasetExistsError) as caught:
            store.save(two, "a.npy")
        assert isinstance(caught.value, FileExistsError)
        assert np.array_equal(store.load("a.npy"), one)
        store.save(two, "a.npy", overwrite=True)
        assert np.array_equal(store.load("a.npy"), two)
        with self.open_store(folder, overwrite=True) as other:
            other.save(one, "a.npy")
            assert np.array_equal(other.load("a.npy"), one)
            with pytest.raises(DatasetExistsError):
                other.save(two, "a.npy", overwrite=False)

    def test_a_missing_name_is_told_with_near_ones(self, store: StorageBackend) -> None:
        for name in ("well B03.npy", "well B04.npy", "other.npy"):
            store.save(image_of(1), name)
        for act in (store.load, store.delete, lambda name: store.copy(name, "x.npy"), lambda name: store.move(name, "x.npy")):
            with pytest.raises(DatasetNotFoundError, match=r"'well B03\.npy'") as caught:
                act("Well B3.npy")
            assert isinstance(caught.value, FileNotFoundError)
        for call in (store.list_files, store.list_dirs):
            with pytest.raises(DatasetNotFoundError):
                call("nowhere")
        with pytest.raises(DatasetNotFoundError):
            store.load("other.npy/inside.npy")

    def test_names_cannot_lead_out(self, store: StorageBackend) -> None:
        store.save(image_of(1), "a.npy")
        image = image_of(2)
        acts: tuple[Callable[[str], Any], ...] = (
            lambda name: store.save(image, name),
            lambda name: store.save_batch([image], [name]),
            store.load,
            lambda name: store.load_batch([name]),
            lambda name: store.load_region(name, slice(0, 1)),
            store.delete,
            lambda name: store.copy("a.npy", name),
            lambda name: store.copy(name, "b.npy"),
            lambda name: store.move("a.npy", name),
            lambda name: store.move(name, "b.npy"),
        )
        looks: tuple[Callable[[str], Any], ...] = (
            *(store.exists, store.is_file, store.is_dir, store.list_files, store.list_dirs, store.ensure_directory),
        )
        for name in ESCAPES:
            for act in (*acts, *(looks if name else ())):
                with pytest.raises(ConfigError):
                    act(name)
        for name in NOT_TO_BE_MADE:
            for act in (acts[0], acts[1], acts[6], acts[8]):
                with pytest.raises(ConfigError):
                    act(name)
        assert store.list_files(recursive=True) == ["a.npy"]
        assert store.list_dirs() == []

    def test_names_of_any_script_and_untidy_ones(self, store: StorageBackend) -> None:
        for number, name in enumerate(
            ("µ/Ähre 1.npy", "実験/細胞.npy", "a b/c'd\"e.npy", "-rf.npy", ".hidden.npy", "A01_s1_w2.x.npy")
        ):
            store.save(image_of(number), name)
            assert np.array_equal(store.load(name), image_of(number))
            assert store.is_file(name)
        store.save(image_of(9), "./x//y/./z.npy")
        assert store.list_files("x", recursive=True) == ["x/y/z.npy"]
        assert np.array_equal(store.load(Path("x/y/z.npy")), image_of(9))

    def test_items_and_folders_do_not_mix(self, store: StorageBackend) -> None:
        store.save(image_of(1), "a/b.npy")
        if self.folders:
            with pytest.raises(ConfigError):
                store.save(image_of(2), "a/b.npy/c.npy")
        with pytest.raises(ConfigError):
            store.ensure_directory("a/b.npy/c")
        with pytest.raises(ConfigError):
            store.load("a")
        with pytest.raises(ConfigError):
            store.list_files("a/b.npy")
        if self.folders:
            store.ensure_directory("c.npy")
            for overwrite in (False, True):
                with pytest.raises(ConfigError):
                    store.save(image_of(2), "c.npy", overwrite=overwrite)
        assert store.list_files(recursive=True) == ["a/b.npy"]

    # What is there

    def test_lists_are_in_natural_order(self, store: StorageBackend) -> None:
        names = ["z10.npy", "z9.npy", "Z1.npy", "z2.npy", "a/t10.npy", "a/t2.npy", "a10/x.npy", "a9/x.npy"]
        for name in names:
            store.save(image_of(1, (1, 1)), name)
        assert store.list_files() == ["Z1.npy", "z2.npy", "z9.npy", "z10.npy"]
        assert store.list_files("a") == ["a/t2.npy", "a/t10.npy"]
        assert store.list_files(pattern="z*.npy") == ["z2.npy", "z9.npy", "z10.npy"]
        assert store.list_files(pattern="t1?.npy", recursive=True) == ["a/t10.npy"]
        assert sorted(store.list_files(recursive=True)) == sorted(names)
        assert store.list_dirs() == ["a", "a9", "a10"]
        assert store.list_dirs("a") == []

    def test_what_is_there(self, store: StorageBackend) -> None:
        assert store.list_files() == store.list_dirs() == []
        assert store.is_dir("")
        store.save(image_of(1), "a/b/c.npy")
        if self.folders:
            store.ensure_directory("d/e")
        else:
            store.save(image_of(2), "d/e/f.npy")
        store.ensure_directory("d/e")
        assert [store.is_file("a/b/c.npy"), store.is_dir("a/b/c.npy"), store.exists("a/b/c.npy")] == [True, False, True]
        for name in ("a", "a/b", "d", "d/e", "d/"):
            assert [store.is_file(name), store.is_dir(name), store.exists(name)] == [False, True, True]
        for name in ("x", "a/x", "a/b/c.npy/x", "x/y/z.npy"):
            assert not store.exists(name)
        assert store.list_dirs("d") == ["d/e"]

    # Changes

    def test_deleting(self, store: StorageBackend) -> None:
        for name in ("a.npy", "b/c.npy", "b/d/e.npy"):
            store.save(image_of(1), name)
        store.delete("a.npy")
        if self.folders:
            store.ensure_directory("empty")
            store.delete("empty")
        with pytest.raises(ConfigError, match="recursive"):
            store.delete("b")
        assert store.list_files(recursive=True) == ["b/c.npy", "b/d/e.npy"]
        store.delete("b", recursive=True)
        assert [store.list_files(recursive=True), store.list_dirs()] == [[], []]
        store.save(image_of(2), "a.npy")
        assert np.array_equal(store.load("a.npy"), image_of(2))

    def test_copying_and_moving(self, store: StorageBackend) -> None:
        one, two = image_of(1), image_of(2)
        store.save(one, "a.npy")
        store.copy("a.npy", "f/b.npy")
        store.move("a.npy", "f/c.npy")
        assert store.list_files(recursive=True) == ["f/b.npy", "f/c.npy"]
        store.save(two, "a.npy")
        for act in (store.copy, store.move):
            with pytest.raises(DatasetExistsError):
                act("a.npy", "f/b.npy")
            with pytest.raises(ConfigError):
                act("a.npy", "a.txt")
            with pytest.raises(ConfigError):
                act("a.npy", "a.npy", overwrite=True)
        assert np.array_equal(store.load("f/b.npy"), one)
        store.copy("a.npy", "f/b.npy", overwrite=True)
        store.move("a.npy", "f/c.npy", overwrite=True)
        assert all(np.array_equal(store.load(name), two) for name in ("f/b.npy", "f/c.npy"))
        if not self.folders:
            with pytest.raises(ConfigError):
                store.move("f", "g/h")
            return
        store.move("f", "g/h")
        assert store.list_files(recursive=True) == ["g/h/b.npy", "g/h/c.npy"]
        store.ensure_directory("taken")
        for target in ("taken", "g/h/inside", "g/h"):
            with pytest.raises(ConfigError):
                store.move("g/h", target)
        assert store.list_files(recursive=True) == ["g/h/b.npy", "g/h/c.npy"]

    # Batches

    def test_batches(self, store: StorageBackend) -> None:
        stack = image_of(1, (4, 6, 9))
        names = [f"z{z}.npy" for z in range(4)]
        store.save_batch(stack, names)
        assert np.array_equal(np.stack(store.load_batch(names)), stack)
        store.save_batch((image for image in stack[::-1]), iter(names), overwrite=True)
        assert np.array_equal(np.stack(store.load_batch(reversed(names))), stack)
        with pytest.raises(DatasetNotFoundError):
            store.load_batch(["z0.npy", "z9.npy"])

    @pytest.mark.parametrize(
        ("count", "names"),
        [
            (2, ["a.npy"]),
            (1, ["a.npy", "b.npy"]),
            (0, ["a.npy"]),
            (2, ["a.npy", "./a.npy"]),
            (2, ["a.npy", "../b.npy"]),
            (2, ["a.npy", "b.unheard"]),
            (2, ["a.npy", "there.npy"]),
            (5, "a.npy"),
        ],
    )
    def test_a_batch_that_cannot_be_stores_nothing(self, store: StorageBackend, count: int, names: Any) -> None:
        store.save(image_of(9), "there.npy")
        with pytest.raises(ValueError):
            store.save_batch([image_of(n) for n in range(count)], names)
        assert store.list_files(recursive=True) == ["there.npy"]

    # Lifetime and company

    def test_it_is_a_store_and_ends(self, folder: Path) -> None:
        store = self.open_store(folder)
        assert isinstance(store, DataSink)
        assert isinstance(store, DataSource)
        store.save(image_of(1), "a.npy")
        store.disconnect()
        assert np.array_equal(store.load("a.npy"), image_of(1))
        store.close()
        store.close()
        acts: tuple[Callable[[], Any], ...] = (
            lambda: store.save(image_of(1), "b.npy"),
            lambda: store.save_batch([], []),
            lambda: store.load("a.npy"),
            store.list_files,
            store.list_dirs,
            lambda: store.exists("a.npy"),
            lambda: store.delete("a.npy"),
            lambda: store.copy("a.npy", "b.npy"),
            lambda: store.move("a.npy", "b.npy"),
            lambda: store.ensure_directory("d"),
        )
        for act in acts:
            with pytest.raises(ClosedError):
                act()

    def test_threads_write_different_names(self, store: StorageBackend) -> None:
        def work(worker: int) -> None:
            for number in range(10):
                store.save(image_of(10 * worker + number), f"folder {number % 3}/{worker}-{number}.npy")

        _run_together([partial(work, worker) for worker in range(4)])
        assert len(store.list_files(recursive=True)) == 40
        for worker in range(4):
            for number in range(10):
                loaded = store.load(f"folder {number % 3}/{worker}-{number}.npy")
                assert np.array_equal(loaded, image_of(10 * worker + number))

    def test_of_writers_of_one_name_one_wins_and_the_others_are_told(self, store: StorageBackend) -> None:
        for turn in range(10):
            told: list[str] = []
            won: list[int] = []
            _run_together([partial(_try_to_save, store, f"{turn}.npy", worker, won, told) for worker in range(4)])
            assert len(won) == 1
            assert len(told) == 3
            assert all(f"{turn}.npy" in text for text in told)
            assert np.array_equal(store.load(f"{turn}.npy"), image_of(won[0], (64, 64)))


def _try_to_save(store: StorageBackend, name: str, worker: int, won: list[int], told: list[str]) -> None:
    try:
        store.save(image_of(worker, (64, 64)), name)
        won.append(worker)
    except DatasetExistsError as error:
        told.append(str(error))


def _run_together(tasks: list[Callable[[], None]]) -> None:
    """Run tasks in threads that begin at one moment; raise what they raise."""
    barrier = threading.Barrier(len(tasks))

    def run(task: Callable[[], None]) -> None:
        barrier.wait(timeout=30)
        task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(run, task) for task in tasks]:
            future.result(timeout=60)
