"""Look-up tables by name, as colormaps of napari."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from mutoscope.viewers.luts import lut_bytes

__all__ = ["DEFAULT_LUT", "lut_named"]

log = logging.getLogger(__name__)

DEFAULT_LUT = "gray"


def lut_named(name: str) -> Any:
    """Return the colormap of this name: the table that every viewer of ours has, else one of napari, vispy or matplotlib.

    Grey, which the log says, if there is none.
    """
    from napari.utils.colormaps import AVAILABLE_COLORMAPS, Colormap, ensure_colormap

    table = lut_bytes(name)
    if table is not None:
        colours = np.frombuffer(table, np.uint8).reshape(3, 256).T
        own = AVAILABLE_COLORMAPS.get(name)
        if own is not None and np.array_equal(np.rint(255 * own.map(np.linspace(0, 1, 256)))[:, :3], colours):
            return own  # the same, under the name that napari has it by
        return Colormap(colours / 255, name=name, interpolation="linear")
    try:
        return ensure_colormap(name)
    except (KeyError, TypeError, ValueError) as error:
        log.warning("there is no look-up table %r (%s): it is shown in grey", name, str(error)[:200])
        return lut_named(DEFAULT_LUT)
