"""Stores by name: the table, entry points, "module:Class", what cannot load; and several behind one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mutoscope import storage
from mutoscope.model.errors import BackendUnavailableError, ConfigError, DatasetExistsError, DiskFullError
from mutoscope.storage import DataSink, Stores
from mutoscope.storage.disk import DiskBackend
from mutoscope.storage.memory import MemoryBackend

HEAVY = {
    *("tifffile", "imageio", "PIL", "imagecodecs", "zarr", "tensorstore", "pandas", "pyarrow", "scipy"),
    *("torch", "jax", "cupy", "numba", "pyclesperanto", "tensorflow"),
    *("napari", "qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6", "vispy", "matplotlib", "tkinter", "aiohttp", "imagej", "jpype"),
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a package with one module and its entry points, for this test."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)

    def install(name: str, code: str, **points: str) -> None:
        (site / f"{name}.py").write_text(code)
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{key} = {target}\n" for key, target in points.items())
        (info / "entry_points.txt").write_text(f"[mutoscope.storage]\n{lines}")

    yield install
    for module in set(sys.modules) - before:
        if module.startswith("lab_"):
            del sys.modules[module]


GOOD = "from mutoscope.storage.memory import MemoryBackend\nclass Store(MemoryBackend):\n    '''A lab's own.'''\n"


def test_by_name_in_any_case(tmp_path: Path) -> None:
    for name in ("disk", "Disk", "DISK"):
        with storage.open(name, tmp_path / "store") as store:
            assert type(store) is DiskBackend
    with storage.open("MEMORY") as store:
        assert type(store) is MemoryBackend


def test_unknown_names_list_the_known_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no store 'memroy'; there are memory, disk.*did you mean 'memory'\?"):
        storage.open("memroy")
    with pytest.raises(ConfigError, match="there are memory, disk"):
        storage.open("")


def test_options_that_it_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unheard.*takes address, filenames, overwrite"):
        storage.open("disk", tmp_path, unheard=1)


def test_file_names_are_parsed_by_a_known_parser(tmp_path: Path) -> None:
    for backend in ("disk", "memory"):
        with storage.open(backend, tmp_path, filenames="imagexpress") as store:
            assert store.filenames.parse("A01_s1_w2_z3_t1.tif").place()["well"] == "A01"
        with pytest.raises(ConfigError, match="did you mean 'imagexpress'"):
            storage.open(backend, tmp_path, filenames="imagexpres")


def test_by_module_and_class() -> None:
    with storage.open("mutoscope.storage.memory:MemoryBackend") as store:
        assert type(store) is MemoryBackend
    for target in ("mutoscope.storage.memory:Nothing", "mutoscope.storage:open", "mutoscope.storage.memory:"):
        with pytest.raises(ConfigError, match="names"):
            storage.open(target)
    with pytest.raises(BackendUnavailableError, match="no_such_module"):
        storage.open("no_such_module:Store")


def test_by_entry_point(package: Callable[..., None]) -> None:
    package("lab_good", GOOD, LabStore="lab_good:Store")
    with storage.open("labstore", "x") as store:
        assert type(store).__module__ == "lab_good"
    row = next(row for row in storage.backends() if row.name == "LabStore")
    assert (row.available, row.need, row.source, row.stores) == (True, "", "lab_good", "A lab's own.")


def test_one_that_cannot_load_breaks_no_other(package: Callable[..., None]) -> None:
    package("lab_missing", "import a_library_that_is_not_here\n", missing="lab_missing:Store")
    package("lab_broken", "1 / 0\n", broken="lab_broken:Store")
    package("lab_wrong", "Store = 3\n", wrong="lab_wrong:Store")
    package("lab_good", GOOD, good="lab_good:Store")
    rows = {row.name: row for row in storage.backends()}
    assert [rows[name].available for name in ("memory", "disk", "missing", "broken", "wrong", "good")] == [
        *(True, True, False, False, False, True)
    ]
    assert "a_library_that_is_not_here" in rows["missing"].need
    assert "pip install lab_missing" in rows["missing"].need
    assert "ZeroDivisionError" in rows["broken"].need
    with pytest.raises(BackendUnavailableError, match="a_library_that_is_not_here"):
        storage.open("missing")
    with pytest.raises(BackendUnavailableError, match="ZeroDivisionError"):
        storage.open("broken")
    with Stores.available() as stores:
        assert list(stores) == ["memory", "disk", "ome-zarr", "ome-tiff", "good"]
        assert set(stores.unavailable) == {"missing", "broken", "wrong"}
        stores.save("text", "a.txt", store="good")


def test_two_claimants_of_one_name_are_an_error(package: Callable[..., None]) -> None:
    package("lab_one", GOOD, shared="lab_one:Store", Disk="lab_one:Store")
    package("lab_two", GOOD, SHARED="lab_two:Store")
    for name in ("shared", "disk"):
        with pytest.raises(ConfigError, match=r"claimed by several packages: .*lab_one"):
            storage.open(name)
    rows = {row.name: row for row in storage.backends()}
    assert [rows["memory"].available, rows["disk"].available, rows["shared"].available] == [True, False, False]
    assert "lab_two" in rows["shared"].need
    with storage.open("memory"):
        pass


def test_opening_imports_no_library_of_windows_or_gpus(tmp_path: Path) -> None:
    program = (
        "import sys; from mutoscope import storage; storage.backends()\n"
        f"for store in (storage.open('memory'), storage.open('disk', {str(tmp_path / 'store')!r})):\n"
        "    store.save({'a': 1}, 'a.json'); store.save('x', 'a.txt'); store.load('a.json'); store.list_files()\n"
        "print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & HEAVY


def test_a_missing_library_is_named_with_its_command(tmp_path: Path) -> None:
    """Run where tifffile and imageio cannot be imported."""
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tifffile", "imageio", "roifile"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
import numpy as np
from mutoscope import storage
from mutoscope.model.errors import BackendUnavailableError
from mutoscope.model.roi import Rectangle, Roi
image = np.zeros((4, 4), "uint8")
with storage.open("disk", {str(tmp_path)!r}) as store:
    store.save(image, "a.npy")
    roi = Roi("a", Rectangle((5.0, 5.0), 2.0, 2.0))
    for name, data in (("a.tif", image), ("a.png", image), ("a.zip", [roi])):
        try:
            store.save(data, name)
        except BackendUnavailableError as error:
            print(error)
    print(store.list_files())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install imagecodecs tifffile" in done.stdout
    assert "pip install imageio" in done.stdout
    assert "pip install roifile" in done.stdout
    assert "['a.npy']" in done.stdout


# ---------------------------------------------------------------------- memory


def test_named_memory_is_shared_and_unnamed_private() -> None:
    with storage.open("memory", "memory://test-shared") as one, storage.open("memory://test-shared") as two:
        one.save("text", "a.txt")
        assert two.load("a.txt") == "text"
        with pytest.raises(DatasetExistsError):
            two.save("other", "a.txt")
    with storage.open("memory", "test-shared") as again:
        assert again.load("a.txt") == "text"
        again.delete("a.txt")
    with storage.open("memory") as one, storage.open("memory") as two, storage.open("memory", "memory://") as three:
        one.save("text", "a.txt")
        assert not two.exists("a.txt")
        assert not three.exists("a.txt")
    with pytest.raises(ConfigError, match="memory://NAME"):
        storage.open("memory", "s3://bucket")


def test_memory_holds_anything_under_a_name_without_suffix() -> None:
    items: list[Any] = [np.ones((2, 2), "complex64"), np.zeros(2, [("xy", "f8", (2,))]), "text", {"a": [1]}, None, 3.5]
    with storage.open("memory") as store:
        for number, item in enumerate(items):
            store.save(item, f"item {number}")
            assert np.array_equal(store.load(f"item {number}"), item) if hasattr(item, "dtype") else True
        assert [store.load(f"item {number}") for number in range(2, 6)] == items[2:]
        with pytest.raises(ConfigError):
            store.save(object(), "item")


# ---------------------------------------------------------------------- disk


def test_opening_a_disk_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with storage.open("disk") as store, storage.open("disk", tmp_path / "named") as named:
        assert store.list_files() == named.list_files() == []
        assert not named.exists("a.txt")
        assert list(tmp_path.iterdir()) == []
        store.save("text", "a.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mutoscope-data"]
    assert store.path.parent == tmp_path / "mutoscope-data"  # type: ignore[attr-defined]


def test_a_write_that_the_system_refuses_half_way_leaves_the_old_item(tmp_path: Path) -> None:
    program = f"""
import resource, signal, numpy as np
from mutoscope import storage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = storage.open("disk", {str(tmp_path)!r}, overwrite=True)
store.save(np.ones((10, 10), "uint8"), "a.npy")
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
for name in ("a.npy", "a.tif", "a.txt"):
    try:
        store.save("x" * 100_000 if name == "a.txt" else np.ones((1000, 1000), "uint8"), name)
    except OSError as error:
        print(name, type(error).__name__)
print(store.list_files(), store.load("a.npy").sum())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["a.npy OSError", "a.tif OSError", "a.txt OSError", "['a.npy'] 100"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy"]


def test_a_full_disk_is_told_and_the_old_item_stays(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        with storage.open("disk", folder, overwrite=True) as store:
            store.save(np.ones((10, 10), "uint8"), "a.npy")
            for name, data in (
                ("a.npy", np.ones((1000, 1000), "uint8")),
                ("b.tif", np.ones((999, 999), "uint8")),
                ("c.txt", "x" * 10**6),
            ):
                with pytest.raises(DiskFullError):
                    store.save(data, name)
            assert store.list_files() == ["a.npy"]
            assert store.load("a.npy").sum() == 100
            store.save("there is room again", "c.txt")
        assert sorted(path.name for path in folder.iterdir()) == ["a.npy", "c.txt"]
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# ---------------------------------------------------------------------- several


class Failing(DataSink):
    """A sink whose end fails; counts the calls."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.calls: list[str] = []

    def save(self, data: Any, name: Any, *, overwrite: bool | None = None) -> None:
        self.calls.append("save")

    def disconnect(self) -> None:
        self.calls.append("disconnect")
        if self.error:
            raise self.error

    def close(self) -> None:
        self.calls.append("close")
        if self.error:
            raise self.error


def test_stores_route_by_member(tmp_path: Path) -> None:
    with Stores({"raw": ("disk", tmp_path), "results": "memory", "sink": Failing()}) as stores:
        assert list(stores) == ["raw", "results", "sink"]
        stores.save_batch(np.zeros((2, 3, 3)), ["a.npy", "b.npy"], store="raw")
        stores.save({"n": 1}, "a.json", store="results")
        stores.save("x", "a.txt", store="sink")
        assert len(stores.load_batch(["a.npy", "b.npy"], store="raw")) == 2
        assert stores.load("a.json", store="results") == {"n": 1}
        with pytest.raises(ConfigError, match="there are raw, results, sink"):
            stores.save("x", "a.txt", store="rwa")
        with pytest.raises(ConfigError, match="only takes"):
            stores.load("a.txt", store="sink")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy"]
    assert stores["raw"].closed
    with pytest.raises(ConfigError, match="is a store"):
        Stores({"raw": 3})  # type: ignore[dict-item]


@pytest.mark.parametrize("what", ["disconnect", "close"])
def test_every_member_is_visited_and_then_all_errors_are_raised(what: str) -> None:
    members = [Failing(), Failing(OSError("one")), Failing(), Failing(RuntimeError("two"))]
    stores = Stores({f"member {n}": member for n, member in enumerate(members)})
    with pytest.raises(ExceptionGroup) as caught:
        getattr(stores, what)()
    assert [str(error) for error in caught.value.exceptions] == ["one", "two"]
    assert all("member" in error.__notes__[0] for error in caught.value.exceptions)
    assert [member.calls for member in members] == [[what]] * 4


def test_what_was_opened_is_closed_when_another_member_cannot(tmp_path: Path) -> None:
    given = storage.open("memory")
    with pytest.raises(ConfigError, match="no store"):
        Stores({"given": given, "own": "memory", "bad": "no such store"})
    assert not given.closed


def test_addresses_for_available_stores(tmp_path: Path) -> None:
    with Stores.available({"Disk": tmp_path / "here"}) as stores:
        stores.save("x", "a.txt", store="disk")
    assert (tmp_path / "here" / "a.txt").read_text() == "x"
    with pytest.raises(ConfigError, match="no store 'nowhere'"):
        Stores.available({"nowhere": tmp_path})
