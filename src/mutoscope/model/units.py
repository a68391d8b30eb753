"""Units, converted at the edges and nowhere else.

Inside Mutoscope a length is in micrometres (``_um``), an exposure in milliseconds (``_ms``), a time-out in seconds (``_s``)
and a time stamp in nanoseconds (``_ns``). Other people's units:

- useq-schema: ``MDAEvent.exposure`` is in milliseconds, ``min_start_time`` in seconds, positions in micrometres
  (useq-schema, ``useq._mda_event``).
- OME-XML: ``Plane/@ExposureTime`` and ``@DeltaT`` default to seconds, ``Pixels/@PhysicalSizeX`` to µm; the unit attributes may
  say otherwise (OME schema 2016-06, simple types ``UnitsTime`` and ``UnitsLength``).
- OME-Zarr (NGFF 0.4 and 0.5): axis units are full UDUNITS-2 names such as ``micrometer`` and ``millisecond``
  (NGFF specification, "axes" metadata).
- ImageJ: the ``unit`` of its TIFF description is ``micron``, ``um`` or ``\\u00B5m``
  (ImageJ, ``ij.io.FileOpener``, ``ij.measure.Calibration``).
"""

from __future__ import annotations

import math

from mutoscope.model.errors import ConfigError

__all__ = [
    "NGFF_LENGTH_UNIT",
    "NGFF_TIME_UNIT",
    "exposure_ms_from_ome",
    "exposure_s_for_ome",
    "length_um",
    "ms_to_s",
    "pixel_size_attributes_for_ome",
    "s_to_ms",
    "time_ms",
]

NGFF_LENGTH_UNIT = "micrometer"
NGFF_TIME_UNIT = "millisecond"

_MICRO_SIGN, _GREEK_MU = "\u00b5", "\u03bc"

_LENGTHS_UM = {
    "km": 1e9, "kilometer": 1e9,
    "m": 1e6, "meter": 1e6,
    "cm": 1e4, "centimeter": 1e4,
    "mm": 1e3, "millimeter": 1e3,
    _MICRO_SIGN + "m": 1.0, "um": 1.0, "micrometer": 1.0, "micron": 1.0, "microns": 1.0,
    "nm": 1e-3, "nanometer": 1e-3,
    "pm": 1e-6, "picometer": 1e-6,
    "\u00c5": 1e-4, "angstrom": 1e-4,
    "in": 25400.0, "inch": 25400.0,
}  # fmt: skip

_TIMES_MS = {
    "d": 86_400_000.0, "day": 86_400_000.0,
    "h": 3_600_000.0, "hour": 3_600_000.0,
    "min": 60_000.0, "minute": 60_000.0,
    "s": 1000.0, "second": 1000.0, "sec": 1000.0,
    "ms": 1.0, "millisecond": 1.0,
    _MICRO_SIGN + "s": 1e-3, "us": 1e-3, "microsecond": 1e-3,
    "ns": 1e-6, "nanosecond": 1e-6,
}  # fmt: skip


def ms_to_s(value_ms: float) -> float:
    """Convert milliseconds to seconds."""
    return value_ms / 1000.0


def s_to_ms(value_s: float) -> float:
    """Convert seconds to milliseconds."""
    return value_s * 1000.0


def length_um(value: float, unit: str) -> float:
    """Convert a length to micrometres.

    Parameters
    ----------
    value : float
        In `unit`.
    unit : str
        A unit of OME-XML, of NGFF, or of ImageJ.

    Raises
    ------
    ConfigError
        If the unit is not a length that is known here ("pixel" and "reference frame" are not).
    """
    return value * _factor(_LENGTHS_UM, unit, "length")


def time_ms(value: float, unit: str) -> float:
    """Convert a time to milliseconds; units as in :func:`length_um`."""
    return value * _factor(_TIMES_MS, unit, "time")


def exposure_ms_from_ome(exposure: float, unit: str = "s") -> float:
    """Convert ``Plane/@ExposureTime`` of OME-XML, in seconds unless it says otherwise, to milliseconds."""
    return time_ms(exposure, unit)


def exposure_s_for_ome(exposure_ms: float) -> float | None:
    """Convert an exposure to the seconds that OME-XML wants; None (leave the attribute out) where it is unknown."""
    return None if math.isnan(exposure_ms) else ms_to_s(exposure_ms)


def pixel_size_attributes_for_ome(pixel_size_um: float | None) -> dict[str, str]:
    """Return the attributes of ``Pixels`` that state a square pixel; none where the size is unknown.

    Examples
    --------
    >>> pixel_size_attributes_for_ome(0.065)["PhysicalSizeX"]
    '0.065'
    """
    if pixel_size_um is None:
        return {}
    size, unit = repr(float(pixel_size_um)), _MICRO_SIGN + "m"
    return {"PhysicalSizeX": size, "PhysicalSizeXUnit": unit, "PhysicalSizeY": size, "PhysicalSizeYUnit": unit}


def _factor(table: dict[str, float], unit: str, kind: str) -> float:
    name = unit.strip().replace("\\u00B5", _MICRO_SIGN).replace(_GREEK_MU, _MICRO_SIGN)
    factor = table.get(name, table.get(name.lower()))
    if factor is None:
        raise ConfigError(f"{unit!r} is not a unit of {kind} that is known here")
    return factor
