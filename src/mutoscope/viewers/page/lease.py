"""Who has control: one client at a time, for a while, for all to see."""

from __future__ import annotations

import time
from collections.abc import Callable

from mutoscope.viewers.page.messages import Refused

__all__ = ["Lease"]


class Lease:
    """The control of a scope. For one thread.

    Parameters
    ----------
    lasts_s : float
        How long it is kept after the last use.
    on_change : callable
        Called when it has another holder, another name, or was renewed.

    Examples
    --------
    >>> lease = Lease(60.0, lambda: None)
    >>> lease.take("c1", "Ada")
    >>> lease.check("c2")
    Traceback (most recent call last):
    mutoscope.viewers.page.messages.Refused: ('lease', "control is Ada's for another 60 s")
    """

    def __init__(self, lasts_s: float, on_change: Callable[[], None]) -> None:
        self.lasts_s = lasts_s
        self.holder: str | None = None
        self.name = ""
        self.brief = False
        self._until = 0.0
        self._on_change = on_change

    @property
    def expires_in_s(self) -> float:
        """Seconds that are left."""
        return max(0.0, self._until - time.monotonic()) if self.holder is not None else 0.0

    def take(self, client: str, name: str, brief: bool = False) -> None:
        """Take or renew it; raises Refused while another client has it. `brief`: for some edits, to be given back soon."""
        self.expire()
        if self.holder not in (None, client):
            raise Refused("lease", self._taken())
        self.holder, self.name = client, name or self.name if self.holder == client else name
        self.brief = brief
        self._renew()

    def release(self, client: str) -> None:
        """Give it back, if it is this client's."""
        if self.holder == client:
            self.holder, self.name = None, ""
            self._on_change()

    def check(self, client: str) -> None:
        """Renew it for its holder; raises Refused for anyone else."""
        self.expire()
        if self.holder == client:
            self._renew()
        elif self.holder is None:
            raise Refused("lease", "take control first")
        else:
            raise Refused("lease", self._taken())

    def expire(self) -> None:
        """Free it if its time is over."""
        if self.holder is not None and not self.expires_in_s:
            self.holder, self.name = None, ""
            self._on_change()

    def _renew(self) -> None:
        self._until = time.monotonic() + self.lasts_s
        self._on_change()

    def _taken(self) -> str:
        return f"control is {self.name or self.holder}'s for another {self.expires_in_s:.0f} s"
