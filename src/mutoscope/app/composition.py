"""A scope as its parts: checked, and put together into what its supervisor is told."""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mutoscope import storage
from mutoscope.cameras._travel import check_travel
from mutoscope.cameras.driver import Camera
from mutoscope.cameras.worker import CameraWorker, describe
from mutoscope.frames import _os
from mutoscope.model.arguments import flag, mapping, path, shown, text
from mutoscope.model.errors import ConfigError, DatasetNotFoundError
from mutoscope.recording.recorder import LEASES as RECORDER_LEASES
from mutoscope.recording.recorder import RecorderWorker
from mutoscope.runtime import Restart, Worker, WorkerSettings
from mutoscope.runtime.payload import pack
from mutoscope.runtime.spec import PageSpec, RecordSpec, ScopeSpec, StreamInfo, StreamSpec, WorkerSpec
from mutoscope.storage._layout import VERSIONS, check_camera_name, check_version
from mutoscope.storage._run_folder import run_folder
from mutoscope.storage.ome_tiff import SUFFIXES
from mutoscope.storage.ome_tiff.recording import check_tiff_layout
from mutoscope.storage.recording import check_place
from mutoscope.viewers.live import LEASES as PAGE_LEASES
from mutoscope.viewers.page.settings import PageSettings, check_available
from mutoscope.viewers.page.worker import PageWorker

__all__ = ["MIN_SLOTS", "Parts", "SourceSettings", "given_environment", "given_page", "given_record", "given_workers"]

MEMORY_SHARE = 0.25
MIN_SLOTS = 16
DURABILITIES = ("process", "power")
FILES, FILES_OF_STREAM, FILES_OF_WORKER = 40, 28, 4
"""Descriptors of the supervisor, at the least: its own, those of a ring, those of a worker and of its start."""
RESERVED = ("program", "supervisor")
PAGE = "page"


@dataclass(frozen=True)
class SourceSettings:
    """A producer that lives in the user's own process instead of a camera's.

    Parameters
    ----------
    shape : tuple of int
        (y, x) of every frame; of the largest one where they are `varying`.
    dtype : dtype
        Of the frames.
    rate_hz : float
        About how many frames a second, for the size of the ring.
    pixel_size_um : float, optional
        Of the object.
    varying : bool
        Whether shape and dtype may change from frame to frame, within the bytes of the largest. A recording begins a further
        image, ``<name>.1``, with each change. Otherwise a frame of another form is refused.

    Raises
    ------
    ConfigError
        If one of them cannot be.
    """

    shape: tuple[int, int]
    dtype: npt.DTypeLike
    rate_hz: float = 30.0
    pixel_size_um: float | None = None
    varying: bool = False

    def __post_init__(self) -> None:
        shape = tuple(self.shape) if isinstance(self.shape, Sequence | np.ndarray) else ()
        if len(shape) != 2 or not all(isinstance(size, int | np.integer) and size > 0 for size in shape):
            raise ConfigError(f"the shape of a source is (y, x), two whole numbers above 0, not {shown(self.shape)}")
        try:
            dtype = np.dtype(self.dtype) if self.dtype is not None else None
        except (TypeError, ValueError, SyntaxError):
            dtype = None
        if dtype is None:
            raise ConfigError(f"the dtype of a source is a NumPy type such as 'uint16', not {shown(self.dtype)}")
        if dtype.kind not in "biufc":
            raise ConfigError(f"the pixels of a source are bool, integer, float or complex, not {dtype}")
        for name in ("rate_hz", "pixel_size_um"):
            value = getattr(self, name)
            if name == "pixel_size_um" and value is None:
                continue
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float | np.integer | np.floating)
                or not 0 < value < math.inf
            ):
                raise ConfigError(f"{name} of a source is a number above 0, not {shown(value)}")
        flag("varying of a source", self.varying)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What :class:`~mutoscope.app.scope.Scope` was given; see there. What cannot be is refused here, before anything starts."""

    cameras: Mapping[str, Camera]
    sources: Mapping[str, SourceSettings]
    workers: Sequence[WorkerSettings]
    record: Path | bool | None
    overwrite: bool
    resume: bool
    outlive: bool
    ring_seconds: float
    ring_slots: int | None
    reserve_bytes: int
    settings: Mapping[str, Any]
    durability: str
    compression: str | None
    ome_zarr_version: str | None
    pyramid: bool
    environment: Mapping[str, dict[str, str]]
    restarts: Mapping[str, Restart]
    hang_report_s: float
    recorder_hang_s: float
    setup_timeout_s: float
    page: PageSettings | None = None

    def __post_init__(self) -> None:
        if self.overwrite and self.resume:
            raise ConfigError("choose either overwrite or resume")
        if not (isinstance(self.durability, str) and self.durability in DURABILITIES):
            raise ConfigError(f"durability is {' or '.join(map(repr, DURABILITIES))}, not {self.durability!r}")
        self._check_storable("a frame", (1, 1), "uint8")  # refuses a compression or a version that there is not
        if self.as_tiff:
            self._check_tiff()
        for name in (*self.cameras, *self.sources):
            if not (isinstance(name, str) and name):
                raise ConfigError(f"the name of a camera is text, not {name!r}")
            check_camera_name(name)
        for name, camera in self.cameras.items():
            if not isinstance(camera, Camera):
                raise ConfigError(f"camera {name!r} is {shown(camera)}, not a mutoscope.cameras.Camera")
        for name, source in self.sources.items():
            if not isinstance(source, SourceSettings):
                raise ConfigError(f"source {name!r} is {shown(source)}, not a mutoscope.SourceSettings")
            if self.recorded:
                self._check_storable(f"source {name!r}", source.shape, source.dtype)
        for worker, restart in self.restarts.items():
            if not isinstance(restart, Restart):
                raise ConfigError(f"restarts[{worker!r}] is a mutoscope.Restart, not {shown(restart)}")
        for key, value in self.settings.items():
            _check_setting(key, value)
        if not (self.cameras or self.sources or self.workers):
            raise ConfigError("a scope needs a camera, a source or a worker")

    @property
    def recorded(self) -> bool:
        """Whether frames are stored."""
        return self.record is not None and self.record is not False

    @property
    def as_tiff(self) -> bool:
        """Whether they are stored as OME-TIFF."""
        return isinstance(self.record, Path) and self.record.name.lower().endswith(SUFFIXES)

    def _check_tiff(self) -> None:
        """Raise ConfigError for what an OME-TIFF cannot hold."""
        assert isinstance(self.record, Path)
        name = self.record.name
        streams = len(self.cameras) + len(self.sources)
        if streams > 1:
            raise ConfigError(f"{name}: an OME-TIFF holds one camera, not {streams}: record into a name that ends in .ome.zarr")
        if any(isinstance(source, SourceSettings) and source.varying for source in self.sources.values()):
            raise ConfigError(f"{name}: an OME-TIFF holds frames of one shape: record into a name that ends in .ome.zarr")
        if self.pyramid or self.ome_zarr_version is not None:
            raise ConfigError(f"{name}: pyramid and ome_zarr_version are of OME-Zarr: leave them out")

    def _check_storable(self, what: str, shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        layout = storage.CameraLayout((int(shape[0]), int(shape[1])), dtype, compression=self.compression)
        try:
            if self.as_tiff:
                check_tiff_layout(layout)
            else:
                layout.level(check_version(self.ome_zarr_version or VERSIONS[0]))
        except ConfigError as error:
            raise ConfigError(f"{what}: {error}") from None

    def specification(self) -> ScopeSpec:
        """Return what the supervisor is told.

        Raises
        ------
        ConfigError
            If the parts do not fit together, or the data set cannot be where it is to be.
        """
        record = self._record_spec()
        streams = [self._camera_stream(name, camera, record) for name, camera in self.cameras.items()]
        streams += [self._source_stream(name, source, record) for name, source in self.sources.items()]
        duplicates = {stream.info.name for stream in streams if sum(s.info.name == stream.info.name for s in streams) > 1}
        if duplicates:
            raise ConfigError(f"two cameras or sources have the name {sorted(duplicates)[0]!r}")
        specs = [self._recorder(stream, record) for stream in streams if stream.recorder is not None and record is not None]
        specs += [_worker(each) for each in self.workers]
        specs += [
            _worker(
                WorkerSettings(CameraWorker, name=stream.producer),
                {"camera": self.cameras[stream.info.name], "stream": stream.info.name},
            )
            for stream in streams
            if stream.producer is not None
        ]
        if self.page is not None:
            specs.append(_worker(WorkerSettings(PageWorker, name=PAGE)))
        names = [spec.name for spec in specs]
        for name in names:
            if name in RESERVED:
                raise ConfigError(f"the name {name!r} is taken: give the worker another with WorkerSettings(…, name=…)")
            if names.count(name) > 1:
                raise ConfigError(
                    f"two workers have the name {name!r}: give one of them another with WorkerSettings(…, name=…)"
                )
        for name in (*self.environment, *self.restarts):
            if name not in names:
                raise ConfigError(f"there is no worker {name!r} to set something for; this scope has: {', '.join(names)}")
        specs = [
            msgspec.structs.replace(
                spec, environment=self.environment.get(spec.name, {}), restart=self.restarts.get(spec.name, spec.restart)
            )
            for spec in specs
        ]
        for spec in specs:
            if spec.moves and spec.restart.mode == "always":
                raise ConfigError(f"{spec.name} can move: its restart mode is 'consent' or 'never', not 'always'")
        _check_files(len(streams), len(specs))
        told = ScopeSpec(
            name=Path(record.path).name if record is not None else f"scope-{os.getpid()}",
            streams=streams,
            workers=specs,
            record=record,
            page=self._page_spec(),
            folder=record.folder if record is not None else None,
            outlive=self.outlive,
            sys_path=[entry or os.getcwd() for entry in sys.path],
            settings=dict(self.settings),
            hang_report_s=self.hang_report_s,
            recorder_hang_s=self.recorder_hang_s,
            setup_timeout_s=self.setup_timeout_s,
            at_end="mutoscope.app.run_report:write_report" if record is not None else None,
        )
        try:
            msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=ScopeSpec)
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
            raise ConfigError(f"the supervisor would not understand this scope: {error}") from error
        return told

    def _page_spec(self) -> PageSpec | None:
        page = self.page
        if page is None:
            return None
        return PageSpec(
            worker=PAGE,
            host=page.host,
            port=page.port,
            public_url=page.public_url,
            history_bytes=page.history_bytes,
            lease_s=page.lease_s,
            display={} if page.display is None else page.display.to_dict(),
        )

    def _record_spec(self) -> RecordSpec | None:
        if self.record is None or self.record is False:
            return None
        path = (_default_path() if isinstance(self.record, bool) else self.record).absolute()
        if not (path.name.endswith(".zarr") or self.as_tiff):
            raise ConfigError(f"{path.name}: recordings are OME-Zarr or OME-TIFF: end the name in .ome.zarr or .ome.tiff")
        for parent in path.parents:
            if parent.is_dir():
                break
            if parent.exists():
                raise DatasetNotFoundError(f"{parent} is a file, not a folder: nothing can be stored in it")
        check_place(path, overwrite=self.overwrite, resume=self.resume)
        return RecordSpec(
            path=str(path),
            folder=str(run_folder(path)),
            overwrite=self.overwrite,
            resume=self.resume,
            reserve_bytes=self.reserve_bytes,
            compression=self.compression,
            ome_zarr_version=self.ome_zarr_version,
        )

    def _stream(
        self, info: StreamInfo, itemsize: int, rate_hz: float, producer: str | None, record: RecordSpec | None
    ) -> StreamSpec:
        slot_bytes = max(1, info.shape[0] * info.shape[1] * itemsize)
        least = max(MIN_SLOTS, RECORDER_LEASES + 2 * len(self.workers) + (0 if self.page is None else PAGE_LEASES) + 8)
        wanted = self.ring_slots or max(least, math.ceil(self.ring_seconds * rate_hz))
        share = int(_os.available_memory() * MEMORY_SHARE / max(1, len(self.cameras) + len(self.sources)))
        slots = wanted if self.ring_slots else max(least, min(wanted, share // slot_bytes))
        single = len(self.cameras) + len(self.sources) == 1
        recorder = None if record is None else ("recorder" if single else f"recorder.{info.name}")
        return StreamSpec(info=info, slots=slots, slot_bytes=slot_bytes, producer=producer, recorder=recorder)

    def _camera_stream(self, name: str, camera: Camera, record: RecordSpec | None) -> StreamSpec:
        check_travel(camera)
        shape, dtype = describe(camera)
        if record is not None:
            self._check_storable(f"camera {name!r}", shape, dtype)
        rate = float(camera.rate_hz) or 30.0
        info = StreamInfo(
            name=name,
            shape=shape,
            dtype=dtype.name,
            rate_hz=float(camera.rate_hz) or None,
            pixel_size_um=camera.pixel_size_um,
            settings=_plain(camera.describe()),
            setting_specs=tuple(_plain(spec.describe()) for spec in type(camera).settings),
        )
        return self._stream(info, dtype.itemsize, rate, name, record)

    def _source_stream(self, name: str, source: SourceSettings, record: RecordSpec | None) -> StreamSpec:
        dtype = np.dtype(source.dtype)
        info = StreamInfo(
            name=name,
            shape=(int(source.shape[0]), int(source.shape[1])),
            dtype=dtype.name,
            rate_hz=float(source.rate_hz),
            pixel_size_um=None if source.pixel_size_um is None else float(source.pixel_size_um),
        )
        return self._stream(info, dtype.itemsize, float(source.rate_hz), None, record)

    def _recorder(self, stream: StreamSpec, record: RecordSpec) -> WorkerSpec:
        settings = {
            "camera": stream.info.name,
            "reserve_bytes": record.reserve_bytes,
            "durability": self.durability,
            "held_frames": stream.slots // 2,
            "pyramid": self.pyramid,
        }
        return _worker(WorkerSettings(RecorderWorker, name=stream.recorder), settings)


def given_workers(workers: object) -> list[WorkerSettings]:
    """Return workers as Scope takes them: classes and settings, or a single one of these."""
    if isinstance(workers, WorkerSettings) or (isinstance(workers, type) and issubclass(workers, Worker)):
        workers = [workers]
    if isinstance(workers, str | Mapping) or not isinstance(workers, Iterable):
        raise ConfigError(f"workers is a list of Worker classes or WorkerSettings, such as [Tracker], not {shown(workers)}")
    return [item if isinstance(item, WorkerSettings) else WorkerSettings(item) for item in workers]


def given_record(record: object) -> Path | bool | None:
    """Return what Scope is to record into: a path, True for one of its own choice, None or False for nothing."""
    if record is None or isinstance(record, bool):
        return record
    if not isinstance(record, str | os.PathLike):
        raise ConfigError(f"record is a path such as 'run.ome.zarr', True or None, not {shown(record)}")
    return path("record", record, "run.ome.zarr")


def given_page(page: object) -> PageSettings | None:
    """Return the settings of a scope's page; None for none.

    Raises
    ------
    BackendUnavailableError
        If a page is wanted and what serves it is not installed.
    """
    if page is None or page is False:
        return None
    if page is not True and not isinstance(page, PageSettings):
        raise ConfigError(f"page is True, False or mutoscope.PageSettings(port=…), not {shown(page)}")
    check_available()
    return page if isinstance(page, PageSettings) else PageSettings()


def given_environment(environment: object) -> dict[str, dict[str, str]]:
    """Return environment variables by worker, all of text."""
    example = "{'Tracker': {'OMP_NUM_THREADS': '1'}}"
    found = {}
    for name, variables in mapping("environment", environment, example).items():
        what = f"environment[{name!r}]"
        own = mapping(what, variables, "{'OMP_NUM_THREADS': '1'}")
        found[text("a worker's name in environment", name)] = {
            text(f"a variable's name in {what}", key): text(f"{what}[{key!r}]", value) for key, value in own.items()
        }
    return found


def _worker(item: WorkerSettings, settings: dict[str, Any] | None = None) -> WorkerSpec:
    kind = item.worker
    return WorkerSpec(
        name=item.name,
        kind=kind.kind,
        label=f"{kind.__module__}.{kind.__qualname__}",
        payload=pack((kind, {**item.settings, **(settings or {})}), f"worker {item.name}"),
        restart=item.restart,
        moves=kind.moves,
    )


def _check_files(streams: int, workers: int) -> None:
    """Raise ConfigError where the limit of open files is too low for the supervisor, or for a camera or recorder."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = FILES + FILES_OF_STREAM * streams + FILES_OF_WORKER * workers
    if limit != resource.RLIM_INFINITY and limit < need:
        raise ConfigError(
            f"the limit of open files is {limit}, and this scope needs {need}: raise it before you start your program, "
            "with: ulimit -n 4096"
        )


def _check_setting(key: Any, value: Any) -> None:
    """Raise ConfigError unless a setting can travel to every worker and be saved with the data."""
    if not isinstance(key, str):
        raise ConfigError(f"the name of a setting is text, not {key!r}")
    try:
        msgspec.json.encode(msgspec.msgpack.decode(msgspec.msgpack.encode(value)))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        plain = "numbers, text, lists, dicts with names, True, False and None"
        raise ConfigError(f"settings[{key!r}] cannot be saved: {error}; settings hold {plain}") from error


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the data set keeps them: what JSON cannot hold is saved as text."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dict(settings), enc_hook=str))
    return plain


def _default_path() -> Path:
    """``./mutoscope-data/<UTC stamp>/run.ome.zarr``, with a number where that moment has one already."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder, number = Path("mutoscope-data") / stamp, 1
    while folder.exists():
        number += 1
        folder = Path("mutoscope-data") / f"{stamp}-{number}"
    return folder / "run.ome.zarr"
