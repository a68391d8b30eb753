"""The terminal display around a running scope: progress, rates, ring fill, workers, losses.

It only looks: a slow or hung terminal costs the scope nothing. One thread of the user's program draws it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mutoscope.model.errors import ClosedError, PeerDiedError, ScopeStateError

if TYPE_CHECKING:
    from mutoscope.app.scope import Scope, WorkerStatus
    from mutoscope.runtime import Ledger

__all__ = ["Meter", "ScopeDisplay", "View", "draw"]

CALM = ("running", "ended", "stopping")
END_WITHIN_S = 5.0
"""A terminal that takes nothing any more (Ctrl-S) does not hold the end of a run longer than this."""


@dataclass
class Meter:
    """A rate over the last few looks at a counter that only grows.

    Examples
    --------
    >>> meter = Meter()
    >>> [meter.rate_hz(count, at_s) for count, at_s in [(0, 0.0), (50, 0.5), (100, 1.0)]]
    [0.0, 100.0, 100.0]
    """

    looks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=12))

    def rate_hz(self, count: int, at_s: float) -> float:
        """Note the counter's value and return its growth a second."""
        if self.looks and count < self.looks[-1][1]:
            self.looks.clear()
        self.looks.append((at_s, count))
        first_s, first = self.looks[0]
        return (count - first) / (at_s - first_s) if at_s > first_s else 0.0


@dataclass(frozen=True)
class View:
    """One look at a scope, as the display draws it."""

    title: str
    path: str | None
    elapsed_s: float
    frames: int | None
    seconds: float | None
    cameras: dict[str, dict[str, Any]]
    camera_rates_hz: dict[str, float]
    worker_rates_hz: dict[str, float]
    workers: list[WorkerStatus]
    missed: int
    dropped: dict[str, int]


class ScopeDisplay:
    """Draws a scope from its start to its end. Owned, and closed, by whoever made it.

    Parameters
    ----------
    title : str
        What runs.
    frames, seconds : optional
        How many frames, or how long, this run is to take: for the progress bar.
    console : rich.console.Console, optional
        Where to draw; by default standard error, so that standard output stays the program's own.
    refresh_hz : float
        Looks and redraws a second.
    """

    def __init__(
        self,
        title: str,
        *,
        frames: int | None = None,
        seconds: float | None = None,
        console: Console | None = None,
        refresh_hz: float = 4.0,
    ) -> None:
        self._title, self._frames, self._seconds = title, frames, seconds
        self._console = console or Console(stderr=True)
        self._period_s = 1.0 / refresh_hz
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._meters: dict[str, Meter] = {}
        self._started_s = 0.0

    def watch(self, scope: Scope) -> None:
        """Begin to draw a scope that runs. Drawing ends with the scope, or with :meth:`close`."""
        self.close()
        self._end.clear()
        self._meters.clear()
        self._started_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(scope,), name="mutoscope-display", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Draw no more, and leave the terminal as it was. Twice is fine."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(END_WITHIN_S)
            self._thread = None

    def look(self, scope: Scope) -> View:
        """Look at the scope once."""
        now_s = time.monotonic()
        ledger: Ledger = scope.ledger
        workers = scope.status()
        return View(
            title=self._title,
            path=None if scope.path is None else str(scope.path),
            elapsed_s=now_s - self._started_s,
            frames=self._frames,
            seconds=self._seconds,
            cameras=ledger.cameras,
            camera_rates_hz={
                name: self._rate_hz(f"camera {name}", camera["produced"], now_s) for name, camera in ledger.cameras.items()
            },
            workers=workers,
            worker_rates_hz={worker.name: self._rate_hz(f"worker {worker.name}", worker.frames, now_s) for worker in workers},
            missed=ledger.missed,
            dropped=ledger.dropped,
        )

    def _rate_hz(self, counter: str, count: int, now_s: float) -> float:
        return self._meters.setdefault(counter, Meter()).rate_hz(count, now_s)

    def _run(self, scope: Scope) -> None:
        both = sys.stdout.isatty()  # what the program prints appears above the display; in a file it stays where it was sent
        with Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=both) as live:
            while not self._end.is_set() and scope.running:
                try:
                    live.update(draw(self.look(scope)), refresh=True)
                except (ClosedError, PeerDiedError, ScopeStateError, TimeoutError):
                    return  # the scope ended under us: its summary says how
                self._end.wait(self._period_s)


def draw(view: View) -> RenderableType:
    """Draw one look at a scope."""
    head = Text.assemble((view.title, "bold"), f"   {_clock(view.elapsed_s)}   ", (view.path or "not recorded", "dim"))
    parts: list[RenderableType] = [head]
    if view.frames is not None:
        produced, asked = sum(camera["produced"] for camera in view.cameras.values()), view.frames * max(1, len(view.cameras))
        parts.append(_progress(produced, asked, f"{produced:,} of {asked:,} frames"))
    elif view.seconds is not None:
        parts.append(_progress(view.elapsed_s, view.seconds, f"of {view.seconds:g} s"))
    parts += [_cameras(view), _workers(view), _losses(view.missed, view.dropped)]
    return Group(*parts)


def _progress(done: float, total: float, text: str) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_row(ProgressBar(total=total, completed=min(done, total), width=48), text)
    return grid


def _cameras(view: View) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("camera", "rate", "produced", "stored", "pending", "ring"):
        table.add_column(column, justify="left" if column in ("camera", "ring") else "right", min_width=9)
    for name, camera in view.cameras.items():
        recorder = camera["consumers"].get(camera["recorder"] or "")
        stored = f"{camera.get('stored', 0):,}" if camera["recorder"] else "-"
        pending = f"{recorder['pending']:,}" if recorder else "-"
        table.add_row(name, f"{view.camera_rates_hz[name]:,.1f} Hz", f"{camera['produced']:,}", stored, pending, _fill(camera))
    return table


def _fill(camera: dict[str, Any]) -> RenderableType:
    slots, used = camera.get("slots"), camera.get("slots_in_use")
    if not slots or used is None:
        return Text("-")
    text = Text(f"{'█' * round(10 * used / slots):<10} {used}/{slots}")
    text.stylize("red" if used >= 0.9 * slots else "yellow" if used >= 0.5 * slots else "green")
    return text


def _workers(view: View) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("worker", "pid", "state", "rate", "frames", "dropped", "restarts", "last error"):
        table.add_column(column, justify="left" if column in ("worker", "state", "last error") else "right", min_width=7)
    for worker in view.workers:
        calm = worker.state in CALM
        table.add_row(
            worker.name,
            str(worker.pid or "-"),
            Text(worker.state, style="green" if calm else "bold red"),
            f"{view.worker_rates_hz[worker.name]:,.1f} Hz",
            f"{worker.frames:,}",
            f"{worker.dropped:,}",
            f"{worker.restarts:,}",
            Text(
                worker.last_error.splitlines()[0] if worker.last_error else "", style="red", overflow="ellipsis", no_wrap=True
            ),
        )
    return table


def _losses(missed: int, dropped: dict[str, int]) -> Text:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in dropped.items() if count)
    return Text(f"missed {missed:,}   dropped {reasons or 0}", style="bold red" if missed or reasons else "green")


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"
