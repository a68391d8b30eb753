"""TIFF and PNG files of one image, through tifffile and imageio. No file but the one that is open is ever read."""

from __future__ import annotations

import math
import os
import struct
import zlib
from importlib import import_module
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import BackendUnavailableError, ConfigError, DatasetError
from mutoscope.model.install import command_for
from mutoscope.storage import _npy
from mutoscope.storage._arrays import native

__all__ = ["check_png", "check_tiff", "layout", "need_tifffile", "read_png", "read_tiff", "write_png", "write_tiff"]

_TIFF_DTYPES = {"uint8", "uint16", "int16", "float32", "int32", "uint32", "bool"}
"""What ImageJ opens and shows as it is: int32 rounded to float32, bool as 0 and 255, uint32 below 2**31. It takes int8 for
uint8, and does not open float64. Found with ImageJ 1.54f by the tests of `mutoscope.storage`."""

_IMAGEJ_DTYPES = {"uint8", "uint16", "float32"}
"""What ImageJ's own files hold, with their axes. Source: `ij.io.FileInfo`, GRAY8, GRAY16_UNSIGNED and GRAY32_FLOAT."""

_SHAPE = "mutoscope_shape"
"""Line of ImageJ's description that keeps axes of length 1; ImageJ skips lines that it does not know."""

_CLASSIC_BYTES = 2**32 - 2**22
"""Most bytes of pixels in a classic TIFF, whose offsets have 32 bits."""

_EXPANSION = 1100
"""No more bytes come out of a deflated byte. Source: zlib, "maximum compression factor" 1032 : 1."""

_DAMAGE = (
    *(ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, OSError, EOFError, AssertionError),
    *(AttributeError, NameError, MemoryError, SyntaxError, ImportError, Warning, struct.error, zlib.error),
)
"""What decoders raise for damaged bytes (Pillow a SyntaxError for a broken PNG); Warning where warnings are errors."""


def _need(module: str, extra: str, what: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise BackendUnavailableError(f"{what} needs {package}: {command_for(extra, package)}") from error


def need_tifffile() -> Any:
    """Return tifffile, or raise BackendUnavailableError with the command that installs it."""
    return _need("tifffile", "tiff", "TIFF")


def _is_rgb(array: NDArray[Any]) -> bool:
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[-1] == 3 and min(array.shape[:2]) > 3


# ---------------------------------------------------------------------- TIFF


def check_tiff(array: NDArray[Any]) -> None:
    """Raise ConfigError for an array that a TIFF of this kind cannot hold."""
    if array.dtype.name not in _TIFF_DTYPES:
        hint = "float32" if array.dtype.kind == "f" else "int16" if array.dtype == np.int8 else "another type"
        raise ConfigError(f"ImageJ does not read {array.dtype.name} from TIFF; .npy holds it, or convert it to {hint}")
    if array.dtype == np.uint32 and array.size and int(array.max()) >= 2**31:
        raise ConfigError("ImageJ takes uint32 for int32, so values from 2**31 would come out negative; .npy holds them")
    if not 2 <= array.ndim <= 5 or not array.size:
        raise ConfigError(f"a TIFF holds an image or a stack of 2 to 5 axes, not an array {array.shape}; .npy holds it")


def write_tiff(file: IO[bytes], array: NDArray[Any]) -> None:
    """Write an image (y, x) or (y, x, rgb), or a stack up to (t, z, c, y, x), uncompressed, as plain ImageJ reads it."""
    tifffile = _need("tifffile", "tiff", "TIFF")
    rgb = _is_rgb(array)
    array = np.ascontiguousarray(array)
    if array.dtype.name in _IMAGEJ_DTYPES and array.nbytes <= _CLASSIC_BYTES:
        axes = "YXS" if rgb else {2: "YX", 3: "ZYX", 4: "ZCYX", 5: "TZCYX"}[array.ndim]
        metadata = {"axes": axes, _SHAPE: ",".join(map(str, array.shape))}
        tifffile.imwrite(file, array, imagej=True, photometric="rgb" if rgb else "minisblack", metadata=metadata)
        return
    planes = array if array.ndim > 2 else array[None]
    tifffile.imwrite(
        file,
        planes,
        bigtiff=array.nbytes > _CLASSIC_BYTES,
        photometric="rgb" if rgb else "minisblack",
        metadata={_SHAPE: ",".join(map(str, array.shape))},
    )


def _open_tiff(file: IO[bytes]) -> Any:
    # Without the flags tifffile would look for files that this one names: of an OME set, a Micro-Manager set, an NDTiff index.
    flags = {"_multifile": False, "is_mmstack": False, "is_ndtiff": False}
    return _need("tifffile", "tiff", "TIFF").TiffFile(file, name="image.tif", **flags)


def read_tiff(file: IO[bytes], size: int, where: str) -> NDArray[Any]:
    """Return the first image or stack of a TIFF, whoever wrote it."""
    try:
        with _open_tiff(file) as tiff:
            series = _series(tiff, size, where)
            array = np.asarray(series.asarray(maxworkers=1))
            return native(_shaped(tiff, array))
    except _DAMAGE as error:
        raise _damaged(error, where, "TIFF") from None


def layout(file: IO[bytes], size: int, where: str) -> _npy.Plan | None:
    """Return where the pixels of an uncompressed TIFF lie; None if they are not in one piece."""
    try:
        with _open_tiff(file) as tiff:
            series = _series(tiff, size, where)
            offset = series.dataoffset
            if offset is None or series.dtype is None or series.dtype.kind == "b":
                return None
            dtype = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
            shape = _kept_shape(tiff, math.prod(series.shape)) or tuple(int(length) for length in series.shape)
            plan = _npy.Plan(int(offset), shape, dtype)
            return plan if plan.offset + plan.nbytes <= size else None
    except _DAMAGE as error:
        raise _damaged(error, where, "TIFF") from None


def _series(tiff: Any, size: int, where: str) -> Any:
    """Return the first series, if it can be as large as it says."""
    found = tiff.series
    if not found:
        raise DatasetError(f"{where}: is a TIFF without an image")
    series = found[0]
    if series.dtype is None or np.dtype(series.dtype).hasobject:
        raise DatasetError(f"{where}: has pixels of a type that is not known")
    nbytes = math.prod(int(length) for length in series.shape) * series.dtype.itemsize
    packed = bool(series.keyframe.is_contiguous or int(series.keyframe.compression) == 1) and series.dtype.kind != "b"
    if nbytes > size * (8 if packed else _EXPANSION) or nbytes == 0:
        raise DatasetError(f"{where}: says it has {nbytes} bytes of pixels, which its {size} bytes cannot hold: it is damaged")
    return series


def _shaped(tiff: Any, array: NDArray[Any]) -> NDArray[Any]:
    shape = _kept_shape(tiff, array.size)
    return array.reshape(shape) if shape is not None else array


def _kept_shape(tiff: Any, size: int) -> tuple[int, ...] | None:
    kept = (tiff.imagej_metadata or {}).get(_SHAPE)
    if kept is None and tiff.shaped_metadata:
        kept = tiff.shaped_metadata[0].get(_SHAPE)
    if kept is None:
        return None
    shape = tuple(int(length) for length in str(kept).split(","))
    if min(shape) < 1 or math.prod(shape) != size:
        raise ValueError(f"its description says the shape is {kept}")
    return shape


def _damaged(error: BaseException, where: str, what: str) -> Exception:
    if isinstance(error, DatasetError | BackendUnavailableError):
        return error
    said = str(error).splitlines()
    return DatasetError(
        f"{where}: is not a {what} that can be read, or is damaged ({type(error).__name__}: {said[0] if said else ''})"
    )


# ---------------------------------------------------------------------- PNG


def check_png(array: NDArray[Any]) -> None:
    """Raise ConfigError for an array that PNG cannot hold."""
    grey = array.ndim == 2 and array.dtype.name in ("uint8", "uint16")
    colour = array.ndim == 3 and array.shape[-1] in (3, 4) and array.dtype == np.uint8
    if not (grey or colour) or not array.size:
        raise ConfigError(
            f"PNG holds uint8 and uint16 images (y, x) and uint8 images (y, x, rgb or rgba), not {array.dtype.name} "
            f"{array.shape}; .tif or .npy may hold it"
        )


def write_png(file: IO[bytes], array: NDArray[Any]) -> None:
    """Write an image (y, x), (y, x, rgb) or (y, x, rgba)."""
    imageio = _need("imageio.v3", "png", "PNG")
    imageio.imwrite(file, np.ascontiguousarray(array), extension=".png", plugin="pillow")


def read_png(file: IO[bytes], size: int, where: str) -> NDArray[Any]:
    """Return the image of a PNG (the first, if it moves)."""
    imageio = _need("imageio.v3", "png", "PNG")
    start = os.pread(file.fileno(), 24, 0)
    if len(start) < 24 or start[:8] != b"\x89PNG\r\n\x1a\n" or start[12:16] != b"IHDR":
        raise DatasetError(f"{where}: is not a PNG, or is damaged")
    width, height = struct.unpack(">II", start[16:24])
    if width * height > size * _EXPANSION * 8 or not width or not height:
        raise DatasetError(f"{where}: says it has {width} x {height} pixels, which its {size} bytes cannot hold: it is damaged")
    try:
        return native(np.array(imageio.imread(file, index=0, extension=".png", plugin="pillow")))
    except _DAMAGE as error:
        raise _damaged(error, where, "PNG") from None
