"""What napari shows of a running scope, and how old it is then.

    python tools/watch_latency.py [--json] [--hz 100] [--side 2048] [--unrecorded]

Needs Xvfb. napari runs as `viewers.open` starts it, on a screen of no monitor, where it draws without a graphics card; beside
it, on the same computer, a simulated camera is recorded to the disk (unless --unrecorded), so that everything shares the
processor. *Painted* is when napari's canvas has given its drawing commands; a frame counts when it is the one that napari had
then, and its age is from the moment it reached the camera's process. The same scope runs without a viewer before, for
comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/viewers"), str(ROOT / "tools"), str(ROOT / "tests")]

from mutoscope.viewers.model import ImageLayer  # noqa: E402
from mutoscope.viewers.napari.adapter import NapariAdapter  # noqa: E402

RESULT = "MUTOSCOPE_WATCH_RESULT"
SETTLE_S, LOOK_S = 3.0, 5.0


class Timed(NapariAdapter):
    """napari, which notes each picture."""

    kind: ClassVar[str] = "watch_latency:Timed"

    def __init__(self) -> None:
        super().__init__()
        self._shown: ImageLayer | None = None
        self._painted: list[tuple[int, int, int, int]] = []
        self._took_ns = 0

    def open(self, title: str) -> None:
        super().open(title)
        canvas = self._windows[0].viewer.window._qt_viewer.canvas._scene_canvas
        canvas.events.draw.connect(self._drawn, position="last")

    def show_images(self, layer: ImageLayer) -> None:
        began = time.monotonic_ns()
        super().show_images(layer)
        self._took_ns = time.monotonic_ns() - began
        self._shown = layer

    def _drawn(self, event: Any) -> None:
        if self._shown is not None and self._shown.frame_id:
            self._painted.append((self._shown.frame_id, self._shown.monotonic_ns, time.monotonic_ns(), self._took_ns))

    def close(self) -> None:
        Path(os.environ[RESULT]).write_text(json.dumps(self._painted))
        super().close()


def look(side: int, hz: float, folder: Path, watched: bool, recorded: bool) -> dict[str, float]:
    """Run a scope, with napari or without, for a while; return what was found."""
    import mutoscope as ms
    from mutoscope.cameras import SimulatedCamera
    from mutoscope.viewers.sink import open_viewer

    os.environ |= {
        RESULT: str(folder / "painted.json"),
        "XDG_RUNTIME_DIR": str(folder),
        "NAPARI_CONFIG": f"{folder}/napari.yaml",
    }
    camera = SimulatedCamera(shape=(side, side), rate_hz=hz)
    record = folder / "run.ome.zarr" if recorded else None
    with ms.Scope(camera=camera, record=record, page=True) as scope, ExitStack() as stack:
        if watched:
            sink = open_viewer(Timed.kind, "timed", timeout_s=120, required=True)
            stack.callback(sink.close, leave_open=False)
            sink.watch(scope.page_url)
        scope.start_acquisition()
        time.sleep(SETTLE_S)
        began, before = time.monotonic_ns(), scope.ledger.cameras["camera"]
        time.sleep(LOOK_S)
        ended, after = time.monotonic_ns(), scope.ledger.cameras["camera"]
        scope.stop_acquisition()
    seconds = (ended - began) / 1e9
    found = {
        "camera, frames a second": (after["produced"] - before["produced"]) / seconds,
        "camera blocked, s": after["blocked_s"] - before["blocked_s"],
        "dropped by the recorder, frames": float(sum(scope.ledger.dropped.values())),
    }
    return found | (_pictures(json.loads((folder / "painted.json").read_text()), began, ended) if watched else {})


def _pictures(painted: list[list[int]], began: int, ended: int) -> dict[str, float]:
    painted = [each for each in painted if began <= each[2] < ended]
    first = {frame_id: (at - came) / 1e6 for frame_id, came, at, _ in reversed(painted)}
    ages = sorted(first.values())
    return {
        "painted, frames a second": len(first) / ((ended - began) / 1e9),
        "age when painted, p50, ms": statistics.median(ages),
        "age when painted, p99, ms": ages[int(len(ages) * 0.99)],
        "handed to napari's layer in, p50, ms": statistics.median(each[3] / 1e6 for each in painted),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Measure napari as it watches a scope.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--hz", type=float, default=100.0)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--unrecorded", action="store_true", help="without a recording, which a disk may not sustain")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    from imagej_support import virtual_screen

    rows: dict[str, list[float]] = {}
    with virtual_screen() as display:
        os.environ["DISPLAY"] = display
        for _ in range(arguments.repeats):
            for watched in (False, True):
                with tempfile.TemporaryDirectory() as folder:
                    found = look(arguments.side, arguments.hz, Path(folder), watched, not arguments.unrecorded)
                for what, value in found.items():
                    rows.setdefault(what if watched else f"without napari: {what}", []).append(value)
    machine = f"{os.cpu_count()} cores, Linux {platform.release()}"
    if arguments.json:
        sys.stdout.write(json.dumps({"machine": machine, **rows}) + "\n")
        return
    sys.stdout.write(f"{machine}; {arguments.side}² at {arguments.hz:g} frames/s\n")
    for what, values in rows.items():
        spread = f"{min(values):.2f} to {max(values):.2f} of {len(values)}"
        sys.stdout.write(f"{what:<52} {statistics.median(values):8.2f}   ({spread})\n")


if __name__ == "__main__":
    main()
