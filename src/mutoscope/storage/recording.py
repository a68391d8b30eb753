"""A recording: the root of a data set with an image for each camera, and further images where a stream changes or resumes."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import DTypeLike

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError, DatasetExistsError, ScopeStateError
from mutoscope.storage import _codec, _files, _flat, _layout, _nodes, _replace, _seal
from mutoscope.storage.ome_tiff._dataset import is_ome_tiff
from mutoscope.storage.writer import _MAX_ID, Durability, FrameStreamWriter

__all__ = ["CameraLayout", "Recording", "create_recording", "open_image_writer", "write_attributes"]

_ROOT_IMAGE = "."
_REFUSALS = {
    errno.EACCES,
    errno.EBUSY,
    errno.EEXIST,
    errno.EINVAL,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


@dataclass(frozen=True)
class CameraLayout:
    """How the frames of one camera are stored.

    Parameters
    ----------
    shape : tuple of int
        (y, x).
    dtype : dtype
        uint8, uint16, uint32, int8, int16, int32, float32 or float64.
    pixel_size_um : float, optional
        Of the object; unknown is saved as scale 1 without a unit.
    rate_hz : float, optional
        Nominal; the frames' own times are exact.
    frames_per_shard : int, optional
        Frames of one file; 128 MiB worth, or 32 MiB if compressed, if not given.
    compression : str, optional
        ``"none"``, which is the default, ``"blosc-lz4"``, ``"blosc-zstd"`` or ``"zstd"``.
    """

    shape: tuple[int, int]
    dtype: DTypeLike
    pixel_size_um: float | None = None
    rate_hz: float | None = None
    frames_per_shard: int | None = None
    compression: str | None = None

    def level(self, ome_zarr_version: str = _layout.VERSIONS[0]) -> _layout.Level:
        """Return the geometry on disk, or raise ConfigError."""
        for name, value in (("pixel_size_um", self.pixel_size_um), ("rate_hz", self.rate_hz)):
            _layout.check_scale(name, value)
        level = _layout.plan_level(self.shape, self.dtype, self.frames_per_shard, self.compression, ome_zarr_version)
        _codec.check_possible(level)
        return level


@dataclass(frozen=True)
class Recording:
    """A data set that is being recorded. It holds nothing open: it can be given to other processes.

    Attributes
    ----------
    path : Path
        Its root.
    images : tuple of str
        Its image groups, in the order of their making; ``"."`` is the root itself.
    replaced : Path, optional
        Where the data set that stood there before is kept (`create_recording` with ``keep_replaced=True``), until
        `delete_replaced` or `put_back`.
    """

    path: Path
    images: tuple[str, ...]
    replaced: Path | None = None

    def delete_replaced(self) -> None:
        """Delete what was replaced, if it is kept."""
        if self.replaced is not None:
            _replace.delete(self.path, self.replaced)

    def put_back(self) -> None:
        """Delete this data set, and have what it replaced back in its place.

        Raises
        ------
        ScopeStateError
            If it holds a frame: then both stay.
        """
        if any(self.last_frame_id(camera) for camera in self.cameras):
            raise ScopeStateError(f"{self.path}: holds frames already, so what it replaced stays at {self.replaced}")
        if self.replaced is not None:
            _replace.put_back(self.path, self.replaced)
        else:
            _replace.delete(self.path, self.path)

    @property
    def left_over(self) -> list[Path]:
        """Other data sets that were replaced here by runs that were killed before they had started."""
        return [path for path in _replace.replaced_folders(self.path) if path != self.replaced]

    @property
    def cameras(self) -> dict[str, str]:
        """Camera → its newest image group."""
        newest: dict[str, tuple[int, str]] = {}
        for name in self.images:
            camera, segment = self.identity(name)
            if camera not in newest or segment > newest[camera][0]:
                newest[camera] = (segment, name)
        return {camera: name for camera, (_, name) in newest.items()}

    def images_of(self, camera: str) -> list[str]:
        """Return the camera's image groups, oldest first."""
        found = sorted((segment, name) for name in self.images for own, segment in [self.identity(name)] if own == camera)
        return [name for _, name in found]

    def last_frame_id(self, camera: str) -> int:
        """Return the newest stored id of a camera over all its images; 0: none."""
        return max((_last(self.folder(name))[1] for name in self.images_of(camera)), default=0)

    def folder(self, image: str) -> Path:
        """Return the folder of one of `images`."""
        return self.path if image == _ROOT_IMAGE else self.path / image

    def identity(self, image: str) -> tuple[str, int]:
        """Return the camera of one of `images`, and which of its images it is, from 0."""
        if image != _ROOT_IMAGE:
            split = _layout.split_image_name(image)
            assert split is not None, image
            return split
        own = _own_attributes(self.path)
        return str(own.get("camera", "camera")), 0


def _last(image: Path) -> tuple[int, int]:
    return _flat.last_written(image / _layout.FRAMES / "frame_id")


def _own_attributes(group: Path) -> dict[str, Any]:
    attributes = _nodes.read_group(group)
    own = attributes.get(_layout.NAMESPACE)
    if not isinstance(own, dict):
        raise DatasetError(f"{group}: is a Zarr group, but not a recording of Mutoscope")
    return own


def find_recording(path: str | os.PathLike[str]) -> Recording:
    """Return the recording at `path`.

    Raises
    ------
    DatasetNotFoundError
        If nothing is there.
    DatasetError
        If it is not a recording of this layout, or damaged.
    """
    root = Path(path)
    if root.is_file():
        raise DatasetError(f"{root}: is no recording: that is a folder in .ome.zarr, or a file in .ome.tiff")
    own = _own_attributes(root)
    version = own.get("layout")
    if version is None and "plate_layout" in own:
        raise DatasetError(f"{root}: is a plate, not a recording: open it with storage.open('ome-zarr', ...)")
    if not isinstance(version, str) or version.split(".")[0] != _layout.LAYOUT_VERSION.split(".")[0]:
        raise DatasetError(f"{root}: has layout {version!r}; this version reads {_layout.LAYOUT_VERSION}")
    images = own.get("images")
    if not isinstance(images, list) or not images:
        raise DatasetError(f"{root}: lists no image")
    for name in images:
        if name != _ROOT_IMAGE and not (isinstance(name, str) and _layout.split_image_name(name)):
            raise DatasetError(f"{root}: lists {name!r}, which is not the name of an image")
    return Recording(root, tuple(dict.fromkeys(images)))


# ---------------------------------------------------------------------- making


def check_choice(overwrite: bool, resume: bool) -> None:
    """Raise ConfigError when a data set that exists is to be replaced and continued at once."""
    if overwrite and resume:
        raise ConfigError("choose either overwrite or resume")


def create_recording(
    path: str | os.PathLike[str],
    cameras: Mapping[str, CameraLayout],
    *,
    overwrite: bool = False,
    resume: bool = False,
    ome_zarr_version: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    keep_replaced: bool = False,
) -> Recording:
    """Make the data set that cameras will be recorded into.

    With one camera the root is its image; with several each has an image group that the root lists (bioformats2raw
    layout). The data set appears whole: it is prepared beside its place and renamed. A path that ends in ``.ome.tiff``
    makes an OME-TIFF stream, which has one camera.

    Parameters
    ----------
    path : path
        Of the root; missing folders above it are made.
    cameras : mapping
        Name → `CameraLayout`.
    overwrite : bool
        Replace an existing data set. What is not a Zarr data set is never deleted.
    resume : bool
        Continue an existing recording: each camera gets a further image whose ids follow its last stored one. The tail of
        the earlier part is trimmed first. Where nothing exists, the data set is made new.
    ome_zarr_version : str, optional
        ``"0.5"``, which is the default, or ``"0.4"``; a resumed recording keeps its own.
    attributes : mapping, optional
        Saved beside ``ledger`` under ``mutoscope`` of the root's attributes.
    keep_replaced : bool
        With `overwrite`: keep what is replaced beside it, under the name in ``Recording.replaced``, until the caller deletes it
        or puts it back. A process that is killed meanwhile leaves both.

    Raises
    ------
    DatasetExistsError
        If something is there already and neither `overwrite` nor `resume` was asked for.
    ConfigError
        If the cameras do not fit, or what is there must not be replaced.
    ScopeStateError
        If a writer has the existing data set open.
    DiskFullError
        If there is no room.
    """
    check_choice(overwrite, resume)
    if not cameras:
        raise ConfigError("a recording needs at least one camera")
    if is_ome_tiff(path):
        from mutoscope.storage.ome_tiff.recording import create_tiff_recording

        if ome_zarr_version is not None:
            raise ConfigError("an OME-TIFF has no version of OME-Zarr: leave ome_zarr_version out")
        return create_tiff_recording(
            path, cameras, overwrite=overwrite, resume=resume, attributes=attributes, keep_replaced=keep_replaced
        )
    extra = _seal.checked_attributes(attributes or {})
    root = Path(path).absolute()
    taken = os.path.lexists(root) and not _replace.is_empty_folder(root)
    version = _layout.check_version(ome_zarr_version or _layout.VERSIONS[0])
    if taken and resume and (_nodes.has_group(root) or ome_zarr_version is None):
        version = _nodes.version_of(root)
        if ome_zarr_version not in (None, version):
            raise ConfigError(f"{root}: is OME-Zarr {version}, which is not mixed with {ome_zarr_version}")
    levels = {_layout.check_camera_name(name): layout.level(version) for name, layout in cameras.items()}
    if taken and resume:
        return _resume(root, cameras, levels, extra)
    if taken and not overwrite:
        raise DatasetExistsError(f"{root}: exists already; choose another name, or say overwrite or resume")
    if taken:
        _replace.check_replaceable(root)

    def build(folder: Path) -> None:
        if len(levels) == 1:
            [(name, layout)] = cameras.items()
            own = {
                "layout": _layout.LAYOUT_VERSION,
                "images": [_ROOT_IMAGE],
                **_image_attributes(name, 0, layout, levels[name]),
            }
            _build_image(folder, levels[name], name, layout, {**own, **extra})
            return
        for name, layout in cameras.items():
            own = _image_attributes(name, 0, layout, levels[name])
            _build_image(folder / name, levels[name], name, layout, own)
        _nodes.write_group(folder / _layout.OME, version, _layout.ome_attributes(version, {"series": list(cameras)}))
        own = {"layout": _layout.LAYOUT_VERSION, "images": list(cameras), **extra}
        _nodes.write_group(folder, version, _layout.with_series({_layout.NAMESPACE: own}, version))

    with _files.translated(root):
        try:
            kept = _replace.make_folder(root, build, replace=taken)
            if kept is not None and not keep_replaced:
                _replace.delete(root, kept)
                kept = None
        except OSError as error:
            if os.path.lexists(root) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise DatasetExistsError(f"{root}: was made by another process at this moment") from error
            if error.errno in _REFUSALS:
                raise ConfigError(f"{root}: cannot be made ({error.strerror})") from error
            raise
    return dataclasses.replace(find_recording(root), replaced=kept)


def check_place(path: str | os.PathLike[str], *, overwrite: bool = False, resume: bool = False) -> None:
    """Raise what `create_recording` would raise of what stands at a path; nothing is changed.

    Parameters
    ----------
    path, overwrite, resume
        As there.

    Raises
    ------
    DatasetExistsError, ConfigError, DatasetError
        As there.
    """
    if is_ome_tiff(path):
        from mutoscope.storage.ome_tiff.recording import check_tiff_place

        check_tiff_place(path, overwrite=overwrite, resume=resume)
        return
    root = Path(path).absolute()
    if not os.path.lexists(root) or _replace.is_empty_folder(root):
        return
    if resume:
        find_recording(root)
    elif overwrite:
        with contextlib.suppress(ScopeStateError):  # whether somebody still writes is asked when it is replaced
            _replace.check_replaceable(root)
    else:
        raise DatasetExistsError(f"{root} exists already: choose another name, or say overwrite or resume")


def _image_attributes(camera: str, segment: int, layout: CameraLayout, level: _layout.Level) -> dict[str, Any]:
    return {
        "camera": camera,
        "segment": segment,
        "state": "open",
        "pixel_size_um": layout.pixel_size_um,
        "rate_hz": layout.rate_hz,
        "level": {
            "shape": list(level.shape),
            "dtype": level.dtype,
            "frames_per_shard": level.frames_per_shard,
            "strip": level.strip,
            "compression": level.compression,
        },
    }


def _build_image(folder: Path, level: _layout.Level, name: str, layout: CameraLayout, own: Mapping[str, Any]) -> None:
    """Write an image without frames into a folder that nobody reads yet."""
    version = level.version
    pixels = folder / _layout.LEVEL
    (pixels / "c" if level.sharded else pixels).mkdir(parents=True)
    _nodes.write_array(pixels, _layout.level_document(level, 0))
    for array in _layout.FLAT_ARRAYS:
        _flat.create(folder / _layout.FRAMES / array, array, 0, version=version)
    _nodes.write_group(folder / _layout.FRAMES, version, {})
    image = _layout.ome_image(name, layout.pixel_size_um, layout.rate_hz, version)
    _nodes.write_group(folder, version, {**image, _layout.NAMESPACE: own})


def _resume(
    root: Path, cameras: Mapping[str, CameraLayout], levels: Mapping[str, _layout.Level], extra: Mapping[str, Any]
) -> Recording:
    from mutoscope.storage._recover import recover

    recover(root, decode=False)
    recording = find_recording(root)
    for name in cameras:
        if (last := recording.last_frame_id(name)) >= _MAX_ID:
            raise ConfigError(f"{root}: cannot be resumed: the last frame_id of {name!r} is {last}, and ids end at 2**62")
    staging = _staging(recording)
    own = _own_attributes(root)
    earlier = {key: own[key] for key in own if key in ("ledger", "settings", *extra)}
    runs = own.get("earlier_runs") if isinstance(own.get("earlier_runs"), list) else []
    change: dict[str, Any] = {"ledger": None, **extra, "earlier_runs": [*(runs or []), earlier]}
    _seal.change_attributes(root, change, staging)
    for name, layout in cameras.items():
        recording = _add_image(recording, name, layout, levels[name], "resumed")
    return recording


def _staging(recording: Recording) -> Path:
    return recording.folder(recording.images[0]) / _layout.LEVEL


def _add_image(recording: Recording, camera: str, layout: CameraLayout, level: _layout.Level, reason: str) -> Recording:
    """Add the next image of a camera: built aside, renamed into place, then listed."""
    root = recording.path
    earlier = recording.images_of(camera)
    segment = 0 if not earlier else _segment_of(recording, earlier[-1]) + 1
    name = camera if segment == 0 else f"{camera}.{segment}"
    staging = _staging(recording)
    own = {
        **_image_attributes(camera, segment, layout, level),
        "previous": earlier[-1] if earlier else None,
        "reason": reason,
        "first_frame_id": recording.last_frame_id(camera) + 1,
    }
    part = staging / f".{os.getpid()}-{camera}-{segment}{_files.PART}"
    with _files.translated(root):
        shutil.rmtree(part, ignore_errors=True)
        try:
            _build_image(part, level, camera, layout, own)
            kill_point("storage.image.built")
            os.rename(part, root / name)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        kill_point("storage.image.placed")
        _list_images(recording, [name])
    return find_recording(root)


def _segment_of(recording: Recording, image: str) -> int:
    return recording.identity(image)[1]


def _list_images(recording: Recording, new: list[str]) -> None:
    """Add images to the root's list: for OME readers in the group ``OME``, then in the root's attributes."""
    root, staging = recording.path, _staging(recording)
    with _files.locked(root):
        images = list(dict.fromkeys([*find_recording(root).images, *new]))
        named = [name for name in images if name != _ROOT_IMAGE]
        (root / _layout.OME).mkdir(exist_ok=True)
        version = _nodes.version_of(root)
        _nodes.replace_group(root / _layout.OME, version, _layout.ome_attributes(version, {"series": named}), staging)
        kill_point("storage.image.series_listed")
        attributes = _layout.with_series(_nodes.read_group(root), version)
        attributes[_layout.NAMESPACE] = {**attributes[_layout.NAMESPACE], "images": images}
        _nodes.replace_group(root, version, attributes, staging)


# ---------------------------------------------------------------------- using


def open_image_writer(
    recording: Recording | str | os.PathLike[str],
    camera: str,
    *,
    shape: tuple[int, int] | None = None,
    dtype: DTypeLike | None = None,
    continue_: bool = False,
    durability: Durability = "process",
    pyramid: bool = False,
) -> FrameStreamWriter:
    """Open the writer of one camera of a recording.

    Parameters
    ----------
    recording : Recording or path
        As `create_recording` made it.
    camera : str
        One of its cameras.
    shape, dtype : optional
        Of the frames to come. If they differ from those of the camera's newest image, a further image ``<camera>.1``, …
        is made and opened; ids go on. An OME-TIFF stream refuses them.
    continue_ : bool
        Go on behind the last stored frame, as a restarted recorder does: `FrameStreamWriter.last_frame_id` says what is
        stored. Without it an image that holds frames is refused.
    durability : {"process", "power"}
        What acknowledged frames survive: the death of every process, or (within a second) a power cut as well.
    pyramid : bool
        Build smaller levels beside the frames, in a thread of the lowest priority; `close` finishes them, then lists them.

    Raises
    ------
    ConfigError
        If there is no such camera, or its image holds frames already and `continue_` is not given.
    ScopeStateError
        If another writer has it open.
    """
    root = recording.path if isinstance(recording, Recording) else Path(recording).absolute()
    if is_ome_tiff(root):
        from mutoscope.storage.ome_tiff.recording import go_on

        return go_on(root, camera, durability, shape=shape, dtype=dtype, continue_=continue_, pyramid=pyramid)
    recording = adopt_unlisted(find_recording(root))
    if camera not in recording.cameras:
        raise ConfigError(f"{root}: has no camera {camera!r}; it has {', '.join(sorted(recording.cameras))}")
    newest = recording.cameras[camera]
    own = _own_attributes(recording.folder(newest))
    document = _nodes.read_array(root, _relative(newest, _layout.LEVEL))
    level, _ = _layout.parse_level(document, newest)
    kind = dtype if dtype is not None else level.dtype
    wanted = _layout.plan_level(shape or level.shape, kind, compression=level.compression, version=level.version)
    if (wanted.shape, wanted.dtype) != (level.shape, level.dtype):
        size, rate = _number(own.get("pixel_size_um")), _number(own.get("rate_hz"))
        layout = CameraLayout(wanted.shape, wanted.dtype, size, rate, compression=level.compression)
        recording = _add_image(recording, camera, layout, wanted, "shape or dtype changed")
        newest = recording.cameras[camera]
    elif not continue_ and _last(recording.folder(newest))[0]:
        raise ConfigError(f"{root}: the image of {camera!r} holds frames already; say continue_=True to go on behind them")
    previous = recording.last_frame_id(camera)
    if level.published:
        from mutoscope.storage.publishing import PublishingWriter

        return PublishingWriter(recording.folder(newest), previous_id=previous, durability=durability, pyramid=pyramid)
    return FrameStreamWriter(recording.folder(newest), previous_id=previous, durability=durability, pyramid=pyramid)


def _relative(image: str, name: str) -> str:
    return name if image == _ROOT_IMAGE else f"{image}/{name}"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value < float("inf") else None


def adopt_unlisted(recording: Recording) -> Recording:
    """List images that a process made but was killed before listing."""
    known = {camera: _segment_of(recording, name) for camera, name in recording.cameras.items()}
    found = []
    for name in sorted(os.listdir(recording.path)):
        split = _layout.split_image_name(name)
        if split is None or name in recording.images or split[1] <= known.get(split[0], sys.maxsize):
            continue
        if _nodes.has_group(recording.path / name):
            found.append((split[1], name))
    if not found:
        return recording
    _list_images(recording, [name for _, name in sorted(found)])
    return find_recording(recording.path)


def write_attributes(path: str | os.PathLike[str], attributes: Mapping[str, Any], *, durable: bool = False) -> None:
    """Set attributes of a recording, such as its ledger: all of them or, if this process is killed, none.

    Parameters
    ----------
    path : path
        Of the root.
    attributes : mapping
        Saved under ``mutoscope`` of the root's attributes; other keys there stay. Several processes may call at once.
    durable : bool
        Also bring them to the device.
    """
    from mutoscope.storage.ome_tiff.recover import write_tiff_attributes

    if is_ome_tiff(path):
        write_tiff_attributes(path, attributes, durable=durable)
        return
    recording = find_recording(path)
    change = _seal.checked_attributes(attributes)
    _seal.change_attributes(recording.path, change, _staging(recording), durable=durable)
