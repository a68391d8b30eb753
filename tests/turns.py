"""Turns on the machine between the workers of a parallel test session: a test marked ``alone`` runs while no other does.

Two locks of files that the session shares. Who wants a turn takes the door first; one that is to be alone keeps the door
until it is done, so nobody comes in meanwhile.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Turns:
    """The turns of one worker.

    Parameters
    ----------
    folder : Path
        One for the whole session.
    """

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._door = os.open(folder / "door.lock", flags, 0o600)
        self._room = os.open(folder / "room.lock", flags, 0o600)
        self._alone = False

    def begin(self, *, alone: bool) -> None:
        """Wait for a turn; one that `end` was told to keep goes on."""
        if self._alone:
            return
        fcntl.flock(self._door, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(self._door, fcntl.LOCK_UN)
        self._alone = alone

    def end(self, *, keep: bool) -> None:
        """End a turn, unless it was alone and the next one is to be so, too."""
        if self._alone and keep:
            return
        self._alone = False
        fcntl.flock(self._room, fcntl.LOCK_UN)
        fcntl.flock(self._door, fcntl.LOCK_UN)
