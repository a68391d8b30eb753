"""The ring's functions of the native core, and the layout of what they exchange with Python.

Calls that may wait release the interpreter lock (``library``); the others keep it (``_quick``): they take less than a
microsecond, and giving the lock away for so short a time costs more than it brings.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from typing import Any

from mutoscope.frames._native import library

MAX_ROWS = 64
MAX_PINS = 256
NAME_BYTES = 32

OK = 0
WAIT = 1
TIMEOUT = 2
INTERRUPTED = 3
CLOSED = 4
LIMIT = 5
LOST = 6
SIGNAL = 7
INVALID = 8
NO_ROW = 9
NO_GROUP = 10
BUSY = 11

POLICIES = {"every": 1, "latest": 2, "share": 3}
ON_FULL = {"block": 1, "drop": 2, "detach": 3}

HEADER = struct.Struct("<QQqqdII8s4iII64s")
"""frame_id, tick, monotonic_ns, utc_ns, exposure_ms, height, width, dtype, t, c, z, position, user size, spare, user block"""
FRONT = struct.Struct("<IIQQQ")
"""Of a delivery: slot, pin, first lost id and count before this frame, frame_id"""
HEADER_AT = 24
FORM = slice(64, 80)
"""Of a delivery: height, width and dtype, which together say what the pixels are."""
FORM_LAYOUT = struct.Struct("<II8s")
DELIVERY_BYTES = HEADER_AT + HEADER.size

_quick = ctypes.PyDLL(library._name)
_pointer = ctypes.c_void_p
_numbers = ctypes.POINTER(ctypes.c_uint64)
_u32, _u64, _i32, _i64, _int = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int32, ctypes.c_int64, ctypes.c_int


def _function(name: str, arguments: Sequence[Any], result: Any = None, *, waits: bool = False) -> Callable[..., Any]:
    function = getattr(library if waits else _quick, name)
    function.argtypes = list(arguments)
    function.restype = result
    return function  # type: ignore[no-any-return]


class RowRequest(ctypes.Structure):
    """What a reader asks for (``row_request`` in ring.c)."""

    _fields_ = [
        ("row", _i32),
        ("policy", _u32),
        ("on_full", _u32),
        ("leases", _u32),
        ("pid", _u32),
        ("oldest", _u32),
        ("lag_limit", _u64),
        ("watched", _u64),
        ("keeps_log", _u64),
        ("name", ctypes.c_char * NAME_BYTES),
        ("group", ctypes.c_char * NAME_BYTES),
    ]


def descriptors(fds: Sequence[int]) -> ctypes.Array[ctypes.c_int]:
    """Return `fds` as the array that the ``*_open`` calls take."""
    return (ctypes.c_int * len(fds))(*fds)


control_bytes = _function("mutoscope_ring_control_bytes", [_u64, _u64, _u64], _u64)
format_control = _function("mutoscope_ring_format", [_pointer, _u64, _u64, _u64])
check_control = _function("mutoscope_ring_check", [_pointer, _u64], _int)
begin = _function("mutoscope_ring_begin", [_pointer, _u64], None)
unfinished = _function("mutoscope_ring_unfinished", [_pointer, _u32, _u64], _int)
head = _function("mutoscope_ring_head", [_pointer], _u64)
own = _function("mutoscope_ring_own", [_int, _u64, _u32, ctypes.POINTER(_int)], _pointer)
watch = _function("mutoscope_ring_watch", [_pointer], _int)
assign = _function("mutoscope_ring_assign", [_pointer, ctypes.POINTER(RowRequest)], _i64, waits=True)
caps = _function("mutoscope_ring_caps", [_pointer, _i32], _u32)
assign_writer = _function("mutoscope_ring_assign_writer", [_pointer, _u32, _int], _int, waits=True)
writer_died = _function("mutoscope_ring_writer_died", [_pointer], waits=True)
reader_died = _function("mutoscope_ring_reader_died", [_pointer, _u32, _int], waits=True)
close_ring = _function("mutoscope_ring_close", [_pointer], waits=True)
look_at_row = _function("mutoscope_ring_row", [_pointer, _u32, _numbers, ctypes.c_char_p])
look_at_dropped = _function("mutoscope_ring_dropped", [_pointer, _u32, _u64, _u64, _numbers, _numbers], _u64)
log_read = _function("mutoscope_ring_log_read", [_pointer, _u32, _u64])
look_at_ring = _function("mutoscope_ring_look", [_pointer, _numbers])

reader_open = _function("mutoscope_reader_open", [_pointer, _u32, _u32, ctypes.POINTER(_int), _i64], _pointer)
reader_drain = _function("mutoscope_reader_drain", [_pointer], None)
reader_interrupt = _function("mutoscope_reader_interrupt", [_pointer, _int], _int)
reader_take = _function("mutoscope_reader_take", [_pointer, _pointer], _int)
reader_wait = _function("mutoscope_reader_wait", [_pointer, _i64, _pointer], _int, waits=True)
reader_release = _function("mutoscope_reader_release", [_pointer, _u32])
reader_commit = _function("mutoscope_reader_commit", [_pointer, _u64], _int)
reader_look = _function("mutoscope_reader_look", [_pointer, _numbers])
reader_leave = _function("mutoscope_reader_leave", [_pointer])
reader_hand_over = _function("mutoscope_reader_hand_over", [_pointer])
reader_free = _function("mutoscope_reader_free", [_pointer])

writer_open = _function("mutoscope_writer_open", [_pointer, _u32, ctypes.POINTER(_int)], _pointer)
writer_interrupt = _function("mutoscope_writer_interrupt", [_pointer, _int])
writer_claim = _function("mutoscope_writer_claim", [_pointer], _i64)
writer_wait = _function("mutoscope_writer_wait", [_pointer, _i64], _i64, waits=True)
writer_publish = _function("mutoscope_writer_publish", [_pointer, _u32, _pointer], _u64)
writer_discard = _function("mutoscope_writer_discard", [_pointer, _u32])
writer_leave = _function("mutoscope_writer_leave", [_pointer])
writer_hand_over = _function("mutoscope_writer_hand_over", [_pointer])
writer_free = _function("mutoscope_writer_free", [_pointer])
