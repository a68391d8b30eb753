"""A run on one page: ``report.html`` beside the data, made when the scope has ended, and again by ``mutoscope report``.

It is one file without scripts, which loads nothing: it can be mailed, printed, and read in ten years.
"""

from __future__ import annotations

import html
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mutoscope import storage
from mutoscope.app import _svg
from mutoscope.app._account import Account, CameraAccount, read_ledger, read_settings
from mutoscope.model.errors import DatasetNotFoundError, MutoscopeError

__all__ = ["REPORT", "folder_of", "write_report"]

REPORT = "report.html"
BINS = 240
GAPS_SHOWN = 40
LINES_SHOWN = 40
LOG_BYTES = 4 * 1024 * 1024
ENDS = {"stopped": "in order, by its program", "interrupted": "by Ctrl-C", "program_ended": "its program ended"}
"""Why a run ended, in words where the ledger's own are not enough."""


def folder_of(path: str | os.PathLike[str]) -> Path:
    """Return the folder of a run that a person names by it, or by its data set.

    Raises
    ------
    DatasetNotFoundError
        If there is no ledger of a run that has ended.
    """
    given = Path(path)
    folder = given
    if given.name.endswith((".zarr", ".tiff", ".tif")):
        folder = given.with_name(given.name.removesuffix(given.suffix).removesuffix(".ome") + ".mutoscope")
    elif not given.name.endswith(".mutoscope"):
        inside = sorted(each for each in given.glob("*.mutoscope") if each.is_dir()) if given.is_dir() else []
        if len(inside) == 1:
            folder = inside[0]
        elif inside:
            raise DatasetNotFoundError(f"{given} holds several runs: name one of {', '.join(str(each) for each in inside[:5])}")
    if not (folder / "ledger.json").is_file():
        what = "has no ledger.json: the run goes on, or its supervisor was killed" if folder.is_dir() else "is not there"
        raise DatasetNotFoundError(f"no report without a ledger: {folder} {what}; mutoscope info tells of a data set alone")
    return folder


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` into the folder of a run that has ended, from its ledger, its log and its data set.

    Parameters
    ----------
    folder : path
        ``<name>.mutoscope``.

    Returns
    -------
    Path
        Of the report; one that was there is replaced whole.

    Raises
    ------
    DatasetNotFoundError
        If there is no ledger.
    DatasetError
        If the ledger is damaged.
    OSError
        If it cannot be written.
    """
    place = folder_of(folder).absolute()
    ledger = read_ledger(place)
    dataset = place.parent / Path(ledger.path).name if ledger.path is not None else None
    text = "".join(_page(ledger, dataset, read_settings(place), _read_log(place / "scope.log")))
    partial = place / f".{REPORT}.{os.getpid()}"
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, place / REPORT)
    finally:
        partial.unlink(missing_ok=True)
    return place / REPORT


# -- what is told


@dataclass(frozen=True)
class _Stored:
    """Times and counters of the stored frames of one camera, oldest first."""

    frame_ids: NDArray[np.uint64]
    ticks: NDArray[np.uint64]
    monotonic_ns: NDArray[np.int64]
    utc_ns: NDArray[np.int64]
    shape: tuple[int, ...]
    dtype: str


def _read_stored(path: Path | None, camera: str, account: CameraAccount) -> _Stored | str:
    """What the data set holds of a camera's frames of this run, or why that cannot be told."""
    if path is None or account.recorder is None:
        return "nothing was recorded"
    try:
        with storage.open_reader(path, camera=camera) as reader:
            ids = reader.frame_ids
            own = (ids >= account.first_id) & (ids <= max(account.last_id, 0))
            times = (ids[own], reader.ticks[own], reader.monotonic_ns[own], reader.utc_ns[own])
            return _Stored(*times, tuple(reader.shape[-2:]), str(reader.dtype))
    except (MutoscopeError, OSError) as error:
        return str(error)


def _page(ledger: Account, dataset: Path | None, settings: Mapping[str, Any], log: Sequence[str]) -> Iterator[str]:
    stored = {name: _read_stored(dataset, name, account) for name, account in ledger.cameras.items()}
    style = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
    yield "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    yield f"<title>{_e(ledger.scope)}: report</title><style>{style}</style><main>"
    yield from _head(ledger, dataset, stored)
    yield from _verdict(ledger, stored)
    for camera, account in ledger.cameras.items():
        yield from _camera(camera, account, stored[camera])
    yield from _processes(ledger)
    yield from _disk(dataset, stored)
    yield from _settings(settings)
    yield from _log(log)
    yield "</main></html>\n"


def _head(ledger: Account, dataset: Path | None, stored: Mapping[str, _Stored | str]) -> Iterator[str]:
    known = [found for found in stored.values() if isinstance(found, _Stored) and found.utc_ns.size and found.utc_ns[0]]
    yield f"<header><h1>{_e(ledger.scope)}</h1><p>"
    if known:
        first, last = int(min(found.utc_ns[0] for found in known)), int(max(found.utc_ns[-1] for found in known))
        yield f"{_utc(first)} to {_utc(last)} · {_duration((last - first) / 1e9)} · "
    reason = ENDS.get(ledger.reason, ledger.reason.replace("_", " "))
    yield f"ended: {_e(reason)} · {_e(str(dataset or 'not recorded'))}</p></header>"


def _verdict(ledger: Account, stored: Mapping[str, _Stored | str]) -> Iterator[str]:
    accounts = ledger.cameras.values()
    recorded = [account for account in accounts if account.recorder is not None]
    lost: dict[str, int] = {}
    for account in accounts:
        for reason, count in account.lost.items():
            lost[reason] = lost.get(reason, 0) + count
    pending = sum(account.recorded.pending for account in recorded)
    wrong = [*ledger.problems, *_contradictions(ledger, stored)]
    exact = not wrong and not pending and not any(account.unverified for account in recorded)
    kind, words = ("good", "Every frame is accounted for.") if exact else ("bad", "Not everything is as it should be.")
    if exact and lost:
        kind, words = "warn", "Every frame is accounted for; some were lost, each for a reason below."
    figures = {"produced": sum(account.produced for account in accounts)}
    if recorded:
        figures["stored"] = sum(account.stored for account in recorded)
    figures |= lost | ({"pending": pending} if pending else {}) | {"restarts": sum(ledger.restarts.values())}
    yield f"<section class='verdict {kind}'><p>{words}</p><dl>"
    yield from _figures(figures)
    yield "</dl>"
    if wrong:
        yield "<ul class=problems>" + "".join(f"<li>{_e(problem)}</li>" for problem in wrong) + "</ul>"
    yield "</section>"


def _contradictions(ledger: Account, stored: Mapping[str, _Stored | str]) -> Iterator[str]:
    """Where the data set is not what the ledger says."""
    for name, account in ledger.cameras.items():
        found = stored[name]
        if isinstance(found, _Stored) and found.frame_ids.size != account.stored:
            yield f"{name}: the data set holds {found.frame_ids.size:,} frames of this run, its ledger says {account.stored:,}"
        elif isinstance(found, str) and account.stored:
            yield f"{name}: the data set cannot be read: {found}"


def _camera(name: str, account: CameraAccount, stored: _Stored | str) -> Iterator[str]:
    yield f"<section><h2>{_e(name)}</h2>"
    if isinstance(stored, str):
        yield f"<p class=quiet>No times of frames: {_e(stored)}.</p>"
    elif stored.frame_ids.size == 0:
        yield "<p class=quiet>No frame was stored.</p>"
    else:
        yield from _rate(account, stored)
        yield from _intervals(stored)
        yield from _gaps(stored)
    yield from _consumers(account)
    yield from _clocks(account)
    yield "</section>"


def _rate(account: CameraAccount, stored: _Stored) -> Iterator[str]:
    times = (stored.monotonic_ns - stored.monotonic_ns[0]) / 1e9
    span = float(times[-1])
    height, width = stored.shape[-2:]
    mean = (times.size - 1) / span if span > 0 else float("nan")
    yield f"<p>{height} × {width} {_e(stored.dtype)} · {times.size:,} frames stored · mean {mean:.4g} frames/s"
    yield f" · the ring held the camera for {account.blocked_s:.3g} s</p>"
    if times.size < 3 or span <= 0:
        return
    bins = min(BINS, max(2, times.size // 8))
    counts, edges = np.histogram(times, bins=bins, range=(0.0, span))
    rates = counts / (edges[1] - edges[0])
    where, _ = _missing(stored)
    yield _svg.rates(edges, rates, marks=times[where], title=f"stored frames a second over {_duration(span)}; red marks: gaps")


def _missing(stored: _Stored) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Frames before a gap, and how many are missing after each: of ids, or of the camera's ticks where it counts those."""
    by_id = np.diff(stored.frame_ids.astype(np.int64)) - 1
    by_tick = np.diff(stored.ticks.astype(np.int64)) - 1
    missing = np.maximum(by_id, np.where((by_tick > 0) & (stored.ticks[1:] > 0), by_tick, 0))
    where = np.flatnonzero(missing > 0)
    return where, missing[where]


def _intervals(stored: _Stored) -> Iterator[str]:
    steps = np.diff(stored.monotonic_ns) / 1e6
    steps = steps[steps > 0]
    if steps.size < 8:
        return
    p50, p99, p999 = np.percentile(steps, [50, 99, 99.9])
    yield f"<p>Between two frames: median {p50:.3g} ms, 99 % within {p99:.3g} ms, 99.9 % within {p999:.3g} ms, "
    yield f"longest {steps.max():.4g} ms.</p>"
    counts, edges = np.histogram(steps, bins=80, range=(0.0, float(max(2.5 * p50, p99))))
    yield _svg.histogram(edges, counts, title="milliseconds between two stored frames (logarithmic counts)")


def _gaps(stored: _Stored) -> Iterator[str]:
    where, counts = _missing(stored)
    if not where.size:
        yield "<p class=good>No gap: ids and ticks of the stored frames follow one another.</p>"
        return
    yield f"<details open><summary>{where.size:,} gaps, {int(counts.sum()):,} exposures or frames missing</summary>"
    yield "<table><tr><th>after frame<th>missing<th>at (UTC)<th>for"
    largest = np.sort(np.argsort(counts)[::-1][:GAPS_SHOWN])
    for row in largest:
        at = where[row]
        length = (stored.monotonic_ns[at + 1] - stored.monotonic_ns[at]) / 1e9
        yield f"<tr><td>{stored.frame_ids[at]}<td>{counts[row]:,}<td>{_utc(int(stored.utc_ns[at]))}<td>{length:.4g} s"
    yield "</table>"
    if where.size > largest.size:
        yield f"<p class=quiet>The {largest.size} largest; <code>mutoscope info --json</code> has them all.</p>"
    yield "</details>"


def _consumers(account: CameraAccount) -> Iterator[str]:
    if not account.consumers:
        return
    yield "<table><tr><th>consumer<th>policy<th>offered<th>done<th>pending<th>dropped"
    for name, consumer in account.consumers.items():
        latest = consumer.shown is not None
        done = f"{consumer.shown:,} shown" if latest else f"{consumer.done:,}"
        pending = f"{consumer.skipped:,} skipped" if latest else f"{consumer.pending:,}"
        dropped = ", ".join(f"{entry.count:,} {reason.replace('_', ' ')}" for reason, entry in consumer.dropped.items())
        yield f"<tr><td>{_e(name)}<td>{_e(consumer.policy)}<td>{consumer.offered:,}"
        yield f"<td>{done}<td>{pending}<td>{_e(dropped) or '–'}"
    yield "</table>"


def _clocks(account: CameraAccount) -> Iterator[str]:
    fits = account.clocks.tick_to_monotonic_ns
    if not fits or fits[-1].rate is None:
        return
    fit = fits[-1]
    low, high = (_ms(fit.residual_quantiles.get(key)) for key in ("0.05", "0.95"))
    yield f"<p>Clocks: one tick of the camera is {_ms(fit.rate):.9g} ± {_ms(fit.rate_error):.2g} ms of this host; "
    yield f"nine of ten frames came within {low:+.3g} … {high:+.3g} ms of that line; "
    yield f"{len(fits)} segment{'' if len(fits) == 1 else 's'}, {account.clocks.utc_steps} steps of the UTC clock.</p>"


def _ms(ns: float | None) -> float:
    return float("nan") if ns is None else ns / 1e6


def _processes(ledger: Account) -> Iterator[str]:
    yield "<section><h2>Processes</h2>"
    if not ledger.restarts:
        yield "<p class=good>No process was restarted.</p>"
    else:
        yield "<table><tr><th>worker<th>restarts<th>back after"
        for name, count in ledger.restarts.items():
            took = ", ".join(f"{seconds:.2f} s" for seconds in ledger.recovery_s.get(name, [])[:20])
            yield f"<tr><td>{_e(name)}<td>{count:,}<td>{took or 'not back'}"
        yield "</table>"
    if ledger.tables:
        yield "<table><tr><th>table<th>written by<th>rows"
        yield from (f"<tr><td>{_e(name)}<td>{_e(str(rows.owner))}<td>{rows.appended:,}" for name, rows in ledger.tables.items())
        yield "</table>"
    yield "</section>"


def _disk(dataset: Path | None, stored: Mapping[str, _Stored | str]) -> Iterator[str]:
    if dataset is None or not dataset.exists():
        return
    taken, span = 0, 0.0
    for found in stored.values():
        if isinstance(found, _Stored) and found.monotonic_ns.size:
            taken += found.frame_ids.size * int(np.prod(found.shape)) * np.dtype(found.dtype).itemsize
            span = max(span, float(found.monotonic_ns[-1] - found.monotonic_ns[0]) / 1e9)
    rate = f", {taken / span / 1e6:,.3g} MB/s on average" if span > 0 else ""
    yield f"<section><h2>Disk</h2><p>{taken / 1e9:,.3g} GB of pixels{rate}; {storage.free_bytes(dataset) / 1e9:,.4g} GB "
    yield f"were free when this page was made ({_utc(time.time_ns())}).</p></section>"


def _settings(settings: Mapping[str, Any]) -> Iterator[str]:
    if settings:
        text = msgspec.json.format(msgspec.json.encode(settings), indent=1).decode()
        yield f"<section><details><summary>Settings</summary><pre>{_e(text)}</pre></details></section>"


def _read_log(path: Path) -> list[str]:
    """Return warnings and errors of the log, of its last part if it is long."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    return [line for line in lines if any(f" {level} " in line[:40] for level in ("WARNING", "ERROR", "CRITICAL"))]


def _log(lines: Sequence[str]) -> Iterator[str]:
    yield "<section><h2>Warnings and errors</h2>"
    if not lines:
        yield "<p class=good>None.</p>"
    else:
        if len(lines) > LINES_SHOWN:
            yield f"<p class=quiet>The last {LINES_SHOWN} of {len(lines):,}; scope.log has them all.</p>"
        yield "<pre>" + _e("\n".join(lines[-LINES_SHOWN:])) + "</pre>"
    yield "</section>"


# -- words


def _figures(values: Mapping[str, int]) -> Iterable[str]:
    return (f"<div><dt>{_e(name.replace('_', ' '))}</dt><dd>{value:,}</dd></div>" for name, value in values.items())


def _e(text: str) -> str:
    return html.escape(text)


def _utc(ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ns / 1e9)) + " UTC" if ns else "unknown"


def _duration(seconds: float) -> str:
    """Return a length of time in words.

    Examples
    --------
    >>> _duration(7.25), _duration(65), _duration(37020)
    ('7.25 s', '1 min 5 s', '10 h 17 min')
    """
    if seconds < 60:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
