"""Any name, any array, any table, any value: both stores agree with each other, with a plain dictionary, and with NumPy."""

from __future__ import annotations

import json
import shutil
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from mutoscope import storage
from mutoscope.model.errors import ConfigError, DatasetError, DatasetExistsError, DatasetNotFoundError
from mutoscope.storage import _names

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

WILD_NAMES = st.text(st.characters(codec=None), max_size=40) | st.lists(
    st.sampled_from(["..", ".", "", "a", "b.npy", "/", "\\", "\0", "x\n", ".a.part", "~", "C:", "µ"]), max_size=6
).map("/".join)
TIFF_DTYPES = ("uint8", "uint16", "float32", "int16", "int32", "bool")
SCALARS = hnp.integer_dtypes(endianness="?") | hnp.unsigned_integer_dtypes(endianness="?") | hnp.floating_dtypes(endianness="?")
NUMBERS = SCALARS | hnp.complex_number_dtypes(endianness="?") | hnp.boolean_dtypes()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    address = tmp_path / "root" / "store" if request.param == "disk" else None
    with storage.open(request.param, address, overwrite=True) as opened:
        yield opened


@QUICK
@given(name=WILD_NAMES)
def test_any_name_is_stored_inside_or_refused(store: Any, tmp_path: Path, name: str) -> None:
    try:
        store.save("text", f"{name}.txt")
    except ConfigError:
        with pytest.raises((ConfigError, DatasetNotFoundError)):
            store.load(f"{name}.txt")
    else:
        assert store.load(f"{name}.txt") == "text"
        assert _names.check_name(f"{name}.txt") in store.list_files(recursive=True)
        store.delete(f"{name}.txt")
        for folder in store.list_dirs():
            store.delete(folder, recursive=True)
    assert store.list_files(recursive=True) == []
    assert all(path == tmp_path / "root" for path in tmp_path.iterdir())
    if (tmp_path / "root").exists():
        assert [path.name for path in (tmp_path / "root").iterdir()] == ["store"]


@QUICK
@given(data=st.data())
def test_any_array_comes_back_from_npy(store: Any, data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5))
    array = data.draw(hnp.arrays(data.draw(NUMBERS), shape))
    store.save(array, "a.npy")
    loaded = store.load("a.npy")
    assert loaded.dtype == array.dtype.newbyteorder("=")
    assert loaded.shape == array.shape
    assert np.array_equal(loaded, array, equal_nan=True)
    region = data.draw(hnp.basic_indices(shape, allow_ellipsis=True, allow_newaxis=False).filter(_is_plain))
    try:
        part = store.load_region("a.npy", region)
    except ConfigError:
        return
    assert np.array_equal(part, array[region], equal_nan=True)


def _is_plain(region: Any) -> bool:
    parts = region if isinstance(region, tuple) else (region,)
    return all(part is Ellipsis or isinstance(part, slice) for part in parts)


@QUICK
@given(data=st.data())
def test_any_stack_comes_back_from_tiff_and_tifffile_agrees(store: Any, data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=5, min_side=1, max_side=5))
    array = data.draw(hnp.arrays(data.draw(st.sampled_from(TIFF_DTYPES)), shape))
    store.save(array, "a.tif")
    loaded = store.load("a.tif")
    assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
    assert np.array_equal(loaded, array, equal_nan=array.dtype.kind == "f")
    starts = [data.draw(st.integers(0, length)) for length in shape]
    region = tuple(slice(start, data.draw(st.integers(start, length))) for start, length in zip(starts, shape, strict=True))
    assert np.array_equal(store.load_region("a.tif", region), array[region], equal_nan=array.dtype.kind == "f")
    if hasattr(store, "path"):
        other = tifffile.imread(store.path / "a.tif")
        assert other.dtype == array.dtype
        assert np.array_equal(other.reshape(shape), array, equal_nan=array.dtype.kind == "f")


@QUICK
@given(value=JSON)
def test_any_plain_value_comes_back_from_json(store: Any, value: Any) -> None:
    store.save({"value": value}, "a.json")
    assert store.load("a.json") == {"value": value}
    if hasattr(store, "path"):
        assert json.loads((store.path / "a.json").read_bytes()) == {"value": value}


@QUICK
@given(text=st.text(st.characters(codec="utf-8")))
def test_any_text_comes_back(store: Any, text: str) -> None:
    store.save(text, "a.txt")
    assert store.load("a.txt") == text


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@QUICK
@given(
    rows=st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats(), CELLS, st.booleans()), max_size=6),
    names=st.lists(CELLS.filter(bool), min_size=4, max_size=4, unique=True),
)
def test_any_table_comes_back_from_csv(store: Any, rows: list[Any], names: list[str]) -> None:
    table = np.array(rows, dtype=list(zip(names, ("i8", "f8", "U8", "?"), strict=True)))
    try:
        store.save(table, "a.csv")
    except ConfigError:
        return  # a name that CSV cannot hold
    loaded = store.load("a.csv")
    assert loaded.dtype.names == tuple(names)
    assert len(loaded) == len(rows)
    if not rows:
        return
    assert loaded[names[0]].tolist() == [row[0] for row in rows]
    assert np.array_equal(loaded[names[1]].astype("f8"), table[names[1]], equal_nan=True)
    assert loaded[names[3]].tolist() == [row[3] for row in rows]
    if loaded[names[2]].dtype.kind == "U":  # a column in which every text reads as a number comes back as numbers
        assert loaded[names[2]].tolist() == table[names[2]].tolist()


@QUICK
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".npy", ".tif", ".png", ".csv", ".json", ".txt"]))
def test_any_bytes_are_an_item_or_one_clear_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    starts = {".npy": b"\x93NUMPY\x01\x00", ".tif": b"II*\x00\x08\x00\x00\x00", ".png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"}
    with storage.open("disk", tmp_path) as opened:
        for head in (b"", starts.get(suffix, b'{"')):
            (tmp_path / f"a{suffix}").write_bytes(head + content)
            try:
                opened.load(f"a{suffix}")
            except DatasetError as error:
                assert f"a{suffix}" in str(error)  # noqa: PT017 - only if it is raised


# ---------------------------------------------------------------------- any order of calls

PARTS = st.sampled_from(["a", "b", "B", "a.txt", "b.txt", "z2.txt", "z10.txt"])
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
ITEMS = NAMES.filter(lambda name: name.endswith(".txt"))  # without a suffix the memory takes what the disk does not


class Both(RuleBasedStateMachine):
    """The two stores answer every call alike, and hold what a dictionary holds."""

    texts = Bundle("texts")

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.disk = storage.open("disk", self.root / "store")
        self.memory = storage.open("memory")
        self.model: dict[str, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    def both(self, call: Callable[[Any], Any]) -> tuple[str, Any]:
        answers = []
        for store in (self.disk, self.memory):
            try:
                answers.append(("done", call(store)))
            except (DatasetExistsError, DatasetNotFoundError, ConfigError) as error:
                answers.append((type(error).__name__, None))
        assert answers[0] == answers[1]
        return answers[0]

    @rule(target=texts, text=st.text(string.ascii_letters, max_size=5))
    def text(self, text: str) -> str:
        return text

    @rule(name=ITEMS, text=texts, overwrite=st.booleans())
    def save(self, name: str, text: str, overwrite: bool) -> None:
        known = name in self.model
        answer, _ = self.both(lambda store: store.save(text, name, overwrite=overwrite))
        if answer == "done":
            assert overwrite or not known
            self.model[name] = text

    @rule(name=NAMES)
    def load(self, name: str) -> None:
        answer, found = self.both(lambda store: store.load(name))
        assert (answer == "done") == (name in self.model)
        assert found == self.model.get(name)

    @rule(name=NAMES, recursive=st.booleans())
    def delete(self, name: str, recursive: bool) -> None:
        answer, _ = self.both(lambda store: store.delete(name, recursive=recursive))
        if answer == "done":
            self.model = {k: v for k, v in self.model.items() if k != name and not k.startswith(f"{name}/")}

    @rule(source=NAMES, name=NAMES, overwrite=st.booleans(), move=st.booleans())
    def copy_or_move(self, source: str, name: str, overwrite: bool, move: bool) -> None:
        answer, _ = self.both(lambda store: (store.move if move else store.copy)(source, name, overwrite=overwrite))
        if answer != "done":
            return
        if source in self.model:
            self.model[name] = self.model.pop(source) if move else self.model[source]
            return
        inside = [key for key in self.model if key.startswith(f"{source}/")]
        self.model.update({name + key[len(source) :]: self.model.pop(key) for key in inside})

    @rule(name=NAMES)
    def ensure_directory(self, name: str) -> None:
        self.both(lambda store: store.ensure_directory(name))

    @rule(name=NAMES | st.just(""), recursive=st.booleans())
    def look(self, name: str, recursive: bool) -> None:
        for call in ("exists", "is_file", "is_dir", "list_dirs"):
            self.both(lambda store, call=call: getattr(store, call)(name))  # type: ignore[misc]
        self.both(lambda store: store.list_files(name, recursive=recursive))

    @invariant()
    def they_hold_the_same(self) -> None:
        if hasattr(self, "root"):
            for store in (self.disk, self.memory):
                assert store.list_files(recursive=True) == sorted(self.model, key=_names.natural_key)


TestBoth = Both.TestCase
TestBoth.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)
