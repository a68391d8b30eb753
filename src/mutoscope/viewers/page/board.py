"""The ROIs of all streams, as they are now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from mutoscope.model.roi import Roi
from mutoscope.runtime import ImageRoi
from mutoscope.viewers.page.messages import Refused

__all__ = ["ROIS", "ROI_BYTES", "RoiBoard"]

ROIS = 2000
ROI_BYTES = 16 << 20
"""Of all ROIs together, as they are told: whoever comes is sent them all at once, and so is the scope after each change."""


class RoiBoard:
    """All ROIs, each known by its stream and id, with the revision at which it last changed. For one thread.

    Parameters
    ----------
    on_change : callable(message)
        Hears of each change, as the protocol's ``roi``; of many at once, as ``rois``.
    """

    def __init__(self, on_change: Callable[[dict[str, Any]], None]) -> None:
        self.revision = 0
        self._rois: dict[tuple[str, str], ImageRoi] = {}
        self._sizes: dict[tuple[str, str], int] = {}
        self._bytes = 0
        self._on_change = on_change

    def put(self, stream: str, roi: Roi, origin: str, revision: int | None = None) -> int:
        """Make or replace a ROI; returns the new revision.

        Raises
        ------
        Refused
            If `revision` is given and the ROI has changed since, or there are too many, or they are too large together.
        """
        key = (stream, roi.id)
        known = self._rois.get(key)
        if known is None and len(self._rois) >= ROIS:
            raise Refused("refused", f"there are {ROIS:,} ROIs already: remove some")
        if revision is not None and known is not None and known.revision > revision:
            raise Refused("refused", f"ROI {roi.id} was changed meanwhile (revision {known.revision})")
        if revision is not None and known is None:
            raise Refused("unknown", f"ROI {roi.id} was removed meanwhile")
        plain = msgspec.to_builtins(roi, builtin_types=())
        size = _size(plain)
        if self._bytes - self._sizes.get(key, 0) + size > ROI_BYTES:
            raise Refused(
                "refused", f"the ROIs would be larger than {ROI_BYTES:,} bytes together: remove some, or draw it coarser"
            )
        self.revision += 1
        self._enter(key, ImageRoi(stream, roi, self.revision), size)
        message = {"type": "roi", "revision": self.revision, "stream": stream, "origin": origin}
        self._on_change({**message, "roi": plain})
        return self.revision

    def remove(self, stream: str, roi_id: str, origin: str) -> int:
        """Remove a ROI; returns the new revision. Refused if there is none."""
        if self._rois.pop((stream, roi_id), None) is None:
            raise Refused("unknown", f"there is no ROI {roi_id!r} on {stream}")
        self._bytes -= self._sizes.pop((stream, roi_id))
        self.revision += 1
        self._on_change({"type": "roi", "revision": self.revision, "stream": stream, "origin": origin, "removed": roi_id})
        return self.revision

    def get(self, stream: str, roi_id: str) -> Roi | None:
        """Return one of them."""
        known = self._rois.get((stream, roi_id))
        return None if known is None else known.roi

    def restore(self, rois: Iterable[ImageRoi], revision: int) -> None:
        """Take over what a predecessor had."""
        self._rois, self._sizes, self._bytes = {}, {}, 0
        for each in rois:
            self._enter((each.image, each.roi.id), each, _size(msgspec.to_builtins(each.roi, builtin_types=())))
        self.revision = revision
        self._on_change(self.message())

    def _enter(self, key: tuple[str, str], entry: ImageRoi, size: int) -> None:
        self._bytes += size - self._sizes.get(key, 0)
        self._rois[key], self._sizes[key] = entry, size

    def all(self) -> list[ImageRoi]:
        """Return all of them."""
        return list(self._rois.values())

    def message(self) -> dict[str, Any]:
        """All of them, as the protocol's ``rois``."""
        rois = [
            {"stream": each.image, "revision": each.revision, "roi": msgspec.to_builtins(each.roi, builtin_types=())}
            for each in self._rois.values()
        ]
        return {"type": "rois", "revision": self.revision, "rois": rois}


def _size(plain: Any) -> int:
    return len(msgspec.json.encode(plain))
