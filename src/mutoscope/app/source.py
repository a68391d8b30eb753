"""A source: the user's own process in the place of a camera."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mutoscope import storage
from mutoscope.app.composition import SourceSettings
from mutoscope.frames import FrameWriter
from mutoscope.model.arguments import shown
from mutoscope.model.errors import ConfigError

__all__ = ["Source"]


class Source:
    """The user's own process as a camera. From :meth:`Scope.source`; one thread at a time.

    Every frame has the shape and dtype of its :class:`SourceSettings`, unless those say that it is `varying`.
    """

    def __init__(self, name: str, settings: SourceSettings, writer: FrameWriter, *, recorded: bool) -> None:
        self._name = name
        self._settings = settings
        self._writer = writer
        self._recorded = recorded
        self._shape = (int(settings.shape[0]), int(settings.shape[1]))
        self._dtype = np.dtype(settings.dtype)
        self._most = self._shape[0] * self._shape[1] * self._dtype.itemsize
        self._largest = f"{_by(self._shape)} px of {self._dtype}"

    def push(self, array: npt.NDArray[Any], **metadata: Any) -> int:
        """Copy a frame into the ring, once, and publish it; returns its ``frame_id``. See :meth:`FrameWriter.push`.

        Raises
        ------
        ConfigError
            A ValueError: the frame is not what the source declared. No ``frame_id`` is used.
        """
        if type(array) is not np.ndarray:
            array = np.asarray(array)
        if array.shape != self._shape or array.dtype != self._dtype:
            if array.dtype.newbyteorder("=") != array.dtype:
                array = array.astype(array.dtype.newbyteorder("="))
            self._check(array.shape, array.dtype)
        return self._writer.push(array, **metadata)

    def slot(self, shape: tuple[int, int] | None = None, dtype: npt.DTypeLike | None = None, **metadata: Any) -> Any:
        """A free slot to fill in place, published on leaving the ``with`` block. See :meth:`FrameWriter.slot`.

        Parameters
        ----------
        shape, dtype : optional
            As declared, if not given.
        **metadata
            See :meth:`FrameWriter.slot`.

        Raises
        ------
        ConfigError
            A ValueError: the frame is not what the source declared. No ``frame_id`` is used.
        """
        try:
            wanted = self._shape if shape is None else tuple(shape)
            kind = self._dtype if dtype is None else np.dtype(dtype)
        except (TypeError, ValueError, SyntaxError):
            raise ConfigError(f"a slot has a shape (y, x) and a NumPy type, not {shown(shape)} and {shown(dtype)}") from None
        if wanted != self._shape or kind != self._dtype:
            self._check(wanted, kind)
        return self._writer.slot(wanted, kind, **metadata)

    def _check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse a form that was not declared; where forms vary, what cannot be stored. What is not refused is the form now."""
        if (shape, dtype) == (self._shape, self._dtype):
            return
        if not self._settings.varying:
            raise ConfigError(
                f"source {self._name!r} was declared with frames of {self._largest}, and this one is {_by(shape)} px of "
                f"{dtype}; SourceSettings(…, varying=True) lets them change"
            )
        if len(shape) != 2 or min(shape) < 1:
            raise ConfigError(f"a frame has shape (y, x) with at least one pixel, not {shape}")
        if dtype.kind not in "biufc":
            raise ConfigError(f"the pixels of a frame are bool, integer, float or complex, not {dtype}")
        if (size := shape[0] * shape[1] * dtype.itemsize) > self._most:
            raise ConfigError(
                f"source {self._name!r} was declared with frames of at most {self._most:,} bytes ({self._largest}), and this "
                f"one, {_by(shape)} px of {dtype}, has {size:,}: declare the largest one in its SourceSettings"
            )
        if self._recorded:
            storage.CameraLayout((shape[0], shape[1]), dtype).level()  # refuses what cannot be stored
        self._shape, self._dtype = (shape[0], shape[1]), dtype


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "no"
