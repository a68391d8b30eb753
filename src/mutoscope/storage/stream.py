"""The public entrance: open a stream for writing or reading, and look at one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from mutoscope.model import arguments
from mutoscope.model.errors import ConfigError
from mutoscope.storage import _layout, _nodes
from mutoscope.storage.ome_tiff import SUFFIXES, is_ome_tiff
from mutoscope.storage.ome_tiff.reader import OmeTiffReader
from mutoscope.storage.ome_tiff.recording import open_tiff_writer
from mutoscope.storage.plate import is_plate, plate_info
from mutoscope.storage.reader import FrameStreamReader
from mutoscope.storage.recording import CameraLayout, create_recording, find_recording, open_image_writer
from mutoscope.storage.writer import Durability, FrameStreamWriter, check_durability

__all__ = ["info", "open_reader", "open_writer"]

BACKENDS = ("ome-zarr", "ome-tiff")


def open_writer(
    path: str | os.PathLike[str],
    *,
    shape: tuple[int, int],
    dtype: DTypeLike,
    backend: str | None = None,
    name: str = "camera",
    pixel_size_um: float | None = None,
    rate_hz: float | None = None,
    overwrite: bool = False,
    resume: bool = False,
    durability: Durability = "process",
    frames_per_shard: int | None = None,
    compression: str | None = None,
    ome_zarr_version: str | None = None,
    pyramid: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> FrameStreamWriter:
    """Make a data set for one stream of frames and open its writer.

    Parameters
    ----------
    path : path
        Of the data set, ``….ome.zarr`` or ``….ome.tiff``.
    shape : tuple of int
        (y, x) of every frame.
    dtype : dtype
        uint8, uint16, uint32, int8, int16, int32, float32 or float64.
    backend : str, optional
        ``"ome-zarr"`` or ``"ome-tiff"``; by the path's suffix, if not given.
    name : str
        Of the image.
    pixel_size_um, rate_hz : float, optional
        Saved as the scale; unknown is scale 1 without a unit.
    overwrite : bool
        Replace an existing data set.
    resume : bool
        Continue an existing recording: OME-Zarr in a further image of it, OME-TIFF in the same file; ids follow its last
        stored one.
    durability : {"process", "power"}
        What acknowledged frames survive: the death of every process, or (within a second) a power cut as well.
    frames_per_shard : int, optional
        OME-Zarr: frames of one file; 128 MiB worth, or 32 MiB if compressed, if not given.
    compression : str, optional
        ``"none"``, which is the default; OME-Zarr also ``"blosc-lz4"``, ``"blosc-zstd"`` and ``"zstd"``, OME-TIFF ``"zlib"``
        and ``"zstd"``.
        Frames of a compressed OME-Zarr are acknowledged up to half a second later: see `FrameStreamWriter.flush`.
    ome_zarr_version : str, optional
        ``"0.5"``, which is the default, or ``"0.4"``, where each frame is a file of its own.
    pyramid : bool
        OME-Zarr: build smaller levels beside the frames, in a thread of the lowest priority; `close` finishes them. See
        `build_pyramid` for later.
    attributes : mapping, optional
        Saved under ``mutoscope`` of the root's attributes, or of an OME-TIFF's sidecar.

    Returns
    -------
    FrameStreamWriter
        A context manager.

    Raises
    ------
    DatasetExistsError, ConfigError, ScopeStateError, DiskFullError
        As `create_recording`.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from mutoscope import storage
    >>> folder = tempfile.mkdtemp()
    >>> with storage.open_writer(f"{folder}/run.ome.zarr", shape=(4, 6), dtype="uint16") as writer:
    ...     receipt = writer.append(np.ones((4, 6), "uint16"))
    >>> receipt
    Receipt(position=0, frame_id=1, durable='process')
    >>> with storage.open_reader(f"{folder}/run.ome.zarr") as reader:
    ...     len(reader), int(reader[0].sum())
    (1, 24)
    """
    path = arguments.path("path", path, "run.ome.zarr")
    overwrite, resume = arguments.flag("overwrite", overwrite), arguments.flag("resume", resume)
    pyramid = arguments.flag("pyramid", pyramid)
    attributes = arguments.mapping("attributes", attributes, "{'sample': 'beads'}")
    for key in attributes:
        arguments.text("the name of an attribute", key)
    if _backend_of(path, backend) == "ome-tiff":
        if frames_per_shard is not None:
            raise ConfigError("an OME-TIFF has no shards: leave frames_per_shard out")
        if pyramid:
            raise ConfigError("pyramids are made of OME-Zarr: leave pyramid out")
        if ome_zarr_version is not None:
            raise ConfigError("an OME-TIFF has no version of OME-Zarr: leave ome_zarr_version out")
        return open_tiff_writer(
            path,
            shape=shape,
            dtype=dtype,
            name=name,
            pixel_size_um=pixel_size_um,
            rate_hz=rate_hz,
            overwrite=overwrite,
            resume=resume,
            durability=durability,
            compression=compression,
            attributes=attributes,
        )
    check_durability(durability)
    layout = CameraLayout(shape, dtype, pixel_size_um, rate_hz, frames_per_shard, compression)
    recording = create_recording(
        path,
        {name: layout},
        overwrite=overwrite,
        resume=resume,
        ome_zarr_version=ome_zarr_version,
        attributes=attributes,
    )
    return open_image_writer(recording, name, durability=durability, pyramid=pyramid)


def _backend_of(path: Path, backend: str | None) -> str:
    if backend is None:
        if path.name.lower().endswith(SUFFIXES):
            return "ome-tiff"
        if path.suffix in ("", ".zarr"):
            return "ome-zarr"
        raise ConfigError(f"{path}: no writer for {path.suffix!r}; end the name in .ome.zarr or .ome.tiff, or say backend=")
    if backend not in BACKENDS:
        raise ConfigError(f"there is no backend {backend!r} for streams; there are {', '.join(BACKENDS)}")
    return backend


def open_reader(path: str | os.PathLike[str], camera: str | None = None) -> FrameStreamReader:
    """Open the stream of one camera for reading, while it is written or later.

    Parameters
    ----------
    path : path
        Of the recording's root, or of the OME-TIFF.
    camera : str, optional
        Which one, if there are several; all its images are read as one stream. ``"<camera>.0"``, ``"<camera>.1"``, … is
        one of the images that changes of shape and resumed runs make.

    Raises
    ------
    DatasetNotFoundError
        If nothing is there.
    DatasetError
        If it is not a recording, or damaged.
    ConfigError
        If there is no such camera, or several and none was named.
    """
    if is_ome_tiff(path):
        tiff = OmeTiffReader(path)
        own = tiff.attributes.get("camera", camera)
        if camera is not None and camera != own:
            tiff.close()
            raise ConfigError(f"{path}: has no camera {camera!r}; it has {own}")
        return tiff
    recording = find_recording(path)
    cameras = recording.cameras
    if camera is None:
        if len(cameras) > 1:
            raise ConfigError(f"{recording.path}: has several cameras, name one: {', '.join(cameras)}")
        camera = next(iter(cameras))
    wanted = camera
    if wanted in cameras:
        return FrameStreamReader(recording.path, lambda: find_recording(path).images_of(wanted))
    name, _, segment = wanted.rpartition(".")
    found = [image for image in recording.images_of(name) if str(recording.identity(image)[1]) == segment]
    if not found:
        raise ConfigError(f"{recording.path}: has no camera {wanted!r}; it has {', '.join(cameras)}")
    return FrameStreamReader(recording.path, lambda: found)


def info(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describe a recording in plain values.

    Returns
    -------
    dict
        ``path``, ``layout``, ``complete`` (every image was closed in order), ``frames`` (all images), ``ledger``,
        ``settings``, ``earlier_runs`` (``ledger`` and ``settings`` of the runs that this one resumed, oldest first),
        ``cameras`` (names) and ``images``: for each ``image``, ``camera``, ``segment``, ``state``, ``shape`` (t, y, x),
        ``dtype``, ``compression``, ``levels`` (sizes that it is stored in), ``frames``, ``gaps`` (list of [first id, count]),
        ``first_frame_id``, ``last_frame_id`` (None if empty), ``first_utc_ns``, ``last_utc_ns``, ``duration_s``,
        ``rate_hz`` (measured, None if unknown), ``nominal_rate_hz``, ``pixel_size_um``.
        Of a plate what `mutoscope.storage.plate.plate_info` says.

    Raises
    ------
    DatasetNotFoundError, DatasetError
        If nothing is there, or it is not a recording or damaged.
    """
    if is_ome_tiff(path):
        return _tiff_info(path)
    if is_plate(path):
        return plate_info(path)
    recording = find_recording(path)
    root = _nodes.read_group(recording.path)[_layout.NAMESPACE]
    images = [_image_info(recording.path, name) for name in recording.images]
    return {
        "path": str(recording.path),
        "layout": root["layout"],
        "complete": all(image["state"] == "closed" for image in images),
        "frames": sum(image["frames"] for image in images),
        "cameras": list(recording.cameras),
        "images": images,
        "ledger": root.get("ledger"),
        "settings": root.get("settings"),
        "earlier_runs": _earlier_runs(root),
    }


def _earlier_runs(own: Mapping[str, Any]) -> list[dict[str, Any]]:
    runs = own.get("earlier_runs")
    return [run for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []


def _tiff_info(path: str | os.PathLike[str]) -> dict[str, Any]:
    """All files of an OME-TIFF stream are one image here: its frames go on from one to the other."""
    reader = OmeTiffReader(path)
    with reader:
        own = reader.attributes
        image = {**_described(reader, reader.path.name), "camera": own.get("camera", "camera")}
        return {
            "path": str(reader.path),
            "layout": own.get("layout"),
            "complete": image["state"] == "closed",
            "frames": len(reader),
            "cameras": [image["camera"]],
            "images": [{**image, "files": list(reader.images)}],
            "ledger": reader.ledger,
            "settings": own.get("settings"),
            "earlier_runs": _earlier_runs(own),
        }


def _image_info(root: Path, name: str) -> dict[str, Any]:
    with FrameStreamReader(root, lambda: [name]) as reader:
        return {**_described(reader, name), "levels": reader.levels}


def _described(reader: FrameStreamReader, name: str) -> dict[str, Any]:
    own = reader.attributes
    ids, monotonic, utc = reader.frame_ids, reader.monotonic_ns, reader.utc_ns
    known = utc[utc != 0]
    return {
        "image": name,
        "camera": own.get("camera"),
        "segment": own.get("segment", 0),
        "state": own.get("state"),
        "shape": [len(reader), *reader.shape],
        "dtype": reader.dtype,
        "compression": reader.compression,
        "frames": len(reader),
        "gaps": [list(gap) for gap in reader.gaps()],
        "first_frame_id": int(ids[0]) if ids.size else None,
        "last_frame_id": int(ids[-1]) if ids.size else None,
        "first_utc_ns": int(known[0]) if known.size else None,
        "last_utc_ns": int(known[-1]) if known.size else None,
        **_rate(monotonic, ids),
        "nominal_rate_hz": own.get("rate_hz"),
        "pixel_size_um": own.get("pixel_size_um"),
    }


def _rate(monotonic_ns: Any, ids: Any) -> dict[str, Any]:
    """Duration and mean rate from the monotonic times, missing ids counted as frames of the camera."""
    if ids.size < 2 or not np.all(monotonic_ns != 0) or monotonic_ns[-1] <= monotonic_ns[0]:
        return {"duration_s": None, "rate_hz": None}
    duration_s = (int(monotonic_ns[-1]) - int(monotonic_ns[0])) / 1e9
    return {"duration_s": duration_s, "rate_hz": float(ids[-1] - ids[0]) / duration_s}
