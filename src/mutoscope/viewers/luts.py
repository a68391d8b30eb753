"""Look-up tables by name: those that the page has, for viewers that take colours."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np

__all__ = ["lut_bytes", "with_gamma"]


@functools.cache
def _tables() -> dict[str, str]:
    tables: dict[str, str] = json.loads(Path(__file__).with_name("luts.json").read_text(encoding="utf-8"))["luts"]
    return tables


def lut_bytes(name: str) -> bytes | None:
    """Return 256 reds, 256 greens and 256 blues; None if there is no table of this name.

    Parameters
    ----------
    name : str
        Upper and lower case are the same; ``"gray"``, ``"grey"`` and ``"greys"`` are ``"grays"``.

    Examples
    --------
    >>> lut_bytes("Green")[256:512] == bytes(range(256))
    True
    """
    wanted = name.casefold()
    text = _tables().get("grays" if wanted in ("gray", "grey", "greys") else wanted)
    if text is None:
        return None
    return np.frombuffer(bytes.fromhex(text), np.uint8).reshape(256, 3).T.tobytes()


def with_gamma(colours: bytes, gamma: float) -> bytes:
    """Return a table bent by a gamma above 0: the colour of index i is that of ``255 * (i / 255) ** gamma``, rounded."""
    if gamma == 1.0:
        return colours
    indices = np.floor(255 * (np.arange(256) / 255) ** gamma + 0.5).astype(np.intp)
    return np.frombuffer(colours, np.uint8).reshape(3, 256)[:, indices].tobytes()
