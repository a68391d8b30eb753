"""One recording from start to summary, as ``mutoscope demo`` and ``replay`` make it: ended by its length or by Ctrl-C."""

from __future__ import annotations

import math
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from mutoscope.app.summary import RunSummary
from mutoscope.model.errors import ConfigError, DatasetExistsError, DiskFullError, MutoscopeError
from mutoscope.storage.ome_tiff import SUFFIXES

if TYPE_CHECKING:
    from mutoscope.app.display import ScopeDisplay
    from mutoscope.app.scope import Scope

__all__ = ["Interrupts", "check_length", "dataset_path", "record"]

DATASET_NAME = "run.ome.zarr"
ENDING_S = 2.0
"""A scope that is stopped stops its acquisition first: so long is waited before it is said that it goes on."""

OTHER_FORMATS = (
    ".tif",
    ".tiff",
    ".btf",
    ".tf8",
    ".png",
    ".npy",
    ".h5",
    ".hdf5",
    ".n5",
    ".zip",
    ".nd2",
    ".czi",
    ".lif",
    ".json",
)
"""Ends of names that nobody gives to a folder."""


class Interrupts:
    """Ctrl-C (and SIGTERM) in two steps: the first asks for an orderly end, the second for an end now.

    Signals are only counted, except within :meth:`raising`, so that none can tear a start or a stop apart. Only the main thread
    may use it; the former handlers are back on leaving.
    """

    def __init__(self) -> None:
        self.count = 0
        self._limit: int | None = None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    @contextmanager
    def raising(self, beyond: int = 0) -> Iterator[None]:
        """Within, raise KeyboardInterrupt, once, as soon as there were more than `beyond` signals in all."""
        self._limit = beyond
        try:
            self._raise_beyond_limit()
            yield
        finally:
            self._limit = None

    def _raise_beyond_limit(self) -> None:
        if self._limit is not None and self.count > self._limit:
            self._limit = None
            raise KeyboardInterrupt

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self._raise_beyond_limit()


def check_length(frames: int | None, seconds: float | None) -> None:
    """Raise ConfigError unless a run may take this long.

    Examples
    --------
    >>> check_length(None, 2.5)
    >>> check_length(-3, None)
    Traceback (most recent call last):
    mutoscope.model.errors.ConfigError: the number of frames must be 1 or more, not -3
    """
    if frames is not None and seconds is not None:
        raise ConfigError("give the length of the run in frames or in seconds, not both")
    if frames is not None and frames < 1:
        raise ConfigError(f"the number of frames must be 1 or more, not {frames}")
    if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
        raise ConfigError(f"the number of seconds must be positive, not {seconds:g}")


def dataset_path(out: Path | None, *, overwrite: bool) -> Path | None:
    """Return the data set that `out` names: itself by its end (``.zarr``, ``.ome.tiff``), else ``run.ome.zarr`` in that folder.

    Returns
    -------
    Path or None
        None when `out` is None: the scope then makes a folder of its own.

    Raises
    ------
    ConfigError
        If it exists already and `overwrite` is False, `out` is a file, or it has the name of another format.

    Examples
    --------
    >>> dataset_path(Path("monday"), overwrite=False).as_posix(), dataset_path(Path("a.zarr"), overwrite=False).as_posix()
    ('monday/run.ome.zarr', 'a.zarr')
    """
    if out is None:
        return None
    kind = out.suffix.lower()
    tiff = out.name.lower().endswith(SUFFIXES) and not out.is_dir()
    if not tiff and not out.is_dir() and (kind in OTHER_FORMATS or (kind == ".zarr" and out.suffix != kind)):
        raise ConfigError(f"{out}: recordings are OME-Zarr or OME-TIFF; name a folder, or a data set in .ome.zarr or .ome.tiff")
    path = out if out.suffix == ".zarr" or tiff else out / DATASET_NAME
    for folder in path.parents:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file, not a folder: data cannot go below it")
    if path.exists() and not overwrite:
        raise DatasetExistsError(f"{path} exists already: choose another --out, or say --overwrite")
    return path


def _stay(scope: Scope, announce: Callable[[str], None]) -> None:
    """Wait for the end of a scope whose acquisition was stopped on its page."""
    if not scope.wait(ENDING_S):
        announce("the acquisition was stopped on the page, where it can go on, in another folder too; Ctrl-C ends the run")
        scope.wait()


def record(
    scope: Scope,
    *,
    frames: int | None,
    seconds: float | None,
    display: ScopeDisplay | None,
    announce: Callable[[str], None],
    notes: Sequence[str] = (),
    ends: bool = False,
) -> RunSummary:
    """Start the scope, acquire until the length is reached or Ctrl-C comes, end it, and summarize it.

    Without a length, who stops the acquisition on the page can go on there, in another folder too: the scope then ends with
    Ctrl-C, or when it is stopped on the page.

    Parameters
    ----------
    scope : Scope
        Not started yet; it has ended on return, whatever happened.
    frames, seconds : optional
        The length; with neither, until Ctrl-C (or until the camera has no more frames).
    display : ScopeDisplay, optional
        Draws the scope until it has ended.
    announce : callable
        Takes one line for people, printed when the scope runs.
    notes : sequence of str
        For the summary.
    ends : bool
        Whether the camera's frames come to an end by themselves.

    Returns
    -------
    RunSummary
        Also when the disk became full, or the camera or the recorder was lost: that is among its errors.

    Raises
    ------
    MutoscopeError
        If the scope cannot start as asked, or the disk cannot hold what was asked for. Nothing is left running.
    """
    try:
        scope.check_space(frames, seconds)
    except DiskFullError as error:
        raise ConfigError(str(error)) from None
    failure, finished, notes = None, False, list(notes)
    with Interrupts() as interrupts:
        with interrupts.raising(beyond=1):
            scope.start()
        try:
            if scope.page_url is not None:
                announce(f"the page: {scope.page_url}")
            announce(f"recording to {scope.path}" + ("" if frames or seconds or ends else "; Ctrl-C ends it"))
            if display is not None:
                display.watch(scope)
            try:
                with interrupts.raising():
                    done = scope.acquire(frames=frames, seconds=seconds)
                    notes += done.messages.values()
                    if scope.page_url is not None and not frames and not seconds and "stopped" in done.reasons.values():
                        _stay(scope, announce)
                finished = True
            except KeyboardInterrupt:
                announce("stopping: what is in flight is being stored (Ctrl-C again: stop now)")
            except MutoscopeError as error:
                failure = str(error)
            try:
                with interrupts.raising(beyond=1):
                    scope.stop()  # which itself turns a KeyboardInterrupt into an end now
            except KeyboardInterrupt:
                scope.stop(now=True)
        finally:
            scope.close()
            if display is not None:
                display.close()
        from mutoscope.runtime.journal import REPORT  # late, as all of the scope is

        if scope.folder is not None and (report := scope.folder / REPORT).exists():
            view = f"mutoscope view browser {shlex.quote(str(scope.path))}"
            announce(f"the run on one page: {report}; to look through it: {view}")
        return RunSummary.of(scope, notes=notes, failure=failure, finished=finished)
