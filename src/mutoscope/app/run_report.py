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
from mutoscope.app._gaps import find_gaps
from mutoscope.model.arguments import shown
from mutoscope.model.errors import DatasetError, DatasetNotFoundError, MutoscopeError
from mutoscope.runtime import Ledger
from mutoscope.runtime.figures import CameraFigures, RunFigures
from mutoscope.runtime.journal import REPORT
from mutoscope.storage._run_folder import DATASETS, run_folder

__all__ = ["write_report"]

BINS = 240
GAPS_SHOWN = 40
LINES_SHOWN = 40
LOG_BYTES = 4 * 1024 * 1024
ENDS = {"stopped": "in order, by its program", "interrupted": "by Ctrl-C", "program_ended": "its program ended"}
"""Why a run ended, in words where the ledger's own are not enough."""


def _folder_of(path: str | os.PathLike[str]) -> Path:
    """Return the folder of a run that a person names by it, or by its data set.

    Raises
    ------
    DatasetNotFoundError
        If there is no ledger of a run that has ended.
    """
    given = Path(path)
    try:
        return _find_folder(given)
    except DatasetNotFoundError:
        raise
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise DatasetNotFoundError(f"no report without a ledger: {shown(str(given))}: {error.strerror}") from error


def _find_folder(given: Path) -> Path:
    folder = given
    if given.name.lower().endswith(DATASETS):
        folder = _run_above(given) or run_folder(given)
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


def _run_above(dataset: Path) -> Path | None:
    """Return the folder of the run that went on in this data set, in a folder below the one where it had begun."""
    own, dataset = run_folder(dataset), dataset.absolute()
    if (own / "ledger.json").is_file():
        return None
    for parent in list(dataset.parents)[1:]:
        folder = parent / own.name
        if (folder / "ledger.json").is_file() and dataset in _datasets(parent, Ledger.read(folder).figures):
            return folder
    return None


def write_report(run: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` into the folder of a run that has ended, from its ledger, its log and its data set.

    Parameters
    ----------
    run : path
        ``<name>.mutoscope``, its data set, or the folder that holds it.

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
    place = _folder_of(run).absolute()
    ledger = Ledger.read(place).figures
    text = "".join(_page(ledger, _datasets(place.parent, ledger), _read_settings(place), _read_log(place / "scope.log")))
    partial = place / f".{REPORT}.{os.getpid()}"
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, place / REPORT)
    finally:
        partial.unlink(missing_ok=True)
    return place / REPORT


def _datasets(folder: Path, ledger: RunFigures) -> list[Path]:
    """Return where the data sets of a run are, the oldest first: beside its folder, and below, as they were made."""
    paths = [Path(path) for path in ledger.paths or ([ledger.path] if ledger.path is not None else [])]
    if not paths:
        return []
    first = paths[0].parent
    return [folder / (path.relative_to(first) if path.is_relative_to(first) else path.name) for path in paths]


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


def _read_stored(paths: Sequence[Path], camera: str, account: CameraFigures) -> _Stored | str:
    """What the data sets hold of a camera's frames of this run, or why that cannot be told."""
    if not paths or account.recorder is None:
        return "nothing was recorded"
    parts = []
    try:
        for path in paths:
            with storage.open_reader(path, camera=camera) as reader:
                ids = reader.frame_ids
                own = (ids >= account.first_id) & (ids <= max(account.last_id, 0))
                parts.append((ids[own], reader.ticks[own], reader.monotonic_ns[own], reader.utc_ns[own]))
                form = tuple(reader.shape[-2:]), str(reader.dtype)
    except (MutoscopeError, OSError) as error:
        return str(error)
    ids, ticks, monotonic_ns, utc_ns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _Stored(ids, ticks, monotonic_ns, utc_ns, *form)


def _page(ledger: RunFigures, datasets: Sequence[Path], settings: Mapping[str, Any], log: Sequence[str]) -> Iterator[str]:
    stored = {name: _read_stored(datasets, name, account) for name, account in ledger.cameras.items()}
    style = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
    yield "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    yield f"<title>{_e(ledger.scope)}: report</title><style>{style}</style><main>"
    yield from _head(ledger, datasets, stored)
    yield from _verdict(ledger, stored)
    for camera, account in ledger.cameras.items():
        yield from _camera(camera, account, stored[camera])
    yield from _processes(ledger)
    yield from _disk(datasets, stored)
    yield from _settings(settings)
    yield from _log(log)
    yield "</main></html>\n"


def _head(ledger: RunFigures, datasets: Sequence[Path], stored: Mapping[str, _Stored | str]) -> Iterator[str]:
    known = [found for found in stored.values() if isinstance(found, _Stored) and found.utc_ns.size and found.utc_ns[0]]
    yield f"<header><h1>{_e(ledger.scope)}</h1><p>"
    if known:
        first, last = int(min(found.utc_ns[0] for found in known)), int(max(found.utc_ns[-1] for found in known))
        yield f"{_utc(first)} to {_utc(last)} · {_duration((last - first) / 1e9)} · "
    reason = ENDS.get(ledger.reason, ledger.reason.replace("_", " "))
    yield f"ended: {_e(reason)} · {_e(', '.join(map(str, datasets)) or 'not recorded')}</p></header>"


def _verdict(ledger: RunFigures, stored: Mapping[str, _Stored | str]) -> Iterator[str]:
    accounts = ledger.cameras.values()
    recorded = [account for account in accounts if account.recorder is not None]
    missed, dropped, pending = ledger.missed, ledger.dropped, ledger.pending
    wrong = [*ledger.problems, *_contradictions(ledger, stored)]
    exact = not wrong and not pending and not any(account.unverified for account in recorded)
    kind, words = ("good", "Every frame is accounted for.") if exact else ("bad", "Not everything is as it should be.")
    if exact and (missed or dropped):
        what = " and ".join(["exposures were missed"] * bool(missed) + ["frames were dropped"] * bool(dropped))
        kind, words = "warn", f"Every frame is accounted for; {what}."
    figures = {"produced": ledger.produced}
    if recorded:
        figures["stored"] = ledger.stored
    figures |= {"missed": missed, "dropped": sum(dropped.values())}
    if len(dropped) > 1:
        figures |= {f"dropped: {reason}": count for reason, count in dropped.items()}
    elif dropped:
        figures[f"dropped: {next(iter(dropped))}"] = figures.pop("dropped")
    figures |= ({"pending": pending} if pending else {}) | {"restarts": sum(ledger.restarts.values())}
    yield f"<section class='verdict {kind}'><p>{words}</p><dl>"
    yield from _figures(figures)
    yield "</dl>"
    if wrong:
        yield "<ul class=problems>" + "".join(f"<li>{_e(problem)}</li>" for problem in wrong) + "</ul>"
    yield "</section>"


def _contradictions(ledger: RunFigures, stored: Mapping[str, _Stored | str]) -> Iterator[str]:
    """Where the data set is not what the ledger says."""
    for name, account in ledger.cameras.items():
        found = stored[name]
        if isinstance(found, _Stored) and found.frame_ids.size != account.stored:
            yield f"{name}: the data set holds {found.frame_ids.size:,} frames of this run, its ledger says {account.stored:,}"
        elif isinstance(found, str) and account.stored:
            yield f"{name}: the data set cannot be read: {found}"


def _camera(name: str, account: CameraFigures, stored: _Stored | str) -> Iterator[str]:
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


def _rate(account: CameraFigures, stored: _Stored) -> Iterator[str]:
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
    marks = times[find_gaps(stored.frame_ids, stored.ticks).after]
    yield _svg.rates(edges, rates, marks=marks, title=f"stored frames a second over {_duration(span)}; red marks: gaps")


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
    gaps = find_gaps(stored.frame_ids, stored.ticks)
    if not gaps.after.size:
        yield "<p class=good>No gap: ids and ticks of the stored frames follow one another.</p>"
        return
    yield f"<details open><summary>{gaps.after.size:,} {'gap' if gaps.after.size == 1 else 'gaps'}: "
    yield f"{int(gaps.missed.sum()):,} exposures missed, {int(gaps.dropped.sum()):,} frames dropped</summary>"
    yield "<table><tr><th>after frame<th>missed<th>dropped<th>at (UTC)<th>for"
    largest = np.sort(np.argsort(gaps.missed + gaps.dropped)[::-1][:GAPS_SHOWN])
    for row in largest:
        at = gaps.after[row]
        length = (stored.monotonic_ns[at + 1] - stored.monotonic_ns[at]) / 1e9
        yield f"<tr><td>{stored.frame_ids[at]}<td>{gaps.missed[row]:,}<td>{gaps.dropped[row]:,}"
        yield f"<td>{_utc(int(stored.utc_ns[at]))}<td>{length:.4g} s"
    yield "</table>"
    if gaps.after.size > largest.size:
        yield f"<p class=quiet>The {largest.size} largest; <code>mutoscope info --json</code> has them all.</p>"
    yield "</details>"


def _consumers(account: CameraFigures) -> Iterator[str]:
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


def _clocks(account: CameraFigures) -> Iterator[str]:
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


def _processes(ledger: RunFigures) -> Iterator[str]:
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
        yield "<table><tr><th>table<th>written by<th>rows<th>stored<th>lost"
        for name, rows in ledger.tables.items():
            lost = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in rows.lost.items())
            stored = "–" if rows.stored is None else f"{rows.stored:,}"
            yield f"<tr><td>{_e(name)}<td>{_e(str(rows.owner))}<td>{rows.appended:,}<td>{stored}<td>{_e(lost) or '–'}"
        yield "</table>"
    yield "</section>"


def _disk(datasets: Sequence[Path], stored: Mapping[str, _Stored | str]) -> Iterator[str]:
    dataset = next((path for path in datasets if path.exists()), None)
    if dataset is None:
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


class _Scope(msgspec.Struct, frozen=True):
    settings: dict[str, Any] = {}


def _read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings in ``scope.json`` of a run's folder; none if that is not there."""
    path = folder / "scope.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Scope).settings if path.is_file() else {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{path} is damaged ({error}): there is no report without it") from error


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
