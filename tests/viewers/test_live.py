"""The feed of a viewer: what its consumer raises does not vanish with its thread."""

from __future__ import annotations

from typing import Any

import numpy as np

from mutoscope.frames import FrameRing
from mutoscope.viewers.live import LEASES, LiveFeed
from polling import until


class Clumsy:
    """Wants every frame, and drops the first."""

    def wanted_at(self) -> float | None:
        return 0.0

    def wants_again(self, frame_id: int) -> bool:
        return False

    def take(self, frame: Any, array: Any) -> None:
        raise ValueError("dropped it")


def test_what_ends_a_feed_is_kept_for_its_owner() -> None:
    with FrameRing(slots=8, slot_bytes=64) as ring:
        writer = ring.writer()
        feed = LiveFeed(ring.reader(policy="latest", leases=LEASES), Clumsy())
        try:
            feed.start()
            writer.push(np.zeros((4, 4), np.uint8))
            until(lambda: feed.failure is not None)
            assert str(feed.failure) == "dropped it"
        finally:
            feed.close()
            writer.close()
