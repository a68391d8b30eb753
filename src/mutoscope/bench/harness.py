"""How every bench measures: floor and test in turn, in one run, and the median of the paired ratios.

A figure of this machine at this moment says little; the ratio of two things done one after the other says more. So each round
does the floor (a memcpy, a bare socket, a raw file write) and the tests next to each other, rounds alternate their order, and
what is reported is the median over the rounds of the ratio within a round, with its spread.

Nothing here keeps a process, a file or memory: a bench owns what it starts.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as TextTable

from mutoscope.model.errors import ConfigError

__all__ = [
    "MIN_ROUNDS",
    "Bench",
    "Cells",
    "Figure",
    "Machine",
    "Ratio",
    "Report",
    "Rounds",
    "Spread",
    "describe_machine",
    "own_folder",
    "percentile",
    "rest",
    "touched",
]

MIN_ROUNDS = 7
"""Rounds of a bench whose figures count."""

_QUIET_S = 0.3  # without a request, a device counts as idle
_PATIENCE_S = 30.0

Measures = float | Mapping[str, float]
Case = Callable[[], Measures]


class Machine(msgspec.Struct, frozen=True):
    """Where a bench ran."""

    processor: str
    """Its name, as the kernel gives it."""
    cores: int
    """Cores that this process may use."""
    memory_bytes: int
    """Physical memory."""
    system: str
    """Kernel and release."""
    python: str
    """Version of Python."""
    numpy: str
    """Version of NumPy."""
    load: float
    """Load average of the last minute at the start; far above 0 means that others were busy."""


class Spread(msgspec.Struct, frozen=True):
    """Several measurements of one quantity."""

    median: float
    low: float
    """The lower quartile."""
    high: float
    """The upper quartile."""
    smallest: float
    largest: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise `values`, at least one."""
        low, median, high = (float(np.percentile(values, q)) for q in (25, 50, 75))
        return cls(median, low, high, float(min(values)), float(max(values)), len(values))


class Ratio(msgspec.Struct, frozen=True, tag="ratio"):
    """A test against its floor."""

    name: str
    unit: str
    """Of `floor` and `test`."""
    test_name: str
    floor_name: str
    test: Spread
    floor: Spread
    ratio: Spread
    """Of test / floor within each round."""
    at_least: float | None = None
    at_most: float | None = None
    counts: bool = True
    """Whether the bounds are judged: not with too few rounds, or with timing off."""
    note: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the median ratio keeps the bounds; None without bounds or when it does not count."""
        return _judge(self.ratio.median, self.at_least, self.at_most) if self.counts else None


class Figure(msgspec.Struct, frozen=True, tag="figure"):
    """A quantity that stands alone: a count, a duration, memory."""

    name: str
    unit: str
    value: Spread
    at_least: float | None = None
    at_most: float | None = None
    counts: bool = True
    note: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the median keeps the bounds; None without bounds or when it does not count."""
        return _judge(self.value.median, self.at_least, self.at_most) if self.counts else None


class Cells(msgspec.Struct, frozen=True):
    """A table of words and numbers that stands beside the figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Report(msgspec.Struct, frozen=True):
    """All results of one run of a bench."""

    bench: str
    machine: Machine
    started_utc: str
    duration_s: float
    rounds: int
    results: tuple[Ratio | Figure, ...]
    notes: tuple[str, ...] = ()
    """What could not be measured here, and why."""
    tables: tuple[Cells, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no bound that counts was missed."""
        return all(result.passed is not False for result in self.results)

    def to_json(self) -> str:
        """Return the report as one line of JSON, with each result's verdict."""
        plain = msgspec.to_builtins(self)
        for result, entry in zip(self.results, plain["results"], strict=True):
            entry["passed"] = result.passed
        plain["passed"] = self.passed
        return msgspec.json.encode(plain).decode()

    def to_markdown(self) -> str:
        """Return the results, the tables and the machine as Markdown."""
        rows = []
        for result in self.results:
            floor, ratio, bound = "", "", _bound(result).replace(">=", "≥").replace("<=", "≤")
            value = result.test if isinstance(result, Ratio) else result.value
            if isinstance(result, Ratio):
                floor = f"{_number(result.floor.median)} {result.unit}"
                ratio = f"{result.ratio.median:.2f} ({result.ratio.low:.2f}–{result.ratio.high:.2f})"
            test = f"{_number(value.median)} {result.unit}".strip()
            rows.append((result.name, floor, test, ratio, bound + (" (missed)" if result.passed is False else "")))
        figures = Cells("", ("", "floor", "test", "ratio (quartiles)", "bound"), tuple(rows))
        machine = self.machine
        where = f"{machine.processor}, {machine.cores} cores, {machine.system}, Python {machine.python}"
        return "\n\n".join([*(_markdown(cells) for cells in (*self.tables, figures)), *self.notes, where])

    def show(self, console: Console) -> None:
        """Print the results as a table."""
        for cells in self.tables:
            shown = TextTable(*cells.columns, title=cells.title, title_justify="left")
            for row in cells.rows:
                shown.add_row(*row)
            console.print(shown)
        table = TextTable(title=f"mutoscope bench {self.bench}", title_justify="left", caption_justify="left")
        table.add_column("what")
        for column in ("floor", "test", "ratio (quartiles)", "bound"):
            table.add_column(column, justify="right")
        table.add_column("")
        for result in self.results:
            if isinstance(result, Ratio):
                floor, test = (f"{_number(x.median)} {result.unit}" for x in (result.floor, result.test))
                ratio = f"{result.ratio.median:.2f} ({result.ratio.low:.2f}-{result.ratio.high:.2f})"
            else:
                floor, test, ratio = "", f"{_number(result.value.median)} {result.unit}", ""
            bound = _bound(result)
            verdict = {True: "[green]ok[/]", False: "[red]missed[/]", None: "not judged" if bound else ""}[result.passed]
            table.add_row(result.name, floor, test, ratio, bound, verdict)
        machine = self.machine
        table.caption = (
            f"{machine.processor}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB, {machine.system},"
            f" Python {machine.python}, NumPy {machine.numpy}; load before {machine.load:.1f}; {self.rounds} rounds in"
            f" {self.duration_s:.0f} s; ratios are medians over rounds of test / floor"
        )
        console.print(table)
        for result in self.results:
            if result.note:
                console.print(f"{result.name}: {result.note}", highlight=False)
        if any(result.passed is None and _bound(result) for result in self.results):
            console.print(f"not judged: a bound is judged on at least {MIN_ROUNDS} timed rounds", highlight=False)
        for note in self.notes:
            console.print(note, highlight=False)


class Rounds:
    """What each case measured in each round."""

    def __init__(self) -> None:
        self._values: dict[str, list[Mapping[str, float]]] = {}

    def add(self, case: str, measures: Measures) -> None:
        """Add what `case` measured in one round."""
        measured = dict(measures) if isinstance(measures, Mapping) else {"value": measures}
        self._values.setdefault(case, []).append(measured)

    def of(self, case: str, measure: str = "value") -> list[float]:
        """Return one measure of a case, a value each round."""
        if case not in self._values or measure not in self._values[case][0]:
            raise ConfigError(f"no measure {measure!r} of {case!r}: there are {', '.join(self._values)}")
        return [float(values[measure]) for values in self._values[case]]


class Bench:
    """One run of a bench.

    Parameters
    ----------
    name : str
        As in ``mutoscope bench NAME``.
    rounds : int
        How often floor and tests alternate. Below :data:`MIN_ROUNDS` no bound is judged.
    timing : bool
        Off, everything runs once and no bound is judged: that is how the benches run as ordinary tests.
    console : rich.console.Console, optional
        Where the progress goes; to standard error when None.

    Examples
    --------
    >>> bench = Bench("copy", timing=False)
    >>> source, target = touched(1_000_000), touched(1_000_000)
    >>> def copy():
    ...     begin = time.perf_counter()
    ...     target[:] = source
    ...     return time.perf_counter() - begin
    >>> rounds = bench.alternate({"memcpy": copy, "again": copy})
    >>> result = bench.ratio("a copy", rounds, of="again", to="memcpy", unit="s", at_most=1.5)
    >>> bench.report().passed
    True
    """

    def __init__(self, name: str, *, rounds: int = MIN_ROUNDS, timing: bool = True, console: Console | None = None) -> None:
        if rounds < 1:
            raise ConfigError(f"a bench needs at least one round, not {rounds}")
        self.name = name
        self.rounds = rounds if timing else 1
        self.timing = timing
        self._console = console or Console(stderr=True)
        self._machine = describe_machine()
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._begin = time.monotonic()
        self._results: list[Ratio | Figure] = []
        self._notes: list[str] = []
        self._tables: list[Cells] = []

    @property
    def counts(self) -> bool:
        """Whether bounds are judged."""
        return self.timing and self.rounds >= MIN_ROUNDS

    def alternate(
        self, cases: Mapping[str, Case], *, label: str = "", warm_up: bool = True, rounds: int | None = None
    ) -> Rounds:
        """Run all cases in every round, in turned order every second round.

        Parameters
        ----------
        cases : mapping of str to callable
            Each does its work once and returns what it measured: a number, or numbers by name. It leaves its own set-up
            out of the measurement and uses memory that was touched before (:func:`touched`).
        label : str
            Shown beside the progress bar.
        warm_up : bool
            Run each case once before, uncounted.
        rounds : int, optional
            For expensive cases; the bench's own number otherwise.
        """
        count = 1 if not self.timing else rounds or self.rounds
        rounds_done = Rounds()
        order = list(cases)
        warm_up = warm_up and self.timing
        with self._progress() as progress:
            task = progress.add_task(label or self.name, total=(count + warm_up) * len(order))
            for number in range(-1 if warm_up else 0, count):
                for case in order if number % 2 == 0 else reversed(order):
                    measures = self._measure(cases[case])
                    if number >= 0:
                        rounds_done.add(case, measures)
                    progress.advance(task)
        return rounds_done

    def ratio(
        self,
        name: str,
        rounds: Rounds,
        *,
        of: str,
        to: str,
        measure: str = "value",
        unit: str = "",
        at_least: float | None = None,
        at_most: float | None = None,
        note: str = "",
    ) -> Ratio:
        """Add the ratio of case `of` to case `to` (the floor) in one measure, with the bounds that it is to keep."""
        test, floor = rounds.of(of, measure), rounds.of(to, measure)
        counts = self.timing and len(test) >= MIN_ROUNDS
        pairs = [a / b for a, b in zip(test, floor, strict=True)]
        spreads = (Spread.of(test), Spread.of(floor), Spread.of(pairs))
        result = Ratio(name, unit, of, to, *spreads, at_least=at_least, at_most=at_most, counts=counts, note=note)
        self._results.append(result)
        return result

    def figure(
        self,
        name: str,
        values: float | Sequence[float],
        *,
        unit: str = "",
        at_least: float | None = None,
        at_most: float | None = None,
        exact: bool = False,
        note: str = "",
    ) -> Figure:
        """Add a quantity that stands alone. `exact` ones (counts, losses) are judged however few rounds there were."""
        taken = [float(values)] if isinstance(values, int | float) else [float(value) for value in values]
        counts = exact or (self.timing and len(taken) >= (MIN_ROUNDS if len(taken) > 1 else 1))
        result = Figure(name, unit, Spread.of(taken), at_least=at_least, at_most=at_most, counts=counts, note=note)
        self._results.append(result)
        return result

    @contextlib.contextmanager
    def counted(self, label: str, total: int) -> Iterator[Callable[[], None]]:
        """Show a progress bar around what is counted and not timed; yields what is to be called for each step."""
        with self._progress() as progress:
            task = progress.add_task(label, total=total)
            yield lambda: progress.advance(task)

    def note(self, text: str) -> None:
        """Say, once, what could not be measured here, and why."""
        if text not in self._notes:
            self._notes.append(text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table of words and numbers."""
        self._tables.append(Cells(title, tuple(columns), tuple(map(tuple, rows))))

    def report(self) -> Report:
        """Return everything so far."""
        duration = time.monotonic() - self._begin
        results, notes, tables = tuple(self._results), tuple(self._notes), tuple(self._tables)
        return Report(self.name, self._machine, self._started, duration, self.rounds, results, notes, tables)

    def _measure(self, case: Case) -> Measures:
        gc.collect()
        gc.disable()
        try:
            return case()
        finally:
            gc.enable()

    def _progress(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)


def touched(shape: int | Sequence[int], dtype: npt.DTypeLike = np.uint8) -> npt.NDArray[Any]:
    """Return an array of which every page has been written, so that no page fault falls into a measurement."""
    made = np.empty(shape, dtype)
    made.view(np.uint8)[...] = 1
    return made


@contextlib.contextmanager
def own_folder(variable: str) -> Iterator[None]:
    """Have an environment variable name a folder of the bench's own, which is removed at the end."""
    before = os.environ.get(variable)
    with tempfile.TemporaryDirectory(prefix="mutoscope-bench-") as folder:
        os.environ[variable] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[variable]
            else:
                os.environ[variable] = before


def rest(place: Path, nbytes: int = 0) -> None:
    """Give writes into `place` an equal start: the device idle, the page cache clean, memory for `nbytes` touched.

    It waits, at most 30 s, until the device has written, and discarded, what it was asked to before. The memory is touched and
    freed: the kernel gives out first what was freed last, and a virtual machine's host has to find none while it is measured.
    It is at most half of what is free. For what takes longer than some seconds, leave it at 0: by then such a host has taken
    the memory back, and takes it back while it is measured.
    """
    os.sync()
    number = place.stat().st_dev
    counters = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat")
    deadline, before = time.monotonic() + _PATIENCE_S, ""
    while counters.exists() and time.monotonic() < deadline:
        now = counters.read_text(encoding="ascii")
        if now == before and int(now.split()[8]) == 0:  # requests in flight
            break
        before = now
        time.sleep(_QUIET_S)
    if nbytes:
        touched(min(int(1.25 * nbytes), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") // 2))


def percentile(values: Sequence[float], q: float) -> float:
    """Return percentile `q` (0 to 100) of `values`."""
    return float(np.percentile(values, q))


def describe_machine() -> Machine:
    """Return what figures depend on."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        numpy=np.__version__,
        load=os.getloadavg()[0],
    )


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _judge(value: float, at_least: float | None, at_most: float | None) -> bool | None:
    if at_least is None and at_most is None:
        return None
    return (at_least is None or value >= at_least) and (at_most is None or value <= at_most)


def _markdown(cells: Cells) -> str:
    rows = (cells.columns, ("---",) * len(cells.columns), *cells.rows)
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def _bound(result: Ratio | Figure) -> str:
    parts = [f">= {_number(result.at_least)}" if result.at_least is not None else ""]
    parts.append(f"<= {_number(result.at_most)}" if result.at_most is not None else "")
    return " ".join(part for part in parts if part)


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
