"""What travels inside a message: msgpack of plain values, Structs and NumPy arrays, decoded by each side's own classes.

Arrays go as an extension type (dtype, shape, bytes). Object arrays are refused and nothing is ever unpickled.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, get_origin

import msgspec
import numpy as np

from mutoscope.model.errors import BadPayloadError, ConfigError

__all__ = ["MAX_PAYLOAD_BYTES", "Buffer", "check_encodable", "decode", "decoder", "encode", "encode_bare"]

MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
"""The largest payload of one message; larger data belong in a ring or a file."""

Buffer = bytes | bytearray | memoryview | msgspec.Raw

_ARRAY = 1
_PLAIN_DTYPE = re.compile(r"[<>|=][biufcSUVmM]\d+(\[[0-9a-zA-Z]+\])?")
_Field = tuple[str, str, tuple[int, ...]]


class _ArrayHeader(msgspec.Struct, frozen=True, array_like=True):
    dtype: str | tuple[_Field, ...]
    shape: tuple[int, ...]
    data: msgspec.Raw


_header_decoder = msgspec.msgpack.Decoder(_ArrayHeader)
_bytes_decoder = msgspec.msgpack.Decoder(memoryview)


def _describe(dtype: np.dtype[Any]) -> str | tuple[_Field, ...]:
    if dtype.hasobject:
        raise NotImplementedError("arrays of Python objects cannot be sent: send numbers, or a list of plain values")
    if dtype.fields is None:
        return dtype.str
    fields = []
    for name in dtype.names or ():
        field = dtype.fields[name][0]
        if field.base.fields is not None:
            raise NotImplementedError(f'field "{name}" of the array is itself structured: send it as an array of its own')
        fields.append((name, field.base.str, field.shape))
    return tuple(fields)


def _dtype(described: str | tuple[_Field, ...]) -> np.dtype[Any]:
    if isinstance(described, str):
        if not _PLAIN_DTYPE.fullmatch(described):
            raise ValueError(f"{described!r} is not a dtype that may be sent")
        return np.dtype(described)
    return np.dtype([(name, _dtype(plain), shape) for name, plain, shape in described])


def _encode_other(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        plain = np.ascontiguousarray(value).reshape(-1).view(np.uint8) if value.size else value
        packed = _encoder.encode((_describe(value.dtype), value.shape, plain.data if value.size else b""))
        return msgspec.msgpack.Ext(_ARRAY, packed)
    raise NotImplementedError(f"a value of type {type(value).__name__} cannot be sent")


def _decode_extension(code: int, data: memoryview) -> Any:
    if code != _ARRAY:
        raise ValueError(f"unknown extension type {code}")
    header = _header_decoder.decode(data)
    dtype = _dtype(header.dtype)
    content = _bytes_decoder.decode(header.data)
    if min(header.shape, default=1) < 0 or math.prod(header.shape) * dtype.itemsize != len(content) or dtype.itemsize == 0:
        raise ValueError(f"an array of shape {header.shape} and dtype {dtype} does not have {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(header.shape).copy()


def _decode_custom(kind: Any, value: Any) -> Any:
    wanted = get_origin(kind) or kind
    if isinstance(value, wanted):
        return value
    if issubclass(wanted, np.generic) and isinstance(value, bool | int | float | str | bytes):
        return wanted(value)
    raise ValueError(f"expected {wanted.__name__}, got {type(value).__name__}")


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_other)
encode_bare = _encoder.encode
"""As :func:`encode`, without its limit, and with whatever error comes."""


def encode(value: Any, *what: str) -> bytes:
    """Encode a payload.

    Parameters
    ----------
    value : object
        Plain values, Structs, dataclasses, NumPy scalars and arrays (without objects), nested as one likes.
    *what : str
        Named in the error, joined.

    Raises
    ------
    BadPayloadError
        If a value cannot be encoded, or the whole is larger than :data:`MAX_PAYLOAD_BYTES`.
    """
    try:
        packed = _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, NotImplementedError, RecursionError, msgspec.MsgspecError) as error:
        raise BadPayloadError(f"{''.join(what)} cannot be encoded: {error}") from error
    if len(packed) > MAX_PAYLOAD_BYTES:
        raise BadPayloadError(f"{''.join(what)} has {len(packed):,} bytes, at most {MAX_PAYLOAD_BYTES:,} go in one message")
    return packed


@functools.lru_cache(maxsize=1024)
def decoder(kind: Any = Any) -> Callable[[Buffer], Any]:
    """Return a function that decodes one payload to `kind`; cached."""
    try:
        return msgspec.msgpack.Decoder(kind, dec_hook=_decode_custom, ext_hook=_decode_extension).decode
    except (TypeError, NameError) as error:
        raise ConfigError(f"{getattr(kind, '__name__', kind)} cannot be sent: {error}") from error


def decode(payload: Buffer, kind: Any, *what: str) -> Any:
    """Decode one payload to `kind`; NumPy arrays arrive as writable copies.

    Raises
    ------
    BadPayloadError
        If the payload is malformed or does not fit `kind`; `what` names it.
    """
    try:
        return decoder(kind)(payload)
    except Exception as error:  # whatever the author's __post_init__ raises too: these values do not fit
        raise BadPayloadError(f"{''.join(what)}: {error}") from error


def check_encodable(kind: Any, what: str) -> None:
    """Raise ConfigError when a message class has a field that cannot be sent.

    Found from the annotations alone, so that it is known before anything runs.
    """
    try:
        described = msgspec.inspect.type_info(kind)
    except (TypeError, NameError) as error:
        raise ConfigError(f"{what} cannot be sent: {error}") from error
    _check(described, what, what, set())


def _check(described: Any, path: str, what: str, seen: set[type]) -> None:
    if isinstance(described, msgspec.inspect.CustomType):
        wanted = get_origin(described.cls) or described.cls
        if not (isinstance(wanted, type) and issubclass(wanted, np.ndarray | np.generic)):
            name = getattr(wanted, "__name__", str(wanted))
            raise ConfigError(f"{what} cannot be sent: {path} is of type {name}, which has no encoding")
        return
    cls = getattr(described, "cls", None)
    if isinstance(cls, type) and hasattr(described, "fields"):
        if cls in seen:
            return
        seen.add(cls)
    for name in getattr(described, "__struct_fields__", ()):
        value = getattr(described, name)
        if name == "fields":
            for field in value:
                _check(field.type, f"{path}.{field.name}", what, seen)
            continue
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, msgspec.inspect.Type):
                _check(inner, path, what, seen)
