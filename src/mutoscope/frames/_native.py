"""Loads the native core with ctypes. ``MUTOSCOPE_CORE_LIBRARY`` names another build, such as the one of the crash tests."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from mutoscope.frames._compile import CORE_DIR, LIBRARY_NAME
from mutoscope.model.errors import BackendUnavailableError

VARIABLE = "MUTOSCOPE_CORE_LIBRARY"


def _load() -> ctypes.CDLL:
    path = Path(os.environ.get(VARIABLE) or CORE_DIR / LIBRARY_NAME)
    if not path.exists():
        build = CORE_DIR.parent / "_compile.py"
        raise BackendUnavailableError(f"the native core {path.name} is not built; run: python {build}")
    return ctypes.CDLL(str(path), use_errno=True)


library = _load()
library.mutoscope_guard_start.argtypes = [
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int64,
]
library.mutoscope_guard_start.restype = ctypes.c_int
