"""What a run came to: the figures that people and programs read at its end, and the exit code that follows from them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mutoscope.model.errors import ConfigError, DatasetError, DatasetNotFoundError, ScopeStateError

if TYPE_CHECKING:
    from mutoscope.app.scope import Scope
    from mutoscope.runtime import Ledger

__all__ = ["RunSummary"]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The figures of a run that has ended.

    Parameters
    ----------
    produced, stored, pending : int
        Frames of all cameras, from the ledger. `pending` is 0 after an orderly end.
    dropped : dict
        Count by reason of frames that were produced and that no data set holds.
    missed : int
        Exposures that cameras could not hand over: they never became frames.
    rate_hz : float
        Frames a second between the first and the last stored frame (of the fastest camera); nan for fewer than two.
    path : str or None
        The data set.
    restarts : int
        Restarts of workers in all; `restarts_by_worker` tells whose.
    exit_reason : str
        Why the run ended.
    errors : list of str
        What went wrong on the way.
    exact : bool
        Whether the ledger accounts for every frame. It is unknown, thus False, when the supervisor itself was killed.
    notes : list of str
        What was done to the frames on their way in, for example a conversion of colour.
    """

    produced: int
    stored: int
    dropped: dict[str, int]
    pending: int
    rate_hz: float
    path: str | None
    restarts: int
    missed: int = 0
    restarts_by_worker: dict[str, int] = field(default_factory=dict)
    exit_reason: str = "finished"
    errors: list[str] = field(default_factory=list)
    exact: bool = True
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, scope: Scope, *, notes: Sequence[str] = (), failure: str | None = None, finished: bool = False) -> RunSummary:
        """Summarize a scope that has ended.

        Parameters
        ----------
        scope : Scope
            It has ended.
        notes : sequence of str
            As in the class.
        failure : str, optional
            What the run was told went wrong; entered among the errors unless the scope reported the same.
        finished : bool
            Whether the run reached its length, and was stopped for that.
        """
        path = None if scope.path is None else str(scope.path)
        result = scope.result
        errors = list(result.errors) if result is not None else []
        if failure is not None and not any(error in failure or failure in error for error in errors):
            errors.append(failure)
        reason = result.exit_reason if result is not None else "did not start"
        if finished and reason == "stopped":
            reason = "finished"
        try:
            ledger: Ledger = scope.ledger
        except ScopeStateError as error:
            errors.append(str(error))
            return cls(
                produced=0, stored=0, dropped={}, pending=0, rate_hz=float("nan"), path=path, restarts=0,
                exit_reason=reason, errors=errors, exact=False, notes=list(notes),
            )  # fmt: skip
        path = ledger.to_dict()["path"] or path  # where it is at the end: somebody may have moved it
        rates = []
        for camera, dataset in itertools.product(ledger.cameras if ledger.stored else (), ledger.figures.paths):
            try:
                rates.append(_stored_rate_hz(dataset, camera))
            except (ConfigError, DatasetError, DatasetNotFoundError) as error:
                errors.append(f"{camera}: the data set could not be read back: {error}")
        return cls(
            produced=ledger.produced,
            stored=ledger.stored,
            missed=ledger.missed,
            dropped=ledger.dropped,
            pending=ledger.pending,
            rate_hz=max((rate for rate in rates if rate == rate), default=float("nan")),
            path=path,
            restarts=sum(ledger.restarts.values()),
            restarts_by_worker=ledger.restarts,
            exit_reason=reason,
            errors=errors,
            exact=ledger.exact,
            notes=list(notes),
        )

    @property
    def exit_code(self) -> int:
        """0 when nothing failed, every frame is accounted for and none is left unwritten; else 1."""
        return 0 if self.exact and not self.errors and not self.pending else 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; an unknown rate is None."""
        return {
            "produced": self.produced,
            "stored": self.stored,
            "missed": self.missed,
            "dropped": self.dropped,
            "pending": self.pending,
            "rate_hz": round(self.rate_hz, 3) if self.rate_hz == self.rate_hz else None,
            "path": self.path,
            "restarts": self.restarts,
            "restarts_by_worker": self.restarts_by_worker,
            "exit_reason": self.exit_reason,
            "errors": self.errors,
            "exact": self.exact,
            "notes": self.notes,
        }

    def lines(self) -> list[str]:
        """Return the summary as a few lines for people.

        Examples
        --------
        >>> summary = RunSummary(
        ...     produced=1200, stored=1190, dropped={"disk_full": 10}, pending=0, rate_hz=100.0, path="run.ome.zarr",
        ...     restarts=1, restarts_by_worker={"SpotCounter": 1}, exit_reason="disk_full", errors=["no space left"],
        ... )
        >>> print("\\n".join(summary.lines()))
        ended     disk_full
        produced  1,200 frames at 100.0 Hz
        stored    1,190
        missed    0
        dropped   10 (disk_full 10)
        pending   0
        restarts  1 (SpotCounter 1)
        data      run.ome.zarr
        error     no space left
        """
        rate = f" at {self.rate_hz:,.1f} Hz" if self.rate_hz == self.rate_hz else ""
        found = [
            ("ended", self.exit_reason),
            ("produced", f"{self.produced:,} frames{rate}"),
            ("stored", f"{self.stored:,}"),
            ("missed", f"{self.missed:,}"),
            ("dropped", _counted(self.dropped)),
            ("pending", f"{self.pending:,}"),
            ("restarts", _counted(self.restarts_by_worker)),
            ("data", self.path or "not recorded"),
            *(("note", note) for note in self.notes),
            *(("error", error) for error in self.errors),
        ]
        if not self.exact:
            found.append(("error", "the ledger does not account for every frame"))
        return [f"{name:<10}{text}" for name, text in found]


def _counted(counts: dict[str, int]) -> str:
    total = f"{sum(counts.values()):,}"
    return f"{total} ({', '.join(f'{name} {count:,}' for name, count in counts.items())})" if counts else total


def _stored_rate_hz(path: str, camera: str) -> float:
    from mutoscope import storage

    with storage.open_reader(path, camera=camera) as reader:
        times = reader.monotonic_ns
        if len(times) < 2:
            return float("nan")
        return float((len(times) - 1) * 1e9 / (int(times[-1]) - int(times[0])))
