"""Viewers that people look at, napari, ImageJ and the browser's: images a second, and SIGKILL of either side.

napari and ImageJ are on the screen that there is; at the page of the browser's looks nobody, and then a Chromium, which needs
no screen. They are those that a person has installed, with settings of the bench's own. ImageJ is killed by itself as well, and
tells how often it has painted; the others are one process, which does not.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence

from mutoscope.bench.harness import Bench, Measures, touched
from mutoscope.bench.viewer_kills import kill_many, tell
from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.viewers.sink import ViewerSink, open_viewer, progress

__all__ = ["WINDOWED", "measure_windowed"]

WINDOWED = ("napari", "fiji", "browser")
IMAGES = {256: 1000, 2048: 100}
"""Side in pixels, and images a round."""
KILLS = 20
_TIMEOUT_S = 180.0
_LOOK_S = 0.1
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "microsoft-edge")
_CHROMIUM_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--remote-debugging-port=0",
)
_IN_SIGHT = "A01_s1_w1_z1_t1.tif"


@contextlib.contextmanager
def _own_settings() -> Iterator[None]:
    """Have napari and Java read and write settings in a folder of the bench's own."""
    with tempfile.TemporaryDirectory(prefix="mutoscope-bench-") as folder:
        ours = {
            "NAPARI_CONFIG": f"{folder}/napari.yaml",
            "JAVA_TOOL_OPTIONS": f"-Duser.home={folder} {os.environ.get('JAVA_TOOL_OPTIONS', '')}".strip(),
        }
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _helpers(kind: str) -> Sequence[int]:
    """The processes without which a viewer shows nothing."""
    if kind != "fiji":
        return ()
    from mutoscope.viewers.fiji import running

    return [each.pid for each in running()]


@contextlib.contextmanager
def _looked_at(link: str) -> Iterator[None]:
    """Have a Chromium without a screen look at a page, drawing by processor."""
    program = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if program is None:
        raise BackendUnavailableError(f"a browser is needed that can do without a screen, one of: {', '.join(CHROMIUMS)}")
    with tempfile.TemporaryDirectory(prefix="mutoscope-bench-", ignore_cleanup_errors=True) as profile:
        command = [program, *_CHROMIUM_OPTIONS, f"--user-data-dir={profile}", link]
        silent = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=silent, stderr=silent, start_new_session=True) as process:
            try:
                deadline = time.monotonic() + _TIMEOUT_S
                while progress("bench").remark:  # that no browser is connected
                    if time.monotonic() > deadline:
                        raise BackendUnavailableError(f"{program} did not come to {link} within {_TIMEOUT_S:g} s")
                    time.sleep(_LOOK_S)
                yield
            finally:
                os.killpg(process.pid, signal.SIGKILL)


class _Paints:
    """How often ImageJ has painted, asked by a connection of its own; always 0 of others."""

    def __init__(self, kind: str) -> None:
        self._imagej = None
        if kind == "fiji":
            from mutoscope.viewers.fiji import attach, running

            (receiver,) = running()
            self._imagej = attach(receiver)

    def count(self) -> int:
        return self._imagej.state().painted if self._imagej is not None else 0

    def close(self) -> None:
        if self._imagej is not None:
            self._imagej.close()


def _images(bench: Bench, kind: str, side: int, count: int) -> None:
    """One plane in sight that is replaced by each image, so that each could be painted."""
    images = [touched((side, side), "uint16") for _ in range(2)]
    sink = open_viewer(kind, "bench", filenames="imagexpress", required=True, timeout_s=_TIMEOUT_S)
    try:
        sink.save(images[0], _IN_SIGHT, source="raw", until="displayed")
        with contextlib.closing(_Paints(kind)) as paints:
            rounds = bench.alternate({kind: lambda: _round(sink, paints, images, count)}, label=f"images of {side} x {side}")
        note = f"{count} images a round, of one plane, one after the other, until the last is displayed"
        bench.figure(f"{side} x {side} uint16 to {kind}", rounds.of(kind, "images"), unit="images/s", note=note)
        if kind == "fiji":
            bench.figure(f"{side} x {side} uint16 to {kind}: painted", rounds.of(kind, "paints"), unit="/s")
        if kind == "browser":
            with _looked_at(sink.link), contextlib.closing(_Paints(kind)) as paints:
                seen = bench.alternate({kind: lambda: _round(sink, paints, images, count)}, label="with a browser that looks")
            name = f"{side} x {side} uint16 to {kind}, with a browser that looks"
            bench.figure(name, seen.of(kind, "images"), unit="images/s")
    finally:
        sink.close(leave_open=False)


def _round(sink: ViewerSink, paints: _Paints, images: Sequence[object], count: int) -> Measures:
    painted, began = paints.count(), time.perf_counter()
    for number in range(count):
        sink.save(images[number % 2], _IN_SIGHT, source="raw")
    sink.wait(_TIMEOUT_S)
    took = time.perf_counter() - began
    return {"images": count / took, "paints": (paints.count() - painted) / took}


def measure_windowed(bench: Bench, kind: str, *, quick: bool, kills: int | None, seed: int) -> None:
    """Add the figures of one viewer to a bench.

    Raises
    ------
    ConfigError
        If it is none of `WINDOWED`.
    BackendUnavailableError, ViewerUnavailableError
        If it, or a screen, is not there.
    """
    if kind not in WINDOWED:
        raise ConfigError(f"--only of the bench viewers is {', '.join(WINDOWED)} or hardships, not {kind}")
    with _own_settings():
        for side, count in IMAGES.items():
            _images(bench, kind, side, count if not quick else 5)
        wanted = kills if kills is not None else KILLS if not quick else 4
        with bench.counted(f"kills of {kind} and of who sends", wanted) as killed:
            outcome = kill_many(wanted, seed, kind, lambda: _helpers(kind), killed)
    tell(bench, outcome)
