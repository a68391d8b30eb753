"""What ImageJ shows of a running scope: frames shown and painted a second, their age, and what the recorder lost.

    xvfb-run -a python tools/watch_fiji.py [--hz 100] [--side 2048] [--unrecorded]

ImageJ runs as `viewers.open` starts it. Beside it, on the same computer, a simulated camera is recorded to the disk (unless
--unrecorded), so that everything shares the processor. *Shown* is when ImageJ has the frame and was asked to paint it;
*painted* is counted by its canvas.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import mutoscope as ms
from mutoscope.cameras import SimulatedCamera
from mutoscope.viewers.fiji import attach, running
from mutoscope.viewers.sink import open_viewer

SETTLE_S, LOOK_S = 3.0, 8.0


def look(side: int, hz: float, folder: Path, recorded: bool) -> dict[str, float]:
    """Run a scope with ImageJ for a while; return what was found."""
    os.environ |= {"XDG_RUNTIME_DIR": str(folder), "JAVA_TOOL_OPTIONS": f"-Duser.home={folder}"}
    camera = SimulatedCamera(shape=(side, side), rate_hz=hz)
    record = folder / "run.ome.zarr" if recorded else None
    with ms.Scope(camera=camera, record=record, page=True) as scope:
        sink = open_viewer("fiji", "timed", timeout_s=120, required=True)
        try:
            sink.watch(scope.page_url)
            with attach(running()[0]) as imagej:
                scope.start_acquisition()
                time.sleep(SETTLE_S)
                began, before = time.monotonic(), scope.ledger.cameras["camera"]
                shown, painted = sink.watched()[0].streams[0].shown, imagej.state().painted
                time.sleep(LOOK_S)
                seconds, after = time.monotonic() - began, scope.ledger.cameras["camera"]
                stream = sink.watched()[0].streams[0]
                counts = stream.shown - shown, imagej.state().painted - painted
                scope.stop_acquisition()
        finally:
            sink.close(leave_open=False)
    return {
        "camera, frames a second": (after["produced"] - before["produced"]) / seconds,
        "dropped by the recorder, frames": float(sum(scope.ledger.dropped.values())),
        "shown, frames a second": counts[0] / seconds,
        "painted, a second": counts[1] / seconds,
        "age when shown, p50, ms": stream.age_ms or 0.0,
        "age when shown, p99, ms": stream.age_p99_ms or 0.0,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What ImageJ shows of a running scope.")
    parser.add_argument("--hz", type=float, default=100.0)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--unrecorded", action="store_true", help="without a recording, which a disk may not sustain")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutoscope-watch-") as folder:
        for name, value in look(arguments.side, arguments.hz, Path(folder), not arguments.unrecorded).items():
            sys.stdout.write(f"{name}: {value:.3g}\n")


if __name__ == "__main__":
    main()
