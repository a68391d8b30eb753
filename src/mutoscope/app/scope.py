"""The scope as users compose it: cameras, sources, workers, a recording, under one supervisor."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from mutoscope import storage
from mutoscope.app.composition import (
    MIN_SLOTS,
    Parts,
    SourceSettings,
    given_environment,
    given_page,
    given_record,
    given_workers,
)
from mutoscope.app.results import AcquisitionResult, ScopeResult, WorkerStatus
from mutoscope.app.source import Source
from mutoscope.bus import Command, Event
from mutoscope.cameras.driver import Camera
from mutoscope.frames import FrameReader, TableReader
from mutoscope.model import arguments, errors
from mutoscope.model.errors import (
    ConfigError,
    DiskFullError,
    PeerDiedError,
    ScopeStateError,
)
from mutoscope.runtime import Ledger, Restart, Worker, WorkerSettings, control
from mutoscope.runtime.client import ScopeClient
from mutoscope.runtime.processes import describe_exit, out_of_files
from mutoscope.runtime.spec import ScopeState
from mutoscope.storage._place import taken_bytes
from mutoscope.viewers.page.settings import PageSettings

__all__ = ["AcquisitionResult", "Scope", "ScopeResult", "Source", "SourceSettings", "WorkerStatus", "observers"]

log = logging.getLogger(__name__)

DEFAULT_RESERVE = 256 * 1024 * 1024
START_MARGIN_S = 10.0
PROGRESS_S = 0.1
SET_FOLDER_S = 60.0
HINT_S = 3.0
FOREVER_S = 1e9

page_unless_said: PageSettings | None = None
"""The page of scopes that say nothing of one (``mutoscope run`` sets it)."""

observers: list[Callable[[Scope], None]] = []
"""Called with each scope that has just started (the terminal display adds itself here)."""


def _warn(level: int, text: str) -> None:
    """Pass a warning's words on to whoever runs the scope; errors are in its result, and everything is in ``scope.log``."""
    if level == logging.WARNING:
        log.warning("%s", text.partition("\n")[0])


class Scope:
    """A microscope's live data plane: cameras, workers and a recording, each a process, under one supervisor.

    Parameters
    ----------
    camera : Camera, optional
        The only camera; its name is ``"camera"``.
    cameras : mapping of str to Camera, optional
        Several cameras by name.
    sources : mapping of str to SourceSettings, optional
        Producers in this process, by name.
    workers : sequence of Worker classes or WorkerSettings
        Your own processes; one alone needs no list.
    record : str, path, True or None
        The data set to store every frame in: OME-Zarr, or the OME-TIFF of one camera whose frames have one shape. True chooses
        ``./mutoscope-data/<UTC stamp>/run.ome.zarr``. Log, audit and ledger go to ``<name>.mutoscope`` beside it.
        Folders that are missing above it are made; where they are several, a warning names them and their disk.
    overwrite, resume : bool
        What happens to an existing data set; it is refused otherwise. Resuming goes on after its last ``frame_id``.
    outlive : bool
        The run goes on until its frames are stored when this program dies.
    ring_seconds : float
        How much of the stream each ring holds.
    ring_slots : int, optional
        Slots of each ring instead.
    reserve_bytes : int
        A recording ends in order when the disk has less room than this.
    settings : mapping, optional
        Saved with the data, and shared with every worker as ``self.state.settings``.
    page : bool or PageSettings, optional
        The live page, for any browser: :attr:`page_url` is its address. It is a process of its own, and costs the camera and
        the recording nothing. By default there is none, but for what ``mutoscope run`` starts.
    durability : {"process", "power"}
        What an acknowledged frame survives, see :mod:`mutoscope.storage`.
    compression : str, optional
        How frames are stored: ``"none"``, which is the default; OME-Zarr also ``"blosc-lz4"``, ``"blosc-zstd"`` and ``"zstd"``,
        whose frames are acknowledged up to half a second later and hold their slots in the ring until then; OME-TIFF
        ``"zlib"`` and ``"zstd"``.
    ome_zarr_version : str, optional
        ``"0.5"``, which is the default, or ``"0.4"``.
    pyramid : bool
        OME-Zarr: smaller levels are built beside the frames, and finished when the scope ends.
    environment : mapping of str to mapping
        Environment variables of single workers, by worker name (``{"Tracker": {"OMP_NUM_THREADS": "1"}}``).
    restarts : mapping of str to Restart
        Restart policies of single workers, by worker name, instead of their own.
    hang_report_s, recorder_hang_s : float
        A worker that has not responded for so many seconds is reported; a recorder, for so many, ends the run in order.
    setup_timeout_s : float
        How long all workers together may take to be set up.

    Raises
    ------
    ConfigError
        If the parts do not fit together; nothing was started.
    """

    def __init__(
        self,
        *,
        camera: Camera | None = None,
        cameras: Mapping[str, Camera] | None = None,
        sources: Mapping[str, SourceSettings] | None = None,
        workers: type[Worker] | WorkerSettings | Sequence[type[Worker] | WorkerSettings] = (),
        record: str | os.PathLike[str] | bool | None = None,
        overwrite: bool = False,
        resume: bool = False,
        outlive: bool = False,
        ring_seconds: float = 2.0,
        ring_slots: int | None = None,
        reserve_bytes: int = DEFAULT_RESERVE,
        settings: Mapping[str, Any] | None = None,
        page: bool | PageSettings | None = None,
        durability: str = "process",
        compression: str | None = None,
        ome_zarr_version: str | None = None,
        pyramid: bool = False,
        environment: Mapping[str, Mapping[str, str]] | None = None,
        restarts: Mapping[str, Restart] | None = None,
        hang_report_s: float = 5.0,
        recorder_hang_s: float = 30.0,
        setup_timeout_s: float = 60.0,
    ) -> None:
        if camera is not None and cameras:
            raise ConfigError("give either camera= or cameras=, not both")
        several = arguments.mapping("cameras", cameras, "{'left': camera}")
        self._parts = Parts(
            cameras=several or ({"camera": camera} if camera is not None else {}),
            sources=arguments.mapping("sources", sources, "{'detector': SourceSettings(…)}"),
            workers=given_workers(workers),
            record=given_record(record),
            overwrite=arguments.flag("overwrite", overwrite),
            resume=arguments.flag("resume", resume),
            outlive=arguments.flag("outlive", outlive),
            ring_seconds=arguments.more_than_zero("ring_seconds", ring_seconds),
            ring_slots=None if ring_slots is None else arguments.whole("ring_slots", ring_slots, MIN_SLOTS),
            reserve_bytes=arguments.whole("reserve_bytes", reserve_bytes, 0),
            settings=arguments.mapping("settings", settings, "{'sample': 'beads'}"),
            durability=durability,
            compression=None if compression is None else arguments.text("compression", compression),
            ome_zarr_version=None if ome_zarr_version is None else arguments.text("ome_zarr_version", ome_zarr_version),
            pyramid=arguments.flag("pyramid", pyramid),
            environment=given_environment(environment),
            restarts=arguments.mapping("restarts", restarts, "{'Tracker': Restart(mode='never')}"),
            hang_report_s=arguments.more_than_zero("hang_report_s", hang_report_s),
            recorder_hang_s=arguments.more_than_zero("recorder_hang_s", recorder_hang_s),
            setup_timeout_s=arguments.more_than_zero("setup_timeout_s", setup_timeout_s),
            page=given_page(page_unless_said if page is None else page),
        )
        self._client: ScopeClient | None = None
        self._acquisitions: dict[int, control.AcquisitionEnded] = {}
        self._acquisition_news = threading.Condition()
        self._sources_open: dict[str, Source] = {}
        self.path: Path | None = None
        self.folder: Path | None = None
        self.result: ScopeResult | None = None
        self.page_url: str | None = None
        """The address of the page, with a token that gives control, while the scope runs."""
        self._last_ledger: Ledger | None = None
        self._last_status: list[dict[str, Any]] = []

    # -- life

    def start(self) -> Self:
        """Start the supervisor and every worker; returns when all are set up.

        Raises
        ------
        ScopeStateError
            If this scope runs already.
        MutoscopeError
            Whatever prevents the start, as the process that met it raised it. Nothing is left running.
        """
        if self.running:
            raise ScopeStateError("this scope is running already")
        self.close()
        self.result, self._last_ledger, self._last_status = None, None, []
        self._acquisitions.clear()
        spec = self._parts.specification()
        self.path = Path(spec.record.path) if spec.record is not None else None
        self.folder = Path(spec.folder) if spec.folder is not None else None
        client: ScopeClient | None = None
        try:
            client = ScopeClient(spec)
            client.subscribe(control.AcquisitionEnded, self._on_acquisition_ended)
            client.subscribe(control.Notice, lambda event: _warn(event.level, event.text))
            client.subscribe(control.LogLine, lambda event: _warn(event.level, f"{event.worker}: {event.text}"))
            report = client.wait_started(spec.setup_timeout_s + START_MARGIN_S)
        except BaseException as error:
            if client is not None:
                client.stop(now=True)
                client.close()
            if (told := out_of_files(error)) is not None:
                raise told from error
            raise
        self._client = client
        self.page_url = report["page_url"]
        for name, camera in self._parts.cameras.items():
            camera.lent_as = name
        for observer in observers:
            observer(self)
        return self

    def stop(self, *, now: bool = False) -> None:
        """End the scope in order: cameras stop, what is in flight is stored, workers end. ``now``: at once. Twice is fine.

        A KeyboardInterrupt meanwhile (a second Ctrl-C, say) makes it end at once.
        """
        self._stop("stopped", now=arguments.flag("now", now))

    def _stop(self, reason: str, *, now: bool = False) -> None:
        client = self._client
        if client is None:
            return
        if client.alive:
            client.stop(now=now, reason=reason)
        self.close()

    def close(self) -> None:
        """End the scope if it runs, and release everything. Twice is fine."""
        client, self._client = self._client, None
        if client is None:
            return
        self.page_url = None
        code = client.close()
        self._sources_open.clear()
        for camera in self._parts.cameras.values():
            camera.lent_as = None
        ended = client.ended
        if ended is None:
            what = describe_exit(code)
            self.result = ScopeResult(
                "supervisor_lost", [f"the supervisor {what}; the data set holds every acknowledged frame"]
            )
        else:
            self.result = ScopeResult(ended.reason, ended.errors, ended.message)
            self._last_ledger, self._last_status = Ledger(ended.ledger), ended.status
            if unstorable := self._last_ledger.dropped.get("unstorable"):
                log.warning("%s frames were not stored, as they cannot be: %s", f"{unstorable:,}", "; ".join(ended.errors))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            self.stop()
        elif self._client is not None:
            self._stop("interrupted")
            self._tell_end()

    def _tell_end(self) -> None:
        """Say what an interrupted run came to: the program that was to print it will not."""
        assert self.result is not None
        came_to = "; ".join([*self.result.errors, *(self._last_ledger.summary().splitlines() if self._last_ledger else [])])
        where = f"; the data are in {self.path}" if self.path is not None else ""
        log.warning("the scope has ended (%s): %s%s", self.result.exit_reason, came_to, where)

    @property
    def running(self) -> bool:
        """True while the supervisor runs."""
        return self._client is not None and self._client.alive

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the scope has ended by itself (a worker asked to quit, the disk is full, …); True if it has."""
        timeout_s = None if timeout_s is None else arguments.number("timeout_s", timeout_s)
        client = self._client
        return True if client is None else client.wait_ended(timeout_s)

    # -- acquisition

    def acquire(
        self,
        frames: int | None = None,
        seconds: float | None = None,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[Scope], None] | None = None,
    ) -> AcquisitionResult:
        """Acquire so many frames of each camera, or for so long; returns when they are stored.

        Frames of a source are pushed by another thread of this program meanwhile. What is pushed without an acquisition is
        stored as well.

        Parameters
        ----------
        frames : int, optional
            Frames of each camera.
        seconds : float, optional
            Duration instead of a number; neither: until the camera has no more (a replay), or :meth:`stop_acquisition`.
        timeout_s : float, optional
            Give up waiting (the acquisition goes on) with :class:`TimeoutError`, which says what it waited for.
        on_progress : callable, optional
            Called about ten times a second.

        Raises
        ------
        DiskFullError
            If the disk became full: what was acknowledged is stored, the scope ends.
        DatasetNotFoundError
            If somebody moved or deleted the data set: the scope ends.
        PeerDiedError
            If a recorder or the supervisor was lost.
        CameraError
            If a camera failed for good.
        """
        seconds = None if seconds is None else arguments.more_than_zero("seconds", seconds)
        timeout_s = None if timeout_s is None else arguments.number("timeout_s", timeout_s)
        if frames is not None and seconds is not None:
            raise ConfigError("give either frames= or seconds=, not both")
        if on_progress is not None and not callable(on_progress):
            raise ConfigError(f"on_progress is a function that takes the scope, not {arguments.shown(on_progress)}")
        began = time.monotonic()
        before = self._produced() if self._parts.sources or timeout_s is not None else {}
        hint_at = began + HINT_S if self._parts.sources and seconds is None else math.inf
        number = self.start_acquisition(frames, seconds=seconds)
        ends = None if seconds is None else time.monotonic() + seconds
        try:
            while (ended := self._ended_acquisition(number, PROGRESS_S)) is None:
                if on_progress is not None:
                    on_progress(self)
                now = time.monotonic()
                if ends is not None and now >= ends:
                    ends = None
                    self.stop_acquisition()
                if timeout_s is not None and now - began > timeout_s:
                    waits = self._waits_for(frames, before)
                    raise errors.CommandTimeoutError(
                        f"the acquisition did not end within {timeout_s:g} s; it goes on, and waits for {waits}"
                    )
                if now > hint_at:
                    hint_at = math.inf
                    self._hint_at_sources(frames, before)
        except KeyboardInterrupt:
            self.stop_acquisition()  # an interrupted cell of a notebook leaves no camera running
            raise
        if ended.error is not None:
            raise errors.from_record(ended.error)
        for name, reason in ended.reasons.items():
            if reason == "error":
                raise errors.CameraError(f"{name}: {ended.messages.get(name, 'failed')}")
        return AcquisitionResult(ended.produced, ended.stored, ended.reasons, ended.messages, time.monotonic() - began)

    def start_acquisition(self, frames: int | None = None, *, seconds: float | None = None, cameras: Sequence[str] = ()) -> int:
        """Start cameras, one after the other, and return the acquisition's number.

        Parameters
        ----------
        frames : int, optional
            Frames of each camera; until stopped, if not given.
        seconds : float, optional
            How long it will be let run: only for the forecast of the space that it needs.
        cameras : sequence of str
            Those to start; all if none is named.

        Raises
        ------
        DiskFullError
            If what is to come does not fit on the disk; nothing was started.
        CameraError
            If a camera refuses, or is out of restarts; those started before it are stopped.
        """
        frames = None if frames is None else arguments.whole("frames", frames, 1)
        seconds = None if seconds is None else arguments.more_than_zero("seconds", seconds)
        names = arguments.texts("cameras", cameras)
        self._running_client()
        self.check_space(frames, seconds, names)
        number: int = self._ask(control.StartAcquisition(frames=frames, streams=names), timeout_s=60.0)
        return number

    def _produced(self) -> dict[str, int]:
        return {name: camera["produced"] for name, camera in self.ledger.cameras.items()}

    def _waits_for(self, frames: int | None, before: Mapping[str, int]) -> str:
        """What an acquisition has not got yet, in words."""
        missing = []
        for name, produced in self._produced().items():
            got = produced - before.get(name, 0)
            if frames is None or got < frames:
                kind = "source" if name in self._parts.sources else "camera"
                count = f"{got:,} frames so far" if frames is None else f"{got:,} of {frames:,} frames"
                missing.append(f"{kind} {name!r} ({count})")
        return ", ".join(missing) or "what is in flight to be stored"

    def _hint_at_sources(self, frames: int | None, before: Mapping[str, int]) -> None:
        """Tell whoever waits for sources that nobody fills how they are filled."""
        produced = self._produced()
        if any(produced[name] != before.get(name, 0) for name in self._parts.sources):
            return
        log.warning(
            "acquire() waits for %s; nothing has been pushed for %g s: push from another thread while it waits, or push "
            "without acquire(), which stores the frames as well",
            self._waits_for(frames, before),
            HINT_S,
        )

    def stop_acquisition(self) -> None:
        """Stop the cameras, the last one first; frames in flight are still stored."""
        self._ask(control.StopAcquisition())

    def wait_acquisition(self, timeout_s: float | None = None) -> bool:
        """Wait until no acquisition runs and everything is stored; False if that is not so in time.

        Raises
        ------
        MutoscopeError
            What ended the run, as :meth:`acquire` raises it.
        """
        timeout_s = FOREVER_S if timeout_s is None else arguments.number("timeout_s", timeout_s)
        try:
            self._ask(control.AwaitAcquisition(), timeout_s=timeout_s)
        except errors.CommandTimeoutError:
            return False
        return True

    def _ended_acquisition(self, number: int, timeout_s: float) -> control.AcquisitionEnded | None:
        with self._acquisition_news:
            if number not in self._acquisitions:
                self._acquisition_news.wait(timeout_s)
            if number in self._acquisitions:
                return self._acquisitions[number]
        client = self._running_client()
        if not client.alive:
            client.last_word()
            with self._acquisition_news:
                if number in self._acquisitions:
                    return self._acquisitions[number]
            raise client.failure()
        return None

    def _on_acquisition_ended(self, event: control.AcquisitionEnded) -> None:
        with self._acquisition_news:
            self._acquisitions[event.number] = event
            self._acquisition_news.notify_all()

    def check_space(self, frames: int | None = None, seconds: float | None = None, cameras: Sequence[str] = ()) -> None:
        """Refuse what cannot fit on the disk, also before the start: then nothing is made.

        The forecast counts all that is stored with a frame; none is made for compressed ones.

        Parameters
        ----------
        frames : int, optional
            Frames of each camera.
        seconds : float, optional
            Duration instead of a number.
        cameras : sequence of str
            Those that run; all if none is named.

        Raises
        ------
        DiskFullError
            If it does not fit beside the reserve.
        """
        if not self._parts.recorded or (frames is None and seconds is None) or self._parts.compression not in (None, "none"):
            return
        spec = self._client.spec if self._client is not None else self._parts.specification()
        assert spec.record is not None
        need = 0.0
        for stream in spec.streams:
            if stream.recorder is not None and (not cameras or stream.info.name in cameras):
                count = frames if frames is not None else math.ceil((seconds or 0.0) * (stream.info.rate_hz or 0.0))
                need += count * storage.bytes_per_frame(stream.info.shape, stream.info.dtype)
        place = spec.record.path if self._client is None or self.path is None else self.path
        free = storage.free_bytes(place)
        if self._client is None and self._parts.overwrite:
            free += taken_bytes(spec.record.path)  # given back when the scope has started
        reserve = self._parts.reserve_bytes
        if need + reserve > free:
            what = f"{frames:,} frames" if frames is not None else f"{seconds:g} s"
            raise DiskFullError(
                f"{what} need {math.ceil(need):,} bytes, {max(0, free - reserve):,} are free on the disk of {place} "
                f"beyond the reserve of {reserve:,}: take fewer frames, or free some space"
            )

    def _ask(self, command: Command, timeout_s: float = 10.0) -> Any:
        client = self._running_client()
        try:
            return client.ask(command, timeout_s=timeout_s)
        except (PeerDiedError, errors.ClosedError):
            if client.wait_ended(1.0):
                raise client.failure() from None
            raise

    # -- the bus

    def send(self, command: Command, to: str | None = None, timeout_s: float = 10.0) -> None:
        """Send a command to a worker; returns once it has it."""
        self._running_client().endpoint.send(command, to=to, timeout_s=timeout_s)

    def request(self, command: Command, to: str | None = None, timeout_s: float = 10.0) -> Any:
        """Send a command to a worker and return what its handler returned; the handler's exception is raised here."""
        return self._running_client().endpoint.request(command, to=to, timeout_s=timeout_s)

    def broadcast(self, command: Command, timeout_s: float = 10.0) -> dict[str, Any]:
        """Send a command to every worker that handles it; returns each one's answer or exception by name."""
        return self._running_client().endpoint.broadcast(command, timeout_s=timeout_s)

    def publish(self, event: Event) -> None:
        """Publish an event to whoever subscribed."""
        self._running_client().endpoint.publish(event)

    def subscribe(self, event: type[Event], callback: Callable[[Any], None]) -> None:
        """Call `callback`, in a thread of the connection, with each event of this type."""
        self._running_client().subscribe(event, callback)

    # -- frames and tables in this program

    def source(self, name: str) -> Source:
        """Become the producer of a source; the same object for the same name."""
        if arguments.text("the name of a source", name) not in self._parts.sources:
            raise ConfigError(f"there is no source {name!r}; this scope has: {', '.join(self._parts.sources) or 'none'}")
        if name not in self._sources_open:
            writer = self._running_client().writer(name)
            settings = self._parts.sources[name]
            self._sources_open[name] = Source(name, settings, writer, recorded=self._parts.recorded)
        return self._sources_open[name]

    def reader(
        self,
        camera: str = "camera",
        *,
        policy: str = "latest",
        leases: int = 2,
        on_full: str = "drop",
        lag_limit: int | None = None,
        at_most_hz: float | None = None,
        group: str | None = None,
        start: str = "new",
        key: str | None = None,
    ) -> FrameReader:
        """Read a camera's frames in this program; parameters as :meth:`Worker.reader`. Close it before the scope ends."""
        arguments.text("the name of a camera", camera), arguments.text("policy", policy)
        wanted = control.AttachReader(camera, key or camera, policy, leases, on_full, lag_limit, at_most_hz, group, start)
        return self._running_client().reader(wanted)

    def table_reader(self, name: str, *, start: str = "new", timeout_s: float = 10.0) -> TableReader:
        """Read a worker's table in this program."""
        return self._running_client().table_reader(arguments.text("the name of a table", name), start, timeout_s)

    # -- looking at it

    @property
    def ledger(self) -> Ledger:
        """The account of every frame: as it stands while the scope runs, the final one afterwards."""
        client = self._client
        if client is None:
            if self._last_ledger is None:
                why = "; ".join(self.result.errors) if self.result is not None else "it has not been started"
                raise ScopeStateError(f"this scope has no ledger: {why}")
            return self._last_ledger
        if client.alive:
            try:
                return Ledger(client.ask(control.GetLedger()))
            except (PeerDiedError, errors.ClosedError):
                client.wait_ended(1.0)
        ended = client.last_word()
        if ended is None:
            raise client.failure()
        return Ledger(ended.ledger)

    def status(self) -> list[WorkerStatus]:
        """Every worker with state, counters, restarts and last error; empty when the supervisor was killed."""
        client, entries = self._client, self._last_status
        if client is not None:
            try:
                entries = client.ask(control.GetStatus()) if client.alive else []
            except (PeerDiedError, errors.ClosedError):
                client.wait_ended(1.0)
            if not client.alive:
                ended = client.last_word()
                entries = ended.status if ended is not None else []
        names = WorkerStatus.__dataclass_fields__
        return [WorkerStatus(**{key: value for key, value in entry.items() if key in names}) for entry in entries]

    @property
    def state(self) -> ScopeState:
        """The shared state: acquiring, saving, folder, mode, settings."""
        return msgspec.convert(self._ask(control.GetState()), ScopeState)

    def set_state(
        self,
        *,
        saving: bool | None = None,
        folder: str | None = None,
        mode: str | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        """Change the shared state; every worker sees it.

        Parameters
        ----------
        saving : bool, optional
            Whether frames are stored. Returns when the recorders know: frames acquired after that are stored, or are not. One
            that does not respond is waited for 2 s; it knows once it does respond.
        folder, mode : str, optional
            Words that the workers read.
        settings : dict, optional
            Added to those that there are.
        """
        saving = None if saving is None else arguments.flag("saving", saving)
        folder = None if folder is None else arguments.text("folder", folder)
        mode = None if mode is None else arguments.text("mode", mode)
        settings = None if settings is None else arguments.mapping("settings", settings, "{'sample': 'beads'}")
        self._ask(control.SetState(saving=saving, folder=folder, mode=mode, settings=settings))

    def set_folder(self, folder: str) -> Path:
        """Store what comes from now on in a new data set of the same name, in a folder below that of the first one.

        The ledger counts all data sets of the run; each of them holds it. Ids go on.

        Parameters
        ----------
        folder : str
            Such as ``"day2/dish1"``; made if it is missing.

        Returns
        -------
        Path
            Of the new data set.

        Raises
        ------
        ConfigError
            If nothing is recorded, or the folder is not below that of the first data set, or is inside a data set or the run's
            log.
        DatasetExistsError
            If there is a data set already.
        DiskFullError
            If there is no room there beyond the reserve.
        ScopeStateError
            While frames are acquired, or are yet to be stored, or the folder is being changed: until that is done, nothing can
            be acquired either.
        """
        path = self._ask(control.SetFolder(folder=arguments.text("folder", folder)), timeout_s=SET_FOLDER_S)
        self.path = Path(path)
        return self.path

    # -- settings of cameras

    def set_setting(self, camera: str, setting: str, value: Any) -> Any:
        """Change a live setting of a camera while it runs; returns the value as set.

        The first frame published after the change is in the ledger and in ``scope.log``; an exposure that had begun before may
        still be with the old value. A camera that is restarted opens with the changed one.

        Parameters
        ----------
        camera, setting : str
            Their names, such as ``"camera"`` and ``"exposure_ms"``.
        value : object
            Within the bounds of the setting.

        Raises
        ------
        ConfigError
            If there is no such camera or setting, the value does not fit, or the setting is not live.
        CameraError
            If the device refuses.
        ScopeStateError
            If the camera is down at the moment, or no scope runs.
        """
        spec = self._camera(camera).setting(setting)
        asked = control.SetSetting(camera=camera, setting=setting, value=spec.check(value))
        return spec.check(self._ask(asked))

    def get_setting(self, camera: str, setting: str) -> Any:
        """Return a setting of a camera as it is now."""
        self._camera(camera).setting(setting)
        return self.camera_settings(camera)[setting]

    def camera_settings(self, camera: str = "camera") -> dict[str, Any]:
        """Return all settings of a camera as they are now, by name."""
        driver = self._camera(camera)
        changed = self.state.camera_settings.get(camera, {})
        return {**driver.configuration(), **{name: driver.setting(name).check(value) for name, value in changed.items()}}

    def _camera(self, name: str) -> Camera:
        if name in self._parts.cameras:
            return self._parts.cameras[name]
        if name in self._parts.sources:
            raise ConfigError(f"{name} is a source, filled by this program: it has no settings")
        raise ConfigError(f"there is no camera {name!r}; this scope has: {', '.join(self._parts.cameras) or 'none'}")

    def allow_restart(self, worker: str) -> None:
        """Consent to the restart of a worker that can move."""
        self._ask(control.AllowRestart(worker=arguments.text("the name of a worker", worker)))

    @property
    def supervisor_pid(self) -> int:
        """The supervisor's process id."""
        return self._running_client().supervisor_pid

    def _running_client(self) -> ScopeClient:
        if self._client is None:
            raise ScopeStateError("this scope is not running: use it inside `with scope:`, or call scope.start() first")
        return self._client
