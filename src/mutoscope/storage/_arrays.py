"""Arrays of any library, as NumPy arrays.

Nothing is imported for it: an array is asked for what it offers (DLPack, ``.cpu()``, ``.get()``, ``.copy_to_host()``,
``__cuda_array_interface__``, ``__array__``).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import BackendUnavailableError, ConfigError

__all__ = ["is_array", "native", "to_numpy"]

_HOST_DEVICES = {1, 3, 11}
"""Device types whose memory the CPU can read. Source: DLPack 1.0, ``DLDeviceType``: kDLCPU, kDLCUDAHost, kDLROCMHost."""

_OFFERS = ("__dlpack__", "__cuda_array_interface__", "__array_interface__", "__array__")
_REFUSALS = (BufferError, TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError)
"""What libraries raise when an array cannot be handed over this way; the next way is tried."""


def is_array(data: object) -> bool:
    """Whether `data` is an array of some library."""
    return any(hasattr(data, offer) for offer in _OFFERS) or (
        hasattr(data, "shape") and hasattr(data, "dtype") and any(callable(getattr(data, name, None)) for name in _COPIES)
    )


_COPIES = ("get", "cpu", "copy_to_host")


def to_numpy(data: Any) -> NDArray[Any]:
    """Return an array of any library as a NumPy array in the native byte order.

    Parameters
    ----------
    data : array
        Of NumPy, torch, JAX, CuPy, pyclesperanto, numba, … on the CPU or a GPU.

    Returns
    -------
    ndarray
        It may share memory with `data`.

    Raises
    ------
    ConfigError
        If it is masked, holds Python objects, or cannot be turned into an array of numbers.
    BackendUnavailableError
        If it lies on a GPU and offers no copy, and CuPy, which could make one, is not installed.
    """
    if isinstance(data, np.ma.MaskedArray):
        raise ConfigError("a masked array cannot be stored: fill it, and store the mask beside it")
    array = np.asarray(data) if isinstance(data, np.ndarray | np.generic) else _foreign(data)
    if array.dtype.hasobject:
        raise ConfigError(f"an array of {array.dtype} holds Python objects and cannot be stored")
    return native(array)


def native(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array in the native byte order; a copy only if it was not."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _foreign(data: Any) -> NDArray[Any]:
    if callable(getattr(data, "detach", None)):  # torch: a tensor that records gradients gives no memory away
        data = data.detach()
    for way in (_by_dlpack, _by_cpu, _by_copy, _by_cuda, _by_array):
        found = way(data)
        if found is not None:
            return found
    raise ConfigError(f"a {type(data).__module__}.{type(data).__qualname__} cannot be turned into an array")


def _by_dlpack(data: Any) -> NDArray[Any] | None:
    device = getattr(data, "__dlpack_device__", None)
    if device is None or not hasattr(data, "__dlpack__"):
        return None
    try:
        return np.from_dlpack(data) if int(device()[0]) in _HOST_DEVICES else None
    except _REFUSALS:  # a dtype that DLPack or NumPy does not have (bfloat16, bool of an older version)
        return None


def _by_cpu(data: Any) -> NDArray[Any] | None:
    if not callable(getattr(data, "cpu", None)):
        return None
    host = data.cpu()
    found = _by_dlpack(host)
    return found if found is not None else _by_array(host)


def _by_copy(data: Any) -> NDArray[Any] | None:
    if not (hasattr(data, "shape") and hasattr(data, "dtype")):  # a mapping has `get`, too
        return None
    for name in ("get", "copy_to_host"):
        if callable(getattr(data, name, None)):
            try:
                host = getattr(data, name)()
            except TypeError:  # a `get` that wants a key is another thing
                continue
            if isinstance(host, np.ndarray):
                return host
    return None


def _by_cuda(data: Any) -> NDArray[Any] | None:
    if getattr(data, "__cuda_array_interface__", None) is None:
        return None
    try:
        cupy = import_module("cupy")
    except ImportError as error:
        raise BackendUnavailableError(
            f"a {type(data).__qualname__} lies on a GPU and offers no copy of itself; to have one made: "
            "pip install cupy-cuda12x (or hand over a copy in the host's memory)"
        ) from error
    found: NDArray[Any] = cupy.asnumpy(cupy.asarray(data))
    return found


def _by_array(data: Any) -> NDArray[Any] | None:
    if not (hasattr(data, "__array__") or hasattr(data, "__array_interface__")):
        return None
    try:
        return np.asarray(data)
    except _REFUSALS as error:
        raise ConfigError(f"a {type(data).__qualname__} cannot be turned into an array: {error}") from error
