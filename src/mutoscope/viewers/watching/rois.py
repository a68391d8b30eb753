"""The ROIs of a camera in a viewer that watches: what the scope has, what a person has changed, and what the layer holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mutoscope.model.roi import Roi
from mutoscope.viewers.roi_pack import PackedRois, pack_rois, unpack_rois

__all__ = ["Edit", "RoiSheet"]


class Edit(NamedTuple):
    """What a person has done to a ROI: `roi` is the whole of it, or None where it was removed.

    `revision` is that of the scope's ROI which the person saw; None of a new one.
    """

    roi_id: str
    roi: Roi | None
    revision: int | None


class RoiSheet:
    """Keeps apart what the scope has and what a person has changed and the scope has yet to confirm. For one thread at a time.

    What the viewer's layer holds is known, too: it is drawn again only where it has to differ, and so nothing comes back to a
    person as an echo.
    """

    def __init__(self) -> None:
        self._truth: dict[str, tuple[Roi, int]] = {}
        self._local: dict[str, Roi | None] = {}
        self._held: dict[str, Roi] = {}
        self._unsent: dict[str, None] = {}
        self._touched = True

    # -- from the scope

    def hear_all(self, rois: Iterable[tuple[Roi, int]]) -> None:
        """These, each with its revision, are all there are."""
        self._truth = {roi.id: (roi, revision) for roi, revision in rois}
        self._touched = True

    def hear(self, roi: Roi, revision: int) -> None:
        """A ROI is new or has changed."""
        known = self._truth.get(roi.id)
        if known is None or known[1] < revision:
            self._truth[roi.id] = roi, revision
        self._touched = True

    def hear_removed(self, roi_id: str) -> None:
        """A ROI was removed."""
        self._truth.pop(roi_id, None)
        self._touched = True

    # -- from the person

    def edit(self, roi_id: str, roi: Roi | None) -> bool:
        """A person has changed or (None) removed a ROI, and the layer holds it so; returns whether it is to be sent."""
        if roi is None:
            self._held.pop(roi_id, None)
        else:
            self._held[roi_id] = roi
        if self._now(roi_id) == roi:
            return False
        self._local[roi_id] = roi
        self._unsent[roi_id] = None
        return True

    def take_unsent(self) -> list[Edit]:
        """Return the edits that are to be sent, the newest of each ROI."""
        edits = []
        for roi_id in self._unsent:
            known, roi = self._truth.get(roi_id), self._local[roi_id]
            if roi is None and known is None:
                del self._local[roi_id]  # it was drawn and removed before the scope had it
            else:
                edits.append(Edit(roi_id, roi, None if known is None else known[1]))
        self._unsent.clear()
        return edits

    def confirm(self, edit: Edit, revision: int) -> None:
        """The scope has taken an edit."""
        if edit.roi is None:
            known = self._truth.get(edit.roi_id)
            if known is not None and known[1] < revision:
                del self._truth[edit.roi_id]
        else:
            self.hear(edit.roi, revision)
        self._settle(edit)

    def set_back(self, edit: Edit) -> None:
        """The scope has refused an edit: what it has is shown again."""
        self._settle(edit)

    def _settle(self, edit: Edit) -> None:
        if edit.roi_id not in self._unsent:
            self._local.pop(edit.roi_id, None)
        self._touched = True

    def send_again(self, edit: Edit) -> None:
        """An edit did not get there."""
        if edit.roi_id in self._local:
            self._unsent[edit.roi_id] = None

    def forget_edits(self) -> None:
        """What was not confirmed is not to be."""
        self._local.clear()
        self._unsent.clear()
        self._touched = True

    # -- for the viewer

    def _now(self, roi_id: str) -> Roi | None:
        if roi_id in self._local:
            return self._local[roi_id]
        known = self._truth.get(roi_id)
        return None if known is None else known[0]

    def take(self) -> PackedRois | None:
        """Return what the layer has to hold from now on; None if it holds that already."""
        if not self._touched:
            return None
        self._touched = False
        wanted = {roi_id: roi for roi_id, (roi, _) in self._truth.items()}
        for roi_id, roi in self._local.items():
            if roi is None:
                wanted.pop(roi_id, None)
            else:
                wanted[roi_id] = roi
        if wanted == self._held:
            return None
        self._held = wanted
        return self.packed()

    def packed(self) -> PackedRois:
        """Return what the layer holds."""
        return unpack_rois(pack_rois(list(self._held.values())))
