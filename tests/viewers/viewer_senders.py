"""Programs that send to a viewer: run as ``python -m viewer_senders ROLE NAME [ARGUMENTS]`` by the tests of sinks."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys

import numpy as np

from mutoscope import viewers
from polling import until

SHAPE = (40, 50)


def image(number: int) -> np.ndarray:
    return np.full(SHAPE, number % 60000, np.uint16)


def name(number: int) -> str:
    return f"A01_s1_w1_t{number + 1}.tif"


def without_waiting(viewer: str) -> None:
    """End at once."""
    sink = viewers.open("model", viewer)
    for number in range(50):
        sink.save(image(number), name(number), source="raw")


def after_a_word(viewer: str) -> None:
    """Send some when told, and end at once."""
    sink = viewers.open("model", viewer)
    print("open", flush=True)
    sys.stdin.readline()
    for number in range(3):
        sink.save(image(number), name(number), source="late")


def killed(viewer: str) -> None:
    """Send until somebody kills this."""
    sink = viewers.open("model", viewer)
    number = 0
    while True:
        sink.save(image(number), name(number % 500), source="killed")
        number += 1
        if number == 200:
            print("sending", flush=True)


def without_shared_memory(viewer: str) -> None:
    """No file, and so no shared memory, may be larger than 64 KiB."""
    sink = viewers.open("model", viewer)
    sink.disconnect()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
    sink = viewers.open("model", viewer, window_bytes=1 << 20)
    for number in range(60):
        sink.save(np.full((200, 300), number, np.uint16), name(number), source="band")
    sink.save(np.arange(3_000_000, dtype=np.uint32).reshape(3, 1000, 1000), "A01_s1_w1_t900.tif", source="large")
    print(sink.wait(60).images.displayed, flush=True)


def little(viewer: str, count: str) -> None:
    """Many images with few descriptors."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    sink = viewers.open("model", viewer, window_bytes=8 << 20)
    for number in range(int(count)):
        sink.save(image(number), name(number % 100), source="little")
    print(sink.wait(120).images.displayed, flush=True)


def on_a_full_disk(viewer: str) -> None:
    """No file can be written, neither by this nor by the viewer that it starts."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    sink = viewers.open("model", viewer, timeout_s=60.0)
    sink.save(image(1), name(1))
    print(sink.progress().images.dropped, flush=True)


def starving(viewer: str) -> None:
    """Sinks that come when few descriptors are left, from none to more than they need."""
    first = viewers.open("model", viewer, window_bytes=1 << 20)  # which imports all that there is
    first.save(image(0), name(0), source="starving", until="displayed")
    first.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    for left in range(16):
        sink = viewers.ViewerSink(viewer, kind="model", timeout_s=60.0, window_bytes=1 << 20)
        taken = []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            for fd in taken[:left]:
                os.close(fd)
        try:
            sink.save(image(left), name(left), source="starving")
        finally:
            for fd in taken[left:]:
                os.close(fd)
        sink.wait(60)
        images = sink.progress().images
        assert images.sent == images.displayed
        assert images.sent + images.dropped == 1
        print(left, "displayed" if images.displayed else "dropped", flush=True)
        sink.close()


def _work(job: tuple[viewers.ViewerSink, int]) -> int:
    sink, number = job
    sink.save(image(number), name(number), source="pool")
    return number


def pool(viewer: str, method: str) -> None:
    """Eight workers that have the sink by pickle."""
    sink = viewers.open("model", viewer)
    if method == "fork":
        sink.save(image(0), name(0), source="before")
    with multiprocessing.get_context(method).Pool(8) as workers:
        done = workers.map(_work, [(sink, number) for number in range(80)], chunksize=5)
        workers.close()
        workers.join()
    wanted = 80 + (method == "fork")
    until(lambda: viewers.progress(viewer).images.displayed >= wanted, lambda: f"{viewers.progress(viewer).images} of {wanted}")
    print(len(done), viewers.progress(viewer).images.displayed, flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
