"""The table functions of the native core, with their types.

They never wait, so they are called without giving up the interpreter lock: a busy thread beside cannot delay them.
"""

from __future__ import annotations

import ctypes

from mutoscope.frames._native import library

READERS = 16

_lib = ctypes.PyDLL(library._name)
_pointer, _u64, _int = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int
_u64_out = ctypes.POINTER(ctypes.c_uint64)

_signatures: dict[str, tuple[type | None, list[type]]] = {
    "bytes": (_u64, [_u64, _u64]),
    "control_bytes": (_u64, []),
    "init": (None, [_pointer, _u64, _u64]),
    "fits": (_int, [_pointer, _u64, _u64]),
    "set_writer": (None, [_pointer, _u64]),
    "close": (None, [_pointer]),
    "closed": (_int, [_pointer]),
    "head": (_u64, [_pointer]),
    "append": (ctypes.c_int64, [_pointer, _pointer, _u64, _pointer, _pointer, _u64]),
    "copy": (_u64, [_pointer, _u64, _u64, _pointer, _pointer]),
    "row_reset": (None, [_pointer, _int, _u64, _u64]),
    "row_inherit": (None, [_pointer, _int, _u64]),
    "row_leave": (None, [_pointer, _int, _u64]),
    "row_account": (None, [_pointer, _int, _u64_out, _u64_out, _u64_out]),
    "row_commit": (None, [_pointer, _int, _u64, _u64]),
    "row_sleep": (_int, [_pointer, _pointer, _int, _u64]),
    "row_awake": (None, [_pointer, _int]),
}
for _name, (_result, _arguments) in _signatures.items():
    _function = getattr(_lib, f"mutoscope_table_{_name}")
    _function.restype, _function.argtypes = _result, _arguments

table_bytes = _lib.mutoscope_table_bytes
control_bytes = _lib.mutoscope_table_control_bytes
init = _lib.mutoscope_table_init
fits = _lib.mutoscope_table_fits
set_writer = _lib.mutoscope_table_set_writer
close = _lib.mutoscope_table_close
closed = _lib.mutoscope_table_closed
head = _lib.mutoscope_table_head
append = _lib.mutoscope_table_append
copy = _lib.mutoscope_table_copy
row_reset = _lib.mutoscope_table_row_reset
row_inherit = _lib.mutoscope_table_row_inherit
row_leave = _lib.mutoscope_table_row_leave
row_commit = _lib.mutoscope_table_row_commit
row_sleep = _lib.mutoscope_table_row_sleep
row_awake = _lib.mutoscope_table_row_awake


def row_account(control: int, row: int) -> tuple[int, int, int]:
    """Return (cursor, lost, pid) of a reader's row, taken together."""
    cursor, lost, pid = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_uint64()
    _lib.mutoscope_table_row_account(control, row, ctypes.byref(cursor), ctypes.byref(lost), ctypes.byref(pid))
    return cursor.value, lost.value, pid.value
