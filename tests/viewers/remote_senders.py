"""Programs that send to a viewer on another computer: run as ``python -m remote_senders ROLE ADDRESS SOURCE COUNT``."""

from __future__ import annotations

import json
import multiprocessing
import sys
from multiprocessing.synchronize import Barrier

from viewer_senders import name

from mutoscope import viewers
from mutoscope.viewers.suite import plane_of

SHAPE = (200, 300)
PATIENCE_S = 120.0


def batch(address: str, source: str, count: str) -> None:
    """Send images, and print what became of them."""
    sink = viewers.open("model", address, required=True, timeout_s=PATIENCE_S)
    print("open", flush=True)
    for number in range(int(count)):
        sink.save(plane_of(number, SHAPE), name(number), source=source)
    images = sink.wait(PATIENCE_S).images
    print(json.dumps([images.sent, images.displayed, images.failed, images.dropped]), flush=True)


_WORKERS = 8
_together: Barrier | None = None


def _begin(together: Barrier) -> None:
    global _together
    _together = together


def _work(job: tuple[viewers.ViewerSink, str, range]) -> None:
    sink, source, numbers = job
    assert _together is not None
    _together.wait(PATIENCE_S)  # so that each worker has a share
    for number in numbers:
        sink.save(plane_of(number, SHAPE), name(number), source=source)


def pool(address: str, source: str, count: str) -> None:
    """The same from eight processes that have the sink by pickle; each waits at its end for what it has sent."""
    sink = viewers.open("model", address, required=True, timeout_s=PATIENCE_S)
    print("open", flush=True)
    context = multiprocessing.get_context("spawn")
    with context.Pool(_WORKERS, _begin, (context.Barrier(_WORKERS),)) as workers:
        workers.map(_work, [(sink, source, range(first, int(count), _WORKERS)) for first in range(_WORKERS)], chunksize=1)
        workers.close()
        workers.join()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
