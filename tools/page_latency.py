"""How long a frame takes to a browser's canvas, and a person to the first one: python tools/page_latency.py [--json]

Measured in real headless Chromium, which draws without a graphics card, beside the scope on the same computer; needs Debian's
chromium and the tests' tools.

*From camera to socket* is what a frame's header says: ``sent_ns`` less ``monotonic_ns``, on the server's clock. *From camera to
canvas* ends when the page has given the browser its drawing commands for the frame, which the browser shows with its next
picture. That moment is `performance.now()`, mapped to the server's monotonic clock by the quickest of the last 60 pings, one a
second; the half of its round trip bounds the error. *The first frame* begins with the command ``mutoscope demo`` and ends in
the same way, on the clock of the day; the browser is open by then, as a person's is, and goes to the address when it is told.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/viewers"), str(ROOT / "tools")]

import browser_support  # noqa: E402
from page_pictures import address  # noqa: E402

STARTS = 7
FRAMES = 600
REPEATS = 3
SETTLE_S = 10.0
"""For as many pings: the clock is known well before the first frame counts."""


def first_frames(browser: Any, count: int) -> list[dict[str, float]]:
    """Start the demonstration so many times; return when its address was told and its first frame drawn, in seconds."""
    found = []
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "mutoscope", "demo", "--out", f"{folder}/beads.ome.zarr"]
            page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
            began = time.time()
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
                try:
                    url = address(demo)
                    told = time.time()
                    page.goto(url, wait_until="commit")
                    page.wait_for_function("() => window.mutoscope?.firstFrameMs() != null")
                    first_ms = page.evaluate("() => performance.timeOrigin + window.mutoscope.firstFrameMs()")
                    found.append({"address, s": told - began, "first frame, s": first_ms / 1e3 - began})
                finally:
                    page.context.close()
                    demo.send_signal(signal.SIGINT)
                    demo.communicate()
    return found


def latencies(browser: Any, frames: int, repeats: int) -> list[dict[str, Any]]:
    """Look at a running demonstration, so many times so many frames."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mutoscope", "demo", "--out", f"{folder}/beads.ome.zarr"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
            try:
                url = address(demo)
                for _ in range(repeats):
                    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
                    page.goto(url)
                    page.wait_for_function("() => window.mutoscope?.latencyMs() != null")
                    page.wait_for_timeout(SETTLE_S * 1e3)
                    page.evaluate("count => window.mutoscope.watch(count)", frames)
                    page.wait_for_function("count => window.mutoscope.watched().length >= count", arg=frames, timeout=120_000)
                    seen = page.evaluate("() => ({ frames: window.mutoscope.watched(), clock: window.mutoscope.clock() })")
                    page.context.close()
                    found.append(seen)
            finally:
                demo.send_signal(signal.SIGINT)
                demo.communicate()
    return found


def figures(seen: dict[str, Any]) -> dict[str, float]:
    """What one look found, in milliseconds."""
    frames = seen["frames"]
    canvas = sorted(frame["canvasMs"] for frame in frames)
    sent = sorted(frame["socketMs"] for frame in frames)
    lasted_s = (frames[-1]["drawnAtMs"] - frames[0]["drawnAtMs"]) / 1e3
    return {
        "from camera to socket, median, ms": statistics.median(sent),
        "from camera to socket, 99 of 100, ms": sent[int(len(sent) * 0.99)],
        "from camera to canvas, median, ms": statistics.median(canvas),
        "from camera to canvas, 99 of 100, ms": canvas[int(len(canvas) * 0.99)],
        "drawn frames a second": (len(frames) - 1) / lasted_s,
        "round trip of the quickest ping, ms": seen["clock"]["tripMs"],
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Measure the live page in Chromium.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one start, one short look")
    arguments = parser.parse_args()
    starts, frames, repeats = (1, 60, 1) if arguments.quick else (STARTS, FRAMES, REPEATS)
    with browser_support.chromium() as browser:
        begun = first_frames(browser, starts)
        looks = [figures(seen) for seen in latencies(browser, frames, repeats)]
        version = browser.version
    machine = f"{os.cpu_count()} cores, Linux {platform.release()}, Chromium {version}"
    rows = {what: [look[what] for look in looks] for what in looks[0]}
    rows |= {f"{what}, after the command": [each[what] for each in begun] for what in begun[0]}
    if arguments.json:
        sys.stdout.write(json.dumps({"machine": machine, **rows}) + "\n")
        return
    sys.stdout.write(f"{machine}\n")
    for what, values in rows.items():
        spread = f"{min(values):.2f} to {max(values):.2f} of {len(values)}"
        sys.stdout.write(f"{what:<48} {statistics.median(values):8.2f}   ({spread})\n")


if __name__ == "__main__":
    main()
