"""Memory in which planes are handed over to ImageJ."""

from __future__ import annotations

import os

import numpy as np

from mutoscope.frames import _os

__all__ = ["SharedPlane"]


class SharedPlane:
    """Memory that a plane is handed over in; the plug-in maps it by the descriptor of this process."""

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.size = _os.round_to_page(size)
        self.fd = _os.create_segment("fiji", self.size)
        try:
            self.bytes = np.frombuffer(_os.map_segment(self.fd, self.size, writable=True), np.uint8)
        except BaseException:
            os.close(self.fd)
            raise

    @property
    def path(self) -> str:
        """Where another process of the same user finds it."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)
