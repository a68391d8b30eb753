"""What ``hello`` says of a stream, wherever its frames come from."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np

from mutoscope.viewers.page.pixels import sent_dtype, value_range
from mutoscope.viewers.page.streams import PageStream

__all__ = ["stream_hello", "version"]


def version() -> str:
    """Return the version of Mutoscope."""
    try:
        return metadata.version("mutoscope")
    except metadata.PackageNotFoundError:
        return "unknown"


def stream_hello(stream: PageStream) -> dict[str, Any]:
    """Return name, number, shape and types of a stream's frames."""
    dtype = np.dtype(stream.form.dtype)
    return {
        "name": stream.name,
        "index": stream.index,
        "shape": stream.form.shape,
        "dtype": stream.form.dtype,
        "sent_dtype": sent_dtype(dtype),
        "range": value_range(dtype),
    }
