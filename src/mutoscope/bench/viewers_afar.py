"""Images to a viewer on another computer, as far as one computer shows it: encrypted, over loopback, beside shared memory."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mutoscope.bench.harness import Bench, Measures, own_folder, touched
from mutoscope.model.install import install_command
from mutoscope.viewers.remote.keys import new_key, trust_key
from mutoscope.viewers.remote.listening import listen
from mutoscope.viewers.sink import ViewerSink, open_viewer

__all__ = ["measure_afar"]

_SIDE = 2048
_TIMEOUT_S = 60.0
_KEY = "bench"
_NAME = "bench"

Image = npt.NDArray[np.uint16]


@contextlib.contextmanager
def _own_keys() -> Iterator[None]:
    """Have keys of the bench's own: one user, who trusts themselves."""
    with own_folder("XDG_CONFIG_HOME"):
        trust_key(_KEY, new_key(_KEY).public)
        yield


def measure_afar(bench: Bench, count: int, name_of: Callable[[int], str]) -> None:
    """Measure `count` images a round, named by `name_of`, to one viewer by shared memory and through the gate of another."""
    if importlib.util.find_spec("zmq") is None:
        bench.note(f"not measured: a viewer on another computer; it needs pyzmq: {install_command('pyzmq')}")
        return
    rng = np.random.default_rng(1)
    images = [touched((_SIDE, _SIDE), np.uint16) for _ in range(2)]
    for image in images:  # as a camera's: twelve bits, noise on a gradient
        image[:] = 200 + np.arange(_SIDE) // 2 + rng.poisson(50, image.shape)
    options: dict[str, Any] = {"filenames": "imagexpress", "required": True, "timeout_s": _TIMEOUT_S}
    with _own_keys(), contextlib.ExitStack() as stack:
        address = listen("model", "0", "afar").address
        sinks = {
            "near": open_viewer("model", _NAME, **options),
            "afar": open_viewer("model", address, **options),
            "lz4": open_viewer("model", address, compression="lz4", **options),
        }
        stack.callback(ViewerSink("afar", kind="model").close, leave_open=False)
        for case, sink in sinks.items():
            stack.callback(sink.close, leave_open=case != "near")
        cases = {case: _case(sink, images, count, name_of) for case, sink in sinks.items()}
        rounds = bench.alternate(cases, label="images to another computer")
    name = f"{_SIDE} x {_SIDE} uint16 to a viewer on another computer, over loopback"
    bench.ratio(name, rounds, of="afar", to="near", unit="images/s", note=f"{count} images a round; encrypted")
    bench.ratio(f"{name}, lz4", rounds, of="lz4", to="near", unit="images/s", note="noise of 50 photons on a gradient")


def _case(sink: ViewerSink, images: Sequence[Image], count: int, name_of: Callable[[int], str]) -> Callable[[], Measures]:
    def work() -> Measures:
        began = time.perf_counter()
        for number in range(count):
            sink.save(images[number % 2], name_of(number), source="raw")
        sink.wait(_TIMEOUT_S)
        return count / (time.perf_counter() - began)

    return work
