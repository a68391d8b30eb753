"""How pixels of NumPy become pixels of ImageJ, which has four kinds: 8 bits, 16 bits, 32-bit floats and RGB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.model.errors import ConfigError

__all__ = ["StoredForm", "stored_form"]

_SIGN = 0x8000


@dataclass(frozen=True)
class StoredForm:
    """How ImageJ holds pixels of a dtype.

    Parameters
    ----------
    word : str
        The protocol's word for it: ``"u8"``, ``"u16"``, ``"i16"``, ``"f32"`` or ``"rgb"``.
    dtype : dtype
        Of the values as they are stored.
    source : dtype
        Of the values as they are given.
    offset : float
        What is added to a value before it is stored; ImageJ's calibration takes it away again.
    factor : float
        By what a value is multiplied.
    exact : bool
        Whether each value can be had back.
    """

    word: str
    dtype: np.dtype[Any]
    source: np.dtype[Any]
    offset: float = 0.0
    factor: float = 1.0
    exact: bool = True

    @property
    def rgb(self) -> bool:
        """Whether the last axis is colour."""
        return self.word == "rgb"

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of a stored plane."""
        return (height, width, 3) if self.rgb else (height, width)

    def store(self, plane: NDArray[Any], out: NDArray[Any]) -> None:
        """Write a plane as ImageJ stores it.

        Parameters
        ----------
        plane : ndarray, shape (y, x) or (y, x, 3 or 4)
            Of dtype `source`.
        out : ndarray
            Of `shape` and `dtype`.
        """
        if self.word == "rgb":
            np.copyto(out, plane[..., :3] >> 8 if self.source.itemsize == 2 else plane[..., :3], casting="unsafe")
        elif self.word == "i16":
            np.copyto(out.view(np.int16), plane)
            np.bitwise_xor(out, np.uint16(_SIGN), out=out)
        elif self.source == np.bool_:
            np.multiply(plane, np.uint8(255), out=out)
        else:
            with np.errstate(over="ignore"):
                np.copyto(out, plane, casting="unsafe")

    def restore(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return a stored plane in the values that were given; 32-bit floats, or RGB of 8 bits, where those are not `exact`."""
        if self.word == "i16":
            signed: NDArray[Any] = np.bitwise_xor(stored, np.uint16(_SIGN)).view(np.int16)
            return signed.astype(self.source)
        if self.source == np.bool_:
            return stored > 0
        return stored.astype(self.source) if self.exact and not self.rgb else stored

    def level(self, value: float) -> float:
        """Return a limit of the contrast in stored values."""
        return value * self.factor + self.offset

    def value(self, level: float) -> float:
        """Return a limit of the contrast in the values that were given."""
        return (level - self.offset) / self.factor


def stored_form(dtype: np.dtype[Any], rgb: bool = False) -> StoredForm:
    """Return how ImageJ holds pixels of a dtype.

    ======================== =================================================================================
    given                    stored
    ======================== =================================================================================
    uint8, uint16, float32   as they are
    bool                     8 bits, 0 and 255
    int8, int16              16 bits, 32768 added, with ImageJ's calibration for signed pixels
    float16                  32-bit float, exactly
    (u)int32, (u)int64       32-bit float: exact up to 2**24, rounded beyond
    float64                  32-bit float, rounded; infinite beyond 3.4e38
    RGB, RGBA of uint8       RGB; the fourth colour is left out
    RGB, RGBA of uint16      RGB, the upper 8 bits of each
    ======================== =================================================================================

    Raises
    ------
    ConfigError
        If ImageJ has nothing for it.

    Examples
    --------
    >>> stored_form(np.dtype("int16")).word, stored_form(np.dtype("uint32")).exact
    ('i16', False)
    """
    source = np.dtype(dtype)
    if rgb:
        if source not in (np.uint8, np.uint16):
            raise ConfigError(f"ImageJ's RGB has 8 bits a colour: give uint8 or uint16, not {source}")
        return StoredForm("rgb", np.dtype(np.uint8), source, exact=source == np.uint8)
    if source == np.bool_:
        return StoredForm("u8", np.dtype(np.uint8), source, factor=255.0)
    if source in (np.uint8, np.uint16, np.float32):
        return StoredForm({1: "u8", 2: "u16", 4: "f32"}[source.itemsize], source, source)
    if source in (np.int8, np.int16):
        return StoredForm("i16", np.dtype(np.uint16), source, offset=float(_SIGN))
    if source.kind in "iuf" and source.itemsize <= 8:
        return StoredForm("f32", np.dtype(np.float32), source, exact=source == np.float16)
    raise ConfigError(f"ImageJ has no pixels of dtype {source}: give integers, floats of at most 64 bits, or bool")
