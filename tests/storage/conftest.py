"""Readers of others, warmed up once, so that the threads which they keep are not taken for leaks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr

ZARR_THREADS = 2


@pytest.fixture(scope="session", autouse=True)
def warm_readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start the event loop and the threads of zarr-python, bounded, and those of tensorstore."""
    folder: Path = tmp_path_factory.mktemp("warm")
    with zarr.config.set({"threading.max_workers": ZARR_THREADS, "async.concurrency": 4}):
        array = zarr.create_array(folder / "a.zarr", shape=(64, 8), chunks=(1, 8), dtype="uint8")
        array[:] = 1
        for _ in range(50):
            assert np.all(array[:] == 1)
            if sum(thread.name.startswith(("asyncio", "ThreadPool")) for thread in threading.enumerate()) >= ZARR_THREADS:
                break
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / "a.zarr")}}
        tensorstore.open(spec).result()[:].read().result()
        yield
