"""Arrays and tables of other libraries: the real ones, on the CPU; and a stand-in for memory on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mutoscope import storage
from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.storage.suite import image_of


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    with storage.open(request.param, tmp_path if request.param == "disk" else None, overwrite=True) as opened:
        yield opened


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_jax(store: Any, suffix: str) -> None:
    jnp = pytest.importorskip("jax.numpy")
    image = image_of(1)
    store.save(jnp.asarray(image), f"a{suffix}")
    assert np.array_equal(store.load(f"a{suffix}"), image)
    store.save_batch(jnp.asarray(image_of(2, (3, 4, 5), "float32")), [f"{n}{suffix}" for n in range(3)])
    assert np.array_equal(store.load(f"2{suffix}"), image_of(2, (3, 4, 5), "float32")[2])
    with pytest.raises(ConfigError):  # NumPy has no such numbers of its own, so they would not come back
        store.save(jnp.ones((3, 3), "bfloat16"), "b.tif")


def test_pandas(store: Any) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"label": [1, 2], "area": [0.5, np.nan], "well": ["B03", "AA12"], "kept": [True, False]})
    for suffix in (".csv", ".npy"):
        store.save(frame, f"a{suffix}")
        loaded = store.load(f"a{suffix}")
        assert loaded.dtype.names == ("label", "area", "well", "kept")
        assert loaded["well"].tolist() == ["B03", "AA12"]
        assert np.array_equal(loaded["area"], [0.5, np.nan], equal_nan=True)
    bad = [
        pandas.DataFrame({"mixed": [1, "a"]}),
        pandas.DataFrame({"missing": pandas.array([1, None], dtype="Int64")}),
        pandas.DataFrame([[1, 2]], columns=["same", "same"]),
        pandas.DataFrame(),
    ]
    for frame in bad:
        with pytest.raises(ConfigError):
            store.save(frame, "bad.npy")


def test_arrow(store: Any) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"label": [1, 2], "area": [0.5, 2.0], "well": ["B03", "AA12"], "kept": [True, False]})
    for suffix in (".csv", ".npy"):
        store.save(table, f"a{suffix}")
        assert store.load(f"a{suffix}").tolist() == [(1, 0.5, "B03", True), (2, 2.0, "AA12", False)]
    for bad in (arrow.table({"nested": [[1], [2]]}), arrow.table({"missing": ["a", None]})):
        with pytest.raises(ConfigError):
            store.save(bad, "bad.npy")


class OnGpu:
    """A stand-in: it says that its memory is on a GPU, at an address that nothing here may touch."""

    shape, dtype = (6, 9), np.dtype("uint16")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": "<u2", "data": (0xDEAD0000, False), "version": 3, "strides": None}


class OnGpuWithCopy(OnGpu):
    def copy_to_host(self) -> np.ndarray:
        return image_of(1)


class OnGpuWithGet(OnGpu):
    def get(self) -> np.ndarray:
        return image_of(1)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")


class Tensor(OnGpu):
    """As torch has it: gradients are recorded, and the memory is on a GPU."""

    def __init__(self, steps: tuple[str, ...] = ()) -> None:
        self.steps = steps

    def detach(self) -> Tensor:
        return Tensor((*self.steps, "detach"))

    def cpu(self) -> np.ndarray:
        assert self.steps == ("detach",)
        return image_of(1)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize("kind", [OnGpuWithCopy, OnGpuWithGet, Tensor])
def test_memory_on_a_gpu_is_copied_by_its_own_library(store: Any, kind: Any) -> None:
    store.save(kind(), "a.npy")
    assert np.array_equal(store.load("a.npy"), image_of(1))


def test_memory_on_a_gpu_without_a_way_down_says_what_helps(store: Any) -> None:
    if _has_cupy():
        pytest.skip("CuPy is here, and would copy from the stand-in's address")
    with pytest.raises(BackendUnavailableError, match="pip install cupy"):
        store.save(OnGpu(), "a.npy")
    assert store.list_files() == []


def _has_cupy() -> bool:
    from importlib.util import find_spec

    return find_spec("cupy") is not None


def test_masked_and_object_arrays_are_refused(store: Any) -> None:
    for bad in (np.ma.array([[1, 2]], mask=[[True, False]]), np.array([[object()]]), np.array([["a", None]])):
        with pytest.raises(ConfigError):
            store.save(bad, "a.npy")
