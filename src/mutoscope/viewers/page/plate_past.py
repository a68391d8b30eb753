"""A plate as the page shows it: each channel a stream, each field an image to choose, the planes of it its frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutoscope.storage.plate import PlateReader
from mutoscope.viewers.page.past import GAPS_TOLD, Crop, Index, PastFrame, Where, nearest
from mutoscope.viewers.page.pixels import Stamp

__all__ = ["PlatePast"]


class PlatePast:
    """The planes of one channel. Frame `1 + t * depth + z` of an image is its plane (t, z).

    Parameters
    ----------
    reader : PlateReader
        Of the plate; it may be shared, as all is read in one thread.
    channel : int
        From 0.
    """

    kind = "dataset"

    def __init__(self, reader: PlateReader, channel: int) -> None:
        self._reader = reader
        self._channel = channel

    def _stored(self, image: str | None) -> tuple[str, NDArray[np.bool_]]:
        """Return the image that is meant, the first one if none is, and which planes of it are stored, shape (t, z)."""
        images = self._reader.images
        name = images[0] if image is None and images else image
        if name is None or name not in images:
            raise LookupError(f"there is no image {image!r}" if image else "there is no image yet")
        try:
            stored = self._reader.stored(name)
        except KeyError:
            raise LookupError(f"image {name} is not there any more") from None
        if self._channel >= stored.shape[1]:
            return name, np.zeros((stored.shape[0], stored.shape[2]), dtype=bool)
        return name, stored[:, self._channel]

    def find(self, where: Where) -> PastFrame:
        """Return the nearest plane that is stored."""
        image, stored = self._stored(where.image)
        ids = np.flatnonzero(stored).astype(np.uint64) + np.uint64(1)
        if not len(ids):
            raise LookupError(f"{image} has no plane of this channel")
        number = nearest(where, ids, lambda: np.zeros(len(ids)))
        frame_id = int(ids[number])
        t, z = divmod(frame_id - 1, stored.shape[1])
        tcz = (t, self._channel, z)

        def read(crop: Crop, level: int) -> NDArray[Any]:
            y0, x0, y1, x1 = crop
            return self._reader.read(image, tcz, level=level, rows=slice(y0, y1), columns=slice(x0, x1))

        shape, _ = self._reader.form(image)
        stamp = Stamp(frame_id, plane=(t, self._channel, z, -1))
        return PastFrame(stamp, number, shape, self._reader.levels(image, tcz), read)

    def index(self, image: str | None = None) -> Index:
        """Say which planes there are; all that are declared and missing are gaps, also before the first and after the last."""
        _, stored = self._stored(image)
        flat = np.concatenate([[True], stored.ravel(), [True]])
        edges = np.flatnonzero(np.diff(flat.astype(np.int8)))
        gaps = [(int(first) + 1, int(last - first)) for first, last in edges.reshape(-1, 2)]
        told, rest = gaps[:GAPS_TOLD], sum(count for _, count in gaps[GAPS_TOLD:])
        return Index(1, stored.size, int(stored.sum()), None, None, told, rest)

    def close(self) -> None:
        """It holds nothing open."""
